//! The core as one dynamic library, and the interface between host and plugin.
//!
//! The plugin's functions use Rust types: host and plugin are built together, by one compiler, against this library.

pub use outlive;

use outlive::{Drained, Executor, Fence};
use std::sync::atomic::AtomicU32;

/// What the plugin says of itself after it is gone: the host's memory.
#[derive(Debug, Default)]
pub struct Witness {
    /// Payloads dropped.
    pub payloads: AtomicU32,
    /// Drivers dropped.
    pub drivers: AtomicU32,
    /// Producer hooks dropped.
    pub hooks: AtomicU32,
    /// Closures run.
    pub closures: AtomicU32,
}

/// A fence that the host keeps, and what it says while the plugin is loaded.
#[derive(Debug)]
pub struct Kept {
    /// What it is.
    pub what: String,
    /// The fence.
    pub fence: Fence,
}

/// What a plugin exports: its functions, under the names of the fields.
#[derive(Debug, Clone, Copy)]
pub struct Plugin {
    /// Opens a device with a thread of its own as hardware, two queues and a fence context on the executor. Once.
    pub open: OpenFn,
    /// Submits jobs of all kinds and waits for some of them; gives fences out.
    pub submit: SubmitFn,
    /// Closes the device with a job on the hardware that is late, and lets everything of the plugin go.
    pub close: CloseFn,
}

/// See [`Plugin::open`].
pub type OpenFn = fn(&Executor, &'static Witness) -> Result<(), String>;
/// See [`Plugin::submit`].
pub type SubmitFn = fn() -> Result<Vec<Kept>, String>;
/// See [`Plugin::close`].
pub type CloseFn = fn() -> Result<Drained, String>;
