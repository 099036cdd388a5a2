//! Everything that goes wrong: faults on demand, cancelling, resets, late writes, unplugging.

mod common;

use common::{Host, MS, small};
use outlive_sim::gpu::{
    AddressSpace, CancelOutcome, Command, Config, DeviceFaults, ExecutionError, FAULT_RANGE_START, FaultKind,
    FaultReason, GpuError, HwError, ResetFailed, ResetScope, Standing, VmId,
};

#[test]
fn a_requested_page_fault_carries_an_address_and_is_not_unexpected() {
    let mut host = Host::new(small());
    let ring = host.ring();
    host.faulty(ring, MS, FaultKind::PageFault);
    host.spin(ring, MS);
    host.run_to(5 * MS);
    let Err(HwError::PageFault(fault)) = host.interrupts[0].result else { panic!("no fault") };
    assert!(fault.va >= FAULT_RANGE_START && fault.reason == FaultReason::NotMapped);
    let after_ns = host.interrupts[0].active_ns;
    assert!((MS / 4..=3 * MS / 4).contains(&after_ns), "{after_ns}");
    assert_eq!(host.interrupts[1].result, Ok(()), "the ring goes on");
    assert_eq!(host.fence_value(), 2);
    assert!(host.audit().is_clean());
}

#[test]
fn a_page_taken_away_under_a_job_faults_at_its_address_and_is_unexpected() {
    let mut host = Host::new(small());
    let ring = host.ring();
    let data = host.buffer(2);
    let fill = Command::Fill { va: data.va, bytes: 0x2000, pattern: 1 };
    let job = host.job(&[fill, Command::Spin { duration_ns: 10 * MS }], 10 * MS);
    host.submit(ring, &job);
    host.run_to(2_500_000);
    host.unmap(&data);
    host.run_to(20 * MS);
    let Err(HwError::PageFault(fault)) = host.interrupts[0].result else { panic!("no fault") };
    assert_eq!((fault.va, fault.reason), (data.va, FaultReason::NotMapped));
    assert_eq!(host.interrupts[0].end.as_ns(), 3 * MS, "at the next tick");
    let audit = host.audit();
    assert_eq!(audit.unexpected_page_faults, 1);
    assert!(audit.violations[0].contains(&data.va.to_string()), "{:?}", audit.violations);
}

#[test]
fn a_page_freed_and_reused_under_a_job_is_noticed_twice() {
    let mut host = Host::new(small());
    let ring = host.ring();
    let data = host.buffer(1);
    let fill = Command::Fill { va: data.va, bytes: 0x1000, pattern: 1 };
    let job = host.job(&[fill], 10 * MS);
    host.submit(ring, &job);
    host.run_to(MS);
    host.free(&data);
    let reused = host.buffer(1);
    assert_eq!(reused.pages, data.pages, "freed pages are handed out first");
    let ring = host.ring();
    let fill = Command::Fill { va: reused.va, bytes: 0x1000, pattern: 2 };
    let job = host.job(&[fill], MS);
    host.submit(ring, &job);
    host.run_to(30 * MS);
    let audit = host.audit();
    assert_eq!((audit.released_while_hardware_busy, audit.conflicting_accesses), (1, 1));
}

#[test]
fn page_tables_freed_under_a_job_are_noticed() {
    let mut host = Host::new(small());
    let ring = host.ring();
    host.spin(ring, 10 * MS);
    host.run_to(MS);
    let next = AddressSpace::new(&mut host.memory, host.gpu.domain(), host.owner).unwrap();
    core::mem::replace(&mut host.space, next).destroy(&mut host.memory).unwrap();
    host.run_to(2 * MS);
    assert_eq!(host.audit().released_while_hardware_busy, 3, "one table of each level");
}

#[test]
fn a_requested_error_names_its_command() {
    let mut host = Host::new(small());
    let ring = host.ring();
    host.faulty(ring, MS, FaultKind::Error);
    host.run_to(5 * MS);
    let kind = ExecutionError::Injected;
    assert_eq!(host.interrupts[0].result, Err(HwError::Execution { offset: 0, kind }));
    assert_eq!(host.fence_value(), 0);
}

