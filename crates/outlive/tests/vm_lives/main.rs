//! Lifetimes of address spaces, rule 10: whatever is dropped, in whatever order and wherever, nothing that the hardware can
//! reach is freed, nothing leaks, and no lock or turn is held while a destructor runs.

#![expect(
    clippy::unwrap_used,
    clippy::std_instead_of_core,
    clippy::std_instead_of_alloc,
    clippy::disallowed_methods,
    reason = "a test: it has std and may panic"
)]

mod external;
mod gpu;
mod misuse;
mod named;

use gpu::{Cargo, Gpu, Kind, OnClear, Rig};
use outlive::vm::{Flushed, Request, Rule, Vm, VmBo};
use outlive::{Executor, Registration, Status, check};
use std::sync::{Arc, Mutex, mpsc};

#[global_allocator]
static ALLOC: check::Alloc<std::alloc::System> = check::Alloc::new(std::alloc::System);

/// Mappings; Miri takes its time.
const MANY: u64 = if cfg!(miri) { 30 } else { 1000 };

/// A VM with `count` mappings of one page each in ten buffers.
fn populated(rig: &Rig, count: u64) -> (Vm<Gpu>, Vec<VmBo<Gpu>>) {
    let vm = rig.vm();
    let bos: Vec<_> = (0..10).map(|_| rig.open(&vm, &rig.bo(count))).collect();
    let requests: Vec<_> = (0..count).map(|at| rig.map(&bos[usize::try_from(at % 10).unwrap()], at, at, 1)).collect();
    rig.change(&vm, &requests);
    assert_eq!(vm.status().mappings, requests.len());
    (vm, bos)
}

/// Ends as many jobs as there are, and looks after each.
fn finish_all(rig: &Rig, jobs: usize) {
    for _ in 0..jobs {
        assert_eq!(rig.books.of(Kind::Buffer), 10, "a job runs");
        rig.finish();
        rig.idle();
    }
}

#[test]
fn rule_10_the_last_handle_dropped_with_a_thousand_mappings_and_running_jobs() {
    let rig = Rig::new();
    let (vm, bos) = populated(&rig, MANY);
    let jobs: Vec<_> = (0..3).map(|job| rig.job(&vm, &[job, 10 + job, MANY - 1], None)).collect();
    let other = vm.clone();
    drop((vm, bos));
    rig.idle();
    assert_eq!(other.status().mappings, 0, "the buffers' handles are gone");
    assert_eq!((other.status().to_clear, other.status().uses), (10, 3));
    drop(other);
    rig.idle();
    assert_eq!(rig.books.of(Kind::Mapping), isize::try_from(MANY).unwrap());
    finish_all(&rig, jobs.len());
    rig.all_gone();
    assert!(jobs.iter().all(|job| job.retired().status() == Status::Signaled(Ok(()))));
}

/// The same with only the VM's handle dropped: what is mapped goes as a whole, once no handle is needed any more.
#[test]
fn rule_10_a_vm_ends_before_the_handles_on_its_buffers() {
    let rig = Rig::new();
    let (vm, bos) = populated(&rig, MANY);
    drop(rig.job(&vm, &[0, MANY / 2], None));
    drop(vm);
    finish_all(&rig, 1);
    assert_eq!((rig.books.of(Kind::Mapping), rig.books.of(Kind::Buffer)), (0, 10), "handles are left");
    assert!(bos.iter().all(|bo| bo.is_open() && bo.close().is_none()), "nothing is left to clear");
    drop(bos);
    rig.all_gone();
}

/// What is dropped, where.
fn dropped_in(place: impl FnOnce(&Rig, Cargo)) {
    let rig = Rig::new();
    let (vm, bos) = populated(&rig, MANY);
    let job = rig.job(&vm, &[3, 4], None);
    place(&rig, Some(Box::new((vm, bos))));
    rig.idle();
    rig.finish();
    rig.all_gone();
    assert!(job.retired().is_signaled());
}

#[test]
fn rule_10_the_last_handles_dropped_in_a_buffers_destructor() {
    dropped_in(|rig, handles| drop(rig.bo_with(1, handles)));
    // On the reaper, as a buffer of another address space is freed there.
    dropped_in(|rig, handles| {
        let other = rig.vm();
        let bo = rig.open(&other, &rig.bo_with(1, handles));
        rig.change(&other, &[rig.map(&bo, 0, 0, 1)]);
    });
}

