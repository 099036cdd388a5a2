//! What the two phases of a transaction can do, and the tokens by which they name what they have.
//!
//! | token | says | made by |
//! |---|---|---|
//! | [`Locked`] | this reservation is locked by this attempt | [`Attempt::lock`] |
//! | [`Slot`] | and has room for one more fence; used up by filling it | [`Attempt::slot`], [`Attempt::prepare`] |
//! | [`Slots`] | for several | [`Attempt::slots`], [`Attempt::prepare_many`] |
//!
//! All carry the attempt's brand `'a`, which fits no other attempt's, and cannot leave it.

use super::locks::{Locks, Wish};
use super::reservation::Reservation;
use super::ticket::sync_now;
use super::transaction::LockError;
use super::usage::Usage;
use crate::fence::Retired;
use crate::mem::{HeapVec, try_push, try_reserve};
use crate::time::Time;
use core::fmt;
use core::marker::PhantomData;

/// Neither grows nor shrinks.
type Brand<'a> = PhantomData<fn(&'a ()) -> &'a ()>;

/// A reservation that this attempt has locked. Two of one attempt are equal if they are the same reservation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Locked<'a> {
    place: u32,
    brand: Brand<'a>,
}

/// Room for one fence in a reservation that this attempt has locked. Dropping it gives it up.
#[must_use = "fill it in the sealed phase with `Sealed::add`"]
pub struct Slot<'a> {
    at: Locked<'a>,
}

/// Room for several; an iterator over them.
#[must_use = "fill them in the sealed phase with `Sealed::add`"]
pub struct Slots<'a> {
    at: Locked<'a>,
    left: usize,
}

impl<'a> Slot<'a> {
    /// Where.
    #[must_use]
    pub const fn locked(&self) -> Locked<'a> {
        self.at
    }
}

impl<'a> Slots<'a> {
    /// Where.
    #[must_use]
    pub const fn locked(&self) -> Locked<'a> {
        self.at
    }
}

impl<'a> Iterator for Slots<'a> {
    type Item = Slot<'a>;

    fn next(&mut self) -> Option<Slot<'a>> {
        self.left = self.left.checked_sub(1)?;
        Some(Slot { at: self.at })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Slots<'_> {}

impl fmt::Debug for Locked<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Locked({})", self.place)
    }
}

impl fmt::Debug for Slot<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slot({})", self.at.place)
    }
}

impl fmt::Debug for Slots<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slots({}, {} left)", self.at.place, self.left)
    }
}

/// The lock phase. May run again from the start; whatever it does else must stand that.
pub struct Attempt<'a> {
    locks: &'a mut Locks,
    brand: Brand<'a>,
    thread_bound: PhantomData<*const ()>,
}

/// The sealed phase: everything is locked, and nothing more can be. Runs once.
pub struct Sealed<'a> {
    locks: &'a mut Locks,
    now: Option<Time>,
    brand: Brand<'a>,
    thread_bound: PhantomData<*const ()>,
}

impl<'a> Attempt<'a> {
    pub(super) fn new(locks: &'a mut Locks) -> Self {
        Self { locks, brand: PhantomData, thread_bound: PhantomData }
    }

    pub(super) fn is_contended(&self) -> bool {
        self.locks.is_contended()
    }

