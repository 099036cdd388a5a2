//! Immediate working: a batch is accepted, with all memory it can need, when its bind job is submitted; its steps are worked out
//! and carried out when the job runs, in the signalling path, against whatever is mapped by then.
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

use super::mapping::{Flags, Mapping};
use super::range::VaRange;
use super::request::{PlanError, Request, Rule};
use super::space::Space;
use super::step::Step;
use super::store::Promise;
use crate::mem::{HeapVec, try_reserve};
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
    /// The request breaks a rule that it kept when it was prepared: its buffer, or the space, was closed since, a range reserved,
    /// or the space poisoned. No request of the batch was carried out.
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
        let at = |request: usize| move |rule: Rule| PlanError { request, rule };
        let mut room = 0;
        for (number, request) in requests.iter().enumerate() {
            self.check(request).map_err(at(number))?;
            room += room_for(request);
            let most = self.len().saturating_add(self.store.promised()).saturating_add(room);
            if most > self.limit() && !matches!(request, Request::Unmap { .. }) {
                return Err(at(number)(Rule::TooMany { limit: self.limit() }));
            }
        }
        let last = requests.len().saturating_sub(1);
        let mut own = HeapVec::new();
        try_reserve(&mut own, requests.len()).map_err(|error| at(last)(error.into()))?;
        own.extend_from_slice(requests);
        let room = self.store.promise(room).map_err(|error| at(last)(error.into()))?;
        Ok(Prepared { space: self.id, requests: own, room })
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

impl<M: Clone> Prepared<M> {
    /// What was asked for.
    #[must_use]
    pub fn requests(&self) -> &[Request<M>] {
        &self.requests
    }

    /// Carries the requests out: works each step out, in the same order as a plan's, has `driver` carry it out, and commits it.
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
        let refused = numbered().find_map(|(number, request)| Some((number, self.space.check(request).err()?)));
        if let Some((number, rule)) = refused {
            return Some((number, Cause::Refused(rule)));
        }
        numbered().find_map(|(number, request)| Some((number, Cause::Driver(self.one(request).err()?))))
    }

    fn one(&mut self, request: &Request<M>) -> Result<(), E> {
        // It was checked.
        let Ok(range) = self.space.check(request) else { return Ok(()) };
        match request {
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
