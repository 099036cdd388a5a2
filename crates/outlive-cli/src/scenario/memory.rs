//! How much device memory clients take, and whether the device has it. Used by the check of a scenario and by whoever
//! allocates for one.
//!
//! A client that finds no memory waits for its own next retirement. One that has nothing outstanding would wait for ever,
//! so every instance must find room for itself and one job while all the others hold theirs.

use core::fmt;

use super::model::{Client, Scenario, Work};

/// What a client takes for itself, at most.
pub const CLIENT_BYTES: u64 = 128 * 1024;
/// What each outstanding job takes.
pub const JOB_BYTES: u64 = 64 * 1024;
/// What each outstanding job takes that draws gears: one frame, at most.
pub const FRAME_BYTES: u64 = 1024 * 1024;

/// The least that a persistent buffer has.
pub const PIECE_KIB: u64 = 64;
/// A working set is cut into at most so many persistent buffers.
const PIECES_MAX: u64 = 64;
/// A job works on so many of them.
pub const PIECES_OF_JOB: u64 = 2;

const MIB: u64 = 1024 * 1024;

/// What one outstanding job of `client` takes, at most.
#[must_use]
pub const fn job_bytes(client: &Client) -> u64 {
    match client.work {
        Work::Gears => FRAME_BYTES,
        Work::Spin | Work::Fill | Work::Copy => JOB_BYTES,
    }
}

/// The persistent buffers of an instance of `client`: how many, and the bytes of each.
#[must_use]
pub const fn pieces(client: &Client) -> (u64, u64) {
    let least = client.working_set_kib / PIECE_KIB;
    let units = least.div_ceil(PIECES_MAX);
    if units == 0 { (0, 0) } else { (least.div_ceil(units), units * PIECE_KIB * 1024) }
}

/// What an instance's persistent buffers take while one job works on them: as many as it uses, and page tables for all.
const fn working_bytes(client: &Client) -> u64 {
    let (count, bytes) = pieces(client);
    if count == 0 {
        return 0;
    }
    let used = if count < PIECES_OF_JOB { count } else { PIECES_OF_JOB };
    // Each lies behind a gap and is aligned to 64 KiB, or to its size; a table is for 2 MiB.
    let reach = count * (bytes.next_multiple_of(2 * PIECE_KIB * 1024) + PIECE_KIB * 1024);
    used * bytes + (reach.div_ceil(2 * MIB) + 2) * 4096
}

/// The device has too little memory for everybody's first job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shortage {
    /// What the device has.
    pub memory_mib: u64,
    /// What all instances need at once.
    pub needed_bytes: u64,
    /// How many they are.
    pub instances: usize,
}

impl Shortage {
    /// The least `memory_mib` that would do.
    pub(crate) fn expected(&self) -> String {
        format!("at least {}", self.needed_bytes.div_ceil(MIB))
    }
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { memory_mib, needed_bytes, instances } = self;
        let needed_kib = needed_bytes.div_ceil(1024);
        let who = if *instances == 1 { "1 client needs" } else { "the clients need" };
        write!(f, "`memory_mib` is {memory_mib}, but {who} {needed_kib} KiB for themselves and one job each")
    }
}

impl core::error::Error for Shortage {}

/// What this machine has of memory, where it says so: a simulated device cannot have more. Its pages are taken as they are
/// used, so one that is too large would not fail at the start but in the middle.
///
/// # Errors
///
/// What is wrong, and what was expected.
pub(crate) fn check_host(memory_mib: u64) -> Result<(), (String, String)> {
    let Some(host_mib) = host_bytes().map(|bytes| bytes / MIB) else { return Ok(()) };
    if memory_mib <= host_mib {
        return Ok(());
    }
    let what = format!("`memory_mib` is {memory_mib}, but this machine has {host_mib} MiB of memory");
    Err((what, format!("at most {host_mib}")))
}

/// What is swapped out lies in this machine's memory.
///
/// # Errors
///
/// What is wrong, and what was expected.
pub(crate) fn check_working_sets(clients: &[Client]) -> Result<(), (String, String)> {
    let Some(host_mib) = host_bytes().map(|bytes| bytes / MIB) else { return Ok(()) };
    let kib = clients.iter().map(|client| client.working_set_kib.saturating_mul(client.instances.len() as u64));
    let mib = kib.fold(0, u64::saturating_add) / 1024;
    if mib <= host_mib {
        return Ok(());
    }
    let what = format!("the working sets come to {mib} MiB, but this machine has {host_mib} MiB of memory");
    Err((what, format!("at most {host_mib} MiB together")))
}

#[cfg(target_os = "linux")]
fn host_bytes() -> Option<u64> {
    let info = rustix::system::sysinfo();
    Some(info.totalram as u64 * u64::from(info.mem_unit))
}

#[cfg(not(target_os = "linux"))]
fn host_bytes() -> Option<u64> {
    None
}

/// Whether every instance finds room for itself and one job.
///
/// # Errors
///
/// By how much it does not.
pub fn check(scenario: &Scenario) -> Result<(), Shortage> {
    let needed_bytes = scenario.clients.iter().fold(0_u64, |sum, client| {
        let instances = u64::try_from(client.instances.len()).unwrap_or(u64::MAX);
        sum.saturating_add(instances.saturating_mul(CLIENT_BYTES + job_bytes(client) + working_bytes(client)))
    });
    let memory_mib = scenario.device.memory_mib;
    if needed_bytes <= memory_mib.saturating_mul(MIB) {
        return Ok(());
    }
    Err(Shortage { memory_mib, needed_bytes, instances: scenario.instances.len() })
}
