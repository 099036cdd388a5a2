//! `Edit`: the turn to look at an address space and to change it. One at a time; who else wants it waits.
//!
//! # Protocol
//! An edit takes the space out of its VM and puts it back when dropped, so the space is an exclusively borrowed value in
//! between. When it begins, and before each plan, it *settles*: buffers that were closed meanwhile, from whatever context, are
//! taken out of the space. So a close never waits for an edit, and the next one does not see the buffer any more.

use super::bo::BoId;
use super::body::Body;
use super::buffer::VmBo;
use super::change::VmPlan;
use super::driver::{Bo, VmDriver};
use super::handle::VmError;
use super::pairs::{BoFacts, OpenBo, PairInner};
use super::request::{PlanError, Request};
use super::shared::{State, VmInner};
use super::space::{Space, SpaceError};
use super::turn;
use super::{OpenRefused, VaRange};
use crate::check::{self, Violation};
use crate::exec::object::Object;
use crate::resv::Transaction;
use crate::sync::{self, Guard, class};
use core::fmt;
use core::marker::PhantomData;
use core::ops::Deref;

/// The turn to change an address space, until dropped. It reads as the [`Space`] inside. Belongs to one thread; holds the VM's
/// inside, no handle.
///
/// Whoever has it may allocate, block, and wait for fences. Dropping it wakes the next in line.
#[must_use = "the turn ends when this is dropped"]
pub struct Edit<D: VmDriver> {
    vm: Object<VmInner<D>>,
    /// `None` while it is being dropped.
    body: Option<Body<D>>,
    thread_bound: PhantomData<*const ()>,
}

/// Why somebody did not get the turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum EditRefused {
    /// The calling thread has it, and would wait for itself.
    WouldDeadlock,
    /// Waiting is not allowed in a signalling section.
    InSignallingSection,
    /// Waiting is not allowed in a closure or waker of a fence.
    InCallback,
    /// The address space is changed by running bind jobs, and has no turn.
    Immediate,
    /// The address space is changed by whoever has the turn, who may keep it.
    Staged,
}

impl fmt::Display for EditRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WouldDeadlock => "this thread is changing the address space already: end that first",
            Self::InSignallingSection => "a signalling path may not wait for an address space",
            Self::InCallback => "a callback may not wait for an address space: use `try_edit`, or `try_look`",
            Self::Immediate => "the address space is changed by running bind jobs: use `look`",
            Self::Staged => "the address space is changed by whoever has the turn: use `edit`",
        })
    }
}

impl core::error::Error for EditRefused {}

impl EditRefused {
    /// Refuses to wait in line where nothing may be waited for.
    #[track_caller]
    pub(super) fn unless_may_wait() -> Result<(), Self> {
        check::may_wait().map_err(|violation| match violation {
            Violation::WaitedInCallback => Self::InCallback,
            _ => Self::InSignallingSection,
        })
    }
}

impl<D: VmDriver> Edit<D> {
    /// Waits for the turn.
    #[track_caller]
    pub(super) fn begin(vm: &Object<VmInner<D>>) -> Result<Self, EditRefused> {
        EditRefused::unless_may_wait()?;
        // A place in the order: reservations may be locked by whoever has the turn, not the other way round.
        check::before_lock::<class::VmTurn>();
        let state = turn::take(&vm.state, |state| &mut state.turn);
        if state.is_none() {
            check::after_unlock::<class::VmTurn>();
        }
        state.map(|state| Self::with(vm, state)).ok_or(EditRefused::WouldDeadlock)
    }

    /// Takes the turn if it is free.
    pub(super) fn try_begin(vm: &Object<VmInner<D>>) -> Option<Self> {
        let mut state = vm.state.lock();
        state.turn.try_take().then(|| Self::without_waiting(vm, state))
    }

    /// For the reaper, which waits in line as long as that is no harm to others. If it does not get the turn, the VM's work is
    /// queued again when that is free.
    pub(super) fn for_work(vm: &Object<VmInner<D>>) -> Option<Self> {
        let (mut state, mine) = turn::take_patiently(&vm.state, |state| &mut state.turn);
        state.work_waits = !mine;
        mine.then(|| Self::without_waiting(vm, state))
    }

    fn without_waiting(vm: &Object<VmInner<D>>, state: Guard<'_, class::VmState, State<D>>) -> Self {
        let edit = Self::with(vm, state);
        check::before_lock::<class::VmTurn>();
        edit
    }

    fn with(vm: &Object<VmInner<D>>, mut state: Guard<'_, class::VmState, State<D>>) -> Self {
        // Of one that is changed by running jobs the turn is only a place in line for those who make room in it.
        let body = if vm.in_moments { None } else { state.body.take() };
        debug_assert!(vm.in_moments || body.is_some(), "whoever has the turn has the space");
        drop(state);
        let mut edit = Self { vm: vm.clone(), body, thread_bound: PhantomData };
        edit.settle();
        edit
    }

    pub(super) const fn vm(&self) -> &Object<VmInner<D>> {
        &self.vm
    }

    pub(super) fn body(&self) -> &Body<D> {
        match &self.body {
            Some(body) => body,
            None => unreachable!("there until it is dropped"),
        }
    }

