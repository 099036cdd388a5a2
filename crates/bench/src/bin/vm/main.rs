//! `vm [--quick]`: address spaces beside `BTreeMap` and `rangemap`, for `docs/benchmarks.md`.
//!
//! Every contender keeps, for each mapping, its range, buffer, offset and flags. Only `outlive` and the `BTreeMap` that does
//! the same look for what a request overlaps, cut it and say in steps what a driver would have to do.

extern crate alloc;

mod contenders;

use contenders::{OutliveSpace, Plain, Ranges, Same, Space};
use core::time::Duration;
use outlive_bench::harness::{Contender, Effort, Row, Spread, race};
use outlive_bench::report::{self, Aim};
use std::process::ExitCode;
use std::time::Instant;

/// Operations per contender and round.
const OPS: u64 = 20_000;
/// Mappings of the aims.
const TILES: u64 = 100_000;
/// Mappings that are built and closed at once.
const MANY: u64 = 1_000_000;

/// A number that looks random; the same sequence for all contenders.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// `S` with `count` tiles, on which `work` is done over and over.
fn contender<S: Space + 'static>(count: u64, work: fn(&mut S, &mut Random, u64)) -> Contender {
    let mut space = S::filled(count);
    let mut random = Random(count);
    Contender::new(S::NAME, move |ops| {
        let start = Instant::now();
        for _ in 0..ops {
            work(&mut space, &mut random, count);
        }
        start.elapsed()
    })
}

fn rebind<S: Space>(space: &mut S, random: &mut Random, count: u64) {
    let (tile, to) = (random.below(count), random.below(count));
    space.rebind(tile, to);
}

fn split<S: Space>(space: &mut S, random: &mut Random, count: u64) {
    let tile = random.below(count);
    space.split(tile);
    space.heal(tile);
}

fn find<S: Space>(space: &mut S, random: &mut Random, count: u64) {
    let va = contenders::base_of(random.below(count)) + random.below(contenders::TILE);
    core::hint::black_box(space.find(va));
}

/// All contenders that do `work`; each of them is of another type, so the list is a macro's.
macro_rules! all {
    ($count:expr, $work:ident) => {
        [
            contender::<OutliveSpace>($count, $work),
            contender::<Plain>($count, $work),
            contender::<Same>($count, $work),
            contender::<Ranges>($count, $work),
        ]
    };
}

/// A walk over all mappings: operations are mappings.
fn iterate<S: Space + 'static>(count: u64) -> Contender {
    let space = S::filled(count);
    Contender::new(S::NAME, move |walks| {
        let start = Instant::now();
        for _ in 0..walks {
            core::hint::black_box(space.sum());
        }
        start.elapsed()
    })
}

/// Building, closing (with a look at every mapping) and freeing, in nanoseconds a mapping.
#[derive(Default)]
struct Ends {
    build: Vec<f64>,
    close: Vec<f64>,
    look: Vec<f64>,
    free: Vec<f64>,
}

impl Ends {
    fn add<S: Space>(&mut self, count: u64) {
        let each = |time: Duration| time.as_nanos() as f64 / count as f64;
        let start = Instant::now();
        let mut space = S::filled(count);
        self.build.push(each(start.elapsed()));
        // Every tile but one in eight is somewhere else by now, as in a space that has been used.
        let mut random = Random(1);
        for _ in 0..count / 4 {
            let tile = random.below(count);
            space.split(tile);
            space.heal(tile);
        }
        let start = Instant::now();
        let closed = space.close();
        self.close.push(each(start.elapsed()));
        let start = Instant::now();
        core::hint::black_box(S::look(&closed));
        self.look.push(each(start.elapsed()));
        let start = Instant::now();
        drop(closed);
        self.free.push(each(start.elapsed()));
    }

    fn print(&mut self, name: &str) {
        let cell = |values: &mut [f64]| {
            let spread = Spread::of(values);
            format!("{:.1} ({:.1} to {:.1})", spread.mid, spread.low, spread.high)
        };
        let [build, close] = [&mut self.build, &mut self.close].map(|values| cell(values));
        let [look, free] = [&mut self.look, &mut self.free].map(|values| cell(values));
        println!("| {name} | {build} | {close} | {look} | {free} |");
    }
}

