//! Persistent buffers, twice as much as there is memory: evicted and brought back against jobs in flight.

#![expect(clippy::unwrap_used, clippy::std_instead_of_core, clippy::std_instead_of_alloc, reason = "tests")]

use outlive::{Fence, Status};
use outlive_sim::driver::{ClientConfig, HostConfig, JobSpec, Piece, SimClient, SimHost, SubmitError, Submitted, Work};
use outlive_sim::gpu::gears::Scene;
use outlive_sim::gpu::{Audit, Config, FaultKind};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

mod finish;
use finish::{NEVER, finish};

const MS: Duration = Duration::from_millis(1);
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const PIECE: u64 = 64 * KIB;
const WORK: Work = Work::Gears { frame: 0, width: 64, height: 64 };

fn host(memory_bytes: u64) -> SimHost {
    let gpu = Config { engines: 2, memory_bytes, interrupt_latency_ns: 2_000, ..Config::default() };
    SimHost::new(HostConfig { gpu, ..HostConfig::default() }).unwrap()
}

/// A client and its persistent buffers.
struct Owner {
    client: SimClient,
    pieces: Vec<Arc<Piece>>,
    jobs: VecDeque<Submitted>,
    drawn: Vec<Vec<u8>>,
}

impl Owner {
    fn new(host: &SimHost, bytes: u64) -> Self {
        let client = SimClient::new(host, "client", ClientConfig::default()).unwrap();
        let pieces = (0..bytes / PIECE).map(|_| client.piece(PIECE).unwrap()).collect();
        Self { client, pieces, jobs: VecDeque::new(), drawn: Vec::new() }
    }

    fn spec(&self, number: usize) -> JobSpec {
        let work = Work::Gears { frame: u32::try_from(number).unwrap(), width: 64, height: 64 };
        let pieces =
            [number, number + self.pieces.len() / 2].map(|at| Arc::clone(&self.pieces[at % self.pieces.len()]));
        JobSpec { pieces: pieces.to_vec(), ..JobSpec::new(MS, work) }
    }

    /// Submits job `number`, with what it takes to have room for it. Four are in flight.
    fn draw(&mut self, host: &SimHost, number: usize) {
        loop {
            match self.client.submit(self.spec(number)) {
                Ok(job) => self.jobs.push_back(job),
                Err(SubmitError::Memory(_)) => {
                    self.take_oldest(host);
                    continue;
                }
                Err(error) => panic!("{error}"),
            }
            while self.jobs.len() > 4 {
                self.take_oldest(host);
            }
            return;
        }
    }

    fn take_oldest(&mut self, host: &SimHost) {
        let Some(job) = self.jobs.pop_front() else { return host.run_for(MS) };
        wait(host, &job.fences.retired().into_fence());
        assert_eq!(job.fences.finished().status(), Status::Signaled(Ok(())));
        self.drawn.push(job.output.read());
    }

    fn evictions(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.bo().evictions()).sum()
    }
}

fn wait(host: &SimHost, fence: &Fence) {
    assert!(host.run_while_waiting(NEVER, || fence.is_signaled()));
}

/// What two clients with 2 MiB of persistent buffers each draw, and how often those were evicted.
fn drawn(memory_bytes: u64) -> (Vec<Vec<u8>>, u64, Audit) {
    let host = host(memory_bytes);
    let mut owners = [Owner::new(&host, 2 * MIB), Owner::new(&host, 2 * MIB)];
    for number in 0..100 {
        owners.iter_mut().for_each(|owner| owner.draw(&host, number));
    }
    for owner in &mut owners {
        while !owner.jobs.is_empty() {
            owner.take_oldest(&host);
        }
    }
    let evictions = owners.iter().map(Owner::evictions).sum();
    let restores: u64 = owners.iter().flat_map(|owner| &owner.pieces).map(|piece| piece.bo().restores()).sum();
    assert!(restores <= evictions && evictions <= restores + 64, "{restores} of {evictions} came back");
    let drawn = owners.iter_mut().flat_map(|owner| owner.drawn.drain(..)).collect();
    drop(owners);
    (drawn, evictions, finish(host))
}

