//! Benchmarks of `outlive` beside what a user would pick instead: see `docs/benchmarks.md`.
//!
//! `work` is what is measured, `harness` how contenders are interleaved, `load` the driver that does nothing and the
//! payload, `allocations` and `counts` what is counted, `instr` what `benches/instructions.rs` and `src/bin/gate.rs` agree on.

extern crate alloc;

pub mod allocations;
pub mod counts;
pub mod harness;
pub mod instr;
pub mod load;
pub mod report;
pub mod work;
