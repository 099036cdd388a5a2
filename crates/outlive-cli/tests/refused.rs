//! Everything that the contract sends to exit 2, through the real command: one line on stderr that says where, what and
//! what instead; nothing on stdout; nothing written.

use std::fs;
use std::process::{Command, Output};

const HEAD: &str = "name = \"x\"\n[device]\nkind = \"sim\"\n";
const CLIENT: &str = "[[client]]\nname = \"a\"\nduration_us = 1000\n";

fn outlive(folder: &tempfile::TempDir, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_outlive"));
    command.args(args).current_dir(folder.path()).output().expect("the command starts")
}

/// The one line on stderr of a command that must be refused and leave no trace.
fn refusal(folder: &tempfile::TempDir, args: &[&str]) -> String {
    let files_before = fs::read_dir(folder.path()).expect("the folder is there").count();
    let output = outlive(folder, args);
    let stderr = String::from_utf8(output.stderr).expect("messages are UTF-8");
    assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
    assert!(output.stdout.is_empty(), "{args:?} printed {:?}", String::from_utf8_lossy(&output.stdout));
    assert!(stderr.ends_with('\n') && stderr.lines().count() == 1, "{args:?}: not one line: {stderr:?}");
    assert_eq!(fs::read_dir(folder.path()).expect("it still is").count(), files_before, "{args:?} wrote something");
    stderr.trim_end().to_owned()
}

/// Refused with `line`, and with a message that has each of `parts`. Checked, printed or run: the answer is the same.
fn refused(text: &str, line: usize, parts: &[&str]) {
    let folder = tempfile::tempdir().expect("a folder for the test");
    fs::write(folder.path().join("s.toml"), text).expect("the folder takes files");
    let message = refusal(&folder, &["run", "s.toml", "--check"]);
    assert!(message.starts_with(&format!("s.toml:{line}: ")), "not line {line}: {message}\n{text}");
    assert!(message.contains("; expected "), "{message}");
    for part in parts {
        assert!(message.contains(part), "no {part:?} in: {message}");
    }
    assert_eq!(refusal(&folder, &["run", "s.toml", "--print-scenario"]), message);
    assert_eq!(refusal(&folder, &["run", "s.toml"]), message);
    assert_eq!(refusal(&folder, &["s.toml", "--quiet"]), message);
}

fn refused_client(keys: &str, line: usize, parts: &[&str]) {
    refused(&format!("{HEAD}{CLIENT}{keys}"), line, parts);
}

fn refused_event(keys: &str, line: usize, parts: &[&str]) {
    refused(&format!("{HEAD}{CLIENT}[[event]]\n{keys}"), line, parts);
}

#[test]
fn what_is_not_toml() {
    refused("name = \"x\"\nseed = = 3\n", 2, &["not TOML"]);
    refused(&format!("{HEAD}engines = 1\nengines = 2\n"), 5, &["duplicate key"]);
    refused("name = \"x\n", 1, &["not TOML"]);
}

#[test]
fn an_unknown_key() {
    refused(&format!("nmae = 1\n{HEAD}"), 1, &["unknown key `nmae`", "`run_for_ms`"]);
    refused(&format!("{HEAD}engine = 1\n"), 4, &["unknown key `engine` in [device]", "`engines`"]);
    refused(&format!("{HEAD}[scheduler]\nmood = 1\n"), 5, &["unknown key `mood` in [scheduler]", "`mode`"]);
    refused_client("colour = 1\n", 7, &["unknown key `colour` in [[client]]; expected `name`, ", "`jitter`"]);
    refused_client("prority = \"high\"\n", 7, &["unknown key `prority` in [[client]]; expected `priority`, `name`, "]);
    refused_client(
        "fault = { evry = 1, kind = \"hang\" }\n",
        7,
        &["unknown key `evry` in `fault`", "`every` or `kind`"],
    );
    refused_event("at_ms = 1\ndo = \"reset\"\nwhen = 1\n", 10, &["unknown key `when` in [[event]]", "`at_ms`"]);
    refused(&format!("{HEAD}zz = 1\naa = 1\n"), 4, &["`zz`"]);
}

