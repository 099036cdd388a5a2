//! `Hub`: what an executor is inside. Three lanes of work, the timers, the clock.
//!
//! # Types
//! [`Executor`](super::Executor) handles and every object (queue, device, fence context) hold a counted reference. The hub
//! refers to objects only while their work is queued, by a count on the object.
//!
//! # Progress
//! A lane's lock is held for a few instructions, never while work runs. Work on the signalling lane is sliced: it runs
//! at most about 100 µs and queues itself again, so a closing queue with 100,000 jobs does not hold others up. No lane
//! waits for another; `push` on a lane from any context costs its lock and at most one wake-up.
#![expect(unsafe_code, reason = "intrusive lists; docs/unsafe.md, `exec::hub`")]

use super::clock::Clock;
use super::node::{LaneNode, Node, Place, Task};
use super::timer::Timers;
use crate::check;
use crate::exec::Lane;
use crate::mem::list::{Link, List};
use crate::mem::shared::Ref;
use crate::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use crate::sync::{self, Lock, ParkToken, class};
use crate::time::Time;
use crate::trace::Recorder;
use core::ptr::NonNull;

/// What every fence may know of its executor without keeping it: who drives it.
#[derive(Debug)]
pub(crate) struct Ident {
    pub(crate) id: u64,
    /// The context that last drove a manual executor; 0 where threads do.
    pub(crate) driver: AtomicUsize,
}

/// How urgently pushed work wants to be run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Urgency {
    /// Wake the lane.
    Now,
    /// Leave it to the lane's next look, which comes within milliseconds; wake it only if it is not going to look.
    Lazy,
}

#[derive(Debug)]
#[cfg_attr(not(any(feature = "std", shuttle)), expect(dead_code, reason = "only threads sleep on a lane"))]
enum Sleeper {
    Awake,
    /// Asleep until woken or a timer.
    Deep(ParkToken),
    /// Was just busy and looks again in a moment by itself.
    Linger(ParkToken),
}

#[derive(Debug)]
struct LaneState {
    list: List,
    sleeper: Sleeper,
    /// A wake-up that found nobody asleep.
    kicked: bool,
    /// Somebody runs this lane.
    running: bool,
}

/// Items of work between two looks at the timers: about as many microseconds.
const TIMER_TURNS: u64 = 16;

#[derive(Debug)]
pub(crate) struct Hub {
    pub(crate) ident: Ref<Ident>,
    pub(crate) clock: Clock,
    pub(crate) timers: Timers,
    pub(crate) recorder: Option<Recorder>,
    /// Tells an embedder's workers.
    on_work: Option<fn(Lane)>,
    lanes: [Lock<class::LaneQueue, LaneState>; 3],
    /// Whether each lane's list has anything in it, to be looked at without the lock. Written under it.
    busy: [AtomicBool; 3],
    /// Executor handles.
    pub(crate) handles: AtomicUsize,
    /// Live objects. Threads end when there is neither a handle nor an object.
    pub(crate) objects: AtomicUsize,
    /// Wake-ups of sleeping lanes so far, to be counted by tests and benchmarks.
    pub(crate) wakes: AtomicU64,
    pub(crate) orphan: Link,
}

impl Hub {
    pub(crate) fn new(ident: Ref<Ident>, clock: Clock, recorder: Option<Recorder>, on_work: Option<fn(Lane)>) -> Self {
        let lane =
            || Lock::new(LaneState { list: List::new(), sleeper: Sleeper::Awake, kicked: false, running: false });
        Self {
            ident,
            clock,
            timers: Timers::new(),
            recorder,
            on_work,
            lanes: [lane(), lane(), lane()],
            busy: core::array::from_fn(|_| AtomicBool::new(false)),
            handles: AtomicUsize::new(1),
            objects: AtomicUsize::new(0),
            wakes: AtomicU64::new(0),
            orphan: Link::new(),
        }
    }

    #[inline]
    pub(crate) fn now(&self) -> Time {
        self.clock.now()
    }

