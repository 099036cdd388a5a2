//! `Vm`: an address space with handles.
//!
//! Handles are counted apart from the VM's memory, which pairs, jobs, changes and what is to be cleared keep: the last
//! handle's drop closes the VM, as [`Vm::close`] does at once. A closed VM takes no requests; everything that is mapped is
//! cleared once no job may use it, then freed. It is gone when the last of the others is.

use super::VmBo;
use super::bind::{self, VmPrepared};
use super::body::Body;
use super::clear::{ToClear, What};
use super::driver::{ImmediateDriver, StagedDriver, VmDriver};
use super::edit::{Edit, EditRefused};
use super::locks::VmLocks;
use super::look::{self, Look};
use super::mode::{Immediate, Mode, Staged};
use super::range::VaRange;
use super::request::{PlanError, Request};
use super::shared::{Parts, Sweep, VmInner, Whole};
use super::space::{Geometry, Space, SpaceError};
use super::usage::VmUse;
use super::{sweep, work};
use crate::device::Device;
use crate::exec::object::Object;
use crate::fence::UserFence;
use crate::mem::AllocError;
use crate::mem::shared::Ref;
use crate::queue::Drained;
use crate::resv::{Attempt, LockError, Reservation};
use crate::sync::atomic::AtomicU64;
use core::fmt;
use core::marker::PhantomData;

/// A handle on an address space of a device, and how that is changed: [`Staged`], or [`Immediate`]. Clones are the same one. The
/// last one's drop closes it; any context.
pub struct Vm<D: VmDriver, M: Mode = Staged> {
    vm: Object<VmInner<D>>,
    drained: UserFence,
    mode: PhantomData<fn() -> M>,
}

/// How an address space is made.
#[derive(Debug, Clone, Copy)]
pub struct VmConfig {
    geometry: Geometry,
    mappings_max: usize,
    bos_max: usize,
}

impl VmConfig {
    /// An address space of this shape.
    #[must_use]
    pub const fn new(geometry: Geometry) -> Self {
        Self { geometry, mappings_max: 1 << 24, bos_max: 1 << 20 }
    }

    /// No change may bring the number of mappings above this. Default 16,777,216.
    #[must_use]
    pub const fn mappings_max(mut self, mappings: usize) -> Self {
        self.mappings_max = mappings;
        self
    }

    /// No more buffers may be open. Default 1,048,576.
    #[must_use]
    pub const fn bos_max(mut self, bos: usize) -> Self {
        self.bos_max = bos;
        self
    }
}

/// Why an address space was not made, a buffer not opened, or a batch not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum VmError {
    /// Its shape is none.
    Space(SpaceError),
    /// The buffer belongs to another device.
    OtherDevice {
        /// The buffer's.
        bo: u64,
        /// The address space's.
        vm: u64,
    },
    /// The buffer has no bytes.
    EmptyBo,
    /// The address space is closed.
    Closed,
    /// As many buffers are open as may be.
    TooManyBos {
        /// How many.
        limit: usize,
    },
    /// It cannot be changed here and now.
    Refused(EditRefused),
    /// A batch was not accepted.
    Plan(PlanError),
    /// Its reservation could not be locked: an external buffer is opened with the address space's.
    Lock(LockError),
    /// No memory.
    NoMemory(AllocError),
}

impl fmt::Display for VmError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Space(error) => error.fmt(f),
            Self::OtherDevice { bo, vm } => {
                write!(f, "a buffer of device {bo} cannot be mapped in an address space of device {vm}")
            }
            Self::EmptyBo => f.write_str("a buffer of no bytes cannot be mapped: give it at least one page"),
            Self::Closed => f.write_str("the address space is closed: make another one"),
            Self::TooManyBos { limit } => write!(f, "more than {limit} open buffers: close some"),
            Self::Refused(error) => error.fmt(f),
            Self::Plan(error) => error.fmt(f),
            Self::Lock(error) => error.fmt(f),
            Self::NoMemory(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for VmError {}

impl From<AllocError> for VmError {
    fn from(error: AllocError) -> Self {
        Self::NoMemory(error)
    }
}

impl From<LockError> for VmError {
    fn from(error: LockError) -> Self {
        match error {
            LockError::OutOfMemory(error) => Self::NoMemory(error),
            _ => Self::Lock(error),
        }
    }
}

impl From<EditRefused> for VmError {
    fn from(error: EditRefused) -> Self {
        Self::Refused(error)
    }
}

/// How an address space stands; as of the end of the last change where it is about what is mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct VmStatus {
    /// Mappings.
    pub mappings: usize,
    /// Open buffers.
    pub bos: usize,
    /// Their bytes.
    pub bo_bytes: u64,
    /// Those with a reservation that is not the address space's.
    pub external: usize,
    /// Bytes of the library's memory for mappings and buffers, room for more included.
    pub memory: usize,
    /// Jobs and changes that keep what is mapped.
    pub uses: usize,
    /// Closed buffers whose pages have not been freed.
    pub to_clear: usize,
    /// Those that could not be cleared, the VM itself included.
    pub quarantined: usize,
    /// It takes no requests.
    pub closed: bool,
    /// It takes no requests but to unmap.
    pub poisoned: bool,
}

