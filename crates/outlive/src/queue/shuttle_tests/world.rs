//! What the actors share: handles, whose last copy may be dropped anywhere, and what they got for them.

use super::hardware::{Gpu, Hardware, Ring};
use super::{clone_any, locked, ms, pick, take_any};
use crate::sched::{Arbiter, ArbiterConfig, Fifo, RoundRobin};
use crate::sync::model::clock;
use crate::{
    Device, DeviceConfig, Executor, Fence, JobFences, JobQueue, Pending, QueueConfig, Status, UserFence, UserSource,
};
use shuttle::sync::Mutex;
use std::sync::Arc;
use std::time::Duration;
use std::vec::Vec;

/// A handle whose last copy may be dropped anywhere.
#[derive(Clone)]
pub(super) enum Handle {
    Executor(#[expect(dead_code, reason = "kept to be dropped")] Executor),
    Device(Device<Gpu>),
    Queue(Arc<JobQueue<Gpu>>),
    Arbiter(Arc<Arbiter>),
}

/// Of an arbiter.
pub(super) const CREDITS: u32 = 3;

/// What the actors share.
pub(super) struct World {
    pub(super) hardware: Arc<Hardware>,
    pub(super) handles: Mutex<Vec<Handle>>,
    pub(super) jobs: Mutex<Vec<JobFences>>,
    pub(super) pendings: Mutex<Vec<Arc<Pending>>>,
    pub(super) dones: Mutex<Vec<UserFence>>,
    pub(super) sources: Mutex<Vec<UserSource>>,
    /// Jobs that fail if another does.
    pub(super) fails_with: Mutex<Vec<(JobFences, Fence)>>,
}

fn queue_config(name: &'static str, client: u64) -> QueueConfig {
    QueueConfig::new(name)
        .credits(2)
        .client(client)
        .timeout(ms(2))
        .drain_timeout(ms(1))
        .suspend_limit(ms(3))
        .bypass(pick(4) > 0)
        .pipelined(pick(2) > 0)
}

impl World {
    pub(super) fn new(executor: Executor) -> Arc<Self> {
        let hardware = Arc::new(Hardware::default());
        // Longer than any order lets a driver call take, or what it has on the hardware would go into quarantine.
        let config = DeviceConfig::new("shuttle").reset_watchdog(ms(1000)).cancel_grace(ms(1));
        let device = Device::with_config(&executor, config, Gpu { hardware: hardware.clone() }).unwrap();
        let queue =
            |name, client| Handle::Queue(Arc::new(device.queue(queue_config(name, client), Ring::default()).unwrap()));
        let handles = Vec::from([queue("a", 1), queue("b", 2), Handle::Device(device), Handle::Executor(executor)]);
        Arc::new(Self {
            hardware,
            handles: Mutex::new(handles),
            jobs: Mutex::default(),
            pendings: Mutex::default(),
            dones: Mutex::default(),
            sources: Mutex::default(),
            fails_with: Mutex::default(),
        })
    }

    /// Four queues under an arbiter instead, of some policy.
    pub(super) fn turns() -> Arc<Self> {
        let world = Self::threads();
        let executor = world.executor().unwrap();
        let config = ArbiterConfig::new(CREDITS).queues(8).in_order(pick(4) > 0);
        let arbiter = match pick(3) {
            0 => Arbiter::with_policy(&executor, config, Fifo::default()),
            1 => Arbiter::with_policy(&executor, config, RoundRobin::default()),
            _ => Arbiter::new(&executor, config),
        };
        let arbiter = Arc::new(arbiter.unwrap());
        locked(&world.handles).push(Handle::Arbiter(arbiter.clone()));
        (1..5).for_each(|client| world.open(&arbiter, client));
        world
    }

