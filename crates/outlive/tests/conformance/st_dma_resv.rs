//! KUnit `st-dma-resv`: five functions, four of them with each usage.

use crate::mock_job::Context;
use outlive::resv::{Locked, Reservation, Slot, Transaction, Usage};

/// A reservation on which one pending fence hangs as `usage`.
fn with_fence(usage: Usage) -> (Reservation, Context, outlive::Retired) {
    let reservation = Reservation::new().unwrap();
    let mut context = Context::new();
    let fence = context.job().retired();
    Transaction::new()
        .run::<Slot<'_>, _>(|attempt| attempt.prepare(&reservation), |sealed, slot| sealed.add(slot, usage, &fence))
        .unwrap();
    (reservation, context, fence)
}

#[test]
fn sanitycheck() {
    let mut context = Context::new();
    let fence = context.job().retired();
    context.signal();
    assert!(fence.is_signaled());
    drop(fence);
    let reservation = Reservation::new().unwrap();
    Transaction::new()
        .run::<Locked<'_>, _>(|attempt| attempt.lock(&reservation), |_, _| assert!(reservation.is_locked()))
        .unwrap();
    assert!(!reservation.is_locked());
}

/// Upstream asks with the usage above `usage` too: kernel asks for nothing of a writer.
fn signaling(usage: Usage) {
    let (reservation, context, _fence) = with_fence(usage);
    assert_eq!(reservation.is_idle(usage), Ok(false), "idle with a pending fence");
    context.signal();
    assert_eq!(reservation.is_idle(usage), Ok(true), "busy without one");
}

fn for_each(usage: Usage) {
    let (reservation, context, fence) = with_fence(usage);
    Transaction::new()
        .run::<Locked<'_>, _>(
            |attempt| {
                let locked = attempt.lock(&reservation)?;
                let seen: Vec<_> = attempt.fences(locked, usage).collect();
                assert_eq!(seen, [(usage, fence.clone())]);
                Ok(locked)
            },
            |sealed, locked| assert_eq!(sealed.fences(locked, usage).count(), 1),
        )
        .unwrap();
    context.signal();
}

/// Upstream forces the iteration to start again and looks for the flag that says so. A snapshot is of one moment, so there is
/// nothing to start again and no flag: instead, one that is being read does not change under the reader.
fn for_each_unlocked(usage: Usage) {
    let (reservation, context, fence) = with_fence(usage);
    let snapshot = reservation.snapshot(usage).unwrap();
    let mut more = Context::new();
    let other = more.job().retired();
    let mut seen = Vec::new();
    for (found, reached) in snapshot.iter() {
        Transaction::new()
            .run::<Slot<'_>, _>(|attempt| attempt.prepare(&reservation), |sealed, slot| sealed.add(slot, usage, &other))
            .unwrap();
        seen.push((found, reached.clone()));
    }
    assert_eq!(seen, [(usage, fence)]);
    assert_eq!(reservation.snapshot(usage).unwrap().len(), 2);
    context.signal();
    more.signal();
    assert!(reservation.snapshot(usage).unwrap().is_empty(), "what has signaled is not in the way");
}

fn get_fences(usage: Usage) {
    let (reservation, context, fence) = with_fence(usage);
    let fences = reservation.snapshot(usage).unwrap();
    assert_eq!(fences.len(), 1);
    assert_eq!(fences.iter().next(), Some((usage, &fence)));
    context.signal();
}

macro_rules! with_each_usage {
    ($($function:ident: $($case:ident $usage:ident)*;)*) => {
        $($(#[test] fn $case() { $function(Usage::$usage) })*)*
    };
}

with_each_usage! {
    signaling: signaling_kernel Kernel signaling_write Write signaling_read Read signaling_bookkeep Bookkeep;
    for_each: for_each_kernel Kernel for_each_write Write for_each_read Read for_each_bookkeep Bookkeep;
    for_each_unlocked: for_each_unlocked_kernel Kernel for_each_unlocked_write Write
        for_each_unlocked_read Read for_each_unlocked_bookkeep Bookkeep;
    get_fences: get_fences_kernel Kernel get_fences_write Write get_fences_read Read get_fences_bookkeep Bookkeep;
}
