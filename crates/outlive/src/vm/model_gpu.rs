//! What model-checked tests of address spaces have in common: a device that clears, and books on everything that lives. A
//! buffer that is freed while entries lead to it ends the test.

use super::{
    BindCx, Bo, BoCore, Edit, Flags, Flushed, Geometry, Immediate, ImmediateDriver, Request, Source, StagedDriver,
    Step, ToClear, Vm, VmBo, VmConfig, VmDriver,
};
use crate::{Completion, Device, Driver, Executor, FenceError, JobCx};
use std::sync::Arc;
use std::sync::atomic::{AtomicIsize, AtomicUsize, Ordering::SeqCst};
use std::vec::Vec;

pub(super) const PAGE: u64 = 0x1000;

/// Buffers, VMs, pairs, mappings.
#[derive(Default)]
pub(super) struct Books {
    live: [AtomicIsize; 4],
}

pub(super) struct Token(Arc<Books>, usize);

impl Token {
    pub(super) fn new(books: &Arc<Books>, kind: usize) -> Self {
        books.live[kind].fetch_add(1, SeqCst);
        Self(books.clone(), kind)
    }
}

#[cfg(shuttle)]
impl Token {
    /// It is in the books.
    pub(super) fn is_alive(&self) -> bool {
        self.0.live[self.1].load(SeqCst) > 0
    }
}

impl Clone for Token {
    fn clone(&self) -> Self {
        Self::new(&self.0, self.1)
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        self.0.live[self.1].fetch_sub(1, SeqCst);
    }
}

pub(super) struct Buffer {
    core: BoCore,
    entries: AtomicUsize,
    _token: Token,
}

impl Drop for Buffer {
    fn drop(&mut self) {
        assert_eq!(self.entries.load(SeqCst), 0, "freed while entries lead to it");
    }
}

#[derive(Clone)]
pub(super) struct BoRef(Arc<Buffer>);

#[cfg(shuttle)]
impl BoRef {
    /// An entry leads to it now.
    pub(super) fn entered(&self) {
        self.0.entries.fetch_add(1, SeqCst);
    }

    /// No entry leads to it.
    pub(super) fn is_clear(&self) -> bool {
        self.0.entries.load(SeqCst) == 0
    }

    /// An entry is gone.
    pub(super) fn left(&self) {
        self.0.entries.fetch_sub(1, SeqCst);
    }
}

impl Bo for BoRef {
    fn core(&self) -> &BoCore {
        &self.0.core
    }
}

/// Jobs hold anything; `run` gives completions to `on_run`.
pub(super) struct Gpu {
    pub(super) on_run: fn(Completion),
}

impl Driver for Gpu {
    type Job = std::boxed::Box<dyn Send>;
    type Queue = ();

    fn run(&self, _cx: &mut JobCx<'_, Self>, done: Completion) {
        (self.on_run)(done);
    }
}

impl VmDriver for Gpu {
    type Bo = BoRef;
    type Vm = Token;
    type VmBo = Token;
    type Mapping = Token;
}

impl StagedDriver for Gpu {
    fn clear(&self, edit: &mut Edit<Self>, to_clear: ToClear<Self>) {
        if let Some((bo, _)) = to_clear.bo() {
            bo.0.entries.fetch_sub(edit.clearing(&to_clear).count(), SeqCst);
        } else {
            for open in edit.clearing(&to_clear).filter_map(|mapping| edit.bo(mapping.source.bo()?)) {
                open.bo().0.entries.fetch_sub(1, SeqCst);
            }
        }
        to_clear.cleared(Flushed::by_driver());
    }
}

impl ImmediateDriver for Gpu {
    type Room = ();

    /// Of one page each.
    fn bind(&self, cx: &mut BindCx<'_, Self>, step: &Step<&Token>) -> Result<(), FenceError> {
        let (bo, _) = cx.bo(step.source()).unwrap();
        match step {
            Step::Map { .. } => bo.0.entries.fetch_add(1, SeqCst),
            Step::Unmap { .. } | Step::Remap { .. } => bo.0.entries.fetch_sub(1, SeqCst),
        };
        Ok(())
    }

