//! Sync objects: cells for fences that are handed from one submission to another, by a name both know (`drm_syncobj`,
//! `VkSemaphore`).
//!
//! # Types
//! | type | right |
//! |---|---|
//! | [`Syncobj`] | submit, signal from the host, reset, look up, transfer |
//! | [`SyncobjWait`] | wait for points that need not be submitted yet; it is a [`UserFence`] |
//! | [`PointReservation`] | memory taken beforehand, so that submitting a point cannot fail |
//!
//! # States of the payload
//! *empty* ↔ *binary*, a fence ↔ *a timeline* of points. Point 0 means the binary payload, as in the kernel's interface: submitting
//! it replaces whatever was there, and on a timeline looking it up finds the newest point.
//!
//! # What is a fence here
//! What was submitted is a [`Fence`], finite. What was not is none: whoever wants to wait for it gets a [`UserFence`], on
//! which no published job can depend (rule 2). So nothing can wait for itself through a sync object: a payload is made of fences
//! that were there before it, and a wait is never a payload.
//!
//! # A wait sees a snapshot
//! Each entry of a wait keeps what it found, at the start or when it was submitted: replacing or resetting the object later
//! does not change a running wait, and resetting an empty one changes nothing.

mod cell;
pub(super) mod wait;

use self::cell::{Inner, Payload, PointRoom};
use self::wait::{Found, Maker};
use super::container::ContainerError;
use super::container::Sort;
use super::state::Fence;
use super::user::UserFence;
use super::wait::WaitError;
use crate::exec::Executor;
use crate::exec::object::Object;
use crate::mem::{AllocError, HeapVec, try_push, try_reserve};
use crate::sabotage::{self, Sabotage};
use crate::sync::atomic::Ordering;
use crate::time::Time;
use core::fmt;

/// A cell for a fence, or a timeline of them. Clones are handles on the same one. When the last handle goes, what waits
/// for points that were not submitted ends with [`FenceError::Canceled`](crate::FenceError::Canceled).
pub struct Syncobj {
    inner: Object<Inner>,
}

/// Why something was not done with sync objects. Nothing was changed, in none of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SyncobjError {
    /// Nobody submitted that point yet (`-EINVAL`).
    NotSubmitted {
        /// Which of those that were asked for.
        index: usize,
        /// The point.
        point: u64,
        /// The last one that was submitted, 0 if none.
        last: u64,
    },
    /// No sync objects were given (`-EINVAL`).
    None,
    /// It cannot be submitted as it is, or there is no memory.
    Container(ContainerError),
}

/// How far a sync object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// The number up to which all points have signaled. A binary object has none: 0.
    pub signaled: u64,
    /// The last point that was submitted.
    pub submitted: u64,
}

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

/// Memory for one point of one sync object, whatever becomes of it meanwhile.
#[derive(Debug)]
#[must_use = "it is memory only; submit something with it"]
pub struct PointReservation {
    room: PointRoom,
    object: Syncobj,
}

/// A wait for points of sync objects, as a [`UserFence`]: to be waited for, awaited, or made what a job waits for before it is
/// published ([`commit_when`](crate::Reserved::commit_when)). Dropping its last handle ends it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncobjWait {
    user: UserFence,
}

impl Syncobj {
    /// An empty one, called `name`. Its waiters' closures run on `executor`'s notify lane, and its time stamps are of that
    /// one's clock. Allocates.
    ///
    /// # Errors
    /// [`AllocError`].
    pub fn new(executor: &Executor, name: &str) -> Result<Self, AllocError> {
        Ok(Self { inner: Inner::new(executor, name)? })
    }

    /// One that has a signaled binary payload.
    ///
    /// # Errors
    /// [`AllocError`].
    pub fn new_signaled(executor: &Executor, name: &str) -> Result<Self, AllocError> {
        let this = Self::new(executor, name)?;
        this.signal(0)?;
        Ok(this)
    }