#[test]
fn rule_10_the_last_handles_dropped_in_a_callback() {
    dropped_in(|rig, handles| {
        let vm = rig.vm();
        let job = rig.job(&vm, &[], None);
        job.finished().on_signaled(move |_| drop(handles)).map(Registration::keep).unwrap();
        // The job of the address space in question is the first in the ring.
        rig.finish();
        assert!(!job.finished().is_signaled());
        rig.finish();
        rig.idle();
        assert!(job.finished().is_signaled());
        drop(rig.job(&vm, &[], None));
    });
}

#[test]
fn rule_10_the_last_handles_dropped_on_the_reaper_by_a_payload() {
    dropped_in(|rig, handles| {
        let vm = rig.vm();
        drop(rig.job(&vm, &[], handles));
        rig.finish();
        rig.finish();
        rig.idle();
        drop(rig.job(&vm, &[], None));
    });
}

#[test]
fn rule_10_the_last_handles_dropped_in_the_signalling_path_allocate_and_free_nothing() {
    let rig = Rig::new();
    let (vm, bos) = populated(&rig, MANY);
    let held = bos[0].close();
    let use_ = vm.in_use().unwrap();
    assert!(check::take_report().is_none());
    let live = rig.books.live();
    {
        let _section = check::signalling();
        drop(held);
        drop(bos[1].close());
        drop(bos);
        drop(vm.close());
        drop((vm, use_));
        assert_eq!(rig.books.live(), live, "nothing was dropped here");
    }
    assert!(check::take_report().is_none());
    rig.all_gone();
}

#[test]
fn what_running_jobs_use_is_cleared_after_they_have_retired() {
    let rig = Rig::new();
    let vm = rig.vm();
    let (one, other) = (rig.open(&vm, &rig.bo(4)), rig.open(&vm, &rig.bo(4)));
    rig.change(&vm, &[rig.map(&one, 0, 0, 4), rig.map(&other, 8, 0, 4)]);
    let before = rig.job(&vm, &[0, 8], None);
    let to_clear = one.close().unwrap();
    assert!(one.close().is_none() && !one.is_open());
    drop((to_clear, one));
    rig.idle();
    let after = rig.job(&vm, &[8], None);
    assert_eq!((vm.data().len(), vm.status().mappings, vm.status().to_clear), (8, 1, 1), "out, and not cleared");
    rig.finish();
    rig.idle();
    assert!(before.retired().is_signaled() && !after.retired().is_signaled());
    assert_eq!((vm.data().len(), rig.books.of(Kind::Buffer)), (4, 1), "jobs that began later hold nothing up");
    drop((vm, other));
    rig.idle();
    rig.finish();
    rig.all_gone();
}

#[test]
fn a_stream_of_jobs_without_a_gap_holds_no_close_up() {
    let rig = Rig::new();
    let vm = rig.vm();
    let mut newest = rig.job(&vm, &[], None);
    for turn in 0..50 {
        let bo = rig.open(&vm, &rig.bo(1));
        rig.change(&vm, &[rig.map(&bo, turn, 0, 1)]);
        drop(bo);
        rig.idle();
        newest = rig.job(&vm, &[], None);
        rig.finish();
        rig.idle();
        assert!(rig.books.of(Kind::Buffer) <= 1, "as many as jobs on the hardware");
        assert!(!newest.retired().is_signaled());
    }
    drop((vm, newest));
    rig.finish();
    rig.all_gone();
}

