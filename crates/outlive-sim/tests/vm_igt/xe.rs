//! `xe_vm`.

use super::*;
use outlive_sim::driver::{SimVmError, VmWork};
use outlive_sim::gpu::Va;

/// The lowest address that most cases use.
const ADDR: u64 = VM_START + 0x1a_0000;
/// Where windows of pages are bound.
const WINDOWS: u64 = VM_START + 0x1a0_0000;
/// The space of 48 bits from where users' mappings begin.
const SPACE: u64 = (1 << 48) - VM_START;

/// What is run here, by upstream's names.
pub(super) fn names() -> Vec<String> {
    let single = [
        "bind-once",
        "bind-one-bo-many-times",
        "bind-one-bo-many-times-many-vm",
        "scratch",
        "partial-unbinds",
        "unbind-all-2-vmas",
        "unbind-all-8-vmas",
        "compact-64k-pages",
        "shared-pte-page",
        "shared-pde-page",
        "shared-pde2-page",
        "shared-pde3-page",
        "bind-execqueues-independent",
        "bind-array-twice",
        "bind-array-many",
        "bind-array-exec_queue-twice",
        "bind-array-exec_queue-many",
        "bind-array-conflict",
        "bind-no-array-conflict",
        "bind-array-conflict-error-inject",
        "mixed-binds-3145728",
        "mixed-misaligned-binds-3145728",
        "overcommit-nonfault-vram-no-lr",
    ];
    let large = LARGE.into_iter().flat_map(|bytes| {
        let kinds = ["large-binds", "large-split-binds", "large-misaligned-binds", "large-split-misaligned-binds"];
        kinds.map(|kind| format!("{kind}-{bytes}"))
    });
    let munmap = MUNMAP.iter().map(|(name, ..)| format!("munmap-style-unbind-{name}"));
    let mmap = MMAP.iter().map(|(name, ..)| format!("mmap-style-bind-{name}"));
    single.map(str::to_owned).into_iter().chain(large).chain(munmap).chain(mmap).collect()
}

/// Bytes of large binds.
const LARGE: [u64; 6] = [2 * MIB, 4 * MIB, 8 * MIB, 16 * MIB, 32 * MIB, 64 * MIB];

/// All addresses of the suite of 48 bits; those below users' are taken from there.
const ADDRS: [u64; 8] = [
    0x0000_0000_0000,
    0x0000_b864_02d4,
    0x0001_b864_02d8,
    0x7ffd_b864_02dc,
    0x7fff_ffff_ffec,
    0x8000_0000_0004,
    0x3ffd_b864_02e8,
    0xffff_ffff_fffc,
];

fn of_users(va: u64) -> u64 {
    if va < VM_START { va + VM_START } else { va }
}

/// With everything that is not bound sparse, which stands for scratch pages.
fn with_scratch(world: &World) {
    world.wait(&world.bind(&[sparse(VM_START, SPACE)]));
}

/// Binds one buffer at each address, writes and unbinds; what is written after that goes nowhere.
fn bind_one_bo(world: World, addrs: &[u64], many_vms: bool) {
    let World { host, client: first, vm } = world;
    let spaces: Vec<_> = if many_vms { addrs.iter().map(|_| client(&host)).collect() } else { vec![client(&host)] };
    drop((first, vm));
    let bo = spaces[0].1.external(PAGE).unwrap();
    let pairs: Vec<_> = spaces.iter().map(|(_, vm)| vm.open(&bo).unwrap()).collect();
    let wait = |job: &JobFences| {
        assert!(host.run_while_waiting(NEVER, || job.retired().is_signaled()));
        assert_eq!(job.finished().status(), Status::Signaled(Ok(())));
    };
    let of = |at: usize| (&spaces[at % spaces.len()], &pairs[at % spaces.len()]);
    let round = |round: u32| {
        for (at, va) in addrs.iter().map(|va| of_users(*va)).enumerate() {
            let ((client, vm), _) = of(at);
            let work = Work::Store(word(va, round));
            wait(&vm.submit(client, JobSpec::new(MS, work), va, work.data_bytes()).unwrap());
        }
    };
    for (_, vm) in &spaces {
        wait(&vm.bind(&[sparse(VM_START, SPACE)], Vec::new()).unwrap());
    }
    for (at, va) in addrs.iter().map(|va| of_users(*va)).enumerate() {
        let ((_, vm), pair) = of(at);
        let source = Source::Bo { bo: pair.id(), offset: 0 };
        let request = Request::Map { va: va & !(PAGE - 1), len: PAGE, source, flags: Flags::NONE, data: () };
        wait(&vm.bind(&[request], Vec::new()).unwrap());
    }
    round(1);
    let buffer = Buffer { bo: bo.clone(), pair: pairs[0].clone() };
    let written: Vec<_> = addrs.iter().map(|va| word(of_users(*va), 1)).collect();
    let offsets = || addrs.iter().map(|va| va % PAGE);
    assert_eq!(buffer.words(offsets()), written);
    for (at, va) in addrs.iter().map(|va| of_users(*va)).enumerate() {
        wait(&of(at).0.1.bind(&[sparse(va & !(PAGE - 1), PAGE)], Vec::new()).unwrap());
    }
    round(2);
    assert_eq!(buffer.words(offsets()), written, "unbound, nothing is written to it");
    drop((buffer, pairs, spaces, bo));
    let audit = finish(host);
    assert!(audit.is_clean(), "{audit:#?}");
}

