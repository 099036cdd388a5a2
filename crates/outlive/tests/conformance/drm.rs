//! A client of `drm_syncobj`, as upstream's tests see it: handles of its own, errors by number, flags. Flags are types here, so
//! that unknown ones cannot be given; what resolves handles is this table, which a broker or a driver has.

use crate::break_a_rule;
use crate::software::SwTimeline;
use outlive::{Executor, Fence, Progress, Syncobj, SyncobjError, SyncobjWait, Time, Until, WaitError};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

/// As upstream's tests call them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Errno {
    Inval,
    NoEnt,
    Time,
}

pub use Errno::{Inval, NoEnt, Time as ETime};

impl From<SyncobjError> for Errno {
    fn from(error: SyncobjError) -> Self {
        match error {
            SyncobjError::NotSubmitted { .. } | SyncobjError::None => Self::Inval,
            other => panic!("{other}"),
        }
    }
}

pub const SHORT: Duration = Duration::from_millis(100);
pub const POLL: Duration = Duration::ZERO;
pub const FOREVER: Duration = Duration::MAX;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flags {
    pub all: bool,
    pub until: Until,
}

pub const ANY: Flags = Flags { all: false, until: Until::Signaled };
pub const ALL: Flags = Flags { all: true, until: Until::Signaled };
pub const FOR_SUBMIT: Flags = Flags { all: false, until: Until::SubmittedAndSignaled };

/// In virtual time: what upstream sleeps through passes at once.
pub struct Client {
    pub executor: Executor,
    objects: RefCell<BTreeMap<u32, Syncobj>>,
    last: RefCell<u32>,
    /// Descriptors of whole objects, by number.
    shared: RefCell<Vec<Syncobj>>,
}

impl Client {
    pub fn new() -> Self {
        Self::on(Executor::manual().unwrap())
    }

    pub fn on(executor: Executor) -> Self {
        break_a_rule();
        let (objects, last, shared) = Default::default();
        Self { executor, objects, last, shared }
    }

    fn insert(&self, object: Syncobj) -> u32 {
        *self.last.borrow_mut() += 1;
        let handle = *self.last.borrow();
        self.objects.borrow_mut().insert(handle, object);
        handle
    }

    pub fn create(&self) -> u32 {
        self.insert(Syncobj::new(&self.executor, "client").unwrap())
    }

    pub fn create_signaled(&self) -> u32 {
        self.insert(Syncobj::new_signaled(&self.executor, "client").unwrap())
    }

    pub fn object(&self, handle: u32) -> Result<Syncobj, Errno> {
        self.objects.borrow().get(&handle).cloned().ok_or(NoEnt)
    }

    fn all(&self, handles: &[u32]) -> Result<Vec<Syncobj>, Errno> {
        handles.iter().map(|handle| self.object(*handle)).collect()
    }

    pub fn destroy(&self, handle: u32) -> Result<(), Errno> {
        self.objects.borrow_mut().remove(&handle).map(drop).ok_or(Inval)
    }

    pub fn handle_to_fd(&self, handle: u32) -> Result<usize, Errno> {
        let object = self.object(handle).map_err(|_| Inval)?;
        self.shared.borrow_mut().push(object);
        Ok(self.shared.borrow().len() - 1)
    }

    pub fn fd_to_handle(&self, fd: usize) -> Result<u32, Errno> {
        let object = self.shared.borrow().get(fd).cloned().ok_or(Inval)?;
        Ok(self.insert(object))
    }

    pub fn reset(&self, handles: &[u32]) -> Result<(), Errno> {
        let objects = self.all(handles)?;
        Ok(Syncobj::reset_all(&objects.iter().collect::<Vec<_>>())?)
    }

    pub fn signal(&self, points: &[(u32, u64)]) -> Result<(), Errno> {
        let objects = self.all(&points.iter().map(|(handle, _)| *handle).collect::<Vec<_>>())?;
        let points: Vec<_> = objects.iter().zip(points).map(|(object, (_, point))| (object, *point)).collect();
        Ok(Syncobj::signal_all(&points)?)
    }

    pub fn query(&self, handles: &[u32]) -> Result<Vec<u64>, Errno> {
        let objects = self.all(handles)?;
        let mut progress = vec![Progress { signaled: 0, submitted: 0 }; objects.len()];
        Syncobj::query_all(&objects.iter().collect::<Vec<_>>(), &mut progress)?;
        Ok(progress.into_iter().map(|progress| progress.signaled).collect())
    }

    pub fn value(&self, handle: u32) -> u64 {
        self.query(&[handle]).unwrap()[0]
    }

    pub fn transfer(&self, to: u32, to_point: u64, from: u32, from_point: u64) -> Result<(), Errno> {
        let (to, from) = (self.object(to)?, self.object(from)?);
        Ok(to.transfer(to_point, &from, from_point)?)
    }

    /// Submits the fence as a point, through another object, as upstream does.
    pub fn attach(&self, handle: u32, point: u64, fence: &Fence) {
        let other = self.create();
        self.object(other).unwrap().replace(fence).unwrap();
        self.transfer(handle, point, other, 0).unwrap();
        self.destroy(other).unwrap();
    }

    /// Submits a new software timeline's first fence.
    pub fn attach_sw_sync(&self, handle: u32, point: u64) -> SwTimeline {
        let timeline = SwTimeline::new(&self.executor);
        self.attach(handle, point, &timeline.fence(1));
        timeline
    }