    fn lane(&self, lane: Lane) -> &Lock<class::LaneQueue, LaneState> {
        &self.lanes[lane as usize]
    }

    fn is_due(&self, lane: Lane) -> bool {
        lane == Lane::Signalling && self.timers.next() <= self.now()
    }

    /// Whether [`Hub::run_lane`] would find anything, without a lock.
    #[inline]
    pub(crate) fn has_work(&self, lane: Lane) -> bool {
        // ORDERING: Acquire pairs with `changed`.
        self.busy[lane as usize].load(Ordering::Acquire) || self.is_due(lane)
    }

    /// Something was put into the list of `lane`, or taken out. Under its lock.
    fn changed(&self, lane: Lane, state: &LaneState) {
        // ORDERING: Release pairs with `has_work`: who knows of the work by other means sees that it is there.
        self.busy[lane as usize].store(!state.list.is_empty(), Ordering::Release);
    }

    /// Queues `item` unless it is queued. `claim` runs under the lane's lock when it is newly queued (to count the owner).
    ///
    /// # Safety
    /// `item` stays alive and in place until the lane ran it or it was taken out again.
    pub(crate) unsafe fn schedule(&self, lane: Lane, item: NonNull<LaneNode>, urgency: Urgency, claim: impl FnOnce()) {
        let mut state = self.lane(lane).lock();
        // SAFETY: alive, the caller's promise.
        let node = unsafe { &item.as_ref().node };
        if node.place() == Place::Lane {
            return;
        }
        claim();
        node.set_place(Place::Lane);
        // SAFETY: idle, so in no list; this lane's lock is held.
        unsafe { state.list.push_back(NonNull::from(&node.link)) };
        self.changed(lane, &state);
        self.wake_locked(lane, state, urgency);
    }

    /// Moves a node from a fence's list, already out of it, to the notify lane. Wakes the lane.
    ///
    /// # Safety
    /// `item` was taken out of its fence's list, whose lock is still held, and outlives its stay by the removal protocol.
    pub(crate) unsafe fn hand_over(this: &Ref<Self>, item: NonNull<LaneNode>) {
        let mut state = this.lane(Lane::Notify).lock();
        // SAFETY: alive while the fence's lock is held: a remover needs it.
        let lane_node = unsafe { item.as_ref() };
        // SAFETY: under the fence's lock.
        unsafe { lane_node.set_hub(this.clone()) };
        lane_node.node.set_place(Place::Lane);
        // SAFETY: out of the fence's list, and this lane's lock is held.
        unsafe { state.list.push_back(NonNull::from(&lane_node.node.link)) };
        this.changed(Lane::Notify, &state);
        this.wake_locked(Lane::Notify, state, Urgency::Now);
    }

    /// Takes `item` out of `lane` if it is still there.
    pub(crate) fn cancel(&self, lane: Lane, item: &LaneNode) -> bool {
        let mut state = self.lane(lane).lock();
        if item.node.place() != Place::Lane {
            return false;
        }
        // SAFETY: its place says it is in this list, and its lock is held.
        unsafe { state.list.remove(NonNull::from(&item.node.link)) };
        self.changed(lane, &state);
        item.node.set_place(Place::Idle);
        true
    }

    /// Makes `lane` look at its list and timers again.
    pub(crate) fn kick(&self, lane: Lane) {
        let state = self.lane(lane).lock();
        self.wake_locked(lane, state, Urgency::Now);
    }

    fn wake_locked(&self, lane: Lane, mut state: sync::Guard<'_, class::LaneQueue, LaneState>, urgency: Urgency) {
        if let Some(on_work) = self.on_work {
            on_work(lane);
            return;
        }
        if matches!((urgency, &state.sleeper), (Urgency::Lazy, Sleeper::Linger(_) | Sleeper::Awake)) {
            return;
        }
        match core::mem::replace(&mut state.sleeper, Sleeper::Awake) {
            Sleeper::Awake => state.kicked = true,
            Sleeper::Deep(token) | Sleeper::Linger(token) => {
                drop(state);
                self.wakes.fetch_add(1, Ordering::Relaxed);
                sync::unpark(&token);
            }
        }
    }

