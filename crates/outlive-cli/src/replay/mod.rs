//! `outlive replay`: the requests of a public trace, run like a scenario. Used by `lib.rs`.
//!
//! ```text
//!   file ──read──▶ rows ──arrivals──▶ requests in time ──in turn──▶ clients ──▶ the engine of `outlive run`
//! ```
//!
//! Traces say when a request came and how long its prompt and its answer were, not what that cost; the cost of a token is an
//! argument, and the results say so. `read` knows the formats, `row` a line of them, `stamp` how they write time, `cost`
//! what a row is assumed to cost, `plan` turns rows into what the clients submit.

use std::path::Path;

use crate::args::ReplayArgs;
use crate::error::{Exit, Stop, one_line};
use crate::report::Replay;
use crate::run::{self, Pictures, Replayed};

mod cost;
mod plan;
mod read;
mod row;
mod stamp;

use cost::Costs;

/// Does what `args` ask for.
///
/// # Errors
///
/// Why nothing was done.
pub fn run(args: &ReplayArgs) -> Result<Exit, Stop> {
    let ReplayArgs { file, common, .. } = args;
    let costs = Costs::new(args);
    let trace = read::trace(file, args.limit, args.skip_bad_rows, &costs)?;
    let seed = common.seed.unwrap_or(plan::SEED);
    let (format, bad_rows, count) = (trace.format, trace.bad_rows, trace.rows.len() as u64);
    let requests = plan::requests(trace, args, &costs, seed);
    let scenario = plan::scenario(name_of(file), args, seed, &requests)?;
    let facts = Replay {
        trace: one_line(&file.to_string_lossy()),
        format: format.word().to_owned(),
        requests: count,
        bad_rows,
        speed: args.speed,
        prefill_us_per_token: args.prefill_us_per_token,
        decode_us_per_token: args.decode_us_per_token,
        assumption: costs.assumption(),
    };
    let pictures = Pictures { frames: common.frames.clone(), timeline: common.timeline.clone() };
    run::execute(common, &pictures, &scenario, Some(Replayed { requests, facts }))
}

fn name_of(file: &Path) -> String {
    let name = file.file_name().unwrap_or(file.as_os_str());
    one_line(&name.to_string_lossy())
}
