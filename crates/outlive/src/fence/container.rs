//! Containers: fences made of other fences. Arrays (`fence::array`), points of timelines (`fence::timeline`), and waits for sync
//! objects (`fence::syncobj::wait`), which only user fences are made of.
//!
//! # Shape
//! A container is one block, `[Header][State][Own]` and what its kind adds, so it is a [`Fence`] like any other: reading it is one
//! load. It hangs a [`Member`] on each fence it is made of, quietly: their producers hear of a waiter only when the
//! container itself has one (`ARMED` is passed on then, once).
//!
//! # Flat
//! An array holds fences that are no containers; a point holds such a fence or an array; a wait holds any of them. So a
//! signal goes through at most four levels, and no fence can wait for itself: what a container is made of was there before it.
//!
//! # Who keeps whom
//! A container counts its members; a member does not count the container. A signaller that takes a `Member` off takes a
//! count of the container under the member's lock, unless it is dying; a dying container takes its `Member`s off under that
//! same lock before its memory goes. So each signal finds a container that is whole, or none.
//!
//! # Contexts
//! Making one allocates. Advancing one, in the signal of a member, does not, and takes at most the plain lock of a timeline or of
//! sync objects, one at a time.
#![expect(unsafe_code, reason = "blocks found by offset, nodes in them; docs/unsafe.md, `fence::container`")]

use super::array;
use super::state::{Fence, Header, State};
use super::syncobj::wait;
use super::timeline;
use crate::exec::hub::Hub;
use crate::exec::node::{Kind, Node};
use crate::mem::AllocError;
use crate::mem::shared::Ref;
use crate::sabotage::{self, Sabotage};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::time::Time;
use core::convert::Infallible;
use core::fmt;
use core::ptr::NonNull;

/// Why a container could not be made. Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ContainerError {
    /// Containers are flat: one of "any" cannot be part of one of "all", nor the other way round, nor can a timeline's
    /// point be part of another timeline.
    Nested,
    /// Any of none would never signal.
    Empty,
    /// No memory.
    OutOfMemory(AllocError),
}

impl fmt::Display for ContainerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nested => {
                f.write_str("containers are flat: merge the points, or wait for the one before making the other")
            }
            Self::Empty => f.write_str("any of no fences would never signal; give at least one"),
            Self::OutOfMemory(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for ContainerError {}

impl From<AllocError> for ContainerError {
    fn from(error: AllocError) -> Self {
        Self::OutOfMemory(error)
    }
}

/// What a container is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    /// An array that signals after all of its members.
    All,
    /// An array that signals with the first of its members.
    Any,
    /// A point of a timeline.
    Point,
    /// A wait for points of sync objects. Only ever inside a [`UserFence`](super::UserFence).
    Wait,
}

/// What every container's block starts with.
#[repr(C)]
pub(super) struct Base {
    pub(super) header: Header,
    pub(super) state: State,
    pub(super) sort: Sort,
    /// Written before the handle is given out.
    pub(super) context: AtomicU64,
}

/// A container's node on a fence it is made of.
#[repr(C)]
pub(super) struct MemberNode {
    node: Node,
    owner: NonNull<Header>,
}

/// A container's place on a fence it is made of, with that fence.
#[repr(C)]
pub(super) struct Member {
    at: MemberNode,
    pub(super) fence: Fence,
}

// SAFETY: the node is touched under the lock of the fence it is on; the pointer is the container's around it.
unsafe impl Send for MemberNode {}
// SAFETY: as above.
unsafe impl Sync for MemberNode {}

impl Member {
    pub(super) fn new(owner: NonNull<Header>, fence: Fence) -> Self {
        Self { at: MemberNode::new(owner), fence }
    }

    /// Hangs it on its fence; false if that has signaled.
    ///
    /// # Safety
    /// As for [`MemberNode::hang`].
    pub(super) unsafe fn hang(&self) -> bool {
        // SAFETY: the caller's promise.
        unsafe { self.at.hang(&self.fence) }
    }

    /// Takes it off its fence. After this no signaller knows the container, except by a count.
    pub(super) fn leave(&self) {
        self.at.leave(&self.fence);
    }
}

impl MemberNode {
    pub(super) fn new(owner: NonNull<Header>) -> Self {
        Self { node: Node::new(Kind::Member, 0), owner }
    }

    /// The block it is in.
    pub(super) fn container(&self) -> NonNull<Header> {
        self.owner
    }

    /// Hangs it on `fence`; false if that has signaled.
    ///
    /// # Safety
    /// Idle, in its container's block, and [`MemberNode::leave`] is called before that goes.
    pub(super) unsafe fn hang(&self, fence: &Fence) -> bool {
        // SAFETY: the caller's promise.
        unsafe { fence.register_quietly(NonNull::from(self).cast()) }
    }

    /// Takes it off `fence`, on which it hangs, or did.
    pub(super) fn leave(&self, fence: &Fence) {
        fence.unregister(&self.node);
    }

    /// The container of a member; `None` if it is dying.
    ///
    /// # Safety
    /// `at` is on a fence, whose lock is held.
    pub(super) unsafe fn owner(at: NonNull<Self>) -> Option<Fence> {
        // SAFETY: the container cannot go before it took the member off, which needs the lock.
        let owner = unsafe { at.as_ref() }.owner;
        // SAFETY: as above.
        unsafe { Fence::from_maybe_dying(owner) }
    }
}

