//! Every way off the hardware, explored by shuttle: each raced against the completion of the job that hangs, and against the
//! close of its queue, with and without an arbiter.
//!
//! Queue `a` has a job that hangs and one that waits, queue `b` on the same device one that works. Whatever comes first: each
//! fence signals, with an error that the way allows; every credit, resource and charge comes back; nothing is left.

use crate::sched::{Arbiter, ArbiterConfig};
use crate::sync::model::{self, clock};
use crate::{
    Acquired, Charges, Completion, Device, DeviceConfig, Driver, Executor, Fence, FenceError, Job, JobCx, JobQueue,
    Outcome, Principal, QueueConfig, ResetScope, ResetToken, Status, Verdict,
};
use core::time::Duration;
use shuttle::rand::{Rng, thread_rng};
use shuttle::sync::Mutex;
use shuttle::thread;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::vec::Vec;

/// How the hung job leaves the hardware, if nobody is faster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    CancelEndsIt,
    EngineReset,
    DeviceReset,
    KeepsWaiting,
    SaysLost,
    EngineResetFails,
    AllResetsFail,
    /// The reset is never answered: watchdogs go on.
    NoAnswer,
    /// It is answered by another thread, some time.
    LateAnswer,
    Suspended,
    Unplugged,
    /// So does the other queue's.
    SecondHang,
    Banned,
    CompletionDropped,
}

