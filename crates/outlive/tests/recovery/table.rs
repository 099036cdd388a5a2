//! Every way in which a job is taken off the hardware, as a table: what is done, how each of five jobs ends, how many resets it
//! takes. Whatever happened, nothing is left: no fence open, no credit, lease or byte taken, no payload alive, no report of
//! the library's own checks.
//!
//! On one device are queue `a` with two jobs on the hardware (`hung`, which does not end by itself, and `mate`) and one that waits
//! (`next`), and queue `b` with one of each (`other`, `later`).

use crate::common::{Call, Queue, Rig};
use outlive::sched::{Arbiter, ArbiterConfig};
use outlive::{
    Charges, DeviceConfig, Executor, Fence, FenceError, Job, JobFences, JobInfo, Principal, QueueConfig, Refusal,
    ResetScope, ResetToken, Status, Verdict, check,
};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);
/// Whatever happens, all has ended by then.
const END_MS: u64 = 600;

type Verdicts = [Result<(), FenceError>; 5];

const OK: Result<(), FenceError> = Ok(());
const TIMED_OUT: Result<(), FenceError> = Err(FenceError::TimedOut);
const CANCELED: Result<(), FenceError> = Err(FenceError::Canceled);
const INNOCENT: Result<(), FenceError> = Err(FenceError::Innocent);
const LOST: Result<(), FenceError> = Err(FenceError::DeviceLost);
const BANNED: Result<(), FenceError> = Err(FenceError::Banned);

struct Row {
    name: &'static str,
    /// Changes the device before the jobs come.
    config: fn(DeviceConfig) -> DeviceConfig,
    play: fn(&mut Stage),
    /// Of `hung`, `mate`, `next`, `other`, `later`.
    verdicts: Verdicts,
    resets: u64,
    /// Jobs that may touch memory for ever.
    quarantined: u64,
    offences: u64,
}

struct Stage {
    rig: Rig,
    arbiter: Option<Arbiter>,
    users: [Principal; 2],
    a: Queue,
    b: Queue,
    jobs: Vec<JobFences>,
    /// Of resets that are not answered.
    tokens: Arc<Mutex<Vec<ResetToken>>>,
}

impl Stage {
    fn new(row: &Row, with_arbiter: bool) -> Self {
        let config = DeviceConfig::new("fake").cancel_grace(10 * MS).reset_watchdog(50 * MS).ban_after(0, MS);
        let rig = Rig::with(Executor::manual().unwrap(), (row.config)(config), false);
        let arbiter = with_arbiter.then(|| Arbiter::new(&rig.executor, ArbiterConfig::new(3)).unwrap());
        let users = [0; 2].map(|_| Principal::new(Charges::UNLIMITED).unwrap());
        let queue = |user: &Principal, credits| {
            let config = QueueConfig::new("q").credits(credits).principal(user.clone()).timeout(Duration::ZERO);
            let config = config.drain_timeout(20 * MS).suspend_limit(200 * MS).progress_cap(60 * MS);
            rig.queue(arbiter.iter().fold(config, QueueConfig::arbiter))
        };
        let (a, b) = (queue(&users[0], 2), queue(&users[1], 1));
        Self { rig, arbiter, users, a, b, jobs: Vec::new(), tokens: Arc::default() }
    }

    /// Puts the five jobs where they are to be. `hung` has 20 ms.
    fn submit(&mut self, others_ms: u32) {
        let job = |bytes, ms| Job::new(self.rig.buffers(bytes)).bytes(bytes).timeout(ms * MS);
        let jobs = [
            self.a.reserve(job(1, 20)).unwrap().commit(),
            self.a.reserve(job(2, 0)).unwrap().commit(),
            self.a.reserve(job(3, 0)).unwrap().commit(),
            self.b.reserve(job(4, others_ms)).unwrap().commit(),
            self.b.reserve(job(5, 0)).unwrap().commit(),
        ];
        self.jobs = jobs.into();
        self.rig.idle();
        assert_eq!(self.rig.gpu().calls().iter().filter(|call| matches!(call, Call::Run(_))).count(), 3);
    }

    fn pass_ms(&self, ms: u64) {
        self.rig.pass_ms(ms);
    }

