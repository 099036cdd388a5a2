//! What a driver is given to do: the fifteen documented cases of `drm_gpuvm`, and the nine ways in which a request and a
//! mapping can lie, each with every relation of what is behind the two.
#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests may panic and allocate")]

use outlive::vm::{BoId, Flags, Geometry, Mapping, Request, Source, Space, Step, VaRange};

const PAGE: u64 = 0x1000;
/// Where page zero of the tables lies.
const BASE: u64 = 0x10_0000;
const BO_PAGES: u64 = 64;

struct Fixture {
    space: Space<()>,
    a: BoId,
    b: BoId,
}

fn fixture() -> Fixture {
    let mut space = Space::new(Geometry { base: 0, len: 1 << 48, page: PAGE }).unwrap();
    let a = space.open_bo(BO_PAGES * PAGE, ()).unwrap();
    let b = space.open_bo(BO_PAGES * PAGE, ()).unwrap();
    Fixture { space, a, b }
}

fn range(from: u64, to: u64) -> VaRange {
    VaRange::new(BASE + from * PAGE, (to - from) * PAGE, PAGE).unwrap()
}

fn map((from, to): (u64, u64), source: Source, flags: Flags) -> Request {
    let (va, len) = (BASE + from * PAGE, (to - from) * PAGE);
    Request::Map { va, len, source, flags, data: () }
}

fn unmap((from, to): (u64, u64)) -> Request {
    Request::Unmap { va: BASE + from * PAGE, len: (to - from) * PAGE }
}

fn mapping((from, to): (u64, u64), source: Source, flags: Flags) -> Mapping {
    Mapping { range: range(from, to), source, flags, data: () }
}

fn bo(bo: BoId, page: u64) -> Source {
    Source::Bo { bo, offset: page * PAGE }
}

fn repeated(bo: BoId, page: u64, window: u64, phase: u64) -> Source {
    Source::Repeated { bo, offset: page * PAGE, window: window * PAGE, phase: phase * PAGE }
}

fn commit(space: &mut Space<()>, requests: &[Request]) -> Vec<Step> {
    let done = space.plan(requests).unwrap().commit();
    done.steps().to_vec()
}

fn contents(space: &Space<()>) -> Vec<Mapping> {
    let owned = |mapping: Mapping<&()>| {
        let Mapping { range, source, flags, .. } = mapping;
        Mapping { range, source, flags, data: () }
    };
    space.iter().map(owned).collect()
}

/// What is expected of an old mapping, in the table's words.
#[derive(Debug, Clone, Copy)]
enum Op {
    Nothing,
    Unmap,
    Remap,
}

