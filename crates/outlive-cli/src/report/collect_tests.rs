//! Results against numbers worked out by hand.

use super::*;
use crate::report::Stretch;

const MS: u64 = NS_PER_MS;

fn scenario(clients: &str) -> Scenario {
    let text = format!("name = \"t\"\nrun_for_ms = 100\ndevice = {{ kind = \"sim\", engines = 2 }}\n{clients}");
    Scenario::parse("t.toml", &text).unwrap()
}

fn facts(elapsed_ms: u64) -> RunFacts {
    RunFacts {
        device_name: "a test".to_owned(),
        clock: Clock::Virtual,
        elapsed_ns: elapsed_ms * MS,
        resets: 0,
        interrupted: false,
        replayed: false,
        audit: Audit::default(),
    }
}

/// A job that was ready when committed and had an engine once; times in milliseconds.
fn job(instance: usize, cycle: u64, committed: u64, from: u64, to: u64) -> JobRecord {
    JobRecord {
        instance,
        cycle,
        cycle_jobs: 1,
        committed_ns: committed * MS,
        ready_ns: Some(committed * MS),
        stretches: vec![Stretch { engine: 0, from_ns: from * MS, to_ns: to * MS }],
        finished_ns: to * MS,
        outcome: Outcome::Ok,
    }
}

#[test]
fn shares_count_only_while_the_client_lived() {
    let scenario = scenario(
        "[[client]]\nname = \"a\"\nduration_us = 1
         [[client]]\nname = \"b\"\nduration_us = 1\nstop_ms = 50",
    );
    let mut collector = Collector::new(&scenario);
    collector.client_came(0, 0);
    collector.client_came(1, 20 * MS);
    collector.job(&job(0, 0, 0, 0, 40));
    collector.job(&job(1, 0, 20, 40, 60));
    collector.job(&job(0, 1, 0, 60, 110));
    let results = collector.finish(facts(110));
    // a: until 100 it had 40 + 40 of 40 + 20 + 40.
    assert_eq!(results.clients[0].share, 0.8);
    // b: from 20 to its stop at 50 it had 10 of 20 + 10.
    assert_eq!(results.clients[1].share, 0.333_333);
    // Not cut: 40 + 50 and 20, on two engines for 110.
    assert_eq!((results.clients[0].hardware_us, results.clients[1].hardware_us), (90_000, 20_000));
    assert_eq!(results.device_busy, 0.5);
}

#[test]
fn a_replays_clients_live_until_their_last_job_is_done() {
    let scenario = scenario("[[client]]\nname = \"a\"\nduration_us = 1\ncount = 2");
    let mut collector = Collector::new(&scenario);
    for client in 0..2 {
        collector.client_came(client, 0);
    }
    collector.job(&job(0, 0, 0, 0, 150));
    collector.job(&job(1, 0, 0, 150, 200));
    collector.job(&job(0, 1, 0, 200, 250));
    let results = collector.finish(RunFacts { replayed: true, ..facts(250) });
    assert_eq!((results.clients[0].share, results.clients[1].share), (0.8, 0.25), "of 250, and of 200");
}

#[test]
fn shares_are_summed_over_incarnations() {
    let scenario = scenario(
        "[[client]]\nname = \"a\"\nduration_us = 1
         [[client]]\nname = \"b\"\nduration_us = 1",
    );
    let mut collector = Collector::new(&scenario);
    collector.client_came(0, 0);
    collector.client_came(1, 0);
    collector.client_left(0, 10 * MS);
    collector.client_came(0, 30 * MS);
    collector.client_left(0, 40 * MS);
    // Killed with a job on the hardware that runs until 15, which is cut at 10.
    let killed = JobRecord { outcome: Outcome::Canceled, ..job(0, 0, 0, 5, 15) };
    collector.job(&killed);
    collector.job(&job(1, 0, 0, 0, 100));
    collector.job(&job(0, 1, 30, 30, 35));
    let results = collector.finish(facts(100));
    // a had 5 + 5 of (10 + 5) + (10 + 5).
    assert_eq!((results.clients[0].share, results.clients[0].incarnations), (0.333_333, 2));
    // b had all its 100 of 100 + 10 + 5.
    assert_eq!(results.clients[1].share, 0.869_565);
    assert_eq!(results.clients[0].failed, Failed { canceled: 1, ..Failed::default() });
    assert_eq!((results.clients[0].submitted, results.clients[0].finished_ok), (2, 1));
}

