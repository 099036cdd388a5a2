//! The only module that names `alloc`: fallible allocation, the one reference count, the one intrusive list, the one
//! ordered tree.
//!
//! Everything here that can run out of memory says so with [`AllocError`]; nothing else in the crate may call an
//! allocating function (`clippy.toml` of this crate disallows them). So "does this path allocate?" is answered by
//! looking for `mem::` in it.
//!
//! # Contexts
//! The `try_*` functions allocate and may therefore block in an embedder's allocator: never inside a signalling
//! section. Freeing is allowed everywhere.
#![expect(unsafe_code, reason = "raw allocation; docs/unsafe.md, `mem`")]

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::alloc::Layout;
use core::fmt;
use core::ptr::NonNull;

pub(crate) mod list;
pub(crate) mod shared;
pub(crate) mod tree;

/// There was no memory. Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct AllocError {
    /// Bytes that were asked for.
    pub bytes: usize,
}

impl fmt::Display for AllocError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no memory for {} bytes; free some or submit less at once", self.bytes)
    }
}

impl core::error::Error for AllocError {}

/// Memory for `layout`, which must not be of size zero.
pub(crate) fn try_alloc(layout: Layout) -> Result<NonNull<u8>, AllocError> {
    debug_assert!(layout.size() > 0);
    // SAFETY: the size is not zero: every caller's type has at least a reference count.
    let raw = unsafe { alloc::alloc::alloc(layout) };
    #[cfg(all(test, any(loom, shuttle)))]
    crate::sync::model::born();
    // For `whole`.
    raw.expose_provenance();
    NonNull::new(raw).ok_or(AllocError { bytes: layout.size() })
}

/// `at`, inside a block of [`try_alloc`], with the right to write to all of that block and to free it. Objects are found again
/// through pointers that were made from shared references (a node, a field), which may not, by the language's aliasing model.
pub(crate) fn whole<T>(at: NonNull<T>) -> NonNull<T> {
    let whole = core::ptr::with_exposed_provenance_mut(at.addr().get());
    // An address that is not null stays so.
    NonNull::new(whole).unwrap_or(at)
}

/// Gives memory of [`try_alloc`] back.
///
/// # Safety
/// `raw` came from [`try_alloc`] with this very `layout` and nothing uses it any more.
pub(crate) unsafe fn free(raw: NonNull<u8>, layout: Layout) {
    #[cfg(all(test, any(loom, shuttle)))]
    // SAFETY: the caller's promise.
    return unsafe { crate::sync::model::bury(raw, layout) };
    #[cfg(not(all(test, any(loom, shuttle))))]
    // SAFETY: the caller's promise is the allocator's contract.
    unsafe {
        alloc::alloc::dealloc(raw.as_ptr(), layout)
    }
}

/// `value` on the heap, or `value` back.
pub(crate) fn try_box<T>(value: T) -> Result<Box<T>, (AllocError, T)> {
    if size_of::<T>() == 0 {
        #[expect(clippy::disallowed_methods, reason = "a box of nothing does not allocate")]
        return Ok(Box::new(value));
    }
    match try_alloc(Layout::new::<T>()) {
        Ok(raw) => {
            let raw = raw.cast::<T>();
            // SAFETY: fresh memory of the layout of `T`, owned by nobody else.
            unsafe { raw.write(value) };
            #[cfg(all(test, any(loom, shuttle)))]
            crate::sync::model::moved_out();
            // SAFETY: allocated by the global allocator with `Layout::new::<T>()` and initialised above.
            Ok(unsafe { Box::from_raw(raw.as_ptr()) })
        }
        Err(error) => Err((error, value)),
    }
}

/// A copy of `text` on the heap.
pub(crate) fn try_str(text: &str) -> Result<Box<str>, AllocError> {
    let mut bytes = Vec::new();
    try_reserve(&mut bytes, text.len())?;
    bytes.extend_from_slice(text.as_bytes());
    // `try_reserve` is exact, so there is no spare capacity that the conversion would have to give back.
    Ok(String::from_utf8(bytes).unwrap_or_default().into_boxed_str())
}

/// Room for `more` further elements in `vec`.
pub(crate) fn try_reserve<T>(vec: &mut Vec<T>, more: usize) -> Result<(), AllocError> {
    vec.try_reserve_exact(more).map_err(|_| AllocError { bytes: more.saturating_mul(size_of::<T>()) })
}

/// Appends to `vec`, growing it if need be; gives `value` back when there is no memory.
pub(crate) fn try_push<T>(vec: &mut Vec<T>, value: T) -> Result<(), (AllocError, T)> {
    if vec.len() == vec.capacity() {
        let more = vec.capacity().clamp(4, 1024);
        if let Err(error) = try_reserve(vec, more) {
            return Err((error, value));
        }
    }
    #[expect(clippy::disallowed_methods, reason = "there is room: it was reserved above")]
    vec.push(value);
    Ok(())
}

pub(crate) use alloc::boxed::Box as HeapBox;
pub(crate) use alloc::vec::Vec as HeapVec;
