//! The device's only way to memory: by virtual address, through the page tables, on every access.
//!
//! An access that spans pages is split at their edges and each piece is walked for itself; what came before a fault has
//! happened. Behind a sparse mapping there is no memory: it reads as zero, and what is written there is dropped.

use super::memory::{Memory, PAGE_BYTES, index};
pub(crate) use super::page_table::Root;
use super::page_table::{Fault, FaultReason, offset_in_page, translate};
use super::types::{Access, Va};

/// What is read where no memory is behind.
static ZEROS: [u8; PAGE_BYTES] = [0; PAGE_BYTES];

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
        if let Some(page) = bytes_mut(memory, root, at, Access::Write)? {
            page[offset..offset + piece].copy_from_slice(&data[done..done + piece]);
        }
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
        let bytes = page.map_or(&mut [][..], |page| &mut page[offset..offset + piece]);
        let mut quads = bytes.chunks_exact_mut(4);
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
        let Some(written) = written else {
            done += piece as u64;
            continue;
        };
        let copied = match read {
            Some(read) => memory.copy((read, from_offset), (written, to_offset), piece),
            None => memory.page_mut(written).map(|page| page[to_offset..to_offset + piece].fill(0)).is_some(),
        };
        if !copied {
            let missing = read.is_some_and(|read| memory.page(read).is_none());
            let (va, access) = if missing { (from, Access::Read) } else { (to, Access::Write) };
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
    let Some(page) = translate(memory, root, va, access)? else { return Ok(0) };
    let value = memory.load_u64(page, offset_in_page(va));
    value.ok_or(Fault { va, access, reason: FaultReason::BadEntry })
}

/// Writes eight bytes at an address that is a multiple of eight.
#[inline]
pub(crate) fn store(memory: &mut Memory, root: Root, va: Va, access: Access, value: u64) -> Result<(), Fault> {
    let Some(page) = translate(memory, root, va, access)? else { return Ok(()) };
    let stored = memory.store_u64(page, offset_in_page(va), value);
    stored.ok_or(Fault { va, access, reason: FaultReason::BadEntry })
}

fn bytes(memory: &Memory, root: Root, va: Va, access: Access) -> Result<&[u8; PAGE_BYTES], Fault> {
    let Some(page) = translate(memory, root, va, access)? else { return Ok(&ZEROS) };
    memory.page(page).ok_or(Fault { va, access, reason: FaultReason::BadEntry })
}

/// None where there is no memory behind.
fn bytes_mut(memory: &mut Memory, root: Root, va: Va, access: Access) -> Result<Option<&mut [u8; PAGE_BYTES]>, Fault> {
    let Some(page) = translate(memory, root, va, access)? else { return Ok(None) };
    memory.page_mut(page).map(Some).ok_or(Fault { va, access, reason: FaultReason::BadEntry })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::address_space::AddressSpace;
    use crate::gpu::page_table::Protection;
    use crate::gpu::types::PageId;

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
    #[test]
    fn what_is_sparse_reads_as_zero_and_drops_what_is_written() {
        let (mut memory, mut space, [first, second]) = fixture();
        // Between 0x3000 and 0x5000, right behind the two pages.
        space.map_sparse(&mut memory, Va(0x3000), 0x2000, Protection::ReadWrite).unwrap();
        let root = space.root();
        fill(&mut memory, root, Va(0x1000), 0x4000, 0x0403_0201).unwrap();
        write(&mut memory, root, Va(0x2ffe), &[9, 9, 9, 9]).unwrap();
        store(&mut memory, root, Va(0x3008), Access::Write, 7).unwrap();
        assert_eq!(load(&memory, root, Va(0x3008)), Ok(0));
        let mut back = [1; 6];
        read(&memory, root, Va(0x2ffc), Access::Read, &mut back).unwrap();
        assert_eq!(back, [1, 2, 9, 9, 0, 0]);
        assert_eq!(is_equal(&memory, root, Va(0x2fff), Access::Read, &[9, 0, 0]), Ok(true));
        // Out of it zeros are copied, into it nothing is.
        copy(&mut memory, root, Va(0x4000), Va(0x1100), 0x10).unwrap();
        copy(&mut memory, root, Va(0x1000), Va(0x4000), 0x10).unwrap();
        copy(&mut memory, root, Va(0x3000), Va(0x4000), 0x1000).unwrap();
        assert_eq!(memory.page(first).unwrap()[0xfc..0x114], [&[1, 2, 3, 4][..], &[0; 16], &[1, 2, 3, 4]].concat());
        assert_eq!(memory.page(second).unwrap()[..4], [1, 2, 3, 4]);
        let fault = fill(&mut memory, root, Va(0x4ff0), 0x20, 7).unwrap_err();
        assert_eq!(fault.va, Va(0x5000), "it ends where it was mapped to");
    }
}
