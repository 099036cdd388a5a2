//! Who holds what, and who is next: a plain state machine, without lock or clock.
//!
//! # States
//! A holder has no slots, or one of each of its kinds, with `users` jobs on the hardware that use them. At most one job of it
//! *waits* (the head of its queue), in one of two lines: for slots that anybody may have, or also for reserved ones. *Granted*:
//! its holder has the slots, and it has not come for them yet.
//!
//! # Line
//! Each line is in the order of first asking. The older of the two heads is served, or the other, if that one cannot be. A
//! head that cannot holds up those behind it in its line, unless it is its group's cap that it waits for; and it holds up
//! whoever has slots already and came after it, in either line.

use super::slots::SlotSet;
use super::{KINDS_MAX, PoolError};
use crate::mem::tree::Tree;
use crate::mem::{AllocError, HeapVec, try_reserve};
use crate::sched::Priority;
use core::fmt;

pub(super) struct Leases {
    kinds: [SlotSet; KINDS_MAX],
    counts: [u32; KINDS_MAX],
    /// Of each kind, for priority high and above.
    reserved: [u32; KINDS_MAX],
    /// Of each kind, held by lower ones.
    ordinary: [u32; KINDS_MAX],
    group_cap: u32,
    holders: HeapVec<Holder>,
    free: u32,
    lines: [Tree<u64, u32>; 2],
    next_seqno: u64,
    /// Holders of each group that have slots; only groups with a number.
    groups: Tree<u64, u32>,
}

#[derive(Debug, Clone, Copy)]
struct Holder {
    /// `None`: nobody has this number, and `users` is the next such number.
    wants: Option<Wants>,
    users: u32,
    slots: Option<[Option<u32>; KINDS_MAX]>,
    waiting: Option<u64>,
    granted: bool,
}

/// What a holder asks for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wants {
    pub(super) kinds: [bool; KINDS_MAX],
    pub(super) group: u64,
    pub(super) priority: Priority,
}

impl Wants {
    const fn line(&self) -> usize {
        matches!(self.priority, Priority::High | Priority::Realtime) as usize
    }
}

const NONE: u32 = u32::MAX;
const NOBODY: Holder = Holder { wants: None, users: NONE, slots: None, waiting: None, granted: false };

impl Leases {
    pub(super) fn new(
        counts: [u32; KINDS_MAX],
        reserved: [u32; KINDS_MAX],
        group_cap: u32,
        most: u32,
    ) -> Result<Self, AllocError> {
        let mut holders = HeapVec::new();
        try_reserve(&mut holders, most as usize)?;
        holders.extend((1..=most).map(|next| Holder { users: if next < most { next } else { NONE }, ..NOBODY }));
        let mut lines = [Tree::new(), Tree::new()];
        for line in &mut lines {
            line.try_reserve(most as usize)?;
        }
        let mut groups = Tree::new();
        groups.try_reserve(most as usize)?;
        let free = if most > 0 { 0 } else { NONE };
        let kinds = counts.map(SlotSet::new);
        let ordinary = [0; KINDS_MAX];
        Ok(Self { kinds, counts, reserved, ordinary, group_cap, holders, free, lines, next_seqno: 0, groups })
    }

    pub(super) fn free_slots(&self, kind: usize) -> u32 {
        self.kinds.get(kind).map_or(0, SlotSet::free)
    }

    pub(super) fn waiting(&self) -> usize {
        self.lines[0].len() + self.lines[1].len()
    }

    pub(super) fn open(&mut self, wants: Wants) -> Result<u32, PoolError> {
        let number = self.free;
        let most = u32::try_from(self.holders.len()).unwrap_or(u32::MAX);
        let holder = self.holders.get_mut(number as usize).ok_or(PoolError::Full { most })?;
        self.free = holder.users;
        *holder = Holder { wants: Some(wants), users: 0, ..NOBODY };
        Ok(number)
    }

    /// Nothing of it is in use, and nobody waits for it.
    pub(super) fn close(&mut self, number: u32) {
        self.holders[number as usize] = Holder { users: self.free, ..NOBODY };
        self.free = number;
    }

    pub(super) fn slots(&self, number: u32) -> Option<[Option<u32>; KINDS_MAX]> {
        self.holders[number as usize].slots
    }

    /// A job of the holder wants its slots; false: it is in line. Asking again changes nothing.
    pub(super) fn take(&mut self, number: u32) -> bool {
        let holder = &mut self.holders[number as usize];
        if core::mem::take(&mut holder.granted) {
            holder.users += 1;
            return true;
        }
        if holder.waiting.is_some() {
            return false;
        }
        self.next_seqno += 1;
        let seqno = self.next_seqno;
        let Some(wants) = holder.wants else { return false };
        holder.waiting = Some(seqno);
        // Room for every holder.
        let _ = self.lines[wants.line()].insert(seqno, number);
        // Whoever else can be served is told so by him who made that possible.
        if self.next() == Some((wants.line(), seqno, number)) {
            self.grant(number);
            return self.take(number);
        }
        false
    }

