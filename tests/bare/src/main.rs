//! The core without `std`, linked and run: own start, own allocator, own lock, one processor, virtual time, and a
//! timer that interrupts anything anywhere.
//!
//! Prints a line for each scenario and exits with 0 when every check held; else it prints the check that did not and exits
//! with 1. The allocator counts, so that "the signalling path does not allocate" and "nothing is left behind" are
//! checked here with the real thing.
#![no_std]
#![no_main]

extern crate alloc;

mod device;
mod heap;
mod interrupt;
mod machine;
mod platform;
mod scenarios;

/// Ends the program with the condition that does not hold.
macro_rules! check {
    ($holds:expr $(, $why:expr)?) => {
        if !$holds {
            $crate::machine::say!("FAILED: {}:{}: {}", file!(), line!(), stringify!($holds));
            $($crate::machine::say!("        {:?}", $why);)?
            $crate::machine::exit(1);
        }
    };
}
pub(crate) use check;

/// Ends the program with the error, where there should be none.
macro_rules! must {
    ($result:expr) => {
        match $result {
            Ok(value) => value,
            Err(error) => {
                $crate::machine::say!("FAILED: {}:{}: {}: {error}", file!(), line!(), stringify!($result));
                $crate::machine::exit(1)
            }
        }
    };
}
pub(crate) use must;

extern "C" fn main() -> ! {
    let scenarios: [(&str, fn()); 10] = [
        ("jobs run, finish and retire", scenarios::jobs),
        ("dependencies hold and carry errors by choice", scenarios::dependencies),
        ("a timeout ends in a reset", scenarios::timeout),
        ("bare fences, their watchdog and user fences", scenarios::fences),
        ("any failed allocation is refused without a trace", scenarios::out_of_memory),
        ("waiting where nobody could wake us is refused", scenarios::waiting),
        ("a closed queue's late job is reaped", scenarios::close),
        ("an executor without a driver is finished by another", scenarios::orphans),
        ("interrupts complete jobs between any two instructions", scenarios::interrupts),
        ("a fence outlives everything", scenarios::outlive),
    ];
    for (name, scenario) in scenarios {
        let before = heap::in_use();
        scenario();
        check!(heap::in_use() == before, (name, before, heap::in_use()));
        check!(platform::HELD.load(core::sync::atomic::Ordering::Relaxed) == 0);
        machine::say!("ok: {name}");
    }
    check!(heap::is_whole());
    machine::say!(
        "all checks held; {} allocations, {} locks taken, {} wake-ups",
        heap::allocations(),
        platform::LOCKS.load(core::sync::atomic::Ordering::Relaxed),
        platform::UNPARKED.load(core::sync::atomic::Ordering::Relaxed)
    );
    machine::exit(0)
}
