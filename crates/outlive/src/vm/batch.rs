//! Batches whose bind job has begun: a list that owns them, changed without allocating.
//!
//! # Why it is a list of boxes
//! A batch comes with its node from when it was accepted, and goes to the reaper with it. Nothing but its owner points to it, so
//! there is nothing to get wrong: whoever wants the oldest first turns the whole list over once.

use super::driver::VmDriver;
use super::pairs::OpenBo;
use super::shared::VmInner;
use super::space::Space;
use crate::exec::object::Object;
use crate::mem::HeapBox;

/// What is to be carried out, whatever its driver has put aside for it.
pub(super) trait Batch<D: VmDriver>: Send {
    /// In the signalling path: carries it out, and keeps what is left. Called once.
    fn carry_out(&mut self, vm: &Object<VmInner<D>>, space: &mut Space<OpenBo<D>, D::Mapping>);

    /// In the signalling path, with no space in hand: its job is done. Called once, after [`Batch::carry_out`].
    fn tell(&mut self);
}

/// A batch in at most one list.
pub(super) struct Node<D: VmDriver, B: ?Sized = dyn Batch<D>> {
    next: Option<HeapBox<Node<D>>>,
    pub(super) batch: B,
}

impl<D: VmDriver, B> Node<D, B> {
    pub(super) const fn new(batch: B) -> Self {
        Self { next: None, batch }
    }
}

/// Batches, the last one pushed first.
pub(super) struct Batches<D: VmDriver> {
    first: Option<HeapBox<Node<D>>>,
}

impl<D: VmDriver> Batches<D> {
    pub(super) const fn new() -> Self {
        Self { first: None }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    pub(super) fn push(&mut self, mut node: HeapBox<Node<D>>) {
        node.next = self.first.take();
        self.first = Some(node);
    }

    pub(super) fn pop(&mut self) -> Option<HeapBox<Node<D>>> {
        let mut node = self.first.take()?;
        self.first = node.next.take();
        Some(node)
    }

    pub(super) fn take(&mut self) -> Self {
        core::mem::replace(self, Self::new())
    }

    /// All of them, the first one pushed first.
    pub(super) fn turned_over(mut self) -> Self {
        let mut other = Self::new();
        other.push_all(&mut self);
        other
    }

    /// Pushes what pops from `others`.
    pub(super) fn push_all(&mut self, others: &mut Self) {
        while let Some(node) = others.pop() {
            self.push(node);
        }
    }
}

impl<D: VmDriver> Drop for Batches<D> {
    fn drop(&mut self) {
        // One by one: a list that is dropped by its boxes takes as much stack as it is long.
        while self.pop().is_some() {}
    }
}
