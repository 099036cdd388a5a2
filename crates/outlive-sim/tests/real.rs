//! The library on the simulated device in real time: hardware, interrupts and lanes on threads, clients on theirs.

#![expect(clippy::unwrap_used, clippy::std_instead_of_core, reason = "tests")]

use outlive::{Dependency, FenceError, OnError, Status};
use outlive_sim::driver::{
    ClientConfig, HostClock, HostConfig, JobSpec, SimClient, SimHost, SimQueue, Submitted, Work,
};
use outlive_sim::gpu::{Config, DeviceFaults, FaultKind};
use std::thread;
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);
const LONG: Duration = Duration::from_secs(20);

fn host(engines: u32) -> SimHost {
    let gpu = Config { engines, memory_bytes: 16 << 20, interrupt_latency_ns: 2_000, ..Config::default() };
    SimHost::new(HostConfig { gpu, clock: HostClock::Real, keep_history: true, ..HostConfig::default() }).unwrap()
}

fn client(host: &SimHost) -> SimClient {
    SimClient::new(host, "client", ClientConfig::default()).unwrap()
}

fn faulty(fault: FaultKind, timeout: Duration) -> JobSpec {
    JobSpec { fault: Some(fault), timeout: Some(timeout), ..JobSpec::new(2 * MS, Work::Fill) }
}

/// Its verdict, once its memory is free.
fn result(job: &Submitted) -> Result<(), FenceError> {
    job.fences.retired().wait(LONG).unwrap();
    match job.fences.finished().status() {
        Status::Signaled(result) => result,
        Status::Pending => panic!("retired and not finished"),
    }
}

fn ends_well(host: SimHost) {
    let executor = host.executor().clone();
    let audit = host.finish();
    assert!(audit.is_clean(), "{audit:#?}");
    assert_eq!(executor.live_objects(), 0);
}

#[test]
fn everything_may_be_used_from_several_threads() {
    fn is_for_threads<T: Send + Sync>() {}
    is_for_threads::<SimHost>();
    is_for_threads::<SimClient>();
    is_for_threads::<SimQueue>();
    is_for_threads::<Submitted>();
}

#[test]
fn jobs_complete_and_their_times_are_the_hardwares() {
    let host = host(2);
    assert_eq!(host.clock(), HostClock::Real);
    let client = client(&host);
    let works = [Work::Spin, Work::Fill, Work::Copy, Work::Gears { frame: 3, width: 32, height: 16 }];
    let began = host.now();
    let jobs: Vec<Submitted> =
        (0..40).map(|n| client.submit(JobSpec::new((1 + n % 3) * MS, works[n as usize % 4])).unwrap()).collect();
    assert!(jobs.iter().all(|job| result(job) == Ok(())));
    assert!(host.now().since(began) >= 39 * MS, "78 ms of work on two engines");
    assert!(jobs[3].output.read().chunks_exact(4).take(32 * 16).all(|pixel| pixel[3] == 255), "a frame, opaque");
    host.settle();
    let (ends, stretches) = (host.take_ends(), host.take_stretches());
    assert_eq!(ends.len(), 40);
    let busy: u64 = stretches.iter().map(|stretch| stretch.to.since_ns(stretch.from)).sum();
    assert_eq!(busy, ends.iter().map(|end| end.active_ns).sum::<u64>());
    assert_eq!(busy, host.busy_ns());
    assert_eq!(busy, 79_000_000, "a job takes what it was given, however late a thread looks");
    drop((jobs, client));
    ends_well(host);
}

#[test]
fn clients_on_their_own_threads_depend_on_each_other() {
    let host = host(2);
    thread::scope(|threads| {
        let (to_reader, jobs) = std::sync::mpsc::sync_channel::<Submitted>(4);
        let host = &host;
        threads.spawn(move || {
            let writer = client(host);
            for _ in 0..50 {
                to_reader
                    .send(writer.submit(JobSpec { shared: true, ..JobSpec::new(MS / 2, Work::Copy) }).unwrap())
                    .unwrap();
            }
        });
        threads.spawn(move || {
            let reader = client(host);
            for first in jobs {
                // The writer dies at its end with jobs in flight; this one reads what there is all the same.
                let after = vec![Dependency::on(first.fences.finished()).on_error(OnError::Run)];
                let reads = vec![first.output.clone()];
                let second = reader.submit(JobSpec { after, reads, ..JobSpec::spin(MS / 2) }).unwrap();
                drop(first);
                assert_eq!(result(&second), Ok(()));
            }
        });
    });
    ends_well(host);
}

