//! IGT `sw_sync`, `alloc_fence_invalid_timeline`: fences are allocated by a context, which is no number.

use outlive::FenceContext;

fn allocate() {
    let _ = FenceContext::allocate(-1);
}

fn main() {}
