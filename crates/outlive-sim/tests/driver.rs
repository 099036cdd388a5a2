//! The library on the simulated device: jobs that go well, and each way in which they do not.

#![expect(clippy::unwrap_used, clippy::std_instead_of_core, reason = "tests")]

use outlive::{Dependency, FenceError, OnError, Status, Time};
use outlive_sim::driver::{
    CODE_EXECUTION, CODE_PAGE_FAULT, ClientConfig, HostConfig, JobSpec, SLOT_BYTES, SimClient, SimHost, Submitted, Work,
};
use outlive_sim::gpu::{Config, DeviceFaults, FaultKind};
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);

fn host(engines: u32) -> SimHost {
    let gpu = Config { engines, memory_bytes: 16 << 20, interrupt_latency_ns: 2_000, ..Config::default() };
    SimHost::new(HostConfig { gpu, keep_history: true, ..HostConfig::default() }).unwrap()
}

fn client(host: &SimHost) -> SimClient {
    SimClient::new(host, "client", ClientConfig::default()).unwrap()
}

fn faulty(fault: FaultKind) -> JobSpec {
    JobSpec { fault: Some(fault), ..JobSpec::new(2 * MS, Work::Fill) }
}

fn result(job: &Submitted) -> Option<Result<(), FenceError>> {
    match job.fences.finished().status() {
        Status::Signaled(result) => Some(result),
        Status::Pending => None,
    }
}

/// Nothing is left of clients that are gone.
fn ends_well(host: SimHost) {
    assert!(host.run_while_waiting(Time::from_ns(u64::MAX / 4), || host.bytes_in_use() == 0), "memory is left");
    let executor = host.executor().clone();
    let audit = host.finish();
    assert!(audit.is_clean(), "{audit:#?}");
    assert_eq!(executor.live_objects(), 0);
}

#[test]
fn jobs_run_and_everything_comes_back() {
    let host = host(2);
    let client = client(&host);
    let works = [Work::Spin, Work::Fill, Work::Copy, Work::Gears { frame: 3, width: 64, height: 32 }];
    let jobs: Vec<Submitted> =
        (0..40).map(|n| client.submit(JobSpec::new((1 + n % 3) * MS, works[n as usize % 4])).unwrap()).collect();
    host.run_for(200 * MS);
    assert!(jobs.iter().all(|job| result(job) == Some(Ok(()))));
    let picture = jobs[3].output.read();
    assert!(picture.chunks_exact(4).take(64 * 32).all(|pixel| pixel[3] == 255), "a frame, opaque");
    assert_eq!(jobs[3].fences.finished().timestamp(), jobs[3].fences.retired().timestamp());
    let (ends, stretches) = (host.take_ends(), host.take_stretches());
    assert_eq!(ends.len(), 40);
    let busy: u64 = stretches.iter().map(|stretch| stretch.to.since_ns(stretch.from)).sum();
    assert_eq!(busy, ends.iter().map(|end| end.active_ns).sum::<u64>());
    assert_eq!(busy, host.busy_ns());
    drop((jobs, client));
    ends_well(host);
}

#[test]
fn jobs_in_order_share_a_buffer_and_the_pages_of_their_commands() {
    let host = host(1);
    let client = client(&host);
    let data = client.buffer(64 << 10).unwrap();
    let commands = client.buffer(40 * SLOT_BYTES).unwrap();
    let spec =
        |slot| JobSpec { into: Some(data.clone()), commands: Some((commands.clone(), slot)), ..JobSpec::spin(MS) };
    let mut jobs: Vec<Submitted> = Vec::new();
    for slot in 0..40 {
        let after = jobs.last().map(|before| Dependency::on(before.fences.finished())).into_iter().collect();
        jobs.push(client.submit(JobSpec { after, ..spec(slot) }).unwrap());
    }
    let slots = u32::try_from(commands.bytes() / SLOT_BYTES).unwrap();
    assert!(client.submit(spec(slots)).is_err(), "the buffer has no such slot");
    assert!(client.submit(JobSpec { work: Work::Fill, ..spec(0) }).is_err(), "only what fits");
    let taken = host.bytes_in_use();
    drop((data, commands));
    host.run_for(39 * MS);
    assert_eq!(host.bytes_in_use(), taken, "jobs that have not retired hold it");
    host.run_for(2 * MS);
    assert!(jobs.iter().all(|job| result(job) == Some(Ok(()))));
    drop((jobs, client));
    ends_well(host);
}

#[test]
fn each_fault_ends_as_it_should() {
    let host = host(1);
    let client = client(&host);
    let jobs = [FaultKind::PageFault, FaultKind::Error, FaultKind::LostCompletion, FaultKind::Hang]
        .map(|fault| client.submit(faulty(fault)).unwrap());
    let innocent = client.submit(JobSpec::spin(MS)).unwrap();
    host.run_for(5_000 * MS);
    let seen = jobs.each_ref().map(|job| result(job).unwrap());
    let fault = |code| Err(FenceError::Faulted { code });
    assert_eq!(seen, [fault(CODE_PAGE_FAULT), fault(CODE_EXECUTION), Ok(()), Err(FenceError::TimedOut)]);
    assert_eq!(result(&innocent), Some(Err(FenceError::Innocent)), "it was in the ring of the reset");
    assert_eq!(host.resets(), 1);
    drop((jobs, innocent, client));
    ends_well(host);
}

