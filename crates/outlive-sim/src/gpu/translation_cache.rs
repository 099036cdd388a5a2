//! The device's translation cache: what it remembers of page tables, until the host flushes it.
//!
//! Only leaves that allow it (`CAC`) are remembered, each as a page of its size. A hit is not looked up in memory, as in
//! hardware: so an entry that was changed and not flushed is used as it was. That is a *stale* translation, which the model, but
//! not the hardware, finds by looking all the same, and counts.
//!
//! It lies beside the memory, behind a cell, so that whoever may read memory may use it; it belongs to nobody else.

use core::cell::{Cell, RefCell};

use super::page_table::PageSpan;
use super::types::{Access, PageId, Va};

/// Translations that are remembered.
const ENTRIES_MAX: usize = 64;

#[derive(Debug, Clone, Copy)]
struct Cached {
    root: PageId,
    span: PageSpan,
}

#[derive(Debug, Default)]
struct State {
    entries: Vec<Cached>,
    /// Which is forgotten next.
    next: usize,
    hits: u64,
    stale: u64,
    first_stale: Option<Va>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct TranslationCache {
    /// Whether there is anything in it: most devices' accesses ask no more.
    any: Cell<bool>,
    state: RefCell<State>,
}

impl TranslationCache {
    /// Whether nothing is remembered.
    #[inline]
    pub(crate) const fn is_empty(&self) -> bool {
        !self.any.get()
    }

    /// What is remembered for `va`, if it allows the access: a page, or that there is none behind it.
    #[expect(clippy::option_option, reason = "remembered or not; a page or none")]
    pub(crate) fn look(&self, root: PageId, va: Va, access: Access) -> Option<Option<PageId>> {
        let mut state = self.state.borrow_mut();
        let has = |cached: &&Cached| cached.root == root && cached.span.has(va);
        let span = state.entries.iter().find(has)?.span;
        if access.writes() && !span.writable {
            return None;
        }
        state.hits += 1;
        Some(span.page_at(va))
    }

    pub(crate) fn remember(&self, root: PageId, span: PageSpan) {
        let mut state = self.state.borrow_mut();
        let (next, cached) = (state.next, Cached { root, span });
        match state.entries.get_mut(next) {
            Some(entry) => *entry = cached,
            None => state.entries.push(cached),
        }
        state.next = (next + 1) % ENTRIES_MAX;
        self.any.set(true);
    }

    /// A hit was not what memory says.
    pub(crate) fn was_stale(&self, va: Va) {
        let mut state = self.state.borrow_mut();
        state.stale += 1;
        state.first_stale.get_or_insert(va);
    }

    /// Forgets all that overlaps `[va, va + len_bytes)` of the address space at `root`.
    pub(crate) fn flush(&self, root: PageId, va: Va, len_bytes: u64) {
        let mut state = self.state.borrow_mut();
        state.entries.retain(|cached| cached.root != root || !cached.span.overlaps(va, len_bytes));
        state.next = if state.entries.len() < ENTRIES_MAX { state.entries.len() } else { 0 };
        self.any.set(!state.entries.is_empty());
    }

    /// Uses of what was remembered, stale ones, and the first of those.
    pub(crate) fn figures(&self) -> (u64, u64, Option<Va>) {
        let state = self.state.borrow();
        (state.hits, state.stale, state.first_stale)
    }
}
