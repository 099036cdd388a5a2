//! IGT `syncobj_basic`, `bad-flags-handle-to-fd`: exporting a fence is a look-up, with a point and no flags.

use outlive::Syncobj;

fn export(object: &Syncobj) {
    let _ = object.find(0, 0xdead_beef);
}

fn main() {}
