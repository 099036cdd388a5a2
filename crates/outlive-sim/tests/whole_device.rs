//! The device as a whole: bytes really executed, two devices on one buffer, and the same run for the same seed.

#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{Host, MS, small};
use outlive_sim::gpu::rng::Rng;
use outlive_sim::gpu::{
    AddressSpace, Command, Config, FaultKind, Gpu, HwSeqno, JobDescriptor, Memory, Protection, ResetScope, Stamped,
    Time, Va, VmId,
};

#[test]
fn a_job_executes_its_bytes() {
    let mut host = Host::new(small());
    let ring = host.ring();
    let (source, target) = (host.buffer(4), host.buffer(4));
    let job = host.job(
        &[
            Command::Fill { va: source.va, bytes: 0x4000, pattern: 0x0403_0201 },
            Command::WriteValue { va: source.va.add(0x1ff8), value: 42 },
            Command::Copy { source: source.va, target: target.va, bytes: 0x4000 },
            Command::TimeStamp { va: target.va.add(0x3ff8) },
        ],
        2 * MS,
    );
    host.submit(ring, &job);
    host.run_to(5 * MS);
    assert_eq!(host.interrupts[0].result, Ok(()));
    assert_eq!(host.memory.load_u64(target.pages[0], 16), Some(0x0403_0201_0403_0201));
    assert_eq!(host.memory.load_u64(target.pages[1], 0xff8), Some(42));
    let stamp = host.memory.load_u64(target.pages[3], 0xff8).unwrap();
    assert_eq!(stamp, 2 * MS, "the end of the last costly command");
    assert_eq!(host.fence_value(), 1);
    assert!(host.audit().is_clean());
}

/// One device writes a page of system memory, another reads it, each through page tables of its own; a semaphore in the
/// same memory keeps them apart.
#[test]
fn two_devices_share_system_memory() {
    let mut host = Host::new(small());
    let writer_ring = host.ring();
    let system = outlive_sim::gpu::DomainId::SYSTEM;
    let frame = host.memory.allocate(system, host.owner).unwrap();
    let word = host.memory.allocate(system, host.owner).unwrap();
    let (frame_va, word_va) = (Va(0x4000_0000), Va(0x4000_1000));
    let write = Protection::ReadWrite;
    host.space.map(&mut host.memory, frame_va, frame, write).unwrap();
    host.space.map(&mut host.memory, word_va, word, write).unwrap();

    let mut scanout = Gpu::new(&mut host.memory, small()).unwrap();
    let owner = host.memory.add_owner().unwrap();
    let mut space = AddressSpace::new(&mut host.memory, scanout.domain(), owner).unwrap();
    scanout.bind_vm(VmId(1), &space).unwrap();
    host.memory.share(frame).unwrap();
    let local = host.memory.allocate(scanout.domain(), owner).unwrap();
    let commands = host.memory.allocate(scanout.domain(), owner).unwrap();
    let base = 0x8000;
    let read_only = Protection::ReadOnly;
    for (i, (page, protection)) in
        [(frame, read_only), (word, read_only), (local, write), (commands, read_only)].into_iter().enumerate()
    {
        space.map(&mut host.memory, Va(base + 0x1000 * i as u64), page, protection).unwrap();
    }
    let at = |i: u64| Va(base + 0x1000 * i);
    let mut bytes = Vec::new();
    Command::Wait { va: at(1), value: 1 }.encode(&mut bytes);
    Command::Copy { source: at(0), target: at(2), bytes: 0x800 }.encode(&mut bytes);
    let interrupt = outlive_sim::gpu::Notify::Interrupt;
    Command::End { fence: at(2).add(0x800), value: 1, interrupt }.encode(&mut bytes);
    host.memory.page_mut(commands).unwrap()[..bytes.len()].copy_from_slice(&bytes);
    let ring = scanout.create_ring(&mut host.memory, 4).unwrap();
    let show = JobDescriptor {
        hw_seqno: HwSeqno(1),
        vm: VmId(1),
        job: outlive_sim::gpu::JobId(1000),
        hw_time_ns: 1000,
        commands: at(3),
        commands_bytes: u32::try_from(bytes.len()).unwrap(),
        fault: None,
    };
    scanout.submit(&mut host.memory, Time::ZERO, ring, &show).unwrap();
    let draw = host.job(
        &[
            Command::Fill { va: frame_va, bytes: 0x800, pattern: 0x5a5a_5a5a },
            Command::Signal { va: word_va, value: 1 },
        ],
        MS,
    );
    host.submit(writer_ring, &draw);
    for step in 0..400 {
        host.run_to(step * 5_000);
        let now = host.now;
        scanout.advance(&mut host.memory, now);
    }
    assert_eq!(scanout.poll_interrupt().unwrap().result, Ok(()));
    assert_eq!(host.memory.load_u64(local, 0x7f8), Some(0x5a5a_5a5a_5a5a_5a5a));
    let owner = host.owner;
    let held = host.memory.pages_of(owner);
    host.memory.free(frame).unwrap();
    assert_eq!(host.memory.pages_of(owner), held, "the other device still holds it");
    host.memory.free(frame).unwrap();
    assert_eq!(host.memory.pages_of(owner), held - 1);
    assert!(host.audit().is_clean());
}

