//! Two devices on one memory: one draws frames into a shared buffer, the other scans them out. The one that draws may be
//! unplugged and dropped meanwhile; the buffer lives on, and what is in it stays.

#![expect(clippy::unwrap_used, clippy::std_instead_of_core, clippy::std_instead_of_alloc, reason = "tests")]

use outlive::{Dependency, Device, DeviceConfig, Fence, FenceError, OnError, Status};
use outlive_sim::driver::{
    Buffer, ClientConfig, HostClock, HostConfig, JobSpec, SimClient, SimDriver, SimHost, Submitted, Work,
};
use outlive_sim::gpu::gears::Scene;
use outlive_sim::gpu::{Config, PAGE_BYTES};
use std::sync::Arc;
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);
const LONG: Duration = Duration::from_secs(20);
const WIDTH: u32 = 64;
const HEIGHT: u32 = 48;
const BYTES: usize = (WIDTH * HEIGHT * 4) as usize;

struct Story {
    host: SimHost,
    /// Of the second device, which draws.
    writer: Option<(Device<SimDriver>, SimClient)>,
    display: SimClient,
    /// As the writer has it.
    buffer: Option<Arc<Buffer>>,
    /// As the display has it.
    scanned: Arc<Buffer>,
    /// The last scan-out.
    before: Option<Fence>,
}

impl Story {
    fn new(clock: HostClock) -> Self {
        let gpu = Config { memory_bytes: 2 << 20, tick_ns: 200_000, slice_ns: 0, ..Config::default() };
        let host = SimHost::new(HostConfig { gpu, clock, system_bytes: 1 << 20, ..HostConfig::default() }).unwrap();
        let second = host.add_device(gpu, DeviceConfig::new("writer")).unwrap();
        let drawing = SimClient::on(&second, "writer", ClientConfig::default()).unwrap();
        let display = SimClient::new(&host, "display", ClientConfig::default()).unwrap();
        let buffer = drawing.system_buffer(BYTES as u64).unwrap();
        let scanned = display.import(&buffer).unwrap();
        Self { host, writer: Some((second, drawing)), display, buffer: Some(buffer), scanned, before: None }
    }

    /// Draws a frame once the one before it has been scanned out.
    fn draw(&self, frame: u32, takes: Duration) -> Submitted {
        let after = self.before.iter().map(|before| Dependency::on(before.clone()).on_error(OnError::Run)).collect();
        let work = Work::Gears { frame, width: WIDTH, height: HEIGHT };
        let spec = JobSpec { into: self.buffer.clone(), after, ..JobSpec::new(takes, work) };
        self.writer.as_ref().unwrap().1.submit(spec).unwrap()
    }

    /// Scans out what is there once `drawn` has been drawn, or will not be any more.
    fn scan(&mut self, drawn: Option<&Submitted>) -> Submitted {
        let after = drawn.iter().map(|drawn| Dependency::on(drawn.fences.finished()).on_error(OnError::Run)).collect();
        let reads = vec![Arc::clone(&self.scanned)];
        let job = self.display.submit(JobSpec { after, reads, ..JobSpec::new(MS / 2, Work::ScanOut) }).unwrap();
        self.before = Some(job.fences.finished());
        job
    }

    fn wait(&self, fence: &Fence) {
        let limit = self.host.now().after(LONG);
        assert!(self.host.run_while_waiting(limit, || fence.is_signaled()), "{fence:?} has not signaled");
    }

    /// What a scan-out has put out.
    fn seen(&self, scan: &Submitted) -> Vec<u8> {
        self.wait(&scan.fences.retired().into_fence());
        assert_eq!(scan.fences.finished().status(), Status::Signaled(Ok(())));
        let mut bytes = scan.output.read();
        bytes.truncate(BYTES);
        bytes
    }
}

/// A frame as it should be.
fn frame(number: u32) -> Vec<u8> {
    let scene = Scene::new(WIDTH, HEIGHT, number);
    let mut bytes = vec![0; BYTES];
    for (y, row) in (0..HEIGHT).zip(bytes.chunks_exact_mut(WIDTH as usize * 4)) {
        scene.draw_row(y, row);
    }
    bytes
}

