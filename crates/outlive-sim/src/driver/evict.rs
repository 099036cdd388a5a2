//! Eviction: a buffer's bytes leave the device's memory, and its entries every address space that leads to them.
//!
//! # How
//! One address space after the other: with its turn and the buffer's reservation locked, if nothing hangs on that any more, the
//! buffer is marked as evicted, its entries there go, and the translation cache is flushed. At last, with the reservation
//! locked again, the bytes move out, unless entries lead to them: where somebody has used it meanwhile, or where it was closed
//! and is still to be cleared. A job of any of the address spaces brings it back first, with the entries of that one.
//!
//! # Why no job misses its entries
//! A job is published with the reservations of all that its address space has open locked, after what was marked was
//! validated. So it comes before the mark, and the buffer is in use; or after, and puts its entries back. Who gives up half way
//! leaves a buffer with its bytes where they were and some entries missing, which the next job puts back likewise.
//!
//! # Why it cannot deadlock
//! One turn is held at a time, and taken before the reservation, as everywhere. With the reservation locked nothing is waited for
//! but the end of a moment, where an address space has no turn. Entries and bytes change under the machine's lock, a leaf, so who maps the buffer and who moves it see each other.

use outlive::Device;
use outlive::resv::{Slot, Transaction, Usage};
use outlive::vm::{Bo, Mode, OpenBo, Space, VmBo};

use super::bo::SimBo;
use super::hardware::SimDriver;
use super::vm_client::{SimVm, SimVmError};

impl<M: Mode> SimVm<M> {
    /// Moves a buffer of this device out of its memory, with its entries in all address spaces. One that is out already is left
    /// alone.
    ///
    /// # Errors
    /// [`SimVmError::Busy`]: something that uses it hangs on it. [`SimVmError::StillMapped`]: it was closed somewhere and is to
    /// be cleared there, or somebody has used it meanwhile. Its bytes are where they were.
    pub fn evict(&self, bo: &SimBo) -> Result<(), SimVmError> {
        evict(self.device(), bo, Turn::Awaited)
    }
}

/// What to do about an address space that somebody is changing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Wait for the turn.
    Awaited,
    /// Give up.
    Free,
}

/// See [`SimVm::evict`].
pub(crate) fn evict(device: &Device<SimDriver>, bo: &SimBo, turn: Turn) -> Result<(), SimVmError> {
    if !bo.is_resident() {
        return Ok(());
    }
    for open in VmBo::all(device, bo).map_err(|error| SimVmError::Vm(error.into()))? {
        take_entries(bo, &open, turn)?;
    }
    let moved = while_idle(bo, || bo.move_out());
    if moved? { Ok(()) } else { Err(SimVmError::StillMapped) }
}

/// Takes the entries of `bo` out of one address space.
fn take_entries(bo: &SimBo, open: &VmBo<SimDriver>, turn: Turn) -> Result<(), SimVmError> {
    let edit = match turn {
        // Had for a moment, which ends soon, and after the reservation was locked.
        _ if open.is_immediate() => None,
        Turn::Awaited => Some(open.edit()?),
        Turn::Free => Some(open.try_edit().ok_or(SimVmError::StillMapped)?),
    };
    if open.vm_data().forgets_entries() {
        open.data().unmapped();
        return Ok(());
    }
    while_idle(bo, || match &edit {
        Some(edit) => take_from(edit, open),
        None => take_from(&*open.look()?, open),
    })?
}

/// The same, of what is mapped by `space`, which does not change meanwhile.
fn take_from(space: &Space<OpenBo<SimDriver>>, open: &VmBo<SimDriver>) -> Result<(), SimVmError> {
    for range in space.of_bo(open.id()).map(|mapping| mapping.range) {
        // Whole mappings: no table is needed.
        open.vm_data().unmap(range.base(), range.len()).map_err(SimVmError::Map)?;
        open.vm_data().flush(range.base(), range.len());
    }
    // Closed meanwhile, it has entries that are not the space's any more.
    if space.bo(open.id()).is_some() {
        open.data().unmapped();
    }
    Ok(())
}

/// Marks `bo` as evicted and does it, with the reservation locked and nothing on it.
fn while_idle<T>(bo: &SimBo, change: impl FnOnce() -> T) -> Result<T, SimVmError> {
    let done = Transaction::new().run::<Slot<'_>, _>(
        |attempt| attempt.prepare(bo.core().reservation()),
        |sealed, slot| {
            let mut fences = sealed.fences(slot.locked(), Usage::Bookkeep).map(|(_, fence)| fence.into_fence());
            if let Some(busy) = fences.find(|fence| !fence.is_signaled()) {
                return Err(SimVmError::Busy(busy));
            }
            drop(fences);
            bo.core().evicted(sealed, slot.locked());
            Ok(change())
        },
    );
    done?
}
