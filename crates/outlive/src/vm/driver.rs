//! What a driver with address spaces says about itself: its buffers, and how what has left an address space is cleared.

use super::clear::{Flushed, ToClear};
use super::edit::Edit;
use super::handle::Vm;
use super::mapping::Source;
use super::mode::Mode;
use super::open_in::OpenIn;
use super::pairs::{OpenBo, PairInner};
use super::space::Space;
use super::step::Step;
use crate::FenceError;
use crate::device::{Device, Driver};
use crate::exec::next_id;
use crate::mem::AllocError;
use crate::mem::shared::Ref;
use crate::resv::{Locked, Reservation, Sealed};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Lock, class};
use core::fmt;

/// A driver whose device has address spaces: what is kept with them. How they are changed is said by [`StagedDriver`], or
/// [`ImmediateDriver`], or both.
///
/// # Contexts
/// | call | where | may allocate | may block | who has the space |
/// |---|---|---|---|---|
/// | [`StagedDriver::clear`] | reaper lane | yes | yes, also for fences | it: `edit` |
/// | [`ImmediateDriver::bind`], [`flush`](ImmediateDriver::flush) | signalling lane, who submits a bind job, who ends a [`Look`](super::Look), reaper lane | no | no | in `bind` it: `cx.space`; in `flush` somebody |
/// | `Drop` of [`Vm`](VmDriver::Vm), [`VmBo`](VmDriver::VmBo), [`Bo`](VmDriver::Bo), of mappings' data that left with a close or a bind job, of [`Room`](ImmediateDriver::Room) | reaper lane | yes | yes | nobody |
/// | `Drop` of data that a staged change leaves over | where its [`Binding`](super::Binding) is dropped | | | |
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
}

/// A driver with address spaces whose changes are planned by whoever has the turn ([`Staged`](super::Staged)).
pub trait StagedDriver: VmDriver {
    /// Clears the entries of what has left the address space (`edit.`[`clearing`](Edit::clearing)), flushes every translation
    /// cache that may have them, and then says so: [`ToClear::cleared`], here or later, from any context. No job that may use
    /// them is on the hardware any more. Dropping `to_clear` says that it could not be done: it is never freed, and
    /// counted ([`VmStatus::quarantined`](super::VmStatus::quarantined)).
    ///
    /// Something else may have been mapped at the same addresses since the close: whoever writes entries where some are replaces
    /// them, and those that are written by now are not this one's to clear ([`Edit::still_there`]).
    fn clear(&self, edit: &mut Edit<Self>, to_clear: ToClear<Self>);
}

/// A driver with address spaces that are changed by running bind jobs ([`Immediate`](super::Immediate)).
///
/// Its [`Mapping`](VmDriver::Mapping) is cloned in the signalling path, for each piece that a batch leaves: plain data or a
/// counted pointer, whose clone allocates nothing.
pub trait ImmediateDriver: VmDriver {
    /// What it puts aside for one batch ([`VmPrepared::accept`](super::VmPrepared::accept)): page tables. What is left of it is
    /// dropped with it.
    type Room: Send + 'static;

    /// Carries one step out on the page tables. Nobody else changes them, or the space, meanwhile. All memory that it takes is in
    /// `cx.room`; there is none where what was closed is cleared, which takes none: whole mappings go, but for what was mapped over
    /// them. Such a map finds their entries, and takes their place; where it cuts huge ones, that is among
    /// [`splits`](super::Prepared::splits).
    ///
    /// # Errors
    /// It cannot be done. The bind job fails with this, and the address space is poisoned; what was to be cleared is never
    /// freed, unless the device is gone and was quiesced for good.
    fn bind(&self, cx: &mut BindCx<'_, Self>, step: &Step<&Self::Mapping>) -> Result<(), FenceError>;

    /// No translation that the steps before have taken away can be used once this returns. Called after the steps of a batch,
    /// also if one has failed, and before the batch's job is completed.
    ///
    /// # Errors
    /// It cannot be excluded. The bind job fails with this, the address space is poisoned, and nothing that leaves it is ever
    /// freed, unless the device is gone and was quiesced for good.
    fn flush(&self, vm: &Self::Vm) -> Result<Flushed, FenceError>;
}

/// What [`ImmediateDriver::bind`] is given.
pub struct BindCx<'a, D: ImmediateDriver> {
    /// What the driver keeps with the address space.
    pub vm: &'a D::Vm,
    /// What it has put aside for the batch; none where what was closed is cleared.
    pub room: Option<&'a mut D::Room>,
    /// The space as it is before the step.
    pub space: &'a Space<OpenBo<D>, D::Mapping>,
    /// The buffer that is cleared, which the space does not know any more.
    pub(super) closing: Option<&'a PairInner<D>>,
}

