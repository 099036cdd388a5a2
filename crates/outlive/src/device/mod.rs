//! Devices: a driver, its queues, and what is left of their jobs when they are gone.
//!
//! # Who owns what
//! The device's inner object owns the driver, the recovery and the quarantine. Queues count it, and jobs that are not
//! reaped count their queue: so the driver is dropped after the last payload, on the reaper, whatever was dropped before.
//! The jobs on the hardware of all queues, closed ones too, are the device's *retire list*: each has a finite deadline, after
//! which it is cancelled, its engine reset, the device reset, the device lost, each step under a watchdog.

mod ban;
pub(crate) mod damage;
pub(crate) mod driver;
mod fdinfo;
mod principal;
mod recovery;
pub(crate) mod shared;
pub(crate) mod usage;

pub use ban::OFFENCES_MAX;
pub use driver::{Acquired, Driver, JobCx, JobInfo, ResetScope, Verdict};
pub use fdinfo::{EngineName, Fdinfo};
pub use principal::{Charges, Principal};
pub use recovery::{RESET_WATCHDOG_DEFAULT, ResetToken};
pub use usage::{ENGINES_MAX, Outcome, Usage};

use crate::exec::object::Object;
use crate::exec::{Executor, next_id, next_ids};
use crate::fence::context::info;
use crate::fence::{Names, UserFence};
use crate::mem::shared::Ref;
use crate::queue::long::LongShared;
use crate::queue::shared::{Parts, QueueInner};
use crate::queue::turn::{Caller, Place};
use crate::queue::{Drained, JobQueue, OpenError, QueueConfig};
use crate::sched::{ArbiterShared, BadWeight, Refused};
use crate::sync::atomic::{AtomicUsize, Ordering};
use ban::BanRule;
use core::fmt;
use core::time::Duration;
use shared::DeviceInner;

/// A handle on one piece of hardware. Clones are the same device; it closes when the last handle and the last queue
/// handle are gone, or at [`Device::close`].
pub struct Device<D: Driver> {
    inner: Object<DeviceInner<D>>,
    handles: Ref<AtomicUsize>,
    executor: Executor,
    drained: UserFence,
}

/// How a device is made.
#[derive(Debug, Clone, Copy)]
pub struct DeviceConfig {
    name: &'static str,
    reset_watchdog: Duration,
    cancel_grace: Duration,
    ban: BanRule,
}

impl Default for DeviceConfig {
    fn default() -> Self {
        Self::new("device")
    }
}

impl DeviceConfig {
    /// A device called `name` ("driver name" of its fences).
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        let cancel_grace = Duration::from_millis(100);
        Self { name, reset_watchdog: RESET_WATCHDOG_DEFAULT, cancel_grace, ban: BanRule::DEFAULT }
    }

    /// How long the driver may take to answer a reset or an unplug. Default 1 s.
    #[must_use]
    pub const fn reset_watchdog(mut self, watchdog: Duration) -> Self {
        self.reset_watchdog = watchdog;
        self
    }

    /// How long a cancelled job may take to leave the hardware before its engine is reset. Default 100 ms.
    #[must_use]
    pub const fn cancel_grace(mut self, grace: Duration) -> Self {
        self.cancel_grace = grace;
        self
    }

    /// Bans a principal when `offences` of its jobs, at most [`OFFENCES_MAX`], had to be taken off this device by force within
    /// `window`: their time was over and they were cancelled, or they took a reset. Its waiting jobs then fail, what it has on
    /// the hardware goes on, and it gets no more jobs in until [`Principal::lift_ban`]. 0: never. Default 10 in 10 s.
    #[must_use]
    pub const fn ban_after(mut self, offences: u32, window: Duration) -> Self {
        self.ban = BanRule { offences, window };
        self
    }
}

/// What the hardware may touch for ever, because a reset failed and DMA could not be excluded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quarantine {
    /// Jobs whose payloads are never dropped.
    pub jobs: u64,
    /// The bytes they were charged.
    pub bytes: u64,
}

impl<D: Driver> Device<D> {
    /// A device on `executor`. Allocates.
    ///
    /// # Errors
    /// [`OpenError::OutOfMemory`].
    pub fn new(executor: &Executor, driver: D) -> Result<Self, OpenError> {
        Self::with_config(executor, DeviceConfig::default(), driver)
    }

    /// A device with other than the default limits. Allocates.
    ///
    /// # Errors
    /// [`OpenError::OutOfMemory`].
    pub fn with_config(executor: &Executor, config: DeviceConfig, driver: D) -> Result<Self, OpenError> {
        let (source, drained) = UserFence::new(executor, "device drained")?;
        let handles = Ref::try_new(AtomicUsize::new(1))?;
        let inner = Object::try_new(executor.hub(), |header| {
            let header = header.announce(source);
            DeviceInner::new(header, next_id(), config, driver).map_err(|(error, _driver)| OpenError::from(error))
        })?;
        Ok(Self { inner, handles, executor: executor.clone(), drained })
    }

