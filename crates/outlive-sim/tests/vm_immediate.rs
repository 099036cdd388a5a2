//! Address spaces that are changed by running bind jobs, on the simulated device: in order with jobs, with all memory taken when
//! they are accepted, evicted and brought back, and killed in the middle.

#![expect(clippy::unwrap_used, clippy::std_instead_of_core, reason = "tests")]

use outlive::vm::{Flags, Immediate, Request, Source, VmBo};
use outlive::{Dependency, JobFences, Status};
use outlive_sim::driver::{
    ClientConfig, HostConfig, JobSpec, SimBo, SimClient, SimDriver, SimHost, SimVm, SimVmError, VM_START, Work,
};
use outlive_sim::gpu::{Config, FaultKind, PAGE_BYTES};
use std::time::Duration;

mod finish;
use finish::{NEVER, finish};

const MS: Duration = Duration::from_millis(1);
const MIB: u64 = 1 << 20;
const PAGE: u64 = PAGE_BYTES as u64;
const OK: Status = Status::Signaled(Ok(()));

fn host(memory_mib: u64) -> SimHost {
    let gpu = Config { engines: 1, memory_bytes: memory_mib * MIB, interrupt_latency_ns: 2_000, ..Config::default() };
    SimHost::new(HostConfig { gpu, ..HostConfig::default() }).unwrap()
}

/// A client with an address space and a buffer that is mapped at its start.
struct Owner {
    client: SimClient,
    vm: SimVm<Immediate>,
    bo: SimBo,
    /// Keeps it open.
    pair: VmBo<SimDriver>,
}

fn map(pair: &VmBo<SimDriver>, at: u64, bytes: u64) -> Request {
    let source = Source::Bo { bo: pair.id(), offset: 0 };
    Request::Map { va: VM_START + at, len: bytes, source, flags: Flags::NONE, data: () }
}

const fn unmap(at: u64, bytes: u64) -> Request {
    Request::Unmap { va: VM_START + at, len: bytes }
}

impl Owner {
    fn new(host: &SimHost, bytes: u64) -> Self {
        let client = SimClient::new(host, "client", ClientConfig::default()).unwrap();
        let vm = SimVm::immediate(&client).unwrap();
        let bo = vm.local(bytes).unwrap();
        let pair = vm.open(&bo).unwrap();
        let bound = vm.bind(&[map(&pair, 0, bytes)], Vec::new()).unwrap();
        assert!(host.run_while_waiting(NEVER, || bound.retired().is_signaled()));
        assert_eq!(bound.finished().status(), OK);
        Self { client, vm, bo, pair }
    }

    fn submit(&self, spec: JobSpec, at: u64) -> JobFences {
        let bytes = spec.work.data_bytes();
        self.vm.submit(&self.client, spec, VM_START + at, bytes).unwrap()
    }

    /// What is mapped by users, in bytes.
    fn mapped(&self) -> u64 {
        self.vm.vm().look().unwrap().iter().map(|mapping| mapping.range.len()).sum()
    }
}

#[test]
fn binds_and_jobs_go_in_order_through_their_fences() {
    let host = host(8);
    let owner = Owner::new(&host, MIB);
    let second = owner.vm.local(MIB).unwrap();
    let open = owner.vm.open(&second).unwrap();
    // A job that the bind waits for, and one that waits for the bind: what it uses is mapped by then.
    let first = owner.submit(JobSpec::new(5 * MS, Work::Fill), 0);
    let requests = [map(&open, 4 * MIB, MIB), map(&owner.pair, 8 * MIB, 64 * PAGE)];
    let bound = owner.vm.bind(&requests, vec![Dependency::from(first.finished())]).unwrap();
    let last = owner.submit(JobSpec::new(MS, Work::Copy), 4 * MIB);
    host.run_for(3 * MS);
    assert_eq!(owner.mapped(), MIB, "the address space is what its page tables are");
    assert!(!bound.finished().is_signaled() && !last.finished().is_signaled());
    assert!(host.run_while_waiting(NEVER, || last.retired().is_signaled()));
    assert_eq!(owner.mapped(), 2 * MIB + 64 * PAGE);
    let times = [&first, &bound, &last].map(|job| job.finished().timestamp().unwrap());
    assert!(times.is_sorted(), "{times:?}");
    assert_eq!(last.finished().status(), OK);
    // A hole in what was mapped in large pages, and one that is closed again, while a job draws beside it.
    let beside = owner.submit(JobSpec::new(2 * MS, Work::Fill), 0);
    let holes = [unmap(4 * MIB + 16 * PAGE, 16 * PAGE), unmap(8 * MIB, 64 * PAGE), map(&open, 4 * MIB, MIB)];
    let unbound = owner.vm.bind(&holes, vec![Dependency::from(last.finished())]).unwrap();
    assert!(host.run_while_waiting(NEVER, || unbound.retired().is_signaled() && beside.retired().is_signaled()));
    assert_eq!([unbound, beside].map(|job| job.finished().status()), [OK; 2]);
    assert_eq!(owner.mapped(), 2 * MIB);
    drop((second, open));
    drop(owner);
    let audit = finish(host);
    assert!(audit.is_clean(), "{audit:#?}");
}

