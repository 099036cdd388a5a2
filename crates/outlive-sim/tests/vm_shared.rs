//! Buffers that are mapped in several address spaces of one device: evicted from all of them at once, brought back by the job
//! that comes next, in whichever.

#![expect(clippy::unwrap_used, clippy::std_instead_of_core, reason = "tests")]

use outlive::vm::{Flags, Request, Source, VmBo};
use outlive::{Dependency, JobFences, Status};
use outlive_sim::driver::{
    ClientConfig, HostConfig, JobSpec, SimBo, SimClient, SimDriver, SimHost, SimVm, SimVmError, VM_START, Work,
};
use outlive_sim::gpu::{Audit, Config};
use std::time::Duration;

mod finish;
use finish::{NEVER, finish};

const MS: Duration = Duration::from_millis(1);
const MIB: u64 = 1 << 20;

fn host(memory_mib: u64) -> SimHost {
    let gpu = Config { engines: 1, memory_bytes: memory_mib * MIB, interrupt_latency_ns: 2_000, ..Config::default() };
    SimHost::new(HostConfig { gpu, ..HostConfig::default() }).unwrap()
}

fn end(host: &SimHost, job: &JobFences) {
    assert!(host.run_while_waiting(NEVER, || job.retired().is_signaled()));
    assert_eq!(job.finished().status(), Status::Signaled(Ok(())));
}

/// An address space that a buffer is mapped in, each at another place.
struct Viewer {
    client: SimClient,
    vm: SimVm,
    at: u64,
    pair: VmBo<SimDriver>,
}

impl Viewer {
    fn submit(&self, work: Work, after: Option<&JobFences>) -> Result<JobFences, SimVmError> {
        let after = after.map(|job| Dependency::from(job.finished())).into_iter().collect();
        let spec = JobSpec { after, ..JobSpec::new(MS, work) };
        self.vm.submit(&self.client, spec, self.at, work.data_bytes())
    }

    fn map(&self, at: u64, bytes: u64) -> Request {
        let source = Source::Bo { bo: self.pair.id(), offset: 0 };
        Request::Map { va: at, len: bytes, source, flags: Flags::NONE, data: () }
    }
}

/// A buffer and the address spaces that share it.
struct Shared {
    bo: SimBo,
    viewers: Vec<Viewer>,
    last: Option<JobFences>,
}

fn shared(host: &SimHost, spaces: u64, bytes: u64, bo: &mut Option<SimBo>) -> Shared {
    let viewers = (0..spaces).map(|number| {
        let client = SimClient::new(host, "viewer", ClientConfig::default()).unwrap();
        let vm = SimVm::new(&client).unwrap();
        let bo = bo.get_or_insert_with(|| vm.external(bytes).unwrap());
        let pair = vm.open(bo).unwrap();
        let viewer = Viewer { client, vm, at: VM_START + number * 4 * MIB, pair };
        viewer.vm.change(&[viewer.map(viewer.at, bytes)]).unwrap();
        viewer
    });
    let viewers = viewers.collect();
    Shared { bo: bo.take().unwrap(), viewers, last: None }
}

/// How often an eviction was refused because of a job, and how often a job found its buffer evicted.
#[derive(Default)]
struct Counts {
    busy: u32,
    away: u32,
}

/// Does it, and evicts the buffers of `victims` until there is room for it.
fn with_room<T>(
    host: &SimHost,
    victims: &[(&SimVm, &SimBo)],
    counts: &mut Counts,
    mut attempt: impl FnMut() -> Result<T, SimVmError>,
) -> T {
    let mut victims = victims.iter().cycle();
    for _ in 0..100 {
        match attempt() {
            Err(SimVmError::Memory(_)) => {
                let (vm, bo) = victims.next().expect("somebody to evict");
                match vm.evict(bo) {
                    Err(SimVmError::Busy(fence)) => {
                        counts.busy += 1;
                        assert!(host.run_while_waiting(NEVER, || fence.is_signaled()));
                    }
                    evicted => evicted.unwrap(),
                }
            }
            done => return done.unwrap(),
        }
    }
    panic!("no room to be had");
}

/// Six buffers of 2 MiB, each mapped in `spaces` address spaces whose jobs draw into it in turn, each on top of the one before.
fn pictures(memory_mib: u64, spaces: u64) -> (Vec<Vec<u8>>, Counts, Audit) {
    const FRAMES: u32 = 9;
    let host = host(memory_mib);
    let mut counts = Counts::default();
    let mut all: Vec<Shared> = Vec::new();
    for _ in 0..6 {
        let client = SimClient::new(&host, "allocator", ClientConfig::default()).unwrap();
        let vm = SimVm::new(&client).unwrap();
        let victims: Vec<_> = all.iter().map(|other| (&other.viewers[0].vm, &other.bo)).collect();
        let bo = with_room(&host, &victims, &mut counts, || vm.external(2 * MIB));
        drop((vm, client));
        host.settle();
        all.push(shared(&host, spaces, 2 * MIB, &mut Some(bo)));
    }
    for frame in 0..FRAMES {
        for at in 0..all.len() {
            let one = &all[at];
            counts.away += u32::from(!one.bo.is_resident());
            let others = all.iter().enumerate().filter(|(other, _)| *other != at);
            // Whoever evicts is of another address space than the last to have used it.
            let victims: Vec<_> = others.map(|(_, other)| (&one.viewers[0].vm, &other.bo)).collect();
            let viewer = &one.viewers[frame as usize % one.viewers.len()];
            let work = Work::Gears { frame: frame * 6 + at as u32, width: 64, height: 32 };
            let job = with_room(&host, &victims, &mut counts, || viewer.submit(work, one.last.as_ref()));
            all[at].last = Some(job);
        }
    }
    let mut drawn = Vec::new();
    for one in &all {
        end(&host, one.last.as_ref().unwrap());
        drawn.push(one.bo.read()[..64 * 32 * 4].to_vec());
    }
    drop(all);
    (drawn, counts, finish(host))
}

