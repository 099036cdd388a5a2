//! The simulated GPU.
//!
//! [`gpu`] is the hardware: memory, page tables, rings, engines, faults, and the checkers that watch it. It is a pure
//! state machine in virtual time and knows nothing of who drives it.

#![forbid(unsafe_code)]

extern crate alloc;

pub mod gpu;
