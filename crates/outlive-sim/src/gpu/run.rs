//! Passing of time: what happens on the engines, and how jobs end.
//!
//! Things at the same instant go in a fixed order: resets that end, engines by number, semaphores, then idle engines
//! take what they can get. Between two events nothing changes, so time jumps from one to the next.

use super::command::Notify;
use super::config::Interrupt;
use super::device::Gpu;
use super::execute::Progress;
use super::faults::{ExecutionError, FaultKind, HwError};
use super::job::{Job, Mode, Place};
use super::memory::{Memory, index};
use super::mmu;
use super::observe::{Observation, StopCause};
use super::page_table::{Fault, FaultReason, Reach, walk};
use super::types::{Access, QueueId, Time, Va};

/// Where a page fault on demand reaches: the last GiB of 39 bits of address, which hosts are asked to leave unmapped.
pub const FAULT_RANGE_START: Va = Va(FAULT_RANGE_END.0 - (1 << 30));
const FAULT_RANGE_END: Va = Reach::Bits39.end();

impl Gpu {
    /// Lets time pass up to `now`. Earlier times than the last one are taken as that.
    pub fn advance(&mut self, memory: &mut Memory, now: Time) {
        if !self.plugged {
            self.now = self.now.max(now);
            return;
        }
        while let Some(at) = self.next_change().filter(|at| *at <= now) {
            self.now = self.now.max(at);
            self.happen(memory);
        }
        self.now = self.now.max(now);
        memory.tap_mut().set_time(self.now);
        if !self.blocked.is_empty() {
            // Someone else may have raised a semaphore.
            self.settle(memory);
        }
    }

    /// The host's doorbell: new jobs are in a ring.
    pub fn doorbell(&mut self, memory: &mut Memory, now: Time, queue: QueueId) {
        self.advance(memory, now);
        if !self.plugged {
            return;
        }
        let (firmware, rotates) = (self.firmware_root(), self.config.slice_ns > 0);
        let Some(ring) = self.ring_mut(queue) else { return };
        // A ring that the firmware cannot read has no jobs.
        let new = ring.device.ring(memory, firmware).unwrap_or(0);
        if !rotates {
            self.arrivals.extend((0..new).map(|_| queue));
        }
        self.enqueue(queue);
        self.settle(memory);
    }

    /// When to call [`Gpu::advance`] next, if nothing is done meanwhile: something will have changed, or is to be polled.
    #[must_use]
    pub fn next_event(&self) -> Option<Time> {
        if !self.reports.is_empty() {
            return Some(self.now);
        }
        let interrupt = self.interrupts.front().map(|(at, _)| (*at).max(self.now));
        match (self.next_change(), interrupt) {
            (Some(change), Some(interrupt)) => Some(change.min(interrupt)),
            (one, other) => one.or(other),
        }
    }

    /// Whether [`Gpu::advance`] to `now` changes nothing and nothing is to be polled then.
    #[must_use]
    pub fn is_quiet(&self, now: Time) -> bool {
        self.now >= now && self.blocked.is_empty() && self.next_event().is_none_or(|at| at > now)
    }

    /// When something happens inside.
    fn next_change(&self) -> Option<Time> {
        let engines = self.engines.iter().map(|engine| engine.next_at);
        let resets = self.resets.iter().map(|reset| reset.ends_at);
        engines.chain(resets).min().filter(|at| *at != Time::NEVER)
    }

    /// All that is due at `self.now`.
    fn happen(&mut self, memory: &mut Memory) {
        memory.tap_mut().set_time(self.now);
        if !self.resets.is_empty() {
            self.end_resets(memory);
        }
        for engine in 0..self.engines.len() {
            if self.engines[engine].next_at <= self.now {
                self.run_engine(memory, engine);
            }
        }
        self.settle(memory);
    }

    /// Lets idle engines and semaphores have their way until nothing changes at this instant.
    pub(crate) fn settle(&mut self, memory: &mut Memory) {
        loop {
            self.test_semaphores(memory);
            if !self.fill_engines(memory) || self.blocked.is_empty() {
                return;
            }
        }
    }

    /// Gives jobs whose semaphore was raised back to their rings.
    fn test_semaphores(&mut self, memory: &mut Memory) {
        let mut at = 0;
        while let Some(record) = self.blocked.get(at).copied() {
            let job = &self.jobs[index(record)];
            let over = match self.root_of(job.descriptor.vm) {
                Some(root) => job.wait_is_over(memory, root),
                None => Err(no_space(job)),
            };
            match over {
                Ok(false) => at += 1,
                Ok(true) => {
                    self.blocked.remove(at);
                    self.make_ready(record);
                }
                // Removes it from `blocked`.
                Err(fault) => self.finish(memory, record, Err(HwError::PageFault(fault))),
            }
        }
    }

