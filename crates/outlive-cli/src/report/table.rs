//! Results for people: a table of clients, what failed, and the audit in plain words. Used by `outlive run`.

use comfy_table::{Cell, CellAlignment, ContentArrangement, LineStyle, Row, Table, TableStyle};

use super::results::{ClientResult, Failed, GroupResult, Percentiles, Replay, Results};
use super::style::{BOLD, Style};
use super::verdict;
use super::words::{counted, duration, grouped, percent, shortened, wrapped};

/// More clients than anybody reads are counted, not shown.
const CLIENTS_SHOWN_MAX: usize = 48;

/// The whole report, with a line break at the end.
#[must_use]
pub fn render(results: &Results, style: Style) -> String {
    let mut text = head(results, style);
    text.push('\n');
    text.push_str(&clients(results, style));
    text.push_str(&longest_wait(results));
    text.push_str(&moves(results, style));
    text.push_str(&failures(results, style));
    text.push_str(&verdict::render(&results.audit, style));
    text
}

fn head(results: &Results, style: Style) -> String {
    let chooser = match results.mode.as_str() {
        "firmware" => "scheduled by firmware".to_owned(),
        mode => format!("{mode}, {}", results.policy),
    };
    let chosen = format!(
        "{} on {}, {} clock, {chooser}, seed {}",
        duration(results.elapsed_us),
        results.device_name,
        results.clock,
        results.seed,
    );
    let went = format!(
        "hardware {} busy, {}{}",
        percent(results.device_busy),
        counted(results.resets, "reset"),
        if results.interrupted { "; interrupted" } else { "" },
    );
    let replayed = results.replay.as_ref().map(|replay| replayed(replay, results.clients.len(), style));
    let [chosen, went] = [chosen, went].map(|facts| wrapped("", &facts, style.text_width()));
    format!("{}\n{chosen}\n{went}\n{}", style.paint(&results.scenario, BOLD), replayed.unwrap_or_default())
}

/// What was replayed, and what was assumed of it.
fn replayed(replay: &Replay, clients: usize, style: Style) -> String {
    let Replay { format, requests, bad_rows, speed, assumption, .. } = replay;
    let mut facts = format!("{} ({format})", counted(*requests, "request"));
    if *bad_rows > 0 {
        facts += &format!(", {} left out", counted(*bad_rows, "bad row"));
    }
    // CAST: usize to u64 only widens where this runs.
    let clients = counted(clients as u64, "client");
    facts += &match *speed {
        1.0 => format!(", as they came, to {clients} in turn"),
        _ => format!(", {speed} times as fast as they came, to {clients} in turn"),
    };
    format!("{}\n{}\n", wrapped("", &facts, style.text_width()), wrapped("", assumption, style.text_width()))
}

/// Members stand below their group, which stands where its first member would.
fn clients(results: &Results, style: Style) -> String {
    let mut table = Table::new();
    table
        .set_content_arrangement(ContentArrangement::Disabled)
        .load_style(TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─')));
    // A trace's cycles are its requests.
    table.set_header(header(style, if results.replay.is_some() { "request\nmedian" } else { "cycle\nmedian" }));
    let mut shown = 0;
    let mut groups_shown: Vec<&str> = Vec::new();
    for client in &results.clients {
        let members: Vec<_> = match client.group.as_deref() {
            Some(group) if groups_shown.contains(&group) => continue,
            Some(group) => {
                groups_shown.push(group);
                if shown < CLIENTS_SHOWN_MAX {
                    let found = results.groups.iter().find(|result| result.name == group);
                    table.add_row_if(
                        |_, _| found.is_some(),
                        found.map(|found| group_row(found, style)).unwrap_or_default(),
                    );
                }
                results.clients.iter().filter(|other| other.group.as_deref() == Some(group)).collect()
            }
            None => vec![client],
        };
        for member in members {
            if shown < CLIENTS_SHOWN_MAX {
                table.add_row(client_row(member, style));
            }
            shown += 1;
        }
    }
    for (place, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 1));
        if place > usize::from(style.is_wide()) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let header_lines = 2;
    let mut text = String::new();
    for (place, line) in table.lines().enumerate() {
        let line = line.trim_end();
        text.push_str(&if place < header_lines { style.paint(line, BOLD) } else { line.to_owned() });
        text.push('\n');
    }
    if shown > CLIENTS_SHOWN_MAX {
        let more = u64::try_from(shown - CLIENTS_SHOWN_MAX).unwrap_or(u64::MAX);
        text.push_str(&format!("... and {}; `--json` has them all\n", counted(more, "more client")));
    }
    text
}

/// Whom the hardware kept waiting most, which a table of many clients hides.
fn longest_wait(results: &Results) -> String {
    let waits = results.clients.iter().filter_map(|client| Some((client.wait_us.max?, client.name.as_str())));
    // Of several the first.
    let Some((us, name)) = waits.reduce(|one, other| if other.0 > one.0 { other } else { one }) else {
        return String::new();
    };
    format!("\nLongest wait of anybody: {}, {name}\n", duration(us))
}