fn frames_are_shared_and_outlive_their_writers_device(clock: HostClock) {
    let mut story = Story::new(clock);
    let scans: Vec<Submitted> = (0..10)
        .map(|n| {
            let drawn = story.draw(n, MS / 2);
            story.scan(Some(&drawn))
        })
        .collect();
    for (n, scan) in (0..).zip(&scans) {
        assert!(story.seen(scan) == frame(n), "frame {n}");
    }
    // One that takes long, and whose device goes in the middle of it.
    let torn = story.draw(180, 40 * MS);
    let scan = story.scan(Some(&torn));
    story.wait(&torn.fences.scheduled());
    story.host.run_for(20 * MS);
    let (device, client) = story.writer.take().unwrap();
    device.driver().pull_out();
    device.unplug();
    story.wait(&torn.fences.finished());
    drop((device, client, story.buffer.take()));
    let what_is_there = story.seen(&scan);
    assert_eq!(torn.fences.finished().status(), Status::Signaled(Err(FenceError::DeviceLost)));
    drop(torn);
    let row = WIDTH as usize * 4;
    let drawn = what_is_there.chunks(row).zip(frame(180).chunks(row)).take_while(|(seen, row)| seen == row).count();
    let half = drawn * row;
    assert!((1..HEIGHT as usize).contains(&drawn), "{drawn} rows of the last frame were drawn");
    assert!(what_is_there[half..] == frame(9)[half..], "below it the frame before is still there");
    // Nothing of the device is left in the library; the display scans on.
    let alive = || {
        let vm = story.display.vm().status();
        story.host.executor().live_objects() == 6 + vm.bos + vm.to_clear
    };
    assert!(
        story.host.run_while_waiting(story.host.now().after(LONG), alive),
        "the display's device, queue and address space with its buffers, no more"
    );
    for _ in 0..5 {
        let scan = story.scan(None);
        assert!(story.seen(&scan) == what_is_there);
    }
    let Story { host, display, scanned, before, .. } = story;
    drop((scans, scan, display, scanned, before));
    let executor = host.executor().clone();
    assert!(host.run_while_waiting(host.now().after(LONG), || host.bytes_in_use() == 0), "memory is left");
    let audit = host.finish();
    assert!(audit.is_clean(), "{audit:#?}");
    assert_eq!(executor.live_objects(), 0);
}

#[test]
fn frames_outlive_their_writers_device_in_virtual_time() {
    frames_are_shared_and_outlive_their_writers_device(HostClock::Virtual);
}

#[test]
fn frames_outlive_their_writers_device_in_real_time() {
    frames_are_shared_and_outlive_their_writers_device(HostClock::Real);
}

#[test]
fn a_frame_that_is_not_waited_for_is_a_conflict() {
    let mut story = Story::new(HostClock::Virtual);
    let drawn = story.draw(1, 5 * MS);
    let scan = story.scan(None);
    story.wait(&scan.fences.retired().into_fence());
    story.wait(&drawn.fences.retired().into_fence());
    let Story { host, writer, display, buffer, scanned, before } = story;
    drop((drawn, scan, writer, display, buffer, scanned, before));
    host.run_for(MS);
    let audit = host.finish();
    assert!(audit.conflicting_accesses >= (BYTES / PAGE_BYTES) as u64, "{audit:#?}");
    assert_eq!(audit.bytes_leaked + audit.fences_unsignaled + audit.released_while_hardware_busy, 0, "{audit:#?}");
}

#[test]
fn buffers_that_another_device_cannot_reach_or_are_too_small_are_refused() {
    let story = Story::new(HostClock::Virtual);
    let job = story.display.submit(JobSpec::new(MS, Work::Fill)).unwrap();
    assert!(story.writer.as_ref().unwrap().1.import(&job.output).is_err(), "it is in the display's own memory");
    let small = story.display.system_buffer(PAGE_BYTES as u64).unwrap();
    assert!(story.display.submit(JobSpec { into: Some(small), ..JobSpec::new(MS, Work::Fill) }).is_err());
    assert!(story.display.submit(JobSpec { into: story.buffer.clone(), ..JobSpec::new(MS, Work::Fill) }).is_err());
    assert!(story.display.system_buffer(2 << 20).is_err(), "there is 1 MiB");
    let Story { host, writer, display, buffer, scanned, .. } = story;
    drop((job, writer, display, buffer, scanned));
    host.run_for(10 * MS);
    assert!(host.finish().is_clean());
}

#[test]
fn neither_device_runs_ahead_of_the_other() {
    let mut story = Story::new(HostClock::Virtual);
    // Nobody looks while both are busy; what the display copies in the middle is half of what is being drawn.
    let drawn = story.draw(5, 10 * MS);
    let scans: Vec<Submitted> = (0..10).map(|_| story.scan(None)).collect();
    story.wait(&drawn.fences.retired().into_fence());
    let row = WIDTH as usize * 4;
    let rows: Vec<usize> = scans
        .iter()
        .map(|scan| story.seen(scan).chunks(row).zip(frame(5).chunks(row)).filter(|(seen, row)| seen == row).count())
        .collect();
    assert!(rows.is_sorted() && rows[0] < 5 && (15..30).contains(&rows[9]), "at 5 ms half is there: {rows:?}");
}
