//! The timers of an executor: an ordered tree of deadlines, with room reserved when a timer is made, so that arming one
//! never allocates.
//!
//! # States
//! A [`Timer`] belongs to an object and is unarmed or armed for one point in time. Firing takes a count on the object if
//! it is still alive and queues the object's work; an object takes its timer out before its memory goes, under the lock
//! that firing holds, so the two cannot cross.
#![expect(unsafe_code, reason = "back pointers; docs/unsafe.md, `exec::timer`")]

use super::object::ObjectHeader;
use crate::mem::AllocError;
use crate::mem::tree::Tree;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Lock, class};
use crate::time::Time;
use core::ptr::NonNull;

#[derive(Debug)]
pub(crate) struct Timers {
    state: Lock<class::TimerTree, TimerState>,
    /// When the first of the tree is due, in ns, to be looked at without the lock. Written under it. Who reads it before a
    /// timer was armed is told: the one that arms wakes the lane.
    earliest: AtomicU64,
}

struct TimerState {
    tree: Tree<(Time, u64), Entry>,
    registered: usize,
    next_id: u64,
}

#[derive(Clone, Copy)]
struct Entry {
    owner: NonNull<ObjectHeader>,
    fire: unsafe fn(NonNull<ObjectHeader>),
}

// SAFETY: the pointer is only followed under the timers' lock, while the owner has not taken its timer out.
unsafe impl Send for Entry {}

/// An object's timer: its number and when it is due. The due time is the owner's to keep (under the owner's lock).
#[derive(Debug)]
pub(crate) struct Timer {
    id: u64,
    due: Time,
}

impl Timers {
    pub(crate) fn new() -> Self {
        let state = TimerState { tree: Tree::new(), registered: 0, next_id: 1 };
        Self { state: Lock::new(state), earliest: AtomicU64::new(Time::NEVER.as_ns()) }
    }

    /// A timer, with room for it in the tree. Allocates, outside the lock: the tree that is too small is exchanged.
    pub(crate) fn register(&self) -> Result<Timer, AllocError> {
        loop {
            let wanted = {
                let mut state = self.state.lock();
                if state.registered < state.tree.capacity() {
                    state.registered += 1;
                    state.next_id += 1;
                    return Ok(Timer { id: state.next_id, due: Time::NEVER });
                }
                (state.registered + 1).saturating_mul(2).max(16)
            };
            let mut larger = Tree::new();
            larger.try_reserve(wanted)?;
            let mut state = self.state.lock();
            if larger.capacity() <= state.tree.capacity() {
                continue;
            }
            while let Some((key, entry)) = state.tree.pop_first() {
                let _ = larger.insert(key, entry);
            }
            core::mem::swap(&mut state.tree, &mut larger);
            // The smaller one is freed after the lock: locals go in reverse order, the guard first.
        }
    }

    /// Takes `timer` out for good.
    pub(crate) fn unregister(&self, timer: &mut Timer) {
        let mut state = self.state.lock();
        state.tree.remove(&(timer.due, timer.id));
        self.note_earliest(&state);
        timer.due = Time::NEVER;
        state.registered -= 1;
    }

    /// Makes `timer` fire at `at` unless it fires earlier. True when it is now the earliest of all, so that the signalling
    /// lane must look again.
    pub(crate) fn arm(
        &self,
        timer: &mut Timer,
        at: Time,
        owner: NonNull<ObjectHeader>,
        fire: unsafe fn(NonNull<ObjectHeader>),
    ) -> bool {
        if at >= timer.due {
            return false;
        }
        let mut state = self.state.lock();
        state.tree.remove(&(timer.due, timer.id));
        timer.due = at;
        // There is room: it was reserved when the timer was made.
        let _ = state.tree.insert((at, timer.id), Entry { owner, fire });
        self.note_earliest(&state);
        state.tree.first().is_some_and(|(key, _)| *key == (at, timer.id))
    }

    fn note_earliest(&self, state: &TimerState) {
        let at = state.tree.first().map_or(Time::NEVER, |((at, _), _)| *at);
        // ORDERING: Release pairs with the Acquire of `next`; what is due is found under the lock.
        self.earliest.store(at.as_ns(), Ordering::Release);
    }

