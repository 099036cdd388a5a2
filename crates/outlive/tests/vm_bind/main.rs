//! Address spaces that are changed by running bind jobs: what is promised between acceptance and the run, whatever is closed,
//! fails, waits or runs out of memory in between; and that nothing in the signalling path allocates, waits or drops.

#![expect(
    clippy::unwrap_used,
    clippy::std_instead_of_core,
    clippy::std_instead_of_alloc,
    clippy::disallowed_methods,
    reason = "a test: it has std and may panic"
)]

mod ends;
mod gpu;

use gpu::{FAULT, Gpu, Kind, NowVm, OK, PAGE, Rig, signalling, unmap};
use outlive::resv::{Reservation, Slot, Transaction, Usage};
use outlive::vm::{Bo, EditRefused, Immediate, Request, Rule, Vm, VmError, VmLocks};
use outlive::{Dependency, Executor, FenceError, Reserved, Status, check};
use std::cell::RefCell;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::mpsc;
use std::time::Duration;

#[global_allocator]
static ALLOC: check::Alloc<std::alloc::System> = check::Alloc::new(std::alloc::System);

/// First and last page of what is mapped.
fn ranges(vm: &NowVm) -> Vec<(u64, u64)> {
    // Nothing is allocated with the space in hand.
    let mut ranges = Vec::with_capacity(256);
    ranges.extend(vm.look().unwrap().iter().map(|mapping| (mapping.range.base() / PAGE, mapping.range.last() / PAGE)));
    ranges
}

#[test]
fn a_batch_is_worked_out_when_its_job_runs() {
    let rig = Rig::new();
    let (vm, pair) = rig.opened(16);
    // Accepted first, and against nothing: it cuts what comes later.
    let cut = vm.prepare(&[unmap(4, 2)]).unwrap();
    let (gate, after) = ends::gate(&rig);
    let mapped = rig.submit(vm.prepare(&[rig.map(&pair, 0, 8)]).unwrap(), after);
    let cut = rig.submit(cut, vec![Dependency::from(mapped.finished())]);
    rig.idle();
    assert_eq!((ranges(&vm), vm.data().pages().len()), (vec![], 0), "nothing has run");
    gate.signal(Ok(()));
    rig.idle();
    assert_eq!([mapped, cut].map(|job| job.retired().status()), [OK; 2]);
    assert_eq!(ranges(&vm), [(0, 3), (6, 7)]);
    assert_eq!(vm.data().pages(), [0, 1, 2, 3, 6, 7]);
    assert_eq!(pair.bo().reach(), 6, "flushed");
    assert_eq!(rig.books.of(Kind::Room), 0, "what was put aside goes to the reaper");
    drop((vm, pair));
    rig.all_gone();
}

/// A bind job begins while somebody looks: it waits for no lock, and is carried out where the look ends, in order.
#[test]
fn who_has_the_space_carries_out_what_has_begun_meanwhile() {
    let rig = Rig::new();
    let (vm, pair) = rig.opened(8);
    let batches: Vec<_> = [rig.map(&pair, 0, 8), unmap(2, 4), rig.map(&pair, 3, 1)].into_iter().collect();
    let prepared: Vec<_> = batches.iter().map(|one| vm.prepare(std::slice::from_ref(one)).unwrap()).collect();
    let accepted = prepared.into_iter().map(|one| rig.accept(one, Vec::new())).collect::<Vec<_>>();
    let mut jobs = Vec::with_capacity(accepted.len());
    let look = vm.look().unwrap();
    jobs.extend(accepted.into_iter().map(Reserved::commit));
    rig.executor.step();
    assert!(look.is_empty() && jobs.iter().all(|job| job.finished().status() == Status::Pending));
    // Nor does anything of the reaper's come in between.
    rig.idle();
    assert!(look.is_empty());
    signalling(|| drop(look));
    // They were on the hardware together, as far as their queue's credits let them.
    rig.idle();
    assert!(jobs.iter().all(|job| job.finished().status() == OK));
    assert_eq!(ranges(&vm), [(0, 1), (3, 3), (6, 7)]);
    assert_eq!(vm.data().pages(), [0, 1, 3, 6, 7]);
    drop((vm, pair, batches));
    rig.all_gone();
}

