//! ww `context_block`, `try_block`, `block_block`, `block_context`: no reservation is locked without a transaction, which
//! gives it its age.

fn misuse(on: &outlive::resv::Reservation) {
    let _guard = on.lock();
}

fn main() {
    let _ = misuse;
}
