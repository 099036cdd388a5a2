//! A GPU address space: map a buffer, let a job use it, close everything under it, and see in which order things go.
//! Run it with `cargo run --release -p outlive --example address_space`.
#![expect(clippy::disallowed_methods, clippy::std_instead_of_core, clippy::std_instead_of_alloc, reason = "on std")]

use outlive::vm::{
    Bo, BoCore, Edit, Flags, Flushed, Geometry, Request, Source, StagedDriver, Step, ToClear, Vm, VmConfig, VmDriver,
    VmUse,
};
use outlive::{Completion, Device, Driver, Executor, JobCx, QueueConfig};
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};

/// The hardware: at most one job, done when we say so.
#[derive(Default)]
struct Gpu {
    running: Mutex<Option<Completion>>,
}

/// A job's payload. It holds the address space's mappings, whatever they are, until the hardware is done with the job.
struct Draw {
    _uses: VmUse<Gpu>,
}

impl Driver for Gpu {
    type Job = Draw;
    type Queue = ();

    fn run(&self, _: &mut JobCx<'_, Self>, done: Completion) {
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = Some(done);
    }
}

/// A buffer; its pages would be here, freed by the last drop.
#[derive(Clone)]
struct Buffer(Arc<Pages>);

struct Pages {
    core: BoCore,
    name: &'static str,
}

impl Drop for Pages {
    fn drop(&mut self) {
        println!("  the pages of `{}` are freed", self.name);
    }
}

impl Bo for Buffer {
    fn core(&self) -> &BoCore {
        &self.0.core
    }
}

impl VmDriver for Gpu {
    type Bo = Buffer;
    type Vm = (); // page tables
    type VmBo = ();
    type Mapping = ();
}

impl StagedDriver for Gpu {
    /// Something has left the address space and no job uses it: make the hardware forget it. May block.
    fn clear(&self, edit: &mut Edit<Self>, to_clear: ToClear<Self>) {
        for mapping in edit.clearing(&to_clear) {
            println!("  clear the entries of {:?}", mapping.range);
        }
        to_clear.cleared(Flushed::by_driver()); // said, not assumed: without it nothing is ever freed
    }
}

fn write_entries(steps: &[Step<()>]) {
    for step in steps {
        match step {
            Step::Map { mapping } => println!("  write the entries of {:?}", mapping.range),
            Step::Unmap { mapping, .. } => println!("  clear the entries of {:?}", mapping.range),
            Step::Remap { hole, .. } => println!("  clear the entries of {hole:?}; the rest stays"),
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let executor = Executor::manual()?;
    let device = Device::new(&executor, Gpu::default())?;
    let vm = Vm::new(&device, VmConfig::new(Geometry { base: 0, len: 1 << 48, page: 0x1000 }), ())?;

    println!("map a texture of 16 KiB, and cut a hole of a page");
    let buffer = Buffer(Arc::new(Pages { core: BoCore::local(&vm, 0x4000), name: "texture" }));
    let texture = vm.open(&buffer, || ())?;
    let source = Source::Bo { bo: texture.id(), offset: 0 };
    let map = Request::Map { va: 0x10_0000, len: 0x4000, source, flags: Flags::NONE, data: () };
    let hole = Request::Unmap { va: 0x10_1000, len: 0x1000 };
    // Both or neither: what may fail fails in `plan`, and dropping the plan leaves no trace.
    let binding = vm.edit()?.plan(&[map, hole])?.commit();
    write_entries(binding.steps());
    drop(binding.flushed(Flushed::by_driver()));

    println!("a job uses it");
    let queue = device.queue(QueueConfig::new("3d"), ())?;
    let job = queue.reserve(Draw { _uses: vm.in_use()? })?.commit();

    println!("the application dies: every handle is dropped, the job is on the hardware");
    let gone = vm.drained();
    drop((vm, texture, buffer, queue));
    executor.run_until_idle();
    println!("  finished: {:?}; retired: {:?}", job.finished().status(), job.retired().status());
    assert!(!gone.is_drained(), "what the hardware may touch stays");

    println!("the hardware is done with it");
    if let Some(done) = device.driver().running.lock().unwrap_or_else(PoisonError::into_inner).take() {
        done.complete(Ok(()));
    }
    executor.run_until_idle();
    println!("  retired: {:?}", job.retired().status());
    assert!(gone.is_drained(), "cleared, flushed, freed");
    Ok(())
}

#[test]
fn runs() -> Result<(), Box<dyn Error>> {
    main()
}