    /// The owner of `timer` looks: one that is due counts as fired. It is taken out even if it has not fired yet, because
    /// the owner's clock is ahead of whoever fires: nothing of it may stay behind that `unregister` would not find.
    pub(crate) fn fired(&self, timer: &mut Timer, now: Time) {
        if timer.due <= now {
            let mut state = self.state.lock();
            state.tree.remove(&(timer.due, timer.id));
            self.note_earliest(&state);
            timer.due = Time::NEVER;
        }
    }

    /// When the next timer is due.
    pub(crate) fn next(&self) -> Time {
        Time::from_ns(self.earliest.load(Ordering::Acquire))
    }

    /// Fires what is due at `now`; whether anything was.
    pub(crate) fn fire_due(&self, now: Time) -> bool {
        let mut any = false;
        while self.next() <= now {
            let mut state = self.state.lock();
            if state.tree.first().is_none_or(|((at, _), _)| *at > now) {
                return any;
            }
            if let Some((_, entry)) = state.tree.pop_first() {
                self.note_earliest(&state);
                // SAFETY: the owner has not taken its timer out, and cannot while this lock is held, so it is alive.
                unsafe { (entry.fire)(entry.owner) };
                any = true;
            }
        }
        any
    }
}

impl core::fmt::Debug for TimerState {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "TimerState({} armed)", self.tree.len())
    }
}

#[cfg(all(test, not(loom), not(shuttle)))]
mod tests {
    use super::{Timer, Timers};
    use crate::exec::object::ObjectHeader;
    use crate::time::Time;
    use core::cell::Cell;
    use core::ptr::NonNull;

    std::thread_local! {
        static FIRED: Cell<u32> = const { Cell::new(0) };
    }

    /// Touches no owner, so none need be there.
    unsafe fn fire(_owner: NonNull<ObjectHeader>) {
        FIRED.set(FIRED.get() + 1);
    }

    fn at(ns: u64) -> Time {
        Time::from_ns(ns)
    }

    fn arm(timers: &Timers, timer: &mut Timer, due: u64) -> bool {
        timers.arm(timer, at(due), NonNull::dangling(), fire)
    }

    #[test]
    fn a_timer_fires_once_at_the_earliest_time_it_was_armed_for() {
        let timers = Timers::new();
        let (mut early, mut late) = (timers.register().unwrap(), timers.register().unwrap());
        assert!(arm(&timers, &mut late, 9) && arm(&timers, &mut early, 5), "each the earliest when it was armed");
        assert!(!arm(&timers, &mut late, 10) && !arm(&timers, &mut late, 7), "later than it was; not the earliest");
        assert!(!timers.fire_due(at(4)));
        assert!(timers.fire_due(at(6)) && FIRED.get() == 1 && timers.next() == at(7));
        assert!(timers.fire_due(at(7)) && !timers.fire_due(at(99)));
        assert_eq!((FIRED.get(), timers.next()), (2, Time::NEVER));
        timers.unregister(&mut early);
        timers.unregister(&mut late);
    }

    #[test]
    fn one_whose_owner_looked_first_leaves_nothing_behind_when_the_owner_goes() {
        let timers = Timers::new();
        let mut timer = timers.register().unwrap();
        arm(&timers, &mut timer, 5);
        timers.fired(&mut timer, at(4));
        assert_eq!(timers.next(), at(5), "not due yet");
        // Due by the owner's clock, and nobody has fired it.
        timers.fired(&mut timer, at(5));
        timers.unregister(&mut timer);
        assert_eq!(timers.next(), Time::NEVER);
        assert!(!timers.fire_due(at(99)) && FIRED.get() == 0, "its owner would be gone by now");
    }

    #[test]
    fn arming_finds_room_however_often_owners_look_first() {
        let timers = Timers::new();
        let mut all: [Timer; 16] = core::array::from_fn(|_| timers.register().unwrap());
        for round in 1..10 {
            for (timer, index) in all.iter_mut().zip(0..) {
                arm(&timers, timer, round * 100 + index);
                timers.fired(timer, at(round * 100 + 99));
            }
        }
        for (timer, index) in all.iter_mut().zip(0..) {
            arm(&timers, timer, 2_000 + index);
        }
        assert_eq!(timers.next(), at(2_000));
        assert!(timers.fire_due(at(3_000)) && FIRED.get() == 16);
    }
}
