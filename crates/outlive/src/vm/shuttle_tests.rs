//! Address spaces with threads, explored by shuttle: VM, buffers, pairs, changes and jobs die in every order on threads of their
//! own, while the executor's three lanes run. Each schedule ends with everything gone, every thread ended and no memory left.

use super::model_gpu::{Gpu, World, change, map, open};
use super::{Bo, Flushed, Request, VmLocks};
use crate::resv::{Plain, Reservation, Transaction, Usage};
use crate::sync::model;
use crate::{Completion, Executor, JobFences, JobQueue, QueueConfig};
use core::time::Duration;
use shuttle::sync::Mutex;
use shuttle::thread;
use std::boxed::Box;
use std::vec::Vec;

pub(super) fn explore(name: &str, body: fn()) {
    model::explore(name, 1000, body);
    model::explore_by_priority(name, 3, 300, body);
}

std::thread_local! {
    /// What the hardware of the execution that runs on this thread of the system has.
    static HELD: std::cell::RefCell<Vec<Completion>> = const { std::cell::RefCell::new(Vec::new()) };
}

pub(super) fn world() -> World {
    HELD.with_borrow_mut(Vec::clear);
    World::on(Executor::builder().threads().unwrap(), |done| HELD.with_borrow_mut(|held| held.push(done)))
}

/// The hardware: ends `jobs` jobs as they come.
fn hardware(jobs: usize) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        for _ in 0..jobs {
            let done = loop {
                match HELD.with_borrow_mut(Vec::pop) {
                    Some(done) => break done,
                    None => thread::yield_now(),
                }
            };
            done.complete(Ok(()));
        }
    })
}

fn job(queue: &JobQueue<Gpu>, cargo: impl Send + 'static) -> JobFences {
    let cargo: Box<dyn Send> = Box::new(cargo);
    queue.reserve(cargo).unwrap().commit()
}

/// Waits until the address space and the device are gone.
fn end(world: World, queue: JobQueue<Gpu>, gone: &crate::Drained) {
    drop(queue);
    end_all(world, gone);
}

/// The same, where there is no queue.
pub(super) fn end_all(world: World, gone: &crate::Drained) {
    gone.wait(Duration::MAX).unwrap();
    world.all_gone();
    let World { executor, device, .. } = world;
    let device_gone = device.drained();
    drop((device, executor));
    device_gone.wait(Duration::MAX).unwrap();
}

/// VM, pair, buffer, plan and job, each dropped by a thread of its own.
#[test]
fn shuttle_vm_pair_buffer_plan_and_job_die_in_every_order() {
    explore("vm pair buffer plan and job die in every order", || {
        let world = world();
        let queue = world.device.queue(QueueConfig::new("q"), ()).unwrap();
        let vm = world.vm();
        let gone = vm.drained();
        let buffer = world.bo();
        let pair = world.open(&vm, &buffer);
        let in_use = vm.in_use().unwrap();
        let (editor, named) = (vm.clone(), pair.clone());
        let planner = thread::spawn(move || {
            let mut edit = editor.edit().unwrap();
            drop(editor);
            let request = map(&named, 1);
            drop(named);
            // The plan is dropped; or committed, whatever has been closed meanwhile.
            match edit.plan(core::slice::from_ref(&request)) {
                Ok(plan) if shuttle::rand::RngCore::next_u32(&mut shuttle::rand::thread_rng()) % 2 == 0 => drop(plan),
                Ok(plan) => {
                    let open = plan.bos().unwrap().first().and_then(|bo| plan.bo(*bo)).unwrap();
                    open.bo().entered();
                    drop(plan.commit().flushed(Flushed::by_driver()));
                }
                Err(_) => {}
            }
        });
        let hardware = hardware(1);
        let threads = [
            planner,
            thread::spawn(move || drop(vm)),
            thread::spawn(move || drop(pair)),
            thread::spawn(move || drop(buffer)),
        ];
        drop(job(&queue, in_use));
        for thread in threads {
            thread.join().unwrap();
        }
        hardware.join().unwrap();
        end(world, queue, &gone);
    });
}

