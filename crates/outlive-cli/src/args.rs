//! The command line: what `outlive` takes, and how it refuses. Used by `lib.rs`.
//!
//! What the contract promises for later is known here by name only, so that it can be refused as "not built yet" and stays
//! out of `--help`. Whoever builds it moves it from there into the commands, or flips its switch in [`built`].

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand};

use crate::error::Stop;
use crate::scenario::model::Policy;

/// What is built. A flag whose switch is off is hidden and refused.
pub mod built {
    /// Whether `--trace` writes traces.
    pub const TRACING: bool = false;
}

/// Commands of the contract that are not built.
const COMMANDS_NOT_BUILT: &[&str] = &["serve", "client", "top", "torture", "explain", "trace"];

const EXAMPLES: &str = "\
Examples:
  outlive                                     watch four clients draw, crash and hang; ten seconds
  outlive run --clock virtual --json          the same without waiting, for a program to read
  outlive run --print-scenario > mine.toml    start a scenario of your own
  outlive run mine.toml --check               see whether it can run
  outlive replay trace.csv --clock virtual    the requests of a public trace
  outlive devices                             see what it can run on

Without a command, `outlive` is `outlive run`.

Exit codes: 0 all well; 1 it ran, and the audit found something; 2 bad usage or input, and nothing was done;
3 it cannot run here; 130 interrupted, after the jobs under way have ended.";

const RUN_EXAMPLES: &str = "\
Examples:
  outlive run                                 the built-in scenario, with pictures in outlive-out/
  outlive run mine.toml --clock virtual       one of your own, as fast as this machine can
  outlive run mine.toml --timeline mine.svg   and a picture of who had the hardware when
  outlive run --print-scenario > mine.toml    start a scenario of your own
  outlive run mine.toml --check               see whether it can run";

const REPLAY_EXAMPLES: &str = "\
A trace is CSV or JSON lines, told apart by its header or keys:
  TIMESTAMP,ContextTokens,GeneratedTokens               Azure LLM inference trace 2023
  timestamp,input_length,output_length,hash_ids         Mooncake; arrivals in ticks of 3 s are spread over them

Each request is one prefill job and one decode job for each 8 tokens that it generates, each after the one before.
Requests go to the clients in turn. How long a token takes is not in the traces: it is assumed.

Examples:
  outlive replay trace.csv --clock virtual              as fast as this machine can
  outlive replay trace.jsonl --clock virtual --speed 4  four times as many requests in the same time
  outlive replay trace.csv --limit 100                  watch the first hundred in real time
  outlive replay trace.csv --clock virtual --speed 10 --policy fifo --json";

const DEVICES_EXAMPLES: &str = "\
Example:
  outlive devices";

const VM_EXAMPLES: &str = "\
Example:
  outlive vm replay script.txt                print the steps of each line; its `--help` explains scripts";

const VM_REPLAY_EXAMPLES: &str = "\
A script has one operation per line; `space` comes first, `#` starts a comment:
  space 0x0 0x1000000000000        base and length of the address space
  page 0x1000                      smallest page; this is the default
  reserve 0x0 0x10000              a range that cannot be mapped
  bo a 0x400000                    a buffer: name and size
  map 0x100000 0x3000 a 0x0        address, length, buffer, offset
  map 0x200000 0x100000 sparse     without a buffer
  map 0x300000 0x100000 a 0x0 repeat=0x1000
  map 0x400000 0x1000 a 0x0 read-only
  protect 0x100000 0x1000 read-only     or read-write
  unmap 0x101000 0x1000
  batch                            what follows up to `end`: all or nothing
  end
  close-bo a                       unmaps it everywhere
  dump                             all mappings

Exit code 1 if a line was refused, 2 if one cannot be read.

Examples:
  outlive vm replay script.txt                  what a driver would be told, a line of JSON for each line
  outlive vm replay script.txt --page-tables    and what its page tables would hold
  printf 'space 0x0 0x10000\\nmap 0x0 0x4000 sparse\\nunmap 0x1000 0x1000\\n' | outlive vm replay /dev/stdin";

/// Headings of `--help`.
const HOW: &str = "How it runs";
const OUTPUT: &str = "Output";

/// GPU job scheduling, fences and address spaces that are right by construction.
#[derive(Debug, Clone, Parser)]
#[command(name = "outlive", version, args_conflicts_with_subcommands = true, after_help = EXAMPLES)]
pub struct Cli {
    /// What to do; `run` where absent.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The arguments of `run`, for use without a command.
    #[command(flatten)]
    pub run: RunArgs,
}

/// What to do.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Run a workload on a device: a table per client, and the audit
    #[command(after_help = RUN_EXAMPLES)]
    Run(RunArgs),
    /// Run the requests of a public trace: a table per client, and the audit
    #[command(after_help = REPLAY_EXAMPLES)]
    Replay(ReplayArgs),
    /// List what can be used here, and why not where not
    #[command(after_help = DEVICES_EXAMPLES)]
    Devices,
    /// Look at GPU address spaces
    #[command(after_help = VM_EXAMPLES, arg_required_else_help = false)]
    Vm(VmArgs),
}

