//! A batch runs once its driver has put page tables aside, and not before.

use outlive::vm::{Bind, ImmediateDriver, VmPrepared};

fn run<D: ImmediateDriver>(prepared: VmPrepared<D>, done: outlive::Completion) {
    Bind::run(prepared, done);
}

fn main() {}
