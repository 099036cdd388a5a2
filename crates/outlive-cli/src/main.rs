//! The `outlive` command. Everything is in the library beside it.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(outlive_cli::main(std::env::args_os()).code())
}
