//! What the model costs the machine that simulates: wall time of a tiny job's life, and of a frame of gears.
//!
//! `cargo run --release -p outlive-sim --example model_speed`

use core::hint::black_box;
use std::time::Instant;

use outlive_sim::gpu::{
    AddressSpace, Checkers, Command, Config, Gpu, HwSeqno, JobDescriptor, JobId, Memory, Notify, Protection, QueueId,
    Time, Va, VmId, gears::Scene,
};

const JOBS: u64 = 1_000_000;
const COMMANDS: Va = Va(0x1_0000);
const FENCE: Va = Va(0x2_0000);

type Failure = Box<dyn core::error::Error>;

struct World {
    memory: Memory,
    gpu: Gpu,
    rings: Vec<QueueId>,
    job: JobDescriptor,
}

fn world(config: Config, rings: u32) -> Result<World, Failure> {
    let mut memory = Memory::new(1 << 20)?;
    let mut gpu = Gpu::new(&mut memory, config)?;
    let owner = memory.add_owner()?;
    let mut space = AddressSpace::new(&mut memory, gpu.domain(), owner)?;
    gpu.bind_vm(VmId(1), &space)?;
    let (commands, fence) = (memory.allocate(gpu.domain(), owner)?, memory.allocate(gpu.domain(), owner)?);
    space.map(&mut memory, COMMANDS, commands, Protection::ReadOnly)?;
    space.map(&mut memory, FENCE, fence, Protection::ReadWrite)?;
    let mut bytes = Vec::new();
    Command::Spin { duration_ns: 1000 }.encode(&mut bytes);
    Command::End { fence: FENCE, value: 1, interrupt: Notify::Interrupt }.encode(&mut bytes);
    memory.page_mut(commands).ok_or("no page")?[..bytes.len()].copy_from_slice(&bytes);
    let job = JobDescriptor {
        hw_seqno: HwSeqno(0),
        vm: VmId(1),
        job: JobId(0),
        hw_time_ns: 0,
        commands: COMMANDS,
        commands_bytes: u32::try_from(bytes.len())?,
        fault: None,
    };
    let rings = (0..rings).map(|_| gpu.create_ring(&mut memory, 64)).collect::<Result<_, _>>()?;
    Ok(World { memory, gpu, rings, job })
}

/// Nanoseconds of wall time for one job: put, doorbell, start, end, interrupt.
fn jobs(config: Config, rings: u32, mut checkers: Option<Checkers>) -> Result<f64, Failure> {
    let World { mut memory, mut gpu, rings, job } = world(config, rings)?;
    if checkers.is_some() {
        memory.tap_mut().switch_on();
    }
    let (mut submitted, mut done, mut now) = (0, 0, Time::ZERO);
    let begin = Instant::now();
    let mut free: Vec<QueueId> = rings.repeat(4);
    while done < JOBS {
        while submitted < JOBS
            && let Some(ring) = free.pop()
        {
            let job = JobDescriptor { hw_seqno: HwSeqno(submitted), job: JobId(submitted), ..job };
            gpu.submit(&mut memory, now, ring, &job)?;
            submitted += 1;
        }
        let Some(next) = gpu.next_event() else { break };
        now = next;
        gpu.advance(&mut memory, now);
        while let Some(interrupt) = gpu.poll_interrupt() {
            free.push(black_box(interrupt).queue);
            done += 1;
        }
        if let Some(checkers) = &mut checkers {
            checkers.drain(&mut memory);
        }
    }
    let wall = begin.elapsed();
    if let Some(checkers) = checkers {
        let audit = checkers.finish();
        if !audit.is_clean() {
            return Err(format!("{audit:?}").into());
        }
    }
    Ok(wall.as_secs_f64() * 1e9 / JOBS as f64)
}

fn gears(side: u32) -> f64 {
    let mut row = vec![0; side as usize * 4];
    let begin = Instant::now();
    for frame in 0..10 {
        let scene = Scene::new(side, side, frame);
        for y in 0..side {
            scene.draw_row(y, &mut row);
            black_box(&row);
        }
    }
    begin.elapsed().as_secs_f64() * 1e3 / 10.0
}

fn main() -> Result<(), Failure> {
    let rotating = Config::default();
    let in_order = Config { slice_ns: 0, ..rotating };
    let wide = Config { engines: 4, ..rotating };
    for (name, config, rings) in [
        ("1 engine, 1 ring", rotating, 1),
        ("1 engine, 16 rings, rotating", rotating, 16),
        ("1 engine, 16 rings, in order", in_order, 16),
        ("1 engine, 1000 rings, rotating", rotating, 1000),
        ("4 engines, 16 rings, rotating", wide, 16),
    ] {
        let bare = jobs(config, rings, None)?;
        let checked = jobs(config, rings, Some(Checkers::new()))?;
        println!("{name:32} {bare:6.0} ns a job, {checked:6.0} ns with the checkers");
    }
    for side in [128, 256, 512] {
        println!("gears {side:3} x {side:3} {:21.1} ms a frame", gears(side));
    }
    Ok(())
}
