//! IGT `syncobj_basic`, `bad-pad-fd-to-handle`: another handle comes from a handle, not from a structure with padding.

use outlive::Syncobj;

fn share() {
    let _: Syncobj = Syncobj { pad: 0xdead_beef };
}

fn main() {}