#[test]
fn a_wrong_type() {
    refused(&format!("seed = \"1\"\n{HEAD}"), 1, &["`seed` is a string", "an integer from 0"]);
    refused(&format!("run_for_ms = 1.5\n{HEAD}"), 1, &["`run_for_ms` is a float", "an integer"]);
    refused("name = 3\n", 1, &["`name` is an integer", "a string"]);
    refused("name = \"x\"\ndevice = 3\n", 2, &["`device` is an integer", "a table, [device]"]);
    refused(&format!("{HEAD}[client]\nname = \"a\"\n"), 4, &["`client` is a table", "[[client]]"]);
    refused(&format!("client = [1]\n{HEAD}"), 1, &["an element of `client` is an integer", "[[client]]"]);
    refused_client("sync = 1\n", 7, &["`sync` is an integer", "`true` or `false`"]);
    refused_client("jitter = \"much\"\n", 7, &["`jitter` is a string", "a number from 0.0 to 1.0"]);
    refused_client("priority = 1\n", 7, &["`priority` is an integer", "`realtime`, `high`, `normal` or `low`"]);
    refused_client("after = [\"a\"]\n", 7, &["`after` is an array", "a name"]);
    refused_client("fault = \"hang\"\n", 7, &["`fault` is a string", "a table"]);
    refused_client("start_ms = 2026-11-21\n", 7, &["`start_ms` is a date or time"]);
}

#[test]
fn a_word_that_means_nothing() {
    refused(&format!("{HEAD}[scheduler]\nmode = \"magic\"\n"), 5, &["\"magic\"", "`firmware` or `arbiter`"]);
    refused(&format!("{HEAD}[scheduler]\npolicy = \"Fair\"\n"), 5, &["\"Fair\"", "`fair`, `fifo` or `round-robin`"]);
    refused("name = \"x\"\ndevice.kind = \"abacus\"\n", 2, &["\"abacus\"", "`sim`"]);
    refused("name = \"x\"\ndevice.kind = \"vulkan\"\n", 2, &["not built yet", "`sim`"]);
    refused_client("work = \"mine\"\n", 7, &["\"mine\"", "`spin`, `fill`, `copy` or `gears`"]);
    refused_client("on_dependency_error = \"cry\"\n", 7, &["\"cry\"", "`fail` or `run`"]);
    refused_client("fault = { every = 1, kind = \"fire\" }\n", 7, &["\"fire\"", "`lost-completion`"]);
    refused_event("at_ms = 1\ndo = \"explode\"\n", 9, &["\"explode\"", "`kill`", "`set-weight`"]);
}

#[test]
fn a_number_out_of_range() {
    refused(&format!("seed = -1\n{HEAD}"), 1, &["`seed` is -1", "from 0 to"]);
    refused(&format!("submit_latency_us = 0\n{HEAD}"), 1, &["`submit_latency_us` is 0", "from 1"]);
    refused(&format!("seed = 99999999999999999999\n{HEAD}"), 1, &["99999999999999999999"]);
    refused(&format!("{HEAD}watchdog_ms = 10001\n"), 4, &["`watchdog_ms` is 10001", "1 to 10000"]);
    refused(&format!("{HEAD}watchdog_ms = 0\n"), 4, &["`watchdog_ms` is 0"]);
    refused(&format!("{HEAD}engines = 0\n"), 4, &["`engines` is 0", "from 1"]);
    refused(&format!("{HEAD}credits = 0\n"), 4, &["`credits` is 0", "from 1"]);
    refused(&format!("{HEAD}slice_us = 0\n"), 4, &["`slice_us` is 0"]);
    refused(&format!("{HEAD}memory_mib = 0\n"), 4, &["`memory_mib` is 0"]);
    refused(&format!("{HEAD}[scheduler]\nban_after = 33\n"), 5, &["`ban_after` is 33", "from 0 to 32"]);
    refused(&format!("{HEAD}[scheduler]\nban_window_ms = 0\n"), 5, &["`ban_window_ms` is 0", "from 1"]);
    refused_client("group_weight = 0\n", 7, &["`group_weight` is 0", "from 1 to 1000000"]);
    refused_client("weight = 1000001\n", 7, &["`weight` is 1000001", "from 1 to 1000000"]);
    refused_client("count = 0\n", 7, &["`count` is 0"]);
    refused_client("weight = 0\n", 7, &["`weight` is 0"]);
    refused_client("jobs_per_cycle = 0\n", 7, &["`jobs_per_cycle` is 0"]);
    refused_client("jitter = 1.5\n", 7, &["`jitter` is 1.5", "0.0 to 1.0"]);
    refused_client("jitter = nan\n", 7, &["`jitter` is nan"]);
    refused_client("jitter = -0.1\n", 7, &["`jitter` is -0.1"]);
    refused_client("fault = { every = 0, kind = \"hang\" }\n", 7, &["`every` is 0"]);
    refused_client("think_us = -5\n", 7, &["`think_us` is -5"]);
}

#[test]
fn address_space_numbers_that_cannot_be_leased() {
    let arbiter = "[scheduler]\nmode = \"arbiter\"\n";
    refused(&format!("{HEAD}vm_ids = 65\n{arbiter}{CLIENT}"), 4, &["`vm_ids` is 65", "an integer from 0 to 64"]);
    refused(&format!("{HEAD}vm_ids = 3\n{CLIENT}"), 4, &["`vm_ids` is 3 in firmware mode", "`mode = \"arbiter\"`"]);
}

