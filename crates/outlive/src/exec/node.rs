//! The nodes that hang on fences and on lanes: one layout for both, so that a signalled registration moves from its
//! fence to a lane without an allocation.
//!
//! # States
//! [`Place`]: *idle* (in no list, the owner's), *fence*, *sibling* or *ahead* (in a fence's list, under that fence's lock), *lane*
//! (in a lane's list, under that lane's lock). Legal edges: idle → fence (registration), fence → idle (removal, or taken by the
//! signaller), fence → lane (the signaller, holding both locks), idle → lane (scheduling, under the lane's lock),
//! lane → idle (the lane, or removal). The place is written under the lock of the list that is left or entered, so whoever
//! holds the lock of the list a node says it is in knows that it is there.
#![expect(unsafe_code, reason = "shared cells; docs/unsafe.md, `exec::node`")]

use super::hub::Hub;
use crate::mem::list::Link;
use crate::mem::shared::Ref;
use crate::sync::atomic::{AtomicU8, Ordering};
use core::cell::UnsafeCell;
use core::fmt;
use core::ptr::NonNull;
use core::task::Waker;

/// What hangs on a fence. The link is first, so a link's address is its node's.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) link: Link,
    pub(crate) kind: Kind,
    /// Which of its owner's nodes this is (dependencies of a job).
    pub(crate) index: u16,
    place: AtomicU8,
}

/// Which of the closed menu of actions a signal takes on a node, hence what the node is the first field of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Wake a thread: `fence::wait::ThreadNode`.
    Thread,
    /// Count a job down: `queue::deps::DepNode`.
    Dependency,
    /// Let a queue's head try `acquire` again: `queue::shared::ResourceNode`.
    Resource,
    /// Advance a container: `fence::container::Member`.
    Member,
    /// Queue preallocated work on the notify lane: [`LaneNode`].
    Lane,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Place {
    Idle = 0,
    Fence = 1,
    Lane = 2,
    /// On the `retired` of the job whose fence the node names.
    Sibling = 3,
    /// On the `scheduled` of the job whose `finished` the node names.
    Ahead = 4,
}

impl Node {
    pub(crate) fn new(kind: Kind, index: u16) -> Self {
        Self { link: Link::new(), kind, index, place: AtomicU8::new(Place::Idle as u8) }
    }

    pub(crate) fn place(&self) -> Place {
        // ORDERING: Acquire pairs with `set_place`: a remover that reads `Lane` also sees the executor stored before.
        match self.place.load(Ordering::Acquire) {
            0 => Place::Idle,
            1 => Place::Fence,
            2 => Place::Lane,
            3 => Place::Sibling,
            _ => Place::Ahead,
        }
    }

    /// Under the lock of the list that is left or entered.
    pub(crate) fn set_place(&self, place: Place) {
        // ORDERING: Release pairs with the load in `place`.
        self.place.store(place as u8, Ordering::Release);
    }

    pub(crate) fn from_link(link: NonNull<Link>) -> NonNull<Self> {
        link.cast()
    }
}

/// What a lane does with a [`LaneNode`].
pub(crate) enum Task {
    /// Calls the function, which finds its owner around the node.
    Run(unsafe fn(NonNull<LaneNode>)),
    /// Wakes a task.
    Wake(Option<Waker>),
}

/// What a lane runs, or a fence hands to a lane when it signals.
#[repr(C)]
pub(crate) struct LaneNode {
    pub(crate) node: Node,
    /// Set by the signaller before the place becomes *lane*, for a later removal; else empty.
    hub: UnsafeCell<Option<Ref<Hub>>>,
    /// Touched only: by the owner while idle, under the fence's lock while on the fence, under the lane's lock by the lane.
    task: UnsafeCell<Task>,
}

// SAFETY: the cells are touched only under the rules on the fields; `Waker`, `Ref` and the function are `Send`.
unsafe impl Send for LaneNode {}
// SAFETY: as above.
unsafe impl Sync for LaneNode {}

impl LaneNode {
    pub(crate) fn new(task: Task) -> Self {
        Self { node: Node::new(Kind::Lane, 0), hub: UnsafeCell::new(None), task: UnsafeCell::new(task) }
    }

    /// # Safety
    /// The caller holds the lock of the fence this node is on.
    pub(crate) unsafe fn set_hub(&self, hub: Ref<Hub>) {
        // SAFETY: under the fence's lock nobody else touches the cell: removers read it only once the place is *lane*.
        unsafe { *self.hub.get() = Some(hub) };
    }

    /// The executor on whose lane this node is, after `place()` said *lane*.
    pub(crate) fn hub(&self) -> Option<&Ref<Hub>> {
        // SAFETY: written before the place became *lane* and not again before the owner registers anew, which it cannot
        // do while it is here.
        unsafe { (*self.hub.get()).as_ref() }
    }

    /// # Safety
    /// The node is alive, and the caller has the right to the task by the rule on the field.
    pub(crate) unsafe fn task<'a>(at: NonNull<Self>) -> &'a mut Task {
        // SAFETY: alive by the caller's promise.
        let cell = unsafe { at.as_ref() }.task.get();
        // SAFETY: the caller's right makes this the only access.
        unsafe { &mut *cell }
    }
}

impl fmt::Debug for LaneNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LaneNode({:?})", self.node.place())
    }
}
