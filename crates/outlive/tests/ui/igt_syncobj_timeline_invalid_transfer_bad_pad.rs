//! IGT `syncobj_timeline`, `invalid-transfer-bad-pad`: there is no padding.

use outlive::Syncobj;

fn transfer(to: &Syncobj, from: &Syncobj) {
    let _ = to.transfer(1, from, 1, 0xdead_beef);
}

fn main() {}
