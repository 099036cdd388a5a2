//! The sabotage set as the audit sees it: each switch commits one defect in the library, and the number that is there for
//! it leaves zero and is named. A check that no sabotage trips is not a check.
//!
//! | defect | number |
//! |---|---|
//! | `FreeAtClose`, `ReleaseAtFinished`, `ForgetExternal` | `released_while_hardware_busy` |
//! | `SkipSignal`, `NoDrainDeadline`, `NoWatchdog`, `StartAfterClose` | `fences_unsignaled` |
//! | `SignalTwice` | `signaled_twice` |
//! | `SignalOutOfOrder` | `out_of_order` |
//! | `LeakCredit` | `leases_leaked` |
//! | `SkipDependency`, `LoseError` | `conflicting_accesses` |
//! | `KeepIssuer` | none: live objects |
//!
//! Three cannot be seen from here, and have their tests in the core: `LoseWakeUp` (a thread sleeps on; no virtual time
//! passes for it), `DropWhileSignalling` (reported by the core's own check), `RefundAtFinished` (a principal's charge is the
//! library's book; the hardware keeps none).

#![expect(clippy::unwrap_used, clippy::std_instead_of_core, reason = "tests")]

use outlive::sabotage::{Sabotage, commit};
use outlive::vm::{Flags, Request, Source, VmBo};
use outlive::{Dependency, Executor, FenceContext, Names};
use outlive_sim::driver::{
    ClientConfig, HostConfig, JobSpec, SimBo, SimClient, SimDriver, SimHost, SimVm, VM_START, Work,
};
use outlive_sim::gpu::{Audit, Config, FaultKind};
use outlive_sim::world::{Budget, Plan, run, run_threads};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);

/// One switch at a time: they are the process's.
static ONE: Mutex<()> = Mutex::new(());

/// Runs `story` twice: without a defect its audit is clean, with it `number` is not zero and `words` are said.
fn finds(defect: Sabotage, number: fn(&Audit) -> u64, words: &str, story: fn(&SimHost)) {
    finds_within(defect, [20_000 * MS; 2], number, words, story);
}

/// As [`finds`], where the runs go on for so long after their stories, without and with the defect: some defects leave
/// nothing that could.
fn finds_within(defect: Sabotage, rests: [Duration; 2], number: fn(&Audit) -> u64, words: &str, story: fn(&SimHost)) {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    commit(None);
    let clean = audit_of(rests[0], story);
    assert!(clean.is_clean(), "{defect:?} is off: {clean:#?}");
    commit(Some(defect));
    let audit = audit_of(rests[1], story);
    commit(None);
    assert!(number(&audit) > 0 && !audit.is_clean(), "{defect:?} went unnoticed: {audit:#?}");
    assert!(audit.violations.iter().any(|said| said.contains(words)), "{defect:?} is not named: {audit:#?}");
}

/// The same, where nothing is left to be seen but an object that lives on.
fn leaves_objects(defect: Sabotage, story: fn(&SimHost)) {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let left = || {
        let host = SimHost::new(HostConfig::default()).unwrap();
        let executor: Executor = host.executor().clone();
        story(&host);
        assert!(host.finish().is_clean());
        executor.live_objects()
    };
    commit(None);
    assert_eq!(left(), 0, "{defect:?} is off");
    commit(Some(defect));
    let objects = left();
    commit(None);
    assert!(objects > 0, "{defect:?} went unnoticed");
}

fn audit_of(rest: Duration, story: fn(&SimHost)) -> Audit {
    let gpu = Config { engines: 2, memory_bytes: 8 << 20, tick_ns: 10_000_000, ..Config::default() };
    let host = SimHost::new(HostConfig { gpu, ..HostConfig::default() }).unwrap();
    story(&host);
    host.run_for(rest);
    host.finish()
}

fn client(host: &SimHost) -> SimClient {
    let config = ClientConfig { credits: 2, timeout: 20 * MS, ..ClientConfig::default() };
    SimClient::new(host, "client", config).unwrap()
}

fn submit(client: &SimClient, ms: u32, fault: Option<FaultKind>) {
    drop(client.submit(JobSpec { fault, ..JobSpec::spin(ms * MS) }).unwrap());
}

#[test]
fn free_at_close() {
    let freed = |audit: &Audit| audit.released_while_hardware_busy;
    finds(Sabotage::FreeAtClose, freed, "was dropped while", |host| {
        let client = client(host);
        submit(&client, 10, None);
        host.run_for(MS);
        client.kill();
    });
}

