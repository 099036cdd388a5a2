//! Getting jobs off the hardware: cancelling, resetting, unplugging.
//!
//! In the order in which a driver tries them. *Cancel* asks the firmware, and works for jobs that are not hung. *Reset*
//! of a ring stops that ring's started jobs, wherever they are; reset of the device stops all started jobs. A reset takes
//! time; while it lasts its rings start nothing, and its jobs on engines go on touching their pages, since hardware stops
//! when it has stopped and not when it is told. Jobs not started survive and start afterwards. A reset that fails leaves
//! all as it was during the reset: the rings start nothing, the jobs stay and go on, until another reset works. *Unplug*
//! stops everything at once and for ever.
//!
//! Only an interrupt, a report of a reset that worked, or unplugging says that a job no longer touches memory.

use super::config::{GpuError, Interrupt};
use super::device::Gpu;
use super::faults::{HwError, take_failure};
use super::job::{Job, Mode, Place};
use super::memory::{Memory, index};
use super::observe::{Observation, StopCause};
use super::types::{HwSeqno, JobId, QueueId, Time};

/// What is reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ResetScope {
    /// The started jobs of one ring.
    Ring(QueueId),
    /// All started jobs.
    Device,
}

impl ResetScope {
    fn covers(self, queue: QueueId) -> bool {
        match self {
            Self::Ring(ring) => ring == queue,
            Self::Device => true,
        }
    }
}

/// A reset did not stop the hardware.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResetFailed;

/// A job that a reset took off the hardware.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KilledJob {
    /// Its ring.
    pub queue: QueueId,
    /// Its number there.
    pub hw_seqno: HwSeqno,
    /// Its name for the checkers.
    pub job: JobId,
    /// When it first was on an engine.
    pub start: Time,
    /// How long it was on one.
    pub active_ns: u64,
}

/// How a reset ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResetReport {
    /// What was reset.
    pub scope: ResetScope,
    /// When it was asked for.
    pub started_at: Time,
    /// When it ended.
    pub ended_at: Time,
    /// If it worked: what was on the hardware and no longer is, oldest first within each ring.
    pub result: Result<Vec<KilledJob>, ResetFailed>,
}

/// A reset under way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PendingReset {
    scope: ResetScope,
    started_at: Time,
    pub(crate) ends_at: Time,
}

/// What came of a wish to cancel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CancelOutcome {
    /// The firmware was told; if the job can still obey, an interrupt will say so.
    Asked,
    /// It was not on an engine and is off the hardware; an interrupt will say so too.
    Removed,
    /// The ring has no such job, or it has ended.
    NotHere,
}

impl Gpu {
    /// Asks the firmware to give a job up.
    ///
    /// # Errors
    ///
    /// [`GpuError::Unplugged`], [`GpuError::NoSuchQueue`].
    pub fn cancel(
        &mut self,
        memory: &mut Memory,
        now: Time,
        queue: QueueId,
        hw_seqno: HwSeqno,
    ) -> Result<CancelOutcome, GpuError> {
        if !self.plugged {
            return Err(GpuError::Unplugged);
        }
        self.advance(memory, now);
        if self.ring(queue).is_none() {
            return Err(GpuError::NoSuchQueue(queue));
        }
        let Some(record) = self.find_started(queue, hw_seqno) else {
            return Ok(self.cancel_unstarted(memory, queue, hw_seqno));
        };
        let Place::Engine(engine) = self.jobs[index(record)].place else {
            self.finish(memory, record, Err(HwError::Canceled));
            self.settle(memory);
            return Ok(CancelOutcome::Removed);
        };
        self.count_engine(index(engine));
        let job = &mut self.jobs[index(record)];
        if job.mode == Mode::Healthy {
            let late_ns = self.faults.late_writes_ns;
            let delay_ns = if late_ns > 0 { late_ns } else { self.config.cancel_ns };
            let at = self.now.after_ns(delay_ns);
            job.mode = Mode::Stopping { at, scribbles: late_ns > 0 };
            let touch_at = self.engines[index(engine)].touch_at;
            self.engines[index(engine)].next_at = at.min(touch_at);
        }
        Ok(CancelOutcome::Asked)
    }

