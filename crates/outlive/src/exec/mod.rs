//! Executors: who runs the lanes ([`Lane`]), on which clock.
//!
//! # Who keeps it alive
//! Handles and objects (queues, devices, fence contexts). Threads end when both are gone, so the last handle may be dropped
//! anywhere, on a lane of its own too: nothing is joined. A manual executor whose last handle goes while work is left is
//! adopted: by three threads with `std`, else by whichever other executor is stepped next.
#![expect(unsafe_code, reason = "the orphans' list; docs/unsafe.md, `exec`")]

pub(crate) mod clock;
pub(crate) mod hub;
pub(crate) mod node;
pub(crate) mod object;
#[cfg(any(all(feature = "std", not(loom)), shuttle))]
mod threads;
pub(crate) mod timer;

use crate::mem::AllocError;
use crate::mem::shared::Ref;
use crate::sync;
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::time::Time;
use crate::trace::{Record, Recorder};
use clock::Clock;
use core::fmt;
use hub::{Hub, Ident};

/// One of an executor's three lanes (rule 6).
///
/// | lane | runs | may | may not |
/// |---|---|---|---|
/// | *signalling* | dispatch, completions' follow-ups, timeouts, recovery, timers | take signalling locks | allocate, block, run a foreign closure or `Drop` |
/// | *notify* | closures and `Waker`s of fences | lock, allocate | wait for a fence (reported) |
/// | *reaper* | payloads' and objects' `Drop` | lock, allocate, block, wait for a fence | |
///
/// None waits for a later one. A threaded executor gives each its own thread. With one thread ([`Executor::manual`]) they
/// are three calls: [`Executor::step`], [`Executor::notify`], [`Executor::reap`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Dispatch, follow-ups of completions, timeouts, recovery, timers: [`Executor::step`].
    Signalling,
    /// Closures and wakers: [`Executor::notify`].
    Notify,
    /// Drops: [`Executor::reap`].
    Reaper,
}

/// A handle on an executor: who runs the three lanes ([`Lane`]), and on which clock. Devices, queues and fence contexts
/// are made on one.
///
/// Cheap to clone; dropping the last one, anywhere, lets what is still running end by itself: nothing is joined. A manual
/// executor that has work left then is adopted: by three threads with `std`, else by whichever other executor is stepped next.
pub struct Executor {
    hub: Ref<Hub>,
}

/// How an executor is made.
#[derive(Debug, Default)]
pub struct ExecutorBuilder {
    clock: Option<Clock>,
    recorder: Option<Recorder>,
}

impl ExecutorBuilder {
    /// An executor over the embedder's own workers (a kernel's work queues): `wake` is called whenever a lane has new work or
    /// an earlier timer, in any context, under the library's locks, and must do no more than queue a worker that calls
    /// [`Executor::step`], [`Executor::notify`] or [`Executor::reap`]. The signalling worker must also run when
    /// [`Executor::next_timer`] is due. Give the three lanes different workers, or waiting on the reaper can block the others.
    ///
    /// # Errors
    /// [`AllocError`].
    pub fn work_queue(self, wake: fn(Lane)) -> Result<Executor, AllocError> {
        let clock = self.clock.unwrap_or_else(Clock::fixed);
        Executor::make(0, clock, self.recorder, Some(wake))
    }

    /// Time from the embedder's monotonic clock, in nanoseconds. It is read in the signalling path.
    #[must_use]
    pub fn clock(mut self, now_ns: fn() -> u64) -> Self {
        self.clock = Some(Clock::Hook(now_ns));
        self
    }

    /// Sends every transition to `recorder`, in the context where it happens (see [`Record`]).
    ///
    /// # Errors
    /// [`AllocError`] when there is no memory for it.
    pub fn recorder(mut self, recorder: impl Record) -> Result<Self, AllocError> {
        self.recorder = Some(Recorder::try_new(recorder)?);
        Ok(self)
    }

    /// An executor that its caller drives; by default in virtual time, from zero.
    ///
    /// # Errors
    /// [`AllocError`].
    pub fn manual(self) -> Result<Executor, AllocError> {
        let clock = self.clock.unwrap_or_else(Clock::fixed);
        Executor::make(sync::context_id(), clock, self.recorder, None)
    }

