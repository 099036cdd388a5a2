//! The transaction: many reservations at once, in any order, in two phases.
//!
//! ```text
//!   Transaction ──run──▶ lock phase ──────────▶ sealed phase ──▶ given back, in reverse
//!                        ▲  │ may contend,       cannot contend:
//!                        │  │ may fail:          commit, add
//!                        │  ▼ error              runs once
//!                    all given back;
//!                    the contended one first
//! ```
//! The lock phase is a closure that may run several times (`FnMut`), so it cannot use anything up: a `Reserved` cannot be
//! committed there, and [`Slot`](super::Slot)s cannot be filled, for that needs a [`Sealed`]. The sealed phase is a closure that
//! runs once (`FnOnce`) and has no call that locks or reserves. What the first hands to the second ([`Carry`]) is branded with
//! the attempt: it cannot be kept, nor brought in from elsewhere.

use super::attempt::{Attempt, Sealed};
use super::carry::Carry;
use super::inject::Injection;
use super::interrupt::Interrupt;
use super::locks::Locks;
use super::ticket::sync_now;
use crate::check::{self, Violation};
use crate::fence::FenceError;
use crate::mem::AllocError;
use crate::sync::class;
use crate::time::Time;
use core::fmt;
use core::marker::PhantomData;
use core::time::Duration;

/// Why a lock phase ends without all it wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LockError {
    /// Somebody older has it: hand this on from the lock phase. All will be given back, and the phase runs again. Never comes out
    /// of a transaction.
    Contended,
    /// A fence on it has failed: the memory is never free.
    Poisoned {
        /// [`Reservation::id`](super::Reservation::id).
        reservation: u64,
        /// The fence's error.
        error: FenceError,
    },
    /// It is locked already, by this very attempt, and duplicates were refused.
    AlreadyLocked {
        /// [`Reservation::id`](super::Reservation::id).
        reservation: u64,
    },
    /// The time is over.
    TimedOut,
    /// Somebody raised its [`Interrupt`].
    Interrupted,
    /// The calling thread has it locked in another transaction, around this one, and would wait for itself.
    WouldDeadlock,
    /// Who signals may not lock reservations: who has one may be waiting for that signal.
    InSignallingSection,
    /// Nor may a closure or waker of a fence.
    InCallback,
    /// No memory.
    OutOfMemory(AllocError),
}

impl fmt::Display for LockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Contended => f.write_str("somebody older has the lock: return this from the lock phase"),
            Self::Poisoned { reservation, error } => {
                write!(f, "reservation {reservation} is never free, leave its memory alone: {error}")
            }
            Self::AlreadyLocked { reservation } => {
                write!(f, "reservation {reservation} is locked by this transaction already; name it once")
            }
            Self::TimedOut => f.write_str("the locks were not to be had in time"),
            Self::Interrupted => f.write_str("interrupted while waiting for a lock"),
            Self::WouldDeadlock => f.write_str("this thread has it in another transaction; lock both in one"),
            Self::InSignallingSection => f.write_str("a signalling path may not lock reservations; do it before"),
            Self::InCallback => f.write_str("a callback may not lock reservations; leave it to a thread that may wait"),
            Self::OutOfMemory(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for LockError {}

impl From<AllocError> for LockError {
    fn from(error: AllocError) -> Self {
        Self::OutOfMemory(error)
    }
}

/// Locks many reservations, in any order, without a deadlock; reserves slots in them; and adds fences. See the
/// [module](super) for the whole and an example.
///
/// # Contexts
/// Blocks while others have what it wants, and allocates in its lock phase: threads that may do both. It may be run with fences
/// to be waited for, and one may wait for fences inside. Refused in signalling sections and on the notify lane. It ranks as
/// [`class::Reservation`]: no lock of the library may be held around it, and no other transaction. Mind that
/// [`JobQueue::reserve`](crate::JobQueue::reserve) drops payloads of jobs that have retired: if such a `Drop` locks reservations,
/// reserve the job before the transaction and commit it inside.
#[derive(Debug, Default)]
#[must_use = "nothing is locked until it is run"]
pub struct Transaction<'i> {
    timeout: Option<Duration>,
    interrupt: Option<&'i mut Interrupt>,
    injection: Option<Injection>,
    refuses_duplicates: bool,
}

/// What became of one attempt.
enum Ended<T, E> {
    Done(T),
    Failed(E),
    Contended,
}

