//! Who shall look for itself: filled by fences' closures on whatever thread they run, emptied by the run's loop.
//!
//! One plain lock, a leaf: nothing is called while it is held.

use alloc::sync::Arc;
use core::time::Duration;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use outlive::{Fence, Refused};

/// Instances that were woken.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    woken: Mutex<Vec<usize>>,
    bell: Condvar,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, Vec<usize>> {
        self.woken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `instance` shall look.
    pub(super) fn wake(&self, instance: usize) {
        self.lock().push(instance);
        self.bell.notify_one();
    }

    /// Wakes `instance` when `fence` has signaled; at once if it has.
    pub(super) fn wake_after(self: &Arc<Self>, fence: &Fence, instance: usize) {
        let inbox = Arc::clone(self);
        match fence.on_signaled(move |_| inbox.wake(instance)) {
            Ok(registration) => registration.keep(),
            Err(Refused::AlreadySignaled(_)) => self.wake(instance),
            // Without memory for a closure it looks again at once, until there is some.
            Err(_) => self.wake(instance),
        }
    }

    /// Moves everybody who was woken to `into`, in order.
    pub(super) fn take(&self, into: &mut Vec<usize>) {
        into.append(&mut self.lock());
    }

    /// Waits until somebody is woken, or for so long.
    pub(super) fn wait(&self, at_most: Duration) {
        let woken = self.lock();
        if woken.is_empty() {
            // What comes of it is looked at by the caller, whoever ended the wait.
            drop(self.bell.wait_timeout(woken, at_most));
        }
    }
}
