//! Random operations on a space, staged, immediate and mixed, beside a flat array of pages: contents, order and number of steps,
//! what a commit allocates, equality after a plan was dropped or a driver failed.
#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests may panic and allocate")]

mod model;

use model::{Working, World};
use outlive::check::{self, Alloc};
use proptest::test_runner::{Config, TestRunner};
use std::alloc::System;

#[global_allocator]
static ALLOC: Alloc<System> = Alloc::new(System);

fn allocations() -> u64 {
    check::allocations().allocated
}

const ALL: [Working; 3] = [Working::Staged, Working::Immediate, Working::Mixed];

/// Runs random operations until there were `requests` of them in each way of working. A failure prints the bytes that `World::run` fails with.
fn random(requests: u64) {
    let mut ran = 0;
    while ran < requests {
        let config = Config { cases: 64, failure_persistence: None, ..Config::default() };
        let seen = core::cell::Cell::new(0);
        let mut runner = TestRunner::new(config);
        let bytes = proptest::collection::vec(proptest::num::u8::ANY, 0..1_000);
        let result = runner.run(&bytes, |bytes| {
            for working in ALL {
                let mut world = World::new(working, allocations);
                world.run(&bytes);
                if working == Working::Staged {
                    seen.set(seen.get() + world.requests);
                }
            }
            Ok(())
        });
        if let Err(error) = result {
            panic!("{error}");
        }
        ran += seen.get();
    }
    println!("{ran} requests in each of {} ways", ALL.len());
}

#[test]
fn a_space_is_an_array_of_pages() {
    random(if cfg!(debug_assertions) { 20_000 } else { 100_000 });
}

#[test]
#[ignore = "a campaign: see docs/campaigns.md"]
fn a_million_requests() {
    random(1_000_000);
}

/// What the fuzzer found worth keeping; see `fuzz/fuzz_targets/vm_plan.rs`.
#[test]
fn the_fuzzer_s_corpus() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/vm_plan");
    let (mut files, mut requests) = (0, 0);
    for file in std::fs::read_dir(folder).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        for working in ALL {
            let mut world = World::new(working, allocations);
            world.run(&bytes);
            requests += world.requests;
        }
        files += 1;
    }
    assert!(files > 20 && requests > 100, "{files} files, {requests} requests");
}
