//! Whose turn it is to change an address space: one at a time, first come, first served.
//!
//! # States
//! *free* → *taken* by whoever asks; while others wait, it passes from hand to hand and is never free in between. A waiter's
//! node lies on its stack; who passes the turn on takes the node out, marks it and wakes the thread. The reaper waits in the
//! same line, so that as many get the turn before it as came before it; but not for long.
//!
//! # Who may touch what when
//! Everything under the lock of the VM that owns the turn. A waiter leaves after it was marked, or takes its node out itself, and
//! has that lock before its node goes, so nobody touches a node that is gone.
//!
//! # Why it cannot deadlock
//! Whoever has the turn may wait for fences; nothing on a fence's way to its signal waits for the turn. The reaper leaves the
//! line after a while, with a mark for whoever has the turn. A thread that has it and asks again is refused.
#![expect(unsafe_code, reason = "nodes on the waiter's stack; docs/unsafe.md, `vm::turn`")]

use crate::mem::list::{Link, List};
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{self, Guard, Lock, LockClass, ParkToken};
use crate::time::Time;
use core::ptr::NonNull;
use core::time::Duration;

#[derive(Debug)]
pub(super) struct Turn {
    taken: bool,
    /// The context that has it; 0 while it passes from hand to hand.
    holder: usize,
    waiters: List,
}

/// A thread that waits, on its stack. The link is first, so a link's address is its waiter's.
#[repr(C)]
struct Waiter {
    link: Link,
    token: ParkToken,
    /// Has the turn.
    mine: AtomicBool,
}

/// How long the reaper stays in line. An editor that does one thing after another gives the turn on sooner; one that waits for
/// fences must not hold up what else is to be freed.
const PATIENCE: Duration = Duration::from_millis(2);

/// Takes the turn, or waits in line until the calling thread has it. None if it has it already, and would wait for itself. Blocks.
pub(super) fn take<C: LockClass, S>(lock: &Lock<C, S>, turn: fn(&mut S) -> &mut Turn) -> Option<Guard<'_, C, S>> {
    let mut state = lock.lock();
    if turn(&mut state).try_take() {
        return Some(state);
    }
    let waits = !turn(&mut state).is_mine();
    waits.then(|| wait_in_line(lock, state, turn, None).0)
}

/// The same for the reaper, which waits as long as that is no harm to others: the state, and whether it has the turn.
pub(super) fn take_patiently<C: LockClass, S>(
    lock: &Lock<C, S>,
    turn: fn(&mut S) -> &mut Turn,
) -> (Guard<'_, C, S>, bool) {
    let mut state = lock.lock();
    let mine = turn(&mut state).try_take();
    if mine || turn(&mut state).is_mine() {
        return (state, mine);
    }
    wait_in_line(lock, state, turn, Some(PATIENCE))
}

/// Waits in line, with `lock` given back meanwhile, until the calling thread has the turn, or for `patience` at most. Whether it
/// has the turn. Blocks. Under a model checker, which has no time, whoever is in line stays there.
fn wait_in_line<'a, C: LockClass, S>(
    lock: &'a Lock<C, S>,
    mut state: Guard<'a, C, S>,
    turn: fn(&mut S) -> &mut Turn,
    patience: Option<Duration>,
) -> (Guard<'a, C, S>, bool) {
    let now = || Time::from_ns(sync::now_ns());
    let patience = patience.filter(|_| cfg!(not(any(loom, shuttle))));
    let until = patience.map_or(Time::NEVER, |patience| now().after(patience));
    let waiter = Waiter { link: Link::new(), token: sync::park_token(), mine: AtomicBool::new(false) };
    // SAFETY: new, so in no list; it stays where it is until it was taken out and marked, which is waited for, and until the
    // lock of whoever did that has been taken, below; the lock is held.
    unsafe { turn(&mut state).waiters.push_back(NonNull::from(&waiter.link)) };
    drop(state);
    // ORDERING: Acquire pairs with the Release in `pass_on`; the state itself is read under the lock.
    while !waiter.mine.load(Ordering::Acquire) {
        let at = now();
        if at >= until {
            break;
        }
        sync::park_until(at, until);
    }
    let mut state = lock.lock();
    // ORDERING: under the lock, under which it is set.
    let mine = waiter.mine.load(Ordering::Relaxed);
    if mine {
        turn(&mut state).holder = sync::context_id();
    } else {
        // SAFETY: not marked, so still in the list, whose lock is held.
        unsafe { turn(&mut state).waiters.remove(NonNull::from(&waiter.link)) };
    }
    (state, mine)
}

impl Turn {
    pub(super) const fn new() -> Self {
        Self { taken: false, holder: 0, waiters: List::new() }
    }

    /// Takes it if it is free.
    pub(super) fn try_take(&mut self) -> bool {
        let free = !self.taken;
        if free {
            self.taken = true;
            self.holder = sync::context_id();
        }
        free
    }

    /// Whether the calling context has it.
    pub(super) fn is_mine(&self) -> bool {
        self.taken && self.holder == sync::context_id()
    }

    /// Whether anybody waits in line.
    #[cfg(all(test, shuttle))]
    pub(super) const fn has_line(&self) -> bool {
        !self.waiters.is_empty()
    }

    /// Gives it up: to the first in line, who is to be woken once the lock is given back, or it is free.
    pub(super) fn pass_on(&mut self) -> Option<ParkToken> {
        self.holder = 0;
        // SAFETY: the VM's lock is held.
        let Some(link) = (unsafe { self.waiters.pop_front() }) else {
            self.taken = false;
            return None;
        };
        // SAFETY: only waiters are in the list, and they stay in place until they can take the lock that is held.
        let waiter = unsafe { link.cast::<Waiter>().as_ref() };
        let token = waiter.token.clone();
        // ORDERING: Release pairs with the load in `wait_in_line`.
        waiter.mine.store(true, Ordering::Release);
        Some(token)
    }
}
