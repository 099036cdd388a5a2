//! The fair policy: what it keeps is on [`Fair`]. `account` what a queue or group has had · `debts` what those that went still owe ·
//! `realtime` who goes first, and for how long. A plain state machine under the arbiter's lock: nothing here locks or waits.

mod account;
mod debts;
mod realtime;

use super::policy::{Head, Policy};
use super::{Priority, Share};
use crate::mem::tree::Tree;
use crate::mem::{AllocError, HeapVec, try_reserve};
use crate::time::Time;
pub use account::CREDIT;
use account::{Account, Ready, Sum, Tags, UNKNOWN_NS, Weight};
use core::fmt;
use core::time::Duration;
use debts::{Debtor, Debts};
use realtime::Window;

/// Virtual time: nanoseconds of hardware time at weight 100 and normal priority, times 2³².
type Virtual = u128;

/// No group.
const NONE: u32 = u32::MAX;

/// The default policy: hardware time in proportion to weights, groups first, then the members of each.
///
/// # What is kept
/// Each queue and each group has a *virtual time*: the hardware time it has had, divided by its weight.
///
/// - **Charge.** When a job ends, its queue and its group pay the time that *it* occupied the hardware: measured by the
///   driver, else from start to end; also when it was cancelled or hung. How deep the queue is, or whether it empties, is
///   no matter, so a client that waits for each job pays like one that does not.
/// - **Provisionally**, each job on the hardware counts with the moving average of its queue (its group); its end puts that
///   right. So several credits are no credit.
/// - **Choice.** Of those ready who have had no more than the weighted average, the one whose job would end first in virtual
///   time; in doubt the one who has had least (as in EEVDF, Stoica and Abdel-Wahab 1995). So short jobs go before long ones
///   while that costs nobody a share, and an interactive client need not wait for more than what is on the hardware.
/// - **Unknown** is a queue none of whose jobs has ended. It is chosen as if its job took half of what those of the others do, and one
///   on the hardware counts with the credit. Among several such, those with one job waiting are first: an interactive client may
///   come together with hogs. If they cannot be told apart, nobody can do better than one job of each, once.
/// - **Floor.** Among the groups, and among the members of each, there is a floor: the virtual time of whoever had had least when
///   last one started. It only rises. Who comes back is lifted to [`CREDIT`] of hardware time below it, who is new to the floor
///   itself, so that nobody saves up time by sleeping. Debts stay, also those of clients and groups whose queues have gone:
///   who comes back with a new one gains nothing.
/// - **Only ready queues** are in the trees: those that wait cost nothing. Every call is O(log ready).
/// - **Weights.** A group's weight is its own, never the sum of its members. A member's is its weight times its priority: high 4,
///   normal 1, low 1/4. A queue without a group is a group of its own, with that weight.
/// - **Realtime** queues are first, whatever their group, while they fit into half the hardware time of any 100 ms; all of it is charged to their group; beyond that they count as high.
pub struct Fair {
    members: HeapVec<Member>,
    groups: HeapVec<Group>,
    /// The first free group.
    free_group: u32,
    by_id: Tree<u64, u32>,
    /// Groups with a ready member: all of them are set 0.
    order: Ready,
    sum: Sum,
    /// Ready members of groups; those without one are found at their group.
    in_groups: Ready,
    /// Ready realtime members.
    urgent: Tree<(Virtual, u32), ()>,
    debts: Debts,
    window: Window,
    /// Of the queues whose jobs' length is known: how many, and the sum of their averages.
    known: u32,
    averages_ns: u64,
}

#[derive(Debug, Clone, Copy)]
struct Member {
    share: Share,
    client: u64,
    account: Account,
    group: u32,
    /// Others wait behind its head.
    more: bool,
    /// Where it is in the orders, while it is ready.
    ready: Option<Tags>,
    urgent: Option<Virtual>,
}

