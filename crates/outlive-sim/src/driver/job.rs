//! A job's payload: buffers, commands, and how long the hardware shall take.
//!
//! A [`SimJob`] owns what the hardware may touch. It is born before its job is committed and is dropped by the library,
//! on the reaper, once the hardware is done; both are reported to the audit. Its control page has the commands at the
//! start and, in the last eight bytes, the word in which the hardware writes the job's end. Jobs that belong together may
//! share control pages, a slot each: see [`JobSpec::commands`].

use alloc::sync::Arc;
use core::fmt;
use core::time::Duration;
use outlive::Dependency;
use outlive::pool::Ticket;
use outlive::vm::VmUse;
use std::sync::MutexGuard;

use super::buffer::{Buffer, BufferError, Home, keep};
use super::hardware::SimDriver;
use super::machine::Machine;
use super::piece::Piece;
use super::space::Space;
use crate::gpu::{Command, FaultKind, JobId, MemoryError, Notify, Observation, PAGE_BYTES, PageId, Va, VmId};

/// Bytes of a slot for a job's commands and its end, in a buffer that several jobs share.
pub const SLOT_BYTES: u64 = 128;
/// Bytes of the word in which the end is written.
const FENCE_BYTES: u64 = 8;
/// Where in the control page what a job reads from others is put.
const SCRATCH_OFFSET: u64 = PAGE_BYTES as u64 / 2;
/// Persistent buffers that one job works on, at most: for so many its commands have room.
const PIECES_MAX: usize = 16;
/// What a job shows of each persistent buffer that it works on, at most.
const STRIP_BYTES: u64 = 768;
/// Pages that `Fill` and each half of `Copy` use.
const DATA_PAGES: u32 = 4;

/// What a job does. Every kind reads and writes its buffers, which may be touched for its whole hardware time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Work {
    /// Mostly takes time. One page.
    #[default]
    Spin,
    /// Fills four pages.
    Fill,
    /// Fills four pages and copies them to four others.
    Copy,
    /// Copies all of the first buffer of `reads`, as a display does that scans it out.
    ScanOut,
    /// Writes a word of four bytes at the start.
    Store(u32),
    /// Copies a word of four bytes from there to the start.
    Load(Va),
    /// Draws a frame of the gears: RGBA with eight bits each, rows from the top.
    Gears {
        /// Which frame; each turns the large gear by a degree.
        frame: u32,
        /// Pixels in a row; 1 to 4096.
        width: u32,
        /// Rows; 1 to 4096.
        height: u32,
    },
}

impl Work {
    /// Bytes of buffers that it needs, without the control page; for [`Work::ScanOut`], what it scans counts instead.
    #[must_use]
    pub const fn data_bytes(self) -> u64 {
        self.data_pages() as u64 * PAGE_BYTES as u64
    }

    const fn data_pages(self) -> u32 {
        match self {
            Self::Spin | Self::ScanOut | Self::Store(_) | Self::Load(_) => 1,
            Self::Fill => DATA_PAGES,
            Self::Copy => 2 * DATA_PAGES,
            Self::Gears { width, height, .. } => {
                let bytes = width as u64 * height as u64 * 4;
                // CAST: at most 64 MiB where the device takes it; what it does not take, it refuses.
                let pages = bytes.div_ceil(PAGE_BYTES as u64) as u32;
                if pages == 0 { 1 } else { pages }
            }
        }
    }
}

/// Where in its address space a job works, and what keeps that mapped until it has retired.
#[derive(Debug)]
pub struct VmWork {
    /// From here on; not below [`VM_START`](super::VM_START).
    pub at: Va,
    /// So many bytes: at least [`Work::data_bytes`].
    pub bytes: u64,
    /// Dropped with the payload.
    pub in_use: VmUse<SimDriver>,
}

