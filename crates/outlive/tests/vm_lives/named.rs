//! Jobs that say which buffers they use: those stay, and nothing else has to wait for the job.

use crate::gpu::{Cargo, Gpu, Kind, Rig, unmap};
use outlive::vm::{Flushed, Vm, VmBo, VmError};

/// A buffer of one page, mapped there.
fn mapped(rig: &Rig, vm: &Vm<Gpu>, at: u64) -> VmBo<Gpu> {
    let bo = rig.open(vm, &rig.bo(1));
    rig.change(vm, &[rig.map(&bo, at, 0, 1)]);
    bo
}

/// A job that uses the page at `at`, with a handle on its buffer.
fn job(rig: &Rig, vm: &Vm<Gpu>, at: u64, bo: &VmBo<Gpu>) {
    let handle: Cargo = Some(Box::new(bo.clone()));
    drop(rig.job_with(vm, vm.in_use_named().unwrap(), &[at], handle));
}

#[test]
fn a_job_that_names_its_buffers_keeps_them_and_no_others() {
    let rig = Rig::new();
    let vm = rig.vm();
    let [first, second, third] = [0, 1, 2].map(|at| mapped(&rig, &vm, at));
    job(&rig, &vm, 0, &first);
    assert_eq!(vm.status().uses, 1);
    // Its own stays, also when it is closed for all handles; what it does not name goes while it runs.
    drop((first.close(), first, second));
    rig.idle();
    assert_eq!((rig.books.of(Kind::Buffer), rig.clears()), (2, 1));
    // Nor does one that was closed and waits hold up those behind it.
    drop(third);
    rig.idle();
    assert_eq!((rig.books.of(Kind::Buffer), rig.clears()), (1, 2));
    // A later job with a buffer of its own changes nothing.
    let fourth = mapped(&rig, &vm, 3);
    job(&rig, &vm, 3, &fourth);
    rig.finish();
    rig.idle();
    assert_eq!((rig.books.of(Kind::Buffer), rig.clears()), (1, 3), "freed with its job, while the other runs");
    drop((fourth, vm.clone(), vm));
    rig.idle();
    assert_eq!(rig.books.of(Kind::Vm), 1, "the page tables stay");
    rig.finish();
    rig.all_gone();
}

#[test]
fn a_job_that_may_use_all_that_is_mapped_keeps_what_others_named() {
    let rig = Rig::new();
    let vm = rig.vm();
    let (first, second) = (mapped(&rig, &vm, 0), mapped(&rig, &vm, 1));
    drop(rig.job(&vm, &[0, 1], None));
    job(&rig, &vm, 1, &second);
    let cleared = first.close().unwrap();
    drop((first, second, vm.edit().unwrap()));
    rig.idle();
    assert_eq!((rig.books.of(Kind::Buffer), rig.clears()), (2, 0));
    assert!(cleared.is_in_use());
    rig.finish();
    rig.idle();
    assert!(!cleared.is_in_use(), "the job that is left does not name it");
    drop(cleared);
    rig.idle();
    assert_eq!((rig.books.of(Kind::Buffer), rig.clears()), (1, 1));
    drop(vm);
    rig.finish();
    rig.all_gone();
}

/// Said to be cleared by who closed it, while a job still names it.
#[test]
fn what_is_cleared_by_hand_is_freed_when_its_last_handle_goes() {
    let rig = Rig::new();
    let vm = rig.vm();
    let bo = mapped(&rig, &vm, 0);
    let use_ = vm.in_use_named().unwrap();
    let to_clear = bo.close().unwrap();
    assert!(to_clear.is_in_use(), "not out yet");
    unmap(&vm.edit().unwrap(), &to_clear);
    vm.data().flush();
    assert!(to_clear.is_in_use(), "named");
    to_clear.cleared(Flushed::by_driver());
    rig.idle();
    assert_eq!(rig.books.of(Kind::Buffer), 1);
    drop(bo);
    rig.idle();
    assert_eq!((rig.books.of(Kind::Buffer), rig.clears()), (0, 0));
    drop((vm.close(), use_));
    assert!(matches!(vm.in_use_named(), Err(VmError::Closed)));
    drop(vm);
    rig.all_gone();
}
