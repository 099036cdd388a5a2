//! A whole driver in a module that can be unloaded: hardware (a thread), payload, producer hook, closure.
//!
//! What a plugin must heed to be unloadable is little: it joins its own threads (here in the driver's `Drop`, on the
//! reaper), has no thread-locals with destructors, and lets its hooks and registrations go before it closes its device.

use outlive_shared::outlive::{
    Completion, Dependency, Device, DeviceConfig, Drained, Driver, Executor, FenceContext, FenceError, Hook, JobCx,
    JobQueue, Names, OnError, Producer, QueueConfig, Registration, Signaler, Time, WaitError, check,
};
use outlive_shared::{Kept, Witness};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

const WAIT: Duration = Duration::from_secs(10);

/// A payload with memory of its own, which the hardware looks at while the job is on it.
struct Payload {
    words: Vec<u32>,
    order: Order,
    witness: &'static Witness,
}

/// What the hardware makes of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Finish,
    Fault,
    /// Ends long after its queue was closed.
    Late,
}

impl Drop for Payload {
    fn drop(&mut self) {
        self.words.fill(0);
        self.witness.payloads.fetch_add(1, Ordering::Relaxed);
    }
}

struct Command {
    order: Order,
    done: Completion,
}

#[derive(Default)]
struct Ring {
    commands: VecDeque<Command>,
    unplugged: bool,
}

#[derive(Default)]
struct Doorbell {
    ring: Mutex<Ring>,
    rung: Condvar,
}

impl Doorbell {
    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Hardware {
    doorbell: Arc<Doorbell>,
    thread: Option<JoinHandle<()>>,
    witness: &'static Witness,
}

impl Hardware {
    fn start(witness: &'static Witness) -> Result<Self, String> {
        let doorbell = Arc::new(Doorbell::default());
        // So that handing a job over does not allocate.
        doorbell.ring().commands.reserve(64);
        let other = doorbell.clone();
        let thread = std::thread::Builder::new().name("hardware".into()).spawn(move || execute(&other));
        Ok(Self { doorbell, thread: Some(thread.map_err(text)?), witness })
    }
}

/// The hardware: one job after the other.
fn execute(doorbell: &Doorbell) {
    loop {
        let mut ring = doorbell.ring();
        let Command { order, done } = loop {
            if let Some(command) = ring.commands.pop_front() {
                break command;
            }
            if ring.unplugged {
                return;
            }
            ring = doorbell.rung.wait(ring).unwrap_or_else(PoisonError::into_inner);
        };
        drop(ring);
        match order {
            Order::Finish => done.complete(Ok(())),
            Order::Fault => done.complete(Err(FenceError::Faulted { code: 0x77 })),
            Order::Late => {
                std::thread::sleep(Duration::from_millis(100));
                done.complete(Ok(()));
            }
        }
    }
}

impl Driver for Hardware {
    type Job = Payload;
    type Queue = ();

