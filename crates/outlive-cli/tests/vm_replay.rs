//! `outlive vm replay` as it is run: what goes where, and with which exit code.

use std::fs;
use std::process::{Command, Output};

/// The contract's example, line by line.
const EXAMPLE: &str = "\
space 0x0 0x1000000000000          # base, length; once, first
page 0x1000                        # smallest page; default 0x1000
reserve 0x0 0x10000                # not mappable
bo a 0x400000                      # name, size
map 0x100000 0x3000 a 0x0          # va, length, bo, offset
map 0x200000 0x100000 sparse
map 0x300000 0x100000 a 0x0 repeat=0x1000
map 0x400000 0x1000 a 0x0 read-only
unmap 0x101000 0x1000
batch                              # what follows up to `end` is one plan: all or nothing
end
close-bo a                         # unmaps it everywhere; cannot fail
dump
";

fn replay(script: &str) -> Output {
    replay_with(script, &[])
}

fn replay_with(script: &str, arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().expect("a folder for the test");
    fs::write(folder.path().join("s.txt"), script).expect("the folder takes files");
    let mut command = Command::new(env!("CARGO_BIN_EXE_outlive"));
    let output = command.args(["vm", "replay", "s.txt"]).args(arguments).current_dir(folder.path()).output();
    assert_eq!(fs::read_dir(folder.path()).expect("the folder is there").count(), 1, "nothing is written");
    output.expect("the command starts")
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("output is UTF-8")
}

#[test]
fn the_contract_s_script() {
    let output = replay(EXAMPLE);
    assert_eq!((output.status.code(), text(output.stderr)), (Some(0), String::new()));
    let golden = include_str!("golden/vm-replay.jsonl");
    assert_eq!(text(output.stdout), golden);
}

