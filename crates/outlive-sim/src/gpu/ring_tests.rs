//! Tests of descriptors and of both sides of a ring.

use super::*;
use crate::gpu::address_space::AddressSpace;
use crate::gpu::page_table::Protection;

fn job(n: u64) -> JobDescriptor {
    JobDescriptor {
        hw_seqno: HwSeqno(n),
        vm: VmId(3),
        job: JobId(100 + n),
        hw_time_ns: 1000,
        commands: Va(0x8000),
        commands_bytes: 40,
        fault: Some(FaultKind::Hang),
    }
}

fn fixture(slots: u32) -> (Memory, AddressSpace, HostRing, DeviceRing) {
    let mut memory = Memory::new(0).unwrap();
    let domain = memory.add_domain(1 << 16).unwrap();
    let owner = memory.add_owner().unwrap();
    let mut space = AddressSpace::new(&mut memory, domain, owner).unwrap();
    let page = memory.allocate(domain, owner).unwrap();
    space.map(&mut memory, Va(0x1000), page, Protection::ReadWrite).unwrap();
    let host = HostRing::new(alloc::vec![page], slots);
    (memory, space, host, DeviceRing::new(Va(0x1000), slots))
}

#[test]
fn descriptors_survive_their_bytes() {
    let bytes = job(7).encode();
    assert_eq!(bytes[..4], *b"OLJB");
    assert_eq!(JobDescriptor::decode(&bytes), Some(job(7)));
    for (at, value) in [(0, 0), (0x2c, 9), (0x30, 1)] {
        let mut broken = bytes;
        broken[at] = value;
        assert_eq!(JobDescriptor::decode(&broken), None, "byte {at:#x}");
    }
}

#[test]
fn a_slot_is_free_once_the_device_has_passed_it() {
    let (mut memory, space, mut host, mut device) = fixture(2);
    host.put(&mut memory, &job(0)).unwrap();
    host.put(&mut memory, &job(1)).unwrap();
    assert_eq!(host.put(&mut memory, &job(2)), Err(RingFull));
    assert_eq!(device.ring(&memory, space.root()), Ok(2));
    let (first, second) = (device.start_next(), device.start_next());
    device.finish(second);
    device.publish_read(&mut memory, space.root()).unwrap();
    assert_eq!(host.free_slots(&memory), 0, "the first is not done");
    device.finish(first);
    device.publish_read(&mut memory, space.root()).unwrap();
    assert_eq!(host.free_slots(&memory), 2);
    host.put(&mut memory, &job(2)).unwrap();
    assert_eq!(device.ring(&memory, space.root()), Ok(1));
    assert_eq!(device.descriptor(&memory, space.root(), 2), Ok(Some(job(2))));
    assert!(!device.is_idle());
}

#[test]
fn a_canceled_job_is_passed_over_in_its_turn() {
    let (mut memory, space, mut host, mut device) = fixture(4);
    for n in 0..3 {
        host.put(&mut memory, &job(n)).unwrap();
    }
    device.ring(&memory, space.root()).unwrap();
    device.cancel_unstarted(1);
    assert!(device.is_canceled(1));
    let first = device.start_next();
    device.finish(first);
    device.publish_read(&mut memory, space.root()).unwrap();
    assert_eq!((device.start_index, host.free_slots(&memory)), (2, 3));
}

#[test]
fn a_canceled_job_is_not_started_by_another_engine() {
    let (mut memory, space, mut host, mut device) = fixture(4);
    for n in 0..3 {
        host.put(&mut memory, &job(n)).unwrap();
    }
    device.ring(&memory, space.root()).unwrap();
    device.cancel_unstarted(1);
    assert_eq!((device.start_next(), device.start_next()), (0, 2), "while the first is still running");
}

#[test]
fn a_write_pointer_without_sense_brings_nothing() {
    let (mut memory, space, host, mut device) = fixture(4);
    memory.store_u64(host.pages()[0], 0, 1 << 40).unwrap();
    assert_eq!(device.ring(&memory, space.root()), Ok(0));
    assert!(device.is_idle());
}
