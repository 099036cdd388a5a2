//! A wait for points of sync objects, as its user has it.

use super::make::Maker;
use super::wait::{self, Found};
use super::{Syncobj, SyncobjError, some};
#[cfg(doc)]
use crate::fence::Fence;
use crate::fence::user::UserFence;
use crate::fence::wait::WaitError;
use crate::sabotage::{self, Sabotage};
use crate::time::Time;

/// What a wait is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// The signal of what is submitted now; what is not is refused.
    Signaled,
    /// The signal, also of what is still to be submitted (`WAIT_FOR_SUBMIT`).
    SubmittedAndSignaled,
    /// That it is submitted (`WAIT_AVAILABLE`).
    Submitted,
}

/// A wait for points of sync objects, as a [`UserFence`]: to be waited for, awaited, or made what a job waits for before it is
/// published ([`commit_when`](crate::Reserved::commit_when)). Dropping its last handle ends it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncobjWait {
    user: UserFence,
}

impl SyncobjWait {
    /// Signals once each of `points` has: with the error of the first in order that failed, at the time of the last. None at all is
    /// done at once. Allocates.
    ///
    /// # Errors
    /// [`SyncobjError::NotSubmitted`] with [`Until::Signaled`], no memory.
    pub fn all_of(points: &[(&Syncobj, u64)], until: Until) -> Result<Self, SyncobjError> {
        Self::of(points, until, true)
    }

    /// Signals with the first of `points` that does, with its result; [`SyncobjWait::first`] says which. None at all is
    /// [`SyncobjError::None`]. Allocates.
    ///
    /// # Errors
    /// As for [`SyncobjWait::all_of`].
    pub fn any_of(points: &[(&Syncobj, u64)], until: Until) -> Result<Self, SyncobjError> {
        some(points)?;
        Self::of(points, until, false)
    }

    fn of(points: &[(&Syncobj, u64)], until: Until, all: bool) -> Result<Self, SyncobjError> {
        let first = points.first().map(|(first, _)| &*first.inner);
        let mut maker = Maker::new(points.len(), all, until == Until::Submitted, first)?;
        for (index, (object, number)) in points.iter().enumerate() {
            let found = match object.inner.payload().find(*number) {
                Ok(found) => Some(Found::Submitted(found)),
                Err(last) if until == Until::Signaled && !sabotage::is(Sabotage::AcceptUnsubmitted) => {
                    return Err(SyncobjError::NotSubmitted { index, point: *number, last });
                }
                Err(_) => None,
            };
            maker.push(object.inner.clone(), *number, found);
        }
        Ok(Self { user: UserFence::of(maker.finish()) })
    }

    /// Which of the points ended a wait for any.
    #[must_use]
    pub fn first(&self) -> Option<usize> {
        wait::first(self.user.inner())
    }

    /// Hints that somebody would like it signaled by `at`: forwarded to what was submitted, and to what will be.
    pub fn set_deadline(&self, at: Time) {
        self.user.inner().set_deadline(at);
    }

    /// As a user fence.
    #[must_use]
    pub const fn as_user_fence(&self) -> &UserFence {
        &self.user
    }

    /// Blocks until it has signaled, at the latest until `deadline`, absolute, on the clock of the objects' executor; what is past
    /// makes it a look.
    ///
    /// # Errors
    /// As for [`Fence::wait`].
    #[track_caller]
    pub fn wait_until(&self, deadline: Time) -> Result<(), WaitError> {
        let timeout = match deadline {
            Time::NEVER => core::time::Duration::MAX,
            deadline => deadline.since(wait::now(self.user.inner())),
        };
        self.user.wait(timeout)
    }
}
