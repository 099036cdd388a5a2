//! Turns clients into instances and names into instances. Called by `read`, in the order of the functions here.
//!
//! An instance always carries an index. A bare name means the same index where the counts are equal, else `.0`; an event
//! stands alone, so to it a bare name means `.0`.

use std::collections::HashMap;

use super::client::ReadClient;
use super::model::{Client, Instance};
use super::section::Section;
use crate::error::InputError;

/// The most instances of a scenario: what people and tables can bear, and far below what overflows anything.
const INSTANCES_MAX: usize = 1 << 20;

/// No two instances have one name.
///
/// Beside a name used twice, that is a client called `a.0` beside one called `a`: nobody could tell which is meant.
pub(super) fn check_unique(sections: &[Section<'_>], clients: &[ReadClient]) -> Result<(), InputError> {
    let mut seen = HashMap::new();
    for (read, section) in clients.iter().zip(sections) {
        let name = read.client.name.as_str();
        if seen.insert(name, read.count).is_some() {
            return Err(section.error("name", format!("name `{name}` is used twice"), "a name of its own"));
        }
    }
    for (read, section) in clients.iter().zip(sections) {
        let name = read.client.name.as_str();
        let Some((owner, index)) = split_index(name) else { continue };
        if seen.get(owner).is_some_and(|count| index < *count) {
            let what = format!("name `{name}` is used twice: it is also an instance of `{owner}`");
            return Err(section.error("name", what, "a name of its own"));
        }
    }
    Ok(())
}

/// All instances, each with the one that it is after.
pub(super) fn expand(sections: &[Section<'_>], clients: &mut [ReadClient]) -> Result<Vec<Instance>, InputError> {
    let mut first = 0;
    for (read, section) in clients.iter_mut().zip(sections) {
        let end = usize::try_from(read.count).map_or(usize::MAX, |count| first + count);
        if end > INSTANCES_MAX {
            let what = format!("more than {INSTANCES_MAX} clients in all");
            return Err(section.error("count", what, "fewer"));
        }
        read.client.instances = first..end;
        first = end;
    }
    let mut instances = Vec::with_capacity(first);
    for (place, (read, section)) in clients.iter().zip(sections).enumerate() {
        let client = &read.client;
        for index in 0..read.count {
            let after = match &client.after {
                None => None,
                Some(other) => {
                    let found = resolve(clients, other, Some((read.count, index)));
                    Some(found.ok_or_else(|| no_such_client(section, "after", other, clients))?)
                }
            };
            instances.push(Instance { name: format!("{}.{index}", client.name), client: place, index, after });
        }
    }
    check_acyclic(sections, &instances)?;
    Ok(instances)
}

/// The instance called `written`. `own` is the count and index of whoever says it, if it is one of several alike.
pub(super) fn resolve(clients: &[ReadClient], written: &str, own: Option<(u32, u32)>) -> Option<usize> {
    let by_name = |name: &str| clients.iter().find(|read| read.client.name == name);
    if let Some(read) = by_name(written) {
        let same_index = own.filter(|(count, _)| *count == read.count).map_or(0, |(_, index)| index);
        return instance_at(&read.client, same_index);
    }
    let (owner, index) = split_index(written)?;
    instance_at(&by_name(owner)?.client, index)
}

/// The mistake that nobody is called `written`.
pub(super) fn no_such_client(section: &Section<'_>, key: &str, written: &str, clients: &[ReadClient]) -> InputError {
    const SHOWN_MAX: usize = 12;
    let mut expected = String::new();
    for read in clients.iter().take(SHOWN_MAX) {
        let joint = if expected.is_empty() { "one of " } else { ", " };
        let name = &read.client.name;
        expected.push_str(&match read.count {
            1 => format!("{joint}`{name}`"),
            count => format!("{joint}`{name}` (`{name}.0` to `{name}.{}`)", count - 1),
        });
    }
    if clients.is_empty() {
        expected.push_str("a client of this file, which has none");
    } else if clients.len() > SHOWN_MAX {
        expected.push_str(&format!(" and {} more", clients.len() - SHOWN_MAX));
    }
    section.error(key, format!("`{key}` is {written:?}, a client that does not exist"), expected)
}

/// Gives every member of a group the weight that any of them says.
pub(super) fn share_group_weights(sections: &[Section<'_>], clients: &mut [ReadClient]) -> Result<(), InputError> {
    let mut said: HashMap<String, (u32, String)> = HashMap::new();
    for (read, section) in clients.iter().zip(sections) {
        let (Some(group), Some(weight)) = (&read.client.group, read.group_weight) else { continue };
        let (agreed, who) = said.entry(group.clone()).or_insert_with(|| (weight, read.client.name.clone()));
        if *agreed != weight {
            let what = format!("`group_weight` of group `{group}` is {weight}");
            return Err(section.error("group_weight", what, format!("{agreed}, as client `{who}` says")));
        }
    }
    for read in clients {
        let agreed = read.client.group.as_ref().and_then(|group| said.get(group)).map(|(weight, _)| *weight);
        read.client.group_weight = agreed.or(read.group_weight).unwrap_or(100);
    }
    Ok(())
}

/// Each instance is after at most one other, so following them either ends or comes back.
fn check_acyclic(sections: &[Section<'_>], instances: &[Instance]) -> Result<(), InputError> {
    // The walk on which an instance was first met; 0 is never.
    let mut met = vec![0_usize; instances.len()];
    for start in 0..instances.len() {
        let walk = start + 1;
        let mut at = start;
        while met[at] == 0 {
            met[at] = walk;
            let Some(next) = instances[at].after else { break };
            if met[next] == walk {
                let mut circle = vec![instances[next].name.as_str()];
                let mut link = instances[next].after;
                while let Some(place) = link.filter(|place| *place != next && circle.len() < 8) {
                    circle.push(&instances[place].name);
                    link = instances[place].after;
                }
                let what = format!("cycle of `after`: {} wait for each other for ever", circle.join(", "));
                let what = if circle.len() == 1 { format!("`after`: {} waits for itself", circle[0]) } else { what };
                let section = &sections[instances[next].client];
                return Err(section.error("after", what, "clients that can start"));
            }
            at = next;
        }
    }
    Ok(())
}

fn instance_at(client: &Client, index: u32) -> Option<usize> {
    let place = client.instances.start.checked_add(usize::try_from(index).ok()?)?;
    (place < client.instances.end).then_some(place)
}

/// `a.3` is `a` and 3. An index has no sign and no leading zeros.
fn split_index(name: &str) -> Option<(&str, u32)> {
    let (owner, digits) = name.rsplit_once('.')?;
    let index: u32 = digits.parse().ok()?;
    (index.to_string() == digits).then_some((owner, index))
}
