//! Faults on demand: what a job can be told to do wrong, and what the whole device can be told to do wrong.
//!
//! A job's fault stands in its descriptor, as a debug field of test hardware would. The device's faults are settings
//! that the host changes at any time; they take effect at the next call that they concern.

use core::fmt;

use super::page_table::Fault;

/// What a job is told to do wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// It stops making progress part of the way, goes on touching its pages, and does not yield its engine.
    Hang,
    /// It reaches for an address that is not mapped, part of the way.
    PageFault,
    /// A command fails part of the way.
    Error,
    /// It writes its fence, and its interrupt is lost.
    LostCompletion,
}

impl FaultKind {
    /// The descriptor's word: 0 is no fault.
    #[must_use]
    pub const fn encode(kind: Option<Self>) -> u32 {
        match kind {
            None => 0,
            Some(Self::Hang) => 1,
            Some(Self::PageFault) => 2,
            Some(Self::Error) => 3,
            Some(Self::LostCompletion) => 4,
        }
    }

    /// The meaning of the descriptor's word.
    ///
    /// # Errors
    ///
    /// The word, if it means nothing.
    pub const fn decode(word: u32) -> Result<Option<Self>, u32> {
        match word {
            0 => Ok(None),
            1 => Ok(Some(Self::Hang)),
            2 => Ok(Some(Self::PageFault)),
            3 => Ok(Some(Self::Error)),
            4 => Ok(Some(Self::LostCompletion)),
            other => Err(other),
        }
    }
}

/// What the device is told to do wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DeviceFaults {
    /// A job that is cancelled while on an engine goes on writing for so long before it stops; 0 is an obedient device.
    pub late_writes_ns: u64,
    /// So many of the next ring resets fail; `u32::MAX` is all of them.
    pub ring_resets_failing: u32,
    /// So many of the next device resets fail; `u32::MAX` is all of them.
    pub device_resets_failing: u32,
}

impl DeviceFaults {
    /// The 50 ms for which a disobedient device goes on writing.
    pub const LATE_WRITES_NS: u64 = 50_000_000;
}

/// Takes one failure from a counter where `u32::MAX` never runs out. True if there was one.
pub(crate) const fn take_failure(failing: &mut u32) -> bool {
    match *failing {
        0 => false,
        u32::MAX => true,
        _ => {
            *failing -= 1;
            true
        }
    }
}

/// Why a job failed on the hardware.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HwError {
    /// An access found no page that allows it.
    PageFault(Fault),
    /// A command could not be executed.
    Execution {
        /// Where the command starts, from the start of the job's commands.
        offset: u32,
        /// What was wrong.
        kind: ExecutionError,
    },
    /// The job's descriptor makes no sense.
    BadDescriptor,
    /// The host cancelled it.
    Canceled,
}

/// What was wrong with a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExecutionError {
    /// Its bytes are no command.
    Malformed,
    /// The commands end without an end-of-job.
    MissingEnd,
    /// Its bytes changed after the job had started.
    Changed,
    /// The host asked for it.
    Injected,
}

impl fmt::Display for HwError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PageFault(fault) => fault.fmt(f),
            Self::Execution { offset, kind } => write!(f, "{kind} at offset {offset:#x}"),
            Self::BadDescriptor => f.write_str("bad job descriptor"),
            Self::Canceled => f.write_str("canceled"),
        }
    }
}

impl fmt::Display for ExecutionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "malformed command",
            Self::MissingEnd => "commands without an end",
            Self::Changed => "command changed while the job ran",
            Self::Injected => "requested error",
        })
    }
}

impl core::error::Error for HwError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_survive_the_descriptor() {
        let kinds = [
            None,
            Some(FaultKind::Hang),
            Some(FaultKind::PageFault),
            Some(FaultKind::Error),
            Some(FaultKind::LostCompletion),
        ];
        for kind in kinds {
            assert_eq!(FaultKind::decode(FaultKind::encode(kind)), Ok(kind));
        }
        assert_eq!(FaultKind::decode(99), Err(99));
    }

    #[test]
    fn failures_run_out_unless_endless() {
        let (mut two, mut endless) = (2, u32::MAX);
        assert!(take_failure(&mut two) && take_failure(&mut two) && !take_failure(&mut two));
        assert!(take_failure(&mut endless) && endless == u32::MAX);
    }
}
