//! Whose turn it is to change an address space: one at a time, first come, first served.
//!
//! # States
//! *free* → *taken* by whoever asks; while others wait, it passes from hand to hand and is never free in between. A waiter's
//! node lies on its stack; who passes the turn on takes the node out, marks it and wakes the thread.
//!
//! # Who may touch what when
//! Everything under the lock of the VM that owns the turn. A waiter leaves only after it was marked, and then takes that lock
//! before its node goes, so nobody touches a node that is gone.
//!
//! # Why it cannot deadlock
//! Whoever has the turn may wait for fences; nothing on a fence's way to its signal waits for the turn: the reaper only tries,
//! and leaves a mark. A thread that has it and asks again is refused.
#![expect(unsafe_code, reason = "nodes on the waiter's stack; docs/unsafe.md, `vm::turn`")]

use crate::mem::list::{Link, List};
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{self, Guard, Lock, LockClass, ParkToken};
use core::ptr::NonNull;

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

/// Waits in line, with `lock` given back meanwhile, until the calling thread has the turn. Blocks.
pub(super) fn wait_in_line<'a, C: LockClass, S>(
    lock: &'a Lock<C, S>,
    mut state: Guard<'a, C, S>,
    turn: fn(&mut S) -> &mut Turn,
) -> Guard<'a, C, S> {
    let waiter = Waiter { link: Link::new(), token: sync::park_token(), mine: AtomicBool::new(false) };
    // SAFETY: new, so in no list; it stays where it is until it was taken out and marked, which is waited for, and until the
    // lock of whoever did that has been taken, below; the lock is held.
    unsafe { turn(&mut state).waiters.push_back(NonNull::from(&waiter.link)) };
    drop(state);
    // ORDERING: Acquire pairs with the Release in `pass_on`; the state itself is read under the lock.
    while !waiter.mine.load(Ordering::Acquire) {
        sync::park();
    }
    let mut state = lock.lock();
    turn(&mut state).holder = sync::context_id();
    state
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
