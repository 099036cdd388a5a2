//! Which deed an actor does next.

use alloc::sync::Arc;
use outlive::FenceError;
use outlive::sched::Priority;

use super::actor::Actor;
use super::commons::Slot;
use super::deeds::{ALL_RESETS_FAIL, Deed, Jobs, LATE_WRITES, QueueRef, RING_RESET_FAILS, lock};
use crate::gpu::DeviceFaults;

const MS: u64 = 1_000_000;

impl Actor {
    /// One that concerns a queue, a fence, or the device; none if there is nothing to do it with.
    pub(crate) fn deed(&mut self) -> Option<Deed> {
        let result = match self.chance.below(3) {
            0 => Err(FenceError::Faulted { code: 9 }),
            _ => Ok(()),
        };
        match self.chance.below(32) {
            0 | 1 => self.on_taken(Deed::Kill),
            // Its handle may live on.
            2 => self.on_taken(Deed::Close),
            18 => self.on_slot(Deed::Close),
            3 | 4 => self.on_slot(Deed::Suspend),
            5 | 6 => self.on_slot(Deed::Resume),
            7 | 20 => self.on_slot(|queue, jobs| Deed::SetPriority(queue, jobs, Priority::High)),
            8 => {
                let slot = self.some_slot()?;
                let mut spec = self.spec(&slot);
                // It may be done in a callback, which cannot open what others have, nor for others.
                (spec.at_once, spec.shared, spec.reads) = (true, false, Vec::new());
                Some(Deed::Submit(slot.queue, slot.jobs, spec))
            }
            9 | 10 => {
                let (reserved, jobs, fault) = self.take_own(|actor| &mut actor.reserved)?;
                Some(Deed::Commit(reserved, jobs, fault))
            }
            11 | 21..=23 => {
                self.take_own(|actor| &mut actor.reserved).map(|(reserved, jobs, _)| Deed::DropReserved(reserved, jobs))
            }
            12 | 27 => {
                self.take_own(|actor| &mut actor.pending).map(|(pending, jobs)| Deed::CancelPending(pending, jobs))
            }
            13 => self.take_own(|actor| &mut actor.sources).map(|source| Deed::SignalUser(source, result)),
            14 | 15 => self.take_own(|actor| &mut actor.signalers).map(|signaler| Deed::SignalBare(signaler, result)),
            16 => self.take_own(|actor| &mut actor.signalers).map(Deed::DropSignaler),
            17 | 24..=26 => Some(Deed::DropFences(core::mem::take(&mut *lock(&self.commons.remembered)))),
            28 | 29 => {
                let user = self.commons.society.some_user(&mut self.chance);
                Some(Deed::LiftBan(Arc::clone(&self.commons.society), self.commons.jobs.clone(), user))
            }
            30 | 31 => self.on_slot(Deed::Look),
            19 if self.one_in(4) => {
                // Seldom the world's own: without it no client comes any more.
                let own = self.one_in(8) && lock(&self.commons.budget).queues == 0;
                let device = if own { lock(&self.commons.device).take() } else { self.commons.device() };
                Some(Deed::DropDevice(device?, self.commons.jobs.clone()))
            }
            _ => {
                let device = self.commons.device().filter(|_| self.one_in(2))?;
                Some(Deed::Reset(device, self.commons.jobs.clone()))
            }
        }
    }

    fn on_slot(&mut self, make: fn(QueueRef, Jobs) -> Deed) -> Option<Deed> {
        let Slot { queue, jobs, .. } = self.some_slot()?;
        Some(make(queue, jobs))
    }

    fn on_taken(&mut self, make: fn(QueueRef, Jobs) -> Deed) -> Option<Deed> {
        let Slot { queue, jobs, .. } = self.take_slot()?;
        Some(make(queue, jobs))
    }

    /// The device misbehaves in a way that it survives, or behaves again.
    pub(crate) fn device_fault(&mut self) -> Option<Deed> {
        let (device, jobs) = (self.commons.device()?, self.commons.jobs.clone());
        match self.chance.below(4) {
            0 | 1 => {
                let faults = DeviceFaults { late_writes_ns: 1 + self.chance.below(60 * MS), ..DeviceFaults::default() };
                Some(Deed::Misbehave(device, jobs, faults, LATE_WRITES))
            }
            2 if self.commons.spend(|budget| &mut budget.ring_resets_failing) => {
                let faults = DeviceFaults { ring_resets_failing: 1, ..DeviceFaults::default() };
                Some(Deed::Misbehave(device, jobs, faults, RING_RESET_FAILS))
            }
            _ => {
                device.driver().set_faults(DeviceFaults::default());
                None
            }
        }
    }

    /// One after which the device is gone for good.
    pub(crate) fn fatal_deed(&mut self) -> Option<Deed> {
        let (device, jobs) = (self.commons.device()?, self.commons.jobs.clone());
        if self.one_in(6)
            && let Some(arbiter) = lock(&self.commons.society.arbiter).take()
        {
            return Some(Deed::DropArbiter(arbiter, jobs));
        }
        Some(match self.chance.below(5) {
            0 => Deed::Lose(device, jobs),
            1 => Deed::CloseDevice(device, jobs),
            2 => {
                let (ring_resets_failing, device_resets_failing) = (u32::MAX, u32::MAX);
                let faults = DeviceFaults { ring_resets_failing, device_resets_failing, ..DeviceFaults::default() };
                Deed::Misbehave(device, jobs, faults, ALL_RESETS_FAIL)
            }
            3 => Deed::PullOut(device, jobs, true),
            _ => Deed::PullOut(device, jobs, false),
        })
    }
}
