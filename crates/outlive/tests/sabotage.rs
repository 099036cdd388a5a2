//! The sabotage set of the core: each switch commits one defect that the library rules out, and its probe, which passes
//! without it, must see it. A check that no sabotage trips is not a check.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::std_instead_of_core,
    clippy::std_instead_of_alloc,
    reason = "a test: it has std and may panic"
)]

#[expect(dead_code, reason = "each test binary uses a part of it")]
mod common;
#[path = "vm_bind/gpu.rs"]
#[expect(dead_code, reason = "as above")]
mod vm_bind;
#[path = "vm_lives/gpu.rs"]
#[expect(dead_code, reason = "as above")]
mod vm_gpu;

use common::{Rig, error, ok, pending};
use outlive::pool::{Pool, PoolConfig};
use outlive::resv::{Reservation, Slot, Transaction, Usage};
use outlive::sabotage::{Sabotage, commit};
use outlive::sched::{Arbiter, ArbiterConfig, Fair, Head, Policy, Priority, Share};
use outlive::trace::{Event, FenceId, Record};
use outlive::vm::{Bo, VmLocks};
use outlive::{
    Acquired, Cause, Charges, Dependency, DeviceConfig, Executor, Fence, FenceContext, FenceError, Job, Names,
    Principal, QueueConfig, Signaler, Syncobj, SyncobjWait, Time, Until, check,
};
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

const MS: Duration = Duration::from_millis(1);

/// One switch at a time: they are the process's.
static ONE: Mutex<()> = Mutex::new(());

/// `probe` passes, and fails with `defect`.
fn sees(defect: Sabotage, probe: fn()) {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    check::set_reporter(false);
    commit(None);
    probe();
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    commit(Some(defect));
    let seen = catch_unwind(AssertUnwindSafe(probe)).is_err();
    commit(None);
    std::panic::set_hook(hook);
    assert!(seen, "{defect:?} went unnoticed");
}

/// A rig whose remains are not cleaned up: a sabotaged one may be in no state to.
fn rig() -> std::mem::ManuallyDrop<Rig> {
    std::mem::ManuallyDrop::new(Rig::new())
}

#[test]
fn skip_signal() {
    sees(Sabotage::SkipSignal, || {
        let rig = rig();
        let queue = rig.queue(QueueConfig::new("q"));
        let job = queue.reserve(rig.buffers(1)).unwrap().commit();
        rig.complete(&queue, 1, Ok(()));
        assert!(ok(&job.finished()));
    });
}

fn bare(executor: &Executor) -> (Signaler, Fence) {
    FenceContext::new(executor, Names { driver: "d", timeline: "t" }).unwrap().allocate().unwrap().publish()
}

#[test]
fn miss_install() {
    sees(Sabotage::MissInstall, || {
        let executor = Executor::manual().unwrap();
        let object = Syncobj::new(&executor, "o").unwrap();
        let wait = SyncobjWait::any_of(&[(&object, 1)], Until::SubmittedAndSignaled).unwrap();
        object.signal(1).unwrap();
        assert!(wait.as_user_fence().is_signaled());
    });
}

#[test]
fn wait_for_all_but_one() {
    sees(Sabotage::WaitForAllButOne, || {
        let executor = Executor::manual().unwrap();
        let objects = [(); 2].map(|()| Syncobj::new(&executor, "o").unwrap());
        let wait = SyncobjWait::all_of(&objects.each_ref().map(|object| (object, 0)), Until::Submitted).unwrap();
        objects[1].signal(0).unwrap();
        assert!(!wait.as_user_fence().is_signaled());
    });
}

#[test]
fn array_before_last() {
    sees(Sabotage::ArrayBeforeLast, || {
        let executor = Executor::manual().unwrap();
        let ((one, first), (_two, second)) = (bare(&executor), bare(&executor));
        let all = Fence::all_of(&[first, second]).unwrap();
        one.signal(Ok(()));
        assert!(pending(&all));
    });
}

#[derive(Default)]
struct Count(Arc<Mutex<HashMap<FenceId, u32>>>);

impl Record for Count {
    fn record(&self, _at: Time, event: Event) {
        if let Event::FenceSignaled { fence, .. } = event {
            *self.0.lock().unwrap().entry(fence).or_default() += 1;
        }
    }
}

#[test]
fn signal_twice() {
    sees(Sabotage::SignalTwice, || {
        let count = Arc::default();
        let executor = Executor::builder().recorder(Count(Arc::clone(&count))).unwrap().manual().unwrap();
        let rig = std::mem::ManuallyDrop::new(Rig::on(executor, true));
        let queue = rig.queue(QueueConfig::new("q"));
        for tag in 0..3 {
            drop(queue.reserve(rig.buffers(tag)).unwrap().commit());
        }
        let seen = count.lock().unwrap();
        assert_eq!(seen.len(), 9, "three fences a job");
        assert!(seen.values().all(|times| *times == 1));
    });
}

