//! Whoever merely holds a fence cannot signal it.

fn signal(fence: outlive::Fence) {
    fence.signal(Ok(()));
}

fn main() {
    let _ = signal;
}
