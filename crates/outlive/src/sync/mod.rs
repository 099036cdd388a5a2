//! The one door to atomics, locks and waiting.
//!
//! Behind it is one of four back ends with the same names: `std` (the default), `hooks` (no `std`: the embedder's,
//! bound at link time by `outlive::platform!`), and in tests `loom` and `shuttle`, which explore the shipped types, never
//! copies of them. Nothing else in the crate names `core::sync::atomic`, a mutex or a thread.
//!
//! # Lock classes
//! A [`Lock`] has a [`LockClass`] in its type: a name, a rank and whether it may be taken while signalling. With `std`
//! and debug assertions (or the feature `sabotage`) every `lock()` is checked: ranks must rise strictly along the locks
//! one thread holds, which makes a cycle, hence a deadlock, impossible, and inside a signalling section only classes
//! that say so may be taken. Embedders and drivers add classes of their own: the registry is open.
//!
//! # Contexts
//! `lock()` may be called anywhere, interrupts included: an embedder's raw lock disables what it must. No lock of the
//! library is ever held while foreign code runs.

#[cfg(not(target_has_atomic = "64"))]
compile_error!("outlive needs 64-bit atomics: fence identities and sequence numbers are 64 bits and never reused");

#[cfg(loom)]
#[path = "loom.rs"]
mod backend;
#[cfg(all(shuttle, not(loom)))]
#[path = "shuttle.rs"]
mod backend;
#[cfg(all(feature = "std", not(loom), not(shuttle)))]
#[path = "std.rs"]
mod backend;
#[cfg(all(not(feature = "std"), not(loom), not(shuttle)))]
#[path = "hooks.rs"]
mod backend;
#[cfg(all(test, any(loom, shuttle)))]
pub(crate) mod model;
#[cfg(all(test, shuttle))]
pub(crate) use backend::join_spawned;
#[cfg(any(all(feature = "std", not(loom)), shuttle))]
pub(crate) use backend::spawn;
pub(crate) use backend::{
    ParkToken, RawGuard, RawMutex, atomic, context_id, now_ns, park, park_token, park_until, unpark,
};
#[cfg(all(not(feature = "std"), not(loom), not(shuttle)))]
pub use backend::{Platform, RawLock};

use core::fmt;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};

/// What kind of lock this is, for order and for signalling sections.
///
/// Implemented by empty enums, so that a lock pays nothing for its class. The library's own classes are in
/// [`crate::sync::class`]; ranks 0 to 899 are free for embedders' outer locks, 901 to 919 for those that are taken with
/// reservations locked, all of which may be held while allocating and waiting; 2000 and up for inner ones.
pub trait LockClass: 'static {
    /// As reports call it.
    const NAME: &'static str;
    /// A thread that holds a lock of rank `r` may only take locks of higher rank.
    const RANK: u16;
    /// Whether the signalling path may take it: true only if no holder ever waits for a fence or allocates.
    const SIGNALLING: bool;
}

/// The library's lock classes, outermost first.
pub mod class {
    use super::LockClass;

