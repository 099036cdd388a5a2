//! ww `context_fini_early`: an attempt ends when all is given back, not before.

use outlive::resv::{LockError, Reservation, Transaction};

fn misuse(on: &Reservation) -> Result<(), LockError> {
    Transaction::new().run::<(), _>(
        |attempt| {
            attempt.lock(on)?;
            drop(*attempt);
            Ok(())
        },
        |_, ()| (),
    )
}

fn main() {
    let _ = misuse;
}
