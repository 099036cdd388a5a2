//! A user fence does not pass for a borrowed fence either.

fn look(fence: &outlive::Fence) -> outlive::Status {
    fence.status()
}

fn pass(user: &outlive::UserFence) -> outlive::Status {
    look(user)
}

fn main() {
    let _ = pass;
}