/// The last handles, in a callback and in another job's payload, while a change takes mappings out.
#[test]
fn shuttle_last_handles_on_the_executors_own_lanes() {
    explore("last handles on the executors own lanes", || {
        let world = world();
        let queue = world.device.queue(QueueConfig::new("q").credits(2), ()).unwrap();
        let (vm, pair) = world.mapped(2);
        let gone = vm.drained();
        let first = job(&queue, (vm.in_use().unwrap(), pair));
        let second = job(&queue, ());
        let editor = vm.clone();
        if let Err(crate::Refused::AlreadySignaled(late)) =
            second.finished().on_signaled(move |_| drop(vm)).map(crate::Registration::keep)
        {
            late(Ok(()));
        }
        let unmap = thread::spawn(move || {
            let mut edit = editor.edit().unwrap();
            let unmaps = [Request::Unmap { va: 0, len: super::model_gpu::PAGE }];
            let Ok(plan) = edit.plan(&unmaps) else { return };
            let open = plan.bos().unwrap().first().and_then(|bo| plan.bo(*bo)).map(|open| open.bo().clone());
            let binding = plan.commit();
            drop(edit);
            // The page tables follow behind the turn's back.
            if let Some(bo) = open {
                thread::yield_now();
                bo.left();
            }
            drop(binding.flushed(Flushed::by_driver()));
        });
        let hardware = hardware(2);
        unmap.join().unwrap();
        hardware.join().unwrap();
        drop((first, second));
        end(world, queue, &gone);
    });
}

/// Two threads change one address space while its buffers are closed and opened, then all goes.
#[test]
fn shuttle_changes_against_opens_and_closes() {
    explore("changes against opens and closes", || {
        let world = world();
        let queue = world.device.queue(QueueConfig::new("q"), ()).unwrap();
        let vm = world.vm();
        let gone = vm.drained();
        let buffer = world.bo();
        let threads: Vec<_> = (0..3_u64)
            .map(|number| {
                let (vm, buffer, books) = (vm.clone(), buffer.clone(), world.books.clone());
                thread::spawn(move || {
                    let bo = open(&books, &vm, &buffer);
                    let mut edit = vm.edit().unwrap();
                    change(&mut edit, &bo, &[map(&bo, number)]);
                    drop(edit);
                    if number == 0 {
                        drop(bo.close());
                    }
                })
            })
            .collect();
        drop((vm, buffer));
        for thread in threads {
            thread.join().unwrap();
        }
        end(world, queue, &gone);
    });
}

/// Who has the turn waits for a job while others wait for the turn and the reaper clears.
#[test]
fn shuttle_whoever_has_the_turn_may_wait_for_fences() {
    explore("whoever has the turn may wait for fences", || {
        let world = world();
        let queue = world.device.queue(QueueConfig::new("q"), ()).unwrap();
        let (vm, pair) = world.mapped(1);
        let gone = vm.drained();
        let fences = job(&queue, vm.in_use().unwrap());
        let taken = std::sync::Arc::new(Mutex::new(0));
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let (vm, fences, taken) = (vm.clone(), fences.clone(), taken.clone());
                thread::spawn(move || {
                    let edit = vm.edit().unwrap();
                    fences.retired().wait(Duration::MAX).unwrap();
                    *taken.lock().unwrap() += 1;
                    drop(edit);
                })
            })
            .collect();
        drop((vm, pair));
        let hardware = hardware(1);
        for thread in threads {
            thread.join().unwrap();
        }
        hardware.join().unwrap();
        assert_eq!(*taken.lock().unwrap(), 2);
        end(world, queue, &gone);
    });
}

/// An external buffer is opened while somebody has all locked, to publish a job: it is there before, or comes after; the
/// job's fence is on all that were there.
#[test]
fn shuttle_an_external_buffer_is_not_missed_by_who_locks_all() {
    explore("an external buffer is not missed by who locks all", || {
        let world = world();
        let queue = world.device.queue(QueueConfig::new("q").credits(2), ()).unwrap();
        let vm = world.vm();
        let gone = vm.drained();
        let kept = world.open(&vm, &world.bo());
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let (vm, buffer, books) = (vm.clone(), world.bo(), world.books.clone());
                thread::spawn(move || {
                    let open = open(&books, &vm, &buffer);
                    thread::yield_now();
                    drop(open);
                })
            })
            .collect();
        let hardware = hardware(2);
        for _ in 0..2 {
            let fences = Transaction::new().run::<(VmLocks<'_, Gpu>, Plain<usize>), _>(
                |attempt| {
                    let locks = vm.lock_all(attempt)?;
                    let count = locks.external();
                    Ok((locks, Plain(count)))
                },
                |sealed, (locks, Plain(count))| {
                    thread::yield_now();
                    let fences = job(&queue, vm.in_use().unwrap());
                    thread::yield_now();
                    // Some may have left meanwhile.
                    assert!(vm.status().external <= count, "one came in between");
                    locks.add(sealed, Usage::Bookkeep, Usage::Write, &fences.retired());
                    fences
                },
            );
            let fences = fences.unwrap();
            let hangs = |on: &Reservation| {
                let now = on.snapshot(Usage::Bookkeep).unwrap();
                fences.retired().is_signaled() || now.iter().any(|(_, fence)| *fence == fences.retired())
            };
            assert!(hangs(vm.reservation()) && hangs(kept.bo().core().reservation()));
        }
        for thread in threads {
            thread.join().unwrap();
        }
        hardware.join().unwrap();
        drop((vm, kept));
        end(world, queue, &gone);
    });
}

