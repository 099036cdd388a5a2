//! IGT `syncobj_timeline`, `invalid-signal-bad-pad`: there is no padding.

use outlive::Syncobj;

fn signal(object: &Syncobj) {
    let _ = Syncobj::signal_all(&[(object, 1)], 0xdead_beef);
}

fn main() {}
