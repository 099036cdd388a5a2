//! A whole driver over a fake device. Run it with `cargo run --release -p outlive --example first_driver`.
#![expect(clippy::disallowed_methods, clippy::std_instead_of_core, clippy::std_instead_of_alloc, reason = "on std")]

use outlive::{Completion, Driver, FenceError, InFlight, Job, JobCx, JobQueue, Status};
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// The fake device, 30 lines: it fills memory with a byte, slowly, and interrupts when it is done.
struct Hardware {
    doorbell: SyncSender<(u64, Weak<Memory>, u8)>,
}
type Memory = [AtomicU8; 4096];

impl Hardware {
    fn power_on(interrupt: impl Fn(u64) + Send + 'static) -> Self {
        let (doorbell, commands) = sync_channel::<(u64, Weak<Memory>, u8)>(64);
        std::thread::spawn(move || {
            for (seqno, address, byte) in commands {
                for at in 0..4096 {
                    // Like real hardware it holds no reference: memory freed too early is a fault.
                    let Some(memory) = address.upgrade() else { std::process::abort() };
                    memory[at].store(byte, Relaxed);
                }
                interrupt(seqno);
            }
        });
        Self { doorbell }
    }
}

/// A job's payload: what must stay as it is until the hardware is done with it.
struct Fill {
    memory: Arc<Memory>,
    byte: u8,
}

/// The driver. `InFlight` finds the completion that belongs to a number the hardware reports.
struct FakeGpu {
    hardware: Hardware,
    in_flight: Arc<InFlight>,
}

/// What the driver keeps per queue.
#[derive(Default)]
struct Ring {
    last_seqno: u64,
}

impl Driver for FakeGpu {
    type Job = Fill;
    type Queue = Ring;

    fn run(&self, cx: &mut JobCx<'_, Self>, done: Completion) {
        cx.queue.last_seqno += 1;
        let seqno = cx.queue.last_seqno;
        if let Err(full) = self.in_flight.insert(seqno, done) {
            return full.completion.not_started(FenceError::Faulted { code: 1 });
        }
        let command = (seqno, Arc::downgrade(&cx.job.memory), cx.job.byte);
        if self.hardware.doorbell.try_send(command).is_err() {
            if let Some(done) = self.in_flight.remove(seqno) {
                done.not_started(FenceError::DeviceLost);
            }
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let in_flight = Arc::new(InFlight::with_capacity(64)?);
    let interrupts = in_flight.clone();
    let hardware = Hardware::power_on(move |seqno| {
        interrupts.complete(seqno, Ok(()));
    });
    let queue = JobQueue::new(FakeGpu { hardware, in_flight })?;

    // Reserve: everything is allocated, and may fail. Commit: published, and cannot.
    let memory = Arc::new([const { AtomicU8::new(0) }; 4096]);
    let first = queue.reserve(Fill { memory: memory.clone(), byte: 1 })?.commit();
    let second = queue.reserve_after(Fill { memory: memory.clone(), byte: 2 }, [first.finished()])?.commit();
    second.finished().wait(Duration::from_secs(1))?;
    println!("the second job ran after the first: memory is {}", memory[4095].load(Relaxed));

    // Forget about the memory and the queue, with jobs waiting and one on the hardware.
    let jobs: Vec<_> = (0..20)
        .map(|byte| queue.reserve(Job::new(Fill { memory: memory.clone(), byte }).credits(32)).map(|job| job.commit()))
        .collect::<Result<_, _>>()?;
    drop((memory, queue));
    let canceled = jobs.iter().filter(|job| job.finished().wait(Duration::from_secs(1)).is_err()).count();
    for job in &jobs {
        job.retired().wait(Duration::from_secs(1))?;
    }
    let status = jobs[19].finished().status();
    println!("queue dropped: {canceled} of 20 jobs canceled, the hardware faulted on none; the last says {status:?}");
    assert_eq!(status, Status::Signaled(Err(FenceError::Canceled)));
    Ok(())
}

#[test]
fn runs() -> Result<(), Box<dyn std::error::Error>> {
    main()
}