impl<D: StagedDriver> Vm<D, Staged> {
    /// An empty address space of `device`, with what the driver keeps with it, to be changed by whoever has the turn. Allocates.
    ///
    /// # Errors
    /// [`VmError::Space`], [`VmError::NoMemory`].
    pub fn new(device: &Device<D>, config: VmConfig, data: D::Vm) -> Result<Self, VmError> {
        Self::with(device, config, data, (work::run, false))
    }
}

impl<D: VmDriver> Vm<D, Staged> {
    /// Waits for the turn to change the address space. Blocks while somebody else has it.
    ///
    /// # Errors
    /// [`EditRefused`].
    #[track_caller]
    pub fn edit(&self) -> Result<Edit<D>, EditRefused> {
        Edit::begin(&self.vm)
    }

    /// The turn, if nobody has it. Does not wait; not for the signalling path.
    #[must_use]
    pub fn try_edit(&self) -> Option<Edit<D>> {
        Edit::try_begin(&self.vm)
    }

    /// Opens a buffer: [`Vm::edit`], then [`Edit::open`].
    ///
    /// # Errors
    /// [`VmError`].
    #[track_caller]
    pub fn open(&self, bo: &D::Bo, data: impl FnOnce() -> D::VmBo) -> Result<VmBo<D>, VmError> {
        self.edit()?.open(bo, data)
    }
}

impl<D: ImmediateDriver> Vm<D, Immediate> {
    /// An empty address space of `device`, with what the driver keeps with it, to be changed by running bind jobs. Allocates.
    ///
    /// # Errors
    /// [`VmError::Space`], [`VmError::NoMemory`].
    pub fn immediate(device: &Device<D>, config: VmConfig, data: D::Vm) -> Result<Self, VmError> {
        Self::with(device, config, data, (sweep::run, true))
    }

    /// Accepts a batch for a bind job, with all memory of the library that it can need; and says what the driver must put aside
    /// for it. It is worked out when it runs ([`Bind::run`](super::Bind::run)), against what is mapped then. May block;
    /// allocates, with the space given back.
    ///
    /// # Errors
    /// [`VmError::Plan`]: the first request that breaks a rule, and which; or no memory. [`VmError::Refused`].
    #[track_caller]
    pub fn prepare(&self, requests: &[Request<D::Mapping>]) -> Result<VmPrepared<D>, VmError> {
        bind::prepare(&self.vm, requests)
    }

    /// Opens a buffer, so that it can be mapped: as [`Edit::open`]. May block; allocates, with the space given back.
    ///
    /// # Errors
    /// [`VmError`]; nothing was changed.
    #[track_caller]
    pub fn open(&self, bo: &D::Bo, data: impl FnOnce() -> D::VmBo) -> Result<VmBo<D>, VmError> {
        look::open(&self.vm, bo, data)
    }

    /// Requests may not touch `range` from now on: batches that were accepted before, and do, fail when they run. May block;
    /// allocates, with the space given back.
    ///
    /// # Errors
    /// [`VmError::Space`]: it is misaligned, outside, or in use. [`VmError::Refused`], [`VmError::NoMemory`].
    #[track_caller]
    pub fn reserve_range(&self, range: VaRange) -> Result<(), VmError> {
        look::reserve_range(&self.vm, range)
    }

    /// Waits until nobody has the space, and takes it for a moment, to look at it or to change entries by hand (an eviction).
    /// Blocks for moments only.
    ///
    /// # Errors
    /// [`EditRefused`].
    #[track_caller]
    pub fn look(&self) -> Result<Look<D>, EditRefused> {
        Look::wait(&self.vm)
    }

    /// The space for a moment, if nobody has it. Any context but a driver's [`bind`](ImmediateDriver::bind); does not wait.
    #[must_use]
    pub fn try_look(&self) -> Option<Look<D>> {
        Look::try_begin(&self.vm)
    }
}

impl<D: VmDriver, M: Mode> Vm<D, M> {
    fn with(
        device: &Device<D>,
        config: VmConfig,
        data: D::Vm,
        (sweep, in_moments): (Sweep<D>, bool),
    ) -> Result<Self, VmError> {
        let mut space = Space::new(config.geometry).map_err(VmError::Space)?;
        space.set_limit(config.mappings_max);
        if in_moments {
            // What the first promise allocates.
            drop(space.store.promise(0)?);
        }
        let body = Body::new(space, config.bos_max);
        let (source, drained) = UserFence::new(device.executor(), "address space gone")?;
        let parts = Parts {
            sweep,
            in_moments,
            reservation: Reservation::new()?,
            local_evictions: Ref::try_new(AtomicU64::new(0))?,
            data,
            device: device.inner().clone(),
        };
        let vm = Object::try_new(device.executor().hub(), |header| {
            Ok::<_, AllocError>(VmInner::new(header.announce(source), body, parts))
        })?;
        Ok(Self { vm, drained, mode: PhantomData })
    }

