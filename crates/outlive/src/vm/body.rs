//! What is inside a VM that one at a time may touch: the space, and the table of open buffers.

use super::driver::VmDriver;
use super::grace::Ticket;
use super::pairs::{OpenBo, OpenPairs, PairInner, Phase};
use super::shared::{Figures, VmInner, Whole};
use super::space::Space;
use super::table::Table;
use super::{BoId, Detached, VaRange, VmBo};
use crate::exec::object::Object;

/// What only the one who has the turn, or the moment, may touch.
pub(super) struct Body<D: VmDriver> {
    pub(super) space: Space<OpenBo<D>, D::Mapping>,
    pub(super) table: Table,
    /// Bytes of all open buffers.
    pub(super) bytes: u64,
    pub(super) bos_max: usize,
    /// Pairs whose mappings are out and not all freed, in the order in which they were closed.
    outs: OpenPairs<D>,
}

impl<D: VmDriver> Body<D> {
    pub(super) const fn new(space: Space<OpenBo<D>, D::Mapping>, bos_max: usize) -> Self {
        Self { space, table: Table::new(), bytes: 0, bos_max, outs: OpenPairs::new() }
    }

    pub(super) fn figures(&self) -> Figures {
        Figures { mappings: self.space.len(), bos: self.table.len(), bytes: self.bytes, memory: self.space.memory() }
    }

    /// Takes the mappings of closed buffers out, and learns what was said of the VM meanwhile. Allocates nothing, drops nothing.
    pub(super) fn settle(&mut self, vm: &VmInner<D>) {
        loop {
            let pair = {
                let mut state = vm.state.lock();
                let (closed, poisoned) = (state.closed, state.poisoned);
                // Once the driver has the whole VM, what is mapped is its to clear.
                let settles = matches!(state.whole, Whole::Open | Whole::Closed | Whole::GivenUp(..));
                let pair = if settles { state.closing.pop() } else { None };
                drop(state);
                self.space.closed |= closed;
                if poisoned {
                    self.space.poison();
                }
                pair
            };
            match pair {
                Some(pair) => self.take_out(vm, pair),
                None => return,
            }
        }
    }

    fn take_out(&mut self, vm: &VmInner<D>, pair: Object<PairInner<D>>) {
        self.table.remove(pair.key);
        self.bytes -= pair.size;
        let Some(detached) = self.space.close_bo(pair.id) else { return };
        let mut state = vm.state.lock();
        state.unlist(&pair);
        state.out += 1;
        self.outs.push(&pair);
        // Only now: a change that had the turn when the buffer was closed may have taken mappings of it out.
        let ticket = state.grace.ticket();
        let phase = {
            let mut own = pair.state.lock();
            own.out = Some((detached, ticket));
            own.phase
        };
        match phase {
            Phase::GivenUp => state.waiting.push(pair),
            Phase::Cleared => state.done.push(pair),
            Phase::Open | Phase::Closed | Phase::Handed => {
                drop(state);
                drop(pair);
            }
        }
    }

    /// The parts of `range` where entries of `pair` still are, ascending. Those that something else took the place of are not its any
    /// more, be that mapped now, or closed since and still to be cleared for itself.
    ///
    /// Looks through all that was mapped after `pair` was closed and is closed itself, for each part: usually nothing.
    pub(super) fn still_there<'a>(
        &'a self,
        pair: &'a PairInner<D>,
        range: VaRange,
    ) -> impl Iterator<Item = VaRange> + 'a {
        let mut left = Some(range);
        core::iter::from_fn(move || {
            let part = self.first_there(pair, left.take()?)?;
            left = (part.last() < range.last()).then(|| VaRange::between(part.last() + 1, range.last()));
            Some(part)
        })
    }

    fn first_there(&self, pair: &PairInner<D>, mut left: VaRange) -> Option<VaRange> {
        loop {
            // Ascending, so the first is the lowest.
            let by_now = self.space.overlapping(left).map(|mapping| mapping.range).next();
            let since = self.closed_since(pair).filter(|range| range.overlaps(left));
            let Some(other) = since.chain(by_now).min_by_key(|range| range.base()) else { return Some(left) };
            if other.base() > left.base() {
                return Some(VaRange::between(left.base(), other.base() - 1));
            }
            if other.last() >= left.last() {
                return None;
            }
            left = VaRange::between(other.last() + 1, left.last());
        }
    }

    /// What was mapped after `pair` was closed, is closed as well, and not cleared.
    fn closed_since(&self, pair: &PairInner<D>) -> impl Iterator<Item = VaRange> {
        let closed_at = pair.state.lock().out.as_ref().map(|(detached, _)| detached.closed_at());
        let later = closed_at.map(|closed_at| {
            self.outs.behind(pair).filter_map(move |later| {
                let own = later.state.lock();
                let (detached, _) = own.out.as_ref()?;
                let counts = own.phase != Phase::Cleared && detached.was_mapped_after(closed_at);
                counts.then(|| self.space.detached(detached))
            })
        });
        later.into_iter().flatten().flatten().map(|mapping| mapping.range)
    }

    /// Another handle on the pair of the buffer of this number, if it is open here. O(1).
    pub(super) fn find(&self, key: u64) -> Option<VmBo<D>> {
        self.handle_of(self.table.get(key)?)
    }

    /// Another handle on an open pair.
    pub(super) fn handle_of(&self, id: BoId) -> Option<VmBo<D>> {
        let open = self.space.bo(id)?;
        let mut state = open.inner().state.lock();
        if state.phase != Phase::Open || state.handles == 0 {
            return None;
        }
        state.handles += 1;
        Some(VmBo::new(open.pair(&state)))
    }
}

/// Mappings whose data is taken out at once.
pub(super) const SLICE: usize = 32;

/// What was taken out of a body, to be dropped when that was given back.
pub(super) struct Freed<D: VmDriver> {
    _mappings: [Option<D::Mapping>; SLICE],
    _pair: Option<Object<PairInner<D>>>,
}

impl<D: VmDriver> Body<D> {
    /// Takes out some of the mappings of `pair`, which may be freed, and `pair` itself if those were the last.
    pub(super) fn free(&mut self, vm: &VmInner<D>, pair: Object<PairInner<D>>) -> Option<Freed<D>> {
        let out: Option<(Detached<OpenBo<D>>, Ticket)> = pair.state.lock().out.take();
        let (mut detached, ticket) = out?;
        let mappings = core::array::from_fn(|_| self.space.release_next(&mut detached));
        let mut left = Some(pair);
        let mut state = vm.state.lock();
        if detached.is_empty() {
            state.out -= 1;
            if let Some(pair) = &left {
                self.outs.remove(pair);
            }
        } else if let Some(pair) = left.take() {
            pair.state.lock().out = Some((detached, ticket));
            state.done.push(pair);
        }
        Some(Freed { _mappings: mappings, _pair: left })
    }
}