/// A job as its client describes it.
pub struct JobSpec {
    /// Hardware time; at least 1 ns.
    pub duration: Duration,
    /// What it does.
    pub work: Work,
    /// What it shall do wrong.
    pub fault: Option<FaultKind>,
    /// What it takes of the ring; default 1.
    pub credits: u32,
    /// How long it may be on an engine, instead of its queue's timeout.
    pub timeout: Option<Duration>,
    /// What it waits for.
    pub after: Vec<Dependency>,
    /// Other jobs' buffers that it reads the start of; another client's must be [`shared`](JobSpec::shared).
    pub reads: Vec<Arc<Buffer>>,
    /// Where it writes, instead of to a buffer of its own: one of its client's that is large enough.
    pub into: Option<Arc<Buffer>>,
    /// Others may read what it writes: see [`JobSpec::reads`] and [`SimQueue::import`](super::SimQueue::import).
    pub shared: bool,
    /// Where it works, instead of in a buffer: addresses of users in its client's address space.
    pub vm: Option<VmWork>,
    /// Where its commands and its end stand, instead of a page of its own: one of the slots of [`SLOT_BYTES`] of a buffer of
    /// its client, counted from 0, which no other job has before this one has retired. They must fit: those of [`Work::Spin`]
    /// without `reads` do.
    pub commands: Option<(Arc<Buffer>, u32)>,
    /// Of what is not there nothing is waited for, and no room made: for a callback. It finds what its client has kept or what is
    /// free, and can read no other client's buffer nor be [`shared`](JobSpec::shared).
    pub at_once: bool,
    /// Persistent buffers of its client that it works on besides, at most 16: at its end it shows some of each, and leaves there
    /// what it wrote. It goes after all that was submitted to work on them before. For [`SimQueue::submit`](super::SimQueue::submit).
    pub pieces: Vec<Arc<Piece>>,
    /// Called where the payload is dropped, after its memory was given back.
    pub on_drop: Option<Box<dyn FnOnce() + Send>>,
}

impl JobSpec {
    /// A job of one credit that takes `duration`.
    #[must_use]
    pub const fn spin(duration: Duration) -> Self {
        Self {
            duration,
            work: Work::Spin,
            fault: None,
            credits: 1,
            timeout: None,
            after: Vec::new(),
            reads: Vec::new(),
            into: None,
            shared: false,
            vm: None,
            commands: None,
            at_once: false,
            pieces: Vec::new(),
            on_drop: None,
        }
    }

    /// As [`JobSpec::spin`], with other work.
    #[must_use]
    pub fn new(duration: Duration, work: Work) -> Self {
        Self { work, ..Self::spin(duration) }
    }
}

impl fmt::Debug for JobSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JobSpec({:?} for {:?}, fault {:?})", self.work, self.duration, self.fault)
    }
}

/// Where a job's commands and its end stand.
enum Control {
    /// In a page of its own.
    Page(Buffer),
    /// In a slot of a buffer, from this offset on.
    Slot(Arc<Buffer>, u64),
}

impl Control {
    fn new_slot((buffer, number): (Arc<Buffer>, u32)) -> Self {
        Self::Slot(buffer, u64::from(number) * SLOT_BYTES)
    }

    /// Its buffer, where it starts there, and its size.
    fn place(&self) -> (&Buffer, u64, u64) {
        match self {
            Self::Page(page) => (page, 0, PAGE_BYTES as u64),
            Self::Slot(buffer, start) => (buffer, *start, SLOT_BYTES),
        }
    }
}

/// What the hardware is told of a job's control words.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ControlWords {
    pub(crate) commands: Va,
    /// Where the end is written: this page, this offset.
    pub(crate) fence: (PageId, usize),
}

/// The payload.
pub struct SimJob {
    pub(crate) id: JobId,
    pub(crate) hw_time_ns: u64,
    pub(crate) fault: Option<FaultKind>,
    pub(crate) timeout: Duration,
    pub(crate) commands_bytes: u32,
    /// Its claim on an address space number, where those are leased.
    pub(crate) ticket: Option<Ticket>,
    bytes: u64,
    /// Taken in the drop, in this order.
    control: Option<Control>,
    data: Option<Arc<Buffer>>,
    reads: Vec<Arc<Buffer>>,
    pieces: Vec<Arc<Piece>>,
    on_drop: Option<Box<dyn FnOnce() + Send>>,
    /// Of another address space of the library in the same page tables.
    _in_use_beside: Option<VmUse<SimDriver>>,
    /// The last to go.
    in_use: VmUse<SimDriver>,
}

/// What a job takes for itself: pages of commands, pages of data.
#[derive(Debug, Clone, Copy)]
struct Wants {
    control: Option<u32>,
    data: Option<u32>,
    shared: bool,
}