    /// A new queue with the ring state `ring`. Allocates.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn queue(&self, config: QueueConfig, ring: D::Queue) -> Result<JobQueue<D>, OpenError> {
        self.open(config, ring, None)
    }

    pub(crate) fn open(
        &self,
        config: QueueConfig,
        ring: D::Queue,
        long: Option<LongShared>,
    ) -> Result<JobQueue<D>, OpenError> {
        BadWeight::check(config.share.weight)?;
        BadWeight::check(config.share.group_weight)?;
        let config = config.clamp();
        if config.credits == 0 {
            return Err(OpenError::NoCredits);
        }
        if config.engine >= ENGINES_MAX {
            return Err(OpenError::NoSuchEngine { most: ENGINES_MAX });
        }
        let place = config.arbiter.as_ref().map(|arbiter| self.place_with(arbiter, &config)).transpose()?;
        let caller = place.as_ref().map(|place| (place.arbiter.clone(), place.number));
        let names = Names { driver: self.inner.shared.name, timeline: config.name };
        let order = config.arbiter.as_ref().map_or(0, |arbiter| arbiter.order());
        let info = info(&self.executor, names, config.client, self.inner.shared.id, order, next_ids(3))?;
        let (drain_source, drained) = UserFence::new(&self.executor, "queue drained")?;
        let parts = Parts { info, place, drain_source, long };
        let inner =
            Object::try_new(self.executor.hub(), |header| QueueInner::new(header, &self.inner, config, parts, ring))?;
        let device_is_there = self.inner.shared.enlist(&inner.shared);
        inner.shared.trace_change(crate::trace::QueueChange::Opened);
        let called = caller.is_none_or(|(arbiter, number)| arbiter.enlist(number, Caller::new(&inner.shared)));
        let queue = JobQueue::from_parts(inner, drained, self.clone());
        match (device_is_there, called) {
            (true, true) => Ok(queue),
            (false, _) => Err(OpenError::DeviceLost),
            (true, false) => Err(OpenError::ArbiterGone),
        }
    }

    pub(crate) fn name(&self) -> &'static str {
        self.inner.shared.name
    }

    /// A place for a new queue with `arbiter`.
    fn place_with(&self, arbiter: &Ref<ArbiterShared>, config: &QueueConfig) -> Result<Place, OpenError> {
        if !arbiter.is_on(&self.executor) {
            return Err(OpenError::OtherExecutor);
        }
        match arbiter.open(config.client, config.share) {
            Ok(number) => Ok(Place { arbiter: arbiter.clone(), number }),
            Err(Refused::Full(most)) => Err(OpenError::ArbiterFull { most }),
            Err(Refused::Gone) => Err(OpenError::ArbiterGone),
        }
    }

    /// Closes every queue. Latches at once; never blocks; any context. The handle says when the driver has been dropped, and
    /// no code of it will run any more: then its module may be unloaded, if its hooks and the closures it registered on
    /// fences are gone too. Jobs in quarantine keep it from coming.
    pub fn close(&self) -> Drained {
        self.inner.shared.close_queues();
        self.drained()
    }

    /// A handle that says when the device is gone, without closing it.
    pub fn drained(&self) -> Drained {
        Drained::new(self.drained.clone())
    }

    /// The hardware is gone (hot-unplug): every job fails with [`DeviceLost`](crate::FenceError::DeviceLost), and the driver
    /// is asked to exclude DMA. Latches at once; never blocks; any context.
    pub fn unplug(&self) {
        self.inner.shared.lose();
    }

    /// Resets the whole device, as if a job had asked for it. Jobs on the hardware fail as
    /// [`Innocent`](crate::FenceError::Innocent); the others survive. Any context; never blocks.
    pub fn reset(&self) {
        self.inner.shared.want_device_reset();
    }

    /// Whether it is lost: a new device must be opened.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.inner.shared.is_lost()
    }

    /// What is in quarantine.
    #[must_use]
    pub fn quarantine(&self) -> Quarantine {
        let (jobs, bytes) = self.inner.shared.quarantined();
        Quarantine { jobs, bytes }
    }

    /// Resets asked of the driver so far.
    #[must_use]
    pub fn resets(&self) -> u64 {
        self.inner.shared.resets()
    }

    /// The driver. Any context that the driver's own methods allow.
    #[must_use]
    pub fn driver(&self) -> &D {
        &self.inner.driver
    }

    /// The executor it was made on.
    #[must_use]
    pub const fn executor(&self) -> &Executor {
        &self.executor
    }

    /// Its number, never reused in a process.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.inner.shared.id
    }

    pub(crate) const fn inner(&self) -> &Object<DeviceInner<D>> {
        &self.inner
    }
}

impl<D: Driver> Clone for Device<D> {
    fn clone(&self) -> Self {
        self.handles.fetch_add(1, Ordering::Relaxed);
        Self {
            inner: self.inner.clone(),
            handles: self.handles.clone(),
            executor: self.executor.clone(),
            drained: self.drained.clone(),
        }
    }
}

impl<D: Driver> Drop for Device<D> {
    fn drop(&mut self) {
        // A queue's handle has a device's, so this is the last of both.
        if self.handles.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.inner.shared.close_queues();
        }
    }
}

impl<D: Driver> fmt::Debug for Device<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Device({} {})", self.inner.shared.id, self.inner.shared.name)
    }
}
