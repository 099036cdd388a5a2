//! Address spaces at their edges: misuse, memory that runs out, drivers that fail, limits, poison, closing.
#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests may panic and allocate")]

extern crate alloc;

use alloc::rc::Rc;
use outlive::check::{self, Alloc};
use outlive::vm::{
    Apply, BoId, Closed, Done, Flags, Geometry, Mapping, OpenRefused, Plan, PlanError, RangeError, Request, Rule,
    Source, Space, SpaceError, Step, VaRange,
};
use std::alloc::System;

#[global_allocator]
static ALLOC: Alloc<System> = Alloc::new(System);

const PAGE: u64 = 0x1000;
const GEOMETRY: Geometry = Geometry { base: 0, len: 1 << 32, page: PAGE };

fn space() -> (Space<()>, BoId) {
    let mut space = Space::new(GEOMETRY).unwrap();
    let bo = space.open_bo(256 * PAGE, ()).unwrap();
    (space, bo)
}

fn map(page: u64, pages: u64, bo: BoId, at: u64) -> Request {
    let source = Source::Bo { bo, offset: at * PAGE };
    Request::Map { va: page * PAGE, len: pages * PAGE, source, flags: Flags::NONE, data: () }
}

fn sparse(va: u64, len: u64) -> Request {
    Request::Map { va, len, source: Source::Sparse, flags: Flags::NONE, data: () }
}

fn unmap(page: u64, pages: u64) -> Request {
    Request::Unmap { va: page * PAGE, len: pages * PAGE }
}

fn pages(page: u64, pages: u64) -> VaRange {
    VaRange::new(page * PAGE, pages * PAGE, PAGE).unwrap()
}

fn contents<V>(space: &Space<V>) -> Vec<(VaRange, Source, Flags)> {
    space.iter().map(|mapping| (mapping.range, mapping.source, mapping.flags)).collect()
}

fn refusal(space: &mut Space<()>, requests: &[Request]) -> PlanError {
    let before = contents(space);
    let error = space.plan(requests).unwrap_err();
    assert_eq!(contents(space), before, "a refused batch changes nothing");
    error
}

#[test]
fn every_misuse_names_the_request_and_the_rule() {
    let (mut space, bo) = space();
    let (_, foreign) = self::space();
    space.reserve_range(pages(0, 16)).unwrap();
    space.reserve_range(pages(64, 1)).unwrap();
    let whole = space.range();
    let source = |offset, window, phase| Source::Repeated { bo, offset, window, phase };
    let repeat = |source| Request::Map { va: 0x20_0000, len: 8 * PAGE, source, flags: Flags::NONE, data: () };
    let end = (1 << 32) - PAGE;
    let range = |va, len| VaRange::new(va, len, PAGE).unwrap();
    let cases = [
        (unmap(32, 0), Rule::Range(RangeError::Empty)),
        (sparse(0x2_0001, PAGE), Rule::Range(RangeError::Misaligned { value: 0x2_0001, page: PAGE })),
        (sparse(0x2_0000, 1), Rule::Range(RangeError::Misaligned { value: 1, page: PAGE })),
        (sparse(u64::MAX - 0xfff, 2 * PAGE), Rule::Range(RangeError::Wraps { base: u64::MAX - 0xfff, len: 2 * PAGE })),
        (sparse(end, 2 * PAGE), Rule::Outside { range: range(end, 2 * PAGE), space: whole }),
        (sparse(u64::MAX - 0xfff, PAGE), Rule::Outside { range: range(u64::MAX - 0xfff, PAGE), space: whole }),
        (unmap(15, 2), Rule::ReservedRange { range: pages(15, 2), reserved: pages(0, 16) }),
        (sparse(63 * PAGE, 3 * PAGE), Rule::ReservedRange { range: pages(63, 3), reserved: pages(64, 1) }),
        (map(32, 1, foreign, 0), Rule::NotOpen { bo: foreign }),
        (map(32, 1, bo, 256), Rule::BeyondBo { offset: 256 * PAGE, len: PAGE, size: 256 * PAGE }),
        (map(70, 2, bo, 255), Rule::BeyondBo { offset: 255 * PAGE, len: 2 * PAGE, size: 256 * PAGE }),
        (
            Request::Map {
                va: 0x20_0000,
                len: PAGE,
                source: Source::Bo { bo, offset: u64::MAX - 0xfff },
                flags: Flags::NONE,
                data: (),
            },
            Rule::BeyondBo { offset: u64::MAX - 0xfff, len: PAGE, size: 256 * PAGE },
        ),
        (repeat(Source::Bo { bo, offset: 8 }), Rule::MisalignedOffset { offset: 8, page: PAGE }),
        (repeat(source(0, 0, 0)), Rule::Window { window: 0, phase: 0, len: 8 * PAGE }),
        (repeat(source(0, 3 * PAGE, 0)), Rule::Window { window: 3 * PAGE, phase: 0, len: 8 * PAGE }),
        (repeat(source(0, 16 * PAGE, 0)), Rule::Window { window: 16 * PAGE, phase: 0, len: 8 * PAGE }),
        (repeat(source(0, PAGE, PAGE)), Rule::Window { window: PAGE, phase: PAGE, len: 8 * PAGE }),
        (repeat(source(0, 0x800, 0)), Rule::Window { window: 0x800, phase: 0, len: 8 * PAGE }),
        (repeat(source(8, PAGE, 0)), Rule::MisalignedOffset { offset: 8, page: PAGE }),
        (
            repeat(source(255 * PAGE, 2 * PAGE, 0)),
            Rule::BeyondBo { offset: 255 * PAGE, len: 2 * PAGE, size: 256 * PAGE },
        ),
    ];
    let good = map(128, 4, bo, 0);
    space.plan(&[map(120, 4, bo, 9)]).unwrap().commit();
    for (bad, rule) in cases {
        for request in 0..3 {
            let mut batch = vec![good, unmap(120, 2), sparse(0x30_0000, PAGE)];
            batch.insert(request, bad);
            assert_eq!(refusal(&mut space, &batch), PlanError { request, rule });
        }
    }
    let message = refusal(&mut space, &[good, map(70, 2, bo, 255)]).to_string();
    assert_eq!(message, "request 1: offset 0xff000 plus 0x2000 exceeds the buffer's size 0x100000");
}

