//! The device: what its host sees of it.
//!
//! [`Gpu`] is a state machine in virtual time. Getters look; commands ([`Gpu::submit`], [`Gpu::cancel`], [`Gpu::reset`],
//! [`Gpu::unplug`]) change it; [`Gpu::advance`] lets time pass; [`Gpu::poll_interrupt`] and [`Gpu::poll_reset`] hand out
//! what it has to say. Every call that takes the time first lets it pass, so the order is the host's choice; time must
//! not go back. Memory is lent for each call, so devices can share it, and all of it is `Send`.
//!
//! The host's loop: `advance(now)`, poll until nothing comes, act, then sleep until the earlier of its own next event
//! and [`Gpu::next_event`]. A semaphore that somebody else raised in memory is noticed by the next call that takes the
//! time.
//!
//! # Where things are
//!
//! What it says and refuses: `config`. Rings: `ring`. Jobs: `job`, `execute`. Engines: `engine`. Which ring runs: `schedule`. Passing of time: `run`.
//! Cancelling, resetting, unplugging: `recover`.

use alloc::collections::VecDeque;

use super::address_space::AddressSpace;
use super::config::{Config, GpuError, Interrupt, JobTime, Standing};
use super::engine::Engine;
use super::faults::{DeviceFaults, FaultKind};
use super::job::{Job, Place};
use super::memory::{Memory, PAGE_BYTES, index};
use super::observe::Observation;
use super::page_table::{Protection, Root};
use super::recover::{PendingReset, ResetReport};
use super::ring::{DeviceRing, HostRing, JobDescriptor, RING_SLOTS_MAX, ring_bytes};
use super::rng::Rng;
use super::types::{DomainId, HwSeqno, OwnerId, QueueId, Time, Va, VmId};

/// Both sides of a ring, and where it is.
#[derive(Debug)]
pub(crate) struct Ring {
    pub(crate) host: HostRing,
    pub(crate) device: DeviceRing,
    base: Va,
}

/// The number and the place of a ring that is gone.
#[derive(Debug, Clone, Copy)]
struct FreeRing {
    queue: QueueId,
    pages: u32,
    base: Va,
}

/// A simulated GPU.
#[derive(Debug)]
pub struct Gpu {
    pub(crate) config: Config,
    domain: DomainId,
    owner: OwnerId,
    firmware: AddressSpace,
    /// Roots by address space number.
    vms: Vec<Option<Root>>,
    /// Where the next ring goes in the firmware's address space.
    next_ring_va: Va,
    pub(crate) rings: Vec<Option<Ring>>,
    free_rings: Vec<FreeRing>,
    pub(crate) engines: Vec<Engine>,
    /// Records of jobs; those at `Place::Nowhere` stand in `free_jobs`.
    pub(crate) jobs: Vec<Job>,
    pub(crate) free_jobs: Vec<u32>,
    /// Rings that may have something to run, in the order of their turns.
    pub(crate) rotation: VecDeque<QueueId>,
    /// Without rotation: the ring of each job not started, in the order of their doorbells.
    pub(crate) arrivals: VecDeque<QueueId>,
    /// Jobs at a semaphore.
    pub(crate) blocked: Vec<u32>,
    /// By when they reach the host.
    pub(crate) interrupts: VecDeque<(Time, Interrupt)>,
    pub(crate) resets: Vec<PendingReset>,
    pub(crate) reports: VecDeque<ResetReport>,
    pub(crate) rng: Rng,
    pub(crate) faults: DeviceFaults,
    pub(crate) plugged: bool,
    pub(crate) now: Time,
}

