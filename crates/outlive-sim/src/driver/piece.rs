//! Persistent buffers of a client: what its jobs work on in turn, in the device's memory while there is room.
//!
//! # States
//! *absent* (zeroed, of no memory) or *away* (swapped out) → *here*, brought in for a job that names it → *away*, evicted when
//! memory is short, if nothing hangs on it (`room`, `evict`).
//!
//! # How a job is submitted
//! It names its pieces. What hangs on them goes before it, as implicit dependencies; its payload has handles on them. It is
//! reserved first, for that may drop other jobs' payloads, which may want turns and locks of their own. Then, with the turn at the
//! address space and the pieces' reservations locked, what is away is brought in with its entries; what finds no memory has
//! others evicted, without turn and locks, and tries again. At last it is committed and its `retired` hung on the pieces: so an
//! eviction comes before the job looks, or finds its fence.

use alloc::sync::Arc;
use outlive::resv::{Slot, Transaction, Usage};
use outlive::trace::FenceId;
use outlive::vm::{Bo, BoCore, Edit, VmBo, VmError, VmLocks};
use outlive::{Dependency, Fence, JobFences, OnError, Reserved};

use super::bo::SimBo;
use super::buffer::{BufferError, Home, Kind};
use super::client::{SimQueue, SubmitError, Submitted};
use super::hardware::SimDriver;
use super::job::JobSpec;
use super::room::make_room;
use crate::gpu::{MemoryError, PAGE_BYTES, Va};

/// A persistent buffer of a client.
#[derive(Debug)]
pub struct Piece {
    pair: VmBo<SimDriver>,
    va: Va,
}

impl Piece {
    /// Where it is, in its client's address space, also while it is away.
    #[must_use]
    pub const fn va(&self) -> Va {
        self.va
    }

    /// Its size.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bo().core().size()
    }

    /// The buffer: where its bytes are, and how often they went and came back.
    #[must_use]
    pub fn bo(&self) -> &SimBo {
        self.pair.bo()
    }

    /// Unsignaled fences of what is to be done with it.
    fn fences(&self) -> Result<Vec<Fence>, SubmitError> {
        let snapshot = self.bo().core().reservation().snapshot(Usage::Read).map_err(VmError::from)?;
        let fences = snapshot.iter().map(|(_, fence)| Fence::clone(fence));
        Ok(fences.filter(|fence| !fence.is_signaled()).collect())
    }
}

impl Home<'_> {
    /// A persistent buffer of so many pages, absent.
    fn piece(&self, pages: u32) -> Result<Piece, BufferError> {
        let core = BoCore::new(self.device, u64::from(pages) * PAGE_BYTES as u64).map_err(VmError::from)?;
        let bo = SimBo::absent(&self.space().shared, core)?;
        let (va, pair) = self.map(&bo, pages, Kind::Piece)?;
        // Whoever locks all of the address space is to bring it in, too.
        let marked = Transaction::new().run::<Slot<'_>, _>(
            |attempt| attempt.prepare(bo.core().reservation()),
            |sealed, slot| bo.core().evicted(sealed, slot.locked()),
        );
        marked.map_err(VmError::from)?;
        Ok(Piece { pair, va })
    }
}

impl SimQueue {
    /// A persistent buffer of its client, zeroed; takes memory for page tables only until a job uses it.
    ///
    /// # Errors
    /// [`BufferError`].
    pub fn piece(&self, bytes: u64) -> Result<Arc<Piece>, BufferError> {
        let pages = u32::try_from(bytes.div_ceil(PAGE_BYTES as u64)).map_err(|_| MemoryError::OutOfHostMemory)?;
        let home = self.home();
        loop {
            match home.piece(pages) {
                Err(BufferError::Memory(MemoryError::OutOfPages { .. })) if make_room(home.device, &[]) => {}
                made => return Ok(Arc::new(made?)),
            }
        }
    }

    /// [`SimQueue::submit`] of a job that works on persistent buffers.
    pub(crate) fn submit_on_pieces(&self, mut spec: JobSpec) -> Result<Submitted, SubmitError> {
        let pieces = spec.pieces.clone();
        let mut before = Vec::new();
        for piece in &pieces {
            before.extend(piece.fences()?);
        }
        // An implicit dependant runs whatever becomes of the others, once the memory is free.
        spec.after.extend(before.iter().map(|fence| Dependency::on(fence.clone()).on_error(OnError::Run)));
        let before: Vec<FenceId> = before.iter().map(Fence::id).collect();
        let payload = self.payload(&mut spec)?;
        let reserved = self.reserve_payload(payload, spec, 0)?;
        let (id, output) = (reserved.id(), reserved.output());
        let output = output.ok_or(SubmitError::Memory(MemoryError::NoSuchPage))?;
        let mut reserved = Some(reserved);
        loop {
            match self.commit_on(&mut reserved, &pieces, &before) {
                Err(SubmitError::Memory(MemoryError::OutOfPages { .. })) if self.make_room_but(&pieces) => {}
                fences => return Ok(Submitted { fences: fences?, id, output }),
            }
        }
    }

    fn make_room_but(&self, pieces: &[Arc<Piece>]) -> bool {
        let spared: Vec<&SimBo> = pieces.iter().map(|piece| piece.bo()).collect();
        make_room(self.home().device, &spared)
    }

    /// Commits the job if its pieces can be brought in, else leaves it where it is.
    fn commit_on(
        &self,
        reserved: &mut Option<Reserved<SimDriver>>,
        pieces: &[Arc<Piece>],
        before: &[FenceId],
    ) -> Result<JobFences, SubmitError> {
        let pairs: Vec<&VmBo<SimDriver>> = pieces.iter().map(|piece| &piece.pair).collect();
        let edit = self.home().turn()?;
        let done = Transaction::new().try_run::<VmLocks<'_, SimDriver>, _, SubmitError>(
            |attempt| {
                let locks = self.vm().lock_named(attempt, &pairs)?;
                locks.validate(|bo, _| bring_in(&edit, bo))?;
                Ok(locks)
            },
            |sealed, locks| {
                for piece in pieces {
                    if piece.fences()?.iter().any(|fence| !before.contains(&fence.id())) {
                        return Err(SubmitError::Raced);
                    }
                    piece.bo().used();
                }
                let reserved = reserved.take().unwrap_or_else(|| unreachable!("committed here, once"));
                let fences = reserved.commit();
                locks.add(sealed, Usage::Bookkeep, Usage::Write, &fences.retired());
                Ok(fences)
            },
        );
        done?
    }
}

/// Gives an evicted buffer its pages and its entries. Its reservation is locked.
fn bring_in(edit: &Edit<SimDriver>, bo: &SimBo) -> Result<(), BufferError> {
    bo.move_in()?;
    let Some(open) = edit.find_bo(bo) else { return Ok(()) };
    for mapping in edit.of_bo(open.id()) {
        // Some may be there, if its eviction was given up half way. They lead where these will.
        open.vm_data().unmap(mapping.range.base(), mapping.range.len())?;
        open.vm_data().map(&mapping, Some(bo))?;
    }
    Ok(())
}