#[test]
fn the_last_page_of_all_can_be_mapped() {
    let top = u64::MAX - 0xfff;
    let mut space = Space::<()>::new(Geometry { base: top - PAGE, len: 2 * PAGE, page: PAGE }).unwrap();
    let steps = |space: &mut Space<()>, request| space.plan(&[request]).unwrap().commit().steps().len();
    assert_eq!(steps(&mut space, sparse(top - PAGE, 2 * PAGE)), 1);
    assert_eq!(steps(&mut space, Request::Unmap { va: top - PAGE, len: PAGE }), 1);
    assert_eq!(space.find(u64::MAX).map(|mapping| mapping.range.base()), Some(top));
    assert_eq!(steps(&mut space, Request::Unmap { va: top, len: PAGE }), 1);
    assert!(space.next(space.range()).is_none() && space.prev(space.range()).is_none());
    assert!(space.is_empty());
}

#[test]
fn shapes_and_reserved_ranges_are_checked() {
    let refused = |geometry| Space::<()>::new(geometry).unwrap_err();
    assert_eq!(refused(Geometry { page: 0x1800, ..GEOMETRY }), SpaceError::Page(0x1800));
    assert_eq!(refused(Geometry { page: 0, ..GEOMETRY }), SpaceError::Page(0));
    assert_eq!(refused(Geometry { len: 0, ..GEOMETRY }), SpaceError::Range(RangeError::Empty));
    let (mut space, bo) = space();
    space.plan(&[map(8, 2, bo, 0)]).unwrap().commit();
    assert_eq!(space.reserve_range(pages(9, 4)), Err(SpaceError::InUse { by: pages(8, 2) }));
    space.reserve_range(pages(10, 4)).unwrap();
    assert_eq!(space.reserve_range(pages(13, 1)), Err(SpaceError::InUse { by: pages(10, 4) }));
    let beyond = VaRange::new(1 << 32, PAGE, PAGE).unwrap();
    assert!(matches!(space.reserve_range(beyond), Err(SpaceError::Outside { .. })));
    let small = VaRange::new(0x800, 0x800, 0x800).unwrap();
    assert!(matches!(space.reserve_range(small), Err(SpaceError::Range(RangeError::Misaligned { .. }))));
    assert!(matches!(space.open_bo(0, ()), Err(OpenRefused::Empty(()))));
}