    pub(super) fn body_mut(&mut self) -> &mut Body<D> {
        match &mut self.body {
            Some(body) => body,
            None => unreachable!("there until it is dropped"),
        }
    }

    /// Takes the mappings of closed buffers out, and learns what was said of the VM meanwhile.
    fn settle(&mut self) {
        if let Some(body) = &mut self.body {
            body.settle(&self.vm);
        }
    }

    /// Opens `bo`, so that it can be mapped: the pair is made with what `data` returns. If it is open, another handle on the
    /// one pair. O(1); allocates for a new one. A buffer with a reservation of its own is added with the address space's locked,
    /// so whoever locks all does not miss it; that may be waited for.
    ///
    /// # Errors
    /// [`VmError`]; nothing was changed.
    pub fn open(&mut self, bo: &D::Bo, data: impl FnOnce() -> D::VmBo) -> Result<VmBo<D>, VmError> {
        self.settle();
        if let Some(open) = self.find_bo(bo) {
            return Ok(open);
        }
        // It may be there with its end begun since.
        self.settle();
        let facts = BoFacts::of(bo, &self.vm)?;
        let (key, size) = (facts.key, facts.size);
        // Foreign code first: it may panic.
        let (data, bo) = (data(), bo.clone());
        let vm = self.vm.clone();
        let body = self.body_mut();
        if body.space.is_closed() {
            return Err(VmError::Closed);
        }
        if body.table.len() >= body.bos_max {
            return Err(VmError::TooManyBos { limit: body.bos_max });
        }
        body.table.reserve()?;
        let opened = body.space.open_bo(size, OpenBo::unset());
        let id = opened.map_err(|refused| match refused {
            OpenRefused::Empty(_) => VmError::EmptyBo,
            OpenRefused::Closed(_) => VmError::Closed,
            OpenRefused::NoMemory(error, _) => VmError::NoMemory(error),
        })?;
        let made = Object::try_new(vm.hub(), |header| {
            Ok::<_, VmError>(PairInner::new(header, id, facts, data, bo, vm.clone()))
        });
        match made.and_then(|pair| list(&vm, &pair).map(|()| pair)) {
            Ok(pair) => {
                if let Some(open) = body.space.bo_mut(id) {
                    *open = OpenBo::new(&pair);
                }
                body.table.insert(key, id);
                body.bytes += size;
                Ok(VmBo::new(pair))
            }
            Err(error) => {
                let _closed = body.space.close_bo(id);
                Err(error)
            }
        }
    }

    /// Another handle on the pair of `bo` and this address space, if it is open here. O(1).
    #[must_use]
    pub fn find_bo(&self, bo: &D::Bo) -> Option<VmBo<D>> {
        self.body().find(bo.core().id())
    }

    /// Another handle on the pair that a mapping names.
    #[must_use]
    pub fn handle_of(&self, id: BoId) -> Option<VmBo<D>> {
        self.body().handle_of(id)
    }

    /// As [`Space::plan`].
    ///
    /// # Errors
    /// As there.
    pub fn plan(&mut self, requests: &[Request<D::Mapping>]) -> Result<VmPlan<'_, D>, PlanError> {
        self.settle();
        let Some(body) = &mut self.body else { unreachable!("there until it is dropped") };
        Ok(VmPlan::new(body.space.plan(requests)?, &self.vm))
    }

    /// As [`Space::fill`].
    ///
    /// # Errors
    /// As there.
    pub fn fill(&mut self, requests: &[Request<D::Mapping>]) -> Result<(), PlanError> {
        self.settle();
        self.body_mut().space.fill(requests)
    }

    /// As [`Space::reserve_range`].
    ///
    /// # Errors
    /// As there.
    pub fn reserve_range(&mut self, range: VaRange) -> Result<(), SpaceError> {
        self.body_mut().space.reserve_range(range)
    }
}

/// Lets whoever locks all of the VM know of `pair`.
fn list<D: VmDriver>(vm: &VmInner<D>, pair: &PairInner<D>) -> Result<(), VmError> {
    if !pair.external {
        vm.state.lock().list(pair);
        return Ok(());
    }
    let locked = Transaction::new()
        .run::<(), _>(|attempt| attempt.lock(&vm.reservation).map(drop), |_, ()| vm.state.lock().list(pair));
    Ok(locked?)
}

impl<D: VmDriver> Deref for Edit<D> {
    type Target = Space<OpenBo<D>, D::Mapping>;

    fn deref(&self) -> &Self::Target {
        &self.body().space
    }
}

impl<D: VmDriver> Drop for Edit<D> {
    fn drop(&mut self) {
        let body = self.body.take();
        let figures = body.as_ref().map(Body::figures);
        let (next, poke) = {
            let mut state = self.vm.state.lock();
            if let Some(figures) = figures {
                state.body = body;
                state.figures = figures;
            }
            let next = state.turn.pass_on();
            let poke = next.is_none() && core::mem::take(&mut state.work_waits);
            (next, poke)
        };
        if let Some(next) = next {
            sync::unpark(&next);
        }
        if poke {
            self.vm.poke();
        }
        check::after_unlock::<class::VmTurn>();
    }
}

impl<D: VmDriver> fmt::Debug for Edit<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Edit({:?})", self.body.as_ref().map(|body| &body.space))
    }
}
