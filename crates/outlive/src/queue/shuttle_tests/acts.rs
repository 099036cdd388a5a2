//! What an actor, a callback or a payload's drop may do, one function each.

use super::hardware::{Deed, Payload};
use super::world::{Handle, World};
use super::{clone_any, locked, ms, pick, take_any};
use crate::sched::Priority;
use crate::{
    Dependency, FenceContext, FenceError, Job, Names, OnError, Registration, SignalSafe, UserFence, WaitError,
};
use shuttle::thread;
use std::boxed::Box;
use std::sync::Arc;
use std::time::Duration;
use std::vec::Vec;

/// How deep callbacks may nest.
pub(super) const DEPTH: usize = 2;

pub(super) type Act = fn(&Arc<World>, Turn);

/// Whose turn it is.
#[derive(Clone, Copy)]
pub(super) struct Turn {
    /// What it chooses from.
    pub(super) menu: &'static [Act],
    /// How many callbacks may nest from here on.
    pub(super) depth: usize,
}

impl Turn {
    /// Not from a callback, which may not wait.
    fn may_wait(self) -> bool {
        self.depth == DEPTH
    }
}

/// One thing from the menu.
pub(super) fn any(world: &Arc<World>, turn: Turn) {
    turn.menu[pick(turn.menu.len())](world, turn);
}

/// Something to do in a payload's drop, or a callback.
fn deed(world: &Arc<World>, turn: Turn) -> Option<Deed> {
    let depth = turn.depth.checked_sub(1)?;
    match pick(3) {
        0 => None,
        1 => {
            let handle = world.some_handle();
            Some(Box::new(move || drop(handle)))
        }
        _ => {
            let world = world.clone();
            Some(Box::new(move || any(&world, Turn { depth, ..turn })))
        }
    }
}

fn job(world: &Arc<World>, turn: Turn) -> Job<Payload> {
    let last = deed(world, turn);
    Job::new(Payload::new(&world.hardware, last)).credits(1 + u32::try_from(pick(2)).unwrap())
}

fn dependencies(world: &World) -> Vec<Dependency> {
    let any = (0..pick(4)).filter_map(|_| world.any_fence());
    let policy = |fence| {
        let on = match pick(3) {
            0 => Dependency::on(fence),
            1 => Dependency::on(fence).on_error(OnError::Run),
            _ => Dependency::on(fence).on_error(OnError::Fail),
        };
        if pick(2) == 0 { on } else { on.pipelined() }
    };
    any.map(policy).collect()
}

pub(super) fn commit(world: &Arc<World>, turn: Turn) {
    let Some(queue) = world.queue() else { return };
    let dependencies = dependencies(world);
    if let Ok(mut reserved) = queue.reserve_after(job(world, turn), dependencies.clone()) {
        reserved.after = dependencies.iter().map(|on| on.fence.clone()).collect();
        if pick(8) > 0 {
            let job = reserved.commit();
            let fails = dependencies.iter().filter(|on| on.on_error == Some(OnError::Fail));
            let fails: Vec<_> = fails.map(|on| (job.clone(), on.fence.clone())).collect();
            locked(&world.fails_with).extend(fails);
            locked(&world.jobs).push(job);
        }
    }
}

/// One more queue under the arbiter.
pub(super) fn open(world: &Arc<World>, _turn: Turn) {
    if let Some(arbiter) = world.arbiter() {
        world.open(&arbiter, 1 + pick(5) as u64);
    }
}

/// Another share.
pub(super) fn claim(world: &Arc<World>, _turn: Turn) {
    let Some(queue) = world.queue() else { return };
    match pick(3) {
        0 => queue.set_priority([Priority::Low, Priority::High, Priority::Realtime][pick(3)]),
        1 => queue.set_weight(1 + u32::try_from(pick(1_000)).unwrap()).unwrap(),
        _ => queue.set_group(pick(3) as u64),
    }
}

/// The arbiter's last handle, now and then.
pub(super) fn drop_arbiter(world: &Arc<World>, _turn: Turn) {
    if pick(4) == 0 {
        let arbiter = world.arbiter();
        locked(&world.handles).retain(|handle| !matches!(handle, Handle::Arbiter(_)));
        drop(arbiter);
    }
}

pub(super) fn commit_when(world: &Arc<World>, turn: Turn) {
    let (Some(queue), Some(executor)) = (world.queue(), world.executor()) else { return };
    let (source, user) = UserFence::new(&executor, "host").unwrap();
    let job = job(world, turn).user_waits(1);
    let Ok(reserved) = queue.reserve_after(job, dependencies(world)) else { return };
    let deadline = executor.now().after(ms(1 + pick(4) as u64));
    let Ok(pending) = reserved.commit_when(&[user], deadline) else { unreachable!("there is room") };
    locked(&world.dones).push(pending.done());
    locked(&world.pendings).push(Arc::new(pending));
    locked(&world.sources).push(source);
}

pub(super) fn cancel(world: &Arc<World>, _turn: Turn) {
    let Some(pending) = clone_any(&world.pendings) else { return };
    if pending.cancel() {
        assert!(pending.fences().is_none(), "cancelled, and committed");
    }
}

