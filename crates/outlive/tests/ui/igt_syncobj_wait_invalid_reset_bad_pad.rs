//! IGT `syncobj_wait`, `invalid-reset-bad-pad`: there is no padding.

use outlive::Syncobj;

fn reset(object: &Syncobj) {
    let _ = Syncobj::reset_all(&[object], 0xdead_beef);
}

fn main() {}
