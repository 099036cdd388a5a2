//! Rings: how jobs reach the device. One ring is one hardware queue.
//!
//! A ring lies in device memory and is mapped in the firmware's address space:
//!
//! ```text
//!  0x00  write pointer   jobs ever put in; only the host writes it
//!  0x08  read pointer    jobs ever done with, in order; only the device writes it
//!  0x40  slot 0          64 bytes: a job's descriptor
//!  0x80  slot 1          ...
//! ```
//!
//! Job `n` stands in slot `n % slots`. The host ([`HostRing`]) fills the slot, raises the write pointer and rings the
//! doorbell; the device (`DeviceRing`) then reads the write pointer, and a descriptor when it starts that job. The
//! slot is the device's until the read pointer has passed it. A descriptor, little endian:
//!
//! ```text
//!  0x00  u32  0x424a_4c4f, "OLJB"
//!  0x04  u32  address space number
//!  0x08  u64  hardware sequence number
//!  0x10  u64  the job's name for the checkers
//!  0x18  u64  hardware time in ns; 0: what the commands cost
//!  0x20  u64  address of the commands, in the job's address space
//!  0x28  u32  bytes of commands
//!  0x2c  u32  fault on demand
//!  0x30       zero
//! ```
//!
//! # States
//!
//! A job of a ring is *put in* (below the write pointer in memory), *rung* (below `write_index`), *started* (below
//! `start_index`), *done* (its flag in `done`), and *passed* (below the read pointer). Jobs start in order. A rung job
//! that is cancelled before its start is passed over when its turn comes.

use alloc::collections::VecDeque;
use core::fmt;

use super::faults::FaultKind;
use super::memory::{Memory, MemoryError, PAGE_BYTES, index};
use super::mmu;
use super::page_table::Fault;
use super::types::{Access, HwSeqno, JobId, PageId, Va, VmId};

/// Bytes of a descriptor.
pub const DESCRIPTOR_BYTES: usize = 64;
/// The most jobs that a ring can hold.
pub const RING_SLOTS_MAX: u32 = 1 << 20;
const MAGIC: u32 = 0x424a_4c4f;
const WRITE_POINTER: u64 = 0;
const READ_POINTER: u64 = 8;
const SLOTS_START: u64 = 0x40;

/// A job as its ring describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobDescriptor {
    /// The host's number for it on this ring.
    pub hw_seqno: HwSeqno,
    /// The number of its address space.
    pub vm: VmId,
    /// Its name for the checkers.
    pub job: JobId,
    /// How long it takes an engine; 0 for what its commands cost.
    pub hw_time_ns: u64,
    /// Where its commands are.
    pub commands: Va,
    /// How many bytes of them.
    pub commands_bytes: u32,
    /// What it shall do wrong.
    pub fault: Option<FaultKind>,
}

impl JobDescriptor {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; DESCRIPTOR_BYTES] {
        let mut bytes = [0; DESCRIPTOR_BYTES];
        let words = [
            u64::from(MAGIC) | (u64::from(self.vm.0) << 32),
            self.hw_seqno.0,
            self.job.0,
            self.hw_time_ns,
            self.commands.0,
            u64::from(self.commands_bytes) | (u64::from(FaultKind::encode(self.fault)) << 32),
        ];
        for (to, word) in bytes.chunks_exact_mut(8).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// What the bytes describe; none if they are no descriptor.
    #[must_use]
    pub fn decode(bytes: &[u8; DESCRIPTOR_BYTES]) -> Option<Self> {
        let mut words = [0; 8];
        for (word, raw) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = u64::from_le_bytes(*raw.first_chunk()?);
        }
        // CAST: the low halves, throughout.
        if words[0] as u32 != MAGIC || words[6] != 0 || words[7] != 0 {
            return None;
        }
        Some(Self {
            vm: VmId((words[0] >> 32) as u32),
            hw_seqno: HwSeqno(words[1]),
            job: JobId(words[2]),
            hw_time_ns: words[3],
            commands: Va(words[4]),
            commands_bytes: words[5] as u32,
            fault: FaultKind::decode((words[5] >> 32) as u32).ok()?,
        })
    }
}

