//! External and evicted buffers: whoever locks all of an address space locks theirs, and validates what was evicted.

use crate::gpu::{BoRef, Gpu, Kind, PAGE, Rig, Token};
use outlive::resv::{LockError, Plain, Slot, Transaction, Usage};
use outlive::vm::{Bo, Request, Vm, VmBo, VmError, VmLocks};
use outlive::{FenceError, JobFences, check};
use std::sync::atomic::Ordering::SeqCst;

/// Submits a job that may touch all of `vm`, and hangs its fence on everything.
fn submit(rig: &Rig, vm: &Vm<Gpu>) -> Result<JobFences, LockError> {
    Transaction::new().run::<VmLocks<'_, Gpu>, _>(
        |attempt| vm.lock_all(attempt),
        |sealed, locks| {
            let job = rig.job(vm, &[], None);
            locks.add(sealed, Usage::Bookkeep, Usage::Write, &job.retired());
            job
        },
    )
}

/// With everything idle, takes the pages of `bo` away.
fn evict(bo: &BoRef) {
    let reservation = bo.core().reservation();
    let evicted = Transaction::new().run::<Slot<'_>, _>(
        |attempt| attempt.prepare(reservation),
        |sealed, slot| bo.core().evicted(sealed, slot.locked()),
    );
    assert_eq!(evicted, Ok(true));
}

fn is_idle(bo: &BoRef, usage: Usage) -> bool {
    bo.core().reservation().is_idle(usage).unwrap()
}

/// Validates what is to be validated, at most `at_most`: the sizes of the buffers that were.
fn validate(vm: &Vm<Gpu>, at_most: usize) -> (Vec<u64>, bool) {
    let mut done = Vec::new();
    let all = Transaction::new().run::<Plain<bool>, _>(
        |attempt| {
            let locks = vm.lock_all(attempt)?;
            let all = locks.validate(|bo, _| {
                if done.len() == at_most {
                    return Err(());
                }
                done.push(bo.core().size() / PAGE);
                Ok(())
            });
            Ok(Plain(all.is_ok()))
        },
        |_, Plain(all)| all,
    );
    (done, all.unwrap())
}

#[test]
fn a_jobs_fence_is_on_the_address_space_and_every_external_buffer() {
    let rig = Rig::new();
    let (vm, other) = (rig.vm(), rig.vm());
    let (shared, external, local) = (rig.bo(1), rig.bo(1), rig.local(&vm, 1));
    let pairs = [rig.open(&vm, &shared), rig.open(&vm, &external), rig.open(&vm, &local), rig.open(&other, &shared)];
    assert_eq!((vm.status().external, other.status().external), (2, 1));
    assert!(local.core().reservation() == vm.reservation());
    let job = submit(&rig, &vm).unwrap();
    for bo in [&shared, &external] {
        assert!(!is_idle(bo, Usage::Write));
    }
    assert!(is_idle(&local, Usage::Read) && !is_idle(&local, Usage::Bookkeep));
    assert!(other.reservation().is_idle(Usage::Bookkeep).unwrap(), "nothing of another address space");
    // A local buffer of one address space is external to another.
    let guest = rig.open(&other, &local);
    assert_eq!((other.status().external, vm.status().external), (2, 2));
    rig.finish();
    rig.idle();
    assert!(job.retired().is_signaled() && is_idle(&shared, Usage::Bookkeep));
    drop((pairs, guest));
    rig.idle();
    assert_eq!((vm.status().external, other.status().external), (0, 0), "closed buffers are not locked");
    drop((vm, other, shared, external, local));
    rig.all_gone();
}

/// One test's buffers are of 1, 2, ... pages, by which they are told apart.
#[test]
fn what_was_evicted_is_validated_once_and_after_an_error_the_rest() {
    let rig = Rig::new();
    let vm = rig.vm();
    let bos: Vec<_> = (1..=3).map(|pages| rig.bo(pages)).chain((4..=6).map(|pages| rig.local(&vm, pages))).collect();
    let pairs: Vec<_> = bos.iter().map(|bo| rig.open(&vm, bo)).collect();
    assert_eq!(validate(&vm, 9), (vec![], true), "nothing was evicted");
    for evicted in [1, 2, 4, 5] {
        evict(&bos[evicted]);
    }
    evict(&bos[4]);
    assert_eq!(validate(&vm, 0), (vec![], false));
    assert_eq!(validate(&vm, 3), (vec![2, 3, 5], false), "external ones, then local ones");
    assert_eq!(validate(&vm, 9), (vec![6], true));
    assert_eq!(validate(&vm, 9), (vec![], true));
    evict(&bos[2]);
    evict(&bos[3]);
    drop(pairs);
    rig.idle();
    assert_eq!(validate(&vm, 9), (vec![], true), "closed ones need nothing");
    drop((vm, bos));
    rig.all_gone();
}

