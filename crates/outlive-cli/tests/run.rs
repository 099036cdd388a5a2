//! `outlive run` from outside: what a scenario in virtual time comes to, what is written, and how it ends.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn command(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_outlive"));
    command.current_dir(folder).args(args);
    command
}

/// A folder with `scenario` in the file `s.toml`.
fn folder_with(scenario: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("s.toml"), scenario).unwrap();
    folder
}

fn head(run_for_ms: u64, device: &str) -> String {
    format!("name = \"test\"\nrun_for_ms = {run_for_ms}\n[device]\nkind = \"sim\"\n{device}\n")
}

fn client(name: &str, keys: &str) -> String {
    format!("[[client]]\nname = \"{name}\"\n{keys}\n")
}

fn event(at_ms: u64, what: &str, client: &str) -> String {
    format!("[[event]]\nat_ms = {at_ms}\ndo = \"{what}\"\nclient = \"{client}\"\n")
}

fn run(scenario: &str, args: &[&str]) -> Output {
    let folder = folder_with(scenario);
    command(folder.path(), &[&["run", "s.toml", "--clock", "virtual"], args].concat()).output().unwrap()
}

/// The results of a run that must end well.
fn results(scenario: &str) -> Value {
    let output = run(scenario, &["--json"]);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!((output.status.code(), stderr.as_str()), (Some(0), ""), "{text}");
    let results: Value = serde_json::from_str(&text).unwrap();
    for client in results["clients"].as_array().unwrap() {
        let failed: u64 = client["failed"].as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum();
        let submitted = client["finished_ok"].as_u64().unwrap() + failed;
        assert_eq!(client["submitted"].as_u64(), Some(submitted), "{client}");
    }
    results
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

#[test]
fn a_synchronous_client_takes_what_its_loop_says() {
    let scenario = head(100, "") + &client("a", "duration_us = 1000\nthink_us = 9000");
    let results = results(&scenario);
    let a = &results["clients"][0];
    // A cycle is 5 + 1000 + 9000 µs long, so the tenth begins before 100 ms are over and the eleventh after.
    assert_eq!((number(&a["submitted"]), number(&a["cycles"])), (10, 10));
    assert_eq!(number(&a["hardware_us"]), 10_000);
    assert_eq!(a["wait_us"], serde_json::json!({"p50": 0, "p99": 0, "max": 0}));
    assert_eq!(a["cycle_us"], serde_json::json!({"p50": 1000, "p99": 1000, "max": 1000}));
    assert_eq!(number(&results["elapsed_us"]), 100_000);
    let audit = &results["audit"];
    assert_eq!((number(&audit["fences_created"]), number(&audit["payloads_created"])), (30, 10));
}

#[test]
fn one_file_and_seed_give_the_same_bytes_and_two_seeds_do_not() {
    let scenario = head(50, "engines = 2")
        + &client("a", "count = 3\nduration_us = 900\nwork = \"copy\"\njitter = 0.3\ndepth = 3\nsync = false")
        + &client("b", "duration_us = 500\nafter = \"a\"\njitter = 0.1\nwork = \"fill\"")
        + &event(10, "kill", "a.1")
        + &event(20, "start", "a.1");
    let whole = |seed: &str| {
        let folder = folder_with(&scenario);
        let args = ["run", "s.toml", "--clock", "virtual", "--json", "--timeline", "t.svg", "--seed", seed];
        let output = command(folder.path(), &args).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        (output.stdout, fs::read(folder.path().join("t.svg")).unwrap())
    };
    let (one, again, other) = (whole("1"), whole("1"), whole("2"));
    assert!(one == again);
    assert!(one.0 != other.0 && one.1 != other.1);
}

#[test]
fn depth_and_memory_hold_a_client_back() {
    let deep = head(50, "credits = 64") + &client("a", "duration_us = 1000\nsync = false\ndepth = 4");
    let wait = &results(&deep)["clients"][0]["wait_us"];
    // Four outstanding, one of them on the only engine: the last of them waits for three.
    assert!((2900..=3000).contains(&number(&wait["max"])), "{wait}");

    // One MiB holds it and at most a few jobs; it submits endlessly, and waits for its own retirements.
    let short = head(50, "memory_mib = 1\ncredits = 64")
        + &client("a", "duration_us = 1000\nsync = false\nthink_us = 1\nwork = \"copy\"");
    let results = results(&short);
    let a = &results["clients"][0];
    assert_eq!(a["submitted"], a["finished_ok"]);
    let most_us = number(&a["wait_us"]["max"]);
    assert!(most_us > 4000 && most_us < 110_000, "{most_us}");
}

#[test]
fn who_is_killed_closed_and_started_again_is_one_client_in_the_figures() {
    let scenario = head(60, "credits = 4")
        + &client("a", "duration_us = 4000\nsync = false\ndepth = 3\njobs_per_cycle = 3")
        + &event(10, "kill", "a")
        + &event(20, "start", "a")
        + &event(30, "close", "a")
        + &event(40, "start", "a");
    let results = results(&scenario);
    let a = &results["clients"][0];
    assert_eq!(number(&a["incarnations"]), 3);
    // The killed one had two on the way, and the closed one finishes what is on the hardware.
    assert!(number(&a["failed"]["canceled"]) >= 2, "{a}");
    assert!(number(&a["finished_ok"]) >= 8, "{a}");
    assert_eq!(a["share"], serde_json::json!(1.0));
}

#[test]
fn each_fault_ends_in_its_own_column() {
    for (kind, column) in
        [("hang", "timed_out"), ("page-fault", "faulted"), ("error", "faulted"), ("lost-completion", "")]
    {
        let fault = format!("fault = {{ every = 5, kind = \"{kind}\" }}");
        let scenario = head(200, "").replace("[device]", "[scheduler]\ntimeout_ms = 10\n[device]")
            + &client("a", &format!("duration_us = 1000\nthink_us = 100\n{fault}"));
        let results = results(&scenario);
        let a = &results["clients"][0];
        let fifth = number(&a["submitted"]) / 5;
        assert!(fifth > 1, "{kind}: {a}");
        match column {
            "" => assert_eq!(a["finished_ok"], a["submitted"], "{kind}: {a}"),
            // What its client submits while a hung job is taken off the hardware may go with it.
            _ => assert_eq!(number(&a["failed"][column]), fifth, "{kind}: {a}"),
        }
    }
}

#[test]
fn who_is_banned_gets_nothing_in_however_often_it_comes_back() {
    let scenario = head(400, "").replace("[device]", "[scheduler]\ntimeout_ms = 5\nban_after = 3\n[device]")
        + &client("a", "duration_us = 1000\nfault = { every = 2, kind = \"hang\" }\ndepth = 4\nsync = false")
        + &client("b", "duration_us = 1000")
        + &event(10, "kill", "a")
        + &event(11, "start", "a")
        + &event(200, "start", "a");
    let results = results(&scenario);
    let [a, b] = [0, 1].map(|client| results["clients"][client].clone());
    assert_eq!((&a["banned"], &b["banned"]), (&Value::Bool(true), &Value::Bool(false)));
    assert_eq!((number(&a["failed"]["timed_out"]), number(&a["incarnations"])), (3, 2), "{a}");
    assert!(number(&b["finished_ok"]) > 300, "{b}");
}

#[test]
fn chained_jobs_fail_with_the_one_before_and_others_run() {
    let chain = |policy: &str| {
        let keys = "duration_us = 1000\njobs_per_cycle = 4\nchain = true\nfault = { every = 2, kind = \"error\" }";
        results(&(head(20, "") + &client("a", &format!("{keys}{policy}"))))["clients"][0].clone()
    };
    // The second of the first four fails, and everything behind it, without end.
    let fails = chain("");
    assert_eq!((number(&fails["finished_ok"]), number(&fails["failed"]["faulted"])), (1, 1));
    assert_eq!(number(&fails["failed"]["dependency"]), number(&fails["submitted"]) - 2);
    let runs = chain("\non_dependency_error = \"run\"");
    assert_eq!(number(&runs["failed"]["dependency"]), 0);
    assert_eq!(number(&runs["failed"]["faulted"]), number(&runs["submitted"]) / 2);
}

#[test]
fn a_cycle_waits_for_the_others_cycle_and_counts_what_never_comes_as_cancelled() {
    let follower = |policy: &str| client("b", &format!("duration_us = 100\nafter = \"a\"{policy}"));
    let leader = client("a", "duration_us = 1000\nthink_us = 1000");
    let together = results(&(head(100, "engines = 2") + &leader + &follower("")));
    let [a, b] = [0, 1].map(|client| together["clients"][client].clone());
    // Each of b's cycles starts when a's has finished: at most one more or less than a had.
    assert!(number(&a["cycles"]).abs_diff(number(&b["cycles"])) <= 1, "{a} {b}");
    assert_eq!(number(&b["finished_ok"]), number(&b["submitted"]));

    // With its leader dead every cycle is cancelled: those that mind fail, those that do not run alone.
    let death = event(50, "kill", "a");
    let minds = results(&(head(100, "engines = 2") + &leader + &follower("\non_dependency_error = \"fail\"") + &death));
    assert!(number(&minds["clients"][1]["failed"]["dependency"]) > 100, "{}", minds["clients"][1]);
    let runs = results(&(head(100, "engines = 2") + &leader + &follower("") + &death));
    assert!(number(&runs["clients"][1]["finished_ok"]) > 300, "{}", runs["clients"][1]);
}

#[test]
fn device_wide_events_reach_everybody() {
    let clients = client("a", "count = 3\nduration_us = 2000\nsync = false\ndepth = 3");
    let device = |at_ms, what| format!("[[event]]\nat_ms = {at_ms}\ndo = \"{what}\"\n");
    let reset = results(&(head(100, "engines = 2") + &clients + &device(31, "reset")));
    assert_eq!(number(&reset["resets"]), 1);
    let innocent: u64 = (0..3).map(|client| number(&reset["clients"][client]["failed"]["innocent"])).sum();
    assert!(innocent >= 2, "{reset}");
    assert!((0..3).all(|client| number(&reset["clients"][client]["finished_ok"]) > 10));

    let gone = results(&(head(100, "engines = 2") + &clients + &device(31, "unplug")));
    for client in 0..3 {
        let failed = &gone["clients"][client]["failed"];
        assert!((1..=3).contains(&number(&failed["device_lost"])), "{failed}");
    }
    // Nobody has anything left to do then.
    assert!((31_000..32_000).contains(&number(&gone["elapsed_us"])), "{}", gone["elapsed_us"]);
}

#[test]
fn who_is_suspended_gets_nothing_and_is_closed_at_the_end() {
    let clients = client("a", "duration_us = 1000") + &client("b", "duration_us = 1000");
    let pause = event(20, "suspend", "a") + &event(60, "resume", "a");
    let paused = results(&(head(100, "") + &clients + &pause));
    let [a, b] = [0, 1].map(|client| number(&paused["clients"][client]["hardware_us"]));
    assert!((28_000..34_000).contains(&a) && (66_000..72_000).contains(&b), "{a} {b}");
    let never = results(&(head(100, "") + &clients + &event(20, "suspend", "a")));
    assert_eq!(number(&never["clients"][0]["failed"]["canceled"]), 1);
}

#[test]
fn who_stops_ends_what_it_began() {
    let stops = client("a", "duration_us = 1000\nstop_ms = 10\njobs_per_cycle = 2\nstart_ms = 5");
    let results = results(&(head(1000, "") + &stops));
    let a = &results["clients"][0];
    assert_eq!(a["submitted"], a["finished_ok"]);
    assert_eq!(number(&a["submitted"]) % 2, 0);
    // And with nobody left the run is over.
    assert!((10_000..12_100).contains(&number(&results["elapsed_us"])), "{}", results["elapsed_us"]);
}

#[test]
fn pictures_are_written_where_asked_and_nowhere_else() {
    let gears = client("a", "work = \"gears\"\nduration_us = 5000\nfault = { every = 3, kind = \"error\" }");
    let folder = folder_with(&(head(20, "") + &gears));
    let args = ["run", "s.toml", "--clock", "virtual", "--frames", "out", "--timeline", "t.svg", "--quiet"];
    let output = command(folder.path(), &args).output().unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(0), 0));
    let mut names: Vec<_> =
        fs::read_dir(folder.path().join("out/a.0")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    // The third failed, so it is no picture.
    assert_eq!(names[..4], ["contact-sheet.png", "frame-000001.png", "frame-000002.png", "frame-000004.png"]);
    assert!(fs::read_to_string(folder.path().join("t.svg")).unwrap().starts_with("<svg"));

    let folder = folder_with(&(head(20, "") + &gears));
    assert_eq!(
        command(folder.path(), &["run", "s.toml", "--clock", "virtual"]).output().unwrap().status.code(),
        Some(0)
    );
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "a file that is given says where pictures go");
}