/// Two take the entries of one buffer out of every address space that it is open in, by one turn at a time, while it is
/// opened in a third one, closed in the second, and the first address space goes.
#[test]
fn shuttle_a_buffer_leaves_several_address_spaces() {
    explore("a buffer leaves several address spaces", || {
        let world = world();
        let queue = world.device.queue(QueueConfig::new("q"), ()).unwrap();
        let vms: Vec<_> = (0..3).map(|_| world.vm()).collect();
        let gone: Vec<_> = vms.iter().map(crate::vm::Vm::drained).collect();
        let buffer = world.bo();
        let pairs: Vec<_> = vms[..2].iter().map(|vm| world.open(vm, &buffer)).collect();
        for (vm, pair) in vms.iter().zip(&pairs) {
            change(&mut vm.edit().unwrap(), pair, &[map(pair, 1)]);
        }
        let mut threads: Vec<_> = (0..2)
            .map(|_| {
                let (device, buffer) = (world.device.clone(), buffer.clone());
                thread::spawn(move || {
                    for open in super::VmBo::all(&device, &buffer).unwrap() {
                        let mut edit = open.edit().unwrap();
                        let mapped = edit.of_bo(open.id()).count();
                        let unmap = [Request::Unmap { va: super::model_gpu::PAGE, len: super::model_gpu::PAGE }];
                        // A closed address space takes no requests, and is cleared by the reaper.
                        let Ok(plan) = edit.plan(&unmap) else { continue };
                        let binding = plan.commit();
                        (0..mapped).for_each(|_| buffer.left());
                        drop(binding.flushed(Flushed::by_driver()));
                    }
                })
            })
            .collect();
        let (opener, books, bo) = (vms[2].clone(), world.books.clone(), buffer.clone());
        threads.push(thread::spawn(move || drop(open(&books, &opener, &bo))));
        drop(buffer);
        let mut pairs = pairs.into_iter();
        let (kept, closed) = (pairs.next(), pairs.next());
        drop((closed, vms));
        for thread in threads {
            thread.join().unwrap();
        }
        drop(kept);
        let (last, others) = gone.split_last().unwrap();
        for gone in others {
            gone.wait(Duration::MAX).unwrap();
        }
        end(world, queue, last);
    });
}

/// Somebody edits without a pause while a buffer is to be cleared: once the reaper is in line, the next turn is its own.
#[test]
fn shuttle_constant_editing_does_not_hold_the_reaper_up() {
    /// How often it was in line.
    static IN_LINE: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);

    explore("constant editing does not hold the reaper up", || {
        let world = world();
        let queue = world.device.queue(QueueConfig::new("q"), ()).unwrap();
        let (vm, pair) = world.mapped(1);
        let gone = vm.drained();
        let buffer = pair.bo().clone();
        drop(pair);
        // Mapped, cleared, freed.
        let stage = || usize::from(buffer.is_clear()) + usize::from(buffer.is_clear() && vm.status().to_clear == 0);
        let mut edit = vm.edit().unwrap();
        for _ in 0..6 {
            thread::yield_now();
            let (before, in_line) = (stage(), vm.inner().state.lock().turn.has_line());
            drop(edit);
            edit = vm.edit().unwrap();
            if in_line && before < 2 {
                IN_LINE.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                assert!(stage() > before, "the editor was first again");
            }
        }
        drop(edit);
        drop((vm, buffer));
        end(world, queue, &gone);
    });
    assert!(IN_LINE.load(std::sync::atomic::Ordering::Relaxed) > 0, "the reaper was never in line");
}
