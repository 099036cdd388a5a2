//! The firmware's scheduler: which ring an idle engine serves, and when a job is rotated off.
//!
//! With a slice, a ring that comes to an engine has a turn of that length. During its turn the engine takes one job of
//! the ring after another; when the turn is over, or the ring has nothing to run, the next ring in the rotation has its
//! turn. A job in the middle is rotated off and keeps the time that it has left; if no other ring has anything to run,
//! the turn is renewed. A hung job is never rotated off.
//!
//! Without a slice, jobs start in the order in which their doorbells rang, whatever their rings, and run to their end.
//!
//! A ring starts its jobs in order, and has at most as many started as there are engines: with one engine, its jobs run
//! one after the other. A job at a semaphore leaves its engine to others but counts as started.
//!
//! A ring stands in `rotation` at most once; its flag says so. It may stand there with nothing to run, and is then
//! passed over when its turn comes.

use super::device::Gpu;
use super::engine::Turn;
use super::faults::HwError;
use super::job::{Job, Place};
use super::memory::{Memory, index};
use super::mmu;
use super::observe::Observation;
use super::ring::JobDescriptor;
use super::run::no_space;
use super::types::{HwSeqno, JobId, QueueId, Va, VmId};

impl Gpu {
    /// Puts a ring into the rotation, if it has something to run and is not there yet.
    pub(crate) fn enqueue(&mut self, queue: QueueId) {
        let (engines, rotates) = (self.config.engines, self.config.slice_ns > 0);
        let Some(ring) = self.ring_mut(queue) else { return };
        let ring = &mut ring.device;
        // Without rotation only jobs back from a semaphore wait here; the others stand in `arrivals`.
        let waits = if rotates { ring.runnable(engines) } else { !ring.ready.is_empty() };
        if waits && !ring.in_rotation {
            ring.in_rotation = true;
            self.rotation.push_back(queue);
        }
    }

    /// Lets idle engines take jobs. True if any did.
    pub(crate) fn fill_engines(&mut self, memory: &mut Memory) -> bool {
        let mut any = false;
        for engine in 0..self.engines.len() {
            while self.engines[engine].job.is_none() {
                let Some(queue) = self.pick(engine) else { break };
                any = true;
                if let Some(record) = self.take_job(memory, queue) {
                    self.enqueue(queue);
                    let (now, touch_at) = (self.now, self.next_touch());
                    // CAST: engines are counted in 32 bits.
                    self.jobs[index(record)].place = Place::Engine(engine as u32);
                    self.engines[engine].occupy(record, now, touch_at);
                    let job = self.jobs[index(record)].descriptor.job;
                    memory.tap_mut().observe(Observation::OnEngine { job, engine: engine as u32 });
                    self.run_engine(memory, engine);
                }
            }
        }
        any
    }

    /// The ring that an idle engine serves next.
    fn pick(&mut self, engine: usize) -> Option<QueueId> {
        if self.config.slice_ns == 0 {
            return self.pick_in_order();
        }
        if let Some(turn) = self.engines[engine].turn
            && turn.ends_at > self.now
            && self.is_runnable(turn.queue)
        {
            return Some(turn.queue);
        }
        let queue = self.pop_rotation();
        let ends_at = self.now.after_ns(self.config.slice_ns);
        self.engines[engine].turn = queue.map(|queue| Turn { queue, ends_at });
        queue
    }

    /// The first ring in the rotation that has something to run.
    fn pop_rotation(&mut self) -> Option<QueueId> {
        while let Some(queue) = self.rotation.pop_front() {
            if let Some(ring) = self.ring_mut(queue) {
                ring.device.in_rotation = false;
            }
            if self.is_runnable(queue) {
                return Some(queue);
            }
        }
        None
    }

    /// Without rotation: a job back from its semaphore, else the first doorbell whose ring may start a job.
    fn pick_in_order(&mut self) -> Option<QueueId> {
        if let Some(queue) = self.pop_rotation() {
            return Some(queue);
        }
        let at = self.arrivals.iter().position(|queue| self.is_runnable(*queue))?;
        self.arrivals.remove(at)
    }

    fn is_runnable(&self, queue: QueueId) -> bool {
        self.ring(queue).is_some_and(|ring| ring.device.runnable(self.config.engines))
    }

    /// Whether any ring but this one has something to run.
    fn others_wait(&self, queue: QueueId) -> bool {
        self.rotation.iter().any(|other| *other != queue && self.is_runnable(*other))
    }

