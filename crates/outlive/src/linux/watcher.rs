//! Importing: descriptors of other processes as user fences, all watched at one place.
//!
//! # States of a slot
//! *free* → *watched* → *taken out*, by whoever looks at its event, or by a sweep once nobody can hear of it any more, or by the
//! watcher's end → *free*, with a new generation, so that an event of before finds nothing.
//!
//! # Contexts
//! Importing allocates. Looking may block for as long as it is told. What was found is signaled by whoever looks, outside the
//! lock.

use super::{DescriptorError, export_user, record};
use crate::exec::Executor;
use crate::fence::{FenceError, UserFence, UserSource};
use crate::mem::shared::Ref;
use crate::mem::{AllocError, HeapVec, try_push, try_reserve};
use crate::sync::{self, Lock, class};
use core::fmt;
use core::mem::MaybeUninit;
use core::time::Duration;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{FileType, OFlags, fcntl_getfl, fstat};
use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, tee};

/// Watches imported fences. Its descriptor ([`AsFd`]) is readable when there is something to look at, so it fits into an event
/// loop; or it has a thread of its own. Dropping it ends what it watches with [`FenceError::Canceled`].
#[derive(Debug)]
pub struct Watcher {
    inner: Ref<Inner>,
}

struct Inner {
    executor: Executor,
    epoll: OwnedFd,
    /// Readable once the watcher is gone.
    stop: OwnedFd,
    slots: Lock<class::WatcherSlots, Slots>,
}

struct Slots {
    slots: HeapVec<Slot>,
    watched: usize,
    /// So many may be watched before those that nobody hears of are looked for.
    sweep_at: usize,
}

#[derive(Default)]
struct Slot {
    generation: u32,
    watched: Option<Watched>,
}

struct Watched {
    fd: OwnedFd,
    source: UserSource,
    /// What it means if nobody is left to signal it.
    abandoned: FenceError,
}

/// The event that says that the watcher is gone.
const STOP: u64 = u64::MAX;
const SWEEP_AT_LEAST: usize = 32;

impl Watcher {
    /// A watcher whose user fences call their closures on `executor`'s notify lane. Somebody must [`Watcher::look`].
    ///
    /// # Errors
    /// [`DescriptorError::System`], no memory.
    pub fn new(executor: &Executor) -> Result<Self, DescriptorError> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let stop = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        epoll::add(&epoll, &stop, EventData::new_u64(STOP), EventFlags::IN)?;
        let slots = Lock::new(Slots { slots: HeapVec::new(), watched: 0, sweep_at: SWEEP_AT_LEAST });
        Ok(Self { inner: Ref::try_new(Inner { executor: executor.clone(), epoll, stop, slots })? })
    }

    /// As [`Watcher::new`], with a thread that looks. It ends with the watcher.
    ///
    /// # Errors
    /// As for [`Watcher::new`]; no thread to be had is no memory.
    pub fn with_thread(executor: &Executor) -> Result<Self, DescriptorError> {
        let this = Self::new(executor)?;
        let inner = this.inner.clone();
        let started = sync::spawn("outlive watch", move || {
            // An error of the system's own (no descriptors left) may pass: what is ready stays so.
            while !matches!(inner.look(None), Ok(Looked { stopped: true, .. })) {}
        });
        if started { Ok(this) } else { Err(AllocError { bytes: 0 }.into()) }
    }

    /// The fence behind `fd`, which stays the caller's: with the result that was written, or [`FenceError::DeviceLost`] if it ends
    /// without one. Allocates.
    ///
    /// # Errors
    /// [`DescriptorError::NotAFence`], [`DescriptorError::System`], no memory.
    pub fn import(&self, fd: impl AsFd) -> Result<UserFence, DescriptorError> {
        self.inner.watch(fd.as_fd(), FenceError::DeviceLost)
    }

    /// As [`Watcher::import`], for another process's `retired`: any error on it, also its end without a result, means that the memory
    /// is never free.
    ///
    /// # Errors
    /// As for [`Watcher::import`].
    pub fn import_retired(&self, fd: impl AsFd) -> Result<UserFence, DescriptorError> {
        self.inner.watch(fd.as_fd(), FenceError::Quarantined)
    }

    /// One descriptor for all of `fds`, which stay the caller's: readable when all are, with the error of the first that failed. It
    /// depends on this process too: if that goes, it ends without a result.
    ///
    /// # Errors
    /// As for [`Watcher::import`]; [`DescriptorError::None`].
    pub fn merge(&self, fds: &[BorrowedFd<'_>]) -> Result<OwnedFd, DescriptorError> {
        if fds.is_empty() {
            return Err(DescriptorError::None);
        }
        let mut users = HeapVec::new();
        try_reserve(&mut users, fds.len())?;
        for fd in fds {
            try_push(&mut users, self.import(fd)?).map_err(|(error, _)| error)?;
        }
        export_user(&UserFence::all_of(&users)?)
    }

    /// Signals the fences whose descriptors say so; waits for the first, at most `timeout` (`None`: as long as it takes). Returns how many
    /// it signaled.
    ///
    /// # Errors
    /// [`DescriptorError::System`]: nothing is lost, the next look finds it.
    pub fn look(&self, timeout: Option<Duration>) -> Result<usize, DescriptorError> {
        self.inner.look(timeout).map(|looked| looked.signaled)
    }

    /// How many descriptors it watches.
    #[must_use]
    pub fn watched(&self) -> usize {
        self.inner.slots.lock().watched
    }
}