#[test]
fn bind_once() {
    bind_one_bo(world(8, 1), &[0x7ffd_b864_02d8], false);
}

#[test]
fn bind_one_bo_many_times() {
    bind_one_bo(world(8, 1), &ADDRS, false);
}

#[test]
fn bind_one_bo_many_times_many_vm() {
    bind_one_bo(world(8, 1), &ADDRS, true);
}

#[test]
fn scratch() {
    let world = world(8, 1);
    with_scratch(&world);
    for va in [0, 0x7ffd_b864_02d8, 0x7fff_ffff_fffc, 0x8000_0000_0000, 0x3ffd_b864_02d8, 0xffff_ffff_fffc] {
        world.wait(&world.store(of_users(va), 1));
    }
    assert_eq!(world.end(), 0);
}

#[test]
fn partial_unbinds() {
    let world = world(8, 1);
    let buffer = world.buffer(3 * PAGE);
    world.wait(&world.bind(&[map(&buffer, ADDR, 3 * PAGE, 0)]));
    for page in [1, 0, 2] {
        world.wait(&world.store(ADDR + page * PAGE, 1));
        world.wait(&world.bind(&[unmap(ADDR + page * PAGE, PAGE)]));
    }
    assert_eq!(buffer.words((0..3).map(|page| page * PAGE)), [0, 1, 2].map(|page| word(ADDR + page * PAGE, 1)));
    assert_eq!(world.mappings(), 0);
    world.faults(ADDR + PAGE);
    drop(buffer);
    assert_eq!(world.end(), 1);
}

#[test]
fn unbind_all_2_vmas_and_8_vmas() {
    for vmas in [2, 8] {
        let world = world(8, 1);
        let buffer = world.buffer(PAGE);
        let binds: Vec<_> = (0..vmas).map(|at| world.bind(&[map(&buffer, ADDR + at * PAGE, PAGE, 0)])).collect();
        // Closed, all of them go, whether they have been carried out or not.
        drop(buffer.pair.close());
        world.wait_all(&binds);
        let status = || world.vm.vm().status();
        assert!(world.host.run_while_waiting(NEVER, || status().mappings == 0 && status().to_clear == 0));
        drop(buffer);
        world.faults(ADDR);
        assert_eq!(world.end(), 1);
    }
}

#[test]
fn compact_64k_pages() {
    let world = world(32, 1);
    let (first, second) = (world.buffer(8 * MIB), world.buffer(4 * MIB));
    // A page of 64 KiB, the second half of which goes to another buffer.
    let addrs = [VM_START + 0x1000_0000, VM_START + 0x1000_8000];
    world.bind(&[map(&first, addrs[0], 64 * KIB, 0)]);
    world.bind(&[map(&second, addrs[1], 32 * KIB, 0)]);
    world.wait_all(&addrs.map(|va| world.store(va, 1)));
    assert_eq!((first.words([0]), second.words([0])), (vec![word(addrs[0], 1)], vec![word(addrs[1], 1)]));
    drop((first, second));
    assert_eq!(world.end(), 0);
}

