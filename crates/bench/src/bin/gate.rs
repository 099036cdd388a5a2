//! `gate [--no-run] [--write]`: counts instructions (`cargo bench --bench instructions`) and compares them with
//! `crates/bench/baseline.toml`. Exit status 1 if a count is above its baseline by more than the tolerance, or missing.
//! `--no-run` takes the counts of the last run; `--write` makes them the baseline.

extern crate alloc;

use alloc::collections::BTreeMap;
use core::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::{env, fs, io};

type Counts = BTreeMap<String, u64>;

/// What a baseline says.
struct Baseline {
    tolerance_percent: f64,
    counts: Counts,
}

/// The few lines of TOML that `--write` writes: `key = number`, tables and comments.
fn parse(text: &str) -> Result<Baseline, String> {
    let mut baseline = Baseline { tolerance_percent: 5.0, counts: Counts::new() };
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with(['#', '[']) {
            continue;
        }
        let (key, value) = line.split_once('=').ok_or_else(|| format!("not `key = number`: {line}"))?;
        let (key, value) = (key.trim().trim_matches('"'), value.trim().replace('_', ""));
        let wrong = |_| format!("not a number: {line}");
        if key == "tolerance_percent" {
            baseline.tolerance_percent = value.parse().map_err(wrong)?;
        } else {
            baseline.counts.insert(key.into(), value.parse().map_err(|_| format!("not a count: {line}"))?);
        }
    }
    Ok(baseline)
}

fn print(counts: &Counts, tolerance_percent: f64) -> String {
    let mut text = String::from(
        "# Instructions of `cargo bench -p outlive-bench --bench instructions`: each is a run of 1,000 jobs (or fences).\n\
         # Compared by `cargo run -p outlive-bench --bin gate`, written by its `--write`.\n\
         # They hold for one compiler and C library: x86_64, rustc 1.95, glibc 2.36.\n\n",
    );
    writeln!(text, "tolerance_percent = {tolerance_percent}\n\n[instructions]").expect("a string takes all");
    for (name, count) in counts {
        writeln!(text, "\"{name}\" = {count}").expect("a string takes all");
    }
    text
}

/// What callgrind counted, over the files of one benchmark (one per thread).
fn total(dir: &Path) -> io::Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "out") {
            let text = fs::read_to_string(path)?;
            let line = text.lines().rev().find_map(|line| line.strip_prefix("totals:"));
            sum += line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0);
        }
    }
    Ok(sum)
}

fn counted(root: &Path) -> io::Result<Counts> {
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let dir = target.join("gungraun/outlive-bench/instructions/jobs");
    let mut counts = Counts::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        counts.insert(entry.file_name().to_string_lossy().into_owned(), total(&entry.path())?);
    }
    Ok(counts)
}

/// Prints the comparison; whether all is within the tolerance.
fn compare(baseline: &Baseline, counts: &Counts) -> bool {
    let mut good = true;
    println!("| benchmark | baseline | now | change | |\n|---|---:|---:|---:|---|");
    for (name, before) in &baseline.counts {
        let Some(now) = counts.get(name).filter(|now| **now > 0) else {
            println!("| {name} | {before} | none | | **missing** |");
            good = false;
            continue;
        };
        let change = (*now as f64 / *before as f64 - 1.0) * 100.0;
        let verdict = if *now as f64 > *before as f64 * (1.0 + baseline.tolerance_percent / 100.0) {
            good = false;
            "**above the tolerance**"
        } else if change < -baseline.tolerance_percent {
            "better: write a new baseline"
        } else {
            "ok"
        };
        println!("| {name} | {before} | {now} | {change:+.2} % | {verdict} |");
    }
    for name in counts.keys().filter(|name| !baseline.counts.contains_key(*name)) {
        println!("| {name} | none | {} | | new: write a new baseline |", counts[name]);
    }
    good
}

fn run(root: &Path) -> Result<(), String> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let bench = ["bench", "-p", "outlive-bench", "--bench", "instructions"];
    let status = Command::new(cargo).args(bench).current_dir(root).status().map_err(|error| error.to_string())?;
    if status.success() {
        Ok(())
    } else {
        Err("counting failed: are valgrind and gungraun-runner 0.20.0 installed?".into())
    }
}

fn gate() -> Result<bool, String> {
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = home.join("../..");
    let file = home.join("baseline.toml");
    let (mut no_run, mut write) = (false, false);
    for arg in env::args().skip(1) {
        match arg.as_str() {
            "--no-run" => no_run = true,
            "--write" => write = true,
            _ => return Err(format!("unknown argument `{arg}`; usage: gate [--no-run] [--write]")),
        }
    }
    if !no_run {
        run(&root)?;
    }
    let counts = counted(&root).map_err(|error| format!("no counts: {error}"))?;
    let baseline = fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()));
    if write {
        let tolerance = baseline.and_then(|text| parse(&text)).map_or(5.0, |baseline| baseline.tolerance_percent);
        fs::write(&file, print(&counts, tolerance)).map_err(|error| error.to_string())?;
        return Ok(true);
    }
    Ok(compare(&parse(&baseline?)?, &counts))
}

fn main() -> ExitCode {
    match gate() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Baseline, Counts, compare, parse, print};

    fn counts(bypass: u64) -> Counts {
        Counts::from([(String::from("bypass.one"), bypass)])
    }

    #[test]
    fn what_is_written_is_read() {
        let baseline = parse(&print(&counts(1_865_049), 5.0)).unwrap();
        assert_eq!((baseline.tolerance_percent, baseline.counts), (5.0, counts(1_865_049)));
        assert!(parse("bypass.one").is_err());
        assert!(parse("bypass.one = many").is_err());
    }

    #[test]
    fn more_than_the_tolerance_or_nothing_at_all_is_refused() {
        let baseline = Baseline { tolerance_percent: 5.0, counts: counts(1000) };
        assert!(compare(&baseline, &counts(1050)));
        assert!(compare(&baseline, &counts(500)));
        assert!(!compare(&baseline, &counts(1051)));
        assert!(!compare(&baseline, &Counts::new()));
        assert!(!compare(&baseline, &counts(0)));
    }
}
