//! Tests of the allocator and its books.

use super::*;

fn two_pages() -> (Memory, OwnerId) {
    let mut memory = Memory::new(2 * 4096).unwrap();
    let owner = memory.add_owner().unwrap();
    (memory, owner)
}

#[test]
fn pages_are_charged_reused_and_zeroed() {
    let (mut memory, owner) = two_pages();
    let first = memory.allocate(DomainId::SYSTEM, owner).unwrap();
    memory.store_u64(first, 8, 77).unwrap();
    assert_eq!((memory.pages_of(owner), memory.generation(first)), (1, 1));
    memory.free(first).unwrap();
    assert_eq!(memory.load_u64(first, 8), Some(77), "a free page keeps its bytes until it is handed out");
    let again = memory.allocate(DomainId::SYSTEM, owner).unwrap();
    assert_eq!((again, memory.generation(again)), (first, 2));
    assert_eq!(memory.load_u64(again, 8), Some(0));
}

#[test]
fn all_or_nothing() {
    let (mut memory, owner) = two_pages();
    let mut pages = Vec::new();
    let refused = memory.allocate_many(DomainId::SYSTEM, owner, 3, &mut pages);
    assert_eq!(refused, Err(MemoryError::OutOfPages { domain: DomainId::SYSTEM, wanted: 3, free: 2 }));
    assert!(pages.is_empty() && memory.pages_of(owner) == 0);
    memory.allocate_many(DomainId::SYSTEM, owner, 2, &mut pages).unwrap();
    assert_eq!(memory.free_pages(DomainId::SYSTEM), 0);
    assert!(memory.allocate(DomainId::SYSTEM, owner).is_err());
}

#[test]
fn a_shared_page_is_freed_by_its_last_holder() {
    let (mut memory, owner) = two_pages();
    let page = memory.allocate(DomainId::SYSTEM, owner).unwrap();
    memory.share(page).unwrap();
    memory.free(page).unwrap();
    assert_eq!((memory.holders(page), memory.pages_of(owner)), (1, 1));
    memory.free(page).unwrap();
    assert_eq!((memory.holders(page), memory.pages_of(owner)), (0, 0));
    assert_eq!(memory.free(page), Err(MemoryError::NotHeld(page)));
    assert_eq!(memory.share(page), Err(MemoryError::NotHeld(page)));
}

#[test]
fn impossible_sizes_are_refused() {
    assert_eq!(Memory::new(1 << 60).unwrap_err(), MemoryError::OutOfHostMemory);
    let (mut memory, _) = two_pages();
    let nobody = OwnerId(9);
    assert!(memory.allocate(DomainId::SYSTEM, nobody).is_err());
    assert!(memory.page(PageId { domain: DomainId(4), index: 0 }).is_none());
}

#[test]
fn an_owners_number_is_given_again_once_it_is_charged_nothing() {
    let (mut memory, owner) = two_pages();
    let page = memory.allocate(DomainId::SYSTEM, owner).unwrap();
    memory.remove_owner(owner);
    let other = memory.add_owner().unwrap();
    assert_ne!(other, owner, "a page is charged to it");
    memory.free(page).unwrap();
    assert_eq!(memory.add_owner(), Ok(owner));
    memory.remove_owner(other);
    memory.remove_owner(other);
    assert_eq!(memory.add_owner(), Ok(other));
    assert_ne!(memory.add_owner(), Ok(other), "it was removed once");
}