#[test]
fn with_half_the_memory_the_pictures_are_the_same() {
    let (ample, evictions, audit) = drawn(8 * MIB);
    assert!(audit.is_clean(), "{audit:#?}");
    assert_eq!((ample.len(), evictions), (200, 0));
    let (tight, evictions, audit) = drawn(2 * MIB);
    assert!(audit.is_clean(), "{audit:#?}");
    println!("{evictions} evictions for 200 jobs with two buffers each");
    assert!(evictions > 200, "{evictions}");
    assert_eq!(audit.stale_translations, 0);
    assert!(tight == ample, "other pictures");
    // What a job before left in a buffer is in the picture: a buffer that came back empty would be seen.
    let scene = |number: usize| {
        let (mut bytes, scene) = (vec![0; 64 * 64 * 4], Scene::new(64, 64, u32::try_from(number).unwrap()));
        (0..64).zip(bytes.chunks_exact_mut(64 * 4)).for_each(|(y, row)| scene.draw_row(y, row));
        bytes
    };
    let shown = (0..100).filter(|number| ample[*number] != scene(*number)).count();
    assert_eq!(shown, 100, "the first ones show that nothing was there");
    let strips = (32..100).filter(|number| ample[*number].ends_with(&[0; 1536])).count();
    assert_eq!(strips, 0);
}

#[test]
fn jobs_that_share_a_piece_go_one_after_the_other_on_two_engines() {
    let host = host(4 * MIB);
    let owner = Owner::new(&host, PIECE);
    let jobs: Vec<Submitted> =
        (0..3).map(|_| owner.client.submit(JobSpec { work: WORK, ..owner.spec(0) }).unwrap()).collect();
    wait(&host, &jobs[2].fences.retired().into_fence());
    let ends: Vec<_> = jobs.iter().map(|job| job.fences.finished().timestamp().unwrap()).collect();
    assert!(ends.windows(2).all(|pair| pair[1].since(pair[0]) >= MS), "{ends:?}");
    assert!(matches!(owner.client.reserve(owner.spec(0)), Err(SubmitError::Held)));
    drop((jobs, owner));
    let audit = finish(host);
    assert!(audit.is_clean(), "{audit:#?}");
}

/// With jobs on the hardware that use them, pieces stay, whoever wants room; when those hang and are killed, too.
#[test]
fn what_a_job_in_flight_works_on_is_not_evicted() {
    let host = host(MIB);
    let (busy, other) = (Owner::new(&host, 4 * PIECE), Owner::new(&host, 16 * PIECE));
    let config = JobSpec { fault: Some(FaultKind::Hang), timeout: Some(20 * MS), ..busy.spec(0) };
    let hung = busy.client.submit(config).unwrap();
    host.run_for(MS);
    let mut taken = Vec::new();
    while let Ok(job) = other.client.submit(JobSpec { duration: 100 * MS, ..other.spec(taken.len()) }) {
        taken.push(job);
    }
    assert!(!taken.is_empty());
    assert!(busy.pieces[0].bo().is_resident() && busy.pieces[2].bo().is_resident());
    assert_eq!(busy.evictions(), 0);
    let Owner { client, pieces, .. } = busy;
    client.kill();
    drop(pieces);
    wait(&host, &hung.fences.retired().into_fence());
    host.run_for(MS);
    let more = other.client.submit(other.spec(8)).unwrap();
    wait(&host, &more.fences.retired().into_fence());
    drop((hung, taken, more, other));
    let audit = finish(host);
    assert!(audit.is_clean(), "{audit:#?}");
}

/// The defects that eviction invites are seen: a flush that is skipped, entries that are left.
#[test]
fn eviction_without_a_flush_or_with_entries_left_is_seen() {
    for forgets in [false, true] {
        let host = host(512 * KIB);
        let (mut victim, mut other) = (Owner::new(&host, PIECE), Owner::new(&host, 16 * PIECE));
        let defect = |on: bool| {
            let tables = victim.client.vm().data();
            if forgets { tables.forget_entries(on) } else { tables.skip_flushes(on) }
        };
        defect(true);
        for round in 0..10 {
            let job = victim.client.submit(victim.spec(0)).unwrap();
            wait(&host, &job.fences.retired().into_fence());
            for number in 0..4 {
                other.draw(&host, 4 * round + number);
                while !other.jobs.is_empty() {
                    other.take_oldest(&host);
                }
            }
        }
        assert!(victim.evictions() > 0);
        defect(false);
        victim.pieces.clear();
        drop((victim, other));
        let audit = finish(host);
        assert!(audit.stale_translations > 0 && !audit.is_clean(), "forgets: {forgets}, {audit:#?}");
    }
}