#[test]
fn signal_out_of_order() {
    sees(Sabotage::SignalOutOfOrder, || {
        let rig = rig();
        let queue = rig.queue(QueueConfig::new("q"));
        let first = queue.reserve(rig.buffers(1)).unwrap().commit();
        let second = queue.reserve(rig.buffers(2)).unwrap().commit();
        rig.complete(&queue, 2, Ok(()));
        assert!(pending(&second.finished()) && pending(&first.finished()));
    });
    sees(Sabotage::SignalOutOfOrder, || {
        let executor = Executor::manual().unwrap();
        let context = FenceContext::new(&executor, Names { driver: "d", timeline: "t" }).unwrap();
        let (first, _) = context.allocate().unwrap().publish();
        let (second, fence) = context.allocate().unwrap().publish();
        second.signal(Ok(()));
        let early = fence.is_signaled();
        first.signal(Ok(()));
        assert!(!early && ok(&fence));
    });
}

/// The hardware has a job of a closed queue: its payload lives.
fn payload_of_a_closed_queue_lives() {
    let rig = rig();
    let queue = rig.queue(QueueConfig::new("q"));
    let job = queue.reserve(rig.buffers(1)).unwrap().commit();
    drop(queue);
    rig.idle();
    assert_eq!(error(&job.finished()), Some(FenceError::Canceled));
    assert_eq!(rig.live.alive(), 1);
    assert!(pending(&job.retired()));
}

#[test]
fn free_at_close() {
    sees(Sabotage::FreeAtClose, payload_of_a_closed_queue_lives);
}

#[test]
fn release_at_finished() {
    sees(Sabotage::ReleaseAtFinished, || {
        let rig = rig();
        let queue = std::mem::ManuallyDrop::new(rig.queue(QueueConfig::new("q").timeout(5 * MS)));
        let job = queue.reserve(rig.buffers(1)).unwrap().commit();
        rig.pass_ms(6);
        assert_eq!(error(&job.finished()), Some(FenceError::TimedOut));
        assert_eq!(rig.live.alive(), 1, "it has not left the hardware");
    });
}

/// The defects that release a job early are for others to count, also when the hardware answers at last.
#[test]
fn what_completes_late_finds_its_released_job_gone_and_goes_on() {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    for (defect, close) in [(Sabotage::ReleaseAtFinished, false), (Sabotage::FreeAtClose, true)] {
        for still_on in [true, false] {
            let rig = Rig::new();
            commit(Some(defect));
            let queue = rig.queue(QueueConfig::new("q").timeout(5 * MS));
            let number = queue.id() * 1_000_000 + 1;
            let job = queue.reserve(rig.buffers(1)).unwrap().commit();
            if close {
                drop(queue.close());
            }
            rig.pass_ms(6);
            assert_eq!(rig.live.alive(), 0, "{defect:?}: released while the hardware has it");
            commit(still_on.then_some(defect));
            assert!(rig.gpu().held.complete(number, Ok(())));
            drop(queue);
            rig.pass_ms(10_000);
            commit(None);
            assert!(error(&job.finished()).is_some());
            assert_eq!(rig.executor.live_objects(), 2, "the device and its `drained`");
        }
    }
}

#[test]
fn leak_credit() {
    sees(Sabotage::LeakCredit, || {
        let rig = rig();
        let queue = rig.queue(QueueConfig::new("q").credits(3));
        let job = queue.reserve(Job::new(rig.buffers(1)).credits(2)).unwrap().commit();
        rig.complete(&queue, 1, Ok(()));
        assert!(ok(&job.retired()));
        assert_eq!(queue.status().credits_free, 3);
    });
}

#[test]
fn skip_dependency() {
    sees(Sabotage::SkipDependency, || {
        let rig = rig();
        let (one, two) = (rig.queue(QueueConfig::new("1")), rig.queue(QueueConfig::new("2")));
        let first = one.reserve(rig.buffers(1)).unwrap().commit();
        let second = two.reserve_after(rig.buffers(2), [first.finished()]).unwrap().commit();
        rig.idle();
        assert!(pending(&second.scheduled()));
    });
}

