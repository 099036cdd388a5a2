//! The machine: memory, the device, the checkers, and what the driver remembers of each ring.
//!
//! All behind one lock, a leaf (see `driver`). Methods here are called with it held and never call the library; what must
//! be said to the library goes to the `outbox`, and is said by `deliver` once the lock is free.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use outlive::{InFlight, ResetToken};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::audit::Books;
use super::buffer::Spaces;
use super::deliver::Delivery;
use super::real::{Bells, Watch, wall_ns};
use crate::gpu::{
    Checkers, DeviceFaults, Gpu, HwError, HwSeqno, JobId, LeaseKind, Memory, Observation, PageId, QueueId, ResetScope,
    Stamped, Time, VmId,
};

/// Observations that wait for the checkers, at most, before the host adds one more.
const TAP_MAX: usize = 1 << 16;

/// The lock around the machine.
#[derive(Debug)]
pub(crate) struct Shared {
    machine: Mutex<Machine>,
    /// In real time.
    pub(crate) bells: Option<Bells>,
}

impl Shared {
    pub(crate) fn new(machine: Machine, bells: Option<Bells>) -> Arc<Self> {
        Arc::new(Self { machine: Mutex::new(machine), bells })
    }

    /// The machine. The caller must not call the library before it lets go; if it changed what the device will do, it lets
    /// go through [`Shared::release`].
    pub(crate) fn lock(&self) -> MutexGuard<'_, Machine> {
        let mut machine = self.machine.lock().unwrap_or_else(PoisonError::into_inner);
        self.set_time(&mut machine);
        machine
    }

    /// The hardware is gone at once.
    pub(crate) fn pull_out(&self) {
        let mut machine = self.lock();
        let now = machine.now;
        if let Some((gpu, memory)) = machine.device() {
            gpu.unplug(memory, now);
        }
        self.release(machine);
    }

    /// Tells the whole device to misbehave, or to behave.
    pub(crate) fn set_faults(&self, faults: DeviceFaults) {
        let mut machine = self.lock();
        machine.catch_up();
        if let Some(gpu) = &mut machine.gpu {
            gpu.set_faults(faults);
        }
        self.release(machine);
    }

    /// In real time, what the clock says.
    pub(crate) fn set_time(&self, machine: &mut Machine) {
        if self.bells.is_some() {
            machine.now = machine.now.max(Time::from_ns(wall_ns()));
        }
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
    /// Which engine, counted from 0.
    pub engine: u32,
    /// From here.
    pub from: Time,
    /// To here, not included.
    pub to: Time,
}

/// A job on a ring: from its doorbell until its end was collected.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flying {
    pub(crate) job: JobId,
    /// The library's number for its queue.
    pub(crate) queue: u64,
    pub(crate) credits: u32,
    /// Where the job's end is written: this page, this offset.
    pub(crate) fence: (PageId, usize),
}

/// The jobs on one ring, by their numbers there, which count up.
#[derive(Debug, Default)]
pub(crate) struct Flights(VecDeque<(u64, Flying)>);

impl Flights {
    pub(crate) fn insert(&mut self, seqno: u64, flying: Flying) {
        if self.0.back().is_none_or(|(last, _)| *last < seqno) {
            self.0.push_back((seqno, flying));
        } else {
            let at = self.0.partition_point(|(other, _)| *other < seqno);
            self.0.insert(at, (seqno, flying));
        }
    }

    pub(crate) fn get(&self, seqno: u64) -> Option<&Flying> {
        let at = self.0.binary_search_by_key(&seqno, |(other, _)| *other).ok()?;
        self.0.get(at).map(|(_, flying)| flying)
    }

    pub(crate) fn remove(&mut self, seqno: u64) -> Option<Flying> {
        let at = self.0.binary_search_by_key(&seqno, |(other, _)| *other).ok()?;
        self.0.remove(at).map(|(_, flying)| flying)
    }

    /// The number under which a job is in flight.
    pub(crate) fn seqno_of(&self, job: JobId) -> Option<u64> {
        self.0.iter().find(|(_, flying)| flying.job == job).map(|(seqno, _)| *seqno)
    }

    pub(crate) fn seqnos(&self) -> Vec<u64> {
        self.0.iter().map(|(seqno, _)| *seqno).collect()
    }
}

/// What the driver knows of a ring.
#[derive(Debug)]
pub(crate) struct RingState {
    pub(crate) in_flight: Arc<InFlight>,
    /// The library's number for its queue; 0 before its first job.
    pub(crate) queue: u64,
    pub(crate) flying: Flights,
    /// The size of the queue, as its client wanted it.
    pub(crate) credits: u32,
    /// What jobs hold that are on the ring, or whose end is being told.
    pub(crate) held: u32,
    /// Of that, what those hold whose end is being told: the library may count it as free already, or not yet.
    pub(crate) ending: u32,
}

