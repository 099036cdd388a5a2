//! A fake GPU with address spaces: page tables, a translation cache that keeps what is unmapped until it is flushed, and
//! books on everything that lives. It counts as a fault what the hardware could do wrong: pages freed while a translation leads
//! to them, and entries gone that a running job uses.

use outlive::vm::{
    Apply, Bo, BoCore, Edit, Flags, Flushed, Geometry, OpenBo, PlanError, Request, Source, Space, StagedDriver, Step,
    ToClear, Vm, VmBo, VmConfig, VmDriver, VmUse,
};
use outlive::{Completion, Device, DeviceConfig, Driver, Executor, JobCx, JobFences, JobQueue, QueueConfig};
use outlive::{ResetScope, ResetToken};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicIsize, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

pub(crate) const PAGE: u64 = 0x1000;

/// What is counted while it lives.
#[derive(Debug, Clone, Copy)]
#[repr(usize)]
pub(crate) enum Kind {
    Buffer,
    Vm,
    Pair,
    Mapping,
    Payload,
    Driver,
}

#[derive(Default)]
pub(crate) struct Books {
    live: [AtomicIsize; 6],
    /// How many entries and cached translations lead to each buffer.
    reach: Mutex<HashMap<u64, usize>>,
    pub(crate) faults: AtomicUsize,
    pub(crate) clears: AtomicUsize,
}

impl Books {
    pub(crate) fn live(&self) -> [isize; 6] {
        std::array::from_fn(|kind| self.live[kind].load(SeqCst))
    }

    pub(crate) fn of(&self, kind: Kind) -> isize {
        self.live[kind as usize].load(SeqCst)
    }

    fn reach(&self, bo: u64, by: isize) {
        let mut reach = self.reach.lock().unwrap();
        let count = reach.entry(bo).or_default();
        *count = count.checked_add_signed(by).unwrap();
    }

    fn fault(&self) {
        self.faults.fetch_add(1, SeqCst);
    }
}

/// Counted as long as it lives.
pub(crate) struct Token(Arc<Books>, Kind, Option<Arc<dyn std::any::Any + Send + Sync>>);

impl Token {
    pub(crate) fn new(books: &Arc<Books>, kind: Kind) -> Self {
        Self(books.clone(), kind, None).counted()
    }

    /// Gives it something to drop with its last copy.
    pub(crate) fn carry(&mut self, cargo: impl Send + Sync + 'static) {
        self.2 = Some(Arc::new(cargo));
    }
}

impl Clone for Token {
    fn clone(&self) -> Self {
        Self(self.0.clone(), self.1, self.2.clone()).counted()
    }
}

impl Token {
    fn counted(self) -> Self {
        self.0.live[self.1 as usize].fetch_add(1, SeqCst);
        self
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        self.0.live[self.1 as usize].fetch_sub(1, SeqCst);
    }
}

/// Something to drop with a value, of whatever kind.
pub(crate) type Cargo = Option<Box<dyn Send>>;

pub(crate) struct Buffer {
    core: BoCore,
    token: Token,
    cargo: Mutex<Cargo>,
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let books = &self.token.0;
        if books.reach.lock().unwrap().get(&self.core.id()).is_some_and(|reach| *reach > 0) {
            books.fault();
        }
        drop(self.cargo.lock().unwrap().take());
    }
}

#[derive(Clone)]
pub(crate) struct BoRef(Arc<Buffer>);

impl Bo for BoRef {
    fn core(&self) -> &BoCore {
        &self.0.core
    }
}

/// The page tables of one address space.
pub(crate) struct Tables {
    _token: Token,
    entries: Arc<Entries>,
}

/// What the hardware reads, whoever owns it.
struct Entries {
    books: Arc<Books>,
    entries: Mutex<HashMap<u64, u64>>,
    /// Unmapped since the last flush.
    cached: Mutex<Vec<u64>>,
}

impl Tables {
    pub(crate) fn new(books: &Arc<Books>) -> Self {
        let entries = Entries { books: books.clone(), entries: Mutex::default(), cached: Mutex::default() };
        Self { _token: Token::new(books, Kind::Vm), entries: Arc::new(entries) }
    }

    fn set(&self, va: u64, len: u64, bo: Option<u64>) {
        let mut entries = self.entries.entries.lock().unwrap();
        for page in (va..va + len).step_by(usize::try_from(PAGE).unwrap()) {
            let old = match bo {
                Some(bo) => {
                    self.entries.books.reach(bo, 1);
                    entries.insert(page, bo)
                }
                None => entries.remove(&page),
            };
            self.entries.cached.lock().unwrap().extend(old);
        }
    }

