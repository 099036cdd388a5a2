//! The results of a run, field by field as the contract has them. Used by the collector, which fills them in, by the
//! table, and by whoever prints them as JSON.

use serde::Serialize;

use crate::error::Exit;

/// The first so many violations are kept in words.
pub const VIOLATIONS_MAX: usize = 20;

/// Everything that `--json` prints, in its order.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Results {
    /// Of this format: 1.
    pub schema: u32,
    /// Of the command.
    pub version: String,
    /// The scenario's name.
    pub scenario: String,
    /// What was asked for.
    pub device: String,
    /// What was found.
    pub device_name: String,
    /// `real` or `virtual`.
    pub clock: String,
    /// `firmware` or `arbiter`.
    pub mode: String,
    /// The arbiter's; in firmware mode reported, not enforced.
    pub policy: String,
    /// Of all chance.
    pub seed: u64,
    /// What was replayed; absent for a scenario.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replay: Option<Replay>,
    /// Whether somebody ended it early.
    pub interrupted: bool,
    /// From the start until everything was retired.
    pub elapsed_us: u64,
    /// Busy engine time over engines times elapsed.
    pub device_busy: f64,
    /// Of the whole device.
    pub resets: u64,
    /// One for each instance, in the order of the scenario.
    pub clients: Vec<ClientResult>,
    /// In the order in which the scenario first names them.
    pub groups: Vec<GroupResult>,
    /// What the hardware and the run counted.
    pub audit: Audit,
}

impl Results {
    /// As the contract prints it, with a line break at the end.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Names are strings and numbers are finite, so nothing here can fail to be JSON.
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }

    /// How the command ends after this run. A failed audit outweighs an interruption.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match (self.audit.is_clean(), self.interrupted) {
            (false, _) => Exit::Failed,
            (true, true) => Exit::Interrupted,
            (true, false) => Exit::Ok,
        }
    }
}

/// A trace, and how it was replayed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Replay {
    /// The file.
    pub trace: String,
    /// `azure-llm-2023` or `mooncake`.
    pub format: String,
    /// All of them, or as many as were wanted.
    pub requests: u64,
    /// Rows that made no sense and were left out.
    pub bad_rows: u64,
    /// So many times as fast as they came.
    pub speed: f64,
    /// Assumed, for each token of a prompt.
    pub prefill_us_per_token: f64,
    /// Assumed, for each token generated.
    pub decode_us_per_token: f64,
    /// That, in words.
    pub assumption: String,
}

/// One instance, over all its incarnations.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClientResult {
    /// With its index.
    pub name: String,
    /// Its group, if it has one.
    pub group: Option<String>,
    /// As the scenario declares it.
    pub priority: String,
    /// As the scenario declares it.
    pub weight: u32,
    /// How often it came.
    pub incarnations: u64,
    /// Whether it was shut out.
    pub banned: bool,
    /// Jobs: `finished_ok` and all of `failed`.
    pub submitted: u64,
    /// Cycles of which at least one job was submitted.
    pub cycles: u64,
    /// Jobs that ended well.
    pub finished_ok: u64,
    /// Jobs that did not.
    pub failed: Failed,
    /// All hardware time that its jobs had.
    pub hardware_us: u64,
    /// Own hardware time over all clients' hardware time, while this one lived.
    pub share: f64,
    /// From when a job could run to its start.
    pub wait_us: Percentiles,
    /// From a cycle's first submission to its last completion.
    pub cycle_us: Percentiles,
    /// How often a persistent buffer of it was moved out of the device's memory.
    pub evictions: u64,
    /// How often one was moved back.
    pub restores: u64,
}

/// Failed jobs by cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Failed {
    /// Its client was killed, closed or banned first.
    pub canceled: u64,
    /// It hung.
    pub timed_out: u64,
    /// The device went away.
    pub device_lost: u64,
    /// Its own mistake.
    pub faulted: u64,
    /// What it depended on failed.
    pub dependency: u64,
    /// A reset for another's sake took it along.
    pub innocent: u64,
}

impl Failed {
    /// All of them.
    #[must_use]
    pub const fn sum(&self) -> u64 {
        self.canceled + self.timed_out + self.device_lost + self.faulted + self.dependency + self.innocent
    }
}

/// Exact percentiles, nearest rank; all absent without samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Percentiles {
    /// The least sample that half of all samples do not exceed.
    pub p50: Option<u64>,
    /// The least that 99 of 100 do not exceed.
    pub p99: Option<u64>,
    /// The largest.
    pub max: Option<u64>,
}

impl Percentiles {
    /// Of `samples`, which are sorted on the way.
    #[must_use]
    pub fn of(samples: &mut [u64]) -> Self {
        samples.sort_unstable();
        // The nearest rank of p is p/100 * n, rounded up, counted from 1.
        let rank = |percent: usize| samples.get((percent * samples.len()).div_ceil(100).saturating_sub(1)).copied();
        Self { p50: rank(50), p99: rank(99), max: samples.last().copied() }
    }
}

