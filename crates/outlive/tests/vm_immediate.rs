//! Immediate working at its edges: memory that runs out while a batch is accepted, room that is kept for each, drivers that fail at
//! each step, buffers and spaces that are closed before the batch is run. The ordinary case is in `vm_model`.
#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests may panic and allocate")]

extern crate alloc;

use alloc::rc::Rc;
use outlive::check::{self, Alloc};
use outlive::vm::{
    BoId, Cause, Flags, Geometry, PlanError, Prepared, Ran, Request, Rule, RunFailed, Source, Space, Step, VaRange,
};
use std::alloc::System;

#[global_allocator]
static ALLOC: Alloc<System> = Alloc::new(System);

const PAGE: u64 = 0x1000;
const GEOMETRY: Geometry = Geometry { base: 0, len: 1 << 32, page: PAGE };

/// What a driver keeps with a mapping: counts its copies.
type Data = Rc<()>;
type Tiles = Space<(), Data>;
type Outcome = Result<Ran<Data>, RunFailed<&'static str, Data>>;

fn map(page: u64, pages: u64, bo: BoId, at: u64, data: &Data) -> Request<Data> {
    let source = Source::Bo { bo, offset: at * PAGE };
    Request::Map { va: page * PAGE, len: pages * PAGE, source, flags: Flags::NONE, data: Rc::clone(data) }
}

fn unmap(page: u64, pages: u64) -> Request<Data> {
    Request::Unmap { va: page * PAGE, len: pages * PAGE }
}

fn protect(page: u64, pages: u64) -> Request<Data> {
    Request::Protect { va: page * PAGE, len: pages * PAGE, clear: Flags::NONE, set: Flags::READ_ONLY }
}

fn contents<M>(space: &Space<(), M>) -> Vec<(VaRange, Source, Flags)> {
    space.iter().map(|mapping| (mapping.range, mapping.source, mapping.flags)).collect()
}

/// Ten tiles of eight pages, two pages apart.
fn tiles(data: &Data) -> (Tiles, BoId) {
    let mut space = Space::new(GEOMETRY).unwrap();
    let bo = space.open_bo(256 * PAGE, ()).unwrap();
    let requests: Vec<_> = (0..10).map(|tile| map(10 * tile, 8, bo, 10 * tile, data)).collect();
    space.fill(&requests).unwrap();
    (space, bo)
}

/// A batch that touches a mapping in every way: keeps it, cuts it, replaces it, changes it in place, at an edge, in the middle.
fn rich_batch(bo: BoId, data: &Data) -> Vec<Request<Data>> {
    let middle = map(3, 2, bo, 100, data);
    let same = map(80, 8, bo, 80, data);
    let rest = [protect(34, 32), protect(72, 2), map(90, 3, bo, 0, data), unmap(91, 1), same];
    [map(0, 9, bo, 0, data), middle, unmap(9, 12), map(25, 10, bo, 25, data)].into_iter().chain(rest).collect()
}

/// Runs with a driver that fails at a step, in a signalling section. The steps that were carried out.
fn run(prepared: Prepared<Data>, space: &mut Tiles, fails_at: usize) -> (Vec<Step<Data>>, Outcome) {
    let mut steps = Vec::with_capacity(100);
    let before = check::allocations();
    let signalling = check::signalling();
    let ran = prepared.run(space, |_, step| {
        if steps.len() == fails_at {
            return Err("no page table");
        }
        steps.push(step.cloned());
        Ok(())
    });
    drop(signalling);
    assert_eq!(check::allocations(), before, "nothing is allocated, and nothing freed");
    assert!(check::take_report().is_none());
    (steps, ran)
}

