//! A verdict does not say that memory is free: reservations accept `Retired` only.

use outlive::JobFences;
use outlive::resv::{LockError, Reservation, Slot, Transaction, Usage};

fn misuse(on: &Reservation, job: &JobFences) -> Result<(), LockError> {
    Transaction::new().run::<Slot<'_>, _>(
        |attempt| attempt.prepare(on),
        |sealed, slot| sealed.add(slot, Usage::Write, &job.finished()),
    )
}

fn main() {
    let _ = misuse;
}