/// Where a buffer is open: one handle for each address space, by which its entries there are found, and nothing of a device that
/// it is not of.
#[test]
fn a_buffer_knows_every_address_space_that_it_is_open_in() {
    let rig = Rig::new();
    let vms: Vec<_> = (0..3).map(|_| rig.vm()).collect();
    let bo = rig.bo(1);
    let all = || VmBo::all(&rig.device, &bo).unwrap();
    assert_eq!(all().len(), 0, "never opened");
    let mut pairs: Vec<_> = vms.iter().map(|vm| rig.open(vm, &bo)).collect();
    for (page, (vm, pair)) in (1..).zip(vms.iter().zip(&pairs)) {
        rig.change(vm, &[rig.map(pair, page, 0, 1)]);
    }
    let found: Vec<_> = all()
        .iter()
        .map(|open| {
            let edit = open.edit().unwrap();
            edit.of_bo(open.id()).map(|mapping| mapping.range.base() / PAGE).collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(found, [[1], [2], [3]]);
    let other = Rig::new();
    assert_eq!(VmBo::all(&other.device, &bo).unwrap().len(), 0, "of another device");
    drop(other);
    // Closed, it is found no more; opened anew, as a new pair.
    drop(pairs.remove(0).close());
    let second = pairs.remove(0);
    assert_eq!(all().iter().map(VmBo::id).collect::<Vec<_>>(), [second.id(), pairs[0].id()]);
    drop(second);
    rig.idle();
    pairs.push(rig.open(&vms[1], &bo));
    assert_eq!(all().iter().map(VmBo::id).collect::<Vec<_>>(), pairs.iter().map(VmBo::id).collect::<Vec<_>>());
    // Handles outlive the address spaces; and the list.
    drop(vms);
    rig.idle();
    assert_eq!(all().len(), 2);
    drop(pairs);
    rig.idle();
    assert_eq!(all().len(), 0);
    drop(bo);
    rig.all_gone();
}

#[test]
fn evicting_needs_the_buffers_own_lock() {
    let rig = Rig::new();
    let (one, other) = (rig.bo(1), rig.bo(1));
    let done = Transaction::new().run::<Slot<'_>, _>(
        |attempt| attempt.prepare(other.core().reservation()),
        |sealed, slot| one.core().evicted(sealed, slot.locked()),
    );
    assert_eq!(done, Ok(false));
    drop((one, other));
    rig.all_gone();
}

#[test]
fn a_change_locks_what_it_touches() {
    let rig = Rig::new();
    let vm = rig.vm();
    let bos: Vec<_> = (0..4).map(|_| rig.bo(4)).collect();
    let pairs: Vec<_> = bos.iter().map(|bo| rig.open(&vm, bo)).collect();
    rig.change(&vm, &[rig.map(&pairs[0], 0, 0, 1), rig.map(&pairs[1], 1, 0, 1)]);
    let mut edit = vm.edit().unwrap();
    assert_eq!(edit.of_bo(pairs[1].id()).map(|mapping| mapping.range.base()).collect::<Vec<_>>(), [PAGE]);
    let plan = edit.plan(&[rig.map(&pairs[2], 0, 0, 1), Request::Unmap { va: PAGE, len: PAGE }]).unwrap();
    let locked = Transaction::new().run::<Vec<Slot<'_>>, _>(
        |attempt| plan.lock_bos(attempt),
        |_, slots| (slots.len(), bos.iter().map(|bo| bo.core().reservation().is_locked()).collect::<Vec<_>>()),
    );
    assert_eq!(locked, Ok((4, vec![true, true, true, false])));
    drop(plan);
    drop(edit);
    drop((vm, pairs, bos));
    rig.all_gone();
}

