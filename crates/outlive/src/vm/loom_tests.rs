//! The deferred list and the turn under loom: whatever meets whatever, nothing is forgotten and nothing freed early. Each
//! model ends with everything of the address space gone.

use super::batch::{Batch, Node};
use super::model_gpu::{Gpu, Token, World, change, map};
use super::shared::VmInner;
use super::{OpenBo, Space, moment};
use crate::Executor;
use crate::exec::object::Object;
use crate::mem::{HeapBox, try_box};
use crate::sync::model::{Model, race, race3};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

fn world() -> World {
    World::on(Executor::manual().unwrap(), |_| {})
}

fn end(world: World) {
    world.executor.run_until_idle();
    world.all_gone();
    let World { executor, device, .. } = world;
    drop(device);
    executor.run_until_idle();
}

/// A buffer's last handle is dropped while somebody's turn ends: either that one, or the work that found the turn taken, sees it.
#[test]
fn loom_last_handle_against_the_end_of_a_turn() {
    Model::new("last handle against the end of a turn").check(|| {
        let world = world();
        let (vm, bo) = world.mapped(1);
        let edit = vm.edit().unwrap();
        race(move || drop(bo), || drop(edit));
        world.executor.run_until_idle();
        assert_eq!(vm.status().to_clear, 0, "forgotten");
        drop(vm);
        end(world);
    });
}

/// The same with the reaper looking on: its work finds the turn taken, or not.
#[test]
fn loom_the_reaper_against_the_end_of_a_turn() {
    Model::new("the reaper against the end of a turn").check(|| {
        let world = world();
        let (vm, bo) = world.mapped(1);
        let edit = vm.edit().unwrap();
        drop(bo);
        let reaper = world.executor.clone();
        race(
            move || {
                reaper.reap();
            },
            || drop(edit),
        );
        world.executor.run_until_idle();
        assert_eq!(vm.status().to_clear, 0, "forgotten");
        drop(vm);
        end(world);
    });
}

/// The last job ends while the last handle goes: the one that comes second has it cleared.
#[test]
fn loom_last_use_against_last_handle() {
    Model::new("last use against last handle").check(|| {
        let world = world();
        let (vm, bo) = world.mapped(1);
        let in_use = vm.in_use().unwrap();
        drop(bo);
        world.executor.run_until_idle();
        race(move || drop(in_use), move || drop(vm));
        end(world);
    });
}

/// A buffer is closed by hand, by its last handle, and with its address space.
#[test]
fn loom_three_ends_of_one_buffer() {
    Model::new("three ends of one buffer").check(|| {
        let world = world();
        let (vm, bo) = world.mapped(1);
        let other = bo.clone();
        race3(move || drop(other.close()), move || drop(bo), move || drop(vm));
        end(world);
    });
}

/// What was closed is said to be cleared while the address space goes.
#[test]
fn loom_cleared_against_the_end_of_the_address_space() {
    Model::new("cleared against the end of the address space").check(|| {
        let world = world();
        let vm = world.vm();
        let bo = world.open(&vm, &world.local(&vm));
        let to_clear = bo.close().unwrap();
        drop(bo);
        race(move || to_clear.cleared(super::Flushed::by_driver()), move || drop(vm));
        end(world);
    });
}

/// Two who wait for the turn, and one who ends it: both get it.
#[test]
fn loom_two_wait_for_the_turn() {
    Model::new("two wait for the turn").check(|| {
        let world = world();
        let (vm, bo) = world.mapped(0);
        let edit = vm.edit().unwrap();
        let (one, other) = (vm.clone(), vm.clone());
        race3(move || drop(one.edit().unwrap()), move || drop(other.edit().unwrap()), || drop(edit));
        assert!(vm.try_edit().is_some(), "the turn was lost");
        drop((vm, bo));
        end(world);
    });
}

/// A buffer is opened anew while its last handle goes: what comes out is open, and was not taken out with the old pair.
#[test]
fn loom_open_against_the_last_handle() {
    Model::new("open against the last handle").check(|| {
        let world = world();
        let vm = world.vm();
        let buffer = world.local(&vm);
        let old = world.open(&vm, &buffer);
        let books = world.books.clone();
        race(
            move || drop(old),
            || {
                let open = super::model_gpu::open(&books, &vm, &buffer);
                let mut edit = vm.edit().unwrap();
                assert!(open.is_open());
                change(&mut edit, &open, &[map(&open, 1)]);
                assert_eq!(edit.len(), 1);
            },
        );
        drop((vm, buffer));
        end(world);
    });
}

