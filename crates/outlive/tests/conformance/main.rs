//! Upstream's test cases by name: see `README.md` beside this file, and `docs/conformance.md`.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    unreachable_pub,
    clippy::std_instead_of_core,
    clippy::std_instead_of_alloc,
    reason = "tests may panic and allocate"
)]

mod broken;
#[cfg(all(feature = "linux", target_os = "linux"))]
#[path = "../descriptors/mod.rs"]
#[expect(dead_code, reason = "each test binary uses a part of it")]
mod descriptors;
mod drm;
mod drm_exec_test;
mod igt_dmabuf_sync_file;
mod igt_sw_sync;
#[cfg(all(feature = "linux", target_os = "linux"))]
mod igt_sw_sync_linux;
mod igt_syncobj_basic;
#[cfg(all(feature = "linux", target_os = "linux"))]
mod igt_syncobj_eventfd;
mod igt_syncobj_timeline;
mod igt_syncobj_wait;
mod kselftest_sync;
mod locking_selftest;
mod mock_job;
mod software;
mod st_dma_fence;
mod st_dma_fence_chain;
mod st_dma_fence_unwrap;
mod st_dma_resv;
mod test_ww_mutex;
mod waits;

use broken::break_a_rule;
use outlive::{Executor, Fence, FenceContext, Names, Signaler, Status};
use std::time::Duration;

/// Longer than any case runs; only a defect waits that long.
const LONG: Duration = Duration::from_secs(30);
const NAMES: Names<'_> = Names { driver: "mock", timeline: "mock" };

/// A fence in a context of its own.
fn mock_fence(executor: &Executor) -> (Signaler, Fence) {
    break_a_rule();
    FenceContext::new(executor, NAMES).unwrap().allocate().unwrap().publish()
}

fn pending(fence: &Fence) -> bool {
    fence.status() == Status::Pending
}

fn leaves(fence: &Fence) -> Vec<Fence> {
    let mut leaves = Vec::new();
    fence.for_each_leaf(|leaf| leaves.push(leaf.clone()));
    leaves
}