    macro_rules! classes {
        ($($(#[$doc:meta])* $name:ident = $rank:literal $text:literal;)*) => {
            $($(#[$doc])* #[derive(Debug)] pub enum $name {}
              impl LockClass for $name {
                  const NAME: &'static str = $text;
                  const RANK: u16 = $rank;
                  const SIGNALLING: bool = true;
              })*
        };
    }

    macro_rules! sections {
        ($($(#[$doc:meta])* $name:ident = $rank:literal $text:literal;)*) => {
            $($(#[$doc])* #[derive(Debug)] pub enum $name {}
              impl LockClass for $name {
                  const NAME: &'static str = $text;
                  const RANK: u16 = $rank;
                  const SIGNALLING: bool = false;
              })*
        };
    }

    sections! {
        /// The turn to change an address space ([`crate::vm::Edit`]): outside reservations, which its holder may lock.
        VmTurn = 890 "turn at an address space";
        /// Reservations, as many as one transaction locks: outside all that is the library's, inside embedders' outer locks. Their
        /// holder may wait for fences and allocate, so nothing that signals may take one. It is no [`Lock`](super::Lock): see
        /// [`crate::resv::Transaction`].
        Reservation = 900 "outlive reservation";
        /// No lock, but a place in the order: freeing memory because somebody allocates. Whatever is held while
        /// allocating ranks below; see [`crate::check::reclaiming`].
        Reclaim = 920 "reclaim";
        /// As the kernel's MMU notifiers: no lock, but a place in the order. May wait for fences, and not allocate.
        MmuNotifier = 940 "MMU notifier";
        /// No lock, but a place in the order: waiting for a fence. Whatever is held while waiting ranks below.
        FenceWait = 960 "fence wait";
    }

    classes! {
        /// An address space that is changed by running jobs, for a moment ([`crate::vm::Look`]): no [`Lock`](super::Lock), but
        /// who has it may neither wait for fences nor allocate, for a job on its way to a signal may need it.
        VmSpace = 980 "address space for a moment";
        /// A device: its queues, its recovery.
        DeviceState = 1000 "outlive device";
        /// What a watcher of descriptors watches.
        WatcherSlots = 1005 "outlive watcher";
        /// One queue's order of jobs.
        QueueState = 1010 "outlive queue";
        /// An address space: whose turn it is to change it, what is to be cleared.
        VmState = 1012 "outlive address space";
        /// A buffer in an address space: how far its end has come.
        VmBoState = 1013 "outlive buffer in an address space";
        /// In which address spaces a buffer is open.
        BoPairs = 1014 "outlive address spaces of a buffer";
        /// An arbiter's turns.
        ArbiterState = 1015 "outlive arbiter";
        /// A pool's leases.
        PoolState = 1017 "outlive pool";
        /// What a principal has done.
        Offences = 1018 "outlive offences";
        /// A bare fence context's order of fences.
        ContextState = 1020 "outlive fence context";
        /// What is in flight on one ring.
        InFlightSlots = 1030 "outlive in-flight map";
        /// One reservation's owner, waiters and fences, for a moment.
        ReservationState = 1032 "outlive reservation state";
        /// A sync object's payload and who waits for it.
        SyncobjState = 1033 "outlive sync object";
        /// A timeline's order of points.
        TimelineState = 1035 "outlive timeline";
        /// One fence's waiters.
        FenceWaiters = 1040 "outlive fence";
        /// An executor's timers.
        TimerTree = 1050 "outlive timers";
        /// One lane's list of work.
        LaneQueue = 1060 "outlive lane";
        /// Executors without a driver.
        Orphans = 1070 "outlive orphans";
    }
}

/// A mutual exclusion lock of class `C` around a `T`.
///
/// It must not be held while foreign code runs, while waiting or while allocating; the checker reports where it is.
/// A panic while it is held does not poison it: what it guards is changed only by code that cannot panic half way.
pub struct Lock<C: LockClass, T> {
    raw: RawMutex<T>,
    class: PhantomData<fn(C)>,
}

impl<C: LockClass, T> Lock<C, T> {
    /// An unlocked lock.
    #[cfg(not(any(loom, shuttle)))]
    pub const fn new(value: T) -> Self {
        Self { raw: RawMutex::new(value), class: PhantomData }
    }

    /// An unlocked lock.
    #[cfg(any(loom, shuttle))]
    pub fn new(value: T) -> Self {
        Self { raw: RawMutex::new(value), class: PhantomData }
    }

    /// Waits for the lock and takes it. Any context; spins or sleeps as the back end does.
    #[inline]
    #[track_caller]
    pub fn lock(&self) -> Guard<'_, C, T> {
        crate::check::before_lock::<C>();
        Guard { raw: self.raw.lock(C::NAME), class: PhantomData }
    }
}

impl<C: LockClass, T> fmt::Debug for Lock<C, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lock({})", C::NAME)
    }
}

/// The right to use what a [`Lock`] guards, until dropped.
pub struct Guard<'a, C: LockClass, T> {
    raw: RawGuard<'a, T>,
    class: PhantomData<fn(C)>,
}

impl<C: LockClass, T> Deref for Guard<'_, C, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.raw
    }
}

impl<C: LockClass, T> DerefMut for Guard<'_, C, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.raw
    }
}

impl<C: LockClass, T> Drop for Guard<'_, C, T> {
    #[inline]
    fn drop(&mut self) {
        crate::check::after_unlock::<C>();
    }
}

impl<C: LockClass, T> fmt::Debug for Guard<'_, C, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Guard({})", C::NAME)
    }
}
