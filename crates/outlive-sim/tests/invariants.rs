//! What must hold in every run, whatever chance does: each job ends once, time adds up, nothing is left, and how often
//! the host asks for the time makes no difference.

#![expect(clippy::unwrap_used, reason = "tests")]

extern crate alloc;

mod common;

use alloc::collections::{BTreeMap, BTreeSet};
use common::{Buffer, Host, small};
use outlive_sim::gpu::rng::Rng;
use outlive_sim::gpu::{
    Command, Config, DeviceFaults, FaultKind, Observation, QueueId, ResetScope, Stamped, StopCause,
};

const RINGS: u64 = 6;
const JOBS_MAX: u64 = 150;
const KINDS: [FaultKind; 4] = [FaultKind::Hang, FaultKind::PageFault, FaultKind::Error, FaultKind::LostCompletion];

/// A storm of jobs, faults, cancels and resets. Between two of the host's steps the device is also advanced `extra`
/// times at moments that nothing asks for.
struct Storm {
    host: Host,
    chance: Rng,
    rings: Vec<QueueId>,
    buffers: Vec<Buffer>,
    submitted: BTreeSet<u64>,
    lost: BTreeSet<u64>,
}

impl Storm {
    fn new(seed: u64) -> Self {
        let mut chance = Rng::new(seed);
        let config = Config {
            seed,
            engines: 1 + u32::try_from(chance.below(4)).unwrap(),
            slice_ns: chance.below(4) * 200_000,
            tick_ns: chance.below(3) * 400_000,
            interrupt_jitter_ns: chance.below(2) * 30_000,
            ..small()
        };
        let mut host = Host::new(config);
        let late_writes_ns = chance.below(2) * 2_000_000;
        host.gpu.set_faults(DeviceFaults { late_writes_ns, ..DeviceFaults::default() });
        let rings = (0..RINGS).map(|_| host.ring()).collect();
        let buffers = (0..=JOBS_MAX).map(|_| host.buffer(1)).collect();
        let (submitted, lost) = (BTreeSet::new(), BTreeSet::new());
        Self { host, chance, rings, buffers, submitted, lost }
    }

    fn pick(&mut self, bound: u64) -> usize {
        usize::try_from(self.chance.below(bound)).unwrap()
    }

    fn step(&mut self) {
        let ring = self.pick(RINGS);
        let ring = self.rings[ring];
        let now = self.host.now;
        match self.chance.below(16) {
            0..=11 => self.submit(ring),
            12..=13 => {
                if let Some(running) = self.host.gpu.running(ring) {
                    let gpu = &mut self.host.gpu;
                    gpu.cancel(&mut self.host.memory, now, ring, running.hw_seqno).unwrap();
                }
            }
            14 => {
                let _ = self.host.gpu.reset(&mut self.host.memory, now, ResetScope::Ring(ring));
            }
            _ if self.chance.below(4) == 0 => {
                let _ = self.host.gpu.reset(&mut self.host.memory, now, ResetScope::Device);
            }
            _ => {}
        }
    }

    /// Every job in a ring has a buffer of its own; semaphores are raised by some jobs and waited for by others.
    fn submit(&mut self, ring: QueueId) {
        if self.host.gpu.free_slots(&self.host.memory, ring) == 0 {
            return;
        }
        let number = self.host.next_job();
        let own = self.buffers[usize::try_from(number).unwrap()].va;
        let word = self.buffers[0].va;
        let mut commands = vec![Command::Fill { va: own, bytes: 0x800, pattern: 3 }];
        match self.chance.below(12) {
            0 => commands.push(Command::Wait { va: word, value: number / 2 }),
            1 => commands.push(Command::Signal { va: word, value: number }),
            2 => commands.push(Command::Copy { source: own, target: own.add(0x800), bytes: 99 }),
            _ => {}
        }
        let mut job = self.host.job(&commands, 1 + self.chance.below(900_000));
        if self.chance.below(9) == 0 {
            let kind = KINDS[self.pick(4)];
            job.fault = Some(kind);
            if kind == FaultKind::LostCompletion {
                self.lost.insert(job.hw_seqno.0);
            }
        }
        self.submitted.insert(job.hw_seqno.0);
        self.host.submit(ring, &job);
    }