#[test]
fn lose_error() {
    sees(Sabotage::LoseError, || {
        let rig = rig();
        let (one, two) = (rig.queue(QueueConfig::new("1").client(1)), rig.queue(QueueConfig::new("2").client(1)));
        let first = one.reserve(rig.buffers(1)).unwrap().commit();
        let second = two.reserve_after(rig.buffers(2), [first.finished()]).unwrap().commit();
        rig.complete(&one, 1, Err(FenceError::Faulted { code: 1 }));
        rig.idle();
        assert_eq!(error(&second.finished()), Some(FenceError::Dependency(Cause::Faulted { code: 1 })));
    });
}

#[test]
fn drop_while_signalling() {
    sees(Sabotage::DropWhileSignalling, || {
        let _ = check::take_report();
        let rig = rig();
        let queue = rig.queue(QueueConfig::new("q"));
        drop(queue.reserve(rig.buffers(1)).unwrap().commit());
        rig.complete(&queue, 1, Ok(()));
        assert!(check::take_report().is_none(), "a foreign drop in a signalling section");
        assert_eq!(rig.live.alive(), 1, "nobody has reaped yet");
    });
}

#[test]
fn no_drain_deadline() {
    sees(Sabotage::NoDrainDeadline, || {
        let rig = rig();
        let queue = rig.queue(QueueConfig::new("q"));
        let job = queue.reserve(rig.buffers(1)).unwrap().commit();
        drop(queue);
        rig.pass_ms(15_000);
        assert!(ok(&job.retired()));
    });
}

#[test]
fn ignore_ban() {
    sees(Sabotage::IgnoreBan, || {
        let config = DeviceConfig::new("fake").ban_after(1, Duration::from_secs(1));
        let rig = Rig::with(Executor::manual().unwrap(), config, false);
        let user = Principal::new(Charges::UNLIMITED).unwrap();
        let config = || QueueConfig::new("q").timeout(Duration::from_millis(5)).principal(user.clone());
        let (hangs, waits) = (rig.queue(config()), rig.queue(config()));
        let (_signaler, fence) = bare(&rig.executor);
        let waiting = waits.reserve_after(rig.buffers(1), [fence]).unwrap().commit();
        let hung = hangs.reserve(rig.buffers(2)).unwrap().commit();
        rig.pass_ms(200);
        assert!(user.is_banned() && hung.retired().is_signaled());
        assert_eq!(error(&waiting.finished()), Some(FenceError::Banned));
    });
}

#[test]
fn no_watchdog() {
    sees(Sabotage::NoWatchdog, || {
        let rig = rig();
        let context = FenceContext::new(&rig.executor, Names { driver: "d", timeline: "t" }).unwrap();
        let (signaler, fence) = context.allocate().unwrap().publish();
        std::mem::forget(signaler);
        rig.pass_ms(10_001);
        assert_eq!(error(&fence), Some(FenceError::TimedOut));
    });
}

#[test]
fn lose_wake_up() {
    sees(Sabotage::LoseWakeUp, || {
        let executor = Executor::builder().threads().unwrap();
        let context = FenceContext::new(&executor, Names { driver: "d", timeline: "t" }).unwrap();
        // The waiter is to be asleep when the signal comes; on a busy machine that takes a while, so it has several chances.
        for nap in [20, 40, 80, 160, 320] {
            let (signaler, fence) = context.allocate().unwrap().publish();
            let (begin, began) = std::sync::mpsc::channel();
            let slept = std::thread::scope(|scope| {
                let waiter = scope.spawn(move || {
                    begin.send(()).unwrap();
                    let begun = Instant::now();
                    let _ = fence.wait(Duration::from_secs(4));
                    begun.elapsed()
                });
                began.recv().unwrap();
                std::thread::sleep(nap * MS);
                signaler.signal(Ok(()));
                waiter.join().unwrap()
            });
            assert!(slept < Duration::from_secs(4), "it slept to its timeout");
        }
    });
}

#[test]
fn start_after_close() {
    sees(Sabotage::StartAfterClose, || {
        let rig = rig();
        let queue = rig.queue(QueueConfig::new("q").bypass(false));
        let job = queue.reserve(rig.buffers(1)).unwrap().commit();
        drop(queue);
        rig.idle();
        assert!(rig.gpu().calls().is_empty());
        assert_eq!(error(&job.scheduled()), Some(FenceError::Canceled));
    });
}

#[test]
fn refund_at_finished() {
    sees(Sabotage::RefundAtFinished, || {
        let rig = rig();
        let user = Principal::new(Charges::UNLIMITED).unwrap();
        let queue = rig.queue(QueueConfig::new("q").principal(user.clone()));
        let job = queue.reserve(Job::new(rig.buffers(1)).bytes(10)).unwrap().commit();
        drop(queue);
        rig.idle();
        assert!(job.finished().is_signaled());
        assert_eq!(user.charged(), Charges { jobs: 1, bytes: 10 });
    });
}

