//! Closures that run when a fence has signaled.
//!
//! # States
//! A closure *waits* (its node is on the fence or on the notify lane), *runs*, and is *finished*; or it is taken out while it
//! waits. Its block is counted twice, by the side that will run it and by the [`Registration`].
//!
//! # Contexts
//! Closures run on the notify lane of the executor that signaled: they may lock and allocate, but not wait for a fence.
//! Those declared [`SignalSafe`] run in the signal itself. Registering allocates. Dropping a registration, or
//! [`Registration::detach`], never waits; [`Registration::remove`] waits for a closure that is running, and is refused where
//! waiting is not allowed.
#![expect(unsafe_code, reason = "a counted closure; docs/unsafe.md, `fence::callback`")]

use super::error::FenceError;
use super::signal::INLINE;
use super::state::Fence;
use super::status::Status;
use super::wait::WaitError;
use crate::check::{self, Violation};
use crate::exec::node::{LaneNode, Task};
use crate::mem::{AllocError, free, try_alloc, whole};
use crate::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use crate::sync::{self, Lock, ParkToken, class};
use core::alloc::Layout;
use core::cell::UnsafeCell;
use core::fmt;
use core::mem::ManuallyDrop;
use core::ptr::NonNull;

/// Something that may run in the signalling path.
///
/// # Safety
/// Calling [`SignalSafe::signaled`] and dropping the value neither allocates, nor blocks, nor waits, nor takes a lock that a
/// waiter may hold, nor panics.
pub unsafe trait SignalSafe: Send + 'static {
    /// The fence has signaled with `result`.
    fn signaled(self, result: Result<(), FenceError>);
}

/// Why a closure was not registered; it comes back.
#[derive(PartialEq, Eq)]
#[non_exhaustive]
pub enum Refused<F> {
    /// The fence has signaled: act on it right here.
    AlreadySignaled(F),
    /// No memory for the registration.
    OutOfMemory(AllocError, F),
}

impl<F> fmt::Debug for Refused<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AlreadySignaled(_) => "AlreadySignaled",
            Self::OutOfMemory(..) => "OutOfMemory",
        })
    }
}

impl<F> fmt::Display for Refused<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AlreadySignaled(_) => f.write_str("the fence has signaled: act on it at once"),
            Self::OutOfMemory(error, _) => error.fmt(f),
        }
    }
}

impl<F> core::error::Error for Refused<F> {}

#[repr(C)]
struct Head {
    lane: LaneNode,
    refs: AtomicU32,
    phase: AtomicU32,
    /// The context that runs the closure, 0 before.
    runner: AtomicUsize,
    remover: Lock<class::FenceWaiters, Option<ParkToken>>,
    /// For its result. Touched by the running side only.
    fence: UnsafeCell<Option<Fence>>,
    layout: Layout,
    /// Takes the closure out and calls it. Foreign code, hence never the last to touch the block: see [`run`].
    call: unsafe fn(NonNull<Self>, Result<(), FenceError>),
    /// Drops a closure that was taken back before it ran.
    discard: unsafe fn(NonNull<Self>),
}

#[repr(C)]
struct Block<F> {
    head: Head,
    closure: UnsafeCell<Option<F>>,
}

const WAITING: u32 = 0;
const RUNNING: u32 = 1;
const FINISHED: u32 = 2;

/// A closure's place on a fence. Dropping it takes the closure out without waiting; [`Registration::keep`] leaves it.
#[must_use = "dropping it takes the closure out again; call `keep` to leave it registered"]
pub struct Registration {
    head: NonNull<Head>,
    fence: Fence,
}

// SAFETY: the head is atomic or locked; the closure is `Send` and touched by one side at a time.
unsafe impl Send for Registration {}
// SAFETY: as above; `&Registration` gives nothing.
unsafe impl Sync for Registration {}

impl Fence {
    /// Runs `closure` with the result, on the notify lane, once it has signaled. Allocates.
    ///
    /// # Errors
    /// [`Refused::AlreadySignaled`] gives the closure back: a late callback is not called behind one's back.
    pub fn on_signaled<F>(&self, closure: F) -> Result<Registration, Refused<F>>
    where
        F: FnOnce(Result<(), FenceError>) + Send + 'static,
    {
        self.register_closure(closure, 0, call::<F>)
    }

