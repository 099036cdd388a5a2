//! Awaiting a fence. The node is inside the future, so awaiting allocates nothing; dropping the future takes it out.
#![expect(unsafe_code, reason = "a pinned node; docs/unsafe.md, `fence::future`")]

use super::error::FenceError;
use super::state::Fence;
use super::status::Status;
use crate::exec::node::{LaneNode, Task};
use core::marker::PhantomPinned;
use core::pin::Pin;
use core::ptr::NonNull;
use core::task::{Context, Poll};

/// The future of a [`Fence`]: ready with its result once it has signaled. Its waker is called on the notify lane of the
/// executor that signaled.
#[derive(Debug)]
#[must_use = "futures do nothing unless awaited"]
pub struct FenceFuture {
    fence: Fence,
    /// Idle, on the fence, or on its signaller's notify lane.
    node: LaneNode,
    _pinned: PhantomPinned,
}

impl FenceFuture {
    pub(crate) fn new(fence: Fence) -> Self {
        Self { fence, node: LaneNode::new(Task::Wake(None)), _pinned: PhantomPinned }
    }
}

impl Future for FenceFuture {
    type Output = Result<(), FenceError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.into_ref();
        // Whatever waker was there is replaced: first take the node out of where it is.
        this.fence.unregister_lane(&this.node);
        if let Status::Signaled(result) = this.fence.status() {
            return Poll::Ready(result);
        }
        // SAFETY: idle now, so the task is the owner's: the signaller and the lane let go of a node under their locks, and
        // `unregister_lane` held them.
        *unsafe { LaneNode::task(NonNull::from(&this.node)) } = Task::Wake(Some(cx.waker().clone()));
        // SAFETY: idle, pinned inside the future, and taken out by its drop.
        if unsafe { this.fence.register(NonNull::from(&this.node).cast()) } {
            return Poll::Pending;
        }
        match this.fence.status() {
            Status::Signaled(result) => Poll::Ready(result),
            // Not reached: a refused registration means it has signaled. Being polled again is harmless.
            Status::Pending => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }
}

impl Drop for FenceFuture {
    fn drop(&mut self) {
        self.fence.unregister_lane(&self.node);
    }
}

impl IntoFuture for Fence {
    type Output = Result<(), FenceError>;
    type IntoFuture = FenceFuture;

    fn into_future(self) -> FenceFuture {
        FenceFuture::new(self)
    }
}

impl IntoFuture for &Fence {
    type Output = Result<(), FenceError>;
    type IntoFuture = FenceFuture;

    fn into_future(self) -> FenceFuture {
        FenceFuture::new(self.clone())
    }
}
