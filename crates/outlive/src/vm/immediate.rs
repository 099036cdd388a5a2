//! Immediate working: a batch is accepted, with all memory it can need, when its bind job is submitted; its steps are worked out
//! and carried out when the job runs, in the signalling path, against whatever is mapped by then.
//!
//! This is the decision alone; bind jobs of an address space with handles are in [`Vm::prepare`](super::Vm::prepare).
//!
//! # States
//! ```text
//!   Space ──prepare(requests)──▶ Prepared ──run(space, driver)──▶ Ran: to be dropped where the driver's data may be
//!     ▲       may fail: memory,     │           step by step, allocates nothing, drops nothing
//!     │       a misuse by name      │           └── an error: RunFailed, and the space is poisoned
//!     └── drop: room given back ────┘
//! ```
//!
//! # Who may touch what when
//! A [`Prepared`] does not borrow its space: any number of them may be there, run in any order, with plans in between. Each holds
//! a promise of room for the most mappings that its requests can add: two for a map request (a second piece of a mapping that it
//! cuts in two, and its own), one for an unmap, two for a protect request. A mapping that is cut keeps its node, and one that
//! goes stays in its node until [`Space::take_removed`]; so nothing is dropped in the signalling path, and no number of
//! mappings that a request finds needs room. The space is borrowed exclusively while a batch runs. There is no lock in here and
//! nothing waits, so nothing can deadlock.
//!
//! Each step is committed once the driver has carried it out. Of one that it could not carry out the space keeps what may be
//! in the page tables (the old mapping that should have gone, the new one that should have come): so whatever is there can still
//! be unmapped, and is cleared by a close. For the same reason a mapping whose entries a driver may leave (`keep`) goes with the
//! step that maps the new one.

use super::bo::BoId;
use super::mapping::{Flags, Mapping, Source};
use super::plan::blocks;
use super::range::VaRange;
use super::request::{PlanError, Request, Rule};
use super::space::Space;
use super::step::Step;
use super::store::Promise;
use crate::mem::{AllocError, HeapVec, try_reserve};
use core::fmt;

/// A batch of requests that was accepted, with the memory to carry it out later: what a bind job's payload carries. Dropped
/// without having been run, it leaves no trace and gives the room back; that drops the driver's data, so not in the signalling
/// path.
#[must_use = "a batch changes nothing until it is run"]
pub struct Prepared<M = ()> {
    space: u64,
    requests: HeapVec<Request<M>>,
    room: Promise,
}

/// What is left of a batch that was run. Dropping it drops the driver's data and frees memory, so drop it where that is legal;
/// and have what the mappings held that went with [`Space::take_removed`].
pub struct Ran<M = ()> {
    requests: HeapVec<Request<M>>,
    steps: usize,
    /// Only memory: the room is given back.
    room: Promise,
}

/// Why an accepted batch was not carried out to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause<E> {
    /// The request breaks a rule that it kept when it was prepared: the space was closed since, or poisoned, or a range was
    /// reserved. No request of the batch was carried out.
    Refused(Rule),
    /// The driver could not carry out a step. Those before it were.
    Driver(E),
    /// The batch was prepared for another space. Neither was changed.
    OtherSpace,
}

impl<E: fmt::Display> fmt::Display for Cause<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(rule) => write!(f, "{rule}; nothing of the batch was done"),
            Self::Driver(error) => write!(f, "the driver failed half way: {error}"),
            Self::OtherSpace => f.write_str("prepared for another address space: run it there"),
        }
    }
}

/// An accepted batch was not carried out to its end. Its space is poisoned, unless it was another's: what was promised is not
/// there, so no more is mapped. Unmap and close still work.
pub struct RunFailed<E, M = ()> {
    /// The request at fault, counted from zero.
    pub request: usize,
    /// Why.
    pub cause: Cause<E>,
    /// What is left: [`Ran::steps`] were carried out. Of the one that failed, the space keeps what may be in the page tables.
    pub ran: Ran<M>,
}

impl<E: fmt::Display, M> fmt::Display for RunFailed<E, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "request {}, after {} steps: {}", self.request, self.ran.steps, self.cause)
    }
}

