//! ww `context_done_twice`: a transaction is used up by running.

use outlive::resv::{LockError, Transaction};

fn misuse(transaction: Transaction<'_>) -> Result<(), LockError> {
    transaction.run::<(), _>(|_| Ok(()), |_, ()| ())?;
    transaction.run::<(), _>(|_| Ok(()), |_, ()| ())
}

fn main() {
    let _ = misuse;
}