impl SimJob {
    /// Takes the memory and writes the commands. `timeout`: of its queue.
    pub(crate) fn new(home: Home<'_>, spec: &mut JobSpec, timeout: Duration) -> Result<Self, BufferError> {
        let space = home.space();
        let work = spec.vm.take();
        let in_use = match work {
            Some(VmWork { in_use, .. }) if !Arc::ptr_eq(in_use.vm_data().space(), space) => {
                return Err(MemoryError::NoSuchPage.into());
            }
            Some(VmWork { at, bytes, in_use }) if in_use.is_of(home.vm) => (in_use, None, Some((at, bytes))),
            Some(VmWork { at, bytes, in_use }) => (home.vm.in_use_named()?, Some(in_use), Some((at, bytes))),
            None => (home.vm.in_use_named()?, None, None),
        };
        let (in_use, in_use_beside, at) = in_use;
        let mut reads = Vec::new();
        for buffer in spec.reads.drain(..) {
            reads.push(if buffer.is_in(space) { buffer } else { Arc::new(home.import(&buffer)?) });
        }
        let hw_time_ns = u64::try_from(spec.duration.as_nanos()).unwrap_or(u64::MAX).max(1);
        let data_bytes = match spec.work {
            Work::ScanOut => reads.first().map_or(0, |scanned| scanned.bytes()),
            _ => 0,
        };
        let data_bytes = data_bytes.max(spec.work.data_bytes());
        let (into, slot) = (spec.into.take(), spec.commands.take());
        let wrong = spec.pieces.len() > PIECES_MAX
            || into.as_ref().is_some_and(|into| !into.is_in(space) || into.bytes() < data_bytes)
            || at.is_some_and(|(_, bytes)| into.is_some() || bytes < data_bytes)
            || slot.as_ref().is_some_and(|slot| !fits(space, slot, spec.work, &reads, &spec.pieces));
        if wrong {
            return Err(MemoryError::NoSuchPage.into());
        }
        let wants = Wants {
            control: slot.is_none().then_some(1),
            // CAST: at most 2^32 pages of 4 KiB: more the memory does not have.
            data: (into.is_none() && at.is_none()).then_some((data_bytes / PAGE_BYTES as u64) as u32),
            shared: spec.shared,
        };
        let (mut machine, [page, own]) = take(home, wants)?;
        let bytes = page.iter().chain(&own).map(Buffer::bytes).sum();
        let data = own.as_ref().or(into.as_deref()).map(|data| (data.va(), data_bytes));
        let data = data.or(at.map(|(at, _)| (at, data_bytes))).unwrap_or((Va(0), 0));
        let control = page.map(Control::Page).or(slot.map(Control::new_slot));
        let id = JobId(machine.next_job);
        machine.next_job += 1;
        machine.observe(Observation::PayloadCreated { payload: id.0, job: id, bytes });
        let mut commands = core::mem::take(&mut machine.scratch);
        commands.clear();
        if let Some((buffer, start, size)) = control.as_ref().map(Control::place) {
            encode(&mut commands, spec.work, data, (&reads, &spec.pieces), (buffer.va().add(start), size), id);
            machine.write(buffer.pages(), start, &commands);
        }
        let commands_bytes = u32::try_from(commands.len()).unwrap_or(u32::MAX);
        machine.scratch = commands;
        drop(machine);
        Ok(Self {
            id,
            hw_time_ns,
            fault: spec.fault,
            timeout: spec.timeout.unwrap_or(timeout),
            commands_bytes,
            ticket: None,
            control,
            bytes,
            data: own.map(Arc::new).or(into),
            reads,
            pieces: core::mem::take(&mut spec.pieces),
            on_drop: spec.on_drop.take(),
            _in_use_beside: in_use_beside,
            in_use,
        })
    }

    /// The device's address space that it runs in.
    pub(crate) fn vm(&self) -> VmId {
        self.space().vm
    }

    fn space(&self) -> &Arc<Space> {
        self.in_use.vm_data().space()
    }

    /// Its name for the checkers, never used twice on one host.
    #[must_use]
    pub const fn id(&self) -> JobId {
        self.id
    }

    /// What it writes: a frame, for gears. Whoever holds it keeps the memory.
    #[must_use]
    pub fn output(&self) -> Option<Arc<Buffer>> {
        self.data.clone()
    }

    /// Device memory that it has taken for itself.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Nothing after it was dropped.
    pub(crate) fn control(&self) -> Option<ControlWords> {
        let (buffer, start, size) = self.control.as_ref()?.place();
        // CAST: an offset in a buffer, which memory holds.
        let fence = (start + size - FENCE_BYTES) as usize;
        let page = *buffer.pages().get(fence / PAGE_BYTES)?;
        Some(ControlWords { commands: buffer.va().add(start), fence: (page, fence % PAGE_BYTES) })
    }
}

