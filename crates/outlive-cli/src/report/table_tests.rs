//! How the report looks. The numbers are made up.

use super::*;
use crate::report::Audit;
use crate::report::style::Color;

fn client(name: &str, group: Option<&str>, canceled: u64) -> ClientResult {
    let times = Percentiles { p50: Some(12), p99: Some(912_345), max: Some(1_020_000) };
    ClientResult {
        name: name.to_owned(),
        group: group.map(str::to_owned),
        priority: "realtime".to_owned(),
        weight: 100,
        incarnations: 1 + canceled,
        banned: false,
        submitted: 123_456,
        cycles: 200,
        finished_ok: 123_456 - canceled,
        failed: Failed { canceled, timed_out: canceled, innocent: canceled, ..Failed::default() },
        hardware_us: 12_345_678,
        share: 1.0,
        wait_us: times,
        cycle_us: if canceled > 0 { Percentiles::default() } else { times },
        evictions: 0,
        restores: 0,
    }
}

fn results() -> Results {
    Results {
        schema: 1,
        version: "0.1.0".to_owned(),
        scenario: "desktop and batch".to_owned(),
        device: "sim".to_owned(),
        device_name: "simulated GPU, 2 engines".to_owned(),
        clock: "virtual".to_owned(),
        mode: "arbiter".to_owned(),
        policy: "round-robin".to_owned(),
        seed: 1,
        replay: None,
        interrupted: false,
        elapsed_us: 2_000_123,
        device_busy: 0.97,
        resets: 1,
        clients: vec![
            client("desktop.0", Some("seat"), 0),
            client("batch.0", None, 7),
            client("mirror.0", Some("seat"), 0),
            client("a client with a long name.12", None, 0),
        ],
        groups: vec![GroupResult { name: "seat".to_owned(), hardware_us: 199_000, share: 0.1 }],
        audit: Audit { fences_created: 601, fences_signaled: 601, ..Audit::default() },
    }
}

const fn plain(width: usize) -> Style {
    Style { width, color: Color::Plain }
}

#[test]
fn no_line_is_wider_than_asked_for() {
    let mut results = results();
    results.audit.add_violation("a violation that takes a good many words to tell, ".repeat(6));
    for width in [80, 100, 110, 120, 200] {
        for line in render(&results, plain(width)).lines() {
            assert!(line.chars().count() <= width, "{} at {width}: {line}", line.chars().count());
        }
    }
}

#[test]
fn members_stand_below_their_group() {
    let text = render(&results(), plain(80));
    let rows: Vec<_> = text.lines().skip_while(|line| !line.starts_with('─')).skip(1).take(4).collect();
    for (row, start) in rows.iter().zip(["seat  ", "  desktop.0 ", "  mirror.0 ", "batch.0 "]) {
        assert!(row.starts_with(start), "{row} is not {start}\n{text}");
    }
}

#[test]
fn what_failed_is_said_in_words() {
    let text = render(&results(), plain(120));
    assert!(text.contains("7 canceled, 7 timed out, 7 lost to a reset for another's sake, started 8"), "{text}");
    assert!(text.contains("Audit: clean\n"), "{text}");
    assert!(text.contains("601 fences: each signaled once and in order."), "{text}");
    assert!(!text.contains('\u{1b}'));
}

#[test]
fn a_failed_audit_says_what_and_colours_it() {
    let mut results = results();
    results.audit.bytes_leaked = 4096;
    results.audit.fences_signaled = 600;
    results.audit.add_violation("payload of batch.0 job 3 is still there");
    let text = render(&results, Style { width: 100, color: Color::Ansi });
    assert!(text.contains("\u{1b}[1;31mFAILED"), "{text}");
    assert!(text.contains("x 4,096 bytes of memory leaked."), "{text}");
    assert!(text.contains("x 601 fences, 600 signaled"), "{text}");
    assert!(text.contains("x payload of batch.0 job 3"), "{text}");
}

#[test]
fn too_many_clients_are_counted() {
    let mut results = results();
    results.clients = (0..1000).map(|number| client(&format!("c.{number}"), None, 1)).collect();
    let text = render(&results, plain(120));
    assert!(text.contains("... and 952 more clients; `--json` has them all"), "{text}");
    assert!(text.lines().count() < 130);
}
