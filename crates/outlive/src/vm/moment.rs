//! `Moment`: the space of an address space that is changed by running jobs, in one hand, for a moment.
//!
//! # Protocol
//! Whoever has it takes the space out of its VM and puts it back, as an [`Edit`](super::Edit) does, but may neither wait for a fence
//! nor allocate meanwhile. So a bind job in the signalling path needs no lock to wait for: if the space is out, it leaves its
//! batch in the VM's list, and whoever has the space carries it out before giving it on. What came in while it did so is left to
//! the next in line, or to the VM's own work in the signalling lane if there is none.
//!
//! # States
//! *in* the VM → *out*, with one holder, who at the end carries out what was left there → to the first in line, or *in*.
//!
//! # Why it cannot deadlock
//! Threads wait for it in line, in the order of lock classes after everything that may be held while waiting for fences or
//! allocating, before all of the library's locks. A running job never waits for it. Fences are signaled with the space given back.
//! A driver that panics in a batch leaves the space with the VM, poisoned.

use super::batch::{Batches, Node};
use super::body::Body;
use super::driver::VmDriver;
use super::edit::EditRefused;
use super::shared::{State, VmInner};
use super::turn;
use crate::check;
use crate::exec::object::Object;
use crate::mem::HeapBox;
use crate::sync::{self, Guard, class};

pub(super) struct Moment<D: VmDriver> {
    vm: Object<VmInner<D>>,
    /// `None` while it is being dropped.
    body: Option<Body<D>>,
}

impl<D: VmDriver> Moment<D> {
    /// Waits in line for the space.
    #[track_caller]
    pub(super) fn wait(vm: &Object<VmInner<D>>) -> Result<Self, EditRefused> {
        EditRefused::unless_may_wait()?;
        Self::in_line(vm).ok_or(EditRefused::WouldDeadlock)
    }

    /// As [`Moment::wait`], for a thread that may; none if it has the space already.
    #[track_caller]
    pub(super) fn in_line(vm: &Object<VmInner<D>>) -> Option<Self> {
        check::before_lock::<class::VmSpace>();
        let state = turn::take(&vm.state, |state| &mut state.moment);
        if state.is_none() {
            check::after_unlock::<class::VmSpace>();
        }
        state.map(|state| Self::with(vm, state))
    }

    /// The space if it is in.
    pub(super) fn try_begin(vm: &Object<VmInner<D>>) -> Option<Self> {
        let mut state = vm.state.lock();
        state.moment.try_take().then(|| Self::without_waiting(vm, state))
    }

    /// For the reaper, which waits in line as long as that is no harm to others. If it does not get it, the VM's work is queued
    /// again when the space is given back.
    pub(super) fn for_work(vm: &Object<VmInner<D>>) -> Option<Self> {
        let (mut state, mine) = turn::take_patiently(&vm.state, |state| &mut state.moment);
        state.work_waits = !mine;
        mine.then(|| Self::without_waiting(vm, state))
    }

    fn without_waiting(vm: &Object<VmInner<D>>, state: Guard<'_, class::VmState, State<D>>) -> Self {
        let moment = Self::with(vm, state);
        check::before_lock::<class::VmSpace>();
        moment
    }

    fn with(vm: &Object<VmInner<D>>, mut state: Guard<'_, class::VmState, State<D>>) -> Self {
        let body = state.body.take();
        debug_assert!(body.is_some(), "whoever has the moment has the space");
        drop(state);
        let mut moment = Self { vm: vm.clone(), body };
        moment.body_mut().settle(vm);
        moment
    }

    pub(super) fn body(&self) -> &Body<D> {
        match &self.body {
            Some(body) => body,
            None => unreachable!("there until it is dropped"),
        }
    }

    pub(super) fn body_mut(&mut self) -> &mut Body<D> {
        match &mut self.body {
            Some(body) => body,
            None => unreachable!("there until it is dropped"),
        }
    }

    pub(super) const fn vm(&self) -> &Object<VmInner<D>> {
        &self.vm
    }
}

impl<D: VmDriver> Drop for Moment<D> {
    fn drop(&mut self) {
        let Some(body) = self.body.take() else { return };
        let mut end = End { vm: &self.vm, body: Some(body), left: Batches::new(), done: Batches::new(), now: None };
        end.carry_out();
    }
}

/// The batch of a bind job that has begun is carried out: now, or by whoever has the space, before giving it on. Any context.
pub(super) fn begin<D: VmDriver>(vm: &Object<VmInner<D>>, node: HeapBox<Node<D>>) {
    vm.state.lock().begun.push(node);
    work_off(vm);
}

/// Carries out what has begun, unless somebody has the space, who will. Any context.
pub(super) fn work_off<D: VmDriver>(vm: &Object<VmInner<D>>) {
    let _section = check::signalling();
    drop(Moment::try_begin(vm));
}

/// The end of a moment. Its drop gives the space on, also when a driver panics in a batch.
struct End<'a, D: VmDriver> {
    vm: &'a Object<VmInner<D>>,
    body: Option<Body<D>>,
    /// Not carried out; the first to come pops first.
    left: Batches<D>,
    /// Carried out; the last one pops first.
    done: Batches<D>,
    /// Being carried out.
    now: Option<HeapBox<Node<D>>>,
}

impl<D: VmDriver> End<'_, D> {
    fn carry_out(&mut self) {
        let begun = self.vm.state.lock().begun.take();
        if begun.is_empty() {
            return;
        }
        self.left = begun.turned_over();
        let Some(body) = &mut self.body else { return };
        let _section = check::signalling();
        while let Some(node) = self.left.pop() {
            let node = self.now.insert(node);
            node.batch.carry_out(self.vm, &mut body.space);
            if let Some(node) = self.now.take() {
                self.done.push(node);
            }
        }
    }
}

impl<D: VmDriver> Drop for End<'_, D> {
    fn drop(&mut self) {
        let Some(body) = self.body.take() else { return };
        let figures = body.figures();
        let removed = body.space.store.is_to_be_set_apart();
        let (next, more, poke) = {
            let mut state = self.vm.state.lock();
            state.body = Some(body);
            state.figures = figures;
            // The driver panicked: nobody knows what its page tables hold.
            state.poisoned |= self.now.is_some();
            // They came before those that came meanwhile, and this list is the other way round.
            let mut later = state.begun.take().turned_over();
            state.begun.push_all(&mut self.left);
            state.begun.push_all(&mut later);
            let next = state.moment.pass_on();
            let more = next.is_none() && !state.begun.is_empty();
            let poke = removed || (next.is_none() && core::mem::take(&mut state.work_waits));
            (next, more, poke)
        };
        if let Some(next) = next {
            sync::unpark(&next);
        }
        check::after_unlock::<class::VmSpace>();
        if more {
            self.vm.poke_signalling();
        }
        let spent = self.tell();
        if poke || spent {
            self.vm.poke();
        }
    }
}

impl<D: VmDriver> End<'_, D> {
    /// Signals what was carried out, and leaves the rest to the reaper. True if there was anything.
    fn tell(&mut self) -> bool {
        let mut done = self.done.take().turned_over();
        let mut told = Batches::new();
        let _section = check::signalling();
        while let Some(mut node) = done.pop() {
            node.batch.tell();
            told.push(node);
        }
        // Not told, its job fails when the reaper drops it.
        if let Some(node) = self.now.take() {
            told.push(node);
        }
        let any = !told.is_empty();
        if any {
            self.vm.state.lock().spent.push_all(&mut told);
        }
        any
    }
}