#[test]
fn keep_issuer() {
    sees(Sabotage::KeepIssuer, || {
        let executor = Executor::manual().unwrap();
        let context = FenceContext::new(&executor, Names { driver: "d", timeline: "t" }).unwrap();
        let (signaler, fence) = context.allocate().unwrap().publish();
        signaler.signal(Ok(()));
        drop(context);
        executor.run_until_idle();
        assert!(ok(&fence));
        assert_eq!(executor.live_objects(), 0, "a signaled fence keeps its issuer alive");
    });
}

/// What queue 0 had of 4 s, beside queue 1, which always has a job of `other_ms`: 0 has one of `own_ms` from `from_ms` on.
fn share_from(from_ms: u64, own_ms: u64, other_ms: u64) -> f64 {
    let mut fair = Fair::new(1);
    fair.reserve(2).unwrap();
    fair.opened(1, 2, Share::default());
    let (mut now, mut had, mut since) = (0, [0; 2], None);
    while now < from_ms + 4_000 {
        let at = Time::from_ns(now * 1_000_000);
        let head = Head { committed: at, credits: 1, more: false };
        if now >= from_ms {
            if since.is_none() {
                since = Some(now);
                fair.opened(0, 1, Share::default());
            }
            fair.ready(0, head, at);
        }
        fair.ready(1, head, at);
        let next = fair.pick(at).unwrap();
        fair.started(next, at);
        let took = if next == 0 { own_ms } else { other_ms };
        now += took;
        fair.ended(next, MS * u32::try_from(took).unwrap(), Time::from_ns(now * 1_000_000));
        had[next as usize] += took;
        for other in (0..2).filter(|other| *other != next && (*other == 1 || since.is_some())) {
            fair.unready(other);
        }
    }
    f64::from(had[0] as u32) / f64::from((now - since.unwrap()) as u32)
}

#[test]
fn charge_nobody() {
    sees(Sabotage::ChargeNobody, || assert!((share_from(0, 50, 1) - 0.5).abs() < 0.02));
}

#[test]
fn floor_falls() {
    sees(Sabotage::FloorFalls, || assert!((share_from(10_000, 1, 1) - 0.5).abs() < 0.02));
}

#[test]
fn lose_turn() {
    sees(Sabotage::LoseTurn, || {
        let rig = rig();
        let arbiter = std::mem::ManuallyDrop::new(Arbiter::new(&rig.executor, ArbiterConfig::new(1)).unwrap());
        let queues = ["1", "2"].map(|name| rig.queue(QueueConfig::new(name).arbiter(&arbiter)));
        let jobs = [0, 1].map(|index| queues[index].reserve(rig.buffers(1)).unwrap().commit());
        rig.complete(&queues[0], 1, Ok(()));
        rig.idle();
        assert!(ok(&jobs[1].scheduled()));
    });
}

#[test]
fn go_behind_error() {
    sees(Sabotage::GoBehindError, || {
        let rig = rig();
        let arbiter = Arbiter::new(&rig.executor, ArbiterConfig::new(1).in_order(true)).unwrap();
        let arbiter = std::mem::ManuallyDrop::new(arbiter);
        let queues = ["1", "2"].map(|name| rig.queue(QueueConfig::new(name).client(1).arbiter(&arbiter)));
        let first = queues[0].reserve(rig.buffers(1)).unwrap().commit();
        let behind = Dependency::on(first.finished()).pipelined();
        let second = queues[1].reserve_after(rig.buffers(2), [behind]).unwrap().commit();
        rig.complete(&queues[0], 1, Err(FenceError::Faulted { code: 1 }));
        rig.idle();
        assert!(second.scheduled().is_signaled() && !ok(&second.scheduled()));
    });
}

#[test]
fn lose_lease_wake_up() {
    sees(Sabotage::LoseLeaseWakeUp, || {
        let executor = Executor::manual().unwrap();
        let pool = Pool::new(PoolConfig::new().kind(1, 0)).unwrap();
        let ticket = || pool.holder(&executor, &[0], 0, Priority::Normal).unwrap().ticket().unwrap();
        let (mut first, mut second) = (ticket(), ticket());
        assert!(matches!(first.acquire(), Acquired::Yes));
        let Acquired::Wait(told) = second.acquire() else { panic!("it was taken") };
        first.give_back();
        assert!(ok(&told));
    });
}

