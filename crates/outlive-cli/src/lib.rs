//! The parts of the `outlive` command, as a library so that its tests and its engine can reach them.
//!
//! [`args`] reads the command line, [`scenario`] the workload, [`replay`] a trace instead. [`report`] turns what happened into results and a table,
//! [`timeline`] into a picture, [`frames`] keeps what the clients drew, and [`progress`] shows how far a run is. None of
//! them knows what executes a scenario; that is [`engine`]. [`vm_replay`] stands beside all that:
//! it replays address-space scripts.

#![forbid(unsafe_code)]

extern crate alloc;

use std::ffi::OsString;

pub mod args;
pub mod devices;
pub mod engine;
pub mod error;
pub mod frames;
mod input;
pub mod output;
pub mod progress;
pub mod replay;
pub mod report;
pub mod run;
pub mod scenario;
pub mod timeline;
pub mod vm_replay;

use args::{Command, Parsed, VmArgs, VmCommand};
use error::{Exit, Stop};

/// The whole command: `args` with the program's name first.
pub fn main(args: impl Iterator<Item = OsString>) -> Exit {
    let done = args::parse(args.collect()).and_then(|parsed| match parsed {
        Parsed::Say(text) => output::print(&text).map(|()| Exit::Ok),
        Parsed::Do(Command::Devices) => output::print(&devices::list()).map(|()| Exit::Ok),
        Parsed::Do(Command::Vm(VmArgs { command: VmCommand::Replay { script, page_tables } })) => {
            vm_replay::run(&script, page_tables)
        }
        Parsed::Do(Command::Run(args)) => run::run(&args),
        Parsed::Do(Command::Replay(args)) => replay::run(&args),
    });
    done.unwrap_or_else(|Stop { exit, message }| {
        eprintln!("{message}");
        exit
    })
}
