//! Commands: the bytes that a job consists of, and what they mean.
//!
//! Every command starts with a header of eight bytes; all numbers are little endian, all lengths multiples of eight:
//!
//! ```text
//!  offset  0         2         4                   8
//!          +---------+---------+-------------------+----------------------------------+
//!          | opcode  | length  | argument          | operands, eight bytes each       |
//!          +---------+---------+-------------------+----------------------------------+
//!
//!  opcode  name          length  argument      operands
//!  1       fill          24      pattern       va, bytes
//!  2       copy          32      0             source va, target va, bytes
//!  3       write value   24      0             va, value
//!  4       time stamp    16      0             va
//!  5       signal        24      0             va, value
//!  6       wait          24      0             va, value
//!  7       spin          16      0             nanoseconds
//!  8       gears         24      frame         va, width | height << 32
//!  9       end of job    24      1: interrupt  fence va, fence value
//! ```
//!
//! Example: `07 00 10 00 00 00 00 00  e8 03 00 00 00 00 00 00` spins for 0x3e8 = 1000 ns. A length that does not fit its
//! opcode, an argument or operand that must be zero and is not, a control address that is no multiple of eight, and
//! bytes beyond the job's commands are all refused: nothing is guessed.

use super::types::Va;

/// Bytes of the longest command.
pub const COMMAND_BYTES_MAX: usize = 32;
/// Bytes of the header.
pub const HEADER_BYTES: usize = 8;
/// The longest job, in bytes of commands.
pub const JOB_BYTES_MAX: u32 = 64 * 1024;
/// The widest and the highest frame, in pixels.
pub const FRAME_SIDE_MAX: u32 = 4096;

/// Bytes that the copy engine's model moves in a nanosecond.
const COPY_BYTES_PER_NS: u64 = 8;
/// Bytes that the model fills in a nanosecond.
const FILL_BYTES_PER_NS: u64 = 16;

/// One command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Writes `pattern` over and over, little endian, starting anew at `va`.
    Fill {
        /// Where.
        va: Va,
        /// How much; not zero.
        bytes: u64,
        /// With what.
        pattern: u32,
    },
    /// Copies bytes between ranges that do not overlap.
    Copy {
        /// Where from.
        source: Va,
        /// Where to.
        target: Va,
        /// How much; not zero.
        bytes: u64,
    },
    /// Writes eight bytes.
    WriteValue {
        /// Where; a multiple of eight.
        va: Va,
        /// What.
        value: u64,
    },
    /// Writes the device's time in nanoseconds.
    TimeStamp {
        /// Where; a multiple of eight.
        va: Va,
    },
    /// Raises a semaphore in memory to `value`.
    Signal {
        /// Where; a multiple of eight.
        va: Va,
        /// The new value.
        value: u64,
    },
    /// Waits until a semaphore in memory is at least `value`. A job that waits leaves its engine to others.
    Wait {
        /// Where; a multiple of eight.
        va: Va,
        /// At least this.
        value: u64,
    },
    /// Keeps the engine busy.
    Spin {
        /// For so long.
        duration_ns: u64,
    },
    /// Draws a frame of turning gears, RGBA with eight bits each, rows from the top.
    Gears {
        /// Where; `width * height * 4` bytes.
        va: Va,
        /// Pixels in a row; 1 to [`FRAME_SIDE_MAX`].
        width: u32,
        /// Rows; 1 to [`FRAME_SIDE_MAX`].
        height: u32,
        /// Which frame; each turns the large gear by one degree.
        frame: u32,
    },
    /// Ends the job: writes its fence, then interrupts the host. What follows is not looked at.
    End {
        /// Where the fence is; a multiple of eight.
        fence: Va,
        /// What is written there.
        value: u64,
        /// Whether the host is interrupted. A failed job always interrupts.
        interrupt: Notify,
    },
}

/// Whether the end of a job interrupts the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notify {
    /// Only the fence in memory tells.
    Silent,
    /// The fence is written, then the host is interrupted.
    Interrupt,
}

/// These bytes are no command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

