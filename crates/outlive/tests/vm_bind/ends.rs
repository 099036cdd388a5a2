//! What ends between a batch's acceptance and its run, or while jobs use what it takes out.

use super::gpu::{Gpu, Kind, Rig, signalling, unmap};
use super::{OK, ranges};
use outlive::vm::{EditRefused, Flushed, Rule, VmBo, VmError};
use outlive::{Dependency, FenceContext, FenceError, Names, OnError, QueueConfig, Status};
use std::sync::atomic::Ordering::SeqCst;

/// A gate that bind jobs wait behind.
pub(crate) fn gate(rig: &Rig) -> (outlive::Signaler, Vec<Dependency>) {
    let context = FenceContext::new(&rig.executor, Names { driver: "test", timeline: "gate" }).unwrap();
    let (gate, fence) = context.allocate().unwrap().publish();
    (gate, vec![Dependency::on(fence).on_error(OnError::Fail)])
}

#[test]
fn a_batch_that_is_not_accepted_leaves_no_trace() {
    let rig = Rig::new();
    let (vm, pair) = rig.opened(8);
    drop(vm.prepare(&[rig.map(&pair, 0, 8), unmap(0, 100)]).unwrap());
    assert!(!vm.status().poisoned && vm.look().unwrap().is_empty());
    drop((vm, pair));
    rig.all_gone();
}

/// Its queue is closed, or what it depends on has failed: who was told that it would be there must not believe it.
#[test]
fn an_accepted_batch_that_never_runs_poisons() {
    for closes in [true, false] {
        let rig = Rig::new();
        let (vm, pair) = rig.opened(8);
        let (gate, after) = gate(&rig);
        let queue = rig.binder.device().queue(QueueConfig::new("another"), ()).unwrap();
        let mut reserved = queue.reserve_after(None, after).unwrap();
        *reserved = Some(vm.prepare(&[rig.map(&pair, 0, 8)]).unwrap().accept(rig.room()));
        let job = reserved.commit();
        rig.idle();
        assert!(!vm.status().poisoned);
        if closes {
            drop(queue.close());
            gate.signal(Ok(()));
        } else {
            gate.signal(Err(FenceError::TimedOut));
        }
        rig.idle();
        assert!(matches!(job.finished().status(), Status::Signaled(Err(_))));
        assert!(vm.status().poisoned && vm.look().unwrap().is_empty());
        let refused = vm.prepare(&[rig.map(&pair, 0, 1)]).unwrap_err();
        assert!(matches!(refused, VmError::Plan(error) if error.rule == Rule::Poisoned));
        assert_eq!(rig.bind(&vm, &[unmap(0, 8)]).finished().status(), OK);
        drop((vm, pair, queue));
        rig.all_gone();
    }
}

/// An empty batch promises nothing.
#[test]
fn an_empty_batch_that_never_runs_is_no_harm() {
    let rig = Rig::new();
    let (vm, pair) = rig.opened(8);
    drop(vm.prepare(&[]).unwrap().accept(rig.room()));
    assert!(!vm.status().poisoned);
    assert_eq!(rig.bind(&vm, &[]).finished().status(), OK);
    drop((vm, pair));
    rig.all_gone();
}

/// As if the close had come after the bind.
#[test]
fn a_buffer_closed_before_the_run_is_not_mapped_and_nothing_is_poisoned() {
    let rig = Rig::new();
    let (vm, pair) = rig.opened(8);
    let (other, buffer) = {
        let buffer = rig.external(4);
        (rig.open(&vm, &buffer), buffer)
    };
    let (gate, after) = gate(&rig);
    assert_eq!(rig.bind(&vm, &[rig.map(&pair, 0, 8)]).finished().status(), OK);
    let job = rig.submit(vm.prepare(&[rig.map(&other, 2, 4), rig.map(&other, 20, 4)]).unwrap(), after);
    drop(other);
    // It is opened again, as another pair.
    let again = rig.open(&vm, &buffer);
    rig.idle();
    gate.signal(Ok(()));
    rig.idle();
    assert_eq!((job.finished().status(), vm.status().poisoned), (OK, false));
    assert_eq!((ranges(&vm), vm.data().pages()), (vec![(0, 1), (6, 7)], vec![0, 1, 6, 7]));
    assert_eq!(vm.look().unwrap().mappings_of(again.id()), 0);
    drop((vm, pair, again, buffer));
    rig.all_gone();
}

#[test]
fn an_address_space_closed_before_the_run_takes_nothing() {
    let rig = Rig::new();
    let (vm, pair) = rig.opened(8);
    let (gate, after) = gate(&rig);
    assert_eq!(rig.bind(&vm, &[rig.map(&pair, 0, 2)]).finished().status(), OK);
    let job = rig.submit(vm.prepare(&[rig.map(&pair, 4, 4)]).unwrap(), after);
    let gone = vm.drained();
    let to_clear = vm.close().unwrap();
    assert!(vm.prepare(&[]).is_ok());
    let refused = vm.prepare(&[unmap(0, 1)]).unwrap_err();
    assert!(matches!(refused, VmError::Plan(error) if error.rule == Rule::Closed));
    assert_eq!(vm.open(&rig.external(1), || rig.room()).unwrap_err(), VmError::Closed);
    // By hand.
    let look = vm.look().unwrap();
    assert_eq!(look.clearing(&to_clear).count(), 1);
    drop(look);
    drop(to_clear);
    drop((vm, pair));
    rig.idle();
    assert!(!gone.is_drained(), "the batch keeps the inside");
    gate.signal(Ok(()));
    rig.idle();
    assert_eq!(job.finished().status(), Status::Signaled(Err(FenceError::Canceled)));
    assert!(gone.is_drained());
    rig.all_gone();
}