#[test]
fn the_steps_and_what_they_leave_are_those_of_a_plan() {
    let data = Rc::new(());
    let (mut staged, staged_bo) = tiles(&data);
    let (mut immediate, bo) = tiles(&data);
    let done = staged.plan(&rich_batch(staged_bo, &data)).unwrap().commit();
    let prepared = immediate.prepare(&rich_batch(bo, &data)).unwrap();
    let (steps, ran) = run(prepared, &mut immediate, usize::MAX);
    assert_eq!(ran.unwrap().steps(), steps.len());
    // The two spaces' buffers have different numbers.
    let shape = |step: &Step<Data>| (step.mapping().range, step.changes(), step.keep(), step.mapping().flags);
    assert_eq!(steps.iter().map(shape).collect::<Vec<_>>(), done.steps().iter().map(shape).collect::<Vec<_>>());
    assert!(steps.len() > 15 && steps.iter().any(Step::keep), "{} steps", steps.len());
    let places = |space: &Tiles| contents(space).into_iter().map(|(range, _, flags)| (range, flags));
    assert!(places(&immediate).eq(places(&staged)));
}

#[test]
fn what_mappings_held_is_dropped_when_it_is_taken() {
    let data = Rc::new(());
    let (mut space, bo) = tiles(&data);
    assert_eq!(Rc::strong_count(&data), 11);
    let prepared = space.prepare(&[map(0, 8, bo, 99, &data), unmap(14, 100)]).unwrap();
    let (steps, ran) = run(prepared, &mut space, usize::MAX);
    assert_eq!((steps.len(), space.len()), (11, 2));
    drop(steps);
    assert_eq!(Rc::strong_count(&data), 13, "ten old ones, the new one, the request's and this one");
    assert_eq!(space.fill(&[]), Err(PlanError { request: 0, rule: Rule::NotEmpty }));
    drop(ran);
    let mut taken = 0;
    while space.take_removed().is_some() {
        taken += 1;
    }
    assert_eq!((taken, Rc::strong_count(&data)), (9, 3));
    // Or the space is closed.
    let prepared = space.prepare(&[unmap(0, 100)]).unwrap();
    drop(run(prepared, &mut space, usize::MAX));
    assert_eq!((Rc::strong_count(&data), space.len()), (3, 0));
    drop(space.close());
    assert_eq!((Rc::strong_count(&data), space.take_removed().is_some()), (1, false));
}

#[test]
fn whichever_allocation_of_preparing_fails_nothing_is_changed() {
    let data = Rc::new(());
    for n in 1.. {
        let (mut space, bo) = tiles(&data);
        // Full, so that nodes are needed; and just enough in the limit, so that nothing may stay promised.
        space.set_limit(10 + 2 * 7 + 2);
        let (before, batch) = (contents(&space), rich_batch(bo, &data));
        check::fail_nth_allocation(n);
        let prepared = space.prepare(&batch);
        let spared = check::fail_nth_allocation(0) > 0;
        assert_eq!(contents(&space), before);
        match prepared {
            Ok(_) => {
                assert!(spared && n > 4, "it allocates: {n}");
                break;
            }
            Err(error) => assert!(!spared && matches!(error.rule, Rule::NoMemory(_))),
        }
        let (_, ran) = run(space.prepare(&batch).unwrap(), &mut space, usize::MAX);
        assert!(ran.is_ok());
    }
}

