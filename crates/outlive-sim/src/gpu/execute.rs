//! Execution of a job's commands, as far as its time on an engine allows.
//!
//! Nothing here looks at a clock or decides who runs: the caller says how much active time the job has had, and is told
//! what comes next.

use super::command::{Command, Notify};
use super::faults::{ExecutionError, HwError};
use super::gears::{PIXEL_BYTES, Scene};
use super::job::Job;
use super::memory::{Memory, index};
use super::mmu;
use super::page_table::Fault;
use super::types::{Access, Time, Va};

/// One command of a job, and its place in the job's time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step {
    /// Where its bytes are, from the start of the commands.
    pub(crate) offset: u32,
    pub(crate) length: u32,
    /// Active time at which it begins and ends.
    pub(crate) begins_ns: u64,
    pub(crate) ends_ns: u64,
    pub(crate) work: Work,
}

/// What a step does.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Work {
    Run(Command),
    /// The bytes could not be decoded: the job fails here.
    Fail(ExecutionError),
}

/// How far a job came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// There is nothing to do before it has had so much active time.
    Until { active_ns: u64 },
    /// It waits for a semaphore.
    Blocked,
    /// It wrote its fence.
    Done(Notify),
    /// It failed.
    Failed(HwError),
}

/// What a step left to do.
enum Outcome {
    Passed,
    Wait(Progress),
}

/// What a command reads and writes.
pub(crate) const fn ranges(command: &Command) -> [Option<(Va, u64, Access)>; 2] {
    match *command {
        Command::Fill { va, bytes, .. } => [Some((va, bytes, Access::Write)), None],
        Command::Copy { source, target, bytes } => {
            [Some((source, bytes, Access::Read)), Some((target, bytes, Access::Write))]
        }
        Command::WriteValue { va, .. } => [Some((va, 8, Access::Write)), None],
        Command::TimeStamp { va } | Command::Signal { va, .. } => [Some((va, 8, Access::ControlWrite)), None],
        Command::Wait { va, .. } => [Some((va, 8, Access::ControlRead)), None],
        Command::Spin { .. } => [None, None],
        Command::Gears { va, width, height, .. } => {
            // CAST: widening.
            let bytes = width as u64 * height as u64 * PIXEL_BYTES as u64;
            [Some((va, bytes, Access::Write)), None]
        }
        Command::End { fence, .. } => [Some((fence, 8, Access::ControlWrite)), None],
    }
}

impl Job {
    /// Does all that is due after `active_ns` on an engine; `now` goes into time stamps.
    pub(crate) fn run(&mut self, memory: &mut Memory, root: mmu::Root, now: Time) -> Progress {
        loop {
            let Some(step) = self.steps.get(self.step).copied() else {
                // Not reached: the last step ends the job or fails it.
                return self.failure(ExecutionError::MissingEnd);
            };
            if self.active_ns < step.begins_ns {
                return Progress::Until { active_ns: step.begins_ns };
            }
            let command = match step.work {
                Work::Run(command) => command,
                Work::Fail(kind) => return self.failure(kind),
            };
            if !self.begun {
                match self.is_unchanged(memory, root, &step) {
                    Ok(true) => self.begun = true,
                    Ok(false) => return self.failure(ExecutionError::Changed),
                    Err(fault) => return Progress::Failed(HwError::PageFault(fault)),
                }
            }
            match self.execute(memory, root, now, &step, &command) {
                Ok(Outcome::Passed) => {
                    self.step += 1;
                    self.begun = false;
                    self.units_done = 0;
                }
                Ok(Outcome::Wait(progress)) => return progress,
                Err(fault) => return Progress::Failed(HwError::PageFault(fault)),
            }
        }
    }

    /// A failure at the present step.
    pub(crate) fn failure(&self, kind: ExecutionError) -> Progress {
        let offset = self.steps.get(self.step).map_or(0, |step| step.offset);
        Progress::Failed(HwError::Execution { offset, kind })
    }