#[test]
fn what_cannot_be_is_refused_before_anything_is_done() {
    let plain = head(20, "") + &client("a", "duration_us = 1000");
    let folder = folder_with(&plain);
    fs::write(folder.path().join("file"), "").unwrap();
    let refused = |args: &[&str], expected: &str| {
        let output = command(folder.path(), &[&["run", "s.toml"], args].concat()).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), output.stdout.len(), stderr.lines().count()), (Some(2), 0, 1), "{stderr}");
        assert!(stderr.contains(expected), "{stderr}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    };
    refused(&["--frames", "file"], "`file`: cannot be written to");
    refused(&["--frames", "file/below"], "cannot be written to");
    refused(&["--timeline", "none/t.svg"], "cannot be written");
    refused(&["--frames", "new", "--timeline", "none/t.svg"], "cannot be written");
    refused(&["--timeline", "t.png"], "expected a file `.svg`");
    refused(&["--clock", "sand"], "expected `real` or `virtual`");
    refused(&["--device", "vulkan"], "not built yet");

    let large = plain.replace("kind = \"sim\"", "kind = \"sim\"\nmemory_mib = 1048576");
    fs::write(folder.path().join("s.toml"), large).unwrap();
    refused(&[], "s.toml:5: `memory_mib` is 1048576, but this machine has ");
}

