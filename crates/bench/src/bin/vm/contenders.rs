//! What is compared: address spaces of adjacent tiles, each a mapping of its own.

use alloc::collections::BTreeMap;
use outlive::vm::{self, BoId, Flags, Geometry, Request, Source};
use rangemap::RangeMap;

/// A tile's size: that of sparse resources in D3D12.
pub(super) const TILE: u64 = 64 << 10;
/// The part that a split takes out of a tile.
const HOLE: core::ops::Range<u64> = 0x4000..0x8000;
const BASE: u64 = 1 << 40;
/// Buffers that tiles come from.
const BOS: u64 = 16;

/// Where a tile lies.
pub(super) const fn base_of(tile: u64) -> u64 {
    BASE + tile * TILE
}

/// A space that holds tiles.
pub(super) trait Space: Sized {
    const NAME: &'static str;
    type Closed;

    /// `count` tiles, built in the fastest way there is.
    fn filled(count: u64) -> Self;
    /// Binds `tile` to what the tile `to` had at the start.
    fn rebind(&mut self, tile: u64, to: u64);
    /// Unmaps the middle of `tile`.
    fn split(&mut self, tile: u64);
    /// Maps `tile` whole.
    fn heal(&mut self, tile: u64) {
        self.rebind(tile, tile);
    }
    /// The offset behind `va`.
    fn find(&self, va: u64) -> Option<u64>;
    /// Of all mappings' bases and offsets.
    fn sum(&self) -> u64;
    /// Takes everything out.
    fn close(self) -> Self::Closed;
    /// As [`Space::sum`], of what was taken out.
    fn look(closed: &Self::Closed) -> u64;
}

/// What every contender but `outlive` keeps with a mapping, beside its range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Behind {
    bo: u32,
    offset: u64,
    flags: u32,
}

const fn behind(tile: u64) -> Behind {
    Behind { bo: (tile % BOS) as u32, offset: tile * TILE, flags: 0 }
}

impl Behind {
    const fn advanced(self, by: u64) -> Self {
        Self { offset: self.offset + by, ..self }
    }
}

pub(super) struct OutliveSpace {
    space: vm::Space<()>,
    bos: Vec<BoId>,
}

impl OutliveSpace {
    fn map(&self, tile: u64, to: u64) -> Request {
        let source = Source::Bo { bo: self.bos[(to % BOS) as usize], offset: to * TILE };
        Request::Map { va: base_of(tile), len: TILE, source, flags: Flags::NONE, data: () }
    }

    fn commit(&mut self, request: Request) {
        let done = self.space.plan(&[request]).expect("a good request, and memory").commit();
        core::hint::black_box(done.steps());
    }

    pub(super) fn bytes(&self) -> usize {
        self.space.memory()
    }
}

impl Space for OutliveSpace {
    const NAME: &'static str = "outlive, plan and commit";
    type Closed = vm::Closed<()>;

    fn filled(count: u64) -> Self {
        let space = vm::Space::new(Geometry { base: 0, len: 1 << 48, page: 0x1000 }).expect("a good shape");
        let mut filled = Self { space, bos: Vec::new() };
        for _ in 0..BOS {
            filled.bos.push(filled.space.open_bo(u64::MAX, ()).expect("memory"));
        }
        let requests: Vec<_> = (0..count).map(|tile| filled.map(tile, tile)).collect();
        filled.space.fill(&requests).expect("good requests, and memory");
        filled
    }

    fn rebind(&mut self, tile: u64, to: u64) {
        self.commit(self.map(tile, to));
    }

    fn split(&mut self, tile: u64) {
        self.commit(Request::Unmap { va: base_of(tile) + HOLE.start, len: HOLE.end - HOLE.start });
    }

    fn find(&self, va: u64) -> Option<u64> {
        let mapping = self.space.find(va)?;
        match mapping.source {
            Source::Bo { offset, .. } => Some(offset + (va - mapping.range.base())),
            Source::Repeated { .. } | Source::Sparse => None,
        }
    }

