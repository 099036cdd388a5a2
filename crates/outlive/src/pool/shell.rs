//! The lock around the leases, and the fences by which those in line are told.

use super::leases::{Leases, Wants};
use super::{KINDS_MAX, SlotSet};
use crate::device::Acquired;
use crate::exec::Executor;
use crate::fence::{Fence, FenceContext, FenceError, Names, Signaler, Unpublished};
use crate::mem::shared::Ref;
use crate::mem::{AllocError, HeapVec, try_reserve};
use crate::sabotage::{self, Sabotage};
use crate::sched::Priority;
use crate::sync::{Guard, Lock, class};
use core::fmt;

/// The code a job fails with ([`Acquired::Never`]) that waited for as long as a fence may take, or whose holder was asked by
/// two jobs at once.
pub const WAITED_IN_VAIN: u16 = 0xfffe;

/// How a pool is made.
#[derive(Debug, Clone, Copy)]
pub struct PoolConfig {
    counts: [u32; KINDS_MAX],
    reserved: [u32; KINDS_MAX],
    kinds: usize,
    group_cap: u32,
    holders: u32,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self::new()
    }
}

impl PoolConfig {
    /// No kinds yet, no cap, and at most 256 holders.
    #[must_use]
    pub const fn new() -> Self {
        Self { counts: [0; KINDS_MAX], reserved: [0; KINDS_MAX], kinds: 0, group_cap: u32::MAX, holders: 256 }
    }

    /// One kind more: `count` slots (at most 64), `reserved` of them for priority high and above. The first is number 0; their
    /// order is the order in which they are taken.
    #[must_use]
    pub const fn kind(mut self, count: u32, reserved: u32) -> Self {
        if self.kinds < KINDS_MAX {
            self.counts[self.kinds] = count;
            self.reserved[self.kinds] = reserved;
        }
        self.kinds += 1;
        self
    }

    /// How many holders of one group may have slots at a time. Default: all.
    #[must_use]
    pub const fn group_cap(mut self, most: u32) -> Self {
        self.group_cap = most;
        self
    }

    /// How many holders there may be: all room is taken when the pool is made. Default 256.
    #[must_use]
    pub const fn holders(mut self, most: u32) -> Self {
        self.holders = most;
        self
    }
}

/// Why a pool or a holder was not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PoolError {
    /// No memory.
    OutOfMemory(AllocError),
    /// The pool has as many holders as it may.
    Full {
        /// The most.
        most: u32,
    },
    /// More than [`KINDS_MAX`] kinds.
    TooManyKinds {
        /// How many.
        kinds: usize,
    },
    /// No slots, more than 64, or all of them reserved: some job could wait for ever.
    BadCount {
        /// Of which kind.
        kind: usize,
        /// How many.
        count: u32,
        /// How many are reserved.
        reserved: u32,
    },
    /// The pool has no such kind, or none was named.
    NoSuchKind {
        /// What was asked for, if anything.
        kind: Option<usize>,
    },
    /// Kinds are named in ascending order, each once: that is the order in which they are taken.
    WrongOrder {
        /// This one was named
        kind: usize,
        /// after this one.
        after: usize,
    },
}

impl From<AllocError> for PoolError {
    fn from(error: AllocError) -> Self {
        Self::OutOfMemory(error)
    }
}

impl fmt::Display for PoolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfMemory(error) => error.fmt(f),
            Self::Full { most } => write!(f, "the pool has its {most} holders: drop one, or make it for more"),
            Self::TooManyKinds { kinds } => write!(f, "{kinds} kinds of slots: at most {KINDS_MAX}"),
            Self::BadCount { kind, count, reserved } => {
                write!(f, "kind {kind} has {count} slots, {reserved} reserved: 1 to 64, and not all of them reserved")
            }
            Self::NoSuchKind { kind: Some(kind) } => write!(f, "the pool has no kind {kind}"),
            Self::NoSuchKind { kind: None } => f.write_str("a holder needs at least one kind"),
            Self::WrongOrder { kind, after } => {
                write!(f, "kind {kind} named after kind {after}: name each once, in the pool's order")
            }
        }
    }
}

