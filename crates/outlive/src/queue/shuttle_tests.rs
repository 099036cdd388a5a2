//! The threaded library under shuttle: everything may be dropped, closed, lost, reset and cancelled while it works.
//!
//! Each test lets several actors do random things from its own menu, on two queues of one device, while a thread plays
//! the hardware and time passes (a little at each look at the clock), so that time-outs, drains and watchdogs race with the
//! rest. Whatever happened: all fences have signaled, every payload was dropped, the driver was dropped last, every
//! thread has ended, no memory is left, and none was written to after it was freed.
//!
//! A failure prints its schedule; `SHUTTLE_RANDOM_SEED` and `SHUTTLE_TIMES` choose other and more orders.

mod acts;
mod hardware;
mod world;

use crate::Executor;
use crate::sync::model::{clock, explore, explore_by_priority};
use acts::{Act, DEPTH, Turn};
use shuttle::rand::{Rng, thread_rng};
use shuttle::sync::{Mutex, MutexGuard};
use shuttle::thread;
use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::vec::Vec;
use world::World;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn pick(below: usize) -> usize {
    thread_rng().gen_range(0..below)
}

/// Nothing that could take another lock is done while one of these is held, nor a handle dropped.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn take_any<T>(from: &Mutex<Vec<T>>) -> Option<T> {
    let mut from = locked(from);
    if from.is_empty() {
        return None;
    }
    let at = pick(from.len());
    Some(from.swap_remove(at))
}

fn clone_any<T: Clone>(from: &Mutex<Vec<T>>) -> Option<T> {
    let from = locked(from);
    if from.is_empty() { None } else { Some(from[pick(from.len())].clone()) }
}

/// How often the hardware looks before a test is given up.
const PATIENCE: usize = 10_000;

/// Three actors at `menu`, the hardware, and the end of it all.
fn play(world: &Arc<World>, menu: &'static [Act], count: usize) {
    let turn = Turn { menu, depth: DEPTH };
    let hardware = world.hardware.clone();
    let machine = {
        let world = world.clone();
        thread::spawn(move || {
            for turn in 0.. {
                if world.hardware.off.load(Ordering::SeqCst) {
                    break;
                }
                world.hardware.work();
                if world.hardware.ended.load(Ordering::SeqCst) {
                    world.sweep();
                }
                thread::yield_now();
                if turn == PATIENCE {
                    let jobs = locked(&world.jobs).clone();
                    let dones = locked(&world.dones).clone();
                    panic!("no end in sight: {jobs:?} {dones:?}, {} handles", locked(&world.handles).len());
                }
            }
        })
    };
    let actors: Vec<_> = (0..2)
        .map(|_| {
            let world = world.clone();
            thread::spawn(move || {
                for _ in 0..count {
                    acts::any(&world, turn);
                }
            })
        })
        .collect();
    for _ in 0..count {
        acts::any(world, turn);
    }
    for actor in actors {
        actor.join().unwrap();
    }
    let arbiter = world.clone().end();
    hardware.ended.store(true, Ordering::SeqCst);
    // The executor's threads end once everything has; the machine goes on until then.
    crate::sync::join_spawned();
    if let Some(status) = arbiter.map(|arbiter| arbiter.status()) {
        assert_eq!((status.credits_free, status.ready), (world::CREDITS, 0), "all have gone");
    }
    hardware.off.store(true, Ordering::SeqCst);
    machine.join().unwrap();
    let tokens = core::mem::take(&mut *locked(&hardware.tokens));
    let held = core::mem::take(&mut *locked(&hardware.held));
    let resources = core::mem::take(&mut *locked(&hardware.resources));
    drop((tokens, held, resources));
    crate::sync::join_spawned();
    assert_eq!(hardware.dropped.load(Ordering::SeqCst), hardware.made.load(Ordering::SeqCst), "a payload was lost");
    assert_eq!(hardware.drivers.load(Ordering::SeqCst), 1, "the driver was not dropped");
    assert_eq!(hardware.taken.load(Ordering::SeqCst), 0, "what `acquire` took was not given back");
}

const TEARDOWN: &[Act] =
    &[acts::commit, acts::commit, acts::commit, acts::forget, acts::callback, acts::inline, acts::wait];

/// Every last handle, in every order and place: a callback, a payload's drop, a signal, a thread.
#[test]
fn shuttle_last_handles_anywhere() {
    explore("last handles anywhere", 2000, || play(&World::threads(), TEARDOWN, 5));
}

/// The same with rarer orders.
#[test]
fn shuttle_last_handles_anywhere_by_priority() {
    explore_by_priority("last handles anywhere", 3, 1000, || play(&World::threads(), TEARDOWN, 5));
}

