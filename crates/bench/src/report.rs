//! Markdown tables and verdicts.

use crate::counts::Counts;
use crate::harness::{Row, Spread};
use crate::work::close::Closing;

/// Rows of one workload; ratios are to the first.
pub fn rows(title: &str, rows: &[Row]) {
    println!("\n### {title}\n\n| contender | ns, median (quartiles) | ratio to the first, median (quartiles) |");
    println!("|---|---:|---:|");
    for Row { name, ns, ratio } in rows {
        println!(
            "| {name} | {:.0} ({:.0} to {:.0}) | {:.2} ({:.2} to {:.2}) |",
            ns.mid, ns.low, ns.high, ratio.mid, ratio.low, ratio.high
        );
    }
}

/// What is counted.
pub fn counts(all: &[(&str, Counts)]) {
    println!("\n### Counted per job\n\n| path | allocations | bytes | clock reads | wake-ups |");
    println!("|---|---:|---:|---:|---:|");
    for (name, counts) in all {
        println!(
            "| {name} | {:.3} | {:.1} | {:.3} | {:.5} |",
            counts.allocations, counts.bytes, counts.clock_reads, counts.wake_ups
        );
    }
}

/// Closing, in microseconds; `alone`: the call with no thread to wake.
pub fn closings(all: &[Closing], alone: Spread) {
    let spread = |of: Spread, digits| format!("{:.digits$} ({:.digits$} to {:.digits$})", of.mid, of.low, of.high);
    println!("\n### `close` with {} waiting jobs, µs, median (quartiles)\n", crate::work::close::JOBS);
    println!("| contender | the call | worst | at most 20 µs | last fence signaled | worst | all payloads dropped |");
    println!("|---|---:|---:|---:|---:|---:|---:|");
    for Closing { name, call, call_within, call_worst, last, last_worst, gone } in all {
        let (call, last, gone) = (spread(*call, 1), spread(*last, 0), spread(*gone, 0));
        let within = call_within * 100.0;
        println!("| {name} | {call} | {call_worst:.1} | {within:.0} % | {last} | {last_worst:.0} | {gone} |");
    }
    println!("| outlive, manual executor: no thread to wake | {} | | | | | |", spread(alone, 2));
}

/// One aim: what was to be reached, what was, and whether.
#[derive(Debug, Clone)]
pub struct Aim {
    /// To be reached.
    pub aim: String,
    /// Measured.
    pub measured: String,
    /// Whether.
    pub met: bool,
}

impl Aim {
    /// `measured` of something that is to be at most `most`.
    #[must_use]
    pub fn at_most(aim: &str, measured: f64, most: f64, unit: &str) -> Self {
        let digits = if measured < 10.0 { 3 } else { 0 };
        Self { aim: aim.into(), measured: format!("{measured:.digits$} {unit}"), met: measured <= most }
    }
}

/// All aims.
pub fn aims(all: &[Aim]) {
    println!("\n### Aims\n\n| aim | measured | |\n|---|---:|---|");
    for Aim { aim, measured, met } in all {
        println!("| {aim} | {} | {} |", measured.trim_end(), if *met { "met" } else { "**missed**" });
    }
}