    /// Cancels a job that waits in its ring.
    fn cancel_unstarted(&mut self, memory: &mut Memory, queue: QueueId, hw_seqno: HwSeqno) -> CancelOutcome {
        let Some((n, before, job)) = self.find_unstarted(memory, queue, hw_seqno) else {
            return CancelOutcome::NotHere;
        };
        let firmware = self.firmware_root();
        if let Some(ring) = self.ring_mut(queue) {
            ring.device.cancel_unstarted(n);
            let _ = ring.device.publish_read(memory, firmware);
        }
        let mut of_queue = self.arrivals.iter().enumerate().filter(|(_, other)| **other == queue);
        if let Some((at, _)) = of_queue.nth(before) {
            self.arrivals.remove(at);
        }
        memory.tap_mut().observe(Observation::Stopped { job, cause: StopCause::Canceled });
        let (result, end) = (Err(HwError::Canceled), self.now);
        self.interrupt(Interrupt { queue, hw_seqno, job, result, start: None, end, active_ns: 0 });
        CancelOutcome::Removed
    }

    /// A job that was rung and not started: its place in the ring, how many such are before it, and its name.
    fn find_unstarted(&self, memory: &Memory, queue: QueueId, hw_seqno: HwSeqno) -> Option<(u64, usize, JobId)> {
        let ring = &self.ring(queue)?.device;
        let mut before = 0;
        for n in ring.start_index..ring.write_index {
            if ring.is_canceled(n) {
                continue;
            }
            let found = ring.descriptor(memory, self.firmware_root(), n).ok().flatten();
            match found {
                Some(found) if found.hw_seqno == hw_seqno => return Some((n, before, found.job)),
                _ => before += 1,
            }
        }
        None
    }

    /// Starts a reset; [`Gpu::poll_reset`] tells how it ended.
    ///
    /// # Errors
    ///
    /// [`GpuError::Unplugged`], [`GpuError::NoSuchQueue`], [`GpuError::ResetPending`].
    pub fn reset(&mut self, memory: &mut Memory, now: Time, scope: ResetScope) -> Result<(), GpuError> {
        if !self.plugged {
            return Err(GpuError::Unplugged);
        }
        self.advance(memory, now);
        if self.resets.iter().any(|reset| reset.scope == scope) {
            return Err(GpuError::ResetPending);
        }
        let takes_ns = match scope {
            ResetScope::Ring(queue) => {
                self.ring(queue).ok_or(GpuError::NoSuchQueue(queue))?;
                self.config.ring_reset_ns
            }
            ResetScope::Device => self.config.device_reset_ns,
        };
        self.for_rings(scope, |ring| ring.resets_pending += 1);
        for engine in 0..self.engines.len() {
            self.freeze(engine, scope);
        }
        let ends_at = self.now.after_ns(takes_ns);
        self.resets.push(PendingReset { scope, started_at: self.now, ends_at });
        Ok(())
    }

    /// From here on the engine's job makes no progress and cannot end by itself, if the reset covers it.
    fn freeze(&mut self, engine: usize, scope: ResetScope) {
        self.count_engine(engine);
        let Some(record) = self.engines[engine].job else { return };
        let job = &mut self.jobs[index(record)];
        if scope.covers(job.queue) {
            job.mode = Mode::Frozen;
            self.engines[engine].next_at = self.engines[engine].touch_at;
        }
    }

    /// Counts an engine's time up to now as its job's.
    fn count_engine(&mut self, engine: usize) {
        let passed_ns = self.engines[engine].count_to(self.now);
        if let Some(record) = self.engines[engine].job {
            self.jobs[index(record)].active_ns += passed_ns;
        }
    }

