//! Merging: as few fences as do for waiting.

use super::array::Maker;
use super::container::{ContainerError, Part, Sort};
use super::state::{Fence, Slot};
use crate::sabotage::{self, Sabotage};

impl Fence {
    /// A fence that signals once all of `fences` have, made of as few as will do: what has signaled is left out, **with its
    /// error**, and of one context the newest is kept. Arrays and points among `fences` are replaced by what they are
    /// made of. If nothing is pending, it is the one that signaled last (the stub, if there is none); if one is left, that one:
    /// neither allocates. Otherwise an array in the order of contexts, as of [`Fence::all_of`].
    ///
    /// Who must know of every failure asks [`Fence::all_of`].
    ///
    /// # Errors
    /// [`ContainerError::Nested`] for a pending array of "any" beside others, [`ContainerError::OutOfMemory`].
    pub fn merge(fences: &[Self]) -> Result<Self, ContainerError> {
        let mut one: Option<Self> = None;
        let mut several = false;
        let mut count = 0;
        each_pending(fences, |fence| {
            count += 1;
            match &one {
                Some(kept) if covers(kept, fence) => {}
                Some(kept) if !covers(fence, kept) => several = true,
                _ => one = Some(fence.clone()),
            }
            Ok(())
        })?;
        match one {
            None => last_signaled(fences),
            Some(one) if !several => Ok(one),
            Some(_) => several_of(fences, count),
        }
    }
}

/// An array of what is pending, or less if less still is: what is pending only becomes less.
fn several_of(fences: &[Fence], count: usize) -> Result<Fence, ContainerError> {
    let mut maker = Maker::new(Sort::All, count)?;
    each_pending(fences, |fence| maker.push(fence))?;
    let members = maker.members_mut();
    members.sort_unstable_by_key(|member| (member.fence.context(), u64::MAX - member.fence.seqno()));
    let mut kept = 0;
    for next in 0..members.len() {
        if kept == 0 || !covers(&members[kept - 1].fence, &members[next].fence) {
            members.swap(kept, next);
            kept += 1;
        }
    }
    maker.truncate(kept);
    match maker.members_mut() {
        [] => last_signaled(fences),
        [one] => Ok(one.fence.clone()),
        _ => Ok(maker.finish()),
    }
}

fn each_pending(
    fences: &[Fence],
    mut visit: impl FnMut(&Fence) -> Result<(), ContainerError>,
) -> Result<(), ContainerError> {
    let each = &mut |part: Part<'_>| {
        let (Part::Leaf(fence) | Part::Any(fence)) = part;
        if fence.is_signaled() { Ok(()) } else { visit(fence) }
    };
    fences.iter().filter(|fence| !fence.is_signaled()).try_for_each(|fence| fence.parts(each))
}

/// Whether waiting for `newer` is waiting for `older` too. The `scheduled` fences of one queue signal in any order.
fn covers(newer: &Fence, older: &Fence) -> bool {
    let in_order = !older.is_jobs() || older.slot() != Slot::First;
    let stands = in_order && newer.is_later_than(older) == Some(true);
    newer == older || (stands && !sabotage::is(Sabotage::MergeKeepsOlder))
}

fn last_signaled(fences: &[Fence]) -> Result<Fence, ContainerError> {
    let last = fences.iter().rev().filter(|fence| fence.is_signaled()).max_by_key(|fence| fence.timestamp());
    last.map_or_else(nothing, |last| Ok(last.clone()))
}

#[cfg(not(any(loom, shuttle)))]
#[expect(clippy::unnecessary_wraps, reason = "model checkers have no static stub, hence allocate")]
fn nothing() -> Result<Fence, ContainerError> {
    Ok(Fence::stub())
}

#[cfg(any(loom, shuttle))]
fn nothing() -> Result<Fence, ContainerError> {
    Ok(Maker::new(Sort::All, 0)?.finish())
}