/// Buffers that share a table of each level, two of which go while the others are used.
#[test]
fn shared_pte_pde_pde2_and_pde3_page() {
    for (name, stride) in [("pte", 2 * PAGE), ("pde", 512 * PAGE), ("pde2", 512 * 512 * PAGE), ("pde3", 1 << 39)] {
        let world = world(8, 1);
        let buffers: Vec<_> = (0..4).map(|_| world.buffer(PAGE)).collect();
        let queues: Vec<_> = (0..4).map(|_| world.client.another_queue(ClientConfig::default()).unwrap()).collect();
        let va = |at: usize| VM_START + 0x1000 * 512 + at as u64 * stride;
        for (at, buffer) in buffers.iter().enumerate() {
            world.bind(&[map(buffer, va(at), PAGE, 0)]);
        }
        let store = |at: usize, round| world.store_on(&queues[at], va(at), round);
        let stored: Vec<_> = (0..4).map(|at| store(at, 1)).collect();
        let all = || stored.iter().flat_map(after).collect::<Vec<_>>();
        for at in [0, 2] {
            world.wait(&world.vm.bind(&[unmap(va(at), PAGE)], all()).unwrap());
        }
        world.wait_all(&[1, 3].map(|at| store(at, 2)));
        for at in [1, 3] {
            world.wait(&world.vm.bind(&[unmap(va(at), PAGE)], all()).unwrap());
        }
        for (at, buffer) in buffers.iter().enumerate() {
            assert_eq!(buffer.words([0]), [word(va(at), 1 + at as u32 % 2)], "shared-{name}-page");
        }
        drop((buffers, queues));
        assert_eq!(world.end(), 0, "shared-{name}-page");
    }
}

/// What is bound through one queue waits for a job; what is bound through another does not, nor does a job that needs it.
#[test]
fn bind_execqueues_independent() {
    let world = world(8, 2);
    let buffer = world.buffer(2 * PAGE);
    let second_binder = SimVm::new(&world.client).unwrap();
    let queues = [0, 1].map(|_| world.client.another_queue(ClientConfig::default()).unwrap());
    let vas = [ADDR + 2 * PAGE, ADDR + 4 * PAGE];
    world.wait(&world.bind(&[map(&buffer, ADDR, 2 * PAGE, 0)]));
    let spin = queues[0].reserve(JobSpec::spin(20 * MS)).unwrap().commit();
    let bound = [
        world.vm.bind(&[map(&buffer, vas[0], 2 * PAGE, 0)], after(&spin)).unwrap(),
        second_binder.bind(&[map(&buffer, vas[1], 2 * PAGE, 0)], Vec::new()).unwrap(),
    ];
    // Each waits for its own bind only, so it says itself what it waits for.
    let stored = [0, 1].map(|at: usize| {
        let (va, in_use) = (vas[at] + at as u64 * PAGE, world.vm.vm().in_use().unwrap());
        let work = Work::Store(word(va, 1));
        let vm = Some(VmWork { at: Va(va), bytes: work.data_bytes(), in_use });
        queues[at].reserve(JobSpec { vm, after: after(&bound[at]), ..JobSpec::new(MS, work) }).unwrap().commit()
    });
    world.wait_all(&[bound[1].clone(), stored[1].clone()]);
    assert_eq!(buffer.words([PAGE]), [word(vas[1] + PAGE, 1)]);
    assert!(![&spin, &bound[0], &stored[0]].iter().any(|job| job.finished().is_signaled()));
    world.wait_all(&[spin, bound[0].clone(), stored[0].clone()]);
    assert_eq!(buffer.words([0]), [word(vas[0], 1)]);
    drop((buffer, queues, second_binder));
    assert_eq!(world.end(), 0);
}

#[test]
fn bind_array_twice_and_many_and_exec_queue_twice_and_many() {
    for (count, own_queue) in [(2, false), (16, false), (2, true), (16, true)] {
        let world = world(8, 1);
        let buffer = world.buffer(PAGE);
        let own = own_queue.then(|| SimVm::new(&world.client).unwrap());
        let binder = own.as_ref().unwrap_or(&world.vm);
        let vas: Vec<_> = (0..count).map(|at| ADDR + at * PAGE).collect();
        let maps: Vec<_> = vas.iter().map(|va| map(&buffer, *va, PAGE, 0)).collect();
        let bound = binder.bind(&maps, Vec::new()).unwrap();
        // Each through another of the mappings, to a place of its own.
        let stored: Vec<_> = (0..).zip(&vas).map(|(at, va)| world.store(va + at * 64, 1)).collect();
        let unmaps: Vec<_> = vas.iter().map(|va| unmap(*va, PAGE)).collect();
        world.wait(&binder.bind(&unmaps, after(stored.last().unwrap())).unwrap());
        world.wait(&bound);
        let written: Vec<_> = (0..).zip(&vas).map(|(at, va)| word(va + at * 64, 1)).collect();
        assert_eq!(buffer.words((0..count).map(|at| at * 64)), written);
        drop((buffer, own));
        assert_eq!(world.end(), 0);
    }
}