    fn flush(&self, _vm: &Token) -> Result<Flushed, FenceError> {
        Ok(Flushed::by_driver())
    }
}

pub(super) struct World {
    pub(super) executor: Executor,
    pub(super) device: Device<Gpu>,
    pub(super) books: Arc<Books>,
}

impl World {
    pub(super) fn on(executor: Executor, on_run: fn(Completion)) -> Self {
        let device = Device::new(&executor, Gpu { on_run }).unwrap();
        Self { executor, device, books: Arc::default() }
    }

    pub(super) fn vm(&self) -> Vm<Gpu> {
        let geometry = Geometry { base: 0, len: 1 << 30, page: PAGE };
        Vm::new(&self.device, VmConfig::new(geometry), Token::new(&self.books, 1)).unwrap()
    }

    /// An address space that is changed by running jobs.
    pub(super) fn vm_in_moments(&self) -> Vm<Gpu, Immediate> {
        let geometry = Geometry { base: 0, len: 1 << 30, page: PAGE };
        Vm::immediate(&self.device, VmConfig::new(geometry), Token::new(&self.books, 1)).unwrap()
    }

    /// A buffer with a reservation of its own.
    #[cfg(shuttle)]
    pub(super) fn bo(&self) -> BoRef {
        self.buffer(BoCore::new(&self.device, 16 * PAGE).unwrap())
    }

    /// A buffer that is local to `vm`.
    pub(super) fn local(&self, vm: &Vm<Gpu>) -> BoRef {
        self.buffer(BoCore::local(vm, 16 * PAGE))
    }

    fn buffer(&self, core: BoCore) -> BoRef {
        BoRef(Arc::new(Buffer { core, entries: AtomicUsize::new(0), _token: Token::new(&self.books, 0) }))
    }

    pub(super) fn open(&self, vm: &Vm<Gpu>, bo: &BoRef) -> VmBo<Gpu> {
        open(&self.books, vm, bo)
    }

    /// An address space with one buffer, mapped at `pages` pages.
    pub(super) fn mapped(&self, pages: u64) -> (Vm<Gpu>, VmBo<Gpu>) {
        let vm = self.vm();
        let bo = self.open(&vm, &self.local(&vm));
        let mut edit = vm.edit().unwrap();
        let requests: Vec<_> = (0..pages).map(|page| map(&bo, page)).collect();
        change(&mut edit, &bo, &requests);
        drop(edit);
        (vm, bo)
    }

    /// Everything of every address space is gone.
    pub(super) fn all_gone(&self) {
        assert_eq!(self.books.live.each_ref().map(|live| live.load(SeqCst)), [0; 4], "buffers, VMs, pairs, mappings");
    }
}

pub(super) fn open(books: &Arc<Books>, vm: &Vm<Gpu>, bo: &BoRef) -> VmBo<Gpu> {
    vm.open(bo, || Token::new(books, 2)).unwrap()
}

pub(super) fn map(bo: &VmBo<Gpu>, page: u64) -> Request<Token> {
    let source = Source::Bo { bo: bo.id(), offset: 0 };
    let data = Token::new(&bo.data().0, 3);
    Request::Map { va: page * PAGE, len: PAGE, source, flags: Flags::NONE, data }
}

/// Maps pages of `bo` that are not mapped; nothing if it, or the address space, was closed.
pub(super) fn change(edit: &mut Edit<Gpu>, bo: &VmBo<Gpu>, requests: &[Request<Token>]) {
    let Ok(plan) = edit.plan(requests) else { return };
    bo.bo().0.entries.fetch_add(requests.len(), SeqCst);
    drop(plan.commit().flushed(Flushed::by_driver()));
}
