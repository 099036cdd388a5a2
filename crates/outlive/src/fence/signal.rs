//! Registering on a fence and signalling it: see [`super::state`] for the protocol.
//!
//! # Contexts
//! Registering and taking out: any, but the owner of a node decides where its memory comes from. Signalling: any,
//! interrupts included; it never allocates, blocks or runs foreign code, except closures declared safe for that.
#![expect(unsafe_code, reason = "nodes of others; docs/unsafe.md, `fence::signal`")]

use super::container::{self, MemberNode};
use super::error::FenceError;
use super::hook::Hook;
use super::state::{ARMED, DEADLINE, DONE, Fence, SIGNALED, WAITERS, Waiters};
use super::wait::ThreadNode;
use crate::check;
use crate::exec::hub::Hub;
use crate::exec::node::{Kind, LaneNode, Node, Place, Task};
use crate::mem::shared::Ref;
use crate::sabotage::{self, Sabotage};
use crate::sync::atomic::Ordering;
use crate::sync::{self, class};
use crate::time::Time;
use crate::trace::Event;
use core::ptr::NonNull;

/// The index of a closure's node that may run while signalling.
pub(crate) const INLINE: u16 = 1;

impl Fence {
    /// Hints that somebody would like it signaled by `at` (absolute, its executor's clock). The earliest hint stays.
    /// Forwarded to a bare fence's producer hook; a driver reads a job's when it starts it. Any context; never blocks.
    pub fn set_deadline(&self, at: Time) {
        if !self.lower_deadline(at) {
            return;
        }
        let hook = self.state().waiters.lock().hook.clone();
        if let Some(hook) = hook {
            hook.deadline(at);
        }
        if self.is_container() {
            container::deadline(self, at);
        }
    }

    /// Keeps the hint if it is the earliest; says whether it is.
    pub(super) fn lower_deadline(&self, at: Time) -> bool {
        let tagged = DEADLINE | at.as_ns();
        let mut seen = self.state().time.load(Ordering::Relaxed);
        loop {
            if seen & DEADLINE == 0 || seen <= tagged {
                return false;
            }
            match self.state().time.compare_exchange_weak(seen, tagged, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => seen = now,
            }
        }
    }

    /// Puts `node` among the waiters; false if the fence has signaled, then nothing was done. Threads go first: sleepers
    /// are woken before anything else happens.
    ///
    /// # Safety
    /// `node` is idle, starts the structure its kind says, and stays alive and in place until it is idle again.
    pub(crate) unsafe fn register(&self, node: NonNull<Node>) -> bool {
        // SAFETY: the caller's promise.
        unsafe { self.register_as(node, Place::Fence) }
    }

    /// As [`Fence::register`]; `place` says in the node whose list it is in.
    ///
    /// # Safety
    /// As for [`Fence::register`].
    pub(crate) unsafe fn register_as(&self, node: NonNull<Node>, place: Place) -> bool {
        // SAFETY: the caller's promise.
        unsafe { self.hang(node, place, WAITERS | ARMED) }
    }

    /// As [`Fence::register`], but without telling the producer that somebody waits: a container whose own waiters are to
    /// come.
    ///
    /// # Safety
    /// As for [`Fence::register`].
    pub(super) unsafe fn register_quietly(&self, node: NonNull<Node>) -> bool {
        // SAFETY: the caller's promise.
        unsafe { self.hang(node, Place::Fence, WAITERS) }
    }

    unsafe fn hang(&self, node: NonNull<Node>, place: Place, bits: u32) -> bool {
        let state = self.state();
        let (arms, hook) = {
            let mut waiters = state.waiters.lock();
            // SAFETY: alive, the caller's promise.
            let this = unsafe { node.as_ref() };
            debug_assert_eq!(this.place(), Place::Idle, "a node sits on one fence at a time");
            if this.kind == Kind::Thread {
                // SAFETY: idle, so in no list, and the list's lock is held.
                unsafe { waiters.list.push_front(node.cast()) };
            } else {
                // SAFETY: as above.
                unsafe { waiters.list.push_back(node.cast()) };
            }
            this.set_place(place);
            // ORDERING: AcqRel: either this sees the signaller's `SIGNALED`, or the signaller sees `WAITERS` and the list.
            let before = state.word.fetch_or(bits, Ordering::AcqRel);
            if before & SIGNALED != 0 {
                // SAFETY: just put in, lock still held.
                unsafe { waiters.list.remove(node.cast()) };
                this.set_place(Place::Idle);
                return false;
            }
            let arms = bits & !before & ARMED != 0;
            (arms, if arms { waiters.hook.clone() } else { None })
        };
        if arms {
            self.tell_armed(hook);
        }
        true
    }

