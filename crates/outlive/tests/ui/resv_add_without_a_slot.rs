//! Forgetting to reserve a slot: a lock alone is not room.

use outlive::Retired;
use outlive::resv::{LockError, Locked, Reservation, Transaction, Usage};

fn misuse(on: &Reservation, fence: &Retired) -> Result<(), LockError> {
    Transaction::new()
        .run::<Locked<'_>, _>(|attempt| attempt.lock(on), |sealed, locked| sealed.add(locked, Usage::Write, fence))
}

fn main() {
    let _ = misuse;
}
