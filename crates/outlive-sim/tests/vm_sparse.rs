//! Sparse mappings, and address spaces of 48 bits, as jobs see them: real entries, written by binds.

#![expect(clippy::unwrap_used, clippy::std_instead_of_core, reason = "tests")]

use outlive::vm::{Flags, Request, Source};
use outlive::{Dependency, JobFences, Status, Time};
use outlive_sim::driver::{ClientConfig, HostConfig, JobSpec, SimBo, SimClient, SimHost, SimVm, VM_START, Work};
use outlive_sim::gpu::{Audit, Config, Reach};
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const NEVER: Time = Time::from_ns(u64::MAX / 4);

struct World {
    host: SimHost,
    client: SimClient,
    vm: SimVm,
}

fn world(reach: Reach) -> World {
    let gpu = Config { engines: 1, memory_bytes: 8 * MIB, interrupt_latency_ns: 2_000, ..Config::default() };
    let host = SimHost::new(HostConfig { gpu, ..HostConfig::default() }).unwrap();
    let client = SimClient::new(&host, "client", ClientConfig { reach, ..ClientConfig::default() }).unwrap();
    let vm = SimVm::new(&client).unwrap();
    World { host, client, vm }
}

impl World {
    /// Fills half of what is at `va`, and copies that half to the other.
    fn copy(&self, va: u64) -> JobFences {
        let work = Work::Copy;
        let job = self.vm.submit(&self.client, JobSpec::new(MS, work), va, work.data_bytes()).unwrap();
        assert!(self.host.run_while_waiting(NEVER, || job.retired().is_signaled()));
        job
    }

    fn finish(self) -> Audit {
        let Self { host, client, vm } = self;
        drop((client, vm));
        assert!(host.run_while_waiting(NEVER, || host.bytes_in_use() == 0), "memory is left");
        host.finish()
    }
}

fn sparse(va: u64, len: u64) -> Request {
    Request::Map { va, len, source: Source::Sparse, flags: Flags::NONE, data: () }
}

fn map(vm: &SimVm, bo: &SimBo, va: u64, len: u64) -> Request {
    let source = Source::Bo { bo: vm.vm().edit().unwrap().find_bo(bo).unwrap().id(), offset: 0 };
    Request::Map { va, len, source, flags: Flags::NONE, data: () }
}

#[test]
fn jobs_read_zero_from_what_is_sparse_and_write_nowhere() {
    let world = world(Reach::Bits39);
    let World { host, vm, .. } = &world;
    let half = Work::Copy.data_bytes() / 2;
    let before = host.bytes_in_use();
    vm.change(&[sparse(VM_START, GIB)]).unwrap();
    assert!(host.bytes_in_use() - before <= 2 * 4096, "1 GiB takes an entry: {} bytes", host.bytes_in_use() - before);
    assert_eq!(world.copy(VM_START + 5 * MIB).finished().status(), Status::Signaled(Ok(())));
    // The second half is memory: what is copied to it is zero, whatever was there.
    let bo = vm.local(half).unwrap();
    let open = vm.open(&bo).unwrap();
    vm.change(&[map(vm, &bo, VM_START + 64 * MIB, half)]).unwrap();
    let fill = vm.submit(&world.client, JobSpec::new(MS, Work::Fill), VM_START + 64 * MIB, half).unwrap();
    assert!(host.run_while_waiting(NEVER, || fill.retired().is_signaled()));
    assert!(bo.read().iter().any(|byte| *byte != 0));
    vm.change(&[map(vm, &bo, VM_START + half, half)]).unwrap();
    world.copy(VM_START);
    assert!(bo.read().iter().all(|byte| *byte == 0), "zeros were copied");
    // The first half is memory: it is filled, and copied to nowhere.
    vm.change(&[sparse(VM_START + half, half), map(vm, &bo, VM_START, half)]).unwrap();
    world.copy(VM_START);
    assert!(bo.read().iter().any(|byte| *byte != 0), "written, beside what is sparse");
    // Unmapped, it is a fault again.
    vm.change(&[Request::Unmap { va: VM_START, len: GIB }]).unwrap();
    let fault = world.copy(VM_START + 5 * MIB);
    assert!(matches!(fault.finished().status(), Status::Signaled(Err(_))), "{:?}", fault.finished().status());
    drop((open, bo));
    let audit = world.finish();
    assert_eq!((audit.stale_translations, audit.bytes_leaked), (0, 0));
    assert_eq!(audit.unexpected_page_faults, 1, "the one above: {audit:#?}");
}

#[test]
fn binds_of_sparse_ranges_promise_the_tables_that_their_edges_need() {
    let world = world(Reach::Bits48);
    let World { host, vm, .. } = &world;
    let before = host.bytes_in_use();
    // All that there is but for a page at each end, which is at most two tables of each level; then a hole in the middle.
    let end = Reach::Bits48.end().0;
    let all = sparse(VM_START + 4096, end - VM_START - 8192);
    let bound = vm.bind(&[all], Vec::new()).unwrap();
    let hole = Request::Unmap { va: 1 << 46, len: 4096 };
    let cut = vm.bind(&[hole], vec![Dependency::from(bound.finished())]).unwrap();
    assert!(host.run_while_waiting(NEVER, || cut.retired().is_signaled()));
    assert_eq!([&bound, &cut].map(|job| job.finished().status()), [Status::Signaled(Ok(())); 2]);
    let tables = (host.bytes_in_use() - before) / 4096;
    assert!(tables <= 9, "two of three levels, and one of each for the hole: {tables}");
    for va in [VM_START + 4096, (1 << 46) + 4096, end - 4096 - Work::Copy.data_bytes()] {
        assert_eq!(world.copy(va).finished().status(), Status::Signaled(Ok(())), "{va:#x}");
    }
    // Undone, when there is no memory for the rest.
    let bo = vm.external(MIB).unwrap();
    let open = vm.open(&bo).unwrap();
    let scattered = (0..2000).map(|at| map(vm, &bo, (1 << 45) + at * GIB, 4096));
    assert!(vm.change(&scattered.collect::<Vec<_>>()).is_err());
    assert_eq!(world.copy(1 << 45).finished().status(), Status::Signaled(Ok(())));
    assert!(bo.read().iter().all(|byte| *byte == 0));
    drop((open, bo));
    let audit = world.finish();
    assert!(audit.is_clean(), "{audit:#?}");
}