/// Name, old range, request's range, what happens to the old one; in pages. `next` and `prev` follow from the ranges.
type Relation = (&'static str, (u64, u64), (u64, u64), Op);

const RELATIONS: [Relation; 9] = [
    ("a: same range", (4, 8), (4, 8), Op::Unmap),
    ("b: same base, request longer", (4, 8), (4, 10), Op::Unmap),
    ("c: same base, request shorter", (4, 10), (4, 8), Op::Remap),
    ("d: request inside, same end", (2, 8), (4, 8), Op::Remap),
    ("e: request over the end", (2, 8), (4, 10), Op::Remap),
    ("f: request in the middle", (2, 10), (4, 8), Op::Remap),
    ("g: request from below, same end", (4, 8), (2, 8), Op::Unmap),
    ("h: request on both sides", (4, 8), (2, 10), Op::Unmap),
    ("i: request over the base", (4, 10), (2, 8), Op::Remap),
];

/// A relation of what is behind old and new.
struct Behind {
    name: &'static str,
    old: Source,
    old_flags: Flags,
    new: Source,
    new_flags: Flags,
    keep: bool,
}

/// Every relation, for an old mapping at page `a` and a request at page `r`; neither odd.
fn all_behind(f: &Fixture, a: u64, r: u64) -> Vec<Behind> {
    let none = Flags::NONE;
    // Where the request starts in a buffer of which the old mapping's first page is page 16.
    let goes_on = 16 + r - a;
    let of = |name, (old, old_flags), (new, new_flags), keep| Behind { name, old, old_flags, new, new_flags, keep };
    let old = bo(f.a, 16);
    let window = repeated(f.a, 8, 2, 0);
    vec![
        of("same buffer, contiguous", (old, none), (bo(f.a, goes_on), none), true),
        of("same buffer, a page further", (old, none), (bo(f.a, goes_on + 1), none), false),
        of("same buffer, a page before", (old, none), (bo(f.a, goes_on - 1), none), false),
        of("other buffer", (old, none), (bo(f.b, goes_on), none), false),
        of("sparse, sparse", (Source::Sparse, none), (Source::Sparse, none), true),
        of("sparse, buffer", (Source::Sparse, none), (bo(f.a, goes_on), none), false),
        of("buffer, sparse", (old, none), (Source::Sparse, none), false),
        of("same window", (window, none), (window, none), true),
        of("same window, out of phase", (repeated(f.a, 8, 2, 1), none), (window, none), false),
        of("other window, same length", (window, none), (repeated(f.a, 9, 2, 0), none), false),
        of("other window, same start", (window, none), (repeated(f.a, 8, 1, 0), none), false),
        of("window of another buffer", (window, none), (repeated(f.b, 8, 2, 0), none), false),
        of("buffer, window", (bo(f.a, 8), none), (window, none), false),
        of("window, buffer", (window, none), (bo(f.a, 8), none), false),
        of("read-only now", (old, none), (bo(f.a, goes_on), Flags::READ_ONLY), false),
        of("read-only no more", (old, Flags::READ_ONLY), (bo(f.a, goes_on), none), false),
        of("both read-only", (old, Flags::READ_ONLY), (bo(f.a, goes_on), Flags::READ_ONLY), true),
        of("driver's flags differ", (old, Flags::driver(5)), (bo(f.a, goes_on), Flags::driver(4)), false),
        of("sparse, flags differ", (Source::Sparse, none), (Source::Sparse, Flags::READ_ONLY), false),
        of("window, flags differ", (window, Flags::driver(1)), (window, none), false),
    ]
}

/// `source` from `pages` further on, worked out anew.
fn further(source: Source, pages: u64) -> Source {
    match source {
        Source::Bo { bo, offset } => Source::Bo { bo, offset: offset + pages * PAGE },
        Source::Repeated { bo, offset, window, phase } => {
            Source::Repeated { bo, offset, window, phase: (phase + pages * PAGE) % window }
        }
        Source::Sparse => source,
    }
}

/// Puts the old mapping there; one that is out of phase is what a longer one leaves.
fn put(space: &mut Space<()>, (a, e): (u64, u64), behind: &Behind) {
    if let Source::Repeated { phase, .. } = behind.old {
        if phase > 0 {
            let Source::Repeated { bo: id, .. } = behind.old else { unreachable!() };
            let whole = map((a - 1, e + 1), repeated(id, 8, 2, 0), behind.old_flags);
            commit(space, &[whole, unmap((a - 1, a)), unmap((e, e + 1))]);
            return;
        }
    }
    commit(space, &[map((a, e), behind.old, behind.old_flags)]);
}

/// What the table says becomes of the old mapping: its step, and what stays of it.
fn expected(
    behind: &Behind,
    (a, e): (u64, u64),
    (r, t): (u64, u64),
    op: Op,
    keep: bool,
) -> (Option<Step>, Option<Mapping>, Option<Mapping>) {
    let old = mapping((a, e), behind.old, behind.old_flags);
    let prev = (a < r).then(|| mapping((a, r), behind.old, behind.old_flags));
    let next = (t < e).then(|| mapping((t, e), further(behind.old, t - a), behind.old_flags));
    let step = match op {
        Op::Nothing => None,
        Op::Unmap => Some(Step::Unmap { mapping: old, keep }),
        Op::Remap => Some(Step::Remap { unmap: old, hole: range(a.max(r), e.min(t)), keep }),
    };
    (step, prev, next)
}

#[test]
fn nine_relations_times_what_is_behind() {
    let mut rows = 0;
    for (relation, old, request, op) in RELATIONS {
        let count = all_behind(&fixture(), old.0, request.0).len();
        for which in 0..count {
            let mut f = fixture();
            let behind = all_behind(&f, old.0, request.0).swap_remove(which);
            let name = format!("{relation}; {}", behind.name);
            put(&mut f.space, old, &behind);
            let identical = old == request && behind.keep;
            let op = if identical { Op::Nothing } else { op };
            let (step, prev, next) = expected(&behind, old, request, op, behind.keep);
            let new = mapping(request, behind.new, behind.new_flags);
            let steps = commit(&mut f.space, &[map(request, behind.new, behind.new_flags)]);
            if let Some(step) = &step {
                assert_eq!((step.prev(), step.next()), (prev, next), "{name}");
            }
            let map_step = (!identical).then_some(Step::Map { mapping: new });
            let wanted: Vec<_> = step.into_iter().chain(map_step).collect();
            assert_eq!(steps, wanted, "{name}");
            let left: Vec<_> = [prev, Some(new), next].into_iter().flatten().collect();
            assert_eq!(contents(&f.space), left, "{name}");
            rows += 1;
        }
    }
    assert_eq!(rows, 9 * 20);
}

#[test]
fn nine_relations_of_an_unmap() {
    for (relation, old, request, op) in RELATIONS {
        for which in 0..all_behind(&fixture(), old.0, request.0).len() {
            let mut f = fixture();
            let behind = all_behind(&f, old.0, request.0).swap_remove(which);
            let name = format!("{relation}; {}", behind.name);
            put(&mut f.space, old, &behind);
            let (step, prev, next) = expected(&behind, old, request, op, false);
            let steps = commit(&mut f.space, &[unmap(request)]);
            assert_eq!(steps, step.into_iter().collect::<Vec<_>>(), "{name}");
            assert_eq!(contents(&f.space), [prev, next].into_iter().flatten().collect::<Vec<_>>(), "{name}");
            assert_eq!(commit(&mut f.space, &[unmap(request)]), [], "{name}: unmapping nothing is nothing");
        }
    }
}

#[test]
fn nine_relations_of_a_change_of_flags() {
    for (relation, old, request, op) in RELATIONS {
        for which in 0..all_behind(&fixture(), old.0, request.0).len() {
            let mut f = fixture();
            let behind = all_behind(&f, old.0, request.0).swap_remove(which);
            let name = format!("{relation}; {}", behind.name);
            put(&mut f.space, old, &behind);
            let (va, len) = (BASE + request.0 * PAGE, (request.1 - request.0) * PAGE);
            let protect = Request::Protect { va, len, clear: Flags::driver(1), set: Flags::READ_ONLY };
            let steps = commit(&mut f.space, &[protect]);
            let flags = behind.old_flags.without(Flags::driver(1)).with(Flags::READ_ONLY);
            let part = (old.0.max(request.0), old.1.min(request.1));
            let changed = mapping(part, further(behind.old, part.0 - old.0), flags);
            let (step, prev, next) = expected(&behind, old, request, op, false);
            let mut wanted = Vec::new();
            if flags != behind.old_flags {
                wanted.extend(step);
                wanted.push(Step::Map { mapping: changed });
                let left: Vec<_> = [prev, Some(changed), next].into_iter().flatten().collect();
                assert_eq!(contents(&f.space), left, "{name}");
            }
            assert_eq!(steps, wanted, "{name}");
            assert_eq!(commit(&mut f.space, &[protect]), [], "{name}: the second time nothing changes");
        }
    }
}

/// A documented case: number, old range and offset, request's range, whether it is of buffer `b`, its offset; what is
/// emitted: step (`u`nmap or `r`emap), previous and next piece with its offset, keep. All in pages; n is 10, m is 30.
type Case = (u32, (u64, u64, u64), (u64, u64), bool, u64, char, Option<(u64, u64)>, Option<(u64, u64, u64)>, bool);

const N: u64 = 10;
const M: u64 = 30;

const DOCUMENTED: [Case; 17] = [
    (1, (0, 1, N), (0, 1), false, N, '-', None, None, false),
    (2, (0, 1, N), (0, 1), false, M, 'u', None, None, false),
    (3, (0, 1, N), (0, 1), true, N, 'u', None, None, false),
    (4, (0, 1, N), (0, 2), false, N, 'u', None, None, true),
    (4, (0, 1, N), (0, 2), false, M, 'u', None, None, false),
    (4, (0, 1, N), (0, 2), true, N, 'u', None, None, false),
    (5, (0, 2, N), (0, 1), true, N, 'r', None, Some((1, 2, N + 1)), false),
    (6, (0, 2, N), (0, 1), false, N, 'r', None, Some((1, 2, N + 1)), true),
    (7, (0, 2, N), (1, 2), true, M, 'r', Some((0, 1)), None, false),
    (8, (0, 2, N), (1, 2), false, N + 1, 'r', Some((0, 1)), None, true),
    (9, (0, 2, N), (1, 3), true, M, 'r', Some((0, 1)), None, false),
    (10, (0, 2, N), (1, 3), false, N + 1, 'r', Some((0, 1)), None, true),
    (11, (0, 3, N), (1, 2), true, M, 'r', Some((0, 1)), Some((2, 3, N + 2)), false),
    (12, (0, 3, N), (1, 2), false, N + 1, 'r', Some((0, 1)), Some((2, 3, N + 2)), true),
    (13, (1, 2, N + 1), (0, 2), false, N, 'u', None, None, true),
    (14, (1, 2, N + 1), (0, 3), false, N, 'u', None, None, true),
    // As the code does it: the documentation's offset n + 2 is off by one.
    (15, (1, 3, N), (0, 2), true, M, 'r', None, Some((2, 3, N + 1)), false),
];

#[test]
fn the_fifteen_documented_cases() {
    for (number, (a, e, o), request, other, offset, op, prev, next, keep) in DOCUMENTED {
        let mut f = fixture();
        let none = Flags::NONE;
        let old = mapping((a, e), bo(f.a, o), none);
        commit(&mut f.space, &[map((a, e), bo(f.a, o), none)]);
        let source = bo(if other { f.b } else { f.a }, offset);
        let steps = commit(&mut f.space, &[map(request, source, none)]);
        let new = mapping(request, source, none);
        let prev = prev.map(|range| mapping(range, bo(f.a, o), none));
        let next = next.map(|(from, to, at)| mapping((from, to), bo(f.a, at), none));
        match (op, &steps[..]) {
            // Where the documentation says that there may be no callback, there is none.
            ('-', []) => {}
            ('u', [step @ Step::Unmap { mapping, keep: kept }, Step::Map { mapping: put }]) => {
                assert_eq!((*mapping, *kept, *put), (old, keep, new), "case {number}");
                assert_eq!((step.prev(), step.next()), (prev, next), "case {number}");
            }
            ('r', [step @ Step::Remap { unmap, keep: kept, .. }, Step::Map { mapping: put }]) => {
                assert_eq!((*unmap, *kept, *put), (old, keep, new), "case {number}");
                assert_eq!((step.prev(), step.next()), (prev, next), "case {number}");
            }
            _ => panic!("case {number}: {steps:?}"),
        }
        let left: Vec<_> = [prev, Some(new), next].into_iter().flatten().collect();
        assert_eq!(contents(&f.space), left, "case {number}");
    }
}

#[test]
fn a_request_over_many_mappings_yields_them_ascending_and_the_map_last() {
    let mut f = fixture();
    let none = Flags::NONE;
    let one = |page: u64| map((page, page + 2), bo(f.a, page), none);
    let requests: Vec<_> = [8, 2, 5, 0, 11].map(one).into();
    commit(&mut f.space, &requests);
    let steps = commit(&mut f.space, &[map((1, 12), bo(f.a, 1), none)]);
    let bases: Vec<_> = steps.iter().map(|step| (step.mapping().range.base() - BASE) / PAGE).collect();
    assert_eq!(bases, [0, 2, 5, 8, 11, 1]);
    assert!(matches!(steps[..], [Step::Remap { .. }, .., Step::Remap { .. }, Step::Map { .. }]));
    assert!(steps[..5].iter().all(Step::keep), "all lie in the buffer as the new one does");
    assert_eq!(f.space.len(), 3);
}
