//! `outlive run`: from arguments to a scenario, and what can be done with it. Used by `lib.rs`.

use crate::args::RunArgs;
use crate::error::{Exit, Stop};
use crate::output;
use crate::scenario::{FIRST_LOOK_FILE, Scenario};

/// The scenario that `args` ask for: from its file or built in, with what the arguments override.
///
/// # Errors
///
/// What is wrong with the file.
pub fn scenario(args: &RunArgs) -> Result<Scenario, Stop> {
    let mut scenario = match &args.file {
        Some(path) => Scenario::load(path)?,
        None => Scenario::first_look()?,
    };
    if let Some(seed) = args.seed {
        scenario.seed = seed;
    }
    if let Some(policy) = args.policy {
        scenario.scheduler.policy = policy;
    }
    Ok(scenario)
}

/// Does what `args` ask for.
///
/// # Errors
///
/// Why nothing was done.
pub fn run(args: &RunArgs) -> Result<Exit, Stop> {
    let scenario = scenario(args)?;
    if args.print_scenario {
        output::print(&scenario.to_toml())?;
    } else if args.check {
        if !args.quiet {
            output::print(&checked_line(args, &scenario))?;
        }
    } else {
        return Err(Stop::not_built("running a scenario"));
    }
    Ok(Exit::Ok)
}

fn checked_line(args: &RunArgs, scenario: &Scenario) -> String {
    let file = args.file.as_ref().map_or_else(|| FIRST_LOOK_FILE.to_owned(), |path| path.display().to_string());
    let counted = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    format!(
        "{file}: can run: {}, {}, {} ms\n",
        counted(scenario.instances.len(), "client"),
        counted(scenario.events.len(), "event"),
        scenario.run_for_ms
    )
}