#[test]
fn whoever_closes_may_clear_by_hand() {
    let rig = Rig::new();
    let vm = rig.vm();
    let bo = rig.open(&vm, &rig.bo(4));
    rig.change(&vm, &[rig.map(&bo, 0, 0, 2), rig.map(&bo, 8, 2, 2)]);
    let job = rig.job(&vm, &[], None);
    let to_clear = bo.close().unwrap();
    assert!(to_clear.is_in_use() && to_clear.bo().is_some());
    let edit = vm.edit().unwrap();
    let mut ranges: Vec<_> = edit.clearing(&to_clear).map(|mapping| mapping.range.base() / gpu::PAGE).collect();
    ranges.sort_unstable();
    assert_eq!((ranges, edit.len()), (vec![0, 8], 0));
    assert_eq!(rig.vm().edit().unwrap().clearing(&to_clear).count(), 0, "of another address space");
    gpu::unmap(&edit, &to_clear);
    vm.data().flush();
    drop((edit, bo));
    to_clear.cleared(Flushed::by_driver());
    rig.idle();
    assert_eq!(rig.books.of(Kind::Buffer), 1, "a job that began before it left is running");
    rig.finish();
    rig.idle();
    assert!(job.retired().is_signaled());
    assert_eq!((rig.books.of(Kind::Buffer), rig.books.of(Kind::Mapping), rig.clears()), (0, 0, 1));
    let whole = vm.close().unwrap();
    assert!(vm.close().is_none() && whole.bo().is_none() && !whole.is_in_use());
    whole.cleared(Flushed::by_driver());
    drop(vm);
    rig.all_gone();
    assert_eq!(rig.clears(), 1, "of the other address space");
}

/// A change takes a buffer's mapping out, the buffer is closed, and the page tables follow only later: its pages stay
/// until then.
#[test]
fn a_buffer_closed_beside_a_change_whose_page_tables_are_to_follow_stays() {
    for close_before_commit in [false, true] {
        let rig = Rig::new();
        let vm = rig.vm();
        let bo = rig.open(&vm, &rig.bo(4));
        rig.change(&vm, &[rig.map(&bo, 0, 0, 4)]);
        let mut edit = vm.edit().unwrap();
        let plan = edit.plan(&[Request::Unmap { va: 0, len: 4 * gpu::PAGE }]).unwrap();
        let mut bo = Some(bo);
        if close_before_commit {
            drop(bo.take());
        }
        let binding = plan.commit();
        drop((edit, bo));
        rig.idle();
        assert_eq!((vm.status().to_clear, rig.books.of(Kind::Buffer)), (1, 1), "its entries are there");
        vm.data().carry_out(binding.steps());
        vm.data().flush();
        drop(binding.flushed(Flushed::by_driver()));
        rig.idle();
        assert_eq!((vm.status().to_clear, rig.books.of(Kind::Buffer)), (0, 0));
        drop(vm);
        rig.all_gone();
    }
}

/// The address space is closed and all handles are gone while somebody is changing it.
#[test]
fn a_change_goes_on_whatever_is_closed_meanwhile() {
    let rig = Rig::new();
    let (vm, bos) = populated(&rig, MANY);
    let mut edit = vm.edit().unwrap();
    let request = rig.map(&bos[0], 2 * MANY, 0, 5);
    let plan = edit.plan(core::slice::from_ref(&request)).unwrap();
    let tables = vm.data().alias();
    drop((vm, bos));
    rig.idle();
    let binding = plan.apply(&mut &tables).unwrap();
    drop(binding.flushed(Flushed::by_driver()));
    assert_eq!(edit.len(), usize::try_from(MANY + 1).unwrap());
    assert!(matches!(edit.plan(&[request]).unwrap_err().rule, Rule::Closed));
    assert_eq!(rig.books.of(Kind::Buffer), 10);
    drop((edit, tables));
    rig.all_gone();
}

/// What `clear` could not clear is never freed; the rest is, and the address space stays with it.
#[test]
fn what_cannot_be_cleared_is_never_freed() {
    let rig = Rig::new();
    let vm = rig.vm();
    let (one, other) = (rig.open(&vm, &rig.bo(1)), rig.open(&vm, &rig.bo(1)));
    rig.change(&vm, &[rig.map(&one, 0, 0, 1), rig.map(&other, 1, 0, 1)]);
    rig.on_clear(OnClear::Fail);
    drop(one);
    rig.idle();
    rig.on_clear(OnClear::Clear);
    drop(other);
    rig.idle();
    assert_eq!((rig.books.of(Kind::Buffer), vm.status().quarantined, vm.status().to_clear), (1, 1, 1));
    drop(vm);
    rig.idle();
    assert_eq!((rig.books.of(Kind::Buffer), rig.books.of(Kind::Vm), rig.clears()), (1, 1, 2));
    rig.no_faults();
}