#[test]
#[cfg(unix)]
fn an_interrupted_run_is_drained_first() {
    let endless = head(60_000, "") + &client("a", "duration_us = 20000\nsync = false\ndepth = 4");
    let folder = folder_with(&endless);
    let child = command(folder.path(), &["run", "s.toml", "--json"]).stdout(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(core::time::Duration::from_millis(500));
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    let results: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(results["interrupted"], true);
    let a = &results["clients"][0];
    assert_eq!(a["submitted"], a["finished_ok"], "what was committed ran out");
    assert!(number(&results["elapsed_us"]) < 30_000_000);
    assert_eq!(results["audit"]["violations"], serde_json::json!([]));
}

#[test]
fn real_time_comes_to_the_same_kind_of_end() {
    let scenario = head(400, "engines = 2\ncredits = 4").replace("[device]", "[scheduler]\ntimeout_ms = 30\n[device]")
        + &client("a", "duration_us = 2000\nsync = false\ndepth = 4\nwork = \"copy\"")
        + &client("b", "duration_us = 1000\nafter = \"a\"")
        + &client("h", "duration_us = 1000\nthink_us = 1000\nfault = { every = 20, kind = \"hang\" }")
        + &event(50, "kill", "a").replace("do =", "every_ms = 50\ndo =")
        + &event(60, "start", "a").replace("do =", "every_ms = 50\ndo =");
    let folder = folder_with(&scenario);
    let output = command(folder.path(), &["run", "s.toml", "--json"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    let results: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(results["clock"], "real");
    let elapsed_us = number(&results["elapsed_us"]);
    assert!((400_000..5_000_000).contains(&elapsed_us), "{elapsed_us}");
    let [a, b] = [0, 1].map(|client| results["clients"][client].clone());
    assert!(number(&a["incarnations"]) >= 4 && number(&a["finished_ok"]) > 10, "{a}");
    assert!(number(&b["finished_ok"]) > 10, "{b}");
}

#[test]
fn every_scenario_that_comes_with_the_project_can_run() {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../scenarios"));
    let kunit = folder.join("kunit");
    let files = [folder, &kunit].map(|folder| fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()));
    let mut scenarios = 0;
    for file in files.into_iter().flatten().filter(|file| file.extension().is_some_and(|extension| extension == "toml"))
    {
        let output = command(folder, &["run", "--check", file.to_str().unwrap()]).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}: {}", file.display(), String::from_utf8_lossy(&output.stderr));
        scenarios += 1;
    }
    assert!(scenarios >= 12);
}

#[test]
fn an_arbiter_shares_one_engine_by_weight_whatever_its_clients_do() {
    let arbiter = |policy: &str| {
        head(1000, "credits = 4").replace(
            "[device]",
            &format!("[scheduler]\nmode = \"arbiter\"\npolicy = \"{policy}\"\ntimeout_ms = 30\n[device]"),
        ) + &client("heavy", "duration_us = 3000\nsync = false\ndepth = 8\nweight = 300")
            + &client("light", "duration_us = 500\nsync = false\ndepth = 8")
            + &client("member", "count = 2\ngroup = \"g\"\nduration_us = 1000\nsync = false\ndepth = 8")
    };
    let share = |results: &Value, client: usize| results["clients"][client]["share"].as_f64().unwrap();
    let fair = results(&arbiter("fair"));
    // 300 : 100 : 100, the last of which two share. Credits times the longest job over the window is 1.2 %.
    for (client, due) in [(0, 0.6), (1, 0.2), (2, 0.1), (3, 0.1)] {
        assert!((share(&fair, client) - due).abs() < 0.013, "{}", fair["clients"]);
    }
    // One job of each in turn: whoever has longer jobs gets more.
    let turns = results(&arbiter("round-robin"));
    assert!((share(&turns, 0) - 3.0 / 5.5).abs() < 0.013, "{}", turns["clients"]);

    let trouble = arbiter("fair")
        + &client("hangs", "duration_us = 1000\nfault = { every = 10, kind = \"hang\" }")
        + &event(50, "kill", "light").replace("do =", "every_ms = 50\ndo =")
        + &event(60, "start", "light").replace("do =", "every_ms = 50\ndo =")
        + "[[event]]\nat_ms = 333\ndo = \"reset\"\n"
        + &event(500, "suspend", "heavy")
        + &event(700, "resume", "heavy")
        + &event(900, "close", "member.1");
    let troubled = results(&trouble);
    assert!(number(&troubled["clients"][4]["failed"]["timed_out"]) > 2, "{}", troubled["clients"][4]);
    assert!(number(&troubled["clients"][1]["incarnations"]) > 15);
}

#[test]
fn leased_address_space_numbers_come_back_whatever_happens_in_both_clocks() {
    let often = |event: String| event.replace("do =", "every_ms = 40\ndo =");
    let scenario = head(300, "engines = 3\ncredits = 6\nvm_ids = 2")
        .replace("[device]", "[scheduler]\nmode = \"arbiter\"\ntimeout_ms = 10\n[device]")
        + &client("a", "count = 3\nduration_us = 1500\nsync = false\ndepth = 4\nwork = \"copy\"\njitter = 0.5")
        + &client("b", "duration_us = 700\nafter = \"a\"")
        + &client("h", "duration_us = 1000\nfault = { every = 7, kind = \"hang\" }")
        + &client("f", "duration_us = 1000\nfault = { every = 5, kind = \"page-fault\" }")
        + &often(event(20, "kill", "a.0"))
        + &often(event(35, "start", "a.0"))
        + &often(event(25, "suspend", "a.1"))
        + &often(event(45, "resume", "a.1"))
        + &event(60, "close", "b")
        + &event(90, "start", "b")
        + &(event(100, "set-priority", "a.2") + "priority = \"high\"\n")
        + &(event(120, "set-weight", "a.1") + "weight = 300\n")
        + "[[event]]\nat_ms = 150\ndo = \"reset\"\n[[event]]\nat_ms = 280\ndo = \"unplug\"\n";
    let check = |results: &Value| {
        assert_eq!(results["audit"]["leases_leaked"], 0);
        let ended: Vec<u64> = (0..6).map(|client| number(&results["clients"][client]["finished_ok"])).collect();
        assert!(ended.iter().all(|jobs| *jobs > 5), "{ended:?}");
        let failed =
            |cause: &str| (0..6).map(|client| number(&results["clients"][client]["failed"][cause])).sum::<u64>();
        assert!(failed("timed_out") > 0 && failed("faulted") > 0 && failed("device_lost") > 0, "{results}");
    };
    check(&results(&scenario));
    let folder = folder_with(&scenario);
    let output = command(folder.path(), &["run", "s.toml", "--json"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    check(&serde_json::from_str(&text).unwrap());
}
