//! The workloads. Each makes its contenders anew, so that none of another's threads are around, and prints its tables.

pub mod bypass;
pub mod chain;
pub mod close;
pub mod containers;
pub mod locks;
pub mod signal;
pub mod turns;
pub mod worker;

use tokio::runtime::{Builder, Runtime};

/// Threads of a peer that has a pool: one per core of the machine the table is from.
pub(crate) const POOL: usize = 2;

pub(crate) fn tokio_current() -> Runtime {
    Builder::new_current_thread().build().expect("a runtime")
}

pub(crate) fn tokio_multi() -> Runtime {
    Builder::new_multi_thread().worker_threads(POOL).build().expect("a runtime")
}
