//! The list: what replaces what, and every way of looking.

use crate::common::SOON;
use crate::{Jobs, add, add_all, executor, resv, seen};
use outlive::check::allocations;
use outlive::resv::Usage::{Bookkeep, Kernel, Read, Write};
use outlive::resv::{Locked, Reservation, Slot, Slots, Transaction, Usage};
use outlive::{Retired, Status, Time, WaitError};
use std::time::Duration;

const USAGES: [Usage; 4] = [Kernel, Write, Read, Bookkeep];

#[test]
fn asking_for_a_usage_is_asking_for_the_stronger_ones_too() {
    let executor = executor();
    let on = resv();
    let queues: Vec<_> = USAGES.map(|_| Jobs::on(&executor)).into();
    for (usage, jobs) in USAGES.iter().zip(&queues) {
        add(&on, *usage, &jobs.job());
    }
    for (count, usage) in USAGES.iter().enumerate() {
        assert_eq!(on.snapshot(*usage).unwrap().len(), count + 1);
        assert_eq!(on.is_idle(*usage), Ok(false));
    }
    queues[0].end(1);
    assert_eq!(on.is_idle(Kernel), Ok(true), "the others are weaker");
    assert_eq!(on.is_idle(Write), Ok(false));
    assert_eq!(seen(&on, Bookkeep), [(Write, 1), (Read, 1), (Bookkeep, 1)]);
}

#[test]
fn a_later_fence_takes_the_place_of_its_contexts_earlier_ones_unless_those_are_stronger() {
    let executor = executor();
    let jobs = Jobs::on(&executor);
    let on = resv();
    let fences: Vec<_> = (0..5).map(|_| jobs.job()).collect();
    add(&on, Read, &fences[0]);
    add(&on, Read, &fences[1]);
    assert_eq!(seen(&on, Bookkeep), [(Read, 2)], "same usage");
    add(&on, Write, &fences[2]);
    assert_eq!(seen(&on, Bookkeep), [(Write, 3)], "who waits for the writer waits for the reader before it");
    add(&on, Bookkeep, &fences[3]);
    assert_eq!(seen(&on, Bookkeep), [(Write, 3), (Bookkeep, 4)], "a reader need not wait for bookkeeping");
    add(&on, Write, &fences[1]);
    assert_eq!(seen(&on, Bookkeep), [(Write, 3), (Bookkeep, 4)], "an earlier one is waited for already");
    add(&on, Bookkeep, &fences[2]);
    assert_eq!(seen(&on, Bookkeep), [(Write, 3), (Bookkeep, 4)], "the same one is not degraded");
    add(&on, Kernel, &fences[3]);
    assert_eq!(seen(&on, Bookkeep), [(Kernel, 4), (Bookkeep, 4)], "but promoted");
}

#[test]
fn what_has_signaled_gives_its_place_up_and_the_list_does_not_grow() {
    let executor = executor();
    let on = resv();
    let queues: Vec<_> = (0..4).map(|_| Jobs::on(&executor)).collect();
    for round in 1..100 {
        for jobs in &queues {
            add(&on, Read, &jobs.job());
        }
        assert_eq!(seen(&on, Read).len(), 4);
        let locked = Transaction::new()
            .run::<Locked<'_>, _>(|attempt| attempt.lock(&on), |sealed, on| sealed.fences(on, Read).count())
            .unwrap();
        assert_eq!(locked, 4, "under the lock, too");
        for jobs in &queues {
            jobs.end(round);
        }
        assert!(seen(&on, Read).is_empty());
    }
    let before = allocations().allocated;
    let fence = Retired::stub();
    Transaction::new()
        .run::<Slots<'_>, _>(
            |attempt| attempt.prepare_many(&on, 4),
            |sealed, slots| slots.for_each(|slot| sealed.add(slot, Read, &fence)),
        )
        .unwrap();
    assert_eq!(allocations().allocated - before, 1, "the transaction's own list, and no room for fences");
}

#[test]
fn slots_add_up_and_filling_them_needs_no_memory() {
    let executor = executor();
    let on = resv();
    let jobs = Jobs::on(&executor);
    // Each array is in a context of its own.
    let fences: Vec<_> = (0..40).map(|_| Retired::all_of(&[jobs.job(), Retired::stub()]).unwrap()).collect();
    let allocated = Transaction::new()
        .run::<(Slot<'_>, Slots<'_>, Slot<'_>, Slots<'_>), _>(
            |attempt| {
                let one = attempt.prepare(&on)?;
                // Each comes on top of the others.
                let seven = attempt.slots(one.locked(), 7)?;
                let two = attempt.slot(one.locked())?;
                let rest = attempt.prepare_many(&on, 31)?;
                Ok((one, seven, two, rest))
            },
            |sealed, (one, seven, two, rest)| {
                let before = allocations().allocated;
                let slots = [one, two].into_iter().chain(seven).chain(rest);
                for (slot, fence) in slots.zip(&fences) {
                    sealed.add(slot, Bookkeep, fence);
                }
                allocations().allocated - before
            },
        )
        .unwrap();
    assert_eq!(allocated, 0);
    assert_eq!(on.snapshot(Bookkeep).unwrap().len(), 40);
    assert_eq!(on.poisoned(), None);
}