    /// Fetches a command again. What was fetched at this very instant need not be.
    fn is_unchanged(&self, memory: &Memory, root: mmu::Root, step: &Step) -> Result<bool, Fault> {
        if self.active_ns == 0 {
            return Ok(true);
        }
        let (at, len) = (index(step.offset), index(step.length));
        let va = self.descriptor.commands.add(u64::from(step.offset));
        mmu::is_equal(memory, root, va, Access::ControlRead, &self.bytes[at..at + len])
    }

    /// Whether the semaphore of the wait that the job is at has been reached.
    pub(crate) fn wait_is_over(&self, memory: &Memory, root: mmu::Root) -> Result<bool, Fault> {
        match self.steps.get(self.step).map(|step| step.work) {
            Some(Work::Run(Command::Wait { va, value })) => Ok(mmu::load(memory, root, va)? >= value),
            _ => Ok(true),
        }
    }

    fn execute(
        &mut self,
        memory: &mut Memory,
        root: mmu::Root,
        now: Time,
        step: &Step,
        command: &Command,
    ) -> Result<Outcome, Fault> {
        match *command {
            Command::Fill { va, bytes, pattern } => {
                // Whole patterns, so that each piece starts with a new one.
                let due = self.due(step, bytes.div_ceil(4)).saturating_mul(4).min(bytes);
                let done = core::mem::replace(&mut self.units_done, due);
                mmu::fill(memory, root, va.add(done), due - done, pattern)?;
            }
            Command::Copy { source, target, bytes } => {
                let due = self.due(step, bytes);
                let done = core::mem::replace(&mut self.units_done, due);
                mmu::copy(memory, root, source.add(done), target.add(done), due - done)?;
            }
            Command::Gears { va, width, height, frame } => {
                let due = self.due(step, u64::from(height));
                let done = core::mem::replace(&mut self.units_done, due);
                // CAST: rows, at most `height`.
                let rows = done as u32..due as u32;
                draw(memory, root, va, &Scene::new(width, height, frame), width, rows)?;
            }
            Command::Spin { .. } => {}
            Command::WriteValue { va, value } => {
                mmu::store(memory, root, va, Access::Write, value)?;
            }
            Command::TimeStamp { va } => {
                mmu::store(memory, root, va, Access::ControlWrite, now.as_ns())?;
            }
            Command::Signal { va, value } => {
                let raised = mmu::load(memory, root, va)?.max(value);
                mmu::store(memory, root, va, Access::ControlWrite, raised)?;
            }
            Command::Wait { .. } => {
                if !self.wait_is_over(memory, root)? {
                    return Ok(Outcome::Wait(Progress::Blocked));
                }
                self.extend_live(memory, root)?;
            }
            Command::End { fence, value, interrupt } => {
                // The buffers are in use to the very end, and the fence says that they no longer are.
                self.touch(memory, root)?;
                mmu::store(memory, root, fence, Access::ControlWrite, value)?;
                return Ok(Outcome::Wait(Progress::Done(interrupt)));
            }
        }
        if self.active_ns >= step.ends_ns {
            Ok(Outcome::Passed)
        } else {
            Ok(Outcome::Wait(Progress::Until { active_ns: step.ends_ns }))
        }
    }

    /// How much of `units` is due by now.
    fn due(&self, step: &Step, units: u64) -> u64 {
        if self.active_ns >= step.ends_ns {
            return units;
        }
        let (gone, all) = (self.active_ns - step.begins_ns, step.ends_ns - step.begins_ns);
        let due = u128::from(units) * u128::from(gone) / u128::from(all);
        u64::try_from(due).unwrap_or(units)
    }
}

/// Draws rows of a frame into memory.
fn draw(
    memory: &mut Memory,
    root: mmu::Root,
    va: Va,
    scene: &Scene,
    width: u32,
    rows: core::ops::Range<u32>,
) -> Result<(), Fault> {
    if rows.is_empty() {
        return Ok(());
    }
    let mut row: Vec<u8> = alloc::vec![0; index(width) * PIXEL_BYTES];
    for y in rows {
        scene.draw_row(y, &mut row);
        mmu::write(memory, root, va.add(u64::from(y) * row.len() as u64), &row)?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "execute_tests.rs"]
mod tests;
