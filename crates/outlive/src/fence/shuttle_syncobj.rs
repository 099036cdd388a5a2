//! Sync objects under shuttle: threads submit, signal, replace, reset and drop handles of a few objects, while others wait for any and
//! all of their points, ask and give up. Whatever happened: waits for what was submitted have ended once everything was
//! signaled and nobody can submit any more, a query does not go back, and no memory is left.

use crate::fence::{Fence, FenceContext, Names, Signaler, Status, Syncobj, SyncobjWait, Until};
use crate::sync::model::{clock, explore, explore_by_priority};
use crate::{Executor, FenceError};
use shuttle::rand::{Rng, thread_rng};
use shuttle::thread;
use std::sync::Arc;
use std::vec::Vec;

const NAMES: Names<'_> = Names { driver: "shuttle", timeline: "syncobj" };
const OBJECTS: usize = 3;
const UNTIL: [Until; 3] = [Until::Signaled, Until::SubmittedAndSignaled, Until::Submitted];

fn pick(below: usize) -> usize {
    thread_rng().gen_range(0..below)
}

fn number(below: u64) -> u64 {
    thread_rng().gen_range(0..below)
}

fn bare(executor: &Executor) -> (Signaler, Fence) {
    FenceContext::new(executor, NAMES).unwrap().allocate().unwrap().publish()
}

/// Submits and signals at random; what it leaves pending signals when it goes.
fn submitter(executor: &Executor, objects: &[Syncobj]) {
    let mut signalers = Vec::new();
    for _ in 0..6 {
        let object = &objects[pick(OBJECTS)];
        let (signaler, fence) = bare(executor);
        match pick(6) {
            0 => object.submit(number(4), &fence).unwrap(),
            1 => drop(object.reserve_point().unwrap().submit(number(4) + 1, &fence)),
            2 => object.signal(number(4)).unwrap(),
            3 => object.reset(),
            4 => drop(object.transfer(number(4), &objects[pick(OBJECTS)], number(4))),
            _ => Syncobj::signal_all(&[(&objects[0], number(3)), (&objects[1], number(3))]).unwrap(),
        }
        signalers.push(signaler);
        if pick(2) == 0 {
            let at = pick(signalers.len());
            signalers.swap_remove(at).signal(Ok(()));
        }
    }
}

/// Waits at random for several points, keeps some of the waits, and gives those back.
fn waiter(objects: &[Syncobj]) -> Vec<SyncobjWait> {
    let mut waits = Vec::new();
    for _ in 0..5 {
        let points: Vec<_> = (0..=pick(3)).map(|_| (&objects[pick(OBJECTS)], number(4))).collect();
        let until = UNTIL[pick(3)];
        let wait = if pick(2) == 0 { SyncobjWait::all_of(&points, until) } else { SyncobjWait::any_of(&points, until) };
        if let Ok(wait) = wait.as_ref().map(Clone::clone) {
            match wait.as_user_fence().on_signaled(|_| {}) {
                Ok(registration) if pick(2) == 0 => registration.keep(),
                Ok(registration) => drop(registration.detach()),
                Err(_) => {}
            }
            waits.push(wait);
        }
        drop(wait);
        if pick(3) == 0 && !waits.is_empty() {
            let at = pick(waits.len());
            drop(waits.swap_remove(at));
        }
        let progress = objects[pick(OBJECTS)].query();
        assert!(progress.signaled <= progress.submitted);
    }
    waits
}

fn world() -> (Executor, Arc<[Syncobj; OBJECTS]>) {
    let executor = Executor::builder().clock(clock).manual().unwrap();
    let objects = [(); OBJECTS].map(|()| Syncobj::new(&executor, "shuttle").unwrap());
    (executor, Arc::new(objects))
}

fn storm() {
    let (executor, objects) = world();
    let submitters = [(); 2].map(|()| {
        let (executor, objects) = (executor.clone(), objects.clone());
        thread::spawn(move || submitter(&executor, &*objects))
    });
    let waiters = [(); 2].map(|()| {
        let objects = objects.clone();
        thread::spawn(move || waiter(&*objects))
    });
    drop(objects);
    submitters.into_iter().for_each(|thread| thread.join().unwrap());
    // All handles go before anything is looked at.
    let waits: Vec<_> = waiters.into_iter().map(|thread| thread.join().unwrap()).collect();
    for wait in waits.into_iter().flatten() {
        let Status::Signaled(result) = wait.as_user_fence().status() else { panic!("a wait was forgotten") };
        assert!(matches!(result, Ok(()) | Err(FenceError::Canceled)));
    }
    executor.run_until_idle();
    assert_eq!(executor.live_objects(), 0, "an object was never freed");
}

#[test]
fn shuttle_syncobj_storm() {
    explore("sync objects: a storm", 3000, storm);
    explore_by_priority("sync objects: a storm", 3, 1000, storm);
}

/// Points are added by two threads and signaled by a third; a fourth asks. Nobody resets.
fn monotone() {
    let (executor, objects) = world();
    let mut signalers = Vec::new();
    let adders = [0, 1].map(|odd| {
        let (objects, pairs) = (objects.clone(), [(); 3].map(|()| bare(&executor)));
        let fences = pairs.map(|(signaler, fence)| {
            signalers.push(signaler);
            fence
        });
        thread::spawn(move || {
            for (index, fence) in (1_u64..).zip(&fences) {
                objects[0].submit(index * 2 + odd, fence).unwrap();
            }
        })
    });
    let asked = objects.clone();
    let asks = thread::spawn(move || {
        let mut last = asked[0].query();
        for _ in 0..8 {
            let now = asked[0].query();
            assert!(now.signaled >= last.signaled && now.submitted >= last.submitted && now.signaled <= now.submitted);
            last = now;
        }
    });
    let wait = SyncobjWait::all_of(&[(&objects[0], 7)], Until::SubmittedAndSignaled).unwrap();
    signalers.into_iter().for_each(|signaler| signaler.signal(Ok(())));
    adders.into_iter().chain([asks]).for_each(|thread| thread.join().unwrap());
    assert_eq!((objects[0].query().signaled, wait.as_user_fence().status()), (7, Status::Signaled(Ok(()))));
    drop((wait, objects));
    executor.run_until_idle();
    assert_eq!(executor.live_objects(), 0, "an object was never freed");
}

#[test]
fn shuttle_syncobj_queries_do_not_go_back() {
    explore("sync objects: queries do not go back", 3000, monotone);
    explore_by_priority("sync objects: queries do not go back", 3, 1000, monotone);
}