    /// One of its jobs is done with them.
    pub(super) fn give_back(&mut self, number: u32) {
        let holder = &mut self.holders[number as usize];
        holder.users = holder.users.saturating_sub(1);
        self.put_back_unused(number);
    }

    /// The job that waits for them, or was granted them, will not come.
    pub(super) fn leave(&mut self, number: u32) {
        let holder = &mut self.holders[number as usize];
        holder.granted = false;
        if let (Some(seqno), Some(wants)) = (holder.waiting.take(), holder.wants) {
            self.lines[wants.line()].remove(&seqno);
        }
        self.put_back_unused(number);
    }

    fn put_back_unused(&mut self, number: u32) {
        let holder = &mut self.holders[number as usize];
        if holder.users > 0 || holder.granted {
            return;
        }
        let Some(slots) = holder.slots.take() else { return };
        let Some(Wants { group, .. }) = holder.wants else { return };
        let ordinary = holder.wants.is_some_and(|wants| wants.line() == 0);
        // In reverse order.
        for (kind, slot) in slots.into_iter().enumerate().rev() {
            let Some(slot) = slot else { continue };
            self.ordinary[kind] -= u32::from(ordinary);
            let whole = self.kinds[kind].give_back(slot);
            debug_assert!(whole, "a slot came back that nobody had");
        }
        if let Some(held) = self.groups.get_mut(&group) {
            *held -= 1;
            if *held == 0 {
                self.groups.remove(&group);
            }
        }
    }

    /// Grants the next in line what it waits for, if that is there: call until there is nobody.
    pub(super) fn serve(&mut self) -> Option<u32> {
        let (_, _, number) = self.next()?;
        self.grant(number);
        Some(number)
    }

    /// Who is to be served now: the line, the place in it, the holder.
    fn next(&self) -> Option<(usize, u64, u32)> {
        let heads = [0, 1].map(|line| self.head(line));
        let older = |line: usize| match (heads[line], heads[1 - line]) {
            (Some((one, _)), Some((other, _))) => one < other,
            (one, _) => one.is_some(),
        };
        let in_turn = if older(0) { [0, 1] } else { [1, 0] };
        let can = |line: &usize| heads[*line].is_some_and(|(_, number)| self.can_have(number, older(*line)));
        let line = in_turn.into_iter().find(can)?;
        let (seqno, number) = heads[line]?;
        Some((line, seqno, number))
    }

    /// The first of a line, those left out that wait for their group's cap.
    fn head(&self, line: usize) -> Option<(u64, u32)> {
        let capped = |number: u32| {
            let holder = &self.holders[number as usize];
            let group = holder.wants.map_or(0, |wants| wants.group);
            let held = self.groups.get(&group).copied().unwrap_or(0);
            group != 0 && holder.slots.is_none() && held >= self.group_cap
        };
        self.lines[line].iter().map(|(seqno, number)| (*seqno, *number)).find(|(_, number)| !capped(*number))
    }

    /// Whether the slots are there. Who has them already goes on only if `oldest`: else he is to give them back first.
    fn can_have(&self, number: u32, oldest: bool) -> bool {
        let holder = &self.holders[number as usize];
        let Some(wants) = &holder.wants else { return false };
        if holder.slots.is_some() {
            return oldest;
        }
        let fits = |kind: usize| {
            let open = wants.line() == 1 || self.ordinary[kind] + self.reserved[kind] < self.counts[kind];
            !wants.kinds[kind] || (self.kinds[kind].free() > 0 && open)
        };
        (0..KINDS_MAX).all(fits)
    }

    /// Takes all kinds, in order, unless the holder has them.
    fn grant(&mut self, number: u32) {
        let holder = &mut self.holders[number as usize];
        if let (Some(seqno), Some(wants)) = (holder.waiting.take(), holder.wants) {
            self.lines[wants.line()].remove(&seqno);
        }
        holder.granted = true;
        let Some(wants) = holder.wants.filter(|_| holder.slots.is_none()) else { return };
        let mut slots = [None; KINDS_MAX];
        for (kind, slot) in slots.iter_mut().enumerate() {
            *slot = if wants.kinds[kind] { self.kinds[kind].take() } else { None };
            self.ordinary[kind] += u32::from(slot.is_some() && wants.line() == 0);
        }
        holder.slots = Some(slots);
        if wants.group != 0 {
            let held = self.groups.get(&wants.group).copied().unwrap_or(0);
            let _ = self.groups.insert(wants.group, held + 1);
        }
    }
}

impl fmt::Debug for Leases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Leases({} wait)", self.waiting())
    }
}
