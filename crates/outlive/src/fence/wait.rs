//! Blocking waits with a timeout: on one fence, any, all. A wait leaves nothing behind, however it ends.
//!
//! # Contexts
//! Threads that may block. Refused, with a report, in signalling sections and in callbacks on the notify lane; refused,
//! without one, on the thread that drives the fence's manual executor, which would wait for itself: use
//! [`Executor::wait`](crate::Executor::wait) there. The reaper lane may wait.
#![expect(unsafe_code, reason = "nodes on the waiter's stack; docs/unsafe.md, `fence::wait`")]

use super::error::FenceError;
use super::state::Fence;
use super::status::Status;
use super::user::UserFence;
use crate::check::{self, Violation};
use crate::exec::Executor;
use crate::exec::node::{Kind, Node};
use crate::mem::{AllocError, HeapVec, try_reserve};
use crate::sync::atomic::Ordering;
use crate::sync::{self, ParkToken};
use crate::time::Time;
use core::fmt;
use core::ptr::NonNull;
use core::time::Duration;

/// Why a wait ended without the fence having signaled `Ok`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum WaitError {
    /// The time is over; the fence is still pending.
    TimedOut,
    /// The fence signaled with this error.
    Failed(FenceError),
    /// The calling thread is the one that drives the fence's executor, so it would wait for itself.
    WouldDeadlock,
    /// Nothing is pending that could ever signal it: virtual time has no next event.
    Stuck,
    /// Waiting is not allowed in a signalling section.
    InSignallingSection,
    /// Waiting is not allowed in a closure or waker of a fence.
    InCallback,
    /// No memory for a wait on several.
    OutOfMemory(AllocError),
}

