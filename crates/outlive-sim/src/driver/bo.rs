//! Buffers of the library on this device: their pages, in the device's memory, in the system's, or swapped out.
//!
//! # Who touches what
//! Where a buffer's bytes are: under the machine's lock; it changes only while no entry leads there and nothing that is to come
//! hangs on the buffer (eviction, validation), or in its drop.

use alloc::sync::{Arc, Weak};
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};
use outlive::Device;
use outlive::vm::{Bo, BoCore};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::hardware::SimDriver;
use super::machine::{Machine, Shared};
use crate::gpu::{DomainId, Memory, MemoryError, OwnerId, PAGE_BYTES, PageId, VmId};

const PAGE: u64 = PAGE_BYTES as u64;
/// What pages are taken in, largest first.
const RUNS: [u32; 3] = [512, 16, 1];

/// Whose memory, and in what pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pages {
    /// The device's, in pieces as large as there are.
    Large,
    /// The device's, page by page: for what does not live long.
    Small,
    /// The system's, which every device reaches.
    System,
}

/// A buffer that can be mapped in address spaces of the library. Clones are the same one.
#[derive(Debug, Clone)]
pub struct SimBo(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    core: BoCore,
    memory: Arc<Backing>,
}

/// What is behind a buffer, and behind those that other devices have of it.
#[derive(Debug)]
struct Backing {
    shared: Arc<Shared>,
    owner: OwnerId,
    domain: DomainId,
    held: Mutex<Held>,
    /// Where it is open. Taken under the lock of what is held.
    opens: Mutex<Vec<Seen>>,
    /// Its number among those that may be evicted to make room; 0: it is not one.
    number: AtomicU64,
    evictions: AtomicU64,
    restores: AtomicU64,
}

/// An address space in which a buffer is open.
#[derive(Debug)]
struct Seen {
    number: u64,
    space: VmId,
    /// Entries there may lead to it.
    mapped: bool,
}

/// That a buffer is open in an address space, until dropped.
#[derive(Debug)]
pub(crate) struct Opening {
    bo: SimBo,
    number: u64,
}

impl Opening {
    pub(crate) fn new(bo: &SimBo, space: VmId) -> Self {
        static NUMBERS: AtomicU64 = AtomicU64::new(0);
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        bo.0.memory.opens().push(Seen { number, space, mapped: false });
        Self { bo: bo.clone(), number }
    }

    /// No entry of that address space leads to the buffer any more, and no translation is remembered.
    pub(crate) fn unmapped(&self) {
        let mut opens = self.bo.0.memory.opens();
        opens.iter_mut().filter(|seen| seen.number == self.number).for_each(|seen| seen.mapped = false);
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        self.bo.0.memory.opens().retain(|seen| seen.number != self.number);
    }
}

/// Where a buffer's bytes are.
#[derive(Debug)]
enum Held {
    /// In memory: pieces in order, each the first page and how many lie side by side.
    Here(Vec<(PageId, u32)>),
    /// Swapped out; nothing was ever in one that is empty.
    Away(Vec<u8>),
}

/// A buffer that may be gone.
#[derive(Debug)]
pub(crate) struct WeakBo(Weak<Inner>);

impl WeakBo {
    pub(crate) fn upgrade(&self) -> Option<SimBo> {
        self.0.upgrade().map(SimBo)
    }
}

impl Bo for SimBo {
    fn core(&self) -> &BoCore {
        &self.0.core
    }
}

impl SimBo {
    /// Zeroed pages, as many as `core` says.
    pub(crate) fn new(shared: &Arc<Shared>, core: BoCore, pages: Pages) -> Result<Self, MemoryError> {
        let runs = if pages == Pages::Large { &RUNS[..] } else { &RUNS[2..] };
        let count = core.size().div_ceil(PAGE);
        Self::with(shared, core, pages == Pages::System, |machine, whose| {
            take_pages(machine, whose, count, runs).map(Held::Here)
        })
    }

    /// One that is not in the device's memory yet; zeroed.
    pub(crate) fn absent(shared: &Arc<Shared>, core: BoCore) -> Result<Self, MemoryError> {
        Self::with(shared, core, false, |_, _| Ok(Held::Away(Vec::new())))
    }

