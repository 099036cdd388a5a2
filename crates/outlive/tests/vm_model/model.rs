//! The model: a flat array of pages, each of which says what it leads to and which mapping it belongs to. Operations are read
//! from bytes, so that the property test, the fuzzer and its corpus run the very same code.

use outlive::vm::{
    Apply, BoId, Cause, Flags, Geometry, Mapping, Prepared, Request, Rule, Source, Space, Step, VaRange,
};

const PAGE: u64 = 0x1000;
/// Few enough that requests meet.
const PAGES: u64 = 48;
/// The space ends at 2^64.
const BASE: u64 = u64::MAX - PAGES * PAGE + 1;
/// Sizes of the buffers, in pages; the last ones are too small for some requests.
const SIZES: [u64; 3] = [PAGES, 24, 12];

type Data = u32;
type Request32 = Request<Data>;

/// One page of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Page {
    /// Pages of one mapping are side by side and have one number.
    mapping: u32,
    data: Data,
    /// What a mapping that started here would have behind it.
    source: Source,
    flags: Flags,
}

/// What a page leads to, as a page table says it.
type Entry = (Source, Flags);

/// The page table of a driver, which can fail at a step.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Table {
    entries: Vec<Option<Entry>>,
    steps_left: usize,
}

fn pages_of(range: VaRange) -> core::ops::Range<usize> {
    let page = |va: u64| ((va - BASE) / PAGE) as usize;
    page(range.base())..page(range.last()) + 1
}

fn page_source(mapping: &Mapping<Data>, page: usize) -> Source {
    let by = page as u64 * PAGE - (mapping.range.base() - BASE);
    match mapping.source {
        Source::Bo { bo, offset } => Source::Bo { bo, offset: offset + by },
        Source::Repeated { bo, offset, window, phase } => {
            Source::Repeated { bo, offset, window, phase: (phase + by) % window }
        }
        Source::Sparse => Source::Sparse,
    }
}

impl Table {
    fn fill(&mut self, mapping: &Mapping<Data>, range: VaRange) {
        for page in pages_of(range) {
            self.entries[page] = Some((page_source(mapping, page), mapping.flags));
        }
    }
}

impl<V> Apply<V, Data> for Table {
    type Error = ();

    fn apply(&mut self, _space: &Space<V, Data>, step: &Step<Data>) -> Result<(), ()> {
        self.steps_left = self.steps_left.checked_sub(1).ok_or(())?;
        match step {
            Step::Map { mapping } => self.fill(mapping, mapping.range),
            _ if step.keep() => {}
            _ => self.entries[pages_of(step.changes())].fill(None),
        }
        Ok(())
    }

    fn undo(&mut self, _space: &Space<V, Data>, step: &Step<Data>) {
        match step {
            Step::Map { mapping } => self.entries[pages_of(mapping.range)].fill(None),
            _ => self.fill(step.mapping(), step.changes()),
        }
    }
}

/// Reads operations from bytes; zeros where they end.
struct Bytes<'a> {
    left: &'a [u8],
}

impl Bytes<'_> {
    fn next(&mut self) -> u64 {
        let (first, left) = self.left.split_first().map_or((0, self.left), |(first, left)| (*first, left));
        self.left = left;
        u64::from(first)
    }
}

/// How the requests are carried out. What comes of them is the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Working {
    Staged,
    Immediate,
    /// Now this way, now that.
    Mixed,
}

/// A space, and what it should be.
pub(crate) struct World {
    working: Working,
    /// Accepted, and not run yet: oldest first.
    prepared: Vec<Prepared<Data>>,
    space: Space<u64, Data>,
    bos: Vec<BoId>,
    pages: Vec<Option<Page>>,
    table: Table,
    numbers: u32,
    /// How many allocations this thread has made.
    allocations: fn() -> u64,
    /// Requests that were carried out or refused.
    pub(crate) requests: u64,
}