    fn verdict(&self, verdict: impl FnMut(&JobInfo) -> Verdict + Send + 'static) {
        self.rig.gpu().script(|script| script.timed_out = Some(Box::new(verdict)));
    }

    /// Resets are answered so from now on.
    fn answer(&self, answer: impl FnMut(ResetScope, ResetToken) + Send + 'static) {
        self.rig.gpu().script(|script| script.reset = Some(Box::new(answer)));
    }

    /// The next reset is not answered until the test does.
    fn hold_reset(&self) {
        let tokens = self.tokens.clone();
        let mut held = false;
        self.answer(move |_, token| {
            if core::mem::replace(&mut held, true) { token.quiesced() } else { tokens.lock().unwrap().push(token) }
        });
    }

    fn token(&self) -> ResetToken {
        self.tokens.lock().unwrap().pop().expect("a reset is under way")
    }

    /// The hardware ends job `number` of `queue`, if it has it.
    fn end(&self, queue: &Queue, number: u64) -> bool {
        self.rig.gpu().held.complete(queue.id() * 1_000_000 + number, Ok(()))
    }

    /// What is not hung comes to its end.
    fn run_out(&self) {
        for _ in 0..20 {
            for (queue, number) in [(&self.a, 2), (&self.a, 3), (&self.b, 1), (&self.b, 2)] {
                self.end(queue, number);
            }
            self.pass_ms(1);
        }
    }
}

const fn plain(config: DeviceConfig) -> DeviceConfig {
    config
}

