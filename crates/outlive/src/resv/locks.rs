//! What a transaction has, whatever the phase: its ticket, and the reservations it has locked, in order.

use super::fences::{Entry, Fences};
use super::inject::Injection;
use super::interrupt::Flag;
use super::reservation::Reservation;
use super::ticket::{Asker, Outcome, StateGuard, Ticket};
use super::transaction::LockError;
use super::usage::Usage;
use crate::fence::Retired;
use crate::mem::shared::Ref;
use crate::mem::{AllocError, HeapVec, try_push, try_reserve};
use crate::sabotage::{self, Sabotage};
use crate::sync;
use crate::time::Time;

/// A reservation that is locked.
#[derive(Debug)]
struct Held {
    reservation: Reservation,
    /// Slots that were promised and not filled.
    promised: usize,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Locked because the last attempt died for it; this attempt has not asked for it.
    Ahead,
    Locked,
    /// Was locked ahead and nobody asked.
    GivenBack,
}

/// How to ask for a reservation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wish {
    /// Slots, too.
    pub(super) slots: usize,
    /// Whether to wait.
    pub(super) waits: bool,
}

#[derive(Debug)]
pub(super) struct Locks {
    number: u64,
    context: usize,
    held: HeapVec<Held>,
    /// What this attempt died for.
    contended: Option<Reservation>,
    retries: u32,
    until: Time,
    interrupt: Option<Ref<Flag>>,
    injection: Option<Injection>,
    refuses_duplicates: bool,
}

/// A ticket, never given twice: the lower the older.
fn next_number() -> u64 {
    // Not the door's atomics: a model checker's would have to be made anew for each execution.
    static NEXT: core::sync::atomic::AtomicU64 = core::sync::atomic::AtomicU64::new(1);
    NEXT.fetch_add(1, core::sync::atomic::Ordering::Relaxed)
}

fn no_memory() -> LockError {
    LockError::OutOfMemory(AllocError { bytes: size_of::<Entry>() })
}

impl Locks {
    pub(super) fn new(
        until: Time,
        interrupt: Option<Ref<Flag>>,
        injection: Option<Injection>,
        refuses_duplicates: bool,
    ) -> Self {
        Self {
            number: next_number(),
            context: sync::context_id(),
            held: HeapVec::new(),
            contended: None,
            retries: 0,
            until,
            interrupt,
            injection,
            refuses_duplicates,
        }
    }

    pub(super) const fn number(&self) -> u64 {
        self.number
    }

    pub(super) const fn retries(&self) -> u32 {
        self.retries
    }

    pub(super) const fn is_contended(&self) -> bool {
        self.contended.is_some()
    }

