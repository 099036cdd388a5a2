//! The per-thread state behind [`super`]: depth, places, the first violation, the lane, and in debug builds the locks
//! held. All const-initialised cells without destructors, so an allocator may use them.

use super::{Report, Violation};
use crate::sync::LockClass;
use core::cell::Cell;
use core::panic::Location;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::exec::Lane;

type Here = &'static Location<'static>;

struct Local {
    depth: Cell<u32>,
    section: Cell<Option<Here>>,
    /// Where the innermost section began.
    mark: Cell<Option<Here>>,
    first: Cell<Option<(Violation, Here)>>,
    last_report: Cell<Option<Report>>,
    lane: Cell<Option<Lane>>,
    /// Ranks and names of the locks held, outermost first. Only kept with debug assertions or `sabotage`.
    held: [Cell<(u16, &'static str)>; HELD_MAX],
    held_len: Cell<usize>,
}

const HELD_MAX: usize = 16;

std::thread_local! {
    static LOCAL: Local = const { Local {
        depth: Cell::new(0),
        section: Cell::new(None),
        mark: Cell::new(None),
        first: Cell::new(None),
        last_report: Cell::new(None),
        lane: Cell::new(None),
        held: [const { Cell::new((0, "")) }; HELD_MAX],
        held_len: Cell::new(0),
    } };
}

static REPORTS: AtomicU64 = AtomicU64::new(0);
static REPORTER: AtomicUsize = AtomicUsize::new(0);

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
        if local.depth.get() > 0 && local.first.get().is_none() {
            if let Some(mark) = local.mark.get() {
                local.first.set(Some((Violation::Allocated { bytes }, mark)));
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
    if cfg!(any(debug_assertions, feature = "sabotage")) {
        let at = Location::caller();
        LOCAL.with(|local| {
            let len = local.held_len.get();
            if !C::SIGNALLING && local.depth.get() > 0 {
                record(local, Violation::WrongLock { class: C::NAME.into() }, at);
            }
            if let Some(top) = len.checked_sub(1).and_then(|top| local.held.get(top)) {
                let (rank, held) = top.get();
                if rank >= C::RANK {
                    record(local, Violation::LockOrder { taken: C::NAME.into(), held: held.into() }, at);
                }
            }
            if let Some(slot) = local.held.get(len) {
                slot.set((C::RANK, C::NAME));
            }
            local.held_len.set(len + 1);
        });
    }
}

#[inline]
pub(crate) fn after_unlock<C: LockClass>() {
    if cfg!(any(debug_assertions, feature = "sabotage")) {
        LOCAL.with(|local| {
            let len = local.held_len.get().saturating_sub(1);
            // Guards are usually dropped in reverse order; where not, close the gap.
            let found = (0..=len.min(HELD_MAX - 1)).rev().find(|at| local.held[*at].get().0 == C::RANK);
            for at in found.unwrap_or(len)..len.min(HELD_MAX - 1) {
                local.held[at].set(local.held[at + 1].get());
            }
            local.held_len.set(len);
        });
    }
}