    /// For a job's payload: keeps what is mapped where it is until the job has retired. Any context; allocates nothing.
    ///
    /// # Errors
    /// [`VmError::Closed`].
    pub fn in_use(&self) -> Result<VmUse<D>, VmError> {
        VmUse::of_job(&self.vm, false)
    }

    /// For the payload of a job that touches only buffers whose [`VmBo`]s lie beside it there: keeps the page tables, and what is
    /// closed is not cleared while the payload has a handle on it. Whatever else is mapped may be closed, cleared and freed while
    /// the job runs. Any context; allocates nothing.
    ///
    /// # Errors
    /// [`VmError::Closed`].
    pub fn in_use_named(&self) -> Result<VmUse<D>, VmError> {
        VmUse::of_job(&self.vm, true)
    }

    /// Takes no requests any more: everything that is mapped goes. Cannot fail; allocates nothing; takes the same time
    /// whatever is mapped; any context. `None` the second time.
    ///
    /// Whoever is changing the address space right now goes on until that ends.
    pub fn close(&self) -> Option<ToClear<D>> {
        let mut state = self.vm.state.lock();
        if core::mem::replace(&mut state.closed, true) {
            return None;
        }
        state.whole = Whole::Closed;
        drop(state);
        Some(ToClear::held(What::Vm(self.vm.clone())))
    }

    /// A handle that says when the address space is gone, without closing it: everything of it cleared and freed, the driver's
    /// data dropped. What is in quarantine keeps it from coming.
    pub fn drained(&self) -> Drained {
        Drained::new(self.drained.clone())
    }

    /// An asynchronous change failed half way, so the page tables may not be as planned: from now on only unmap requests are
    /// taken, and it can be closed. Any context.
    pub fn poison(&self) {
        self.vm.state.lock().poisoned = true;
    }

    /// How it stands. Any context.
    #[must_use]
    pub fn status(&self) -> VmStatus {
        let state = self.vm.state.lock();
        let figures = state.figures;
        VmStatus {
            mappings: figures.mappings,
            bos: figures.bos,
            bo_bytes: figures.bytes,
            external: state.externals.len(),
            memory: figures.memory,
            uses: state.grace.live() + state.named,
            to_clear: state.out,
            quarantined: state.quarantined,
            closed: state.closed,
            poisoned: state.poisoned,
        }
    }

    /// What the driver keeps with it.
    #[must_use]
    pub fn data(&self) -> &D::Vm {
        &self.vm.data
    }

    /// What hangs on the address space and all buffers that are local to it. Who adds an external buffer has it locked, so while
    /// it is locked there are no more of them.
    #[must_use]
    pub fn reservation(&self) -> &Reservation {
        &self.vm.reservation
    }

    /// Locks all that a job in this address space may touch: the address space's own reservation, with all local buffers, and
    /// that of each open external buffer; each with room for a fence. No external buffer is added until the locks are given
    /// back. May block; allocates. The turn is not needed.
    ///
    /// # Errors
    /// [`LockError`]; hand [`LockError::Contended`] on. [`LockError::Poisoned`]: something that the job might touch is never
    /// free.
    pub fn lock_all<'a>(&self, attempt: &mut Attempt<'a>) -> Result<VmLocks<'a, D>, LockError> {
        VmLocks::lock(&self.vm, attempt)
    }

    /// Locks what a job touches that names its buffers ([`Vm::in_use_named`]): the reservation of each of `named`, with room for a
    /// fence; for a local one that is the address space's. Those of other address spaces are passed over. May block; allocates.
    /// The turn is not needed.
    ///
    /// # Errors
    /// As for [`Vm::lock_all`].
    pub fn lock_named<'a>(&self, attempt: &mut Attempt<'a>, named: &[&VmBo<D>]) -> Result<VmLocks<'a, D>, LockError> {
        VmLocks::lock_named(&self.vm, attempt, named)
    }

    pub(super) const fn inner(&self) -> &Object<VmInner<D>> {
        &self.vm
    }
}

impl<D: VmDriver, M: Mode> Clone for Vm<D, M> {
    fn clone(&self) -> Self {
        self.vm.state.lock().handles += 1;
        Self { vm: self.vm.clone(), drained: self.drained.clone(), mode: PhantomData }
    }
}

impl<D: VmDriver, M: Mode> Drop for Vm<D, M> {
    fn drop(&mut self) {
        let last = {
            let mut state = self.vm.state.lock();
            state.handles -= 1;
            state.handles == 0
        };
        if last {
            drop(self.close());
        }
    }
}

impl<D: VmDriver, M: Mode> fmt::Debug for Vm<D, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Vm({:?})", self.status())
    }
}
