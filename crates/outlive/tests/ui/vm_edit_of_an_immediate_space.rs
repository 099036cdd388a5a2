//! An address space that is changed by running jobs has no turn: nobody who may wait for fences has its space.

use outlive::vm::{Immediate, ImmediateDriver, Vm};

fn edit<D: ImmediateDriver>(vm: &Vm<D, Immediate>) {
    let _ = vm.edit();
}

fn main() {}