impl World {
    pub(crate) fn new(working: Working, allocations: fn() -> u64) -> Self {
        let mut space = Space::new(Geometry { base: BASE, len: PAGES * PAGE, page: PAGE }).unwrap();
        let bos = SIZES.map(|pages| space.open_bo(pages * PAGE, pages).unwrap()).to_vec();
        let entries = vec![None; PAGES as usize];
        let table = Table { entries, steps_left: usize::MAX };
        let pages = vec![None; PAGES as usize];
        Self { working, prepared: vec![], space, bos, pages, table, numbers: 0, allocations, requests: 0 }
    }

    /// Carries out what `bytes` say, and compares after every operation.
    pub(crate) fn run(&mut self, bytes: &[u8]) {
        let mut bytes = Bytes { left: bytes };
        while !bytes.left.is_empty() {
            let kind = bytes.next();
            if kind % 16 == 0 {
                // What was accepted still knows the buffer.
                self.run_prepared(0, usize::MAX);
                self.close_bo((bytes.next() % 3) as usize);
            } else {
                let count = 1 + kind / 16 % 4;
                let requests: Vec<_> = (0..count).map(|_| self.request(&mut bytes)).collect();
                match self.working {
                    Working::Staged => self.batch(&requests, kind),
                    Working::Mixed if kind & 8 == 0 => self.batch(&requests, kind),
                    Working::Immediate | Working::Mixed => self.prepare(&requests, kind),
                }
            }
            self.compare();
            self.look(bytes.left.first().map_or(0, |byte| u64::from(*byte) % PAGES));
        }
    }

    fn number(&mut self) -> u32 {
        self.numbers += 1;
        self.numbers
    }

    fn request(&mut self, bytes: &mut Bytes<'_>) -> Request32 {
        let (kind, place, length, behind) = (bytes.next(), bytes.next(), bytes.next(), bytes.next());
        let from = place % PAGES;
        let len = 1 + length % (PAGES - from).min(1 + length / 16);
        let (va, len) = (BASE + from * PAGE, len * PAGE);
        let flags = if kind & 0x80 == 0 { Flags::NONE } else { Flags::READ_ONLY };
        let bo = self.bos[(behind % 3) as usize];
        let source = match kind % 8 {
            0 | 1 => return Request::Unmap { va, len },
            2 => {
                let (clear, set) = (Flags::READ_ONLY.without(flags), flags);
                return Request::Protect { va, len, clear, set };
            }
            3 => Source::Sparse,
            4 => Source::Repeated { bo, offset: behind / 3 % 2 * PAGE, window: (1 + behind / 8 % 3) * PAGE, phase: 0 },
            // Mostly where buffer and space go together, so that there is something to keep.
            5 | 6 => Source::Bo { bo, offset: from * PAGE },
            _ => Source::Bo { bo, offset: behind / 3 % 16 * PAGE },
        };
        Request::Map { va, len, source, flags, data: self.number() }
    }

    /// Whether the model allows a request.
    fn allows(&self, request: &Request32) -> bool {
        let Request::Map { len, source, .. } = *request else { return true };
        let size = |bo: BoId| self.space.bo(bo).unwrap() * PAGE;
        match source {
            Source::Bo { bo, offset } => offset + len <= size(bo),
            Source::Repeated { bo, offset, window, .. } => len % window == 0 && offset + window <= size(bo),
            Source::Sparse => true,
        }
    }

