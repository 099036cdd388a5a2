//! IGT `syncobj_basic`, `bad-create-flags`: whether it is signaled is which function is called.

use outlive::{Executor, Syncobj};

fn create(executor: &Executor) {
    let _ = Syncobj::new(executor, "object", 0xdead_beef);
}

fn main() {}