#[test]
fn a_later_request_sees_what_an_earlier_one_would_leave() {
    let (mut space, bo) = space();
    let plan = space.plan(&[map(10, 10, bo, 0), unmap(12, 2), map(13, 4, bo, 50), unmap(0, 64)]).unwrap();
    assert_eq!([0, 1, 2, 3, 4].map(|request| plan.steps_of(request)), [0..1, 1..2, 2..4, 4..7, 7..7]);
    assert_eq!(plan.len_after(), 0);
    let done = plan.commit();
    let places: Vec<_> = done.steps()[4..].iter().map(|step| step.mapping().range).collect();
    assert_eq!(places, [pages(10, 2), pages(13, 4), pages(17, 3)]);
    assert!(space.is_empty());
}

/// A batch that touches a mapping in every way.
fn rich_batch(bo: BoId) -> Vec<Request> {
    let set = Flags::READ_ONLY;
    let protect = Request::Protect { va: 30 * PAGE, len: 40 * PAGE, clear: Flags::NONE, set };
    vec![map(0, 4, bo, 7), unmap(9, 12), map(25, 10, bo, 25), protect, map(90, 3, bo, 0), unmap(91, 1)]
}

fn prepared() -> (Space<()>, BoId) {
    let (mut space, bo) = space();
    let requests: Vec<_> = (0..10).map(|tile| map(10 * tile, 8, bo, 10 * tile)).collect();
    space.fill(&requests).unwrap();
    (space, bo)
}

#[test]
fn whichever_allocation_of_a_plan_fails_nothing_is_changed() {
    let (mut space, bo) = prepared();
    let before = contents(&space);
    let mut failures = 0;
    for n in 1.. {
        let batch = rich_batch(bo);
        check::fail_nth_allocation(n);
        let planned = space.plan(&batch).map(|plan| plan.steps().len());
        let spared = check::fail_nth_allocation(0) > 0;
        assert_eq!(contents(&space), before);
        match planned {
            Ok(steps) => {
                assert!(spared && steps > 8);
                break;
            }
            Err(error) => assert!(matches!(error.rule, Rule::NoMemory(_))),
        }
        failures += 1;
    }
    assert!(failures > 5, "the plan allocates: {failures}");
    // Also when nothing is left over from an earlier attempt.
    for n in 1..=failures {
        let (mut fresh, bo) = prepared();
        let batch = rich_batch(bo);
        check::fail_nth_allocation(n);
        let failed = fresh.plan(&batch).is_err();
        let spared = check::fail_nth_allocation(0) > 0;
        assert!(failed != spared);
        assert_eq!(contents(&fresh).len(), before.len());
    }
}

/// Plans and commits `batch` with ever later allocations failing, until none does.
fn commit_in_the_end(space: &mut Space<()>, batch: &[Request]) {
    let before = contents(space);
    for n in 1.. {
        check::fail_nth_allocation(n);
        let planned = space.plan(batch);
        let spared = check::fail_nth_allocation(0) > 0;
        assert_eq!(planned.is_ok(), spared);
        let Ok(plan) = planned else {
            assert_eq!(contents(space), before);
            continue;
        };
        let _ = plan.commit();
        return;
    }
}

#[test]
fn whichever_allocation_of_growth_fails_the_space_stays_whole() {
    let (mut space, bo) = space();
    // Ever more levels of the tree's nodes, with descending addresses and with ascending ones between them.
    for count in [1, 40, 900] {
        let downwards: Vec<_> = (0..count).map(|tile| map(3_000 - 2 * tile, 1, bo, 0)).collect();
        let between: Vec<_> = (0..count).map(|tile| map(3_001 - 2 * count + 2 * tile, 1, bo, 7)).collect();
        commit_in_the_end(&mut space, &downwards);
        commit_in_the_end(&mut space, &between);
        assert_eq!(space.len() as u64, 2 * count);
        commit_in_the_end(&mut space, &[unmap(0, 4_096)]);
        assert!(space.is_empty());
    }
}

#[test]
fn whichever_allocation_of_opening_and_filling_fails_nothing_is_changed() {
    let attempts: [fn(&mut Space<()>, BoId) -> bool; 3] = [
        |space, _| (0..9).map(|_| space.open_bo(PAGE, ())).all(|opened| opened.is_ok()),
        |space, bo| space.fill(&[map(1, 1, bo, 0), map(3, 1, bo, 0)]).is_ok(),
        |space, _| space.reserve_range(pages(7, 1)).is_ok(),
    ];
    for attempt in attempts {
        let (mut space, bo) = space();
        check::fail_nth_allocation(1);
        assert!(!attempt(&mut space, bo));
        assert_eq!(check::fail_nth_allocation(0), 0);
        assert!(space.is_empty());
        assert!(attempt(&mut space, bo));
    }
}

