//! Bind jobs with threads, explored by shuttle: running, closing, looking, opening and the last handles meet in every order, while
//! the executor's three lanes run. Each schedule ends with everything gone.

use super::model_gpu::{Gpu, PAGE, Token, World, map};
use super::shuttle_tests::{end_all, explore, world};
use super::{Bind, Immediate, Request, Vm, VmBo};
use crate::{Completion, Device, Driver, JobCx, JobFences, JobQueue, QueueConfig};
use core::time::Duration;
use shuttle::sync::Mutex;
use shuttle::thread;
use std::sync::Arc;
use std::vec::Vec;

/// The bind queue's device.
struct Binder;

impl Driver for Binder {
    type Job = Option<Bind<Gpu>>;
    type Queue = ();

    fn run(&self, cx: &mut JobCx<'_, Self>, done: Completion) {
        match cx.job.take() {
            Some(bind) => bind.run(done),
            None => done.complete(Ok(())),
        }
    }
}

type Queue = Arc<JobQueue<Binder>>;

fn binder(world: &World) -> Queue {
    let config = QueueConfig::new("bind").credits(2);
    Arc::new(Device::new(&world.executor, Binder).unwrap().queue(config, ()).unwrap())
}

fn opened(world: &World) -> (Vm<Gpu, Immediate>, VmBo<Gpu>) {
    let vm = world.vm_in_moments();
    let pair = vm.open(&world.bo(), || Token::new(&world.books, 2)).unwrap();
    (vm, pair)
}

/// Accepts a batch and submits it; none if the address space was closed meanwhile.
fn bind(queue: &Queue, vm: &Vm<Gpu, Immediate>, request: Request<Token>) -> Option<JobFences> {
    let mut reserved = queue.reserve(None).unwrap();
    *reserved = Some(vm.prepare(&[request]).ok()?.accept(()));
    Some(reserved.commit())
}

/// Waits until the address space and both devices are gone.
fn end(world: World, queue: Queue, gone: &crate::Drained) {
    let binder_gone = queue.device().drained();
    drop(queue);
    end_all(world, gone);
    binder_gone.wait(Duration::MAX).unwrap();
}

/// Two bind jobs, a look, a close of the buffer and of the address space, each by a thread of its own.
#[test]
fn shuttle_bind_jobs_against_looks_and_closes() {
    explore("bind jobs against looks and closes", || {
        let world = world();
        let queue = binder(&world);
        let (vm, pair) = opened(&world);
        let gone = vm.drained();
        let request = map(&pair, 1);
        let (one, other, looker) = (vm.clone(), vm.clone(), vm.clone());
        let (first, second) = (queue.clone(), queue.clone());
        let threads = [
            thread::spawn(move || {
                if let Some(job) = bind(&first, &one, request) {
                    drop(one);
                    let _ = job.retired().wait(Duration::MAX);
                }
            }),
            thread::spawn(move || {
                let _ = bind(&second, &other, Request::Unmap { va: 0, len: 4 * PAGE });
            }),
            thread::spawn(move || {
                let look = looker.look().unwrap();
                drop(looker);
                let before = look.len();
                thread::yield_now();
                assert_eq!(look.len(), before);
                drop(look);
            }),
            thread::spawn(move || drop(vm)),
            thread::spawn(move || drop(pair)),
        ];
        for thread in threads {
            thread.join().unwrap();
        }
        end(world, queue, &gone);
    });
}

/// Whoever has the turn, in a driver's code, waits for a bind job of that very address space, while the reaper clears and another
/// waits for the turn.
#[test]
fn shuttle_whoever_has_the_turn_may_wait_for_a_bind_job() {
    explore("whoever has the turn may wait for a bind job", || {
        let world = world();
        let queue = binder(&world);
        let (vm, pair) = opened(&world);
        let gone = vm.drained();
        let prepared = vm.prepare(&[map(&pair, 1)]).unwrap();
        let job: Arc<Mutex<Option<JobFences>>> = Arc::default();
        let openers: Vec<_> = (0..2)
            .map(|_| {
                let (vm, job, buffer, books) = (vm.clone(), job.clone(), world.bo(), world.books.clone());
                thread::spawn(move || {
                    let opened = vm.open(&buffer, || {
                        let job = loop {
                            if let Some(job) = job.lock().unwrap().clone() {
                                break job;
                            }
                            thread::yield_now();
                        };
                        job.finished().wait(Duration::MAX).unwrap();
                        Token::new(&books, 2)
                    });
                    drop(opened.unwrap());
                })
            })
            .collect();
        let submitter = thread::spawn({
            let queue = queue.clone();
            move || {
                let mut reserved = queue.reserve(None).unwrap();
                *reserved = Some(prepared.accept(()));
                let fences = reserved.commit();
                *job.lock().unwrap() = Some(fences);
            }
        });
        for thread in openers {
            thread.join().unwrap();
        }
        submitter.join().unwrap();
        drop((vm, pair));
        end(world, queue, &gone);
    });
}

/// Bind jobs of three threads for one address space: all are carried out, none twice, whoever has the space.
#[test]
fn shuttle_every_bind_job_that_begins_ends() {
    explore("every bind job that begins ends", || {
        let world = world();
        let (vm, pair) = opened(&world);
        let gone = vm.drained();
        let queues: Vec<Queue> = (0..3).map(|_| binder(&world)).collect();
        let threads: Vec<_> = queues
            .iter()
            .zip(0_u64..)
            .map(|(queue, number)| {
                let (queue, vm, request) = (queue.clone(), vm.clone(), map(&pair, number));
                thread::spawn(move || {
                    let job = bind(&queue, &vm, request).unwrap();
                    job.finished().wait(Duration::MAX).unwrap();
                    let look = vm.look().unwrap();
                    assert!(look.find(number * PAGE).is_some(), "done, and not there");
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(vm.status().mappings, 3);
        drop((vm, pair));
        let all_gone: Vec<_> = queues.iter().map(|queue| queue.device().drained()).collect();
        drop(queues);
        end_all(world, &gone);
        for gone in all_gone {
            gone.wait(Duration::MAX).unwrap();
        }
    });
}

/// A buffer is opened while somebody who looks where it is open closes it there.
#[test]
fn shuttle_a_buffer_is_closed_while_it_is_opened() {
    explore("a buffer is closed while it is opened", || {
        let world = world();
        let queue = binder(&world);
        let vm = world.vm_in_moments();
        let gone = vm.drained();
        let buffer = world.bo();
        let closer = thread::spawn({
            let (device, buffer) = (world.device.clone(), buffer.clone());
            move || {
                for _ in 0..3 {
                    for pair in VmBo::all(&device, &buffer).unwrap() {
                        drop(pair.close());
                    }
                    thread::yield_now();
                }
            }
        });
        let looker = thread::spawn({
            let vm = vm.clone();
            move || drop(vm.look().unwrap())
        });
        let pair = vm.open(&buffer, || Token::new(&world.books, 2)).unwrap();
        let _ = bind(&queue, &vm, map(&pair, 1));
        for open in vm.look().unwrap().bos() {
            assert!(open.1.data().is_alive());
        }
        drop((pair, vm, buffer));
        closer.join().unwrap();
        looker.join().unwrap();
        end(world, queue, &gone);
    });
}
