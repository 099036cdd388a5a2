//! A host in miniature: maps buffers, writes commands, puts jobs into rings, and lets the checkers watch.

#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::allow_attributes, reason = "an expectation would be unmet where all is used")]
#![allow(clippy::unwrap_used, reason = "tests")]
#![allow(unreachable_pub, reason = "one module of several test binaries")]

use outlive_sim::gpu::{
    AddressSpace, Audit, Checkers, Command, Config, FaultKind, Gpu, HwSeqno, Interrupt, JobDescriptor, JobId, Memory,
    Notify, OwnerId, PAGE_BYTES, PageId, Protection, QueueId, ResetReport, Stamped, Time, Va, VmId,
};

pub const MS: u64 = 1_000_000;
pub const VM: VmId = VmId(1);

/// Buffers lie here, one behind the other with a gap.
const BUFFERS: u64 = 0x1000_0000;

pub struct Buffer {
    pub va: Va,
    pub pages: Vec<PageId>,
}

pub struct Host {
    pub memory: Memory,
    pub gpu: Gpu,
    pub space: AddressSpace,
    pub owner: OwnerId,
    pub checkers: Checkers,
    pub log: Vec<Stamped>,
    pub interrupts: Vec<Interrupt>,
    pub resets: Vec<ResetReport>,
    pub now: Time,
    pub fence: Buffer,
    next_va: u64,
    next_job: u64,
}

pub fn small() -> Config {
    Config { memory_bytes: 16 << 20, ..Config::default() }
}

impl Host {
    pub fn new(config: Config) -> Self {
        let mut memory = Memory::new(16 << 20).unwrap();
        memory.tap_mut().switch_on();
        let gpu = Gpu::new(&mut memory, config).unwrap();
        let mut host = Self::on(memory, gpu);
        host.fence = host.buffer(1);
        host
    }

    fn on(mut memory: Memory, mut gpu: Gpu) -> Self {
        let owner = memory.add_owner().unwrap();
        let space = AddressSpace::new(&mut memory, gpu.domain(), owner).unwrap();
        gpu.bind_vm(VM, &space).unwrap();
        Self {
            memory,
            gpu,
            space,
            owner,
            checkers: Checkers::new(),
            log: Vec::new(),
            interrupts: Vec::new(),
            resets: Vec::new(),
            now: Time::ZERO,
            fence: Buffer { va: Va(0), pages: Vec::new() },
            next_va: BUFFERS,
            next_job: 1,
        }
    }

    /// A buffer of so many pages in the device's memory, mapped.
    pub fn buffer(&mut self, pages: u32) -> Buffer {
        let domain = self.gpu.domain();
        let va = Va(self.next_va);
        let mut list = Vec::new();
        self.memory.allocate_many(domain, self.owner, pages, &mut list).unwrap();
        for page in &list {
            let at = Va(self.next_va);
            self.space.map(&mut self.memory, at, *page, Protection::ReadWrite).unwrap();
            self.next_va += PAGE_BYTES as u64;
        }
        self.next_va += PAGE_BYTES as u64;
        Buffer { va, pages: list }
    }

    pub fn unmap(&mut self, buffer: &Buffer) {
        for i in 0..buffer.pages.len() {
            let va = buffer.va.add((i * PAGE_BYTES) as u64);
            self.space.unmap(&mut self.memory, va).unwrap();
        }
    }

    pub fn free(&mut self, buffer: &Buffer) {
        for page in &buffer.pages {
            self.memory.free(*page).unwrap();
        }
    }

    pub fn ring(&mut self) -> QueueId {
        self.gpu.create_ring(&mut self.memory, 16).unwrap()
    }

    /// The number of the job that is made next.
    pub fn next_job(&self) -> u64 {
        self.next_job
    }

    /// A descriptor for these commands and an end; the fence gets the job's number.
    pub fn job(&mut self, commands: &[Command], hw_time_ns: u64) -> JobDescriptor {
        let n = self.next_job;
        self.next_job += 1;
        let mut bytes = Vec::new();
        for command in commands {
            command.encode(&mut bytes);
        }
        let fence = self.fence.va;
        Command::End { fence, value: n, interrupt: Notify::Interrupt }.encode(&mut bytes);
        let room = self.buffer(u32::try_from(bytes.len().div_ceil(PAGE_BYTES)).unwrap());
        for (page, chunk) in room.pages.iter().zip(bytes.chunks(PAGE_BYTES)) {
            self.memory.page_mut(*page).unwrap()[..chunk.len()].copy_from_slice(chunk);
        }
        JobDescriptor {
            hw_seqno: HwSeqno(n),
            vm: VM,
            job: JobId(n),
            hw_time_ns,
            commands: room.va,
            commands_bytes: u32::try_from(bytes.len()).unwrap(),
            fault: None,
        }
    }

    pub fn submit(&mut self, queue: QueueId, job: &JobDescriptor) {
        self.gpu.submit(&mut self.memory, self.now, queue, job).unwrap();
        self.collect();
    }

    /// Submits a job that only takes time.
    pub fn spin(&mut self, queue: QueueId, hw_time_ns: u64) -> HwSeqno {
        let job = self.job(&[], hw_time_ns);
        self.submit(queue, &job);
        job.hw_seqno
    }

    pub fn faulty(&mut self, queue: QueueId, hw_time_ns: u64, fault: FaultKind) -> JobDescriptor {
        let job = self.job(&[], hw_time_ns);
        let job = JobDescriptor { fault: Some(fault), ..job };
        self.submit(queue, &job);
        job
    }

    /// Goes from event to event up to `ns`.
    pub fn run_to(&mut self, ns: u64) {
        let until = Time::from_ns(ns);
        self.collect();
        while let Some(at) = self.gpu.next_event().filter(|at| *at <= until) {
            self.gpu.advance(&mut self.memory, at);
            self.collect();
        }
        self.now = until;
        self.gpu.advance(&mut self.memory, until);
        self.collect();
    }

    fn collect(&mut self) {
        while let Some(interrupt) = self.gpu.poll_interrupt() {
            self.interrupts.push(interrupt);
        }
        while let Some(report) = self.gpu.poll_reset() {
            self.resets.push(report);
        }
        self.log.extend_from_slice(self.memory.tap().seen());
        self.checkers.drain(&mut self.memory);
    }

    pub fn fence_value(&self) -> u64 {
        self.memory.load_u64(self.fence.pages[0], 0).unwrap()
    }

    /// Sequence numbers in the order of their interrupts.
    pub fn order(&self) -> Vec<u64> {
        self.interrupts.iter().map(|interrupt| interrupt.hw_seqno.0).collect()
    }

    /// The checkers' counts, without what the host itself never gave back.
    pub fn audit(mut self) -> Audit {
        self.collect();
        let mut audit = self.checkers.finish();
        audit.bytes_leaked = 0;
        audit.violations.retain(|words| !words.contains("of pages were never freed"));
        audit
    }
}
