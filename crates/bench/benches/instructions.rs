//! Instructions under callgrind; what is measured is in `outlive_bench::instr`.
//!
//! ```text
//! cargo install gungraun-runner --version 0.20.0     # and valgrind
//! cargo bench -p outlive-bench --bench instructions
//! cargo run -p outlive-bench --bin gate              # compares with crates/bench/baseline.toml
//! ```
#![expect(missing_docs, unused_qualifications, reason = "the macros make public items and repeat paths")]

use core::hint::black_box;
use gungraun::{library_benchmark, library_benchmark_group, main};
use outlive::Fence;
use outlive_bench::instr::{
    self, Fixture, bypass_ready, dependent_ready, find_ready, merge_ready, signal_ready, turns_ready, worker_ready,
};
use outlive_bench::work::containers::{Fences, Kind, Points, readable};
use outlive_bench::work::turns::Turns;

#[library_benchmark]
#[bench::one(bypass_ready())]
fn bypass(fixture: Fixture) -> Fixture {
    instr::bypass_life(black_box(&fixture));
    fixture
}

#[library_benchmark]
#[bench::batch_50(worker_ready())]
fn worker(fixture: Fixture) -> Fixture {
    instr::worker_life(black_box(&fixture));
    fixture
}

#[library_benchmark]
#[bench::queues_1(dependent_ready(1))]
#[bench::queues_4(dependent_ready(4))]
#[bench::queues_64(dependent_ready(64))]
fn dependent(fixture: Fixture) -> Fixture {
    instr::dependent_job(black_box(&fixture));
    fixture
}

#[library_benchmark]
#[bench::closures_0(signal_ready(0))]
#[bench::closures_1(signal_ready(1))]
#[bench::closures_8(signal_ready(8))]
fn signal(fixture: (Fixture, u64)) -> (Fixture, u64) {
    instr::signal_life(black_box(&fixture));
    fixture
}

#[library_benchmark]
#[bench::blocked_0(turns_ready(0))]
#[bench::blocked_1000(turns_ready(1_000))]
#[bench::blocked_100000(turns_ready(100_000))]
fn turn(mut turns: Turns) -> Turns {
    instr::turn_life(black_box(&mut turns));
    turns
}

#[library_benchmark]
#[bench::blocked_0(turns_ready(0))]
#[bench::blocked_1000(turns_ready(1_000))]
#[bench::blocked_100000(turns_ready(100_000))]
fn pick(mut turns: Turns) -> Turns {
    instr::turn_pick(black_box(&mut turns));
    turns
}

#[library_benchmark]
#[bench::of_1(merge_ready(1, 0))]
#[bench::of_2_one_signaled(merge_ready(1, 1))]
#[bench::of_2(merge_ready(2, 0))]
#[bench::of_8(merge_ready(8, 0))]
#[bench::of_64(merge_ready(64, 0))]
fn merge(fences: Fences) -> Fences {
    instr::merge(black_box(&fences));
    fences
}

#[library_benchmark]
#[bench::leaf(readable(Kind::Leaf))]
#[bench::array(readable(Kind::Array))]
#[bench::point(readable(Kind::Point))]
fn read(fence: (Fence, Fences)) -> (Fence, Fences) {
    instr::read(black_box(&fence));
    fence
}

#[library_benchmark]
#[bench::newest(find_ready(1_000))]
#[bench::oldest_of_1000(find_ready(1))]
fn find(points: (Points, u64)) -> (Points, u64) {
    instr::find(black_box(&points));
    points
}

library_benchmark_group!(name = jobs, benchmarks = [bypass, worker, dependent, signal, turn, pick, merge, find, read]);

main!(library_benchmark_groups = jobs);