impl Gpu {
    /// A device with memory of its own in `memory`.
    ///
    /// # Errors
    ///
    /// [`GpuError::NoEngines`], [`GpuError::Memory`].
    pub fn new(memory: &mut Memory, config: Config) -> Result<Self, GpuError> {
        if config.engines == 0 {
            return Err(GpuError::NoEngines);
        }
        let domain = memory.add_domain(config.memory_bytes)?;
        let owner = memory.add_owner()?;
        let firmware = AddressSpace::new(memory, domain, owner)?;
        let root = firmware.root();
        Ok(Self {
            config,
            domain,
            owner,
            firmware,
            vms: alloc::vec![Some(root)],
            next_ring_va: Va(0x1_0000),
            rings: Vec::new(),
            free_rings: Vec::new(),
            engines: (0..config.engines).map(|_| Engine::new()).collect(),
            jobs: Vec::new(),
            free_jobs: Vec::new(),
            rotation: VecDeque::new(),
            arrivals: VecDeque::new(),
            blocked: Vec::new(),
            interrupts: VecDeque::new(),
            resets: Vec::new(),
            reports: VecDeque::new(),
            rng: Rng::new(config.seed),
            faults: DeviceFaults::default(),
            plugged: true,
            now: Time::ZERO,
        })
    }

    /// How it was built.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// Its own memory.
    #[must_use]
    pub const fn domain(&self) -> DomainId {
        self.domain
    }

    /// Whom the firmware's rings and tables are charged to.
    #[must_use]
    pub const fn owner(&self) -> OwnerId {
        self.owner
    }

    /// Pages of its memory that the firmware's own page tables take; rings need some, and they stay.
    #[must_use]
    pub const fn firmware_tables(&self) -> u32 {
        self.firmware.tables()
    }

    /// Up to when it has run.
    #[must_use]
    pub const fn now(&self) -> Time {
        self.now
    }

    /// Whether it is there.
    #[must_use]
    pub const fn is_plugged(&self) -> bool {
        self.plugged
    }

    /// Entries in its tables: rings, address spaces, jobs, the pages of the firmware's tables.
    #[cfg(test)]
    pub(crate) fn sizes(&self) -> [usize; 4] {
        [self.rings.len(), self.vms.len(), self.jobs.len(), index(self.firmware.tables())]
    }

    /// Tells the whole device to misbehave, or to behave.
    pub const fn set_faults(&mut self, faults: DeviceFaults) {
        self.faults = faults;
    }

    /// How it is told to misbehave; failures of resets that happened are counted down.
    #[must_use]
    pub const fn faults(&self) -> DeviceFaults {
        self.faults
    }

    /// Time for which engines were occupied, summed over them.
    #[must_use]
    pub fn busy_ns(&self) -> u64 {
        self.engines.iter().map(|engine| engine.busy_ns(self.now)).sum()
    }

    /// Makes a ring for up to `slots` jobs. Its memory is charged to the device.
    ///
    /// # Errors
    ///
    /// [`GpuError::BadSlots`], [`GpuError::Memory`], [`GpuError::Map`], [`GpuError::Unplugged`]; nothing is kept then.
    pub fn create_ring(&mut self, memory: &mut Memory, slots: u32) -> Result<QueueId, GpuError> {
        if !self.plugged {
            return Err(GpuError::Unplugged);
        }
        if slots == 0 || slots > RING_SLOTS_MAX {
            return Err(GpuError::BadSlots(slots));
        }
        // CAST: at most 64 MiB; and rings are 2^32 at most by the width of their numbers.
        let count = ring_bytes(slots).div_ceil(PAGE_BYTES) as u32;
        let used_before = self.free_rings.iter().rposition(|free| free.pages == count);
        let (queue, base) = match used_before.map(|at| self.free_rings[at]) {
            Some(free) => (free.queue, free.base),
            None => (QueueId(self.rings.len() as u32), self.next_ring_va),
        };
        let bytes = u64::from(count) * PAGE_BYTES as u64;
        self.firmware.prepare(memory, base, bytes).map_err(GpuError::Map)?;
        let mut pages = Vec::new();
        memory.allocate_many(self.domain, self.owner, count, &mut pages)?;
        let mut at = base;
        for page in &pages {
            let mapped = self.firmware.map(memory, at, *page, Protection::ReadWrite);
            mapped.map_err(GpuError::Map)?;
            at = at.add(PAGE_BYTES as u64);
        }
        let (host, device) = (HostRing::new(pages, slots), DeviceRing::new(base, slots));
        let ring = Some(Ring { host, device, base });
        if let Some(at) = used_before {
            self.free_rings.swap_remove(at);
            self.rings[index(queue.0)] = ring;
        } else {
            // One page between rings stays empty, so that a stray access faults.
            self.next_ring_va = at.add(PAGE_BYTES as u64);
            self.rings.push(ring);
        }
        Ok(queue)
    }

