//! ww `object_unlock_twice`: nobody gives a single lock back; all go at the end, once.

use outlive::resv::{LockError, Reservation, Transaction};

fn misuse(on: &Reservation) -> Result<(), LockError> {
    Transaction::new().run::<(), _>(
        |attempt| {
            let locked = attempt.lock(on)?;
            attempt.unlock(locked);
            attempt.unlock(locked);
            Ok(())
        },
        |_, ()| (),
    )
}

fn main() {
    let _ = misuse;
}
