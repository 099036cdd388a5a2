//! What a sync object is inside: its payload, and who waits for one that is to come.
//!
//! # States of a place in line
//! [`Line`]: *out* (its wait alone has it) → *waiting* (nothing is submitted for it) → *found* (it has been given what was
//! submitted, and stands in the second list) → *out*, by whoever takes it from there and tells its wait. Only going away
//! takes a place out of either list otherwise.
//!
//! # Fields
//! - `held`, under its lock: the payload and both lists. A change of payload gives it to all who wait for it before the lock is
//!   let go, so no wait misses a payload that is replaced at once; they are told one by one, outside the lock.
//! - `handles` counts [`Syncobj`](super::Syncobj)s: when the last one goes, nobody can submit any more, and what waits is told.
//!
//! # Contexts
//! Changing the payload allocates nothing and runs no foreign code under the lock; any context.
#![expect(unsafe_code, reason = "places in line; docs/unsafe.md, `fence::syncobj::cell`")]

use super::wait::{Entry, Found};
use crate::check;
use crate::exec::object::{Counted, Object, ObjectHeader};
use crate::exec::{Executor, next_id};
use crate::fence::array::result_of;
use crate::fence::container::{ContainerError, Sort};
use crate::fence::context::{Names, allocate_alone, info};
use crate::fence::error::FenceError;
use crate::fence::state::{ContextInfo, Fence};
use crate::fence::timeline::{Cut, Room, Timeline};
use crate::mem::AllocError;
use crate::mem::list::List;
use crate::mem::shared::Ref;
use crate::sabotage::{self, Sabotage};
use crate::sync::atomic::AtomicUsize;
use crate::sync::{Guard, Lock, class};
use crate::time::Time;
use core::fmt;
use core::ptr::NonNull;

#[repr(C)]
pub(super) struct Inner {
    header: ObjectHeader,
    /// The names of its user fences and of what the host signals.
    pub(super) info: Ref<ContextInfo>,
    pub(super) handles: AtomicUsize,
    held: Lock<class::SyncobjState, Held>,
}

// SAFETY: `repr(C)`, the header is first.
unsafe impl Counted for Inner {}

pub(super) struct Held {
    pub(super) payload: Payload,
    /// Who waits for what nobody has submitted.
    pub(super) waiting: List,
    /// Who has been given it and is to be told.
    pub(super) found: List,
}

/// What was submitted.
#[derive(Clone)]
pub(super) enum Payload {
    Empty,
    /// A binary object's fence.
    One(Fence),
    Points(Ref<Timeline>),
}

impl Payload {
    /// What stands for point `number`; 0 is the newest. `Err`: nobody submitted it, the last that was is this.
    pub(super) fn find(&self, number: u64) -> Result<Option<Fence>, u64> {
        match self {
            Self::One(fence) if number == 0 => Ok(Some(fence.clone())),
            Self::Empty | Self::One(_) => Err(0),
            Self::Points(timeline) if number == 0 => Ok(timeline.newest()),
            Self::Points(timeline) => timeline.find(number).map_err(|_| timeline.submitted()),
        }
    }
}

/// Memory for one more point, whatever the payload is when it is used.
pub(super) struct PointRoom {
    point: Room,
    /// For an object that has no timeline yet, and a point for the fence it has instead.
    first: Option<(Ref<Timeline>, Room)>,
}

impl PointRoom {
    pub(super) fn new(name: &str, first: bool) -> Result<Self, AllocError> {
        let point = Room::new()?;
        let first = if first { Some((Ref::try_new(Timeline::new(name)?)?, Room::new()?)) } else { None };
        Ok(Self { point, first })
    }
}

impl Inner {
    pub(super) fn new(executor: &Executor, name: &str) -> Result<Object<Self>, AllocError> {
        let info = info(executor, Names { driver: "user", timeline: name }, 0, 0, 0, next_id())?;
        Object::try_new(executor.hub(), |header| {
            let held = Held { payload: Payload::Empty, waiting: List::new(), found: List::new() };
            Ok(Self { header, info, handles: AtomicUsize::new(1), held: Lock::new(held) })
        })
    }

    pub(super) fn hub(&self) -> &Ref<crate::exec::hub::Hub> {
        self.header.hub()
    }

