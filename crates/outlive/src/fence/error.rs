//! Why a fence failed, and how that fits into the bits beside the fence's state.

use core::fmt;

/// Why a fence signaled with an error. A `finished` fence with one never means that memory may be touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FenceError {
    /// Nobody will do the work: its queue closed, its producer was dropped, its job cancelled (`-ECANCELED`).
    Canceled,
    /// It took longer than its deadline or watchdog allows (`-ETIME`).
    TimedOut,
    /// The device is gone (`-ENODEV`).
    DeviceLost,
    /// The work itself failed (`-EIO`).
    Faulted {
        /// The driver's own number for it.
        code: u16,
    },
    /// It was on the hardware when somebody else's fault made a reset necessary.
    Innocent,
    /// DMA cannot be excluded; the memory is never free. Only on `retired`.
    Quarantined,
    /// The driver broke its contract with the library: it panicked, or named a fence that cannot signal first.
    DriverBug,
    /// Whoever submitted it is banned: too many jobs of theirs had to be taken off the hardware by force.
    Banned,
    /// What it depended on failed, and its submitter had chosen to fail then.
    Dependency(
        /// The cause, at its root.
        Cause,
    ),
}

/// The root of a failed dependency: every [`FenceError`] but a dependency's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// See [`FenceError::Canceled`].
    Canceled,
    /// See [`FenceError::TimedOut`].
    TimedOut,
    /// See [`FenceError::DeviceLost`].
    DeviceLost,
    /// See [`FenceError::Faulted`].
    Faulted {
        /// The driver's own number for it.
        code: u16,
    },
    /// See [`FenceError::Innocent`].
    Innocent,
    /// See [`FenceError::Quarantined`].
    Quarantined,
    /// See [`FenceError::DriverBug`].
    DriverBug,
    /// See [`FenceError::Banned`].
    Banned,
}

/// The kind of a failed dependency, beyond every cause's number.
const DEPENDENCY: u32 = 15;

impl FenceError {
    /// The root cause: itself, or a failed dependency's.
    #[must_use]
    pub const fn cause(self) -> Cause {
        match self {
            Self::Canceled => Cause::Canceled,
            Self::TimedOut => Cause::TimedOut,
            Self::DeviceLost => Cause::DeviceLost,
            Self::Faulted { code } => Cause::Faulted { code },
            Self::Innocent => Cause::Innocent,
            Self::Quarantined => Cause::Quarantined,
            Self::DriverBug => Cause::DriverBug,
            Self::Banned => Cause::Banned,
            Self::Dependency(cause) => cause,
        }
    }

    /// `result` as the upper 24 bits of a fence's state word: 4 bits of kind, 4 bits of cause, 16 bits of code. `Ok` is all
    /// zero. Worked example: `Dependency(Faulted { code: 0x12 })` is kind 15, cause 4, so `0x0012_4f00`.
    pub(crate) const fn encode(result: Result<(), Self>) -> u32 {
        let Err(error) = result else { return 0 };
        let (cause, code) = match error.cause() {
            Cause::Canceled => (1, 0),
            Cause::TimedOut => (2, 0),
            Cause::DeviceLost => (3, 0),
            Cause::Faulted { code } => (4, code),
            Cause::Innocent => (5, 0),
            Cause::Quarantined => (6, 0),
            Cause::DriverBug => (7, 0),
            Cause::Banned => (8, 0),
        };
        let kind = if matches!(error, Self::Dependency(_)) { DEPENDENCY } else { cause };
        (kind << 8) | (cause << 12) | ((code as u32) << 16)
    }

    pub(crate) const fn decode(word: u32) -> Result<(), Self> {
        let code = (word >> 16) as u16;
        let cause = match (word >> 12) & 0xf {
            0 => return Ok(()),
            1 => Cause::Canceled,
            2 => Cause::TimedOut,
            3 => Cause::DeviceLost,
            4 => Cause::Faulted { code },
            5 => Cause::Innocent,
            6 => Cause::Quarantined,
            8 => Cause::Banned,
            _ => Cause::DriverBug,
        };
        Err(if (word >> 8) & 0xf == DEPENDENCY { Self::Dependency(cause) } else { cause.error() })
    }
}

impl Cause {
    /// The error whose root this is.
    #[must_use]
    pub const fn error(self) -> FenceError {
        match self {
            Self::Canceled => FenceError::Canceled,
            Self::TimedOut => FenceError::TimedOut,
            Self::DeviceLost => FenceError::DeviceLost,
            Self::Faulted { code } => FenceError::Faulted { code },
            Self::Innocent => FenceError::Innocent,
            Self::Quarantined => FenceError::Quarantined,
            Self::DriverBug => FenceError::DriverBug,
            Self::Banned => FenceError::Banned,
        }
    }
}

impl fmt::Display for FenceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Canceled => f.write_str("cancelled: its queue closed or its producer went away"),
            Self::TimedOut => f.write_str("timed out: raise its timeout, or report progress while it runs"),
            Self::DeviceLost => f.write_str("device lost: open the device again"),
            Self::Faulted { code } => write!(f, "faulted with driver code {code:#x}"),
            Self::Innocent => {
                f.write_str("was on the hardware when another job's fault forced a reset: submit it again")
            }
            Self::Quarantined => f.write_str("quarantined: the hardware may still touch its memory"),
            Self::DriverBug => {
                f.write_str("the driver broke its contract: it panicked, or `acquire` named fences that cannot help")
            }
            Self::Banned => {
                f.write_str("banned: too many jobs of this client hung; whoever runs the device may lift it")
            }
            Self::Dependency(cause) => write!(f, "a dependency failed: {}", cause.error()),
        }
    }
}

impl core::error::Error for FenceError {}

#[cfg(all(test, not(loom), not(shuttle)))]
mod tests {
    use super::{Cause, FenceError};

    #[test]
    fn every_error_survives_its_bits() {
        let causes = [
            Cause::Canceled,
            Cause::TimedOut,
            Cause::DeviceLost,
            Cause::Faulted { code: 0xfffe },
            Cause::Innocent,
            Cause::Quarantined,
            Cause::DriverBug,
            Cause::Banned,
        ];
        assert_eq!(FenceError::decode(FenceError::encode(Ok(()))), Ok(()));
        for cause in causes {
            for error in [cause.error(), FenceError::Dependency(cause)] {
                let word = FenceError::encode(Err(error));
                assert_eq!(word & 0xff, 0, "the low bits are the state's");
                assert_eq!(FenceError::decode(word | 0xff), Err(error));
            }
        }
        assert_eq!(FenceError::encode(Err(FenceError::Dependency(Cause::Faulted { code: 0x12 }))), 0x0012_4f00);
    }
}