    /// An executor with a thread for each lane, on the system's clock unless another was given.
    ///
    /// # Errors
    /// [`AllocError`], also when the system has no threads to give.
    #[cfg(any(all(feature = "std", not(loom)), shuttle))]
    pub fn threads(self) -> Result<Executor, AllocError> {
        #[cfg(feature = "std")]
        let clock = self.clock.unwrap_or_else(Clock::system);
        let executor = Executor::make(0, clock, self.recorder, None)?;
        if threads::start(&executor.hub) { Ok(executor) } else { Err(AllocError { bytes: 0 }) }
    }
}

impl Executor {
    /// Choices: clock, recorder; then [`manual`](ExecutorBuilder::manual) or [`threads`](ExecutorBuilder::threads).
    #[must_use]
    pub fn builder() -> ExecutorBuilder {
        ExecutorBuilder::default()
    }

    /// An executor that its caller drives, in virtual time from zero.
    ///
    /// # Errors
    /// [`AllocError`].
    pub fn manual() -> Result<Self, AllocError> {
        Self::builder().manual()
    }

    /// The process's executor: three threads, started on first use.
    ///
    /// # Panics
    /// If the system has no threads or memory for it at first use. Make one with [`Executor::builder`] to handle that.
    #[cfg(all(feature = "std", not(loom), not(shuttle)))]
    #[must_use]
    pub fn global() -> Self {
        static GLOBAL: std::sync::OnceLock<Executor> = std::sync::OnceLock::new();
        #[expect(clippy::expect_used, reason = "documented above")]
        GLOBAL.get_or_init(|| Self::builder().threads().expect("no threads for the process's executor")).clone()
    }

    fn make(
        driver: usize,
        clock: Clock,
        recorder: Option<Recorder>,
        wake: Option<fn(Lane)>,
    ) -> Result<Self, AllocError> {
        let ident = Ref::try_new(Ident { id: next_id(), driver: AtomicUsize::new(driver) })?;
        Ok(Self { hub: Ref::try_new(Hub::new(ident, clock, recorder, wake))? })
    }

    pub(crate) fn hub(&self) -> &Ref<Hub> {
        &self.hub
    }

    /// The time on this executor's clock. Any context.
    #[inline]
    #[must_use]
    pub fn now(&self) -> Time {
        self.hub.now()
    }

    /// Moves a virtual clock forward to `to` (never back). Timers that are due then fire in the next [`Executor::step`].
    pub fn advance_to(&self, to: Time) {
        self.hub.clock.advance_to(to);
    }

    /// When the next timer is due, if one is armed.
    #[must_use]
    pub fn next_timer(&self) -> Option<Time> {
        let at = self.hub.timers.next();
        (at != Time::NEVER).then_some(at)
    }

    /// How often a sleeping lane had to be woken so far.
    #[must_use]
    pub fn wake_ups(&self) -> u64 {
        self.hub.wakes.load(Ordering::Relaxed)
    }

    /// Devices, queues, fence contexts and hooks on this executor that have not been freed: handles, jobs that have not been
    /// reaped and producers keep them; fences do not.
    #[must_use]
    pub fn live_objects(&self) -> usize {
        self.hub.objects.load(Ordering::Acquire)
    }

    /// Runs what the signalling lane has to do; false if there was nothing. Never blocks, runs no foreign closure or `Drop`.
    pub fn step(&self) -> bool {
        self.drive(Lane::Signalling)
    }

    /// Runs the closures and wakers of signaled fences; false if there were none. May not be called while signalling.
    pub fn notify(&self) -> bool {
        self.drive(Lane::Notify)
    }

    /// Drops payloads and objects that are done with; false if there were none. Call it where blocking is legal.
    pub fn reap(&self) -> bool {
        self.drive(Lane::Reaper)
    }

    /// `step`, `notify` and `reap` until none has anything to do, at the present time.
    pub fn run_until_idle(&self) {
        while self.step() || self.notify() || self.reap() {}
    }

    fn drive(&self, lane: Lane) -> bool {
        // ORDERING: the number only tells a thread whether it would wait for itself.
        if self.hub.ident.driver.load(Ordering::Relaxed) != 0 {
            self.hub.ident.driver.store(sync::context_id(), Ordering::Relaxed);
        }
        // Most looks find nothing.
        (self.hub.has_work(lane) && self.hub.run_lane(lane)) | serve_orphans(lane)
    }
}

