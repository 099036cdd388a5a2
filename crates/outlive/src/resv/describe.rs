//! What a reservation holds, as text: what the kernel's debugfs says of it in `dma_buf/bufinfo`, and more.

use super::Usage;
use super::fences::{Entry, Outcome};
use super::reservation::{Reservation, Told};
use super::ticket::sync_now;
use crate::mem::AllocError;
use crate::time::Time;
use core::fmt;

/// What a reservation held at one moment. Shown plainly, the lines of the kernel's `bufinfo` for one buffer: readers, writers
/// and memory management, each `\t<usage> fence:<context>:<seqno> <timeline> <driver> <signalled|unsignalled>`; names stay
/// readable after the signal. Shown with `{:#}`, also who has it locked and who waits for that, since when; fences of
/// memory managers; how long each has been there, whether anybody waits for it, its error; and whether the memory is never free.
pub struct Description {
    told: Told,
    now: Time,
}

impl Reservation {
    /// Says what hangs on it. Does not lock it, so it never waits for who has. Allocates.
    ///
    /// # Errors
    /// [`AllocError`].
    pub fn describe(&self) -> Result<Description, AllocError> {
        Ok(Description { told: self.told()?, now: sync_now() })
    }
}

const fn name(usage: Usage) -> &'static str {
    match usage {
        Usage::Kernel => "kernel",
        Usage::Write => "write",
        Usage::Read => "read",
        Usage::Bookkeep => "bookkeep",
    }
}

impl Description {
    fn line(&self, f: &mut fmt::Formatter<'_>, entry: &Entry) -> fmt::Result {
        let Entry { fence, usage, .. } = entry;
        let outcome = entry.outcome();
        let un = if outcome == Outcome::Busy { "un" } else { "" };
        let (context, seqno) = (fence.context(), fence.seqno());
        write!(f, "\t{} fence:{context}:{seqno} ", name(*usage))?;
        write!(f, "{} {} {un}signalled", fence.timeline_name(), fence.driver_name())?;
        if f.alternate() {
            write!(f, ", here for {:?}", entry.age(self.now))?;
            if outcome == Outcome::Busy && fence.is_armed() {
                f.write_str(", waited for")?;
            }
            if let Outcome::Never(error) = outcome {
                write!(f, ", {error}")?;
            }
        }
        f.write_str("\n")
    }
}

impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Told { id, entries, waiting, owner, poison } = &self.told;
        if !f.alternate() {
            let mut shown = entries.iter().filter(|entry| Usage::Read.includes(entry.usage));
            return shown.try_for_each(|entry| self.line(f, entry));
        }
        match owner {
            None => writeln!(f, "reservation {id}, not locked")?,
            Some((ticket, context)) => writeln!(f, "reservation {id}, locked by ticket {ticket} of context {context}")?,
        }
        for waiter in waiting {
            let since = self.now.since(waiter.since);
            writeln!(f, "\tticket {} of context {} has waited for it for {since:?}", waiter.number, waiter.context)?;
        }
        entries.iter().try_for_each(|entry| self.line(f, entry))?;
        if let Some(error) = poison {
            writeln!(f, "\tnever free: {error}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:#}")
    }
}