    /// Calls `handler` with the result inside the signal itself. Allocates now, not then.
    ///
    /// # Errors
    /// As for [`Fence::on_signaled`].
    pub fn on_signal<S: SignalSafe>(&self, handler: S) -> Result<Registration, Refused<S>> {
        self.register_closure(handler, INLINE, call_inline::<S>)
    }

    fn register_closure<F: Send + 'static>(
        &self,
        closure: F,
        index: u16,
        call: unsafe fn(NonNull<Head>, Result<(), FenceError>),
    ) -> Result<Registration, Refused<F>> {
        if self.is_signaled() {
            return Err(Refused::AlreadySignaled(closure));
        }
        let block = match try_alloc(Layout::new::<Block<F>>()) {
            Ok(block) => block.cast::<Block<F>>(),
            Err(error) => return Err(Refused::OutOfMemory(error, closure)),
        };
        let mut lane = LaneNode::new(Task::Run(run));
        lane.node.index = index;
        let head = Head {
            lane,
            refs: AtomicU32::new(2),
            phase: AtomicU32::new(WAITING),
            runner: AtomicUsize::new(0),
            remover: Lock::new(None),
            fence: UnsafeCell::new(Some(self.clone())),
            layout: Layout::new::<Block<F>>(),
            call,
            discard: discard::<F>,
        };
        // SAFETY: fresh memory of this layout.
        unsafe { block.write(Block { head, closure: UnsafeCell::new(Some(closure)) }) };
        // SAFETY: idle, of its kind, and counted for the side that will run it.
        if unsafe { self.register(block.cast()) } {
            return Ok(Registration { head: block.cast(), fence: self.clone() });
        }
        // SAFETY: refused, so nobody else knows the block.
        let closure = unsafe { take_closure(block) };
        // SAFETY: as above; the closure is out.
        unsafe { free_head(block.cast()) };
        match closure {
            Some(closure) => Err(Refused::AlreadySignaled(closure)),
            None => unreachable!("the closure was put there above"),
        }
    }
}

/// On the notify lane, or in the signal for the inline kind: has the closure called, and gives the running side's count back.
///
/// Not generic: when it says that the closure has finished, no code of the closure's module is left to run, so whoever
/// waited for that may unload the module.
unsafe fn run(item: NonNull<LaneNode>) {
    let head = item.cast::<Head>();
    // SAFETY: the running side's count keeps the block alive until `Finish`.
    let this = unsafe { head.as_ref() };
    // ORDERING: Release pairs with the Acquire in `remove`.
    this.runner.store(sync::context_id(), Ordering::Relaxed);
    this.phase.store(RUNNING, Ordering::Release);
    let _finish = Finish { head };
    // SAFETY: written once at registration, read by this side only.
    let fence = unsafe { (*this.fence.get()).take() };
    if let Some(Status::Signaled(result)) = fence.map(|fence| fence.status()) {
        // SAFETY: made for this block; the node was taken out, so this side alone has the right to the closure.
        unsafe { (this.call)(head, result) };
    }
}

unsafe fn call<F: FnOnce(Result<(), FenceError>)>(head: NonNull<Head>, result: Result<(), FenceError>) {
    // SAFETY: made for a block of this type, and the right is passed on.
    if let Some(closure) = unsafe { take_closure::<F>(head.cast()) } {
        closure(result);
    }
}

unsafe fn call_inline<S: SignalSafe>(head: NonNull<Head>, result: Result<(), FenceError>) {
    // SAFETY: as in `call`.
    if let Some(handler) = unsafe { take_closure::<S>(head.cast()) } {
        handler.signaled(result);
    }
}

unsafe fn discard<F>(head: NonNull<Head>) {
    check::foreign_drop();
    // SAFETY: made for a block of this type; the last count makes the closure this side's.
    drop(unsafe { take_closure::<F>(head.cast()) });
}

/// # Safety
/// The caller alone has the right to the closure of `block`, which is alive.
unsafe fn take_closure<F>(block: NonNull<Block<F>>) -> Option<F> {
    // SAFETY: alive by the caller's promise.
    let cell = unsafe { block.as_ref() }.closure.get();
    // SAFETY: the caller's right.
    unsafe { (*cell).take() }
}