    /// Replaces the payload by `fence`. Allocates nothing; any context; never blocks.
    ///
    /// # Errors
    /// [`ContainerError::Nested`] if `fence` is a timeline's point: [`Syncobj::submit`] takes it apart. Nothing else fails.
    pub fn replace(&self, fence: &Fence) -> Result<(), ContainerError> {
        if fence.sort() == Some(Sort::Point) {
            return Err(ContainerError::Nested);
        }
        self.inner.replace(Payload::One(fence.clone()));
        Ok(())
    }

    /// Empties it: what was submitted is forgotten, and points begin anew. Any context; never blocks.
    pub fn reset(&self) {
        self.inner.replace(Payload::Empty);
    }

    /// Empties all of `objects`. Any context.
    ///
    /// # Errors
    /// [`SyncobjError::None`].
    pub fn reset_all(objects: &[&Self]) -> Result<(), SyncobjError> {
        some(objects)?;
        objects.iter().for_each(|object| object.reset());
        Ok(())
    }

    /// Submits `fence` as point `number`; 0 replaces the payload. A point signals after every earlier one. A number not above
    /// the last one's makes a point out of turn, which takes the last one's number (see [`Timeline::add`](crate::Timeline::add)).
    /// A point of a timeline is replaced by what it waits for. Allocates.
    ///
    /// # Errors
    /// [`SyncobjError::Container`].
    pub fn submit(&self, number: u64, fence: &Fence) -> Result<(), SyncobjError> {
        let fence = &self.inner.flat(fence).map_err(SyncobjError::Container)?;
        if number == 0 {
            return self.replace(fence).map_err(SyncobjError::Container);
        }
        // A payload with a timeline keeps it, unless somebody replaces it at this moment.
        let mut first = !self.inner.has_timeline();
        loop {
            match self.inner.add(PointRoom::new(&self.inner.info.timeline, first)?, number, fence) {
                Ok(()) => return Ok(()),
                Err(_) => first = true,
            }
        }
    }

    /// Memory for a point, to be submitted where nothing may fail or allocate. Allocates.
    ///
    /// # Errors
    /// [`AllocError`].
    pub fn reserve_point(&self) -> Result<PointReservation, AllocError> {
        Ok(PointReservation { room: PointRoom::new(&self.inner.info.timeline, true)?, object: self.clone() })
    }

    /// Signals point `number` from the host, stamped now: it signals once every earlier point has; 0 replaces the payload by a
    /// signaled fence. Allocates.
    ///
    /// # Errors
    /// [`AllocError`].
    pub fn signal(&self, number: u64) -> Result<(), AllocError> {
        Signal::prepare(self, number)?.carry_out();
        Ok(())
    }

    /// As [`Syncobj::signal`], for all of `points` or none. Allocates.
    ///
    /// # Errors
    /// [`SyncobjError::None`], no memory.
    pub fn signal_all(points: &[(&Self, u64)]) -> Result<(), SyncobjError> {
        some(points)?;
        let mut prepared = HeapVec::new();
        try_reserve(&mut prepared, points.len())?;
        for (object, number) in points {
            let signal = Signal::prepare(object, *number)?;
            if sabotage::is(Sabotage::SignalHalfAnArray) {
                signal.carry_out();
                continue;
            }
            try_push(&mut prepared, signal).map_err(|(error, _)| error)?;
        }
        prepared.into_iter().for_each(Signal::carry_out);
        Ok(())
    }

    /// The fence of point `number`, or of the next one there is, if that was left out; 0 means the binary payload, or the newest
    /// point. `None`: it has signaled and was collected. Allocates nothing; any context.
    ///
    /// # Errors
    /// [`SyncobjError::NotSubmitted`].
    pub fn find(&self, number: u64) -> Result<Option<Fence>, SyncobjError> {
        let found = self.inner.payload().find(number);
        found.map_err(|last| SyncobjError::NotSubmitted { index: 0, point: number, last })
    }

    /// Submits what `from` has at point `from_number` as point `number` of this one; see [`Syncobj::find`] and
    /// [`Syncobj::submit`]. Allocates.
    ///
    /// # Errors
    /// [`SyncobjError::NotSubmitted`], [`SyncobjError::Container`].
    pub fn transfer(&self, number: u64, from: &Self, from_number: u64) -> Result<(), SyncobjError> {
        match from.find(from_number)? {
            Some(fence) => self.submit(number, &fence),
            None => Ok(self.signal(number)?),
        }
    }