#[test]
fn a_lost_interrupt_leaves_its_fence_written() {
    let mut host = Host::new(small());
    let ring = host.ring();
    host.faulty(ring, MS, FaultKind::LostCompletion);
    host.run_to(5 * MS);
    assert!(host.interrupts.is_empty() && host.gpu.next_event().is_none());
    assert_eq!(host.fence_value(), 1);
    assert_eq!(host.gpu.free_slots(&host.memory, ring), 16);
    host.spin(ring, MS);
    host.run_to(10 * MS);
    assert_eq!(host.order(), [2]);
}

#[test]
fn a_job_that_names_no_address_space_faults() {
    let mut host = Host::new(Config { vm_ids: 4, ..small() });
    let ring = host.ring();
    let mut job = host.job(&[], 100);
    job.vm = VmId(3);
    host.submit(ring, &job);
    host.run_to(MS);
    let Err(HwError::PageFault(fault)) = host.interrupts[0].result else { panic!("no fault") };
    assert_eq!(fault.reason, FaultReason::NoSpace);
    let refused = host.gpu.bind_vm(VmId(5), &host.space);
    assert_eq!(refused, Err(GpuError::NoSuchVmId(VmId(5))));
    assert!(host.gpu.bind_vm(VmId::FIRMWARE, &host.space).is_err());
}

#[test]
fn a_hung_job_keeps_its_engine_until_its_ring_is_reset() {
    let mut host = Host::new(small());
    let (bad, good) = (host.ring(), host.ring());
    let hung = host.faulty(bad, MS, FaultKind::Hang);
    let queued = host.spin(bad, MS);
    host.spin(good, MS);
    host.run_to(100 * MS);
    assert!(host.interrupts.is_empty(), "no rotation away from a hung job");
    let time = host.gpu.job_time(bad, hung.hw_seqno).unwrap();
    assert_eq!((time.active_ns, time.standing), (100 * MS, Standing::Running));
    let now = host.now;
    let asked = host.gpu.cancel(&mut host.memory, now, bad, hung.hw_seqno);
    assert_eq!(asked, Ok(CancelOutcome::Asked));
    host.run_to(110 * MS);
    assert!(host.interrupts.is_empty(), "a hung job does not obey");
    let now = host.now;
    host.gpu.reset(&mut host.memory, now, ResetScope::Ring(bad)).unwrap();
    let again = host.gpu.reset(&mut host.memory, now, ResetScope::Ring(bad));
    assert_eq!(again, Err(GpuError::ResetPending));
    host.run_to(200 * MS);
    let report = &host.resets[0];
    assert_eq!(report.ended_at.since_ns(report.started_at), 200_000);
    let killed = report.result.as_ref().unwrap();
    assert_eq!((killed.len(), killed[0].hw_seqno), (1, hung.hw_seqno));
    assert_eq!(killed[0].active_ns, 110 * MS + 200_000);
    assert_eq!(host.order(), [3, queued.0], "the other ring first, then what was not started");
    assert_eq!(host.fence_value(), queued.0);
    assert!(host.audit().is_clean());
}

#[test]
fn a_ring_starts_nothing_while_it_is_reset() {
    let mut host = Host::new(Config { engines: 4, ..small() });
    let (ring, other) = (host.ring(), host.ring());
    host.faulty(ring, MS, FaultKind::Hang);
    host.run_to(2 * MS);
    let now = host.now;
    host.gpu.reset(&mut host.memory, now, ResetScope::Ring(ring)).unwrap();
    host.spin(ring, 1000);
    host.spin(other, 1000);
    host.run_to(5 * MS);
    assert_eq!(host.order(), [3, 2]);
    let starts: Vec<_> = host.interrupts.iter().filter_map(|interrupt| interrupt.start).collect();
    assert_eq!(starts[0].as_ns(), 2 * MS, "another ring goes on");
    assert_eq!(starts[1], host.resets[0].ended_at);
}