impl<E: fmt::Debug, M> fmt::Debug for RunFailed<E, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { request, cause, ran } = self;
        write!(f, "RunFailed(request {request}, {cause:?}, {ran:?})")
    }
}

impl<E: fmt::Debug + fmt::Display, M> core::error::Error for RunFailed<E, M> {}

impl<M> fmt::Debug for Prepared<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Prepared({} requests)", self.requests.len())
    }
}

impl<M> Ran<M> {
    /// How many steps the driver carried out.
    #[must_use]
    pub const fn steps(&self) -> usize {
        self.steps
    }

    /// What was asked for.
    #[must_use]
    pub fn requests(&self) -> &[Request<M>] {
        &self.requests
    }
}

impl<M> fmt::Debug for Ran<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ran({} steps)", self.steps)
    }
}

impl<V, M: Clone> Space<V, M> {
    /// Accepts `requests`, to be carried out later by [`Prepared::run`]. Checks everything that does not depend on what is mapped,
    /// and allocates for the worst. Until then, the most mappings that they can add count against the limit.
    ///
    /// # Errors
    /// The first request that breaks a rule, and which; or no memory. Nothing was changed.
    pub fn prepare(&mut self, requests: &[Request<M>]) -> Result<Prepared<M>, PlanError> {
        let room = self.room_for_all(requests)?;
        let no_memory = no_memory_for(requests);
        let own = copied(requests).map_err(no_memory)?;
        self.store.reserve(room).map_err(no_memory)?;
        self.prepare_in_room(own, room).map_err(no_memory)
    }
}

/// A copy of `requests`. Allocates.
pub(super) fn copied<M: Clone>(requests: &[Request<M>]) -> Result<HeapVec<Request<M>>, AllocError> {
    let mut own = HeapVec::new();
    try_reserve(&mut own, requests.len())?;
    own.extend_from_slice(requests);
    Ok(own)
}

/// Memory that is missing is missing for the last of them.
pub(super) fn no_memory_for<M>(requests: &[Request<M>]) -> impl Fn(AllocError) -> PlanError + Copy + use<M> {
    let request = requests.len().saturating_sub(1);
    move |error| PlanError { request, rule: error.into() }
}

impl<V, M> Space<V, M> {
    /// Checks a batch that is to be run later: for how many mappings it needs room.
    pub(super) fn room_for_all(&self, requests: &[Request<M>]) -> Result<usize, PlanError> {
        let mut room = 0;
        for (number, request) in requests.iter().enumerate() {
            let refuse = |rule: Rule| PlanError { request: number, rule };
            self.check(request).map_err(refuse)?;
            room += room_for(request);
            let most = self.len().saturating_add(self.store.promised()).saturating_add(room);
            if most > self.limit() && !matches!(request, Request::Unmap { .. }) {
                return Err(refuse(Rule::TooMany { limit: self.limit() }));
            }
        }
        Ok(room)
    }

    /// Accepts a batch that was checked and for which there is room. Allocates only if it is the first.
    pub(super) fn prepare_in_room(
        &mut self,
        requests: HeapVec<Request<M>>,
        room: usize,
    ) -> Result<Prepared<M>, AllocError> {
        let room = self.store.promise_in_room(room)?;
        Ok(Prepared { space: self.id, requests, room })
    }
}

/// How many mappings `request` can add at most.
const fn room_for<M>(request: &Request<M>) -> usize {
    match request {
        // The second piece of the one mapping that it cuts in two, if there is such a one, and the new one.
        Request::Map { .. } => 2,
        Request::Unmap { .. } => 1,
        // As a map request, or one more at either end; those in between change in place.
        Request::Protect { .. } => 2,
    }
}

impl<V, M> Space<V, M> {
    /// What one of the mappings held that [`Prepared::run`] took out; none if there is none left. Call it until then, where the
    /// driver's data may be dropped: their memory is in use until they are taken, or the space is closed. Any context.
    pub fn take_removed(&mut self) -> Option<M> {
        self.store.unpark()
    }
}

impl<M> Prepared<M> {
    /// What was asked for.
    #[must_use]
    pub fn requests(&self) -> &[Request<M>] {
        &self.requests
    }

