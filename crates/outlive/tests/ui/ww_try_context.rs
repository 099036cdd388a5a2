//! ww `try_context`: nor tried.

fn misuse(on: &outlive::resv::Reservation) {
    let _guard = on.try_lock();
}

fn main() {
    let _ = misuse;
}
