//! Builds and runs `tests/dlopen`: a driver in a module is loaded, used, drained and unloaded; the fences it issued are read,
//! cloned and dropped afterwards. Whatever still reached its code or data would fault.
#![cfg(target_os = "linux")]

mod apart;

use core::time::Duration;
use std::ffi::OsString;
use std::process::Command;

/// Where the dynamic standard library is.
fn standard_library() -> OsString {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).args(["--print", "target-libdir"]).output().expect("rustc starts");
    assert!(output.status.success(), "rustc: {}", output.status);
    String::from_utf8(output.stdout).expect("a path in Unicode").trim_end().into()
}

#[test]
fn fences_outlive_the_module_that_issued_them() {
    let built = apart::build("dlopen", &["--workspace"], Some("-C prefer-dynamic"));
    let libraries = std::env::join_paths([built.clone(), built.join("deps"), standard_library().into()])
        .expect("no colon in the paths");
    let mut host = Command::new(built.join("outlive-host"));
    host.arg(built.join("liboutlive_plugin.so")).env("LD_LIBRARY_PATH", libraries);
    let text = apart::run(&mut host, Duration::from_secs(120));
    assert!(text.contains("0 after dlclose") && text.contains("after their driver was unmapped"), "{text}");
}