#[test]
fn a_device_reset_kills_all_that_had_started_and_nothing_else() {
    let mut host = Host::new(Config { engines: 2, ..small() });
    let rings = [host.ring(), host.ring(), host.ring()];
    for ring in rings {
        host.spin(ring, 10 * MS);
        host.spin(ring, MS);
        host.spin(ring, MS);
    }
    host.run_to(1_500_000);
    let now = host.now;
    host.gpu.reset(&mut host.memory, now, ResetScope::Device).unwrap();
    host.run_to(100 * MS);
    let killed = host.resets[0].result.as_ref().unwrap();
    let killed: Vec<u64> = killed.iter().map(|job| job.hw_seqno.0).collect();
    let mut survivors = host.order();
    survivors.sort_unstable();
    assert!(killed.contains(&1) && killed.contains(&4) && killed.contains(&7), "{killed:?}");
    let mut all = [killed, survivors].concat();
    all.sort_unstable();
    assert_eq!(all, [1, 2, 3, 4, 5, 6, 7, 8, 9], "each once");
    assert!(host.audit().is_clean());
}

#[test]
fn a_reset_that_fails_changes_nothing_until_another_works() {
    let mut host = Host::new(small());
    let ring = host.ring();
    let data = host.buffer(1);
    host.gpu.set_faults(DeviceFaults { ring_resets_failing: 1, ..DeviceFaults::default() });
    let fill = Command::Fill { va: data.va, bytes: 0x1000, pattern: 0 };
    let job = host.job(&[fill], 100 * MS);
    host.submit(ring, &job);
    host.spin(ring, MS);
    host.run_to(MS);
    let now = host.now;
    host.gpu.reset(&mut host.memory, now, ResetScope::Ring(ring)).unwrap();
    host.run_to(10 * MS);
    assert_eq!(host.resets[0].result, Err(ResetFailed));
    host.memory.store_u64(data.pages[0], 0, 0).unwrap();
    host.run_to(500 * MS);
    assert!(host.interrupts.is_empty(), "it never ends by itself");
    assert_ne!(host.memory.load_u64(data.pages[0], 0), Some(0), "and still writes");
    let now = host.now;
    host.gpu.reset(&mut host.memory, now, ResetScope::Device).unwrap();
    host.run_to(600 * MS);
    assert_eq!(host.resets[1].result.as_ref().unwrap().len(), 1);
    assert_eq!(host.order(), [2]);
    host.memory.store_u64(data.pages[0], 0, 5).unwrap();
    host.run_to(700 * MS);
    assert_eq!(host.memory.load_u64(data.pages[0], 0), Some(5), "no more writes");
}

#[test]
fn a_disobedient_device_writes_for_50_ms_after_it_was_told_to_stop() {
    let mut host = Host::new(small());
    let late_writes_ns = DeviceFaults::LATE_WRITES_NS;
    host.gpu.set_faults(DeviceFaults { late_writes_ns, ..DeviceFaults::default() });
    let ring = host.ring();
    let data = host.buffer(1);
    let fill = Command::Fill { va: data.va, bytes: 0x1000, pattern: 0 };
    let job = host.job(&[fill], 10 * MS);
    host.submit(ring, &job);
    host.run_to(2 * MS);
    let now = host.now;
    host.gpu.cancel(&mut host.memory, now, ring, job.hw_seqno).unwrap();
    // A driver that believes its own verdict gives the page to someone else.
    host.free(&data);
    let victim = host.memory.allocate(host.gpu.domain(), host.owner).unwrap();
    assert_eq!(victim, data.pages[0]);
    host.run_to(45 * MS);
    assert_ne!(host.memory.load_u64(victim, 0), Some(0), "the victim's page is damaged");
    assert!(host.interrupts.is_empty());
    host.run_to(60 * MS);
    assert_eq!(host.interrupts[0].result, Err(HwError::Canceled));
    assert_eq!(host.interrupts[0].end.as_ns(), 52 * MS);
    host.memory.store_u64(victim, 0, 0).unwrap();
    host.run_to(200 * MS);
    assert_eq!(host.memory.load_u64(victim, 0), Some(0), "then it has stopped");
    assert_eq!(host.audit().released_while_hardware_busy, 1);
}