    /// Takes an empty ring away and gives its memory back. Its number and its place may be used again, so an interrupt that is
    /// still on its way may name a ring that knows nothing of the job.
    ///
    /// # Errors
    ///
    /// [`GpuError::RingBusy`] while it has jobs and the device is there.
    pub fn destroy_ring(&mut self, memory: &mut Memory, queue: QueueId) -> Result<(), GpuError> {
        let plugged = self.plugged;
        let place = self.rings.get_mut(index(queue.0)).ok_or(GpuError::NoSuchQueue(queue))?;
        let ring = place.as_ref().ok_or(GpuError::NoSuchQueue(queue))?;
        if plugged && !ring.device.is_idle() {
            return Err(GpuError::RingBusy);
        }
        let Some(ring) = place.take() else { return Err(GpuError::NoSuchQueue(queue)) };
        let mut at = ring.base;
        for _ in ring.host.pages() {
            self.firmware.unmap(memory, at).map_err(GpuError::Map)?;
            at = at.add(PAGE_BYTES as u64);
        }
        self.rotation.retain(|other| *other != queue);
        for engine in &mut self.engines {
            engine.turn = engine.turn.filter(|turn| turn.queue != queue);
        }
        // CAST: as in `create_ring`.
        let pages = ring.host.pages().len() as u32;
        self.free_rings.push(FreeRing { queue, pages, base: ring.base });
        Ok(ring.host.free(memory)?)
    }

    /// Lets `vm` name these page tables, from the next access on.
    ///
    /// # Errors
    ///
    /// [`GpuError::NoSuchVmId`], [`GpuError::ForeignTables`].
    pub fn bind_vm(&mut self, vm: VmId, space: &AddressSpace) -> Result<(), GpuError> {
        if space.root().table.domain != self.domain {
            return Err(GpuError::ForeignTables(space.root().table));
        }
        let limit = if self.config.vm_ids == 0 { 1 << 20 } else { self.config.vm_ids };
        if vm == VmId::FIRMWARE || vm.0 > limit {
            return Err(GpuError::NoSuchVmId(vm));
        }
        if self.vms.len() <= index(vm.0) {
            self.vms.resize(index(vm.0) + 1, None);
        }
        self.vms[index(vm.0)] = Some(space.root());
        Ok(())
    }

    /// Lets `vm` name nothing: every access through it faults.
    pub fn unbind_vm(&mut self, vm: VmId) {
        if vm != VmId::FIRMWARE
            && let Some(root) = self.vms.get_mut(index(vm.0))
        {
            *root = None;
        }
    }

    /// Address space numbers that name page tables now, without the firmware's own.
    #[must_use]
    pub fn bound_vms(&self) -> u32 {
        let bound = self.vms.iter().skip(index(VmId::FIRMWARE.0) + 1).filter(|root| root.is_some()).count();
        // CAST: numbers have 32 bits.
        u32::try_from(bound).unwrap_or(u32::MAX)
    }

    /// Slots that are free on a ring; 0 for one that does not exist.
    #[must_use]
    pub fn free_slots(&self, memory: &Memory, queue: QueueId) -> u32 {
        self.ring(queue).map_or(0, |ring| ring.host.free_slots(memory))
    }

    /// Puts a job into a ring and rings the doorbell: [`Gpu::put`], then [`Gpu::doorbell`].
    ///
    /// # Errors
    ///
    /// As [`Gpu::put`].
    pub fn submit(
        &mut self,
        memory: &mut Memory,
        now: Time,
        queue: QueueId,
        job: &JobDescriptor,
    ) -> Result<(), GpuError> {
        memory.tap_mut().set_time(now);
        self.put(memory, queue, job)?;
        self.doorbell(memory, now, queue);
        Ok(())
    }