#[test]
fn room_is_kept_for_each_and_given_back() {
    let data = Rc::new(());
    let mut space = Space::new(GEOMETRY).unwrap();
    let bo = space.open_bo(256 * PAGE, ()).unwrap();
    // Accepted while nothing is mapped; a space that is filled afterwards keeps the room.
    let mut waiting: Vec<_> = (0..40)
        .map(|tile| space.prepare(&[map(20 * tile + 5, 3, bo, 7, &data), unmap(20 * tile + 6, 1)]).unwrap())
        .collect();
    let whole: Vec<_> = (0..40).map(|tile| map(20 * tile, 16, bo, 0, &data)).collect();
    space.fill(&whole).unwrap();
    let mut mappings = 40;
    while let Some(prepared) = waiting.pop() {
        // Plans take room in between, and each leaves what was promised.
        let tile = 1_000 + 2 * waiting.len() as u64;
        space.plan(&[map(tile, 1, bo, 0, &data)]).unwrap().commit();
        let (steps, ran) = run(prepared, &mut space, usize::MAX);
        mappings += 4;
        assert_eq!((steps.len(), ran.is_ok(), space.len()), (3, true, mappings));
        if waiting.len() % 7 == 0 {
            drop(waiting.pop());
        }
    }
    while space.take_removed().is_some() {}
    drop(space.prepare(&rich_batch(bo, &data)).unwrap());
    let (memory, before, copies) = (space.memory(), contents(&space), Rc::strong_count(&data));
    for _ in 0..1_000 {
        drop(space.prepare(&rich_batch(bo, &data)).unwrap());
    }
    assert_eq!((space.memory(), contents(&space), Rc::strong_count(&data)), (memory, before, copies));
    let late = space.prepare(&[unmap(0, 1)]).unwrap();
    drop(space);
    drop(late);
}

#[test]
fn the_room_of_each_request_is_enough_where_it_adds_most() {
    type Make = fn(u64, BoId, &Data) -> Request<Data>;
    let kinds: [(Make, usize, usize); 3] = [
        (|page, bo, data| map(page, 2, bo, 200, data), 3, 2),
        (|page, _, _| unmap(page, 2), 2, 1),
        (|page, _, _| protect(page, 2), 3, 2),
    ];
    let data = Rc::new(());
    for (make, pieces, steps) in kinds {
        // Both what is there when it is accepted, and what the space is filled with afterwards.
        for filled_first in [true, false] {
            let (mut full, full_bo) = tiles(&data);
            let mut empty = Space::new(GEOMETRY).unwrap();
            let empty_bo = empty.open_bo(256 * PAGE, ()).unwrap();
            let (space, bo) = if filled_first { (&mut full, full_bo) } else { (&mut empty, empty_bo) };
            let each = |tile: u64| [make(10 * tile + 3, bo, &data)];
            let prepared: Vec<_> = (0..10).map(|tile| space.prepare(&each(tile)).unwrap()).collect();
            if !filled_first {
                let requests: Vec<_> = (0..10).map(|tile| map(10 * tile, 8, bo, 10 * tile, &data)).collect();
                space.fill(&requests).unwrap();
            }
            for prepared in prepared {
                assert_eq!(run(prepared, space, usize::MAX).1.unwrap().steps(), steps);
            }
            assert_eq!((space.len(), space.take_removed().is_some()), (10 * pieces, false), "cut in place");
        }
    }
}

#[test]
fn what_was_accepted_counts_against_the_limit() {
    let data = Rc::new(());
    let (mut space, bo) = tiles(&data);
    space.set_limit(13);
    let full = |request| PlanError { request, rule: Rule::TooMany { limit: 13 } };
    let first = space.prepare(&[map(200, 1, bo, 0, &data)]).unwrap();
    assert_eq!(space.prepare(&[unmap(0, 1), map(202, 1, bo, 0, &data)]).unwrap_err(), full(1));
    assert_eq!(space.prepare(&[protect(0, 100)]).unwrap_err(), full(0));
    let plan = space.plan(&[map(202, 1, bo, 0, &data), map(204, 1, bo, 0, &data)]);
    assert_eq!(plan.unwrap_err(), full(1), "plans leave what was promised");
    let unmaps = space.prepare(&[unmap(0, 8), unmap(10, 8)]).unwrap();
    let ran = [unmaps, first].map(|prepared| run(prepared, &mut space, usize::MAX).1);
    assert!(ran.iter().all(Result::is_ok), "an unmap is always taken");
    assert_eq!(space.len(), 9);
    let twice = [map(202, 1, bo, 0, &data), map(204, 1, bo, 0, &data)];
    assert!(space.plan(&twice).is_ok() && space.prepare(&twice).is_ok(), "nothing is promised any more");
    drop(ran);
}

