//! What the types alone promise: who may cross threads, how large handles are, and what does not compile.
//!
//! The compile-fail cases are `tests/ui/*.rs`. Their messages are those of rustc 1.95; with another compiler they are
//! skipped, and the test says so.

#![expect(clippy::unwrap_used, reason = "tests may panic")]

use core::cell::Cell;
use core::error::Error;
use core::hash::Hash;
use core::marker::PhantomData;
use outlive::{
    Acquired, AllocError, Cause, Charges, Completion, ContainerError, Dependency, Device, DeviceConfig, Drained,
    Driver, EngineName, Executor, ExecutorBuilder, Fdinfo, Fence, FenceContext, FenceError, FenceFuture, Full, Hook,
    InFlight, JOB_BYTES, Job, JobCx, JobFences, JobInfo, JobQueue, Lane, LongQueue, LongReserved, Names, Off, OnError,
    OpenError, Outcome, Pending, PointReservation, PreemptToken, Principal, Progress, Quarantine, QueueConfig,
    QueueStatus, Ready, Refusal, Refused, Registration, ReserveError, Reserved, ResetScope, ResetToken, Restart,
    Retired, Signaler, Status, Syncobj, SyncobjError, SyncobjWait, Time, Timeline, TimelineError, Times, Unpublished,
    Until, Usage, UserFence, UserSource, Verdict, WaitError, WaitsFor, check, pool, resv, sched, sync, trace,
};
use static_assertions::{assert_impl_all, assert_not_impl_any, const_assert, const_assert_eq};
use std::io::Write;
use std::process::Command;

/// `Send`, but not `Sync`: what a payload or a ring may well be.
type Movable = Cell<u32>;
/// Neither.
type Bound = PhantomData<*const ()>;

/// A driver whose payload and ring can only be moved.
struct Moves;

impl Driver for Moves {
    type Job = Movable;
    type Queue = Movable;

    fn run(&self, _cx: &mut JobCx<'_, Self>, done: Completion) {
        done.complete(Ok(()));
    }
}

/// A driver whose payload and ring can be shared too.
struct Shares;

impl Driver for Shares {
    type Job = u32;
    type Queue = u32;

    fn run(&self, _cx: &mut JobCx<'_, Self>, done: Completion) {
        done.complete(Ok(()));
    }
}

macro_rules! table {
    ($($what:ty: $($trait:ident)+ $(, not $($not:ident)+)?;)*) => {
        $(assert_impl_all!($what: $($trait),+); $(assert_not_impl_any!($what: $($not),+);)?)*
    };
}

// Handles on fences: anywhere, shared or moved.
table! {
    Fence: Send Sync Clone Eq Unpin, not Copy;
    Retired: Send Sync Clone Eq, not Copy;
    UserFence: Send Sync Clone Eq, not Copy;
    UserSource: Send Sync Clone;
    JobFences: Send Sync Clone Eq;
    Drained: Send Sync Clone;
    Pending: Send Sync, not Clone;
    FenceContext: Send Sync, not Clone;
    Timeline: Send Sync, not Clone;
    Syncobj: Send Sync Clone Eq, not Copy;
    SyncobjWait: Send Sync Clone Eq, not Copy;
    PointReservation: Send Sync, not Clone Copy;
    Unpublished: Send Sync, not Clone;
    Hook: Send Sync Clone;
    Registration: Send Sync, not Clone Copy;
    FenceFuture: Send Sync, not Clone Unpin;
    Dependency: Send Sync Clone;
}

// Reservations are handles; a transaction and its tokens stay in the thread and the attempt that has them.
table! {
    resv::Reservation: Send Sync Clone Eq, not Copy;
    resv::Snapshot: Send Sync, not Clone;
    resv::Description: Send Sync;
    resv::Interrupt: Send Sync, not Clone;
    resv::Interrupter: Send Sync Clone;
    resv::Transaction<'static>: Send, not Clone;
    resv::Attempt<'static>: Sized, not Send Sync Clone;
    resv::Sealed<'static>: Sized, not Send Sync Clone;
    resv::Slot<'static>: Sized, not Clone Copy Default;
    resv::Slots<'static>: Iterator, not Clone Copy Default;
    resv::Locked<'static>: Copy Eq, not Default;
    resv::LockError: Send Sync Copy Eq Error;
    resv::Injection: Send Sync Copy;
    resv::Usage: Send Sync Copy Ord Hash;
}