impl<'i> Transaction<'i> {
    /// One that waits as long as it takes, and to which locking a reservation twice is locking it once.
    pub fn new() -> Self {
        Self::default()
    }

    /// Fails with [`LockError::TimedOut`] rather than wait for locks longer than `timeout` of real time, all in all.
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Fails with [`LockError::Interrupted`] rather than wait once `interrupt` is raised.
    pub fn interruptible(mut self, interrupt: &'i mut Interrupt) -> Self {
        self.interrupt = Some(interrupt);
        self
    }

    /// Meets contention and want of memory by chance: for tests of what follows.
    pub const fn inject(mut self, injection: Injection) -> Self {
        self.injection = Some(injection);
        self
    }

    /// Fails with [`LockError::AlreadyLocked`] where a reservation is locked twice, instead of locking it once.
    pub const fn refuse_duplicates(mut self) -> Self {
        self.refuses_duplicates = true;
        self
    }

    /// Runs `lock` until it has all it wants, then `publish`, and gives all locks back. If `publish` does not run, it and what it
    /// holds, a reserved job for one, is dropped after that.
    ///
    /// # Errors
    /// What `lock` returned, but [`LockError::Contended`]; and what makes locking illegal here or hopeless.
    #[track_caller]
    pub fn run<P: Carry, T>(
        self,
        lock: impl for<'a> FnMut(&mut Attempt<'a>) -> Result<P::In<'a>, LockError>,
        publish: impl for<'a> FnOnce(&mut Sealed<'a>, P::In<'a>) -> T,
    ) -> Result<T, LockError> {
        self.try_run::<P, T, LockError>(lock, publish)
    }

    /// As [`Transaction::run`], with an error of the caller's own. Whatever `lock` returns after [`LockError::Contended`], all is
    /// given back and it runs again.
    ///
    /// # Errors
    /// As for [`Transaction::run`].
    #[track_caller]
    pub fn try_run<P: Carry, T, E: From<LockError>>(
        self,
        mut lock: impl for<'a> FnMut(&mut Attempt<'a>) -> Result<P::In<'a>, E>,
        publish: impl for<'a> FnOnce(&mut Sealed<'a>, P::In<'a>) -> T,
    ) -> Result<T, E> {
        // First, so that what it holds, if it does not run, is dropped when the locks have been given back.
        let mut publish = Some(publish);
        let _ranked = Ranked::begin()?;
        let until = match self.timeout {
            Some(timeout) if timeout != Duration::MAX => sync_now().after(timeout),
            _ => Time::NEVER,
        };
        let mut locks =
            Locks::new(until, self.interrupt.as_deref().map(Interrupt::flag), self.injection, self.refuses_duplicates);
        loop {
            locks.begin()?;
            match attempt::<P, T, E>(&mut locks, &mut lock, &mut publish) {
                Ended::Done(done) => return Ok(done),
                Ended::Failed(error) => return Err(error),
                Ended::Contended => locks.back_off(),
            }
        }
    }
}

/// One attempt. Its brand is this call's own: both closures take any.
fn attempt<'a, P: Carry, T, E>(
    locks: &'a mut Locks,
    lock: &mut impl FnMut(&mut Attempt<'a>) -> Result<P::In<'a>, E>,
    publish: &mut Option<impl FnOnce(&mut Sealed<'a>, P::In<'a>) -> T>,
) -> Ended<T, E> {
    let mut attempt = Attempt::new(locks);
    let locked = lock(&mut attempt);
    // Also if the phase kept it to itself.
    if attempt.is_contended() {
        return Ended::Contended;
    }
    let carried = match locked {
        Ok(carried) => carried,
        Err(error) => return Ended::Failed(error),
    };
    match publish.take() {
        Some(publish) => Ended::Done(publish(&mut attempt.seal(), carried)),
        // There is one, for it is taken only here, and then the transaction ends.
        None => Ended::Contended,
    }
}

/// A transaction, as the order of locks has it: one thread has one at a time.
struct Ranked {
    thread_bound: PhantomData<*const ()>,
}

impl Ranked {
    #[track_caller]
    fn begin() -> Result<Self, LockError> {
        check::may_wait().map_err(|violation| match violation {
            Violation::WaitedInCallback => LockError::InCallback,
            _ => LockError::InSignallingSection,
        })?;
        check::before_lock::<class::Reservation>();
        Ok(Self { thread_bound: PhantomData })
    }
}

impl Drop for Ranked {
    fn drop(&mut self) {
        check::after_unlock::<class::Reservation>();
    }
}
