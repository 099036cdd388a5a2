//! The shell around a device's recovery: its queues, its driver's calls, its quarantine.
//!
//! # Locks
//! The device's lock guards the list of queues and the machine. It may be held while a queue's lock is taken (walks), never
//! the other way round: a queue only *schedules* the device's work. No driver call is made under it.
#![expect(unsafe_code, reason = "the list of queues and erased drivers; docs/unsafe.md, `device::shared`")]

use super::DeviceConfig;
use super::ban::BanRule;
use super::damage::Damage;
use super::driver::{Driver, ResetScope};
use super::recovery::{Action, Recovery, ResetToken};
use crate::check;
use crate::exec::Lane;
use crate::exec::hub::Urgency;
use crate::exec::node::{LaneNode, Task};
use crate::exec::object::{Counted, Object, ObjectHeader};
use crate::exec::timer::Timer;
use crate::mem::AllocError;
use crate::mem::list::{Link, List};
use crate::queue::shared::QueueShared;
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::sync::{Lock, class};
use crate::time::Time;
use crate::trace::{DeviceChange, Event};
use core::fmt;
use core::mem::offset_of;
use core::ptr::NonNull;
use core::time::Duration;

#[repr(C)]
pub(crate) struct DeviceShared {
    pub(crate) header: ObjectHeader,
    pub(crate) id: u64,
    pub(crate) name: &'static str,
    pub(crate) cancel_grace: Duration,
    pub(crate) ban: BanRule,
    reset: unsafe fn(&Self, ResetScope, ResetToken),
    unplug: unsafe fn(&Self, ResetToken),
    work: LaneNode,
    pub(crate) state: Lock<class::DeviceState, DeviceState>,
    /// News from queues, who may not take the device's lock under theirs: some queue wants its engine reset, a job
    /// wants the whole device reset, the device is lost, a principal was banned.
    wishes: AtomicU32,
    quarantined_jobs: AtomicU64,
    quarantined_bytes: AtomicU64,
    resets: AtomicU64,
}

const WISH_ENGINE: u32 = 1;
const WISH_DEVICE: u32 = 2;
const WISH_LOST: u32 = 4;
const WISH_BAN: u32 = 8;

pub(crate) struct DeviceState {
    pub(crate) recovery: Recovery,
    queues: List,
    timer: Timer,
}

/// A whole device: the driver goes last.
#[repr(C)]
pub(crate) struct DeviceInner<D: Driver> {
    pub(crate) shared: DeviceShared,
    pub(crate) driver: D,
}

// SAFETY: `repr(C)`, the header is first.
unsafe impl Counted for DeviceShared {}
// SAFETY: `repr(C)`, the shared part is first.
unsafe impl<D: Driver> Counted for DeviceInner<D> {}
// SAFETY: the list is behind the lock.
unsafe impl Send for DeviceState {}

impl<D: Driver> DeviceInner<D> {
    pub(crate) fn new(header: ObjectHeader, id: u64, config: DeviceConfig, driver: D) -> Result<Self, (AllocError, D)> {
        let timer = match header.hub().timers.register() {
            Ok(timer) => timer,
            Err(error) => return Err((error, driver)),
        };
        let shared = DeviceShared {
            header,
            id,
            name: config.name,
            cancel_grace: config.cancel_grace,
            ban: config.ban,
            reset: reset::<D>,
            unplug: unplug::<D>,
            work: LaneNode::new(Task::Run(work)),
            state: Lock::new(DeviceState {
                recovery: Recovery::new(config.reset_watchdog),
                queues: List::new(),
                timer,
            }),
            wishes: AtomicU32::new(0),
            quarantined_jobs: AtomicU64::new(0),
            quarantined_bytes: AtomicU64::new(0),
            resets: AtomicU64::new(0),
        };
        Ok(Self { shared, driver })
    }
}

unsafe fn reset<D: Driver>(device: &DeviceShared, scope: ResetScope, token: ResetToken) {
    // SAFETY: made for this `D` by `DeviceInner::new`; the shared part is its first field.
    let inner = unsafe { NonNull::from(device).cast::<DeviceInner<D>>().as_ref() };
    inner.driver.reset(scope, token);
}

unsafe fn unplug<D: Driver>(device: &DeviceShared, token: ResetToken) {
    // SAFETY: as in `reset`.
    let inner = unsafe { NonNull::from(device).cast::<DeviceInner<D>>().as_ref() };
    inner.driver.unplug(token);
}

impl DeviceShared {
    fn object(&self) -> Object<Self> {
        // SAFETY: alive: the caller has a reference, and this is the object it was made as, or its first field.
        unsafe { Object::from_alive(NonNull::from(self)) }
    }

    /// Queues the device's work on the signalling lane. Any context.
    pub(crate) fn poke(&self) {
        let object = self.object();
        let item = NonNull::from(&self.work);
        // SAFETY: the forgotten count keeps the item in place until `work` takes it over.
        unsafe {
            self.header.hub().schedule(Lane::Signalling, item, Urgency::Now, || core::mem::forget(object.clone()))
        };
    }

