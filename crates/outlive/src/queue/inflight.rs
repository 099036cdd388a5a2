//! `InFlight`: what is on one ring, by hardware sequence number.

use super::complete::{Completion, Times};
use crate::check;
use crate::fence::FenceError;
use crate::mem::{AllocError, HeapVec, try_reserve};
use crate::sync::{Lock, class};
use core::fmt;

/// A map of fixed capacity from the numbers that hardware reports to completions. Any context, interrupts included; never
/// blocks, and allocates only when made. A number that is not in flight, given twice or invented by broken hardware,
/// completes nothing.
///
/// Numbers need not be dense, but two that differ by a multiple of the capacity (rounded up to a power of two) do not fit
/// at once.
pub struct InFlight {
    ring: Lock<class::InFlightSlots, Ring>,
}

struct Ring {
    slots: HeapVec<Option<(u64, Completion)>>,
    /// No number in flight is below this.
    low: u64,
    len: usize,
}

/// The ring has no room for the number; the completion comes back.
#[derive(Debug)]
pub struct Full {
    /// What was to be put in: complete it with [`Completion::not_started`] if the doorbell was not rung.
    pub completion: Completion,
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the in-flight map has no room: make it as large as the queue's credits")
    }
}

impl core::error::Error for Full {}

impl InFlight {
    /// Room for `capacity` jobs. Allocates.
    ///
    /// # Errors
    /// [`AllocError`].
    pub fn with_capacity(capacity: usize) -> Result<Self, AllocError> {
        let capacity = capacity.max(1).checked_next_power_of_two().ok_or(AllocError { bytes: usize::MAX })?;
        let mut slots = HeapVec::new();
        try_reserve(&mut slots, capacity)?;
        slots.extend((0..capacity).map(|_| None));
        Ok(Self { ring: Lock::new(Ring { slots, low: 0, len: 0 }) })
    }

    /// Puts `completion` in under the hardware's number for it, before the doorbell is rung.
    ///
    /// # Errors
    /// [`Full`] with the completion.
    pub fn insert(&self, seqno: u64, completion: Completion) -> Result<(), Full> {
        let mut ring = self.ring.lock();
        let at = ring.at(seqno);
        match ring.slots.get_mut(at) {
            Some(slot @ None) => *slot = Some((seqno, completion)),
            _ => return Err(Full { completion }),
        }
        ring.low = if ring.len == 0 { seqno } else { ring.low.min(seqno) };
        ring.len += 1;
        Ok(())
    }

    /// Takes the completion of `seqno` out.
    #[must_use = "dropping the completion fails its job"]
    pub fn remove(&self, seqno: u64) -> Option<Completion> {
        self.ring.lock().take(seqno)
    }

    /// The hardware is done with job `seqno`; false if that is not in flight.
    pub fn complete(&self, seqno: u64, result: Result<(), FenceError>) -> bool {
        self.complete_timed(seqno, result, Times::default())
    }

    /// As [`InFlight::complete`], with what the hardware measured.
    pub fn complete_timed(&self, seqno: u64, result: Result<(), FenceError>, times: Times) -> bool {
        let _section = check::signalling();
        // Completed outside the lock: signalling takes other locks.
        let completion = self.ring.lock().take(seqno);
        let found = completion.is_some();
        if let Some(completion) = completion {
            completion.complete_timed(result, times);
        }
        found
    }

    /// The hardware is done, without error, with all jobs up to `seqno`; how many that were. In their order.
    pub fn complete_through(&self, seqno: u64) -> usize {
        let _section = check::signalling();
        let mut count = 0;
        loop {
            let next = self.ring.lock().take_through(seqno);
            let Some(completion) = next else { return count };
            completion.complete(Ok(()));
            count += 1;
        }
    }

    /// How many are in flight.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ring.lock().len
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Ring {
    fn at(&self, seqno: u64) -> usize {
        // The length is a power of two: `seqno & (8 - 1)` of 13 is 5.
        let mask = self.slots.len() as u64 - 1;
        usize::try_from(seqno & mask).unwrap_or(0)
    }

    fn take(&mut self, seqno: u64) -> Option<Completion> {
        let at = self.at(seqno);
        let slot = self.slots.get_mut(at)?;
        if slot.as_ref()?.0 != seqno {
            return None;
        }
        self.len -= 1;
        slot.take().map(|(_, completion)| completion)
    }

    /// The lowest in flight, if it is at most `seqno`.
    fn take_through(&mut self, seqno: u64) -> Option<Completion> {
        let span = self.slots.len() as u64;
        for _ in 0..span {
            if self.len == 0 || self.low > seqno {
                return None;
            }
            let candidate = self.low;
            self.low += 1;
            if let Some(completion) = self.take(candidate) {
                return Some(completion);
            }
        }
        // Sparse numbers: a whole turn without one. Find the next by looking at all.
        self.low = self.slots.iter().flatten().map(|(number, _)| *number).min()?;
        let low = self.low;
        if low > seqno { None } else { self.take(low) }
    }
}

impl fmt::Debug for InFlight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InFlight({})", self.len())
    }
}