// What must be used up once: no second one can be made.
table! {
    Signaler: Send Sync, not Clone Copy Default;
    Completion: Send Sync, not Clone Copy Default;
    ResetToken: Send, not Clone Copy;
    PreemptToken: Send, not Clone Copy;
    Off: Send, not Clone Copy;
    Ready: Send, not Clone Copy;
    Restart: Send, not Clone Copy;
    LongReserved<Shares>: Send Sync, not Clone Copy;
    Reserved<Shares>: Send Sync, not Clone Copy;
    Reserved<Moves>: Send, not Sync Clone;
}

// Queues and devices are shared whatever their driver's payload and ring are: they lend both to one call at a time.
table! {
    Device<Moves>: Send Sync Clone;
    JobQueue<Moves>: Send Sync, not Clone;
    LongQueue<Moves>: Send Sync, not Clone;
    JobCx<'static, Shares>: Send Sync;
    JobCx<'static, Moves>: Send, not Sync;
    InFlight: Send Sync;
    Principal: Send Sync Clone;
    Executor: Send Sync Clone;
    ExecutorBuilder: Send Sync;
    QueueConfig: Send Sync;
    DeviceConfig: Send Sync Copy;
    Acquired: Send Sync;
    Usage: Send Sync Copy Eq;
    Outcome: Send Sync Copy Eq;
    WaitsFor: Send Sync Clone Eq;
    Fdinfo<'static>: Send Sync Copy;
    EngineName<'static>: Send Sync Copy;
}

// What carries a foreign value is as movable as that.
table! {
    Job<u32>: Send Sync;
    Job<Movable>: Send, not Sync;
    Job<Bound>: Sized, not Send Sync;
    Refused<Movable>: Send, not Sync;
    Refused<Bound>: Sized, not Send Sync;
    ReserveError<Movable>: Send, not Sync;
    ReserveError<Bound>: Sized, not Send Sync;
    Full: Send Sync;
    sync::Lock<sync::class::QueueState, Movable>: Send Sync;
    sync::Lock<sync::class::QueueState, Bound>: Sized, not Send Sync;
    sync::Guard<'static, sync::class::QueueState, u32>: Sync, not Send Clone;
    sync::Guard<'static, sync::class::QueueState, Movable>: Sized, not Send Sync;
}

// A section belongs to its thread.
table! {
    check::Signalling: Sized, not Send Sync Clone;
    check::Alloc<std::alloc::System>: Send Sync;
    check::Allocations: Send Sync Copy;
    check::Report: Send Sync Copy;
    check::Violation: Send Sync Copy;
    check::Place: Send Sync Copy;
    check::ClassName: Send Sync Copy;
    check::FenceName: Send Sync Copy;
    check::Producing: Sized, not Send Clone;
    check::Reclaiming: Sized, not Send Sync Clone;
}

// Plain facts.
table! {
    Status: Send Sync Copy Eq;
    FenceError: Send Sync Copy Eq Hash Error;
    Cause: Send Sync Copy Eq;
    WaitError: Send Sync Copy Eq;
    ContainerError: Send Sync Copy Eq Error;
    TimelineError: Send Sync Copy Eq Error;
    SyncobjError: Send Sync Copy Eq Error;
    Progress: Send Sync Copy Eq;
    Until: Send Sync Copy Eq;
    Refusal: Send Sync Copy Eq;
    OpenError: Send Sync Copy Eq;
    AllocError: Send Sync Copy Eq;
    Charges: Send Sync Copy Eq;
    JobInfo: Send Sync Copy;
    Lane: Send Sync Copy Eq;
    Names<'static>: Send Sync Copy;
    OnError: Send Sync Copy Eq;
    Quarantine: Send Sync Copy Eq;
    QueueStatus: Send Sync Copy Eq;
    ResetScope: Send Sync Copy Eq;
    Time: Send Sync Copy Ord;
    Times: Send Sync Copy Eq;
    Verdict: Send Sync Copy Eq;
    pool::Holder: Send Sync;
    pool::Pool: Send Sync;
    pool::PoolConfig: Send Sync Copy;
    pool::PoolError: Send Sync Copy Eq Error;
    pool::PoolStatus: Send Sync Copy Eq;
    pool::SlotSet: Send Sync;
    pool::Ticket: Send Sync;
    sched::Arbiter: Send Sync;
    sched::ArbiterConfig: Send Sync Copy;
    sched::ArbiterStatus: Send Sync Copy;
    sched::BadWeight: Send Sync Copy;
    sched::Fair: Send Sync;
    sched::Fifo: Send Sync;
    sched::Head: Send Sync Copy;
    sched::Priority: Send Sync Copy Ord;
    sched::RoundRobin: Send Sync;
    sched::Share: Send Sync Copy;
    trace::Event: Send Sync Copy Eq;
    trace::FenceId: Send Sync Copy Ord;
    trace::Blocked: Send Sync Copy Eq;
    trace::QueueChange: Send Sync Copy Eq;
    trace::Escalation: Send Sync Copy Eq;
    trace::DeviceChange: Send Sync Copy Eq;
}