    /// Puts a job into a ring. The device does not look before the doorbell.
    ///
    /// # Errors
    ///
    /// [`GpuError::Unplugged`], [`GpuError::NoSuchQueue`], [`GpuError::RingFull`]; nothing is changed then.
    pub fn put(&mut self, memory: &mut Memory, queue: QueueId, job: &JobDescriptor) -> Result<(), GpuError> {
        if !self.plugged {
            return Err(GpuError::Unplugged);
        }
        let ring = self.ring_mut(queue).ok_or(GpuError::NoSuchQueue(queue))?;
        ring.host.put(memory, job).map_err(|_| GpuError::RingFull)?;
        let name = job.job;
        if let Some(kind) = job.fault {
            memory.tap_mut().observe(Observation::FaultRequested { job: name, kind });
        }
        memory.tap_mut().observe(Observation::Submitted { job: name, queue });
        Ok(())
    }

    /// The next interrupt that has reached the host.
    pub fn poll_interrupt(&mut self) -> Option<Interrupt> {
        let (at, _) = self.interrupts.front()?;
        if *at > self.now {
            return None;
        }
        self.interrupts.pop_front().map(|(_, interrupt)| interrupt)
    }

    /// The next reset that has ended.
    pub fn poll_reset(&mut self) -> Option<ResetReport> {
        self.reports.pop_front()
    }

    /// How far a started job is; none if it has not started, or has ended.
    #[must_use]
    pub fn job_time(&self, queue: QueueId, hw_seqno: HwSeqno) -> Option<JobTime> {
        let job = self.find_started(queue, hw_seqno)?;
        Some(self.time_of(&self.jobs[index(job)]))
    }

    /// How far the oldest started job of a ring is.
    #[must_use]
    pub fn running(&self, queue: QueueId) -> Option<JobTime> {
        let of_ring = |job: &&Job| job.queue == queue && job.place != Place::Nowhere;
        let oldest = self.jobs.iter().filter(of_ring).min_by_key(|job| job.ring_index)?;
        Some(self.time_of(oldest))
    }

    fn time_of(&self, job: &Job) -> JobTime {
        let (standing, uncounted_ns) = match job.place {
            Place::Engine(engine) => (Standing::Running, self.engines[index(engine)].uncounted_ns(self.now)),
            Place::Blocked => (Standing::Blocked, 0),
            Place::Ready | Place::Nowhere => (Standing::Waiting, 0),
        };
        let hw_seqno = job.descriptor.hw_seqno;
        JobTime { hw_seqno, start: job.start, active_ns: job.active_ns + uncounted_ns, standing }
    }

    /// The record of a started job.
    pub(crate) fn find_started(&self, queue: QueueId, hw_seqno: HwSeqno) -> Option<u32> {
        let is_it =
            |job: &Job| job.place != Place::Nowhere && job.queue == queue && job.descriptor.hw_seqno == hw_seqno;
        // CAST: there are never 2^32 records.
        self.jobs.iter().position(is_it).map(|at| at as u32)
    }

    pub(crate) fn ring(&self, queue: QueueId) -> Option<&Ring> {
        self.rings.get(index(queue.0))?.as_ref()
    }

    pub(crate) fn ring_mut(&mut self, queue: QueueId) -> Option<&mut Ring> {
        self.rings.get_mut(index(queue.0))?.as_mut()
    }

    /// The firmware's page tables.
    pub(crate) const fn firmware_root(&self) -> Root {
        self.firmware.root()
    }

    /// What is left of it in the end.
    pub(crate) fn into_firmware(self) -> AddressSpace {
        self.firmware
    }

    /// The page tables that a number names now.
    pub(crate) fn root_of(&self, vm: VmId) -> Option<Root> {
        self.vms.get(index(vm.0)).copied().flatten()
    }

    /// Whether a fault on demand keeps this job's interrupt from the host.
    pub(crate) fn loses_interrupt(job: &Job) -> bool {
        job.descriptor.fault == Some(FaultKind::LostCompletion)
    }
}
