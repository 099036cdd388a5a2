//! Real time: the threads that a machine has of its own.
//!
//! ```text
//!  hardware   ──locks──▶ Machine: the device catches up with the wall clock; what it says goes to the outbox
//!     ▲ sleeps until the device's next event, or until it is woken           │
//!     └── doorbell, cancel, reset, unplug, faults                            ▼
//!                                                       interrupt ──tells──▶ the library, no lock held
//! ```
//! So interrupts come on another context than submissions, timeouts and drops, and beside them, as on real hardware.
//!
//! # Who wakes whom
//! Whoever changes something lets go of the machine through [`Shared::release`], which wakes the hardware's thread if
//! something will now happen before it meant to look, and the interrupts' if there is something to tell and it sleeps. Both
//! look, and say that they will sleep, without letting go of the lock in between, so no wake-up is lost. An idle device
//! has no next event, and its thread sleeps until it is woken.
//!
//! # Time
//! The machine's time is read from the wall clock whenever its lock is taken, and never goes back. Every call that
//! changes the device first lets it catch up, so nothing happens in its past; what happened meanwhile has the time at
//! which it happened, not that at which a thread came to look.
//!
//! # Why it cannot deadlock
//! Neither thread holds the machine's lock while it calls the library, and nobody waits for either but
//! [`SimHost::finish`](super::SimHost::finish), which no thread of the library calls.

use alloc::sync::Arc;
use core::time::Duration;
use std::sync::{Condvar, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use super::machine::{Machine, Shared};
use crate::gpu::Time;

/// Nanoseconds on the wall's monotonic clock, from an origin of the process: the executor and all machines have the same.
pub(crate) fn wall_ns() -> u64 {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    u64::try_from(ORIGIN.get_or_init(Instant::now).elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// Where a machine's threads sleep, on its lock.
#[derive(Debug, Default)]
pub(crate) struct Bells {
    hardware: Condvar,
    interrupt: Condvar,
}

/// What the machine knows of its threads; in virtual time it means nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Watch {
    /// When the hardware's thread means to look again.
    hardware_until: Time,
    interrupt_sleeps: bool,
    /// The interrupts' thread is telling the library something that it has taken out of the outbox.
    pub(crate) telling: bool,
    ending: bool,
    /// How often the hardware's thread has looked.
    looks: u64,
}

impl Default for Watch {
    fn default() -> Self {
        Self { hardware_until: Time::ZERO, interrupt_sleeps: false, telling: false, ending: false, looks: 0 }
    }
}

/// The threads of one machine.
#[derive(Debug)]
pub(crate) struct Threads {
    hardware: JoinHandle<()>,
    interrupt: JoinHandle<()>,
}

impl Threads {
    /// Starts them; none if the system has none to give.
    pub(crate) fn start(shared: &Arc<Shared>) -> Option<Self> {
        let start = |name: &str, body: fn(&Shared, &Bells)| {
            let shared = Arc::clone(shared);
            let run = move || shared.bells().iter().for_each(|bells| body(&shared, bells));
            thread::Builder::new().name(name.into()).spawn(run).ok()
        };
        let hardware = start("sim-hardware", hardware)?;
        let Some(interrupt) = start("sim-interrupt", interrupt) else {
            shared.end_threads();
            return None;
        };
        Some(Self { hardware, interrupt })
    }

    /// Waits for their end, which [`Shared::end_threads`] has asked for. A panic in them goes on here.
    pub(crate) fn join(self) {
        for thread in [self.hardware, self.interrupt] {
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        }
    }
}

impl Shared {
    /// Lets go of the machine after a change, and wakes those whom it concerns.
    pub(crate) fn release(&self, mut machine: MutexGuard<'_, Machine>) {
        let Some(bells) = self.bells() else { return };
        let hardware = machine.next_event().is_some_and(|next| next < machine.watch.hardware_until);
        if hardware {
            // Woken once is enough.
            machine.watch.hardware_until = Time::ZERO;
        }
        let interrupt = !machine.outbox.is_empty() && machine.watch.interrupt_sleeps;
        machine.watch.interrupt_sleeps &= !interrupt;
        drop(machine);
        if hardware {
            bells.hardware.notify_one();
        }
        if interrupt {
            bells.interrupt.notify_one();
        }
    }

    /// Tells the machine's threads to end: the interrupts' when all has been told.
    pub(crate) fn end_threads(&self) {
        let Some(bells) = self.bells() else { return };
        self.lock().watch.ending = true;
        bells.hardware.notify_one();
        bells.interrupt.notify_one();
    }

    /// Sleeps on the machine's lock, at most until `until`.
    fn sleep<'a>(
        &self,
        bell: &Condvar,
        machine: MutexGuard<'a, Machine>,
        until: Option<Time>,
    ) -> MutexGuard<'a, Machine> {
        let mut machine = match until {
            None => bell.wait(machine).unwrap_or_else(PoisonError::into_inner),
            Some(until) => {
                let left = Duration::from_nanos(until.since_ns(Time::from_ns(wall_ns())));
                bell.wait_timeout(machine, left).unwrap_or_else(PoisonError::into_inner).0
            }
        };
        self.enter(&mut machine);
        machine
    }
}

fn hardware(shared: &Shared, bells: &Bells) {
    let mut machine = shared.lock();
    while !machine.watch.ending {
        machine.collect();
        machine.watch.looks += 1;
        if !machine.outbox.is_empty() && core::mem::take(&mut machine.watch.interrupt_sleeps) {
            bells.interrupt.notify_one();
        }
        let next = machine.next_event();
        machine.watch.hardware_until = next.unwrap_or(Time::NEVER);
        machine = shared.sleep(&bells.hardware, machine, next);
    }
}

fn interrupt(shared: &Shared, bells: &Bells) {
    let mut machine = shared.lock();
    loop {
        if let Some(delivery) = machine.outbox.pop_front() {
            machine.watch.telling = true;
            drop(machine);
            shared.deliver(delivery);
            machine = shared.lock();
            machine.watch.telling = false;
        } else if machine.watch.ending {
            return;
        } else {
            machine.watch.interrupt_sleeps = true;
            machine = shared.sleep(&bells.interrupt, machine, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::{ClientConfig, HostClock, HostConfig, JobSpec, SimClient, SimHost};

    #[test]
    fn an_idle_device_sleeps() {
        let host = SimHost::new(HostConfig { clock: HostClock::Real, ..HostConfig::default() }).unwrap();
        let client = SimClient::new(&host, "client", ClientConfig::default()).unwrap();
        let job = client.submit(JobSpec::spin(Duration::from_millis(20))).unwrap();
        job.fences.retired().wait(Duration::from_secs(20)).unwrap();
        let looks = || client.queue().device().driver().shared().lock().watch.looks;
        let before = looks();
        assert!((2..100).contains(&before), "{before} looks for a job that touches its pages every millisecond");
        thread::sleep(Duration::from_millis(50));
        assert_eq!(looks(), before);
        drop((job, client));
        assert!(host.finish().is_clean());
    }
}
