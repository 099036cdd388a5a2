//! `outlive run`: from arguments to a scenario, what is done with it, and what is shown of it. Used by `lib.rs`, and by
//! `outlive replay`, which has its scenario from elsewhere.

use alloc::sync::Arc;
use core::sync::atomic::AtomicBool;
use std::path::{Path, PathBuf};

use crate::args::{CommonArgs, RunArgs, shown};
use crate::engine::{self, Done, Options, Request};
use crate::error::{Exit, Stop};
use crate::frames::FrameWriter;
use crate::output;
use crate::progress::{Progress, Show};
use crate::report::style::Style;
use crate::report::{Replay, counted, table};
use crate::scenario::{FIRST_LOOK_FILE, Scenario};
use crate::timeline::{self, Picture};

/// Where the built-in scenario's pictures go.
const PICTURES_FOLDER: &str = "outlive-out";

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
    if let Some(seed) = args.common.seed {
        scenario.seed = seed;
    }
    if let Some(policy) = args.common.policy {
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
        return Ok(Exit::Ok);
    }
    if args.check {
        if !args.common.quiet {
            output::print(&checked_line(args, &scenario))?;
        }
        return Ok(Exit::Ok);
    }
    execute(&args.common, &Pictures::of(args), &scenario, None)
}

fn file_name(args: &RunArgs) -> String {
    args.file.as_ref().map_or_else(|| FIRST_LOOK_FILE.to_owned(), |path| path.display().to_string())
}

fn checked_line(args: &RunArgs, scenario: &Scenario) -> String {
    format!(
        "{}: can run: {}, {}, {} ms\n",
        file_name(args),
        counted(scenario.instances.len() as u64, "client"),
        counted(scenario.events.len() as u64, "event"),
        scenario.run_for_ms
    )
}

/// Where pictures go.
pub(crate) struct Pictures {
    pub(crate) frames: Option<PathBuf>,
    pub(crate) timeline: Option<PathBuf>,
}

/// The requests of a trace, for each instance, and what is told of them.
pub(crate) struct Replayed {
    pub(crate) requests: Vec<Vec<Request>>,
    pub(crate) facts: Replay,
}

impl Pictures {
    /// Those asked for; the built-in scenario shows its own to whoever just tries it.
    fn of(args: &RunArgs) -> Self {
        let CommonArgs { frames, timeline, json, quiet, .. } = &args.common;
        let asked = frames.is_some() || timeline.is_some();
        if args.file.is_some() || *json || *quiet || asked {
            return Self { frames: frames.clone(), timeline: timeline.clone() };
        }
        let folder = Path::new(PICTURES_FOLDER);
        Self { frames: Some(folder.to_owned()), timeline: Some(folder.join("timeline.svg")) }
    }
}

/// Runs `scenario`, or what is `replayed` in it, and shows what came of it.
///
/// # Errors
///
/// Why nothing was done, or what could not be written in the end.
pub(crate) fn execute(
    args: &CommonArgs,
    pictures: &Pictures,
    scenario: &Scenario,
    replayed: Option<Replayed>,
) -> Result<Exit, Stop> {
    // Everything that can be refused is, before anything is done: the folder for frames is made last.
    if let Some(path) = &args.timeline {
        output::check_writable_file(path)?;
    }
    let frames = pictures.frames.as_deref().map(FrameWriter::prepare).transpose()?;
    let interrupted = until_interrupted()?;
    let show = if args.quiet { Show::Never } else { Show::OnTerminal };
    // A trace is as long as its jobs are many.
    let length = replayed.as_ref().map_or(scenario.run_for_ms, |replayed| {
        replayed.requests.iter().flatten().map(|request| u64::from(request.jobs())).sum()
    });
    let (requests, facts) = replayed.map(|replayed| (replayed.requests, replayed.facts)).unzip();
    let mut done = engine::execute(
        scenario,
        Options {
            clock: args.clock.unwrap_or_default(),
            keep_jobs: pictures.timeline.is_some(),
            requests: requests.as_deref(),
            frames,
            progress: Progress::new(length, scenario.instances.len(), show),
            interrupted: &interrupted,
        },
    )?;
    done.results.replay = facts;
    let drawn = draw(scenario, &done, pictures.timeline.as_deref());
    if args.json {
        output::print(&done.results.to_json())?;
    } else if !args.quiet {
        let mut text = table::render(&done.results, Style::of_stdout());
        text.push_str(&where_pictures_are(&done, pictures.timeline.as_deref()));
        output::print(&text)?;
    }
    drawn?;
    if let Some(Err(error)) = &done.frames {
        return Err(Stop::cannot_run(format_args!("outlive: not all frames could be written: {error}")));
    }
    Ok(done.results.exit())
}

/// Becomes true at Ctrl-C and when asked to terminate; at the second time the process ends at once.
fn until_interrupted() -> Result<Arc<AtomicBool>, Stop> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // In this order: the first signal finds the flag down, raises it, and does not end the process.
        signal_hook::flag::register_conditional_shutdown(
            signal,
            i32::from(Exit::Interrupted.code()),
            Arc::clone(&interrupted),
        )
        .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&interrupted)))
        .map_err(|error| Stop::cannot_run(format_args!("outlive: signals cannot be caught: {error}")))?;
    }
    Ok(interrupted)
}

fn draw(scenario: &Scenario, done: &Done, path: Option<&Path>) -> Result<(), Stop> {
    let Some(path) = path else { return Ok(()) };
    let picture = Picture {
        scenario,
        device_name: &done.results.device_name,
        elapsed_ns: done.elapsed_ns,
        jobs: &done.jobs,
        lives: &done.lives,
        moments: &done.moments,
    };
    output::write_whole(path, timeline::render(&picture).as_bytes())
        .map_err(|error| Stop::cannot_run(format_args!("{}: cannot be written: {error}", shown(path))))
}

fn where_pictures_are(done: &Done, timeline: Option<&Path>) -> String {
    let mut places = Vec::new();
    if let Some(Ok(written)) = &done.frames {
        places.push(format!("{} in {}/", counted(written.frames, "frame"), written.folder.display()));
    }
    if let Some(timeline) = timeline {
        places.push(format!("who had the hardware when in {}", timeline.display()));
    }
    if places.is_empty() { String::new() } else { format!("\nPictures: {}\n", places.join("; ")) }
}
