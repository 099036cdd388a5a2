//! ww `unneeded_slow`: taking the contended lock first is the transaction's business; there is no call for it.

use outlive::resv::{LockError, Reservation, Transaction};

fn misuse(on: &Reservation) -> Result<(), LockError> {
    Transaction::new().run::<(), _>(
        |attempt| {
            attempt.lock_slow(on)?;
            Ok(())
        },
        |_, ()| (),
    )
}

fn main() {
    let _ = misuse;
}
