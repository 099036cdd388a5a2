//! Test only: switches that commit, one at a time, the very defects the library rules out, so that every check can be
//! seen to fail. Without the feature `sabotage` each is the constant `false` and gone from the code.

/// A defect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(feature = "sabotage"), expect(unreachable_pub, reason = "reachable with the feature"))]
#[repr(u32)]
pub enum Sabotage {
    /// A fence's signal is skipped.
    SkipSignal = 1,
    /// A fence is signaled twice.
    SignalTwice,
    /// A job's fence is signaled before its predecessor's.
    SignalOutOfOrder,
    /// `close` treats running jobs as retired: their payloads are released while the hardware has them.
    FreeAtClose,
    /// A payload is released when `finished` signals, instead of after `retired`.
    ReleaseAtFinished,
    /// Credits of a completed job are not returned.
    LeakCredit,
    /// A dependency counts as met when it is armed.
    SkipDependency,
    /// A failed dependency does not fail its dependant.
    LoseError,
    /// A payload is dropped in the signalling path.
    DropWhileSignalling,
    /// A running job of a closed queue gets no drain deadline.
    NoDrainDeadline,
    /// A producer's watchdog is not armed.
    NoWatchdog,
    /// A waiter is not woken by the signal.
    LoseWakeUp,
    /// A job starts although its queue is closed.
    StartAfterClose,
    /// A principal's charge is given back at `finished` instead of `retired`.
    RefundAtFinished,
    /// A signaled fence keeps its issuer alive.
    KeepIssuer,
    /// A fair policy charges nobody for hardware time.
    ChargeNobody,
    /// A fair policy's floor falls.
    FloorFalls,
    /// Whoever waits for a lease is not told that it has it.
    LoseLeaseWakeUp,
    /// A reservation takes a fence for signaled once its job's `finished` is.
    ReuseAtFinished,
    /// Slots reserved in a reservation are not counted: the second reservation finds the first one's room free.
    SlotNotCounted,
    /// A reservation says that it is idle for a writer while readers are at it.
    IdleTooSoon,
    /// A wait for a sync object misses what is submitted to it.
    MissInstall,
    /// A wait for all of several points ends before the last.
    WaitForAllButOne,
    /// An array of points is signaled one by one, as far as the memory goes.
    SignalHalfAnArray,
    /// An array of fences signals before its last member.
    ArrayBeforeLast,
    /// Of an array only the first member is seen.
    FirstMemberOnly,
    /// In a merge a newer fence does not stand for an older one.
    MergeKeepsOlder,
    /// A point of a timeline signals without its predecessors.
    PointOutOfTurn,
    /// A point of a timeline does not wait for its own fence.
    PointWithoutFence,
    /// A look-up wants the exact number of a point.
    ExactPointOnly,
    /// A running wait follows its sync object.
    ForgetSnapshot,
    /// A wait takes what is submitted for signaled.
    SubmittedIsSignaled,
    /// A query shows what is submitted as signaled.
    QuerySubmitted,
    /// A wait for signals accepts what nobody has submitted.
    AcceptUnsubmitted,
    /// Doing something with no sync objects at all succeeds.
    AcceptNone,
    /// What has left an address space is freed before the driver has cleared it.
    ReleaseBeforeCleared,
    /// What the mappings held that a bind job took out is dropped while jobs may use it.
    ReleaseRemovedAtOnce,
    /// What is to be cleared of an address space is never looked at.
    SkipDrain,
    /// Who locks all of an address space forgets an external buffer.
    ForgetExternal,
    /// The queue whose turn it is is not told so.
    LoseTurn,
    /// A job is handed over behind one that has failed.
    GoBehindError,
    /// A queue does not hear that its principal was banned.
    IgnoreBan,
}

#[cfg(all(feature = "sabotage", not(any(loom, shuttle))))]
mod switch {
    use super::Sabotage;
    use core::sync::atomic::{AtomicU32, Ordering};

    static ACTIVE: AtomicU32 = AtomicU32::new(0);

    /// Commits `defect` from now on in the whole process; `None`: no defect.
    pub fn commit(defect: Option<Sabotage>) {
        ACTIVE.store(defect.map_or(0, |defect| defect as u32), Ordering::SeqCst);
    }

    pub(crate) fn is(defect: Sabotage) -> bool {
        ACTIVE.load(Ordering::Relaxed) == defect as u32
    }
}

/// For a model, which is one thread of the system.
#[cfg(all(feature = "sabotage", any(loom, shuttle)))]
mod switch {
    use super::Sabotage;
    use core::cell::Cell;

    std::thread_local! {
        static ACTIVE: Cell<Option<Sabotage>> = const { Cell::new(None) };
    }

    /// Commits `defect` from now on in the models of this thread; `None`: no defect.
    pub fn commit(defect: Option<Sabotage>) {
        ACTIVE.set(defect);
    }

    pub(crate) fn is(defect: Sabotage) -> bool {
        ACTIVE.get() == Some(defect)
    }
}

#[cfg(feature = "sabotage")]
pub use switch::commit;
#[cfg(feature = "sabotage")]
pub(crate) use switch::is;

/// Whether `defect` is to be committed: never, without the feature.
#[cfg(not(feature = "sabotage"))]
#[inline(always)]
pub(crate) const fn is(_defect: Sabotage) -> bool {
    false
}
