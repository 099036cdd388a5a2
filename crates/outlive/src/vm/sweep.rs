//! The reaper's work for an address space that is changed by running jobs: as [`work`](super::work), in moments, a slice each, so
//! that no bind job waits for more than that. Unmaps what was closed by steps of the same kind as bind jobs do, and frees what
//! bind jobs leave over.

use super::body::SLICE;
use super::clear::{ToClear, What};
use super::driver::{BindCx, ImmediateDriver};
use super::moment::Moment;
use super::range::VaRange;
use super::shared::{VmInner, Whole};
use super::table::Table;
use super::work::{Next, next};
use super::{Mapping, Step};
use crate::FenceError;
use crate::check;
use crate::exec::object::Object;
use crate::mem::tree::Slot;
use crate::sabotage::{self, Sabotage};

/// On the reaper lane.
pub(super) fn run<D: ImmediateDriver>(vm: &Object<VmInner<D>>) {
    if sabotage::is(Sabotage::SkipDrain) {
        return;
    }
    check::foreign_drop();
    loop {
        let spent = vm.state.lock().spent.take();
        drop(spent);
        let Some(mut moment) = Moment::for_work(vm) else { return };
        if let Some(removed) = removed(&mut moment) {
            drop(moment);
            drop(removed);
            continue;
        }
        let Some(next) = next(&mut vm.state.lock()) else { return };
        match next {
            Next::Clear(to_clear) => clear(vm, moment, to_clear),
            Next::Free(pair) => {
                let freed = moment.body_mut().free(vm, pair);
                drop(moment);
                drop(freed);
            }
            Next::End(whole) => {
                let body = moment.body_mut();
                let closed = body.space.close();
                let table = core::mem::replace(&mut body.table, Table::new());
                vm.state.lock().whole = Whole::Gone;
                drop(moment);
                drop((closed, table, whole));
            }
            Next::Drop(pair) => {
                drop(moment);
                drop(pair);
            }
        }
    }
}

/// Some of what the mappings held that batches took out, once all who may have used them have ended.
fn removed<D: ImmediateDriver>(moment: &mut Moment<D>) -> Option<[Option<D::Mapping>; SLICE]> {
    let vm = moment.vm().clone();
    let store = &mut moment.body_mut().space.store;
    if !store.set_apart() {
        return None;
    }
    let mut state = vm.state.lock();
    let ticket = state.leaving.unwrap_or_else(|| state.grace.ticket());
    state.leaving = Some(ticket);
    if !state.grace.is_over(ticket) && !sabotage::is(Sabotage::ReleaseRemovedAtOnce) {
        return None;
    }
    let removed = core::array::from_fn(|_| store.unpark_apart());
    if !store.is_apart() {
        state.leaving = None;
    }
    Some(removed)
}

/// Has the driver unmap all that `to_clear` stands for, and flush. If it cannot, that is never freed.
fn clear<D: ImmediateDriver>(vm: &Object<VmInner<D>>, mut moment: Moment<D>, to_clear: ToClear<D>) {
    let mut at = Cursor::start(&to_clear);
    loop {
        let unmapped = slice(vm, &moment, &to_clear, &mut at);
        drop(moment);
        match unmapped {
            Err(_) => return give_up(to_clear),
            Ok(()) if at.is_done() => break,
            Ok(()) => {}
        }
        let Some(again) = Moment::in_line(vm) else { return };
        moment = again;
    }
    match vm.device.driver.flush(&vm.data) {
        Ok(flushed) => to_clear.cleared(flushed),
        Err(_) => give_up(to_clear),
    }
}

/// It could not be cleared: never free, unless the device is gone and can make no DMA.
fn give_up<D: ImmediateDriver>(to_clear: ToClear<D>) {
    drop(to_clear.quiesced());
}

/// How far the driver has come.
enum Cursor {
    /// The next mapping of a closed buffer, in a list that nobody changes before it was cleared.
    Bo(Slot),
    /// The address from which on a closed address space, which nobody changes any more, is left; none if it is done.
    Whole(Option<u64>),
}

impl Cursor {
    fn start<D: ImmediateDriver>(to_clear: &ToClear<D>) -> Self {
        match to_clear.what() {
            What::Bo(pair) => Self::Bo(pair.state.lock().out.as_ref().map_or(Slot::NONE, |(out, _)| out.head())),
            What::Vm(_) => Self::Whole(Some(0)),
        }
    }

    fn is_done(&self) -> bool {
        matches!(self, Self::Whole(None)) || matches!(self, Self::Bo(at) if *at == Slot::NONE)
    }
}

/// Unmaps some, in the manner of a batch.
fn slice<'a, D: ImmediateDriver>(
    vm: &VmInner<D>,
    moment: &'a Moment<D>,
    to_clear: &ToClear<D>,
    at: &mut Cursor,
) -> Result<(), FenceError> {
    let space = &moment.body().space;
    let closing = match to_clear.what() {
        What::Bo(pair) => Some(&**pair),
        What::Vm(_) => None,
    };
    let unmap = |mapping| {
        let mut cx = BindCx { vm: &vm.data, room: None, space, closing };
        vm.device.driver.bind(&mut cx, &Step::Unmap { mapping, keep: false })
    };
    match (at, closing) {
        (Cursor::Bo(slot), Some(pair)) => {
            let mut mappings = space.detached_from(pair.id, *slot);
            mappings.by_ref().take(SLICE).try_for_each(|mapping: Mapping<&'a D::Mapping>| {
                let mut parts = moment.body().still_there(pair, mapping.range);
                parts.try_for_each(|part| unmap(mapping.piece(part)))
            })?;
            *slot = mappings.at();
        }
        (Cursor::Whole(from), _) => {
            let mut last = None;
            let rest = from.take().map(|from| VaRange::between(from, u64::MAX));
            let mappings = rest.into_iter().flat_map(|rest| space.overlapping(rest)).take(SLICE);
            mappings.inspect(|mapping| last = Some(mapping.range.last())).try_for_each(unmap)?;
            *from = last.and_then(|last| last.checked_add(1));
        }
        (Cursor::Bo(_), None) => {}
    }
    Ok(())
}