#[derive(Debug, Clone, Copy)]
struct Group {
    /// Zero: of one queue that has no group.
    id: u64,
    debtor: Option<Debtor>,
    account: Account,
    members: u32,
    ready: Option<Tags>,
    sum: Sum,
    /// A queue without a group, and whether others wait behind its head.
    sole: u32,
    sole_more: bool,
    next_free: u32,
}

impl Group {
    const fn free(next_free: u32) -> Self {
        let account = Account::new(0, Weight::new(1, Priority::Normal));
        Self {
            id: 0,
            debtor: None,
            account,
            members: 0,
            ready: None,
            sum: Sum::EMPTY,
            sole: NONE,
            sole_more: false,
            next_free,
        }
    }
}

impl Share {
    const fn member_weight(&self) -> Weight {
        Weight::new(self.weight, self.priority)
    }

    /// Of the group, or of a queue that is one of its own.
    const fn of_group(&self) -> Weight {
        if self.group == 0 { self.member_weight() } else { Weight::new(self.group_weight, Priority::Normal) }
    }
}

impl Fair {
    /// For hardware that executes `engines` jobs at once (at least 1), of which realtime queues get half at most.
    #[must_use]
    pub const fn new(engines: u32) -> Self {
        Self {
            members: HeapVec::new(),
            groups: HeapVec::new(),
            free_group: NONE,
            by_id: Tree::new(),
            order: Ready::new(),
            sum: Sum::EMPTY,
            in_groups: Ready::new(),
            urgent: Tree::new(),
            debts: Debts::new(),
            window: Window::new(engines),
            known: 0,
            averages_ns: 0,
        }
    }

    /// Of a job of a queue none of whose jobs has ended: half of what those of the others take, so that it soon shows how
    /// long they are.
    const fn assumed_ns(&self) -> u64 {
        match self.averages_ns.checked_div(self.known as u64) {
            Some(mean) => mean / 2,
            None => UNKNOWN_NS,
        }
    }

    fn group_of(&self, queue: u32) -> Option<u32> {
        Some(self.members.get(queue as usize)?.group).filter(|group| *group != NONE)
    }

    /// Makes `queue` a member of the group of `share`, found or made; there are as many as queues, so there is one. The group
    /// weighs what was said last.
    fn join(&mut self, queue: u32, client: u64, share: &Share) -> u32 {
        let known = if share.group == 0 { None } else { self.by_id.get(&share.group).copied() };
        let at = known.unwrap_or(self.free_group);
        let floor = self.sum.floor;
        let debtor = Debtor::of(share.group, client);
        let Some(group) = self.groups.get_mut(at as usize) else { return NONE };
        if known.is_none() {
            self.free_group = group.next_free;
            let had = debtor.and_then(|debtor| self.debts.take(debtor)).map_or(floor, |owed| owed.max(floor));
            let sole = if share.group == 0 { queue } else { NONE };
            let account = Account::new(had, share.of_group());
            *group = Group { id: share.group, debtor, account, sole, ..Group::free(NONE) };
            if share.group != 0 {
                // As many as groups.
                let _ = self.by_id.insert(share.group, at);
            }
        }
        group.members += 1;
        group.account.reweigh(share.of_group(), floor);
        self.place_group(at);
        at
    }

    fn leave(&mut self, at: u32) {
        let Some(group) = self.groups.get_mut(at as usize) else { return };
        group.members -= 1;
        if group.members > 0 {
            return;
        }
        if let Some(debtor) = group.debtor {
            self.debts.remember(debtor, group.account.had, self.sum.floor);
        }
        self.by_id.remove(&group.id);
        *group = Group::free(self.free_group);
        self.free_group = at;
    }

    /// Puts a group where it belongs now: in the order, if it has a ready member.
    fn place_group(&mut self, at: u32) {
        let Some(group) = self.groups.get_mut(at as usize) else { return };
        let tags = (group.sum.count > 0).then(|| group.account.tags(group.sole_more || group.sum.has_more()));
        let was = core::mem::replace(&mut group.ready, tags);
        self.order.place(0, &mut self.sum, at, was, tags);
    }