/// A page table that fails at a step.
struct Failing {
    done: Vec<Step>,
    at: usize,
    undone: usize,
}

impl<V> Apply<V, ()> for Failing {
    type Error = &'static str;

    fn apply(&mut self, _space: &Space<V>, step: &Step) -> Result<(), Self::Error> {
        if self.done.len() == self.at {
            return Err("no page table");
        }
        self.done.push(step.clone());
        Ok(())
    }

    fn undo(&mut self, _space: &Space<V>, step: &Step) {
        assert_eq!(self.done.pop().as_ref(), Some(step), "in reverse order");
        self.undone += 1;
    }
}

#[test]
fn whichever_step_the_driver_fails_at_the_space_is_as_it_was() {
    let (mut space, bo) = prepared();
    let before = contents(&space);
    let count = space.plan(&rich_batch(bo)).unwrap().steps().len();
    for at in 0..count {
        let mut driver = Failing { done: Vec::new(), at, undone: 0 };
        let error = space.plan(&rich_batch(bo)).unwrap().apply(&mut driver).unwrap_err();
        assert_eq!((error.step, error.error, driver.undone), (at, "no page table", at));
        assert_eq!((driver.done, contents(&space)), (vec![], before.clone()));
    }
    let mut driver = Failing { done: Vec::new(), at: count, undone: 0 };
    let done = space.plan(&rich_batch(bo)).unwrap().apply(&mut driver).unwrap();
    assert_eq!((done.steps(), driver.undone), (&driver.done[..], 0));
    assert_ne!(contents(&space), before);
}

#[test]
fn a_plan_that_is_dropped_or_forgotten_leaves_no_trace() {
    let (mut space, bo) = prepared();
    let before = contents(&space);
    drop(space.plan(&rich_batch(bo)).unwrap());
    assert_eq!(contents(&space), before);
    core::mem::forget(space.plan(&rich_batch(bo)).unwrap());
    assert_eq!(contents(&space), before);
}

#[test]
fn the_lock_set_names_each_buffer_once_old_ones_too() {
    let (mut space, a) = space();
    let b = space.open_bo(64 * PAGE, ()).unwrap();
    let c = space.open_bo(64 * PAGE, ()).unwrap();
    space.plan(&[map(0, 4, a, 0), map(8, 4, c, 0)]).unwrap().commit();
    let plan = space.plan(&[map(1, 1, b, 0), map(2, 1, b, 9), sparse(0x10_0000, PAGE)]).unwrap();
    assert_eq!(plan.bos().unwrap(), [a, b]);
}

#[test]
fn page_tables_and_splits_are_bounded() {
    const BLOCK: u64 = 0x20_0000 / PAGE;
    let mut space = Space::new(Geometry { base: 0, len: 1 << 40, page: PAGE }).unwrap();
    let bo = space.open_bo(1 << 30, ()).unwrap();
    let plan = space.plan(&[map(BLOCK - 1, 2, bo, 0)]).unwrap();
    assert_eq!((plan.tables(21), plan.tables(30), plan.tables(64), plan.splits(21)), (2, 1, 1, 0));
    drop(plan);
    space.plan(&[map(0, 4 * BLOCK, bo, 0)]).unwrap().commit();
    let splits = |space: &mut Space<()>, from, pages| space.plan(&[unmap(from, pages)]).unwrap().splits(21);
    assert_eq!(splits(&mut space, BLOCK, BLOCK), 0, "whole blocks");
    assert_eq!(splits(&mut space, BLOCK + 1, 1), 1, "both edges in one block");
    assert_eq!(splits(&mut space, BLOCK + 1, 2 * BLOCK - 2), 2, "the worked example");
    assert_eq!(splits(&mut space, BLOCK, BLOCK + 1), 1, "one edge in a block");
    assert_eq!(splits(&mut space, 1, BLOCK - 1), 1);
    space.plan(&[unmap(0, 4 * BLOCK), map(1, BLOCK, bo, 0)]).unwrap().commit();
    assert_eq!(splits(&mut space, BLOCK / 2, 1), 0, "no whole block lies in the mapping");
}

