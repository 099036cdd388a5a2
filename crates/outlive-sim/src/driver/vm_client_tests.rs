//! Whoever drops a job's payload has neither the turn at its address space nor a reservation locked: one that a submission finds
//! dead, is refused, or does not publish. And what happens in such a destructor is seen.

use alloc::sync::Arc;
use core::time::Duration;
use outlive::resv::{Reservation, Transaction};
use outlive::vm::{Flags, Request, Source};
use outlive::{Refusal, Status};
use std::sync::mpsc::{Receiver, Sender, channel};

use super::super::{
    ClientConfig, HostConfig, JobSpec, SimBo, SimClient, SimDriver, SimHost, SimVm, SubmitError, VM_START,
};
use super::{SimVmError, VmBo};
use crate::gpu::{Config, PAGE_BYTES};

const MS: Duration = Duration::from_millis(1);
const MIB: u64 = 1 << 20;
const PAGE: u64 = PAGE_BYTES as u64;

struct World<V> {
    host: SimHost,
    client: SimClient,
    vm: V,
    bo: SimBo,
    _pair: VmBo<SimDriver>,
    free: Sender<bool>,
    seen: Receiver<bool>,
}

fn map(pair: &VmBo<SimDriver>, at: u64, len: u64) -> Request {
    let source = Source::Bo { bo: pair.id(), offset: 0 };
    Request::Map { va: VM_START + at, len, source, flags: Flags::NONE, data: () }
}

fn parts() -> (SimHost, SimClient) {
    let gpu = Config { engines: 1, memory_bytes: 8 * MIB, ..Config::default() };
    let host = SimHost::new(HostConfig { gpu, ..HostConfig::default() }).unwrap();
    let client = SimClient::new(&host, "client", ClientConfig::default()).unwrap();
    (host, client)
}

/// An address space with a buffer at its start.
fn staged() -> World<Arc<SimVm>> {
    let (host, client) = parts();
    let vm = Arc::new(SimVm::new(&client).unwrap());
    let bo = vm.local(2 * MIB).unwrap();
    let pair = vm.open(&bo).unwrap();
    vm.change(&[map(&pair, 0, 2 * MIB)]).unwrap();
    let (free, seen) = channel();
    World { host, client, vm, bo, _pair: pair, free, seen }
}

/// A job that says, when its payload is dropped, whether the thread could have both.
fn job(free: &Sender<bool>, turn: impl FnOnce() -> bool + Send + 'static, reservation: &Reservation) -> JobSpec {
    let (free, reservation) = (free.clone(), reservation.clone());
    let on_drop = move || {
        let locked = Transaction::new().run::<(), _>(|attempt| attempt.lock(&reservation).map(drop), |_, ()| ());
        free.send(turn() && locked.is_ok()).unwrap();
    };
    JobSpec { on_drop: Some(Box::new(on_drop)), ..JobSpec::spin(MS) }
}

fn staged_job(world: &World<Arc<SimVm>>) -> JobSpec {
    let vm = world.vm.vm().clone();
    job(&world.free, move || vm.edit().is_ok(), world.vm.vm().reservation())
}

/// A job of `client` retires, and its payload is left to whoever comes first.
fn leave_dead(host: &SimHost, client: &SimClient, spec: JobSpec) {
    let executor = host.executor();
    let retired = client.submit(spec).unwrap().fences.retired();
    let all_but_the_reaper = || while host.shared.service() || executor.step() || executor.notify() {};
    all_but_the_reaper();
    while !retired.is_signaled() {
        let next = host.next_event().unwrap();
        host.shared.lock().now = crate::gpu::Time::from_ns(next.as_ns());
        executor.advance_to(next);
        all_but_the_reaper();
    }
}

fn end<V>(world: World<V>) {
    let World { host, client, vm, bo, _pair: pair, .. } = world;
    drop((client, vm, bo, pair));
    host.run_for(100 * MS);
    let audit = host.finish();
    assert!(audit.is_clean(), "{audit:#?}");
}

