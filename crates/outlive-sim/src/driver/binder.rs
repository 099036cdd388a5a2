//! The bind queue: changes of page tables as jobs, so that they take and give fences in order with everything else.
//!
//! A device of its own, made of nothing but the host's processor: run carries a change's steps out and flushes. A job is a committed
//! change of a staged address space ([`Binding`]), or an accepted batch of an immediate one ([`Bind`]), which the library works out
//! here. It has allocated everything before; nothing can fail but for want of tables, and those were put aside. A change that
//! never runs, because the queue was closed or a dependency failed, poisons its address space when its payload is dropped.

use outlive::vm::{Bind, Binding, Done, Flushed};
use outlive::{Completion, Driver, FenceError, JobCx, ResetToken};

use super::bo::SimBo;
use super::hardware::SimDriver;

/// See the module.
#[derive(Debug)]
pub struct Binder;

/// A change of page tables.
#[derive(Debug)]
pub struct BindJob(Option<Change>);

#[derive(Debug)]
pub(crate) enum Change {
    Staged(Staged),
    Immediate(Bind<SimDriver>),
    /// Carried out.
    Done(#[expect(dead_code, reason = "to be dropped on the reaper")] Option<Done>),
}

#[derive(Debug)]
pub(crate) struct Staged {
    binding: Binding<SimDriver>,
    /// Of each step, the buffer that is mapped.
    bos: Vec<Option<SimBo>>,
    tables: usize,
}

impl BindJob {
    /// Nothing yet: what cannot fail any more is put in between the job's reservation and its commit.
    pub(crate) const fn new() -> Self {
        Self(None)
    }

    /// The change was committed, or accepted; this job is next.
    pub(crate) fn bind(&mut self, change: Change) {
        self.0 = Some(change);
    }
}

impl Staged {
    pub(crate) const fn new(binding: Binding<SimDriver>, bos: Vec<Option<SimBo>>, tables: usize) -> Self {
        Self { binding, bos, tables }
    }

    /// Whether all of it was carried out.
    fn carry_out(&mut self) -> bool {
        let tables = self.binding.vm_data();
        let mut steps = self.binding.steps().iter().zip(&self.bos);
        let carried_out = steps.try_for_each(|(step, bo)| tables.carry_out(step, || bo.as_ref()));
        tables.keep_promise(core::mem::take(&mut self.tables));
        carried_out.is_ok()
    }
}

impl Drop for BindJob {
    fn drop(&mut self) {
        if let Some(Change::Staged(Staged { binding, tables, .. })) = &self.0 {
            binding.vm_data().keep_promise(*tables);
        }
    }
}

impl Driver for Binder {
    type Job = BindJob;
    type Queue = ();

    fn run(&self, cx: &mut JobCx<'_, Self>, done: Completion) {
        let (left, result) = match cx.job.0.take() {
            Some(Change::Immediate(bind)) => return bind.run(done),
            Some(Change::Staged(mut staged)) => {
                if staged.carry_out() {
                    (Some(Change::Done(staged.binding.flushed(Flushed::by_driver()))), Ok(()))
                } else {
                    // Not flushed: the address space is poisoned when it is dropped.
                    (Some(Change::Staged(staged)), Err(FenceError::DriverBug))
                }
            }
            Some(Change::Done(_)) | None => (None, Ok(())),
        };
        cx.job.0 = left;
        done.complete(result);
    }

    fn reset(&self, _scope: outlive::ResetScope, token: ResetToken) {
        token.quiesced();
    }

    fn unplug(&self, token: ResetToken) {
        token.quiesced();
    }
}
