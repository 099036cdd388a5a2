//! The device's only way to memory: by virtual address, through the page tables, on every access.
//!
//! An access that spans pages is split at their edges and each piece is walked for itself; what came before a fault has
//! happened.

use super::memory::{Memory, PAGE_BYTES, index};
use super::page_table::{Fault, FaultReason, offset_in_page, translate};
use super::types::{Access, PageId, Va};

/// One address space as the device sees it: the root of its tables.
pub(crate) type Root = PageId;

/// Reads `out.len()` bytes at `va`.
pub(crate) fn read(memory: &Memory, root: Root, va: Va, access: Access, out: &mut [u8]) -> Result<(), Fault> {
    let mut done = 0;
    while done < out.len() {
        let at = va.add(done as u64);
        let offset = offset_in_page(at);
        let piece = (PAGE_BYTES - offset).min(out.len() - done);
        let page = bytes(memory, root, at, access)?;
        out[done..done + piece].copy_from_slice(&page[offset..offset + piece]);
        done += piece;
    }
    Ok(())
}

/// Reads as many bytes as `other` has at `va`, and says whether they are the same.
pub(crate) fn is_equal(memory: &Memory, root: Root, va: Va, access: Access, other: &[u8]) -> Result<bool, Fault> {
    let (mut done, mut same) = (0, true);
    while done < other.len() {
        let at = va.add(done as u64);
        let offset = offset_in_page(at);
        let piece = (PAGE_BYTES - offset).min(other.len() - done);
        let page = bytes(memory, root, at, access)?;
        same &= page[offset..offset + piece] == other[done..done + piece];
        done += piece;
    }
    Ok(same)
}

/// Writes `data` at `va`.
pub(crate) fn write(memory: &mut Memory, root: Root, va: Va, data: &[u8]) -> Result<(), Fault> {
    let mut done = 0;
    while done < data.len() {
        let at = va.add(done as u64);
        let offset = offset_in_page(at);
        let piece = (PAGE_BYTES - offset).min(data.len() - done);
        let page = bytes_mut(memory, root, at, Access::Write)?;
        page[offset..offset + piece].copy_from_slice(&data[done..done + piece]);
        done += piece;
    }
    Ok(())
}

/// Writes `count` bytes at `va` from a pattern of four bytes that starts anew at `va`.
pub(crate) fn fill(memory: &mut Memory, root: Root, va: Va, count: u64, pattern: u32) -> Result<(), Fault> {
    let pattern = pattern.to_le_bytes();
    let mut done = 0;
    while done < count {
        let at = va.add(done);
        let offset = offset_in_page(at);
        let room = (PAGE_BYTES - offset) as u64;
        // CAST: at most one page.
        let piece = index(room.min(count - done) as u32);
        let page = bytes_mut(memory, root, at, Access::Write)?;
        let mut turned = pattern;
        // CAST: two bits. A page edge may fall inside a pattern.
        turned.rotate_left((done % 4) as usize);
        let mut quads = page[offset..offset + piece].chunks_exact_mut(4);
        for quad in &mut quads {
            quad.copy_from_slice(&turned);
        }
        let rest = quads.into_remainder();
        rest.copy_from_slice(&turned[..rest.len()]);
        done += piece as u64;
    }
    Ok(())
}

/// Copies `count` bytes, forwards.
pub(crate) fn copy(memory: &mut Memory, root: Root, source: Va, target: Va, count: u64) -> Result<(), Fault> {
    let mut done = 0;
    while done < count {
        let (from, to) = (source.add(done), target.add(done));
        let (from_offset, to_offset) = (offset_in_page(from), offset_in_page(to));
        let room = (PAGE_BYTES - from_offset.max(to_offset)) as u64;
        // CAST: at most one page.
        let piece = index(room.min(count - done) as u32);
        let read = translate(memory, root, from, Access::Read)?;
        let written = translate(memory, root, to, Access::Write)?;
        if !memory.copy((read, from_offset), (written, to_offset), piece) {
            let missing = if memory.page(read).is_none() { (from, Access::Read) } else { (to, Access::Write) };
            let (va, access) = missing;
            return Err(Fault { va, access, reason: FaultReason::BadEntry });
        }
        done += piece as u64;
    }
    Ok(())
}