    /// At the end of a turn: takes the job off if another ring waits, else renews the turn. True if it was taken off.
    pub(crate) fn rotates_off(&mut self, memory: &mut Memory, engine: usize, record: u32, root: mmu::Root) -> bool {
        let Some(turn) = self.engines[engine].turn.filter(|turn| turn.ends_at <= self.now) else {
            return false;
        };
        if !self.others_wait(turn.queue) {
            let ends_at = self.now.after_ns(self.config.slice_ns);
            self.engines[engine].turn = Some(Turn { ends_at, ..turn });
            return false;
        }
        if let Err(fault) = self.jobs[index(record)].touch(memory, root) {
            self.finish(memory, record, Err(HwError::PageFault(fault)));
            return true;
        }
        self.leave_engine(memory, engine, record);
        self.engines[engine].turn = None;
        // It may stand in the rotation already, for a job that came during its turn: it goes to the end.
        self.rotation.retain(|other| *other != turn.queue);
        if let Some(ring) = self.ring_mut(turn.queue) {
            ring.device.in_rotation = false;
        }
        self.make_ready(record);
        true
    }

    /// A job of a runnable ring: one that was set aside, else the next one. None if that one failed at its start.
    fn take_job(&mut self, memory: &mut Memory, queue: QueueId) -> Option<u32> {
        let firmware = self.firmware_root();
        let ring = &mut self.ring_mut(queue)?.device;
        if let Some(record) = ring.ready.pop_front() {
            return Some(record);
        }
        let n = ring.start_next();
        let descriptor = ring.descriptor(memory, firmware, n);
        let readable = matches!(descriptor, Ok(Some(_)));
        let descriptor = descriptor.ok().flatten().unwrap_or(NONSENSE);
        let record = self.record_for(queue, &descriptor);
        let root = self.root_of(descriptor.vm);
        let job = &mut self.jobs[index(record)];
        job.begin(queue, n, &descriptor, self.now);
        let name = descriptor.job;
        memory.tap_mut().observe(Observation::Started { job: name });
        let loaded = match root {
            _ if !readable => Err(HwError::BadDescriptor),
            Some(root) => job.load(memory, root, &mut self.rng),
            None => Err(HwError::PageFault(no_space(job))),
        };
        match loaded {
            Ok(()) => Some(record),
            Err(error) => {
                self.finish(memory, record, Err(error));
                None
            }
        }
    }

    /// A free record.
    fn record_for(&mut self, queue: QueueId, descriptor: &JobDescriptor) -> u32 {
        if let Some(record) = self.free_jobs.pop() {
            return record;
        }
        self.jobs.push(Job::new(queue, *descriptor));
        // CAST: there are never more started jobs than engines times rings.
        (self.jobs.len() - 1) as u32
    }
}

/// What stands for a descriptor that cannot be read: it names nothing that a host uses.
const NONSENSE: JobDescriptor = JobDescriptor {
    hw_seqno: HwSeqno(u64::MAX),
    vm: VmId(u32::MAX),
    job: JobId(u64::MAX),
    hw_time_ns: 0,
    commands: Va(0),
    commands_bytes: 0,
    fault: None,
};

#[cfg(test)]
mod tests {
    use crate::gpu::config::Config;
    use crate::gpu::device::Gpu;
    use crate::gpu::memory::Memory;
    use crate::gpu::ring::JobDescriptor;
    use crate::gpu::types::{HwSeqno, Time};

    /// Jobs without an address space fail at their start; their records and slots serve the next ones.
    #[test]
    fn records_are_used_again() {
        let mut memory = Memory::new(0).unwrap();
        let mut gpu = Gpu::new(&mut memory, Config::default()).unwrap();
        let ring = gpu.create_ring(&mut memory, 4).unwrap();
        for n in 0..100 {
            let job = JobDescriptor { hw_seqno: HwSeqno(n), ..super::NONSENSE };
            gpu.submit(&mut memory, Time::from_ns(n), ring, &job).unwrap();
            assert!(gpu.poll_interrupt().is_some_and(|interrupt| interrupt.result.is_err()));
        }
        assert_eq!((gpu.jobs.len(), gpu.free_jobs.len()), (1, 1));
        assert!(gpu.rotation.len() <= 1 && gpu.arrivals.is_empty());
    }
}