impl<'a, D: ImmediateDriver> BindCx<'a, D> {
    /// The buffer behind a step of this call, and what the driver keeps with it here; none if it is sparse.
    #[must_use]
    pub fn bo(&self, source: Source) -> Option<(&'a D::Bo, &'a D::VmBo)> {
        let id = source.bo()?;
        match self.closing.filter(|pair| pair.id == id) {
            Some(pair) => Some((&pair.bo, &pair.data)),
            None => self.space.bo(id).map(|open| (open.bo(), open.data())),
        }
    }
}

impl<D: ImmediateDriver> fmt::Debug for BindCx<'_, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BindCx({:?})", self.space)
    }
}

/// A counted pointer to one of the driver's buffers. Clones are the same buffer; its pages go when the last is dropped.
pub trait Bo: Clone + Send + Sync + 'static {
    /// What the library keeps in each buffer.
    fn core(&self) -> &BoCore;
}

/// The library's part of a buffer: its number, its reservation, how often it was evicted, where it is open.
///
/// A buffer *local* to an address space shares that one's reservation, so that who locks the address space has locked all of
/// them. Every other one is *external* to each address space that it is open in.
#[derive(Debug)]
pub struct BoCore {
    id: u64,
    device: u64,
    size: u64,
    reservation: Reservation,
    /// How often the pages went elsewhere, or nowhere. Changed with the reservation locked.
    evictions: AtomicU64,
    /// The same of all buffers that are local to its address space.
    local_evictions: Option<Ref<AtomicU64>>,
    /// Made when it is first opened.
    open_in: Lock<class::BoPairs, Option<Ref<OpenIn>>>,
}

impl BoCore {
    /// For a buffer of `size` bytes of `device`, with a reservation of its own. Allocates.
    ///
    /// # Errors
    /// [`AllocError`].
    pub fn new<D: Driver>(device: &Device<D>, size: u64) -> Result<Self, AllocError> {
        Ok(Self::with(device.id(), size, Reservation::new()?, None))
    }

    /// For a buffer that is local to `vm`. It keeps the reservation, not the address space. Allocates nothing.
    #[must_use]
    pub fn local<D: VmDriver, M: Mode>(vm: &Vm<D, M>, size: u64) -> Self {
        let inner = vm.inner();
        let evictions = Some(inner.local_evictions.clone());
        Self::with(inner.device.shared.id, size, inner.reservation.clone(), evictions)
    }

    /// For the memory of `exporter`, a buffer of any device, as a buffer of `device`: with the same reservation, so what hangs on
    /// the one hangs on the other. It knows nothing of the other's evictions: pin what is imported. Allocates nothing.
    #[must_use]
    pub fn imported<D: Driver>(device: &Device<D>, exporter: &Self) -> Self {
        Self::with(device.id(), exporter.size, exporter.reservation.clone(), None)
    }

    fn with(device: u64, size: u64, reservation: Reservation, local_evictions: Option<Ref<AtomicU64>>) -> Self {
        let (evictions, open_in) = (AtomicU64::new(0), Lock::new(None));
        Self { id: next_id(), device, size, reservation, evictions, local_evictions, open_in }
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

    /// What hangs on it.
    #[must_use]
    pub const fn reservation(&self) -> &Reservation {
        &self.reservation
    }

    /// The buffer's pages have gone, or are about to, while nobody uses them: every address space that it is open in has it
    /// validated before it is used again ([`VmLocks::validate`](super::VmLocks::validate)). Needs no turn and no address space;
    /// its entries in each are to go first ([`VmBo::all`](super::VmBo::all)).
    /// False, and nothing was done, if `at` is not its reservation. Any context.
    pub fn evicted<'a>(&self, sealed: &Sealed<'a>, at: Locked<'a>) -> bool {
        if *sealed.reservation(at) != self.reservation {
            return false;
        }
        // ORDERING: read with the reservation locked, as this is.
        self.evictions.fetch_add(1, Ordering::Relaxed);
        if let Some(all) = &self.local_evictions {
            all.fetch_add(1, Ordering::Relaxed);
        }
        true
    }

    pub(super) fn evictions(&self) -> u64 {
        self.evictions.load(Ordering::Relaxed)
    }
    /// The list of its pairs, if it was ever opened.
    pub(super) fn open_in(&self) -> Option<Ref<OpenIn>> {
        self.open_in.lock().clone()
    }

    /// That list, made if need be. Allocates.
    pub(super) fn open_in_made(&self) -> Result<Ref<OpenIn>, AllocError> {
        if let Some(there) = self.open_in() {
            return Ok(there);
        }
        let made = Ref::try_new(OpenIn::new(self.device))?;
        let mut open_in = self.open_in.lock();
        match &*open_in {
            Some(there) => {
                let there = there.clone();
                drop(open_in);
                Ok(there)
            }
            None => {
                *open_in = Some(made.clone());
                Ok(made)
            }
        }
    }
}
