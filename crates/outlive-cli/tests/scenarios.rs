//! The scenarios that come with the command, in virtual time under each policy: they end well, nobody starves under the fair one,
//! and the figures are those that their comments speak of.

#![expect(clippy::unwrap_used, clippy::std_instead_of_alloc, reason = "a test: it has std, and fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

const POLICIES: [&str; 3] = ["fair", "fifo", "round-robin"];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scenarios")
}

/// All files, without those that are there to be large, and the one with a test of its own.
fn files() -> Vec<PathBuf> {
    let mut files = Vec::new();
    for folder in [folder(), folder().join("kunit")] {
        files.extend(fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()));
    }
    files.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    files.retain(|path| {
        !["million-jobs", "first-look", "free-running-63", "eviction"]
            .iter()
            .any(|large| path.file_stem().is_some_and(|stem| stem == *large))
    });
    files.sort();
    files
}

fn run(text: &str, policy: &str, arg: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("s.toml"), text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_outlive"));
    let args = ["run", "s.toml", "--clock", "virtual", "--policy", policy, arg];
    let output = command.current_dir(folder.path()).args(args).output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0), "{policy}: {stdout}");
    stdout
}

/// What a scenario comes to, or a beginning of it so long.
fn clients(text: &str, policy: &str, at_most_ms: u64) -> Vec<Client> {
    let line = text.lines().find(|line| line.starts_with("run_for_ms")).unwrap();
    let run_for_ms: u64 = line.split('=').nth(1).unwrap().trim().parse().unwrap();
    let text = text.replace(line, &format!("run_for_ms = {}", run_for_ms.min(at_most_ms)));
    let results: Value = serde_json::from_str(&run(&text, policy, "--json")).unwrap();
    assert_eq!(results["audit"]["violations"].as_array().map(Vec::len), Some(0));
    results["clients"].as_array().unwrap().iter().map(Client::of).collect()
}

/// What came of one client.
#[derive(Debug)]
struct Client {
    name: String,
    share: f64,
    ended_well: u64,
    failed: u64,
    longest_wait_us: u64,
    banned: bool,
}

impl Client {
    fn of(client: &Value) -> Self {
        let failed = client["failed"].as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum();
        Self {
            name: client["name"].as_str().unwrap().to_owned(),
            share: client["share"].as_f64().unwrap(),
            ended_well: client["finished_ok"].as_u64().unwrap(),
            failed,
            longest_wait_us: client["wait_us"]["max"].as_u64().unwrap_or(0),
            banned: client["banned"].as_bool().unwrap(),
        }
    }
}

fn kunit(number: usize) -> String {
    let path = files()
        .into_iter()
        .find(|path| path.file_name().unwrap().to_str().unwrap().starts_with(&format!("{number:02}-")));
    fs::read_to_string(path.unwrap()).unwrap()
}

#[test]
fn every_scenario_ends_well_under_each_policy() {
    let files = files();
    assert_eq!(files.iter().filter(|path| path.parent().unwrap().ends_with("kunit")).count(), 10);
    for path in files {
        let text = fs::read_to_string(&path).unwrap();
        for policy in POLICIES {
            let clients = clients(&text, policy, 250);
            let least = clients.iter().min_by(|one, other| one.share.total_cmp(&other.share)).unwrap();
            let longest = clients.iter().max_by_key(|client| client.longest_wait_us).unwrap();
            println!(
                "{:<28}{policy:<12} least {:.4} {}, longest wait {:.1} ms {}",
                path.file_stem().unwrap().display(),
                least.share,
                least.name,
                longest.longest_wait_us as f64 / 1000.0,
                longest.name
            );
            if policy == "fair" {
                assert!(clients.iter().all(|client| client.ended_well > 0), "{clients:#?}");
            }
            let may_fail = text.contains("fault =");
            assert!(may_fail || clients.iter().all(|client| client.failed == 0), "{clients:#?}");
        }
    }
}

/// The workloads of KUnit's suite for two clients. It has no thresholds; these are the fair policy's due, within 1.5 %.
#[test]
fn two_clients_share_as_their_priorities_say() {
    for (number, due) in [(1, 0.5), (2, 0.8), (3, 0.8), (4, 16.0 / 17.0)] {
        let fair = clients(&kunit(number), "fair", 1000);
        assert!((fair[0].share - due).abs() < 0.015, "{number}: {fair:?}");
        for policy in ["fifo", "round-robin"] {
            let other = clients(&kunit(number), policy, 1000);
            assert!((other[0].share - 0.5).abs() < 0.015, "{number}: {policy} knows no priority: {other:?}");
        }
    }
    // Each waits for its jobs, and the second falls into the pauses of the first, whatever the policy and the priority.
    for (number, policy) in [5, 6, 7].into_iter().flat_map(|number| POLICIES.map(|policy| (number, policy))) {
        let clients = clients(&kunit(number), policy, 1000);
        assert!(clients[0].longest_wait_us <= 2500 && clients[1].longest_wait_us <= 1500, "{number}: {clients:?}");
        assert!(clients[1].ended_well >= 198, "{number}: it has all it wants: {clients:?}");
    }
}

#[test]
fn who_wants_little_waits_for_one_job_at_most() {
    for (number, longest_us, cycles) in [(8, 2500, 70), (9, 2500, 85), (10, 50_000, 15)] {
        let fair = &clients(&kunit(number), "fair", 1000)[1];
        assert!(fair.longest_wait_us <= longest_us && fair.ended_well >= cycles, "{number}: {fair:?}");
    }
    // Which FIFO does not give it.
    let fifo = &clients(&kunit(8), "fifo", 1000)[1];
    assert!(fifo.longest_wait_us > 500_000 && fifo.ended_well < 10, "{fifo:?}");
}

