//! IGT `syncobj_basic`, `bad-flags-fd-to-handle`: importing a fence is submitting it, with a point and no flags.

use outlive::{Fence, Syncobj};

fn import(object: &Syncobj, fence: &Fence) {
    let _ = object.submit(0, fence, 0xdead_beef);
}

fn main() {}