impl fmt::Display for WaitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut => f.write_str("the fence did not signal in time"),
            Self::Failed(error) => write!(f, "the fence signaled an error: {error}"),
            Self::WouldDeadlock => f.write_str(
                "this thread drives the fence's executor and would wait for itself; call `Executor::wait`, or use an \
                 executor with threads",
            ),
            Self::Stuck => {
                f.write_str("nothing is pending that could signal the fence; submit or complete something first")
            }
            Self::InSignallingSection => {
                f.write_str("a signalling path may not wait; make it a dependency or a callback")
            }
            Self::InCallback => f.write_str("a callback may not wait; register another callback"),
            Self::OutOfMemory(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for WaitError {}

/// A waiting thread, on one fence.
#[repr(C)]
pub(crate) struct ThreadNode {
    node: Node,
    token: ParkToken,
}

impl ThreadNode {
    fn new(token: ParkToken) -> Self {
        Self { node: Node::new(Kind::Thread, 0), token }
    }

    pub(crate) fn token(&self) -> ParkToken {
        self.token.clone()
    }
}

impl Fence {
    /// Waits until it has signaled, at most `timeout` of real time (zero polls; [`Duration::MAX`] is no limit).
    ///
    /// # Errors
    /// [`WaitError::TimedOut`] while it is pending; [`WaitError::Failed`] with the fence's own error; the rest where waiting
    /// is not allowed: in signalling sections and callbacks, and on the thread that drives the fence's manual executor,
    /// which would wait for itself ([`Executor::wait`](crate::Executor::wait) is for that).
    #[track_caller]
    pub fn wait(&self, timeout: Duration) -> Result<(), WaitError> {
        if let Status::Signaled(result) = self.status() {
            return result.map_err(WaitError::Failed);
        }
        if timeout.is_zero() {
            return Err(WaitError::TimedOut);
        }
        may_wait(self)?;
        let _waiting = check::waits_for(self);
        let node = ThreadNode::new(sync::park_token());
        // SAFETY: idle, of its kind, and taken out below before it goes.
        if unsafe { self.register(NonNull::from(&node.node)) } {
            sleep_until(deadline(timeout), || self.is_signaled());
            self.unregister(&node.node);
        }
        match self.status() {
            Status::Pending => Err(WaitError::TimedOut),
            Status::Signaled(result) => result.map_err(WaitError::Failed),
        }
    }

    /// Waits until one of `fences` has signaled and returns its index; the lowest, if there are several.
    ///
    /// # Errors
    /// As for [`Fence::wait`] ([`WaitError::Failed`] does not occur: ask the fence), and [`WaitError::OutOfMemory`].
    /// None at all times out.
    #[track_caller]
    pub fn wait_any(fences: &[Self], timeout: Duration) -> Result<usize, WaitError> {
        let done = || fences.iter().position(Self::is_signaled);
        if let Some(index) = done() {
            return Ok(index);
        }
        if timeout.is_zero() {
            return Err(WaitError::TimedOut);
        }
        for fence in fences {
            may_wait(fence)?;
        }
        let token = sync::park_token();
        let mut nodes = HeapVec::new();
        try_reserve(&mut nodes, fences.len()).map_err(WaitError::OutOfMemory)?;
        nodes.extend(fences.iter().map(|_| ThreadNode::new(token.clone())));
        let mut registered = 0;
        for (fence, node) in fences.iter().zip(&nodes) {
            // SAFETY: idle, of its kind, does not move any more, and taken out below before it goes.
            if !unsafe { fence.register(NonNull::from(&node.node)) } {
                break;
            }
            registered += 1;
        }
        if registered == fences.len() {
            sleep_until(deadline(timeout), || done().is_some());
        }
        for (fence, node) in fences.iter().zip(&nodes).take(registered) {
            fence.unregister(&node.node);
        }
        done().ok_or(WaitError::TimedOut)
    }

    /// Waits until all of `fences` have signaled. None at all is done at once.
    ///
    /// # Errors
    /// As for [`Fence::wait`]; [`WaitError::Failed`] with the error of the first in the slice that has one, once all have
    /// signaled.
    #[track_caller]
    pub fn wait_all(fences: &[Self], timeout: Duration) -> Result<(), WaitError> {
        let deadline = deadline(timeout);
        let mut first = Ok(());
        for fence in fences {
            let left = if deadline == Time::NEVER { Duration::MAX } else { deadline.since(now()) };
            match fence.wait(left) {
                Err(WaitError::Failed(error)) if first.is_ok() => first = Err(WaitError::Failed(error)),
                Ok(()) | Err(WaitError::Failed(_)) => {}
                Err(other) => return Err(other),
            }
        }
        first
    }
}

impl Executor {
    /// Waits for `fence` by driving this executor: runs its lanes, and in virtual time moves to the next timer whenever
    /// nothing else is left, up to `timeout` of that time.
    ///
    /// # Errors
    /// As for [`Fence::wait`], and [`WaitError::Stuck`] when nothing is pending that could signal it.
    #[track_caller]
    pub fn wait(&self, fence: &Fence, timeout: Duration) -> Result<(), WaitError> {
        self.drive_until(fence, timeout)
    }

    /// As [`Executor::wait`], for a user fence.
    ///
    /// # Errors
    /// As for [`Executor::wait`].
    #[track_caller]
    pub fn wait_user(&self, user: &UserFence, timeout: Duration) -> Result<(), WaitError> {
        self.drive_until(user.inner(), timeout)
    }

    #[track_caller]
    fn drive_until(&self, fence: &Fence, timeout: Duration) -> Result<(), WaitError> {
        if self.hub().ident.driver.load(Ordering::Relaxed) == 0 {
            return fence.wait(timeout);
        }
        check::may_wait().map_err(refusal)?;
        let until = self.now().after(timeout);
        loop {
            self.run_until_idle();
            match fence.status() {
                Status::Signaled(result) => return result.map_err(WaitError::Failed),
                Status::Pending if self.now() >= until => return Err(WaitError::TimedOut),
                Status::Pending => {}
            }
            match self.next_timer() {
                None => return Err(WaitError::Stuck),
                Some(at) => self.advance_to(at.min(until)),
            }
        }
    }
}

fn now() -> Time {
    Time::from_ns(sync::now_ns())
}

fn deadline(timeout: Duration) -> Time {
    if timeout == Duration::MAX { Time::NEVER } else { now().after(timeout) }
}

/// Sleeps until `done`, or `until`.
fn sleep_until(until: Time, done: impl Fn() -> bool) {
    while !done() {
        let now = now();
        if now >= until {
            return;
        }
        sync::park_until(now, until);
    }
}

#[track_caller]
fn may_wait(fence: &Fence) -> Result<(), WaitError> {
    check::may_wait().map_err(refusal)?;
    let mut own = false;
    fence.for_each_leaf(|leaf| {
        let info = leaf.header().info.as_ref();
        let driver = info.map_or(0, |info| info.ident.driver.load(Ordering::Relaxed));
        own |= driver != 0 && driver == sync::context_id() && !leaf.is_signaled();
    });
    // A fence that has signaled meanwhile is no reason to refuse.
    if own { Err(WaitError::WouldDeadlock) } else { Ok(()) }
}

fn refusal(violation: Violation) -> WaitError {
    if violation == Violation::WaitedInCallback { WaitError::InCallback } else { WaitError::InSignallingSection }
}

impl fmt::Debug for ThreadNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ThreadNode")
    }
}
