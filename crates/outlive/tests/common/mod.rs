//! A fake GPU for tests: it holds what it is given until the test says what became of it, and each of its calls can be
//! scripted.
#![expect(clippy::type_complexity, unreachable_pub, reason = "scripted calls, for the test around this module")]

use outlive::{
    Acquired, Cause, Completion, Device, DeviceConfig, Driver, Executor, Fence, FenceError, InFlight, JobCx, JobInfo,
    JobQueue, LongQueue, Off, PreemptToken, Producer, QueueConfig, ResetScope, ResetToken, Status, Time, Verdict,
};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

pub type Queue = JobQueue<Gpu>;

/// Payloads that live and died, and where each died.
#[derive(Debug, Default)]
pub struct Live {
    pub created: AtomicU64,
    pub dropped: AtomicU64,
    pub drivers_dropped: AtomicU64,
    pub rings_dropped: AtomicU64,
}

impl Live {
    pub fn alive(&self) -> u64 {
        self.created.load(SeqCst) - self.dropped.load(SeqCst)
    }
}

/// What stands for buffers: counted, and with something to do when dropped.
pub struct Buffers {
    pub live: Arc<Live>,
    pub tag: u64,
    pub on_drop: Option<Box<dyn FnOnce() + Send>>,
}

impl Drop for Buffers {
    fn drop(&mut self) {
        self.live.dropped.fetch_add(1, SeqCst);
        if let Some(on_drop) = self.on_drop.take() {
            on_drop();
        }
    }
}

pub struct Ring {
    live: Arc<Live>,
    next: u64,
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.live.rings_dropped.fetch_add(1, SeqCst);
    }
}

/// A call the driver got, by job sequence number where it is about one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    Acquire(u64),
    Run(u64),
    Release(u64),
    TimedOut(u64),
    Cancel(u64),
    Reset(ResetScope),
    Unplug,
    Preempt,
    Restore,
}

type OnRun = Box<dyn FnMut(&Gpu, &JobInfo, Completion) -> Option<Completion> + Send>;

/// What the test wants a call to do, instead of the default.
#[derive(Default)]
pub struct Script {
    pub acquire: Option<Box<dyn FnMut(&JobInfo) -> Acquired + Send>>,
    /// Gets the completion; gives it back to have it held.
    pub run: Option<OnRun>,
    pub timed_out: Option<Box<dyn FnMut(&JobInfo) -> Verdict + Send>>,
    pub cancel: Option<Box<dyn FnMut(&JobInfo) + Send>>,
    pub reset: Option<Box<dyn FnMut(ResetScope, ResetToken) + Send>>,
    pub unplug: Option<Box<dyn FnMut(ResetToken) + Send>>,
    pub preempt: Option<Box<dyn FnMut(PreemptToken) + Send>>,
    pub native: bool,
    /// Panics in `waits_natively`.
    pub native_panics: bool,
    pub release: Option<Box<dyn FnOnce() + Send>>,
}

pub struct Gpu {
    pub held: InFlight,
    pub calls: Mutex<Vec<Call>>,
    pub script: Mutex<Script>,
    /// Long-running contexts that were to be resumed.
    pub off: Mutex<Vec<Off>>,
    /// In spite of what the last job ran.
    pub despite: Mutex<Option<Cause>>,
    /// Completes inside `run`.
    pub inline: bool,
    live: Arc<Live>,
}

impl Drop for Gpu {
    fn drop(&mut self) {
        self.live.drivers_dropped.fetch_add(1, SeqCst);
    }
}

impl Gpu {
    pub fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap().clone()
    }

    fn log(&self, call: Call) {
        self.calls.lock().unwrap().push(call);
    }

    pub fn script(&self, change: impl FnOnce(&mut Script)) {
        change(&mut self.script.lock().unwrap());
    }
}

/// The number under which the fake holds a job: its queue's, then its own.
pub fn hardware_number(info: &JobInfo) -> u64 {
    info.queue * 1_000_000 + info.id.seqno
}

impl Driver for Gpu {
    type Job = Buffers;
    type Queue = Ring;
    const RESOURCES: bool = true;

    fn acquire(&self, cx: &mut JobCx<'_, Self>) -> Acquired {
        self.log(Call::Acquire(cx.info().id.seqno));
        let taken = self.script.lock().unwrap().acquire.take();
        let Some(mut acquire) = taken else { return Acquired::Yes };
        let answer = acquire(cx.info());
        self.script.lock().unwrap().acquire.get_or_insert(acquire);
        answer
    }

    fn run(&self, cx: &mut JobCx<'_, Self>, done: Completion) {
        cx.queue.next += 1;
        let info = *cx.info();
        self.log(Call::Run(info.id.seqno));
        *self.despite.lock().unwrap() = cx.despite();
        if self.inline {
            return done.complete(Ok(()));
        }
        let taken = self.script.lock().unwrap().run.take();
        let held = match taken {
            None => Some(done),
            Some(mut run) => {
                let held = run(self, &info, done);
                self.script.lock().unwrap().run.get_or_insert(run);
                held
            }
        };
        if let Some(done) = held {
            self.held.insert(hardware_number(&info), done).unwrap();
        }
    }

    fn release(&self, job: &mut Buffers) {
        self.log(Call::Release(job.tag));
        let scripted = self.script.lock().unwrap().release.take();
        if let Some(release) = scripted {
            release();
        }
    }

    fn timed_out(&self, cx: &mut JobCx<'_, Self>) -> Verdict {
        self.log(Call::TimedOut(cx.info().id.seqno));
        let taken = self.script.lock().unwrap().timed_out.take();
        let Some(mut timed_out) = taken else { return Verdict::Fail };
        let verdict = timed_out(cx.info());
        self.script.lock().unwrap().timed_out.get_or_insert(timed_out);
        verdict
    }

