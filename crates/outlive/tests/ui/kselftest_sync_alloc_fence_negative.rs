//! kselftest `sync`, `alloc_fence_negative`: what is not a context allocates no fence.

use outlive::{Executor, FenceContext, Names};

fn allocate(executor: &Executor) {
    let _ = FenceContext::new(-1, Names { driver: "sw_sync", timeline: "allocFence" }).map(|_| executor);
}

fn main() {}