/// Three maps and an unmap over them, as one batch or one by one; what is left can be written.
#[test]
fn bind_array_conflict_and_no_array_conflict_and_error_inject() {
    for (name, array, inject) in
        [("array-conflict", true, false), ("no-array-conflict", false, false), ("error-inject", true, true)]
    {
        let world = world(40, 1);
        let (buffer, other) = (world.buffer(8 * MIB), world.buffer(8 * MIB));
        let at = |mib: u64, mibs: u64| map(&buffer, WINDOWS + mib * MIB, mibs * MIB, mib * MIB);
        let requests = [at(0, 1), at(1, 2), at(3, 3), unmap(WINDOWS + MIB, 4 * MIB)];
        if inject {
            world.wait(&world.bind(&[map(&other, WINDOWS, MIB, 0)]));
            world.wait(&world.store(WINDOWS, 1));
            // No memory for page tables: nothing is bound, and what was still works.
            let mut hog = Vec::new();
            let mut size = 8 * MIB;
            while size >= PAGE {
                match world.vm.external(size) {
                    Ok(bo) => hog.push(bo),
                    Err(_) => size /= 2,
                }
            }
            let refused = world.vm.bind(&requests, Vec::new());
            assert!(matches!(refused, Err(SimVmError::Memory(_))), "{refused:?}");
            assert_eq!(world.mappings(), 1);
            drop(hog);
            world.wait(&world.store(WINDOWS + MIB / 2, 1));
            assert_eq!(other.words([0, MIB / 2]), [word(WINDOWS, 1), word(WINDOWS + MIB / 2, 1)]);
        }
        if array {
            world.bind(&requests);
        } else {
            requests.iter().for_each(|request| drop(world.bind(core::slice::from_ref(request))));
        }
        let offsets = [0, MIB / 2, MIB / 4, 5 * MIB];
        world.wait_all(&offsets.map(|offset| world.store(WINDOWS + offset, 2)));
        assert_eq!(buffer.words(offsets), offsets.map(|offset| word(WINDOWS + offset, 2)), "bind-{name}");
        world.faults(WINDOWS + MIB);
        world.faults(WINDOWS + 5 * MIB - PAGE);
        drop((buffer, other));
        assert_eq!(world.end(), 2, "bind-{name}");
    }
}

/// One bind, or two halves, aligned or a page off; sixteen writes through four queues, the last to the last page.
fn large_binds(bytes: u64, split: bool, misaligned: bool) {
    let world = world(2 * (bytes / MIB).next_power_of_two().max(4), 1);
    let buffer = world.buffer(bytes);
    let base = VM_START + (1 << 30) - if misaligned { PAGE } else { 0 };
    let halves = if split { vec![(0, bytes / 2), (bytes / 2, bytes / 2)] } else { vec![(0, bytes)] };
    for (offset, len) in &halves {
        world.bind(&[map(&buffer, base + offset, *len, *offset)]);
    }
    let queues: Vec<_> = (0..4).map(|_| world.client.another_queue(ClientConfig::default()).unwrap()).collect();
    let offsets: Vec<_> = (0..15).map(|at| (at * (bytes / 16)) & !3).chain([bytes - 0x1000]).collect();
    let stored: Vec<_> =
        offsets.iter().enumerate().map(|(at, offset)| world.store_on(&queues[at % 4], base + offset, 1)).collect();
    let all: Vec<_> = stored.iter().flat_map(after).collect();
    for (offset, len) in halves {
        world.wait(&world.vm.bind(&[unmap(base + offset, len)], all.clone()).unwrap());
    }
    world.wait_all(&stored);
    assert_eq!(buffer.words(offsets.iter().copied()), offsets.iter().map(|at| word(base + at, 1)).collect::<Vec<_>>());
    drop((buffer, queues));
    assert_eq!(world.end(), 0, "{bytes} {split} {misaligned}");
}

#[test]
fn large_binds_2097152_to_67108864_split_and_misaligned() {
    for bytes in LARGE {
        for (split, misaligned) in [(false, false), (true, false), (false, true), (true, true)] {
            large_binds(bytes, split, misaligned);
        }
    }
}

#[test]
fn mixed_binds_3145728_and_misaligned() {
    large_binds(3 * MIB, false, false);
    large_binds(3 * MIB, false, true);
}

