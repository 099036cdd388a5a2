//! A batch that is worked out when it runs is not for an address space whose space is what the page tables will be.

use outlive::vm::{ImmediateDriver, Request, StagedDriver, Vm};

fn prepare<D: StagedDriver + ImmediateDriver>(vm: &Vm<D>, requests: &[Request<D::Mapping>]) {
    let _ = vm.prepare(requests);
}

fn main() {}