    /// One batch: committed, dropped, carried out, or failing in the driver, by `kind`.
    fn batch(&mut self, requests: &[Request32], kind: u64) {
        self.requests += requests.len() as u64;
        let before = (self.pages.clone(), self.table.clone());
        let refused = requests.iter().position(|request| !self.allows(request));
        if let Some(at) = refused {
            let error = self.space.plan(requests).unwrap_err();
            assert_eq!(error.request, at);
            assert!(matches!(error.rule, Rule::BeyondBo { .. } | Rule::Window { .. }), "{error}");
            return;
        }
        let mut ends = Vec::new();
        let mut wanted = Vec::new();
        for request in requests {
            let first = wanted.len();
            self.expect(request, &mut wanted);
            self.bounds(request, &wanted[first..]);
            ends.push(first..wanted.len());
        }
        let len_after = self.runs().count();
        let plan = self.space.plan(requests).unwrap();
        assert_eq!(plan.steps(), wanted);
        assert_eq!(plan.len_after(), len_after);
        assert!(ends.iter().enumerate().all(|(request, steps)| plan.steps_of(request) == *steps));
        let fails_at = (kind / 64) as usize * 2;
        match kind % 4 {
            0 => {
                drop(plan);
                self.pages = before.0;
            }
            1 if fails_at < wanted.len() => {
                self.table.steps_left = fails_at;
                let error = plan.apply(&mut self.table).unwrap_err();
                assert_eq!(error.step, fails_at);
                self.table.steps_left = usize::MAX;
                assert_eq!(self.table.entries, before.1.entries, "rolled back exactly");
                self.pages = before.0;
            }
            _ => {
                let allocated = (self.allocations)();
                let done = plan.apply(&mut self.table).unwrap();
                assert_eq!((self.allocations)(), allocated, "a commit allocates nothing");
                assert_eq!(done.steps(), wanted);
            }
        }
    }

    /// One batch: accepted, or dropped, or failing in the driver, by `kind`. Up to four are there at once.
    fn prepare(&mut self, requests: &[Request32], kind: u64) {
        self.requests += requests.len() as u64;
        let prepared = self.space.prepare(requests);
        if let Some(at) = requests.iter().position(|request| !self.allows(request)) {
            assert_eq!(prepared.unwrap_err().request, at);
            return;
        }
        self.prepared.push(prepared.unwrap());
        match kind % 8 {
            0 => drop(self.prepared.pop()),
            1 => self.run_prepared(0, (kind / 32) as usize),
            2 => self.run_prepared(0, usize::MAX),
            3 => while self.space.take_removed().is_some() {},
            _ => {}
        }
        self.run_prepared(3, usize::MAX);
    }

    /// Carries out the oldest batches, all but `but`, with a driver that fails at a step of the first.
    fn run_prepared(&mut self, but: usize, mut fails_at: usize) {
        while self.prepared.len() > but {
            let prepared = self.prepared.remove(0);
            let mut wanted = Vec::new();
            for request in prepared.requests() {
                self.expect(request, &mut wanted);
            }
            let fails = fails_at < wanted.len();
            self.table.steps_left = fails_at;
            let (table, mut steps) = (&mut self.table, Vec::with_capacity(wanted.len()));
            let allocated = (self.allocations)();
            let ran = prepared.run(&mut self.space, |space, step| {
                table.apply(space, &step.cloned())?;
                steps.push(step.cloned());
                Ok(())
            });
            assert_eq!((self.allocations)(), allocated, "running allocates nothing");
            fails_at = usize::MAX;
            self.table.steps_left = fails_at;
            if fails {
                let failed = ran.unwrap_err();
                assert_eq!((failed.cause, failed.ran.steps()), (Cause::Driver(()), steps.len()));
                assert_eq!(steps, wanted[..steps.len()]);
                return self.begin_again();
            }
            assert_eq!((ran.unwrap().steps(), &steps), (wanted.len(), &wanted));
        }
    }

    /// The driver failed half way: whatever is in the page table can be unmapped. Then a new space.
    fn begin_again(&mut self) {
        assert!(self.space.is_poisoned());
        for (page, entry) in self.table.entries.iter().enumerate() {
            let found = self.space.find(BASE + page as u64 * PAGE).map(|mapping| copy(&mapping));
            let found = found.map(|mapping| (page_source(&mapping, page), mapping.flags));
            assert!(entry.is_none() || *entry == found, "{entry:?} and {found:?}");
        }
        let everything = Request::Unmap { va: BASE, len: PAGES * PAGE };
        let table = &mut self.table;
        let unmap = self.space.prepare(&[everything]).unwrap();
        unmap.run(&mut self.space, |space, step| table.apply(space, &step.cloned())).unwrap();
        assert!(self.space.is_empty() && self.table.entries.iter().all(Option::is_none));
        let next = Self::new(self.working, self.allocations);
        *self = Self { requests: self.requests, numbers: self.numbers, ..next };
    }

