//! Accesses: who may touch which page, and when.
//!
//! A job is *open* from its submission until it has stopped. When the device reports a page as live for a job, the job
//! *uses* that page until it has stopped. The checker counts
//!
//! - `released_while_hardware_busy`: a page is freed while a job uses it, a job touches a page that is free, a payload is
//!   dropped while its job is open, or the device touches a page for a job that has stopped;
//! - `conflicting_accesses`: a job or the host uses a page while another job does, and one of the two writes. Two jobs'
//!   control words may share a page. Jobs that [`OrderedBy::Hardware`] keeps apart may be seen at once, also through
//!   others between them; jobs that the host promised to keep apart may not, and the words then name the promise;
//! - `unexpected_page_faults`: a job faults that was not told to.
//!
//! Each pair of a job and a page counts once for each kind.

use alloc::format;

use super::ids::IdMap;
use super::window::Window;
use super::{Audit, Violations};
use crate::gpu::faults::FaultKind;
use crate::gpu::observe::{Observation, OrderedBy, Stamped};
use crate::gpu::types::{Access, JobId, PageId, Time, Va};

/// Jobs looked at when asking whether one is ordered behind another; a longer chain counts as no order.
const ORDER_SEARCH_MAX: usize = 4096;
/// Lists of pages kept for their room.
const SPARE_MAX: usize = 64;

/// What is known of a job.
#[derive(Debug, Default)]
struct Job {
    open: bool,
    may_fault: bool,
    pages: Vec<PageId>,
    /// Jobs that go before it, while they are not known to have stopped.
    behind: Vec<(JobId, OrderedBy)>,
}

/// One job's use of a page.
#[derive(Debug, Clone, Copy)]
struct Use {
    job: JobId,
    reads: bool,
    writes: bool,
    /// Whether it moves data, in either direction.
    data: bool,
    /// Whether its violations are counted already.
    released: bool,
    conflicting: bool,
}

/// What is known of a page.
#[derive(Debug, Default)]
struct Page {
    free: bool,
    uses: Vec<Use>,
}

/// Watches accesses.
#[derive(Debug, Default)]
pub struct AccessChecker {
    jobs: IdMap<JobId, Job>,
    /// By memory, then by page.
    pages: Vec<Vec<Page>>,
    payloads: Window<JobId>,
    /// Lists of pages of jobs that are gone, for their room.
    spare: Vec<Vec<PageId>>,
    released_while_hardware_busy: u64,
    conflicting_accesses: u64,
    unexpected_page_faults: u64,
}

impl AccessChecker {
    /// Sees one observation.
    pub fn observe(&mut self, seen: &Stamped, violations: &mut Violations) {
        let at = seen.at;
        match seen.what {
            Observation::Submitted { job, .. } | Observation::Started { job } => self.opened(job),
            Observation::FaultRequested { job, kind } => {
                self.jobs.entry(job).or_default().may_fault = kind == FaultKind::PageFault;
            }
            Observation::Ordered { before, after, by } => self.ordered(before, after, by),
            Observation::PageAllocated { page, .. } | Observation::PageTakenUp { page } => self.page(page).free = false,
            Observation::PageFreed { page } | Observation::PageLaidAside { page } => self.freed(page, at, violations),
            Observation::HostTouched { page, access } => {
                self.host_touched(page, access, at, violations);
            }
            Observation::Live { job, page, access } => {
                self.live(job, page, access, at, violations);
            }
            Observation::PageFault { job, va, .. } => self.faulted(job, va, at, violations),
            Observation::Stopped { job, .. } => self.stopped(job),
            Observation::PayloadCreated { payload, job, .. } => {
                self.payloads.insert(payload, job);
            }
            Observation::PayloadReleased { payload } => {
                self.payload_released(payload, at, violations);
            }
            _ => {}
        }
    }

    #[cfg(test)]
    pub(crate) fn size(&self) -> usize {
        self.jobs.len() + self.payloads.len()
    }

    /// Hands over the counts.
    pub const fn finish(&self, audit: &mut Audit) {
        audit.released_while_hardware_busy = self.released_while_hardware_busy;
        audit.conflicting_accesses = self.conflicting_accesses;
        audit.unexpected_page_faults = self.unexpected_page_faults;
    }

    fn page(&mut self, page: PageId) -> &mut Page {
        page_of(&mut self.pages, page)
    }

    fn opened(&mut self, job: JobId) {
        let pages = &mut self.spare;
        let new = || Job { pages: pages.pop().unwrap_or_default(), ..Job::default() };
        self.jobs.entry(job).or_insert_with(new).open = true;
    }

    fn ordered(&mut self, before: JobId, after: JobId, by: OrderedBy) {
        self.jobs.entry(after).or_default().behind.push((before, by));
    }

    fn stopped(&mut self, job: JobId) {
        let Some(mut gone) = self.jobs.remove(&job) else { return };
        let mut pages = core::mem::take(&mut gone.pages);
        for page in pages.drain(..) {
            let uses = &mut self.page(page).uses;
            if let Some(at) = uses.iter().position(|used| used.job == job) {
                uses.swap_remove(at);
            }
        }
        if pages.capacity() > 0 && self.spare.len() < SPARE_MAX {
            self.spare.push(pages);
        }
        // It may still stand between two others, if one that goes before it has not stopped.
        gone.open = false;
        gone.behind.retain(|(earlier, _)| self.jobs.contains_key(earlier));
        if !gone.behind.is_empty() {
            self.jobs.insert(job, gone);
        }
    }

