//! Builds `tests/bare` (no `std`, no `main`, an allocator and hooks of its own) and runs it. A library that only builds
//! without `std` proves nothing.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod apart;

use core::time::Duration;
use std::process::Command;

#[test]
fn runs_without_std() {
    let built = apart::build("bare", &[], None);
    let text = apart::run(&mut Command::new(built.join("outlive-bare")), Duration::from_secs(60));
    assert!(text.contains("all checks held"), "it ended before its last check");
}
