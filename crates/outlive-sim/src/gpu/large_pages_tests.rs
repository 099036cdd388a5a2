use super::*;
use crate::gpu::page_table::{FaultReason, Reach, walk};
use crate::gpu::types::{Access, DomainId, OwnerId};

fn fixture() -> (Memory, DomainId, OwnerId, AddressSpace) {
    fixture_of(Reach::Bits39)
}

fn fixture_of(reach: Reach) -> (Memory, DomainId, OwnerId, AddressSpace) {
    let mut memory = Memory::new(0).unwrap();
    let domain = memory.add_domain(16 << 20).unwrap();
    let owner = memory.add_owner().unwrap();
    let space = AddressSpace::reaching(&mut memory, domain, owner, reach).unwrap();
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
        assert_eq!(u64::from(walk.page.unwrap().index), u64::from(run.index) + page);
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
    assert_eq!(look(&memory, &space, 3).unwrap().page.unwrap().index, run.index + 3);
    assert_eq!(memory.translation_hits(), (0, 0));
    assert_eq!(look(&memory, &space, 400).unwrap().page.unwrap().index, run.index + 400);
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

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

#[test]
fn sparse_ranges_take_the_largest_entries_there_are() {
    let (mut memory, _, _, mut space) = fixture();
    space.map_sparse(&mut memory, Va(GIB), GIB, RW).unwrap();
    assert_eq!((sizes(&memory, &space), space.tables()), (vec![(1 << 18, 1 << 18)], 1));
    space.unmap_range(&mut memory, Va(GIB), GIB).unwrap();
    // From 60 KiB below a border of 1 GiB to 2 MiB, 64 KiB and 8 KiB above the next.
    let end = 2 * GIB + 2 * MIB + 0x1_2000;
    space.map_sparse(&mut memory, Va(GIB - 0xf000), end - (GIB - 0xf000), RW).unwrap();
    let found = sizes(&memory, &space);
    assert_eq!(
        found.iter().map(|(_, pages)| *pages).collect::<Vec<_>>(),
        [vec![1; 15], vec![1 << 18, 512, 16, 1, 1]].concat()
    );
    assert_eq!(space.tables(), 1 + 2 + 2, "two of each level below the root");
    space.unmap_range(&mut memory, Va(0), 512 * GIB).unwrap();
    assert_eq!(sizes(&memory, &space), []);
    let beyond = space.map_sparse(&mut memory, Va(511 * GIB), 2 * GIB, RW);
    assert_eq!(beyond, Err(MapError::BadAddress(Va(511 * GIB))));
}

#[test]
fn what_is_sparse_reads_as_zero_and_is_split_by_what_is_put_into_it() {
    let (mut memory, domain, owner, mut space) = fixture();
    let run = memory.allocate_run(domain, owner, 512).unwrap();
    space.map_sparse(&mut memory, Va(0), GIB, RW).unwrap();
    let root = space.root();
    let look = |memory: &Memory, va, access| walk(memory, root, Va(va), access).map(|walk| walk.page);
    assert_eq!(look(&memory, 0x123_4567, Access::Write), Ok(None));
    assert_eq!(look(&memory, GIB, Access::Read).unwrap_err().reason, FaultReason::NotMapped);
    let occupied = space.map_run(&mut memory, Va(4 * MIB), (run, 1), RW);
    assert_eq!(occupied, Err(MapError::Occupied(Va(4 * MIB))));
    // A page in the middle of it, of memory.
    space.reserve_tables(&mut memory, 2).unwrap();
    let tables = space.tables();
    space.unmap_range(&mut memory, Va(4 * MIB + 0x5000), 0x1000).unwrap();
    memory.flush_translations(root, Va(4 * MIB + 0x5000), 0x1000);
    space.map_run(&mut memory, Va(4 * MIB + 0x5000), (run, 1), RW).unwrap();
    assert_eq!(space.tables(), tables, "a table for each level that was split");
    assert_eq!(look(&memory, 4 * MIB + 0x5000, Access::Write), Ok(Some(run)));
    assert_eq!(look(&memory, 4 * MIB + 0x6000, Access::Write), Ok(None));
    let held = space.held(&memory);
    assert_eq!(held.len(), 511 + 31 + 16);
    assert_eq!(held.iter().filter(|held| held.page.is_some()).count(), 1);
    // One that may only be read.
    space.unmap_range(&mut memory, Va(0), GIB).unwrap();
    memory.flush_translations(root, Va(0), GIB);
    space.map_sparse(&mut memory, Va(0), 0x3000, Protection::ReadOnly).unwrap();
    assert_eq!(look(&memory, 0x1000, Access::Read), Ok(None));
    assert_eq!(look(&memory, 0x1000, Access::Write).unwrap_err().reason, FaultReason::ReadOnly);
    assert_eq!(memory.translation_hits().1, 0);
}

#[test]
fn that_something_was_sparse_is_remembered_until_it_is_flushed() {
    let (mut memory, domain, owner, mut space) = fixture();
    let page = memory.allocate(domain, owner).unwrap();
    let root = space.root();
    space.map_sparse(&mut memory, Va(0), GIB, RW).unwrap();
    let look = |memory: &Memory| walk(memory, root, Va(0x7000), Access::Read).unwrap().page;
    assert_eq!([look(&memory), look(&memory)], [None, None]);
    assert_eq!(memory.translation_hits(), (1, 0));
    space.unmap_range(&mut memory, Va(0x7000), 0x1000).unwrap();
    space.map_run(&mut memory, Va(0x7000), (page, 1), RW).unwrap();
    assert_eq!((look(&memory), memory.translation_hits()), (None, (2, 1)), "stale");
    // A flush of any part of it forgets the large page.
    memory.flush_translations(root, Va(0x7000), 0x1000);
    assert_eq!((look(&memory), memory.translation_hits()), (Some(page), (2, 1)));
}

#[test]
fn four_levels_reach_48_bits() {
    let (mut memory, domain, owner, mut space) = fixture_of(Reach::Bits48);
    let run = memory.allocate_run(domain, owner, 512).unwrap();
    let (end, root) = (1 << 48, space.root());
    space.map_sparse(&mut memory, Va(0), end, RW).unwrap();
    assert_eq!((sizes(&memory, &space).len(), space.tables()), (512, 1), "of 512 GiB each");
    space.unmap_range(&mut memory, Va(end - 0x1000), 0x1000).unwrap();
    assert_eq!(space.tables(), 4);
    let held: u64 = space.held(&memory).iter().map(|held| held.size.bytes()).sum();
    assert_eq!(held, end - 0x1000);
    space.map_run(&mut memory, Va(end - 0x1000), (run, 1), RW).unwrap();
    space.unmap_range(&mut memory, Va(1 << 39), 2 * MIB).unwrap();
    space.map_run(&mut memory, Va(1 << 39), (run, 512), RW).unwrap();
    let look = |memory: &Memory, va| walk(memory, root, Va(va), Access::Read).map(|walk| walk.page);
    assert_eq!(look(&memory, end - 1), Ok(Some(run)));
    assert_eq!(look(&memory, (1 << 39) + 0x3000), Ok(Some(PageId { index: run.index + 3, ..run })));
    assert_eq!(look(&memory, (1 << 39) + 2 * MIB), Ok(None));
    assert_eq!(look(&memory, end).unwrap_err().reason, FaultReason::OutOfRange);
    let found = walk(&memory, root, Va(end - 0x1001), Access::Read).unwrap();
    assert_eq!(found.page, None);
    assert!(!found.tables.contains(&root.table.index), "three below the root");
    assert_eq!(memory.translation_hits().1, 0);
    space.unmap_range(&mut memory, Va(0), end).unwrap();
    assert_eq!(sizes(&memory, &space), []);
    space.destroy(&mut memory).unwrap();
    assert_eq!(memory.pages_of(owner), 512);
}

/// Sparse ranges of all sizes at random against the list of what was done: what is at an address is what was done last there.
#[test]
fn sparse_ranges_of_all_sizes_are_what_was_done_last() {
    let (mut memory, domain, _, mut space) = fixture_of(Reach::Bits48);
    let mut random = random_from(11);
    let mut done: Vec<(u64, u64, bool)> = Vec::new();
    let root = space.root();
    for _ in 0..400 {
        let size = 12 + 9 * random(4) as u32;
        // Few places of each size, so that they meet.
        let len = (random(3) + 1) << size;
        let at = (random(1 << 3) << 39 | random(4) << 30 | random(4) << 21 | random(16) << 12) & !((1 << size) - 1);
        let map = random(3) > 0;
        space.unmap_range(&mut memory, Va(at), len).unwrap();
        if map {
            space.map_sparse(&mut memory, Va(at), len, RW).unwrap();
        }
        memory.flush_translations(root, Va(at), len);
        done.push((at, len, map));
        let mut probes = vec![at, at + len - 1, at + len, at.saturating_sub(1)];
        probes.extend(done.iter().rev().take(9).flat_map(|(at, len, _)| [*at, at + len - 1]));
        for probe in probes {
            let last = done.iter().rev().find(|(at, len, _)| (*at..at + len).contains(&probe));
            let wanted = last.is_some_and(|(_, _, map)| *map);
            let found = walk(&memory, root, Va(probe), Access::Write);
            assert_eq!(found.is_ok_and(|walk| walk.page.is_none()), wanted, "{probe:#x}");
        }
    }
    assert_eq!(memory.translation_hits().1, 0);
    let tables = u64::from(space.tables());
    space.destroy(&mut memory).unwrap();
    assert!(tables < 400 && memory.free_pages(domain) == 4096, "{tables}");
}

fn random_from(mut seed: u64) -> impl FnMut(u64) -> u64 {
    move |below| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    }
}

