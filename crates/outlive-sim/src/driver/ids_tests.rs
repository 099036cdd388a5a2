//! Leased address space numbers: right memory for everybody, and the audit for each way to get it wrong.

use super::*;
use core::time::Duration;
use outlive::sched::{Arbiter, ArbiterConfig};
use outlive::{Acquired, FenceError, QueueConfig, Status, Time};

use crate::driver::{ClientConfig, HostConfig, JobSpec, SimClient, SimHost, Submitted, Work};
use crate::gpu::Config;

const MS: Duration = Duration::from_millis(1);

fn host(engines: u32, vm_ids: u32) -> SimHost {
    let gpu = Config { engines, vm_ids, slice_ns: 0, memory_bytes: 16 << 20, ..Config::default() };
    SimHost::new(HostConfig { gpu, lease_vm_ids: 16, ..HostConfig::default() }).unwrap()
}

fn client(host: &SimHost, arbiter: Option<&Arbiter>) -> SimClient {
    let mut queue = QueueConfig::new("ring");
    if let Some(arbiter) = arbiter {
        queue = queue.arbiter(arbiter);
    }
    SimClient::new(host, "client", ClientConfig { queue, ..ClientConfig::default() }).unwrap()
}

fn all_end(host: &SimHost) {
    assert!(host.run_while_waiting(Time::from_ns(u64::MAX / 4), || host.bytes_in_use() == 0), "memory is left");
}

/// The audit of a machine with nothing left on it.
fn audit(host: SimHost) -> Audit {
    all_end(&host);
    host.finish()
}

fn is_well(job: &Submitted) -> bool {
    job.fences.finished().status() == Status::Signaled(Ok(()))
}

#[test]
fn more_clients_than_numbers_each_work_on_their_own_memory() {
    for arbitrated in [false, true] {
        let host = host(3, 2);
        let arbiter = Arbiter::new(host.executor(), ArbiterConfig::new(8).engines(3)).unwrap();
        let clients: Vec<SimClient> = (0..5).map(|_| client(&host, Some(&arbiter).filter(|_| arbitrated))).collect();
        let mut jobs = Vec::new();
        for round in 0..4 {
            for client in &clients {
                jobs.push(client.submit(JobSpec::new((1 + round % 3) * MS, Work::Fill)).unwrap());
            }
        }
        host.run_for(200 * MS);
        for job in &jobs {
            assert!(is_well(job));
            // What a job fills its buffer with is made of its name.
            let word = u32::from_le_bytes(job.output.read()[..4].try_into().unwrap());
            assert_eq!(u64::from(word), job.id.0 | 1);
        }
        drop((jobs, clients, arbiter));
        let audit = audit(host);
        assert!(audit.is_clean(), "{audit:#?}");
    }
}

#[test]
fn who_holds_a_number_without_end_gives_it_back_within_one_job() {
    let host = host(4, 2);
    let greedy = [client(&host, None), client(&host, None)];
    let late = client(&host, None);
    let mut open: [Vec<Submitted>; 2] = [Vec::new(), Vec::new()];
    // Two on the hardware each, half a job apart: its number never comes back by itself.
    let mut go_on = |steps: u32| {
        for step in 0..steps {
            let whose = usize::from(step % 2 == 1);
            open[whose].push(greedy[whose].submit(JobSpec::spin(4 * MS)).unwrap());
            host.run_for(MS);
        }
    };
    go_on(20);
    let job = late.submit(JobSpec::spin(MS)).unwrap();
    assert!(!job.fences.scheduled().is_signaled());
    go_on(4);
    assert!(job.fences.scheduled().is_signaled(), "4 ms is the longest job");
    go_on(20);
    assert!(is_well(&job));
    host.run_for(20 * MS);
    assert!(open.iter().flatten().all(is_well), "and who stood in line goes on");
    drop((job, open, greedy, late));
    let audit = audit(host);
    assert!(audit.is_clean(), "{audit:#?}");
}

#[test]
fn a_client_killed_while_it_holds_or_waits_gives_its_number_back() {
    let host = host(2, 1);
    let (holds, waits, last) = (client(&host, None), client(&host, None), client(&host, None));
    let held = holds.submit(JobSpec::spin(50 * MS)).unwrap();
    let in_line = waits.submit(JobSpec::spin(MS)).unwrap();
    let job = last.submit(JobSpec::spin(MS)).unwrap();
    host.run_for(MS);
    waits.kill();
    holds.kill();
    host.run_for(3_000 * MS);
    assert_eq!(in_line.fences.finished().status(), Status::Signaled(Err(FenceError::Canceled)));
    assert!(is_well(&job));
    drop((held, in_line, job, last));
    let audit = audit(host);
    assert!(audit.is_clean(), "{audit:#?}");
}

#[test]
fn a_number_that_means_other_memory_is_seen() {
    let host = host(2, 2);
    let [one, other] = [client(&host, None), client(&host, None)];
    let first = one.submit(JobSpec::new(4 * MS, Work::Fill)).unwrap();
    let second = other.submit(JobSpec::new(4 * MS, Work::Fill)).unwrap();
    host.run_for(MS / 2);
    {
        // The first has slot 0. Whoever gives its number to another space has its job go on there.
        let mut machine = host.shared.lock();
        let unit = &mut machine.unit;
        let (gpu, tables) = (unit.gpu.as_mut().unwrap(), unit.spaces.tables(VmId(2)).unwrap());
        gpu.bind_vm(number_of(0), tables).unwrap();
    }
    host.run_for(20 * MS);
    drop((first, second, one, other));
    let audit = audit(host);
    assert!(audit.conflicting_accesses > 0 || audit.unexpected_page_faults > 0, "{audit:#?}");
}

#[test]
fn the_pool_and_the_hardware_each_tell_of_what_is_not_back() {
    let by_pool = host(1, 3);
    let lease = by_pool.device().unwrap().driver().lease(by_pool.executor()).unwrap().unwrap();
    let mut ticket = lease.ticket().unwrap();
    assert!(matches!(ticket.acquire(), Acquired::Yes));
    let found = by_pool.finish();
    assert_eq!(found.leases_leaked, 1);
    assert!(found.violations[0].contains("of 3 address space numbers, 1 did not come back to the pool and 0"));
    drop((ticket, lease));

    let by_hardware = host(1, 3);
    let one = client(&by_hardware, None);
    let tables = VmId(1);
    by_hardware.shared.lock().bind_id(2, tables, JobId(7));
    let other = client(&by_hardware, None);
    by_hardware.shared.lock().bind_id(2, VmId(2), JobId(8));
    drop((one, other));
    let found = audit(by_hardware);
    assert_eq!(found.leases_leaked, 2, "one bound twice, and not unbound");
    assert!(found.violations.iter().any(|words| words.contains("job 8 has the number of address space 1 as well")));
    assert!(
        found.violations.iter().any(|words| words.contains("0 did not come back to the pool and 1 are still bound"))
    );
}

#[test]
fn numbers_that_cannot_be_leased_are_refused() {
    let with = |vm_ids| {
        let gpu = Config { vm_ids, ..Config::default() };
        SimHost::new(HostConfig { gpu, lease_vm_ids: 1, ..HostConfig::default() })
    };
    assert!(with(0).is_err() && with(65).is_err());
    let host = with(64).unwrap();
    let first = client(&host, None);
    assert!(SimClient::new(&host, "second", ClientConfig::default()).is_err(), "room for one queue");
    drop(first);
}
