//! `Look`: an address space that is changed by running jobs, looked at for a moment; and how buffers are opened in one.
//!
//! It is a [`Moment`] in a user's hands: who may have one, and why that cannot deadlock, is said there.

use super::VmBo;
use super::bo::{BoId, Place};
use super::clear::{Clearing, ToClear};
use super::driver::{Bo, VmDriver};
use super::edit::{Edit, EditRefused};
use super::handle::VmError;
use super::moment::Moment;
use super::pairs::{BoFacts, OpenBo, PairInner};
use super::range::VaRange;
use super::shared::VmInner;
use super::space::Space;
use super::table::Table;
use crate::exec::object::Object;
use crate::mem::{AllocError, HeapVec, try_reserve};
use crate::resv::Transaction;
use core::fmt;
use core::marker::PhantomData;
use core::ops::Deref;

/// The space of an [`Immediate`](super::Immediate) address space for a moment: nothing is mapped or unmapped until it is dropped,
/// neither in the space nor in its page tables. It reads as the [`Space`]. Belongs to one thread; holds the VM's inside, no
/// handle.
///
/// Bind jobs may wait for it, so whoever has it waits for no fence, allocates nothing and submits nothing; debug builds report
/// it. Its drop carries out what bind jobs have left there meanwhile: give locks back before that a driver's
/// [`bind`](super::ImmediateDriver::bind) takes.
#[must_use = "the moment ends when this is dropped"]
pub struct Look<D: VmDriver> {
    moment: Moment<D>,
    thread_bound: PhantomData<*const ()>,
}

impl<D: VmDriver> Look<D> {
    #[track_caller]
    pub(super) fn wait(vm: &Object<VmInner<D>>) -> Result<Self, EditRefused> {
        Ok(Self { moment: Moment::wait(vm)?, thread_bound: PhantomData })
    }

    pub(super) fn try_begin(vm: &Object<VmInner<D>>) -> Option<Self> {
        Some(Self { moment: Moment::try_begin(vm)?, thread_bound: PhantomData })
    }

    /// Another handle on the pair of `bo` and this address space, if it is open here. O(1).
    #[must_use]
    pub fn find_bo(&self, bo: &D::Bo) -> Option<VmBo<D>> {
        self.moment.body().find(bo.core().id())
    }

    /// Another handle on the pair that a mapping names.
    #[must_use]
    pub fn handle_of(&self, id: BoId) -> Option<VmBo<D>> {
        self.moment.body().handle_of(id)
    }

    /// As [`Edit::clearing`], for who clears by hand what was closed.
    #[must_use]
    pub fn clearing(&self, to_clear: &ToClear<D>) -> Clearing<'_, D> {
        Clearing::of(self, self.moment.vm(), to_clear)
    }
}

impl<D: VmDriver> Deref for Look<D> {
    type Target = Space<OpenBo<D>, D::Mapping>;

    fn deref(&self) -> &Self::Target {
        &self.moment.body().space
    }
}

impl<D: VmDriver> fmt::Debug for Look<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Look({:?})", &**self)
    }
}

/// Opens `bo`. The turn is the place in line of all who make room; the space is taken for moments, and memory asked for in
/// between.
#[track_caller]
pub(super) fn open<D: VmDriver>(
    vm: &Object<VmInner<D>>,
    bo: &D::Bo,
    data: impl FnOnce() -> D::VmBo,
) -> Result<VmBo<D>, VmError> {
    let core = bo.core();
    let _turn = Edit::begin(vm)?;
    if let Some(open) = Moment::wait(vm)?.body().find(core.id()) {
        return Ok(open);
    }
    let facts = BoFacts::of(bo, vm)?;
    let size = facts.size;
    // Foreign code with the space given back: it may do what it likes.
    let (data, bo) = (data(), bo.clone());
    make_room(vm)?;
    let id = {
        // It may be there with its end begun since: then it is taken out first.
        let mut moment = Moment::wait(vm)?;
        let body = moment.body_mut();
        if body.space.is_closed() {
            return Err(VmError::Closed);
        }
        if body.table.len() >= body.bos_max {
            return Err(VmError::TooManyBos { limit: body.bos_max });
        }
        body.space.store.bos.take_place(size).ok_or(AllocError { bytes: size_of::<Place<OpenBo<D>>>() })?
    };
    let made =
        Object::try_new(vm.hub(), |header| Ok::<_, VmError>(PairInner::new(header, id, facts, data, bo, vm.clone())));
    let published = made.and_then(|pair| publish(vm, &pair).map(|()| pair));
    if published.is_err() {
        // None if the driver's code above took the space and forgot that: then the place is lost.
        let moment = Moment::in_line(vm);
        moment.into_iter().for_each(|mut moment| moment.body_mut().space.store.bos.give_back(id));
    }
    published.map(VmBo::new)
}

/// Opens the buffer of `pair`, whose place was taken, and lets whoever locks all know of it; with the address space's reservation
/// locked if it has one of its own. All in one moment: whoever finds the pair finds it in the space.
fn publish<D: VmDriver>(vm: &Object<VmInner<D>>, pair: &Object<PairInner<D>>) -> Result<(), VmError> {
    let publish = || {
        let mut moment = Moment::in_line(vm).ok_or(EditRefused::WouldDeadlock)?;
        let body = moment.body_mut();
        if body.space.is_closed() || body.space.store.bos.set(pair.id, OpenBo::new(pair)).is_err() {
            return Err(VmError::Closed);
        }
        body.table.insert(pair.key, pair.id);
        body.bytes += pair.size;
        vm.state.lock().list(pair);
        Ok(())
    };
    if !pair.external {
        return publish();
    }
    Transaction::new().run::<(), _>(|attempt| attempt.lock(&vm.reservation).map(drop), |_, ()| publish())?
}

/// Sees to it that there is room for one more buffer. Whoever opens one has the turn, so it stays.
fn make_room<D: VmDriver>(vm: &Object<VmInner<D>>) -> Result<(), VmError> {
    let (places, hashed) = {
        let moment = Moment::wait(vm)?;
        let body = moment.body();
        (body.space.store.bos.places_for_one(), body.table.places_for_one())
    };
    if let Some(places) = places {
        let mut wider = HeapVec::new();
        try_reserve(&mut wider, places)?;
        Moment::wait(vm)?.body_mut().space.store.bos.move_to(&mut wider);
    }
    if let Some(places) = hashed {
        let mut wider = Table::with(places)?;
        Moment::wait(vm)?.body_mut().table.move_to(&mut wider);
    }
    Ok(())
}

/// Reserves a range, with memory for it asked for beside the space.
pub(super) fn reserve_range<D: VmDriver>(vm: &Object<VmInner<D>>, range: VaRange) -> Result<(), VmError> {
    let _turn = Edit::begin(vm)?;
    let mut wider = HeapVec::new();
    let reserved = Moment::wait(vm)?.body().space.reserved_count();
    try_reserve(&mut wider, reserved + 1)?;
    Moment::wait(vm)?.body_mut().space.reserve_range_in(range, &mut wider).map_err(VmError::Space)
}
