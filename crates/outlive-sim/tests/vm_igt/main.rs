//! Cases of the public suites `xe_vm` and `panthor_vm` of IGT, by name, on the simulated device: real binds, through the bind
//! queue, and jobs that read and write through the page tables. Which are left out, and why: `docs/conformance.md`.
//!
//! Upstream's addresses are taken from where users' mappings begin here. Where upstream clears memory between two rounds, the
//! rounds write different words.

#![expect(clippy::unwrap_used, clippy::std_instead_of_core, reason = "tests")]

use outlive::vm::{Flags, Request, Source, VmBo};
use outlive::{Dependency, JobFences, Status};
use outlive_sim::driver::{
    ClientConfig, HostConfig, JobSpec, SimBo, SimClient, SimDriver, SimHost, SimQueue, SimVm, VM_START, Work,
};
use outlive_sim::gpu::{Config, PAGE_BYTES, Reach};
use std::time::Duration;

#[path = "../finish/mod.rs"]
mod finish;
mod panthor;
mod xe;

use finish::{NEVER, finish};

const MS: Duration = Duration::from_millis(1);
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const PAGE: u64 = PAGE_BYTES as u64;

/// A device, and a client with an address space of 48 bits.
struct World {
    host: SimHost,
    client: SimClient,
    vm: SimVm,
}

/// A buffer, open in the client's address space.
struct Buffer {
    bo: SimBo,
    pair: VmBo<SimDriver>,
}

fn world(memory_mib: u64, engines: u32) -> World {
    let memory_bytes = memory_mib * MIB;
    // Running jobs look at what they use every 100 us.
    let gpu = Config { engines, memory_bytes, tick_ns: 100_000, interrupt_latency_ns: 2_000, ..Config::default() };
    let host = SimHost::new(HostConfig { gpu, ..HostConfig::default() }).unwrap();
    let (client, vm) = client(&host);
    World { host, client, vm }
}

fn client(host: &SimHost) -> (SimClient, SimVm) {
    let config = ClientConfig { reach: Reach::Bits48, ..ClientConfig::default() };
    let client = SimClient::new(host, "client", config).unwrap();
    let vm = SimVm::new(&client).unwrap();
    (client, vm)
}

/// What is written to an address in a round.
fn word(va: u64, round: u32) -> u32 {
    // CAST: any bits will do.
    (va.wrapping_mul(7229) ^ (va >> 32).wrapping_mul(5741)) as u32 ^ (round << 8)
}

fn after(job: &JobFences) -> Vec<Dependency> {
    vec![Dependency::from(job.finished())]
}

fn map(buffer: &Buffer, va: u64, len: u64, offset: u64) -> Request {
    let source = Source::Bo { bo: buffer.pair.id(), offset };
    Request::Map { va, len, source, flags: Flags::NONE, data: () }
}

fn sparse(va: u64, len: u64) -> Request {
    Request::Map { va, len, source: Source::Sparse, flags: Flags::NONE, data: () }
}

fn unmap(va: u64, len: u64) -> Request {
    Request::Unmap { va, len }
}

impl Buffer {
    /// Its words at some offsets.
    fn words(&self, offsets: impl IntoIterator<Item = u64>) -> Vec<u32> {
        let bytes = self.bo.read();
        let at = |offset: u64| bytes[offset as usize..].first_chunk().map(|word| u32::from_le_bytes(*word));
        offsets.into_iter().map(|offset| at(offset).unwrap()).collect()
    }
}

impl World {
    fn buffer(&self, bytes: u64) -> Buffer {
        let bo = self.vm.local(bytes).unwrap();
        let pair = self.vm.open(&bo).unwrap();
        Buffer { bo, pair }
    }

    /// Through the bind queue, after everything that was bound before.
    fn bind(&self, requests: &[Request]) -> JobFences {
        self.vm.bind(requests, Vec::new()).unwrap()
    }

    /// How many mappings users have.
    fn mappings(&self) -> usize {
        let edit = self.vm.vm().edit().unwrap();
        edit.iter().filter(|mapping| mapping.range.base() >= VM_START).count()
    }

    fn store_on(&self, queue: &SimQueue, va: u64, round: u32) -> JobFences {
        let work = Work::Store(word(va, round));
        self.vm.submit(queue, JobSpec::new(MS / 5, work), va, work.data_bytes()).unwrap()
    }

    /// Writes a word there.
    fn store(&self, va: u64, round: u32) -> JobFences {
        self.store_on(&self.client, va, round)
    }

    /// Waits until it went well.
    fn wait(&self, job: &JobFences) {
        assert!(self.host.run_while_waiting(NEVER, || job.retired().is_signaled()));
        assert_eq!(job.finished().status(), Status::Signaled(Ok(())));
    }

    fn wait_all(&self, jobs: &[JobFences]) {
        jobs.iter().for_each(|job| self.wait(job));
    }

    /// A job that reaches for what is not mapped fails, and no page is reached.
    fn faults(&self, va: u64) {
        let job = self.store(va, 9);
        assert!(self.host.run_while_waiting(NEVER, || job.retired().is_signaled()));
        assert!(matches!(job.finished().status(), Status::Signaled(Err(_))), "something is mapped at {va:#x}");
    }

    /// Everything is given back, and no job used what was not true any more. How many page faults there were.
    fn end(self) -> u64 {
        let Self { host, client, vm } = self;
        drop((client, vm));
        let audit = finish(host);
        let faults = audit.unexpected_page_faults;
        assert!(audit.is_clean() || faults > 0, "{audit:#?}");
        assert_eq!((audit.stale_translations, audit.conflicting_accesses, audit.bytes_leaked), (0, 0, 0), "{audit:#?}");
        faults
    }
}

/// The rows of `docs/conformance.md` say as many as are run here.
#[test]
fn the_document_counts_what_is_here() {
    let document = include_str!("../../../../docs/conformance.md");
    for (suite, cases, written) in [("xe_vm", 191, xe::names()), ("panthor_vm", 33, panthor::names())] {
        let count = written.len();
        let forbidden = if suite == "xe_vm" { 10 } else { 1 };
        let row = format!("| IGT `{suite}` (beside the 304) | {cases} | {count} | {count} | {forbidden} |");
        assert!(document.contains(&row), "no row `{row}`");
        let mut names = written;
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count, "a name twice");
    }
    assert!(document.contains("Not written, 107"), "191 less those written and those that cannot be");
    assert_eq!(191 - xe::names().len() - 10, 107);
}
