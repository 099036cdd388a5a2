//! Builds `tests/bare` (no `std`, no `main`, an allocator and hooks of its own) and runs it. A library that only builds
//! without `std` proves nothing.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use core::time::Duration;
use std::path::Path;
use std::process::{Command, Stdio};

/// How often, and after which pauses, it is looked whether the program has ended.
const LOOKS: u32 = 6000;
const PAUSE: Duration = Duration::from_millis(10);

#[test]
fn runs_without_std() {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/bare/Cargo.toml");
    // A target directory of its own: the flags differ, and the outer cargo may hold its lock.
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bare");
    let status = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--manifest-path"])
        .arg(&manifest)
        .env("CARGO_TARGET_DIR", &target)
        .env_remove("CARGO_BUILD_TARGET")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("RUSTFLAGS")
        .status()
        .expect("cargo starts");
    assert!(status.success(), "tests/bare does not build: {status}");

    let mut child = Command::new(target.join("debug/outlive-bare")).stdout(Stdio::piped()).spawn().expect("it starts");
    let mut looks = 0;
    // Its output fits into the pipe.
    while child.try_wait().expect("it can be waited for").is_none() {
        looks += 1;
        if looks == LOOKS {
            child.kill().expect("it can be killed");
        }
        std::thread::sleep(PAUSE);
    }
    let output = child.wait_with_output().expect("it has ended");
    let text = String::from_utf8_lossy(&output.stdout);
    print!("{text}");
    assert!(looks < LOOKS, "it did not end within a minute");
    assert!(output.status.success(), "{}", output.status);
    assert!(text.contains("all checks held"), "it ended before its last check");
}