    /// One queue more under the arbiter, if it still takes any.
    pub(super) fn open(&self, arbiter: &Arbiter, client: u64) {
        let Some(device) = self.device() else { return };
        if let Ok(queue) = device.queue(queue_config("turn", client).arbiter(arbiter), Ring::default()) {
            locked(&self.handles).push(Handle::Queue(Arc::new(queue)));
        }
    }

    pub(super) fn arbiter(&self) -> Option<Arc<Arbiter>> {
        let arbiter =
            |handle: &Handle| if let Handle::Arbiter(arbiter) = handle { Some(arbiter.clone()) } else { None };
        locked(&self.handles).iter().find_map(arbiter)
    }

    pub(super) fn threads() -> Arc<Self> {
        Self::new(Executor::builder().clock(clock).threads().unwrap())
    }

    pub(super) fn queue(&self) -> Option<Arc<JobQueue<Gpu>>> {
        let queues: Vec<_> = locked(&self.handles)
            .iter()
            .filter_map(|handle| if let Handle::Queue(queue) = handle { Some(queue.clone()) } else { None })
            .collect();
        if queues.is_empty() { None } else { Some(queues[pick(queues.len())].clone()) }
    }

    pub(super) fn device(&self) -> Option<Device<Gpu>> {
        if let Some(queue) = self.queue() {
            return Some(queue.device().clone());
        }
        let handles = locked(&self.handles).clone();
        handles.iter().find_map(|handle| if let Handle::Device(device) = handle { Some(device.clone()) } else { None })
    }

    pub(super) fn executor(&self) -> Option<Executor> {
        self.device().map(|device| device.executor().clone())
    }

    pub(super) fn any_fence(&self) -> Option<Fence> {
        let job = clone_any(&self.jobs)?;
        Some(match pick(3) {
            0 => job.scheduled(),
            1 => job.finished(),
            _ => job.retired().into_fence(),
        })
    }

    /// A handle to be dropped elsewhere: sometimes the last, which the others miss from then on.
    pub(super) fn some_handle(&self) -> Option<Handle> {
        if pick(3) == 0 { take_any(&self.handles) } else { clone_any(&self.handles) }
    }

    /// Lets every handle go, sees that all came to an end, and that nothing is left.
    /// Returns the arbiter, now and then.
    pub(super) fn end(self: Arc<Self>) -> Option<Arc<Arbiter>> {
        let arbiter = self.arbiter().filter(|_| pick(2) == 0);
        loop {
            let Some(handle) = take_any(&self.handles) else { break };
            drop(handle);
        }
        loop {
            // Callbacks may still commit.
            let jobs = locked(&self.jobs).clone();
            for job in &jobs {
                let finished = job.finished().wait(Duration::MAX);
                let retired = job.retired().wait(Duration::MAX);
                assert_eq!(retired, Ok(()), "{finished:?}");
                assert!(job.scheduled().is_signaled());
            }
            let done = locked(&self.dones).last().cloned();
            match done {
                Some(done) => {
                    let _ = done.wait(Duration::MAX);
                    locked(&self.dones).retain(|other| *other != done);
                }
                None if locked(&self.jobs).len() == jobs.len() => break,
                None => {}
            }
        }
        for (job, other) in locked(&self.fails_with).drain(..) {
            let (went, fence) = (job.finished().status(), other.status());
            assert!(went != Status::Signaled(Ok(())) || fence == went, "{job:?} went well, and depends on {other:?}");
        }
        arbiter
    }

    /// Drops all that is shared, also what callbacks and payloads still leave here.
    pub(super) fn sweep(&self) {
        let pendings = core::mem::take(&mut *locked(&self.pendings));
        let sources = core::mem::take(&mut *locked(&self.sources));
        let jobs = core::mem::take(&mut *locked(&self.jobs));
        let dones = core::mem::take(&mut *locked(&self.dones));
        let handles = core::mem::take(&mut *locked(&self.handles));
        let signalers = core::mem::take(&mut *locked(&self.hardware.signalers));
        drop((pendings, sources, jobs, dones, handles, signalers));
    }
}
