//! Address spaces of the library on the simulated device: jobs that use what is mapped, binds in order with jobs, eviction
//! with twice as much in use as there is memory, and whoever dies in the middle.

#![expect(clippy::unwrap_used, clippy::std_instead_of_core, reason = "tests")]

use outlive::vm::{Flags, Request, Source, VmBo};
use outlive::{Dependency, JobFences, Status};
use outlive_sim::driver::{
    ClientConfig, HostConfig, JobSpec, SimBo, SimClient, SimDriver, SimHost, SimVm, SimVmError, VM_START, Work,
};
use outlive_sim::gpu::{Audit, Config, FaultKind, PAGE_BYTES};
use std::time::Duration;

mod finish;
use finish::{NEVER, finish};

const MS: Duration = Duration::from_millis(1);
const MIB: u64 = 1 << 20;
const PAGE: u64 = PAGE_BYTES as u64;

fn host(memory_mib: u64) -> SimHost {
    let gpu = Config { engines: 1, memory_bytes: memory_mib * MIB, interrupt_latency_ns: 2_000, ..Config::default() };
    SimHost::new(HostConfig { gpu, ..HostConfig::default() }).unwrap()
}

/// A client with an address space and a buffer in it, mapped at its start.
struct Owner {
    client: SimClient,
    vm: SimVm,
    bo: SimBo,
    /// Keeps it open.
    pair: VmBo<SimDriver>,
}

fn map(vm: &SimVm, bo: &SimBo, at: u64, bytes: u64) -> Request {
    let pair = vm.vm().edit().unwrap().find_bo(bo).unwrap();
    let source = Source::Bo { bo: pair.id(), offset: 0 };
    Request::Map { va: VM_START + at, len: bytes, source, flags: Flags::NONE, data: () }
}

impl Owner {
    fn new(host: &SimHost, bytes: u64, others: &[Self]) -> Self {
        let client = SimClient::new(host, "client", ClientConfig::default()).unwrap();
        let vm = SimVm::new(&client).unwrap();
        let bo = with_room(host, others, || vm.local(bytes));
        let pair = vm.open(&bo).unwrap();
        vm.change(&[map(&vm, &bo, 0, bytes)]).unwrap();
        Self { client, vm, bo, pair }
    }

    /// Draws into the start of the buffer.
    fn draw(&self, host: &SimHost, frame: u32, others: &[&Self]) -> JobFences {
        let work = Work::Gears { frame, width: 64, height: 32 };
        with_room_of(host, others, || self.vm.submit(&self.client, JobSpec::new(MS, work), VM_START, work.data_bytes()))
    }
}