// A user fence never becomes a fence, and no fence but a job's `retired` becomes a `Retired`.
assert_not_impl_any!(UserFence: Into<Fence>, AsRef<Fence>, Into<Dependency>, Into<Retired>, core::ops::Deref<Target = Fence>);
assert_not_impl_any!(&'static UserFence: Into<Fence>, Into<Dependency>, Into<Retired>);
assert_not_impl_any!(Fence: Into<Retired>, Into<UserFence>);
assert_not_impl_any!(JobFences: Into<Retired>, Into<Dependency>);
assert_not_impl_any!(Drained: Into<Fence>, Into<Dependency>);
assert_not_impl_any!(Pending: Into<Fence>, Into<Dependency>);
assert_not_impl_any!(SyncobjWait: Into<Fence>, AsRef<Fence>, Into<Dependency>, Into<Retired>, core::ops::Deref);
assert_not_impl_any!(Syncobj: Into<Fence>, Into<Dependency>);
assert_impl_all!(Dependency: From<Fence>, From<&'static Fence>, From<&'static Retired>);
assert_impl_all!(Retired: core::ops::Deref<Target = Fence>);

// Sizes.
const WORD: usize = size_of::<usize>();
const_assert_eq!(size_of::<Fence>(), WORD);
const_assert_eq!(size_of::<Option<Fence>>(), WORD);
const_assert_eq!(size_of::<Retired>(), WORD);
const_assert_eq!(size_of::<UserFence>(), WORD);
const_assert_eq!(size_of::<JobFences>(), WORD);
const_assert_eq!(size_of::<Syncobj>(), WORD);
const_assert_eq!(size_of::<SyncobjWait>(), WORD);
const_assert_eq!(size_of::<Completion>(), WORD);
const_assert_eq!(size_of::<Option<Completion>>(), WORD);
const_assert_eq!(size_of::<Time>(), 8);
const_assert!(size_of::<Signaler>() <= 2 * WORD);
const_assert!(size_of::<Reserved<Shares>>() <= 2 * WORD);
const_assert!(size_of::<Result<(), FenceError>>() <= 8);
const_assert!(JOB_BYTES <= 320);

#[test]
fn a_driver_that_only_moves_its_payloads_works_across_threads() {
    let executor = Executor::manual().unwrap();
    let device = Device::new(&executor, Moves).unwrap();
    let queue = device.queue(QueueConfig::new("q"), Cell::new(0)).unwrap();
    std::thread::scope(|scope| {
        let reserved = scope.spawn(|| queue.reserve(Cell::new(1)).unwrap()).join().unwrap();
        reserved.set(2);
        let job = scope.spawn(move || reserved.commit()).join().unwrap();
        assert!(job.finished().is_signaled());
    });
    let device = Device::new(&executor, Shares).unwrap();
    let queue = device.queue(QueueConfig::new("q"), 0).unwrap();
    assert!(queue.reserve(1).unwrap().commit().finished().is_signaled());
}

/// The compiler that builds the cases.
fn compiler() -> String {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let said = Command::new(rustc).arg("--version").output().unwrap();
    String::from_utf8(said.stdout).unwrap()
}

#[test]
fn what_the_types_forbid_does_not_compile() {
    let compiler = compiler();
    if !compiler.starts_with("rustc 1.95.") {
        // Not through `println!`, which the test harness keeps to itself.
        let reason = format!("skipped: the expected messages are those of rustc 1.95, and this is {compiler}");
        std::io::stderr().write_all(reason.as_bytes()).unwrap();
        return;
    }
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/ui/*.rs");
    #[cfg(all(feature = "linux", target_os = "linux"))]
    cases.compile_fail("tests/ui_linux/*.rs");
}
