//! A fake GPU whose address spaces are changed by running bind jobs: page tables as plain arrays, a translation cache that keeps
//! what is unmapped until it is flushed, and books on everything that lives. A buffer that is freed while a translation leads
//! to it, and anything of the driver's that is dropped while a job is run, is a fault.

use outlive::vm::{
    Bind, BindCx, Bo, BoCore, Flags, Flushed, Geometry, Immediate, ImmediateDriver, Request, Source, Step, Vm, VmBo,
    VmConfig, VmDriver, VmPrepared,
};
use outlive::{
    Completion, Dependency, Device, Driver, Executor, FenceError, JobCx, JobFences, JobQueue, QueueConfig, Reserved,
    ResetToken, Status, check,
};
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicIsize, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

pub(crate) const PAGE: u64 = 0x1000;
/// Pages of an address space.
pub(crate) const PAGES: u64 = 4096;

pub(crate) type NowVm = Vm<Gpu, Immediate>;

thread_local! {
    /// This thread runs a bind job, or ends a look.
    static RUNS: Cell<bool> = const { Cell::new(false) };
}

/// Does it as a driver's interrupt handler would: nothing is allocated, nothing of the driver's is dropped.
pub(crate) fn signalling<T>(act: impl FnOnce() -> T) -> T {
    let around = RUNS.replace(true);
    let before = check::allocations();
    let section = check::signalling();
    let done = act();
    drop(section);
    assert_eq!(check::allocations().allocated, before.allocated, "allocated in the signalling path");
    RUNS.set(around);
    done
}

#[derive(Debug, Clone, Copy)]
#[repr(usize)]
pub(crate) enum Kind {
    Buffer,
    Vm,
    Pair,
    Mapping,
    Room,
}

#[derive(Default)]
pub(crate) struct Books {
    live: [AtomicIsize; 5],
    pub(crate) faults: AtomicUsize,
}

impl Books {
    pub(crate) fn of(&self, kind: Kind) -> isize {
        self.live[kind as usize].load(SeqCst)
    }
}

/// Counted as long as it lives.
pub(crate) struct Token(Arc<Books>, Kind);

impl Token {
    pub(crate) fn new(books: &Arc<Books>, kind: Kind) -> Self {
        books.live[kind as usize].fetch_add(1, SeqCst);
        Self(books.clone(), kind)
    }
}

impl Clone for Token {
    fn clone(&self) -> Self {
        Self::new(&self.0, self.1)
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        self.0.live[self.1 as usize].fetch_sub(1, SeqCst);
        self.0.faults.fetch_add(usize::from(RUNS.get()), SeqCst);
    }
}

pub(crate) struct Buffer {
    core: BoCore,
    /// How many entries and cached translations lead to it.
    reach: Arc<AtomicUsize>,
    token: Token,
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.token.0.faults.fetch_add(usize::from(self.reach.load(SeqCst) > 0), SeqCst);
    }
}

#[derive(Clone)]
pub(crate) struct BoRef(Arc<Buffer>);

impl BoRef {
    pub(crate) fn reach(&self) -> usize {
        self.0.reach.load(SeqCst)
    }
}

impl Bo for BoRef {
    fn core(&self) -> &BoCore {
        &self.0.core
    }
}

/// The page tables of one address space.
pub(crate) struct Tables {
    _token: Token,
    entries: Mutex<Vec<Option<Arc<AtomicUsize>>>>,
    /// Unmapped since the last flush.
    cached: Mutex<Vec<Arc<AtomicUsize>>>,
}

impl Tables {
    pub(crate) fn new(books: &Arc<Books>) -> Self {
        let entries = vec![None; usize::try_from(PAGES).unwrap()];
        Self {
            _token: Token::new(books, Kind::Vm),
            entries: Mutex::new(entries),
            cached: Mutex::new(Vec::with_capacity(2 * usize::try_from(PAGES).unwrap())),
        }
    }

    fn set(&self, va: u64, len: u64, to: Option<&Arc<AtomicUsize>>) {
        let mut entries = self.entries.lock().unwrap();
        let mut cached = self.cached.lock().unwrap();
        for page in va / PAGE..(va + len) / PAGE {
            if let Some(to) = to {
                to.fetch_add(1, SeqCst);
            }
            let old = std::mem::replace(&mut entries[usize::try_from(page).unwrap()], to.cloned());
            cached.extend(old);
        }
    }

    fn flush(&self) {
        for reach in self.cached.lock().unwrap().drain(..) {
            reach.fetch_sub(1, SeqCst);
        }
    }

    /// The pages that are mapped.
    pub(crate) fn pages(&self) -> Vec<u64> {
        let entries = self.entries.lock().unwrap();
        (0..PAGES).filter(|page| entries[usize::try_from(*page).unwrap()].is_some()).collect()
    }
}