/// Name; pages bound; in how many binds; the window's first page and pages.
type Section = (&'static str, u64, u64, u64, u64);

const MUNMAP: [Section; 15] = [
    ("all", 4, 2, 0, 4),
    ("one-partial", 4, 1, 1, 2),
    ("either-side-partial", 4, 2, 1, 2),
    ("either-side-partial-hammer", 6, 2, 2, 2),
    ("either-side-partial-split-page-hammer", 6 * 512, 2, 2, 2 * 512),
    ("either-side-partial-large-page-hammer", 6 * 512, 2, 2 * 512, 2 * 512),
    ("either-side-full", 4, 4, 1, 2),
    ("end", 4, 2, 0, 3),
    ("front", 4, 2, 1, 3),
    ("many-all", 32, 16, 0, 32),
    ("many-either-side-partial", 32, 16, 1, 30),
    ("many-either-side-partial-hammer", 32, 16, 2, 28),
    ("many-either-side-full", 32, 32, 8, 16),
    ("many-end", 32, 4, 0, 26),
    ("many-front", 32, 4, 6, 26),
];

const MMAP: [Section; 12] = [
    ("all", 4, 2, 0, 4),
    ("one-partial", 4, 1, 1, 2),
    ("either-side-partial", 4, 2, 1, 2),
    ("either-side-full", 4, 4, 1, 2),
    ("either-side-partial-hammer", 4, 2, 1, 2),
    ("either-side-partial-split-page-hammer", 4 * 512, 2, 1, 2 * 512),
    ("either-side-partial-large-page-hammer", 4 * 512, 2, 512, 2 * 512),
    ("end", 4, 2, 0, 3),
    ("front", 4, 2, 1, 3),
    ("many-all", 32, 16, 0, 32),
    ("many-either-side-partial", 32, 16, 1, 30),
    ("many-either-side-partial-hammer", 32, 16, 1, 30),
];

/// Pages bound, written, and changed in a window, while a job may hammer the first page all the time.
struct Window<'a> {
    world: &'a World,
    section: Section,
    hammer: Option<(SimQueue, Vec<JobFences>)>,
}

impl<'a> Window<'a> {
    fn new(world: &'a World, section: Section, buffer: &Buffer) -> Self {
        let (name, pages, binds, ..) = section;
        let len = pages / binds * PAGE;
        for at in 0..binds {
            world.bind(&[map(buffer, WINDOWS + at * len, len, at * len)]);
        }
        let queue = name.ends_with("hammer").then(|| world.client.another_queue(ClientConfig::default()).unwrap());
        let mut window = Self { world, section, hammer: queue.map(|queue| (queue, Vec::new())) };
        window.strike();
        window
    }

    /// A job on the first page, behind the one before, that is on the hardware whatever comes next.
    fn strike(&mut self) {
        let Some((queue, struck)) = &mut self.hammer else { return };
        struck.last().inspect(|job| self.world.wait(job));
        let (va, work) = (WINDOWS + PAGE / 2, Work::Store(struck.len() as u32 + 1));
        let job = self.world.vm.submit(queue, JobSpec::new(50 * MS, work), va, work.data_bytes()).unwrap();
        self.world.host.run_for(MS);
        assert!(job.scheduled().is_signaled() && !job.finished().is_signaled());
        struck.push(job);
    }

    fn is_inside(&self, page: u64) -> bool {
        let (.., from, count) = self.section;
        (from..from + count).contains(&page)
    }