/// The arguments of `outlive vm`.
#[derive(Debug, Clone, Args)]
pub struct VmArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: VmCommand,
}

/// What to do with address spaces.
#[derive(Debug, Clone, Subcommand)]
pub enum VmCommand {
    /// Replay an address-space script: the steps that a driver would be given, as JSON, a line each
    #[command(after_help = VM_REPLAY_EXAMPLES)]
    Replay {
        /// The script
        #[arg(value_name = "SCRIPT")]
        script: PathBuf,
        /// Let a simulated device follow, and print what its page tables hold, at each `dump` and at the end
        #[arg(long)]
        page_tables: bool,
    },
}

/// The arguments of `outlive run`.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// The scenario; without it, a built-in one
    #[arg(value_name = "SCENARIO.toml")]
    pub file: Option<PathBuf>,

    /// Only check the scenario
    #[arg(long, conflicts_with = "print_scenario")]
    pub check: bool,

    /// Print what would run, with every default filled in
    #[arg(long)]
    pub print_scenario: bool,

    /// What it shares with `replay`.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// What `run` and `replay` share.
#[derive(Debug, Clone, Args)]
pub struct CommonArgs {
    /// real (default): watch it happen; virtual: no waiting, and the same result every time
    #[arg(long, value_name = "CLOCK", help_heading = HOW)]
    pub clock: Option<Clock>,

    /// Let the arbiter choose by this policy: fair, fifo or round-robin
    #[arg(long, value_name = "POLICY", help_heading = HOW)]
    pub policy: Option<Policy>,

    /// Take all chance from this number
    #[arg(long, value_name = "N", value_parser = seed, allow_negative_numbers = true, help_heading = HOW)]
    pub seed: Option<u64>,

    /// What to run on: sim (default)
    #[arg(long, value_name = "DEVICE", help_heading = HOW)]
    pub device: Option<String>,

    /// Print the results as JSON
    #[arg(long, help_heading = OUTPUT)]
    pub json: bool,

    /// Print neither table nor progress
    #[arg(long, help_heading = OUTPUT)]
    pub quiet: bool,

    /// Draw who had the hardware when
    #[arg(long, value_name = "FILE.svg", help_heading = OUTPUT)]
    pub timeline: Option<PathBuf>,

    /// Write every frame that a client draws into this folder
    #[arg(long, value_name = "DIR", help_heading = OUTPUT)]
    pub frames: Option<PathBuf>,

    /// Write a trace: .pftrace, .ftrace or .jsonl
    #[arg(long = "trace", id = "trace-file", value_name = "FILE", hide = !built::TRACING, help_heading = OUTPUT)]
    pub trace: Option<PathBuf>,
}

/// The arguments of `outlive replay`.
#[derive(Debug, Clone, Args)]
pub struct ReplayArgs {
    /// The trace
    #[arg(value_name = "TRACE")]
    pub file: PathBuf,

    /// To how many clients the requests go, in turn
    #[arg(long, value_name = "N", default_value_t = 24, value_parser = clients, allow_negative_numbers = true)]
    pub clients: u32,

    /// So many times as fast as they came
    #[arg(long, value_name = "X", default_value = "1", value_parser = positive, allow_negative_numbers = true)]
    pub speed: f64,

    /// Only the first so many requests
    #[arg(long, value_name = "N", value_parser = limit, allow_negative_numbers = true)]
    pub limit: Option<u64>,

    /// Leave rows out that make no sense, and count them
    #[arg(long)]
    pub skip_bad_rows: bool,

    /// Hardware time for each token of a prompt; an assumption
    #[arg(long, value_name = "US", default_value = "20", value_parser = positive, allow_negative_numbers = true)]
    pub prefill_us_per_token: f64,

    /// Hardware time for each token generated; an assumption
    #[arg(long, value_name = "US", default_value = "100", value_parser = positive, allow_negative_numbers = true)]
    pub decode_us_per_token: f64,

    /// What it shares with `run`.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// A number between a thousandth and a million, both included: beyond that it is a typing mistake.
fn positive(text: &str) -> Result<f64, &'static str> {
    let number = text.parse().ok().filter(|number| (0.001..=1e6).contains(number));
    number.ok_or("expected a number from 0.001 to 1000000")
}

fn seed(text: &str) -> Result<u64, &'static str> {
    let number = text.parse().ok().filter(|number| *number <= i64::MAX.unsigned_abs());
    number.ok_or("expected a whole number from 0 to 9223372036854775807")
}

fn clients(text: &str) -> Result<u32, &'static str> {
    let number = text.parse().ok().filter(|number| (1..=4096).contains(number));
    number.ok_or("expected a whole number from 1 to 4096")
}

fn limit(text: &str) -> Result<u64, &'static str> {
    let number = text.parse().ok().filter(|number| *number > 0);
    number.ok_or("expected a whole number of requests, at least 1")
}

