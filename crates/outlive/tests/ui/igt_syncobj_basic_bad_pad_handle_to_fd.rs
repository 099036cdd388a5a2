//! IGT `syncobj_basic`, `bad-pad-handle-to-fd`: sharing the whole object is a clone; there is no padding.

use outlive::Syncobj;

fn share(object: &Syncobj) {
    let _ = object.clone(0xdead_beef);
}

fn main() {}
