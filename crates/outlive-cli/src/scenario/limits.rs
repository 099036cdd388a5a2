//! The largest numbers of a scenario file. Used by the readers of its sections.

/// The longest time in a file: a year. So sums of a few times in nanoseconds never overflow.
pub(super) const MS_MAX: u64 = 365 * 24 * 3600 * 1000;
/// The same in microseconds.
pub(super) const US_MAX: u64 = MS_MAX * 1000;
/// The largest integer of TOML.
pub(super) const SEED_MAX: u64 = i64::MAX.unsigned_abs();
/// Weights are ratios; beyond this they are typing mistakes.
pub(super) const WEIGHT_MAX: u32 = 1_000_000;
