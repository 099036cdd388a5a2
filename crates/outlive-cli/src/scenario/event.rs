//! Reads one `[[event]]`. Called by `read`, once all clients are known.

use super::client::ReadClient;
use super::limits::{MS_MAX, WEIGHT_MAX};
use super::model::{Action, ClientAction, Event, Priority, Target};
use super::names;
use super::section::Section;
use crate::error::InputError;

/// The keys of an event, in the order of the contract.
pub(super) const KEYS: &[&str] = &["at_ms", "every_ms", "do", "client", "priority", "weight"];

/// What stands after `do`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Unplug,
    Reset,
    SetPriority,
    SetWeight,
    /// It needs nothing but a client.
    Plain(ClientAction),
}

const VERBS: &[(&str, Verb)] = &[
    ("kill", Verb::Plain(ClientAction::Kill)),
    ("close", Verb::Plain(ClientAction::Close)),
    ("start", Verb::Plain(ClientAction::Start)),
    ("unplug", Verb::Unplug),
    ("reset", Verb::Reset),
    ("suspend", Verb::Plain(ClientAction::Suspend)),
    ("resume", Verb::Plain(ClientAction::Resume)),
    ("set-priority", Verb::SetPriority),
    ("set-weight", Verb::SetWeight),
];

/// One event.
pub(super) fn read(section: &Section<'_>, clients: &[ReadClient]) -> Result<Event, InputError> {
    let at_ms = section.integer("at_ms", 0..=MS_MAX)?;
    let at_ms = section.required("at_ms", at_ms, "`at_ms`, when it happens")?;
    let every_ms = section.integer("every_ms", 0..=MS_MAX)?.unwrap_or(0);
    let verb = section.word("do", VERBS)?;
    let verb = section.required("do", verb, "`do`, what happens")?;
    check_keys(section, verb)?;
    let action = match verb {
        Verb::Unplug => Action::Unplug,
        Verb::Reset => Action::Reset,
        Verb::Plain(action) => Action::Client { target: target(section, clients)?, action },
        Verb::SetPriority => {
            let priority = section.word("priority", Priority::WORDS)?;
            let priority = section.required("priority", priority, "`priority`, which `set-priority` sets")?;
            let action = ClientAction::SetPriority(priority);
            Action::Client { target: target(section, clients)?, action }
        }
        Verb::SetWeight => {
            let weight = section.integer_u32("weight", 1..=WEIGHT_MAX)?;
            let weight = section.required("weight", weight, "`weight`, which `set-weight` sets")?;
            let action = ClientAction::SetWeight(weight);
            Action::Client { target: target(section, clients)?, action }
        }
    };
    Ok(Event { at_ms, every_ms, action })
}

/// A key that the verb has no use for is a mistake: its author expects something to happen.
fn check_keys(section: &Section<'_>, verb: Verb) -> Result<(), InputError> {
    let used = |key| match key {
        "client" => !matches!(verb, Verb::Unplug | Verb::Reset),
        "priority" => verb == Verb::SetPriority,
        _ => verb == Verb::SetWeight,
    };
    let word = VERBS.iter().find(|(_, known)| *known == verb).map_or("", |(word, _)| word);
    for key in ["client", "priority", "weight"] {
        if section.has(key) && !used(key) {
            let what = format!("`{key}` does not fit `do = \"{word}\"`");
            return Err(section.error(key, what, format!("no `{key}` here")));
        }
    }
    Ok(())
}

fn target(section: &Section<'_>, clients: &[ReadClient]) -> Result<Target, InputError> {
    let written = section.name("client")?;
    let written = section.required("client", written, "`client`, to whom it happens")?;
    match names::resolve(clients, &written, None) {
        Some(instance) => Ok(Target { written, instance }),
        None => Err(names::no_such_client(section, "client", &written, clients)),
    }
}
