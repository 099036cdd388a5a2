//! The bind queue: changes of page tables as jobs, so that they take and give fences in order with everything else.
//!
//! A device of its own, made of nothing but the host's processor: a job is a committed change ([`Binding`]), run carries its steps
//! out and flushes. The library has decided and allocated everything before; here nothing can fail but for want of tables, and
//! those were put aside. A change that never runs, because the queue was closed or a dependency failed, poisons its address
//! space when its payload is dropped.

use outlive::vm::{Binding, Done, Flushed};
use outlive::{Completion, Driver, FenceError, JobCx, ResetToken};

use super::bo::SimBo;
use super::hardware::SimDriver;

/// See the module.
#[derive(Debug)]
pub struct Binder;

/// A change of page tables.
#[derive(Debug)]
pub struct BindJob {
    binding: Option<Binding<SimDriver>>,
    /// Of each step, the buffer that is mapped.
    bos: Vec<Option<SimBo>>,
    tables: usize,
    /// To be dropped on the reaper.
    done: Option<Done>,
}

impl BindJob {
    pub(crate) const fn new(bos: Vec<Option<SimBo>>, tables: usize) -> Self {
        Self { binding: None, bos, tables, done: None }
    }

    /// The change was committed; this job is next.
    pub(crate) fn bind(&mut self, binding: Binding<SimDriver>) {
        self.binding = Some(binding);
    }
}

impl Drop for BindJob {
    fn drop(&mut self) {
        if let Some(binding) = &self.binding {
            binding.vm_data().keep_promise(self.tables);
        }
    }
}

impl Driver for Binder {
    type Job = BindJob;
    type Queue = ();

    fn run(&self, cx: &mut JobCx<'_, Self>, done: Completion) {
        let Some(binding) = cx.job.binding.take() else { return done.complete(Ok(())) };
        let tables = binding.vm_data();
        let mut steps = binding.steps().iter().zip(&cx.job.bos);
        let carried_out = steps.try_for_each(|(step, bo)| tables.carry_out(step, || bo.as_ref()));
        tables.keep_promise(cx.job.tables);
        if carried_out.is_err() {
            // Not flushed: the address space is poisoned.
            cx.job.binding = Some(binding);
            cx.job.tables = 0;
            return done.complete(Err(FenceError::DriverBug));
        }
        cx.job.done = binding.flushed(Flushed::by_driver());
        done.complete(Ok(()));
    }

    fn reset(&self, _scope: outlive::ResetScope, token: ResetToken) {
        token.quiesced();
    }

    fn unplug(&self, token: ResetToken) {
        token.quiesced();
    }
}