#[test]
fn slots_that_were_not_filled_are_void_and_harmless() {
    let on = resv();
    for _ in 0..3 {
        let left = Transaction::new()
            .run::<Slots<'_>, _>(
                |attempt| attempt.prepare_many(&on, 3),
                |_, mut slots| {
                    assert!(slots.next().is_some());
                    slots.len()
                },
            )
            .unwrap();
        assert_eq!(left, 2);
    }
    let none = Transaction::new().run::<Slots<'_>, _>(|attempt| attempt.prepare_many(&on, 0), |_, slots| slots.len());
    assert_eq!(none, Ok(0));
}

#[test]
fn replacing_puts_one_fence_in_the_place_of_all_of_a_context() {
    let executor = executor();
    let (jobs, others, updates) = (Jobs::on(&executor), Jobs::on(&executor), Jobs::on(&executor));
    let on = resv();
    let (first, second) = (jobs.job(), jobs.job());
    let (other, update) = (others.job(), updates.job());
    add_all(&on, &[(Write, first.clone()), (Bookkeep, second), (Read, other)]);
    assert_eq!(seen(&on, Bookkeep), [(Write, 1), (Bookkeep, 2), (Read, 1)]);
    let replace = |context| {
        Transaction::new()
            .run::<Locked<'_>, _>(
                |attempt| attempt.lock(&on),
                |sealed, on| sealed.replace(on, context, Bookkeep, &update),
            )
            .unwrap()
    };
    assert_eq!(replace(first.context()), 2);
    let contexts: Vec<_> =
        on.snapshot(Bookkeep).unwrap().iter().map(|(usage, fence)| (usage, fence.context())).collect();
    assert_eq!(contexts.len(), 2);
    assert_eq!(contexts[0], (Bookkeep, update.context()));
    assert_eq!(replace(first.context()), 0, "none is left");
    assert_eq!(replace(update.context()), 0, "it does not replace itself");
}

#[test]
fn as_one_fence() {
    let executor = executor();
    let (one, two) = (Jobs::on(&executor), Jobs::on(&executor));
    let on = resv();
    assert_eq!(on.singleton(Bookkeep), Ok(None));
    let fence = one.job();
    add(&on, Read, &fence);
    assert_eq!(on.singleton(Read), Ok(Some(fence)));
    assert_eq!(on.singleton(Write), Ok(None));
    add(&on, Write, &two.job());
    let both = on.singleton(Read).unwrap().unwrap();
    one.end(1);
    assert!(!both.is_signaled());
    // An array of retired fences is one: it may hang on another reservation, or on this one.
    add(&on, Bookkeep, &both);
    two.end(1);
    assert_eq!(both.status(), Status::Signaled(Ok(())));
    assert_eq!(on.is_idle(Bookkeep), Ok(true));
}

#[test]
fn a_snapshot_is_of_one_moment() {
    let executor = executor();
    let jobs = Jobs::on(&executor);
    let on = resv();
    add(&on, Write, &jobs.job());
    let then = on.snapshot(Bookkeep).unwrap();
    add(&on, Write, &jobs.job());
    jobs.end(1);
    assert_eq!(then.iter().map(|(_, fence)| fence.seqno()).collect::<Vec<_>>(), [1]);
    assert!(!then.is_empty() && then.len() == 1);
    assert_eq!(seen(&on, Bookkeep), [(Write, 2)]);
}

#[test]
fn waiting_is_for_what_is_there_now() {
    let executor = outlive::Executor::builder().threads().unwrap();
    let (one, two) = (Jobs::on(&executor), Jobs::on(&executor));
    let on = resv();
    assert_eq!(on.wait(Bookkeep, Duration::ZERO), Ok(()), "nothing to wait for");
    add(&on, Read, &one.job());
    assert_eq!(on.wait(Bookkeep, Duration::ZERO), Err(WaitError::TimedOut));
    assert_eq!(on.wait(Write, SOON), Ok(()), "it is a reader");
    assert_eq!(on.wait(Read, Duration::from_millis(1)), Err(WaitError::TimedOut));
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| on.wait(Read, Duration::MAX));
        // Whoever comes later is not waited for; whether the waiter has looked yet is not known, so it comes after.
        one.end(1);
        assert_eq!(waiter.join().unwrap(), Ok(()));
        add(&on, Read, &two.job());
    });
    two.end(1);
}