    /// Begins an attempt: what the last one died for comes first, while nothing else is owned.
    pub(super) fn begin(&mut self) -> Result<(), LockError> {
        let Some(reservation) = self.contended.take() else { return Ok(()) };
        match self.lock_new(&reservation, Wish { slots: 0, waits: true }, Stage::Ahead) {
            // Left to the lock phase, should it ask again.
            Ok(_) | Err(LockError::Poisoned { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Asks for the memory that records of `more` locks need.
    pub(super) fn reserve(&mut self, more: usize) -> Result<(), LockError> {
        Ok(try_reserve(&mut self.held, more)?)
    }

    /// Ends an attempt that died.
    pub(super) fn back_off(&mut self) {
        self.release_all();
        self.retries = self.retries.saturating_add(1);
    }

    /// Ends the lock phase: nobody has asked for what was locked ahead.
    pub(super) fn seal(&mut self) {
        if let Some(first) = self.held.first_mut().filter(|first| first.stage == Stage::Ahead) {
            first.stage = Stage::GivenBack;
            first.reservation.inner.lock.release();
        }
    }

    /// Locks `reservation`, if it is not locked already, and promises slots in it; which of the locks it is.
    pub(super) fn lock(&mut self, reservation: &Reservation, wish: Wish) -> Result<u32, LockError> {
        if self.is_contended() {
            return Err(LockError::Contended);
        }
        let owns = !self.held.is_empty();
        if owns && self.injection.as_mut().is_some_and(Injection::contends) && self.place(reservation).is_none() {
            return self.die(reservation);
        }
        self.lock_new(reservation, wish, Stage::Locked)
    }

    fn lock_new(&mut self, reservation: &Reservation, wish: Wish, stage: Stage) -> Result<u32, LockError> {
        // Room for the record first, so that nothing can fail once it is owned.
        let place = u32::try_from(self.held.len()).map_err(|_| no_memory())?;
        let record = Held { reservation: reservation.clone(), promised: 0, stage };
        try_push(&mut self.held, record).map_err(|(error, _)| error)?;
        let asker = Asker {
            ticket: Ticket { number: self.number, context: self.context, place },
            owns: place > 0,
            waits: wish.waits,
            until: self.until,
            interrupt: self.interrupt.as_deref(),
        };
        let outcome = reservation.inner.lock.acquire(&asker);
        if let Outcome::Owned(state) = outcome {
            return self.owned(state, reservation, wish.slots);
        }
        self.held.pop();
        match outcome {
            Outcome::Already(place) => self.again(place, wish.slots),
            Outcome::Contended if wish.waits => self.die(reservation),
            Outcome::Owned(_) | Outcome::Contended => Err(LockError::Contended),
            Outcome::TimedOut => Err(LockError::TimedOut),
            Outcome::Interrupted => Err(LockError::Interrupted),
            Outcome::OwnContext => Err(LockError::WouldDeadlock),
        }
    }

    /// Newly owned: looks at its fences, and promises slots, all under one plain lock if there is room.
    fn owned(
        &mut self,
        mut state: StateGuard<'_, Fences>,
        reservation: &Reservation,
        slots: usize,
    ) -> Result<u32, LockError> {
        if let Err(error) = state.value.check() {
            reservation.inner.lock.release_from(state);
            self.held.pop();
            return Err(LockError::Poisoned { reservation: reservation.id(), error });
        }
        let place = self.held.len() - 1;
        if self.injection.is_none() && state.value.has_room(slots) {
            self.held[place].promised = slots;
        } else {
            drop(state);
            self.promise(place, slots)?;
        }
        // It fitted before it was taken.
        Ok(u32::try_from(place).unwrap_or(u32::MAX))
    }

    /// Asked for once more, or for the first time after it was locked ahead.
    fn again(&mut self, place: u32, slots: usize) -> Result<u32, LockError> {
        let held = &mut self.held[place as usize];
        if held.stage == Stage::Locked && self.refuses_duplicates {
            return Err(LockError::AlreadyLocked { reservation: held.reservation.id() });
        }
        held.stage = Stage::Locked;
        self.promise(place as usize, slots)?;
        Ok(place)
    }

    fn die(&mut self, reservation: &Reservation) -> Result<u32, LockError> {
        self.contended = Some(reservation.clone());
        Err(LockError::Contended)
    }

    /// Which of the locks `reservation` is; `None` if it is none.
    pub(super) fn place(&self, reservation: &Reservation) -> Option<u32> {
        let place = reservation.inner.lock.state().place_of(self.number)?;
        (self.held[place as usize].stage == Stage::Locked).then_some(place)
    }

    /// Promises `slots` more slots in one that is locked. The only step that needs memory.
    pub(super) fn promise(&mut self, place: usize, slots: usize) -> Result<(), LockError> {
        if slots == 0 {
            return Ok(());
        }
        if self.injection.as_mut().is_some_and(Injection::refuses_memory) {
            return Err(no_memory());
        }
        let held = &mut self.held[place];
        let counted = if sabotage::is(Sabotage::SlotNotCounted) { 0 } else { held.promised };
        let wanted = counted.saturating_add(slots);
        let lock = &held.reservation.inner.lock;
        let room = {
            let fences = &mut lock.state().value;
            if !fences.has_room(wanted) {
                // What has signaled makes room. An error is found by the next who locks it; nobody has lost anything yet.
                let _ = fences.tidy();
            }
            if fences.has_room(wanted) { None } else { Some(fences.room_for(wanted)) }
        };
        if let Some(room) = room {
            // Only the owner adds, so it is still enough when it is put in place.
            let grown = Fences::grown(room)?;
            let old = lock.state().value.move_to(grown);
            drop(old);
        }
        held.promised = held.promised.saturating_add(slots);
        Ok(())
    }

    /// Fills a promised slot.
    pub(super) fn add(&mut self, place: u32, fence: &Retired, usage: Usage, now: Time) {
        let held = &mut self.held[place as usize];
        held.promised = held.promised.saturating_sub(1);
        let entry = Entry::new(fence, usage, now);
        let displaced = held.reservation.inner.lock.state().value.add(entry);
        // Not under the plain lock: it may be the last handle.
        drop(displaced);
    }

    /// Puts `fence` in the place of all fences of `context`; how many there were.
    pub(super) fn replace(&mut self, place: u32, context: u64, fence: &Retired, usage: Usage, now: Time) -> usize {
        let lock = &self.held[place as usize].reservation.inner.lock;
        let entry = Entry::new(fence, usage, now);
        let mut count = 0;
        loop {
            let displaced = lock.state().value.replace_one(context, &entry);
            if displaced.is_none() {
                return count;
            }
            count += 1;
        }
    }

    /// The fence at `index` of one that is locked.
    pub(super) fn fence(&self, place: u32, index: usize) -> Option<(Usage, Retired)> {
        let state = self.held[place as usize].reservation.inner.lock.state();
        state.value.iter().nth(index).map(|entry| (entry.usage, entry.fence.clone()))
    }

    pub(super) fn reservation(&self, place: u32) -> &Reservation {
        &self.held[place as usize].reservation
    }

    /// In reverse.
    fn release_all(&mut self) {
        while let Some(held) = self.held.pop() {
            if held.stage != Stage::GivenBack {
                held.reservation.inner.lock.release();
            }
        }
    }
}

impl Drop for Locks {
    fn drop(&mut self) {
        self.release_all();
    }
}