/// A driver that clears through a job says later that it did.
#[test]
fn cleared_may_be_said_later_from_the_signalling_path() {
    let rig = Rig::new();
    let (vm, bos) = populated(&rig, MANY.min(100));
    rig.on_clear(OnClear::Later);
    drop((vm, bos));
    for _ in 0..2 {
        rig.idle();
        assert_eq!(
            (rig.books.of(Kind::Buffer), rig.books.of(Kind::Vm)),
            if rig.clears() == 10 { (10, 1) } else { (0, 1) }
        );
        let _section = check::signalling();
        rig.say_cleared();
    }
    assert!(check::take_report().is_none());
    rig.all_gone();
    assert_eq!(rig.clears(), 11, "ten buffers, then the rest");
}

/// Page tables of a device that is gone cannot be cleared and need not be.
#[test]
fn a_device_that_is_gone_for_good_clears_by_that() {
    let rig = Rig::new();
    let vm = rig.vm();
    let bo = rig.open(&vm, &rig.bo(1));
    let to_clear = bo.close().unwrap().quiesced().unwrap_err();
    rig.device.unplug();
    rig.idle();
    assert!(to_clear.quiesced().is_ok());
    drop(vm.close().unwrap().quiesced());
    drop((vm, bo));
    rig.all_gone();
}

/// One executor with threads: the last handles on all lanes at once, a hundred times.
#[test]
fn under_threads_everything_goes() {
    let rig = Rig::on(Executor::builder().threads().unwrap());
    let (sender, receiver) = mpsc::channel();
    for round in 0..100 {
        let vm = rig.vm();
        let gone = vm.drained();
        let bos: Vec<_> = (0..4).map(|_| rig.open(&vm, &rig.bo(8))).collect();
        let requests: Vec<_> = (0..32).map(|at| rig.map(&bos[at as usize % 4], at, at % 8, 1)).collect();
        rig.change(&vm, &requests);
        let job = rig.job(&vm, &[16 + round % 16], Some(Box::new(bos)));
        let editor = vm.clone();
        let unmap = Request::Unmap { va: 0, len: 16 * gpu::PAGE };
        let (rig, sender) = (&rig, sender.clone());
        std::thread::scope(|scope| {
            scope.spawn(move || drop(vm));
            scope.spawn(move || {
                let _ = rig.try_change(&editor, &[unmap]);
                sender.send(()).unwrap();
            });
            scope.spawn(|| rig.finish_soon());
            receiver.recv().unwrap();
        });
        gone.wait(std::time::Duration::from_secs(60)).unwrap();
        assert!(job.retired().is_signaled());
    }
    while rig.books.live() != [0, 0, 0, 0, 0, 1] {
        std::thread::yield_now();
    }
    rig.no_faults();
}

/// A destructor that uses the very address space that it is freed by: no turn and no lock is held.
#[test]
fn destructors_may_use_the_address_space_that_frees_them() {
    struct Edits(Vm<Gpu>, Arc<Mutex<u32>>);
    impl Drop for Edits {
        fn drop(&mut self) {
            drop(self.0.try_edit().expect("nobody has the turn"));
            drop(self.0.edit().unwrap());
            *self.1.lock().unwrap() += 1;
        }
    }
    let rig = Rig::new();
    let count = Arc::new(Mutex::new(0));
    let vm = rig.vm();
    let in_buffer = rig.open(&vm, &rig.bo_with(1, Some(Box::new(Edits(vm.clone(), count.clone())))));
    rig.change(&vm, &[rig.map(&in_buffer, 0, 0, 1)]);
    drop(rig.job(&vm, &[0], Some(Box::new(Edits(vm.clone(), count.clone())))));
    let mut in_mapping = rig.map(&in_buffer, 1, 0, 1);
    let Request::Map { data, .. } = &mut in_mapping else { unreachable!("a map request") };
    data.carry(Mutex::new(Edits(vm.clone(), count.clone())));
    rig.change(&vm, &[in_mapping]);
    drop(in_buffer);
    rig.finish();
    rig.idle();
    assert_eq!(*count.lock().unwrap(), 3);
    drop(vm);
    rig.all_gone();
}
