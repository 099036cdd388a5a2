//! What the hardware has to say, and how it reaches the library: collected under the machine's lock, said without it.

use alloc::sync::Arc;
use core::time::Duration;
use outlive::{FenceError, InFlight, ResetToken, Times};

use super::hardware::{CODE_BAD_DESCRIPTOR, CODE_EXECUTION, CODE_PAGE_FAULT};
use super::machine::{JobEnd, Machine, Shared};
use super::unit::Flying;
use crate::gpu::{GpuError, HwError, HwSeqno, Interrupt, QueueId, Time};

/// Something to be said to the library.
#[derive(Debug)]
pub(crate) enum Delivery {
    /// The hardware is done with a job.
    Ended {
        queue: QueueId,
        seqno: HwSeqno,
        flying: Flying,
        in_flight: Arc<InFlight>,
        result: Result<(), FenceError>,
        times: Times,
    },
    /// A reset or unplugging worked.
    Quiesced(ResetToken),
    /// It did not.
    Failed(ResetToken),
}

/// The library's word for an error of the hardware.
pub(crate) const fn verdict(result: Result<(), HwError>) -> Result<(), FenceError> {
    match result {
        Ok(()) => Ok(()),
        Err(HwError::PageFault(_)) => Err(FenceError::Faulted { code: CODE_PAGE_FAULT }),
        Err(HwError::Execution { .. }) => Err(FenceError::Faulted { code: CODE_EXECUTION }),
        Err(HwError::BadDescriptor) => Err(FenceError::Faulted { code: CODE_BAD_DESCRIPTOR }),
        // The library asks for it only where the verdict is in; else a reset swept it off its ring.
        Err(HwError::Canceled) => Err(FenceError::Innocent),
    }
}

pub(crate) const fn outlive_time(at: Time) -> outlive::Time {
    outlive::Time::from_ns(at.as_ns())
}

impl Shared {
    /// Lets the device have its time, and tells the library what comes of it. True if there was anything to tell. Not
    /// under any lock; not in a signalling section.
    pub(crate) fn service(&self) -> bool {
        let mut any = false;
        let mut told = None;
        loop {
            let next = {
                let mut machine = self.lock();
                if let Some((queue, flying)) = told.take() {
                    machine.give_back(queue, &flying);
                }
                if machine.outbox.is_empty() && !machine.is_quiet() {
                    machine.collect();
                }
                machine.outbox.pop_front()
            };
            let Some(delivery) = next else { return any };
            any = true;
            told = delivery.tell();
        }
    }

    /// Says one thing. Not under any lock.
    pub(crate) fn deliver(&self, delivery: Delivery) {
        if let Some((queue, flying)) = delivery.tell() {
            self.lock().give_back(queue, &flying);
        }
    }
}

impl Delivery {
    /// Tells the library. What it returns is to be given back after that.
    fn tell(self) -> Option<(QueueId, Flying)> {
        match self {
            Self::Ended { queue, seqno, flying, in_flight, result, times } => {
                in_flight.complete_timed(seqno.0, result, times);
                return Some((queue, flying));
            }
            Self::Quiesced(token) => token.quiesced(),
            Self::Failed(token) => token.failed(),
        }
        None
    }
}

impl Machine {
    /// Whether [`Machine::collect`] would find nothing to say. What was observed may wait for the next one that does.
    fn is_quiet(&self) -> bool {
        self.all_units().all(|unit| unit.is_quiet(self.now))
    }

    /// Advances the devices to the present and takes everything they say.
    pub(crate) fn collect(&mut self) {
        for number in 0..self.units() {
            self.look_at(number);
            self.collect_from_unit();
        }
        self.drain();
    }

    fn collect_from_unit(&mut self) {
        let now = self.now;
        let Some((gpu, memory)) = self.device() else { return };
        gpu.advance(memory, now);
        while let Some(interrupt) = self.unit.gpu.as_mut().and_then(crate::gpu::Gpu::poll_interrupt) {
            self.interrupted(&interrupt);
        }
        while let Some(report) = self.unit.gpu.as_mut().and_then(crate::gpu::Gpu::poll_reset) {
            self.reset_ended(report);
        }
        self.destroy_doomed_rings();
    }

    /// Lets the device go on up to `limit` as long as nothing comes of it for the library. When it stands, if it moved.
    pub(crate) fn go_silently(&mut self, limit: Time) -> Option<Time> {
        let mut stands = None;
        // Nor past what another device does: it may be what this one reads.
        let limit = self.next_event_elsewhere().map_or(limit, |next| next.min(limit));
        // A ring that waits to be destroyed is looked at after each of the device's steps.
        while self.unit.doomed_rings.is_empty() {
            let (gpu, memory) = self.device()?;
            let Some(next) = gpu.next_event().filter(|next| *next <= limit && *next > gpu.now()) else { break };
            gpu.advance(memory, next);
            stands = Some(next);
        }
        stands
    }

    fn destroy_doomed_rings(&mut self) {
        let doomed = core::mem::take(&mut self.unit.doomed_rings);
        for ring in doomed {
            let Some((gpu, memory)) = self.device() else { return };
            if gpu.destroy_ring(memory, ring) == Err(GpuError::RingBusy) {
                self.unit.doomed_rings.push(ring);
            }
        }
    }

    fn interrupted(&mut self, interrupt: &Interrupt) {
        let Interrupt { queue, hw_seqno, job, result, start, end, active_ns } = *interrupt;
        self.note_end(JobEnd { job, result: Some(result), start, end, active_ns });
        if !self.is_in_flight(queue, hw_seqno, job) {
            return;
        }
        let Some((in_flight, flying, _)) = self.land(queue, hw_seqno) else { return };
        let times = Times { end: Some(outlive_time(end)), active: Some(Duration::from_nanos(active_ns)) };
        let result = verdict(result);
        self.outbox.push_back(Delivery::Ended { queue, seqno: hw_seqno, flying, in_flight, result, times });
    }
}