#[test]
fn whichever_step_the_driver_fails_at_the_space_says_which_and_is_poisoned() {
    let data = Rc::new(());
    let (mut space, bo) = tiles(&data);
    let plan = space.plan(&rich_batch(bo, &data)).unwrap();
    let request_of: Vec<_> = (0..9).flat_map(|request| plan.steps_of(request).map(move |_| request)).collect();
    drop(plan);
    for (at, request) in request_of.iter().enumerate() {
        let (mut space, bo) = tiles(&data);
        let next = space.prepare(&[unmap(30, 8), map(0, 1, bo, 0, &data)]).unwrap();
        let prepared = space.prepare(&rich_batch(bo, &data)).unwrap();
        let (steps, failed) = run(prepared, &mut space, at);
        let failed = failed.unwrap_err();
        assert_eq!((failed.request, failed.cause, failed.ran.steps()), (*request, Cause::Driver("no page table"), at));
        let message = format!("request {request}, after {at} steps: the driver failed half way: no page table");
        assert_eq!(failed.to_string(), message);
        assert!(space.is_poisoned() && steps.len() == at);
        // Who was accepted before learns it; unmap and close still work.
        let before = contents(&space);
        let (_, failed) = run(next, &mut space, usize::MAX);
        let failed = failed.unwrap_err();
        assert_eq!((failed.request, failed.cause), (1, Cause::Refused(Rule::Poisoned)));
        assert_eq!(contents(&space), before, "nothing of that one was done");
        assert_eq!(space.prepare(&[map(0, 1, bo, 0, &data)]).unwrap_err().rule, Rule::Poisoned);
        let half = space.prepare(&[unmap(0, 45)]).unwrap();
        assert!(run(half, &mut space, usize::MAX).1.is_ok());
        assert!(space.iter().all(|mapping| mapping.range.base() >= 45 * PAGE));
        let left = space.mappings_of(bo);
        assert_eq!(space.close_bo(bo).unwrap().len(), left);
        assert!(space.is_empty() && space.close().is_empty());
    }
    assert_eq!(Rc::strong_count(&data), 11, "the first space's tiles and this one");
}

#[test]
fn what_was_closed_or_reserved_since_is_named_and_nothing_is_done() {
    let data = Rc::new(());
    let changes: [fn(&mut Tiles) -> Rule; 2] = [
        |space| {
            let range = VaRange::new(300 * PAGE, PAGE, PAGE).unwrap();
            space.reserve_range(range).unwrap();
            Rule::ReservedRange { range, reserved: range }
        },
        |space| {
            drop(space.close());
            Rule::Closed
        },
    ];
    for change in changes {
        let (mut space, _) = tiles(&data);
        let other = space.open_bo(PAGE, ()).unwrap();
        let prepared = space.prepare(&[unmap(0, 100), map(300, 1, other, 0, &data)]).unwrap();
        let rule = change(&mut space);
        let before = contents(&space);
        let (steps, failed) = run(prepared, &mut space, usize::MAX);
        let failed = failed.unwrap_err();
        let request = usize::from(rule != Rule::Closed);
        assert_eq!((steps.len(), failed.request, failed.cause), (0, request, Cause::Refused(rule)));
        assert_eq!((contents(&space), space.is_poisoned()), (before, true));
    }
}

/// As if the buffer had been mapped, and closed then.
#[test]
fn a_buffer_that_was_closed_since_is_not_mapped_and_what_was_there_goes() {
    let data = Rc::new(());
    let (mut space, bo) = tiles(&data);
    let other = space.open_bo(PAGE, ()).unwrap();
    let requests = [map(0, 1, other, 0, &data), map(9, 1, bo, 0, &data), map(300, 1, other, 0, &data), unmap(20, 10)];
    let prepared = space.prepare(&requests).unwrap();
    assert!(space.close_bo(other).unwrap().is_empty());
    // Its place in the table is somebody else's now.
    let next = space.open_bo(PAGE, ()).unwrap();
    let (steps, ran) = run(prepared, &mut space, usize::MAX);
    assert!(ran.is_ok() && !space.is_poisoned());
    assert!(matches!(steps[..], [Step::Remap { .. }, Step::Map { .. }, Step::Unmap { .. }]), "{steps:?}");
    assert_eq!((space.mappings_of(next), space.mappings_of(bo), space.len()), (0, 10, 10));
    let (first, second) = (space.find(0), space.find(PAGE).unwrap());
    assert!(first.is_none() && second.range.base() == PAGE);
}