/// Marks the closure finished and wakes a remover, also when it panicked.
struct Finish {
    head: NonNull<Head>,
}

impl Drop for Finish {
    fn drop(&mut self) {
        // SAFETY: counted for this side until `release` below.
        let head = unsafe { self.head.as_ref() };
        let token = {
            let mut remover = head.remover.lock();
            // ORDERING: Release: a remover that sees it sees all the closure did.
            head.phase.store(FINISHED, Ordering::Release);
            remover.take()
        };
        if let Some(token) = token {
            sync::unpark(&token);
        }
        // SAFETY: this side's count.
        unsafe { release(self.head) };
    }
}

unsafe fn release(head: NonNull<Head>) {
    // SAFETY: the caller's count.
    let this = unsafe { head.as_ref() };
    // ORDERING: Release pairs with the Acquire load below: all uses come before the end.
    if this.refs.fetch_sub(1, Ordering::Release) != 1 {
        return;
    }
    this.refs.load(Ordering::Acquire);
    if this.phase.load(Ordering::Relaxed) == WAITING {
        // SAFETY: made for this block; it did not run and will not.
        unsafe { (this.discard)(head) };
    }
    // SAFETY: the last count.
    unsafe { free_head(head) };
}

/// Frees a block whose closure is out.
///
/// # Safety
/// Nobody else knows the block.
unsafe fn free_head(head: NonNull<Head>) {
    let mut head = whole(head);
    // SAFETY: alive until the end of this function.
    let layout = unsafe { head.as_mut() }.layout;
    // SAFETY: the last access to the head; the closure's place is empty.
    unsafe { head.drop_in_place() };
    // SAFETY: allocated with this layout.
    unsafe { free(head.cast(), layout) };
}

impl Registration {
    fn head(&self) -> &Head {
        // SAFETY: counted for this side.
        unsafe { self.head.as_ref() }
    }

    /// Takes the node out; true if the closure will not run. Gives the running side's count back then.
    fn take_out(&self) -> bool {
        let taken = self.fence.unregister_lane(&self.head().lane);
        if taken {
            // SAFETY: the running side will not run, so its count is ours to give back; ours is still there.
            unsafe { release(self.head) };
        }
        taken
    }

    /// Takes the closure out and, if it is running right now, waits until it has finished. True: it did not run and
    /// will not.
    ///
    /// # Errors
    /// Where waiting is not allowed ([`WaitError`]), also inside the closure itself: the closure stays registered then, as
    /// after [`Registration::keep`].
    #[track_caller]
    pub fn remove(self) -> Result<bool, WaitError> {
        if let Err(violation) = check::may_wait() {
            self.keep();
            return Err(match violation {
                Violation::WaitedInCallback => WaitError::InCallback,
                _ => WaitError::InSignallingSection,
            });
        }
        if self.take_out() {
            return Ok(true);
        }
        let head = self.head();
        loop {
            if head.phase.load(Ordering::Acquire) == FINISHED {
                return Ok(false);
            }
            if head.runner.load(Ordering::Relaxed) == sync::context_id() {
                return Err(WaitError::InCallback);
            }
            {
                let mut remover = head.remover.lock();
                if head.phase.load(Ordering::Acquire) == FINISHED {
                    return Ok(false);
                }
                *remover = Some(sync::park_token());
            }
            sync::park();
        }
    }

    /// Takes the closure out if it has not begun, and does not wait if it has. True: it did not run and will not.
    pub fn detach(self) -> bool {
        self.take_out()
    }

    /// Leaves the closure registered: it will run, and nobody can take it out any more.
    pub fn keep(self) {
        let this = ManuallyDrop::new(self);
        // SAFETY: `this` is not used again, so the fence is moved out once.
        drop(unsafe { core::ptr::read(&raw const this.fence) });
        // SAFETY: this side's count, given back without taking the closure out.
        unsafe { release(this.head) };
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.take_out();
        // SAFETY: this side's count.
        unsafe { release(self.head) };
    }
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Registration(phase {})", self.head().phase.load(Ordering::Relaxed))
    }
}