/// A thread that has the place in line of those who make room, in a driver's code, waits for the very bind job's fence.
#[test]
fn whoever_has_the_turn_may_wait_for_a_bind_job() {
    let rig = Rig::on(Executor::builder().threads().unwrap());
    let (vm, pair) = rig.opened(8);
    let prepared = vm.prepare(&[rig.map(&pair, 0, 8)]).unwrap();
    let (turn_taken, submit) = mpsc::channel();
    let (submitted, wait) = mpsc::channel();
    let other = rig.external(1);
    let opener = std::thread::spawn({
        let (vm, other, token) = (vm.clone(), other.clone(), gpu::Token::new(&rig.books, Kind::Pair));
        move || {
            vm.open(&other, || {
                turn_taken.send(()).unwrap();
                let job: outlive::JobFences = wait.recv().unwrap();
                job.finished().wait(Duration::MAX).unwrap();
                token
            })
        }
    });
    submit.recv().unwrap();
    let job = rig.submit(prepared, Vec::new());
    submitted.send(job.clone()).unwrap();
    let opened = opener.join().unwrap().unwrap();
    assert_eq!((job.finished().status(), ranges(&vm)), (OK, vec![(0, 7)]));
    let gone = vm.drained();
    drop((vm, pair, opened, other));
    gone.wait(Duration::MAX).unwrap();
    rig.no_faults();
}

#[test]
fn misuse_is_refused_and_reported() {
    let rig = Rig::new();
    let (vm, pair) = rig.opened(8);
    let look = vm.look().unwrap();
    assert_eq!(vm.look().unwrap_err(), EditRefused::WouldDeadlock);
    assert!(vm.try_look().is_none());
    drop(look);
    while check::take_report().is_some() {}
    let section = check::signalling();
    assert_eq!(vm.look().unwrap_err(), EditRefused::InSignallingSection);
    assert_eq!(vm.try_look().map(drop), Some(()));
    drop(section);
    let waited = check::take_report().unwrap();
    assert!(waited.to_string().contains("waited"), "{waited}");
    // What must not be done with the space in hand.
    let look = vm.look().unwrap();
    drop(Vec::<u8>::with_capacity(100));
    drop(look);
    let allocated = check::take_report().unwrap();
    assert!(allocated.to_string().contains("holding `address space for a moment`"), "{allocated}");
    let look = vm.look().unwrap();
    let waited = Transaction::new().run::<(), _>(|attempt| attempt.lock(vm.reservation()).map(drop), |_, ()| ());
    drop((look, waited));
    let order = check::take_report().unwrap();
    assert!(order.to_string().contains("holding `address space for a moment`"), "{order}");
    while check::take_report().is_some() {}
    // Requests are named, with their rule.
    let bad = [rig.map(&pair, 0, 1), rig.map(&pair, 0, 9)];
    let Err(VmError::Plan(error)) = vm.prepare(&bad) else { panic!("beyond the buffer's end") };
    assert_eq!((error.request, matches!(error.rule, Rule::BeyondBo { .. })), (1, true));
    assert!(VmError::Plan(error).to_string().starts_with("request 1: offset 0x0 plus 0x9000"));
    drop(bad);
    drop((vm, pair));
    rig.all_gone();
}

