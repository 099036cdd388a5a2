//! ww `object_lock_stale_context`: what an attempt made ends with it.

use outlive::resv::{LockError, Reservation, Slot, Transaction};

fn misuse(on: &Reservation) -> Result<(), LockError> {
    let mut kept = None;
    Transaction::new().run::<(), _>(
        |attempt| {
            kept = Some(attempt.prepare(on)?);
            Ok(())
        },
        |_, ()| (),
    )?;
    let _: Option<Slot<'_>> = kept;
    Ok(())
}

fn main() {
    let _ = misuse;
}
