//! Merging a job's dependencies: of one fence context the newest is enough, unless something of an older one would be lost
//! (see [`covers`]).
//!
//! A dependency on an earlier job of the same queue needs no node at all. Others go into the nodes of the job's block, and
//! beyond those into a list that is allocated.

use super::config::{Dependency, OnError};
use super::job::INLINE_NODES;
use super::shared::QueueShared;
use crate::fence::{Fence, Part, Slot, Status};
use crate::mem::{AllocError, HeapVec, try_push};

/// What goes with a fence that is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Terms {
    pub(crate) on_error: OnError,
    pub(crate) pipelined: bool,
}

/// The dependencies of one job, merged.
pub(super) struct Dependencies {
    /// On the queue itself: the newest, and whether its error fails the job.
    pub(super) own: Option<(Fence, bool)>,
    pub(super) others: FewOrMany,
}

/// A list that allocates only beyond what a block has nodes for.
pub(super) struct FewOrMany {
    pub(super) few: [Option<(Fence, Terms)>; INLINE_NODES],
    pub(super) many: HeapVec<(Fence, Terms)>,
}

impl FewOrMany {
    const fn new() -> Self {
        Self { few: [const { None }; INLINE_NODES], many: HeapVec::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.few.iter().flatten().count() + self.many.len()
    }

    fn iter_mut(&mut self) -> impl Iterator<Item = &mut (Fence, Terms)> {
        self.few.iter_mut().flatten().chain(&mut self.many)
    }

    fn push(&mut self, entry: (Fence, Terms)) -> Result<(), AllocError> {
        match self.few.iter_mut().find(|slot| slot.is_none()) {
            Some(slot) => *slot = Some(entry),
            None => try_push(&mut self.many, entry).map_err(|(error, _)| error)?,
        }
        Ok(())
    }
}

impl Dependencies {
    pub(super) const fn new() -> Self {
        Self { own: None, others: FewOrMany::new() }
    }

    /// Whether there are any. The first place is filled first.
    pub(super) const fn any(&self) -> bool {
        self.own.is_some() || self.others.few[0].is_some()
    }

    /// Adds one. Per context only the newest is kept, unless something of an older one would be lost: see [`covers`].
    pub(super) fn add(&mut self, queue: &QueueShared, dependency: Dependency) -> Result<(), AllocError> {
        let Dependency { fence, on_error, pipelined } = dependency;
        if !fence.is_container() {
            return self.add_one(queue, fence, on_error, pipelined);
        }
        // Each leaf by itself: so a failed job behind an array is waited for until it has retired, and fails whom it must.
        fence.parts(&mut |part| {
            let (Part::Leaf(fence) | Part::Any(fence)) = part;
            self.add_one(queue, fence.clone(), on_error, pipelined)
        })
    }

    fn add_one(
        &mut self,
        queue: &QueueShared,
        fence: Fence,
        on_error: Option<OnError>,
        pipelined: bool,
    ) -> Result<(), AllocError> {
        let same_client = fence.client() != 0 && fence.client() == queue.info.client;
        let on_error = on_error.unwrap_or(if same_client { OnError::Fail } else { OnError::Run });
        if fence.status() == Status::Signaled(Ok(())) {
            return Ok(());
        }
        let own = fence.header().info.as_ref().is_some_and(|info| info.same(&queue.info));
        if own && fence.slot() == Slot::First && on_error == OnError::Run {
            // It starts after its predecessors in any case.
            return Ok(());
        }
        if own && fence.slot() == Slot::Finished {
            let fails = on_error == OnError::Fail;
            match self.own.take() {
                None => {
                    self.own = Some((fence, fails));
                    return Ok(());
                }
                // The newer one finishes later; the older one's error still counts, as `covers` says.
                Some((kept, kept_fails)) => {
                    let newer = fence.seqno() > kept.seqno();
                    let (new, old) =
                        if newer { ((fence, fails), (kept, kept_fails)) } else { ((kept, kept_fails), (fence, fails)) };
                    let policy = if old.1 { OnError::Fail } else { OnError::Run };
                    let covered = covers(&old.0, policy) || (!old.1 && new.0.seqno() == old.0.seqno());
                    self.own = Some(new);
                    return if covered {
                        Ok(())
                    } else {
                        self.add_other(old.0, Terms { on_error: policy, pipelined: false })
                    };
                }
            }
        }
        let pipelined = pipelined && queue.executes_behind(&fence);
        self.add_other(fence, Terms { on_error, pipelined })
    }

    fn add_other(&mut self, fence: Fence, terms: Terms) -> Result<(), AllocError> {
        for (kept, kept_terms) in self.others.iter_mut() {
            if kept.context() != fence.context() || *kept_terms != terms {
                continue;
            }
            let (older, newer_is_new) = if fence.seqno() >= kept.seqno() { (&*kept, true) } else { (&fence, false) };
            if covers(older, terms.on_error) || kept.seqno() == fence.seqno() {
                if newer_is_new {
                    *kept = fence;
                }
                return Ok(());
            }
        }
        self.others.push((fence, terms))
    }
}

/// Whether a newer fence of the same context says all that `older` would. Its error fails the dependant, if the policy is
/// "fail". If the policy is "run", a job that failed is still waited for until it has retired, which a newer one that went
/// well does not say; and `scheduled` fences of one queue signal in any order.
fn covers(older: &Fence, on_error: OnError) -> bool {
    let in_order = older.slot() == Slot::Retired || !older.is_jobs();
    older.status() == Status::Signaled(Ok(())) || (on_error == OnError::Run && in_order)
}
