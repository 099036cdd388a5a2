//! `SimDriver`: what the author of a driver for this device would write.
//!
//! # Who touches what
//! Every call takes the machine's lock for its duration and lets go before it calls the library. Only `run`, on a ring
//! without room, and the looks at lost interrupts call the library at all; the rest is delivered by the host's loop.
//!
//! # Resets
//! The device lets jobs that were rung and not started survive a reset and starts them afterwards; the library holds that
//! a reset ends everything handed over. So these are taken off their rings when the reset is asked for, while the device
//! starts nothing. They fail as innocent, like those that were killed.

use alloc::sync::Arc;
use core::fmt;
use core::time::Duration;
use outlive::pool::{Holder, Pool, PoolError};
use outlive::sched::Priority;
use outlive::{
    Acquired, Completion, Device, Driver, Executor, FenceError, InFlight, JobCx, ResetToken, Times, Verdict,
};

use super::deliver::Delivery;
use super::ids::number_of;
use super::job::SimJob;
use super::machine::{JobEnd, Machine, Shared};
use super::room::make_room;
use super::space::Space;
use super::unit::{Flights, Flying, RingState};
use crate::gpu::{
    DeviceFaults, GpuError, HwSeqno, JobDescriptor, LeaseKind, Observation, PAGE_BYTES, QueueId, ResetScope, StopCause,
};

/// Code of [`FenceError::Faulted`]: an access found no page.
pub const CODE_PAGE_FAULT: u16 = 1;
/// Code of [`FenceError::Faulted`]: a command failed.
pub const CODE_EXECUTION: u16 = 2;
/// Code of [`FenceError::Faulted`]: the job's descriptor made no sense.
pub const CODE_BAD_DESCRIPTOR: u16 = 3;
/// Code of [`FenceError::Faulted`]: the ring did not take the job.
pub const CODE_REFUSED: u16 = 4;

/// The least that a job which is well is let wait before it is looked at again.
const LOOK_AGAIN: Duration = Duration::from_micros(100);

/// The driver of a simulated device.
pub struct SimDriver {
    shared: Arc<Shared>,
    /// Of address space numbers, if they are leased.
    ids: Option<Pool>,
}

impl SimDriver {
    pub(crate) const fn new(shared: Arc<Shared>, ids: Option<Pool>) -> Self {
        Self { shared, ids }
    }

    /// A queue's place at the pool of address space numbers, if they are leased. None is reserved and no group is capped, so
    /// neither priority nor group matters there.
    pub(crate) fn lease(&self, executor: &Executor) -> Result<Option<Holder>, PoolError> {
        let holder = |pool: &Pool| pool.holder(executor, &[0], 0, Priority::Normal);
        self.ids.as_ref().map(holder).transpose()
    }

    pub(crate) const fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Pulls the device out: the hardware is gone at once. The library finds out, or is told with
    /// [`Device::unplug`](outlive::Device::unplug).
    pub fn pull_out(&self) {
        self.shared.pull_out();
    }

    /// Tells the whole device to misbehave, or to behave.
    pub fn set_faults(&self, faults: DeviceFaults) {
        self.shared.set_faults(faults);
    }
}

impl fmt::Debug for SimDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimDriver")
    }
}

/// The driver's part of a queue: a ring of the device.
pub struct SimRing {
    space: Arc<Space>,
    hw: QueueId,
    pages: usize,
    last: u64,
    in_flight: Arc<InFlight>,
}

impl SimRing {
    /// A ring whose jobs hold at most `credits`, with room for `slots` jobs.
    pub(crate) fn new(
        device: &Device<SimDriver>,
        space: &Arc<Space>,
        credits: u32,
        slots: u32,
    ) -> Result<Self, GpuError> {
        let capacity = usize::try_from(slots).map_err(|_| GpuError::BadSlots(slots))?;
        let in_flight = InFlight::with_capacity(capacity)
            .map_err(|_| GpuError::Memory(crate::gpu::MemoryError::OutOfHostMemory))?;
        let in_flight = Arc::new(in_flight);
        let (hw, mut machine) = loop {
            let mut machine = space.shared.lock();
            let made = machine.make_ring(slots);
            if !made.as_ref().is_err_and(GpuError::is_shortage) {
                break (made?, machine);
            }
            drop(machine);
            if !make_room(device, &[]) {
                return Err(made.err().unwrap_or(GpuError::Unplugged));
            }
        };
        let pages = crate::gpu::ring::ring_bytes(slots).div_ceil(PAGE_BYTES);
        machine.ring_came(space.vm, pages);
        let (in_ring, flying) = (Arc::clone(&in_flight), Flights::default());
        machine.unit.add_ring(hw, RingState { in_flight: in_ring, queue: 0, flying, credits, held: 0, ending: 0 });
        drop(machine);
        Ok(Self { space: Arc::clone(space), hw, pages, last: 0, in_flight })
    }