#[test]
fn each_fault_ends_as_it_should() {
    let host = host(1);
    let client = client(&host);
    let jobs = [FaultKind::PageFault, FaultKind::Error, FaultKind::LostCompletion, FaultKind::Hang]
        .map(|fault| client.submit(faulty(fault, 100 * MS)).unwrap());
    let innocent = client.submit(JobSpec::spin(MS)).unwrap();
    let seen = jobs.each_ref().map(result);
    assert!(matches!(seen[0], Err(FenceError::Faulted { code: outlive_sim::driver::CODE_PAGE_FAULT })));
    assert!(matches!(seen[1], Err(FenceError::Faulted { code: outlive_sim::driver::CODE_EXECUTION })));
    assert_eq!(seen[2..], [Ok(()), Err(FenceError::TimedOut)]);
    assert_eq!(result(&innocent), Err(FenceError::Innocent), "it was in the ring of the reset");
    assert_eq!(host.resets(), 1);
    drop((jobs, innocent, client));
    ends_well(host);
}

#[test]
fn a_killed_client_leaves_nothing() {
    let host = host(1);
    let (dying, fine) = (client(&host), client(&host));
    let jobs: Vec<Submitted> = (0..8).map(|_| dying.submit(faulty(FaultKind::Hang, 50 * MS)).unwrap()).collect();
    let others: Vec<Submitted> = (0..8).map(|_| fine.submit(JobSpec::spin(MS)).unwrap()).collect();
    host.run_for(3 * MS);
    dying.kill();
    assert!(jobs.iter().all(|job| result(job) == Err(FenceError::Canceled)));
    assert!(others.iter().all(|job| result(job) == Ok(())));
    drop((jobs, others, fine));
    ends_well(host);
}

#[test]
fn unplugging_and_failed_resets_lose_the_device_and_no_memory() {
    for resets_fail in [false, true] {
        let host = host(2);
        let clients = [client(&host), client(&host)];
        let failing = if resets_fail { u32::MAX } else { 0 };
        host.set_faults(DeviceFaults {
            late_writes_ns: 50_000_000,
            ring_resets_failing: failing,
            device_resets_failing: failing,
        });
        let spec = |n| if n < 2 { faulty(FaultKind::Hang, 20 * MS) } else { JobSpec::spin(MS) };
        let jobs: Vec<Submitted> = (0..6).map(|n| clients[n % 2].submit(spec(n)).unwrap()).collect();
        if !resets_fail {
            host.run_for(5 * MS);
            host.unplug();
        }
        let limit = host.now().after(LONG);
        assert!(host.run_while_waiting(limit, || host.device().unwrap().is_lost()));
        let expected = if resets_fail { FenceError::TimedOut } else { FenceError::DeviceLost };
        assert!(jobs[..2].iter().all(|job| result(job) == Err(expected)));
        assert!(jobs.iter().all(|job| job.fences.retired().wait(LONG) == Ok(())), "no memory in quarantine");
        assert!(SimClient::new(&host, "late", ClientConfig::default()).is_err());
        drop((jobs, clients));
        ends_well(host);
    }
}

#[test]
fn a_reset_of_the_device_costs_what_is_on_it() {
    let host = host(1);
    let client = client(&host);
    let job = client.submit(JobSpec::spin(2_000 * MS)).unwrap();
    job.fences.scheduled().wait(LONG).unwrap();
    host.reset();
    assert_eq!(result(&job), Err(FenceError::Innocent));
    assert_eq!(result(&client.submit(JobSpec::spin(MS)).unwrap()), Ok(()));
    assert_eq!(host.resets(), 1);
    drop((job, client));
    ends_well(host);
}

#[test]
fn a_machine_dropped_unfinished_takes_nobody_with_it() {
    let host = host(1);
    let client = client(&host);
    let job = client.submit(JobSpec::spin(MS)).unwrap();
    assert_eq!(result(&job), Ok(()));
    drop(host);
    drop((job, client));
}