impl Command {
    /// Appends the command's bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let (opcode, argument, operands, count) = self.parts();
        let length = HEADER_BYTES + 8 * count;
        let mut bytes = [0; COMMAND_BYTES_MAX];
        // CAST: at most COMMAND_BYTES_MAX.
        let header = u64::from(opcode) | (length as u64) << 16 | u64::from(argument) << 32;
        let words = [header, operands[0], operands[1], operands[2]];
        for (to, word) in bytes.chunks_exact_mut(8).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        out.extend_from_slice(&bytes[..length]);
    }

    /// The command at the start of `bytes`, and its length in bytes.
    ///
    /// # Errors
    ///
    /// [`Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<(Self, u32), Malformed> {
        let header = bytes.first_chunk::<HEADER_BYTES>().ok_or(Malformed)?;
        let opcode = u16::from_le_bytes([header[0], header[1]]);
        let length = u16::from_le_bytes([header[2], header[3]]);
        let argument = u32::from_le_bytes([header[4], header[5], header[6], header[7]]);
        if usize::from(length) != HEADER_BYTES + 8 * operand_count(opcode).ok_or(Malformed)? {
            return Err(Malformed);
        }
        let body = bytes.get(HEADER_BYTES..usize::from(length)).ok_or(Malformed)?;
        let word = |n: usize| body.get(8 * n..).and_then(<[u8]>::first_chunk).map_or(0, |raw| u64::from_le_bytes(*raw));
        let operands = [word(0), word(1), word(2)];
        let command = Self::from_parts(opcode, argument, operands)?;
        Ok((command, u32::from(length)))
    }

    /// What the command costs an engine, before the job's own hardware time scales it.
    #[must_use]
    pub const fn cost_ns(&self) -> u64 {
        match *self {
            Self::Fill { bytes, .. } => bytes.div_ceil(FILL_BYTES_PER_NS),
            Self::Copy { bytes, .. } => bytes.div_ceil(COPY_BYTES_PER_NS),
            Self::Spin { duration_ns } => duration_ns,
            // CAST: widening. One pixel takes a nanosecond.
            Self::Gears { width, height, .. } => width as u64 * height as u64,
            Self::WriteValue { .. }
            | Self::TimeStamp { .. }
            | Self::Signal { .. }
            | Self::Wait { .. }
            | Self::End { .. } => 0,
        }
    }

    /// Opcode, argument, operands, and how many operands there are.
    const fn parts(&self) -> (u16, u32, [u64; 3], usize) {
        match *self {
            Self::Fill { va, bytes, pattern } => (1, pattern, [va.0, bytes, 0], 2),
            Self::Copy { source, target, bytes } => (2, 0, [source.0, target.0, bytes], 3),
            Self::WriteValue { va, value } => (3, 0, [va.0, value, 0], 2),
            Self::TimeStamp { va } => (4, 0, [va.0, 0, 0], 1),
            Self::Signal { va, value } => (5, 0, [va.0, value, 0], 2),
            Self::Wait { va, value } => (6, 0, [va.0, value, 0], 2),
            Self::Spin { duration_ns } => (7, 0, [duration_ns, 0, 0], 1),
            Self::Gears { va, width, height, frame } => {
                // CAST: widening. 640 x 480 becomes 0x0000_01e0_0000_0280.
                (8, frame, [va.0, width as u64 | ((height as u64) << 32), 0], 2)
            }
            Self::End { fence, value, interrupt } => {
                let argument = match interrupt {
                    Notify::Silent => 0,
                    Notify::Interrupt => 1,
                };
                (9, argument, [fence.0, value, 0], 2)
            }
        }
    }

    fn from_parts(opcode: u16, argument: u32, operands: [u64; 3]) -> Result<Self, Malformed> {
        let [first, second, third] = operands;
        let va = Va(first);
        let takes_argument = matches!(opcode, 1 | 8 | 9);
        let needs_aligned = matches!(opcode, 3..=6 | 9);
        if (argument != 0 && !takes_argument) || (needs_aligned && first % 8 != 0) {
            return Err(Malformed);
        }
        match opcode {
            1 if second != 0 => Ok(Self::Fill { va, bytes: second, pattern: argument }),
            2 if third != 0 && first.abs_diff(second) >= third => {
                Ok(Self::Copy { source: va, target: Va(second), bytes: third })
            }
            3 => Ok(Self::WriteValue { va, value: second }),
            4 => Ok(Self::TimeStamp { va }),
            5 => Ok(Self::Signal { va, value: second }),
            6 => Ok(Self::Wait { va, value: second }),
            7 => Ok(Self::Spin { duration_ns: first }),
            8 => {
                // CAST: the two halves.
                let (width, height) = (second as u32, (second >> 32) as u32);
                let fits = |side| (1..=FRAME_SIDE_MAX).contains(&side);
                let frame = Self::Gears { va, width, height, frame: argument };
                if fits(width) && fits(height) { Ok(frame) } else { Err(Malformed) }
            }
            9 => {
                let interrupt = match argument {
                    0 => Notify::Silent,
                    1 => Notify::Interrupt,
                    _ => return Err(Malformed),
                };
                Ok(Self::End { fence: va, value: second, interrupt })
            }
            _ => Err(Malformed),
        }
    }
}