    pub fn trigger(&self, handle: u32, point: u64) {
        self.attach_sw_sync(handle, point).inc(1);
    }

    /// Begins a wait: what it sees, it sees now.
    pub fn begin_wait(&self, points: &[(u32, u64)], flags: Flags) -> Result<SyncobjWait, Errno> {
        let objects = self.all(&points.iter().map(|(handle, _)| *handle).collect::<Vec<_>>())?;
        let points: Vec<_> = objects.iter().zip(points).map(|(object, (_, point))| (object, *point)).collect();
        let wait = if flags.all || points.is_empty() { SyncobjWait::all_of } else { SyncobjWait::any_of };
        Ok(wait(&points, flags.until)?)
    }

    /// Waits, at most `timeout` of virtual time; which one ended it, if it was for any.
    pub fn wait(&self, points: &[(u32, u64)], flags: Flags, timeout: Duration) -> Result<Option<usize>, Errno> {
        let wait = self.begin_wait(points, flags)?;
        self.go_on_waiting(&wait, timeout)
    }

    pub fn go_on_waiting(&self, wait: &SyncobjWait, timeout: Duration) -> Result<Option<usize>, Errno> {
        let deadline = self.executor.now().after(timeout);
        match self.executor.wait_user(wait.as_user_fence(), timeout) {
            Ok(()) => Ok(wait.first()),
            // Nothing else would happen before the time is over.
            Err(WaitError::Stuck) if deadline != Time::NEVER => {
                self.executor.advance_to(deadline);
                Err(ETime)
            }
            Err(WaitError::TimedOut) => {
                assert!(self.executor.now() >= deadline, "before its time");
                Err(ETime)
            }
            Err(other) => panic!("{other}"),
        }
    }

    /// As upstream's tests expect it, for no time, a short one, and for ever, if that ends.
    pub fn expect_wait(&self, points: &[(u32, u64)], flags: Flags, expect: Result<(), Errno>) {
        for timeout in [POLL, SHORT, FOREVER] {
            if timeout != FOREVER || expect != Err(ETime) {
                assert_eq!(self.wait(points, flags, timeout).map(drop), expect, "for {timeout:?}");
            }
        }
    }
}

/// What the name of a case says of it: `{invalid-,etime-}single-wait{-all}{-for-submit}{-available}{-unsubmitted}...`
#[derive(Debug)]
pub struct Named {
    pub flags: Flags,
    /// What is done with the objects, one after the other; the last for all that are left.
    pub stages: Vec<Stage>,
    /// What it expects, if that is said.
    pub expect: Option<Errno>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Unsubmitted,
    Submitted,
    Signaled,
}

/// Reads a case's name, in upstream's spelling but for the dashes.
pub fn named(name: &str) -> Named {
    let expect = match name {
        name if name.starts_with("invalid_") => Some(Inval),
        name if name.starts_with("etime_") => Some(ETime),
        _ => None,
    };
    let rest = name.split_once("_wait").unwrap().1;
    let has = |word: &str| rest.contains(word);
    let until = match (has("_available"), has("_for_submit")) {
        (true, _) => Until::Submitted,
        (false, true) => Until::SubmittedAndSignaled,
        (false, false) => Until::Signaled,
    };
    let stages =
        [("_unsubmitted", Stage::Unsubmitted), ("_submitted", Stage::Submitted), ("_signaled", Stage::Signaled)];
    let stages = stages.into_iter().filter(|(word, _)| has(word)).map(|(_, stage)| stage).collect();
    Named { flags: Flags { all: has("_all"), until }, stages, expect }
}

impl Named {
    /// What the kernel's interface says must come of it.
    pub fn outcome(&self) -> Result<(), Errno> {
        let is = |stage| self.stages.contains(&stage);
        let done = |stage: &Stage| match stage {
            Stage::Unsubmitted => false,
            Stage::Submitted => self.flags.until == Until::Submitted,
            Stage::Signaled => true,
        };
        if is(Stage::Unsubmitted) && self.flags.until == Until::Signaled {
            return Err(Inval);
        }
        let done = if self.flags.all { self.stages.iter().all(done) } else { self.stages.iter().any(done) };
        if done { Ok(()) } else { Err(ETime) }
    }
}

/// Runs a single-wait or multi-wait case over `points`.
pub fn run_named(name: &str, points: &[u64], says_etime: bool) {
    let case = named(name);
    let expect = case.outcome();
    let said = expect.err().filter(|errno| *errno == Inval || says_etime);
    assert_eq!(case.expect, said, "the name says what comes of it");
    let client = Client::new();
    let stage = |index: usize| case.stages[index.min(case.stages.len() - 1)];
    let timelines: Vec<_> = (0..points.len()).map(|_| SwTimeline::new(&client.executor)).collect();
    let mut asked = Vec::new();
    for (index, point) in points.iter().enumerate() {
        let handle = client.create();
        if stage(index) != Stage::Unsubmitted {
            client.attach(handle, *point, &timelines[index].fence(1));
        }
        if stage(index) == Stage::Signaled {
            timelines[index].inc(1);
        }
        asked.push((handle, *point));
    }
    client.expect_wait(&asked, case.flags, expect);
}

/// A test for each name, which says what it does.
#[macro_export]
macro_rules! named_cases {
    ($points:expr, $says_etime:literal: $($name:ident)*) => {
        $(#[test] fn $name() { $crate::drm::run_named(stringify!($name), &$points, $says_etime); })*
    };
}
