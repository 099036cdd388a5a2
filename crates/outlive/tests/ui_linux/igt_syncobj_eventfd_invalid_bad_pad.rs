//! IGT `syncobj_eventfd`, `invalid-bad-pad`: there is no padding.

use outlive::UserFence;
use outlive::linux::signal_eventfd;
use std::os::fd::OwnedFd;

fn signal(user: &UserFence, eventfd: OwnedFd) {
    let _ = signal_eventfd(user, eventfd, 0xdead_beef);
}

fn main() {}