/// No slot of the ring is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingFull;

impl fmt::Display for RingFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the ring is full")
    }
}

impl core::error::Error for RingFull {}

/// Bytes of memory that a ring of `slots` takes.
#[must_use]
pub const fn ring_bytes(slots: u32) -> usize {
    0x40 + index(slots) * DESCRIPTOR_BYTES
}

/// The host's side of a ring. It reaches the ring's memory by page, as a CPU would.
#[derive(Debug)]
pub struct HostRing {
    pages: Vec<PageId>,
    slots: u32,
    put: u64,
}

impl HostRing {
    /// A ring in `pages`, which are zeroed and enough for `slots`.
    pub(crate) const fn new(pages: Vec<PageId>, slots: u32) -> Self {
        Self { pages, slots, put: 0 }
    }

    /// The pages that the ring lies in.
    #[must_use]
    pub fn pages(&self) -> &[PageId] {
        &self.pages
    }

    /// Slots that the device has passed or never saw.
    #[must_use]
    pub fn free_slots(&self, memory: &Memory) -> u32 {
        let read = memory.load_u64(self.pages[0], index(READ_POINTER as u32)).unwrap_or(0);
        // A device that writes nonsense makes the ring look full, never roomier than it is.
        let taken = u32::try_from(self.put.wrapping_sub(read)).unwrap_or(u32::MAX);
        self.slots.saturating_sub(taken)
    }

    /// Fills the next slot and raises the write pointer.
    ///
    /// # Errors
    ///
    /// [`RingFull`]; nothing is written then.
    pub fn put(&mut self, memory: &mut Memory, job: &JobDescriptor) -> Result<(), RingFull> {
        if self.free_slots(memory) == 0 {
            return Err(RingFull);
        }
        let at = index((SLOTS_START + self.put % u64::from(self.slots) * 64) as u32);
        // Slots never cross a page: 64 divides 4096 and the header takes exactly one slot's room.
        let page = memory.page_mut(self.pages[at / PAGE_BYTES]).ok_or(RingFull)?;
        let offset = at % PAGE_BYTES;
        page[offset..offset + DESCRIPTOR_BYTES].copy_from_slice(&job.encode());
        self.put += 1;
        memory.store_u64(self.pages[0], index(WRITE_POINTER as u32), self.put).ok_or(RingFull)
    }

    /// Gives the ring's pages back.
    ///
    /// # Errors
    ///
    /// As [`Memory::free`].
    pub(crate) fn free(self, memory: &mut Memory) -> Result<(), MemoryError> {
        self.pages.iter().try_for_each(|page| memory.free(*page))
    }
}

/// The device's side of a ring: its three indices, and what it set aside of the jobs it started.
#[derive(Debug)]
pub(crate) struct DeviceRing {
    /// Where the ring is, in the firmware's address space.
    base: Va,
    slots: u32,
    /// Jobs rung; as the write pointer was at the last doorbell.
    pub(crate) write_index: u64,
    /// Jobs started or passed over.
    pub(crate) start_index: u64,
    /// Jobs passed; the read pointer.
    read_index: u64,
    /// Whether each job between `read_index` and `start_index` is done.
    done: VecDeque<bool>,
    /// Cancelled before their start; ascending.
    canceled: Vec<u64>,
    /// Started jobs that wait for an engine, oldest first: rotated off, or back from a semaphore.
    pub(crate) ready: VecDeque<u32>,
    /// Jobs started and not done.
    pub(crate) started: u32,
    /// Whether it stands in the rotation.
    pub(crate) in_rotation: bool,
    /// Resets under way that concern it; it starts nothing meanwhile.
    pub(crate) resets_pending: u32,
    /// A reset failed: it starts nothing until one works.
    pub(crate) wedged: bool,
}

