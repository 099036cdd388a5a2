//! Loads a driver, keeps its fences, closes its device, waits until it is drained, unloads the driver, checks that it is
//! gone from memory, and reads everything of the fences that were kept. Several times over.
//!
//! Argument: the plugin's file. Exits with 0 when everything was as it should be.

mod module;

use module::Module;
use outlive_shared::outlive::{Cause, Executor, Fence, FenceError, Status, Time, check};
use outlive_shared::{Kept, Witness};
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::Duration;

const ROUNDS: u32 = 8;
const JOBS: u32 = 6;
const WAIT: Duration = Duration::from_secs(10);

/// What one fence says.
#[derive(Debug, PartialEq, Eq)]
struct Said {
    context: u64,
    seqno: u64,
    client: u64,
    driver: String,
    timeline: String,
    status: Status,
    timestamp: Option<Time>,
}

fn ask(fence: &Fence) -> Said {
    Said {
        context: fence.context(),
        seqno: fence.seqno(),
        client: fence.client(),
        driver: fence.driver_name().to_owned(),
        timeline: fence.timeline_name().to_owned(),
        status: fence.status(),
        timestamp: fence.timestamp(),
    }
}

/// Timeline and verdict, by what the plugin calls it.
fn expected(what: &str) -> Option<(&'static str, Result<(), FenceError>)> {
    Some(match what {
        "scheduled" | "finished" | "retired" | "late retired" => ("render", Ok(())),
        "faulted" => ("copy", Err(FenceError::Faulted { code: 0x77 })),
        "dependency" => ("render", Err(FenceError::Dependency(Cause::Faulted { code: 0x77 }))),
        "late" | "behind" | "waiting" | "waiting scheduled" => ("render", Err(FenceError::Canceled)),
        "signaled" => ("bare", Ok(())),
        "dropped" => ("bare", Err(FenceError::Canceled)),
        "expired" => ("bare", Err(FenceError::TimedOut)),
        _ => return None,
    })
}

fn ensure(holds: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what()) }
}

/// One life of the plugin: its fences, and what they said while it was still loaded.
fn round(executor: &Executor, path: &Path, witness: &'static Witness) -> Result<Vec<(Kept, Said)>, String> {
    let module = Module::load(path)?;
    let name = module.name().to_owned();
    let loaded = Module::mappings(&name).len();
    ensure(loaded > 0, || format!("{name} is loaded, yet not mapped"))?;
    let plugin = module.plugin()?;
    (plugin.open)(executor, witness)?;
    let kept = (plugin.submit)()?;
    let drained = (plugin.close)()?;
    drained.wait(WAIT).map_err(|error| format!("the device is not drained: {error}"))?;
    // The plugin's own closure has left the notify lane when one of ours, queued behind it, runs.
    let (passed, passing) = mpsc::channel();
    let (signaler, barrier) =
        outlive_shared::outlive::UserFence::new(executor, "barrier").map_err(|e| e.to_string())?;
    let registration = barrier.on_signaled(move |_| passed.send(()).unwrap_or(())).map_err(|e| format!("{e}"))?;
    signaler.signal(Ok(()));
    passing.recv_timeout(WAIT).map_err(|_| "the notify lane is stuck")?;
    drop(registration);
    let said = kept.iter().map(|kept| ask(&kept.fence)).collect::<Vec<_>>();
    let left = module.unload()?;
    println!("{name}: {loaded} mappings while loaded, {left} after dlclose; {} fences kept", kept.len());
    ensure(left == 0, || format!("{name} is still mapped after dlclose"))?;
    let report = check::take_report().ok_or("the plugin's mistake was not reported")?;
    ensure(report.at.file().ends_with("plugin/src/lib.rs") && report.at.line() == report.section.line() + 1, || {
        format!("a report of a module that is gone reads {report}")
    })?;
    Ok(kept.into_iter().zip(said).collect())
}

/// The fences of a plugin that is gone.
fn read(all: &[(Kept, Said)]) -> Result<(), String> {
    for (Kept { what, fence }, said) in all {
        let copy = fence.clone();
        let now = ask(&copy);
        drop(copy);
        let (timeline, result) = expected(what).ok_or_else(|| format!("an unknown fence: {what}"))?;
        ensure(now == *said, || format!("{what}: {said:?} became {now:?}"))?;
        ensure(now.driver == "plugin" && now.timeline == timeline, || format!("{what}: wrong names: {now:?}"))?;
        ensure(now.status == Status::Signaled(result), || format!("{what}: wrong result: {now:?}"))?;
        ensure(now.timestamp.is_some_and(|time| time > Time::ZERO), || format!("{what}: no time: {now:?}"))?;
        // A signaled fence refuses what is registered late, without asking anybody.
        ensure(fence.on_signaled(|_| ()).is_err(), || format!("{what}: registered too late"))?;
        fence.set_deadline(Time::ZERO);
        let waited = fence.wait(WAIT).is_ok();
        ensure(waited == result.is_ok(), || format!("{what}: a wait says {waited}"))?;
    }
    Ok(())
}

fn run(path: &Path) -> Result<(), String> {
    let witness: &'static Witness = Box::leak(Box::default());
    let executor = Executor::builder().threads().map_err(|error| error.to_string())?;
    check::set_reporter(false);
    let mut all = Vec::new();
    for number in 1..=ROUNDS {
        all.extend(round(&executor, path, witness)?);
        let count = |counter: &std::sync::atomic::AtomicU32| counter.load(Ordering::Relaxed);
        let seen = [&witness.payloads, &witness.drivers, &witness.hooks, &witness.closures].map(count);
        ensure(seen == [JOBS, 1, 1, 1].map(|each| each * number), || {
            format!("payloads, drivers, armed hooks and closures gone in {number} rounds: {seen:?}")
        })?;
    }
    read(&all)?;
    let identities = all.iter().map(|(_, said)| (said.context, said.seqno)).collect::<std::collections::HashSet<_>>();
    ensure(identities.len() == all.len(), || "an identity was used twice".into())?;
    let fences = all.len();
    // The last handles: whole jobs are freed here, by the core alone.
    drop(all);
    drop(executor);
    println!("{ROUNDS} rounds; {fences} fences read, cloned and dropped after their driver was unmapped");
    Ok(())
}

fn main() -> ExitCode {
    let Some(path) = std::env::args_os().nth(1) else {
        eprintln!("which plugin?");
        return ExitCode::FAILURE;
    };
    match run(path.as_ref()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