    /// The buffers that are to be mapped, each once. Whose mappings will go is not known before it is run. Allocates.
    ///
    /// # Errors
    /// No memory.
    pub fn bos(&self) -> Result<HeapVec<BoId>, AllocError> {
        let sources = self.requests.iter().filter_map(|request| match request {
            Request::Map { source, .. } => source.bo(),
            Request::Unmap { .. } | Request::Protect { .. } => None,
        });
        let mut bos = HeapVec::new();
        try_reserve(&mut bos, self.requests.len())?;
        bos.extend(sources);
        bos.sort_unstable();
        bos.dedup();
        Ok(bos)
    }

    /// The most page-table pages that it can need beside those for [`Prepared::splits`], whatever is mapped when it is run, in a
    /// table whose directory entries cover 2^`covers` bytes each: sum this over the levels. As for a plan
    /// ([`Plan::tables`](super::Plan::tables)), so much is to be put aside, and what is not used goes back.
    #[must_use]
    pub fn tables(&self, covers: u32) -> u64 {
        let grows = self.requests.iter().filter(|request| !matches!(request, Request::Unmap { .. }));
        grows.map(|request| blocks(span(request), covers)).fold(0, u64::saturating_add)
    }

    /// The most entries of 2^`shift` bytes (huge pages) that must be split into smaller ones, whatever is mapped when it is run:
    /// each needs a page table. Only where a request starts or ends inside of one.
    #[must_use]
    pub fn splits(&self, shift: u32) -> u64 {
        self.requests.iter().map(|request| edges_inside(span(request), shift)).fold(0, u64::saturating_add)
    }
}

/// The range of a request that was checked.
const fn span<M>(request: &Request<M>) -> VaRange {
    let (va, len) = request.span();
    VaRange::between(va, va + (len - 1))
}

/// In how many aligned blocks of 2^`shift` bytes `range` starts or ends without filling them from there on.
fn edges_inside(range: VaRange, shift: u32) -> u64 {
    let Some(mask) = 1_u64.checked_shl(shift).map(|size| size - 1) else { return 0 };
    let (below, above) = (range.base() & mask != 0, range.last() & mask != mask);
    let same_block = range.base() & !mask == range.last() & !mask;
    u64::from(below) + u64::from(above) - u64::from(below && above && same_block)
}

impl<M: Clone> Prepared<M> {
    /// Carries the requests out: a map request whose buffer was closed since only unmaps, as if the close had come after it. Works each step out, in the same order as a plan's, has `driver` carry it out, and commits it.
    /// The space that `driver` is given says what is behind a buffer's number.
    ///
    /// The library allocates nothing, frees nothing of the driver's, and does not wait: legal in the signalling path if `driver`
    /// is. There `M` must be cloned without allocating (plain data, a counted pointer), which is done for each new mapping.
    ///
    /// # Errors
    /// Which request failed, and why; the space is poisoned. Steps before it stay carried out.
    pub fn run<V, E>(
        self,
        space: &mut Space<V, M>,
        mut driver: impl FnMut(&Space<V, M>, &Step<&M>) -> Result<(), E>,
    ) -> Result<Ran<M>, RunFailed<E, M>> {
        let Self { space: id, requests, room } = self;
        let mut ran = Ran { requests, steps: 0, room };
        if id != space.id {
            return Err(RunFailed { request: 0, cause: Cause::OtherSpace, ran });
        }
        let mut now = Now { space, driver: &mut driver, steps: 0 };
        let failed = now.all(&ran.requests);
        ran.steps = now.steps;
        ran.room.give_back();
        match failed {
            None => Ok(ran),
            Some((request, cause)) => {
                space.poison();
                Err(RunFailed { request, cause, ran })
            }
        }
    }
}

/// A batch that is being carried out.
struct Now<'a, V, M, F> {
    space: &'a mut Space<V, M>,
    driver: &'a mut F,
    /// How many steps have been.
    steps: usize,
}