#[rustfmt::skip]
const TABLE: &[Row] = &[
    Row { name: "a hang, whose cancel fails", config: plain, play: |stage| {
        stage.submit(0);
        stage.pass_ms(60);
    }, verdicts: [TIMED_OUT, INNOCENT, OK, OK, OK], resets: 1, quarantined: 0, offences: 1 },

    Row { name: "a hang that a cancel ends", config: plain, play: |stage| {
        stage.submit(0);
        stage.pass_ms(25);
        assert!(stage.rig.gpu().calls().contains(&Call::Cancel(1)) && stage.end(&stage.a, 1));
    }, verdicts: [TIMED_OUT, OK, OK, OK, OK], resets: 0, quarantined: 0, offences: 1 },

    Row { name: "progress", config: plain, play: |stage| {
        stage.verdict(|_| Verdict::KeepWaiting(20 * MS));
        stage.submit(0);
        stage.pass_ms(50);
        assert!(stage.end(&stage.a, 1));
    }, verdicts: [OK; 5], resets: 0, quarantined: 0, offences: 0 },

    Row { name: "progress without end", config: plain, play: |stage| {
        stage.verdict(|_| Verdict::KeepWaiting(20 * MS));
        stage.submit(0);
        stage.pass_ms(59);
        assert_eq!(stage.jobs[0].finished().status(), Status::Pending);
        stage.pass_ms(20);
    }, verdicts: [TIMED_OUT, INNOCENT, OK, OK, OK], resets: 1, quarantined: 0, offences: 1 },

    Row { name: "the driver wants the engine reset", config: plain, play: |stage| {
        stage.verdict(|info| Verdict::Reset(ResetScope::Queue(info.queue)));
        stage.submit(0);
        stage.pass_ms(21);
        assert!(!stage.rig.gpu().calls().contains(&Call::Cancel(1)));
    }, verdicts: [TIMED_OUT, INNOCENT, OK, OK, OK], resets: 1, quarantined: 0, offences: 1 },

    Row { name: "the driver wants the device reset", config: plain, play: |stage| {
        stage.verdict(|_| Verdict::Reset(ResetScope::Device));
        stage.submit(0);
        stage.pass_ms(21);
    }, verdicts: [TIMED_OUT, INNOCENT, OK, INNOCENT, OK], resets: 1, quarantined: 0, offences: 1 },

    Row { name: "the driver says that the device is gone", config: plain, play: |stage| {
        stage.verdict(|_| Verdict::Lost);
        stage.submit(0);
        stage.pass_ms(21);
    }, verdicts: [LOST; 5], resets: 0, quarantined: 0, offences: 0 },

    Row { name: "a hang of a closed queue", config: plain, play: |stage| {
        stage.submit(0);
        drop(stage.a.close());
        stage.pass_ms(60);
    }, verdicts: [CANCELED, CANCELED, CANCELED, OK, OK], resets: 1, quarantined: 0, offences: 2 },

    Row { name: "a queue closed while its reset is under way", config: plain, play: |stage| {
        stage.hold_reset();
        stage.submit(0);
        stage.pass_ms(40);
        drop(stage.a.close());
        stage.token().quiesced();
        stage.pass_ms(1);
    }, verdicts: [TIMED_OUT, CANCELED, CANCELED, OK, OK], resets: 1, quarantined: 0, offences: 1 },

    Row { name: "a hang during a suspension", config: plain, play: |stage| {
        stage.submit(0);
        stage.a.suspend();
        stage.pass_ms(5);
        assert!(stage.end(&stage.a, 2));
        stage.pass_ms(60);
        assert_eq!(stage.jobs[2].scheduled().status(), Status::Pending);
        stage.a.resume();
    }, verdicts: [TIMED_OUT, OK, OK, OK, OK], resets: 1, quarantined: 0, offences: 1 },

    Row { name: "a suspension that does not end", config: plain, play: |stage| {
        stage.submit(0);
        stage.a.suspend();
        stage.pass_ms(201);
    }, verdicts: [TIMED_OUT, TIMED_OUT, TIMED_OUT, OK, OK], resets: 1, quarantined: 0, offences: 2 },

    Row { name: "a suspension during a reset", config: plain, play: |stage| {
        stage.hold_reset();
        stage.submit(0);
        stage.pass_ms(40);
        stage.a.suspend();
        stage.token().quiesced();
        stage.pass_ms(50);
        stage.a.resume();
    }, verdicts: [TIMED_OUT, INNOCENT, OK, OK, OK], resets: 1, quarantined: 0, offences: 1 },

    Row { name: "an engine reset that fails", config: plain, play: |stage| {
        stage.answer(|scope, token| if scope == ResetScope::Device { token.quiesced() } else { token.failed() });
        stage.submit(0);
        stage.pass_ms(60);
    }, verdicts: [TIMED_OUT, INNOCENT, OK, INNOCENT, OK], resets: 2, quarantined: 0, offences: 1 },

    Row { name: "an engine reset that is answered too late", config: plain, play: |stage| {
        stage.hold_reset();
        stage.submit(0);
        stage.pass_ms(81);
        stage.token().quiesced();
    }, verdicts: [TIMED_OUT, INNOCENT, OK, INNOCENT, OK], resets: 2, quarantined: 0, offences: 1 },

    Row { name: "all resets fail", config: plain, play: |stage| {
        stage.answer(|_, token| token.failed());
        stage.submit(0);
        stage.pass_ms(60);
        assert!(stage.rig.device.is_lost());
    }, verdicts: [TIMED_OUT, LOST, LOST, LOST, LOST], resets: 2, quarantined: 0, offences: 1 },

    Row { name: "all resets fail, and DMA cannot be excluded", config: plain, play: |stage| {
        stage.answer(|_, token| token.failed());
        stage.rig.gpu().script(|script| script.unplug = Some(Box::new(ResetToken::failed)));
        stage.submit(0);
        stage.pass_ms(60);
    }, verdicts: [TIMED_OUT, LOST, LOST, LOST, LOST], resets: 2, quarantined: 3, offences: 1 },

    Row { name: "no reset is ever answered", config: plain, play: |stage| {
        let (tokens, kept) = (stage.tokens.clone(), stage.tokens.clone());
        stage.answer(move |_, token| tokens.lock().unwrap().push(token));
        stage.rig.gpu().script(|script| script.unplug = Some(Box::new(move |token| kept.lock().unwrap().push(token))));
        stage.submit(0);
        stage.pass_ms(30 + 2 * 50 - 1);
        assert!(!stage.rig.device.is_lost(), "both watchdogs are still running");
        stage.pass_ms(52);
        assert_eq!(stage.rig.device.quarantine().jobs, 3);
    }, verdicts: [TIMED_OUT, LOST, LOST, LOST, LOST], resets: 2, quarantined: 3, offences: 1 },

    Row { name: "another queue hangs during an engine reset", config: plain, play: |stage| {
        stage.hold_reset();
        stage.submit(45);
        stage.pass_ms(60);
        stage.token().quiesced();
        stage.pass_ms(1);
    }, verdicts: [TIMED_OUT, INNOCENT, OK, TIMED_OUT, OK], resets: 2, quarantined: 0, offences: 2 },

    Row { name: "another queue hangs during a device reset", config: plain, play: |stage| {
        stage.verdict(|_| Verdict::Reset(ResetScope::Device));
        stage.hold_reset();
        stage.submit(45);
        stage.pass_ms(60);
        stage.token().quiesced();
        stage.pass_ms(1);
    }, verdicts: [TIMED_OUT, INNOCENT, OK, TIMED_OUT, OK], resets: 1, quarantined: 0, offences: 2 },

    Row { name: "a hang after recovery", config: plain, play: |stage| {
        stage.submit(0);
        stage.pass_ms(60);
        stage.a.suspend();
        stage.pass_ms(60);
        stage.a.resume();
    }, verdicts: [TIMED_OUT, INNOCENT, TIMED_OUT, OK, OK], resets: 2, quarantined: 0, offences: 2 },

    Row { name: "pulled out during a reset", config: plain, play: |stage| {
        stage.hold_reset();
        stage.submit(0);
        stage.pass_ms(40);
        stage.rig.device.unplug();
        stage.pass_ms(1);
        stage.token().quiesced();
    }, verdicts: [TIMED_OUT, LOST, LOST, LOST, LOST], resets: 1, quarantined: 0, offences: 1 },

    Row { name: "pulled out", config: plain, play: |stage| {
        stage.submit(0);
        stage.rig.device.unplug();
    }, verdicts: [LOST; 5], resets: 0, quarantined: 0, offences: 0 },

    Row { name: "pulled out, and DMA cannot be excluded", config: plain, play: |stage| {
        stage.rig.gpu().script(|script| script.unplug = Some(Box::new(ResetToken::failed)));
        stage.submit(0);
        stage.rig.device.unplug();
    }, verdicts: [LOST; 5], resets: 0, quarantined: 3, offences: 0 },

    Row { name: "banned during recovery", config: |config| config.ban_after(1, MS), play: |stage| {
        stage.hold_reset();
        stage.submit(0);
        stage.pass_ms(40);
        let refused = stage.a.reserve(stage.rig.buffers(6)).unwrap_err();
        assert_eq!(refused.kind, Refusal::Banned);
        drop(refused);
        stage.token().quiesced();
    }, verdicts: [TIMED_OUT, INNOCENT, BANNED, OK, OK], resets: 1, quarantined: 0, offences: 1 },

    Row { name: "a completion that the driver drops", config: plain, play: |stage| {
        let mut first = true;
        stage.rig.gpu().script(|script| script.run = Some(Box::new(move |_, _, done| {
            if core::mem::take(&mut first) { drop(done); None } else { Some(done) }
        })));
        stage.submit(0);
        stage.pass_ms(60);
    }, verdicts: [CANCELED, INNOCENT, OK, OK, OK], resets: 1, quarantined: 0, offences: 0 },

    Row { name: "a reset that the embedder wants", config: plain, play: |stage| {
        stage.submit(0);
        stage.rig.device.reset();
    }, verdicts: [INNOCENT, INNOCENT, OK, INNOCENT, OK], resets: 1, quarantined: 0, offences: 0 },

    Row { name: "the device is closed", config: plain, play: |stage| {
        stage.submit(0);
        drop(stage.rig.device.close());
        stage.pass_ms(60);
    }, verdicts: [CANCELED; 5], resets: 2, quarantined: 0, offences: 3 },

    Row { name: "time off the hardware", config: plain, play: |stage| {
        stage.submit(0);
        stage.pass_ms(10);
        stage.a.pause_job_clock();
        stage.pass_ms(200);
        stage.a.resume_job_clock();
        stage.pass_ms(9);
        assert!(stage.end(&stage.a, 1));
    }, verdicts: [OK; 5], resets: 0, quarantined: 0, offences: 0 },
];