#[test]
fn a_group_lives_while_any_member_does() {
    let scenario = scenario(
        "[[client]]\nname = \"a\"\nduration_us = 1\ngroup = \"g\"\nstop_ms = 20
         [[client]]\nname = \"b\"\nduration_us = 1\ngroup = \"g\"\nstop_ms = 40
         [[client]]\nname = \"c\"\nduration_us = 1\ngroup = \"h\"",
    );
    let mut collector = Collector::new(&scenario);
    for instance in 0..3 {
        collector.client_came(instance, 0);
    }
    collector.job(&job(0, 0, 0, 0, 20));
    collector.job(&job(1, 0, 0, 20, 50));
    collector.job(&job(2, 0, 0, 0, 100));
    let results = collector.finish(facts(100));
    // g: until 40, 20 + 20 of 80. h: 100 of 150.
    let groups: Vec<_> = results.groups.iter().map(|g| (g.name.as_str(), g.hardware_us, g.share)).collect();
    assert_eq!(groups, [("g", 50_000, 0.5), ("h", 100_000, 0.666_667)]);
}

#[test]
fn waits_are_from_ready_to_start_over_jobs_that_started() {
    let scenario = scenario("[[client]]\nname = \"a\"\nduration_us = 1");
    let mut collector = Collector::new(&scenario);
    collector.client_came(0, 0);
    // Committed at 1, ready at 3, started at 7.
    collector.job(&JobRecord { ready_ns: Some(3 * MS), ..job(0, 0, 1, 7, 8) });
    collector.job(&job(0, 1, 10, 11, 12));
    collector.job(&JobRecord { stretches: Vec::new(), outcome: Outcome::Canceled, ..job(0, 2, 20, 0, 99) });
    collector.job(&JobRecord {
        ready_ns: None,
        stretches: Vec::new(),
        outcome: Outcome::Dependency,
        ..job(0, 3, 20, 0, 50)
    });
    let results = collector.finish(facts(100));
    let expected = Percentiles { p50: Some(1000), p99: Some(4000), max: Some(4000) };
    assert_eq!(results.clients[0].wait_us, expected);
    assert_eq!((results.clients[0].submitted, results.clients[0].failed.sum()), (4, 2));
}

#[test]
fn cycle_times_are_over_whole_cycles_that_went_well() {
    let scenario = scenario("[[client]]\nname = \"a\"\nduration_us = 1\njobs_per_cycle = 2");
    let mut collector = Collector::new(&scenario);
    collector.client_came(0, 0);
    let job = |cycle, committed, from, to| JobRecord { cycle_jobs: 2, ..job(0, cycle, committed, from, to) };
    // From the first commit at 1 to the last end at 9.
    collector.job(&job(0, 2, 5, 9));
    collector.job(&job(0, 1, 2, 5));
    // One of two failed.
    collector.job(&job(1, 10, 10, 12));
    collector.job(&JobRecord { outcome: Outcome::Faulted, ..job(1, 10, 12, 14) });
    // Killed between the two.
    collector.job(&job(2, 20, 20, 22));
    let results = collector.finish(facts(100));
    assert_eq!(results.clients[0].cycles, 3);
    let expected = Percentiles { p50: Some(8000), p99: Some(8000), max: Some(8000) };
    assert_eq!(results.clients[0].cycle_us, expected);
}

#[test]
fn a_run_without_jobs_has_no_percentiles_and_divides_by_nothing() {
    let scenario = scenario("[[client]]\nname = \"a\"\nduration_us = 1");
    let results = Collector::new(&scenario).finish(facts(0));
    assert_eq!(results.clients[0].wait_us, Percentiles::default());
    assert_eq!((results.clients[0].share, results.device_busy), (0.0, 0.0));
    assert!(results.to_json().contains("\"p50\": null"));
}

#[test]
fn the_json_has_the_fields_of_the_contract_in_order() {
    let scenario =
        scenario("[[client]]\nname = \"a\"\nduration_us = 1\ngroup = \"g\"\n[[client]]\nname = \"b\"\nduration_us = 1");
    let json = Collector::new(&scenario).finish(facts(1)).to_json();
    let keys: Vec<_> = json
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix('"')?.split_once("\": "))
        .map(|(key, _)| key)
        .collect();
    let client = "name group priority weight incarnations banned submitted cycles finished_ok failed canceled timed_out \
        device_lost faulted dependency innocent hardware_us share wait_us p50 p99 max cycle_us p50 p99 max evictions \
        restores";
    let expected = format!(
        "schema version scenario device device_name clock mode policy seed interrupted elapsed_us device_busy resets \
         clients {client} {client} groups name hardware_us share audit fences_created fences_signaled fences_unsignaled \
         signaled_twice out_of_order payloads_created payloads_released released_while_hardware_busy \
         conflicting_accesses unexpected_page_faults leases_leaked bytes_leaked quarantined_bytes stale_translations \
         violations"
    );
    assert_eq!(keys, expected.split_whitespace().collect::<Vec<_>>());
    assert!(json.contains("\"group\": \"g\"") && json.contains("\"group\": null"));
}