/// Queues close while others submit to them, and close each other from callbacks and payloads.
#[test]
fn shuttle_close_against_commit() {
    const MENU: &[Act] = &[acts::commit, acts::commit, acts::commit, acts::close, acts::callback, acts::wait];
    explore("close against commit", 2000, || play(&World::threads(), MENU, 5));
}

/// The hardware completes while the device is reset and lost.
#[test]
fn shuttle_completion_against_reset_and_unplug() {
    const MENU: &[Act] =
        &[acts::commit, acts::commit, acts::commit, acts::commit, acts::reset, acts::reset, acts::unplug, acts::close];
    explore("completion against reset and unplug", 2000, || play(&World::threads(), MENU, 5));
}

/// Only resets: every queue goes on after them.
#[test]
fn shuttle_completion_against_reset() {
    const MENU: &[Act] = &[acts::commit, acts::commit, acts::commit, acts::reset, acts::wait];
    explore("completion against reset", 2000, || play(&World::threads(), MENU, 5));
}

/// Suspensions that end, last too long, or meet a close.
#[test]
fn shuttle_suspend_against_resume_against_close() {
    const MENU: &[Act] = &[
        acts::commit,
        acts::commit,
        acts::commit,
        acts::suspend,
        acts::resume,
        acts::close,
        acts::pause_clock,
        acts::wait,
    ];
    explore("suspend, resume, close", 2000, || play(&World::threads(), MENU, 6));
}

/// Jobs that wait for user fences, which are signaled, fail, are let go, are late; or the job is cancelled, or its queue closes.
#[test]
fn shuttle_commit_when() {
    const MENU: &[Act] = &[
        acts::commit_when,
        acts::commit_when,
        acts::commit_when,
        acts::commit,
        acts::signal_user,
        acts::signal_user,
        acts::cancel,
        acts::cancel,
        acts::close,
        acts::forget,
    ];
    explore("commit_when", 2000, || play(&World::threads(), MENU, 6));
}

/// Resources that heads wait for, with closes and resets.
#[test]
fn shuttle_resources() {
    const MENU: &[Act] =
        &[acts::commit, acts::commit, acts::commit, acts::resource, acts::reset, acts::close, acts::wait];
    explore("resources", 2000, || play(&World::threads(), MENU, 5));
}

/// Bare fences with producers that are late or gone, waits, futures and callbacks.
#[test]
fn shuttle_bare_fences() {
    const MENU: &[Act] =
        &[acts::bare, acts::bare, acts::commit, acts::callback, acts::future, acts::wait, acts::forget];
    explore("bare fences", 2000, || play(&World::threads(), MENU, 4));
}

const TURNS: &[Act] = &[
    acts::commit,
    acts::commit,
    acts::commit,
    acts::commit,
    acts::commit,
    acts::open,
    acts::claim,
    acts::close,
    acts::suspend,
    acts::resume,
    acts::reset,
    acts::drop_arbiter,
    acts::wait,
];

/// Many queues under one arbiter, which goes now and then: jobs behind each other's, queues opened and closed, shares changed.
#[test]
fn shuttle_turns() {
    explore("turns", 1500, || play(&World::turns(), TURNS, 6));
}

/// The same, in rarer orders.
#[test]
fn shuttle_turns_by_priority() {
    explore_by_priority("turns", 4, 1000, || play(&World::turns(), TURNS, 6));
}

const EVERYTHING: &[Act] = &[
    acts::commit,
    acts::commit,
    acts::commit,
    acts::commit,
    acts::commit,
    acts::commit_when,
    acts::commit_when,
    acts::cancel,
    acts::signal_user,
    acts::close,
    acts::suspend,
    acts::resume,
    acts::pause_clock,
    acts::unplug,
    acts::reset,
    acts::wait,
    acts::callback,
    acts::inline,
    acts::forget,
    acts::resource,
    acts::future,
    acts::bare,
];

/// Everything at once.
#[test]
fn shuttle_everything() {
    explore("everything", 2000, || play(&World::threads(), EVERYTHING, 7));
}

/// Everything at once, in rarer orders.
#[test]
fn shuttle_everything_by_priority() {
    explore_by_priority("everything", 4, 1000, || play(&World::threads(), EVERYTHING, 7));
}

/// A manual executor whose last handle goes with work left: threads take over.
#[test]
fn shuttle_abandoned_executor() {
    const MENU: &[Act] = &[acts::commit, acts::commit, acts::reset, acts::suspend, acts::future];
    explore("abandoned executor", 2000, || {
        let executor = Executor::builder().clock(clock).manual().unwrap();
        let world = World::new(executor.clone());
        for _ in 0..6 {
            // No callbacks: they would keep an executor that nobody drives.
            acts::any(&world, Turn { menu: MENU, depth: 0 });
        }
        if pick(2) == 0 {
            executor.step();
        }
        drop(executor);
        play(&world, &[acts::forget], 4);
    });
}
