//! The seeded world, some hundred times, and a storm of threads. A failure prints its seed and the command that shows it
//! again.

#![expect(clippy::print_stderr, reason = "tests")]

use outlive_sim::world::{Budget, Hits, Outcome, Plan, run, run_threads};

/// All worlds end well; what they hit, and how many queues they had.
fn all_is_well(outcomes: impl Iterator<Item = Outcome>) -> (Hits, u64) {
    let (mut hits, mut queues, mut wrong) = (Hits::default(), 0, Vec::new());
    for outcome in outcomes {
        hits.add(&outcome.hits);
        queues += outcome.queues;
        if !outcome.is_well() {
            wrong.push(outcome.to_string());
        }
    }
    assert!(wrong.is_empty(), "{} worlds went wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(hits.verdicts("none"), 0);
    (hits, queues)
}

#[test]
fn a_hundred_worlds_end_well_and_everything_was_hit() {
    let (hits, queues) = all_is_well((0..100).map(|seed| run(seed, Budget::default())));
    assert!((9_500..=10_000).contains(&queues), "{queues} queues in 100 worlds: some find no memory, or no device");
    // Each world can be ended once only, so not every end comes from everywhere in so few.
    let ends = ["all resets fail", "pull out", "lose device", "close device", "drop arbiter"];
    for deed in Hits::deeds() {
        let counts = ["client", "callback", "payload drop"].map(|place| hits.count(deed, place));
        let least = if ends.contains(&deed) { counts.iter().sum() } else { counts.into_iter().min().unwrap_or(0) };
        assert!(least > 0, "{deed} was done from client, callback, payload drop {counts:?} times\n{hits}");
    }
    for fault in ["hang", "page fault", "error", "lost completion"] {
        assert!(hits.faults(fault) > 100, "{fault} was hardly ever injected\n{hits}");
    }
    for verdict in ["ok", "canceled", "timed out", "device lost", "faulted", "innocent", "dependency", "banned"] {
        assert!(hits.verdicts(verdict) > 100, "hardly a job ended as {verdict}\n{hits}");
    }
}

#[test]
#[ignore = "10,000 worlds: run it in release"]
fn ten_thousand_worlds_end_well() {
    let (hits, queues) = all_is_well((0..10_000).map(|seed| run(seed, Budget::default())));
    eprintln!("{hits}{queues} queues");
    assert_eq!(hits.below(20), Vec::<String>::new());
}

#[test]
fn the_same_seed_gives_the_same_events_and_another_gives_others() {
    for seed in [3, 17, 99] {
        let (first, second) = (run(seed, Budget::default()), run(seed, Budget::default()));
        assert_eq!(first, second);
        assert_ne!(first.digest, run(seed + 1, Budget::default()).digest);
    }
}

#[test]
fn four_threads_on_one_host_end_well() {
    let storms = (0..4).map(|seed| run_threads(seed, Plan::new(4, 100, 25)));
    let (hits, queues) = all_is_well(storms.chain([run_threads(9, Plan::new(4, 400, 400))]));
    assert!(queues >= 500, "{queues} queues");
    for verdict in ["ok", "canceled", "timed out", "faulted", "dependency"] {
        assert!(hits.verdicts(verdict) > 0, "no job ended as {verdict}\n{hits}");
    }
}

/// Memory is short: what clients work on is evicted and brought back while others are killed, reset and unplugged, in the middle of
/// binds among it.
#[test]
fn worlds_short_of_memory_end_well_and_a_flush_that_is_skipped_is_seen_in_them() {
    let budget = Budget { queues: 60, steps: 150, ..Budget::default() };
    let mut evictions = 0;
    let worlds = (0..6).map(|world| run(4 * world + 3, budget)).inspect(|outcome| evictions += outcome.evictions);
    let (hits, _) = all_is_well(worlds);
    assert!(evictions > 100, "{evictions} evictions");
    assert!(hits.faults("hang") > 0 && hits.verdicts("device lost") > 0, "{hits}");
    let budget = Budget { skips_flushes: true, device_may_die: false, ..budget };
    let stale = (0..6).map(|world| run(4 * world + 3, budget)).find(|outcome| outcome.audit.stale_translations > 0);
    let words = stale.expect("no world noticed").to_string();
    assert!(words.contains("stale_translations"), "{words}");
}