    /// Ends all resets that are due.
    pub(crate) fn end_resets(&mut self, memory: &mut Memory) {
        while let Some(at) = self.resets.iter().position(|reset| reset.ends_at <= self.now) {
            let reset = self.resets.remove(at);
            let failing = match reset.scope {
                ResetScope::Ring(_) => &mut self.faults.ring_resets_failing,
                ResetScope::Device => &mut self.faults.device_resets_failing,
            };
            let fails = take_failure(failing);
            self.for_rings(reset.scope, |ring| {
                ring.resets_pending = ring.resets_pending.saturating_sub(1);
                ring.wedged = fails;
            });
            let result = if fails { Err(ResetFailed) } else { Ok(self.kill(memory, reset.scope)) };
            let (scope, started_at, ended_at) = (reset.scope, reset.started_at, self.now);
            self.reports.push_back(ResetReport { scope, started_at, ended_at, result });
            for queue in 0..self.rings.len() {
                // CAST: rings are counted in 32 bits.
                self.enqueue(QueueId(queue as u32));
            }
        }
    }

    /// Takes all started jobs of the scope off the hardware.
    fn kill(&mut self, memory: &mut Memory, scope: ResetScope) -> Vec<KilledJob> {
        for engine in 0..self.engines.len() {
            self.count_engine(engine);
            let turn = self.engines[engine].turn;
            if turn.is_some_and(|turn| scope.covers(turn.queue)) {
                self.engines[engine].turn = None;
            }
        }
        let on_hardware = |job: &Job| job.place != Place::Nowhere && scope.covers(job.queue);
        let mut records: Vec<u32> =
            (0..self.jobs.len() as u32).filter(|record| on_hardware(&self.jobs[index(*record)])).collect();
        records.sort_by_key(|record| {
            let job = &self.jobs[index(*record)];
            (job.queue, job.ring_index)
        });
        let mut killed = Vec::with_capacity(records.len());
        for record in records {
            let job = &self.jobs[index(record)];
            killed.push(KilledJob {
                queue: job.queue,
                hw_seqno: job.descriptor.hw_seqno,
                job: job.descriptor.job,
                start: job.start,
                active_ns: job.active_ns,
            });
            self.remove(memory, record, StopCause::Reset);
        }
        killed
    }

    fn for_rings(&mut self, scope: ResetScope, mut change: impl FnMut(&mut super::ring::DeviceRing)) {
        for (queue, ring) in self.rings.iter_mut().enumerate() {
            // CAST: rings are counted in 32 bits.
            if let Some(ring) = ring
                && scope.covers(QueueId(queue as u32))
            {
                change(&mut ring.device);
            }
        }
    }

    /// Pulls the device out. From here on it touches nothing, says nothing and takes nothing. Its memory and rings are
    /// the host's to free.
    pub fn unplug(&mut self, memory: &mut Memory, now: Time) {
        if !self.plugged {
            return;
        }
        self.advance(memory, now);
        for engine in 0..self.engines.len() {
            self.count_engine(engine);
            if let Some(record) = self.engines[engine].job {
                self.leave_engine(memory, engine, record);
            }
            self.engines[engine].turn = None;
        }
        let cause = StopCause::Unplugged;
        for job in &mut self.jobs {
            if core::mem::replace(&mut job.place, Place::Nowhere) != Place::Nowhere {
                let job = job.descriptor.job;
                memory.tap_mut().observe(Observation::Stopped { job, cause });
            }
        }
        for ring in self.rings.iter().flatten() {
            for n in ring.device.start_index..ring.device.write_index {
                let found = ring.device.descriptor(memory, self.firmware_root(), n).ok().flatten();
                if let Some(found) = found.filter(|_| !ring.device.is_canceled(n)) {
                    memory.tap_mut().observe(Observation::Stopped { job: found.job, cause });
                }
            }
        }
        self.jobs.clear();
        self.free_jobs.clear();
        self.rotation.clear();
        self.arrivals.clear();
        self.blocked.clear();
        self.interrupts.clear();
        self.resets.clear();
        self.reports.clear();
        self.plugged = false;
    }

    /// Unplugs the device and gives back all that its firmware held: rings and page tables.
    ///
    /// # Errors
    ///
    /// As [`Memory::free`], if something was freed behind its back.
    pub fn destroy(mut self, memory: &mut Memory, now: Time) -> Result<(), GpuError> {
        self.unplug(memory, now);
        for queue in 0..self.rings.len() {
            if self.rings[queue].is_some() {
                // CAST: rings are counted in 32 bits.
                self.destroy_ring(memory, QueueId(queue as u32))?;
            }
        }
        Ok(self.into_firmware().destroy(memory)?)
    }
}
