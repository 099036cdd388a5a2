//! `outlive-bench [--quick] [--only NAME]`: prints the tables of `docs/benchmarks.md`.

use outlive_bench::allocations::{self, Counting};
use outlive_bench::counts;
use outlive_bench::harness::{Effort, Row, Spread};
use outlive_bench::report::{self, Aim};
use outlive_bench::work::{bypass, chain, close, containers, locks, signal, worker};
use std::process::ExitCode;

#[global_allocator]
static ALLOC: Counting = Counting;

const NAMES: [&str; 8] = ["counts", "bypass", "worker", "chain", "signal", "containers", "close", "locks"];

struct Args {
    effort: Effort,
    quick: bool,
    only: Option<String>,
}

fn args() -> Result<Args, String> {
    let mut parsed = Args { effort: Effort::FULL, quick: false, only: None };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--quick" => (parsed.effort, parsed.quick) = (Effort::QUICK, true),
            "--only" => {
                let name = args.next().filter(|name| NAMES.contains(&name.as_str()));
                parsed.only = Some(name.ok_or_else(|| format!("--only takes one of {}", NAMES.join(", ")))?);
            }
            _ => return Err(format!("unknown argument `{arg}`; usage: outlive-bench [--quick] [--only NAME]")),
        }
    }
    Ok(parsed)
}

/// The row whose name starts with `name`.
fn find<'a>(rows: &'a [Row], name: &str) -> Option<&'a Row> {
    rows.iter().find(|row| row.name.starts_with(name))
}

/// The first contender's share of the time of `row`'s.
fn share(row: &Row) -> String {
    let Spread { low, mid, high } = row.ratio;
    format!("{:.2} ({:.2} to {:.2}) of its time", 1.0 / mid, 1.0 / high, 1.0 / low)
}

fn run_counts(args: &Args, aims: &mut Vec<Aim>) {
    let jobs = args.effort.of(100_000);
    let bypass = counts::bypass_threads(jobs);
    let all = [
        ("bypass, three threads", bypass),
        ("bypass, manual executor", counts::bypass_manual(jobs)),
        ("worker, three threads, depth 64", counts::worker_threads(jobs)),
        ("held chain over 4 queues, manual executor", counts::chain_manual(args.effort.of(100))),
    ];
    report::counts(&all);
    let block = outlive::JOB_BYTES as f64;
    aims.push(Aim::at_most("a job's block without payload: at most 320 bytes", block, 320.0, "bytes"));
    // A thread's first sleep may allocate and an idle reaper reads the clock: a thousandth of a job's share is not a job's.
    aims.push(Aim::at_most("bypass: one allocation a job", bypass.allocations, 1.001, ""));
    aims.push(Aim::at_most("bypass: at most 2 clock reads a job", bypass.clock_reads, 2.01, ""));
    let wakes = bypass.wake_ups * jobs as f64;
    // The first retired job of a burst may wake the reaper; after that it looks by itself.
    let aim = format!("bypass: no wake-up per job (wake-ups in {jobs} jobs, at most one per burst)");
    aims.push(Aim::at_most(&aim, wakes, jobs as f64 / 1000.0, ""));
}

fn run_bypass(args: &Args, aims: &mut Vec<Aim>) {
    let rows = bypass::run(args.effort);
    report::rows("A job's life through bypass", &rows);
    let ours = rows[0].ns.mid;
    aims.push(Aim::at_most("bypass: at most 250 ns (three threads)", ours, 250.0, "ns"));
    for (what, name) in [
        ("bypass: below tokio current-thread spawn and await", "tokio current-thread, spawn"),
        ("bypass: below that with the payload not in a box", "tokio current-thread, payload"),
    ] {
        if let Some(row) = find(&rows, name) {
            // Met only if three quarters of the rounds say so.
            aims.push(Aim { aim: what.into(), measured: share(row), met: row.ratio.low > 1.0 });
        }
    }
}

fn run_chain(args: &Args, aims: &mut Vec<Aim>) {
    for held in [true, false] {
        for queues in [1, 4, 64] {
            let rows = chain::run(args.effort, queues, held);
            let how = if held { "held until all are committed" } else { "free" };
            report::rows(&format!("A job of a chain of 1,000, number of queues {queues}, {how}"), &rows);
            let Some(tokio) = find(&rows, "tokio current-thread") else { continue };
            aims.push(Aim {
                aim: format!(
                    "a dependent job, number of queues {queues}, {how}: at most half of tokio current-thread's"
                ),
                measured: share(tokio),
                met: tokio.ratio.mid >= 2.0,
            });
        }
    }
}