    pub(crate) fn flush(&self) {
        for bo in self.entries.cached.lock().unwrap().drain(..) {
            self.entries.books.reach(bo, -1);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.entries.lock().unwrap().len()
    }

    /// The same page tables, as hardware that outlives its address space's handles.
    pub(crate) fn alias(&self) -> Self {
        Self { _token: self._token.clone(), entries: self.entries.clone() }
    }

    /// Unmaps what `steps` unmap; nothing else is in them.
    pub(crate) fn carry_out(&self, steps: &[Step<Token>]) {
        for range in steps.iter().map(Step::changes) {
            self.set(range.base(), range.len(), None);
        }
    }
}

impl Drop for Tables {
    fn drop(&mut self) {
        if Arc::strong_count(&self.entries) > 1 {
            return;
        }
        if self.len() > 0 || !self.entries.cached.lock().unwrap().is_empty() {
            self.entries.books.fault();
        }
    }
}

impl Apply<OpenBo<Gpu>, Token> for &Tables {
    type Error = ();

    fn apply(&mut self, space: &Space<OpenBo<Gpu>, Token>, step: &Step<Token>) -> Result<(), ()> {
        let range = step.changes();
        match step {
            Step::Map { mapping } => {
                let open = mapping.source.bo().and_then(|bo| space.bo(bo));
                self.set(range.base(), range.len(), open.map(|open| open.bo().core().id()));
            }
            Step::Unmap { .. } | Step::Remap { .. } => self.set(range.base(), range.len(), None),
        }
        Ok(())
    }

    fn undo(&mut self, _space: &Space<OpenBo<Gpu>, Token>, _step: &Step<Token>) {
        unreachable!("nothing fails");
    }
}

/// What `clear` does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum OnClear {
    #[default]
    Clear,
    /// Leaves the entries and says that they could not be cleared.
    Fail,
    /// Clears, and says so when asked to.
    Later,
}

pub(crate) struct Gpu {
    pub(crate) books: Arc<Books>,
    _token: Token,
    held: Mutex<Vec<(Arc<Used>, Completion)>>,
    pub(crate) on_clear: Mutex<OnClear>,
    pub(crate) cleared_later: Mutex<Vec<ToClear<Self>>>,
    /// An unplug cannot exclude DMA.
    pub(crate) loses_dma: AtomicBool,
}

/// What a job uses: pages of an address space.
pub(crate) struct Used {
    pages: Vec<u64>,
    entries: Arc<Entries>,
}

impl Used {
    /// The hardware accesses all of it.
    fn access(&self) {
        let entries = self.entries.entries.lock().unwrap();
        for page in &self.pages {
            if !entries.contains_key(page) {
                self.entries.books.fault();
            }
        }
    }
}

pub(crate) struct Work {
    _vm: VmUse<Gpu>,
    used: Arc<Used>,
    _token: Token,
    _cargo: Cargo,
}

impl Driver for Gpu {
    type Job = Work;
    type Queue = ();

    fn run(&self, cx: &mut JobCx<'_, Self>, done: Completion) {
        self.held.lock().unwrap().push((cx.job.used.clone(), done));
    }

    fn reset(&self, _scope: ResetScope, token: ResetToken) {
        self.held.lock().unwrap().clear();
        token.quiesced();
    }

    fn unplug(&self, token: ResetToken) {
        if self.loses_dma.load(SeqCst) {
            return token.failed();
        }
        self.held.lock().unwrap().clear();
        token.quiesced();
    }
}

impl VmDriver for Gpu {
    type Bo = BoRef;
    type Vm = Tables;
    type VmBo = Token;
    type Mapping = Token;
}

impl StagedDriver for Gpu {
    fn clear(&self, edit: &mut Edit<Self>, to_clear: ToClear<Self>) {
        self.books.clears.fetch_add(1, SeqCst);
        let how = *self.on_clear.lock().unwrap();
        if how == OnClear::Fail {
            return;
        }
        unmap(edit, &to_clear);
        if how == OnClear::Later {
            self.cleared_later.lock().unwrap().push(to_clear);
            return;
        }
        to_clear.vm_data().flush();
        to_clear.cleared(Flushed::by_driver());
    }
}

pub(crate) fn unmap(edit: &Edit<Gpu>, to_clear: &ToClear<Gpu>) {
    for mapping in edit.clearing(to_clear) {
        to_clear.vm_data().set(mapping.range.base(), mapping.range.len(), None);
    }
}

pub(crate) struct Rig {
    pub(crate) executor: Executor,
    pub(crate) device: Device<Gpu>,
    pub(crate) queue: JobQueue<Gpu>,
    pub(crate) books: Arc<Books>,
    /// Live objects of the executor before any address space.
    base: usize,
}

impl Rig {
    pub(crate) fn new() -> Self {
        Self::on(Executor::manual().unwrap())
    }

    pub(crate) fn on(executor: Executor) -> Self {
        let books = Arc::new(Books::default());
        let gpu = Gpu {
            books: books.clone(),
            _token: Token::new(&books, Kind::Driver),
            held: Mutex::new(Vec::with_capacity(64)),
            on_clear: Mutex::default(),
            cleared_later: Mutex::default(),
            loses_dma: AtomicBool::new(false),
        };
        let device = Device::with_config(&executor, DeviceConfig::new("fake"), gpu).unwrap();
        let queue = device.queue(QueueConfig::new("q"), ()).unwrap();
        let base = executor.live_objects();
        Self { executor, device, queue, books, base }
    }