impl<V, M: Clone, E, F: FnMut(&Space<V, M>, &Step<&M>) -> Result<(), E>> Now<'_, V, M, F> {
    /// Carries all out, or says which not.
    fn all(&mut self, requests: &[Request<M>]) -> Option<(usize, Cause<E>)> {
        let numbered = || requests.iter().enumerate();
        let refused = numbered().find_map(|(number, request)| Some((number, self.space.check_span(request).err()?)));
        if let Some((number, rule)) = refused {
            return Some((number, Cause::Refused(rule)));
        }
        numbered().find_map(|(number, request)| Some((number, Cause::Driver(self.one(request).err()?))))
    }

    fn one(&mut self, request: &Request<M>) -> Result<(), E> {
        // It was checked.
        let Ok(range) = self.space.check_span(request) else { return Ok(()) };
        let is_closed = |source: Source| source.bo().is_some_and(|bo| self.space.bo(bo).is_none());
        match request {
            // As if it had been mapped, and closed then.
            Request::Map { source, .. } if is_closed(*source) => self.make_way(range, None).map(drop),
            Request::Map { source, flags, data, .. } => {
                self.map(Mapping { range, source: *source, flags: *flags, data })
            }
            Request::Unmap { .. } => self.make_way(range, None).map(drop),
            Request::Protect { clear, set, .. } => self.protect(range, *clear, *set),
        }
    }

    fn map(&mut self, new: Mapping<&M>) -> Result<(), E> {
        if !self.make_way(new.range, Some(&new))? {
            return Ok(());
        }
        let mapped = step(self.space, self.driver, &mut self.steps, &Step::Map { mapping: new });
        let mut slot = self.space.store.find_from(new.range.base());
        while self.space.store.range(slot).is_some_and(|kept| kept.base() <= new.range.last()) {
            let next = self.space.store.tree.after(slot);
            self.space.store.cut(slot, new.range);
            slot = next;
        }
        self.insert(new.cloned());
        mapped
    }

    /// Takes out what is in `range`, for `new` or for nothing, except what is to be kept. False if `new` is there already.
    fn make_way(&mut self, range: VaRange, new: Option<&Mapping<&M>>) -> Result<bool, E> {
        let mut slot = self.space.store.find_from(range.base());
        while let Some(old) = self.space.store.view(slot).filter(|old| old.range.base() <= range.last()) {
            let Some(out) = Step::out_of(old, range, new) else { return Ok(false) };
            step(self.space, self.driver, &mut self.steps, &out)?;
            let next = self.space.store.tree.after(slot);
            // What the driver may leave in the page tables goes when the new mapping comes.
            if !out.keep() {
                self.space.store.cut(slot, range);
            }
            slot = next;
        }
        Ok(true)
    }

    /// Changes the flags of what is in `range`: of a whole mapping in its own node, of a part in one of its own.
    fn protect(&mut self, range: VaRange, clear: Flags, set: Flags) -> Result<(), E> {
        let mut slot = self.space.store.find_from(range.base());
        while let Some(old) = self.space.store.view(slot).filter(|old| old.range.base() <= range.last()) {
            let next = self.space.store.tree.after(slot);
            let new = old.protected(range, clear, set);
            let out = new.as_ref().and_then(|new| Step::out_of(old, new.range, Some(new)));
            if let (Some(new), Some(out)) = (new, out) {
                step(self.space, self.driver, &mut self.steps, &out)?;
                let mapped = step(self.space, self.driver, &mut self.steps, &Step::Map { mapping: new });
                if new.range == old.range {
                    let new = new.with_data(());
                    self.space.store.reshape(slot, new);
                } else {
                    let new = new.cloned();
                    self.space.store.cut(slot, new.range);
                    self.insert(new);
                }
                mapped?;
            }
            slot = next;
        }
        Ok(())
    }

    /// Adds a mapping where there is none, in room that was promised.
    fn insert(&mut self, new: Mapping<M>) {
        let before = self.space.store.tree.floor(&new.range.base());
        self.space.store.insert_after(before, new);
    }
}

/// Has the driver carry out a step, and counts it.
fn step<V, M, E>(
    space: &Space<V, M>,
    driver: &mut impl FnMut(&Space<V, M>, &Step<&M>) -> Result<(), E>,
    steps: &mut usize,
    step: &Step<&M>,
) -> Result<(), E> {
    driver(space, step)?;
    *steps += 1;
    Ok(())
}