    fn cancel(&self, cx: &mut JobCx<'_, Self>) {
        self.log(Call::Cancel(cx.info().id.seqno));
        let taken = self.script.lock().unwrap().cancel.take();
        if let Some(mut cancel) = taken {
            cancel(cx.info());
            self.script.lock().unwrap().cancel.get_or_insert(cancel);
        }
    }

    fn reset(&self, scope: ResetScope, token: ResetToken) {
        self.log(Call::Reset(scope));
        let scripted = self.script.lock().unwrap().reset.take();
        match scripted {
            Some(mut reset) => {
                reset(scope, token);
                self.script.lock().unwrap().reset.get_or_insert(reset);
            }
            None => token.quiesced(),
        }
    }

    fn unplug(&self, token: ResetToken) {
        self.log(Call::Unplug);
        let scripted = self.script.lock().unwrap().unplug.take();
        match scripted {
            Some(mut unplug) => {
                unplug(token);
                self.script.lock().unwrap().unplug.get_or_insert(unplug);
            }
            None => token.quiesced(),
        }
    }

    fn preempt(&self, _queue: u64, _ring: &mut Ring, token: PreemptToken) {
        self.log(Call::Preempt);
        let taken = self.script.lock().unwrap().preempt.take();
        match taken {
            Some(mut preempt) => {
                preempt(token);
                self.script.lock().unwrap().preempt.get_or_insert(preempt);
            }
            None => token.off(),
        }
    }

    fn restore(&self, _queue: u64, _ring: &mut Ring) {
        self.log(Call::Restore);
    }

    fn resume(&self, off: Off) {
        self.off.lock().unwrap().push(off);
    }

    fn waits_natively(&self, _fence: &Fence) -> bool {
        let script = self.script.lock().unwrap();
        let (native, panics) = (script.native, script.native_panics);
        drop(script);
        assert!(!panics, "waits_natively");
        native
    }
}

/// An executor, a device, and what they count.
pub struct Rig {
    pub executor: Executor,
    pub device: Device<Gpu>,
    pub live: Arc<Live>,
}

impl Rig {
    /// In virtual time, driven by the test.
    pub fn new() -> Self {
        Self::on(Executor::manual().unwrap(), false)
    }

    /// In virtual time, completing inside `run`.
    pub fn inline() -> Self {
        Self::on(Executor::manual().unwrap(), true)
    }

    /// With a thread per lane.
    pub fn threads(inline: bool) -> Self {
        Self::on(Executor::builder().threads().unwrap(), inline)
    }

    pub fn on(executor: Executor, inline: bool) -> Self {
        Self::with(executor, DeviceConfig::new("fake"), inline)
    }

    pub fn with(executor: Executor, config: DeviceConfig, inline: bool) -> Self {
        let live = Arc::new(Live::default());
        let gpu = Gpu {
            held: InFlight::with_capacity(1 << 12).unwrap(),
            calls: Mutex::default(),
            script: Mutex::default(),
            off: Mutex::default(),
            despite: Mutex::default(),
            inline,
            live: live.clone(),
        };
        let device = Device::with_config(&executor, config, gpu).unwrap();
        Self { executor, device, live }
    }

    pub fn queue(&self, config: QueueConfig) -> Queue {
        self.device.queue(config, self.ring()).unwrap()
    }

    pub fn long_queue(&self, config: QueueConfig) -> LongQueue<Gpu> {
        self.device.long_queue(config, self.ring()).unwrap()
    }

    pub fn ring(&self) -> Ring {
        Ring { live: self.live.clone(), next: 0 }
    }

    pub fn gpu(&self) -> &Gpu {
        self.device.driver()
    }

    pub fn buffers(&self, tag: u64) -> Buffers {
        buffers(&self.live, tag)
    }

    /// Completes job `seqno` of `queue` as the hardware would.
    pub fn complete(&self, queue: &Queue, seqno: u64, result: Result<(), FenceError>) {
        assert!(self.gpu().held.complete(queue.id() * 1_000_000 + seqno, result), "job {seqno} is not on the hardware");
    }

    /// Moves virtual time on by `ms` in steps of its timers, running all lanes.
    pub fn pass_ms(&self, ms: u64) {
        let until = self.executor.now().after(Duration::from_millis(ms));
        loop {
            self.executor.run_until_idle();
            match self.executor.next_timer().filter(|at| *at <= until) {
                Some(at) => self.executor.advance_to(at),
                None => break,
            }
        }
        self.executor.advance_to(until);
        self.executor.run_until_idle();
    }

    pub fn idle(&self) {
        self.executor.run_until_idle();
    }
}

pub fn buffers(live: &Arc<Live>, tag: u64) -> Buffers {
    live.created.fetch_add(1, SeqCst);
    Buffers { live: live.clone(), tag, on_drop: None }
}

/// What a fence's producer was told.
#[derive(Default)]
pub struct Heard {
    pub armed: AtomicUsize,
    pub deadlines: Mutex<Vec<Time>>,
}

pub struct Ear(pub Arc<Heard>);

impl Producer for Ear {
    fn arm(&self) {
        self.0.armed.fetch_add(1, SeqCst);
    }

    fn deadline(&self, at: Time) {
        self.0.deadlines.lock().unwrap().push(at);
    }
}

pub const SOON: Duration = Duration::from_secs(20);

pub fn ok(fence: &Fence) -> bool {
    fence.status() == Status::Signaled(Ok(()))
}

pub fn error(fence: &Fence) -> Option<FenceError> {
    match fence.status() {
        Status::Signaled(Err(error)) => Some(error),
        _ => None,
    }
}

pub fn pending(fence: &Fence) -> bool {
    fence.status() == Status::Pending
}
