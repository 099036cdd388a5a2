use super::*;
use crate::gpu::page_table::{FaultReason, walk};
use crate::gpu::types::{Access, DomainId, OwnerId};

fn fixture() -> (Memory, DomainId, OwnerId, AddressSpace) {
    let mut memory = Memory::new(0).unwrap();
    let domain = memory.add_domain(16 << 20).unwrap();
    let owner = memory.add_owner().unwrap();
    let space = AddressSpace::new(&mut memory, domain, owner).unwrap();
    (memory, domain, owner, space)
}

fn sizes(memory: &Memory, space: &AddressSpace) -> Vec<(u64, u32)> {
    space.held(memory).iter().map(|held| (held.va.0 >> 12, held.size.pages())).collect()
}

const RW: Protection = Protection::ReadWrite;

#[test]
fn the_largest_pages_that_alignment_allows_are_used() {
    let (mut memory, domain, owner, mut space) = fixture();
    let run = memory.allocate_run(domain, owner, 512).unwrap();
    assert_eq!(run.index % 512, 0);
    space.map_run(&mut memory, Va(2 << 20), (run, 512), RW).unwrap();
    assert_eq!(sizes(&memory, &space), [(512, 512)]);
    // One page off, so that only small ones fit.
    space.map_run(&mut memory, Va((4 << 20) + 4096), (run, 40), RW).unwrap();
    assert!(sizes(&memory, &space)[1..].iter().all(|(_, pages)| *pages == 1));
    space.unmap_range(&mut memory, Va((4 << 20) + 4096), 40 * 4096).unwrap();
    // Aligned to 64 KiB only: two groups, and what sticks out above.
    space.map_run(&mut memory, Va((4 << 20) + 0x1_0000), (run, 40), RW).unwrap();
    let found = sizes(&memory, &space);
    assert_eq!(found[1..4], [(1024 + 16, 16), (1024 + 32, 16), (1024 + 48, 1)]);
    assert_eq!(found.len(), 3 + 8);
    let again = space.map_run(&mut memory, Va(2 << 20), (run, 1), RW);
    assert_eq!(again, Err(MapError::Occupied(Va(2 << 20))));
}

#[test]
fn a_block_is_split_where_a_range_ends_inside_and_made_anew_when_all_of_it_comes_back() {
    let (mut memory, domain, owner, mut space) = fixture();
    let run = memory.allocate_run(domain, owner, 512).unwrap();
    space.reserve_tables(&mut memory, 9).unwrap();
    assert_eq!(space.tables(), 10);
    space.map_run(&mut memory, Va(0), (run, 512), Protection::ReadOnly).unwrap();
    space.free_spare(&mut memory, 1);
    assert_eq!(space.tables(), 3, "the root, the second level, and one put aside");
    // From now on there is no memory, but the table that was put aside.
    while memory.allocate(domain, owner).is_ok() {}
    space.unmap_range(&mut memory, Va(0x1_3000), 0x1000).unwrap();
    let found = sizes(&memory, &space);
    assert_eq!((found.len(), found[0], found[1], found[16]), (31 + 15, (0, 16), (16, 1), (32, 16)));
    for page in [0, 0x12, 0x14, 511] {
        let walk = walk(&memory, space.root(), Va(page << 12), Access::Read).unwrap();
        assert_eq!(u64::from(walk.page.index), u64::from(run.index) + page);
    }
    let fault = walk(&memory, space.root(), Va(0x1_3000), Access::Read).unwrap_err();
    assert_eq!(fault.reason, FaultReason::NotMapped);
    let fault = walk(&memory, space.root(), Va(0x1_4000), Access::Write).unwrap_err();
    assert_eq!(fault.reason, FaultReason::ReadOnly);
    space.unmap_range(&mut memory, Va(0), 2 << 20).unwrap();
    assert_eq!(sizes(&memory, &space), []);
    space.map_run(&mut memory, Va(0), (run, 512), RW).unwrap();
    assert_eq!(sizes(&memory, &space), [(0, 512)], "the empty table was in the way");
    space.unmap_range(&mut memory, Va(0x1000), 0x1000).unwrap();
    let tables = space.tables();
    memory.flush_translations(space.root(), Va(0), 2 << 20);
    space.destroy(&mut memory).unwrap();
    assert_eq!(memory.free_pages(domain), tables);
}