/// Whatever is accepted is in a list from when it was opened, so who locks all has it before its job runs.
#[test]
fn the_external_buffers_of_batches_that_are_still_to_run_are_locked() {
    let rig = Rig::new();
    let vm = rig.vm();
    let shared = rig.external(4);
    let pair = rig.open(&vm, &shared);
    let prepared = vm.prepare(&[rig.map(&pair, 0, 4), rig.map(&pair, 8, 4), unmap(2, 1)]).unwrap();
    assert_eq!(prepared.bos().count(), 2);
    assert_eq!((prepared.tables(21), prepared.splits(21), prepared.requests().len()), (2, 3, 3));
    let prepared = RefCell::new(Some(prepared));
    let jobs = Transaction::new().run::<Vec<Slot<'_>>, _>(
        |attempt| prepared.borrow().as_ref().unwrap().lock_bos(attempt),
        |sealed, slots| {
            // With everything locked it may be looked at, too.
            assert!(vm.look().unwrap().is_empty());
            let job = rig.submit(prepared.take().unwrap(), vec![]);
            for slot in slots {
                sealed.add(slot, Usage::Kernel, &job.retired());
            }
            job
        },
    );
    drop(jobs.unwrap());
    let waiting = vm.prepare(&[unmap(0, 1)]).unwrap();
    let after = rig.job(());
    let job = rig.submit(waiting, vec![Dependency::from(after.finished())]);
    let locked = Transaction::new().run::<VmLocks<'_, Gpu>, _>(
        |attempt| vm.lock_all(attempt),
        |sealed, locks| {
            let count = locks.external();
            locks.add(sealed, Usage::Bookkeep, Usage::Write, &job.retired());
            count
        },
    );
    assert_eq!(locked.unwrap(), 1);
    let hangs =
        |on: &Reservation| on.snapshot(Usage::Bookkeep).unwrap().iter().any(|(_, fence)| *fence == job.retired());
    assert!(hangs(vm.reservation()) && hangs(shared.core().reservation()));
    rig.finish();
    rig.idle();
    assert_eq!(job.finished().status(), OK);
    drop((vm, pair, shared));
    rig.all_gone();
}

/// The driver fails at each step: the job fails with that, the address space is poisoned, and what may be in the page tables can
/// be unmapped, or goes with a close.
#[test]
fn a_driver_that_fails_poisons_and_unmapping_still_works() {
    for step in 1.. {
        let rig = Rig::new();
        let (vm, pair) = rig.opened(32);
        assert_eq!(rig.bind(&vm, &[rig.map(&pair, 0, 8), rig.map(&pair, 10, 8)]).finished().status(), OK);
        rig.device.driver().fails_in.store(step, SeqCst);
        let job = rig.bind(&vm, &[unmap(3, 2), rig.map(&pair, 6, 6), unmap(12, 1), rig.map(&pair, 20, 2)]);
        let spared = rig.device.driver().fails_in.swap(0, SeqCst) > 0;
        rig.idle();
        assert_eq!(job.finished().status(), if spared { OK } else { Status::Signaled(Err(FAULT)) });
        assert_eq!(vm.status().poisoned, !spared);
        // Whatever is in the page tables is in the space.
        let mapped = ranges(&vm);
        let known = |page: &u64| mapped.iter().any(|(first, last)| (first..=last).contains(&page));
        assert!(vm.data().pages().iter().all(known), "step {step}: {:?} in {mapped:?}", vm.data().pages());
        if spared {
            assert!(step > 6, "only {step} steps");
            drop((vm, pair));
            rig.all_gone();
            break;
        }
        let refused = vm.prepare(&[rig.map(&pair, 0, 1)]).unwrap_err();
        assert!(matches!(refused, VmError::Plan(error) if error.rule == Rule::Poisoned));
        assert_eq!(rig.bind(&vm, &[unmap(0, 15)]).finished().status(), OK);
        assert!(vm.data().pages().iter().all(|page| *page >= 15));
        drop((vm, pair));
        rig.all_gone();
    }
}

#[test]
fn a_flush_that_fails_keeps_what_was_unmapped_for_ever() {
    let rig = Rig::new();
    let (vm, pair) = rig.opened(8);
    let buffer = pair.bo().clone();
    drop(rig.bind(&vm, &[rig.map(&pair, 0, 8)]));
    rig.device.driver().flush_fails.store(true, SeqCst);
    let job = rig.bind(&vm, &[unmap(0, 8)]);
    assert_eq!(job.finished().status(), Status::Signaled(Err(FAULT)));
    rig.device.driver().flush_fails.store(false, SeqCst);
    assert_eq!((vm.status().poisoned, vm.status().quarantined), (true, 1));
    let gone = vm.drained();
    drop((vm, pair, buffer));
    rig.idle();
    assert!(!gone.is_drained());
    assert_eq!((rig.books.of(Kind::Buffer), rig.books.of(Kind::Mapping)), (1, 1));
    rig.no_faults();
}