    fn with(
        shared: &Arc<Shared>,
        core: BoCore,
        in_system: bool,
        hold: impl FnOnce(&mut Machine, (DomainId, OwnerId)) -> Result<Held, MemoryError>,
    ) -> Result<Self, MemoryError> {
        let mut machine = shared.lock();
        let machine = &mut *machine;
        let own = machine.unit.gpu.as_ref().ok_or(MemoryError::NoSuchPage)?.domain();
        let domain = if in_system { DomainId::SYSTEM } else { own };
        let owner = machine.memory.add_owner()?;
        let held = match hold(machine, (domain, owner)) {
            Ok(held) => Mutex::new(held),
            Err(error) => {
                machine.memory.remove_owner(owner);
                return Err(error);
            }
        };
        let [number, evictions, restores] = [const { AtomicU64::new(0) }; 3];
        let shared = Arc::clone(shared);
        let memory = Backing { shared, owner, domain, held, opens: Mutex::default(), number, evictions, restores };
        Ok(Self(Arc::new(Inner { core, memory: Arc::new(memory) })))
    }

    /// The same memory as a buffer of `device`; the system's only, which is never evicted.
    pub(crate) fn import(&self, device: &Device<SimDriver>) -> Option<Self> {
        let core = BoCore::imported(device, &self.0.core);
        let reached = self.0.memory.domain == DomainId::SYSTEM;
        reached.then(|| Self(Arc::new(Inner { core, memory: Arc::clone(&self.0.memory) })))
    }

    /// Whether both are the same.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// A job uses it: of those that may be evicted to make room it is the last to go.
    pub(crate) fn used(&self) {
        let mut machine = self.0.memory.shared.lock();
        let number = &self.0.memory.number;
        let weak = WeakBo(Arc::downgrade(&self.0));
        number.store(machine.unit.lru.used(number.load(Ordering::Relaxed), weak), Ordering::Relaxed);
    }

    /// How often it was moved out of memory.
    #[must_use]
    pub fn evictions(&self) -> u64 {
        self.0.memory.evictions.load(Ordering::Relaxed)
    }

    /// How often it was moved back.
    #[must_use]
    pub fn restores(&self) -> u64 {
        self.0.memory.restores.load(Ordering::Relaxed)
    }

    /// Whether its pages are in memory.
    #[must_use]
    pub fn is_resident(&self) -> bool {
        matches!(*self.held(), Held::Here(_))
    }

    /// In how many address spaces it is open.
    #[must_use]
    pub fn opens(&self) -> usize {
        self.0.memory.opens().len()
    }

    pub(crate) fn is_in_system(&self) -> bool {
        self.0.memory.domain == DomainId::SYSTEM
    }

    /// Its pages in order; none if it is swapped out.
    pub(crate) fn pages(&self) -> Vec<PageId> {
        let _machine = self.0.memory.shared.lock();
        match &*self.held() {
            Held::Here(pieces) => pieces.iter().flat_map(|piece| pages_of(*piece)).collect(),
            Held::Away(_) => Vec::new(),
        }
    }

    /// What is in it, copied by the host, wherever it is.
    #[must_use]
    pub fn read(&self) -> Vec<u8> {
        let machine = self.0.memory.shared.lock();
        match &*self.held() {
            Held::Here(pieces) => bytes_of(&machine.memory, pieces),
            Held::Away(bytes) if bytes.is_empty() => alloc::vec![0; self.pages_count() * PAGE_BYTES],
            Held::Away(bytes) => bytes.clone(),
        }
    }

    /// Calls `each` with the pieces that hold `len` bytes from `offset` on, in order: how far in each begins, its first page and
    /// how many. With none if it is swapped out; else entries in `space` lead to it from now on. Under the machine's lock.
    pub(crate) fn map_pieces<E>(
        &self,
        space: VmId,
        (offset, len): (u64, u64),
        mut each: impl FnMut(u64, (PageId, u32)) -> Result<(), E>,
    ) -> Result<(), E> {
        let held = self.held();
        let Held::Here(pieces) = &*held else { return Ok(()) };
        self.0.memory.opens().iter_mut().filter(|seen| seen.space == space).for_each(|seen| seen.mapped = true);
        let (mut at, end) = (offset, offset + len);
        let mut start = 0;
        for (first, count) in pieces {
            let past = start + u64::from(*count) * PAGE;
            if at < end && at < past {
                // CAST: at most a piece of 512 pages.
                let (into, pages) = (((at - start) / PAGE) as u32, ((end.min(past) - at) / PAGE) as u32);
                each(at - offset, (PageId { index: first.index + into, ..*first }, pages))?;
                at = end.min(past);
            }
            start = past;
        }
        Ok(())
    }

