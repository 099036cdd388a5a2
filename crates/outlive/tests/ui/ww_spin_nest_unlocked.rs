//! ww `spin_nest_unlocked`: what is done under a reservation's lock wants the token that says so.

use outlive::resv::{LockError, Reservation, Transaction, Usage};

fn misuse(on: &Reservation) -> Result<usize, LockError> {
    Transaction::new().run::<(), _>(|_| Ok(()), |sealed, ()| sealed.fences(on, Usage::Read).count())
}

fn main() {
    let _ = misuse;
}