#[test]
fn a_limit_holds_for_what_adds_mappings_only() {
    let (mut space, bo) = space();
    space.set_limit(3);
    space.plan(&[map(0, 8, bo, 0), map(10, 8, bo, 10), map(20, 8, bo, 20)]).unwrap().commit();
    assert_eq!(refusal(&mut space, &[map(30, 1, bo, 0)]).rule, Rule::TooMany { limit: 3 });
    assert_eq!(refusal(&mut space, &[unmap(4, 1)]).rule, Rule::TooMany { limit: 3 });
    space.set_limit(1);
    space.plan(&[unmap(16, 8), map(20, 8, bo, 99)]).unwrap().commit();
    assert_eq!(space.len(), 3, "cutting and replacing add none");
    space.plan(&[unmap(0, 64)]).unwrap().commit();
    let many: Vec<_> = (0..2).map(|page| map(page, 1, bo, 0)).collect();
    assert_eq!(space.fill(&many), Err(PlanError { request: 1, rule: Rule::TooMany { limit: 1 } }));
    assert!(space.is_empty());
}

#[test]
fn ten_million_mappings_against_a_limit_change_nothing() {
    let mut space = Space::<()>::new(Geometry { base: 0, len: 1 << 48, page: PAGE }).unwrap();
    space.set_limit(100_000);
    let count = if cfg!(debug_assertions) { 300_000 } else { 10_000_000 };
    let many: Vec<_> = (0..count).map(|page| sparse(2 * page * PAGE, PAGE)).collect();
    let error = PlanError { request: 100_000, rule: Rule::TooMany { limit: 100_000 } };
    assert_eq!(space.plan(&many).unwrap_err(), error);
    assert_eq!(space.fill(&many), Err(error));
    assert_eq!((space.len(), space.memory()), (0, 0));
}

#[test]
fn a_poisoned_space_unmaps_and_closes() {
    let (mut space, bo) = prepared();
    space.poison();
    assert!(space.is_poisoned());
    assert_eq!(refusal(&mut space, &[unmap(0, 4), map(0, 4, bo, 0)]), PlanError { request: 1, rule: Rule::Poisoned });
    let protect = Request::Protect { va: 0, len: PAGE, clear: Flags::NONE, set: Flags::NONE };
    assert_eq!(refusal(&mut space, &[protect]).rule, Rule::Poisoned);
    assert_eq!(space.plan(&[unmap(0, 15)]).unwrap().commit().steps().len(), 2);
    assert_eq!(space.close_bo(bo).unwrap().len(), 9);
    assert!(space.close().is_empty());
}

/// What a driver keeps with a mapping: says when it is dropped.
#[derive(Debug, Clone)]
struct Pages {
    _held: Rc<()>,
}

#[test]
fn closing_hands_everything_over_and_drops_nothing_itself() {
    let count = Rc::new(());
    let mut space = Space::new(GEOMETRY).unwrap();
    let bos = [0, 1, 2].map(|name| space.open_bo(256 * PAGE, name).unwrap());
    let requests: Vec<_> = (0..99_u64)
        .map(|page| {
            let source = Source::Bo { bo: bos[(page % 3) as usize], offset: 0 };
            let data = Pages { _held: Rc::clone(&count) };
            Request::Map { va: page * PAGE, len: PAGE, source, flags: Flags::NONE, data }
        })
        .collect();
    space.fill(&requests).unwrap();
    drop(requests);
    assert_eq!(Rc::strong_count(&count), 100);
    let clear = space.close_bo(bos[1]).unwrap();
    assert_eq!((clear.len(), *clear.data(), space.len()), (33, 1, 66));
    let mut places: Vec<_> = space.clearing(&clear).map(|mapping| mapping.range.base() / PAGE).collect();
    places.sort_unstable();
    assert!(places.into_iter().eq((1..99).step_by(3)));
    let other = Space::<i32, Pages>::new(GEOMETRY).map(|mut other| other.cleared(clear, drop));
    let clear = other.unwrap().unwrap_err();
    assert_eq!(Rc::strong_count(&count), 100, "they are still in the page tables");
    assert_eq!(space.fill(&[]), Err(PlanError { request: 0, rule: Rule::NotEmpty }));
    assert_eq!(space.cleared(clear, drop).unwrap(), 1);
    assert_eq!(Rc::strong_count(&count), 67);

    let late = space.close_bo(bos[2]).unwrap();
    let allocated = check::allocations();
    let closed = space.close();
    let again = space.close();
    assert_eq!(check::allocations(), allocated, "no allocation, and nothing freed");
    assert_eq!((closed.len(), again.len(), space.is_closed()), (33, 0, true));
    assert!(closed.iter().map(|mapping| mapping.range.base() / PAGE).eq((0..99).step_by(3)));
    assert_eq!(closed.bos().map(|(id, name)| (id, *name)).collect::<Vec<_>>(), [(bos[0], 0)]);
    assert_eq!(space.clearing(&late).count(), 0);
    assert_eq!(space.cleared(late, drop).unwrap(), 2);
    assert_eq!(Rc::strong_count(&count), 67, "what was being cleared is the closed space's now");
    drop(closed);
    assert_eq!(Rc::strong_count(&count), 1);
    assert!(matches!(space.open_bo(PAGE, 3), Err(OpenRefused::Closed(3))));
    let unmap = Request::Unmap { va: 0, len: PAGE };
    assert_eq!(space.plan(&[unmap]).unwrap_err().rule, Rule::Closed);
}

