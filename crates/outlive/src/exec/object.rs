//! `Object`: a counted pointer to what owns foreign values (queues, devices, fence contexts, hooks). Its last reference
//! may be dropped anywhere, also in the signalling path; the object itself is dropped on the reaper lane.
//!
//! # States
//! *alive* (count > 0) → *dying* (count 0: queued on the reaper lane, nobody can get a reference) → freed by the reaper.
//!
//! # Guarantee
//! When an object is freed, everything that its executor counted as alive because of it is given back; its executor's
//! threads end after the last one.
#![expect(unsafe_code, reason = "reference count; docs/unsafe.md, `exec::object`")]

use super::Lane;
use super::hub::{Hub, Urgency};
use super::node::{LaneNode, Task};
use crate::fence::UserSource;
use crate::mem::shared::Ref;
use crate::mem::{AllocError, free, try_alloc, whole};
use crate::sync::atomic::{AtomicUsize, Ordering};
use core::alloc::Layout;
use core::fmt;
use core::mem::offset_of;
use core::ops::Deref;
use core::ptr::NonNull;

/// The first field of every counted object.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct ObjectHeader {
    refs: AtomicUsize,
    hub: Ref<Hub>,
    reap: LaneNode,
    destroy: unsafe fn(NonNull<Self>) -> Option<UserSource>,
    /// Signaled when the object is gone and its own code has returned.
    announce: Option<UserSource>,
}

/// An object whose first field is its [`ObjectHeader`], or another `Counted`.
///
/// # Safety
/// The type is `repr(C)` and starts with its header, so a pointer to the one is a pointer to the other.
pub(crate) unsafe trait Counted: Send + Sync + 'static {}

/// A counted reference to a `T`.
pub(crate) struct Object<T: Counted> {
    at: NonNull<T>,
}

// SAFETY: `Counted` types are `Send + Sync`; the count is atomic.
unsafe impl<T: Counted> Send for Object<T> {}
// SAFETY: as above.
unsafe impl<T: Counted> Sync for Object<T> {}

impl<T: Counted> Object<T> {
    /// A new object, built around the header it is given. Allocates.
    pub(crate) fn try_new<E: From<AllocError>>(
        hub: &Ref<Hub>,
        build: impl FnOnce(ObjectHeader) -> Result<T, E>,
    ) -> Result<Self, E> {
        let header = ObjectHeader {
            refs: AtomicUsize::new(1),
            hub: hub.clone(),
            reap: LaneNode::new(Task::Run(reap)),
            destroy: destroy::<T>,
            announce: None,
        };
        let layout = Layout::new::<T>();
        let at = try_alloc(layout)?.cast::<T>();
        let value = match build(header) {
            Ok(value) => value,
            Err(error) => {
                // SAFETY: allocated above with this layout, never initialised.
                unsafe { free(at.cast(), layout) };
                return Err(error);
            }
        };
        // SAFETY: fresh memory of this layout.
        unsafe { at.write(value) };
        hub.objects.fetch_add(1, Ordering::Relaxed);
        Ok(Self { at })
    }

    pub(crate) fn as_ptr(&self) -> NonNull<T> {
        self.at
    }

    /// The same reference, seen as its first field.
    ///
    /// # Safety
    /// `B` is the type of the first field of `T`, or of that field's first field.
    pub(crate) unsafe fn upcast<B: Counted>(self) -> Object<B> {
        let at = self.at.cast::<B>();
        core::mem::forget(self);
        Object { at }
    }

    /// A new reference to an object that something else keeps alive right now.
    ///
    /// # Safety
    /// `at` points to an object made by `try_new` whose count is not zero while this runs.
    pub(crate) unsafe fn from_alive(at: NonNull<T>) -> Self {
        // SAFETY: the caller's promise; the header is the first field.
        let header = unsafe { at.cast::<ObjectHeader>().as_ref() };
        header.refs.fetch_add(1, Ordering::Relaxed);
        Self { at }
    }

    /// A new reference to an object that may be dying; `None` if it is.
    ///
    /// # Safety
    /// `at` points to an object whose memory is not freed while this runs.
    pub(crate) unsafe fn from_maybe_dying(at: NonNull<T>) -> Option<Self> {
        let header = at.cast::<ObjectHeader>().as_ptr();
        // SAFETY: the caller's promise; the header is the first field. A reference to the count alone: of a dying object the
        // rest is being written to.
        let refs = unsafe { &(*header).refs };
        let mut seen = refs.load(Ordering::Relaxed);
        while seen != 0 {
            match refs.compare_exchange_weak(seen, seen + 1, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Some(Self { at }),
                Err(now) => seen = now,
            }
        }
        None
    }