    pub(super) fn lock(&self) -> Guard<'_, class::SyncobjState, Held> {
        self.held.lock()
    }

    pub(super) fn payload(&self) -> Payload {
        self.lock().payload.clone()
    }

    pub(super) fn has_timeline(&self) -> bool {
        matches!(self.lock().payload, Payload::Points(_))
    }

    /// A fence of this object that has signaled.
    pub(super) fn signaled(&self, result: Result<(), FenceError>, at: Time) -> Result<Fence, AllocError> {
        let fence = allocate_alone(self.info.clone(), 1)?;
        fence.signal_unseen(result, at);
        Ok(fence)
    }

    /// `fence`, or what it waits for, if it is a timeline's point.
    pub(super) fn flat(&self, fence: &Fence) -> Result<Fence, ContainerError> {
        if fence.sort() != Some(Sort::Point) {
            return Ok(fence.clone());
        }
        if !fence.is_signaled() {
            let merged = Fence::merge(core::slice::from_ref(fence))?;
            if merged.sort() != Some(Sort::Point) {
                return Ok(merged);
            }
        }
        let (result, at) = result_of(fence).unwrap_or((Ok(()), Time::ZERO));
        Ok(self.signaled(result, at)?)
    }

    /// Makes `payload` the payload, in place of whatever was there.
    pub(super) fn replace(&self, payload: Payload) {
        let _section = check::signalling();
        let old = {
            let mut held = self.lock();
            let old = core::mem::replace(&mut held.payload, payload);
            held.give();
            old
        };
        self.tell();
        drop(old);
    }

    /// Adds point `number`, after what is there. `Err`: there is no timeline yet and the room was not made for that.
    pub(super) fn add(&self, room: PointRoom, number: u64, fence: &Fence) -> Result<(), PointRoom> {
        let _section = check::signalling();
        let done = {
            let mut held = self.lock();
            let added = held.add(room, number, fence)?;
            held.give();
            added
        };
        self.tell();
        done.collect();
        Ok(())
    }

    /// Tells those who found what they waited for.
    pub(super) fn tell(&self) {
        loop {
            let found = {
                let mut held = self.lock();
                // SAFETY: the lock is held.
                let Some(link) = (unsafe { held.found.pop_front() }) else { return };
                // SAFETY: in this object's list, whose lock is held.
                unsafe { Entry::leave_line(link) }
            };
            if let Some(found) = found {
                found.tell(self.hub());
            }
        }
    }

    /// The last handle has gone: nothing will be submitted any more.
    pub(super) fn abandon(&self) {
        let _section = check::signalling();
        self.lock().give_each(|_| Some(Found::Abandoned));
        self.tell();
    }
}

/// What adding a point leaves to be given up outside the lock.
struct Added {
    timeline: Ref<Timeline>,
    cuts: [Option<Cut>; 2],
    _unused: Option<(Ref<Timeline>, Room)>,
    _before: Payload,
}

impl Added {
    fn collect(self) {
        self.cuts.into_iter().flatten().for_each(|cut| self.timeline.collect(cut));
    }
}

impl Held {
    fn add(&mut self, room: PointRoom, number: u64, fence: &Fence) -> Result<Added, PointRoom> {
        let mut cuts = [None, None];
        let PointRoom { point, mut first } = room;
        let mut before = Payload::Empty;
        let timeline = match (&self.payload, first.take()) {
            (Payload::Points(timeline), unused) => {
                first = unused;
                timeline.clone()
            }
            (_, None) => return Err(PointRoom { point, first: None }),
            (_, Some((timeline, room))) => {
                before = core::mem::replace(&mut self.payload, Payload::Points(timeline.clone()));
                if let Payload::One(fence) = &before {
                    // A binary payload comes before the first point.
                    let (_, cut) = timeline.add_in(room, 0, fence);
                    cuts[0] = Some(cut);
                }
                timeline
            }
        };
        let (_, cut) = timeline.add_in(point, number, fence);
        cuts[1] = Some(cut);
        Ok(Added { timeline, cuts, _unused: first, _before: before })
    }

    /// Gives the payload to all who wait for it.
    fn give(&mut self) {
        if sabotage::is(Sabotage::MissInstall) {
            return;
        }
        let payload = self.payload.clone();
        self.give_each(|number| payload.find(number).ok().map(Found::Submitted));
    }

    fn give_each(&mut self, find: impl Fn(u64) -> Option<Found>) {
        let mut at = self.waiting.front();
        while let Some(link) = at {
            // SAFETY: in the list, whose lock is held.
            at = unsafe { self.waiting.next(link) };
            // SAFETY: in this object's list, whose lock is held.
            let number = unsafe { Entry::number(link) };
            if let Some(found) = find(number) {
                // SAFETY: as above.
                unsafe { self.waiting.remove(link) };
                // SAFETY: as above.
                unsafe { Entry::give(link, found) };
                // SAFETY: just taken out of the other; the lock is held.
                unsafe { self.found.push_back(link) };
            }
        }
    }
}

/// Where a place in line is; see the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Line {
    Out,
    Waiting,
    Found,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Each place in line counts this object.
        debug_assert!(self.held.lock().waiting.is_empty(), "a wait was left behind");
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Syncobj({:?})", self.info.timeline)
    }
}

impl fmt::Debug for PointRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PointRoom")
    }
}

/// The link of a place in line, whose object's lock the caller holds: see [`Entry`].
pub(super) type InLine = NonNull<crate::mem::list::Link>;
