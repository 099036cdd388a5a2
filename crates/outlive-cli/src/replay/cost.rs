//! What a request is assumed to cost: from numbers of tokens to jobs. Used by `read`, which refuses what no device does, and `plan`.

use super::row::{Bad, Row};
use crate::args::ReplayArgs;
use crate::engine::Request;
use crate::report::counted;

/// One decode job generates so many tokens.
const TOKENS_PER_DECODE: u64 = 8;
/// More than any model generates.
const OUTPUT_MAX: u64 = 1_000_000;
/// What is on the hardware runs one after the other, so all of it together must end within the watchdog: a job holds a credit
/// for each so much of its time that it begins.
const NS_PER_CREDIT: u64 = 500 * NS_PER_MS;
/// What the device gives one job; see `watchdog_ms`.
pub(super) const WATCHDOG_MS: u64 = 10_000;
pub(super) const CREDITS: u32 = 16;
pub(super) const NS_PER_MS: u64 = 1_000_000;

/// What a token is assumed to cost.
#[derive(Debug, Clone, Copy)]
pub(super) struct Costs {
    prefill_us: f64,
    decode_us: f64,
}

impl Costs {
    /// As the arguments say. No decode job comes near the watchdog.
    pub(super) const fn new(args: &ReplayArgs) -> Self {
        Self { prefill_us: args.prefill_us_per_token, decode_us: args.decode_us_per_token }
    }

    /// In words, for the results.
    pub(super) fn assumption(&self) -> String {
        format!(
            "Assumed, as traces have lengths only: {} µs of hardware time per prompt token, {} µs per token made",
            self.prefill_us, self.decode_us
        )
    }

    /// `row`, if the device can do it.
    pub(super) fn check(&self, row: Row) -> Result<Row, Bad> {
        if self.prefill_ns(row.input) >= WATCHDOG_MS * NS_PER_MS {
            let what = format!("a prompt of {}, at {} µs each", counted(row.input, "token"), self.prefill_us);
            return Err(Bad::new(what, "less than 10 s, which is all that the device gives one job"));
        }
        if row.output > OUTPUT_MAX {
            let what = format!("an answer of {}", counted(row.output, "token"));
            return Err(Bad::new(what, format!("at most {}", counted(OUTPUT_MAX, "token"))));
        }
        Ok(row)
    }

    fn prefill_ns(&self, tokens: u64) -> u64 {
        cost_ns(tokens, self.prefill_us)
    }

    fn decode_ns(&self, tokens: u64) -> u64 {
        cost_ns(tokens, self.decode_us)
    }

    pub(super) fn request(&self, at_ns: u64, row: &Row) -> Request {
        let decodes = row.output.div_ceil(TOKENS_PER_DECODE);
        let last = row.output - decodes.saturating_sub(1) * TOKENS_PER_DECODE;
        let (prefill_ns, decode_ns) = (self.prefill_ns(row.input), self.decode_ns(TOKENS_PER_DECODE));
        Request {
            at_ns,
            prefill_ns,
            prefill_credits: credits(prefill_ns),
            decodes: u32::try_from(decodes).unwrap_or(u32::MAX),
            decode_ns,
            last_decode_ns: self.decode_ns(last),
            decode_credits: credits(decode_ns),
        }
    }
}

fn credits(job_ns: u64) -> u32 {
    u32::try_from(job_ns.div_ceil(NS_PER_CREDIT)).unwrap_or(CREDITS).clamp(1, CREDITS)
}

fn cost_ns(tokens: u64, us: f64) -> u64 {
    // CAST: tokens and costs are bounded far below 2^53; what is not saturates, and is refused.
    (tokens as f64 * us * 1000.0).round() as u64
}