#[test]
fn a_killed_client_leaves_nothing_and_costs_the_other_little() {
    let host = host(1);
    let (dying, fine) = (client(&host), client(&host));
    let jobs: Vec<Submitted> = (0..8).map(|_| dying.submit(faulty(FaultKind::Hang)).unwrap()).collect();
    let others: Vec<Submitted> = (0..8).map(|_| fine.submit(JobSpec::spin(MS)).unwrap()).collect();
    host.run_for(3 * MS);
    dying.kill();
    host.run_for(10_000 * MS);
    assert!(jobs.iter().all(|job| result(job) == Some(Err(FenceError::Canceled))));
    assert!(others.iter().all(|job| result(job) == Some(Ok(()))));
    drop((jobs, others, fine));
    ends_well(host);
}

#[test]
fn a_dependant_reads_what_the_other_wrote() {
    let host = host(2);
    let (writer, reader) = (client(&host), client(&host));
    for fault in [None, Some(FaultKind::Error), Some(FaultKind::Hang)] {
        let first = writer.submit(JobSpec { fault, shared: true, ..JobSpec::new(5 * MS, Work::Copy) }).unwrap();
        let after = vec![Dependency::on(first.fences.finished()).on_error(OnError::Run)];
        let second = reader.submit(JobSpec { after, reads: vec![first.output.clone()], ..JobSpec::spin(MS) }).unwrap();
        drop(first);
        host.run_for(3_000 * MS);
        assert_eq!(result(&second), Some(Ok(())));
    }
    drop((writer, reader));
    ends_well(host);
}

#[test]
fn resets_that_fail_and_unplugging_lose_the_device_and_no_memory() {
    for failing in [0, 1, 2] {
        let host = host(2);
        let clients = [client(&host), client(&host)];
        let all = u32::MAX;
        let (ring_resets_failing, device_resets_failing) = if failing == 2 { (all, all) } else { (failing, 0) };
        host.set_faults(DeviceFaults { late_writes_ns: 50_000_000, ring_resets_failing, device_resets_failing });
        let jobs: Vec<Submitted> = (0..6)
            .map(|n| clients[n % 2].submit(if n < 2 { faulty(FaultKind::Hang) } else { JobSpec::spin(MS) }).unwrap())
            .collect();
        host.run_for(10_000 * MS);
        let lost = host.device().unwrap().is_lost();
        assert_eq!(lost, failing == 2);
        if !lost {
            host.unplug();
            host.run_for(MS);
            assert!(host.device().unwrap().is_lost());
        }
        assert!(jobs.iter().all(|job| job.fences.retired().status() == Status::Signaled(Ok(()))));
        drop((jobs, clients));
        ends_well(host);
    }
}

#[test]
fn small_memory_refuses_and_later_serves() {
    let gpu = Config { memory_bytes: 512 << 10, ..Config::default() };
    let host = SimHost::new(HostConfig { gpu, ..HostConfig::default() }).unwrap();
    let client = client(&host);
    let mut jobs = 0;
    while client.submit(JobSpec::new(MS, Work::Copy)).is_ok() {
        jobs += 1;
    }
    assert!((4..14).contains(&jobs), "{jobs}");
    host.run_for(50 * MS);
    assert!(client.submit(JobSpec::new(MS, Work::Copy)).is_ok());
    drop(client);
    ends_well(host);
}

#[test]
fn a_late_interrupt_of_a_ring_that_is_gone_means_no_job_of_the_next() {
    let gpu = Config { memory_bytes: 16 << 20, interrupt_latency_ns: 50_000_000, ..Config::default() };
    let host = SimHost::new(HostConfig { gpu, ..HostConfig::default() }).unwrap();
    let first = client(&host);
    let job = first.submit(JobSpec { timeout: Some(5 * MS), ..JobSpec::spin(MS) }).unwrap();
    host.run_for(6 * MS);
    assert_eq!(result(&job), Some(Ok(())), "looked up when its time was over");
    let ring = first.hw();
    first.kill();
    host.run_for(MS);
    let second = client(&host);
    assert_eq!(second.hw(), ring);
    let other = second.submit(JobSpec::spin(100 * MS)).unwrap();
    host.run_for(90 * MS);
    assert_eq!(result(&other), None, "it runs until 107 ms; the interrupt of the first job came at 51");
    host.run_for(100 * MS);
    assert_eq!(result(&other), Some(Ok(())));
    drop((job, other, second));
    ends_well(host);
}

#[test]
fn a_device_pulled_out_while_a_ring_is_reset_goes_all_the_same() {
    let gpu = Config { ring_reset_ns: 50_000_000, ..Config::default() };
    let host = SimHost::new(HostConfig { gpu, ..HostConfig::default() }).unwrap();
    let client = client(&host);
    let job = client.submit(JobSpec { timeout: Some(5 * MS), ..faulty(FaultKind::Hang) }).unwrap();
    let device = host.device().unwrap();
    assert!(host.run_while_waiting(Time::from_ns(1_000_000_000), || device.resets() == 1));
    assert_eq!(host.resets(), 0, "it is under way");
    // Nobody is told: the reset's watchdog finds out.
    device.driver().pull_out();
    host.run_for(5_000 * MS);
    assert_eq!(result(&job), Some(Err(FenceError::TimedOut)));
    drop((job, client));
    ends_well(host);
}
