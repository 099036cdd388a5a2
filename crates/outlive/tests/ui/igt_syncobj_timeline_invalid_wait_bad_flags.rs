//! IGT `syncobj_timeline`, `invalid-wait-bad-flags`: a wait for all and one for any are two functions, and there are no other flags.

use outlive::{Syncobj, SyncobjWait, Until};

fn wait(object: &Syncobj) {
    let _ = SyncobjWait::all_of(&[(object, 1)], Until::Submitted, 0xdead_beef);
}

fn main() {}