/// All tables that a bind can need are taken when it is accepted: it is refused then, or carried out with no memory left.
#[test]
fn memory_for_page_tables_is_taken_when_a_bind_is_accepted() {
    let host = host(8);
    let owner = Owner::new(&host, 2 * MIB);
    let first = owner.submit(JobSpec::new(5 * MS, Work::Fill), 0);
    // Far apart, and misaligned: each wants tables of its own.
    let far: Vec<_> = (1..9).map(|at| map(&owner.pair, at * (1 << 30) + 16 * PAGE, 2 * MIB)).collect();
    let before = host.bytes_in_use();
    let bound = owner.vm.bind(&far, vec![Dependency::from(first.finished())]).unwrap();
    assert!(host.bytes_in_use() >= before + 16 * PAGE, "put aside");
    let mut rest = Vec::new();
    while let Ok(bo) = owner.vm.local(PAGE) {
        rest.push(bo);
    }
    assert!(matches!(owner.vm.bind(&[map(&owner.pair, 1 << 35, MIB)], Vec::new()), Err(SimVmError::Memory(_))));
    assert!(host.run_while_waiting(NEVER, || bound.retired().is_signaled()));
    assert_eq!((bound.finished().status(), owner.mapped()), (OK, 18 * MIB));
    // Unmapping needs room for what it cuts, which is taken beforehand, too.
    rest.truncate(rest.len() - 4);
    host.settle();
    let unbound = owner.vm.bind(&[unmap(PAGE, 2 * MIB - 2 * PAGE)], Vec::new()).unwrap();
    assert!(host.run_while_waiting(NEVER, || unbound.retired().is_signaled()));
    assert_eq!((unbound.finished().status(), owner.mapped()), (OK, 16 * MIB + 2 * PAGE));
    drop((owner, rest));
    let audit = finish(host);
    assert!(audit.is_clean(), "{audit:#?}");
}

/// A buffer goes out of the device's memory and comes back with its entries, and the pictures in it are the same.
#[test]
fn what_is_evicted_comes_back_with_its_entries() {
    let pictures = |evicts: bool| {
        let host = host(8);
        let owner = Owner::new(&host, 2 * MIB);
        let mut drawn = Vec::new();
        for frame in 0..6 {
            if evicts {
                owner.vm.evict(&owner.bo).unwrap();
                assert!(!owner.bo.is_resident());
            }
            let work = Work::Gears { frame, width: 64, height: 32 };
            let job = owner.submit(JobSpec::new(MS, work), 0);
            assert!(matches!(owner.vm.evict(&owner.bo), Err(SimVmError::Busy(_))), "in use");
            assert!(host.run_while_waiting(NEVER, || job.retired().is_signaled()));
            assert_eq!(job.finished().status(), OK);
            drawn.push(owner.bo.read()[..64 * 32 * 4].to_vec());
        }
        drop(owner);
        let audit = finish(host);
        assert!(audit.is_clean(), "{audit:#?}");
        drawn
    };
    let ample = pictures(false);
    assert!(ample == pictures(true), "other pictures");
    assert!(ample.windows(2).all(|pair| pair[0] != pair[1]));
}

#[test]
fn users_map_in_one_address_space_or_in_the_other() {
    let host = host(8);
    let owner = Owner::new(&host, PAGE);
    let staged = SimVm::new(&owner.client).unwrap();
    let bo = staged.local(PAGE).unwrap();
    let pair = staged.open(&bo).unwrap();
    assert!(matches!(staged.change(&[map(&pair, 0, PAGE)]), Err(SimVmError::Plan(_))), "the range was given up");
    assert!(matches!(SimVm::immediate(&owner.client), Err(SimVmError::Vm(_))), "once");
    drop((pair, bo, staged, owner));
    let audit = finish(host);
    assert!(audit.is_clean(), "{audit:#?}");
}

/// A client dies with a bind that waits, a bind that was cancelled, jobs on the hardware and jobs behind them.
#[test]
fn a_client_killed_in_mid_bind_leaves_no_page_mapped_and_no_byte() {
    for moment in 0..6 {
        let host = host(8);
        let owner = Owner::new(&host, 2 * MIB);
        let bystander = Owner::new(&host, MIB);
        let hung = JobSpec { fault: Some(FaultKind::Hang), ..JobSpec::new(MS, Work::Fill) };
        let first = owner.submit(hung, 0);
        let requests = [map(&owner.pair, 4 * MIB, 2 * MIB), unmap(0, MIB)];
        let bound = owner.vm.bind(&requests, vec![Dependency::from(first.finished())]).unwrap();
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
        let other = bystander.submit(JobSpec::new(MS, work), 0);
        assert!(host.run_while_waiting(NEVER, || gone.is_drained()), "moment {moment}");
        assert!(first.finished().is_signaled() && bound.retired().is_signaled());
        assert!(host.run_while_waiting(NEVER, || other.retired().is_signaled()));
        assert_eq!(other.finished().status(), OK);
        drop(bystander);
        let audit = finish(host);
        assert!(audit.is_clean(), "moment {moment}: {audit:#?}");
    }
}