    pub(super) fn seal(self) -> Sealed<'a> {
        self.locks.seal();
        Sealed { locks: self.locks, now: None, brand: PhantomData, thread_bound: PhantomData }
    }

    /// Locks `reservation`, waiting if that is right. One that is locked already is the same lock, whatever handle names it. May
    /// block; allocates.
    ///
    /// # Errors
    /// [`LockError`]; hand [`LockError::Contended`] on. After it, everything here says the same.
    pub fn lock(&mut self, reservation: &Reservation) -> Result<Locked<'a>, LockError> {
        self.wish(reservation, Wish { slots: 0, waits: true })
    }

    /// Locks `reservation` if nobody else has it. Never blocks, and never makes the attempt start again; allocates.
    ///
    /// # Errors
    /// As for [`Attempt::lock`], but that somebody else has it is `None`.
    pub fn try_lock(&mut self, reservation: &Reservation) -> Result<Option<Locked<'a>>, LockError> {
        match self.wish(reservation, Wish { slots: 0, waits: false }) {
            Err(LockError::Contended) if !self.is_contended() => Ok(None),
            locked => locked.map(Some),
        }
    }

    /// Locks `reservation` and makes room for a fence. May block; allocates.
    ///
    /// # Errors
    /// As for [`Attempt::lock`].
    pub fn prepare(&mut self, reservation: &Reservation) -> Result<Slot<'a>, LockError> {
        let at = self.wish(reservation, Wish { slots: 1, waits: true })?;
        Ok(Slot { at })
    }

    /// Locks `reservation` and makes room for `slots` fences. May block; allocates.
    ///
    /// # Errors
    /// As for [`Attempt::lock`].
    pub fn prepare_many(&mut self, reservation: &Reservation, slots: usize) -> Result<Slots<'a>, LockError> {
        let at = self.wish(reservation, Wish { slots, waits: true })?;
        Ok(Slots { at, left: slots })
    }

    /// Locks all of `reservations`, each with room for a fence, in that order; one that occurs twice gets two slots. May block;
    /// allocates.
    ///
    /// # Errors
    /// As for [`Attempt::lock`].
    pub fn prepare_all<'r>(
        &mut self,
        reservations: impl IntoIterator<Item = &'r Reservation>,
    ) -> Result<HeapVec<Slot<'a>>, LockError> {
        let reservations = reservations.into_iter();
        let mut slots = HeapVec::new();
        let count = reservations.size_hint().0;
        try_reserve(&mut slots, count)?;
        self.locks.reserve(count)?;
        for reservation in reservations {
            let slot = self.prepare(reservation)?;
            try_push(&mut slots, slot).map_err(|(error, _)| error)?;
        }
        Ok(slots)
    }

    /// Makes room for one more fence, beside what was reserved before. Allocates.
    ///
    /// # Errors
    /// [`LockError::OutOfMemory`].
    pub fn slot(&mut self, at: Locked<'a>) -> Result<Slot<'a>, LockError> {
        self.locks.promise(at.place as usize, 1)?;
        Ok(Slot { at })
    }

    /// Makes room for `slots` more fences, beside what was reserved before. Allocates.
    ///
    /// # Errors
    /// [`LockError::OutOfMemory`].
    pub fn slots(&mut self, at: Locked<'a>, slots: usize) -> Result<Slots<'a>, LockError> {
        self.locks.promise(at.place as usize, slots)?;
        Ok(Slots { at, left: slots })
    }

    /// Whether this attempt has `reservation` locked.
    #[must_use]
    pub fn locked(&self, reservation: &Reservation) -> Option<Locked<'a>> {
        self.locks.place(reservation).map(Locked::at)
    }

    /// What hangs on `at` that `usage` asks for, also what has signaled. Nobody else changes it.
    pub fn fences(&self, at: Locked<'a>, usage: Usage) -> impl Iterator<Item = (Usage, Retired)> {
        fences(self.locks, at, usage)
    }

    /// The transaction's age: lower is older. The same in all its attempts.
    #[must_use]
    pub fn ticket(&self) -> u64 {
        self.locks.number()
    }

    /// How many attempts died before this one.
    #[must_use]
    pub fn retries(&self) -> u32 {
        self.locks.retries()
    }

    fn wish(&mut self, reservation: &Reservation, wish: Wish) -> Result<Locked<'a>, LockError> {
        self.locks.lock(reservation, wish).map(Locked::at)
    }
}

impl<'a> Sealed<'a> {
    /// Hangs `fence` on the reservation of `slot`, as `usage`. It takes the place of an earlier fence of its context, or of one
    /// that has signaled. Cannot fail; any context; neither blocks nor allocates.
    pub fn add(&mut self, slot: Slot<'a>, usage: Usage, fence: &Retired) {
        let now = self.now();
        self.locks.add(slot.at.place, fence, usage, now);
    }

    /// Puts `fence` in the place of all fences of `context` on `at`, as `usage`, and says how many there were
    /// (`dma_resv_replace_fences`). Right only if what the old ones stand for cannot touch the memory any more once the new one
    /// has signaled: a preempt fence, whose work now ends with an update of page tables. Needs no slot. As
    /// [`Sealed::add`].
    pub fn replace(&mut self, at: Locked<'a>, context: u64, usage: Usage, fence: &Retired) -> usize {
        let now = self.now();
        self.locks.replace(at.place, context, fence, usage, now)
    }

    /// As [`Attempt::fences`].
    pub fn fences(&self, at: Locked<'a>, usage: Usage) -> impl Iterator<Item = (Usage, Retired)> {
        fences(self.locks, at, usage)
    }

    /// Which reservation `at` is.
    #[must_use]
    pub fn reservation(&self, at: Locked<'a>) -> &Reservation {
        self.locks.reservation(at.place)
    }

    /// As [`Attempt::ticket`].
    #[must_use]
    pub fn ticket(&self) -> u64 {
        self.locks.number()
    }

    /// How many attempts died before the one that was sealed.
    #[must_use]
    pub fn retries(&self) -> u32 {
        self.locks.retries()
    }

    /// One look at the clock for all that is added.
    fn now(&mut self) -> Time {
        *self.now.get_or_insert_with(sync_now)
    }
}

impl Locked<'_> {
    const fn at(place: u32) -> Self {
        Self { place, brand: PhantomData }
    }
}

fn fences(locks: &Locks, at: Locked<'_>, usage: Usage) -> impl Iterator<Item = (Usage, Retired)> {
    let place = at.place;
    let all = (0..).map_while(move |index| locks.fence(place, index));
    all.filter(move |(fence, _)| usage.includes(*fence))
}

impl fmt::Debug for Attempt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Attempt(ticket {})", self.ticket())
    }
}

impl fmt::Debug for Sealed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealed(ticket {})", self.ticket())
    }
}
