//! Builds and runs `tests/dlopen`: a driver in a module is loaded, used, drained and unloaded; the fences it issued are read,
//! cloned and dropped afterwards. Whatever still reached its code or data would fault.
#![cfg(target_os = "linux")]

use core::time::Duration;
use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Stdio};

/// Where the dynamic standard library is.
fn standard_library() -> OsString {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).args(["--print", "target-libdir"]).output().expect("rustc starts");
    assert!(output.status.success(), "rustc: {}", output.status);
    String::from_utf8(output.stdout).expect("a path in Unicode").trim_end().into()
}

/// How often, and after which pauses, it is looked whether the program has ended.
const LOOKS: u32 = 12000;
const PAUSE: Duration = Duration::from_millis(10);

#[test]
fn fences_outlive_the_module_that_issued_them() {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/dlopen/Cargo.toml");
    // A target directory of its own: the flags differ, and the outer cargo may hold its lock.
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("dlopen");
    let status = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--workspace", "--manifest-path"])
        .arg(&manifest)
        .env("CARGO_TARGET_DIR", &target)
        .env("RUSTFLAGS", "-C prefer-dynamic")
        .env_remove("CARGO_BUILD_TARGET")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .status()
        .expect("cargo starts");
    assert!(status.success(), "tests/dlopen does not build: {status}");

    let built = target.join("debug");
    let libraries = std::env::join_paths([built.clone(), built.join("deps"), standard_library().into()])
        .expect("no colon in the paths");
    let mut child = Command::new(built.join("outlive-host"))
        .arg(built.join("liboutlive_plugin.so"))
        .env("LD_LIBRARY_PATH", libraries)
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
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
    assert!(looks < LOOKS, "it did not end within two minutes");
    assert!(output.status.success(), "{}", output.status);
    assert!(text.contains("0 after dlclose") && text.contains("after their driver was unmapped"), "{text}");
}