/// Everything behind the lock.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) memory: Memory,
    /// Taken out in the end.
    pub(crate) gpu: Option<Gpu>,
    pub(crate) checkers: Checkers,
    pub(crate) now: Time,
    /// By the hardware's number.
    pub(crate) rings: Vec<Option<RingState>>,
    /// Of queues that are gone, to be destroyed once the device lets them.
    pub(crate) doomed_rings: Vec<QueueId>,
    pub(crate) spaces: Spaces,
    pub(crate) free_vms: Vec<VmId>,
    pub(crate) next_vm: u32,
    pub(crate) next_job: u64,
    pub(crate) next_client: u64,
    /// Resets asked of the device and not answered.
    pub(crate) tokens: Vec<(ResetScope, ResetToken)>,
    pub(crate) outbox: VecDeque<Delivery>,
    pub(crate) watch: Watch,
    pub(crate) books: Books,
    /// Resets that the device ended, whether they worked or not.
    pub(crate) resets: u64,
    pub(crate) keep_history: bool,
    pub(crate) ends: Vec<JobEnd>,
    pub(crate) stretches: Vec<EngineStretch>,
    /// Jobs on engines, and since when.
    on_engines: Vec<Option<(JobId, Time)>>,
    /// Room for a job's commands while they are written.
    pub(crate) scratch: Vec<u8>,
    /// Everything seen, if somebody wants it.
    pub(crate) log: Option<Vec<Stamped>>,
}

impl Machine {
    pub(crate) fn new(memory: Memory, gpu: Gpu) -> Self {
        Self {
            memory,
            gpu: Some(gpu),
            checkers: Checkers::new(),
            now: Time::ZERO,
            rings: Vec::new(),
            doomed_rings: Vec::new(),
            spaces: Spaces::default(),
            free_vms: Vec::new(),
            next_vm: 1,
            next_job: 1,
            next_client: 1,
            tokens: Vec::new(),
            outbox: VecDeque::new(),
            watch: Watch::default(),
            books: Books::default(),
            resets: 0,
            keep_history: false,
            ends: Vec::new(),
            stretches: Vec::new(),
            on_engines: Vec::new(),
            scratch: Vec::new(),
            log: None,
        }
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
        Some((self.gpu.as_mut()?, &mut self.memory))
    }

    /// Shows the checkers what was seen, and keeps what is asked for.
    pub(crate) fn drain(&mut self) {
        for seen in self.memory.tap().seen() {
            self.checkers.observe(seen);
            match seen.what {
                Observation::OnEngine { job, engine } => {
                    let at = usize::try_from(engine).unwrap_or(usize::MAX);
                    if self.on_engines.len() <= at {
                        self.on_engines.resize(at + 1, None);
                    }
                    self.on_engines[at] = Some((job, seen.at));
                }
                Observation::OffEngine { engine, .. } => {
                    let at = usize::try_from(engine).unwrap_or(usize::MAX);
                    if let Some((job, from)) = self.on_engines.get_mut(at).and_then(Option::take)
                        && self.keep_history
                        && from < seen.at
                    {
                        self.stretches.push(EngineStretch { job, engine, from, to: seen.at });
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
        self.rings.get_mut(usize::try_from(queue.0).ok()?)?.as_mut()
    }

    pub(crate) fn add_ring(&mut self, queue: QueueId, ring: RingState) {
        let at = usize::try_from(queue.0).unwrap_or(usize::MAX);
        if self.rings.len() <= at {
            self.rings.resize_with(at + 1, || None);
        }
        self.rings[at] = Some(ring);
    }

    /// The ring that the library knows as `queue`.
    pub(crate) fn ring_of(&mut self, queue: u64) -> Option<(QueueId, &mut RingState)> {
        let rings = self.rings.iter_mut().enumerate();
        // CAST: rings are counted in 32 bits.
        rings.filter_map(|(at, ring)| Some((QueueId(at as u32), ring.as_mut()?))).find(|(_, ring)| ring.queue == queue)
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

    /// Takes a job off the driver's records. Its credits stay held until its end has been told.
    pub(crate) fn land(&mut self, queue: QueueId, seqno: HwSeqno) -> Option<(Arc<InFlight>, Flying)> {
        let ring = self.ring(queue)?;
        let flying = ring.flying.remove(seqno.0)?;
        ring.ending += flying.credits;
        Some((ring.in_flight.clone(), flying))
    }

    /// The library has been told that a job's stay on the ring is over.
    pub(crate) fn give_back(&mut self, queue: QueueId, flying: &Flying) {
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

    /// Bytes of device memory handed out, without the firmware's page tables.
    pub(crate) fn bytes_in_use(&self) -> u64 {
        let Some(gpu) = &self.gpu else { return 0 };
        let page = crate::gpu::PAGE_BYTES as u64;
        let taken = gpu.config().memory_bytes / page - u64::from(self.memory.free_pages(gpu.domain()));
        (taken - u64::from(gpu.firmware_tables())) * page
    }
}