    /// Puts a started job at the end of its ring's waiting ones.
    pub(crate) fn make_ready(&mut self, record: u32) {
        let job = &mut self.jobs[index(record)];
        job.place = Place::Ready;
        let queue = job.queue;
        if let Some(ring) = self.ring_mut(queue) {
            ring.device.ready.push_back(record);
        }
        self.enqueue(queue);
    }

    /// Counts an engine's time and lets its job do what is due.
    pub(crate) fn run_engine(&mut self, memory: &mut Memory, engine: usize) {
        let Some(record) = self.engines[engine].job else { return };
        let passed_ns = self.engines[engine].count_to(self.now);
        let job = &mut self.jobs[index(record)];
        job.active_ns += passed_ns;
        let Some(root) = self.vms_root(record) else {
            let fault = no_space(&self.jobs[index(record)]);
            self.finish(memory, record, Err(HwError::PageFault(fault)));
            return;
        };
        match self.jobs[index(record)].mode {
            Mode::Healthy => self.run_healthy(memory, engine, record, root),
            Mode::Stopping { at, scribbles } => {
                if at <= self.now {
                    // It is there to its last moment.
                    self.engines[engine].touch_at = self.now;
                }
                self.run_stray(memory, engine, record, root, scribbles);
                if self.engines[engine].job.is_none() {
                    return;
                }
                if at <= self.now {
                    self.finish(memory, record, Err(HwError::Canceled));
                } else {
                    let next = &mut self.engines[engine];
                    next.next_at = next.next_at.min(at);
                }
            }
            Mode::Hung | Mode::Frozen => self.run_stray(memory, engine, record, root, true),
        }
    }

    fn vms_root(&self, record: u32) -> Option<mmu::Root> {
        self.root_of(self.jobs[index(record)].descriptor.vm)
    }

    /// A job that makes progress.
    fn run_healthy(&mut self, memory: &mut Memory, engine: usize, record: u32, root: mmu::Root) {
        let job = &mut self.jobs[index(record)];
        if job.active_ns >= job.fault_at_ns {
            self.strike(memory, engine, record, root);
            return;
        }
        let next_ns = match job.run(memory, root, self.now) {
            Progress::Until { active_ns } => active_ns.min(job.fault_at_ns) - job.active_ns,
            Progress::Blocked => {
                job.place = Place::Blocked;
                self.leave_engine(memory, engine, record);
                self.blocked.push(record);
                let queue = self.jobs[index(record)].queue;
                self.enqueue(queue);
                return;
            }
            Progress::Done(notify) => {
                let lost = notify == Notify::Silent || Self::loses_interrupt(job);
                self.retire(memory, record, Ok(()), lost);
                return;
            }
            Progress::Failed(error) => {
                self.finish(memory, record, Err(error));
                return;
            }
        };
        let now = self.now;
        if self.engines[engine].touch_at <= now {
            self.engines[engine].touch_at = self.next_touch();
            if let Err(fault) = self.jobs[index(record)].touch(memory, root) {
                self.finish(memory, record, Err(HwError::PageFault(fault)));
                return;
            }
        }
        if self.rotates_off(memory, engine, record, root) {
            return;
        }
        let place = &mut self.engines[engine];
        let slice_end = place.turn.map_or(Time::NEVER, |turn| turn.ends_at);
        place.next_at = now.after_ns(next_ns).min(place.touch_at).min(slice_end);
    }

    /// A job out of control: makes no progress, touches its pages, and damages them if it scribbles.
    fn run_stray(&mut self, memory: &mut Memory, engine: usize, record: u32, root: mmu::Root, scribbles: bool) {
        if self.engines[engine].touch_at <= self.now {
            self.engines[engine].touch_at = self.next_touch();
            let job = &mut self.jobs[index(record)];
            let touched = if scribbles { job.scribble(memory, root) } else { job.touch(memory, root) };
            if let Err(fault) = touched {
                self.finish(memory, record, Err(HwError::PageFault(fault)));
                return;
            }
        }
        self.engines[engine].next_at = self.engines[engine].touch_at;
    }

