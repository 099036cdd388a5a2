//! Prints a scenario as the file that says everything. Called by [`Scenario::to_toml`].
//!
//! What has no value (a client without a group) cannot be written in TOML, so it stands there as a comment.

use core::fmt::{Display, Write};

use toml::Value;

use super::model::{Action, Client, ClientAction, Device, Event, OnError, Scenario, Scheduler};

/// The whole file.
pub(super) fn scenario(scenario: &Scenario) -> String {
    let mut out = Lines(String::new());
    out.key("name", quoted(&scenario.name));
    out.key("run_for_ms", scenario.run_for_ms);
    out.key("seed", scenario.seed);
    out.key("submit_latency_us", scenario.submit_latency_us);
    device(&mut out, &scenario.device);
    scheduler(&mut out, &scenario.scheduler);
    for one in &scenario.clients {
        client(&mut out, one);
    }
    for one in &scenario.events {
        event(&mut out, one);
    }
    out.0
}

fn device(out: &mut Lines, device: &Device) {
    out.head("[device]");
    out.key("kind", quoted(device.kind.word()));
    out.key("engines", device.engines);
    out.key("credits", device.credits);
    out.key("slice_us", device.slice_us);
    out.key("memory_mib", device.memory_mib);
    out.key("watchdog_ms", device.watchdog_ms);
    out.key("vm_ids", device.vm_ids);
}

fn scheduler(out: &mut Lines, scheduler: &Scheduler) {
    out.head("[scheduler]");
    out.key("mode", quoted(scheduler.mode.word()));
    out.key("policy", quoted(scheduler.policy.word()));
    out.key("timeout_ms", scheduler.timeout_ms);
    out.key("ban_after", scheduler.ban_after);
    out.key("ban_window_ms", scheduler.ban_window_ms);
}

fn client(out: &mut Lines, client: &Client) {
    out.head("[[client]]");
    out.key("name", quoted(&client.name));
    out.key("count", client.instances.len());
    out.key_or_note("group", client.group.as_deref().map(quoted), "none");
    out.key("group_weight", client.group_weight);
    out.key("weight", client.weight);
    out.key("priority", quoted(client.priority.word()));
    out.key("start_ms", client.start_ms);
    out.key_or_note("stop_ms", client.stop_ms, "none");
    out.key("jobs_per_cycle", client.jobs_per_cycle);
    out.key("duration_us", client.duration_us);
    out.key("credits", client.credits);
    out.key("think_us", client.think_us);
    out.key("sync", client.sync);
    out.key("depth", client.depth);
    out.key("chain", client.chain);
    out.key_or_note("after", client.after.as_deref().map(quoted), "none");
    let on_error = client.on_dependency_error.map(|on_error: OnError| quoted(on_error.word()));
    out.key_or_note("on_dependency_error", on_error, "fail for chain, run for after");
    // Debug always shows a float as one: 0.0, not 0.
    out.key("jitter", format_args!("{:?}", client.jitter));
    out.key("work", quoted(client.work.word()));
    out.key("working_set_kib", client.working_set_kib);
    let fault =
        client.fault.map(|fault| format!("{{ every = {}, kind = {} }}", fault.every, quoted(fault.kind.word())));
    out.key_or_note("fault", fault, "none");
}

fn event(out: &mut Lines, event: &Event) {
    out.head("[[event]]");
    out.key("at_ms", event.at_ms);
    out.key("every_ms", event.every_ms);
    out.key("do", quoted(event.action.word()));
    let Action::Client { target, action } = &event.action else { return };
    out.key("client", quoted(&target.written));
    match action {
        ClientAction::SetPriority(priority) => out.key("priority", quoted(priority.word())),
        ClientAction::SetWeight(weight) => out.key("weight", weight),
        ClientAction::Kill
        | ClientAction::Close
        | ClientAction::Start
        | ClientAction::Suspend
        | ClientAction::Resume => {}
    }
}

/// A string as TOML writes it.
fn quoted(text: &str) -> String {
    Value::String(text.to_owned()).to_string()
}

struct Lines(String);

impl Lines {
    fn line(&mut self, line: core::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = self.0.write_fmt(line);
        self.0.push('\n');
    }

    fn head(&mut self, head: &str) {
        self.line(format_args!("\n{head}"));
    }

    fn key(&mut self, key: &str, value: impl Display) {
        self.line(format_args!("{key} = {value}"));
    }

    fn key_or_note(&mut self, key: &str, value: Option<impl Display>, note: &str) {
        match value {
            Some(value) => self.key(key, value),
            None => self.line(format_args!("# {key}: {note}")),
        }
    }
}
