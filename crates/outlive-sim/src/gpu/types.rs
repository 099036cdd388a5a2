//! The names of things in the model: points in time, addresses, pages, and numbers that identify.
//!
//! All are plain values without ownership. Durations are bare `u64` in nanoseconds whose names end in `_ns`.

use core::fmt;

/// A point in virtual time: nanoseconds since the start of the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time(u64);

impl Time {
    /// The start of the world.
    pub const ZERO: Self = Self(0);
    /// Later than everything that will happen.
    pub const NEVER: Self = Self(u64::MAX);

    /// `ns` nanoseconds after the start.
    #[must_use]
    pub const fn from_ns(ns: u64) -> Self {
        Self(ns)
    }

    /// Nanoseconds since the start.
    #[must_use]
    pub const fn as_ns(self) -> u64 {
        self.0
    }

    /// `delay_ns` later; [`Time::NEVER`] where that is out of range.
    #[must_use]
    pub const fn after_ns(self, delay_ns: u64) -> Self {
        Self(self.0.saturating_add(delay_ns))
    }

    /// Nanoseconds from `earlier` to here; zero if `earlier` is later.
    #[must_use]
    pub const fn since_ns(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03} us", self.0 / 1000, self.0 % 1000)
    }
}

/// A virtual address of the device, translated by the page tables of one address space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Va(pub u64);

impl Va {
    /// `bytes` further on; wraps are caught by the walk, which refuses addresses beyond the tables' reach.
    #[must_use]
    pub const fn add(self, bytes: u64) -> Self {
        Self(self.0.saturating_add(bytes))
    }
}

impl fmt::Display for Va {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// One memory: the system's, or one device's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomainId(pub u16);

impl DomainId {
    /// The system memory, which every device reaches.
    pub const SYSTEM: Self = Self(0);
}

/// One page of 4 KiB of one memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageId {
    /// The memory that it lies in.
    pub domain: DomainId,
    /// Its place there, in pages.
    pub index: u32,
}

impl fmt::Display for PageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.domain {
            DomainId::SYSTEM => write!(f, "page system:{:#x}", self.index),
            DomainId(device) => write!(f, "page device{}:{:#x}", device, self.index),
        }
    }
}

/// Whom a page is charged to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OwnerId(pub u32);

/// The number by which a job names its address space to the hardware.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VmId(pub u32);

impl VmId {
    /// The firmware's own address space, in which the rings lie.
    pub const FIRMWARE: Self = Self(0);
}

/// A hardware queue: one ring of one device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueId(pub u32);

/// The number that the host gave a job on its ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct HwSeqno(pub u64);

/// A job's name in the whole world, chosen by the host and never used twice. The hardware only passes it on to the
/// checkers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct JobId(pub u64);

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "job {}", self.0)
    }
}

/// How the device uses memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Access {
    /// A command reads data.
    Read,
    /// A command writes data.
    Write,
    /// Command bytes, job descriptors, a semaphore that is waited for, and page tables.
    ControlRead,
    /// A fence, a semaphore, a time stamp, a ring's read pointer: eight bytes at once.
    ControlWrite,
}

impl Access {
    /// Whether it needs a writable page.
    #[must_use]
    pub const fn writes(self) -> bool {
        matches!(self, Self::Write | Self::ControlWrite)
    }

    /// Whether it moves data, as opposed to control words.
    #[must_use]
    pub const fn is_data(self) -> bool {
        matches!(self, Self::Read | Self::Write)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_saturates() {
        assert_eq!(Time::NEVER.after_ns(1), Time::NEVER);
        assert_eq!(Time::from_ns(3).since_ns(Time::from_ns(5)), 0);
        assert_eq!(Time::from_ns(1_234_567).to_string(), "1234.567 us");
    }

    #[test]
    fn control_accesses_are_no_data() {
        assert!(Access::ControlWrite.writes() && !Access::ControlWrite.is_data());
        assert!(!Access::Read.writes() && Access::Read.is_data());
    }
}
