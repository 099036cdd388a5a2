//! Fences are added in the sealed phase.

use outlive::Retired;
use outlive::resv::{LockError, Reservation, Slot, Transaction, Usage};

fn misuse(on: &Reservation, fence: &Retired) -> Result<(), LockError> {
    Transaction::new().run::<(), _>(
        |attempt| {
            let slot: Slot<'_> = attempt.prepare(on)?;
            attempt.add(slot, Usage::Write, fence);
            Ok(())
        },
        |_, ()| (),
    )
}

fn main() {
    let _ = misuse;
}