    fn sum(&self) -> u64 {
        sum(self.space.iter())
    }

    fn close(mut self) -> Self::Closed {
        self.space.close()
    }

    fn look(closed: &Self::Closed) -> u64 {
        sum(closed.iter())
    }
}

fn sum<'a>(mappings: impl Iterator<Item = vm::Mapping<&'a ()>>) -> u64 {
    let each = mappings.map(|mapping| match mapping.source {
        Source::Bo { offset, .. } => mapping.range.base() ^ offset,
        Source::Repeated { .. } | Source::Sparse => 0,
    });
    each.fold(0, u64::wrapping_add)
}

type Map = BTreeMap<u64, (u64, Behind)>;

fn map_filled(count: u64) -> Map {
    (0..count).map(|tile| (base_of(tile), (base_of(tile) + TILE - 1, behind(tile)))).collect()
}

fn map_find(map: &Map, va: u64) -> Option<u64> {
    let (base, (last, behind)) = map.range(..=va).next_back()?;
    (va <= *last).then(|| behind.offset + (va - base))
}

fn map_sum(map: &Map) -> u64 {
    map.iter().map(|(base, (_, behind))| base ^ behind.offset).fold(0, u64::wrapping_add)
}

/// Removes and inserts what it knows is there: the least that a user of `BTreeMap` would do.
pub(super) struct Plain(Map);

impl Space for Plain {
    const NAME: &'static str = "BTreeMap, remove and insert";
    type Closed = Map;

    fn filled(count: u64) -> Self {
        Self(map_filled(count))
    }

    fn rebind(&mut self, tile: u64, to: u64) {
        let base = base_of(tile);
        core::hint::black_box(self.0.remove(&base));
        self.0.insert(base, (base + TILE - 1, behind(to)));
    }

    fn split(&mut self, tile: u64) {
        let base = base_of(tile);
        if let Some((last, behind)) = self.0.remove(&base) {
            self.0.insert(base, (base + HOLE.start - 1, behind));
            self.0.insert(base + HOLE.end, (last, behind.advanced(HOLE.end)));
        }
    }

    fn heal(&mut self, tile: u64) {
        self.0.remove(&(base_of(tile) + HOLE.end));
        self.rebind(tile, tile);
    }

    fn find(&self, va: u64) -> Option<u64> {
        map_find(&self.0, va)
    }

    fn sum(&self) -> u64 {
        map_sum(&self.0)
    }

    fn close(self) -> Map {
        self.0
    }

    fn look(closed: &Map) -> u64 {
        map_sum(closed)
    }
}

/// What a driver would have to do, without `keep`.
#[derive(Debug, Clone, Copy)]
#[expect(dead_code, reason = "made for whoever would read them")]
enum Step {
    Unmap { base: u64, last: u64, behind: Behind },
    Remap { base: u64, last: u64, behind: Behind, hole: (u64, u64) },
    Map { base: u64, last: u64, behind: Behind },
}

/// Looks for overlaps, cuts what sticks out, collects the steps; changes as it goes, so an error could not be undone.
pub(super) struct Same(Map);

impl Same {
    fn request(&mut self, base: u64, last: u64, new: Option<Behind>) -> Vec<Step> {
        let below = self.0.range(..base).next_back().filter(|(_, (last, _))| *last >= base).map(|(base, _)| *base);
        let from = below.unwrap_or(base);
        let mut steps = Vec::with_capacity(2);
        while let Some((&at, &(end, behind))) = self.0.range(from..=last).next_back() {
            if end < base {
                break;
            }
            self.0.remove(&at);
            if at < base {
                self.0.insert(at, (base - 1, behind));
            }
            if end > last {
                self.0.insert(last + 1, (end, behind.advanced(last + 1 - at)));
            }
            steps.push(if at < base || end > last {
                Step::Remap { base: at, last: end, behind, hole: (at.max(base), end.min(last)) }
            } else {
                Step::Unmap { base: at, last: end, behind }
            });
        }
        steps.reverse();
        if let Some(behind) = new {
            self.0.insert(base, (last, behind));
            steps.push(Step::Map { base, last, behind });
        }
        steps
    }
}