#[test]
fn a_refused_line_is_printed_and_the_exit_code_is_1() {
    let output = replay(&format!("{EXAMPLE}map 0x0 0x1000 sparse\ndump\n"));
    assert_eq!((output.status.code(), text(output.stderr)), (Some(1), String::new()));
    let stdout = text(output.stdout);
    let lines: Vec<_> = stdout.lines().rev().take(2).collect();
    assert_eq!(lines[1], r#"{"line":14,"error":"0x0..=0xfff touches 0x0..=0xffff, which is reserved"}"#);
    assert!(lines[0].starts_with(r#"{"line":15,"mappings":[{"va":"0x200000""#), "{stdout}");
}

#[test]
fn a_line_that_cannot_be_read_is_exit_code_2_and_nothing_else_happens() {
    let output = replay(&format!("{EXAMPLE}map 0x0 0x1000 sprase\n"));
    assert_eq!((output.status.code(), text(output.stdout)), (Some(2), String::new()));
    assert_eq!(text(output.stderr), "s.txt:14: the line ends too early; expected an offset\n");
    let output = replay("space 0x0 0x1000\nmap 0x0 0x1000 \u{1b}[2J 0x0\n");
    assert_eq!(output.status.code(), Some(2));
    assert!(!text(output.stderr).contains('\u{1b}'), "a script cannot steer a terminal");
}

#[test]
fn bad_usage_and_files_that_are_not_there_are_exit_code_2() {
    for args in [&["vm"][..], &["vm", "replay"], &["vm", "replay", "none.txt"], &["vm", "play"], &["vm", "replay", "/"]]
    {
        let output = Command::new(env!("CARGO_BIN_EXE_outlive")).args(args).output().expect("the command starts");
        let stderr = text(output.stderr);
        assert_eq!((output.status.code(), stderr.lines().count()), (Some(2), 1), "{args:?}: {stderr}");
        assert!(output.stdout.is_empty(), "{args:?}");
    }
}

#[test]
fn a_hundred_thousand_lines_take_no_longer_than_they_must() {
    let maps: String = (0..100_000_u64).map(|page| format!("map {:#x} 0x1000 sparse\n", page * 0x2000)).collect();
    let output = replay(&format!("space 0x0 0x1000000000000\nbatch\n{maps}end\nunmap 0x0 0x20000000000\ndump\n"));
    assert_eq!(output.status.code(), Some(0));
    let stdout = text(output.stdout);
    assert_eq!(stdout.matches("\"op\":\"unmap\"").count(), 100_000);
    assert!(stdout.ends_with("\"mappings\":[]}\n"));
}

/// Of all lines printed, what the device holds.
fn page_tables(script: &str) -> Vec<String> {
    let output = replay_with(script, &["--page-tables"]);
    let stdout = text(output.stdout);
    stdout.lines().filter_map(|line| Some(line.split_once(r#""page_tables":"#)?.1.to_owned())).collect()
}

#[test]
fn a_simulated_device_follows_with_pages_as_large_as_may_be() {
    let script = "\
space 0x0 0x8000000000
bo a 0x600000
bo b 0x10000
map 0x200000 0x400000 a 0x0
dump
unmap 0x213000 0x1000
map 0x800000 0x20000 b 0x0 repeat=0x10000
dump
protect 0x400000 0x200000 read-only
map 0x213000 0x1000 a 0x13000
unmap 0x220000 0x1e0000
close-bo b
";
    let held = page_tables(script);
    assert_eq!(held.len(), 3, "two dumps, and the end");
    assert_eq!(held[0], r#"[{"va":"0x200000","len":"0x400000","page":"0x200000","bo":"a","offset":"0x0"}]}"#);
    let after = r#"[{"va":"0x200000","len":"0x10000","page":"0x10000","bo":"a","offset":"0x0"},{"va":"0x210000","len":"0x3000","page":"0x1000","bo":"a","offset":"0x10000"},{"va":"0x214000","len":"0xc000","page":"0x1000","bo":"a","offset":"0x14000"},{"va":"0x220000","len":"0x1e0000","page":"0x10000","bo":"a","offset":"0x20000"},{"va":"0x400000","len":"0x200000","page":"0x200000","bo":"a","offset":"0x200000"},{"va":"0x800000","len":"0x20000","page":"0x10000","bo":"b","offset":"0x0","repeat":"0x10000"}]}"#;
    assert_eq!(held[1], after);
    let end = r#"[{"va":"0x200000","len":"0x10000","page":"0x10000","bo":"a","offset":"0x0"},{"va":"0x210000","len":"0x10000","page":"0x1000","bo":"a","offset":"0x10000"},{"va":"0x400000","len":"0x200000","page":"0x200000","bo":"a","offset":"0x200000","read_only":true}]}"#;
    assert_eq!(held[2], end);
}

/// The contract's example has 48 bits of addresses, and so has the device: all of it can be mapped, sparse with the largest
/// entries, and split anywhere.
#[test]
fn all_of_48_bits_can_be_mapped() {
    let script = "\
space 0x0 0x1000000000000
bo a 0x400000
map 0x0 0x1000000000000 sparse
dump
map 0xffffffc00000 0x400000 a 0x0
unmap 0x8000000000 0x1000
protect 0x0 0x8000000000 read-only
";
    let held = page_tables(script);
    assert_eq!(held[0], r#"[{"va":"0x0","len":"0x1000000000000","page":"0x8000000000","bo":null,"offset":"0x0"}]}"#);
    let end = [
        r#"{"va":"0x0","len":"0x8000000000","page":"0x8000000000","bo":null,"offset":"0x0","read_only":true}"#,
        r#"{"va":"0x8000001000","len":"0xf000","page":"0x1000","bo":null,"offset":"0x0"}"#,
        r#"{"va":"0x8000010000","len":"0x1f0000","page":"0x10000","bo":null,"offset":"0x0"}"#,
        r#"{"va":"0x8000200000","len":"0x3fe00000","page":"0x200000","bo":null,"offset":"0x0"}"#,
        r#"{"va":"0x8040000000","len":"0x7fc0000000","page":"0x40000000","bo":null,"offset":"0x0"}"#,
        r#"{"va":"0x10000000000","len":"0xfe8000000000","page":"0x8000000000","bo":null,"offset":"0x0"}"#,
        r#"{"va":"0xff8000000000","len":"0x7fc0000000","page":"0x40000000","bo":null,"offset":"0x0"}"#,
        r#"{"va":"0xffffc0000000","len":"0x3fc00000","page":"0x200000","bo":null,"offset":"0x0"}"#,
        r#"{"va":"0xffffffc00000","len":"0x400000","page":"0x200000","bo":"a","offset":"0x0"}"#,
    ];
    assert_eq!(held[1], format!("[{}]}}", end.join(",")));
}

/// The script that comes with the command, whose lines the README shows.
#[test]
fn the_script_of_a_sparse_texture() {
    let output = replay_with(include_str!("../../../scenarios/vm/sparse-texture.txt"), &["--page-tables"]);
    assert_eq!((output.status.code(), text(output.stderr)), (Some(0), String::new()));
    let golden = include_str!("golden/vm-sparse-texture.jsonl");
    assert_eq!(text(output.stdout), golden);
    let readme = include_str!("../../../README.md");
    for shown in readme.lines().filter(|line| line.starts_with("{\"line\":")) {
        assert!(golden.lines().any(|line| line == shown), "the README shows {shown}");
    }
    assert_eq!(readme.matches("\n{\"line\":").count(), 2);
}

/// What the device cannot do is refused; what the command prints without it stays the same.
#[test]
fn what_the_simulated_device_cannot_hold_is_refused() {
    for (space, why) in [
        (
            "space 0x0 0x1000000001000",
            "the simulated device's page tables reach addresses below 0x1000000000000, and the space ends at 0x1000000000fff",
        ),
        ("space 0x0 0x1000\npage 0x800", "the simulated device's smallest page is 0x1000, not 0x800"),
    ] {
        let output = replay_with(space, &["--page-tables"]);
        let stdout = text(output.stdout);
        assert!(output.status.code() == Some(1) && stdout.contains(why), "{stdout}");
    }
    let without = text(replay(EXAMPLE).stdout);
    let with = text(replay_with(EXAMPLE, &["--page-tables"]).stdout);
    let steps: Vec<_> = with.lines().filter(|line| !line.contains("page_tables")).collect();
    assert_eq!(steps, without.lines().collect::<Vec<_>>());
}
