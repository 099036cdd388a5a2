//! `panthor_vm`. Upstream asserts return codes only; here what is mapped is written and what is not faults, too.

use super::*;
use outlive::vm::Rule;
use outlive_sim::driver::SimVmError;

/// Where upstream's addresses begin here.
const BASE: u64 = VM_START;

/// What is run here, by upstream's names.
pub(super) fn names() -> Vec<String> {
    let single = [
        "vm_create_destroy",
        "vm_bind",
        "vm_unbind",
        "vm_unbind_invalid_address",
        "vm_bind_intersect_kbo_range",
        "vm_bind_sparse",
        "vm_bind_sparse_overflow",
        "vm_unbind_sparse_overflow",
    ];
    let identical =
        ["single", "single_partial", "multiple", "offset"].map(|name| format!("vm_unbind_identical_hugepage_{name}"));
    let hugepage = ["leftaligned", "rightaligned", "superset", "subset", "successive"];
    let partial = PARTIAL_UNMAPS.map(|(name, ..)| format!("vm_bind_sparse_partial_unmap_{name}"));
    let remap = REMAPS.map(|(name, ..)| format!("vm_bind_sparse_remap{name}"));
    let hugepage = hugepage.map(|name| format!("vm_unbind_hugepage_{name}"));
    single.map(str::to_owned).into_iter().chain(identical).chain(hugepage).chain(partial).chain(remap).collect()
}

/// What is expected somewhere after a case: a page of the buffer, zeros, or a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// The word at this offset of the buffer.
    At(u64),
    Sparse,
    Nothing,
}
use Found::{At, Nothing, Sparse};

fn plan_error(refused: Result<JobFences, SimVmError>) -> Rule {
    match refused {
        Err(SimVmError::Plan(error)) => error.rule,
        other => panic!("not refused by a rule: {other:?}"),
    }
}

impl World {
    /// What a job finds at `va`.
    fn find(&self, buffer: &Buffer, va: u64, expected: Found) {
        match expected {
            At(offset) => {
                self.wait(&self.store(va, 1));
                assert_eq!(buffer.words([offset]), [word(va, 1)], "{va:#x}");
            }
            Sparse => {
                // What is written is dropped; what is read is zero.
                self.wait(&self.store(va, 1));
                let seen = self.buffer(PAGE);
                let at = BASE + (1 << 40);
                self.wait(&self.bind(&[map(&seen, at, PAGE, 0)]));
                self.wait(&self.store(at, 2));
                let load = Work::Load(outlive_sim::gpu::Va(va));
                self.wait(&self.vm.submit(&self.client, JobSpec::new(MS, load), at, PAGE).unwrap());
                assert_eq!(seen.words([0]), [0], "{va:#x}");
                self.wait(&self.bind(&[unmap(at, PAGE)]));
            }
            Nothing => self.faults(va),
        }
    }
}

/// Carries out each request through the bind queue, then looks.
fn case(name: &str, buffer_bytes: u64, requests: impl Fn(&Buffer) -> Vec<Request>, found: &[(u64, Found)]) {
    let world = world(16, 1);
    let buffer = world.buffer(buffer_bytes);
    for request in requests(&buffer) {
        world.wait(&world.bind(&[request]));
    }
    for (va, expected) in found {
        world.find(&buffer, BASE + va, *expected);
    }
    drop(buffer);
    let faults = found.iter().filter(|(_, expected)| *expected == Nothing).count() as u64;
    assert_eq!(world.end(), faults, "{name}");
}

#[test]
fn vm_create_destroy() {
    assert_eq!(world(4, 1).end(), 0);
}

#[test]
fn vm_bind_and_unbind() {
    let bind = |buffer: &Buffer| vec![map(buffer, BASE + 0x1000, 0x1000, 0)];
    case("vm_bind", PAGE, bind, &[(0x1000, At(0)), (0x2000, Nothing)]);
    let unbind = |buffer: &Buffer| [bind(buffer), vec![unmap(BASE + 0x1000, 0x1000)]].concat();
    case("vm_unbind", PAGE, unbind, &[(0x1000, Nothing)]);
}