    fn wish(&self, wish: u32) {
        // ORDERING: Release pairs with `collect`: a queue's own mark is seen.
        self.wishes.fetch_or(wish, Ordering::Release);
        self.poke();
    }

    /// A queue has marked that it wants its engine reset. Under that queue's lock.
    pub(crate) fn look_for_wishes(&self) {
        self.wish(WISH_ENGINE);
    }

    /// The whole device is to be reset. Under a queue's lock, or none.
    pub(crate) fn want_device_reset(&self) {
        self.wish(WISH_DEVICE);
    }

    /// The device is gone. Under a queue's lock, or none.
    pub(crate) fn lose_from_queue(&self) {
        self.wish(WISH_LOST);
    }

    /// A principal was banned: its queues are to hear of it. Under a queue's lock.
    pub(crate) fn look_for_bans(&self) {
        self.wish(WISH_BAN);
    }

    /// Tells the machine what queues wished: one engine at a time, the others stay marked.
    fn collect(&self, state: &mut DeviceState) {
        let wishes = self.wishes.swap(0, Ordering::AcqRel);
        if wishes & WISH_LOST != 0 {
            state.recovery.lose();
        }
        if wishes & WISH_DEVICE != 0 {
            state.recovery.want(ResetScope::Device);
        }
        if wishes & WISH_ENGINE != 0 {
            let mut chosen = None;
            let mut more = false;
            Self::walk(state, ResetScope::Device, |queue| {
                if chosen.is_some() {
                    more |= queue.wants_reset.load(Ordering::Acquire);
                } else if queue.wants_reset.swap(false, Ordering::AcqRel) {
                    chosen = Some(queue.id());
                }
                true
            });
            if let Some(id) = chosen {
                state.recovery.want(ResetScope::Queue(id));
            }
            if more {
                self.wishes.fetch_or(WISH_ENGINE, Ordering::Relaxed);
            }
        }
    }

    /// Closes every queue. Not under any of the library's locks.
    pub(crate) fn close_queues(&self) {
        let state = self.state.lock();
        Self::walk(&state, ResetScope::Device, |queue| {
            queue.close();
            true
        });
    }

    /// The device is gone. Not under a queue's lock.
    pub(crate) fn lose(&self) {
        self.state.lock().recovery.lose();
        self.poke();
    }

    pub(crate) fn answered(&self, epoch: u64, ok: bool) {
        self.state.lock().recovery.answered(epoch, ok);
        self.poke();
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.state.lock().recovery.is_lost()
    }

    pub(crate) fn is_quiesced_for_good(&self) -> bool {
        self.state.lock().recovery.is_quiesced_for_good()
    }

    /// Puts a new queue into the list, which it leaves in its drop; false if the device is gone.
    pub(crate) fn enlist(&self, queue: &QueueShared) -> bool {
        let mut state = self.state.lock();
        // SAFETY: a new queue is in no list, stays in place until `delist`, and the lock is held.
        unsafe { state.queues.push_back(NonNull::from(&queue.device_link)) };
        if state.recovery.covers_new_queues() {
            queue.hold();
        }
        !state.recovery.is_lost()
    }

    /// Takes a dying queue out.
    pub(crate) fn delist(&self, queue: &QueueShared) {
        let mut state = self.state.lock();
        // SAFETY: put in by `enlist`, once.
        unsafe { state.queues.remove(NonNull::from(&queue.device_link)) };
    }

    pub(crate) fn quarantine(&self, bytes: u64) {
        self.quarantined_jobs.fetch_add(1, Ordering::Relaxed);
        let bytes = self.quarantined_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let device = self.id;
        self.header.hub().trace(|| Event::Device { device, change: DeviceChange::Quarantined { bytes } });
    }

    pub(crate) fn quarantined(&self) -> (u64, u64) {
        (self.quarantined_jobs.load(Ordering::Relaxed), self.quarantined_bytes.load(Ordering::Relaxed))
    }

    pub(crate) fn resets(&self) -> u64 {
        self.resets.load(Ordering::Relaxed)
    }

    /// Calls `visit` for every queue in `scope`; false if any said false. Under the device's lock.
    pub(crate) fn walk(state: &DeviceState, scope: ResetScope, mut visit: impl FnMut(&QueueShared) -> bool) -> bool {
        let mut all = true;
        let mut at = state.queues.front();
        while let Some(link) = at {
            let queue = queue_of(link);
            // SAFETY: a queue takes itself out of the list under this lock before its memory goes.
            if let Some(queue) = unsafe { Object::from_maybe_dying(queue) } {
                if scope == ResetScope::Device || scope == ResetScope::Queue(queue.id()) {
                    all &= visit(&queue);
                }
            }
            // SAFETY: in the list, whose lock is held.
            at = unsafe { state.queues.next(link) };
        }
        all
    }

