//! Resets and unplugging: what they take off the hardware, and how the library hears of it.
//!
//! A reset is *asked for* (its token is kept, what has not started is swept off its rings), and *ends* with the device's
//! report: then what it covers is over, and the token is answered, after the ends of its jobs. One that the device cannot
//! report any more, because it is gone, is answered where that is noticed.

use outlive::{FenceError, ResetToken, Time, Times};

use super::deliver::{Delivery, outlive_time};
use super::machine::{JobEnd, Machine};
use crate::gpu::{GpuError, HwSeqno, KilledJob, QueueId, ResetReport, ResetScope};

impl Machine {
    /// Resets that will not be heard of any more. A token that is kept keeps the library's device.
    pub(crate) fn fail_resets(&mut self) {
        let stale = core::mem::take(&mut self.unit.tokens);
        self.outbox.extend(stale.into_iter().map(|(_, token)| Delivery::Failed(token)));
    }

    pub(crate) fn start_reset(&mut self, scope: ResetScope, token: ResetToken) {
        let now = self.now;
        let Some((gpu, memory)) = self.device() else {
            self.outbox.push_back(Delivery::Failed(token));
            return;
        };
        match gpu.reset(memory, now, scope) {
            Ok(()) => {
                self.unit.tokens.push((scope, token));
                self.sweep(scope);
            }
            Err(GpuError::Unplugged) => {
                // What is not there touches nothing. Nor does it end a reset that was under way.
                self.fail_resets();
                self.end_all(scope, FenceError::DeviceLost);
                self.outbox.push_back(Delivery::Quiesced(token));
            }
            Err(_) => self.outbox.push_back(Delivery::Failed(token)),
        }
    }

    /// Takes jobs that have not started off the rings of a reset that is under way.
    fn sweep(&mut self, scope: ResetScope) {
        let now = self.now;
        for at in 0..self.unit.rings.len() {
            // CAST: rings are counted in 32 bits.
            let hw = QueueId(at as u32);
            if scope != ResetScope::Device && scope != ResetScope::Ring(hw) {
                continue;
            }
            let seqnos: Vec<u64> = self.ring(hw).map_or_else(Vec::new, |ring| ring.flying.seqnos());
            let Some((gpu, memory)) = self.device() else { return };
            for seqno in seqnos {
                if gpu.job_time(hw, HwSeqno(seqno)).is_none() {
                    let _ = gpu.cancel(memory, now, hw, HwSeqno(seqno));
                }
            }
        }
    }

    /// The end of a reset: of each ring it covers nothing is left on the hardware, if it worked.
    pub(crate) fn reset_ended(&mut self, report: ResetReport) {
        self.resets += 1;
        let at = self.unit.tokens.iter().position(|(scope, _)| *scope == report.scope);
        let token = at.map(|at| self.unit.tokens.remove(at).1);
        let ResetReport { scope, ended_at, result, .. } = report;
        let Ok(killed) = result else {
            self.outbox.extend(token.map(Delivery::Failed));
            return;
        };
        for job in &killed {
            let KilledJob { queue, hw_seqno, job, start, active_ns } = *job;
            self.note_end(JobEnd { job, result: None, start: Some(start), end: ended_at, active_ns });
            self.end_flying(queue, hw_seqno, FenceError::Innocent, Some(outlive_time(ended_at)));
        }
        self.end_all(scope, FenceError::Innocent);
        self.outbox.extend(token.map(Delivery::Quiesced));
    }

    /// Ends what is in flight on the rings covered: it was swept off them, or has ended and the host was not told yet.
    pub(crate) fn end_all(&mut self, scope: ResetScope, error: FenceError) {
        for at in 0..self.unit.rings.len() {
            // CAST: rings are counted in 32 bits.
            let queue = QueueId(at as u32);
            if scope != ResetScope::Device && scope != ResetScope::Ring(queue) {
                continue;
            }
            let seqnos: Vec<u64> = self.ring(queue).map_or_else(Vec::new, |ring| ring.flying.seqnos());
            for seqno in seqnos {
                self.end_flying(queue, HwSeqno(seqno), error, None);
            }
        }
    }

    fn end_flying(&mut self, queue: QueueId, seqno: HwSeqno, error: FenceError, end: Option<Time>) {
        let Some((in_flight, flying, active)) = self.land(queue, seqno) else { return };
        let times = Times { end, active: Some(active) };
        let result = if self.has_ended(&flying) { Ok(()) } else { Err(error) };
        self.outbox.push_back(Delivery::Ended { queue, seqno, flying, in_flight, result, times });
    }
}