impl core::error::Error for PoolError {}

/// Scarce slots of a few kinds. Clones are the same pool.
#[derive(Clone)]
pub struct Pool {
    shared: Ref<Shared>,
}

/// How a pool stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolStatus {
    /// Free slots of each kind.
    pub free: [u32; KINDS_MAX],
    /// Jobs in line.
    pub waiting: usize,
}

struct Shared {
    kinds: usize,
    state: Lock<class::PoolState, State>,
}

struct State {
    leases: Leases,
    /// Of each holder, for its job in line.
    signalers: HeapVec<Option<Signaler>>,
}

type StateGuard<'a> = Guard<'a, class::PoolState, State>;

impl Pool {
    /// A pool. Allocates.
    ///
    /// # Errors
    /// [`PoolError`].
    pub fn new(config: PoolConfig) -> Result<Self, PoolError> {
        let PoolConfig { counts, reserved, kinds, group_cap, holders } = config;
        if kinds > KINDS_MAX {
            return Err(PoolError::TooManyKinds { kinds });
        }
        for kind in 0..kinds {
            let (count, reserved) = (counts[kind], reserved[kind]);
            if count == 0 || count > SlotSet::MOST || reserved >= count {
                return Err(PoolError::BadCount { kind, count, reserved });
            }
        }
        let leases = Leases::new(counts, reserved, group_cap.max(1), holders)?;
        let mut signalers = HeapVec::new();
        try_reserve(&mut signalers, holders as usize)?;
        signalers.extend((0..holders).map(|_| None));
        let state = Lock::new(State { leases, signalers });
        Ok(Self { shared: Ref::try_new(Shared { kinds, state })? })
    }

    /// Somebody whose jobs need one slot of each of `kinds`, named in ascending order: one queue, whose jobs ask one after
    /// another. `group`: for the cap; 0: none. Allocates.
    ///
    /// # Errors
    /// [`PoolError`].
    pub fn holder(
        &self,
        executor: &Executor,
        kinds: &[usize],
        group: u64,
        priority: Priority,
    ) -> Result<Holder, PoolError> {
        let mut wanted = [false; KINDS_MAX];
        let mut last = None;
        for &kind in kinds {
            if let Some(after) = last.filter(|after| *after >= kind) {
                return Err(PoolError::WrongOrder { kind, after });
            }
            if kind >= self.shared.kinds {
                return Err(PoolError::NoSuchKind { kind: Some(kind) });
            }
            wanted[kind] = true;
            last = Some(kind);
        }
        if last.is_none() {
            return Err(PoolError::NoSuchKind { kind: None });
        }
        let context = FenceContext::new(executor, Names { driver: "outlive", timeline: "lease" })?;
        let number = self.shared.state.lock().leases.open(Wants { kinds: wanted, group, priority })?;
        let place = Place { shared: self.shared.clone(), number, context };
        Ok(Holder { place: Ref::try_new(place)? })
    }

    /// How it stands now; a short look under its lock.
    #[must_use]
    pub fn status(&self) -> PoolStatus {
        let state = self.shared.state.lock();
        PoolStatus { free: core::array::from_fn(|kind| state.leases.free_slots(kind)), waiting: state.leases.waiting() }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shared.state.lock().leases.fmt(f)
    }
}

impl Shared {
    /// Tells everybody in line who has his slots now. Not under the lock.
    fn serve<'a>(&'a self, mut state: StateGuard<'a>) {
        while let Some(number) = state.leases.serve() {
            let signaler = state.signalers[number as usize].take();
            drop(state);
            match signaler {
                Some(signaler) if sabotage::is(Sabotage::LoseLeaseWakeUp) => core::mem::forget(signaler),
                Some(signaler) => signaler.signal(Ok(())),
                None => {}
            }
            state = self.state.lock();
        }
    }
}

/// A holder's number, kept by it and by its tickets.
struct Place {
    shared: Ref<Shared>,
    number: u32,
    context: FenceContext,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.state.lock().leases.close(self.number);
    }
}

