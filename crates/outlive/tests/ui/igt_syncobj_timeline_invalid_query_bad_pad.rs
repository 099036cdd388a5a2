//! IGT `syncobj_timeline`, `invalid-query-bad-pad`: a query gives both numbers, and takes no flags.

use outlive::Syncobj;

fn query(object: &Syncobj) {
    let _ = object.query(0xdead_beef);
}

fn main() {}
