//! Tests of the tables, from both sides.

use super::*;
use crate::gpu::page_table::{Fault, FaultReason, offset_in_page, walk};
use crate::gpu::types::Access;

fn fixture() -> (Memory, OwnerId, AddressSpace) {
    let mut memory = Memory::new(1 << 20).unwrap();
    let domain = memory.add_domain(1 << 20).unwrap();
    let owner = memory.add_owner().unwrap();
    let space = AddressSpace::new(&mut memory, domain, owner).unwrap();
    (memory, owner, space)
}

#[test]
fn the_worked_example_holds() {
    let va = Va(0x12_3456_7890);
    assert_eq!([slot(va, 2), slot(va, 1), slot(va, 0)], [0x48, 0x1a2, 0x167]);
    assert_eq!(offset_in_page(va), 0x890);
    let entry = 0x0000_0000_0002_a007;
    assert_eq!(entry & (VALID | WRITABLE | SYSTEM), 7);
    let page = PageId { domain: DomainId::SYSTEM, index: 0x2a };
    assert_eq!(target(entry, DomainId(1)), Ok(page));
}

#[test]
fn map_walk_unmap() {
    let (mut memory, owner, mut space) = fixture();
    let page = memory.allocate(DomainId::SYSTEM, owner).unwrap();
    let va = Va(0x12_3456_7000);
    space.map(&mut memory, va, page, Protection::ReadOnly).unwrap();
    assert_eq!(space.tables(), 3);
    let found = walk(&memory, space.root(), Va(va.0 + 5), Access::Read).unwrap();
    assert_eq!((found.page, found.tables[0]), (Some(page), space.root().table.index));
    let fault = walk(&memory, space.root(), va, Access::Write).unwrap_err();
    assert_eq!(fault, Fault { va, access: Access::Write, reason: FaultReason::ReadOnly });
    assert_eq!(space.map(&mut memory, va, page, Protection::ReadWrite), Err(MapError::Occupied(va)));
    assert_eq!(space.unmap(&mut memory, va), Ok(page));
    let fault = walk(&memory, space.root(), va, Access::Read).unwrap_err();
    assert_eq!(fault.reason, FaultReason::NotMapped);
    assert_eq!(space.unmap(&mut memory, va), Err(MapError::NotMapped(va)));
    memory.free(page).unwrap();
    space.destroy(&mut memory).unwrap();
    assert_eq!(memory.pages_of(owner), 0, "every table is given back");
}

#[test]
fn bad_addresses_and_pages_are_refused() {
    let (mut memory, owner, mut space) = fixture();
    let other = memory.add_domain(1 << 16).unwrap();
    let foreign = memory.allocate(other, owner).unwrap();
    let (odd, far) = (Va(0x1001), Reach::Bits39.end());
    let rw = Protection::ReadWrite;
    assert_eq!(space.map(&mut memory, Va(0x1000), foreign, rw), Err(MapError::Unreachable(foreign)));
    assert_eq!(space.map(&mut memory, odd, foreign, rw), Err(MapError::BadAddress(odd)));
    assert_eq!(space.map(&mut memory, far, foreign, rw), Err(MapError::BadAddress(far)));
    let fault = walk(&memory, space.root(), far, Access::Read).unwrap_err();
    assert_eq!(fault.reason, FaultReason::OutOfRange);
}

#[test]
fn garbage_in_an_entry_faults() {
    let (mut memory, _, space) = fixture();
    for entry in [VALID | (1 << 6), VALID | BLOCK, VALID | (1 << 55), VALID | (0xffff_0000 << NUMBER_SHIFT)] {
        memory.store_u64(space.root().table, 0, entry).unwrap();
        let fault = walk(&memory, space.root(), Va(0x1000), Access::Read).unwrap_err();
        assert_eq!(fault.reason, FaultReason::BadEntry);
    }
}

#[test]
fn prepared_ranges_need_no_memory() {
    let (mut memory, owner, mut space) = fixture();
    // Crosses a 2 MiB boundary: two last-level tables.
    let va = Va(0x1f_f000);
    space.prepare(&mut memory, va, 0x2000).unwrap();
    assert_eq!(space.tables(), 4);
    let page = memory.allocate(DomainId::SYSTEM, owner).unwrap();
    while memory.allocate(space.root().table.domain, owner).is_ok() {}
    space.map(&mut memory, va, page, Protection::ReadWrite).unwrap();
    space.map(&mut memory, Va(0x20_0000), page, Protection::ReadWrite).unwrap();
    let far = Va(0x40_0000);
    assert!(matches!(space.map(&mut memory, far, page, Protection::ReadWrite), Err(MapError::Memory(_))));
}
