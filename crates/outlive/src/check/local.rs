//! The per-thread state behind [`super`]: depth, places, the first violation, the lane, and in debug builds the locks
//! held. All const-initialised cells without destructors, so an allocator may use them.

use super::graph::{name, place_of};
use super::{Report, Violation};
use crate::fence::Fence;
use crate::sync::{LockClass, class};
use core::cell::Cell;
use core::panic::Location;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock};

use crate::exec::Lane;

type Here = &'static Location<'static>;

/// A lock held.
#[derive(Clone, Copy)]
struct Held {
    rank: u16,
    signalling: bool,
    name: &'static str,
    at: Option<Here>,
}

impl Held {
    const NONE: Self = Self { rank: 0, signalling: false, name: "", at: None };
}

struct Local {
    depth: Cell<u32>,
    section: Cell<Option<Here>>,
    /// Where the innermost section began.
    mark: Cell<Option<Here>>,
    first: Cell<Option<(Violation, Here)>>,
    last_report: Cell<Option<Report>>,
    lane: Cell<Option<Lane>>,
    /// The first allocation with a lock held that forbids it: reported when the last lock is released, for an allocator may not
    /// print.
    allocated: Cell<Option<(usize, Held)>>,
    /// The locks held, outermost first. Only kept with debug assertions or `sabotage`.
    held: [Cell<Held>; HELD_MAX],
    held_len: Cell<usize>,
}

const HELD_MAX: usize = 16;

/// Whether locks and fences are watched.
pub(crate) const ON: bool = cfg!(any(debug_assertions, feature = "sabotage"));

std::thread_local! {
    static LOCAL: Local = const { Local {
        depth: Cell::new(0),
        section: Cell::new(None),
        mark: Cell::new(None),
        first: Cell::new(None),
        last_report: Cell::new(None),
        lane: Cell::new(None),
        allocated: Cell::new(None),
        held: [const { Cell::new(Held::NONE) }; HELD_MAX],
        held_len: Cell::new(0),
    } };
}

static REPORTS: AtomicU64 = AtomicU64::new(0);
/// Nanoseconds a producer may take before it is reported; 0: as long as it likes.
static SLOW_NS: AtomicU64 = AtomicU64::new(0);
static REPORTER: AtomicUsize = AtomicUsize::new(0);
static LISTENER: RwLock<Option<fn(&Report)>> = RwLock::new(None);

/// How many violations were reported in this process so far.
#[must_use]
pub fn reports() -> u64 {
    REPORTS.load(Ordering::Relaxed)
}

/// The last violation reported on this thread, taken.
#[must_use]
pub fn take_report() -> Option<Report> {
    LOCAL.with(|local| local.last_report.take())
}

/// Whether reports are printed to standard error (the default) or only counted and kept for [`take_report`].
pub fn set_reporter(print: bool) {
    REPORTER.store(usize::from(!print), Ordering::Relaxed);
}

/// Calls `hear` with each report, on the thread that reports it, whether it is printed or not; `None`, the default: nobody. For the
/// whole process. It may be called at the end of a signalling section, so it has to keep the rules of one.
pub fn set_listener(hear: Option<fn(&Report)>) {
    *LISTENER.write().unwrap_or_else(PoisonError::into_inner) = hear;
}

/// From now on a fence whose watchdog's clock has run for longer than `limit` when it is signaled is reported, with
/// [`Violation::Slow`]; `None`, the default: none is. For the whole process, in debug builds.
pub fn set_slow_limit(limit: Option<core::time::Duration>) {
    let ns = limit.map_or(0, |limit| u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX));
    SLOW_NS.store(ns, Ordering::Relaxed);
}

/// Reports what a fence's producer did, with the place where the fence was published, if that is known.
#[cold]
#[track_caller]
fn report_fence(fence: &Fence, violation: Violation) {
    let at = place_of(fence).unwrap_or_else(|| Location::caller().into());
    report_now(Report { violation, at, section: at });
}

/// Reports at once. Not from an allocator, nor from an interrupt.
pub(super) fn report_now(what: Report) {
    LOCAL.with(|local| report(local, what));
}

/// The producer of `fence`, which somebody else has too, was dropped.
#[track_caller]
pub(crate) fn dropped(fence: &Fence) {
    if ON {
        report_fence(fence, Violation::Dropped { fence: name(fence) });
    }
}

/// The watchdog of `fence` has expired.
#[track_caller]
pub(crate) fn expired(fence: &Fence) {
    if ON {
        report_fence(fence, Violation::Expired { fence: name(fence) });
    }
}

/// `fence` was signaled when its watchdog's clock had run for `ns`.
#[inline]
#[track_caller]
pub(crate) fn took(fence: &Fence, ns: u128) {
    if ON {
        let limit = SLOW_NS.load(Ordering::Relaxed);
        if limit > 0 && ns > u128::from(limit) {
            report_fence(fence, Violation::Slow { fence: name(fence), took_ns: u64::try_from(ns).unwrap_or(u64::MAX) });
        }
    }
}

#[inline]
pub(super) fn begin(at: Here) -> Option<Here> {
    LOCAL.with(|local| {
        let depth = local.depth.get();
        if depth == 0 {
            local.section.set(Some(at));
        }
        local.depth.set(depth + 1);
        local.mark.replace(Some(at))
    })
}