/// What was never bound is unbound without a word; what cannot be bound is refused.
#[test]
fn vm_unbind_invalid_address() {
    let world = world(4, 1);
    world.wait(&world.bind(&[unmap(BASE + 0x1000, 0x1000)]));
    let refused = |request| plan_error(world.vm.bind(&[request], Vec::new()));
    assert!(matches!(refused(unmap(BASE + 1, 0x1000)), Rule::Range(_)));
    assert!(matches!(refused(unmap(1 << 48, 0x1000)), Rule::Outside { .. }));
    assert_eq!(world.end(), 0);
}

/// Of a buffer of `size` that is bound from 2 MiB on, so many bytes from `from` on are unbound.
fn unbind_hugepage(name: &str, size: u64, (offset, len): (u64, u64), (from, gone): (u64, u64)) {
    let start = 2 * MIB;
    let requests = |buffer: &Buffer| vec![map(buffer, BASE + start, len, offset), unmap(BASE + from, gone)];
    let inside = |va: u64| (start..start + len).contains(&va) && !(from..from + gone).contains(&va);
    let edges = [start, start + len - PAGE, from.saturating_sub(PAGE), from + gone, from, from + gone - PAGE];
    let mut found: Vec<_> =
        edges.into_iter().map(|va| (va, if inside(va) { At(va - start + offset) } else { Nothing })).collect();
    found.sort_unstable_by_key(|(va, _)| *va);
    found.dedup();
    case(name, size, requests, &found);
}

#[test]
fn vm_unbind_identical_hugepage_single_partial_multiple_and_offset() {
    unbind_hugepage("single", 2 * MIB, (0, 2 * MIB), (2 * MIB, 2 * MIB));
    unbind_hugepage("single_partial", 4 * MIB, (0, 2 * MIB), (2 * MIB, 2 * MIB));
    unbind_hugepage("multiple", 6 * MIB, (0, 6 * MIB), (2 * MIB, 6 * MIB));
    unbind_hugepage("offset", 6 * MIB, (2 * MIB, 4 * MIB), (2 * MIB, 6 * MIB));
}

#[test]
fn vm_unbind_hugepage_leftaligned_rightaligned_superset_and_subset() {
    unbind_hugepage("leftaligned", 4 * MIB, (0, 4 * MIB), (2 * MIB, 8 * KIB));
    unbind_hugepage("rightaligned", 4 * MIB, (0, 4 * MIB), (6 * MIB - 8 * KIB, 8 * KIB));
    unbind_hugepage("superset", 2 * MIB, (0, 2 * MIB), (MIB, 5 * MIB));
    let both = [(3 * MIB, 8 * KIB), (4 * MIB + 4 * KIB, 8 * KIB)];
    let requests = |buffer: &Buffer| {
        let gone = both.iter().map(|(from, len)| unmap(BASE + from, *len));
        core::iter::once(map(buffer, BASE + 2 * MIB, 4 * MIB, 0)).chain(gone).collect()
    };
    let found = both.iter().flat_map(|(from, len)| {
        let edges = [(from - PAGE, At(from - PAGE - 2 * MIB)), (from + len, At(from + len - 2 * MIB))];
        edges.into_iter().chain([(*from, Nothing), (from + len - PAGE, Nothing)])
    });
    case("subset", 4 * MIB, requests, &found.collect::<Vec<_>>());
}

#[test]
fn vm_unbind_hugepage_successive() {
    let gone = [
        (0x3f_c000, 0x20_8000),
        (0x3f_c000, 0x20_8000),
        (0x20_0000, 0x4000),
        (0x40_1000, 0x4000),
        (0x4f_b000, 0xa000),
        (0x3f_b000, 0xa000),
        (0x3f_c000, 0x4000),
        (0x20_0000, 0x1000),
    ];
    let requests = |buffer: &Buffer| {
        let all = gone.iter().map(|(from, len)| unmap(BASE + from, *len));
        core::iter::once(map(buffer, BASE + 2 * MIB, 6 * MIB, 0)).chain(all).collect()
    };
    let edges = [0x20_4000, 0x3f_a000, 0x60_4000, 0x7f_f000].map(|va| (va, At(va - 2 * MIB)));
    let holes = [0x20_0000, 0x20_3000, 0x3f_b000, 0x40_0000, 0x4f_f000, 0x60_3000].map(|va| (va, Nothing));
    case("successive", 6 * MIB, requests, &[&edges[..], &holes[..]].concat());
}

