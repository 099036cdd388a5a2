//! What the command prints when all is well, and what it says of parts that are not built.

use std::fs;
use std::process::{Command, Output};

fn outlive(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_outlive")).args(args).output().expect("the command starts")
}

fn stdout(args: &[&str]) -> String {
    let output = outlive(args);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty(), "{args:?}");
    String::from_utf8(output.stdout).expect("output is UTF-8")
}

/// Compares with `tests/golden/NAME`; with `OUTLIVE_BLESS` set, makes it so.
fn assert_golden(name: &str, printed: &str) {
    let path = format!("{}/tests/golden/{name}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("OUTLIVE_BLESS").is_some() {
        fs::write(&path, printed).expect("the golden file can be written");
    }
    let golden = fs::read_to_string(&path).expect("the golden file is there");
    assert_eq!(printed, golden, "{path} differs; look at it, then run again with OUTLIVE_BLESS=1");
}

#[test]
fn print_scenario_of_the_built_in_one() {
    assert_golden("first-look.toml", &stdout(&["run", "--print-scenario"]));
}

#[test]
fn print_scenario_of_a_file_with_overrides() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/every-key.in.toml");
    assert_golden("every-key.toml", &stdout(&["run", file, "--print-scenario"]));
    let printed = stdout(&["run", file, "--print-scenario", "--seed", "77", "--policy", "round-robin"]);
    assert!(printed.contains("\nseed = 77\n") && printed.contains("\npolicy = \"round-robin\"\n"), "{printed}");
}

#[test]
fn what_is_printed_is_a_scenario_that_prints_the_same() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let path = folder.path().join("printed.toml");
    let printed = stdout(&["--print-scenario"]);
    fs::write(&path, &printed).expect("the folder takes files");
    let path = path.to_str().expect("a path of the test");
    assert_eq!(stdout(&["run", path, "--print-scenario"]), printed);
    assert_eq!(stdout(&["run", path, "--check", "--quiet"]), "");
    assert!(stdout(&["run", path, "--check"]).contains("can run: 4 clients, 2 events, 10000 ms"));
}

#[test]
fn every_command_has_help_with_an_example() {
    for args in [
        &["--help"][..],
        &["run", "--help"],
        &["replay", "--help"],
        &["devices", "--help"],
        &["vm", "--help"],
        &["vm", "replay", "--help"],
    ] {
        let help = stdout(args);
        assert!(help.contains("Example") && help.contains("\n  outlive "), "{help}");
    }
    assert!(stdout(&["--version"]).starts_with("outlive 0."));
}

#[test]
fn devices_says_what_and_why_not() {
    let list = stdout(&["devices"]);
    let mut lines = list.lines();
    assert!(lines.next().is_some_and(|line| line.starts_with("sim ") && line.contains(" usable ")), "{list}");
    let vulkan = lines.next().unwrap_or_default();
    // Why not depends on the machine.
    assert!(vulkan.starts_with("vulkan") && vulkan.contains(" not usable "), "{list}");
}

#[test]
fn what_is_not_built_is_not_in_the_help_and_says_so() {
    let help = stdout(&["--help"]) + &stdout(&["run", "--help"]) + &stdout(&["replay", "--help"]);
    for command in ["serve", "client", "top", "torture", "explain", "trace"] {
        assert!(!help.lines().any(|line| line.trim_start().starts_with(command)), "{command} is in {help}");
        for args in [&[command][..], &[command, "--help"], &[command, "stats", "x"]] {
            let output = outlive(args);
            let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(2), "{args:?}");
            assert!(output.stdout.is_empty(), "{args:?}");
            assert_eq!(stderr, format!("outlive: `outlive {command}` is not built yet\n"));
        }
    }
    for args in
        [&["run", "--trace", "x.jsonl"][..], &["run", "--device", "vulkan:0"], &["replay", "t", "--trace", "x.jsonl"]]
    {
        let output = outlive(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("not built yet"), "{args:?}");
        assert!(!help.contains("--trace"), "{help}");
    }
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_outlive"))
        .args(["run", "--print-scenario"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("the command starts");
    drop(child.stdout.take());
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
}
