//! Jobs executed by hand: no device, only memory, a job's record and the time that the test gives it.

use super::*;
use crate::gpu::address_space::AddressSpace;
use crate::gpu::page_table::Protection;
use crate::gpu::ring::JobDescriptor;
use crate::gpu::rng::Rng;
use crate::gpu::types::{HwSeqno, JobId, PageId, QueueId, VmId};

const COMMANDS: Va = Va(0x1_0000);
const DATA: Va = Va(0x2_0000);
const FENCE: Va = Va(0x3_0000);
const END: Command = Command::End { fence: FENCE, value: 9, interrupt: Notify::Interrupt };

struct Bench {
    memory: Memory,
    space: AddressSpace,
    commands: PageId,
    data: [PageId; 2],
    fence: PageId,
    job: Job,
}

impl Bench {
    /// One page of commands, two of data, one with the fence.
    fn new(commands: &[Command], hw_time_ns: u64) -> Self {
        let mut bytes = Vec::new();
        for command in commands {
            command.encode(&mut bytes);
        }
        Self::from_bytes(&bytes, hw_time_ns)
    }

    fn from_bytes(bytes: &[u8], hw_time_ns: u64) -> Self {
        let mut memory = Memory::new(0).unwrap();
        let domain = memory.add_domain(1 << 20).unwrap();
        let owner = memory.add_owner().unwrap();
        let mut space = AddressSpace::new(&mut memory, domain, owner).unwrap();
        let mut map = |memory: &mut Memory, va| {
            let page = memory.allocate(domain, owner).unwrap();
            space.map(memory, va, page, Protection::ReadWrite).unwrap();
            page
        };
        let commands = map(&mut memory, COMMANDS);
        let data = [map(&mut memory, DATA), map(&mut memory, DATA.add(0x1000))];
        let fence = map(&mut memory, FENCE);
        memory.page_mut(commands).unwrap()[..bytes.len()].copy_from_slice(bytes);
        let descriptor = JobDescriptor {
            hw_seqno: HwSeqno(1),
            vm: VmId(1),
            job: JobId(1),
            hw_time_ns,
            commands: COMMANDS,
            commands_bytes: u32::try_from(bytes.len()).unwrap(),
            fault: None,
        };
        let mut job = Job::new(QueueId(0), descriptor);
        job.begin(QueueId(0), 0, &descriptor, Time::ZERO);
        Self { memory, space, commands, data, fence, job }
    }

    fn load(&mut self) -> Result<(), HwError> {
        self.job.load(&mut self.memory, self.space.root(), &mut Rng::new(1))
    }

    /// The job's progress after so much time on an engine.
    fn run_to(&mut self, active_ns: u64) -> Progress {
        self.job.active_ns = active_ns;
        self.job.run(&mut self.memory, self.space.root(), Time::from_ns(1000 + active_ns))
    }

    fn fence(&self) -> u64 {
        self.memory.load_u64(self.fence, 0).unwrap()
    }

    fn word(&self, offset: usize) -> u64 {
        self.memory.load_u64(self.data[0], offset).unwrap()
    }
}

const DONE: Progress = Progress::Done(Notify::Interrupt);

fn failed(offset: u32, kind: ExecutionError) -> Progress {
    Progress::Failed(HwError::Execution { offset, kind })
}

#[test]
fn work_is_done_as_time_passes() {
    let fill = Command::Fill { va: DATA, bytes: 4096, pattern: 0x0101_0101 };
    let mut bench = Bench::new(&[fill, END], 1000);
    bench.load().unwrap();
    assert_eq!(bench.run_to(0), Progress::Until { active_ns: 1000 });
    assert_eq!(bench.run_to(500), Progress::Until { active_ns: 1000 });
    assert_eq!((bench.word(2040), bench.word(2048)), (0x0101_0101_0101_0101, 0));
    assert_eq!(bench.fence(), 0);
    assert_eq!(bench.run_to(1000), DONE);
    assert_eq!((bench.word(4088), bench.fence()), (0x0101_0101_0101_0101, 9));
}

#[test]
fn without_a_time_of_its_own_a_job_takes_what_its_commands_cost() {
    let spin = Command::Spin { duration_ns: 300 };
    let fill = Command::Fill { va: DATA, bytes: 1600, pattern: 1 };
    let mut bench = Bench::new(&[spin, fill, END], 0);
    bench.load().unwrap();
    assert_eq!(bench.job.total_ns, 400);
    assert_eq!(bench.run_to(0), Progress::Until { active_ns: 300 });
    assert_eq!(bench.run_to(300), Progress::Until { active_ns: 400 });
    assert_eq!(bench.run_to(400), DONE);
}

#[test]
fn every_command_does_what_it_says() {
    let target = DATA.add(0x1000);
    let mut bench = Bench::new(
        &[
            Command::WriteValue { va: DATA, value: 0x1122_3344_5566_7788 },
            Command::Signal { va: DATA.add(8), value: 4 },
            Command::Signal { va: DATA.add(8), value: 2 },
            Command::Wait { va: DATA.add(8), value: 4 },
            Command::Spin { duration_ns: 10 },
            Command::TimeStamp { va: DATA.add(16) },
            Command::Copy { source: DATA.add(1), target: target.add(3), bytes: 100 },
            Command::End { fence: FENCE, value: 1, interrupt: Notify::Silent },
        ],
        0,
    );
    bench.load().unwrap();
    bench.run_to(0);
    assert_eq!(bench.word(8), 4, "a semaphore never goes back");
    bench.run_to(10);
    assert_eq!(bench.word(16), 1010);
    assert_eq!(bench.run_to(bench.job.total_ns), Progress::Done(Notify::Silent));
    let (source, target) = bench.data.into();
    let from = bench.memory.page(source).unwrap()[1..101].to_vec();
    assert_eq!(bench.memory.page(target).unwrap()[3..103], from);
    assert_eq!(from[..3], [0x77, 0x66, 0x55]);
}

