//! What the public suites `xe_vm` and `panthor_vm` of IGT check without their hardware, under their names: which pages survive,
//! that a hole can be bound again, and what is refused. Where a name fixes no sizes, they are ours.
#![expect(clippy::unwrap_used, reason = "tests may panic")]

use outlive::vm::{BoId, Flags, Geometry, Request, Rule, Source, Space, Step, VaRange};

const PAGE: u64 = 0x1000;
/// Pages of a huge page.
const HUGE: u64 = 512;
const BASE: u64 = 0x1a_0000 * PAGE;

struct Vm {
    space: Space<()>,
    bo: BoId,
}

fn vm() -> Vm {
    let mut space = Space::new(Geometry { base: 0, len: 1 << 48, page: PAGE }).unwrap();
    let bo = space.open_bo(64 * HUGE * PAGE, ()).unwrap();
    Vm { space, bo }
}

impl Vm {
    fn source(&self, page: u64) -> Source {
        Source::Bo { bo: self.bo, offset: page * PAGE }
    }

    fn map(&self, page: u64, pages: u64, at: u64) -> Request {
        map(page, pages, self.source(at))
    }

    fn run(&mut self, requests: &[Request]) -> Vec<Step> {
        self.space.plan(requests).unwrap().commit().steps().to_vec()
    }

    fn refused(&mut self, requests: &[Request]) -> (usize, Rule) {
        let error = self.space.plan(requests).unwrap_err();
        (error.request, error.rule)
    }

    /// Which page of the buffer is behind `page`, if any.
    fn page(&self, page: u64) -> Option<u64> {
        let va = BASE + page * PAGE;
        let found = self.space.find(va)?;
        match found.source {
            Source::Bo { offset, .. } => Some((offset + va - found.range.base()) / PAGE),
            Source::Repeated { .. } | Source::Sparse => None,
        }
    }

    fn is_sparse(&self, page: u64) -> bool {
        self.space.find(BASE + page * PAGE).is_some_and(|found| found.source == Source::Sparse)
    }
}

fn map(page: u64, pages: u64, source: Source) -> Request {
    Request::Map { va: BASE + page * PAGE, len: pages * PAGE, source, flags: Flags::NONE, data: () }
}

fn unmap(page: u64, pages: u64) -> Request {
    Request::Unmap { va: BASE + page * PAGE, len: pages * PAGE }
}

/// Name, pages bound, in how many binds, the window's first page and its pages.
const STYLES: [(&str, u64, u64, u64, u64); 11] = [
    ("all", 4, 2, 0, 4),
    ("one-partial", 4, 1, 1, 2),
    ("either-side-partial", 4, 2, 1, 2),
    ("either-side-full", 4, 4, 1, 2),
    ("end", 4, 2, 0, 3),
    ("front", 4, 2, 1, 3),
    ("many-all", 32, 16, 0, 32),
    ("many-either-side-partial", 32, 16, 1, 30),
    ("many-either-side-full", 32, 32, 8, 16),
    ("many-end", 32, 4, 0, 26),
    ("many-front", 32, 4, 6, 26),
];

fn bound(pages: u64, binds: u64) -> Vm {
    let mut vm = vm();
    let each = pages / binds;
    let requests: Vec<_> = (0..binds).map(|bind| vm.map(bind * each, each, bind * each)).collect();
    vm.run(&requests);
    vm
}

#[test]
fn xe_vm_munmap_style_unbind() {
    for scale in [1, HUGE / 2] {
        for (name, pages, binds, from, count) in STYLES {
            let (pages, from, count) = (pages * scale, from * scale, count * scale);
            let mut vm = bound(pages, binds);
            let steps = vm.run(&[unmap(from, count)]);
            assert!(steps.iter().all(|step| !step.keep()), "{name}");
            for page in 0..pages {
                let gone = (from..from + count).contains(&page);
                assert_eq!(vm.page(page), (!gone).then_some(page), "munmap-style-unbind-{name}, page {page}");
            }
            // The hole can be bound again, and the surviving pages do not notice.
            vm.run(&[vm.map(from, count, from)]);
            assert!((0..pages).all(|page| vm.page(page) == Some(page)), "munmap-style-unbind-{name}: bound again");
        }
    }
}

#[test]
fn xe_vm_mmap_style_bind() {
    for (name, pages, binds, from, count) in STYLES {
        let mut vm = bound(pages, binds);
        let steps = vm.run(&[vm.map(from, count, 1000)]);
        assert!(matches!(steps.last(), Some(Step::Map { .. })), "{name}");
        for page in 0..pages {
            let new = (from..from + count).contains(&page);
            let wanted = if new { 1000 + page - from } else { page };
            assert_eq!(vm.page(page), Some(wanted), "mmap-style-bind-{name}, page {page}");
        }
    }
}

#[test]
fn xe_vm_bind_array_conflict() {
    // Entries of one array that overlap are carried out in order, as one.
    let mut vm = vm();
    let array = [vm.map(0, 10, 0), unmap(2, 4), vm.map(4, 4, 100), unmap(0, 1), vm.map(3, 1, 50)];
    let steps = vm.run(&array);
    assert_eq!(steps.iter().filter(|step| matches!(step, Step::Map { .. })).count(), 3);
    let pages = [None, Some(1), None, Some(50), Some(100), Some(101), Some(102), Some(103), Some(8), Some(9)];
    assert!((0..10).map(|page| vm.page(page)).eq(pages));
}

