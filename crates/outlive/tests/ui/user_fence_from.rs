//! Nor can a fence be made from it.

fn convert(user: outlive::UserFence) -> outlive::Fence {
    <outlive::Fence as From<outlive::UserFence>>::from(user)
}

fn main() {
    let _ = convert;
}
