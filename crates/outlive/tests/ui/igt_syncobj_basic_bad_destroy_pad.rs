//! IGT `syncobj_basic`, `bad-destroy-pad`: destroying is dropping; there is no padding.

use outlive::Syncobj;

fn destroy(object: Syncobj) {
    drop(object, 0xdead_beef);
}

fn main() {}