    pub(crate) const fn hw(&self) -> QueueId {
        self.hw
    }
}

impl Drop for SimRing {
    fn drop(&mut self) {
        let mut machine = self.space.shared.lock();
        machine.catch_up();
        let now = machine.now;
        if let Some((gpu, memory)) = machine.device() {
            memory.tap_mut().set_time(now);
            // One that still has jobs stays, and its memory shows as leaked only if the device never frees it.
            // While a reset is under way it cannot go.
            if gpu.destroy_ring(memory, self.hw) == Err(GpuError::RingBusy) {
                machine.unit.doomed_rings.push(self.hw);
            }
        }
        let kept = machine.ring_went(self.space.vm, self.pages);
        if let Some(place) = machine.unit.rings.get_mut(usize::try_from(self.hw.0).unwrap_or(usize::MAX)) {
            *place = None;
        }
        self.space.shared.release(machine);
        drop(kept);
    }
}

impl fmt::Debug for SimRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimRing({})", self.hw.0)
    }
}

impl Driver for SimDriver {
    type Job = SimJob;
    type Queue = SimRing;

    const RESOURCES: bool = true;

    /// An address space number, if they are leased; bound to the job's page tables before anything can run through it.
    fn acquire(&self, cx: &mut JobCx<'_, Self>) -> Acquired {
        let Some(ticket) = &mut cx.job.ticket else { return Acquired::Yes };
        let answer = ticket.acquire();
        if let (Acquired::Yes, Some(slot)) = (&answer, ticket.slot(0)) {
            self.shared.lock().bind_id(slot, cx.job.vm(), cx.job.id);
        }
        answer
    }

    fn release(&self, job: &mut SimJob) {
        let Some(ticket) = &mut job.ticket else { return };
        // First the hardware forgets what the number stands for, then somebody else may have it.
        if let Some(slot) = ticket.slot(0) {
            self.shared.lock().unbind_id(slot);
        }
        ticket.give_back();
    }

    fn run(&self, cx: &mut JobCx<'_, Self>, done: Completion) {
        let info = *cx.info();
        cx.queue.last += 1;
        let seqno = HwSeqno(cx.queue.last);
        let Some(control) = cx.job.control() else { return };
        let descriptor = JobDescriptor {
            hw_seqno: seqno,
            vm: cx.job.ticket.as_ref().and_then(|ticket| ticket.slot(0)).map_or(cx.job.vm(), number_of),
            job: cx.job.id,
            hw_time_ns: cx.job.hw_time_ns,
            commands: control.commands,
            commands_bytes: cx.job.commands_bytes,
            fault: cx.job.fault,
        };
        let unit = self.shared.unit();
        let flying = Flying { job: cx.job.id, unit, queue: info.queue, credits: info.credits, fence: control.fence };
        // Before the doorbell, so that the end finds it.
        if let Err(full) = cx.queue.in_flight.insert(seqno.0, done) {
            return full.completion.not_started(FenceError::Faulted { code: CODE_REFUSED });
        }
        let rung = {
            let mut machine = self.shared.lock();
            machine.job_named(info.id, flying.job);
            let rung = machine.ring_the_bell(cx.queue.hw, info.queue, &descriptor, flying);
            self.shared.release(machine);
            rung
        };
        if let Err(error) = rung
            && let Some(done) = cx.queue.in_flight.remove(seqno.0)
        {
            done.not_started(match error {
                GpuError::Unplugged => FenceError::DeviceLost,
                _ => FenceError::Faulted { code: CODE_REFUSED },
            });
        }
    }

    fn timed_out(&self, cx: &mut JobCx<'_, Self>) -> Verdict {
        if self.find_lost(cx) {
            // Completed: the verdict is in, whatever is said here.
            return Verdict::Fail;
        }
        let machine = self.shared.lock();
        // Its end has been collected, and is about to be told.
        let Some(seqno) = machine.seqno_of(cx.queue.hw, cx.job) else { return Verdict::KeepWaiting(LOOK_AGAIN) };
        let Some(gpu) = &machine.unit.gpu else { return Verdict::Lost };
        if !gpu.is_plugged() {
            return Verdict::Lost;
        }
        // Only time on an engine counts.
        let had = gpu.job_time(cx.queue.hw, HwSeqno(seqno)).map_or(0, |time| time.active_ns);
        let limit = cx.job.timeout;
        match limit.checked_sub(Duration::from_nanos(had)) {
            Some(left) if !left.is_zero() => Verdict::KeepWaiting(left.max(LOOK_AGAIN)),
            _ => Verdict::Fail,
        }
    }