    /// Somebody waits for this through a container: tells the producer, if that is the first.
    pub(super) fn arm(&self) {
        if self.word() & (ARMED | SIGNALED) != 0 {
            return;
        }
        let hook = {
            let waiters = self.state().waiters.lock();
            let before = self.state().word.fetch_or(ARMED, Ordering::AcqRel);
            if before & (ARMED | SIGNALED) != 0 {
                return;
            }
            waiters.hook.clone()
        };
        self.tell_armed(hook);
    }

    fn tell_armed(&self, hook: Option<Hook>) {
        if let Some(hook) = hook {
            hook.arm();
        }
        if self.is_container() {
            container::arm(self);
        }
    }

    /// Takes `node` out of the waiters if it is there. False: the signaller has taken it.
    pub(crate) fn unregister(&self, node: &Node) -> bool {
        self.unregister_from(node, Place::Fence)
    }

    /// As [`Fence::unregister`], for a node registered as being in `place`.
    pub(crate) fn unregister_from(&self, node: &Node, place: Place) -> bool {
        let mut waiters = self.state().waiters.lock();
        if node.place() != place {
            return false;
        }
        // SAFETY: its place says that it is in this list: a node is registered on the fence its owner asks to take it
        // from, and the lock is held.
        unsafe { waiters.list.remove(NonNull::from(&node.link)) };
        node.set_place(Place::Idle);
        true
    }

    /// Takes a closure's or waker's node out of wherever it is. False: it is being, or has been, acted on.
    pub(crate) fn unregister_lane(&self, item: &LaneNode) -> bool {
        if self.unregister(&item.node) {
            return true;
        }
        if item.node.place() != Place::Lane {
            return false;
        }
        item.hub().is_some_and(|hub| hub.cancel(crate::exec::Lane::Notify, item))
    }

    /// Gives the fence its producer hook, before it is published.
    pub(crate) fn attach(&self, hook: Hook) {
        self.state().waiters.lock().hook = Some(hook);
        // So that the signal takes the slow path, which detaches it.
        self.state().word.fetch_or(WAITERS, Ordering::Relaxed);
    }

    /// The signal. Called once, by whoever the producer's own state machine chose; a second call changes nothing.
    pub(crate) fn signal(&self, result: Result<(), FenceError>, at: Time, hub: &Ref<Hub>) {
        self.signal_unless(SIGNALED, result, at, hub);
    }

    /// The signal, if there is nothing more to it than to say so, so that locks may be held. False: somebody waits, or has;
    /// then nothing was done.
    pub(crate) fn signal_unwatched(&self, result: Result<(), FenceError>, at: Time, hub: &Ref<Hub>) -> bool {
        self.signal_unless(SIGNALED | WAITERS, result, at, hub)
    }

    /// The signal, unless the word has one of the bits of `unless`; false if it has.
    fn signal_unless(&self, unless: u32, result: Result<(), FenceError>, at: Time, hub: &Ref<Hub>) -> bool {
        if sabotage::is(Sabotage::SkipSignal) {
            return true;
        }
        let Some(seen) = self.mark(result, at, unless) else { return false };
        check::signaled(self);
        if seen & WAITERS != 0 {
            self.act_on_waiters(hub);
        }
        hub.trace(|| Event::FenceSignaled { fence: self.id(), result });
        if sabotage::is(Sabotage::SignalTwice) {
            self.state().time.store(at.as_ns() + 1, Ordering::Relaxed);
            hub.trace(|| Event::FenceSignaled { fence: self.id(), result });
        }
        true
    }

    /// The signal of a fence that nobody but its maker has seen.
    pub(super) fn signal_unseen(&self, result: Result<(), FenceError>, at: Time) {
        let seen = self.mark(result, at, SIGNALED);
        debug_assert!(seen.is_some_and(|seen| seen & WAITERS == 0), "a fence had waiters before it was given out");
    }

