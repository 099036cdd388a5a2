//! A device that writes on for 50 ms after its driver gave a job up, or dropped its completion, meets no page that somebody
//! else has: other clients take and give back memory all the while. With the defect that releases payloads early it does.

#![expect(clippy::unwrap_used, clippy::std_instead_of_core, reason = "tests")]

use outlive::sabotage::{Sabotage, commit};
use outlive_sim::driver::{
    ClientConfig, HostClock, HostConfig, JobSpec, SimClient, SimHost, SimQueue, Submitted, Work,
};
use outlive_sim::gpu::{Audit, Config, DeviceFaults, JobId, Observation};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);
/// The switches are the process's.
static ONE: Mutex<()> = Mutex::new(());

/// How a job is given up with the device still at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    /// Its driver drops the completion; the library finds it by its timeout, and cancels it.
    DroppedCompletion,
    /// Its time is over, and it is cancelled.
    TimedOut,
    /// Its queue's handle is dropped, and its drain time is over.
    Killed,
}

const ALL: [How; 3] = [How::DroppedCompletion, How::TimedOut, How::Killed];

fn host(clock: HostClock) -> SimHost {
    // Memory for some forty jobs: a page given back is soon somebody else's, before the device touches it again. It does not
    // rotate: a job that is cancelled while it is off its engine is gone at once.
    let (memory_bytes, tick_ns, slice_ns) = (1 << 20, 5_000_000, 0);
    let gpu = Config { engines: 2, memory_bytes, tick_ns, slice_ns, ..Config::default() };
    let host = SimHost::new(HostConfig { gpu, clock, keep_log: true, ..HostConfig::default() }).unwrap();
    host.set_faults(DeviceFaults { late_writes_ns: DeviceFaults::LATE_WRITES_NS, ..DeviceFaults::default() });
    host
}

fn client(host: &SimHost, timeout: Duration) -> SimClient {
    let queue = outlive::QueueConfig::new("ring").drain_timeout(3 * MS);
    SimClient::new(host, "client", ClientConfig { timeout, queue, ..ClientConfig::default() }).unwrap()
}

/// Takes whatever memory there is, for jobs that write to it, for so long; then waits for them. One of those who do so is
/// `neighbour`, in the victim's address space.
fn others(host: &SimHost, neighbour: &SimQueue, long: Duration) {
    let clients = [client(host, 500 * MS), client(host, 500 * MS)];
    let queues: [&SimQueue; 3] = [&clients[0], &clients[1], neighbour];
    let mut jobs: Vec<Submitted> = Vec::new();
    let mut count = 0;
    let until = host.now().after(long);
    while host.now() < until {
        for queue in queues {
            if let Ok(job) = queue.submit(JobSpec::new(MS / 5, Work::Fill)) {
                jobs.push(job);
                count += 1;
            }
        }
        host.run_for(MS);
        jobs.retain(|job| !job.fences.retired().is_signaled());
    }
    let limit = host.now().after(20_000 * MS);
    assert!(host.run_while_waiting(limit, || jobs.iter().all(|job| job.fences.retired().is_signaled())));
    let least = if host.clock() == HostClock::Virtual { 100 } else { 1 };
    assert!(count >= least, "only {count} jobs of others in {long:?}");
}

/// When the hardware could no longer touch what a job named.
fn stopped(host: &SimHost, id: JobId) -> u64 {
    let log = host.take_log();
    let stopped = log.iter().find(|seen| matches!(seen.what, Observation::Stopped { job, .. } if job == id));
    stopped.map_or(0, |seen| seen.at.as_ns())
}

/// What the audit says, and for how long after its verdict the job was still writing.
fn story(how: How, clock: HostClock) -> (Audit, Duration) {
    let host = host(clock);
    // Long enough that the completion is dropped before.
    let timeout = if how == How::DroppedCompletion { 100 * MS } else { 5 * MS };
    let victim = client(&host, timeout);
    let neighbour = victim.another_queue(ClientConfig::default()).unwrap();
    // It would go on for long: however late somebody looks, it has not ended by itself.
    let job = victim.submit(JobSpec::new(5_000 * MS, Work::Fill)).unwrap();
    let (id, finished, retired) = (job.id, job.fences.finished(), job.fences.retired());
    assert!(host.run_while_waiting(host.now().after(1000 * MS), || job.fences.scheduled().is_signaled()));
    drop(job);
    if how == How::DroppedCompletion {
        assert!(victim.drop_completion(id) && finished.is_signaled());
        assert!(!victim.drop_completion(id));
    }
    let victim = (how != How::Killed).then_some(victim);
    others(&host, &neighbour, timeout + 100 * MS);
    assert!(host.run_while_waiting(host.now().after(20_000 * MS), || retired.is_signaled()));
    drop((victim, neighbour));
    let over = finished.timestamp().unwrap();
    let on = stopped(&host, id).saturating_sub(over.as_ns());
    (host.finish(), Duration::from_nanos(on))
}

#[test]
fn late_writes_meet_no_reused_page() {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    commit(None);
    for clock in [HostClock::Virtual, HostClock::Real] {
        for how in ALL {
            let (audit, on) = story(how, clock);
            assert!(on >= 49 * MS, "{how:?}, {clock:?}: it wrote for {on:?} only after its verdict");
            assert!(audit.is_clean(), "{how:?}, {clock:?}: {audit:#?}");
        }
    }
}

#[test]
fn released_early_they_do() {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    commit(Some(Sabotage::ReleaseAtFinished));
    let audits = [HostClock::Virtual, HostClock::Real].map(|clock| ALL.map(|how| (how, clock, story(how, clock).0)));
    commit(None);
    let conflicts: u64 = audits.iter().flatten().map(|(_, _, audit)| audit.conflicting_accesses).sum();
    assert!(conflicts > 0, "no page that it wrote to was another's");
    for (how, clock, audit) in audits.into_iter().flatten() {
        assert!(audit.released_while_hardware_busy > 0, "{how:?}, {clock:?}: {audit:#?}");
        // Its pages may be gone from its address space, so that it faults, before another has them there.
        let met = audit.conflicting_accesses + audit.unexpected_page_faults;
        assert!(met > 0, "{how:?}, {clock:?}: {audit:#?}");
    }
}