    /// Takes over a reference given away as a pointer.
    ///
    /// # Safety
    /// Some reference to `at` was forgotten, and is taken over once.
    pub(crate) unsafe fn from_raw(at: NonNull<T>) -> Self {
        Self { at }
    }

    fn header(&self) -> &ObjectHeader {
        // SAFETY: alive while this reference is; the header is the first field.
        unsafe { self.at.cast::<ObjectHeader>().as_ref() }
    }
}

impl ObjectHeader {
    /// Lets `source` be signaled when the object is gone.
    pub(crate) fn announce(mut self, source: UserSource) -> Self {
        self.announce = Some(source);
        self
    }

    pub(crate) fn hub(&self) -> &Ref<Hub> {
        &self.hub
    }
}

/// Leaves an object to the reaper. Apart, so that giving a reference back is a few instructions.
///
/// # Safety
/// `header` is that of an object whose last reference was given back.
#[cold]
#[inline(never)]
unsafe fn die(header: NonNull<ObjectHeader>) {
    // SAFETY: the object lives until the reaper ran the item below.
    let header = unsafe { header.as_ref() };
    header.refs.load(Ordering::Acquire);
    let hub = header.hub.clone();
    let item = NonNull::from(&header.reap);
    // SAFETY: as above, and nothing else queues it.
    unsafe { hub.schedule(Lane::Reaper, item, Urgency::Now, || {}) };
}

impl<T: Counted> Clone for Object<T> {
    fn clone(&self) -> Self {
        // ORDERING: made from an existing reference.
        let before = self.header().refs.fetch_add(1, Ordering::Relaxed);
        assert!(before < usize::MAX / 2, "reference count overflow");
        Self { at: self.at }
    }
}

impl<T: Counted> Drop for Object<T> {
    #[inline]
    fn drop(&mut self) {
        // ORDERING: Release pairs with the Acquire load in `die`: all uses come before the end.
        if self.header().refs.fetch_sub(1, Ordering::Release) == 1 {
            // SAFETY: this was the last reference.
            unsafe { die(self.at.cast()) };
        }
    }
}

impl<T: Counted> Deref for Object<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: alive while this reference is.
        unsafe { self.at.as_ref() }
    }
}

impl<T: Counted> fmt::Debug for Object<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Object")
    }
}

/// On the reaper lane: the object's end.
unsafe fn reap(item: NonNull<LaneNode>) {
    // SAFETY: `item` is the field `reap` of a header whose whole object is still allocated.
    let header = unsafe { item.byte_sub(offset_of!(ObjectHeader, reap)) }.cast::<ObjectHeader>();
    // SAFETY: as above.
    let destroy = unsafe { header.as_ref() }.destroy;
    // SAFETY: the count is zero, so this is the only access left.
    let announce = unsafe { destroy(header) };
    // The object's own code, which may be a driver's module, has returned: it may be unloaded after this.
    if let Some(source) = announce {
        source.signal(Ok(()));
    }
}

/// Frees an object's memory and tells its executor, also when a foreign `Drop` inside panics.
struct Free {
    at: NonNull<u8>,
    layout: Layout,
    hub: Ref<Hub>,
}

impl Drop for Free {
    fn drop(&mut self) {
        // SAFETY: allocated by `try_new` with this layout; its value was dropped.
        unsafe { free(self.at, self.layout) };
        // ORDERING: Release pairs with `Hub::is_finished`.
        if self.hub.objects.fetch_sub(1, Ordering::Release) == 1 {
            for lane in [Lane::Signalling, Lane::Notify, Lane::Reaper] {
                self.hub.kick(lane);
            }
        }
    }
}

unsafe fn destroy<T: Counted>(header: NonNull<ObjectHeader>) -> Option<UserSource> {
    crate::check::foreign_drop();
    let mut header = whole(header);
    // SAFETY: alive until the end of this function.
    let hub = unsafe { header.as_ref() }.hub.clone();
    let _free = Free { at: header.cast(), layout: Layout::new::<T>(), hub };
    // SAFETY: as above, and nobody else has a reference.
    let announce = unsafe { header.as_mut() }.announce.take();
    // SAFETY: the last access to a value that was made as a `T`.
    unsafe { header.cast::<T>().drop_in_place() };
    announce
}