    /// Sets the result; the word from before, unless that had one of the bits of `unless`.
    fn mark(&self, result: Result<(), FenceError>, at: Time, unless: u32) -> Option<u32> {
        let state = self.state();
        let mut seen = state.word.load(Ordering::Relaxed);
        if seen & unless != 0 {
            return None;
        }
        // ORDERING: before `SIGNALED`, whose Release publishes it. A deadline's exchange cannot come after it and have read
        // what was there before it; loom does not know that of a plain store.
        #[cfg(not(loom))]
        state.time.store(at.as_ns() & !DEADLINE, Ordering::Relaxed);
        #[cfg(loom)]
        state.time.swap(at.as_ns() & !DEADLINE, Ordering::Relaxed);
        if result.is_err() {
            self.note_lost();
        }
        let bits = FenceError::encode(result) | SIGNALED;
        loop {
            let done = if seen & WAITERS == 0 { DONE } else { 0 };
            // ORDERING: Release publishes time stamp and work; Acquire sees what registrations did before `WAITERS`.
            match state.word.compare_exchange_weak(seen, seen | bits | done, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return Some(seen),
                Err(now) if now & unless != 0 => return None,
                Err(now) => seen = now,
            }
        }
    }

    fn act_on_waiters(&self, hub: &Ref<Hub>) {
        let state = self.state();
        let mut hook = None;
        let mut more = true;
        while more {
            let mut waiters = state.waiters.lock();
            // SAFETY: the list's lock is held.
            let popped = unsafe { waiters.list.pop_front() };
            // Registration is refused since `SIGNALED` was set, so once the list is empty it stays so.
            more = !waiters.list.is_empty();
            if !more {
                hook = waiters.hook.take();
            }
            let Some(link) = popped else { break };
            let node = Node::from_link(link);
            // SAFETY: a node on a fence is alive until it is taken out, and a remover needs the lock held here.
            let kind = unsafe { node.as_ref() }.kind;
            match kind {
                Kind::Thread => {
                    // SAFETY: a thread's node starts a `ThreadNode`, alive as above. The token is copied under the lock.
                    let token = unsafe { node.cast::<ThreadNode>().as_ref() }.token();
                    // SAFETY: as above. After this store and the unlock the waiter may leave, and its node is gone.
                    unsafe { node.as_ref() }.set_place(Place::Idle);
                    drop(waiters);
                    if !sabotage::is(Sabotage::LoseWakeUp) {
                        sync::unpark(&token);
                    }
                }
                Kind::Dependency => {
                    // SAFETY: alive as above; from here on the count that its registration took keeps it alive.
                    unsafe { node.as_ref() }.set_place(Place::Idle);
                    drop(waiters);
                    // SAFETY: a dependency's node starts a `DepNode`; its registration's count is passed on.
                    unsafe { crate::queue::deps::signaled(node.cast(), self.slot()) };
                }
                Kind::Resource => {
                    // SAFETY: alive as above; its registration counts the queue.
                    unsafe { node.as_ref() }.set_place(Place::Idle);
                    drop(waiters);
                    // SAFETY: a resource's node is a queue's, and its registration's count is passed on.
                    unsafe { crate::queue::dispatch::resource_signaled(node) };
                }
                Kind::Member => {
                    // SAFETY: a member's node starts a `MemberNode`, whose container, dying or not, needs the lock held here
                    // to go.
                    let owner = unsafe { MemberNode::owner(node.cast()) };
                    // SAFETY: as above.
                    unsafe { node.as_ref() }.set_place(Place::Idle);
                    drop(waiters);
                    if let Some(owner) = owner {
                        // SAFETY: the node is in that container's block, which the handle keeps.
                        unsafe { container::advance(&owner, node.cast(), hub) };
                    }
                }
                Kind::Lane => self.hand_over(waiters, node.cast(), hub),
            }
        }
        // ORDERING: Release: who sees `DONE` sees that the actions were taken.
        state.word.fetch_or(DONE, Ordering::Release);
        // The hook is an object: its foreign part is dropped on the reaper.
        drop(hook);
    }

    fn hand_over(
        &self,
        waiters: sync::Guard<'_, class::FenceWaiters, Waiters>,
        item: NonNull<LaneNode>,
        hub: &Ref<Hub>,
    ) {
        // SAFETY: alive while the fence's lock is held.
        let inline = unsafe { item.as_ref() }.node.index == INLINE;
        if !inline {
            // SAFETY: just taken out of the fence's list, whose lock is still held.
            unsafe { Hub::hand_over(hub, item) };
            return;
        }
        // SAFETY: under the fence's lock the task is the signaller's to read.
        let run = match unsafe { LaneNode::task(item) } {
            Task::Run(run) => Some(*run),
            Task::Wake(_) => None,
        };
        // SAFETY: alive as above; a closure's registration counts it until it ran.
        unsafe { item.as_ref() }.node.set_place(Place::Idle);
        drop(waiters);
        if let Some(run) = run {
            // SAFETY: an inline closure was declared safe for the signalling path, and its count is passed on.
            unsafe { run(item) };
        }
    }
}