impl Clone for Executor {
    fn clone(&self) -> Self {
        self.hub.handles.fetch_add(1, Ordering::Relaxed);
        Self { hub: self.hub.clone() }
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        // ORDERING: Release pairs with `Hub::is_finished`.
        if self.hub.handles.fetch_sub(1, Ordering::Release) != 1 {
            return;
        }
        if self.hub.ident.driver.load(Ordering::Relaxed) == 0 {
            for lane in [Lane::Signalling, Lane::Notify, Lane::Reaper] {
                self.hub.kick(lane);
            }
        } else if !self.hub.is_finished() {
            adopt(&self.hub);
        }
    }
}

impl fmt::Debug for Executor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Executor({})", self.hub.ident.id)
    }
}

/// A number for an executor, a context or a device, never given twice.
pub(crate) fn next_ids(count: u64) -> u64 {
    // Not the door's atomics: a model checker's would have to be made anew for each execution.
    static NEXT: core::sync::atomic::AtomicU64 = core::sync::atomic::AtomicU64::new(1);
    NEXT.fetch_add(count, Ordering::Relaxed)
}

pub(crate) fn next_id() -> u64 {
    next_ids(1)
}

/// Gives a manual executor that lost its driver to three threads, or to the next executor that is stepped.
fn adopt(hub: &Ref<Hub>) {
    hub.clock.adopt();
    #[cfg(any(all(feature = "std", not(loom)), shuttle))]
    {
        hub.ident.driver.store(0, Ordering::Relaxed);
        if threads::start(hub) {
            return;
        }
    }
    orphans::put(hub.clone());
}

#[inline]
fn serve_orphans(lane: Lane) -> bool {
    orphans::any() && orphans::serve(lane)
}

#[cfg(not(any(loom, shuttle)))]
mod orphans {
    //! Executors without a driver, served by whoever steps another one.

    use super::Lane;
    use super::hub::Hub;
    use crate::mem::list::{Link, List};
    use crate::mem::shared::Ref;
    use crate::sync::atomic::{AtomicUsize, Ordering};
    use crate::sync::{Lock, class};
    use core::mem::offset_of;
    use core::ptr::NonNull;

    static LIST: Lock<class::Orphans, List> = Lock::new(List::new());
    /// So that stepping costs a load when there are none.
    static COUNT: AtomicUsize = AtomicUsize::new(0);

    pub(super) fn put(hub: Ref<Hub>) {
        let mut list = LIST.lock();
        let link = NonNull::from(&hub.orphan);
        core::mem::forget(hub);
        // SAFETY: an executor is orphaned once; the forgotten reference keeps it in place until `serve` takes it out.
        unsafe { list.push_back(link) };
        COUNT.fetch_add(1, Ordering::Relaxed);
    }

    #[inline]
    pub(super) fn any() -> bool {
        COUNT.load(Ordering::Relaxed) != 0
    }

    #[cold]
    pub(super) fn serve(lane: Lane) -> bool {
        let mut any = false;
        for _ in 0..COUNT.load(Ordering::Relaxed) {
            let hub = {
                let mut list = LIST.lock();
                // SAFETY: the list's lock is held.
                let Some(link) = (unsafe { list.pop_front() }) else { break };
                // SAFETY: `link` is the field `orphan` of a hub whose reference `put` forgot; it is taken over here.
                unsafe { from_link(link) }
            };
            COUNT.fetch_sub(1, Ordering::Relaxed);
            any |= hub.run_lane(lane);
            if !hub.is_finished() {
                put(hub);
            }
        }
        any
    }

    unsafe fn from_link(link: NonNull<Link>) -> Ref<Hub> {
        // SAFETY: the caller's promise.
        let hub = unsafe { link.byte_sub(offset_of!(Hub, orphan)) }.cast::<Hub>();
        // SAFETY: its reference was forgotten by `put`, once.
        unsafe { Ref::from_value(hub) }
    }
}

#[cfg(any(loom, shuttle))]
mod orphans {
    //! A model checker's program ends with its executors driven, so there are no orphans there.

    use super::Lane;
    use super::hub::Hub;
    use crate::mem::shared::Ref;

    pub(super) fn put(_hub: Ref<Hub>) {}

    pub(super) fn any() -> bool {
        false
    }

    pub(super) fn serve(_lane: Lane) -> bool {
        false
    }
}