    pub(crate) fn vm(&self) -> Vm<Gpu> {
        let geometry = Geometry { base: 0, len: 1 << 40, page: PAGE };
        Vm::new(&self.device, VmConfig::new(geometry), Tables::new(&self.books)).unwrap()
    }

    pub(crate) fn bo(&self, pages: u64) -> BoRef {
        self.bo_with(pages, None)
    }

    pub(crate) fn bo_with(&self, pages: u64, cargo: Cargo) -> BoRef {
        self.buffer(BoCore::new(&self.device, pages * PAGE).unwrap(), cargo)
    }

    pub(crate) fn local(&self, vm: &Vm<Gpu>, pages: u64) -> BoRef {
        self.buffer(BoCore::local(vm, pages * PAGE), None)
    }

    fn buffer(&self, core: BoCore, cargo: Cargo) -> BoRef {
        BoRef(Arc::new(Buffer { core, token: Token::new(&self.books, Kind::Buffer), cargo: Mutex::new(cargo) }))
    }

    pub(crate) fn open(&self, vm: &Vm<Gpu>, bo: &BoRef) -> VmBo<Gpu> {
        vm.open(bo, || Token::new(&self.books, Kind::Pair)).unwrap()
    }

    pub(crate) fn token(&self) -> Token {
        Token::new(&self.books, Kind::Mapping)
    }

    /// A request for `pages` pages from page `va` on, of `bo` from page `page` on.
    pub(crate) fn map(&self, bo: &VmBo<Gpu>, va: u64, page: u64, pages: u64) -> Request<Token> {
        let source = Source::Bo { bo: bo.id(), offset: page * PAGE };
        Request::Map { va: va * PAGE, len: pages * PAGE, source, flags: Flags::NONE, data: self.token() }
    }

    pub(crate) fn on_clear(&self, how: OnClear) {
        *self.device.driver().on_clear.lock().unwrap() = how;
    }

    /// Calls of `clear` so far.
    pub(crate) fn clears(&self) -> usize {
        self.books.clears.load(SeqCst)
    }

    /// What was cleared and not said to be is flushed, and said.
    pub(crate) fn say_cleared(&self) {
        let mut later = self.device.driver().cleared_later.lock().unwrap();
        for to_clear in later.drain(..) {
            to_clear.vm_data().flush();
            to_clear.cleared(Flushed::by_driver());
        }
    }

    /// Plans, changes the page tables, flushes.
    pub(crate) fn change(&self, vm: &Vm<Gpu>, requests: &[Request<Token>]) {
        self.try_change(vm, requests).unwrap();
    }

    pub(crate) fn try_change(&self, vm: &Vm<Gpu>, requests: &[Request<Token>]) -> Result<(), PlanError> {
        let mut edit = vm.edit().unwrap();
        let binding = edit.plan(requests)?.apply(&mut vm.data()).unwrap();
        vm.data().flush();
        drop(binding.flushed(Flushed::by_driver()));
        Ok(())
    }

    /// Submits a job that uses those pages of `vm`.
    pub(crate) fn job(&self, vm: &Vm<Gpu>, pages: &[u64], cargo: Cargo) -> JobFences {
        self.job_with(vm, vm.in_use().unwrap(), pages, cargo)
    }

    /// The same with a use of the caller's.
    pub(crate) fn job_with(&self, vm: &Vm<Gpu>, in_use: VmUse<Gpu>, pages: &[u64], cargo: Cargo) -> JobFences {
        let used = Arc::new(Used {
            pages: pages.iter().map(|page| page * PAGE).collect(),
            entries: vm.data().entries.clone(),
        });
        let token = Token::new(&self.books, Kind::Payload);
        let work = Work { _vm: in_use, used, _token: token, _cargo: cargo };
        self.queue.reserve(work).unwrap().commit()
    }

    /// The hardware accesses what its oldest job uses, for the last time, and is done with it.
    pub(crate) fn finish(&self) {
        let (used, done) = self.device.driver().held.lock().unwrap().remove(0);
        used.access();
        done.complete(Ok(()));
    }

    /// As [`Rig::finish`], as soon as there is a job.
    pub(crate) fn finish_soon(&self) {
        while self.device.driver().held.lock().unwrap().is_empty() {
            std::thread::yield_now();
        }
        self.finish();
    }

    pub(crate) fn idle(&self) {
        self.executor.run_until_idle();
    }

    /// Nothing is left of any address space, and the hardware did nothing wrong.
    pub(crate) fn all_gone(&self) {
        self.idle();
        assert_eq!(self.books.live(), [0, 0, 0, 0, 0, 1], "buffers, VMs, pairs, mappings, payloads, driver");
        assert_eq!(self.executor.live_objects(), self.base);
        self.no_faults();
    }

    pub(crate) fn no_faults(&self) {
        assert_eq!(self.books.faults.load(SeqCst), 0, "faults");
    }
}
