//! Reads a scenario file from the top. Called by [`Scenario::parse`](super::Scenario::parse).

use toml::de::DeTable;

use outlive::OFFENCES_MAX;
use outlive::pool::SlotSet;

use super::limits::{MS_MAX, SEED_MAX, US_MAX};
use super::model::{Device, DeviceKind, Mode, Policy, Scenario, Scheduler};
use super::section::{Section, Source};
use super::{client, event, memory, names};
use crate::error::InputError;

/// A pool leases at most so many slots of a kind.
const VM_IDS_MAX: u32 = SlotSet::MOST;

const KEYS: &[&str] = &["name", "run_for_ms", "seed", "submit_latency_us", "device", "scheduler", "client", "event"];
const DEVICE_KEYS: &[&str] = &["kind", "engines", "credits", "slice_us", "memory_mib", "watchdog_ms", "vm_ids"];
const SCHEDULER_KEYS: &[&str] = &["mode", "policy", "timeout_ms", "ban_after", "ban_window_ms"];

/// The whole file.
pub(super) fn scenario(source: Source<'_>) -> Result<Scenario, InputError> {
    let root = DeTable::parse(source.text).map_err(|error| syntax_error(source, &error))?;
    let file = Section::new(source, "the file", root.get_ref(), 0, KEYS)?;
    let name = file.name("name")?;
    let name = file.required("name", name, "`name = \"...\"` at the top")?;
    let run_for_ms = file.integer("run_for_ms", 0..=MS_MAX)?.unwrap_or(2000);
    let seed = file.integer("seed", 0..=SEED_MAX)?.unwrap_or(1);
    let submit_latency_us = file.integer("submit_latency_us", 1..=US_MAX)?.unwrap_or(5);

    let device_section = file.table("device", "[device]", DEVICE_KEYS)?;
    let device_section = file.required("device", device_section, "a table [device] with `kind = \"sim\"`")?;
    let device = device(&device_section)?;
    let scheduler = match file.table("scheduler", "[scheduler]", SCHEDULER_KEYS)? {
        Some(section) => scheduler(&section)?,
        None => Scheduler::DEFAULT,
    };

    if scheduler.mode == Mode::Firmware && device.vm_ids > 0 {
        let what = format!(
            "`vm_ids` is {} in firmware mode, where each client has an address space of its own",
            device.vm_ids
        );
        return Err(device_section.error("vm_ids", what, "`mode = \"arbiter\"` in [scheduler], or no `vm_ids`"));
    }

    let client_sections = file.tables("client", "[[client]]", client::KEYS)?;
    let mut clients = Vec::with_capacity(client_sections.len());
    for section in &client_sections {
        clients.push(client::read(section, &device)?);
    }
    names::check_unique(&client_sections, &clients)?;
    let instances = names::expand(&client_sections, &mut clients)?;
    names::share_group_weights(&client_sections, &mut clients)?;

    let mut events = Vec::new();
    for section in file.tables("event", "[[event]]", event::KEYS)? {
        events.push(event::read(&section, &clients)?);
    }
    let clients = clients.into_iter().map(|read| read.client).collect();
    let scenario =
        Scenario { name, run_for_ms, seed, submit_latency_us, device, scheduler, clients, instances, events };
    memory::check_host(scenario.device.memory_mib)
        .map_err(|(what, expected)| device_section.error("memory_mib", what, expected))?;
    memory::check_working_sets(&scenario.clients)
        .map_err(|(what, expected)| device_section.error("memory_mib", what, expected))?;
    memory::check(&scenario)
        .map_err(|shortage| device_section.error("memory_mib", shortage.to_string(), shortage.expected()))?;
    Ok(scenario)
}

fn device(section: &Section<'_>) -> Result<Device, InputError> {
    let kind = match section.word("kind", DeviceKind::WORDS) {
        Err(mut error) if error.what.contains("\"vulkan") => {
            error.what.push_str(", which is not built yet");
            return Err(error);
        }
        other => other?,
    };
    Ok(Device {
        kind: section.required("kind", kind, "`kind = \"sim\"`")?,
        engines: section.integer_u32("engines", 1..=1024)?.unwrap_or(1),
        credits: section.integer_u32("credits", 1..=65_536)?.unwrap_or(16),
        slice_us: section.integer("slice_us", 1..=US_MAX)?.unwrap_or(1000),
        memory_mib: section.integer("memory_mib", 1..=1_048_576)?.unwrap_or(256),
        watchdog_ms: section.integer("watchdog_ms", 1..=10_000)?.unwrap_or(10_000),
        vm_ids: section.integer_u32("vm_ids", 0..=VM_IDS_MAX)?.unwrap_or(0),
    })
}

fn scheduler(section: &Section<'_>) -> Result<Scheduler, InputError> {
    let default = Scheduler::DEFAULT;
    Ok(Scheduler {
        mode: section.word("mode", Mode::WORDS)?.unwrap_or(default.mode),
        policy: section.word("policy", Policy::WORDS)?.unwrap_or(default.policy),
        timeout_ms: section.integer("timeout_ms", 0..=MS_MAX)?.unwrap_or(default.timeout_ms),
        ban_after: section.integer_u32("ban_after", 0..=OFFENCES_MAX)?.unwrap_or(default.ban_after),
        ban_window_ms: section.integer("ban_window_ms", 1..=MS_MAX)?.unwrap_or(default.ban_window_ms),
    })
}

/// The parser's own message, split where it says what it expected.
fn syntax_error(source: Source<'_>, error: &toml::de::Error) -> InputError {
    let at = error.span().map_or(source.text.len(), |span| span.start);
    let (what, expected) = error.message().split_once(", expected ").unwrap_or((error.message(), "valid TOML"));
    source.error(at, format!("not TOML: {}", what.trim()), expected.trim())
}
