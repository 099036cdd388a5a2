//! A scenario as it will run: every default filled in, every name resolved. Used by whoever runs, prints or reports one.
//!
//! A *client* is one `[[client]]` of the file; an *instance* is one of its `count` copies, and what actually runs. Times
//! are in the units of the file, which the names carry.

use core::ops::Range;

pub use super::words::{DeviceKind, FaultKind, Mode, OnError, Policy, Priority, Work};

/// A whole scenario.
#[derive(Debug, Clone, PartialEq)]
pub struct Scenario {
    /// What people call it.
    pub name: String,
    /// No new cycles after that.
    pub run_for_ms: u64,
    /// At most `i64::MAX`, TOML's largest integer.
    pub seed: u64,
    /// What a submission costs its client in virtual time; at least 1.
    pub submit_latency_us: u64,
    /// What it runs on.
    pub device: Device,
    /// Who decides what runs next.
    pub scheduler: Scheduler,
    /// In the order of the file.
    pub clients: Vec<Client>,
    /// All instances of the first client, then those of the next.
    pub instances: Vec<Instance>,
    /// In the order of the file.
    pub events: Vec<Event>,
}

impl Scenario {
    /// The `[[client]]` that `instance` is a copy of.
    ///
    /// # Panics
    ///
    /// If `instance` is no index into [`Scenario::instances`].
    #[must_use]
    pub fn client_of(&self, instance: usize) -> &Client {
        &self.clients[self.instances[instance].client]
    }

    /// The limit of one job's hardware time: `timeout_ms`, or the device's watchdog where that is 0.
    #[must_use]
    pub const fn job_limit_ms(&self) -> u64 {
        if self.scheduler.timeout_ms == 0 { self.device.watchdog_ms } else { self.scheduler.timeout_ms }
    }
}

/// `[device]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Which one.
    pub kind: DeviceKind,
    /// How many jobs can be on the hardware at one instant.
    pub engines: u32,
    /// Arbiter mode: one pool for all; firmware mode: the size of each client's ring.
    pub credits: u32,
    /// Firmware mode: how long a ring has the device before the next.
    pub slice_us: u64,
    /// Device memory.
    pub memory_mib: u64,
    /// The device's own limit for one job, 1 to 10,000.
    pub watchdog_ms: u64,
    /// Arbiter mode: address spaces on the hardware at once; 0 is no limit.
    pub vm_ids: u32,
}

/// `[scheduler]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scheduler {
    /// With or without an arbiter.
    pub mode: Mode,
    /// The arbiter's; in firmware mode reported, not enforced.
    pub policy: Policy,
    /// Per job; 0 is the device's watchdog. See [`Scenario::job_limit_ms`].
    pub timeout_ms: u64,
    /// A client so many of whose jobs had to be taken off the hardware by force submits nothing more; 0: never.
    pub ban_after: u32,
    /// Within that time.
    pub ban_window_ms: u64,
}

impl Scheduler {
    /// What a scenario has that says nothing of it.
    pub const DEFAULT: Self =
        Self { mode: Mode::Firmware, policy: Policy::Fair, timeout_ms: 500, ban_after: 10, ban_window_ms: 10_000 };
}

/// One `[[client]]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Client {
    /// Without index.
    pub name: String,
    /// Its copies, as indices into [`Scenario::instances`]; never empty.
    pub instances: Range<usize>,
    /// Whose share it takes part in; alone where absent.
    pub group: Option<String>,
    /// Of the whole group: what any member says, and the same for all of them.
    pub group_weight: u32,
    /// Within its group; without one, against the other groups.
    pub weight: u32,
    /// At the start.
    pub priority: Priority,
    /// When it comes.
    pub start_ms: u64,
    /// When it stops submitting.
    pub stop_ms: Option<u64>,
    /// Submitted back to back.
    pub jobs_per_cycle: u32,
    /// Hardware time of each job.
    pub duration_us: u64,
    /// Of each job; at most the device's.
    pub credits: u32,
    /// Pause after each cycle.
    pub think_us: u64,
    /// Whether it waits for the cycle's last job before the pause.
    pub sync: bool,
    /// Most jobs outstanding; 0 is no limit.
    pub depth: u32,
    /// Whether each job depends on the previous one.
    pub chain: bool,
    /// Whose cycles its own depend on, as written; [`Instance::after`] is what it means.
    pub after: Option<String>,
    /// As written; see [`Client::on_chain_error`] and [`Client::on_after_error`].
    pub on_dependency_error: Option<OnError>,
    /// By what share duration and think time vary, 0 to 1.
    pub jitter: f64,
    /// What its jobs do.
    pub work: Work,
    /// What its persistent buffers come to, which its jobs work on in turn; a multiple of 64.
    pub working_set_kib: u64,
    /// What some of its jobs do wrong.
    pub fault: Option<Fault>,
}

impl Client {
    /// What a job does when the client's previous one failed: unless it says otherwise, it fails too.
    #[must_use]
    pub fn on_chain_error(&self) -> OnError {
        self.on_dependency_error.unwrap_or(OnError::Fail)
    }

    /// What a job does when the cycle that it is `after` failed: unless it says otherwise, it runs.
    #[must_use]
    pub fn on_after_error(&self) -> OnError {
        self.on_dependency_error.unwrap_or(OnError::Run)
    }
}

/// `fault`: each `every`-th job of an instance, counted from 1, does `kind`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// At least 1.
    pub every: u64,
    /// What goes wrong.
    pub kind: FaultKind,
}

/// One running copy of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// `desktop.0`.
    pub name: String,
    /// Index into [`Scenario::clients`].
    pub client: usize,
    /// The number in its name.
    pub index: u32,
    /// The instance whose cycles its own depend on, as index into [`Scenario::instances`]. Without cycles.
    pub after: Option<usize>,
}

/// One `[[event]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// When it happens first.
    pub at_ms: u64,
    /// When again; 0 is never.
    pub every_ms: u64,
    /// What happens.
    pub action: Action,
}

/// What an event does, and to whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// The device goes away.
    Unplug,
    /// The whole device is reset.
    Reset,
    /// Something happens to one client.
    Client {
        /// To whom.
        target: Target,
        /// What.
        action: ClientAction,
    },
}

impl Action {
    /// The word after `do`.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Unplug => "unplug",
            Self::Reset => "reset",
            Self::Client { action, .. } => action.word(),
        }
    }
}

/// What happens to one client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAction {
    /// Its handles are dropped with no warning.
    Kill,
    /// It leaves politely.
    Close,
    /// It comes back under its name.
    Start,
    /// Its queue is suspended.
    Suspend,
    /// Its queue is resumed.
    Resume,
    /// It gets another priority.
    SetPriority(Priority),
    /// It gets another weight.
    SetWeight(u32),
}

impl ClientAction {
    /// The word after `do`.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Close => "close",
            Self::Start => "start",
            Self::Suspend => "suspend",
            Self::Resume => "resume",
            Self::SetPriority(_) => "set-priority",
            Self::SetWeight(_) => "set-weight",
        }
    }
}

/// Whom an event is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// As the file says it.
    pub written: String,
    /// What that means, as index into [`Scenario::instances`].
    pub instance: usize,
}