/// What a container comes down to.
pub(crate) enum Part<'a> {
    /// A fence that is no container.
    Leaf(&'a Fence),
    /// An array of which any will do.
    Any(&'a Fence),
}

impl Fence {
    pub(super) fn base(&self) -> Option<&Base> {
        // SAFETY: a container's block starts with its base, and is alive while this handle is.
        self.is_container().then(|| unsafe { self.header_ptr().cast::<Base>().as_ref() })
    }

    pub(super) fn sort(&self) -> Option<Sort> {
        self.base().map(|base| base.sort)
    }

    pub(super) fn container_context(&self) -> u64 {
        // ORDERING: written before the handle was given out.
        self.base().map_or(0, |base| base.context.load(Ordering::Relaxed))
    }

    /// Calls `visit` for what this fence waits for: itself, if it is no container; an array's members in their order; a
    /// timeline's points from this one back to the oldest that is left, each with its array's members. What has signaled is
    /// shown too, except points that were collected. Any context in which `visit` is allowed; allocates nothing.
    pub fn for_each_leaf(&self, mut visit: impl FnMut(&Self)) {
        let each = &mut |part: Part<'_>| {
            match part {
                Part::Leaf(leaf) => visit(leaf),
                Part::Any(any) => array::members(any).iter().for_each(|member| visit(&member.fence)),
            }
            Ok::<(), Infallible>(())
        };
        let Ok(()) = self.parts(each);
    }

    /// As [`Fence::for_each_leaf`], but does not look into an array of which any will do.
    pub(crate) fn parts<E>(&self, visit: &mut impl FnMut(Part<'_>) -> Result<(), E>) -> Result<(), E> {
        match self.sort() {
            // What a wait is for may not be submitted yet, so to those who ask it is one thing.
            None | Some(Sort::Wait) => visit(Part::Leaf(self)),
            Some(Sort::Any) => visit(Part::Any(self)),
            Some(Sort::All) => {
                let seen = if sabotage::is(Sabotage::FirstMemberOnly) { 1 } else { usize::MAX };
                array::members(self).iter().take(seen).try_for_each(|member| visit(Part::Leaf(&member.fence)))
            }
            Some(Sort::Point) => timeline::contents(self, |content| match content.sort() {
                Some(Sort::Any) => visit(Part::Any(content)),
                Some(Sort::All | Sort::Point | Sort::Wait) => {
                    array::members(content).iter().try_for_each(|member| visit(Part::Leaf(&member.fence)))
                }
                None => visit(Part::Leaf(content)),
            }),
        }
    }

    /// The fence whose result this one shows: itself, or the first that signaled of those of which any will do.
    pub(crate) fn carrier(&self) -> &Self {
        if self.sort() == Some(Sort::Any) { array::winner(self).unwrap_or(self) } else { self }
    }
}

pub(super) fn driver_name(fence: &Fence) -> &str {
    match fence.sort() {
        None => "stub",
        Some(Sort::Point) => "timeline",
        Some(Sort::Wait) => "user",
        Some(Sort::All | Sort::Any) => "array",
    }
}

pub(super) fn timeline_name(fence: &Fence) -> &str {
    match fence.sort() {
        None => "stub",
        Some(Sort::All) => "all",
        Some(Sort::Any) => "any",
        Some(Sort::Point) => timeline::name(fence),
        Some(Sort::Wait) => "sync objects",
    }
}

/// The client of all that `fence` is made of, if it is one.
pub(super) fn client(fence: &Fence) -> u64 {
    let mut common = None;
    if fence.is_container() {
        fence.for_each_leaf(|leaf| {
            let client = leaf.client();
            common = Some(if common.is_none_or(|common| common == client) { client } else { 0 });
        });
    }
    common.unwrap_or(0)
}

/// Tells the producers behind a container that somebody waits.
pub(super) fn arm(fence: &Fence) {
    match fence.sort() {
        None => {}
        Some(Sort::Point) => timeline::arm(fence),
        Some(Sort::Wait) => wait::arm(fence),
        Some(Sort::All | Sort::Any) => array::members(fence).iter().for_each(|member| member.fence.arm()),
    }
}

/// Passes a deadline hint on.
pub(super) fn deadline(fence: &Fence, at: Time) {
    match fence.sort() {
        None => {}
        Some(Sort::Point) => timeline::deadline(fence, at),
        Some(Sort::Wait) => wait::deadline(fence, at),
        Some(Sort::All | Sort::Any) => array::members(fence).iter().for_each(|member| member.fence.set_deadline(at)),
    }
}

/// The fence that `at` was on has signaled.
///
/// # Safety
/// `at` is in the block of `container` and was taken off by the signaller.
pub(super) unsafe fn advance(container: &Fence, at: NonNull<MemberNode>, hub: &Ref<Hub>) {
    match container.sort() {
        None => {}
        Some(Sort::Point) => timeline::advance(container, hub),
        // SAFETY: passed on.
        Some(Sort::Wait) => unsafe { wait::advance(container, at, hub) },
        // SAFETY: passed on.
        Some(Sort::All | Sort::Any) => unsafe { array::advance(container, at.cast(), hub) },
    }
}

/// Ends a container's own part: takes it off its members, then gives them up.
///
/// # Safety
/// The last handle of a container's block is gone.
pub(super) unsafe fn drop_own(header: NonNull<Header>) {
    // SAFETY: a container's block.
    let sort = unsafe { header.cast::<Base>().as_ref() }.sort;
    match sort {
        // SAFETY: passed on.
        Sort::Point => unsafe { timeline::drop_own(header) },
        // SAFETY: passed on.
        Sort::Wait => unsafe { wait::drop_own(header) },
        // SAFETY: passed on.
        Sort::All | Sort::Any => unsafe { array::drop_own(header) },
    }
    // SAFETY: a container's block.
    let context = unsafe { &raw mut (*header.cast::<Base>().as_ptr()).context };
    // SAFETY: the last access to it; header and state are the caller's.
    unsafe { context.drop_in_place() };
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Member({:?} of {:?})", self.fence, self.at.node)
    }
}
