//! The machine: memory, its devices, the checkers, and what has happened.
//!
//! All behind one lock, a leaf (see `driver`). There may be several devices on the one memory: whoever takes the lock looks
//! at the machine from his own ([`Machine::look_at`]), and what is said here of "the device" is that one's. Methods here are called with it held and never call the library; what must
//! be said to the library goes to the `outbox`, and is said by `deliver` once the lock is free.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use core::time::Duration;
use outlive::InFlight;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::audit::Books;
use super::deliver::Delivery;
use super::real::{Bells, Watch, wall_ns};
use super::unit::{Flying, RingState, Unit};
use crate::gpu::checkers::ids::IdMap;
use crate::gpu::{
    Checkers, Config, DeviceFaults, DomainId, Gpu, GpuError, HwError, HwSeqno, JobId, LeaseKind, Memory, Observation,
    QueueId, Stamped, Time,
};

/// Observations that wait for the checkers, at most, before the host adds one more.
const TAP_MAX: usize = 1 << 16;

/// The lock around the machine, and where its threads sleep.
#[derive(Debug)]
struct Core {
    machine: Mutex<Machine>,
    /// In real time.
    bells: Option<Bells>,
}

/// A way to the machine, from one of its devices.
#[derive(Debug)]
pub(crate) struct Shared {
    core: Arc<Core>,
    unit: usize,
}

impl Shared {
    pub(crate) fn new(machine: Machine, bells: Option<Bells>) -> Arc<Self> {
        Arc::new(Self { core: Arc::new(Core { machine: Mutex::new(machine), bells }), unit: 0 })
    }

    /// Another device on the same machine.
    pub(crate) fn add_device(&self, config: Config) -> Result<Arc<Self>, GpuError> {
        let mut machine = self.lock();
        let gpu = Gpu::new(&mut machine.memory, config)?;
        let unit = machine.add(Unit::new(gpu));
        Ok(Arc::new(Self { core: Arc::clone(&self.core), unit }))
    }

    /// The machine. The caller must not call the library before it lets go; if it changed what the device will do, it lets
    /// go through [`Shared::release`].
    pub(crate) fn lock(&self) -> MutexGuard<'_, Machine> {
        let mut machine = self.core.machine.lock().unwrap_or_else(PoisonError::into_inner);
        self.enter(&mut machine);
        machine
    }

    pub(crate) fn bells(&self) -> Option<&Bells> {
        self.core.bells.as_ref()
    }

    /// The number of its device.
    pub(crate) const fn unit(&self) -> usize {
        self.unit
    }

    /// The hardware is gone at once.
    pub(crate) fn pull_out(&self) {
        let mut machine = self.lock();
        let now = machine.now;
        if let Some((gpu, memory)) = machine.device() {
            gpu.unplug(memory, now);
        }
        // A driver polls for the end of a reset, and sees that nobody answers.
        machine.fail_resets();
        self.release(machine);
    }

    /// Tells the whole device to misbehave, or to behave.
    pub(crate) fn set_faults(&self, faults: DeviceFaults) {
        let mut machine = self.lock();
        machine.catch_up();
        if let Some(gpu) = &mut machine.unit.gpu {
            gpu.set_faults(faults);
        }
        self.release(machine);
    }

    /// The lock was taken: looks from this device, in real time at what the clock says.
    pub(crate) fn enter(&self, machine: &mut Machine) {
        if self.core.bells.is_some() {
            machine.now = machine.now.max(Time::from_ns(wall_ns()));
        }
        machine.look_at(self.unit);
    }
}

/// A job's end, as the hardware tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobEnd {
    /// Which job.
    pub job: JobId,
    /// How it ended; `None`: a reset or unplugging took it off.
    pub result: Option<Result<(), HwError>>,
    /// When it first was on an engine; none if it never was, or if its interrupt was lost.
    pub start: Option<Time>,
    /// When it was over.
    pub end: Time,
    /// How long it was on an engine.
    pub active_ns: u64,
}

