//! What is refused, and says why: nothing is changed by it.

use crate::gpu::{Gpu, Kind, PAGE, Rig, Tables, Token};
use outlive::vm::{
    Binding, EditRefused, Flushed, Geometry, Request, Rule, SpaceError, ToClear, Vm, VmBo, VmConfig, VmError, VmPlan,
    VmUse,
};
use outlive::{Executor, Registration, check};
use std::sync::{Arc, Mutex};

static_assertions::assert_impl_all!(Vm<Gpu>: Send, Sync, Clone);
static_assertions::assert_impl_all!(VmBo<Gpu>: Send, Sync, Clone);
static_assertions::assert_impl_all!(VmUse<Gpu>: Send, Sync);
static_assertions::assert_impl_all!(ToClear<Gpu>: Send, Sync);
static_assertions::assert_impl_all!(Binding<Gpu>: Send);
static_assertions::assert_not_impl_any!(outlive::vm::Edit<Gpu>: Send, Sync);
static_assertions::assert_not_impl_any!(VmUse<Gpu>: Clone);
static_assertions::assert_not_impl_any!(VmPlan<'static, Gpu>: Clone);

#[test]
fn a_pair_is_unique_while_it_is_open() {
    let rig = Rig::new();
    let (vm, other) = (rig.vm(), rig.vm());
    let bo = rig.bo(4);
    let first = rig.open(&vm, &bo);
    let again = vm.open(&bo, || unreachable!("it is open")).unwrap();
    assert_eq!((first.id(), rig.books.of(Kind::Pair)), (again.id(), 1));
    let elsewhere = rig.open(&other, &bo);
    assert_ne!(first.id(), elsewhere.id());
    drop(first);
    assert!(again.is_open() && vm.edit().unwrap().find_bo(&bo).is_some());
    // Closed and opened anew before anybody looked.
    drop(again);
    let anew = rig.open(&vm, &bo);
    rig.idle();
    assert!(anew.is_open() && vm.edit().unwrap().find_bo(&bo).unwrap().id() == anew.id());
    // Closed for all handles.
    let second = anew.clone();
    drop(anew.close());
    assert!(!second.is_open() && vm.edit().unwrap().find_bo(&bo).is_none());
    drop((vm, other, anew, second, elsewhere, bo));
    rig.all_gone();
}

#[test]
fn many_buffers_are_found_and_forgotten() {
    let rig = Rig::new();
    let vm = rig.vm();
    let bos: Vec<_> = (0..500).map(|_| rig.bo(1)).collect();
    let mut open: Vec<_> = bos.iter().map(|bo| rig.open(&vm, bo)).collect();
    assert_eq!((vm.status().bos, vm.status().bo_bytes), (500, 500 * PAGE));
    for (bo, pair) in bos.iter().zip(&open) {
        assert_eq!(vm.edit().unwrap().find_bo(bo).unwrap().id(), pair.id());
    }
    open.truncate(100);
    rig.idle();
    let edit = vm.edit().unwrap();
    assert_eq!(bos.iter().filter(|bo| edit.find_bo(bo).is_some()).count(), 100);
    drop(edit);
    assert_eq!((vm.status().bos, vm.status().bo_bytes, rig.books.of(Kind::Pair)), (100, 100 * PAGE, 100));
    drop((vm, open, bos));
    rig.all_gone();
}

#[test]
fn who_has_the_turn_and_asks_again_is_refused_and_a_callback_too() {
    let rig = Rig::new();
    let vm = rig.vm();
    let edit = vm.edit().unwrap();
    assert_eq!(vm.edit().unwrap_err(), EditRefused::WouldDeadlock);
    assert!(vm.try_edit().is_none());
    assert_eq!(
        vm.open(&rig.bo(1), || unreachable!("not made")).unwrap_err(),
        VmError::Refused(EditRefused::WouldDeadlock)
    );
    drop(edit);
    check::set_reporter(false);
    {
        let _section = check::signalling();
        assert_eq!(vm.edit().unwrap_err(), EditRefused::InSignallingSection);
    }
    assert_eq!(check::take_report().map(|report| report.violation), Some(check::Violation::Waited));
    let seen = Arc::new(Mutex::new(None));
    let (asked, answer) = (vm.clone(), seen.clone());
    let job = rig.job(&vm, &[], None);
    let ask = move |_| *answer.lock().unwrap() = Some((asked.edit().unwrap_err(), asked.try_edit().is_some()));
    job.finished().on_signaled(ask).map(Registration::keep).unwrap();
    rig.finish();
    rig.idle();
    assert_eq!(*seen.lock().unwrap(), Some((EditRefused::InCallback, true)));
    assert_eq!(check::take_report().map(|report| report.violation), Some(check::Violation::WaitedInCallback));
    drop(vm);
    rig.all_gone();
}

#[test]
fn a_poisoned_address_space_unmaps_and_closes_and_maps_nothing() {
    let rig = Rig::new();
    let vm = rig.vm();
    let bo = rig.open(&vm, &rig.bo(4));
    rig.change(&vm, &[rig.map(&bo, 0, 0, 4)]);
    // A bind job that was cancelled: its payload, with the change in it, is dropped.
    let mut edit = vm.edit().unwrap();
    let binding = edit.plan(&[rig.map(&bo, 8, 0, 1)]).unwrap().commit();
    drop(edit);
    assert!(!vm.status().poisoned);
    drop(binding);
    assert!(vm.status().poisoned);
    let refused = rig.try_change(&vm, &[rig.map(&bo, 9, 0, 1)]).unwrap_err();
    assert_eq!((refused.request, refused.rule), (0, Rule::Poisoned));
    rig.change(&vm, &[Request::Unmap { va: 0, len: 2 * PAGE }]);
    assert_eq!(vm.edit().unwrap().len(), 2);
    drop((vm, bo));
    rig.all_gone();
    // A change of nothing has no page tables to follow.
    let vm = rig.vm();
    drop(vm.edit().unwrap().plan(&[]).unwrap().commit());
    assert!(!vm.status().poisoned);
    vm.in_use().unwrap().poison();
    assert!(vm.status().poisoned);
    drop(vm);
    rig.all_gone();
}

#[test]
fn caps_other_devices_and_closed_address_spaces() {
    let (rig, stranger) = (Rig::new(), Rig::new());
    let geometry = Geometry { base: 0, len: 1 << 40, page: PAGE };
    let config = VmConfig::new(geometry).bos_max(2).mappings_max(3);
    let vm = Vm::new(&rig.device, config, Tables::new(&rig.books)).unwrap();
    let pair = || Token::new(&rig.books, Kind::Pair);
    let devices = VmError::OtherDevice { bo: stranger.device.id(), vm: rig.device.id() };
    assert_eq!(vm.open(&stranger.bo(1), pair).unwrap_err(), devices);
    assert_eq!(vm.open(&rig.bo(0), pair).unwrap_err(), VmError::EmptyBo);
    let (one, two) = (rig.open(&vm, &rig.bo(8)), rig.open(&vm, &rig.bo(8)));
    assert_eq!(vm.open(&rig.bo(1), pair).unwrap_err(), VmError::TooManyBos { limit: 2 });
    let requests: Vec<_> = (0..4).map(|at| rig.map(&one, at * 2, 0, 1)).collect();
    let refused = rig.try_change(&vm, &requests).unwrap_err();
    assert_eq!((refused.request, refused.rule), (3, Rule::TooMany { limit: 3 }));
    assert_eq!((vm.status().mappings, vm.data().len()), (0, 0));
    drop(two);
    let two = rig.open(&vm, &rig.bo(1));
    drop(vm.close());
    assert_eq!(vm.open(&rig.bo(1), pair).unwrap_err(), VmError::Closed);
    assert_eq!(vm.in_use().unwrap_err(), VmError::Closed);
    assert_eq!(rig.try_change(&vm, &requests[..1]).unwrap_err().rule, Rule::Closed);
    drop((vm, one, two, requests));
    rig.all_gone();
    stranger.all_gone();
    let bad = VmConfig::new(Geometry { base: 0, len: 0, page: PAGE });
    let refused = Vm::new(&rig.device, bad, Tables::new(&rig.books)).unwrap_err();
    assert!(matches!(refused, VmError::Space(SpaceError::Range(_))), "{refused}");
    rig.all_gone();
}

#[test]
fn without_memory_nothing_is_opened_and_closing_needs_none() {
    let rig = Rig::new();
    let bo = rig.bo(4);
    let mut failed = 0;
    let (vm, pair) = loop {
        let vm = rig.vm();
        check::fail_nth_allocation(failed + 1);
        let opened = vm.open(&bo, || Token::new(&rig.books, Kind::Pair));
        let spared = check::fail_nth_allocation(0) > 0;
        match opened {
            Ok(pair) => {
                assert!(spared);
                break (vm, pair);
            }
            Err(refused) => assert!(matches!(refused, VmError::NoMemory(_)), "{refused}"),
        }
        rig.idle();
        assert_eq!((vm.status().bos, vm.status().external, rig.books.of(Kind::Pair)), (0, 0, 0));
        failed += 1;
    };
    assert!(failed >= 4, "table, place, pair, lock: {failed}");
    let requests: Vec<_> = (0..100).map(|at| rig.map(&pair, at, at % 4, 1)).collect();
    rig.change(&vm, &requests);
    drop(requests);
    // The page tables of the test allocate a little when they flush.
    vm.data().flush();
    check::fail_nth_allocation(1);
    drop((bo, pair, vm.close(), vm));
    assert_eq!(check::fail_nth_allocation(0), 1, "nothing was asked for");
    rig.all_gone();
    let mut failed = 0;
    loop {
        let tables = Tables::new(&rig.books);
        let config = VmConfig::new(Geometry { base: 0, len: 1 << 40, page: PAGE });
        check::fail_nth_allocation(failed + 1);
        let made = Vm::new(&rig.device, config, tables);
        if check::fail_nth_allocation(0) > 0 {
            assert!(made.is_ok() && failed > 0);
            break;
        }
        assert!(matches!(made, Err(VmError::NoMemory(_))));
        assert_eq!(rig.books.of(Kind::Vm), 0);
        failed += 1;
    }
    rig.all_gone();
}

#[test]
fn what_is_said_to_be_cleared_of_nothing_is() {
    let rig = Rig::new();
    let vm = rig.vm();
    let bo = rig.open(&vm, &rig.bo(1));
    // Before anybody took it out.
    bo.close().unwrap().cleared(Flushed::by_driver());
    drop(bo);
    rig.idle();
    assert_eq!((rig.clears(), rig.books.of(Kind::Buffer)), (0, 0));
    drop(vm);
    rig.all_gone();
    let threads = Rig::on(Executor::builder().threads().unwrap());
    let vm = threads.vm();
    let gone = vm.drained();
    drop(vm);
    gone.wait(std::time::Duration::from_secs(60)).unwrap();
}
