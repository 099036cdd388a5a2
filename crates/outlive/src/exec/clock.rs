//! The clock of an executor: a value, so that real and virtual time live in one test binary.

use crate::sync;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::time::Time;

/// Where an executor's time comes from.
#[derive(Debug)]
pub(crate) enum Clock {
    /// Stands still until it is advanced. If the executor is dropped with work left, real time takes over from here.
    Virtual { now_ns: AtomicU64, adopted_at_ns: AtomicU64 },
    /// The system's monotonic clock.
    #[cfg(feature = "std")]
    System(std::time::Instant),
    /// The embedder's monotonic clock, in nanoseconds.
    Hook(fn() -> u64),
}

impl Clock {
    pub(crate) fn fixed() -> Self {
        Self::Virtual { now_ns: AtomicU64::new(0), adopted_at_ns: AtomicU64::new(0) }
    }

    #[cfg(feature = "std")]
    pub(crate) fn system() -> Self {
        #[expect(clippy::disallowed_methods, reason = "the one place that reads the system's clock")]
        Self::System(std::time::Instant::now())
    }

    /// Any context; never blocks.
    #[inline]
    pub(crate) fn now(&self) -> Time {
        match self {
            Self::Virtual { now_ns, adopted_at_ns } => {
                // ORDERING: a clock orders nothing.
                let adopted = adopted_at_ns.load(Ordering::Relaxed);
                let real = if adopted == 0 { 0 } else { sync::now_ns() - adopted };
                Time::from_ns(now_ns.load(Ordering::Relaxed) + real)
            }
            #[cfg(feature = "std")]
            Self::System(origin) => Time::from_ns(u64::try_from(origin.elapsed().as_nanos()).unwrap_or(u64::MAX)),
            Self::Hook(now) => Time::from_ns(now()),
        }
    }

    /// Moves a virtual clock forward; never back, and no other kind.
    pub(crate) fn advance_to(&self, to: Time) {
        if let Self::Virtual { now_ns, .. } = self {
            now_ns.fetch_max(to.as_ns(), Ordering::Relaxed);
        }
    }

    /// Lets a virtual clock run with real time from now on.
    pub(crate) fn adopt(&self) {
        if let Self::Virtual { adopted_at_ns, .. } = self {
            let _ = adopted_at_ns.compare_exchange(0, sync::now_ns().max(1), Ordering::Relaxed, Ordering::Relaxed);
        }
    }
}
