//! Signalling uses the signaler up.

fn twice(signaler: outlive::Signaler) {
    signaler.signal(Ok(()));
    signaler.signal(Err(outlive::FenceError::Canceled));
}

fn main() {
    let _ = twice;
}