#[test]
fn shared_buffers_are_evicted_from_every_address_space_and_the_pictures_are_the_same() {
    for spaces in [2, 3] {
        let (ample, counts, audit) = pictures(24, spaces);
        assert!(audit.is_clean(), "{audit:#?}");
        assert_eq!((counts.away, counts.busy), (0, 0));
        let (tight, counts, audit) = pictures(8, spaces);
        assert!(audit.is_clean(), "{audit:#?}");
        println!(
            "{spaces} address spaces: {} of 54 jobs found their buffer evicted, {} evictions refused",
            counts.away, counts.busy
        );
        assert!(counts.away >= 27, "half of all jobs find their buffer evicted: {}", counts.away);
        assert!(counts.busy > 0, "nobody had a job in flight");
        assert_eq!((audit.stale_translations, audit.unexpected_page_faults), (0, 0));
        assert!(tight == ample, "other pictures");
        assert!(ample.windows(2).all(|pair| pair[0] != pair[1]));
    }
}

#[test]
fn a_job_in_any_of_its_address_spaces_keeps_a_buffer_where_it_is() {
    let host = host(8);
    let Shared { bo, viewers, .. } = shared(&host, 3, 2 * MIB, &mut None);
    for user in &viewers {
        let job = user.submit(Work::Fill, None).unwrap();
        for viewer in &viewers {
            match viewer.vm.evict(&bo) {
                Err(SimVmError::Busy(fence)) => assert_eq!(fence, job.retired().into_fence()),
                other => panic!("evicted in use: {other:?}"),
            }
        }
        end(&host, &job);
        user.vm.evict(&bo).unwrap();
        assert!(!bo.is_resident());
        user.vm.evict(&bo).unwrap();
    }
    drop((viewers, bo));
    assert!(finish(host).is_clean());
}

#[test]
fn entries_that_are_forgotten_in_one_address_space_are_counted() {
    for forgotten in 0..2 {
        let host = host(8);
        let Shared { bo, viewers, .. } = shared(&host, 2, 2 * MIB, &mut None);
        for viewer in &viewers {
            end(&host, &viewer.submit(Work::Fill, None).unwrap());
        }
        viewers[forgotten].vm.vm().data().forget_entries(true);
        viewers[0].vm.evict(&bo).unwrap();
        // Somebody else has its pages now.
        let thief = viewers[0].vm.external(2 * MIB).unwrap();
        for viewer in &viewers {
            end(&host, &viewer.submit(Work::Fill, None).unwrap());
        }
        assert!(thief.read().iter().any(|byte| *byte != 0), "written through what was forgotten");
        drop((thief, viewers, bo));
        let audit = finish(host);
        assert!(audit.stale_translations > 0 && !audit.is_clean(), "{audit:#?}");
    }
}

#[test]
fn where_it_was_closed_it_is_cleared_first() {
    let host = host(8);
    let Shared { bo, mut viewers, .. } = shared(&host, 2, MIB, &mut None);
    let Viewer { client, vm, pair, .. } = viewers.pop().unwrap();
    drop(pair);
    assert!(matches!(viewers[0].vm.evict(&bo), Err(SimVmError::StillMapped)));
    assert!(bo.is_resident());
    // What is gone of the other's comes back with its next job.
    end(&host, &viewers[0].submit(Work::Fill, None).unwrap());
    viewers[0].vm.evict(&bo).unwrap();
    drop((vm, client, viewers, bo));
    assert!(finish(host).is_clean());
}

#[test]
fn what_was_evicted_comes_back_behind_changes_that_are_on_their_way() {
    let host = host(8);
    let Shared { bo, viewers, .. } = shared(&host, 2, MIB, &mut None);
    let [first, second] = &viewers[..] else { panic!("two") };
    let slow = first.client.submit(JobSpec::spin(5 * MS)).unwrap().fences;
    second.vm.evict(&bo).unwrap();
    let again = first.at + 64 * MIB;
    let bound = first.vm.bind(&[first.map(again, MIB)], vec![Dependency::from(slow.finished())]).unwrap();
    match first.submit(Work::Fill, None) {
        Err(SimVmError::Busy(change)) => assert!(host.run_while_waiting(NEVER, || change.is_signaled())),
        other => panic!("put entries back before the change was carried out: {other:?}"),
    }
    assert!(bound.retired().is_signaled());
    let job = first.submit(Work::Fill, None).unwrap();
    let copy = JobSpec { after: vec![Dependency::from(job.finished())], ..JobSpec::new(MS, Work::Copy) };
    end(&host, &first.vm.submit(&first.client, copy, again, Work::Copy.data_bytes()).unwrap());
    // The other one's are still to come.
    end(&host, &second.submit(Work::Fill, Some(&job)).unwrap());
    drop((viewers, bo));
    let audit = finish(host);
    assert!(audit.is_clean(), "{audit:#?}");
}
