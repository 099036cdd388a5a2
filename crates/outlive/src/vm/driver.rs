//! What a driver with address spaces says about itself: its buffers, and how what has left an address space is cleared.

use super::clear::ToClear;
use super::edit::Edit;
use crate::device::{Device, Driver};
use crate::exec::next_id;

/// A driver whose device has address spaces.
///
/// # Contexts
/// | call | where | may allocate | may block | whose turn at the address space |
/// |---|---|---|---|---|
/// | [`clear`](VmDriver::clear) | reaper lane | yes | yes, also for fences | its own: `edit` |
/// | `Drop` of [`Vm`](VmDriver::Vm), [`VmBo`](VmDriver::VmBo), [`Bo`](VmDriver::Bo), and of mappings' data that left with a close | reaper lane | yes | yes | nobody's |
/// | `Drop` of data that a change leaves over | where its [`Binding`](super::Binding) is dropped | | | |
///
/// No lock of the library is held in any of them.
pub trait VmDriver: Driver {
    /// A buffer: a counted pointer to the driver's own.
    type Bo: Bo;
    /// What the driver keeps with each address space: its page tables.
    type Vm: Send + Sync + 'static;
    /// What it keeps with each buffer in each address space.
    type VmBo: Send + Sync + 'static;
    /// What it keeps with each mapping. A split copies it.
    type Mapping: Clone + Send + 'static;

    /// Clears the entries of what has left the address space (`edit.`[`clearing`](Edit::clearing)), flushes every translation
    /// cache that may have them, and then says so: [`ToClear::cleared`], here or later, from any context. No job that may use
    /// them is on the hardware any more. Dropping `to_clear` says that it could not be done: it is never freed, and
    /// counted ([`VmStatus::quarantined`](super::VmStatus::quarantined)).
    fn clear(&self, edit: &mut Edit<Self>, to_clear: ToClear<Self>);
}

/// A counted pointer to one of the driver's buffers. Clones are the same buffer; its pages go when the last is dropped.
pub trait Bo: Clone + Send + Sync + 'static {
    /// What the library keeps in each buffer.
    fn core(&self) -> &BoCore;
}

/// The library's part of a buffer.
#[derive(Debug)]
pub struct BoCore {
    id: u64,
    device: u64,
    size: u64,
}

impl BoCore {
    /// For a buffer of `size` bytes of `device`.
    #[must_use]
    pub fn new<D: Driver>(device: &Device<D>, size: u64) -> Self {
        Self { id: next_id(), device: device.id(), size }
    }

    /// Its number, never reused in this process.
    #[must_use]
    pub const fn id(&self) -> u64 {
        self.id
    }

    /// Its device's [`Device::id`].
    #[must_use]
    pub const fn device(&self) -> u64 {
        self.device
    }

    /// In bytes.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }
}
