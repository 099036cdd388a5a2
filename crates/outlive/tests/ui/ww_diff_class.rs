//! ww `diff_class`: a lock of another class does not fit in.

use outlive::resv::{LockError, Transaction};

struct OtherClass;

fn misuse(other: &OtherClass) -> Result<(), LockError> {
    Transaction::new().run::<(), _>(
        |attempt| {
            attempt.lock(other)?;
            Ok(())
        },
        |_, ()| (),
    )
}

fn main() {
    let _ = misuse;
}
