//! What ends between a batch's acceptance and its run, or while jobs use what it takes out.

use super::gpu::{Gpu, Kind, PAGE, Rig, signalling, unmap};
use super::{OK, ranges};
use outlive::vm::{EditRefused, Flushed, Rule, SpaceError, VaRange, VmBo, VmError};
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

/// A driver that panics in a step: whoever has called it sees that; the space is there, poisoned, and all is freed.
#[test]
fn a_driver_that_panics_poisons_and_leaves_the_space() {
    let rig = Rig::new();
    let (vm, pair) = rig.opened(8);
    assert_eq!(rig.bind(&vm, &[rig.map(&pair, 0, 4)]).finished().status(), OK);
    let left = rig.accept(vm.prepare(&[rig.map(&pair, 6, 2)]).unwrap(), Vec::new());
    let next = rig.accept(vm.prepare(&[unmap(0, 1)]).unwrap(), Vec::new());
    let mut jobs = Vec::with_capacity(2);
    let look = vm.look().unwrap();
    rig.device.driver().panics.store(true, SeqCst);
    jobs.extend([left.commit(), next.commit()]);
    rig.executor.step();
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(look)));
    assert!(caught.is_err());
    rig.device.driver().panics.store(false, SeqCst);
    rig.idle();
    assert!(vm.status().poisoned && matches!(jobs[0].finished().status(), Status::Signaled(Err(_))));
    assert_eq!(jobs[1].finished().status(), OK, "one that only unmaps is carried out after it");
    assert_eq!(rig.bind(&vm, &[unmap(0, 8)]).finished().status(), OK);
    assert!(vm.look().unwrap().is_empty() && vm.data().pages().is_empty());
    drop((vm, pair));
    rig.idle();
    assert_eq!((rig.books.of(Kind::Vm), rig.books.of(Kind::Buffer), rig.books.of(Kind::Room)), (0, 0, 0));
}

/// Entries of a device that is gone for good need not be cleared.
#[test]
fn what_cannot_be_cleared_is_free_once_the_device_is_gone() {
    for gone in [true, false] {
        let rig = Rig::new();
        let (vm, pair) = rig.opened(8);
        assert_eq!(rig.bind(&vm, &[rig.map(&pair, 0, 8)]).finished().status(), OK);
        if gone {
            rig.device.unplug();
            rig.idle();
        }
        rig.device.driver().fails_in.store(1, SeqCst);
        let drained = vm.drained();
        drop((vm, pair));
        rig.idle();
        assert_eq!((drained.is_drained(), rig.books.of(Kind::Mapping)), (gone, isize::from(!gone)));
    }
}

#[test]
fn a_range_that_is_reserved_is_not_mapped() {
    let rig = Rig::new();
    let (vm, pair) = rig.opened(8);
    let (gate, after) = gate(&rig);
    let page = |at: u64| VaRange::new(at * PAGE, PAGE, PAGE).unwrap();
    let job = rig.submit(vm.prepare(&[rig.map(&pair, 3, 1)]).unwrap(), after);
    for at in [5, 1, 3, 7] {
        vm.reserve_range(page(at)).unwrap();
    }
    assert_eq!(vm.reserve_range(page(3)).unwrap_err(), VmError::Space(SpaceError::InUse { by: page(3) }));
    let refused = vm.prepare(&[rig.map(&pair, 2, 1), rig.map(&pair, 4, 2)]).unwrap_err();
    assert!(matches!(refused, VmError::Plan(error) if error.request == 1));
    gate.signal(Ok(()));
    rig.idle();
    assert_eq!(job.finished().status(), Status::Signaled(Err(FenceError::Canceled)));
    drop((vm, pair));
    rig.all_gone();
}

/// A driver's code that takes the space and forgets that costs its address space, and nothing else.
#[test]
fn a_look_that_is_forgotten_while_a_buffer_is_opened_is_no_harm_to_others() {
    let rig = Rig::new();
    let (vm, pair) = rig.opened(8);
    let buffer = rig.external(1);
    let opened = vm.open(&buffer, || {
        std::mem::forget(vm.look());
        rig.room()
    });
    assert_eq!(opened.unwrap_err(), VmError::Refused(EditRefused::WouldDeadlock));
    assert_eq!(vm.status().external, 0);
    assert_eq!(VmBo::all(&rig.device, &buffer).unwrap().len(), 0);
    while outlive::check::take_report().is_some() {}
    drop((vm, pair, buffer));
    rig.idle();
}

/// What was closed is cleared late; by then something else is mapped where it was, and stays.
#[test]
fn what_is_mapped_over_what_is_still_to_be_cleared_stays() {
    let rig = Rig::new();
    let (vm, pair) = rig.opened(8);
    let other = rig.open(&vm, &rig.external(2));
    assert_eq!(rig.bind(&vm, &[rig.map(&pair, 0, 8)]).finished().status(), OK);
    let job = rig.job(vm.in_use().unwrap());
    drop(pair);
    assert_eq!(rig.bind(&vm, &[rig.map(&other, 2, 2), rig.map(&other, 7, 2)]).finished().status(), OK);
    rig.idle();
    assert_eq!(vm.data().pages(), (0..9).collect::<Vec<_>>(), "a job may use the rest");
    rig.finish();
    rig.idle();
    assert_eq!((job.retired().status(), vm.data().pages()), (OK, vec![2, 3, 7, 8]));
    assert_eq!((other.bo().reach(), rig.books.of(Kind::Buffer)), (4, 1));
    drop((vm, other));
    rig.all_gone();
}

/// What came in the place of something closed is closed as well, while jobs that began before each use it. Each is cleared after
/// its own jobs, the first without the entries of the second.
#[test]
fn what_was_mapped_over_it_and_closed_in_its_turn_stays_for_its_own_jobs() {
    let rig = Rig::new();
    let (vm, pair) = rig.opened(8);
    let second = rig.open(&vm, &rig.external(8));
    let third = rig.open(&vm, &rig.external(1));
    assert_eq!(rig.bind(&vm, &[rig.map(&pair, 0, 8)]).finished().status(), OK);
    let first_job = rig.job(vm.in_use().unwrap());
    drop(pair);
    assert_eq!(rig.bind(&vm, &[rig.map(&second, 2, 2), rig.map(&second, 7, 2)]).finished().status(), OK);
    assert_eq!(rig.bind(&vm, &[rig.map(&third, 5, 1)]).finished().status(), OK);
    let second_job = rig.job(vm.in_use().unwrap());
    drop((second, third));
    rig.idle();
    assert_eq!(vm.data().pages(), (0..9).collect::<Vec<_>>(), "jobs may use all of it");
    // Jobs end in order.
    rig.finish();
    rig.idle();
    assert_eq!((first_job.retired().status(), second_job.retired().is_signaled()), (OK, false));
    assert_eq!(vm.data().pages(), vec![2, 3, 5, 7, 8], "the second job may use these");
    rig.finish();
    rig.idle();
    assert_eq!((second_job.retired().status(), vm.data().pages()), (OK, vec![]));
    drop(vm);
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