impl Space for Same {
    const NAME: &'static str = "BTreeMap, the same bookkeeping";
    type Closed = Map;

    fn filled(count: u64) -> Self {
        Self(map_filled(count))
    }

    fn rebind(&mut self, tile: u64, to: u64) {
        let base = base_of(tile);
        core::hint::black_box(self.request(base, base + TILE - 1, Some(behind(to))));
    }

    fn split(&mut self, tile: u64) {
        let base = base_of(tile);
        core::hint::black_box(self.request(base + HOLE.start, base + HOLE.end - 1, None));
    }

    fn find(&self, va: u64) -> Option<u64> {
        map_find(&self.0, va)
    }

    fn sum(&self) -> u64 {
        map_sum(&self.0)
    }

    fn close(self) -> Map {
        self.0
    }

    fn look(closed: &Map) -> u64 {
        map_sum(closed)
    }
}

/// Values are as they are in the whole range, so a tile's value is its offset less its base, which a cut does not change.
pub(super) struct Ranges(RangeMap<u64, (u32, u64, u32)>);

const fn constant(tile: u64, to: u64) -> (u32, u64, u32) {
    let Behind { bo, offset, flags } = behind(to);
    (bo, offset.wrapping_sub(base_of(tile)), flags)
}

impl Space for Ranges {
    const NAME: &'static str = "rangemap";
    type Closed = RangeMap<u64, (u32, u64, u32)>;

    fn filled(count: u64) -> Self {
        Self((0..count).map(|tile| (base_of(tile)..base_of(tile + 1), constant(tile, tile))).collect())
    }

    fn rebind(&mut self, tile: u64, to: u64) {
        self.0.insert(base_of(tile)..base_of(tile + 1), constant(tile, to));
    }

    fn split(&mut self, tile: u64) {
        self.0.remove(base_of(tile) + HOLE.start..base_of(tile) + HOLE.end);
    }

    fn find(&self, va: u64) -> Option<u64> {
        self.0.get(&va).map(|(_, less, _)| va.wrapping_add(*less))
    }

    fn sum(&self) -> u64 {
        Self::look(&self.0)
    }

    fn close(self) -> Self::Closed {
        self.0
    }

    fn look(closed: &Self::Closed) -> u64 {
        let each = closed.iter().map(|(range, (_, less, _))| range.start ^ range.start.wrapping_add(*less));
        each.fold(0, u64::wrapping_add)
    }
}

#[cfg(test)]
mod tests {
    use super::{OutliveSpace, Plain, Ranges, Same, Space, TILE, base_of};

    /// What is behind every 4 KiB page after some rebindings and a split.
    fn pages<S: Space>() -> Vec<Option<u64>> {
        let mut space = S::filled(8);
        space.rebind(3, 6);
        space.split(5);
        space.split(1);
        space.heal(1);
        (0..8 * TILE).step_by(0x1000).map(|at| space.find(base_of(0) + at)).collect()
    }

    #[test]
    fn all_contenders_hold_the_same() {
        let ours = pages::<OutliveSpace>();
        assert_eq!(ours.iter().filter(|page| page.is_none()).count(), 4);
        assert_eq!(ours[3 * 16], Some(6 * TILE));
        assert_eq!((&pages::<Plain>(), &pages::<Same>(), &pages::<Ranges>()), (&ours, &ours, &ours));
    }

    #[test]
    fn a_walk_sees_every_mapping() {
        let sums = [OutliveSpace::filled(9).sum(), Plain::filled(9).sum(), Ranges::filled(9).sum()];
        assert_eq!(sums, [sums[0]; 3]);
    }
}