    /// How far it is. Any context; takes two plain locks, one after the other.
    #[must_use]
    pub fn query(&self) -> Progress {
        match self.inner.payload() {
            Payload::Empty | Payload::One(_) => Progress { signaled: 0, submitted: 0 },
            Payload::Points(timeline) => {
                // In this order: what has signaled is never more than what was submitted.
                let signaled =
                    if sabotage::is(Sabotage::QuerySubmitted) { timeline.submitted() } else { timeline.signaled() };
                Progress { signaled, submitted: timeline.submitted() }
            }
        }
    }

    /// Writes how far each of `objects` is to `progress`, which has as many elements or more.
    ///
    /// # Errors
    /// [`SyncobjError::None`].
    pub fn query_all(objects: &[&Self], progress: &mut [Progress]) -> Result<(), SyncobjError> {
        some(objects)?;
        for (object, progress) in objects.iter().zip(progress) {
            *progress = object.query();
        }
        Ok(())
    }
}

impl PointReservation {
    /// Submits `fence` as point `number`, above 0. Allocates nothing; any context; never blocks.
    ///
    /// # Errors
    /// The reservation comes back if `number` is 0 ([`Syncobj::replace`] needs none) or `fence` is a timeline's point itself,
    /// which would have to be taken apart first ([`Fence::merge`]).
    pub fn submit(self, number: u64, fence: &Fence) -> Result<(), Self> {
        if number == 0 || fence.sort() == Some(Sort::Point) {
            return Err(self);
        }
        let Self { room, object } = self;
        object.inner.add(room, number, fence).map_err(|room| Self { room, object: object.clone() })
    }
}

fn some<T>(given: &[T]) -> Result<(), SyncobjError> {
    if given.is_empty() && !sabotage::is(Sabotage::AcceptNone) { Err(SyncobjError::None) } else { Ok(()) }
}

/// A signal from the host with all the memory it takes.
struct Signal<'a> {
    object: &'a Syncobj,
    number: u64,
    fence: Fence,
    /// For a point.
    room: Option<PointRoom>,
}

impl<'a> Signal<'a> {
    fn prepare(object: &'a Syncobj, number: u64) -> Result<Self, AllocError> {
        let fence = object.inner.signaled(Ok(()), object.inner.hub().now())?;
        let room = if number == 0 { None } else { Some(PointRoom::new(&object.inner.info.timeline, true)?) };
        Ok(Self { object, number, fence, room })
    }

    fn carry_out(self) {
        let Self { object, number, fence, room } = self;
        let refused = match room {
            None => {
                object.inner.replace(Payload::One(fence));
                None
            }
            Some(room) => object.inner.add(room, number, &fence).err(),
        };
        debug_assert!(refused.is_none(), "the room was made for whatever the payload is");
    }
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

impl Clone for Syncobj {
    fn clone(&self) -> Self {
        // ORDERING: made from an existing handle.
        self.inner.handles.fetch_add(1, Ordering::Relaxed);
        Self { inner: self.inner.clone() }
    }
}

impl Drop for Syncobj {
    fn drop(&mut self) {
        // ORDERING: AcqRel: the last one sees what the others submitted.
        if self.inner.handles.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.inner.abandon();
        }
    }
}

impl PartialEq for Syncobj {
    fn eq(&self, other: &Self) -> bool {
        self.inner.as_ptr() == other.inner.as_ptr()
    }
}

impl Eq for Syncobj {}

impl fmt::Debug for Syncobj {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?}", *self.inner, self.query())
    }
}

impl fmt::Display for SyncobjError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSubmitted { index, point, last } => write!(
                f,
                "entry {index}: nobody submitted point {point} yet, the last one is {last}; wait for it with \
                 `Until::SubmittedAndSignaled`"
            ),
            Self::None => f.write_str("no sync objects were given; give at least one"),
            Self::Container(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for SyncobjError {}

impl From<AllocError> for SyncobjError {
    fn from(error: AllocError) -> Self {
        Self::Container(error.into())
    }
}
