//! Two clients on one device, one with long jobs and one with short ones, neither ever idle. What each gets depends on the
//! arbiter's policy. In virtual time, so ten seconds take none and are the same each time.
//! Run it with `cargo run --release -p outlive --example two_clients_fair`.
#![expect(clippy::std_instead_of_core, clippy::std_instead_of_alloc, reason = "on std")]

use outlive::sched::{Arbiter, ArbiterConfig, Fair, Fifo, Policy, RoundRobin};
use outlive::{Completion, Device, Driver, Executor, JobCx, JobQueue, QueueConfig, Usage};
use std::collections::VecDeque;
use std::error::Error;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);
const RUN_MS: u32 = 10_000;

/// A device that works on one job at a time. A job is as many milliseconds of work.
#[derive(Default)]
struct Gpu {
    jobs: Mutex<VecDeque<(u32, Completion)>>,
}

impl Driver for Gpu {
    type Job = u32;
    type Queue = ();

    fn run(&self, cx: &mut JobCx<'_, Self>, done: Completion) {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).push_back((*cx.job, done));
    }
}

impl Gpu {
    /// A millisecond has passed.
    fn tick(&self) {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((left, _)) = jobs.front_mut() else { return };
        *left -= 1;
        let done = if *left == 0 { jobs.pop_front() } else { None };
        drop(jobs); // completing may start the next job
        if let Some((_, done)) = done {
            done.complete(Ok(()));
        }
    }
}

/// Always has `depth` jobs of `length` ms outstanding.
struct Client {
    queue: JobQueue<Gpu>,
    length: u32,
    depth: u32,
}

impl Client {
    fn tick(&self) -> Result<(), Box<dyn Error>> {
        while self.queue.status().unfinished < self.depth {
            self.queue.reserve(self.length)?.commit();
        }
        Ok(())
    }
}

/// Ten seconds of it, and what each has used.
fn run(policy: impl Policy) -> Result<[Usage; 2], Box<dyn Error>> {
    let executor = Executor::manual()?;
    let device = Device::new(&executor, Gpu::default())?;
    // One credit: one job at a time is on the hardware, and the arbiter chooses each. More would hide the way through the CPU.
    let arbiter = Arbiter::with_policy(&executor, ArbiterConfig::new(1), policy)?;
    let client = |name, length, depth| -> Result<Client, Box<dyn Error>> {
        let queue = device.queue(QueueConfig::new(name).arbiter(&arbiter), ())?;
        Ok(Client { queue, length, depth })
    };
    let clients = [client("batch", 8, 8)?, client("desktop", 2, 2)?];
    for _ in 0..RUN_MS {
        for client in &clients {
            client.tick()?;
        }
        executor.run_until_idle();
        executor.advance_to(executor.now().after(MS));
        device.driver().tick();
    }
    Ok(clients.map(|client| client.queue.usage()))
}

/// How long the desktop's jobs waited, on average.
fn row(policy: &str, [batch, desktop]: [Usage; 2]) -> Duration {
    let share = |used: &Usage| used.active().as_secs_f64() * 100_000.0 / f64::from(RUN_MS);
    let waited = desktop.waited() / u32::try_from(desktop.ended()).unwrap_or(u32::MAX);
    println!("{policy:<12}  {:>5.1} %  {:>7.1} %  {waited:>14.1?}", share(&batch), share(&desktop));
    waited
}

fn main() -> Result<(), Box<dyn Error>> {
    println!("batch: eight jobs of 8 ms outstanding; desktop: two of 2 ms\n");
    println!("policy          batch    desktop  desktop's wait");
    let fair = row("fair", run(Fair::new(1))?);
    row("round robin", run(RoundRobin::default())?);
    let fifo = row("fifo", run(Fifo::default())?);
    assert!(fair * 4 < fifo, "who wants little does not wait behind who wants all");
    Ok(())
}

#[test]
fn runs() -> Result<(), Box<dyn Error>> {
    main()
}