/// One queue's place at a pool.
pub struct Holder {
    place: Ref<Place>,
}

impl Holder {
    /// What one job needs to ask for slots and to wait for them: make it where the job is reserved, keep it in the payload.
    /// Allocates.
    ///
    /// # Errors
    /// [`AllocError`].
    pub fn ticket(&self) -> Result<Ticket, AllocError> {
        Ok(Ticket { stage: Stage::New(self.place.context.allocate()?), place: self.place.clone() })
    }
}

impl fmt::Debug for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Holder({})", self.place.number)
    }
}

/// One job's claim on its holder's slots. Dropping it gives back what it has, or leaves the line.
pub struct Ticket {
    stage: Stage,
    place: Ref<Place>,
}

enum Stage {
    New(Unpublished),
    Waiting(Fence),
    Taken([Option<u32>; KINDS_MAX]),
    Done,
}

impl Ticket {
    /// To be answered by [`Driver::acquire`](crate::Driver::acquire): all slots, or the fence that signals when they are this
    /// job's. Any context; never blocks or allocates.
    pub fn acquire(&mut self) -> Acquired {
        let number = self.place.number;
        let mut state = self.place.shared.state.lock();
        if matches!(self.stage, Stage::New(_)) && state.signalers[number as usize].is_some() {
            // Somebody else of this holder is in line: who of them would be told?
            return Acquired::Never(WAITED_IN_VAIN);
        }
        let may_have = matches!(self.stage, Stage::New(_) | Stage::Waiting(_));
        if may_have && state.leases.take(number) {
            let slots = state.leases.slots(number).unwrap_or_default();
            drop(state);
            self.stage = Stage::Taken(slots);
            return Acquired::Yes;
        }
        match core::mem::replace(&mut self.stage, Stage::Done) {
            Stage::New(unpublished) => {
                // Under the lock, so that whoever gives back finds it.
                let (signaler, fence) = unpublished.publish();
                state.signalers[number as usize] = Some(signaler);
                self.stage = Stage::Waiting(fence.clone());
                Acquired::Wait(fence)
            }
            Stage::Waiting(fence) if !fence.is_signaled() => {
                self.stage = Stage::Waiting(fence.clone());
                Acquired::Wait(fence)
            }
            Stage::Waiting(_) => {
                drop(state);
                self.leave();
                Acquired::Never(WAITED_IN_VAIN)
            }
            Stage::Taken(slots) => {
                self.stage = Stage::Taken(slots);
                Acquired::Yes
            }
            Stage::Done => Acquired::Never(WAITED_IN_VAIN),
        }
    }

    /// The slot of that kind, while it has them.
    #[must_use]
    pub fn slot(&self, kind: usize) -> Option<u32> {
        match &self.stage {
            Stage::Taken(slots) => slots.get(kind).copied().flatten(),
            Stage::New(_) | Stage::Waiting(_) | Stage::Done => None,
        }
    }

    /// The hardware is done with the job: call it in [`Driver::release`](crate::Driver::release). Any context; never blocks or
    /// allocates.
    pub fn give_back(&mut self) {
        if let Stage::Taken(_) = self.stage {
            self.stage = Stage::Done;
            let mut state = self.place.shared.state.lock();
            state.leases.give_back(self.place.number);
            self.place.shared.serve(state);
        }
    }

    fn leave(&self) {
        let mut state = self.place.shared.state.lock();
        state.leases.leave(self.place.number);
        let signaler = state.signalers[self.place.number as usize].take();
        self.place.shared.serve(state);
        if let Some(signaler) = signaler {
            signaler.signal(Err(FenceError::Canceled));
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        match self.stage {
            Stage::Waiting(_) => self.leave(),
            Stage::Taken(_) => self.give_back(),
            Stage::New(_) | Stage::Done => {}
        }
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stage = match self.stage {
            Stage::New(_) => "new",
            Stage::Waiting(_) => "waiting",
            Stage::Taken(_) => "taken",
            Stage::Done => "done",
        };
        write!(f, "Ticket({}, {stage})", self.place.number)
    }
}
