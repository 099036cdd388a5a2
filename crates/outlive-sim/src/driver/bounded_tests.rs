//! Hang, close, start again, a thousand times on one host: nothing grows.

use core::time::Duration;

use super::{ClientConfig, HostClock, HostConfig, JobSpec, SimClient, SimHost, Work};
use crate::gpu::{Config, FaultKind};

const MS: Duration = Duration::from_millis(1);

/// Entries in every table of the driver, of the device and of the checkers.
fn sizes(host: &SimHost) -> Vec<(&'static str, usize)> {
    let mut machine = host.shared.lock();
    machine.drain();
    let [rings, vms, jobs, firmware_tables] = machine.unit.gpu.as_ref().map_or([0; 4], crate::gpu::Gpu::sizes);
    let [access, fences, objects] = machine.checkers.sizes();
    vec![
        ("device: rings", rings),
        ("device: address spaces", vms),
        ("device: records of jobs", jobs),
        ("device: pages of firmware tables", firmware_tables),
        ("driver: rings", machine.unit.rings.len() + machine.unit.doomed_rings.len()),
        ("driver: address spaces", machine.unit.spaces.size()),
        ("driver: free numbers", machine.unit.free_vms.len()),
        ("driver: resets", machine.unit.tokens.len()),
        ("driver: deliveries", machine.outbox.len()),
        ("driver: history", machine.ends.len() + machine.stretches.len()),
        ("driver: log", machine.log.as_ref().map_or(0, Vec::len)),
        ("driver: owners of pages", machine.memory.owners()),
        ("audit: contexts and jobs", machine.books.size()),
        ("audit: accesses", access),
        ("audit: fences", fences),
        ("audit: objects", objects),
        ("observations", machine.memory.tap().seen().len()),
    ]
}

/// One life of a client, which hangs and goes: politely or not, at once or when its time is over.
fn life(host: &SimHost, round: u32) {
    let config = ClientConfig { credits: 4 + round % 5, timeout: 3 * MS, ..ClientConfig::default() };
    let client = SimClient::new(host, "client", config).unwrap();
    let other = client.another_queue(ClientConfig::default()).unwrap();
    drop(client.submit(JobSpec::new(MS / 4, Work::Fill)).unwrap());
    let hung = client.submit(JobSpec { fault: Some(FaultKind::Hang), ..JobSpec::spin(MS / 4) }).unwrap();
    let reads = vec![hung.output.clone()];
    let after = vec![hung.fences.finished().into()];
    drop(other.submit(JobSpec { reads, after, ..JobSpec::new(MS / 4, Work::Copy) }).unwrap());
    drop(client.submit(JobSpec { fault: Some(FaultKind::LostCompletion), ..JobSpec::spin(MS / 4) }).unwrap());
    host.run_for(MS * (round % 8));
    drop(hung);
    if round.is_multiple_of(2) {
        drop(client.close());
    }
    drop((other, client));
}

fn rounds(host: SimHost, rounds: u32) {
    let executor = host.executor().clone();
    // The device.
    let objects = executor.live_objects();
    let mut bound = Vec::new();
    for round in 0..rounds {
        life(&host, round);
        let limit = host.now().after(20_000 * MS);
        let gone = || host.bytes_in_use() == 0 && executor.live_objects() == objects;
        assert!(host.run_while_waiting(limit, gone), "round {round} left something");
        let now = sizes(&host);
        if round < 80 {
            // Each kind of life has been lived twice.
            bound.resize(now.len(), ("", 0));
            bound = now.iter().zip(bound).map(|(one, before): (_, (_, usize))| (one.0, before.1.max(one.1))).collect();
        } else {
            for (size, bound) in now.iter().zip(&bound) {
                assert!(size.1 <= bound.1, "round {round}: {size:?}, at first at most {}", bound.1);
            }
        }
    }
    assert!(host.resets() >= u64::from(rounds), "{} resets in {rounds} rounds", host.resets());
    let audit = host.finish();
    assert!(audit.is_clean(), "{audit:#?}");
    assert_eq!(executor.live_objects(), 0);
}

fn host(clock: HostClock) -> SimHost {
    let gpu = Config { memory_bytes: 1 << 20, engines: 2, interrupt_latency_ns: 20_000, ..Config::default() };
    let device = outlive::DeviceConfig::new("sim").cancel_grace(MS);
    SimHost::new(HostConfig { gpu, device, clock, ..HostConfig::default() }).unwrap()
}

#[test]
fn a_thousand_rounds_of_hang_close_and_start_again_are_bounded() {
    rounds(host(HostClock::Virtual), 1000);
}

#[test]
fn a_hundred_rounds_in_real_time_are_bounded() {
    rounds(host(HostClock::Real), 100);
}