    /// What a request may come to at most, which is what must be allocated for it.
    fn bounds(&self, request: &Request32, steps: &[Step<Data>]) {
        let count = |wanted: fn(&Step<Data>) -> bool| steps.iter().filter(|step| wanted(step)).count();
        let remaps = count(|step| matches!(step, Step::Remap { .. }));
        let maps = count(|step| matches!(step, Step::Map { .. }));
        match request {
            Request::Map { .. } => assert!(remaps <= 2 && maps <= 1),
            Request::Unmap { .. } => assert!(remaps <= 2 && maps == 0),
            Request::Protect { .. } => assert!(remaps <= 2 && maps * 2 == steps.len()),
        }
    }

    /// The mappings of the model: runs of pages with one number.
    fn runs(&self) -> impl Iterator<Item = (usize, usize, Page)> {
        let same = |a: &Option<Page>, b: &Option<Page>| a.map(|page| page.mapping) == b.map(|page| page.mapping);
        let mut from = 0;
        self.pages.chunk_by(same).filter_map(move |run| {
            from += run.len();
            run[0].map(|page| (from - run.len(), from, page))
        })
    }

    fn mapping((from, to, page): (usize, usize, Page)) -> Mapping<Data> {
        let range = VaRange::new(BASE + from as u64 * PAGE, (to - from) as u64 * PAGE, PAGE).unwrap();
        Mapping { range, source: page.source, flags: page.flags, data: page.data }
    }

    /// Adds the steps that `request` should come to, and carries it out in the model.
    fn expect(&mut self, request: &Request32, steps: &mut Vec<Step<Data>>) {
        match *request {
            Request::Map { va, len, source, flags, data } => {
                let range = VaRange::new(va, len, PAGE).unwrap();
                self.expect_range(range, Some(Mapping { range, source, flags, data }), steps);
            }
            Request::Unmap { va, len } => self.expect_range(VaRange::new(va, len, PAGE).unwrap(), None, steps),
            Request::Protect { va, len, clear, set } => {
                let asked = pages_of(VaRange::new(va, len, PAGE).unwrap());
                let runs: Vec<_> = self.runs().filter(|run| run.0 < asked.end && asked.start < run.1).collect();
                for (from, to, page) in runs {
                    let flags = page.flags.without(clear).with(set);
                    let (from, to) = (from.max(asked.start), to.min(asked.end));
                    let page = self.pages[from].unwrap_or(page);
                    if flags != page.flags {
                        let new = Self::mapping((from, to, Page { flags, ..page }));
                        self.expect_range(new.range, Some(new), steps);
                    }
                }
            }
        }
    }

    fn expect_range(&mut self, range: VaRange, new: Option<Mapping<Data>>, steps: &mut Vec<Step<Data>>) {
        let asked = pages_of(range);
        let entry = |page: usize| new.map(|new| (page_source(&new, page), new.flags));
        let hit: Vec<_> = self.runs().filter(|run| run.0 < asked.end && asked.start < run.1).collect();
        let agrees = |from: usize, to: usize| {
            (from.max(asked.start)..to.min(asked.end))
                .all(|page| self.pages[page].map(|old| (old.source, old.flags)) == entry(page))
        };
        if let [(from, to, _)] = hit[..] {
            if (from..to) == asked && agrees(from, to) {
                return;
            }
        }
        for run in hit {
            let (from, to, _) = run;
            let old = Self::mapping(run);
            let keep = new.is_some() && agrees(from, to);
            steps.push(if from >= asked.start && to <= asked.end {
                Step::Unmap { mapping: old, keep }
            } else {
                Step::Remap { unmap: old, hole: old.range.intersection(range).unwrap(), keep }
            });
        }
        steps.extend(new.map(|mapping| Step::Map { mapping }));
        let mapping = self.number();
        for page in asked {
            self.pages[page] =
                new.map(|new| Page { mapping, data: new.data, source: page_source(&new, page), flags: new.flags });
        }
    }