/// Random ranges, sparse ones among them, against a flat array: what each page translates to, after each change; tables never
/// run out.
#[test]
fn ranges_are_what_a_flat_array_says() {
    for (reach, base) in [(Reach::Bits39, 0), (Reach::Bits48, (1 << 47) - 4 * MIB)] {
        ranges_from(reach, base);
    }
}

fn ranges_from(reach: Reach, base: u64) {
    let (mut memory, domain, owner, mut space) = fixture_of(reach);
    let run = memory.allocate_run(domain, owner, 512).unwrap();
    let mut pages = vec![None; 2048];
    let mut random = random_from(7);
    let mut largest = 0;
    for turn in 0..3000 {
        // Often aligned to something.
        let align = [1, 16, 16, 512][random(4) as usize];
        let from = random(2048 / align) * align;
        let count = ((random(40) + 1) * align).min(2048 - from).min(512);
        let first = if random(2) == 0 { 0 } else { random(512 - count + 1) };
        let (at, len) = (Va(base + (from << 12)), count << 12);
        space.unmap_range(&mut memory, at, len).unwrap();
        pages[from as usize..(from + count) as usize].fill(None);
        match random(4) {
            0 => {}
            1 => {
                space.map_sparse(&mut memory, at, len, RW).unwrap();
                pages[from as usize..(from + count) as usize].fill(Some(None));
            }
            _ => {
                let start = PageId { index: run.index + first as u32, ..run };
                space.map_run(&mut memory, at, (start, count as u32), RW).unwrap();
                for (page, at) in pages[from as usize..].iter_mut().zip(0..count) {
                    *page = Some(Some(run.index + (first + at) as u32));
                }
            }
        }
        memory.flush_translations(space.root(), Va(base), 2048 << 12);
        let probe = random(2048);
        for at in [from, from + count - 1, from.saturating_sub(1), (from + count).min(2047), probe] {
            let found = walk(&memory, space.root(), Va(base + (at << 12)), Access::Read).ok();
            let found = found.map(|walk| walk.page.map(|page| page.index));
            assert_eq!(found, pages[at as usize], "page {at}");
        }
        if turn % 100 == 0 {
            largest = largest.max(space.held(&memory).iter().map(|held| held.size.pages()).max().unwrap_or(0));
        }
    }
    let held: u32 = space.held(&memory).iter().map(|held| held.size.pages()).sum();
    assert_eq!(held as usize, pages.iter().flatten().count());
    assert_eq!((largest, memory.translation_hits().1), (512, 0));
    let upper = if reach == Reach::Bits39 { 2 } else { 1 + 2 + 2 };
    assert!(space.tables() <= upper + 4, "a table of each level, one for each block: {}", space.tables());
}