/// A time in which a job had an engine to itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EngineStretch {
    /// Which job.
    pub job: JobId,
    /// Which engine of its device, counted from 0.
    pub engine: u32,
    /// From here.
    pub from: Time,
    /// To here, not included.
    pub to: Time,
}

/// Everything behind the lock. It is seen from one device at a time: that of whoever took the lock.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) memory: Memory,
    /// The device that is looked at.
    pub(crate) unit: Unit,
    /// Its number.
    looked_at: usize,
    /// The others, by their numbers; at the place of the one that is looked at, nothing.
    others: Vec<Option<Unit>>,
    system_pages: u32,
    pub(crate) checkers: Checkers,
    pub(crate) now: Time,
    pub(crate) next_job: u64,
    pub(crate) next_client: u64,
    pub(crate) outbox: VecDeque<Delivery>,
    pub(crate) watch: Watch,
    pub(crate) books: Books,
    /// Resets that the device ended, whether they worked or not.
    pub(crate) resets: u64,
    pub(crate) keep_history: bool,
    pub(crate) ends: Vec<JobEnd>,
    pub(crate) stretches: Vec<EngineStretch>,
    /// Jobs on engines, on which, and since when.
    on_engines: Vec<(JobId, u32, Time)>,
    /// Time on engines of jobs in flight that have left one: for those whose end no interrupt tells.
    engine_ns: IdMap<JobId, u64>,
    /// Room for a job's commands while they are written.
    pub(crate) scratch: Vec<u8>,
    /// Everything seen, if somebody wants it.
    pub(crate) log: Option<Vec<Stamped>>,
}

impl Machine {
    pub(crate) fn new(memory: Memory, gpu: Gpu) -> Self {
        let system_pages = memory.free_pages(DomainId::SYSTEM);
        Self {
            memory,
            unit: Unit::new(gpu),
            looked_at: 0,
            others: alloc::vec![None],
            system_pages,
            checkers: Checkers::new(),
            now: Time::ZERO,
            next_job: 1,
            next_client: 1,
            outbox: VecDeque::new(),
            watch: Watch::default(),
            books: Books::default(),
            resets: 0,
            keep_history: false,
            ends: Vec::new(),
            stretches: Vec::new(),
            on_engines: Vec::new(),
            engine_ns: IdMap::default(),
            scratch: Vec::new(),
            log: None,
        }
    }

    /// Adds a device, and says its number.
    pub(crate) fn add(&mut self, unit: Unit) -> usize {
        self.others.push(Some(unit));
        self.others.len() - 1
    }

    /// How many devices there are.
    pub(crate) const fn units(&self) -> usize {
        self.others.len()
    }

    /// Looks at device `number` from now on, until the lock is taken again.
    #[inline]
    pub(crate) fn look_at(&mut self, number: usize) {
        if number != self.looked_at {
            self.look_at_another(number);
        }
    }

    #[cold]
    fn look_at_another(&mut self, number: usize) {
        if let Some(unit) = self.others.get_mut(number).and_then(Option::take) {
            let before = core::mem::replace(&mut self.unit, unit);
            self.others[self.looked_at] = Some(before);
            self.looked_at = number;
        }
    }

    pub(crate) fn all_units(&self) -> impl Iterator<Item = &Unit> {
        core::iter::once(&self.unit).chain(self.others.iter().flatten())
    }

    /// When another device than the one looked at will do something by itself.
    pub(crate) fn next_event_elsewhere(&self) -> Option<Time> {
        self.others.iter().flatten().filter_map(Unit::next_event).min()
    }

    /// When a device will do something by itself.
    pub(crate) fn next_event(&self) -> Option<Time> {
        self.all_units().filter_map(Unit::next_event).min()
    }

    /// Reports something the host did or saw.
    pub(crate) fn observe(&mut self, what: Observation) {
        let tap = self.memory.tap_mut();
        tap.set_time(self.now);
        tap.observe(what);
        if tap.seen().len() >= TAP_MAX {
            // The device has not moved for a while, and somebody makes and drops payloads.
            self.drain();
        }
    }

    /// The device and its memory, to be called together; none after the end.
    pub(crate) fn device(&mut self) -> Option<(&mut Gpu, &mut Memory)> {
        Some((self.unit.gpu.as_mut()?, &mut self.memory))
    }