#[test]
fn a_required_key_that_is_missing() {
    refused("device.kind = \"sim\"\n", 1, &["the file has no `name`"]);
    refused("name = \"x\"\n", 1, &["the file has no `device`", "[device]"]);
    refused("name = \"x\"\n[device]\n", 2, &["[device] has no `kind`", "`kind = \"sim\"`"]);
    refused(&format!("{HEAD}[[client]]\nduration_us = 1\n"), 4, &["[[client]] has no `name`"]);
    refused(&format!("{HEAD}{CLIENT}[[client]]\nname = \"b\"\n"), 7, &["[[client]] has no `duration_us`"]);
    refused_client("fault = { every = 2 }\n", 7, &["`fault` has no `kind`"]);
    refused_client("fault = { kind = \"hang\" }\n", 7, &["`fault` has no `every`"]);
    refused_event("do = \"reset\"\n", 7, &["[[event]] has no `at_ms`"]);
    refused_event("at_ms = 1\n", 7, &["[[event]] has no `do`"]);
    refused_event("at_ms = 1\ndo = \"kill\"\n", 7, &["[[event]] has no `client`"]);
    refused_event("at_ms = 1\ndo = \"set-priority\"\nclient = \"a\"\n", 7, &["no `priority`", "`set-priority`"]);
    refused_event("at_ms = 1\ndo = \"set-weight\"\nclient = \"a\"\n", 7, &["no `weight`", "`set-weight`"]);
}

#[test]
fn a_name_used_twice() {
    refused(&format!("{HEAD}{CLIENT}{CLIENT}"), 8, &["name `a` is used twice"]);
    let dotted = CLIENT.replace("\"a\"", "\"a.0\"");
    refused(&format!("{HEAD}{dotted}{CLIENT}"), 5, &["name `a.0` is used twice", "instance of `a`"]);
}

#[test]
fn a_name_that_is_none() {
    refused("name = \"\"\n", 1, &["`name` is \"\"", "not empty"]);
    refused(&format!("{HEAD}[[client]]\nname = \"a\\nb\"\n"), 5, &["`name` is \"a\\nb\"", "control characters"]);
}

#[test]
fn a_client_that_does_not_exist() {
    refused_client("after = \"b\"\n", 7, &["\"b\"", "does not exist", "one of `a`"]);
    refused_client("after = \"a.1\"\n", 7, &["\"a.1\"", "does not exist"]);
    refused_client("after = \"a.00\"\n", 7, &["\"a.00\"", "does not exist"]);
    refused_event("at_ms = 1\ndo = \"kill\"\nclient = \"a.1\"\n", 10, &["\"a.1\"", "does not exist"]);
    refused(&format!("{HEAD}[[event]]\nat_ms = 1\ndo = \"kill\"\nclient = \"a\"\n"), 7, &["which has none"]);
    let three = CLIENT.replace("\"a\"", "\"a\"\ncount = 3");
    refused(
        &format!("{HEAD}{three}[[event]]\nat_ms = 1\ndo = \"kill\"\nclient = \"a.3\"\n"),
        11,
        &["\"a.3\"", "`a` (`a.0` to `a.2`)"],
    );
}

#[test]
fn zero_credits_or_more_than_the_device_has() {
    refused_client("credits = 0\n", 7, &["`credits` is 0", "1 to 16"]);
    refused_client("credits = 17\n", 7, &["`credits` is 17", "1 to 16, the credits of the device"]);
    refused(&format!("{HEAD}credits = 4\n{CLIENT}credits = 5\n"), 8, &["`credits` is 5", "1 to 4"]);
}

#[test]
fn a_cycle_of_after() {
    refused_client("after = \"a\"\n", 7, &["a.0 waits for itself"]);
    let client =
        |name: &str, after: &str| format!("[[client]]\nname = \"{name}\"\nduration_us = 1\nafter = \"{after}\"\n");
    let circle = format!("{HEAD}{}{}{}", client("a", "b"), client("b", "c"), client("c", "a"));
    refused(&circle, 7, &["cycle of `after`", "a.0", "b.0", "c.0"]);
    let tail = format!("{HEAD}{}{}{}", client("a", "b"), client("b", "c"), client("c", "b"));
    refused(&tail, 11, &["cycle of `after`", "b.0", "c.0"]);
}

#[test]
fn a_loop_without_end() {
    refused_client("sync = false\n", 7, &["client `a` submits without end", "one of them"]);
    refused_client("depth = 0\nthink_us = 0\nsync = false\n", 9, &["submits without end"]);
}

#[test]
fn a_cycle_that_never_fits_the_depth() {
    refused_client("depth = 2\njobs_per_cycle = 3\n", 8, &["`jobs_per_cycle` is 3 and `depth` is 2"]);
}