/// Buffers for a job's commands and data: kept ones, else new ones. Comes with the machine's lock.
fn take<'a>(home: Home<'a>, wants: Wants) -> Result<(MutexGuard<'a, Machine>, [Option<Buffer>; 2]), BufferError> {
    let space = home.vm.data().space();
    let Wants { control, data, shared } = wants;
    let wanted = [control.map(|pages| (pages, false)), data.map(|pages| (pages, shared))];
    let mut machine = space.shared.lock();
    let mut taken = wanted.map(|wanted| wanted.and_then(|(pages, shared)| machine.take_kept(space.vm, pages, shared)));
    if taken.each_ref().map(Option::is_some) == wanted.map(|wanted| wanted.is_some()) {
        return Ok((machine, taken));
    }
    drop(machine);
    for at in 0..2 {
        let Some((pages, shared)) = wanted[at].filter(|_| taken[at].is_none()) else { continue };
        match home.in_device(pages, shared) {
            Ok(made) => taken[at] = Some(made),
            Err(error) => {
                keep(space, taken);
                return Err(error);
            }
        }
    }
    Ok((space.shared.lock(), taken))
}

/// Whether a job can stand in a slot.
fn fits(
    space: &Arc<Space>,
    (buffer, number): &(Arc<Buffer>, u32),
    work: Work,
    reads: &[Arc<Buffer>],
    pieces: &[Arc<Piece>],
) -> bool {
    let ends = (u64::from(*number) + 1) * SLOT_BYTES;
    let short = matches!(work, Work::Spin) && reads.is_empty() && pieces.is_empty();
    short && buffer.is_in(space) && ends <= buffer.bytes()
}

/// The bytes of the job: its work, a look at what it reads, and the end. `control`: where they stand, and the room there.
fn encode(
    out: &mut Vec<u8>,
    work: Work,
    (at, bytes): (Va, u64),
    (reads, pieces): (&[Arc<Buffer>], &[Arc<Piece>]),
    (control, room): (Va, u64),
    id: JobId,
) {
    // CAST: any pattern will do.
    let pattern = id.0 as u32 | 1;
    let half = bytes / 2;
    match work {
        Work::Spin => {
            Command::Fill { va: at, bytes: 64, pattern }.encode(out);
            Command::Spin { duration_ns: 1_000_000 }.encode(out);
            Command::Copy { source: at, target: at.add(half), bytes: 64 }.encode(out);
        }
        Work::Fill => {
            Command::Fill { va: at, bytes, pattern }.encode(out);
            Command::Copy { source: at, target: at.add(half), bytes: 64 }.encode(out);
        }
        Work::Copy => {
            Command::Fill { va: at, bytes: half, pattern }.encode(out);
            Command::Copy { source: at, target: at.add(half), bytes: half }.encode(out);
        }
        Work::ScanOut => {
            if let Some(scanned) = reads.first() {
                Command::Copy { source: scanned.va(), target: at, bytes: scanned.bytes() }.encode(out);
            }
        }
        Work::Store(pattern) => Command::Fill { va: at, bytes: 4, pattern }.encode(out),
        Work::Load(source) => Command::Copy { source, target: at, bytes: 4 }.encode(out),
        Work::Gears { frame, width, height } => Command::Gears { va: at, width, height, frame }.encode(out),
    }
    for other in reads {
        let scratch = control.add(SCRATCH_OFFSET);
        Command::Copy { source: other.va(), target: scratch, bytes: 64 }.encode(out);
    }
    for (number, piece) in (1..).zip(pieces) {
        // A strip from its middle goes to the end of what the job wrote, and then that into all of it.
        let shared = bytes.min(piece.bytes());
        let strip = (shared / 4).min(STRIP_BYTES);
        let target = at.add(bytes.saturating_sub(number * strip));
        Command::Copy { source: piece.va().add(shared / 2), target, bytes: strip }.encode(out);
        Command::Copy { source: at, target: piece.va(), bytes: shared }.encode(out);
    }
    let fence = control.add(room - FENCE_BYTES);
    Command::End { fence, value: id.0, interrupt: Notify::Interrupt }.encode(out);
}

impl Drop for SimJob {
    fn drop(&mut self) {
        let control = match self.control.take() {
            Some(Control::Page(page)) => Some(page),
            Some(Control::Slot(buffer, _)) => Arc::into_inner(buffer),
            None => None,
        };
        let data = self.data.take().and_then(Arc::into_inner);
        let space = self.in_use.vm_data().space();
        let mut machine = space.shared.lock();
        machine.observe(Observation::PayloadReleased { payload: self.id.0 });
        let left = [control, data].map(|buffer| buffer.and_then(|buffer| machine.keep(space.vm, buffer)));
        drop(machine);
        drop(left);
        self.reads.clear();
        self.pieces.clear();
        if let Some(on_drop) = self.on_drop.take() {
            on_drop();
        }
    }
}

impl fmt::Debug for SimJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimJob({})", self.id)
    }
}