#[test]
fn a_client_of_higher_priority_runs_within_one_job_though_63_hold_every_address_space_number() {
    const LONGEST_JOB_US: u64 = 7500;
    let text = fs::read_to_string(folder().join("free-running-63.toml")).unwrap();
    for policy in POLICIES {
        let scarce = clients(&text, policy, 240);
        let late = scarce.last().unwrap();
        assert_eq!((scarce.len(), late.name.as_str()), (64, "late.0"));
        // Those that hold the numbers do not wait for each other; it does, for a part of one job.
        assert!((1..=LONGEST_JOB_US).contains(&late.longest_wait_us), "{late:?}");
        assert!(late.ended_well >= 3, "{late:?}");
        for client in &scarce {
            assert!(client.longest_wait_us <= LONGEST_JOB_US && client.failed == 0, "{client:?}");
            assert!((client.share - 1.0 / 63.0).abs() < 0.002 || client.name == "late.0", "{client:?}");
        }
    }
    // With a number for everybody nobody waits.
    let plenty = clients(&text.replace("vm_ids = 63", "vm_ids = 64"), "fair", 240);
    assert!(plenty.iter().all(|client| client.longest_wait_us == 0), "{plenty:?}");
}

#[test]
fn who_hangs_too_often_is_banned_and_the_device_is_there_for_the_others() {
    let text = fs::read_to_string(folder().join("hang-storm.toml")).unwrap();
    let work = |clients: &[Client]| clients[6..].iter().map(|client| client.ended_well).sum::<u64>();
    let banned = clients(&text, "fair", 2000);
    assert!(banned[..6].iter().all(|client| client.banned && client.failed == 10), "{banned:#?}");
    assert!(banned[6..].iter().all(|client| !client.banned && client.failed == 0), "{banned:#?}");
    let never = clients(&text.replace("ban_after = 10", "ban_after = 0"), "fair", 2000);
    assert!(never[..6].iter().all(|client| !client.banned && client.failed > 15), "{never:#?}");
    assert!(work(&banned) > 3 * work(&never), "{banned:#?} {never:#?}");
    // So many in 100 ms is more than anybody manages.
    let slow = clients(&text.replace("ban_window_ms = 10000", "ban_window_ms = 100"), "fair", 2000);
    assert!(slow.iter().all(|client| !client.banned), "{slow:#?}");
}

#[test]
fn the_longest_wait_is_printed() {
    let table = run(&kunit(8), "fair", "--seed=1");
    assert!(table.contains("\nLongest wait of anybody: 970 ms, a.0\n"), "{table}");
}

/// The frames of a run, and its results.
fn drawn(text: &str) -> (BTreeMap<PathBuf, Vec<u8>>, Value) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("s.toml"), text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_outlive"));
    let args = ["run", "s.toml", "--clock", "virtual", "--json", "--frames", "frames"];
    let output = command.current_dir(folder.path()).args(args).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let frames = folder.path().join("frames");
    let mut drawn = BTreeMap::new();
    for client in fs::read_dir(&frames).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()) {
        for file in fs::read_dir(client).unwrap().map(|entry| entry.unwrap().path()) {
            // A sheet shows all of them, however many they were.
            if file.file_name().is_some_and(|name| name == "contact-sheet.png") {
                continue;
            }
            drawn.insert(file.strip_prefix(&frames).unwrap().to_owned(), fs::read(&file).unwrap());
        }
    }
    (drawn, serde_json::from_slice(&output.stdout).unwrap())
}

/// Each frame shows what frames before it left in buffers that were out of the device's memory meanwhile.
#[test]
fn with_half_the_memory_that_is_worked_on_the_pictures_are_the_same() {
    // A beginning of it, with less of all: frames take their time.
    let text = fs::read_to_string(folder().join("eviction.toml")).unwrap();
    let text = text.replace("run_for_ms = 2000", "run_for_ms = 60").replace("count = 4", "count = 2");
    let text = text.replace("working_set_kib = 4096", "working_set_kib = 3072");
    let (tight, results) = drawn(&text.replace("memory_mib = 8", "memory_mib = 3"));
    let (ample, other) = drawn(&text.replace("memory_mib = 8", "memory_mib = 64"));
    let sum = |results: &Value, key: &str| -> u64 {
        results["clients"].as_array().unwrap().iter().map(|client| client[key].as_u64().unwrap()).sum()
    };
    let moves = |results: &Value| (sum(results, "evictions"), sum(results, "restores"));
    let (evictions, restores) = moves(&results);
    assert!(restores > 20 && restores <= evictions, "{evictions} evictions, {restores} restores");
    assert_eq!(moves(&other), (0, 0));
    for audit in [&results["audit"], &other["audit"]] {
        assert_eq!((audit["stale_translations"].as_u64(), audit["bytes_leaked"].as_u64()), (Some(0), Some(0)));
    }
    // Who waits for memory may draw fewer.
    let both = tight.iter().filter_map(|(name, picture)| Some((name, picture, ample.get(name)?)));
    let differ: Vec<_> = both.clone().filter(|(_, picture, other)| picture != other).map(|(name, ..)| name).collect();
    assert!(differ.is_empty(), "{differ:?}");
    assert!(both.count() > 60, "{} frames and {}", tight.len(), ample.len());
}