/// A run with chance in it: jobs of all kinds on several rings, cancels and resets.
fn chaos(seed: u64) -> (Vec<Stamped>, Vec<u64>) {
    let config = Config { seed, engines: 3, slice_ns: 300_000, interrupt_jitter_ns: 5_000, ..small() };
    let mut host = Host::new(config);
    let mut chance = Rng::new(seed ^ 0xabcd);
    let rings: Vec<_> = (0..5).map(|_| host.ring()).collect();
    let buffers: Vec<_> = (0..5).map(|_| host.buffer(2)).collect();
    let kinds = [FaultKind::Hang, FaultKind::PageFault, FaultKind::Error, FaultKind::LostCompletion];
    for step in 0..400_u64 {
        let pick = usize::try_from(chance.below(5)).unwrap();
        let ring = rings[pick];
        match chance.below(20) {
            0..=14 if host.gpu.free_slots(&host.memory, ring) > 0 => {
                let fill = Command::Fill { va: buffers[pick].va, bytes: 0x1800, pattern: 1 };
                let mut job = host.job(&[fill], 1_000 + chance.below(800_000));
                if chance.below(10) == 0 {
                    job.fault = Some(kinds[usize::try_from(chance.below(4)).unwrap()]);
                }
                host.submit(ring, &job);
            }
            15..=17 => {
                let now = host.now;
                if let Some(running) = host.gpu.running(ring) {
                    host.gpu.cancel(&mut host.memory, now, ring, running.hw_seqno).unwrap();
                }
            }
            18 => {
                let now = host.now;
                let _ = host.gpu.reset(&mut host.memory, now, ResetScope::Ring(ring));
            }
            19 if step % 4 == 0 => {
                let now = host.now;
                let _ = host.gpu.reset(&mut host.memory, now, ResetScope::Device);
            }
            _ => {}
        }
        host.run_to((step + 1) * 150_000);
    }
    let order = host.order();
    (host.log, order)
}

#[test]
fn the_same_seed_gives_the_same_log_and_another_gives_another() {
    let (first, order) = chaos(7);
    let (second, order_again) = chaos(7);
    assert!(first.len() > 2_000 && order.len() > 100, "{} {}", first.len(), order.len());
    assert!(first == second && order == order_again);
    assert!(chaos(8).0 != first);
}

#[test]
fn the_model_can_be_sent_to_another_thread() {
    const fn is_send<T: Send>() {}
    is_send::<Gpu>();
    is_send::<Memory>();
    is_send::<AddressSpace>();
}