    /// Puts a member, `ready` or not, and its group where they belong now.
    fn place(&mut self, queue: u32, ready: bool) {
        let Some(member) = self.members.get_mut(queue as usize) else { return };
        let tags = ready.then(|| member.account.tags(member.more));
        let urgent = ready.then_some(member.account.had).filter(|_| member.share.priority == Priority::Realtime);
        let was = core::mem::replace(&mut member.ready, tags);
        let was_urgent = core::mem::replace(&mut member.urgent, urgent);
        let (at, more) = (member.group, member.more);
        let Some(group) = self.groups.get_mut(at as usize) else { return };
        if group.sole == NONE {
            self.in_groups.place(at, &mut group.sum, queue, was, tags);
        } else {
            (group.sum.count, group.sole_more) = (u32::from(ready), more);
        }
        if was_urgent != urgent {
            if let Some(had) = was_urgent {
                self.urgent.remove(&(had, queue));
            }
            if let Some(had) = urgent {
                let _ = self.urgent.insert((had, queue), ());
            }
        }
        self.place_group(at);
    }

    /// Where the trees are to know of a change in its account.
    fn replace(&mut self, queue: u32) {
        self.place(queue, self.members[queue as usize].ready.is_some());
    }

    /// From one group to another: what is owed there goes along; what is due stays behind. It is not ready.
    fn move_to(&mut self, queue: u32, from: u32, share: &Share) {
        let Member { account, client, .. } = self.members[queue as usize];
        let old = &mut self.groups[from as usize];
        let owed = account.had.saturating_sub(old.sum.floor);
        old.account.on_hardware = old.account.on_hardware.saturating_sub(account.on_hardware);
        self.place_group(from);
        self.leave(from);
        let to = self.join(queue, client, share);
        self.members[queue as usize].group = to;
        if let Some(group) = self.groups.get_mut(to as usize) {
            group.account.on_hardware += account.on_hardware;
            self.members[queue as usize].account.had = group.sum.floor + owed;
        }
    }
}

