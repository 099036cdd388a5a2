//! ww `object_lock_unbalanced`: that something is locked cannot be made up.

use outlive::resv::Locked;

fn misuse() -> Locked<'static> {
    Locked { place: 0, brand: core::marker::PhantomData }
}

fn main() {
    let _ = misuse;
}
