//! What is not published cannot be waited for: it is not finite yet.

fn wait(fence: outlive::Unpublished) {
    let _ = fence.wait(core::time::Duration::MAX);
}

fn main() {
    let _ = wait;
}