    fn close_bo(&mut self, which: usize) {
        let bo = self.bos[which];
        let gone = |page: &Option<Page>| page.is_some_and(|page| page.source.bo() == Some(bo));
        let mut wanted: Vec<_> = self.runs().filter(|run| gone(&Some(run.2))).map(Self::mapping).collect();
        let allocated = (self.allocations)();
        let to_clear = self.space.close_bo(bo).unwrap();
        assert_eq!((self.allocations)(), allocated, "closing a buffer allocates nothing");
        assert_eq!(to_clear.len(), wanted.len());
        let mut cleared: Vec<_> =
            self.space.clearing(&to_clear).map(|mapping| Mapping { data: *mapping.data, ..copy(&mapping) }).collect();
        cleared.sort_by_key(|mapping| mapping.range.base());
        assert_eq!(cleared, wanted);
        let mut freed = Vec::new();
        let size = self.space.cleared(to_clear, |data| freed.push(data)).unwrap();
        freed.sort_unstable();
        wanted.sort_by_key(|mapping| mapping.data);
        assert!(freed.iter().eq(wanted.iter().map(|mapping| &mapping.data)));
        for (page, entry) in self.pages.iter_mut().zip(&mut self.table.entries) {
            if gone(page) {
                (*page, *entry) = (None, None);
            }
        }
        assert!(self.space.bo(bo).is_none() && self.space.close_bo(bo).is_none());
        self.bos[which] = self.space.open_bo(size * PAGE, size).unwrap();
    }

    /// The space and the driver's page table are what the model is.
    fn compare(&self) {
        let mappings = self.space.iter().map(|mapping| copy(&mapping));
        assert!(mappings.eq(self.runs().map(Self::mapping)), "{:?}", self.space.iter().collect::<Vec<_>>());
        assert_eq!(self.space.len(), self.runs().count());
        let entries = self.pages.iter().map(|page| page.map(|page| (page.source, page.flags)));
        assert!(entries.eq(self.table.entries.iter().copied()), "the page table is as it should be");
        for bo in &self.bos {
            let mappings = self.runs().filter(|run| run.2.source.bo() == Some(*bo)).count();
            assert_eq!(self.space.mappings_of(*bo), mappings);
        }
    }

    /// Finding, and the neighbours, of a page and of two.
    fn look(&self, page: u64) {
        let at = page as usize;
        let range = VaRange::new(BASE + page * PAGE, PAGE * (PAGES - page).min(2), PAGE).unwrap();
        let pages = pages_of(range);
        let mut runs = self.runs();
        let found = runs.find(|run| run.0 <= at && at < run.1).map(Self::mapping);
        assert_eq!(self.space.find(range.base() + 5).map(|mapping| copy(&mapping)), found);
        let below = self.runs().filter(|run| run.1 <= pages.start).last().map(Self::mapping);
        assert_eq!(self.space.prev(range).map(|mapping| copy(&mapping)), below);
        let above = self.runs().find(|run| run.0 >= pages.end).map(Self::mapping);
        assert_eq!(self.space.next(range).map(|mapping| copy(&mapping)), above);
        let hit = self.runs().filter(|run| run.0 < pages.end && pages.start < run.1).map(Self::mapping);
        assert!(self.space.overlapping(range).map(|mapping| copy(&mapping)).eq(hit));
    }
}

fn copy(mapping: &Mapping<&Data>) -> Mapping<Data> {
    Mapping { range: mapping.range, source: mapping.source, flags: mapping.flags, data: *mapping.data }
}