#[test]
fn what_old_mappings_held_comes_back_from_a_commit() {
    let count = Rc::new(());
    let mut space = Space::<(), Pages>::new(GEOMETRY).unwrap();
    let map = |from: u64, pages: u64| {
        let data = Pages { _held: Rc::clone(&count) };
        let source = Source::Sparse;
        Request::Map { va: from * PAGE, len: pages * PAGE, source, flags: Flags::NONE, data }
    };
    drop(space.plan(&[map(0, 4), map(4, 4), map(8, 4)]).unwrap().commit());
    assert_eq!(Rc::strong_count(&count), 4);
    let plan = space.plan(&[Request::Unmap { va: 2 * PAGE, len: 8 * PAGE }]).unwrap();
    let freed = check::allocations().freed;
    let done = plan.commit();
    assert_eq!(check::allocations().freed, freed, "a commit frees nothing");
    assert_eq!(done.removed().len(), 3);
    drop(done);
    assert_eq!((Rc::strong_count(&count), space.len()), (3, 2));
}

#[test]
fn a_mapping_takes_at_most_128_bytes() {
    let (mut grown, _) = space();
    let mut most = 0;
    for page in 0..5_000_u64 {
        grown.plan(&[sparse(2 * page * PAGE, PAGE)]).unwrap().commit();
        if page > 100 {
            most = most.max((grown.memory() - 4 * 64) / grown.len());
        }
    }
    let (mut filled, bo) = space();
    let requests: Vec<_> = (0..5_000).map(|page| map(page, 1, bo, 0)).collect();
    filled.fill(&requests).unwrap();
    let each = filled.memory() / filled.len();
    println!("{most} bytes a mapping at most while growing, {each} when filled");
    assert!(most <= 128 && each <= 90, "{most} and {each}");
}

static_assertions::assert_impl_all!(Space<u64, u64>: Send, Sync);
static_assertions::assert_impl_all!(Plan<'static, u64, u64>: Send, Sync);
static_assertions::assert_impl_all!(Done<u64>: Send, Sync);
static_assertions::assert_impl_all!(Closed<u64, u64>: Send, Sync);
// As what the driver keeps in it: nothing is asserted by hand.
static_assertions::assert_not_impl_any!(Space<(), Rc<()>>: Send, Sync);
static_assertions::assert_not_impl_any!(Plan<'static, (), Rc<()>>: Send, Sync);

#[test]
fn flags_keep_the_driver_s_bits_apart() {
    let flags = Flags::driver(0xab_cdef).with(Flags::READ_ONLY);
    assert_eq!((flags.driver_bits(), flags.has(Flags::READ_ONLY)), (0xab_cdef, true));
    assert_eq!(flags.without(Flags::READ_ONLY), Flags::driver(0xab_cdef));
    let pieces = Mapping { range: pages(0, 4), source: Source::Sparse, flags, data: 7_u8 };
    let step = Step::Remap { unmap: pieces, hole: pages(1, 1), keep: false };
    assert_eq!(step.next().map(|next| (next.range, next.flags, next.data)), Some((pages(2, 2), flags, 7)));
}
