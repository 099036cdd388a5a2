//! The seeded world, some hundred times. A failure prints its seed and the command that shows it again.

#![expect(clippy::std_instead_of_core, clippy::print_stderr, reason = "tests")]

use outlive_sim::world::{Budget, Hits, run};

fn all_is_well(seeds: std::ops::Range<u64>) -> Hits {
    let mut hits = Hits::default();
    let mut wrong = Vec::new();
    for seed in seeds {
        let outcome = run(seed, Budget::default());
        hits.add(&outcome.hits);
        if !outcome.is_well() {
            wrong.push(outcome.to_string());
        }
    }
    assert!(wrong.is_empty(), "{} worlds went wrong:\n{}", wrong.len(), wrong.join("\n"));
    hits
}

#[test]
fn a_few_hundred_worlds_end_well_and_everything_was_hit() {
    let hits = all_is_well(0..300);
    let deeds = [
        "kill queue",
        "close queue",
        "suspend",
        "resume",
        "submit",
        "commit",
        "drop reserved",
        "cancel pending",
        "signal user",
        "signal bare",
        "drop signaler",
        "drop fences",
        "reset device",
        "unplug",
        "close device",
        "drop device",
    ];
    for deed in deeds {
        for place in ["client", "callback", "payload drop"] {
            assert!(hits.count(deed, place) > 0, "{deed} was never done from {place}\n{hits}");
        }
    }
    for fault in ["hang", "page fault", "error", "lost completion", "late writes", "ring reset fails", "unplugged"] {
        assert!(hits.faults(fault) > 0, "{fault} was never injected\n{hits}");
    }
    for verdict in ["ok", "canceled", "timed out", "device lost", "faulted", "innocent", "dependency"] {
        assert!(hits.verdicts(verdict) > 100, "hardly a job ended as {verdict}\n{hits}");
    }
    assert_eq!(hits.verdicts("none"), 0);
}

#[test]
#[ignore = "10,000 worlds: run it in release"]
fn ten_thousand_worlds_end_well() {
    eprintln!("{}", all_is_well(0..10_000));
}

#[test]
fn the_same_seed_gives_the_same_events_and_another_gives_others() {
    for seed in [3, 17, 99] {
        let (first, second) = (run(seed, Budget::default()), run(seed, Budget::default()));
        assert_eq!(first, second);
        assert_ne!(first.digest, run(seed + 1, Budget::default()).digest);
    }
}
