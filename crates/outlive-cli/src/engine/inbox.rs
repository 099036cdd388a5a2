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
    state: Mutex<State>,
    bell: Condvar,
}

#[derive(Debug, Default)]
struct State {
    woken: Vec<usize>,
    /// Whether the loop waits for the bell, which costs a call of the operating system.
    waits: bool,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `instance` shall look.
    pub(super) fn wake(&self, instance: usize) {
        let mut state = self.lock();
        state.woken.push(instance);
        if state.waits {
            self.bell.notify_one();
        }
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
        into.append(&mut self.lock().woken);
    }

    /// Whether anybody was woken.
    pub(super) fn has_any(&self) -> bool {
        !self.lock().woken.is_empty()
    }

    /// Waits until somebody is woken, or for so long.
    pub(super) fn wait(&self, at_most: Duration) {
        let mut state = self.lock();
        if state.woken.is_empty() {
            state.waits = true;
            // Whoever ended the wait, the caller looks at what came of it.
            let (mut state, _) = self.bell.wait_timeout(state, at_most).unwrap_or_else(PoisonError::into_inner);
            state.waits = false;
        }
    }
}