fn header(style: Style, cycle: &'static str) -> Vec<&'static str> {
    if style.is_wide() {
        vec![
            "\nclient",
            "\npriority",
            "\nweight",
            "\njobs",
            "\nfailed",
            "device\ntime",
            "\nshare",
            "wait\nmedian",
            "\n99 %",
            "\nmax",
            cycle,
            "\n99 %",
            "\nmax",
        ]
    } else {
        vec!["\nclient", "\njobs", "\nfailed", "device\ntime", "\nshare", "wait\nmedian", "\n99 %", cycle, "\n99 %"]
    }
}

fn client_row(client: &ClientResult, style: Style) -> Row {
    let indent = if client.group.is_some() { "  " } else { "" };
    let name_width = style.name_width();
    let mut cells = vec![shortened(&format!("{indent}{}", client.name), name_width)];
    if style.is_wide() {
        cells.extend([client.priority.clone(), grouped(client.weight.into())]);
    }
    cells.extend([
        grouped(client.submitted),
        grouped(client.failed.sum()),
        compact(&duration(client.hardware_us)),
        compact(&percent(client.share)),
    ]);
    let time = |us: Option<u64>| us.map_or_else(|| "-".to_owned(), |us| compact(&duration(us)));
    for Percentiles { p50, p99, max } in [client.wait_us, client.cycle_us] {
        cells.extend([time(p50), time(p99)]);
        if style.is_wide() {
            cells.push(time(max));
        }
    }
    Row::from(cells.into_iter().map(Cell::new).collect::<Vec<_>>())
}

fn group_row(group: &GroupResult, style: Style) -> Row {
    let name_width = style.name_width();
    let mut cells = vec![shortened(&group.name, name_width)];
    cells.extend(vec![String::new(); if style.is_wide() { 4 } else { 2 }]);
    cells.extend([compact(&duration(group.hardware_us)), compact(&percent(group.share))]);
    cells.extend(vec![String::new(); if style.is_wide() { 6 } else { 4 }]);
    Row::from(cells.into_iter().map(Cell::new).collect::<Vec<_>>())
}

/// A number and its unit as one word, to save room.
fn compact(text: &str) -> String {
    text.replace(' ', "")
}

/// Whose persistent buffers did not stay in the device's memory.
fn moves(results: &Results, style: Style) -> String {
    let name_width = style.name_width();
    let moved: Vec<_> = results.clients.iter().filter(|client| client.evictions + client.restores > 0).collect();
    let mut lines = String::new();
    for client in moved.iter().take(CLIENTS_SHOWN_MAX) {
        let facts = format!("{} evicted, {} restored", grouped(client.evictions), grouped(client.restores));
        let name = shortened(&client.name, name_width);
        lines.push_str(&wrapped(&format!("  {name:<name_width$}  "), &facts, style.text_width()));
        lines.push('\n');
    }
    if lines.is_empty() {
        return lines;
    }
    if moved.len() > CLIENTS_SHOWN_MAX {
        // CAST: usize to u64 only widens where this runs.
        let more = (moved.len() - CLIENTS_SHOWN_MAX) as u64;
        lines.push_str(&format!("  ... and {}\n", counted(more, "more client")));
    }
    format!("\n{}\n{lines}", style.paint("Out of the device's memory, and back", BOLD))
}

/// Whose jobs failed, and why.
fn failures(results: &Results, style: Style) -> String {
    let name_width = style.name_width();
    let mut lines = String::new();
    let mut more = 0;
    for client in &results.clients {
        let mut facts = causes(&client.failed);
        if client.incarnations > 1 {
            facts.push(format!("started {} times", grouped(client.incarnations)));
        }
        if client.banned {
            facts.push("banned".to_owned());
        }
        if facts.is_empty() {
            continue;
        }
        if lines.lines().count() >= CLIENTS_SHOWN_MAX {
            more += 1;
            continue;
        }
        let name = shortened(&client.name, name_width);
        lines.push_str(&wrapped(&format!("  {name:<name_width$}  "), &facts.join(", "), style.text_width()));
        lines.push('\n');
    }
    if lines.is_empty() {
        return String::new();
    }
    if more > 0 {
        lines.push_str(&format!("  ... and {}\n", counted(more, "more client")));
    }
    format!("\n{}\n{lines}", style.paint("Not all went well", BOLD))
}

fn causes(failed: &Failed) -> Vec<String> {
    let causes = [
        (failed.canceled, "canceled"),
        (failed.timed_out, "timed out"),
        (failed.faulted, "faulted"),
        (failed.dependency, "failed with what they depend on"),
        (failed.innocent, "lost to a reset for another's sake"),
        (failed.device_lost, "lost with the device"),
    ];
    causes.iter().filter(|(count, _)| *count > 0).map(|(count, cause)| format!("{} {cause}", grouped(*count))).collect()
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
