//! IGT `syncobj_eventfd`, `invalid-bad-flags`: what is waited for is the wait's business, one of three values.

use outlive::{Syncobj, SyncobjWait};

fn wait(object: &Syncobj) {
    let _ = SyncobjWait::all_of(&[(object, 0)], 0xdead_beef);
}

fn main() {}