/// Operands of an opcode; none for an unknown one.
const fn operand_count(opcode: u16) -> Option<usize> {
    match opcode {
        4 | 7 => Some(1),
        1 | 3 | 5 | 6 | 8 | 9 => Some(2),
        2 => Some(3),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one_of_each() -> [Command; 10] {
        let va = Va(0x1238);
        let end = |interrupt| Command::End { fence: va, value: 5, interrupt };
        [
            Command::Fill { va, bytes: 100, pattern: 0xdead_beef },
            Command::Copy { source: va, target: Va(0x9000), bytes: 64 },
            Command::WriteValue { va, value: u64::MAX },
            Command::TimeStamp { va },
            Command::Signal { va, value: 3 },
            Command::Wait { va, value: 4 },
            Command::Spin { duration_ns: 1000 },
            Command::Gears { va, width: 640, height: 480, frame: 17 },
            end(Notify::Silent),
            end(Notify::Interrupt),
        ]
    }

    fn bytes_of(command: &Command) -> Vec<u8> {
        let mut bytes = Vec::new();
        command.encode(&mut bytes);
        bytes
    }

    #[test]
    fn every_command_survives_its_bytes() {
        for command in one_of_each() {
            let bytes = bytes_of(&command);
            let length = u32::try_from(bytes.len()).unwrap();
            assert!(bytes.len() <= COMMAND_BYTES_MAX && length % 8 == 0);
            assert_eq!(Command::decode(&bytes), Ok((command, length)));
            assert_eq!(Command::decode(&bytes[..bytes.len() - 1]), Err(Malformed), "cut short");
        }
    }

    #[test]
    fn the_worked_example_holds() {
        let bytes = [7, 0, 16, 0, 0, 0, 0, 0, 0xe8, 3, 0, 0, 0, 0, 0, 0];
        assert_eq!(Command::decode(&bytes), Ok((Command::Spin { duration_ns: 1000 }, 16)));
        let gears = bytes_of(&Command::Gears { va: Va(0), width: 640, height: 480, frame: 0 });
        assert_eq!(gears[16..24], 0x0000_01e0_0000_0280_u64.to_le_bytes());
    }

    #[test]
    fn nonsense_is_refused() {
        let va = Va(0x1000);
        let refused = [
            Command::Fill { va, bytes: 0, pattern: 1 },
            Command::Copy { source: va, target: Va(0x1010), bytes: 0x20 },
            Command::WriteValue { va: Va(4), value: 0 },
            Command::Wait { va: Va(0x1001), value: 0 },
            Command::Gears { va, width: 0, height: 1, frame: 0 },
            Command::Gears { va, width: 1, height: FRAME_SIDE_MAX + 1, frame: 0 },
        ];
        for command in refused {
            assert_eq!(Command::decode(&bytes_of(&command)), Err(Malformed), "{command:?}");
        }
        let mut spin = bytes_of(&Command::Spin { duration_ns: 1 });
        spin[4] = 1;
        assert_eq!(Command::decode(&spin), Err(Malformed), "an argument where none belongs");
        spin[4] = 0;
        spin[2] = 24;
        assert_eq!(Command::decode(&spin), Err(Malformed), "a wrong length");
        spin[0] = 0;
        assert_eq!(Command::decode(&spin), Err(Malformed), "no opcode");
    }

    #[test]
    fn no_bytes_at_all_make_it_panic() {
        let mut rng = crate::gpu::rng::Rng::new(3);
        for _ in 0..20_000 {
            let mut bytes: Vec<u8> = (0..4).flat_map(|_| rng.next_u64().to_le_bytes()).collect();
            bytes[0] = u8::try_from(rng.below(11)).unwrap();
            bytes[1] = 0;
            if let Ok((command, _)) = Command::decode(&bytes) {
                let _ = command.cost_ns();
            }
        }
    }
}