impl DeviceRing {
    pub(crate) const fn new(base: Va, slots: u32) -> Self {
        Self {
            base,
            slots,
            write_index: 0,
            start_index: 0,
            read_index: 0,
            done: VecDeque::new(),
            canceled: Vec::new(),
            ready: VecDeque::new(),
            started: 0,
            in_rotation: false,
            resets_pending: 0,
            wedged: false,
        }
    }

    /// Looks at the write pointer. Returns how many jobs are new; a pointer that makes no sense brings none.
    pub(crate) fn ring(&mut self, memory: &Memory, firmware: mmu::Root) -> Result<u64, Fault> {
        let written = mmu::load(memory, firmware, self.base.add(WRITE_POINTER))?;
        let new = written.wrapping_sub(self.write_index);
        if written.wrapping_sub(self.read_index) > u64::from(self.slots) {
            return Ok(0);
        }
        self.write_index = written;
        Ok(new)
    }

    /// Whether a started job waits for an engine, or one may be started with `engines` in the device.
    pub(crate) fn runnable(&self, engines: u32) -> bool {
        let held = self.resets_pending > 0 || self.wedged;
        !held && (!self.ready.is_empty() || (self.unstarted() && self.started < engines))
    }

    fn unstarted(&self) -> bool {
        self.start_index < self.write_index
    }

    /// The descriptor of job `n`.
    pub(crate) fn descriptor(
        &self,
        memory: &Memory,
        firmware: mmu::Root,
        n: u64,
    ) -> Result<Option<JobDescriptor>, Fault> {
        let at = self.base.add(SLOTS_START + n % u64::from(self.slots) * 64);
        let mut bytes = [0; DESCRIPTOR_BYTES];
        mmu::read(memory, firmware, at, Access::ControlRead, &mut bytes)?;
        Ok(JobDescriptor::decode(&bytes))
    }

    /// Takes the next job to start and returns its index.
    pub(crate) fn start_next(&mut self) -> u64 {
        let n = self.start_index;
        self.start_index += 1;
        self.started += 1;
        self.done.push_back(false);
        // The next may have been cancelled already, and another engine may ask for it before this one is done.
        self.pass_canceled();
        n
    }

    /// Notes that a rung job shall not start. It is passed over now if it is next, else when its turn comes.
    pub(crate) fn cancel_unstarted(&mut self, n: u64) {
        if let Err(at) = self.canceled.binary_search(&n) {
            self.canceled.insert(at, n);
        }
        self.pass_canceled();
    }

    /// Whether a job was cancelled before its start.
    pub(crate) fn is_canceled(&self, n: u64) -> bool {
        self.canceled.binary_search(&n).is_ok()
    }

    /// Passes over cancelled jobs that are next.
    pub(crate) fn pass_canceled(&mut self) {
        while self.canceled.first() == Some(&self.start_index) {
            self.canceled.remove(0);
            self.start_index += 1;
            self.done.push_back(true);
        }
    }

    /// Notes that a started job is done.
    pub(crate) fn finish(&mut self, n: u64) {
        self.started -= 1;
        if let Some(done) = self.done.get_mut(index(n.wrapping_sub(self.read_index) as u32)) {
            *done = true;
        }
        self.pass_canceled();
    }

    /// Raises the read pointer over all that is done, in memory too.
    pub(crate) fn publish_read(&mut self, memory: &mut Memory, root: mmu::Root) -> Result<(), Fault> {
        let before = self.read_index;
        while self.done.front() == Some(&true) {
            self.done.pop_front();
            self.read_index += 1;
        }
        if self.read_index == before {
            return Ok(());
        }
        let at = self.base.add(READ_POINTER);
        mmu::store(memory, root, at, Access::ControlWrite, self.read_index)
    }

    /// Whether nothing is in it.
    pub(crate) fn is_idle(&self) -> bool {
        self.started == 0 && !self.unstarted() && self.resets_pending == 0
    }
}

#[cfg(test)]
#[path = "ring_tests.rs"]
mod tests;