    /// Moves it out of memory, where nothing may use it, unless entries lead to it. Whether it is out.
    pub(crate) fn move_out(&self) -> bool {
        let mut machine = self.0.memory.shared.lock();
        let mut held = self.held();
        let bytes = match &*held {
            Held::Here(_) if self.0.memory.opens().iter().any(|seen| seen.mapped) => return false,
            Held::Here(pieces) => bytes_of(&machine.memory, pieces),
            Held::Away(_) => return true,
        };
        if let Held::Here(pieces) = core::mem::replace(&mut *held, Held::Away(bytes)) {
            free_pages(&mut machine, &pieces);
            self.0.memory.evictions.fetch_add(1, Ordering::Relaxed);
            self.0.memory.forget(&mut machine);
        }
        true
    }

    /// Moves it back.
    pub(crate) fn move_in(&self) -> Result<(), MemoryError> {
        let mut machine = self.0.memory.shared.lock();
        let machine = &mut *machine;
        let mut held = self.held();
        let Held::Away(bytes) = &*held else { return Ok(()) };
        let Backing { domain, owner, .. } = *self.0.memory;
        let pieces = take_pages(machine, (domain, owner), self.0.core.size().div_ceil(PAGE), &RUNS)?;
        let mut chunks = bytes.chunks_exact(PAGE_BYTES);
        for page in pieces.iter().flat_map(|piece| pages_of(*piece)) {
            if let (Some(page), Some(chunk)) = (machine.memory.page_mut(page), chunks.next()) {
                page.copy_from_slice(chunk);
            }
        }
        if !bytes.is_empty() {
            self.0.memory.restores.fetch_add(1, Ordering::Relaxed);
        }
        *held = Held::Here(pieces);
        Ok(())
    }

    /// Gives its pages back; what was in it is lost. For one that nobody will use any more, and no entry leads to.
    pub(crate) fn purge(&self) {
        let mut machine = self.0.memory.shared.lock();
        if let Held::Here(pieces) = core::mem::replace(&mut *self.held(), Held::Here(Vec::new())) {
            free_pages(&mut machine, &pieces);
        }
    }

    fn pages_count(&self) -> usize {
        usize::try_from(self.0.core.size().div_ceil(PAGE)).unwrap_or(0)
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.memory.held()
    }
}

impl fmt::Display for SimBo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "buffer {}", self.core().id())
    }
}

impl Backing {
    /// It is none of those any more that may be evicted to make room.
    fn forget(&self, machine: &mut Machine) {
        machine.unit.lru.forget(self.number.swap(0, Ordering::Relaxed));
    }

    fn opens(&self) -> MutexGuard<'_, Vec<Seen>> {
        self.opens.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Backing {
    fn drop(&mut self) {
        let mut machine = self.shared.lock();
        if let Held::Here(pieces) = &*self.held() {
            free_pages(&mut machine, pieces);
        }
        self.forget(&mut machine);
        machine.memory.remove_owner(self.owner);
    }
}

fn pages_of((first, count): (PageId, u32)) -> impl Iterator<Item = PageId> {
    (first.index..first.index + count).map(move |index| PageId { index, ..first })
}

fn bytes_of(memory: &Memory, pieces: &[(PageId, u32)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for page in pieces.iter().flat_map(|piece| pages_of(*piece)) {
        bytes.extend_from_slice(memory.page(page).map_or(&[][..], |page| &page[..]));
    }
    bytes
}

fn free_pages(machine: &mut Machine, pieces: &[(PageId, u32)]) {
    let now = machine.now;
    machine.memory.tap_mut().set_time(now);
    for page in pieces.iter().flat_map(|piece| pages_of(*piece)) {
        // A page that was freed behind its back shows in the audit.
        let _ = machine.memory.free(page);
    }
}

/// So many pages, side by side as far as there are such; all or none.
fn take_pages(
    machine: &mut Machine,
    (domain, owner): (DomainId, OwnerId),
    pages: u64,
    runs: &[u32],
) -> Result<Vec<(PageId, u32)>, MemoryError> {
    let now = machine.now;
    machine.memory.tap_mut().set_time(now);
    let mut left = u32::try_from(pages).map_err(|_| MemoryError::OutOfHostMemory)?;
    let free = machine.memory.free_pages(domain);
    if free < left {
        return Err(MemoryError::OutOfPages { domain, wanted: left, free });
    }
    let mut pieces = Vec::new();
    let mut sizes = runs.iter().copied();
    let mut size = sizes.next();
    while let Some(run) = size.filter(|_| left > 0) {
        match (run <= left).then(|| machine.memory.allocate_run(domain, owner, run)) {
            Some(Ok(first)) => {
                pieces.push((first, run));
                left -= run;
            }
            Some(Err(_)) | None => size = sizes.next(),
        }
    }
    if left > 0 {
        free_pages(machine, &pieces);
        return Err(MemoryError::OutOfPages { domain, wanted: left, free });
    }
    Ok(pieces)
}