#[test]
fn a_disobedient_device_faults_on_what_was_unmapped_too_early() {
    let mut host = Host::new(Config { tick_ns: 0, ..small() });
    let late_writes_ns = DeviceFaults::LATE_WRITES_NS;
    host.gpu.set_faults(DeviceFaults { late_writes_ns, ..DeviceFaults::default() });
    let ring = host.ring();
    let data = host.buffer(1);
    let job = host.job(&[Command::Fill { va: data.va, bytes: 0x1000, pattern: 0 }], 10 * MS);
    host.submit(ring, &job);
    host.run_to(2 * MS);
    let now = host.now;
    host.gpu.cancel(&mut host.memory, now, ring, job.hw_seqno).unwrap();
    host.unmap(&data);
    host.run_to(100 * MS);
    assert!(matches!(host.interrupts[0].result, Err(HwError::PageFault(_))));
    assert_eq!(host.audit().unexpected_page_faults, 1);
}

#[test]
fn an_obedient_device_stops_where_the_job_is() {
    for slice_ns in [0, MS] {
        let mut host = Host::new(Config { slice_ns, ..small() });
        let (a, b) = (host.ring(), host.ring());
        let running = host.spin(a, 10 * MS);
        let first = host.spin(a, MS);
        let second = host.spin(a, MS);
        let other = host.spin(b, MS);
        host.run_to(500_000);
        let now = host.now;
        let mut cancel = |seqno| host.gpu.cancel(&mut host.memory, now, a, seqno);
        assert_eq!(cancel(second), Ok(CancelOutcome::Removed));
        assert_eq!(cancel(running), Ok(CancelOutcome::Asked));
        assert_eq!(cancel(second), Ok(CancelOutcome::NotHere), "only once");
        assert_eq!(cancel(other), Ok(CancelOutcome::NotHere), "another ring's");
        host.run_to(20 * MS);
        let results: Vec<(u64, bool)> =
            host.interrupts.iter().map(|interrupt| (interrupt.hw_seqno.0, interrupt.result.is_ok())).collect();
        // With rotation the other ring's turn comes in the middle of the first's next job.
        let then = if slice_ns == 0 { [first, other] } else { [other, first] };
        let expected = [(second.0, false), (running.0, false), (then[0].0, true), (then[1].0, true)];
        assert_eq!(results, expected, "slice {slice_ns}");
        assert_eq!((host.interrupts[0].start, host.interrupts[0].active_ns), (None, 0));
        assert_eq!(host.interrupts[1].active_ns, 520_000);
        assert_eq!(host.gpu.free_slots(&host.memory, a), 16);
        assert!(host.audit().is_clean());
    }
}

#[test]
fn a_job_at_a_semaphore_can_be_canceled_and_reset() {
    let mut host = Host::new(small());
    let ring = host.ring();
    let word = host.buffer(1);
    let wait = Command::Wait { va: word.va, value: 1 };
    let (first, second) = (host.job(&[wait], MS), host.job(&[wait], MS));
    host.submit(ring, &first);
    host.submit(ring, &second);
    host.run_to(MS);
    let now = host.now;
    let outcome = host.gpu.cancel(&mut host.memory, now, ring, first.hw_seqno);
    assert_eq!(outcome, Ok(CancelOutcome::Removed));
    host.gpu.reset(&mut host.memory, now, ResetScope::Ring(ring)).unwrap();
    host.run_to(2 * MS);
    assert_eq!(host.resets[0].result.as_ref().unwrap()[0].hw_seqno, second.hw_seqno);
    assert!(host.gpu.running(ring).is_none());
    assert!(host.audit().is_clean());
}

