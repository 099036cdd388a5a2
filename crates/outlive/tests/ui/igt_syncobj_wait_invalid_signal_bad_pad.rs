//! IGT `syncobj_wait`, `invalid-signal-bad-pad`: there is no padding.

use outlive::Syncobj;

fn signal(object: &Syncobj) {
    let _ = object.signal(0, 0xdead_beef);
}

fn main() {}