#[test]
fn xe_vm_overcommit_leaves_what_is_bound() {
    let mut vm = vm();
    vm.space.set_limit(2);
    vm.run(&[vm.map(0, 1, 0), vm.map(2, 1, 2)]);
    let (request, rule) = vm.refused(&[unmap(0, 1), vm.map(4, 1, 4), vm.map(6, 1, 6)]);
    assert_eq!((request, rule), (2, Rule::TooMany { limit: 2 }));
    assert_eq!((vm.page(0), vm.page(2), vm.page(4)), (Some(0), Some(2), None));
}

#[test]
fn panthor_vm_unbind_invalid_address() {
    let mut vm = vm();
    let unaligned = Request::Unmap { va: BASE + 1, len: PAGE };
    assert!(matches!(vm.refused(&[unaligned]), (0, Rule::Range(_))));
    let outside = Request::Unmap { va: 1 << 48, len: PAGE };
    assert!(matches!(vm.refused(&[outside]), (0, Rule::Outside { .. })));
    assert_eq!(vm.run(&[unmap(0, 1)]), [], "nothing is mapped there");
}

#[test]
fn panthor_vm_bind_intersect_kbo_range() {
    let mut vm = vm();
    vm.space.reserve_range(VaRange::new(BASE + 8 * PAGE, 8 * PAGE, PAGE).unwrap()).unwrap();
    for (page, pages) in [(7, 2), (8, 8), (10, 1), (15, 2), (0, 32)] {
        assert!(matches!(vm.refused(&[vm.map(page, pages, 0)]), (0, Rule::ReservedRange { .. })));
    }
    vm.run(&[vm.map(0, 8, 0), vm.map(16, 8, 16)]);
}

#[test]
fn panthor_vm_unbind_identical_hugepage_and_unbind_hugepage() {
    // Name, pages unbound of four huge pages; how many huge pages must be split.
    let cases = [
        ("identical_hugepage_single", HUGE, HUGE, 0),
        ("identical_hugepage_single_partial", HUGE, HUGE / 2, 1),
        ("identical_hugepage_multiple", 0, 4 * HUGE, 0),
        ("identical_hugepage_offset", 2 * HUGE, 2 * HUGE, 0),
        ("hugepage_leftaligned", HUGE, 3, 1),
        ("hugepage_rightaligned", 2 * HUGE - 3, 3, 1),
        ("hugepage_superset", HUGE - 1, HUGE + 2, 2),
        ("hugepage_subset", HUGE + 1, HUGE - 2, 1),
        ("hugepage_successive", HUGE + 7, HUGE, 2),
    ];
    for (name, from, count, splits) in cases {
        let mut vm = vm();
        vm.run(&[vm.map(0, 4 * HUGE, 0)]);
        assert_eq!(vm.space.plan(&[unmap(from, count)]).unwrap().splits(21), splits, "vm_unbind_{name}");
        vm.run(&[unmap(from, count)]);
        for page in 0..4 * HUGE {
            let gone = (from..from + count).contains(&page);
            assert_eq!(vm.page(page), (!gone).then_some(page), "vm_unbind_{name}, page {page}");
        }
    }
}

#[test]
fn panthor_vm_bind_sparse_and_its_partial_unmaps_and_remaps() {
    // Name, first page and pages of the window in a sparse mapping of four huge pages from page zero on.
    let windows = [
        ("start_size_unaligned", 3, 5),
        ("start_size_aligned", HUGE, HUGE),
        ("start_aligned_no_hugepage_multiple", HUGE, HUGE + 1),
        ("start_unaligned", 5, HUGE - 5),
        ("aligned_split_original_va", 2 * HUGE, HUGE),
        ("start_aligned_size_unaligned", HUGE, 3),
    ];
    for (name, from, count) in windows {
        let mut vm = vm();
        vm.run(&[map(0, 4 * HUGE, Source::Sparse)]);
        let inside = |page: u64| (from..from + count).contains(&page);
        vm.run(&[unmap(from, count)]);
        assert!((0..4 * HUGE).all(|page| vm.is_sparse(page) != inside(page)), "vm_bind_sparse_partial_unmap_{name}");
        vm.run(&[map(0, 4 * HUGE, Source::Sparse)]);
        vm.run(&[vm.map(from, count, from)]);
        assert!((0..4 * HUGE).all(|page| vm.is_sparse(page) != inside(page)), "vm_bind_sparse_remap_{name}");
        assert!((from..from + count).all(|page| vm.page(page) == Some(page)), "vm_bind_sparse_remap_{name}");
        // Sparse again: what is sparse already may keep its entries.
        let steps = vm.run(&[map(0, 4 * HUGE, Source::Sparse)]);
        let kept = steps.iter().filter(|step| step.keep()).count();
        assert_eq!(kept, steps.len() - 2, "vm_bind_sparse_remap_{name}: all but the buffer and the map");
        assert_eq!(vm.space.len(), 1);
    }
}

#[test]
fn panthor_vm_bind_sparse_partial_unmap_below_start_and_above_start() {
    for (name, from, count) in [("below_start", 0, HUGE), ("above_start", 3 * HUGE, 2 * HUGE)] {
        let mut vm = vm();
        // Starts half a huge page late, and ends half of one late.
        vm.run(&[map(HUGE / 2, 3 * HUGE, Source::Sparse)]);
        let steps = vm.run(&[unmap(from, count)]);
        assert!(matches!(steps[..], [Step::Remap { .. }]), "{name}");
        let left = |page: u64| (HUGE / 2..7 * HUGE / 2).contains(&page) && !(from..from + count).contains(&page);
        assert!((0..5 * HUGE).all(|page| vm.is_sparse(page) == left(page)), "vm_bind_sparse_partial_unmap_{name}");
    }
}
