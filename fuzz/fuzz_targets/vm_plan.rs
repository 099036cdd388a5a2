//! Address spaces beside a flat array of pages, as in `crates/outlive/tests/vm_model`, whose model this runs.
#![no_main]

#[path = "../../crates/outlive/tests/vm_model/model.rs"]
mod model;

use libfuzzer_sys::fuzz_target;
use model::{Working, World};

fuzz_target!(|bytes: &[u8]| {
    // Allocations are counted by the test that replays the corpus.
    for working in [Working::Staged, Working::Immediate, Working::Mixed] {
        World::new(working, || 0).run(bytes);
    }
});