/// Does it, and evicts others until there is room for it.
fn with_room_of<T>(host: &SimHost, others: &[&Owner], mut attempt: impl FnMut() -> Result<T, SimVmError>) -> T {
    let mut victims = others.iter().cycle();
    for _ in 0..100 {
        match attempt() {
            Err(SimVmError::Memory(_)) => {
                let victim = victims.next().expect("somebody to evict");
                match victim.vm.evict(&victim.bo) {
                    Err(SimVmError::Busy(fence)) => {
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

fn with_room<T>(host: &SimHost, others: &[Owner], attempt: impl FnMut() -> Result<T, SimVmError>) -> T {
    with_room_of(host, &others.iter().collect::<Vec<_>>(), attempt)
}

/// The pictures of `owners` owners in turn, `frames` each, and how often a page had to be brought back.
fn pictures(memory_mib: u64, owners: u32, frames: u32, skip_flushes: bool) -> (Vec<Vec<u8>>, u64, Audit) {
    let host = host(memory_mib);
    let mut all: Vec<Owner> = Vec::new();
    for _ in 0..owners {
        let owner = Owner::new(&host, 2 * MIB, &all);
        owner.vm.vm().data().skip_flushes(skip_flushes);
        all.push(owner);
    }
    let (mut drawn, mut away) = (Vec::new(), 0);
    for frame in 0..frames {
        for at in 0..all.len() {
            away += u64::from(!all[at].bo.is_resident());
            let others: Vec<&Owner> =
                all.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, o)| o).collect();
            let job = all[at].draw(&host, frame * owners + at as u32, &others);
            // Two are in flight at any time: the one before may still be drawing.
            if frame == frames - 1 {
                assert!(host.run_while_waiting(NEVER, || job.retired().is_signaled()));
                assert_eq!(job.finished().status(), Status::Signaled(Ok(())));
                drawn.push(all[at].bo.read()[..64 * 32 * 4].to_vec());
            }
        }
    }
    drop(all);
    (drawn, away, finish(host))
}

#[test]
fn with_twice_as_much_in_use_as_there_is_memory_the_pictures_are_the_same() {
    // Of 2 MiB each, and some for rings and tables: six fit into 16, three into 8.
    let (ample, away, audit) = pictures(16, 6, 8, false);
    assert!(audit.is_clean(), "{audit:#?}");
    assert_eq!(away, 0);
    let (tight, away, audit) = pictures(8, 6, 8, false);
    assert!(audit.is_clean(), "{audit:#?}");
    println!("{away} of 48 jobs found their buffer evicted");
    assert!(away >= 24, "half of all jobs find their buffer evicted: {away}");
    assert_eq!(audit.stale_translations, 0);
    assert!(tight == ample, "other pictures");
    assert!(ample.windows(2).all(|pair| pair[0] != pair[1]));
}

#[test]
fn a_flush_that_is_skipped_is_counted() {
    let host = host(8);
    let owner = Owner::new(&host, 2 * MIB, &[]);
    let work = Work::Fill;
    let submit = || owner.vm.submit(&owner.client, JobSpec::new(MS, work), VM_START, work.data_bytes()).unwrap();
    let job = submit();
    assert!(host.run_while_waiting(NEVER, || job.retired().is_signaled()));
    owner.vm.vm().data().skip_flushes(true);
    owner.vm.evict(&owner.bo).unwrap();
    // Somebody else has its pages now.
    let thief = owner.vm.local(2 * MIB).unwrap();
    let job = submit();
    assert!(host.run_while_waiting(NEVER, || job.retired().is_signaled()));
    assert!(thief.read().iter().any(|byte| *byte != 0), "written through a translation that is gone");
    owner.vm.vm().data().skip_flushes(false);
    drop((thief, owner));
    let audit = finish(host);
    assert!(audit.stale_translations > 0 && !audit.is_clean(), "{audit:#?}");
}

#[test]
fn binds_and_jobs_go_in_order_through_their_fences() {
    let host = host(8);
    let owner = Owner::new(&host, MIB, &[]);
    let Owner { client, vm, bo, .. } = &owner;
    let second = vm.local(MIB).unwrap();
    let open = vm.open(&second).unwrap();
    // A job that the bind waits for, and one that waits for the bind: what it uses is mapped by then.
    let first = vm.submit(client, JobSpec::new(5 * MS, Work::Fill), VM_START, Work::Fill.data_bytes()).unwrap();
    let after = vec![Dependency::from(first.finished())];
    let bound = vm.bind(&[map(vm, &second, 4 * MIB, MIB), map(vm, bo, 8 * MIB, 64 * PAGE)], after).unwrap();
    let last = vm.submit(client, JobSpec::new(MS, Work::Copy), VM_START + 4 * MIB, Work::Copy.data_bytes()).unwrap();
    let users = vm.vm().edit().unwrap().iter().filter(|mapping| mapping.range.base() >= VM_START).count();
    assert_eq!(users, 3, "the address space is ahead of its page tables");
    host.run_for(3 * MS);
    assert!(!bound.finished().is_signaled() && !last.finished().is_signaled());
    assert!(host.run_while_waiting(NEVER, || last.retired().is_signaled()));
    let times = [&first, &bound, &last].map(|job| job.finished().timestamp().unwrap());
    assert!(times.is_sorted(), "{times:?}");
    assert_eq!(last.finished().status(), Status::Signaled(Ok(())));
    // What is unmapped by a bind is used no more.
    let unmap = Request::Unmap { va: VM_START + 4 * MIB, len: MIB };
    let unbound = vm.bind(&[unmap], vec![Dependency::from(last.finished())]).unwrap();
    assert!(host.run_while_waiting(NEVER, || unbound.retired().is_signaled()));
    drop((second, open));
    drop(owner);
    let audit = finish(host);
    assert!(audit.is_clean(), "{audit:#?}");
}

/// Two bind queues of one address space: what they change of the same addresses they change in order, the rest as it comes.
#[test]
fn binds_of_two_queues_at_the_same_addresses_go_in_order() {
    let host = host(8);
    let owner = Owner::new(&host, MIB, &[]);
    let Owner { client, vm, bo, .. } = &owner;
    let other = SimVm::new(client).unwrap();
    let second = vm.local(MIB).unwrap();
    let open = vm.open(&second).unwrap();
    let slow = client.submit(JobSpec::spin(5 * MS)).unwrap().fences;
    let at = 4 * MIB;
    let first = vm.bind(&[map(vm, bo, at, MIB)], vec![Dependency::from(slow.finished())]).unwrap();
    let later = other.bind(&[map(vm, &second, at + MIB / 2, MIB)], Vec::new()).unwrap();
    let beside = SimVm::new(client).unwrap().bind(&[map(vm, &second, 8 * MIB, MIB)], Vec::new()).unwrap();
    host.run_for(MS);
    assert!(beside.finished().is_signaled() && !later.finished().is_signaled() && !first.finished().is_signaled());
    // Nor can it be changed at once.
    match other.change(&[Request::Unmap { va: VM_START + at + MIB, len: PAGE }]) {
        Err(SimVmError::Busy(change)) => assert!(host.run_while_waiting(NEVER, || change.is_signaled())),
        changed => panic!("behind the back of a bind: {changed:?}"),
    }
    assert!(first.finished().is_signaled() && later.finished().is_signaled());
    assert_eq!([&first, &later].map(|job| job.finished().status()), [Status::Signaled(Ok(())); 2]);
    for (va, buffer) in [(at, bo), (at + MIB / 2, &second), (at + MIB, &second)] {
        let before = buffer.read();
        let work = Work::Store(0x00c0_ffee);
        let job = vm.submit(client, JobSpec::new(MS, work), VM_START + va, work.data_bytes()).unwrap();
        assert!(host.run_while_waiting(NEVER, || job.retired().is_signaled()));
        assert!(buffer.read() != before, "{va:#x} leads elsewhere");
    }
    drop((other, open, second, owner));
    let audit = finish(host);
    assert!(audit.is_clean(), "{audit:#?}");
}

/// What is mapped where something was closed and is still to be cleared takes its place, whether its entries are written before
/// that is cleared or after; the rest of what was closed is cleared.
#[test]
fn what_is_mapped_in_the_place_of_what_was_closed_stays() {
    for (from, len) in [(0, 2 * MIB), (0, MIB), (MIB / 2, MIB), (MIB, MIB)] {
        for (bind_waits, clear_waits) in [(false, false), (true, false), (false, true), (true, true)] {
            let host = host(16);
            let owner = Owner::new(&host, 2 * MIB, &[]);
            let Owner { client, vm, bo, pair } = owner;
            let second = vm.local(2 * MIB).unwrap();
            let open = vm.open(&second).unwrap();
            let (slow, in_use) = (client.submit(JobSpec::spin(5 * MS)).unwrap().fences, vm.vm().in_use().unwrap());
            drop((pair, bo));
            let after = if bind_waits { vec![Dependency::from(slow.finished())] } else { Vec::new() };
            let bound = vm.bind(&[map(&vm, &second, from, len)], after).unwrap();
            if !clear_waits {
                drop(in_use);
                host.run_for(MS);
                assert_eq!((vm.vm().status().to_clear, bound.finished().is_signaled()), (0, !bind_waits));
            } else {
                assert!(
                    host.run_while_waiting(NEVER, || bound.retired().is_signaled() && slow.retired().is_signaled())
                );
                assert_eq!(vm.vm().status().to_clear, 1);
                drop(in_use);
            }
            assert!(host.run_while_waiting(NEVER, || bound.retired().is_signaled() && vm.vm().status().to_clear == 0));
            let store = |at: u64| {
                let work = Work::Store(0x00c0_ffee);
                let job = vm.submit(&client, JobSpec::new(MS, work), VM_START + at, work.data_bytes()).unwrap();
                assert!(host.run_while_waiting(NEVER, || job.retired().is_signaled()));
                job.finished().status() == Status::Signaled(Ok(()))
            };
            assert!(store(from) && store(from + len - 4));
            let words = second.read();
            let word = |at: u64| words[at as usize..][..4] == 0x00c0_ffee_u32.to_le_bytes();
            assert!(word(0) && word(len - 4), "{from:#x} leads elsewhere");
            let holes: Vec<_> = [0, 2 * MIB - 4].into_iter().filter(|at| !(from..from + len).contains(at)).collect();
            assert!(!holes.iter().any(|at| store(*at)), "not cleared");
            assert!(!vm.vm().status().poisoned);
            drop((open, second, vm, client));
            let audit = finish(host);
            assert_eq!(audit.unexpected_page_faults, holes.len() as u64, "{audit:#?}");
            assert_eq!((audit.stale_translations, audit.bytes_leaked), (0, 0));
        }
    }
}

/// What came in the place of something closed is closed in its turn, with a job at work in it. The first is cleared meanwhile, but
/// not the entries that the job works through.
#[test]
fn what_came_in_its_place_and_was_closed_too_stays_for_its_own_job() {
    let host = host(16);
    let Owner { client, vm, bo, pair } = Owner::new(&host, 2 * MIB, &[]);
    let second = vm.local(MIB).unwrap();
    let open = vm.open(&second).unwrap();
    let first_use = vm.vm().in_use().unwrap();
    drop((pair, bo));
    vm.change(&[map(&vm, &second, MIB / 2, MIB)]).unwrap();
    let bytes = Work::Copy.data_bytes();
    let job = vm.submit(&client, JobSpec::new(5 * MS, Work::Copy), VM_START + MIB / 2, bytes).unwrap();
    host.run_for(MS);
    drop(open);
    assert_eq!(vm.vm().status().to_clear, 1, "the second is taken out by the next edit");
    drop(vm.vm().edit().unwrap());
    assert_eq!(vm.vm().status().to_clear, 2);
    drop(first_use);
    host.run_for(MS);
    assert_eq!((vm.vm().status().to_clear, job.retired().is_signaled()), (1, false), "the first is cleared");
    assert!(host.run_while_waiting(NEVER, || job.retired().is_signaled() && vm.vm().status().to_clear == 0));
    assert_eq!(job.finished().status(), Status::Signaled(Ok(())));
    drop((second, vm, client));
    let audit = finish(host);
    assert!(audit.is_clean(), "{audit:#?}");
}

/// A client dies with a bind that waits, a bind that was cancelled, jobs on the hardware and jobs behind them.
#[test]
fn a_client_killed_in_mid_bind_leaves_no_page_mapped_and_no_byte() {
    for moment in 0..6 {
        let host = host(8);
        let owner = Owner::new(&host, 2 * MIB, &[]);
        let bystander = Owner::new(&host, MIB, &[]);
        let hung = JobSpec { fault: Some(FaultKind::Hang), ..JobSpec::new(MS, Work::Fill) };
        let first = owner.vm.submit(&owner.client, hung, VM_START, Work::Fill.data_bytes()).unwrap();
        let after = || vec![Dependency::from(first.finished())];
        let requests = [map(&owner.vm, &owner.bo, 4 * MIB, 2 * MIB), Request::Unmap { va: VM_START, len: MIB }];
        let bound = owner.vm.bind(&requests, after()).unwrap();
        let vm = owner.vm.vm().clone();
        host.run_for(MS * moment);
        let Owner { client, vm: own, bo, pair } = owner;
        match moment % 3 {
            0 => drop((client, own, bo, pair)),
            1 => drop((pair, bo, own, client)),
            _ => {
                drop(own.binder().close());
                host.run_for(MS);
                assert!(vm.status().poisoned, "a bind was cancelled");
                drop((own, client, bo, pair));
            }
        }
        let gone = vm.drained();
        drop(vm);
        let work = Work::Gears { frame: 1, width: 64, height: 32 };
        let other =
            bystander.vm.submit(&bystander.client, JobSpec::new(MS, work), VM_START, work.data_bytes()).unwrap();
        assert!(host.run_while_waiting(NEVER, || gone.is_drained()), "moment {moment}");
        assert!(first.finished().is_signaled() && bound.retired().is_signaled());
        assert!(host.run_while_waiting(NEVER, || other.retired().is_signaled()));
        drop(bystander);
        let audit = finish(host);
        assert!(audit.is_clean(), "moment {moment}: {audit:#?}");
    }
}

#[test]
fn a_client_s_memory_is_told_under_the_kernel_s_keys() {
    let host = host(8);
    let (owner, other) = (Owner::new(&host, MIB, &[]), Owner::new(&host, 64 * PAGE, &[]));
    let shared = owner.vm.external(2 * PAGE).unwrap();
    let pairs = [owner.vm.open(&shared).unwrap(), other.vm.open(&shared).unwrap()];
    owner.vm.evict(&owner.bo).unwrap();
    let job = other.draw(&host, 1, &[]);
    let told = [owner.vm.memory().unwrap().to_string(), other.vm.memory().unwrap().to_string()];
    let expected = |kib: [u64; 5]| {
        let [total, shared, resident, active, evictable] = kib;
        format!(
            "drm-total-vram:\t{total} KiB\ndrm-shared-vram:\t{shared} KiB\ndrm-resident-vram:\t{resident} KiB\n\
             drm-active-vram:\t{active} KiB\noutlive-evictable-vram:\t{evictable} KiB\n"
        )
    };
    // The job's fence hangs on all that the other one has open, the page of its commands among it.
    assert_eq!(told, [expected([1032, 8, 8, 8, 0]), expected([268, 8, 268, 268, 0])]);
    assert!(host.run_while_waiting(NEVER, || job.retired().is_signaled()));
    assert_eq!(other.vm.memory().unwrap().to_string(), expected([268, 8, 268, 0, 268]));
    let [here, there] = pairs;
    drop(there);
    host.settle();
    assert_eq!(owner.vm.memory().unwrap().shared, 0);
    drop((here, shared, owner, other));
    assert!(finish(host).is_clean());
}
