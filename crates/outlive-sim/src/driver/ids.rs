//! Address space numbers of a device that has few: leased to jobs in `acquire`, bound to page tables while a job has them.
//!
//! Without leases ([`HostConfig::lease_vm_ids`](super::HostConfig) is 0) each address space keeps a number of its own for as
//! long as it lives. With them it has none: a queue's jobs take a slot of the pool, which stands for a number, and the first of
//! them that has it binds its page tables to it. Jobs of one queue that are on the hardware together use the same number. The
//! last that leaves unbinds it, and only then the slot goes back to the pool: so a number never changes its meaning while a
//! job runs through it.
//!
//! In the end the audit asks the pool what is free, and the hardware what is bound: whatever either misses is leaked.

use alloc::format;
use outlive::pool::{Pool, PoolConfig, PoolError};

use super::machine::Machine;
use crate::gpu::{Audit, JobId, VmId};

/// What a number stands for now.
#[derive(Debug, Clone, Copy)]
struct Bound {
    /// Our number of the address space.
    space: VmId,
    /// Jobs that have it.
    users: u32,
}

/// What each leased number stands for, by slots; empty where numbers are not leased.
#[derive(Debug, Default)]
pub(crate) struct Ids(Vec<Option<Bound>>);

impl Ids {
    /// That so many are leased.
    pub(crate) fn of(count: u32) -> Self {
        Self((0..count).map(|_| None).collect())
    }

    pub(crate) const fn are_leased(&self) -> bool {
        !self.0.is_empty()
    }

    fn get(&mut self, slot: u32) -> Option<&mut Option<Bound>> {
        self.0.get_mut(usize::try_from(slot).ok()?)
    }
}

/// The pool of a device with `count` numbers, for the jobs of at most `queues` queues. None is reserved and no group capped.
pub(crate) fn pool(count: u32, queues: u32) -> Result<Pool, PoolError> {
    Pool::new(PoolConfig::new().kind(count, 0).holders(queues))
}

/// The hardware's number for a slot. Number 0 is the firmware's.
pub(crate) const fn number_of(slot: u32) -> VmId {
    VmId(slot + 1)
}

impl Machine {
    /// `job` has this slot: its number stands for the page tables of `space`.
    pub(crate) fn bind_id(&mut self, slot: u32, space: VmId, job: JobId) {
        let Some(bound) = self.unit.ids.get(slot) else { return };
        if let Some(Bound { users, .. }) = bound.as_mut().filter(|bound| bound.space == space) {
            *users += 1;
            return;
        }
        if let Some(other) = bound.replace(Bound { space, users: 1 }) {
            let (other, now) = (other.space, self.now);
            self.books.taken_twice(|| format!("{now}: {job} has the number of address space {} as well", other.0));
        }
        if let (Some(gpu), Some(tables)) = (&mut self.unit.gpu, self.unit.spaces.tables(space)) {
            // A device that is gone has no numbers to give, and starts no job.
            let _ = gpu.bind_vm(number_of(slot), tables);
        }
    }

    /// The hardware is done with a job that had this slot. The last one's number stands for nothing.
    pub(crate) fn unbind_id(&mut self, slot: u32) {
        let Some(bound) = self.unit.ids.get(slot) else { return };
        if let Some(Bound { users: users @ 2.., .. }) = bound {
            *users -= 1;
            return;
        }
        *bound = None;
        if let Some(gpu) = &mut self.unit.gpu {
            gpu.unbind_vm(number_of(slot));
        }
    }

    /// Counts what is not back: `free` by the pool's books, and by the hardware's.
    pub(crate) fn count_ids(&self, free: u32, audit: &mut Audit) {
        let count = self.unit.ids.0.len() as u64;
        let by_pool = count.saturating_sub(u64::from(free));
        let by_hardware = self.unit.gpu.as_ref().map_or(0, |gpu| u64::from(gpu.bound_vms()));
        if by_pool.max(by_hardware) > 0 {
            audit.leases_leaked += by_pool.max(by_hardware);
            audit.violations.push(format!(
                "of {count} address space numbers, {by_pool} did not come back to the pool and {by_hardware} are still bound"
            ));
        }
    }
}

#[cfg(test)]
#[path = "ids_tests.rs"]
mod tests;
