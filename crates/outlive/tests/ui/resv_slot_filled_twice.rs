//! A slot is room for one fence.

use outlive::Retired;
use outlive::resv::{LockError, Reservation, Slot, Transaction, Usage};

fn misuse(on: &Reservation, fence: &Retired) -> Result<(), LockError> {
    Transaction::new().run::<Slot<'_>, _>(
        |attempt| attempt.prepare(on),
        |sealed, slot| {
            sealed.add(slot, Usage::Write, fence);
            sealed.add(slot, Usage::Write, fence);
        },
    )
}

fn main() {
    let _ = misuse;
}
