//! No fence is turned into a `Retired`.

fn reuse_after(_memory: impl Into<outlive::Retired>) {}

fn misuse(fence: outlive::Fence) {
    reuse_after(fence);
}

fn main() {
    let _ = misuse;
}
