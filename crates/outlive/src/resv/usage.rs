//! What a fence on a buffer stands for.

/// What a fence on a buffer stands for, strongest first, as in the kernel's `enum dma_resv_usage`. Asking for one means asking
/// for it and all stronger ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Usage {
    /// Memory management: moves and clears. Everyone waits for it.
    Kernel,
    /// A writer.
    Write,
    /// A reader.
    Read,
    /// Nobody's business but the memory manager's: no implicit synchronisation.
    Bookkeep,
}

impl Usage {
    /// What a new access must wait for: a writer for all readers and writers, a reader for all writers.
    #[must_use]
    pub const fn for_access(write: bool) -> Self {
        if write { Self::Read } else { Self::Write }
    }

    /// Whether asking for `self` yields a fence of usage `fence`.
    #[must_use]
    pub fn includes(self, fence: Self) -> bool {
        fence <= self
    }
}

#[cfg(all(test, not(loom), not(shuttle)))]
mod tests {
    use super::Usage;

    #[test]
    fn readers_wait_for_writers_and_writers_for_all_but_bookkeeping() {
        let asked = |write| {
            let usage = Usage::for_access(write);
            [Usage::Kernel, Usage::Write, Usage::Read, Usage::Bookkeep].map(|fence| usage.includes(fence))
        };
        assert_eq!(asked(false), [true, true, false, false]);
        assert_eq!(asked(true), [true, true, true, false]);
    }
}