    /// Shows the checkers what was seen, and keeps what is asked for.
    pub(crate) fn drain(&mut self) {
        for seen in self.memory.tap().seen() {
            self.checkers.observe(seen);
            match seen.what {
                Observation::OnEngine { job, engine } => self.on_engines.push((job, engine, seen.at)),
                Observation::OffEngine { job, .. } => {
                    let at = self.on_engines.iter().position(|(on, ..)| *on == job);
                    if let Some((job, engine, from)) = at.map(|at| self.on_engines.swap_remove(at))
                        && from < seen.at
                    {
                        *self.engine_ns.entry(job).or_default() += seen.at.since_ns(from);
                        if self.keep_history {
                            self.stretches.push(EngineStretch { job, engine, from, to: seen.at });
                        }
                    }
                }
                _ => {}
            }
        }
        if let Some(log) = &mut self.log {
            log.extend_from_slice(self.memory.tap().seen());
        }
        self.memory.tap_mut().clear();
    }

    pub(crate) fn ring(&mut self, queue: QueueId) -> Option<&mut RingState> {
        self.unit.ring(queue)
    }

    /// Whether a job in flight has written its end, whatever the host was told.
    pub(crate) fn has_ended(&self, flying: &Flying) -> bool {
        let (page, offset) = flying.fence;
        self.memory.load_u64(page, offset) == Some(flying.job.0)
    }

    /// Lets the device catch up with the present; in virtual time it has.
    pub(crate) fn catch_up(&mut self) {
        let now = self.now;
        if let Some((gpu, memory)) = self.device() {
            gpu.advance(memory, now);
        }
    }

    /// A number for a client.
    pub(crate) const fn next_client(&mut self) -> u64 {
        self.next_client += 1;
        self.next_client - 1
    }

    /// Whether this job is what a number on a ring stands for. An interrupt that comes late may name a ring that is gone, and
    /// whose number another has.
    pub(crate) fn is_in_flight(&mut self, queue: QueueId, seqno: HwSeqno, job: JobId) -> bool {
        self.ring(queue).and_then(|ring| ring.flying.get(seqno.0)).is_some_and(|flying| flying.job == job)
    }

    /// Takes a job off the driver's records, and says how long it was on engines. Its credits stay held until its end has been
    /// told.
    pub(crate) fn land(&mut self, queue: QueueId, seqno: HwSeqno) -> Option<(Arc<InFlight>, Flying, Duration)> {
        self.drain();
        let ring = self.ring(queue)?;
        let flying = ring.flying.remove(seqno.0)?;
        ring.ending += flying.credits;
        let in_flight = ring.in_flight.clone();
        let active = Duration::from_nanos(self.engine_ns.remove(&flying.job).unwrap_or(0));
        Some((in_flight, flying, active))
    }

    /// The library has been told that a job's stay on the ring is over.
    pub(crate) fn give_back(&mut self, queue: QueueId, flying: &Flying) {
        self.look_at(flying.unit);
        // It may be gone, and another have its number.
        if let Some(ring) = self.ring(queue).filter(|ring| ring.queue == flying.queue) {
            ring.held = ring.held.saturating_sub(flying.credits);
            ring.ending = ring.ending.saturating_sub(flying.credits);
        }
        let (job, count) = (flying.job, u64::from(flying.credits));
        self.observe(Observation::LeaseReturned { kind: LeaseKind::Credits, job, count });
    }

    pub(crate) fn note_end(&mut self, end: JobEnd) {
        if self.keep_history {
            self.ends.push(end);
        }
    }

    /// Bytes of memory handed out, of all devices and of the system, without the firmwares' page tables.
    pub(crate) fn bytes_in_use(&self) -> u64 {
        let system = u64::from(self.system_pages - self.memory.free_pages(DomainId::SYSTEM));
        let own = self.all_units().map(|unit| unit.bytes_in_use(&self.memory)).sum::<u64>();
        own + system * crate::gpu::PAGE_BYTES as u64
    }
}