/// Whoever takes a buffer's pages away looks where it is open, while its last handle there goes: it gets a handle, or there is
/// nothing any more.
#[test]
fn loom_the_list_of_a_buffers_pairs_against_the_last_handle() {
    Model::new("the list of a buffer's pairs against the last handle").check(|| {
        let world = world();
        let vm = world.vm();
        let buffer = world.local(&vm);
        let old = world.open(&vm, &buffer);
        let device = world.device.clone();
        race(
            move || drop(old),
            || {
                for pair in super::VmBo::all(&device, &buffer).unwrap() {
                    assert!(pair.is_open() && pair.edit().unwrap().bo(pair.id()).is_some());
                }
            },
        );
        drop(vm.edit().unwrap());
        assert_eq!(super::VmBo::all(&device, &buffer).unwrap().len(), 0);
        drop((vm, buffer, device));
        end(world);
    });
}

/// A batch that only counts what becomes of it.
struct Probe {
    told: Arc<AtomicUsize>,
    carried_out: bool,
}

impl Batch<Gpu> for Probe {
    fn carry_out(&mut self, _vm: &Object<VmInner<Gpu>>, space: &mut Space<OpenBo<Gpu>, Token>) {
        assert!(!self.carried_out && space.is_empty(), "twice");
        self.carried_out = true;
    }

    fn tell(&mut self) {
        assert!(self.carried_out);
        self.told.fetch_add(1, SeqCst);
    }
}

fn probe(told: &Arc<AtomicUsize>) -> HeapBox<Node<Gpu>> {
    let Ok(node) = try_box(Node::new(Probe { told: told.clone(), carried_out: false })) else { panic!("no memory") };
    node
}

/// A bind job begins while a look ends: whoever comes second carries its batch out, or leaves it to the signalling lane.
#[test]
fn loom_a_bind_job_begins_while_a_look_ends() {
    Model::new("a bind job begins while a look ends").check(|| {
        let world = world();
        let vm = world.vm_in_moments();
        let told = Arc::new(AtomicUsize::new(0));
        let (inner, node) = (vm.inner().clone(), probe(&told));
        let look = vm.look().unwrap();
        race(move || moment::begin(&inner, node), || drop(look));
        while world.executor.step() {}
        assert_eq!(told.load(SeqCst), 1, "forgotten");
        drop(vm);
        end(world);
    });
}

/// Two begin while a third thread takes the space: what comes in while a batch is carried out is left to somebody.
#[test]
fn loom_two_bind_jobs_begin_beside_a_look() {
    Model::new("two bind jobs begin beside a look").check(|| {
        let world = world();
        let vm = world.vm_in_moments();
        let told = Arc::new(AtomicUsize::new(0));
        let (one, other) = ((vm.inner().clone(), probe(&told)), (vm.inner().clone(), probe(&told)));
        race3(
            move || moment::begin(&one.0, one.1),
            move || moment::begin(&other.0, other.1),
            || drop(vm.look().unwrap()),
        );
        world.executor.run_until_idle();
        assert_eq!(told.load(SeqCst), 2, "forgotten");
        drop(vm);
        end(world);
    });
}

/// The reaper is in line while one turn ends and another thread waits: each gets it once.
#[test]
fn loom_the_reaper_waits_in_line() {
    Model::new("the reaper waits in line").check(|| {
        let world = world();
        let (vm, bo) = world.mapped(1);
        let edit = vm.edit().unwrap();
        drop(bo);
        let (reaper, other) = (world.executor.clone(), vm.clone());
        race3(
            move || {
                reaper.reap();
            },
            move || drop(other.edit().unwrap()),
            || drop(edit),
        );
        world.executor.run_until_idle();
        assert_eq!(vm.status().to_clear, 0, "forgotten");
        assert!(vm.try_edit().is_some(), "the turn was lost");
        drop(vm);
        end(world);
    });
}
