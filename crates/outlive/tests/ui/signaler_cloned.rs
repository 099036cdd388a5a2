//! There is one signaler per fence.

fn two(signaler: &outlive::Signaler) -> outlive::Signaler {
    signaler.clone()
}

fn main() {
    let _ = two;
}
