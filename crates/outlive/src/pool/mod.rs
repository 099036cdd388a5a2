//! Scarce hardware resources: VM ids, doorbells, firmware slots, parts of a ring. A driver leases them in its `acquire` and gives
//! them back in its `release` (rule 8).
//!
//! # Types
//! A [`Pool`] has slots of a few kinds, in a fixed order. Each queue of the driver is a [`Holder`], which names the kinds that its
//! jobs need. Each job has a [`Ticket`], made where memory may be allocated; [`Ticket::acquire`] answers what `acquire` is to
//! answer.
//!
//! ```text
//! Ticket: new ──acquire: all there is──▶ taken ──give back──▶ done
//!          └──something is missing──▶ waiting, holding nothing ──its fence──▶ granted ──acquire──▶ taken
//! ```
//!
//! # Guarantee
//! - *All or nothing.* All kinds are taken in one step under one lock, so there is no order to get wrong between them; who
//!   names kinds in another order than the pool's is refused when the holder is made.
//! - *Nobody is forgotten.* Whoever waits is in line before the lock is given back, and who gives back serves the line under it. The
//!   slots pass from hand to hand: who is told has them, and need not race for them.
//! - *Oldest first*, by when each first asked. Who waits in vain for as long as a fence may take (10 s) is told so.
//! - *Reserved slots* go to priority high and above only, so those need not wait for others. A group holds no more than its
//!   cap; who waits for that holds up nobody else.
//! - *Free-running holders give back.* While nobody waits, a holder's next job joins those it has on the hardware, without giving
//!   anything back in between. As soon as somebody waits, nobody joins: each holder's slots come back when what it has on the
//!   hardware has ended, and its next job stands in line. So everybody's wait is bounded by those ahead in line.
//!
//! # Contexts
//! `acquire` and `give_back` are for the signalling path: they never allocate or block. No lock is held when a fence signals.

mod leases;
mod shell;
mod slots;

#[cfg(all(test, loom))]
mod loom_tests;

pub use shell::{Holder, Pool, PoolConfig, PoolError, PoolStatus, Ticket, WAITED_IN_VAIN};
pub use slots::SlotSet;

/// Kinds of slots a pool has at most.
pub const KINDS_MAX: usize = 4;
