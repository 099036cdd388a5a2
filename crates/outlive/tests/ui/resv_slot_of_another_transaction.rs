//! A slot fits the attempt that made it and no other, also where both are alive.

use outlive::Retired;
use outlive::resv::{LockError, Reservation, Slot, Transaction, Usage};

fn misuse(one: &Reservation, two: &Reservation, fence: &Retired) -> Result<Result<(), LockError>, LockError> {
    Transaction::new().run::<Slot<'_>, _>(
        |attempt| attempt.prepare(one),
        |_, slot| {
            Transaction::new().run::<Slot<'_>, _>(
                |attempt| attempt.prepare(two),
                |sealed, _| sealed.add(slot, Usage::Write, fence),
            )
        },
    )
}

fn main() {
    let _ = misuse;
}
