//! Points in time. Durations are [`core::time::Duration`].

use core::fmt;
use core::time::Duration;

/// A point in time: nanoseconds on the clock of one executor, from an origin of its own. Never wraps in practice
/// (63 bits are 292 years); [`Time::NEVER`] compares later than everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time(u64);

impl Time {
    /// The clock's origin.
    pub const ZERO: Self = Self(0);
    /// Later than everything that will happen.
    pub const NEVER: Self = Self(u64::MAX >> 1);

    /// `ns` nanoseconds after the origin, at most [`Time::NEVER`].
    #[must_use]
    pub const fn from_ns(ns: u64) -> Self {
        if ns > Self::NEVER.0 { Self::NEVER } else { Self(ns) }
    }

    /// Nanoseconds since the origin.
    #[must_use]
    pub const fn as_ns(self) -> u64 {
        self.0
    }

    /// How long it is from `earlier` to here; zero if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// `delay` later; [`Time::NEVER`] where that is out of range.
    #[must_use]
    pub fn after(self, delay: Duration) -> Self {
        let ns = u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX);
        Self::from_ns(self.0.saturating_add(ns))
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::NEVER {
            f.write_str("never")
        } else {
            write!(f, "{}.{:09}s", self.0 / 1_000_000_000, self.0 % 1_000_000_000)
        }
    }
}
