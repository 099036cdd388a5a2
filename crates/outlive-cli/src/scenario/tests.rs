//! The model that files come to, and that printing loses nothing. What is refused is tested through the command itself.

use super::Scenario;
use super::model::{Action, ClientAction, OnError, Priority};

fn parse(text: &str) -> Scenario {
    Scenario::parse("test.toml", text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

const LEAST: &str = "name = \"x\"\ndevice.kind = \"sim\"\n[[client]]\nname = \"a\"\nduration_us = 7\n";

#[test]
fn the_least_scenario_gets_the_defaults_of_the_contract() {
    let scenario = parse(LEAST);
    assert_eq!((scenario.run_for_ms, scenario.seed, scenario.submit_latency_us), (2000, 1, 5));
    let device = &scenario.device;
    assert_eq!((device.engines, device.credits, device.slice_us), (1, 16, 1000));
    assert_eq!((device.memory_mib, device.watchdog_ms, device.vm_ids), (256, 10_000, 0));
    let scheduler = &scenario.scheduler;
    assert_eq!((scheduler.mode.word(), scheduler.policy.word(), scheduler.timeout_ms), ("firmware", "fair", 500));
    let client = &scenario.clients[0];
    assert_eq!((client.instances.clone(), client.group.as_deref()), (0..1, None));
    assert_eq!((client.group_weight, client.weight, client.priority), (100, 100, Priority::Normal));
    assert_eq!((client.start_ms, client.stop_ms, client.jobs_per_cycle), (0, None, 1));
    assert_eq!((client.duration_us, client.credits, client.think_us), (7, 1, 0));
    assert_eq!((client.sync, client.depth, client.chain, client.after.as_deref()), (true, 0, false, None));
    assert_eq!((client.on_chain_error(), client.on_after_error()), (OnError::Fail, OnError::Run));
    assert_eq!((client.jitter, client.work.word(), client.fault), (0.0, "spin", None));
    assert_eq!((client.working_set_kib, super::memory::pieces(client)), (0, (0, 0)));
    assert_eq!(scenario.instances[0].name, "a.0");
    assert_eq!(scenario.job_limit_ms(), 500);
}

#[test]
fn a_job_without_timeout_has_the_watchdog() {
    let text = LEAST.replace("[[client]]", "device.watchdog_ms = 9\nscheduler.timeout_ms = 0\n[[client]]");
    assert_eq!(parse(&text).job_limit_ms(), 9);
}

#[test]
fn a_bare_name_means_the_same_index_where_counts_are_equal_and_else_the_first() {
    let scenario = parse(
        "name = \"x\"\ndevice.kind = \"sim\"
        [[client]]\nname = \"a\"\ncount = 2\nduration_us = 1
        [[client]]\nname = \"b\"\ncount = 2\nduration_us = 1\nafter = \"a\"
        [[client]]\nname = \"c\"\ncount = 3\nduration_us = 1\nafter = \"b\"
        [[client]]\nname = \"d\"\nduration_us = 1\nafter = \"c.2\"
        [[event]]\nat_ms = 1\ndo = \"kill\"\nclient = \"c\"
        [[event]]\nat_ms = 1\ndo = \"set-weight\"\nclient = \"c.1\"\nweight = 3",
    );
    let names: Vec<_> = scenario.instances.iter().map(|instance| instance.name.as_str()).collect();
    assert_eq!(names, ["a.0", "a.1", "b.0", "b.1", "c.0", "c.1", "c.2", "d.0"]);
    let after: Vec<_> = scenario.instances.iter().map(|instance| instance.after).collect();
    assert_eq!(after, [None, None, Some(0), Some(1), Some(2), Some(2), Some(2), Some(6)]);
    assert_eq!(scenario.clients[2].instances, 4..7);
    assert_eq!(scenario.client_of(5).name, "c");
    let targets: Vec<_> = scenario
        .events
        .iter()
        .map(|event| match &event.action {
            Action::Client { target, action } => (target.instance, *action),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(targets, [(4, ClientAction::Kill), (5, ClientAction::SetWeight(3))]);
}

#[test]
fn a_group_has_the_weight_that_any_member_says() {
    let scenario = parse(
        "name = \"x\"\ndevice.kind = \"sim\"
        [[client]]\nname = \"a\"\nduration_us = 1\ngroup = \"g\"
        [[client]]\nname = \"b\"\nduration_us = 1\ngroup = \"g\"\ngroup_weight = 300
        [[client]]\nname = \"c\"\nduration_us = 1\ngroup = \"h\"",
    );
    let weights: Vec<_> = scenario.clients.iter().map(|client| client.group_weight).collect();
    assert_eq!(weights, [300, 300, 100]);
}

#[test]
fn the_built_in_scenario_is_what_it_claims() {
    let scenario = Scenario::first_look().unwrap();
    assert_eq!((scenario.run_for_ms, scenario.clients.len()), (10_000, 4));
    assert!(scenario.clients.iter().all(|client| client.work.word() == "gears" && client.jitter > 0.0));
    assert!(scenario.clients.iter().any(|client| client.after.is_some()));
    assert!(scenario.clients.iter().any(|client| client.fault.is_some()));
    assert_eq!(parse(&scenario.to_toml()), scenario);
}

/// A small generator of chance (splitmix64).
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mix = self.0;
        mix = (mix ^ (mix >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mix = (mix ^ (mix >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mix ^ (mix >> 31)) % end
    }

    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[usize::try_from(self.below(of.len() as u64)).unwrap()]
    }

    /// Some of these lines.
    fn some_of(&mut self, lines: &[String]) -> String {
        lines.iter().filter(|_| self.below(2) == 0).map(|line| format!("{line}\n")).collect()
    }
}

/// A scenario that uses about half of all keys. It may still break a rule that ties keys together.
fn random_scenario(chance: &mut Chance) -> String {
    let name = chance.pick(&["x", "two words", "quote \\\" and \\\\", "ümläut 日本", "#", "'", "]]"]);
    let head = [
        format!("run_for_ms = {}", chance.below(100_000)),
        format!("seed = {}", chance.below(1 << 63)),
        format!("submit_latency_us = {}", 1 + chance.below(50)),
    ];
    let device = [
        format!("engines = {}", 1 + chance.below(8)),
        format!("credits = {}", 4 + chance.below(60)),
        format!("slice_us = {}", 1 + chance.below(5000)),
        format!("memory_mib = {}", 64 + chance.below(500)),
        format!("watchdog_ms = {}", 1 + chance.below(10_000)),
        format!("vm_ids = {}", chance.below(9)),
    ];
    let scheduler = [
        format!("mode = \"{}\"", chance.pick(&["firmware", "arbiter"])),
        format!("policy = \"{}\"", chance.pick(&["fair", "fifo", "round-robin"])),
        format!("timeout_ms = {}", chance.below(10_000)),
    ];
    let mut text = format!("name = \"{name}\"\n{}[device]\nkind = \"sim\"\n", chance.some_of(&head));
    text += &chance.some_of(&device);
    text += "[scheduler]\n";
    text += &chance.some_of(&scheduler);
    let clients = chance.below(5);
    for place in 0..clients {
        text += &random_client(chance, place);
    }
    for _ in 0..if clients == 0 { 0 } else { chance.below(5) } {
        text += &format!("[[event]]\nat_ms = {}\n", chance.below(9999));
        text += &chance.some_of(&["every_ms = 7".to_owned()]);
        let target = format!("c{}{}", chance.below(clients), chance.pick(&["", ".0"]));
        text += &match chance.below(5) {
            0 => "do = \"unplug\"\n".to_owned(),
            1 => "do = \"reset\"\n".to_owned(),
            2 => format!("do = \"set-priority\"\nclient = \"{target}\"\npriority = \"low\"\n"),
            3 => format!("do = \"set-weight\"\nclient = \"{target}\"\nweight = 5\n"),
            _ => format!("do = \"{}\"\nclient = \"{target}\"\n", chance.pick(&["kill", "close", "start", "suspend"])),
        };
    }
    text
}

fn random_client(chance: &mut Chance, place: u64) -> String {
    let keys = [
        format!("count = {}", 1 + chance.below(4)),
        format!("group = \"{}\"", chance.pick(&["seat", "a b", "\\t"])),
        format!("group_weight = {}", 100 + 50 * chance.below(2)),
        format!("weight = {}", 1 + chance.below(1000)),
        format!("priority = \"{}\"", chance.pick(&["realtime", "high", "normal", "low"])),
        format!("start_ms = {}", chance.below(1000)),
        format!("stop_ms = {}", chance.below(9000)),
        format!("jobs_per_cycle = {}", 1 + chance.below(4)),
        format!("credits = {}", 1 + chance.below(4)),
        format!("think_us = {}", chance.below(9000)),
        format!("sync = {}", chance.pick(&["true", "false"])),
        format!("depth = {}", chance.below(9)),
        format!("chain = {}", chance.pick(&["true", "false"])),
        format!("after = \"c{}\"", chance.below(place.max(1))),
        format!("on_dependency_error = \"{}\"", chance.pick(&["fail", "run"])),
        format!("jitter = {}", chance.pick(&["0", "1", "0.1", "1e-7", "0.30000000000000004", "-0.0"])),
        format!("work = \"{}\"", chance.pick(&["spin", "fill", "copy", "gears"])),
        format!("fault = {{ every = {}, kind = \"{}\" }}", 1 + chance.below(99), chance.pick(&["hang", "page-fault"])),
    ];
    format!("[[client]]\nname = \"c{place}\"\nduration_us = {}\n{}", chance.below(9999), chance.some_of(&keys))
}

#[test]
fn printing_and_parsing_gives_the_same_scenario() {
    let mut chance = Chance(1);
    let mut accepted = 0;
    for _ in 0..2000 {
        let text = random_scenario(&mut chance);
        let Ok(scenario) = Scenario::parse("random.toml", &text) else { continue };
        accepted += 1;
        let printed = scenario.to_toml();
        assert_eq!(parse(&printed), scenario, "\n{text}\nprinted as\n{printed}");
        assert_eq!(parse(&printed).to_toml(), printed);
    }
    assert!(accepted > 400, "only {accepted} of 2000 were scenarios");
}

#[test]
fn numbers_may_be_written_as_toml_allows() {
    let text = LEAST.replace("duration_us = 7", "duration_us = 0x1F_40\nthink_us = +1_000\njitter = 0.1_5");
    let client = &parse(&text).clients[0];
    assert_eq!((client.duration_us, client.think_us, client.jitter), (8000, 1000, 0.15));
}

#[test]
fn no_damage_to_a_file_makes_the_reader_panic() {
    let mut chance = Chance(2);
    let whole: Vec<char> = super::FIRST_LOOK.chars().collect();
    let mut refused = 0;
    for _ in 0..2000 {
        let mut text = whole.clone();
        for _ in 0..=chance.below(3) {
            let at = usize::try_from(chance.below(text.len() as u64)).unwrap();
            match chance.below(3) {
                0 => drop(text.remove(at)),
                1 => text.insert(at, chance.pick(&["\"", "=", "[", "é", "\n", "9", "-"]).chars().next().unwrap()),
                _ => text.truncate(at.max(1)),
            }
        }
        if let Err(error) = Scenario::parse("damaged.toml", &text.into_iter().collect::<String>()) {
            refused += 1;
            assert!(error.line.is_some() && !error.expected.is_empty(), "{error}");
        }
    }
    assert!(refused > 500, "only {refused} were refused");
}