    fn run(&mut self, steps: u64, extra: u64) {
        let gap_ns = 120_000;
        for step in 0..steps {
            self.step();
            for part in 1..=extra {
                self.host.run_to(step * gap_ns + part * gap_ns / (extra + 1));
            }
            self.host.run_to((step + 1) * gap_ns);
        }
        // What hangs or waits for a semaphore that nobody raises is reset, until all is done.
        for round in 1..=100 {
            let now = self.host.now;
            let _ = self.host.gpu.reset(&mut self.host.memory, now, ResetScope::Device);
            self.host.run_to(steps * gap_ns + round * 30_000_000);
        }
    }
}

/// How each job stopped, by the device's own report.
fn stops(log: &[Stamped]) -> BTreeMap<u64, Vec<StopCause>> {
    let mut stops: BTreeMap<u64, Vec<StopCause>> = BTreeMap::new();
    for seen in log {
        if let Observation::Stopped { job, cause } = seen.what {
            stops.entry(job.0).or_default().push(cause);
        }
    }
    stops
}

#[test]
fn every_job_ends_once_and_time_adds_up() {
    for seed in 0..150 {
        let mut storm = Storm::new(seed);
        storm.run(150, 0);
        let Storm { host, submitted, lost, rings, .. } = storm;
        assert!(submitted.len() > 50, "seed {seed}");

        let interrupted: Vec<u64> = host.order();
        let killed: Vec<_> = host.resets.iter().flat_map(|report| report.result.clone().unwrap()).collect();
        let mut ended: Vec<u64> = interrupted.clone();
        ended.extend(killed.iter().map(|job| job.hw_seqno.0));
        let known: BTreeSet<u64> = ended.iter().copied().collect();
        assert_eq!(known.len(), ended.len(), "seed {seed}: a job ended twice");
        let silent: Vec<u64> = submitted.difference(&known).copied().collect();
        assert!(silent.iter().all(|job| lost.contains(job)), "seed {seed}: {silent:?}");

        let stops = stops(&host.log);
        assert!(stops.values().all(|causes| causes.len() == 1), "seed {seed}");
        assert!(stops.keys().copied().eq(submitted.iter().copied()), "seed {seed}");

        for ring in rings {
            assert_eq!(host.gpu.free_slots(&host.memory, ring), 16, "seed {seed}");
        }
        if silent.is_empty() {
            let of_interrupts = host.interrupts.iter().map(|interrupt| interrupt.active_ns);
            let active_ns: u64 = of_interrupts.chain(killed.iter().map(|job| job.active_ns)).sum();
            assert_eq!(active_ns, host.gpu.busy_ns(), "seed {seed}");
        }
        assert!(host.gpu.next_event().is_none(), "seed {seed}");
        let audit = host.audit();
        assert!(audit.is_clean(), "seed {seed}: {audit:?}");
    }
}

#[test]
fn jobs_of_a_ring_start_in_order_and_with_one_engine_do_not_overlap() {
    for seed in 0..60 {
        let mut storm = Storm::new(seed);
        storm.run(120, 0);
        let host = &storm.host;
        let one_engine = host.gpu.config().engines == 1;
        let mut ring_of = BTreeMap::new();
        let mut last_started: BTreeMap<QueueId, u64> = BTreeMap::new();
        let mut open: BTreeMap<QueueId, u64> = BTreeMap::new();
        for seen in &host.log {
            match seen.what {
                Observation::Submitted { job, queue } => {
                    ring_of.insert(job, queue);
                }
                Observation::Started { job } => {
                    let ring = ring_of[&job];
                    assert!(last_started.insert(ring, job.0) < Some(job.0), "seed {seed}");
                    let before = open.insert(ring, job.0);
                    assert!(!one_engine || before.is_none(), "seed {seed}: {before:?} and {job}");
                }
                Observation::Stopped { job, .. } if open.get(&ring_of[&job]) == Some(&job.0) => {
                    open.remove(&ring_of[&job]);
                }
                _ => {}
            }
        }
    }
}

#[test]
fn asking_for_the_time_more_often_changes_nothing() {
    for seed in 0..40 {
        let (mut once, mut often) = (Storm::new(seed), Storm::new(seed));
        once.run(80, 0);
        often.run(80, 7);
        assert!(once.host.log == often.host.log, "seed {seed}");
        assert_eq!(once.host.interrupts, often.host.interrupts, "seed {seed}");
    }
}