pub(crate) struct Gpu {
    /// Steps until one fails; none if zero.
    pub(crate) fails_in: AtomicUsize,
    pub(crate) flush_fails: AtomicBool,
    pub(crate) panics: AtomicBool,
    pub(crate) steps: AtomicUsize,
    held: Mutex<Vec<Completion>>,
}

/// Of a fence that says that all went well.
pub(crate) const OK: Status = Status::Signaled(Ok(()));
pub(crate) const FAULT: FenceError = FenceError::Faulted { code: 7 };

impl Driver for Gpu {
    type Job = Box<dyn Send>;
    type Queue = ();

    fn run(&self, _cx: &mut JobCx<'_, Self>, done: Completion) {
        self.held.lock().unwrap().push(done);
    }

    fn unplug(&self, token: ResetToken) {
        token.quiesced();
    }
}

impl VmDriver for Gpu {
    type Bo = BoRef;
    type Vm = Tables;
    type VmBo = Token;
    type Mapping = Token;
}

impl ImmediateDriver for Gpu {
    type Room = Token;

    fn bind(&self, cx: &mut BindCx<'_, Self>, step: &Step<&Token>) -> Result<(), FenceError> {
        if self.fails_in.load(SeqCst) > 0 && self.fails_in.fetch_sub(1, SeqCst) == 1 {
            return Err(FAULT);
        }
        assert!(!self.panics.load(SeqCst), "on purpose");
        self.steps.fetch_add(1, SeqCst);
        let range = step.changes();
        let (bo, pair) = cx.bo(step.source()).unzip();
        assert_eq!((bo.is_some(), pair.is_some()), (true, true), "nothing is sparse here");
        let to = bo.filter(|_| matches!(step, Step::Map { .. })).map(|bo| &bo.0.reach);
        cx.vm.set(range.base(), range.len(), to);
        Ok(())
    }

    fn flush(&self, vm: &Tables) -> Result<Flushed, FenceError> {
        if self.flush_fails.load(SeqCst) {
            return Err(FAULT);
        }
        vm.flush();
        Ok(Flushed::by_driver())
    }
}

/// The bind queue's device: the host's processor.
pub(crate) struct Binder;

impl Driver for Binder {
    type Job = Option<Bind<Gpu>>;
    type Queue = ();

    fn run(&self, cx: &mut JobCx<'_, Self>, done: Completion) {
        let Some(bind) = cx.job.take() else { return done.complete(Ok(())) };
        signalling(|| bind.run(done));
    }
}

pub(crate) struct Rig {
    pub(crate) executor: Executor,
    pub(crate) device: Device<Gpu>,
    pub(crate) binder: JobQueue<Binder>,
    pub(crate) jobs: JobQueue<Gpu>,
    pub(crate) books: Arc<Books>,
    base: usize,
}

impl Rig {
    pub(crate) fn new() -> Self {
        Self::on(Executor::manual().unwrap())
    }

    pub(crate) fn on(executor: Executor) -> Self {
        let books = Arc::new(Books::default());
        let gpu = Gpu {
            fails_in: AtomicUsize::new(0),
            flush_fails: AtomicBool::new(false),
            panics: AtomicBool::new(false),
            steps: AtomicUsize::new(0),
            held: Mutex::new(Vec::with_capacity(16)),
        };
        let device = Device::new(&executor, gpu).unwrap();
        let jobs = device.queue(QueueConfig::new("jobs"), ()).unwrap();
        let binder = Device::new(&executor, Binder).unwrap().queue(QueueConfig::new("bind"), ()).unwrap();
        executor.run_until_idle();
        let base = executor.live_objects();
        Self { executor, device, binder, jobs, books, base }
    }

    pub(crate) fn vm(&self) -> NowVm {
        let geometry = Geometry { base: 0, len: PAGES * PAGE, page: PAGE };
        Vm::immediate(&self.device, VmConfig::new(geometry), Tables::new(&self.books)).unwrap()
    }

    /// A buffer with a reservation of its own.
    pub(crate) fn external(&self, pages: u64) -> BoRef {
        self.buffer(BoCore::new(&self.device, pages * PAGE).unwrap())
    }

    pub(crate) fn local(&self, vm: &NowVm, pages: u64) -> BoRef {
        self.buffer(BoCore::local(vm, pages * PAGE))
    }

    fn buffer(&self, core: BoCore) -> BoRef {
        let token = Token::new(&self.books, Kind::Buffer);
        BoRef(Arc::new(Buffer { core, reach: Arc::default(), token }))
    }

    pub(crate) fn open(&self, vm: &NowVm, bo: &BoRef) -> VmBo<Gpu> {
        vm.open(bo, || Token::new(&self.books, Kind::Pair)).unwrap()
    }

