//! A job on the hardware: its commands as fetched, how far it is, and the pages that it keeps alive.
//!
//! # Time
//!
//! Every command costs an engine some time ([`Command::cost_ns`]). If the descriptor names a hardware time, all costs are
//! scaled so that the job takes exactly that; else it takes their sum, and at least 1 ns. Only time on an engine counts.
//! Work is done as time passes: a fill that is half through has written half its bytes.
//!
//! # Pages
//!
//! When a job starts, the device fetches its commands and touches every page that they name up to the first wait; what
//! comes behind a wait goes live once the wait is over. From then on until the job has stopped, those pages may be
//! touched at any moment, and are: at every tick, at every rotation and at the end the device walks to each of them
//! again and finds out if one is gone or is another. The bytes of a command are fetched anew when its turn comes, and
//! must still be what they were.
//!
//! # States
//!
//! *Healthy*: makes progress while on an engine. *Hung*: makes none, scribbles over what it may write, keeps its engine.
//! *Stopping*: was cancelled and goes on so for a while. *Frozen*: as hung, a reset is under way or has failed.

use super::command::{Command, JOB_BYTES_MAX};
use super::execute::{Step, Work, ranges};
use super::faults::{ExecutionError, FaultKind, HwError};
use super::memory::{Memory, index};
use super::mmu;
use super::observe::Observation;
use super::page_table::{Fault, Tables, translate, walk};
use super::ring::JobDescriptor;
use super::rng::Rng;
use super::types::{Access, PageId, QueueId, Time, Va};

const PAGE: u64 = 4096;

/// How a job behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Healthy,
    Hung,
    Stopping { at: Time, scribbles: bool },
    Frozen,
}

/// Where a started job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Nowhere: the record is free.
    Nowhere,
    /// On this engine.
    Engine(u32),
    /// Waiting for an engine, in its ring's `ready`.
    Ready,
    /// Waiting for a semaphore.
    Blocked,
}

/// A piece of one page that a job uses.
#[derive(Debug, Clone, Copy)]
struct LiveUse {
    va: Va,
    bytes: u32,
    /// None where there is no memory behind.
    page: Option<PageId>,
    access: Access,
}

/// A job's record. Records are used again, so that their vectors keep their room.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) queue: QueueId,
    /// Which job of its ring.
    pub(crate) ring_index: u64,
    pub(crate) descriptor: JobDescriptor,
    pub(crate) place: Place,
    pub(crate) mode: Mode,
    pub(crate) start: Time,
    pub(crate) active_ns: u64,
    pub(crate) total_ns: u64,
    /// Time on an engine at which the fault on demand strikes.
    pub(crate) fault_at_ns: u64,
    pub(crate) bytes: Vec<u8>,
    pub(crate) steps: Vec<Step>,
    /// The step that is next or under way.
    pub(crate) step: usize,
    /// Whether that step was fetched for execution.
    pub(crate) begun: bool,
    /// How much of its work is done.
    pub(crate) units_done: u64,
    live: Vec<LiveUse>,
    /// Steps whose pages are live.
    live_steps: usize,
    /// The tables of the last walk that was reported.
    tables: Option<Tables>,
}

impl Job {
    pub(crate) const fn new(queue: QueueId, descriptor: JobDescriptor) -> Self {
        Self {
            queue,
            ring_index: 0,
            descriptor,
            place: Place::Nowhere,
            mode: Mode::Healthy,
            start: Time::ZERO,
            active_ns: 0,
            total_ns: 1,
            fault_at_ns: u64::MAX,
            bytes: Vec::new(),
            steps: Vec::new(),
            step: 0,
            begun: false,
            units_done: 0,
            live: Vec::new(),
            live_steps: 0,
            tables: None,
        }
    }

    /// Makes the record that of a job about to start.
    pub(crate) fn begin(&mut self, queue: QueueId, n: u64, job: &JobDescriptor, now: Time) {
        self.queue = queue;
        self.ring_index = n;
        self.descriptor = *job;
        self.place = Place::Ready;
        self.mode = Mode::Healthy;
        self.start = now;
        self.active_ns = 0;
        self.total_ns = 1;
        self.fault_at_ns = u64::MAX;
        self.steps.clear();
        self.step = 0;
        self.begun = false;
        self.units_done = 0;
        self.live.clear();
        self.live_steps = 0;
        self.tables = None;
    }

    /// Fetches the commands, lays out the job's time, and touches what it names.
    pub(crate) fn load(&mut self, memory: &mut Memory, root: mmu::Root, rng: &mut Rng) -> Result<(), HwError> {
        let JobDescriptor { commands, commands_bytes, .. } = self.descriptor;
        if commands_bytes > JOB_BYTES_MAX {
            return Err(HwError::BadDescriptor);
        }
        // What the last job left here is overwritten.
        self.bytes.resize(index(commands_bytes), 0);
        mmu::read(memory, root, commands, Access::ControlRead, &mut self.bytes).map_err(HwError::PageFault)?;
        self.decode();
        self.lay_out_time();
        if matches!(self.descriptor.fault, Some(FaultKind::Hang | FaultKind::PageFault | FaultKind::Error)) {
            // Somewhere in the middle half, so that part of the work is done.
            self.fault_at_ns = self.total_ns / 4 + rng.below(self.total_ns / 2 + 1);
        }
        let fetched = u64::from(commands_bytes);
        self.go_live(memory, root, commands, fetched, Access::ControlRead)
            .and_then(|()| self.extend_live(memory, root))
            .map_err(HwError::PageFault)
    }