#[test]
fn release_at_finished() {
    let freed = |audit: &Audit| audit.released_while_hardware_busy;
    // It ends between the timeout at 20 ms and the hardware's next touch at 30: what comes late finds its job gone.
    finds_within(Sabotage::ReleaseAtFinished, [20_000 * MS, MS], freed, "was dropped while", |host| {
        let client = client(host);
        submit(&client, 5, Some(FaultKind::Hang));
        host.run_for(24 * MS);
    });
}

/// An address space with a buffer of a megabyte, and a job in it that takes a while.
fn job_in_an_address_space(host: &SimHost, client: &SimClient, external: bool) -> (SimVm, SimBo, VmBo<SimDriver>) {
    let vm = SimVm::new(client).unwrap();
    let bo = if external { vm.external(1 << 20) } else { vm.local(1 << 20) }.unwrap();
    let pair = vm.open(&bo).unwrap();
    let source = Source::Bo { bo: pair.id(), offset: 0 };
    vm.change(&[Request::Map { va: VM_START, len: 1 << 20, source, flags: Flags::NONE, data: () }]).unwrap();
    let spec = JobSpec::new(20 * MS, Work::Fill);
    drop(vm.submit(client, spec, VM_START, Work::Fill.data_bytes()).unwrap());
    host.run_for(MS);
    (vm, bo, pair)
}

/// What is mapped in an address space is freed at `finished` of the job that uses it.
#[test]
fn release_at_finished_in_an_address_space() {
    let number = |audit: &Audit| audit.released_while_hardware_busy;
    finds(Sabotage::ReleaseAtFinished, number, "freed", |host| {
        let client = client(host);
        let dies = job_in_an_address_space(host, &client, false);
        client.kill();
        drop(dies);
    });
}

/// A job's fence is missing on an external buffer, which is evicted while the job uses it.
#[test]
fn forget_external() {
    let number = |audit: &Audit| audit.released_while_hardware_busy;
    finds(Sabotage::ForgetExternal, number, "freed", |host| {
        let client = client(host);
        let (vm, bo, pair) = job_in_an_address_space(host, &client, true);
        // Refused, without the defect: the job's fence hangs on it.
        let _ = vm.evict(&bo);
        host.run_for(30 * MS);
        drop((vm, bo, pair, client));
    });
}

#[test]
fn skip_signal() {
    finds(
        Sabotage::SkipSignal,
        |audit| audit.fences_unsignaled,
        "was never signalled",
        |host| {
            let client = client(host);
            submit(&client, 1, None);
            host.run_for(5 * MS);
        },
    );
}

#[test]
fn signal_twice() {
    finds(
        Sabotage::SignalTwice,
        |audit| audit.signaled_twice,
        "though it was not open",
        |host| {
            let client = client(host);
            submit(&client, 1, None);
            host.run_for(5 * MS);
        },
    );
}

#[test]
fn signal_out_of_order() {
    finds(
        Sabotage::SignalOutOfOrder,
        |audit| audit.out_of_order,
        "was signalled before",
        |host| {
            let client = client(host);
            submit(&client, 8, None);
            submit(&client, 1, None);
            host.run_for(20 * MS);
        },
    );
}

#[test]
fn leak_credit() {
    finds(
        Sabotage::LeakCredit,
        |audit| audit.leases_leaked,
        "is held back though",
        |host| {
            let client = client(host);
            for _ in 0..6 {
                submit(&client, 1, None);
            }
            host.run_for(50 * MS);
        },
    );
}

#[test]
fn skip_dependency() {
    finds(
        Sabotage::SkipDependency,
        |audit| audit.conflicting_accesses,
        "at once on",
        |host| {
            let (writer, reader) = (client(host), client(host));
            let first = writer.submit(JobSpec { shared: true, ..JobSpec::new(5 * MS, Work::Fill) }).unwrap();
            let after = vec![Dependency::on(first.fences.finished())];
            let reads = vec![first.output.clone()];
            drop(reader.submit(JobSpec { after, reads, ..JobSpec::spin(MS) }).unwrap());
            drop(first);
            host.run_for(20 * MS);
        },
    );
}

