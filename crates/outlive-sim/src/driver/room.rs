//! Room in a device's memory: who gives way when it is short.
//!
//! First the persistent buffers ([`Piece`](super::Piece)) that no job has used for longest and nothing hangs on: each is evicted and
//! brought back when a job wants it. Then what address spaces keep for their next jobs, all of it. What somebody is at is passed
//! over: nothing is waited for, as in a kernel's shrinker.

use alloc::collections::BTreeMap;
use core::ops::Bound;
use outlive::Device;

use super::bo::{SimBo, WeakBo};
use super::buffer::give_kept_back;
use super::evict::{Turn, evict};
use super::hardware::SimDriver;

/// Persistent buffers in the device's memory, by when they were used last. Behind the machine's lock.
#[derive(Debug, Default)]
pub(crate) struct Lru {
    order: BTreeMap<u64, WeakBo>,
    last: u64,
    evictions: u64,
}

impl Lru {
    /// `bo` was used: it is the last to go. What its number is now.
    pub(crate) fn used(&mut self, before: u64, bo: WeakBo) -> u64 {
        self.order.remove(&before);
        self.last += 1;
        self.order.insert(self.last, bo);
        self.last
    }

    /// The one with that number is not in memory any more.
    pub(crate) fn forget(&mut self, number: u64) {
        self.order.remove(&number);
    }

    /// How many have given way.
    pub(crate) const fn evictions(&self) -> u64 {
        self.evictions
    }

    /// The next after `number`, if it still lives.
    fn after(&self, mut number: u64) -> Option<(u64, SimBo)> {
        loop {
            let (next, bo) = self.order.range((Bound::Excluded(number), Bound::Unbounded)).next()?;
            number = *next;
            if let Some(bo) = bo.upgrade() {
                return Some((number, bo));
            }
        }
    }
}

/// Frees some memory of `device`, but nothing of `but`; false if there is nothing to be had. Not in a callback; not under the
/// machine's lock, a reservation, or a turn.
pub(crate) fn make_room(device: &Device<SimDriver>, but: &[&SimBo]) -> bool {
    let shared = device.driver().shared();
    let mut number = 0;
    loop {
        let next = shared.lock().unit.lru.after(number);
        let Some((at, bo)) = next else { return give_kept_back(shared) };
        number = at;
        if !but.iter().any(|spared| spared.is(&bo)) && evict(device, &bo, Turn::Free).is_ok() && !bo.is_resident() {
            shared.lock().unit.lru.evictions += 1;
            return true;
        }
    }
}