#[test]
fn what_a_submission_finds_dead_is_dropped_without_turn_and_locks() {
    let world = staged();
    leave_dead(&world.host, &world.client, staged_job(&world));
    assert!(world.seen.try_recv().is_err(), "nobody has dropped it");
    drop(world.vm.submit(&world.client, JobSpec::spin(MS), VM_START, PAGE).unwrap());
    assert_eq!(world.seen.try_recv(), Ok(true));
    end(world);
}

#[test]
fn nor_are_they_held_where_the_address_space_is_changed_by_running_jobs() {
    let (host, client) = parts();
    let vm = SimVm::immediate(&client).unwrap();
    let bo = vm.local(2 * MIB).unwrap();
    let pair = vm.open(&bo).unwrap();
    let bound = vm.bind(&[map(&pair, 0, 2 * MIB)], Vec::new()).unwrap();
    host.run_for(MS);
    assert!(bound.retired().is_signaled());
    let (free, seen) = channel();
    let looked_at = vm.vm().clone();
    leave_dead(&host, &client, job(&free, move || looked_at.look().is_ok(), vm.vm().reservation()));
    drop(vm.submit(&client, JobSpec::spin(MS), VM_START, PAGE).unwrap());
    assert_eq!(seen.try_recv(), Ok(true));
    end(World { host, client, vm, bo, _pair: pair, free, seen });
}

#[test]
fn a_job_that_is_refused_is_dropped_without_turn_and_locks() {
    let world = staged();
    drop(world.client.close());
    match world.vm.submit(&world.client, staged_job(&world), VM_START, PAGE) {
        Err(SimVmError::Submit(SubmitError::Refused(Refusal::Closed))) => {}
        taken => panic!("by a closed queue: {taken:?}"),
    }
    assert_eq!(world.seen.try_recv(), Ok(true));
    end(world);
}

#[test]
fn a_job_without_room_for_what_was_evicted_is_dropped_without_turn_and_locks() {
    let world = staged();
    world.vm.evict(&world.bo).unwrap();
    let mut rest = Vec::new();
    while let Ok(bo) = world.vm.local(MIB) {
        rest.push(bo);
    }
    match world.vm.submit(&world.client, staged_job(&world), VM_START, PAGE) {
        Err(SimVmError::Memory(_)) => {}
        taken => panic!("without memory: {taken:?}"),
    }
    assert_eq!(world.seen.try_recv(), Ok(true));
    drop(rest);
    end(world);
}

/// What is bound in between, in a destructor that the submission runs, the job would not wait for.
#[test]
fn a_bind_in_the_middle_of_a_submission_is_seen() {
    let world = staged();
    let other = Arc::new(world.client.another_queue(ClientConfig::default()).unwrap());
    let (vm, queue) = (Arc::clone(&world.vm), Arc::clone(&other));
    let binds = move || {
        let slow = queue.submit(JobSpec::spin(5 * MS)).unwrap().fences;
        let unmap = Request::Unmap { va: VM_START + MIB, len: MIB };
        drop(vm.bind(&[unmap], vec![slow.finished().into()]).unwrap());
    };
    leave_dead(&world.host, &world.client, JobSpec { on_drop: Some(Box::new(binds)), ..JobSpec::spin(MS) });
    let submit = || world.vm.submit(&world.client, JobSpec::spin(MS), VM_START, PAGE);
    match submit() {
        Err(SimVmError::Submit(SubmitError::Raced)) => {}
        taken => panic!("it does not wait for the bind: {taken:?}"),
    }
    let job = submit().unwrap();
    world.host.run_for(4 * MS);
    assert!(!job.finished().is_signaled(), "before the bind");
    world.host.run_for(4 * MS);
    assert_eq!(job.finished().status(), Status::Signaled(Ok(())));
    drop(other);
    end(world);
}