    fn trace(&self, change: DeviceChange) {
        let device = self.id;
        self.header.hub().trace(|| Event::Device { device, change });
    }

    /// The device's work: does what its recovery says until it has nothing to say.
    fn recover(&self) {
        loop {
            let now = self.header.hub().now();
            let mut state = self.state.lock();
            self.header.hub().timers.fired(&mut state.timer, now);
            if self.wishes.fetch_and(!WISH_BAN, Ordering::AcqRel) & WISH_BAN != 0 {
                Self::walk(&state, ResetScope::Device, QueueShared::look_for_ban);
            }
            if state.recovery.is_up() {
                self.collect(&mut state);
            } else if self.wishes.load(Ordering::Relaxed) & WISH_LOST != 0 {
                state.recovery.lose();
            }
            let action = state.recovery.poll(now);
            if let Some(action) = action {
                self.act(&mut state, action, now);
            }
            let call = self.try_hold(&mut state, now);
            let due = state.recovery.due();
            let owner = NonNull::from(&self.header);
            if self.header.hub().timers.arm(&mut state.timer, due, owner, fire) {
                self.header.hub().kick(Lane::Signalling);
            }
            drop(state);
            match call {
                Some(Action::Reset(scope, epoch)) => {
                    self.resets.fetch_add(1, Ordering::Relaxed);
                    self.trace(DeviceChange::Resetting);
                    // SAFETY: the function was made for this very device.
                    unsafe { (self.reset)(self, scope, self.token(epoch)) };
                }
                // SAFETY: as above.
                Some(Action::Unplug(epoch)) => unsafe { (self.unplug)(self, self.token(epoch)) },
                _ if action.is_none() => return,
                _ => {}
            }
        }
    }

    fn token(&self, epoch: u64) -> ResetToken {
        ResetToken { device: self.object(), epoch, answered: false }
    }

    /// If queues are being held and none is in the middle of a start: the driver call that is now due.
    fn try_hold(&self, state: &mut DeviceState, now: Time) -> Option<Action> {
        let scope = state.recovery.holding()?;
        if !Self::walk(state, scope, QueueShared::hold) {
            return None;
        }
        state.recovery.held(now);
        state.recovery.call()
    }

    /// What was on the hardware has ended, and the guilty pay.
    fn let_go(&self, state: &DeviceState, scope: ResetScope, now: Time) {
        // Whoever asked for a reset meanwhile had it: all that was on the hardware ends below, and only then does anything
        // start. In this order, a wish is met once too often rather than never.
        if scope == ResetScope::Device {
            self.wishes.fetch_and(!(WISH_DEVICE | WISH_ENGINE), Ordering::AcqRel);
        }
        let mut damage = Damage::new(state.recovery.since());
        Self::walk(state, scope, |queue| queue.assess(&mut damage));
        let bill = damage.bill(now);
        Self::walk(state, scope, |queue| queue.quiesced(bill));
    }

    fn act(&self, state: &mut DeviceState, action: Action, now: Time) {
        match action {
            Action::Hold(_) => {}
            Action::Refuse => {
                self.trace(DeviceChange::Lost);
                Self::walk(state, ResetScope::Device, |queue| queue.refuse_lost());
            }
            Action::Quiesced(scope) => {
                self.trace(DeviceChange::Quiesced);
                self.let_go(state, scope, now);
            }
            Action::Gone => {
                self.trace(DeviceChange::Quiesced);
                self.let_go(state, ResetScope::Device, now);
            }
            Action::Quarantine => {
                Self::walk(state, ResetScope::Device, |queue| queue.quarantined());
            }
            Action::Reset(..) | Action::Unplug(_) => unreachable!("driver calls come from `call`"),
        }
    }
}

fn queue_of(link: NonNull<Link>) -> NonNull<QueueShared> {
    // SAFETY: only `device_link`s of queues are in a device's list.
    unsafe { link.byte_sub(offset_of!(QueueShared, device_link)) }.cast()
}

/// Under the timers' lock.
unsafe fn fire(owner: NonNull<ObjectHeader>) {
    // SAFETY: the device takes its timer out under the timers' lock before its memory goes.
    if let Some(device) = unsafe { Object::<DeviceShared>::from_maybe_dying(owner.cast()) } {
        device.poke();
    }
}

/// On the signalling lane.
unsafe fn work(item: NonNull<LaneNode>) {
    let _section = check::signalling();
    // SAFETY: `item` is the field `work` of a device, counted when it was queued.
    let device = unsafe { item.byte_sub(offset_of!(DeviceShared, work)) }.cast::<DeviceShared>();
    // SAFETY: takes that count over.
    let device = unsafe { Object::from_raw(device) };
    device.recover();
}

impl Drop for DeviceShared {
    fn drop(&mut self) {
        let mut state = self.state.lock();
        self.header.hub().timers.unregister(&mut state.timer);
    }
}

impl fmt::Debug for DeviceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.recovery.fmt(f)
    }
}
