//! ww `context_unlock_twice`: nor does it end twice.

use outlive::resv::{LockError, Transaction};

fn misuse() -> Result<(), LockError> {
    Transaction::new().run::<(), _>(
        |_| Ok(()),
        |sealed, ()| {
            drop(*sealed);
            drop(*sealed);
        },
    )
}

fn main() {
    let _ = misuse;
}