    /// The fault on demand happens.
    fn strike(&mut self, memory: &mut Memory, engine: usize, record: u32, root: mmu::Root) {
        let job = &mut self.jobs[index(record)];
        job.fault_at_ns = u64::MAX;
        match job.descriptor.fault {
            Some(FaultKind::Hang) => {
                job.mode = Mode::Hung;
                self.engines[engine].next_at = self.engines[engine].touch_at;
            }
            Some(FaultKind::Error) => {
                if let Progress::Failed(error) = job.failure(ExecutionError::Injected) {
                    self.finish(memory, record, Err(error));
                }
            }
            Some(FaultKind::PageFault) => {
                let pages = (FAULT_RANGE_END.0 - FAULT_RANGE_START.0) / 4096;
                let va = FAULT_RANGE_START.add(4096 * self.rng.below(pages));
                // A host that maps the range all the same gets the error without the walk.
                let reason = FaultReason::NotMapped;
                let made_up = Fault { va, access: Access::Read, reason };
                let fault = walk(memory, root, va, Access::Read).err().unwrap_or(made_up);
                self.finish(memory, record, Err(HwError::PageFault(fault)));
            }
            Some(FaultKind::LostCompletion) | None => self.engines[engine].next_at = self.now,
        }
    }

    pub(crate) const fn next_touch(&self) -> Time {
        match self.config.tick_ns {
            0 => Time::NEVER,
            tick_ns => self.now.after_ns(tick_ns),
        }
    }

    /// Ends a started job and interrupts the host.
    pub(crate) fn finish(&mut self, memory: &mut Memory, record: u32, result: Result<(), HwError>) {
        self.retire(memory, record, result, false);
    }

    /// Ends a started job: from here on the hardware touches nothing of it.
    fn retire(&mut self, memory: &mut Memory, record: u32, result: Result<(), HwError>, lost: bool) {
        let job = &self.jobs[index(record)];
        let name = job.descriptor.job;
        if let Err(HwError::PageFault(Fault { va, access, .. })) = result {
            memory.tap_mut().observe(Observation::PageFault { job: name, va, access });
        }
        let interrupt = Interrupt {
            queue: job.queue,
            hw_seqno: job.descriptor.hw_seqno,
            job: name,
            result,
            start: Some(job.start),
            end: self.now,
            active_ns: job.active_ns,
        };
        let cause = match result {
            Ok(()) => StopCause::Done,
            Err(HwError::Canceled) => StopCause::Canceled,
            Err(_) => StopCause::Failed,
        };
        self.remove(memory, record, cause);
        if !lost {
            self.interrupt(interrupt);
        }
    }

    /// Takes a job off its engine.
    pub(crate) fn leave_engine(&mut self, memory: &mut Memory, engine: usize, record: u32) {
        self.engines[engine].vacate();
        let job = self.jobs[index(record)].descriptor.job;
        // CAST: engines are counted in 32 bits.
        memory.tap_mut().observe(Observation::OffEngine { job, engine: engine as u32 });
    }

    /// Takes a started job off the hardware, wherever it is, and frees its record.
    pub(crate) fn remove(&mut self, memory: &mut Memory, record: u32, cause: StopCause) {
        let job = &mut self.jobs[index(record)];
        let (queue, n, name) = (job.queue, job.ring_index, job.descriptor.job);
        let place = core::mem::replace(&mut job.place, Place::Nowhere);
        self.free_jobs.push(record);
        memory.tap_mut().observe(Observation::Stopped { job: name, cause });
        match place {
            Place::Engine(engine) => self.leave_engine(memory, index(engine), record),
            Place::Blocked => self.blocked.retain(|other| *other != record),
            Place::Ready | Place::Nowhere => {}
        }
        let firmware = self.firmware_root();
        if let Some(ring) = self.ring_mut(queue) {
            if place == Place::Ready {
                ring.device.ready.retain(|other| *other != record);
            }
            ring.device.finish(n);
            // A ring whose header is gone from the firmware's tables looks full to its host.
            let _ = ring.device.publish_read(memory, firmware);
        }
        self.enqueue(queue);
    }

    /// Sends an interrupt on its way.
    pub(crate) fn interrupt(&mut self, interrupt: Interrupt) {
        let mut delay_ns = self.config.interrupt_latency_ns;
        if self.config.interrupt_jitter_ns > 0 {
            delay_ns += self.rng.below(self.config.interrupt_jitter_ns + 1);
        }
        let at = self.now.after_ns(delay_ns);
        if self.interrupts.back().is_none_or(|(last, _)| *last <= at) {
            self.interrupts.push_back((at, interrupt));
            return;
        }
        let behind = self.interrupts.iter().rposition(|(other, _)| *other <= at);
        self.interrupts.insert(behind.map_or(0, |behind| behind + 1), (at, interrupt));
    }
}

/// A job whose address space number names no page tables.
pub(crate) const fn no_space(job: &Job) -> Fault {
    let va = job.descriptor.commands;
    Fault { va, access: Access::ControlRead, reason: FaultReason::NoSpace }
}
