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
mod error;
mod handle;
mod make;
pub(super) mod wait;

pub use error::SyncobjError;
pub use handle::{SyncobjWait, Until};

use self::cell::{Inner, Payload, PointRoom};
use super::container::{ContainerError, Sort};
use super::state::Fence;
#[cfg(doc)]
use super::user::UserFence;
use crate::exec::Executor;
use crate::exec::object::Object;
use crate::mem::{AllocError, HeapVec, try_push, try_reserve};
use crate::sabotage::{self, Sabotage};
use crate::sync::atomic::Ordering;
use core::fmt;

/// A cell for a fence, or a timeline of them. Clones are handles on the same one. When the last handle goes, what waits
/// for points that were not submitted ends with [`FenceError::Canceled`](crate::FenceError::Canceled).
pub struct Syncobj {
    inner: Object<Inner>,
}

/// How far a sync object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// The number up to which all points have signaled. A binary object has none: 0.
    pub signaled: u64,
    /// The last point that was submitted.
    pub submitted: u64,
}

/// Memory for one point of one sync object, whatever becomes of it meanwhile.
#[derive(Debug)]
#[must_use = "it is memory only; submit something with it"]
pub struct PointReservation {
    room: PointRoom,
    object: Syncobj,
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