#[test]
fn waiting_where_one_drives_the_executor_oneself() {
    let executor = executor();
    let jobs = Jobs::on(&executor);
    let on = resv();
    add(&on, Write, &jobs.job());
    assert_eq!(on.wait(Write, SOON), Err(WaitError::WouldDeadlock));
    let all = on.singleton(Write).unwrap().unwrap();
    jobs.end(1);
    assert_eq!(executor.wait(&all, SOON), Ok(()));
}

#[test]
fn a_deadline_reaches_all_that_is_asked_for_and_the_earliest_stays() {
    let executor = executor();
    let (one, two, three) = (Jobs::on(&executor), Jobs::on(&executor), Jobs::on(&executor));
    let on = resv();
    let fences = [(Kernel, one.job()), (Read, two.job()), (Bookkeep, three.job())];
    add_all(&on, &fences);
    let hints = || fences.each_ref().map(|(_, fence)| fence.deadline().map(Time::as_ns));
    let before = allocations().allocated;
    on.set_deadline(Read, Time::from_ns(50));
    assert_eq!(hints(), [Some(50), Some(50), None]);
    on.set_deadline(Bookkeep, Time::from_ns(70));
    assert_eq!(hints(), [Some(50), Some(50), Some(70)]);
    one.end(1);
    on.set_deadline(Bookkeep, Time::from_ns(10));
    assert_eq!(hints(), [None, Some(10), Some(10)]);
    assert_eq!(allocations().allocated, before);
}

/// Rule 4: a job that failed may still be on the hardware.
#[test]
fn a_reservation_is_busy_until_the_job_retires_whatever_its_verdict() {
    let executor = executor();
    let on = resv();
    let Jobs { queue, held } = Jobs::on(&executor);
    let job = queue.reserve(()).unwrap().commit();
    add(&on, Write, &job.retired());
    drop(queue);
    executor.run_until_idle();
    assert!(job.finished().is_signaled());
    assert_eq!(on.is_idle(Write), Ok(false));
    assert!(held.complete(1, Ok(())));
    assert_eq!(on.is_idle(Write), Ok(true));
}

#[test]
fn a_reservation_keeps_nothing_of_who_added_and_handles_are_the_same_lock() {
    let executor = executor();
    let on = resv();
    {
        let jobs = Jobs::on(&executor);
        add(&on, Write, &jobs.job());
        jobs.end(1);
    }
    executor.run_until_idle();
    assert_eq!(executor.live_objects(), 0, "queue, device and driver are gone");
    let same: Reservation = on.clone();
    assert_eq!(same, on);
    assert_ne!(resv(), on);
    assert_ne!(resv().id(), on.id());
    assert!(on.describe().unwrap().to_string().contains("jobs fake signalled"), "names stay");
}

/// Whatever is added in whatever order, and whatever signals meanwhile: what was added and has not signaled is waited for, as its
/// usage at least, by itself or by a later one of its context.
#[test]
fn nothing_that_was_added_is_forgotten_before_it_signals() {
    for seed in 0..200_u64 {
        let mut state = seed;
        let mut random = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(state >> 33).unwrap() % below
        };
        let executor = executor();
        let on = resv();
        let queues = [Jobs::on(&executor), Jobs::on(&executor), Jobs::on(&executor)];
        let mut fences: [Vec<Retired>; 3] = [const { Vec::new() }; 3];
        let mut added: Vec<(Retired, Usage)> = Vec::new();
        for _ in 0..60 {
            let which = random(3);
            match random(5) {
                0 | 1 => fences[which].push(queues[which].job()),
                2 => {
                    let seqno = fences[which].iter().filter(|fence| fence.is_signaled()).count() as u64 + 1;
                    if seqno <= fences[which].len() as u64 {
                        queues[which].end(seqno);
                    }
                }
                _ if !fences[which].is_empty() => {
                    let fence = fences[which][random(fences[which].len())].clone();
                    let usage = USAGES[random(4)];
                    add(&on, usage, &fence);
                    added.push((fence, usage));
                }
                _ => {}
            }
            added.retain(|(fence, _)| !fence.is_signaled());
            let there = on.snapshot(Bookkeep).unwrap();
            for (fence, usage) in &added {
                let waited_for = there.iter().any(|(as_usage, it)| {
                    it.context() == fence.context() && it.seqno() >= fence.seqno() && as_usage <= *usage
                });
                assert!(waited_for, "seed {seed}: {fence:?} as {usage:?} is not in {there:?}");
            }
            for usage in USAGES {
                let busy = added.iter().any(|(_, of)| usage.includes(*of));
                assert!(!busy || on.is_idle(usage) == Ok(false), "seed {seed}");
            }
            assert!(there.len() <= 12, "at most one for each usage of each context: {there:?}");
        }
    }
}
