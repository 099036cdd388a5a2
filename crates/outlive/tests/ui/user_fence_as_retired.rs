//! What a user can hold open never says that memory is free.

fn reuse_after(_memory: outlive::Retired) {}

fn misuse(user: outlive::UserFence) {
    reuse_after(user);
}

fn main() {
    let _ = misuse;
}