    /// Runs the oldest work of `lane`; false if there is none. Called by whoever drives the lane, in its context.
    pub(crate) fn run_one(&self, lane: Lane) -> bool {
        let mut state = self.lane(lane).lock();
        // SAFETY: the lane's lock is held.
        let Some(link) = (unsafe { state.list.pop_front() }) else { return false };
        self.changed(lane, &state);
        let item = Node::from_link(link).cast::<LaneNode>();
        // SAFETY: nodes in a lane are alive, and this lock keeps a remover out.
        let task = match unsafe { LaneNode::task(item) } {
            Task::Run(run) => Ok(*run),
            Task::Wake(waker) => Err(waker.take()),
        };
        // SAFETY: as above. After this store and the unlock a waker's node may be gone; it is not touched again.
        unsafe { item.as_ref() }.node.set_place(Place::Idle);
        drop(state);
        match task {
            // SAFETY: queued work holds what keeps its owner alive and passes that on to the function.
            Ok(run) => unsafe { run(item) },
            Err(Some(waker)) => waker.wake(),
            Err(None) => {}
        }
        true
    }

    /// Fires due timers, runs all work of `lane`, and says whether there was any. One at a time: while somebody runs it,
    /// also further up the same stack, others find nothing to do. So a lane never recurses, and what one of its items
    /// announces (that a module may be unloaded, say) is not overtaken by another still running beside it.
    pub(crate) fn run_lane(&self, lane: Lane) -> bool {
        {
            let mut state = self.lane(lane).lock();
            if state.running || (state.list.is_empty() && !self.is_due(lane)) {
                return false;
            }
            state.running = true;
        }
        let running = Running { hub: self, lane };
        let _context = check::enter_lane(lane);
        let mut any = false;
        for turn in 0_u64.. {
            // Timers are looked at before anything else, when all is done, and now and then.
            if lane == Lane::Signalling && turn % TIMER_TURNS == 0 {
                any |= self.timers.fire_due(self.now());
            }
            if self.run_one(lane) {
                any = true;
                continue;
            }
            if lane == Lane::Signalling && turn % TIMER_TURNS != 0 && self.timers.fire_due(self.now()) {
                any = true;
                continue;
            }
            // What was pushed since by somebody who saw that the lane is being run is this one's to do.
            let mut state = self.lane(lane).lock();
            if state.list.is_empty() {
                state.running = false;
                break;
            }
        }
        core::mem::forget(running);
        any
    }

    pub(crate) fn is_idle(&self, lane: Lane) -> bool {
        self.lane(lane).lock().list.is_empty()
    }

    #[cfg(any(all(feature = "std", not(loom)), shuttle))]
    /// Puts the calling thread to sleep until `lane` has work, a timer is due, or `until`. `linger`: it looks again at
    /// `until` anyway, so lazy work need not wake it.
    pub(crate) fn sleep(&self, lane: Lane, until: Time, linger: bool) {
        let token = sync::park_token();
        {
            let mut state = self.lane(lane).lock();
            if !state.list.is_empty() || core::mem::take(&mut state.kicked) {
                return;
            }
            state.sleeper = if linger { Sleeper::Linger(token) } else { Sleeper::Deep(token) };
        }
        if until == Time::NEVER {
            sync::park();
        } else {
            sync::park_until(self.now(), until);
        }
        self.lane(lane).lock().sleeper = Sleeper::Awake;
    }

    /// Whether nothing is left to do, ever.
    pub(crate) fn is_finished(&self) -> bool {
        // ORDERING: Acquire pairs with the Release of the last object's end and the last handle's drop.
        self.handles.load(Ordering::Acquire) == 0
            && self.objects.load(Ordering::Acquire) == 0
            && [Lane::Signalling, Lane::Notify, Lane::Reaper].into_iter().all(|lane| self.is_idle(lane))
    }
}

/// Lets others run the lane after a panic.
struct Running<'a> {
    hub: &'a Hub,
    lane: Lane,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.hub.lane(self.lane).lock().running = false;
    }
}