/// Reads eight bytes at an address that is a multiple of eight.
#[inline]
pub(crate) fn load(memory: &Memory, root: Root, va: Va) -> Result<u64, Fault> {
    let access = Access::ControlRead;
    let page = translate(memory, root, va, access)?;
    let value = memory.load_u64(page, offset_in_page(va));
    value.ok_or(Fault { va, access, reason: FaultReason::BadEntry })
}

/// Writes eight bytes at an address that is a multiple of eight.
#[inline]
pub(crate) fn store(memory: &mut Memory, root: Root, va: Va, access: Access, value: u64) -> Result<(), Fault> {
    let page = translate(memory, root, va, access)?;
    let stored = memory.store_u64(page, offset_in_page(va), value);
    stored.ok_or(Fault { va, access, reason: FaultReason::BadEntry })
}

fn bytes(memory: &Memory, root: Root, va: Va, access: Access) -> Result<&[u8; PAGE_BYTES], Fault> {
    let page = translate(memory, root, va, access)?;
    memory.page(page).ok_or(Fault { va, access, reason: FaultReason::BadEntry })
}

fn bytes_mut(memory: &mut Memory, root: Root, va: Va, access: Access) -> Result<&mut [u8; PAGE_BYTES], Fault> {
    let page = translate(memory, root, va, access)?;
    memory.page_mut(page).ok_or(Fault { va, access, reason: FaultReason::BadEntry })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::page_table::{AddressSpace, Protection};

    /// Two pages at 0x1000 and 0x2000, the second before the first in memory.
    fn fixture() -> (Memory, AddressSpace, [PageId; 2]) {
        let mut memory = Memory::new(0).unwrap();
        let domain = memory.add_domain(1 << 16).unwrap();
        let owner = memory.add_owner().unwrap();
        let mut space = AddressSpace::new(&mut memory, domain, owner).unwrap();
        let second = memory.allocate(domain, owner).unwrap();
        let first = memory.allocate(domain, owner).unwrap();
        space.map(&mut memory, Va(0x1000), first, Protection::ReadWrite).unwrap();
        space.map(&mut memory, Va(0x2000), second, Protection::ReadWrite).unwrap();
        (memory, space, [first, second])
    }

    #[test]
    fn an_access_across_a_page_edge_reaches_both() {
        let (mut memory, space, [first, second]) = fixture();
        write(&mut memory, space.root(), Va(0x1ffe), &[1, 2, 3, 4]).unwrap();
        assert_eq!(memory.page(first).unwrap()[4094..], [1, 2]);
        assert_eq!(memory.page(second).unwrap()[..2], [3, 4]);
        let mut back = [0; 4];
        read(&memory, space.root(), Va(0x1ffe), Access::Read, &mut back).unwrap();
        assert_eq!(back, [1, 2, 3, 4]);
    }

    #[test]
    fn the_fault_names_the_first_address_that_is_missing() {
        let (mut memory, space, _) = fixture();
        let fault = fill(&mut memory, space.root(), Va(0x2f00), 0x200, 7).unwrap_err();
        assert_eq!(fault.va, Va(0x3000));
        let mut back = [0; 4];
        read(&memory, space.root(), Va(0x2ffc), Access::Read, &mut back).unwrap();
        assert_eq!(back, 7_u32.to_le_bytes(), "what came before has happened");
    }

    #[test]
    fn fill_keeps_its_pattern_across_pages_and_copy_copies() {
        let (mut memory, space, _) = fixture();
        fill(&mut memory, space.root(), Va(0x1ff2), 16, 0x0403_0201).unwrap();
        copy(&mut memory, space.root(), Va(0x1ff2), Va(0x1800), 16).unwrap();
        let mut back = [0; 16];
        read(&memory, space.root(), Va(0x1800), Access::Read, &mut back).unwrap();
        assert_eq!(back, [1, 2, 3, 4, 1, 2, 3, 4, 1, 2, 3, 4, 1, 2, 3, 4]);
    }
}
