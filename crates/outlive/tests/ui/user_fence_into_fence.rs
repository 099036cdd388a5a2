//! A user fence has no conversion into a fence.

fn convert(user: outlive::UserFence) -> outlive::Fence {
    user.into()
}

fn main() {
    let _ = convert;
}