#[test]
fn an_unplugged_device_touches_nothing_and_says_nothing() {
    let mut host = Host::new(Config { engines: 2, ..small() });
    let (a, b) = (host.ring(), host.ring());
    let data = host.buffer(1);
    let fill = Command::Fill { va: data.va, bytes: 0x1000, pattern: 9 };
    let job = host.job(&[fill], 100 * MS);
    host.submit(a, &job);
    host.faulty(b, MS, FaultKind::Hang);
    host.run_to(5 * MS);
    host.spin(b, 100 * MS);
    let now = host.now;
    host.gpu.reset(&mut host.memory, now, ResetScope::Ring(b)).unwrap();
    host.gpu.unplug(&mut host.memory, now);
    let before = host.memory.page(data.pages[0]).copied();
    host.unmap(&data);
    host.free(&data);
    host.run_to(500 * MS);
    assert_eq!(host.memory.page(data.pages[0]).copied(), before);
    assert!(host.interrupts.is_empty() && host.resets.is_empty());
    assert!(host.gpu.next_event().is_none() && !host.gpu.is_plugged());
    assert_eq!(host.gpu.busy_ns(), 10 * MS, "both engines, up to then");
    let refused = host.gpu.submit(&mut host.memory, now, a, &job);
    assert_eq!(refused, Err(GpuError::Unplugged));
    assert!(host.audit().is_clean());
}

#[test]
fn rings_come_and_go_and_the_device_gives_all_back() {
    let mut host = Host::new(small());
    let before = host.memory.pages_of(host.gpu.owner());
    let ring = host.ring();
    host.spin(ring, MS);
    assert_eq!(host.gpu.destroy_ring(&mut host.memory, ring), Err(GpuError::RingBusy));
    host.run_to(2 * MS);
    host.gpu.destroy_ring(&mut host.memory, ring).unwrap();
    let missing = Err(GpuError::NoSuchQueue(ring));
    assert_eq!(host.gpu.destroy_ring(&mut host.memory, ring), missing);
    let second = host.ring();
    assert_eq!(ring, second, "a device has as many numbers as it has had rings at once");
    host.spin(second, MS);
    assert_ne!(second, host.ring());
    host.run_to(4 * MS);
    assert!(host.gpu.running(second).is_none());
    let owner = host.gpu.owner();
    assert!(host.memory.pages_of(owner) > before);
    let now = host.now;
    host.gpu.destroy(&mut host.memory, now).unwrap();
    assert_eq!(host.memory.pages_of(owner), 0);
}

#[test]
fn a_full_ring_refuses() {
    let mut host = Host::new(small());
    let ring = host.gpu.create_ring(&mut host.memory, 2).unwrap();
    host.spin(ring, MS);
    host.spin(ring, MS);
    let job = host.job(&[], MS);
    let now = host.now;
    let refused = host.gpu.submit(&mut host.memory, now, ring, &job);
    assert_eq!(refused, Err(GpuError::RingFull));
    host.run_to(1_500_000);
    host.submit(ring, &job);
    host.run_to(5 * MS);
    assert_eq!(host.order(), [1, 2, 3]);
    assert!(host.audit().is_clean(), "a refused job was never submitted");
}

#[test]
fn a_damaged_descriptor_fails_and_the_ring_goes_on() {
    let mut host = Host::new(small());
    let ring = host.ring();
    host.spin(ring, MS);
    let (bad, good) = (host.job(&[], MS), host.job(&[], MS));
    host.submit(ring, &bad);
    host.submit(ring, &good);
    // The second slot of the first ring: 0x80 in the page that the firmware was given for it.
    let first_page = host
        .log
        .iter()
        .find_map(|seen| match seen.what {
            outlive_sim::gpu::Observation::PageAllocated { page, owner }
                if owner == host.gpu.owner() && host.memory.page(page).unwrap()[0x80..0x84] == *b"OLJB" =>
            {
                Some(page)
            }
            _ => None,
        })
        .unwrap();
    host.memory.store_u64(first_page, 0x80, 0).unwrap();
    host.run_to(5 * MS);
    let results: Vec<_> = host.interrupts.iter().map(|interrupt| interrupt.result).collect();
    assert_eq!(results, [Ok(()), Err(HwError::BadDescriptor), Ok(())]);
}
