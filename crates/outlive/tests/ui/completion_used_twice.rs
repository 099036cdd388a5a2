//! Completing a job uses its completion up.

fn twice(done: outlive::Completion) {
    done.complete(Ok(()));
    done.not_started(outlive::FenceError::Canceled);
}

fn main() {
    let _ = twice;
}