/// What a batch may need of the driver, against what the same batch comes to as a plan, on whatever is mapped by then.
#[test]
fn the_bounds_hold_whatever_is_mapped_when_it_runs() {
    let data = Rc::new(());
    let huge = 512;
    let mut seed = 7_u64;
    let mut next = |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 33) % below
    };
    let mut tight = [false; 2];
    for _ in 0..2000 {
        let mut space = Space::new(GEOMETRY).unwrap();
        let bo = space.open_bo(8 * huge * PAGE, ()).unwrap();
        let mut request = |space: &Tiles| {
            let (page, pages) = (next(6 * huge), 1 + next(2 * huge));
            assert!(!space.is_closed());
            match next(3) {
                0 => unmap(page, pages),
                1 => protect(page, pages),
                _ => map(page, pages, bo, next(huge), &data),
            }
        };
        let batch = [request(&space), request(&space), request(&space)];
        let prepared = space.prepare(&batch).unwrap();
        let (tables, splits) = (prepared.tables(21), prepared.splits(21));
        assert_eq!(
            prepared.bos().unwrap(),
            if batch.iter().any(|one| matches!(one, Request::Map { .. })) { vec![bo] } else { vec![] }
        );
        // One mapping of everything, so that whatever is cut is cut here.
        let whole = map(0, 8 * huge, bo, 0, &data);
        drop(space.plan(&[whole]).unwrap().commit());
        let plan = space.plan(&batch).unwrap();
        let mut cut = 0;
        for request in 0..batch.len() {
            let blocks = |va: u64| va / (huge * PAGE);
            let steps = &plan.steps()[plan.steps_of(request)];
            // Of what a request changes the tables are counted once, whatever mappings they are of.
            let touched = steps.iter().filter(|step| matches!(step, Step::Map { .. })).map(|step| step.changes());
            let (first, last) = (
                touched.clone().map(|range| blocks(range.base())).min(),
                touched.map(|range| blocks(range.last())).max(),
            );
            cut += first.zip(last).map_or(0, |(first, last)| last - first + 1);
        }
        assert!(
            cut <= tables && plan.splits(21) <= splits,
            "{batch:?}: {cut} of {tables}, {} of {splits}",
            plan.splits(21)
        );
        tight[0] |= cut == tables && tables > 2;
        tight[1] |= plan.splits(21) == splits && splits > 3;
    }
    assert_eq!(tight, [true; 2], "reached, too");
}

#[test]
fn a_batch_of_another_space_is_no_harm_to_either() {
    let data = Rc::new(());
    let (mut one, bo) = tiles(&data);
    let (mut other, _) = tiles(&data);
    let prepared = one.prepare(&[unmap(0, 100)]).unwrap();
    let (steps, failed) = run(prepared, &mut other, usize::MAX);
    assert_eq!((steps.len(), failed.unwrap_err().cause), (0, Cause::OtherSpace));
    assert!(!one.is_poisoned() && !other.is_poisoned());
    assert_eq!(one.prepare(&[unmap(0, 0)]).unwrap_err().request, 0);
    assert_eq!(one.prepare(&[unmap(0, 1), map(0, 500, bo, 0, &data)]).unwrap_err().request, 1);
    assert_eq!((one.len(), other.len()), (10, 10));
}

static_assertions::assert_impl_all!(Prepared<u64>: Send, Sync);
static_assertions::assert_impl_all!(Ran<u64>: Send, Sync);
static_assertions::assert_not_impl_any!(Prepared<Rc<()>>: Send, Sync);