/// Memory that runs out while a batch is accepted or a buffer is opened changes nothing.
#[test]
fn whichever_allocation_fails_nothing_is_changed() {
    let rig = Rig::new();
    let (vm, pair) = rig.opened(8);
    let requests: Vec<_> = (0..20).map(|at| rig.map(&pair, 10 * at, 8)).collect();
    let mut failed = [0, 0];
    for n in 1.. {
        check::fail_nth_allocation(n);
        let prepared = vm.prepare(&requests);
        let spared = check::fail_nth_allocation(0) > 0;
        match prepared {
            Ok(prepared) => {
                assert!(spared);
                assert_eq!(rig.submit(prepared, Vec::new()).finished().status(), OK);
                break;
            }
            Err(error) => assert!(matches!(error, VmError::Plan(error) if matches!(error.rule, Rule::NoMemory(_)))),
        }
        assert!(!spared && vm.look().unwrap().is_empty());
        failed[0] += 1;
    }
    assert_eq!(ranges(&vm).len(), 20);
    let mut pairs = Vec::new();
    // Until the tables of buffers have grown, several times.
    for _ in 0..40 {
        let buffer = rig.external(1);
        for n in 1.. {
            let bos = vm.status().bos;
            let token = gpu::Token::new(&rig.books, Kind::Pair);
            check::fail_nth_allocation(n);
            let opened = vm.open(&buffer, || token);
            let spared = check::fail_nth_allocation(0) > 0;
            if let Ok(opened) = opened {
                assert!(spared);
                pairs.push(opened);
                break;
            }
            let status = vm.status();
            assert_eq!((spared, status.bos, status.external), (false, bos, pairs.len()));
            assert_eq!(vm.look().unwrap().bos().count(), bos);
            failed[1] += 1;
        }
    }
    assert!(failed[0] >= 5 && failed[1] >= 50, "{failed:?} failed");
    assert_eq!(vm.look().unwrap().bos().count(), 41);
    assert!(pairs.iter().all(|pair| vm.look().unwrap().find_bo(pair.bo()).is_some()));
    rig.idle();
    drop((vm, pair, pairs, requests));
    rig.all_gone();
}

/// An address space whose changes are run is no other: limits, protection, sparse and reserved ranges are the planner's.
#[test]
fn the_limit_counts_what_is_accepted() {
    let rig = Rig::new();
    let geometry = outlive::vm::Geometry { base: 0, len: 1 << 24, page: PAGE };
    let config = outlive::vm::VmConfig::new(geometry).mappings_max(4).bos_max(1);
    let vm: Vm<Gpu, Immediate> = Vm::immediate(&rig.device, config, gpu::Tables::new(&rig.books)).unwrap();
    let pair = rig.open(&vm, &rig.external(8));
    let refused = vm.open(&rig.external(1), || gpu::Token::new(&rig.books, Kind::Pair)).unwrap_err();
    assert_eq!(refused, VmError::TooManyBos { limit: 1 });
    let two = vm.prepare(&[rig.map(&pair, 0, 1), rig.map(&pair, 4, 1)]).unwrap();
    let Err(VmError::Plan(refused)) = vm.prepare(&[unmap(0, 1), rig.map(&pair, 8, 1)]) else { panic!("too many") };
    assert_eq!((refused.request, refused.rule), (1, Rule::TooMany { limit: 4 }));
    drop(two);
    assert!(!vm.status().poisoned, "it was not accepted");
    assert_eq!(rig.bind(&vm, &[rig.map(&pair, 8, 1)]).finished().status(), OK);
    let other = Rig::new();
    let foreign = vm.open(&other.external(1), || gpu::Token::new(&rig.books, Kind::Pair)).unwrap_err();
    assert!(matches!(foreign, VmError::OtherDevice { .. }));
    let protect = Request::Protect {
        va: 8 * PAGE,
        len: PAGE,
        clear: outlive::vm::Flags::NONE,
        set: outlive::vm::Flags::READ_ONLY,
    };
    assert_eq!(rig.bind(&vm, &[protect]).finished().status(), OK);
    assert!(vm.look().unwrap().find(8 * PAGE).unwrap().flags.has(outlive::vm::Flags::READ_ONLY));
    assert_eq!(FenceError::Canceled.cause(), outlive::Cause::Canceled);
    rig.idle();
    drop((vm, pair));
    rig.all_gone();
}
