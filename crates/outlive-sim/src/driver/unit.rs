//! One device of a machine, and what its driver remembers: rings, jobs on them, address spaces, resets.
//!
//! Behind the machine's lock.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use outlive::{InFlight, ResetToken};

use super::ids::Ids;
use super::room::Lru;
use super::space::Spaces;
use crate::gpu::{Gpu, JobId, Memory, PageId, QueueId, ResetScope, Time, VmId};

/// A job on a ring: from its doorbell until its end was collected.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flying {
    pub(crate) job: JobId,
    /// On which device.
    pub(crate) unit: usize,
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

/// One device of the machine, and what its driver knows.
#[derive(Debug)]
pub(crate) struct Unit {
    /// Taken out in the end.
    pub(crate) gpu: Option<Gpu>,
    /// By the hardware's number.
    pub(crate) rings: Vec<Option<RingState>>,
    /// Of queues that are gone, to be destroyed once the device lets them.
    pub(crate) doomed_rings: Vec<QueueId>,
    pub(crate) spaces: Spaces,
    /// What may be evicted to make room.
    pub(crate) lru: Lru,
    pub(crate) free_vms: Vec<VmId>,
    pub(crate) next_vm: u32,
    /// What its address space numbers stand for, where they are leased.
    pub(crate) ids: Ids,
    /// Resets asked of the device and not answered.
    pub(crate) tokens: Vec<(ResetScope, ResetToken)>,
}

impl Unit {
    pub(crate) fn new(gpu: Gpu) -> Self {
        Self {
            gpu: Some(gpu),
            rings: Vec::new(),
            doomed_rings: Vec::new(),
            spaces: Spaces::default(),
            lru: Lru::default(),
            free_vms: Vec::new(),
            next_vm: 1,
            ids: Ids::default(),
            tokens: Vec::new(),
        }
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
    pub(crate) fn ring_of(&self, queue: u64) -> Option<(QueueId, &RingState)> {
        let rings = self.rings.iter().enumerate();
        // CAST: rings are counted in 32 bits.
        rings.filter_map(|(at, ring)| Some((QueueId(at as u32), ring.as_ref()?))).find(|(_, ring)| ring.queue == queue)
    }

    /// Whether it has nothing to say at `now`.
    pub(crate) fn is_quiet(&self, now: Time) -> bool {
        self.doomed_rings.is_empty() && self.gpu.as_ref().is_none_or(|gpu| gpu.is_quiet(now))
    }

    /// When the device will do something by itself.
    pub(crate) fn next_event(&self) -> Option<Time> {
        self.gpu.as_ref().and_then(Gpu::next_event)
    }

    /// Bytes of its own memory handed out, without the firmware's page tables.
    pub(crate) fn bytes_in_use(&self, memory: &Memory) -> u64 {
        let Some(gpu) = &self.gpu else { return 0 };
        let page = crate::gpu::PAGE_BYTES as u64;
        let taken = gpu.config().memory_bytes / page - u64::from(memory.free_pages(gpu.domain()));
        (taken - u64::from(gpu.firmware_tables())) * page
    }
}