    /// Turns the bytes into steps. Always ends with an end of job or a step that fails.
    fn decode(&mut self) {
        let mut offset = 0;
        loop {
            let rest = &self.bytes[index(offset)..];
            let (work, length) = match Command::decode(rest) {
                _ if rest.is_empty() => (Work::Fail(ExecutionError::MissingEnd), 0),
                Ok((command, length)) => (Work::Run(command), length),
                Err(_) => (Work::Fail(ExecutionError::Malformed), 0),
            };
            self.steps.push(Step { offset, length, begins_ns: 0, ends_ns: 0, work });
            offset += length;
            if matches!(work, Work::Fail(_) | Work::Run(Command::End { .. })) {
                return;
            }
        }
    }

    /// Gives every step its share of the job's hardware time.
    fn lay_out_time(&mut self) {
        let cost = |step: &Step| match step.work {
            Work::Run(command) => command.cost_ns(),
            Work::Fail(_) => 0,
        };
        let costs = self.steps.iter().fold(0_u64, |sum, step| sum.saturating_add(cost(step)));
        let wanted = self.descriptor.hw_time_ns;
        self.total_ns = if wanted > 0 { wanted } else { costs.max(1) };
        let total = self.total_ns;
        let scale = |sum: u64| {
            if costs == total || costs == 0 {
                return sum;
            }
            let scaled = u128::from(sum) * u128::from(total) / u128::from(costs);
            u64::try_from(scaled).unwrap_or(total)
        };
        let mut sum = 0_u64;
        for step in &mut self.steps {
            step.begins_ns = scale(sum);
            sum = sum.saturating_add(cost(step));
            step.ends_ns = scale(sum);
            if let Work::Run(Command::End { .. }) = step.work {
                (step.begins_ns, step.ends_ns) = (total, total);
            }
        }
    }

    /// Touches what the steps up to the next wait name.
    pub(crate) fn extend_live(&mut self, memory: &mut Memory, root: mmu::Root) -> Result<(), Fault> {
        while let Some(step) = self.steps.get(self.live_steps) {
            let Work::Run(command) = step.work else { break };
            self.live_steps += 1;
            for (va, bytes, access) in ranges(&command).into_iter().flatten() {
                self.go_live(memory, root, va, bytes, access)?;
            }
            if matches!(command, Command::Wait { .. }) {
                break;
            }
        }
        Ok(())
    }

    /// Touches every page of a range, and keeps it in mind.
    fn go_live(
        &mut self,
        memory: &mut Memory,
        root: mmu::Root,
        va: Va,
        bytes: u64,
        access: Access,
    ) -> Result<(), Fault> {
        let end = va.add(bytes);
        let mut at = va;
        while at < end {
            let next = Va(((at.0 | (PAGE - 1)).saturating_add(1)).min(end.0));
            let found = walk(memory, root, at, access)?;
            self.report_tables(memory, root.table, found.tables);
            let job = self.descriptor.job;
            if let Some(page) = found.page {
                memory.tap_mut().observe(Observation::Live { job, page, access });
            }
            // CAST: at most a page.
            let bytes = (next.0 - at.0) as u32;
            self.live.push(LiveUse { va: at, bytes, page: found.page, access });
            at = next;
        }
        Ok(())
    }

    /// Reports the tables of a walk that differ from those of the walk before, each once.
    fn report_tables(&mut self, memory: &mut Memory, root: PageId, tables: Tables) {
        if self.tables == Some(tables) {
            return;
        }
        let known = self.tables.replace(tables);
        let (job, access) = (self.descriptor.job, Access::ControlRead);
        let mut report = |index| {
            let page = PageId { index, ..root };
            memory.tap_mut().observe(Observation::Live { job, page, access });
        };
        if known.is_none() {
            report(root.index);
        }
        let mut above = root.index;
        for (level, index) in tables.into_iter().enumerate() {
            if index != above && known.is_none_or(|known| known[level] != index) {
                report(index);
            }
            above = index;
        }
    }

    /// Walks to every live page again. One that is now another page is touched as such; one that is gone is a fault.
    pub(crate) fn touch(&mut self, memory: &mut Memory, root: mmu::Root) -> Result<(), Fault> {
        let job = self.descriptor.job;
        for used in &mut self.live {
            let page = translate(memory, root, used.va, used.access)?;
            if page != used.page {
                used.page = page;
                if let Some(page) = page {
                    memory.tap_mut().observe(Observation::Live { job, page, access: used.access });
                }
            }
        }
        Ok(())
    }

    /// As [`Job::touch`], and damages the start of every piece that it may write: what hardware out of control does.
    pub(crate) fn scribble(&mut self, memory: &mut Memory, root: mmu::Root) -> Result<(), Fault> {
        self.touch(memory, root)?;
        let noise = self.active_ns.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
        for used in self.live.iter().filter(|used| used.access == Access::Write) {
            let len = index(used.bytes.min(8));
            mmu::write(memory, root, used.va, &noise[..len])?;
        }
        Ok(())
    }
}
