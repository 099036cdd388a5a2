//! The simulated GPU.
//!
//! [`gpu`] is the hardware: memory, page tables, rings, engines, faults, and the checkers that watch it. It is a pure
//! state machine in virtual time and knows nothing of who drives it. [`driver`] puts the library on top of it: a device
//! that implements `outlive::Driver`, clients with buffers and rings, and the audit of both. [`world`] lets a storm loose on it.

#![forbid(unsafe_code)]

extern crate alloc;

pub mod driver;
pub mod gpu;
pub mod world;
