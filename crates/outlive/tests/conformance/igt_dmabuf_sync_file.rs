//! IGT `dmabuf_sync_file`. A buffer is its reservation. A sync file is one fence for what is on it: with the feature `linux` a
//! descriptor too. What is imported is a job's `retired`, for a reservation takes nothing else (rule 4): another process's descriptor is
//! a user fence, which no type lets in.

use crate::break_a_rule;
use crate::mock_job::Context;
use outlive::Retired;
use outlive::resv::{Reservation, Slot, Transaction, Usage};

struct Buffer(Reservation);

/// What is taken out of a buffer.
struct SyncFile {
    fence: Retired,
    #[cfg(all(feature = "linux", target_os = "linux"))]
    fd: rustix::fd::OwnedFd,
}

/// Upstream's `DMA_BUF_SYNC_READ` and `DMA_BUF_SYNC_WRITE`; both together are as the latter.
const READ: bool = false;
const WRITE: bool = true;

impl Buffer {
    fn new() -> Self {
        break_a_rule();
        Self(Reservation::new().unwrap())
    }

    fn add(&self, usage: Usage, fence: &Retired) {
        Transaction::new()
            .run::<Slot<'_>, _>(|attempt| attempt.prepare(&self.0), |sealed, slot| sealed.add(slot, usage, fence))
            .unwrap();
    }

    /// A job that reads or writes it.
    fn attach(&self, usage: Usage) -> Context {
        let mut job = Context::new();
        self.add(usage, &job.job().retired());
        job
    }

    fn busy(&self, write: bool) -> bool {
        let busy = !self.0.is_idle(Usage::for_access(write)).unwrap();
        assert_eq!(self.export(write).busy(), busy);
        busy
    }

    fn export(&self, write: bool) -> SyncFile {
        let fence = self.0.singleton(Usage::for_access(write)).unwrap().unwrap_or_else(Retired::stub);
        SyncFile {
            #[cfg(all(feature = "linux", target_os = "linux"))]
            fd: outlive::linux::export_retired(&fence).unwrap(),
            fence,
        }
    }

    #[track_caller]
    fn assert_busy(&self, read: bool, write: bool) {
        assert_eq!((self.busy(READ), self.busy(WRITE)), (read, write));
    }
}

impl SyncFile {
    fn busy(&self) -> bool {
        #[cfg(all(feature = "linux", target_os = "linux"))]
        assert_eq!(crate::descriptors::readable(&self.fd), self.fence.is_signaled());
        !self.fence.is_signaled()
    }
}

#[test]
fn export_basic() {
    let buffer = Buffer::new();
    buffer.assert_busy(false, false);
    let reader = buffer.attach(Usage::Read);
    buffer.assert_busy(false, true);
    reader.signal();
    buffer.assert_busy(false, false);
    let writer = buffer.attach(Usage::Write);
    buffer.assert_busy(true, true);
    writer.signal();
    buffer.assert_busy(false, false);
}

#[test]
fn export_before_signal() {
    let buffer = Buffer::new();
    buffer.assert_busy(false, false);
    for (usage, read) in [(Usage::Read, false), (Usage::Write, true)] {
        let job = buffer.attach(usage);
        let (reads, writes) = (buffer.export(READ), buffer.export(WRITE));
        assert_eq!((reads.busy(), writes.busy()), (read, true));
        job.signal();
        assert_eq!((reads.busy(), writes.busy()), (false, false));
    }
}

#[test]
fn export_multiwait() {
    let buffer = Buffer::new();
    let (first, second) = (buffer.attach(Usage::Read), buffer.attach(Usage::Read));
    let file = buffer.export(WRITE);
    let third = buffer.attach(Usage::Read);
    assert!(file.busy());
    first.signal();
    assert!(file.busy());
    second.signal();
    assert!(!file.busy(), "it waits for what was added later");
    third.signal();
}

#[test]
fn export_wait_after_attach() {
    let buffer = Buffer::new();
    let (reads, writes) = (buffer.export(READ), buffer.export(WRITE));
    let first = buffer.attach(Usage::Write);
    assert!(!reads.busy() && !writes.busy(), "they were taken out before");
    let (reads, writes) = (buffer.export(READ), buffer.export(WRITE));
    assert!(reads.busy() && writes.busy());
    first.signal();
    let second = buffer.attach(Usage::Write);
    assert!(!reads.busy() && !writes.busy());
    buffer.assert_busy(true, true);
    second.signal();
}

#[test]
fn import_basic() {
    let buffer = Buffer::new();
    buffer.assert_busy(false, false);
    for (usages, read) in [(&[Usage::Read][..], false), (&[Usage::Write], true), (&[Usage::Read, Usage::Write], true)] {
        let mut timeline = Context::new();
        let fence = timeline.job().retired();
        usages.iter().for_each(|usage| buffer.add(*usage, &fence));
        buffer.assert_busy(read, true);
        timeline.signal();
        buffer.assert_busy(false, false);
    }
}

fn import_multiple(write: bool) {
    let buffer = Buffer::new();
    let readers: Vec<_> = (0..32).map(|_| buffer.attach(Usage::Read)).collect();
    let writer = write.then(|| buffer.attach(Usage::Write));
    let (reads, writes) = (buffer.export(READ), buffer.export(WRITE));
    for reader in readers.iter().rev() {
        buffer.assert_busy(write, true);
        assert_eq!((reads.busy(), writes.busy()), (write, true));
        reader.signal();
    }
    buffer.assert_busy(write, write);
    assert_eq!((reads.busy(), writes.busy()), (write, write));
    if let Some(writer) = writer {
        writer.signal();
    }
    buffer.assert_busy(false, false);
    assert!(!reads.busy() && !writes.busy());
}

#[test]
fn import_multiple_read_only() {
    import_multiple(false);
}

#[test]
fn import_multiple_read_write() {
    import_multiple(true);
}