fn status(fence: &Fence) -> Result<(), FenceError> {
    match fence.status() {
        Status::Signaled(result) => result,
        Status::Pending => panic!("{} is open", fence.id()),
    }
}

/// After a loss the process goes on: with another device, for the same client, under the same arbiter.
fn another_device_works(executor: &Executor, arbiter: Option<&Arbiter>, user: &Principal, what: &str) {
    let rig = Rig::with(executor.clone(), DeviceConfig::new("another"), false);
    let config = QueueConfig::new("again").principal(user.clone());
    let queue = rig.queue(arbiter.into_iter().fold(config, QueueConfig::arbiter));
    let job = queue.reserve(rig.buffers(1)).unwrap().commit();
    rig.complete(&queue, 1, Ok(()));
    rig.idle();
    assert_eq!((status(&job.finished()), status(&job.retired())), (Ok(()), Ok(())), "{what}: another device");
}

fn run(row: &Row, with_arbiter: bool) {
    let what = format!("{}, {}", row.name, if with_arbiter { "with an arbiter" } else { "by firmware" });
    assert!(check::take_report().is_none());
    let mut stage = Stage::new(row, with_arbiter);
    (row.play)(&mut stage);
    stage.rig.idle();
    stage.run_out();
    let Stage { rig, arbiter, users, a, b, jobs, tokens } = stage;
    let verdicts: Vec<_> = jobs.iter().map(|job| status(&job.finished())).collect();
    assert_eq!(verdicts, row.verdicts, "{what}");
    for (number, job) in jobs.iter().enumerate() {
        let gone = row.quarantined > 0 && [0, 1, 3].contains(&number);
        let expected = if gone { Err(FenceError::Quarantined) } else { Ok(()) };
        assert_eq!(status(&job.retired()), expected, "{what}, job {number}");
        assert!(job.scheduled().is_signaled(), "{what}, job {number}");
    }
    // Nothing is held but by what is in quarantine.
    assert_eq!((a.status().credits_free, b.status().credits_free), (2, 1), "{what}: credits");
    assert!(arbiter.iter().all(|arbiter| arbiter.status().credits_free == 3), "{what}: credits of the pool");
    let [acquired, released] =
        [|call: &Call| matches!(call, Call::Acquire(_)), |call: &Call| matches!(call, Call::Release(_))]
            .map(|which| rig.gpu().calls().iter().filter(|call| which(call)).count() as u64);
    assert_eq!(acquired, released + row.quarantined, "{what}: leases");
    let charged: u64 = users.iter().map(|user| user.charged().jobs).sum();
    let bytes: u64 = users.iter().map(|user| user.charged().bytes).sum();
    assert_eq!((charged, bytes), if row.quarantined > 0 { (3, 1 + 2 + 4) } else { (0, 0) }, "{what}: charges");
    assert_eq!(rig.device.quarantine().jobs, row.quarantined, "{what}");
    assert_eq!(rig.device.resets(), row.resets, "{what}: resets");
    let usage = users.each_ref().map(Principal::usage);
    assert_eq!(usage[0].ended() + usage[1].ended(), 5, "{what}: every job is counted once");
    assert_eq!(usage[0].offences() + usage[1].offences(), row.offences, "{what}: offences");
    let now_ms = rig.executor.now().as_ns() / 1_000_000;
    assert!(now_ms <= END_MS, "{what}: it took {now_ms} ms");
    if rig.device.is_lost() {
        another_device_works(&rig.executor, arbiter.as_ref(), &users[0], &what);
    }
    // And nothing is left, in any order of going.
    let live = rig.live.clone();
    drop((a, b, jobs));
    rig.idle();
    assert_eq!(live.alive(), row.quarantined, "{what}: payloads");
    tokens.lock().unwrap().clear();
    let (executor, gone) = (rig.executor.clone(), rig.device.drained());
    drop(rig);
    drop((arbiter, users));
    executor.run_until_idle();
    assert_eq!(gone.is_drained(), row.quarantined == 0, "{what}: the device");
    assert_eq!(check::take_report().map(|report| report.to_string()), None, "{what}");
}

#[test]
fn every_way_off_the_hardware() {
    for row in TABLE {
        for with_arbiter in [false, true] {
            run(row, with_arbiter);
        }
    }
}

#[test]
fn an_arbiter_dropped_with_a_hung_job_closes_its_queues() {
    let row = Row {
        name: "the arbiter is dropped",
        config: plain,
        play: |stage| {
            stage.submit(0);
            stage.arbiter = None;
            stage.pass_ms(60);
        },
        verdicts: [CANCELED; 5],
        resets: 2,
        quarantined: 0,
        offences: 3,
    };
    run(&row, true);
}