/// A buffer of an address space, mapped, is closed; then the address space.
fn what_is_closed_is_cleared_then_freed() {
    let rig = std::mem::ManuallyDrop::new(vm_gpu::Rig::new());
    let vm = rig.vm();
    let bo = rig.open(&vm, &rig.bo(4));
    rig.change(&vm, &[rig.map(&bo, 0, 0, 4)]);
    drop(bo);
    rig.idle();
    drop(vm);
    rig.all_gone();
}

#[test]
fn release_before_cleared() {
    sees(Sabotage::ReleaseBeforeCleared, what_is_closed_is_cleared_then_freed);
}

#[test]
fn skip_drain() {
    sees(Sabotage::SkipDrain, what_is_closed_is_cleared_then_freed);
}

#[test]
fn release_removed_at_once() {
    sees(Sabotage::ReleaseRemovedAtOnce, vm_bind::what_a_batch_takes_out_stays_while_jobs_use_it);
}

#[test]
fn forget_external() {
    sees(Sabotage::ForgetExternal, || {
        let rig = std::mem::ManuallyDrop::new(vm_gpu::Rig::new());
        let vm = rig.vm();
        let (one, other) = (rig.bo(1), rig.bo(1));
        let _open = [rig.open(&vm, &one), rig.open(&vm, &other)];
        let submitted = Transaction::new().run::<VmLocks<'_, vm_gpu::Gpu>, _>(
            |attempt| vm.lock_all(attempt),
            |sealed, locks| {
                let job = rig.job(&vm, &[], None);
                locks.add(sealed, Usage::Bookkeep, Usage::Write, &job.retired());
            },
        );
        submitted.unwrap();
        assert!([&one, &other].into_iter().all(|bo| bo.core().reservation().is_idle(Usage::Write) == Ok(false)));
    });
}

/// Hangs a job of `queue` on `on`.
fn submit(rig: &Rig, queue: &common::Queue, on: &Reservation, usage: Usage) -> outlive::JobFences {
    Transaction::new()
        .run::<Slot<'_>, _>(
            |attempt| attempt.prepare(on),
            |sealed, slot| {
                let job = queue.reserve(rig.buffers(1)).unwrap().commit();
                sealed.add(slot, usage, &job.retired());
                job
            },
        )
        .unwrap()
}

/// Rule 4: a buffer is given to somebody else when the hardware is done with it, not at the job's verdict.
#[test]
fn reuse_at_finished() {
    sees(Sabotage::ReuseAtFinished, || {
        let rig = rig();
        let on = Reservation::new().unwrap();
        let queue = rig.queue(QueueConfig::new("q"));
        let job = submit(&rig, &queue, &on, Usage::Write);
        drop(queue);
        rig.idle();
        assert_eq!(error(&job.finished()), Some(FenceError::Canceled));
        let reused = on.is_idle(Usage::Bookkeep).unwrap() || on.singleton(Usage::Write).unwrap().is_none();
        assert!(!(reused && pending(&job.retired())), "reused while the hardware has it");
    });
}

#[test]
fn slot_not_counted() {
    sees(Sabotage::SlotNotCounted, || {
        let rig = rig();
        let on = Reservation::new().unwrap();
        let queue = rig.queue(QueueConfig::new("q"));
        let job = queue.reserve(rig.buffers(1)).unwrap().commit();
        let stub = outlive::Retired::stub();
        // Each is in a context of its own.
        let fences: Vec<_> =
            (0..9).map(|_| outlive::Retired::all_of(&[job.retired(), stub.clone()]).unwrap()).collect();
        Transaction::new()
            .run::<Vec<Slot<'_>>, _>(
                |attempt| fences.iter().map(|_| attempt.prepare(&on)).collect(),
                |sealed, slots| {
                    for (slot, fence) in slots.into_iter().zip(&fences) {
                        sealed.add(slot, Usage::Read, fence);
                    }
                },
            )
            .unwrap();
        assert_eq!(on.snapshot(Usage::Read).unwrap().len(), 9, "a fence was lost");
        assert_eq!(on.poisoned(), None);
    });
}

/// The hardware reads a buffer while its owner, told that it is idle, writes to it.
#[test]
fn idle_too_soon() {
    sees(Sabotage::IdleTooSoon, || {
        let rig = rig();
        let on = Reservation::new().unwrap();
        let queue = rig.queue(QueueConfig::new("q"));
        let mut memory = 1;
        let job = submit(&rig, &queue, &on, Usage::Read);
        if on.is_idle(Usage::for_access(true)).unwrap() {
            memory = 2;
        }
        let read = memory;
        rig.complete(&queue, 1, Ok(()));
        assert!(ok(&job.retired()));
        assert_eq!(read, 1, "a conflicting access");
        assert_eq!(on.is_idle(Usage::for_access(true)), Ok(true));
    });
}
