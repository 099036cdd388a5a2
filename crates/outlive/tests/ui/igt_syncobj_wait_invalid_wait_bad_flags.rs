//! IGT `syncobj_wait`, `invalid-wait-bad-flags`: what a wait is for is one of three values.

use outlive::{Syncobj, SyncobjWait};

fn wait(object: &Syncobj) {
    let _ = SyncobjWait::any_of(&[(object, 0)], 0xdead_beef);
}

fn main() {}