#[test]
fn lose_error() {
    let conflicts = |audit: &Audit| audit.conflicting_accesses;
    finds(Sabotage::LoseError, conflicts, "at once on", |host| {
        let (writer, reader) = (client(host), client(host));
        // Its verdict comes at 20 ms, and it writes on until it is reset.
        let hung = JobSpec { fault: Some(FaultKind::Hang), shared: true, ..JobSpec::new(5 * MS, Work::Fill) };
        let first = writer.submit(hung).unwrap();
        let after = vec![Dependency::on(first.fences.finished()).on_error(outlive::OnError::Fail)];
        let reads = vec![first.output.clone()];
        drop(reader.submit(JobSpec { after, reads, ..JobSpec::spin(15 * MS) }).unwrap());
        drop(first);
        host.run_for(200 * MS);
    });
}

#[test]
fn no_drain_deadline() {
    let unsignaled = |audit: &Audit| audit.fences_unsignaled;
    finds(Sabotage::NoDrainDeadline, unsignaled, "was never signalled", |host| {
        let client = client(host);
        submit(&client, 5, Some(FaultKind::Hang));
        host.run_for(MS);
        client.kill();
    });
}

#[test]
fn start_after_close() {
    let unsignaled = |audit: &Audit| audit.fences_unsignaled;
    finds_within(Sabotage::StartAfterClose, [20 * MS; 2], unsignaled, "was never signalled", |host| {
        let (first, second) = (client(host), client(host));
        let long = first.submit(JobSpec::spin(15 * MS)).unwrap();
        let after = vec![Dependency::on(long.fences.finished())];
        drop(second.submit(JobSpec { after, ..JobSpec::spin(15 * MS) }).unwrap());
        drop(long);
        host.run_for(MS);
        // What waits is over at once, and does not run.
        second.kill();
    });
}

#[test]
fn no_watchdog() {
    let unsignaled = |audit: &Audit| audit.fences_unsignaled;
    finds(Sabotage::NoWatchdog, unsignaled, "was never signalled", |host| {
        let context = FenceContext::new(host.executor(), Names { driver: "test", timeline: "bare" }).unwrap();
        let (signaler, fence) = context.allocate().unwrap().publish();
        host.watch(&fence);
        core::mem::forget(signaler);
    });
}

#[test]
fn keep_issuer() {
    leaves_objects(Sabotage::KeepIssuer, |host| {
        let context = FenceContext::new(host.executor(), Names { driver: "test", timeline: "bare" }).unwrap();
        let (signaler, fence) = context.allocate().unwrap().publish();
        host.watch(&fence);
        signaler.signal(Ok(()));
    });
}

#[test]
fn storms_notice_a_ban_that_nobody_hears_of() {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    commit(Some(Sabotage::IgnoreBan));
    let seen = (0..40).map(|seed| run(seed, Budget::default())).find(|outcome| !outcome.is_well());
    commit(None);
    let words = seen.expect("no storm noticed").to_string();
    assert!(words.contains("who is banned, was"), "{words}");
}

/// Where memory is short, a page that is given back too early is soon somebody else's.
#[test]
fn storms_short_of_memory_notice_what_is_released_too_early() {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let budget = Budget { queues: 40, steps: 100, device_may_die: false, ..Budget::default() };
    for defect in [Sabotage::ReleaseAtFinished, Sabotage::FreeAtClose] {
        commit(Some(defect));
        let seen = (0..4).map(|world| run(4 * world + 3, budget)).find(|outcome| !outcome.is_well());
        commit(None);
        let seen = seen.unwrap_or_else(|| panic!("{defect:?} went unnoticed"));
        assert!(seen.audit.released_while_hardware_busy > 0, "{defect:?}: {seen}");
    }
}

#[test]
fn storms_notice() {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    // Those that leave memory as it is, and after which fences still signal: a storm goes on after the defect has struck.
    for defect in [Sabotage::SkipDependency, Sabotage::SignalOutOfOrder, Sabotage::SignalTwice] {
        commit(Some(defect));
        let virtual_time = run(1, Budget::default());
        // With threads no two storms are the same: a defect need not strike in one.
        let mut storms = (1..=20).map(|seed| run_threads(seed, Plan::new(4, 100, 50)));
        let threads = storms.find(|outcome| !outcome.is_well());
        commit(None);
        for outcome in [virtual_time, threads.unwrap_or_else(|| panic!("{defect:?} went unnoticed"))] {
            assert!(!outcome.is_well() && !outcome.audit.is_clean(), "{defect:?} went unnoticed: {outcome}");
            assert!(outcome.to_string().contains("again: cargo run"), "{outcome}");
        }
    }
}
