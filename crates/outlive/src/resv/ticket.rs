//! A lock that is taken by tickets, many at once, without a deadlock: the kernel's `ww_mutex` with Wait-Die.
//!
//! # States
//! *Free*, or *owned* by a ticket. A lower ticket is older. Who finds it owned
//! - **waits**, if it owns nothing else, or if it is older than the owner and than all who wait;
//! - **dies** otherwise: it is told [`Outcome::Contended`], gives back all it owns, and comes again with the same ticket, here
//!   first, owning nothing. The oldest ticket never dies, and everybody becomes the oldest some day.
//!
//! Whoever owns something waits for a younger one only, so in a circle of waiters each would be older than the next: there is no
//! circle. When the lock passes on, it passes to the oldest of those who wait; younger ones who own something die then. Nobody
//! takes it past those who wait.
//!
//! # Fields
//! All of it, and what it guards, lies under one plain lock that is held for a moment. A [`Waiter`] lies on the stack of who
//! waits. It is in the list while its `phase` is [`WAITING`]; whoever changes that takes it out first, under the plain lock, and
//! does not touch it afterwards.
//!
//! # Contexts
//! Owning may last, so who waits may wait long: where blocking is legal. Nothing here allocates.
#![expect(unsafe_code, reason = "nodes on the waiter's stack; docs/unsafe.md, `resv::ticket`")]

use super::interrupt::Flag;
use crate::mem::list::{Link, List};
use crate::sync::atomic::{AtomicU32, Ordering};
use crate::sync::{self, Guard, Lock, ParkToken, class};
use crate::time::Time;
use core::mem::offset_of;
use core::ptr::NonNull;

/// Who owns a lock, or wants to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ticket {
    /// Its age: lower is older. 0 is nobody.
    pub(super) number: u64,
    /// The context that runs it.
    pub(super) context: usize,
    /// Which of its owner's locks this is; the owner's to use.
    pub(super) place: u32,
}

const NOBODY: Ticket = Ticket { number: 0, context: 0, place: 0 };

/// How somebody asks for the lock.
#[derive(Debug)]
pub(super) struct Asker<'i> {
    pub(super) ticket: Ticket,
    /// Owns other locks, so it must not wait for an older one.
    pub(super) owns: bool,
    /// Whether to wait at all.
    pub(super) waits: bool,
    /// Until when, on the clock of blocking waits.
    pub(super) until: Time,
    pub(super) interrupt: Option<&'i Flag>,
}

/// What became of it.
pub(super) enum Outcome<'l, T> {
    /// The asker owns it. The plain lock is still held, for what is to be done first.
    Owned(StateGuard<'l, T>),
    /// The asker owned it before; as which of its locks.
    Already(u32),
    /// Somebody else owns it, and waiting is not right: see the module.
    Contended,
    TimedOut,
    Interrupted,
    /// This very context owns it by another ticket.
    OwnContext,
}

pub(super) type StateGuard<'l, T> = Guard<'l, class::ReservationState, State<T>>;

pub(super) struct Ticketed<T> {
    state: Lock<class::ReservationState, State<T>>,
}

pub(super) struct State<T> {
    owner: Ticket,
    waiters: List,
    /// What the lock guards. Changed by the owner only, read by anybody: under the plain lock, both.
    pub(super) value: T,
}

/// Who waits, as others see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Waiting {
    pub(super) number: u64,
    pub(super) context: usize,
    pub(super) since: Time,
}

#[repr(C)]
struct Waiter {
    link: Link,
    ticket: Ticket,
    owns: bool,
    since: Time,
    phase: AtomicU32,
    token: ParkToken,
}

const WAITING: u32 = 0;
const GRANTED: u32 = 1;
const DIED: u32 = 2;

impl Waiter {
    /// # Safety
    /// `link` is in the list of a [`State`] whose plain lock is held for as long as `'a`.
    unsafe fn from_link<'a>(link: NonNull<Link>) -> &'a Self {
        // SAFETY: only waiters are put into such a list, by their field `link`.
        let at = unsafe { link.byte_sub(offset_of!(Self, link)) }.cast();
        // SAFETY: a waiter stays on its stack until it has been taken out under the plain lock.
        unsafe { at.as_ref() }
    }
}

impl<T> Ticketed<T> {
    pub(super) fn new(value: T) -> Self {
        Self { state: Lock::new(State { owner: NOBODY, waiters: List::new(), value }) }
    }