/// What time a run lives in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Clock {
    /// The machine's; what a run has unless it says otherwise.
    #[default]
    Real,
    /// Its own: deterministic, and waits cost nothing.
    Virtual,
}

impl Clock {
    /// As in `--clock` and in the results.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Real => "real",
            Self::Virtual => "virtual",
        }
    }
}

impl core::str::FromStr for Clock {
    type Err = &'static str;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        match word {
            "real" => Ok(Self::Real),
            "virtual" => Ok(Self::Virtual),
            _ => Err("expected `real` or `virtual`"),
        }
    }
}

/// What the arguments came to.
#[derive(Debug, Clone)]
pub enum Parsed {
    /// Do this.
    Do(Command),
    /// `--help` or `--version`: print this and end well.
    Say(String),
}

/// Reads the arguments, the command's own name first.
///
/// # Errors
///
/// Bad usage, on one line.
pub fn parse(args: Vec<OsString>) -> Result<Parsed, Stop> {
    let first = args.get(1).and_then(|first| first.to_str()).unwrap_or_default();
    if COMMANDS_NOT_BUILT.contains(&first) {
        return Err(Stop::not_built(&format!("`outlive {first}`")));
    }
    let help = help_for(&args);
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            return Ok(Parsed::Say(error.render().to_string()));
        }
        Err(error) => return Err(Stop::bad_input(usage_line(&error.render().to_string(), &help))),
    };
    let command = match (cli.command, &cli.run.file) {
        (Some(command), _) => command,
        (None, Some(word)) if word.components().count() == 1 && word.extension().is_none() && !word.exists() => {
            let expected = "expected a scenario file, or `run`, `replay`, `devices` or `vm`";
            return Err(Stop::bad_input(format_args!(
                "outlive: {} is no file and no command; {expected}",
                shown(word)
            )));
        }
        (None, _) => Command::Run(cli.run),
    };
    if let Command::Run(RunArgs { common, .. }) | Command::Replay(ReplayArgs { common, .. }) = &command {
        common.check_built()?;
        common.check_outputs()?;
    }
    Ok(Parsed::Do(command))
}

impl CommonArgs {
    fn check_built(&self) -> Result<(), Stop> {
        if let Some(device) = self.device.as_deref() {
            let kind = device.split(':').next().unwrap_or(device);
            match (kind, device) {
                ("vulkan", _) => return Err(Stop::not_built("`--device vulkan`")),
                (_, "sim") => {}
                _ => return Err(Stop::bad_input(format_args!("outlive: `--device` is {device:?}; expected `sim`"))),
            }
        }
        if self.trace.is_some() && !built::TRACING {
            return Err(Stop::not_built("`--trace`"));
        }
        Ok(())
    }

    fn check_outputs(&self) -> Result<(), Stop> {
        let Some(path) = self.timeline.as_deref() else { return Ok(()) };
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("svg") => Ok(()),
            Some("html") => Err(Stop::not_built("a timeline as `.html`")),
            _ => Err(Stop::bad_input(format_args!("outlive: `--timeline` is {}; expected a file `.svg`", shown(path)))),
        }
    }
}

/// A path in a message.
pub(crate) fn shown(path: &Path) -> String {
    format!("`{}`", path.display())
}

/// The `--help` that tells more about `args`.
fn help_for(args: &[OsString]) -> String {
    let words: Vec<_> = args.iter().skip(1).take(2).filter_map(|word| word.to_str()).collect();
    match *words {
        ["vm", "replay"] => "outlive vm replay --help".to_owned(),
        [command @ ("run" | "replay" | "devices" | "vm"), ..] => format!("outlive {command} --help"),
        _ => "outlive --help".to_owned(),
    }
}

/// The first paragraph of a message from the argument parser, and where to read on.
fn usage_line(message: &str, help: &str) -> String {
    let paragraph: Vec<_> = message.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
    let line = paragraph.join(" ");
    format!("outlive: {}; see `{help}`", line.trim_start_matches("error: "))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_commands_are_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_usage_error_is_one_line() {
        let message = "error: one thing:\n  <X>\n\nUsage: outlive\n";
        assert_eq!(usage_line(message, "outlive --help"), "outlive: one thing: <X>; see `outlive --help`");
    }

    #[test]
    fn a_usage_error_names_the_help_of_its_command() {
        let of = |line: &str| parse(line.split(' ').map(OsString::from).collect()).unwrap_err().message;
        assert_eq!(
            of("outlive replay t.csv --clients 0"),
            "outlive: invalid value '0' for '--clients <N>': expected a whole number from 1 to 4096; see `outlive \
             replay --help`"
        );
        assert_eq!(
            of("outlive --seed -1"),
            "outlive: invalid value '-1' for '--seed <N>': expected a whole number from 0 to 9223372036854775807; see \
             `outlive --help`"
        );
        assert_eq!(
            of("outlive rnu"),
            "outlive: `rnu` is no file and no command; expected a scenario file, or `run`, `replay`, `devices` or `vm`"
        );
    }
}