impl AsFd for Watcher {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.epoll.as_fd()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let _ = rustix::io::write(&self.inner.stop, &1_u64.to_ne_bytes());
        let slots = core::mem::take(&mut self.inner.slots.lock().slots);
        for watched in slots.into_iter().filter_map(|slot| slot.watched) {
            watched.source.signal(Err(FenceError::Canceled));
        }
    }
}

/// What was watched and has a result.
struct Ended {
    source: UserSource,
    result: Result<(), FenceError>,
}

struct Looked {
    signaled: usize,
    stopped: bool,
}

impl Inner {
    fn watch(&self, fd: BorrowedFd<'_>, abandoned: FenceError) -> Result<UserFence, DescriptorError> {
        if !is_read_end(fd)? {
            return Err(DescriptorError::NotAFence);
        }
        self.sweep();
        let (source, user) = UserFence::new(&self.executor, "descriptor")?;
        let watched = Watched { fd: fcntl_dupfd_cloexec(fd, 0)?, source, abandoned };
        let mut slots = self.room()?;
        let index = slots.free();
        let slot = &mut slots.slots[index];
        slot.generation = slot.generation.wrapping_add(1);
        let key = EventData::new_u64(key(index, slot.generation));
        epoll::add(&self.epoll, &watched.fd, key, EventFlags::IN)?;
        slot.watched = Some(watched);
        slots.watched += 1;
        Ok(user)
    }