#[inline]
pub(super) fn end(around: Option<Here>) {
    LOCAL.with(|local| {
        let depth = local.depth.get() - 1;
        local.depth.set(depth);
        local.mark.set(around);
        if depth > 0 {
            return;
        }
        let section = local.section.take();
        if let (Some((violation, at)), Some(section)) = (local.first.take(), section) {
            report(local, Report { violation, at: at.into(), section: section.into() });
        }
    });
}

#[cold]
fn report(local: &Local, report: Report) {
    local.last_report.set(Some(report));
    REPORTS.fetch_add(1, Ordering::Relaxed);
    if REPORTER.load(Ordering::Relaxed) == 0 {
        std::eprintln!("{report}");
    }
    let hear = *LISTENER.read().unwrap_or_else(PoisonError::into_inner);
    if let Some(hear) = hear {
        hear(&report);
    }
}

/// Records `violation`: now where no section is open, else at the section's end.
#[cold]
fn record(local: &Local, violation: Violation, at: Here) {
    if local.depth.get() == 0 {
        report(local, Report { violation, at: at.into(), section: at.into() });
    } else if local.first.get().is_none() {
        local.first.set(Some((violation, at)));
    }
}

/// Called by the allocator: may neither allocate nor unwind.
pub(super) fn allocated(bytes: usize) {
    let _ = LOCAL.try_with(|local| {
        if local.depth.get() > 0 {
            if let (None, Some(mark)) = (local.first.get(), local.mark.get()) {
                local.first.set(Some((Violation::Allocated { bytes }, mark)));
            }
        } else if let Some(held) = local.forbids(class::Reclaim::RANK) {
            if local.allocated.get().is_none() {
                local.allocated.set(Some((bytes, held)));
            }
        }
    });
}

#[inline]
#[track_caller]
pub(crate) fn foreign_drop() {
    let at = Location::caller();
    LOCAL.with(|local| {
        if local.depth.get() > 0 {
            record(local, Violation::ForeignDrop, at);
        }
    });
}

/// Whether this thread may wait for a fence here; records why not.
#[track_caller]
pub(crate) fn may_wait() -> Result<(), Violation> {
    let at = Location::caller();
    LOCAL.with(|local| {
        let violation = if local.depth.get() > 0 {
            Violation::Waited
        } else if matches!(local.lane.get(), Some(Lane::Notify)) {
            Violation::WaitedInCallback
        } else {
            if let Some(held) = local.forbids(class::FenceWait::RANK) {
                record(local, Violation::WaitedHolding { class: held.name.into() }, at);
            }
            return Ok(());
        };
        record(local, violation, at);
        Err(violation)
    })
}

/// This thread runs work of `lane` until the guard is dropped.
pub(crate) struct InLane {
    before: Option<Lane>,
}

pub(crate) fn enter_lane(lane: Lane) -> InLane {
    InLane { before: LOCAL.with(|local| local.lane.replace(Some(lane))) }
}

impl Drop for InLane {
    fn drop(&mut self) {
        LOCAL.with(|local| local.lane.set(self.before));
    }
}

#[inline]
#[track_caller]
pub(crate) fn before_lock<C: LockClass>() {
    if ON {
        let at = Location::caller();
        LOCAL.with(|local| {
            let len = local.held_len.get();
            if !C::SIGNALLING && local.depth.get() > 0 {
                record(local, Violation::WrongLock { class: C::NAME.into() }, at);
            }
            if let Some(top) = len.checked_sub(1).and_then(|top| local.held.get(top)) {
                let Held { rank, name, .. } = top.get();
                if rank >= C::RANK {
                    record(local, Violation::LockOrder { taken: C::NAME.into(), held: name.into() }, at);
                }
            }
            if let Some(slot) = local.held.get(len) {
                slot.set(Held { rank: C::RANK, signalling: C::SIGNALLING, name: C::NAME, at: Some(at) });
            }
            local.held_len.set(len + 1);
        });
    }
}

#[inline]
pub(crate) fn after_unlock<C: LockClass>() {
    if ON {
        LOCAL.with(|local| {
            let len = local.held_len.get().saturating_sub(1);
            // Guards are usually dropped in reverse order; where not, close the gap.
            let found = (0..=len.min(HELD_MAX - 1)).rev().find(|at| local.held[*at].get().rank == C::RANK);
            for at in found.unwrap_or(len)..len.min(HELD_MAX - 1) {
                local.held[at].set(local.held[at + 1].get());
            }
            local.held_len.set(len);
            if len == 0 {
                local.report_allocated();
            }
        });
    }
}

impl Local {
    /// A lock held that must not be while doing what has `rank` in the order.
    fn forbids(&self, rank: u16) -> Option<Held> {
        if !ON {
            return None;
        }
        let held = self.held.iter().take(self.held_len.get());
        held.map(Cell::get).find(|held| held.signalling || held.rank >= rank)
    }

    fn report_allocated(&self) {
        if let Some((bytes, held)) = self.allocated.take() {
            let at = held.at.unwrap_or_else(Location::caller);
            record(self, Violation::AllocatedHolding { bytes, class: held.name.into() }, at);
        }
    }
}
