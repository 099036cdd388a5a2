//! Several buffers, several threads, one submission at a time: a transaction locks what a job touches, in any order, waits for
//! what is there, and leaves the job's fence behind. The kernel's `dma_resv` and `drm_exec`.
//! Run it with `cargo run --release -p outlive --example reservations`.
#![expect(clippy::disallowed_methods, clippy::std_instead_of_core, reason = "on std")]

use outlive::resv::{Reservation, Slot, Transaction, Usage};
use outlive::{Completion, Device, Driver, Executor, JobCx, JobFences, JobQueue, QueueConfig};
use std::error::Error;
use std::sync::Mutex;
use std::thread;

/// A GPU that is done when we say so.
#[derive(Default)]
struct Gpu {
    running: Mutex<Vec<(&'static str, Completion)>>,
}

impl Driver for Gpu {
    type Job = &'static str;
    type Queue = ();

    fn run(&self, cx: &mut JobCx<'_, Self>, done: Completion) {
        if let Ok(mut running) = self.running.lock() {
            running.push((*cx.job, done));
        } // A completion that is dropped fails its job: nothing can be forgotten.
    }
}

impl Gpu {
    fn work(&self, executor: &Executor) {
        let running = self.running.lock().map(|mut running| std::mem::take(&mut *running)).unwrap_or_default();
        for (name, done) in running {
            println!("    the GPU ends `{name}`");
            done.complete(Ok(()));
        }
        executor.run_until_idle();
    }
}

/// Submits a job that reads one buffer and writes another, after whatever is still to happen to them.
fn submit(
    queue: &JobQueue<Gpu>,
    job: &'static str,
    reads: &Reservation,
    writes: &Reservation,
) -> Result<JobFences, Box<dyn Error>> {
    Transaction::new().run::<(Slot<'_>, Slot<'_>), _>(
        // Lock, and make room for a fence. May run again: if somebody older has one of them, this gives way and retries.
        |attempt| Ok((attempt.prepare(reads)?, attempt.prepare(writes)?)),
        // Everything is locked; runs once. A reader waits for writers, a writer for everybody.
        |sealed, (read, written)| {
            let after = sealed.fences(read.locked(), Usage::for_access(false));
            let after = after.chain(sealed.fences(written.locked(), Usage::for_access(true)));
            let after: Vec<_> = after.map(|(_, retired)| retired.into_fence()).collect();
            println!("`{job}` has to wait for {} fences", after.len());
            let fences = queue.reserve_after(job, after)?.commit();
            sealed.add(read, Usage::Read, &fences.retired()); // cannot fail: the slots are there
            sealed.add(written, Usage::Write, &fences.retired());
            Ok(fences)
        },
    )?
}

fn main() -> Result<(), Box<dyn Error>> {
    let executor = Executor::manual()?;
    let device = Device::new(&executor, Gpu::default())?;
    let queue = device.queue(QueueConfig::new("3d"), ())?;
    let (texture, frame, screen) = (Reservation::new()?, Reservation::new()?, Reservation::new()?);

    let draw = submit(&queue, "draw", &texture, &frame)?;
    let show = submit(&queue, "show", &frame, &screen)?;
    assert!(draw.scheduled().is_signaled() && !show.scheduled().is_signaled(), "`show` waits for `draw`");
    println!("may the texture be read: {}", texture.is_idle(Usage::for_access(false))?);
    println!("may its memory be reused: {}", texture.is_idle(Usage::for_access(true))?);
    device.driver().work(&executor);
    println!("may its memory be reused now: {}", texture.is_idle(Usage::for_access(true))?);
    assert!(!frame.is_idle(Usage::for_access(true))?, "`show` reads it");
    device.driver().work(&executor);
    assert!(show.finished().is_signaled() && screen.is_idle(Usage::for_access(true))?);

    // Two threads that lock the same two in opposite orders: with plain mutexes a deadlock.
    let (a, b) = (&texture, &frame);
    let locked: usize = thread::scope(|scope| {
        let lock_both = |first, second| move || (0..1000).filter(|_| lock(first, second)).count();
        let threads = [scope.spawn(lock_both(a, b)), scope.spawn(lock_both(b, a))];
        threads.into_iter().map(|thread| thread.join().unwrap_or(0)).sum()
    });
    println!("two threads, opposite orders: both locked {locked} of 2000 times");
    assert_eq!(locked, 2000);
    Ok(())
}

fn lock(first: &Reservation, second: &Reservation) -> bool {
    let both =
        Transaction::new().run::<(), _>(|attempt| attempt.lock(first).and(attempt.lock(second)).map(drop), |_, ()| ());
    both.is_ok()
}

#[test]
fn runs() -> Result<(), Box<dyn Error>> {
    main()
}