/// Memory that is never free is not used again: the job that would touch it is not published.
#[test]
fn a_poisoned_reservation_refuses_to_be_locked_with_the_others() {
    let rig = Rig::new();
    let (vm, bystander) = (rig.vm(), rig.vm());
    let bo = rig.bo(1);
    let pairs = [rig.open(&vm, &bo), rig.open(&bystander, &bo)];
    drop(submit(&rig, &vm).unwrap());
    rig.device.driver().loses_dma.store(true, SeqCst);
    rig.device.unplug();
    rig.idle();
    let poisoned = |reservation| LockError::Poisoned { reservation, error: FenceError::Quarantined };
    assert_eq!(submit(&rig, &bystander).unwrap_err(), poisoned(bo.core().reservation().id()));
    assert_eq!(submit(&rig, &vm).unwrap_err(), poisoned(vm.reservation().id()));
    let refused = vm.open(&rig.bo(1), || Token::new(&rig.books, Kind::Pair)).unwrap_err();
    assert_eq!(refused, VmError::Lock(poisoned(vm.reservation().id())));
    rig.idle();
    assert_eq!((vm.status().bos, rig.books.of(Kind::Pair)), (1, 2));
    // What the job in quarantine uses stays for ever.
    drop((pairs, vm, bo));
    drop(bystander);
    rig.idle();
    assert_eq!((rig.books.of(Kind::Payload), rig.books.of(Kind::Buffer), rig.books.of(Kind::Vm)), (1, 1, 1));
    rig.no_faults();
}

/// Reservations are locked by whoever has the turn, not the other way round.
#[test]
fn the_turn_comes_before_reservations() {
    let rig = Rig::new();
    let vm = rig.vm();
    check::set_reporter(false);
    let edit = vm.edit().unwrap();
    drop(submit(&rig, &vm).unwrap());
    drop(edit);
    rig.finish();
    assert!(check::take_report().is_none());
    let inside = Transaction::new()
        .run::<Slot<'_>, _>(|attempt| attempt.prepare(vm.reservation()), |_, _| drop(vm.edit().unwrap()));
    inside.unwrap();
    let report = check::take_report().map(|report| report.violation);
    assert!(matches!(report, Some(check::Violation::LockOrder { .. })), "{report:?}");
    drop(vm);
    rig.all_gone();
}

#[test]
fn a_job_that_names_its_buffers_locks_and_validates_those_only() {
    let rig = Rig::new();
    let (vm, other) = (rig.vm(), rig.vm());
    let (named, unnamed, local, foreign) = (rig.bo(1), rig.bo(2), rig.local(&vm, 3), rig.bo(4));
    let pairs = [rig.open(&vm, &named), rig.open(&vm, &unnamed), rig.open(&vm, &local), rig.open(&other, &foreign)];
    let submit = |names: &[&VmBo<Gpu>]| {
        let mut validated = Vec::new();
        let job = Transaction::new().run::<VmLocks<'_, Gpu>, _>(
            |attempt| {
                let locks = vm.lock_named(attempt, names)?;
                locks.validate(|bo, _| {
                    validated.push(bo.core().size() / PAGE);
                    Ok::<_, LockError>(())
                })?;
                Ok(locks)
            },
            |sealed, locks| {
                let job = rig.job(&vm, &[], None);
                locks.add(sealed, Usage::Bookkeep, Usage::Write, &job.retired());
            },
        );
        job.unwrap();
        validated
    };
    evict(&named);
    evict(&unnamed);
    evict(&local);
    // A buffer of another address space is none of it.
    assert_eq!(submit(&[&pairs[0], &pairs[3]]), [1]);
    assert!(
        !is_idle(&named, Usage::Bookkeep) && is_idle(&unnamed, Usage::Bookkeep) && is_idle(&local, Usage::Bookkeep)
    );
    assert!(is_idle(&foreign, Usage::Bookkeep));
    assert_eq!(submit(&[&pairs[0], &pairs[2]]), [3], "what was validated stays so");
    assert!(!is_idle(&local, Usage::Read) && !vm.reservation().is_idle(Usage::Read).unwrap());
    rig.finish();
    rig.finish();
    rig.idle();
    // What nobody named is validated with all.
    assert_eq!(validate(&vm, 9).0, [2]);
    drop((pairs, vm, other, named, unnamed, local, foreign));
    rig.all_gone();
}
