//! ww `context_lock_after_done`: the sealed phase cannot lock.

use outlive::resv::{LockError, Reservation, Transaction};

fn misuse(on: &Reservation) -> Result<(), LockError> {
    Transaction::new().run::<(), _>(
        |_| Ok(()),
        |sealed, ()| {
            let _ = sealed.lock(on);
        },
    )
}

fn main() {
    let _ = misuse;
}
