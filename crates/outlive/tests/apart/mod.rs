//! Programs that cannot be built together with the tests: built by a cargo of their own, and run to their end.

use core::time::Duration;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// After which pauses it is looked whether a program has ended.
const PAUSE: Duration = Duration::from_millis(10);

/// Builds what is in the repository's `tests/NAME`; where it lies then.
pub(crate) fn build(name: &str, args: &[&str], rustflags: Option<&str>) -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests").join(name).join("Cargo.toml");
    // A target directory of its own: the flags differ, and the outer cargo may hold its lock.
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet"]).args(args).arg("--manifest-path").arg(&manifest);
    cargo.env("CARGO_TARGET_DIR", &target).env_remove("CARGO_BUILD_TARGET").env_remove("CARGO_ENCODED_RUSTFLAGS");
    match rustflags {
        Some(flags) => cargo.env("RUSTFLAGS", flags),
        None => cargo.env_remove("RUSTFLAGS"),
    };
    let status = cargo.status().expect("cargo starts");
    assert!(status.success(), "tests/{name} does not build: {status}");
    target.join("debug")
}

/// What `program` prints, which is to end well within `limit`.
pub(crate) fn run(program: &mut Command, limit: Duration) -> String {
    let mut child = program.stdout(Stdio::piped()).spawn().expect("it starts");
    let mut waited = Duration::ZERO;
    // Its output fits into the pipe.
    while child.try_wait().expect("it can be waited for").is_none() {
        waited += PAUSE;
        if waited == limit {
            child.kill().expect("it can be killed");
        }
        std::thread::sleep(PAUSE);
    }
    let output = child.wait_with_output().expect("it has ended");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    print!("{text}");
    assert!(waited < limit, "it did not end within {limit:?}");
    assert!(output.status.success(), "{}", output.status);
    text
}