const WAYS: [Way; 14] = [
    Way::CancelEndsIt,
    Way::EngineReset,
    Way::DeviceReset,
    Way::KeepsWaiting,
    Way::SaysLost,
    Way::EngineResetFails,
    Way::AllResetsFail,
    Way::NoAnswer,
    Way::LateAnswer,
    Way::Suspended,
    Way::Unplugged,
    Way::SecondHang,
    Way::Banned,
    Way::CompletionDropped,
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rival {
    Completion,
    Close,
}

impl Way {
    fn loses_the_device(self) -> bool {
        matches!(self, Self::SaysLost | Self::AllResetsFail | Self::NoAnswer | Self::Unplugged)
    }

    fn may_reset_the_device(self) -> bool {
        matches!(self, Self::DeviceReset | Self::EngineResetFails)
    }

    /// How the hung job may end, the one behind it, and the other queue's.
    fn allowed(self, rival: Rival) -> [Vec<Outcome>; 3] {
        let hung = if self == Self::CompletionDropped { Outcome::Canceled } else { Outcome::TimedOut };
        let mut hung = Vec::from([hung]);
        let (mut next, mut other) = (Vec::from([Outcome::Ok]), Vec::from([Outcome::Ok]));
        match rival {
            Rival::Completion => hung.push(Outcome::Ok),
            Rival::Close => {
                hung.push(Outcome::Canceled);
                next.push(Outcome::Canceled);
            }
        }
        if self.loses_the_device() {
            hung.push(Outcome::DeviceLost);
            next.push(Outcome::DeviceLost);
            other.push(Outcome::DeviceLost);
        }
        match self {
            _ if self.may_reset_the_device() => other.push(Outcome::Innocent),
            Self::Suspended => next.push(Outcome::TimedOut),
            Self::SecondHang => other = Vec::from([Outcome::TimedOut]),
            Self::Banned => next.push(Outcome::Banned),
            _ => {}
        }
        [hung, next, other]
    }
}

struct Hardware {
    way: Way,
    /// The number of queue `a`.
    first: AtomicUsize,
    held: Mutex<Vec<(u64, u64, Completion)>>,
    tokens: Mutex<Vec<ResetToken>>,
    taken: AtomicUsize,
    payloads: AtomicUsize,
    off: AtomicBool,
}

impl Hardware {
    fn is_first(&self, queue: u64) -> bool {
        self.first.load(SeqCst) as u64 == queue
    }

    /// Takes a job off; of queue `a`, or not.
    fn take(&self, of_first: bool, seqno: u64) -> Option<Completion> {
        let mut held = self.held.lock().unwrap();
        let at = held.iter().position(|(queue, number, _)| self.is_first(*queue) == of_first && *number == seqno)?;
        Some(held.swap_remove(at).2)
    }

    /// One step of what hardware does by itself.
    fn step(&self) {
        let done = self.take(true, 2).or_else(|| (self.way != Way::SecondHang).then(|| self.take(false, 1)).flatten());
        if let Some(done) = done {
            done.complete(Ok(()));
        }
        if self.way == Way::LateAnswer && chance(8) {
            let token = self.tokens.lock().unwrap().pop();
            if let Some(token) = token {
                token.quiesced();
            }
        }
    }
}

fn chance(of: u32) -> bool {
    thread_rng().gen_range(0..of) == 0
}

struct Payload {
    hardware: Arc<Hardware>,
    acquired: bool,
}

impl Drop for Payload {
    fn drop(&mut self) {
        assert!(!self.acquired, "dropped with what `acquire` took");
        self.hardware.payloads.fetch_sub(1, SeqCst);
    }
}

struct Gpu(Arc<Hardware>);

impl Driver for Gpu {
    type Job = Payload;
    type Queue = ();
    const RESOURCES: bool = true;

    fn acquire(&self, cx: &mut JobCx<'_, Self>) -> Acquired {
        cx.job.acquired = true;
        self.0.taken.fetch_add(1, SeqCst);
        Acquired::Yes
    }

    fn run(&self, cx: &mut JobCx<'_, Self>, done: Completion) {
        let (queue, seqno) = (cx.info().queue, cx.info().id.seqno);
        if self.0.way == Way::CompletionDropped && self.0.is_first(queue) && seqno == 1 {
            return drop(done);
        }
        self.0.held.lock().unwrap().push((queue, seqno, done));
    }

    fn release(&self, job: &mut Payload) {
        assert!(core::mem::take(&mut job.acquired));
        self.0.taken.fetch_sub(1, SeqCst);
    }

    fn timed_out(&self, cx: &mut JobCx<'_, Self>) -> Verdict {
        match self.0.way {
            Way::EngineReset => Verdict::Reset(ResetScope::Queue(cx.info().queue)),
            Way::DeviceReset => Verdict::Reset(ResetScope::Device),
            Way::KeepsWaiting => Verdict::KeepWaiting(ms(1)),
            Way::SaysLost => Verdict::Lost,
            _ => Verdict::Fail,
        }
    }

    fn cancel(&self, cx: &mut JobCx<'_, Self>) {
        if self.0.way == Way::CancelEndsIt {
            let done = self.0.take(self.0.is_first(cx.info().queue), cx.info().id.seqno);
            if let Some(done) = done {
                done.complete(Err(FenceError::Canceled));
            }
        }
    }

    fn reset(&self, scope: ResetScope, token: ResetToken) {
        match self.0.way {
            Way::EngineResetFails if scope == ResetScope::Device => token.quiesced(),
            Way::EngineResetFails | Way::AllResetsFail => token.failed(),
            Way::NoAnswer | Way::LateAnswer => self.0.tokens.lock().unwrap().push(token),
            _ => token.quiesced(),
        }
    }

    fn unplug(&self, token: ResetToken) {
        token.quiesced();
    }
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn some_time() {
    for _ in 0..thread_rng().gen_range(0..400) {
        thread::yield_now();
    }
}

fn outcome(fence: &Fence) -> Outcome {
    match fence.status() {
        Status::Signaled(result) => Outcome::of(result),
        Status::Pending => panic!("{} is open", fence.id()),
    }
}

fn race(way: Way, rival: Rival, with_arbiter: bool) {
    let executor = Executor::builder().clock(clock).threads().unwrap();
    let hardware = Arc::new(Hardware {
        way,
        first: AtomicUsize::new(0),
        held: Mutex::default(),
        tokens: Mutex::default(),
        taken: AtomicUsize::new(0),
        payloads: AtomicUsize::new(3),
        off: AtomicBool::new(false),
    });
    // Where answers come, longer than any order lets a call take: what is started when it expires goes into quarantine.
    let watchdog = if way == Way::NoAnswer { ms(4) } else { ms(1000) };
    let config = DeviceConfig::new("shuttle").cancel_grace(ms(1)).reset_watchdog(watchdog);
    let config = config.ban_after(u32::from(way == Way::Banned), ms(1));
    let device = Device::with_config(&executor, config, Gpu(hardware.clone())).unwrap();
    let arbiter = with_arbiter.then(|| Arbiter::new(&executor, ArbiterConfig::new(2)).unwrap());
    let users = [0; 2].map(|_| Principal::new(Charges::UNLIMITED).unwrap());
    let queue = |user: &Principal, timeout_ms| {
        let config = QueueConfig::new("q").credits(1).principal(user.clone()).timeout(ms(timeout_ms));
        let config = config.drain_timeout(ms(1)).suspend_limit(ms(4)).progress_cap(ms(4));
        device.queue(arbiter.iter().fold(config, QueueConfig::arbiter), ()).unwrap()
    };
    let (a, b) = (queue(&users[0], 2), queue(&users[1], if way == Way::SecondHang { 3 } else { 0 }));
    hardware.first.store(usize::try_from(a.id()).unwrap(), SeqCst);
    let job = || Job::new(Payload { hardware: hardware.clone(), acquired: false }).bytes(7);
    let hung = a.reserve(job()).unwrap().commit();
    let next = a.reserve(job().timeout(Duration::ZERO)).unwrap().commit();
    let other = b.reserve(job()).unwrap().commit();
    let machine = thread::spawn({
        let hardware = hardware.clone();
        move || {
            while !hardware.off.load(SeqCst) {
                hardware.step();
                thread::yield_now();
            }
        }
    });
    let a = Arc::new(a);
    let doer = thread::spawn({
        let (a, device) = (a.clone(), device.clone());
        move || act(way, &a, &device)
    });
    let challenger = thread::spawn({
        let (a, hardware) = (a.clone(), hardware.clone());
        move || challenge(rival, &a, &hardware)
    });
    doer.join().unwrap();
    challenger.join().unwrap();
    let jobs = [hung, next, other];
    for (job, allowed) in jobs.iter().zip(way.allowed(rival)) {
        let _ = job.finished().wait(Duration::MAX);
        assert_eq!(job.retired().wait(Duration::MAX), Ok(()));
        let outcome = outcome(&job.finished());
        assert!(allowed.contains(&outcome), "{way:?}, {rival:?}: {outcome:?}");
    }
    assert_eq!(hardware.taken.load(SeqCst), 0, "what `acquire` took");
    assert_eq!((a.status().credits_free, b.status().credits_free), (1, 1));
    assert!(arbiter.iter().all(|arbiter| arbiter.status().credits_free == 2));
    assert_eq!(users.each_ref().map(Principal::charged), [Charges { jobs: 0, bytes: 0 }; 2]);
    assert_eq!(users.each_ref().map(|user| user.usage().ended()), [2, 1]);
    // Everything goes. The executor's threads end with the last object, the machine after them.
    let tokens = core::mem::take(&mut *hardware.tokens.lock().unwrap());
    drop(tokens);
    drop((a, b, jobs, arbiter, users, device, executor));
    crate::sync::join_spawned();
    hardware.off.store(true, SeqCst);
    machine.join().unwrap();
    assert_eq!(hardware.payloads.load(SeqCst), 0, "a payload was lost");
    let held = core::mem::take(&mut *hardware.held.lock().unwrap());
    drop(held);
}

/// What the way takes besides the job's hanging.
fn act(way: Way, a: &JobQueue<Gpu>, device: &Device<Gpu>) {
    some_time();
    match way {
        Way::Suspended => {
            a.suspend();
            some_time();
            a.resume();
        }
        Way::Unplugged => device.unplug(),
        _ => {}
    }
}

fn challenge(rival: Rival, a: &JobQueue<Gpu>, hardware: &Hardware) {
    some_time();
    match rival {
        Rival::Close => drop(a.close()),
        Rival::Completion => {
            let done = hardware.take(true, 1);
            if let Some(done) = done {
                done.complete(Ok(()));
            }
        }
    }
}

fn explore(rival: Rival, name: &str) {
    for way in WAYS {
        for with_arbiter in [false, true] {
            let body = move || race(way, rival, with_arbiter);
            let name = std::format!("{name}: {way:?}, {}", if with_arbiter { "arbiter" } else { "firmware" });
            model::explore(&name, 40, body);
            if way != Way::NoAnswer {
                model::explore_by_priority(&name, 3, 15, body);
            }
        }
    }
}

#[test]
fn shuttle_every_way_off_the_hardware_against_completion() {
    explore(Rival::Completion, "against completion");
}

#[test]
fn shuttle_every_way_off_the_hardware_against_close() {
    explore(Rival::Close, "against close");
}