#[test]
fn a_cached_translation_is_used_until_it_is_flushed_and_counted_where_it_is_stale() {
    let (mut memory, domain, owner, mut space) = fixture();
    let run = memory.allocate_run(domain, owner, 512).unwrap();
    space.map_run(&mut memory, Va(0), (run, 512), RW).unwrap();
    let look =
        |memory: &Memory, space: &AddressSpace, page: u64| walk(memory, space.root(), Va(page << 12), Access::Write);
    assert_eq!(look(&memory, &space, 3).unwrap().page.index, run.index + 3);
    assert_eq!(memory.translation_hits(), (0, 0));
    assert_eq!(look(&memory, &space, 400).unwrap().page.index, run.index + 400);
    assert_eq!(memory.translation_hits(), (1, 0), "one entry for all of the block");
    space.unmap_range(&mut memory, Va(0x1000), 0x1000).unwrap();
    assert!(look(&memory, &space, 400).is_ok());
    assert_eq!(memory.translation_hits(), (2, 0), "still true there");
    assert!(look(&memory, &space, 1).is_ok());
    assert_eq!(memory.translation_hits(), (3, 1), "not there");
    let (va, len) = block_of(Va(0x1000), 0x1000);
    memory.flush_translations(space.root(), va, len);
    assert!(look(&memory, &space, 1).is_err());
    assert_eq!(memory.translation_hits(), (3, 1));
}

/// Random ranges against a flat array: what each page translates to, after each change; tables never run out.
#[test]
fn ranges_are_what_a_flat_array_says() {
    let (mut memory, domain, owner, mut space) = fixture();
    let run = memory.allocate_run(domain, owner, 512).unwrap();
    let mut pages = vec![None; 2048];
    let mut seed = 7_u64;
    let mut random = |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    let mut largest = 0;
    for turn in 0..3000 {
        // Often aligned to something.
        let align = [1, 16, 16, 512][random(4) as usize];
        let from = random(2048 / align) * align;
        let count = ((random(40) + 1) * align).min(2048 - from).min(512);
        let first = if random(2) == 0 { 0 } else { random(512 - count + 1) };
        space.unmap_range(&mut memory, Va(from << 12), count << 12).unwrap();
        pages[from as usize..(from + count) as usize].fill(None);
        if random(3) > 0 {
            let start = PageId { index: run.index + first as u32, ..run };
            space.map_run(&mut memory, Va(from << 12), (start, count as u32), RW).unwrap();
            for (page, at) in pages[from as usize..].iter_mut().zip(0..count) {
                *page = Some(run.index + (first + at) as u32);
            }
        }
        memory.flush_translations(space.root(), Va(0), 2048 << 12);
        let probe = random(2048);
        for at in [from, from + count - 1, from.saturating_sub(1), (from + count).min(2047), probe] {
            let found = walk(&memory, space.root(), Va(at << 12), Access::Read).ok().map(|walk| walk.page.index);
            assert_eq!(found, pages[at as usize], "page {at}");
        }
        if turn % 100 == 0 {
            largest = largest.max(space.held(&memory).iter().map(|held| held.size.pages()).max().unwrap_or(0));
        }
    }
    let held: u32 = space.held(&memory).iter().map(|held| held.size.pages()).sum();
    assert_eq!(held as usize, pages.iter().flatten().count());
    assert_eq!((largest, memory.translation_hits().1), (512, 0));
    assert!(space.tables() <= 2 + 4, "a table of each level, one for each block: {}", space.tables());
}