fn ends(rounds: usize, count: u64, aims: &mut Vec<Aim>) {
    let (mut ours, mut plain) = (Ends::default(), Ends::default());
    for round in 0..=rounds {
        if round == 1 {
            (ours, plain) = (Ends::default(), Ends::default());
        }
        if round % 2 == 0 {
            ours.add::<OutliveSpace>(count);
            plain.add::<Plain>(count);
        } else {
            plain.add::<Plain>(count);
            ours.add::<OutliveSpace>(count);
        }
    }
    println!("\n### Building, closing and freeing {count} mappings, ns a mapping, median (quartiles)\n");
    println!("| contender | bulk build | close | look at all | free |\n|---|---:|---:|---:|---:|");
    ours.print(OutliveSpace::NAME);
    plain.print(Plain::NAME);
    let mut both: Vec<_> = ours.close.iter().zip(&ours.look).map(|(close, look)| close + look).collect();
    aims.push(Aim::at_most("close: at most 20 ns a mapping", Spread::of(&mut ours.close).mid, 20.0, "ns"));
    aims.push(Aim::at_most("close and look at every mapping: at most 20 ns", Spread::of(&mut both).mid, 20.0, "ns"));
    let mut ratios: Vec<_> = ours.free.iter().zip(&plain.free).map(|(ours, plain)| ours / plain).collect();
    aims.push(Aim::at_most(
        "freeing: no slower than `BTreeMap`'s drop",
        Spread::of(&mut ratios).mid,
        1.0,
        "of its time",
    ));
}

/// The time of the first of `rows` divided by that of the one called `name`.
fn ratio(rows: &[Row], name: &str) -> f64 {
    rows.iter().find(|row| row.name == name).map_or(f64::NAN, |row| 1.0 / row.ratio.mid)
}

fn main() -> ExitCode {
    let quick = match std::env::args().nth(1).as_deref() {
        None => false,
        Some("--quick") => true,
        Some(other) => {
            eprintln!("unknown argument `{other}`; usage: vm [--quick]");
            return ExitCode::from(2);
        }
    };
    if cfg!(debug_assertions) {
        eprintln!("built without optimisation: use `cargo run --release`");
    }
    let effort = if quick { Effort::QUICK } else { Effort::FULL };
    let mut aims = Vec::new();
    let mut growth = Vec::new();
    for count in [100, 10_000, TILES, MANY] {
        let rows = race(&mut all!(count, rebind), effort, OPS, 1);
        report::rows(&format!("Rebinding a random tile of {count}"), &rows);
        growth.push(rows[0].ns.mid);
        if count == TILES {
            let aim = "100,000 tiles rebound at random: at most 1.5 times BTreeMap's remove and insert";
            aims.push(Aim::at_most(aim, ratio(&rows, Plain::NAME), 1.5, "times"));
        }
        let rows = race(&mut all!(count, split), effort, OPS, 2);
        report::rows(&format!("Unmapping the middle of a random tile of {count}, or mapping it whole again"), &rows);
        report::rows(
            &format!("Finding a random address, {count} tiles"),
            &race(&mut all!(count, find), effort, OPS, 1),
        );
        let mut walks =
            [iterate::<OutliveSpace>(count), iterate::<Plain>(count), iterate::<Same>(count), iterate::<Ranges>(count)];
        let rows = race(&mut walks, Effort { divide: 1, ..effort }, (OPS * 5 / count).max(1), count);
        report::rows(&format!("Walking over {count} tiles, a tile"), &rows);
    }
    // Twenty binary digits against 6.6: what grows with log n may grow threefold, and caches miss besides.
    let grown = growth[3] / growth[0];
    aims.push(Aim::at_most(
        "a rebinding at 1,000,000 mappings against 100: grows with log n and cache misses",
        grown,
        10.0,
        "times",
    ));
    ends(if quick { 3 } else { 20 }, if quick { MANY / 10 } else { MANY }, &mut aims);
    let each = OutliveSpace::filled(TILES).bytes() as f64 / TILES as f64;
    aims.push(Aim::at_most("at most 128 bytes a mapping (as filled)", each, 128.0, "bytes"));
    report::aims(&aims);
    ExitCode::SUCCESS
}
