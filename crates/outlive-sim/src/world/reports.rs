//! What the library's own checks say of a world: order of locks, waits and allocations on the way to a signal, waits that cannot
//! end.
//!
//! Worlds drop producers and let them expire on purpose, which is reported as well; that is kept quiet. Everything else makes a
//! world go wrong: in virtual time the one whose thread it was reported on. In real time it is printed and counted for the whole
//! process ([`unexpected_reports`]), for the library's lanes have threads of their own.

use core::cell::RefCell;
use core::sync::atomic::{AtomicU64, Ordering};
use outlive::check::{self, Report, Violation};

static UNEXPECTED: AtomicU64 = AtomicU64::new(0);

std::thread_local! {
    static HERE: RefCell<Vec<Report>> = const { RefCell::new(Vec::new()) };
}

/// How many reports there were in this process that no world asks for.
#[must_use]
pub fn unexpected_reports() -> u64 {
    UNEXPECTED.load(Ordering::Relaxed)
}

/// From now on reports are heard here, instead of printed.
pub(super) fn listen() {
    check::set_reporter(false);
    check::set_listener(Some(hear));
    HERE.take();
}

/// What was reported on this thread since.
pub(super) fn heard() -> Vec<Report> {
    HERE.take()
}

fn hear(report: &Report) {
    if matches!(report.violation, Violation::Dropped { .. } | Violation::Expired { .. }) {
        return;
    }
    UNEXPECTED.fetch_add(1, Ordering::Relaxed);
    HERE.with_borrow_mut(|here| here.push(*report));
    #[expect(clippy::print_stderr, reason = "as the library would")]
    {
        eprintln!("{report}");
    }
}

#[cfg(test)]
mod tests {
    use super::{heard, listen, unexpected_reports};
    use core::time::Duration;
    use outlive::check::{self, Violation};
    use outlive::{Executor, FenceContext, Names};

    #[test]
    fn what_worlds_do_is_quiet_and_what_they_do_not_is_heard() {
        let executor = Executor::manual().unwrap();
        let context = FenceContext::new(&executor, Names { driver: "world", timeline: "bare" }).unwrap();
        listen();
        let (signaler, fence) = context.allocate().unwrap().publish();
        drop(signaler);
        assert!(fence.is_signaled());
        assert!(heard().is_empty(), "a producer dropped on purpose");
        let before = unexpected_reports();
        let (signaler, fence) = context.allocate().unwrap().publish();
        let section = check::signalling();
        assert!(fence.wait(Duration::from_secs(1)).is_err());
        drop(section);
        signaler.signal(Ok(()));
        assert!(heard().iter().any(|report| report.violation == Violation::Waited));
        assert!(heard().is_empty());
        assert!(unexpected_reports() > before);
    }
}