pub(super) fn signal_user(world: &Arc<World>, _turn: Turn) {
    let source = if pick(2) == 0 { take_any(&world.sources) } else { clone_any(&world.sources) };
    let Some(source) = source else { return };
    match pick(3) {
        0 => drop(source),
        1 => {
            source.signal(Err(FenceError::Canceled));
        }
        _ => {
            source.signal(Ok(()));
        }
    }
}

pub(super) fn close(world: &Arc<World>, _turn: Turn) {
    if let Some(queue) = world.queue() {
        drop(queue.close());
    }
}

pub(super) fn suspend(world: &Arc<World>, _turn: Turn) {
    if let Some(queue) = world.queue() {
        queue.suspend();
    }
}

pub(super) fn resume(world: &Arc<World>, _turn: Turn) {
    if let Some(queue) = world.queue() {
        queue.resume();
        queue.resume_job_clock();
    }
}

pub(super) fn pause_clock(world: &Arc<World>, _turn: Turn) {
    if let Some(queue) = world.queue() {
        queue.pause_job_clock();
        if pick(2) == 0 {
            thread::yield_now();
        }
        queue.resume_job_clock();
    }
}

pub(super) fn unplug(world: &Arc<World>, _turn: Turn) {
    if let Some(device) = world.device() {
        device.unplug();
    }
}

pub(super) fn reset(world: &Arc<World>, _turn: Turn) {
    if let Some(device) = world.device() {
        device.reset();
    }
}

pub(super) fn wait(world: &Arc<World>, turn: Turn) {
    let Some(fence) = world.any_fence() else { return };
    if turn.may_wait() {
        let waited = fence.wait(Duration::MAX);
        assert!(matches!(waited, Ok(()) | Err(WaitError::Failed(_))), "{waited:?}");
    }
}

pub(super) fn callback(world: &Arc<World>, turn: Turn) {
    let Some(fence) = world.any_fence() else { return };
    let Some(deed) = deed(world, turn) else { return };
    if let Ok(registration) = fence.on_signaled(move |_| deed()) {
        match pick(4) {
            0 => drop(registration),
            1 if turn.may_wait() => drop(registration.remove()),
            _ => registration.keep(),
        }
    }
}

struct DropsInSignal(#[expect(dead_code, reason = "kept to be dropped")] Option<Handle>);

// SAFETY: shuttle has no interrupts, and dropping a handle neither blocks nor waits.
#[expect(unsafe_code, reason = "a promise about this test's closure")]
unsafe impl SignalSafe for DropsInSignal {
    fn signaled(self, _result: Result<(), FenceError>) {}
}

/// A handle that goes in the signalling path itself.
pub(super) fn inline(world: &Arc<World>, _turn: Turn) {
    let Some(fence) = world.any_fence() else { return };
    if let Ok(registration) = fence.on_signal(DropsInSignal(world.some_handle())) {
        registration.keep();
    }
}

pub(super) fn forget(world: &Arc<World>, _turn: Turn) {
    drop(world.some_handle());
}

/// Something that a head will wait for. A bare fence: a job's could wait for the very job that waits for it, which only a
/// driver can rule out.
pub(super) fn resource(world: &Arc<World>, _turn: Turn) {
    let Some(executor) = world.executor() else { return };
    let names = Names { driver: "shuttle", timeline: "resource" };
    let context = FenceContext::with_watchdog(&executor, names, ms(1)).unwrap();
    let (signaler, fence) = context.allocate().unwrap().publish();
    locked(&world.hardware.resources).push(fence);
    locked(&world.hardware.signalers).push(signaler);
}

/// A future polled once, and dropped.
pub(super) fn future(world: &Arc<World>, _turn: Turn) {
    let Some(fence) = world.any_fence() else { return };
    let mut future = Box::pin(fence.into_future());
    let mut cx = core::task::Context::from_waker(core::task::Waker::noop());
    let _ = future.as_mut().poll(&mut cx);
}

/// Two fences of one context, signaled out of turn, or left to the watchdog.
pub(super) fn bare(world: &Arc<World>, turn: Turn) {
    let Some(executor) = world.executor() else { return };
    let names = Names { driver: "shuttle", timeline: "bare" };
    let context = FenceContext::with_watchdog(&executor, names, ms(1)).unwrap();
    let (one, first) = context.allocate().unwrap().publish();
    let (two, second) = context.allocate().unwrap().publish();
    if let Some(deed) = deed(world, turn) {
        let _ = second.on_signaled(move |_| deed()).map(Registration::keep);
    }
    two.signal(Ok(()));
    drop((executor, context));
    match pick(3) {
        0 => one.signal(Ok(())),
        1 => drop(one),
        _ if turn.may_wait() => {
            let waited = first.wait(Duration::MAX);
            assert_eq!(waited, Err(WaitError::Failed(FenceError::TimedOut)), "nobody but the watchdog ends it");
            drop(one);
        }
        _ => {}
    }
}
