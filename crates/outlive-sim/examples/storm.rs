//! Lets worlds run. In virtual time: `--seed N` one, with its story; `--seeds N` many, from `--from`, with what they hit.
//! In real time: `--threads N --queues N` storms of that many threads, on one host with all queues alive at once, then on
//! hosts with `--alive` at once, and four times as many in all, until as many have been opened again and everything was hit,
//! at most `--seeds` of them; `--threads N --seed N` one of these.

use outlive_sim::world::{Budget, Hits, Outcome, Plan, run, run_threads, unexpected_reports};
use std::process::exit;

/// Cells of the table of hits below this are listed.
const LEAST: u64 = 20;
/// So many of them.
const LISTED: usize = 12;

#[derive(Debug, Default)]
struct Sum {
    hits: Hits,
    worlds: u64,
    failed: u64,
    queues: u64,
    jobs: u64,
    resets: u64,
    evictions: u64,
    bans: u64,
}

impl Sum {
    fn add(&mut self, outcome: &Outcome) {
        self.hits.add(&outcome.hits);
        self.worlds += 1;
        self.queues += outcome.queues;
        self.jobs += outcome.jobs;
        self.resets += outcome.resets;
        self.evictions += outcome.evictions;
        self.bans += outcome.bans;
        if !outcome.is_well() {
            self.failed += 1;
            println!("{outcome}");
        }
    }

    fn tell(&self) -> ! {
        let Self { hits, worlds, failed, queues, jobs, resets, evictions, bans } = self;
        println!(
            "{hits}{worlds} worlds, {queues} queues, {jobs} jobs, {resets} resets, {evictions} evictions, {bans} bans; {failed} went wrong"
        );
        let reports = unexpected_reports();
        if reports > 0 {
            println!("{reports} reports of the library's own checks, on standard error");
        }
        let missed = hits.below(LEAST);
        for cell in missed.iter().take(LISTED) {
            println!("hardly hit: {cell}");
        }
        if missed.len() > LISTED {
            println!("hardly hit: {} more; with more worlds there are fewer", missed.len() - LISTED);
        }
        exit(i32::from(*failed > 0 || reports > 0));
    }
}

fn one(outcome: &Outcome) -> ! {
    println!("{outcome}{}{:#?}", outcome.hits, outcome.audit);
    exit(i32::from(!outcome.is_well()));
}

/// Memory that the process holds.
fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = status.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok());
    (pages.unwrap_or(0) * 4096) >> 20
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (mut seed, mut from, mut seeds, mut threads, mut queues, mut alive) = (None, 0, 1000, None, 10_000, 25);
    while let Some(argument) = arguments.next() {
        let value = arguments.next().and_then(|value| value.parse::<u64>().ok());
        let small = value.and_then(|value| u32::try_from(value).ok());
        match (argument.as_str(), value, small) {
            ("--seed", Some(value), _) => seed = Some(value),
            ("--from", Some(value), _) => from = value,
            ("--seeds", Some(value), _) => seeds = value,
            ("--threads", _, Some(value)) => threads = Some(value),
            ("--queues", _, Some(value)) => queues = value,
            ("--alive", _, Some(value)) => alive = value,
            _ => {
                println!("usage: storm [--seed N | --seeds N [--from N]]");
                println!("       storm --threads N [--queues N] [--alive N] [--seeds N] [--from N | --seed N]");
                exit(2);
            }
        }
    }
    let mut sum = Sum::default();
    match (threads, seed) {
        (None, Some(seed)) => one(&run(seed, Budget::default())),
        (Some(threads), Some(seed)) => one(&run_threads(seed, Plan::new(threads, 4 * alive, alive))),
        (None, None) => (from..from + seeds).for_each(|seed| sum.add(&run(seed, Budget::default()))),
        (Some(threads), None) => {
            sum.add(&run_threads(from, Plan::new(threads, queues, queues)));
            println!("one host: {} queues, {} jobs, {} resets", sum.queues, sum.jobs, sum.resets);
            let all = sum.queues + u64::from(queues);
            for seed in from + 1..=from + seeds {
                if sum.queues >= all && sum.hits.below(LEAST).is_empty() {
                    break;
                }
                sum.add(&run_threads(seed, Plan::new(threads, 4 * alive, alive)));
                if sum.worlds % 100 == 0 {
                    println!("{} worlds, {} queues, {} MiB resident", sum.worlds, sum.queues, resident_mib());
                }
            }
        }
    }
    sum.tell();
}