    /// An address space with a buffer of `pages` pages open in it.
    pub(crate) fn opened(&self, pages: u64) -> (NowVm, VmBo<Gpu>) {
        let vm = self.vm();
        let pair = self.open(&vm, &self.local(&vm, pages));
        (vm, pair)
    }

    /// A request for `pages` pages from page `va` on, of `bo` from its start on.
    pub(crate) fn map(&self, bo: &VmBo<Gpu>, va: u64, pages: u64) -> Request<Token> {
        let source = Source::Bo { bo: bo.id(), offset: 0 };
        let data = Token::new(&self.books, Kind::Mapping);
        Request::Map { va: va * PAGE, len: pages * PAGE, source, flags: Flags::NONE, data }
    }

    pub(crate) fn room(&self) -> Token {
        Token::new(&self.books, Kind::Room)
    }

    /// Accepts what was prepared, for a job behind `after`.
    pub(crate) fn accept(&self, prepared: VmPrepared<Gpu>, after: Vec<Dependency>) -> Reserved<Binder> {
        let mut reserved = self.binder.reserve_after(None, after).unwrap();
        *reserved = Some(prepared.accept(self.room()));
        reserved
    }

    /// Accepts, and submits.
    pub(crate) fn submit(&self, prepared: VmPrepared<Gpu>, after: Vec<Dependency>) -> JobFences {
        self.accept(prepared, after).commit()
    }

    /// Prepares and submits.
    pub(crate) fn bind(&self, vm: &NowVm, requests: &[Request<Token>]) -> JobFences {
        self.submit(vm.prepare(requests).unwrap(), Vec::new())
    }

    /// Submits a job that holds `cargo` until it has retired.
    pub(crate) fn job(&self, cargo: impl Send + 'static) -> JobFences {
        let cargo: Box<dyn Send> = Box::new(cargo);
        self.jobs.reserve(cargo).unwrap().commit()
    }

    /// The hardware ends its oldest job.
    pub(crate) fn finish(&self) {
        let done = self.device.driver().held.lock().unwrap().remove(0);
        done.complete(Ok(()));
    }

    /// Clears all entries, and flushes.
    pub(crate) fn clear_by_hand(&self, vm: &NowVm) {
        vm.data().set(0, PAGES * PAGE, None);
        vm.data().flush();
    }

    pub(crate) fn idle(&self) {
        self.executor.run_until_idle();
    }

    /// Nothing is left of any address space, and nothing went wrong.
    pub(crate) fn all_gone(&self) {
        self.idle();
        assert_eq!(
            self.books.live.each_ref().map(|live| live.load(SeqCst)),
            [0; 5],
            "buffers, VMs, pairs, mappings, room"
        );
        assert_eq!(self.executor.live_objects(), self.base);
        self.no_faults();
    }

    pub(crate) fn no_faults(&self) {
        assert_eq!(self.books.faults.load(SeqCst), 0, "freed too soon, or dropped in the signalling path");
        assert!(check::take_report().is_none());
    }
}

pub(crate) fn unmap(va: u64, pages: u64) -> Request<Token> {
    Request::Unmap { va: va * PAGE, len: pages * PAGE }
}

/// What a batch takes out is in use until all jobs that had begun by then have ended, and no longer.
pub(crate) fn what_a_batch_takes_out_stays_while_jobs_use_it() {
    let rig = Rig::new();
    let (vm, pair) = rig.opened(8);
    assert_eq!(rig.bind(&vm, &[rig.map(&pair, 0, 4), rig.map(&pair, 4, 4)]).finished().status(), OK);
    rig.idle();
    assert_eq!(rig.books.of(Kind::Mapping), 2);
    let before = rig.job(vm.in_use().unwrap());
    assert_eq!(rig.bind(&vm, &[unmap(0, 4)]).finished().status(), OK);
    rig.idle();
    assert_eq!((vm.status().mappings, rig.books.of(Kind::Mapping)), (1, 2), "a job may use it");
    // Of one that comes later nothing is kept; and what goes now waits for both.
    let after = rig.job(vm.in_use().unwrap());
    assert_eq!(rig.bind(&vm, &[unmap(4, 4)]).finished().status(), OK);
    rig.idle();
    assert_eq!((vm.status().mappings, rig.books.of(Kind::Mapping)), (0, 2));
    rig.finish();
    rig.idle();
    assert_eq!((before.retired().status(), rig.books.of(Kind::Mapping)), (OK, 1));
    rig.finish();
    rig.idle();
    assert_eq!((after.retired().status(), rig.books.of(Kind::Mapping)), (OK, 0));
    drop((vm, pair));
    rig.all_gone();
}