    /// For a look, or for what the owner has to do.
    #[inline]
    pub(super) fn state(&self) -> StateGuard<'_, T> {
        self.state.lock()
    }

    /// Asks for the lock; waits if that is right.
    #[inline]
    pub(super) fn acquire(&self, asker: &Asker<'_>) -> Outcome<'_, T> {
        let mut state = self.state.lock();
        if state.owner.number == 0 {
            state.owner = asker.ticket;
            return Outcome::Owned(state);
        }
        self.contend(state, asker)
    }

    #[cold]
    fn contend<'l>(&'l self, mut state: StateGuard<'l, T>, asker: &Asker<'_>) -> Outcome<'l, T> {
        let (own, owner) = (asker.ticket, state.owner);
        if owner.number == own.number {
            return Outcome::Already(owner.place);
        }
        if owner.context == own.context {
            return Outcome::OwnContext;
        }
        let oldest = state.waiting().map(|waiting| waiting.number).min().unwrap_or(u64::MAX);
        if !asker.waits || (asker.owns && owner.number.min(oldest) < own.number) {
            return Outcome::Contended;
        }
        let waiter = Waiter {
            link: Link::new(),
            ticket: own,
            owns: asker.owns,
            since: sync_now(),
            phase: AtomicU32::new(WAITING),
            token: sync::park_token(),
        };
        // SAFETY: in no list; it stays here until it is taken out, below or by whoever changes its phase; the lock is held.
        unsafe { state.waiters.push_back(NonNull::from(&waiter.link)) };
        drop(state);
        let ended = waiter.sleep(asker);
        if let Some(interrupt) = asker.interrupt {
            interrupt.awake();
        }
        let mut state = self.state.lock();
        // ORDERING: changed under the lock that is held.
        match waiter.phase.load(Ordering::Relaxed) {
            GRANTED => return Outcome::Owned(state),
            DIED => return Outcome::Contended,
            _ => {}
        }
        // SAFETY: its phase says that it is in the list, whose lock is held.
        unsafe { state.waiters.remove(NonNull::from(&waiter.link)) };
        ended
    }

    /// Gives the lock back; the oldest of those who wait owns it next.
    #[inline]
    pub(super) fn release(&self) {
        self.release_from(self.state.lock());
    }

    /// As [`Ticketed::release`], by an owner that has the plain lock.
    #[inline]
    pub(super) fn release_from<'l>(&'l self, mut state: StateGuard<'l, T>) {
        state.owner = NOBODY;
        if !state.waiters.is_empty() {
            self.pass_on(state);
        }
    }

    #[cold]
    fn pass_on<'l>(&'l self, mut state: StateGuard<'l, T>) {
        while let Some(token) = state.next_to_wake() {
            drop(state);
            sync::unpark(&token);
            state = self.state.lock();
        }
    }
}

impl<T> State<T> {
    /// Who owns it: ticket and context; `None` if it is free.
    pub(super) fn owner(&self) -> Option<(u64, usize)> {
        (self.owner.number != 0).then_some((self.owner.number, self.owner.context))
    }

    /// Which of its locks ticket `number` has this as; `None` if it has it not.
    pub(super) fn place_of(&self, number: u64) -> Option<u32> {
        (self.owner.number == number).then_some(self.owner.place)
    }

    /// Those who wait, in the order in which they came.
    pub(super) fn waiting(&self) -> impl Iterator<Item = Waiting> {
        self.waiters().map(|waiter| Waiting {
            number: waiter.ticket.number,
            context: waiter.ticket.context,
            since: waiter.since,
        })
    }

    fn waiters(&self) -> impl Iterator<Item = &Waiter> {
        let mut at = self.waiters.front();
        core::iter::from_fn(move || {
            let link = at?;
            // SAFETY: in the list; whoever has the state has the plain lock.
            at = unsafe { self.waiters.next(link) };
            // SAFETY: as above, for as long as the state is borrowed.
            Some(unsafe { Waiter::from_link(link) })
        })
    }

    /// Makes the oldest waiter the owner of a free lock, or lets one die who must not wait for the owner; whom to wake.
    fn next_to_wake(&mut self) -> Option<ParkToken> {
        let free = self.owner.number == 0;
        let waiter = if free {
            self.waiters().min_by_key(|waiter| waiter.ticket.number)?
        } else {
            self.waiters().find(|waiter| waiter.owns && waiter.ticket.number > self.owner.number)?
        };
        let (link, ticket, token) = (NonNull::from(&waiter.link), waiter.ticket, waiter.token.clone());
        let phase: *const AtomicU32 = &raw const waiter.phase;
        // SAFETY: in the list, and whoever has the state has the plain lock.
        unsafe { self.waiters.remove(link) };
        if free {
            self.owner = ticket;
        }
        // ORDERING: Release: who sees it sees what the last owner did. After it, the waiter may go once the plain lock is free.
        // SAFETY: the waiter needs the plain lock to go.
        unsafe { &*phase }.store(if free { GRANTED } else { DIED }, Ordering::Release);
        Some(token)
    }
}

impl Waiter {
    /// Sleeps until its phase changes, or the asker's time is over or it is interrupted; what to say in these cases.
    fn sleep<'l, T>(&self, asker: &Asker<'_>) -> Outcome<'l, T> {
        loop {
            // ORDERING: Acquire pairs with the Release of whoever passes the lock on.
            if self.phase.load(Ordering::Acquire) != WAITING {
                return Outcome::Contended;
            }
            if asker.interrupt.is_some_and(|interrupt| interrupt.sleeps(&self.token)) {
                return Outcome::Interrupted;
            }
            if asker.until == Time::NEVER {
                sync::park();
                continue;
            }
            let now = sync_now();
            if now >= asker.until {
                return Outcome::TimedOut;
            }
            sync::park_until(now, asker.until);
        }
    }
}

/// The clock of blocking waits.
pub(super) fn sync_now() -> Time {
    Time::from_ns(sync::now_ns())
}