fn run_containers(args: &Args, aims: &mut Vec<Aim>) {
    for (pending, signaled) in [(1, 0), (1, 1), (2, 0), (8, 0), (64, 0)] {
        let rows = containers::run_merge(args.effort, pending, signaled);
        report::rows(&format!("A merge of {} fences, {pending} pending, dropped again", pending + signaled), &rows);
        if pending == 1 {
            let fences = containers::fences(pending, signaled);
            // All threads are counted, and those of contenders before may still be ending: the least of five.
            let counts = [(); 5].map(|()| allocations::during(|| containers::merge(&fences, 1000)).count);
            let allocated = counts.into_iter().min().unwrap_or(u64::MAX);
            let name = format!("a merge of {}, one pending", pending + signaled);
            aims.push(Aim::at_most(&format!("{name}: at most 20 ns"), rows[0].ns.mid, 20.0, "ns"));
            aims.push(Aim::at_most(&format!("{name}: no allocation (in 1,000)"), allocated as f64, 0.0, ""));
        }
    }
    for number in [containers::POINTS, containers::POINTS / 2, 1] {
        let rows = containers::run_find(args.effort, number);
        report::rows(&format!("A look-up of point {number} of {}", containers::POINTS), &rows);
    }
}

fn run_close(args: &Args, aims: &mut Vec<Aim>) {
    let (closings, alone) = close::run(if args.quick { 3 } else { 30 });
    report::closings(&closings, alone);
    let ours = &closings[0];
    aims.push(Aim::at_most("close: at most 20 µs (median, three threads)", ours.call.mid, 20.0, "µs"));
    aims.push(Aim::at_most("close: at most 20 µs (median, no thread to wake)", alone.mid, 20.0, "µs"));
    let name = format!("all {} signaled within 25 ms (median)", close::JOBS);
    aims.push(Aim::at_most(&name, ours.last.mid / 1000.0, 25.0, "ms"));
}

fn run_locks(args: &Args, aims: &mut Vec<Aim>) {
    let effort = Effort { rounds: args.effort.rounds.min(30), ..args.effort };
    let objects = locks::Objects::new();
    for size in [1, 10, 800] {
        for threads in [1, 2, 4, 8] {
            let (rows, deaths) = locks::locks(&objects, effort, size, threads);
            let what = format!("locks {size} of {}, threads {threads}", locks::OBJECTS);
            report::rows(&format!("A batch: {what}; {:.3} attempts died a batch", deaths.each()), &rows);
            let [_, sorted, global] = &rows[..] else { continue };
            let most = if size == 1 { 2.5 } else { 1.5 };
            aims.push(Aim {
                aim: format!("{what}: at most {most} times sorted mutexes'"),
                measured: format!("{:.2} times", 1.0 / sorted.ratio.mid),
                met: 1.0 / sorted.ratio.mid <= most,
            });
            aims.push(Aim {
                aim: format!("{what}: ahead of one mutex"),
                measured: share(global),
                met: global.ratio.mid > 1.0,
            });
        }
    }
}

fn main() -> ExitCode {
    let args = match args() {
        Ok(args) => args,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    if cfg!(debug_assertions) {
        eprintln!("built without optimisation: use `cargo run --release`");
    }
    let wanted = |name: &str| args.only.as_deref().is_none_or(|only| only == name);
    let mut aims = Vec::new();
    if wanted("counts") {
        run_counts(&args, &mut aims);
    }
    if wanted("bypass") {
        run_bypass(&args, &mut aims);
    }
    if wanted("worker") {
        for depth in [1, 64, 1024] {
            report::rows(&format!("A job's life through a worker, depth {depth}"), &worker::run(args.effort, depth));
        }
    }
    if wanted("chain") {
        run_chain(&args, &mut aims);
    }
    if wanted("signal") {
        for closures in [0, 1, 8] {
            let title = format!("A bare fence's life, {closures} closures");
            report::rows(&title, &signal::run_life(args.effort, closures));
            let title = format!("A signal alone, {closures} closures registered");
            report::rows(&title, &signal::run_signal(args.effort, closures));
        }
    }
    if wanted("containers") {
        run_containers(&args, &mut aims);
    }
    if wanted("close") {
        run_close(&args, &mut aims);
    }
    if wanted("locks") {
        run_locks(&args, &mut aims);
    }
    if !aims.is_empty() {
        report::aims(&aims);
    }
    ExitCode::SUCCESS
}