    /// The slots, with one that is free.
    fn room(&self) -> Result<sync::Guard<'_, class::WatcherSlots, Slots>, AllocError> {
        loop {
            let wanted = {
                let slots = self.slots.lock();
                if slots.watched < slots.slots.len() || slots.slots.len() < slots.slots.capacity() {
                    return Ok(slots);
                }
                (slots.slots.len() * 2).max(16)
            };
            let mut larger = HeapVec::new();
            try_reserve(&mut larger, wanted)?;
            let mut slots = self.slots.lock();
            if larger.capacity() > slots.slots.capacity() {
                larger.append(&mut slots.slots);
                core::mem::swap(&mut larger, &mut slots.slots);
            }
            drop(slots);
        }
    }

    /// Gives up what nobody can hear of any more, now and then.
    fn sweep(&self) {
        let mut slots = self.slots.lock();
        if slots.watched < slots.sweep_at {
            return;
        }
        let mut at = 0;
        while at < slots.slots.len() {
            let unheard = slots.slots[at].watched.as_ref().is_some_and(|one| !UserFence::is_heard(&one.source));
            let gone = if unheard { slots.take(at, &self.epoll) } else { None };
            at += 1;
            if let Some(gone) = gone {
                drop(slots);
                drop(gone);
                slots = self.slots.lock();
            }
        }
        slots.sweep_at = (slots.watched * 2).max(SWEEP_AT_LEAST);
    }

    fn look(&self, timeout: Option<Duration>) -> Result<Looked, DescriptorError> {
        let mut looked = Looked { signaled: 0, stopped: false };
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        });
        let mut events = [const { MaybeUninit::<epoll::Event>::uninit() }; 16];
        let (events, _) = match epoll::wait(&self.epoll, &mut events, timeout.as_ref()) {
            Err(Errno::INTR) => return Ok(looked),
            events => events?,
        };
        if events.is_empty() {
            return Ok(looked);
        }
        let scratch = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        for event in events {
            let key = event.data.u64();
            if key == STOP {
                looked.stopped = true;
            } else if let Some(Ended { source, result }) = self.ready(key, &scratch)? {
                source.signal(result);
                looked.signaled += 1;
            }
        }
        Ok(looked)
    }

    /// Takes out what `key` names, if it has a result.
    fn ready(&self, key: u64, scratch: &(OwnedFd, OwnedFd)) -> Result<Option<Ended>, DescriptorError> {
        let mut slots = self.slots.lock();
        let index = usize::try_from(key >> 32).unwrap_or(usize::MAX);
        let Some(slot) = slots.slots.get(index).filter(|slot| self::key(index, slot.generation) == key) else {
            return Ok(None);
        };
        let Some(watched) = &slot.watched else { return Ok(None) };
        let Some(result) = result_in(watched, scratch)? else { return Ok(None) };
        let taken = slots.take(index, &self.epoll);
        drop(slots);
        // Its descriptor goes here, before the signal: who hears of that may count them.
        Ok(taken.map(|Watched { source, .. }| Ended { source, result }))
    }
}

impl Slots {
    /// A free slot. There is room for one.
    fn free(&mut self) -> usize {
        if let Some(free) = self.slots.iter().position(|slot| slot.watched.is_none()) {
            return free;
        }
        let refused = try_push(&mut self.slots, Slot::default());
        debug_assert!(refused.is_ok(), "there was room");
        self.slots.len() - 1
    }

    /// Takes out what is watched there. Closing it would not do: others may have the same descriptor, and then the system
    /// would go on watching.
    fn take(&mut self, index: usize, epoll: &OwnedFd) -> Option<Watched> {
        let watched = self.slots[index].watched.take()?;
        self.watched -= 1;
        let _ = epoll::delete(epoll, &watched.fd);
        Some(watched)
    }
}

fn key(index: usize, generation: u32) -> u64 {
    (u64::try_from(index).unwrap_or(u64::MAX) << 32) | u64::from(generation)
}

fn is_read_end(fd: BorrowedFd<'_>) -> Result<bool, DescriptorError> {
    let pipe = FileType::from_raw_mode(fstat(fd)?.st_mode) == FileType::Fifo;
    Ok(pipe && fcntl_getfl(fd)? & OFlags::ACCMODE == OFlags::RDONLY)
}

/// What `watched` says; `None`: nothing yet. Leaves it where it is, for others may have the same descriptor.
fn result_in(
    watched: &Watched,
    scratch: &(OwnedFd, OwnedFd),
) -> Result<Option<Result<(), FenceError>>, DescriptorError> {
    let (read, write) = scratch;
    let copied = match tee(&watched.fd, write, record::BYTES + 1, SpliceFlags::NONBLOCK) {
        Err(Errno::AGAIN) => return Ok(None),
        copied => copied?,
    };
    let mut bytes = [0; record::BYTES + 1];
    let count = if copied == 0 { 0 } else { rustix::io::read(read, &mut bytes)? };
    Ok(Some(record::decode(&bytes[..count]).unwrap_or(Err(watched.abandoned))))
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} descriptors", self.slots.lock().watched)
    }
}