impl Policy for Fair {
    fn name(&self) -> &'static str {
        "fair"
    }

    fn reserve(&mut self, queues: u32) -> Result<(), AllocError> {
        let count = queues as usize;
        try_reserve(&mut self.members, count)?;
        try_reserve(&mut self.groups, count)?;
        self.by_id.try_reserve(count)?;
        self.order.reserve(count)?;
        self.in_groups.reserve(count)?;
        self.urgent.try_reserve(count)?;
        self.debts.reserve(count)?;
        let Group { account, .. } = Group::free(NONE);
        let nobody =
            Member { share: Share::default(), client: 0, account, group: NONE, more: false, ready: None, urgent: None };
        self.members.resize(count, nobody);
        self.groups.extend((1..=queues).map(|next| Group::free(if next < queues { next } else { NONE })));
        self.free_group = if queues > 0 { 0 } else { NONE };
        Ok(())
    }

    fn opened(&mut self, queue: u32, client: u64, share: Share) {
        let group = self.join(queue, client, &share);
        let had = self.groups.get(group as usize).map_or(0, |group| group.sum.floor);
        if let Some(member) = self.members.get_mut(queue as usize) {
            let account = Account::new(had, share.member_weight());
            *member = Member { share, client, account, group, more: false, ready: None, urgent: None };
        }
    }

    fn closed(&mut self, queue: u32) {
        let Some(group) = self.group_of(queue) else { return };
        self.place(queue, false);
        let member = &mut self.members[queue as usize];
        member.group = NONE;
        if let Some(average_ns) = member.account.average_ns() {
            self.known -= 1;
            self.averages_ns -= average_ns;
        }
        self.leave(group);
    }

    fn changed(&mut self, queue: u32, share: Share) {
        let Some(at) = self.group_of(queue) else { return };
        let ready = self.members[queue as usize].ready.is_some();
        self.place(queue, false);
        let group = &mut self.groups[at as usize];
        let member = &mut self.members[queue as usize];
        let before = core::mem::replace(&mut member.share, share);
        member.account.reweigh(share.member_weight(), group.sum.floor);
        if before.group == share.group {
            group.account.reweigh(share.of_group(), self.sum.floor);
        } else {
            self.move_to(queue, at, &share);
        }
        self.place(queue, ready);
    }

    fn ready(&mut self, queue: u32, head: Head, _now: Time) {
        let Some(at) = self.group_of(queue) else { return };
        let group = &mut self.groups[at as usize];
        if group.sum.count == 0 {
            group.account.lift(self.sum.floor);
        }
        let member = &mut self.members[queue as usize];
        member.account.lift(group.sum.floor);
        member.more = head.more;
        self.place(queue, true);
    }

    fn unready(&mut self, queue: u32) {
        self.place(queue, false);
    }

    fn pick(&mut self, now: Time) -> Option<u32> {
        let assumed = self.assumed_ns();
        if let Some(((_, urgent), ())) = self.urgent.first() {
            self.window.turn(now);
            if self.window.has_room(self.members[*urgent as usize].account.job_ns(assumed)) {
                return Some(*urgent);
            }
        }
        let at = self.order.pick(0, &self.sum, assumed)?;
        let group = &self.groups[at as usize];
        if group.sole == NONE { self.in_groups.pick(at, &group.sum, assumed) } else { Some(group.sole) }
    }

    fn started(&mut self, queue: u32, now: Time) {
        let assumed = self.assumed_ns();
        let Some(at) = self.group_of(queue) else { return };
        let (group, member) = (&mut self.groups[at as usize], &mut self.members[queue as usize]);
        self.order.raise_floor(0, &mut self.sum);
        self.in_groups.raise_floor(at, &mut group.sum);
        if member.share.priority == Priority::Realtime {
            self.window.turn(now);
            self.window.started(member.account.job_ns(assumed));
        }
        member.account.on_hardware += 1;
        group.account.on_hardware += 1;
        self.place(queue, false);
    }

    fn returned(&mut self, queue: u32) {
        let Some(at) = self.group_of(queue) else { return };
        let (group, member) = (&mut self.groups[at as usize], &mut self.members[queue as usize]);
        member.account.on_hardware = member.account.on_hardware.saturating_sub(1);
        group.account.on_hardware = group.account.on_hardware.saturating_sub(1);
        if member.share.priority == Priority::Realtime {
            self.window.left();
        }
        self.replace(queue);
    }

    fn ended(&mut self, queue: u32, active: Duration, now: Time) {
        let Some(at) = self.group_of(queue) else { return };
        let ns = u64::try_from(active.as_nanos()).unwrap_or(u64::MAX);
        let (group, member) = (&mut self.groups[at as usize], &mut self.members[queue as usize]);
        let before = member.account.average_ns();
        member.account.pay(ns);
        group.account.pay(ns);
        self.known += u32::from(before.is_none());
        self.averages_ns -= before.unwrap_or(0);
        self.averages_ns = self.averages_ns.saturating_add(member.account.average_ns().unwrap_or(0));
        if member.share.priority == Priority::Realtime {
            self.window.turn(now);
            self.window.left();
            self.window.had(ns);
        }
        self.replace(queue);
    }

    fn fined(&mut self, queue: u32, time: Duration) {
        let Some(at) = self.group_of(queue) else { return };
        let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.members[queue as usize].account.charge(ns);
        self.groups[at as usize].account.charge(ns);
        self.replace(queue);
    }
}

impl fmt::Debug for Fair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fair({} groups ready)", self.order.len())
    }
}
