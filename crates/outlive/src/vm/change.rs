//! Changes of an address space with handles: planned, then committed and owed to the page tables.

use super::clear::Flushed;
use super::driver::VmDriver;
use super::pairs::OpenBo;
use super::plan::{Done, Plan};
use super::shared::VmInner;
use super::step::Step;
use super::usage::VmUse;
use super::{Apply, RolledBack};
use crate::exec::object::Object;
use core::fmt;
use core::ops::Deref;

/// A [`Plan`] of an address space with handles; it reads as one. Dropped, it leaves no trace.
#[must_use = "a plan changes nothing until it is committed"]
pub struct VmPlan<'a, D: VmDriver> {
    plan: Plan<'a, OpenBo<D>, D::Mapping>,
    vm: &'a Object<VmInner<D>>,
}

impl<'a, D: VmDriver> VmPlan<'a, D> {
    pub(super) const fn new(plan: Plan<'a, OpenBo<D>, D::Mapping>, vm: &'a Object<VmInner<D>>) -> Self {
        Self { plan, vm }
    }

    pub(super) const fn vm(&self) -> &Object<VmInner<D>> {
        self.vm
    }

    /// As [`Plan::commit`], for a driver that changes the page tables before or after. What was mapped is kept until the
    /// [`Binding`] says that the page tables are as planned.
    pub fn commit(self) -> Binding<D> {
        // First, so that no buffer whose mappings go can be freed before the page tables follow.
        let in_use = VmUse::enter(self.vm);
        Binding::new(self.plan.commit(), in_use)
    }

    /// As [`Plan::apply`]: each step, then the commit.
    ///
    /// # Errors
    /// The driver's, after everything was undone.
    pub fn apply<A: Apply<OpenBo<D>, D::Mapping>>(self, driver: &mut A) -> Result<Binding<D>, RolledBack<A::Error>> {
        let in_use = VmUse::enter(self.vm);
        Ok(Binding::new(self.plan.apply(driver)?, in_use))
    }
}

impl<'a, D: VmDriver> Deref for VmPlan<'a, D> {
    type Target = Plan<'a, OpenBo<D>, D::Mapping>;

    fn deref(&self) -> &Self::Target {
        &self.plan
    }
}

impl<D: VmDriver> fmt::Debug for VmPlan<'_, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.plan.fmt(f)
    }
}

/// A committed change whose page tables are still to follow, or to be flushed: a value that a bind job's payload can carry.
/// Until it ends, no page that was mapped when it was committed is freed.
///
/// Dropped before [`Binding::flushed`], it poisons the VM: nobody knows what its page tables hold. The steps are dropped with
/// it, so drop it where the driver's data may be dropped.
#[must_use = "dropping it poisons the address space: say that the page tables are as planned with `flushed`"]
pub struct Binding<D: VmDriver> {
    /// `None` once it was taken.
    done: Option<Done<D::Mapping>>,
    in_use: VmUse<D>,
}

impl<D: VmDriver> Binding<D> {
    const fn new(done: Done<D::Mapping>, in_use: VmUse<D>) -> Self {
        Self { done: Some(done), in_use }
    }

    /// What is to be done to the page tables, in this order.
    #[must_use]
    pub fn steps(&self) -> &[Step<D::Mapping>] {
        self.done.as_ref().map_or(&[], Done::steps)
    }

    /// What the driver keeps with the address space.
    #[must_use]
    pub fn vm_data(&self) -> &D::Vm {
        self.in_use.vm_data()
    }

    /// The page tables are as planned, and flushed as far as something was unmapped. What the change leaves over comes back,
    /// to be dropped where that is legal. Any context.
    pub fn flushed(mut self, flushed: Flushed) -> Option<Done<D::Mapping>> {
        let Flushed { .. } = flushed;
        self.done.take()
    }
}

impl<D: VmDriver> Drop for Binding<D> {
    fn drop(&mut self) {
        if self.done.as_ref().is_some_and(|done| !done.steps().is_empty()) {
            self.in_use.poison();
        }
    }
}

impl<D: VmDriver> fmt::Debug for Binding<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Binding({} steps)", self.steps().len())
    }
}