/// The driver's own range is not users'.
#[test]
fn vm_bind_intersect_kbo_range() {
    let world = world(8, 1);
    let buffer = world.buffer(2 * MIB);
    for va in [VM_START - 2 * MIB, VM_START - PAGE, 0x10_0000] {
        let refused = world.vm.bind(&[map(&buffer, va, 2 * MIB, 0)], Vec::new());
        assert!(matches!(refused, Err(SimVmError::Driver(_))), "{refused:?}");
    }
    drop(buffer);
    assert_eq!(world.end(), 0);
}

#[test]
fn vm_bind_sparse() {
    let requests = |_: &Buffer| vec![sparse(BASE + 2 * MIB, 16 * KIB)];
    let found = [(2 * MIB, Sparse), (2 * MIB + 12 * KIB, Sparse), (2 * MIB + 16 * KIB, Nothing)];
    case("sparse", PAGE, requests, &found);
}

/// Where sparse ranges of 6 MiB begin.
const START: u64 = 4 * MIB;
const END: u64 = START + 6 * MIB;

/// Name, from where, and how much.
type Range = (&'static str, u64, u64);

const PARTIAL_UNMAPS: [Range; 5] = [
    ("start_size_unaligned", START, 8 * KIB),
    ("start_size_aligned", START, 2 * MIB),
    ("start_aligned_no_hugepage_multiple", START, 256 * KIB),
    ("below_start", START - 2 * MIB, 6 * MIB),
    ("above_start", START + 2 * MIB, 2 * MIB),
];

const REMAPS: [Range; 10] = [
    ("", START + 2 * MIB, 4 * MIB),
    ("_start_unaligned", END - MIB, 4 * MIB),
    ("_start_size_unaligned", END - MIB, MIB),
    ("_start_size_aligned", END - 2 * MIB, 4 * MIB),
    ("_aligned_split_original_va", START + 2 * MIB, 2 * MIB),
    ("_start_aligned_size_unaligned", START + 2 * MIB, MIB),
    ("_aligned_intersect_left", START - 2 * MIB, 4 * MIB),
    ("_size_unaligned_intersect_left", START - 2 * MIB, 3 * MIB),
    ("_start_aligned_intersect_right", END - 2 * MIB, 2 * MIB + 24 * KIB),
    ("_wrap_around_va", START - 2 * MIB, 8 * MIB),
];

#[test]
fn vm_bind_sparse_partial_unmap() {
    for (name, from, len) in PARTIAL_UNMAPS {
        let requests = |_: &Buffer| vec![sparse(BASE + START, 6 * MIB), unmap(BASE + from, len)];
        let inside = |va: u64| (START..END).contains(&va) && !(from..from + len).contains(&va);
        let edges = [START, from, from + len - PAGE, from + len, END - PAGE];
        let mut found = edges.map(|va| (va, if inside(va) { Sparse } else { Nothing })).to_vec();
        found.dedup();
        case(name, PAGE, requests, &found);
    }
}

#[test]
fn vm_bind_sparse_remap() {
    for (name, from, len) in REMAPS {
        let requests = |buffer: &Buffer| vec![sparse(BASE + START, 6 * MIB), map(buffer, BASE + from, len, 0)];
        let expected = |va: u64| match va {
            va if (from..from + len).contains(&va) => At(va - from),
            va if (START..END).contains(&va) => Sparse,
            _ => Nothing,
        };
        let edges = [START, from - PAGE, from, from + len - PAGE, from + len, END - PAGE, END];
        let mut found = edges.map(|va| (va, expected(va))).to_vec();
        found.sort_unstable_by_key(|(va, _)| *va);
        found.dedup();
        case(name, 8 * MIB, requests, &found);
    }
}

#[test]
fn vm_bind_sparse_overflow_and_unbind_sparse_overflow() {
    let world = world(4, 1);
    let most = !(2 * MIB - 1);
    let refused = |request| plan_error(world.vm.bind(&[request], Vec::new()));
    assert!(matches!(refused(sparse(BASE + 512 * MIB, most - 6 * MIB)), Rule::Range(_) | Rule::Outside { .. }));
    world.wait(&world.bind(&[sparse(BASE + 512 * MIB, 6 * MIB)]));
    assert!(matches!(refused(unmap(BASE + 512 * MIB, most - 6 * MIB)), Rule::Range(_) | Rule::Outside { .. }));
    assert_eq!(world.mappings(), 1);
    assert_eq!(world.end(), 0);
}
