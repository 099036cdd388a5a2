//! Lets worlds run: `--seed N` one, with its story; `--seeds N` many, from `--from`, with what they hit.

use outlive_sim::world::{Budget, Hits, run};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (mut one, mut from, mut seeds) = (None, 0_u64, 1000_u64);
    while let Some(argument) = arguments.next() {
        let value = arguments.next().and_then(|value| value.parse::<u64>().ok());
        match (argument.as_str(), value) {
            ("--seed", Some(seed)) => one = Some(seed),
            ("--from", Some(first)) => from = first,
            ("--seeds", Some(count)) => seeds = count,
            _ => {
                println!("usage: storm [--seed N | --seeds N [--from N]]");
                std::process::exit(2);
            }
        }
    }
    if let Some(seed) = one {
        let outcome = run(seed, Budget::default());
        println!("{outcome}{}{:#?}", outcome.hits, outcome.audit);
        std::process::exit(i32::from(!outcome.is_well()));
    }
    let mut hits = Hits::default();
    let (mut failed, mut jobs, mut resets) = (0, 0, 0);
    for seed in from..from + seeds {
        let outcome = run(seed, Budget::default());
        hits.add(&outcome.hits);
        jobs += outcome.jobs;
        resets += outcome.resets;
        if !outcome.is_well() {
            failed += 1;
            println!("{outcome}");
        }
    }
    println!("{hits}{seeds} worlds, {jobs} jobs, {resets} resets; {failed} went wrong");
    std::process::exit(i32::from(failed > 0));
}