#[test]
fn what_a_batch_takes_out_stays_while_jobs_use_it_and_no_longer() {
    super::gpu::what_a_batch_takes_out_stays_while_jobs_use_it();
}

/// A buffer whose last mapping a batch took out is closed while a job uses it.
#[test]
fn a_buffer_that_a_batch_unmapped_is_freed_after_the_jobs_before() {
    let rig = Rig::new();
    let (vm, pair) = rig.opened(8);
    assert_eq!(rig.bind(&vm, &[rig.map(&pair, 0, 8)]).finished().status(), OK);
    drop(rig.job(vm.in_use().unwrap()));
    assert_eq!(rig.bind(&vm, &[unmap(0, 8)]).finished().status(), OK);
    drop(pair);
    rig.idle();
    assert_eq!(rig.books.of(Kind::Buffer), 1);
    rig.finish();
    rig.idle();
    assert_eq!((rig.books.of(Kind::Buffer), rig.books.of(Kind::Mapping)), (0, 0));
    drop(vm);
    rig.all_gone();
}

/// Last handles, the batch before its run, in every order; with many mappings, so that clearing comes in slices.
#[test]
fn last_handles_and_a_batch_die_in_every_order() {
    for order in 0..6 {
        for runs in [true, false] {
            let rig = Rig::new();
            let (vm, pair) = rig.opened(8);
            let requests: Vec<_> = (0..100).map(|at| rig.map(&pair, 3 * at, 2)).collect();
            assert_eq!(rig.bind(&vm, &requests).finished().status(), OK);
            let (gate, after) = gate(&rig);
            let job = rig.submit(vm.prepare(&[rig.map(&pair, 5, 8)]).unwrap(), after);
            let gone = vm.drained();
            let mut parts: [Option<Box<dyn FnOnce()>>; 3] = [
                Some(Box::new(move || drop(vm))),
                Some(Box::new(move || drop(pair))),
                Some(Box::new(move || gate.signal(if runs { Ok(()) } else { Err(FenceError::TimedOut) }))),
            ];
            drop(requests);
            let first = order / 2;
            let rest =
                if order % 2 == 0 { [(first + 1) % 3, (first + 2) % 3] } else { [(first + 2) % 3, (first + 1) % 3] };
            for part in [first, rest[0], rest[1]] {
                signalling_if(order % 2 == 0, parts[part].take().unwrap());
                rig.idle();
            }
            assert!(gone.is_drained() && job.retired().is_signaled());
            assert!(rig.device.driver().steps.load(SeqCst) >= 200, "mapped and unmapped by steps");
            rig.all_gone();
        }
    }
}

/// In the signalling path, where handles may be dropped too.
fn signalling_if(yes: bool, act: Box<dyn FnOnce()>) {
    if yes { signalling(act) } else { act() }
}

/// Whoever takes a buffer's pages away finds it, and is told how its address space works.
#[test]
fn a_pair_says_how_its_address_space_is_changed() {
    let rig = Rig::new();
    let (vm, pair) = rig.opened(8);
    assert_eq!(rig.bind(&vm, &[rig.map(&pair, 0, 8)]).finished().status(), OK);
    for open in VmBo::all(&rig.device, pair.bo()).unwrap() {
        assert!(open.is_immediate() && open.try_edit().is_none());
        assert_eq!(open.edit().unwrap_err(), EditRefused::Immediate);
        assert_eq!(open.look().unwrap().of_bo(open.id()).count(), 1);
    }
    drop((vm, pair));
    rig.all_gone();
}

#[test]
fn who_closes_by_hand_says_when_it_is_cleared() {
    let rig = Rig::new();
    let (vm, pair) = rig.opened(8);
    assert_eq!(rig.bind(&vm, &[rig.map(&pair, 0, 8), rig.map(&pair, 20, 8)]).finished().status(), OK);
    let to_clear: outlive::vm::ToClear<Gpu> = pair.close().unwrap();
    let steps = rig.device.driver().steps.load(SeqCst);
    let look = vm.look().unwrap();
    assert_eq!((look.len(), look.clearing(&to_clear).count()), (0, 2));
    drop(look);
    // This one's page tables are cleared by hand: none of the driver's steps.
    rig.clear_by_hand(&vm);
    to_clear.cleared(Flushed::by_driver());
    rig.idle();
    assert_eq!(rig.device.driver().steps.load(SeqCst), steps);
    drop((vm, pair));
    rig.all_gone();
}
