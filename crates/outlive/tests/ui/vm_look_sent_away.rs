//! A look belongs to one thread: a task that waits with it could not move.

use outlive::vm::{ImmediateDriver, Look};

fn send<T: Send>(_: T) {}

fn look<D: ImmediateDriver>(look: Look<D>) {
    send(look);
}

fn main() {}