    fn run(&self, cx: &mut JobCx<'_, Self>, done: Completion) {
        let order = if cx.job.words.iter().all(|word| *word == 0xcafe) { cx.job.order } else { Order::Fault };
        self.doorbell.ring().commands.push_back(Command { order, done });
        self.doorbell.rung.notify_one();
    }
}

impl Drop for Hardware {
    fn drop(&mut self) {
        self.doorbell.ring().unplugged = true;
        self.doorbell.rung.notify_one();
        if let Some(thread) = self.thread.take() {
            // A hardware that panicked has ended, too.
            let _ = thread.join();
        }
        self.witness.drivers.fetch_add(1, Ordering::Relaxed);
    }
}

/// Hears of the first waiter.
struct Armed {
    count: AtomicU32,
    witness: &'static Witness,
}

impl Producer for Armed {
    fn arm(&self) {
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    fn deadline(&self, _at: Time) {}
}

impl Drop for Armed {
    fn drop(&mut self) {
        self.witness.hooks.fetch_add(self.count.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

struct State {
    device: Device<Hardware>,
    queues: [JobQueue<Hardware>; 2],
    context: FenceContext,
    executor: Executor,
    signaler: Option<Signaler>,
    registration: Option<Registration>,
    witness: &'static Witness,
}

static STATE: Mutex<Option<State>> = Mutex::new(None);

fn state() -> MutexGuard<'static, Option<State>> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn text(error: impl ToString) -> String {
    error.to_string()
}

/// See [`outlive_shared::Plugin::open`].
///
/// # Errors
/// What could not be opened.
#[expect(unsafe_code, reason = "a name for dlsym")]
#[unsafe(no_mangle)]
pub fn open(executor: &Executor, witness: &'static Witness) -> Result<(), String> {
    let config = DeviceConfig::new("plugin");
    let device = Device::with_config(executor, config, Hardware::start(witness)?).map_err(text)?;
    let render = device.queue(QueueConfig::new("render").client(3).credits(2), ()).map_err(text)?;
    let copy = device.queue(QueueConfig::new("copy").client(3), ()).map_err(text)?;
    let names = Names { driver: "plugin", timeline: "bare" };
    let context = FenceContext::with_watchdog(executor, names, Duration::from_millis(20)).map_err(text)?;
    *state() = Some(State {
        device,
        queues: [render, copy],
        context,
        executor: executor.clone(),
        signaler: None,
        registration: None,
        witness,
    });
    Ok(())
}

impl State {
    fn job(&self, order: Order) -> Payload {
        Payload { words: vec![0xcafe; 256], order, witness: self.witness }
    }

    fn jobs(&self, kept: &mut Vec<Kept>) -> Result<(), String> {
        let [render, copy] = &self.queues;
        let mut keep = |what: &str, fence| kept.push(Kept { what: what.into(), fence });
        let good = render.reserve(self.job(Order::Finish)).map_err(text)?.commit();
        let bad = copy.reserve_after(self.job(Order::Fault), [good.finished()]).map_err(text)?.commit();
        let on_bad = Dependency::on(bad.finished()).on_error(OnError::Fail);
        let failed = render.reserve_after(self.job(Order::Finish), [on_bad]).map_err(text)?.commit();
        for job in [&good, &bad, &failed] {
            // Its error is what is kept.
            let _ = job.finished().wait(WAIT);
            job.retired().wait(WAIT).map_err(text)?;
        }
        keep("scheduled", good.scheduled());
        keep("finished", good.finished());
        keep("retired", good.retired().into_fence());
        keep("faulted", bad.finished());
        keep("dependency", failed.finished());
        Ok(())
    }

    fn bare(&mut self, kept: &mut Vec<Kept>) -> Result<(), String> {
        let mut keep = |what: &str, fence| kept.push(Kept { what: what.into(), fence });
        let armed = Armed { count: AtomicU32::new(0), witness: self.witness };
        let hook = Hook::try_new(&self.executor, armed).map_err(text)?;
        let (signaler, hooked) = self.context.allocate().map_err(text)?.with_hook(hook).publish();
        let witness = self.witness;
        let closure = move |_| {
            witness.closures.fetch_add(1, Ordering::Relaxed);
        };
        self.registration = Some(hooked.on_signaled(closure).map_err(text)?);
        signaler.signal(Ok(()));
        keep("signaled", hooked);
        let (signaler, dropped) = self.context.allocate().map_err(text)?.publish();
        drop(signaler);
        keep("dropped", dropped);
        let (signaler, expired) = self.context.allocate().map_err(text)?.publish();
        let _ = expired.wait(WAIT);
        self.signaler = Some(signaler);
        keep("expired", expired);
        Ok(())
    }
}

/// Waits for `context`'s fence where that is not allowed, for the report of it.
fn mistake(context: &FenceContext) -> Result<(), String> {
    let (_signaler, pending) = context.allocate().map_err(text)?.publish();
    let _section = check::signalling();
    match pending.wait(WAIT) {
        Err(WaitError::InSignallingSection) => Ok(()),
        other => Err(format!("in a signalling section: {other:?}")),
    }
}

/// See [`outlive_shared::Plugin::submit`].
///
/// # Errors
/// What could not be submitted.
#[expect(unsafe_code, reason = "a name for dlsym")]
#[unsafe(no_mangle)]
pub fn submit() -> Result<Vec<Kept>, String> {
    let mut state = state();
    let state = state.as_mut().ok_or("not open")?;
    let mut kept = Vec::new();
    state.jobs(&mut kept)?;
    state.bare(&mut kept)?;
    mistake(&state.context)?;
    // One that is on the hardware when the queue is closed, two behind it.
    let late = state.queues[0].reserve(state.job(Order::Late)).map_err(text)?.commit();
    let second = state.queues[0].reserve(state.job(Order::Finish)).map_err(text)?.commit();
    let third = state.queues[0].reserve(state.job(Order::Finish)).map_err(text)?.commit();
    let mut keep = |what: &str, fence| kept.push(Kept { what: what.into(), fence });
    keep("late", late.finished());
    keep("late retired", late.retired().into_fence());
    keep("behind", second.finished());
    keep("waiting", third.finished());
    keep("waiting scheduled", third.scheduled());
    Ok(kept)
}

/// See [`outlive_shared::Plugin::close`].
///
/// # Errors
/// If it is not open.
#[expect(unsafe_code, reason = "a name for dlsym")]
#[unsafe(no_mangle)]
pub fn close() -> Result<Drained, String> {
    let State { device, registration, .. } = state().take().ok_or("not open")?;
    if let Some(registration) = registration {
        registration.remove().map_err(text)?;
    }
    Ok(device.close())
}
