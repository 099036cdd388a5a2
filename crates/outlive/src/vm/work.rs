//! A VM's work on the reaper: hands what was given up to the driver's `clear`, and frees what was cleared.
//!
//! It takes the turn for one thing at a time and never waits for it: if somebody else has it, it leaves a mark, and is
//! queued again when that one is done. No turn and no lock is held while values of the driver are dropped.

use super::clear::{ToClear, What};
use super::driver::{StagedDriver, VmDriver};
use super::edit::Edit;
use super::grace::Grace;
use super::pairs::{Over, PairInner, Pairs, Phase};
use super::shared::{State, VmInner, Whole};
use super::table::Table;
use crate::check;
use crate::exec::object::Object;
use crate::sabotage::{self, Sabotage};
use core::ops::ControlFlow;

pub(super) enum Next<D: VmDriver> {
    Clear(ToClear<D>),
    /// Cleared, and used by nobody: a buffer.
    Free(Object<PairInner<D>>),
    /// The same of the whole VM.
    End(Object<VmInner<D>>),
    /// Closed after the whole VM was cleared, which its mappings were part of.
    Drop(Object<PairInner<D>>),
}

/// On the reaper lane.
pub(super) fn run<D: StagedDriver>(vm: &Object<VmInner<D>>) {
    if sabotage::is(Sabotage::SkipDrain) {
        return;
    }
    check::foreign_drop();
    while let Some(mut edit) = Edit::for_work(vm) {
        let Some(next) = next(&mut vm.state.lock()) else { return };
        match next {
            Next::Clear(to_clear) => vm.device.driver.clear(&mut edit, to_clear),
            Next::Free(pair) => {
                let freed = edit.body_mut().free(vm, pair);
                drop(edit);
                drop(freed);
            }
            Next::End(whole) => {
                let body = edit.body_mut();
                let closed = body.space.close();
                let table = core::mem::replace(&mut body.table, Table::new());
                vm.state.lock().whole = Whole::Gone;
                drop(edit);
                drop((closed, table, whole));
            }
            Next::Drop(pair) => drop(pair),
        }
    }
}

/// What is to be done first.
pub(super) fn next<D: VmDriver>(state: &mut State<D>) -> Option<Next<D>> {
    if let Some(pair) = take_over(&mut state.done, &state.grace, state.named) {
        return Some(Next::Free(pair));
    }
    if let Some(pair) = take_over(&mut state.waiting, &state.grace, state.named) {
        pair.state.lock().phase = Phase::Handed;
        return Some(Next::Clear(ToClear::handed(What::Bo(pair))));
    }
    if matches!(state.whole, Whole::Gone) {
        let pair = state.closing.pop()?;
        state.unlist(&pair);
        return Some(Next::Drop(pair));
    }
    // Buffers go first: what their mappings hold lies in the space.
    if let (Whole::GivenUp(_, ticket) | Whole::Cleared(_, ticket), 0) = (&mut state.whole, state.out) {
        let ticket = *ticket.get_or_insert_with(|| state.grace.ticket());
        if state.grace.is_over(ticket) && state.named == 0 {
            return match core::mem::replace(&mut state.whole, Whole::Handed) {
                Whole::Cleared(vm, _) => Some(Next::End(vm)),
                Whole::GivenUp(vm, _) => Some(Next::Clear(ToClear::handed(What::Vm(vm)))),
                Whole::Open | Whole::Closed | Whole::Handed | Whole::Gone => None,
            };
        }
    }
    None
}

/// The first of `pairs` whose mappings nobody may use any more. Where the grace period of one is not over, that of none behind it is.
fn take_over<D: VmDriver>(pairs: &mut Pairs<D>, grace: &Grace, named: usize) -> Option<Object<PairInner<D>>> {
    pairs.take_first(|pair| match pair.state.lock().over(grace, named) {
        Over::Yes => ControlFlow::Break(true),
        Over::Named => ControlFlow::Continue(()),
        Over::No => ControlFlow::Break(false),
    })
}