/// One group: its members together.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GroupResult {
    /// As the scenario names it.
    pub name: String,
    /// All hardware time of its members.
    pub hardware_us: u64,
    /// Its members' hardware time over all clients', while any member lived.
    pub share: f64,
}

/// What was counted by the simulated hardware and by the run, independently of the code that it is about.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Audit {
    /// Must equal `fences_signaled`.
    pub fences_created: u64,
    /// Each counted once.
    pub fences_signaled: u64,
    /// Must be 0.
    pub fences_unsignaled: u64,
    /// Must be 0.
    pub signaled_twice: u64,
    /// Must be 0.
    pub out_of_order: u64,
    /// Must equal `payloads_released`.
    pub payloads_created: u64,
    /// Each counted once.
    pub payloads_released: u64,
    /// Must be 0.
    pub released_while_hardware_busy: u64,
    /// Must be 0.
    pub conflicting_accesses: u64,
    /// Those that no fault asked for; must be 0.
    pub unexpected_page_faults: u64,
    /// Must be 0.
    pub leases_leaked: u64,
    /// Must be 0.
    pub bytes_leaked: u64,
    /// Must be 0.
    pub quarantined_bytes: u64,
    /// Uses of a translation that was not what the page tables said; must be 0.
    pub stale_translations: u64,
    /// The first of them, in words.
    pub violations: Vec<String>,
}

impl Audit {
    /// Keeps `violation` if it is among the first [`VIOLATIONS_MAX`].
    pub fn add_violation(&mut self, violation: impl Into<String>) {
        if self.violations.len() < VIOLATIONS_MAX {
            self.violations.push(violation.into());
        }
    }

    /// The counts that must be zero, with their names.
    pub(super) fn zeros(&self) -> [(&'static str, u64); 10] {
        [
            ("fences_unsignaled", self.fences_unsignaled),
            ("signaled_twice", self.signaled_twice),
            ("out_of_order", self.out_of_order),
            ("released_while_hardware_busy", self.released_while_hardware_busy),
            ("conflicting_accesses", self.conflicting_accesses),
            ("unexpected_page_faults", self.unexpected_page_faults),
            ("leases_leaked", self.leases_leaked),
            ("bytes_leaked", self.bytes_leaked),
            ("quarantined_bytes", self.quarantined_bytes),
            ("stale_translations", self.stale_translations),
        ]
    }

    /// Whether all is as it must be.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.zeros().iter().all(|(_, count)| *count == 0)
            && self.fences_created == self.fences_signaled
            && self.payloads_created == self.payloads_released
            && self.violations.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_rank() {
        assert_eq!(Percentiles::of(&mut []), Percentiles { p50: None, p99: None, max: None });
        assert_eq!(Percentiles::of(&mut [7]), Percentiles { p50: Some(7), p99: Some(7), max: Some(7) });
        // Of 4, rank 2 is the median; of 5, rank 3.
        assert_eq!(Percentiles::of(&mut [40, 10, 30, 20]).p50, Some(20));
        assert_eq!(Percentiles::of(&mut [50, 40, 10, 30, 20]).p50, Some(30));
        // Of 100, rank 99 is the 99th; of 101, 99.99 is rounded up to rank 100.
        let mut hundred: Vec<u64> = (1..=100).collect();
        assert_eq!(Percentiles::of(&mut hundred), Percentiles { p50: Some(50), p99: Some(99), max: Some(100) });
        let mut more: Vec<u64> = (1..=101).rev().collect();
        assert_eq!(Percentiles::of(&mut more), Percentiles { p50: Some(51), p99: Some(100), max: Some(101) });
    }

    #[test]
    fn each_number_that_must_be_zero_fails_the_audit() {
        assert!(Audit::default().is_clean());
        let spoils: [fn(&mut Audit); 13] = [
            |audit| audit.fences_unsignaled = 1,
            |audit| audit.signaled_twice = 1,
            |audit| audit.out_of_order = 1,
            |audit| audit.released_while_hardware_busy = 1,
            |audit| audit.conflicting_accesses = 1,
            |audit| audit.unexpected_page_faults = 1,
            |audit| audit.leases_leaked = 1,
            |audit| audit.bytes_leaked = 1,
            |audit| audit.quarantined_bytes = 1,
            |audit| audit.stale_translations = 1,
            |audit| audit.fences_created = 1,
            |audit| audit.payloads_released = 1,
            |audit| audit.add_violation("x"),
        ];
        for spoil in spoils {
            let mut audit = Audit::default();
            spoil(&mut audit);
            assert!(!audit.is_clean(), "{audit:?}");
        }
    }

    #[test]
    fn the_first_violations_are_kept() {
        let mut audit = Audit::default();
        for number in 0..30 {
            audit.add_violation(number.to_string());
        }
        assert_eq!((audit.violations.len(), audit.violations[19].as_str()), (20, "19"));
    }
}
