//! How much hardware time realtime queues have had in the last 100 ms.
//!
//! The last 100 ms are 32 slices and the one under way; a job counts in the slice in which it ends. One may start if what
//! ended within the slices, what is on the hardware and the job itself are at most half: so in no 100 ms do those that
//! start this way have more, as far as the averages are right.

use crate::time::Time;

const SLICES: usize = 33;
const SLICE_NS: u64 = 100_000_000 / 32;

#[derive(Debug)]
pub(super) struct Window {
    slices: [u64; SLICES],
    sum_ns: u64,
    /// The slice under way, counted from the clock's origin.
    current: u64,
    on_hardware: u32,
    on_hardware_ns: u64,
    most_ns: u64,
}

impl Window {
    pub(super) const fn new(engines: u32) -> Self {
        let engines = if engines == 0 { 1 } else { engines };
        Self {
            slices: [0; SLICES],
            sum_ns: 0,
            current: 0,
            on_hardware: 0,
            on_hardware_ns: 0,
            most_ns: 50_000_000 * engines as u64,
        }
    }

    /// It is `now`: what is older than the window is forgotten.
    pub(super) fn turn(&mut self, now: Time) {
        let current = now.as_ns() / SLICE_NS;
        let passed = current.saturating_sub(self.current).min(SLICES as u64);
        for back in 0..passed {
            let slice = &mut self.slices[((current - back) % SLICES as u64) as usize];
            self.sum_ns -= core::mem::take(slice);
        }
        self.current = self.current.max(current);
    }

    /// Whether a job of about `ns` fits.
    pub(super) const fn has_room(&self, ns: u64) -> bool {
        self.sum_ns.saturating_add(self.on_hardware_ns).saturating_add(ns) <= self.most_ns
    }

    pub(super) const fn started(&mut self, ns: u64) {
        self.on_hardware += 1;
        self.on_hardware_ns = self.on_hardware_ns.saturating_add(ns);
    }

    /// One is not on the hardware any more: they count as equally long.
    pub(super) fn left(&mut self) {
        if let Some(each) = self.on_hardware_ns.checked_div(u64::from(self.on_hardware)) {
            self.on_hardware_ns -= each;
            self.on_hardware -= 1;
        }
    }

    pub(super) fn had(&mut self, ns: u64) {
        // Longer than the window fills the window.
        let ns = ns.min(100_000_000);
        self.slices[(self.current % SLICES as u64) as usize] += ns;
        self.sum_ns += ns;
    }
}