    /// Pages to write: all of few, those at edges of many; not the one that is hammered.
    fn pages(&self) -> Vec<u64> {
        let (_, pages, _, from, count) = self.section;
        let edges = [1, from.saturating_sub(1), from, from + 511, from + count - 1, from + count, 511, 512, pages - 1];
        let mut all: Vec<_> = if pages <= 32 { (0..pages).collect() } else { edges.to_vec() };
        all.retain(|page| *page < pages && (self.hammer.is_none() || *page > 0));
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Writes to these pages and waits.
    fn store(&self, pages: &[u64], round: u32) {
        let jobs: Vec<_> = pages.iter().map(|page| self.world.store(WINDOWS + page * PAGE, round)).collect();
        self.world.wait_all(&jobs);
    }

    fn check(&self, buffer: &Buffer, pages: &[u64], round: u32) {
        let written: Vec<_> = pages.iter().map(|page| word(WINDOWS + page * PAGE, round)).collect();
        assert_eq!(buffer.words(pages.iter().map(|page| page * PAGE)), written, "{}", self.section.0);
    }

    /// The hammer has hit what it was to hit.
    fn end(self, buffer: &Buffer) {
        let Some((queue, struck)) = self.hammer else { return };
        self.world.wait_all(&struck);
        assert_eq!(buffer.words([PAGE / 2]), [struck.len() as u32], "{}", self.section.0);
        drop(queue);
    }
}

#[test]
fn munmap_style_unbind() {
    for section in MUNMAP {
        let (name, pages, _, from, count) = section;
        let world = world(if pages > 32 { 32 } else { 4 }, 2);
        let buffer = world.buffer(pages * PAGE);
        let mut window = Window::new(&world, section, &buffer);
        let all = window.pages();
        window.store(&all, 1);
        // Behind what was written, beside the hammer.
        world.wait(&world.bind(&[unmap(WINDOWS + from * PAGE, count * PAGE)]));
        window.check(&buffer, &all, 1);
        window.strike();
        let left: Vec<_> = all.iter().copied().filter(|page| !window.is_inside(*page)).collect();
        window.store(&left, 2);
        window.check(&buffer, &left, 2);
        assert!(all.iter().all(|page| {
            let mapped = world.vm.vm().edit().unwrap().find(WINDOWS + page * PAGE).is_some();
            mapped != window.is_inside(*page)
        }));
        // The hole can be bound again.
        world.wait(&world.bind(&[map(&buffer, WINDOWS + from * PAGE, count * PAGE, from * PAGE)]));
        window.strike();
        window.store(&all, 3);
        window.check(&buffer, &all, 3);
        window.end(&buffer);
        drop(buffer);
        assert_eq!(world.end(), 0, "munmap-style-unbind-{name}");
    }
}

#[test]
fn mmap_style_bind() {
    for section in MMAP {
        let (name, pages, _, from, count) = section;
        let world = world(if pages > 32 { 32 } else { 4 }, 2);
        let (buffer, other) = (world.buffer(pages * PAGE), world.buffer(pages * PAGE));
        let mut window = Window::new(&world, section, &buffer);
        let all = window.pages();
        window.store(&all, 1);
        world.wait(&world.bind(&[map(&other, WINDOWS + from * PAGE, count * PAGE, from * PAGE)]));
        window.check(&buffer, &all, 1);
        window.strike();
        window.store(&all, 2);
        let (inside, outside): (Vec<_>, Vec<_>) = all.iter().copied().partition(|page| window.is_inside(*page));
        window.check(&other, &inside, 2);
        window.check(&buffer, &inside, 1);
        window.check(&buffer, &outside, 2);
        window.end(&buffer);
        drop((buffer, other));
        assert_eq!(world.end(), 0, "mmap-style-bind-{name}");
    }
}

/// More is bound than there is memory: what was bound can be; a job that may touch all of it cannot run, until some of it goes.
#[test]
fn overcommit_nonfault_vram_no_lr() {
    let world = world(16, 1);
    let mut buffers: Vec<Buffer> = Vec::new();
    while buffers.len() < 8 {
        match world.vm.local(4 * MIB) {
            Ok(bo) => {
                let pair = world.vm.open(&bo).unwrap();
                buffers.push(Buffer { bo, pair });
            }
            Err(SimVmError::Memory(_)) => {
                let resident = buffers.iter().find(|buffer| buffer.bo.is_resident());
                world.vm.evict(&resident.expect("somebody has the memory").bo).unwrap();
            }
            Err(other) => panic!("{other}"),
        }
    }
    let va = |at: usize| VM_START + at as u64 * 4 * MIB;
    for (at, buffer) in buffers.iter().enumerate() {
        world.wait(&world.bind(&[map(buffer, va(at), 4 * MIB, 0)]));
    }
    let work = Work::Store(1);
    let refused = world.vm.submit(&world.client, JobSpec::new(MS, work), va(0), work.data_bytes());
    assert!(matches!(refused, Err(SimVmError::Memory(_))), "{refused:?}");
    // Those that are left remain usable.
    buffers.truncate(3);
    world.host.settle();
    world.wait_all(&[0, 1, 2].map(|at| world.store(va(at), 2)));
    for (at, buffer) in buffers.iter().enumerate() {
        assert_eq!(buffer.words([0]), [word(va(at), 2)]);
    }
    drop(buffers);
    assert_eq!(world.end(), 0);
}