#[test]
fn event_keys_that_do_not_fit() {
    refused_event("at_ms = 1\ndo = \"reset\"\nclient = \"a\"\n", 10, &["`client` does not fit `do = \"reset\"`"]);
    refused_event("at_ms = 1\ndo = \"unplug\"\nclient = \"a\"\n", 10, &["`client` does not fit `do = \"unplug\"`"]);
    refused_event("at_ms = 1\ndo = \"kill\"\nclient = \"a\"\nweight = 1\n", 11, &["`weight` does not fit"]);
    refused_event("at_ms = 1\ndo = \"kill\"\nclient = \"a\"\npriority = \"low\"\n", 11, &["`priority` does not fit"]);
    let both = "at_ms = 1\ndo = \"set-weight\"\nclient = \"a\"\nweight = 1\npriority = \"low\"\n";
    refused_event(both, 12, &["`priority` does not fit `do = \"set-weight\"`"]);
}

#[test]
fn members_that_disagree_about_their_group() {
    let member = |name: &str, weight: u32| {
        format!("[[client]]\nname = \"{name}\"\nduration_us = 1\ngroup = \"g\"\ngroup_weight = {weight}\n")
    };
    refused(&format!("{HEAD}{}{}", member("a", 1), member("b", 2)), 13, &["group `g` is 2", "1, as client `a` says"]);
}

#[test]
fn too_little_memory_for_everybodys_first_job() {
    let client = |count: u32, work: &str| format!("{CLIENT}count = {count}\nwork = \"{work}\"\n");
    refused(&format!("{HEAD}memory_mib = 1\n{}", client(6, "fill")), 4, &["1152 KiB", "at least 2"]);
    refused(&format!("{HEAD}memory_mib = 1\n{}", client(1, "gears")), 4, &["1 client needs 1152 KiB", "at least 2"]);
    refused(&format!("{HEAD}{}", client(4096, "spin")), 2, &["`memory_mib` is 256", "at least 768"]);
}

#[test]
fn a_working_set_that_is_none() {
    refused_client("working_set_kib = 100\n", 7, &["`working_set_kib` is 100", "a multiple of 64", "0 for none"]);
    refused_client("working_set_kib = -64\n", 7, &["`working_set_kib` is -64", "from 0 to 1048576"]);
    refused_client("working_set_kib = 1048640\n", 7, &["`working_set_kib` is 1048640", "from 0 to 1048576"]);
    refused_client("working_set_kib = \"64\"\n", 7, &["`working_set_kib` is a string", "an integer from 0"]);
    // Two of its buffers, of 1 MiB each, must be in memory at once.
    let large = format!("{HEAD}memory_mib = 2\n{CLIENT}working_set_kib = 65536\n");
    refused(&large, 4, &["`memory_mib` is 2", "1 client needs 2384 KiB", "at least 3"]);
    let all = format!("{HEAD}memory_mib = 64\n{CLIENT}count = 65536\nworking_set_kib = 1048576\n");
    refused(&all, 4, &["the working sets come to 67108864 MiB, but this machine has"]);
}

#[test]
fn a_file_that_cannot_be_read() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let message = refusal(&folder, &["run", "none.toml"]);
    assert!(message.starts_with("none.toml: cannot be read: "), "{message}");
    assert!(refusal(&folder, &["run", "."]).starts_with(".: cannot be read: "));
    assert!(refusal(&folder, &["run", "line\nbreak"]).starts_with("line\\nbreak: cannot be read"));
    fs::write(folder.path().join("latin.toml"), b"name = \"x\"\n# caf\xe9\n").expect("the folder takes files");
    let message = refusal(&folder, &["run", "latin.toml"]);
    assert!(message.starts_with("latin.toml:2: a byte that is not UTF-8; expected "), "{message}");
}

#[test]
fn bad_usage() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    for (args, part) in [
        (&["run", "--bogus"][..], "'--bogus'"),
        (&["--bogus"], "'--bogus'"),
        (&["run", "a.toml", "b.toml"], "b.toml"),
        (&["run", "--seed", "x"], "'x'"),
        (&["run", "--seed", "9223372036854775808"], "9223372036854775808"),
        (&["run", "--seed"], "--seed"),
        (&["run", "--policy", "magic"], "`fair`, `fifo` or `round-robin`"),
        (&["run", "--clock", "sun"], "`real` or `virtual`"),
        (&["run", "--check", "--print-scenario"], "--print-scenario"),
        (&["run", "--device", "abacus"], "expected `sim`"),
        (&["devices", "all"], "all"),
        (&["dvices"], "dvices"),
    ] {
        let message = refusal(&folder, args);
        assert!(message.contains(part), "{args:?}: {message}");
    }
}
