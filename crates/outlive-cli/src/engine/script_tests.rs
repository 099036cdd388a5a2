use super::*;
use crate::scenario::Scenario;

/// A scenario of one client with these keys beside its name.
fn scenario(keys: &str) -> Scenario {
    let text = format!("name = \"x\"\n[device]\nkind = \"sim\"\n[[client]]\nname = \"a\"\n{keys}\n");
    Scenario::parse("x.toml", &text).unwrap()
}

fn seen(now_us: u64, unfinished: usize) -> Seen {
    Seen { now_ns: now_us * NS_PER_US, unfinished, may_begin: true, other_ready: true }
}

fn plan_of(step: Step) -> JobPlan {
    match step {
        Step::Submit(plan) => plan,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_cycle_is_submitted_waited_for_and_thought_over() {
    let scenario = scenario("duration_us = 100\njobs_per_cycle = 2\nthink_us = 30");
    let mut script = Script::new(&scenario.clients[0], 5 * NS_PER_US, 1);
    assert_eq!(script.next(&seen(0, 0)), Step::Away);
    script.came();
    assert_eq!(script.next(&seen(0, 0)), Step::Until(5000));
    let first = plan_of(script.next(&seen(5, 0)));
    assert_eq!(first, JobPlan { cycle: 0, place: 0, of: 2, number: 1, duration_ns: 100_000, credits: 1, fault: None });
    assert_eq!(plan_of(script.next(&seen(5, 0))), first, "asking again changes nothing");
    assert!(!script.submitted(5000));
    assert_eq!(script.next(&seen(5, 1)), Step::Until(10_000));
    assert_eq!(plan_of(script.next(&seen(10, 1))).place, 1);
    assert!(script.submitted(10_000));
    assert_eq!(script.next(&seen(10, 2)), Step::UntilUnfinished(0));
    assert_eq!(script.next(&seen(205, 0)), Step::Until(235_000));
    assert_eq!(script.next(&seen(235, 0)), Step::Until(240_000));
    assert_eq!(plan_of(script.next(&seen(240, 0))).cycle, 1);
}

#[test]
fn depth_holds_back_whole_cycles() {
    let scenario = scenario("duration_us = 100\njobs_per_cycle = 2\ndepth = 5\nsync = false");
    let mut script = Script::new(&scenario.clients[0], 0, 1);
    script.came();
    let mut unfinished = 0;
    let waits = loop {
        match script.next(&seen(0, unfinished)) {
            Step::Submit(_) => {
                script.submitted(0);
                unfinished += 1;
            }
            other => break other,
        }
    };
    assert_eq!((waits, unfinished), (Step::UntilUnfinished(3), 4));
    assert!(matches!(script.next(&seen(1, 3)), Step::Submit(_)));
}

#[test]
fn numbers_run_on_across_lives() {
    let scenario = scenario("duration_us = 100\njobs_per_cycle = 2\nfault = { every = 2, kind = \"hang\" }");
    let mut script = Script::new(&scenario.clients[0], 0, 1);
    script.came();
    assert_eq!(plan_of(script.next(&seen(0, 0))).fault, None);
    script.submitted(0);
    // Killed in the middle of a cycle: that one is over. The job that was next had not been submitted.
    script.left();
    assert_eq!((script.next(&seen(1, 1)), script.cycle()), (Step::Away, 1));
    script.came();
    let plan = plan_of(script.next(&seen(2, 0)));
    assert_eq!((plan.cycle, plan.place, plan.number, plan.fault), (1, 0, 2, Some(FaultKind::Hang)));
}

#[test]
fn whoever_may_not_begin_ends_its_cycle_first() {
    let scenario = scenario("duration_us = 100\njobs_per_cycle = 2\nthink_us = 1000");
    let mut script = Script::new(&scenario.clients[0], 0, 1);
    script.came();
    plan_of(script.next(&seen(0, 0)));
    script.submitted(0);
    let stopped = |now_us, unfinished| Seen { may_begin: false, ..seen(now_us, unfinished) };
    plan_of(script.next(&stopped(1, 1)));
    script.submitted(1000);
    assert_eq!(script.next(&stopped(1, 2)), Step::UntilUnfinished(0));
    assert_eq!(script.next(&stopped(200, 0)), Step::Over, "it does not think in vain");
}

#[test]
fn jitter_varies_within_its_share_and_by_seed() {
    let scenario = scenario("duration_us = 1000\nsync = false\ndepth = 1\njitter = 0.25");
    let durations = |seed| {
        let mut script = Script::new(&scenario.clients[0], 0, seed);
        script.came();
        let next = |_| {
            let plan = plan_of(script.next(&seen(0, 0)));
            script.submitted(0);
            plan.duration_ns
        };
        (0..500).map(next).collect::<Vec<_>>()
    };
    let (one, again, other) = (durations(1), durations(1), durations(2));
    assert_eq!(one, again);
    assert_ne!(one, other);
    let (least, most) = (one.iter().min().unwrap(), one.iter().max().unwrap());
    assert!((750_000..770_000).contains(least) && (1_230_000..=1_250_000).contains(most), "{least} to {most}");
}

#[test]
fn a_request_is_submitted_whole_when_it_arrives() {
    let scenario = scenario("duration_us = 1");
    let us = NS_PER_US;
    let request = |at_us: u64, decodes| Request {
        at_ns: at_us * us,
        prefill_ns: 900 * us,
        decodes,
        decode_ns: 80 * us,
        last_decode_ns: 30 * us,
        prefill_credits: 3,
        decode_credits: 1,
    };
    let requests = [request(10, 2), request(11, 0)];
    let mut script = Script::replaying(&scenario.clients[0], &requests);
    script.came();
    assert_eq!(script.next(&seen(0, 0)), Step::Until(10_000));
    let mut durations = Vec::new();
    for place in 0..3 {
        let plan = plan_of(script.next(&seen(12, 7)));
        assert_eq!((plan.cycle, plan.place, plan.of), (0, place, 3));
        durations.push((plan.duration_ns / us, plan.credits));
        assert_eq!(script.submitted(12_000), place == 2);
    }
    assert_eq!(durations, [(900, 3), (80, 1), (30, 1)]);
    let late = plan_of(script.next(&seen(12, 9)));
    assert_eq!((late.cycle, late.of, late.duration_ns), (1, 1, 900_000));
    assert!(script.submitted(12_000));
    assert_eq!(script.next(&seen(12, 9)), Step::Over);
    assert!(script.is_over());
}
