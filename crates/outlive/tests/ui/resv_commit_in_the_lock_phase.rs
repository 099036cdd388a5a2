//! The lock phase may run again, so it cannot use up what can be committed once.

use outlive::resv::{LockError, Reservation, Slot, Transaction};
use outlive::{Driver, Reserved};

fn misuse<D: Driver>(on: &Reservation, job: Reserved<D>) -> Result<(), LockError> {
    Transaction::new().run::<Slot<'_>, _>(
        |attempt| {
            let slot = attempt.prepare(on)?;
            job.commit();
            Ok(slot)
        },
        |_, _| (),
    )
}

fn main() {
    let _ = misuse::<outlive_ui::Nothing>;
}

mod outlive_ui {
    use outlive::{Completion, Driver, JobCx};

    pub struct Nothing;

    impl Driver for Nothing {
        type Job = ();
        type Queue = ();

        fn run(&self, _: &mut JobCx<'_, Self>, done: Completion) {
            drop(done);
        }
    }
}