#[test]
fn gears_are_drawn_row_by_row() {
    let gears = Command::Gears { va: DATA, width: 32, height: 32, frame: 3 };
    let mut bench = Bench::new(&[gears, END], 3200);
    bench.load().unwrap();
    bench.run_to(1600);
    let page = bench.memory.page(bench.data[0]).unwrap();
    let opaque = page.chunks_exact(4).filter(|pixel| pixel[3] == 255).count();
    assert_eq!(opaque, 16 * 32, "half of the rows");
    assert_eq!(bench.run_to(3200), DONE);
}

#[test]
fn a_wait_blocks_and_what_is_behind_it_goes_live_after_it() {
    let behind = Command::Fill { va: Va(0x9_0000), bytes: 8, pattern: 1 };
    let mut bench = Bench::new(&[Command::Wait { va: DATA, value: 2 }, behind, END], 100);
    bench.load().unwrap();
    assert_eq!(bench.run_to(0), Progress::Blocked);
    bench.memory.store_u64(bench.data[0], 0, 1).unwrap();
    assert_eq!(bench.job.wait_is_over(&bench.memory, bench.space.root()), Ok(false));
    bench.memory.store_u64(bench.data[0], 0, 3).unwrap();
    assert_eq!(bench.job.wait_is_over(&bench.memory, bench.space.root()), Ok(true));
    let Progress::Failed(HwError::PageFault(fault)) = bench.run_to(0) else { panic!("no fault") };
    assert_eq!(fault.va, Va(0x9_0000), "only now is it looked for");
}

#[test]
fn malformed_bytes_fail_where_they_are_after_what_is_before_them() {
    let mut bytes = Vec::new();
    Command::WriteValue { va: DATA, value: 5 }.encode(&mut bytes);
    bytes.extend_from_slice(&[0xff; 16]);
    let mut bench = Bench::from_bytes(&bytes, 100);
    bench.load().unwrap();
    assert_eq!(bench.run_to(0), failed(24, ExecutionError::Malformed));
    assert_eq!((bench.word(0), bench.fence()), (5, 0));
}

#[test]
fn commands_must_end() {
    let mut bench = Bench::new(&[Command::Spin { duration_ns: 10 }], 10);
    bench.load().unwrap();
    assert_eq!(bench.run_to(10), failed(16, ExecutionError::MissingEnd));
    let mut empty = Bench::new(&[], 10);
    empty.load().unwrap();
    assert_eq!(empty.run_to(0), failed(0, ExecutionError::MissingEnd));
}

#[test]
fn commands_that_change_under_the_job_are_noticed() {
    let mut bench = Bench::new(&[Command::Spin { duration_ns: 10 }, END], 10);
    bench.load().unwrap();
    bench.run_to(0);
    bench.memory.store_u64(bench.commands, 16, 0).unwrap();
    assert_eq!(bench.run_to(10), failed(16, ExecutionError::Changed));
}

#[test]
fn a_page_that_goes_away_is_noticed_at_the_next_touch_and_at_the_end() {
    let fill = Command::Fill { va: DATA, bytes: 0x2000, pattern: 7 };
    let mut bench = Bench::new(&[fill, Command::Spin { duration_ns: 512 }, END], 1024);
    bench.load().unwrap();
    bench.run_to(600);
    let root = bench.space.root();
    bench.job.touch(&mut bench.memory, root).unwrap();
    bench.space.unmap(&mut bench.memory, DATA.add(0x1000)).unwrap();
    let fault = bench.job.touch(&mut bench.memory, root).unwrap_err();
    assert_eq!(fault.va, DATA.add(0x1000));
    let end = bench.run_to(1024);
    assert_eq!(end, Progress::Failed(HwError::PageFault(fault)));
    assert_eq!(bench.fence(), 0);
}

#[test]
fn a_scribble_damages_what_may_be_written() {
    let copy = Command::Copy { source: DATA.add(64), target: DATA.add(0x1000), bytes: 64 };
    let mut bench = Bench::new(&[copy, END], 100);
    bench.load().unwrap();
    bench.job.active_ns = 77;
    let root = bench.space.root();
    bench.job.scribble(&mut bench.memory, root).unwrap();
    let (source, target) = bench.data.into();
    assert_ne!(bench.memory.load_u64(target, 0), Some(0));
    assert_eq!(bench.memory.load_u64(target, 8), Some(0));
    assert_eq!(bench.memory.load_u64(source, 64), Some(0));
}

#[test]
fn too_many_commands_are_refused() {
    let mut bench = Bench::new(&[END], 0);
    bench.job.descriptor.commands_bytes = 1 << 30;
    assert_eq!(bench.load(), Err(HwError::BadDescriptor));
}
