//! Reads one `[[client]]`. Called by `read`; names are resolved later, by `names`.

use super::limits::{MS_MAX, US_MAX, WEIGHT_MAX};
use super::memory::PIECE_KIB;
use super::model::{Client, Device, Fault, FaultKind, OnError, Priority, Work};
use super::section::Section;
use crate::error::InputError;

/// The keys of a client, in the order of the contract.
pub(super) const KEYS: &[&str] = &[
    "name",
    "count",
    "group",
    "group_weight",
    "weight",
    "priority",
    "start_ms",
    "stop_ms",
    "jobs_per_cycle",
    "duration_us",
    "credits",
    "think_us",
    "sync",
    "depth",
    "chain",
    "after",
    "on_dependency_error",
    "jitter",
    "work",
    "working_set_kib",
    "fault",
];
const FAULT_KEYS: &[&str] = &["every", "kind"];

/// The most instances of one client.
const COUNT_MAX: u32 = 65_536;
/// The most jobs of one cycle.
const JOBS_MAX: u32 = 65_536;

/// The most that one client's persistent buffers may come to: 1 GiB.
const WORKING_SET_MAX_KIB: u64 = 1 << 20;

/// A client whose names are not resolved yet.
#[derive(Debug)]
pub(super) struct ReadClient {
    pub(super) client: Client,
    pub(super) count: u32,
    /// What the file says, before the group has agreed.
    pub(super) group_weight: Option<u32>,
}

/// One client.
pub(super) fn read(section: &Section<'_>, device: &Device) -> Result<ReadClient, InputError> {
    let name = section.name("name")?;
    let duration_us = section.integer("duration_us", 0..=US_MAX)?;
    let client = Client {
        name: section.required("name", name, "`name = \"...\"`")?,
        instances: 0..0,
        group: section.name("group")?,
        group_weight: 100,
        weight: section.integer_u32("weight", 1..=WEIGHT_MAX)?.unwrap_or(100),
        priority: section.word("priority", Priority::WORDS)?.unwrap_or(Priority::Normal),
        start_ms: section.integer("start_ms", 0..=MS_MAX)?.unwrap_or(0),
        stop_ms: section.integer("stop_ms", 0..=MS_MAX)?,
        jobs_per_cycle: section.integer_u32("jobs_per_cycle", 1..=JOBS_MAX)?.unwrap_or(1),
        duration_us: section.required("duration_us", duration_us, "`duration_us`, the hardware time of each job")?,
        credits: credits(section, device)?,
        think_us: section.integer("think_us", 0..=US_MAX)?.unwrap_or(0),
        sync: section.switch("sync")?.unwrap_or(true),
        depth: section.integer_u32("depth", 0..=u32::MAX)?.unwrap_or(0),
        chain: section.switch("chain")?.unwrap_or(false),
        after: section.name("after")?,
        on_dependency_error: section.word("on_dependency_error", OnError::WORDS)?,
        jitter: section.share("jitter")?.unwrap_or(0.0),
        work: section.word("work", Work::WORDS)?.unwrap_or(Work::Spin),
        working_set_kib: working_set(section)?,
        fault: fault(section)?,
    };
    check_loop(section, &client)?;
    let count = section.integer_u32("count", 1..=COUNT_MAX)?.unwrap_or(1);
    let group_weight = section.integer_u32("group_weight", 1..=WEIGHT_MAX)?;
    Ok(ReadClient { client, count, group_weight })
}

/// A job with more credits than the device has would wait for ever.
fn credits(section: &Section<'_>, device: &Device) -> Result<u32, InputError> {
    let credits = section.integer_u32("credits", 0..=u32::MAX)?.unwrap_or(1);
    if credits == 0 || credits > device.credits {
        let expected = format!("1 to {}, the credits of the device", device.credits);
        return Err(section.error("credits", format!("`credits` is {credits}"), expected));
    }
    Ok(credits)
}

/// Whole persistent buffers, or none.
fn working_set(section: &Section<'_>) -> Result<u64, InputError> {
    let kib = section.integer("working_set_kib", 0..=WORKING_SET_MAX_KIB)?.unwrap_or(0);
    if !kib.is_multiple_of(PIECE_KIB) {
        let expected = format!("a multiple of {PIECE_KIB}, as persistent buffers have so many KiB, or 0 for none");
        return Err(section.error("working_set_kib", format!("`working_set_kib` is {kib}"), expected));
    }
    Ok(kib)
}

/// What the client's loop could not live with: a cycle that never fits, or one that nothing ever holds back.
fn check_loop(section: &Section<'_>, client: &Client) -> Result<(), InputError> {
    let Client { depth, jobs_per_cycle, .. } = *client;
    if depth != 0 && jobs_per_cycle > depth {
        let key = if section.has("jobs_per_cycle") { "jobs_per_cycle" } else { "depth" };
        let what = format!("`jobs_per_cycle` is {jobs_per_cycle} and `depth` is {depth}");
        return Err(section.error(key, what, "a `depth` that holds a whole cycle, or 0 for no limit"));
    }
    if depth == 0 && !client.sync && client.think_us == 0 {
        let what = format!("client `{}` submits without end: no `depth`, no `sync` and no `think_us`", client.name);
        return Err(section.error("sync", what, "one of them"));
    }
    Ok(())
}

fn fault(section: &Section<'_>) -> Result<Option<Fault>, InputError> {
    const EXPECTED: &str = "`fault = { every = N, kind = \"...\" }`";
    let Some(table) = section.table("fault", "`fault`", FAULT_KEYS)? else { return Ok(None) };
    let every = table.integer("every", 1..=i64::MAX.unsigned_abs())?;
    let kind = table.word("kind", FaultKind::WORDS)?;
    Ok(Some(Fault { every: table.required("every", every, EXPECTED)?, kind: table.required("kind", kind, EXPECTED)? }))
}
