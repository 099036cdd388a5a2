//! The deferred list and the turn under loom: whatever meets whatever, nothing is forgotten and nothing freed early. Each
//! model ends with everything of the address space gone.

use super::model_gpu::{World, change, map};
use crate::Executor;
use crate::sync::model::{Model, race, race3};

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