    fn freed(&mut self, page: PageId, at: Time, violations: &mut Violations) {
        let known = page_of(&mut self.pages, page);
        known.free = true;
        for used in known.uses.iter_mut().filter(|used| !used.released) {
            used.released = true;
            self.released_while_hardware_busy += 1;
            let job = used.job;
            violations.add(|| format!("{at}: {page} was freed while {job} used it"));
        }
    }

    fn faulted(&mut self, job: JobId, va: Va, at: Time, violations: &mut Violations) {
        if !self.jobs.get(&job).is_some_and(|job| job.may_fault) {
            self.unexpected_page_faults += 1;
            violations.add(|| format!("{at}: {job} faulted at {va}"));
        }
    }

    fn payload_released(&mut self, payload: u64, at: Time, violations: &mut Violations) {
        let Some(job) = self.payloads.remove(payload) else { return };
        if self.jobs.get(&job).is_some_and(|job| job.open) {
            self.released_while_hardware_busy += 1;
            violations.add(|| format!("{at}: payload {payload} was dropped while {job} was on the hardware"));
        }
    }

    fn host_touched(&mut self, page: PageId, access: Access, at: Time, violations: &mut Violations) {
        let known = page_of(&mut self.pages, page);
        for used in known.uses.iter_mut().filter(|used| used.data && !used.conflicting) {
            if used.writes || access.writes() {
                used.conflicting = true;
                self.conflicting_accesses += 1;
                let job = used.job;
                violations.add(|| format!("{at}: the host touched {page} while {job} used it"));
            }
        }
    }

    fn live(&mut self, job: JobId, page: PageId, access: Access, at: Time, violations: &mut Violations) {
        let Some(owner) = self.jobs.get_mut(&job).filter(|owner| owner.open) else {
            self.released_while_hardware_busy += 1;
            violations.add(|| format!("{at}: {job} touched {page} though it was not running"));
            return;
        };
        let known = page_of(&mut self.pages, page);
        let place = known.uses.iter().position(|used| used.job == job);
        let place = place.unwrap_or_else(|| {
            owner.pages.push(page);
            known.uses.push(Use { job, reads: false, writes: false, data: false, released: false, conflicting: false });
            known.uses.len() - 1
        });
        let mut own = known.uses[place];
        own.reads |= !access.writes();
        own.writes |= access.writes();
        own.data |= access.is_data();
        if known.free && !own.released {
            own.released = true;
            self.released_while_hardware_busy += 1;
            violations.add(|| format!("{at}: {job} touched {page}, which is free"));
        }
        if !own.conflicting && known.uses.len() > 1 {
            let other = known.uses.iter().filter(|other| collide(&own, other)).find_map(|other| {
                match order(&self.jobs, job, other.job) {
                    Some(OrderedBy::Hardware) => None,
                    by => Some((other.job, by)),
                }
            });
            if let Some((other, by)) = other {
                own.conflicting = true;
                self.conflicting_accesses += 1;
                let why = if by.is_some() { "ordered, but not kept apart" } else { "in no order" };
                violations.add(|| format!("{at}: {job} and {other} at once on {page}, {why}"));
            }
        }
        known.uses[place] = own;
    }
}

/// Whether two jobs' uses of a page get into each other's way: one writes data, or one writes what the other's data is.
fn collide(one: &Use, other: &Use) -> bool {
    let overwrites = |writer: &Use, victim: &Use| writer.writes && writer.data && (victim.reads || victim.writes);
    one.job != other.job && (overwrites(one, other) || overwrites(other, one))
}

/// What orders two jobs, in either direction: an order through hardware alone, or one with a promise of the host in it.
fn order(jobs: &IdMap<JobId, Job>, one: JobId, other: JobId) -> Option<OrderedBy> {
    let hardware = reaches(jobs, one, other, true) || reaches(jobs, other, one, true);
    if hardware {
        return Some(OrderedBy::Hardware);
    }
    let promised = reaches(jobs, one, other, false) || reaches(jobs, other, one, false);
    promised.then_some(OrderedBy::Host)
}

/// Whether `before` is among those that `after` goes behind.
fn reaches(jobs: &IdMap<JobId, Job>, after: JobId, before: JobId, hardware_only: bool) -> bool {
    let mut seen = alloc::vec![after];
    let mut next = 0;
    while let Some(job) = seen.get(next).copied() {
        next += 1;
        for (earlier, by) in jobs.get(&job).map_or(&[][..], |job| &job.behind) {
            if hardware_only && *by != OrderedBy::Hardware {
                continue;
            }
            if *earlier == before {
                return true;
            }
            if seen.len() < ORDER_SEARCH_MAX && !seen.contains(earlier) {
                seen.push(*earlier);
            }
        }
    }
    false
}

/// The book's entry for a page; pages not heard of count as held.
fn page_of(pages: &mut Vec<Vec<Page>>, page: PageId) -> &mut Page {
    let domain = usize::from(page.domain.0);
    if pages.len() <= domain {
        pages.resize_with(domain + 1, Vec::new);
    }
    let pages = &mut pages[domain];
    // CAST: a page number; the checkers share no helpers with the model.
    let place = page.index as usize;
    if pages.len() <= place {
        pages.resize_with(place + 1, Page::default);
    }
    &mut pages[place]
}

#[cfg(test)]
#[path = "access_tests.rs"]
mod tests;
