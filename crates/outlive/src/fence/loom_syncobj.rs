//! Sync objects under loom, over the shipped types: what is submitted, replaced, reset and given up against waits. Memory as
//! in `loom_containers`.

use crate::fence::{Fence, FenceContext, FenceError, Names, Signaler, Status, Syncobj, SyncobjWait, Until};
use crate::sync::model::{Model, race, race3};
use crate::{Executor, Time};

const NAMES: Names<'_> = Names { driver: "loom", timeline: "syncobj" };

fn bare(executor: &Executor) -> (Signaler, Fence) {
    FenceContext::new(executor, NAMES).unwrap().allocate().unwrap().publish()
}

fn later(object: &Syncobj, point: u64) -> SyncobjWait {
    SyncobjWait::all_of(&[(object, point)], Until::SubmittedAndSignaled).unwrap()
}

fn status(wait: &SyncobjWait) -> Status {
    wait.as_user_fence().status()
}

fn end(executor: Executor) {
    executor.run_until_idle();
    assert_eq!(executor.live_objects(), 0, "an object was never freed");
}

/// A wait begins while a payload is submitted and replaced by another: it has the first or the second, or was too early and is
/// given the first. Never nothing.
#[test]
fn loom_syncobj_replace_against_wait() {
    Model::new("sync object: replace against wait").check(|| {
        let executor = Executor::manual().unwrap();
        let object = Syncobj::new(&executor, "loom").unwrap();
        let ((one, first), (two, second)) = (bare(&executor), bare(&executor));
        one.signal(Err(FenceError::TimedOut));
        let (replaces, fences) = (object.clone(), [first, second]);
        let mut wait = None;
        race(
            move || fences.iter().for_each(|fence| replaces.replace(fence).unwrap()),
            || wait = Some(later(&object, 0)),
        );
        let wait = wait.unwrap();
        assert!(matches!(status(&wait), Status::Pending | Status::Signaled(Err(FenceError::TimedOut))));
        two.signal(Ok(()));
        assert!(wait.as_user_fence().is_signaled(), "it missed what was submitted");
        drop((wait, object));
        end(executor);
    });
}

/// As above for points of a timeline, and with a reset in place of the second: a wait that was there keeps what it was
/// given, one that came after the reset has nothing.
#[test]
fn loom_syncobj_point_and_reset_against_wait() {
    Model::new("sync object: point and reset against wait").check(|| {
        let executor = Executor::manual().unwrap();
        let object = Syncobj::new(&executor, "loom").unwrap();
        let (signaler, fence) = bare(&executor);
        let (submits, early) = (object.clone(), later(&object, 1));
        let mut wait = None;
        race(
            move || {
                submits.submit(1, &fence).unwrap();
                submits.reset();
            },
            || wait = Some(later(&object, 1)),
        );
        signaler.signal(Ok(()));
        assert_eq!(status(&early), Status::Signaled(Ok(())), "a later reset took away what it had found");
        drop((wait, early, object));
        end(executor);
    });
}

/// What a wait waits for is submitted and signals while somebody begins to wait for the wait.
#[test]
fn loom_syncobj_submit_and_signal_against_registration() {
    Model::new("sync object: submit and signal against registration").check(|| {
        let executor = Executor::manual().unwrap();
        let object = Syncobj::new(&executor, "loom").unwrap();
        let (signaler, fence) = bare(&executor);
        let wait = later(&object, 0);
        race(
            move || {
                object.replace(&fence).unwrap();
                signaler.signal_at(Ok(()), Time::from_ns(3));
            },
            || drop(wait.as_user_fence().on_signaled(|result| assert_eq!(result, Ok(())))),
        );
        assert_eq!(status(&wait), Status::Signaled(Ok(())));
        drop(wait);
        end(executor);
    });
}

/// A wait goes while it is given something that signals.
#[test]
fn loom_syncobj_wait_drop_against_submit() {
    Model::new("sync object: a wait's drop against submit").check(|| {
        let executor = Executor::manual().unwrap();
        let object = Syncobj::new(&executor, "loom").unwrap();
        let (signaler, fence) = bare(&executor);
        let wait = later(&object, 0);
        race(
            move || drop(wait),
            || {
                object.replace(&fence).unwrap();
                signaler.signal(Ok(()));
            },
        );
        drop((object, fence));
        end(executor);
    });
}

/// Two objects get what a wait for both, or for any, waits for; the handles go with it.
#[test]
fn loom_syncobj_two_submissions_against_each_other() {
    for all in [true, false] {
        Model::new("sync object: two submissions, all and any").check(move || {
            let executor = Executor::manual().unwrap();
            let objects = [(); 2].map(|()| Syncobj::new(&executor, "loom").unwrap());
            let ((one, first), (two, second)) = (bare(&executor), bare(&executor));
            one.signal(Ok(()));
            two.signal(Ok(()));
            let asked = objects.each_ref().map(|object| (object, 0));
            let until = Until::SubmittedAndSignaled;
            let wait =
                if all { SyncobjWait::all_of(&asked, until) } else { SyncobjWait::any_of(&asked, until) }.unwrap();
            let [left, right] = objects;
            race(move || left.replace(&first).unwrap(), || right.replace(&second).unwrap());
            assert_eq!((status(&wait), wait.first().is_some()), (Status::Signaled(Ok(())), !all));
            drop((wait, right, second));
            end(executor);
        });
    }
}

/// The last two handles go while a wait for it begins: it ends, for nobody is left who could submit.
#[test]
fn loom_syncobj_last_handles_against_wait() {
    Model::new("sync object: last handles against wait").check(|| {
        let executor = Executor::manual().unwrap();
        let object = Syncobj::new(&executor, "loom").unwrap();
        let (other, third) = (object.clone(), object.clone());
        let mut wait = None;
        race3(
            move || drop(other),
            move || drop(third),
            || {
                wait = Some(later(&object, 0));
                drop(object);
            },
        );
        assert_eq!(status(&wait.unwrap()), Status::Signaled(Err(FenceError::Canceled)));
        end(executor);
    });
}
