//! The sabotage set as a run sees it: each switch commits one defect in the library, and the number that is there for it
//! leaves zero, is named among the violations, and fails the command. Without the switch the same run is clean.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use core::sync::atomic::AtomicBool;
use std::sync::{Mutex, PoisonError};

use outlive::sabotage::{Sabotage, commit};
use outlive_cli::args::Clock;
use outlive_cli::engine::{Options, execute};
use outlive_cli::error::Exit;
use outlive_cli::progress::{Progress, Show};
use outlive_cli::report::{Audit, Results};
use outlive_cli::scenario::Scenario;

/// One at a time: the switches are the process's.
static ONE: Mutex<()> = Mutex::new(());

fn run(clients: &str) -> Results {
    let head = "name = \"sabotage\"\nrun_for_ms = 100\n[device]\nkind = \"sim\"\nengines = 2\ncredits = 4\n[scheduler]\ntimeout_ms = 10\n";
    let scenario = Scenario::parse("test.toml", &format!("{head}{clients}")).unwrap();
    let options = Options {
        clock: Clock::Virtual,
        keep_jobs: false,
        requests: None,
        frames: None,
        progress: Progress::new(scenario.run_for_ms, scenario.instances.len(), Show::Never),
        interrupted: &AtomicBool::new(false),
    };
    execute(&scenario, options).unwrap().results
}

/// Runs `clients` without and with `defect`.
fn finds(defect: Sabotage, number: fn(&Audit) -> u64, words: &str, clients: &str) {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    commit(None);
    let clean = run(clients);
    assert_eq!(clean.exit(), Exit::Ok, "{defect:?} is off: {:#?}", clean.audit);
    commit(Some(defect));
    let spoiled = run(clients);
    commit(None);
    assert_eq!(spoiled.exit(), Exit::Failed, "{defect:?} went unnoticed: {:#?}", spoiled.audit);
    assert_eq!(spoiled.exit().code(), 1);
    assert!(number(&spoiled.audit) > 0, "{defect:?} is not counted: {:#?}", spoiled.audit);
    let named = spoiled.audit.violations.iter().any(|said| said.contains(words));
    assert!(named, "{defect:?} is not named: {:#?}", spoiled.audit);
}

const BUSY: &str = "[[client]]\nname = \"a\"\nduration_us = 3000\nsync = false\ndepth = 4\nwork = \"copy\"\n";
const HANGS: &str = "[[client]]\nname = \"a\"\nduration_us = 3000\nfault = { every = 3, kind = \"hang\" }\n";
const KILL: &str = "[[event]]\nat_ms = 10\nevery_ms = 20\ndo = \"kill\"\nclient = \"a\"\n\
    [[event]]\nat_ms = 15\nevery_ms = 20\ndo = \"start\"\nclient = \"a\"\n";
const AFTER: &str = "[[client]]\nname = \"b\"\nduration_us = 5000\nafter = \"a\"\n";

#[test]
fn memory_that_is_freed_at_the_close() {
    let freed = |audit: &Audit| audit.released_while_hardware_busy;
    finds(Sabotage::FreeAtClose, freed, "was dropped while", &format!("{BUSY}{KILL}"));
    // What the library accounts ends there, and what the hardware does goes on.
    finds(Sabotage::FreeAtClose, freed, "by the hardware's count", &format!("{BUSY}{KILL}"));
}

#[test]
fn memory_that_is_freed_at_the_verdict() {
    let freed = |audit: &Audit| audit.released_while_hardware_busy;
    finds(Sabotage::ReleaseAtFinished, freed, "was dropped while", HANGS);
}

#[test]
fn a_signal_that_never_comes() {
    finds(Sabotage::SkipSignal, |audit| audit.fences_unsignaled, "was never signalled", BUSY);
    // And with it the run's own count.
    finds(Sabotage::SkipSignal, |audit| audit.fences_unsignaled, "have not retired", BUSY);
}

#[test]
fn a_signal_that_comes_twice() {
    finds(Sabotage::SignalTwice, |audit| audit.signaled_twice, "though it was not open", BUSY);
}

#[test]
fn a_signal_before_its_turn() {
    let ragged = format!("{BUSY}jitter = 0.9\n");
    finds(Sabotage::SignalOutOfOrder, |audit| audit.out_of_order, "was signalled before", &ragged);
}

#[test]
fn credits_that_are_not_given_back() {
    finds(Sabotage::LeakCredit, |audit| audit.leases_leaked, "is held back though", BUSY);
}

#[test]
fn a_dependency_that_is_not_waited_for() {
    let clients = format!("{BUSY}{AFTER}");
    finds(Sabotage::SkipDependency, |audit| audit.conflicting_accesses, "at once on", &clients);
}

#[test]
fn an_error_that_does_not_reach_who_depends_on_it() {
    let clients = format!("{HANGS}{AFTER}on_dependency_error = \"fail\"\n");
    finds(Sabotage::LoseError, |audit| audit.conflicting_accesses, "at once on", &clients);
}

#[test]
fn a_hung_job_that_nobody_ends_once_its_client_is_dead() {
    let clients = format!("{HANGS}{KILL}");
    finds(Sabotage::NoDrainDeadline, |audit| audit.fences_unsignaled, "have not retired", &clients);
}

#[test]
fn a_fence_that_keeps_its_issuer() {
    // Each cycle of the dead one is a cancelled fence, issued for the purpose.
    let death = "[[event]]\nat_ms = 10\ndo = \"kill\"\nclient = \"a\"\n";
    let clients = format!("{BUSY}{death}{AFTER}on_dependency_error = \"fail\"\n");
    finds(Sabotage::KeepIssuer, |_| 1, "live on after all handles", &clients);
}