    fn cancel(&self, cx: &mut JobCx<'_, Self>) {
        if self.find_lost(cx) {
            return;
        }
        let mut machine = self.shared.lock();
        let Some(seqno) = machine.seqno_of(cx.queue.hw, cx.job) else { return };
        let now = machine.now;
        if let Some((gpu, memory)) = machine.device() {
            // What comes of it is an interrupt, or nothing: then a reset follows.
            let _ = gpu.cancel(memory, now, cx.queue.hw, HwSeqno(seqno));
        }
        self.shared.release(machine);
    }

    fn reset(&self, scope: outlive::ResetScope, token: ResetToken) {
        let mut machine = self.shared.lock();
        let scope = match scope {
            outlive::ResetScope::Queue(queue) => machine.unit.ring_of(queue).map(|(hw, _)| ResetScope::Ring(hw)),
            _ => Some(ResetScope::Device),
        };
        let Some(scope) = scope else {
            // Nothing of that queue was ever on the hardware.
            machine.outbox.push_back(Delivery::Quiesced(token));
            return self.shared.release(machine);
        };
        machine.start_reset(scope, token);
        self.shared.release(machine);
    }

    fn unplug(&self, token: ResetToken) {
        let mut machine = self.shared.lock();
        let now = machine.now;
        if let Some((gpu, memory)) = machine.device() {
            gpu.unplug(memory, now);
        }
        machine.fail_resets();
        machine.end_all(ResetScope::Device, FenceError::DeviceLost);
        machine.outbox.push_back(Delivery::Quiesced(token));
        self.shared.release(machine);
    }
}

impl SimDriver {
    /// If the job has written its end and nobody said so, says so. True if it did.
    fn find_lost(&self, cx: &JobCx<'_, Self>) -> bool {
        let hw = cx.queue.hw;
        let (flying, seqno, times) = {
            let mut machine = self.shared.lock();
            machine.catch_up();
            let Some(seqno) = machine.seqno_of(hw, cx.job) else { return false };
            let flying = machine.ring(hw).and_then(|ring| ring.flying.get(seqno).copied());
            let Some(flying) = flying.filter(|flying| machine.has_ended(flying)) else { return false };
            let active = machine.land(hw, HwSeqno(seqno)).map(|(_, _, active)| active);
            let (job, end) = (flying.job, machine.now);
            let active_ns = active.map_or(0, |active| u64::try_from(active.as_nanos()).unwrap_or(u64::MAX));
            machine.note_end(JobEnd { job, result: Some(Ok(())), start: None, end, active_ns });
            (flying, seqno, Times { end: Some(super::deliver::outlive_time(end)), active })
        };
        cx.queue.in_flight.complete_timed(seqno, Ok(()), times);
        self.shared.lock().give_back(hw, &flying);
        true
    }
}

impl Machine {
    fn make_ring(&mut self, slots: u32) -> Result<QueueId, GpuError> {
        let now = self.now;
        self.memory.tap_mut().set_time(now);
        let (gpu, memory) = self.device().ok_or(GpuError::Unplugged)?;
        gpu.create_ring(memory, slots)
    }

    /// The number under which a job is in flight.
    fn seqno_of(&self, hw: QueueId, job: &SimJob) -> Option<u64> {
        let ring = self.unit.rings.get(usize::try_from(hw.0).ok()?)?.as_ref()?;
        ring.flying.seqno_of(job.id)
    }

    fn ring_the_bell(
        &mut self,
        hw: QueueId,
        queue: u64,
        descriptor: &JobDescriptor,
        flying: Flying,
    ) -> Result<(), GpuError> {
        let now = self.now;
        self.memory.tap_mut().set_time(now);
        let (gpu, memory) = self.device().ok_or(GpuError::Unplugged)?;
        if let Err(error) = gpu.put(memory, hw, descriptor) {
            // Whatever was said of it before, the hardware will not touch what it named.
            self.observe(Observation::Stopped { job: flying.job, cause: StopCause::Failed });
            return Err(error);
        }
        let (job, count) = (flying.job, u64::from(flying.credits));
        self.observe(Observation::LeaseTaken { kind: LeaseKind::Credits, job, count });
        if let Some(ring) = self.ring(hw) {
            ring.queue = queue;
            ring.held += flying.credits;
            let (held, size) = (ring.held.saturating_sub(ring.ending), ring.credits);
            ring.flying.insert(descriptor.hw_seqno.0, flying);
            if held > size {
                self.overdrawn(job, held, size);
            }
        }
        if let Some(pool) = self.books.pool {
            let rings = self.unit.rings.iter().flatten();
            let held = rings.map(|ring| ring.held.saturating_sub(ring.ending)).sum();
            if held > pool {
                self.overdrawn(job, held, pool);
            }
        }
        if let Some((gpu, memory)) = self.device() {
            gpu.doorbell(memory, now, hw);
        }
        Ok(())
    }
}
