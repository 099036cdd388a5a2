//! `SimClient`: a client as a process would be one: an address space, queues in it, and jobs.

use alloc::sync::Arc;
use core::fmt;
use core::time::Duration;
use outlive::pool::{Holder, PoolError};
use outlive::resv::LockError;
use outlive::vm::{Geometry, Vm, VmConfig, VmError};
use outlive::{Device, Drained, Job, JobFences, JobQueue, OpenError, QueueConfig, Refusal, Reserved};

use super::buffer::{Buffer, BufferError, Home};
use super::hardware::{SimDriver, SimRing};
use super::host::SimHost;
use super::job::{JobSpec, SimJob};
use super::space::{DRIVER_START, Space};
use super::tables::SimTables;
use crate::gpu::{GpuError, JobId, MemoryError, PAGE_BYTES, QueueId, Reach};

/// Ring slots for each credit: so many jobs may end before the oldest does.
const SLOTS_PER_CREDIT: u32 = 64;
const SLOTS_MIN: u32 = 128;
const SLOTS_MAX: u32 = 1024;

/// How a client's queue is made.
#[derive(Debug)]
pub struct ClientConfig {
    /// The size of its ring. Default 16. Overrides what `queue` says.
    pub credits: u32,
    /// Time that a job may have on an engine. Default 500 ms; at most, and for zero, 10 s. Overrides what `queue` says.
    pub timeout: Duration,
    /// Whose jobs they are; default a number of its own. Overrides what `queue` says.
    pub client: Option<u64>,
    /// How far a new client's address space reaches. Default 39 bits; 48 take a page more, and a load more for each walk.
    pub reach: Reach,
    /// Everything else: arbiter, group, weight, priority, drain time, bypass, principal. Not `pipelined`: with several
    /// engines the device overlaps a ring's jobs.
    pub queue: QueueConfig,
}

impl Default for ClientConfig {
    fn default() -> Self {
        let (credits, timeout) = (16, Duration::from_millis(500));
        Self { credits, timeout, client: None, reach: Reach::Bits39, queue: QueueConfig::new("ring") }
    }
}

/// A job that was committed.
#[derive(Debug, Clone)]
pub struct Submitted {
    /// Its fences.
    pub fences: JobFences,
    /// Its name for the checkers, in [`JobEnd`](super::JobEnd) and [`EngineStretch`](super::EngineStretch).
    pub id: JobId,
    /// What it writes, for [`Buffer::read`] after `retired`. Holding it keeps the memory; drop it if it is not wanted.
    pub output: Arc<Buffer>,
}

/// Why a job was not submitted. Nothing is left of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SubmitError {
    /// There is no device memory for its buffers: wait until a job has retired.
    Memory(MemoryError),
    /// There is no buffer for it, for another reason.
    Buffer(BufferError),
    /// The library said no.
    Refused(Refusal),
    /// Somebody else submitted a job for the same persistent buffers, or bound something in the same address space, at the same
    /// time: try again.
    Raced,
    /// A job that works on persistent buffers is submitted at once: they are brought in when it is committed.
    Held,
    /// The persistent buffers that it works on cannot be locked.
    Lock(LockError),
}

impl fmt::Display for SubmitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory(error) => error.fmt(f),
            Self::Buffer(error) => error.fmt(f),
            Self::Refused(refusal) => refusal.fmt(f),
            Self::Raced => {
                f.write_str("another job for the same buffers or address space was submitted meanwhile: try again")
            }
            Self::Held => f.write_str("a job that works on persistent buffers cannot be held: submit it"),
            Self::Lock(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for SubmitError {}

impl From<LockError> for SubmitError {
    fn from(error: LockError) -> Self {
        match error {
            LockError::OutOfMemory(_) => Self::Memory(MemoryError::OutOfHostMemory),
            _ => Self::Lock(error),
        }
    }
}

impl From<VmError> for SubmitError {
    fn from(error: VmError) -> Self {
        BufferError::from(error).into()
    }
}

impl From<MemoryError> for SubmitError {
    fn from(error: MemoryError) -> Self {
        Self::Memory(error)
    }
}

impl From<BufferError> for SubmitError {
    fn from(error: BufferError) -> Self {
        match error {
            BufferError::Memory(error) => Self::Memory(error),
            _ => Self::Buffer(error),
        }
    }
}

/// Why a client or a queue was not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClientError {
    /// The device said no.
    Device(GpuError),
    /// The library said no.
    Refused(OpenError),
    /// The pool of address space numbers said no.
    Lease(PoolError),
    /// The address space could not be made.
    Vm(VmError),
    /// A buffer of it could not.
    Buffer(BufferError),
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(error) => error.fmt(f),
            Self::Refused(error) => error.fmt(f),
            Self::Lease(error) => error.fmt(f),
            Self::Vm(error) => error.fmt(f),
            Self::Buffer(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for ClientError {}

impl From<PoolError> for ClientError {
    fn from(error: PoolError) -> Self {
        Self::Lease(error)
    }
}

impl From<VmError> for ClientError {
    fn from(error: VmError) -> Self {
        match error {
            VmError::NoMemory(error) => Self::Refused(OpenError::OutOfMemory(error)),
            _ => Self::Vm(error),
        }
    }
}

impl From<BufferError> for ClientError {
    fn from(error: BufferError) -> Self {
        match error {
            BufferError::Memory(error) => Self::Device(error.into()),
            BufferError::Vm(error) => error.into(),
            _ => Self::Buffer(error),
        }
    }
}

impl From<GpuError> for ClientError {
    fn from(error: GpuError) -> Self {
        Self::Device(error)
    }
}

impl From<OpenError> for ClientError {
    fn from(error: OpenError) -> Self {
        Self::Refused(error)
    }
}

/// In whole pages.
fn pages(bytes: u64) -> Result<u32, MemoryError> {
    u32::try_from(bytes.div_ceil(PAGE_BYTES as u64)).map_err(|_| MemoryError::OutOfHostMemory)
}

/// One queue of a client. Dropping it is a death without warning; see [`SimQueue::close`] for the polite form.
#[derive(Debug)]
pub struct SimQueue {
    vm: Vm<SimDriver>,
    queue: JobQueue<SimDriver>,
    hw: QueueId,
    timeout: Duration,
    /// Its place at the pool of address space numbers, if they are leased.
    lease: Option<Holder>,
}

impl SimQueue {
    fn new(device: &Device<SimDriver>, vm: &Vm<SimDriver>, config: ClientConfig) -> Result<Self, ClientError> {
        let ClientConfig { credits, timeout, client, queue, reach: _ } = config;
        let slots = credits.saturating_mul(SLOTS_PER_CREDIT).clamp(SLOTS_MIN, SLOTS_MAX);
        let space = vm.data().space();
        let client = client.unwrap_or_else(|| space.shared.lock().next_client());
        let queue = queue.credits(credits).timeout(timeout).client(client);
        let lease = device.driver().lease(device.executor())?;
        let ring = SimRing::new(device, space, credits, slots)?;
        let hw = ring.hw();
        let queue = device.queue(queue, ring)?;
        let longest = outlive::LIMIT_MAX;
        let timeout = if timeout.is_zero() { longest } else { timeout.min(longest) };
        Ok(Self { vm: vm.clone(), queue, hw, timeout, lease })
    }

    /// Takes the memory of a job and writes its commands, without the library.
    ///
    /// # Errors
    /// [`SubmitError`].
    pub fn payload(&self, spec: &mut JobSpec) -> Result<SimJob, SubmitError> {
        let mut job = SimJob::new(Home { at_once: spec.at_once, ..self.home() }, spec, self.timeout)?;
        let ticket = self.lease.as_ref().map(Holder::ticket).transpose();
        job.ticket = ticket.map_err(|error| SubmitError::Refused(Refusal::OutOfMemory(error)))?;
        Ok(job)
    }

    /// Everything but the commit.
    ///
    /// # Errors
    /// [`SubmitError`].
    pub fn reserve(&self, spec: JobSpec) -> Result<Reserved<SimDriver>, SubmitError> {
        self.reserve_waiting(spec, 0)
    }

    /// As [`SimQueue::reserve`], with room for `user_waits` user fences in `commit_when`.
    ///
    /// # Errors
    /// [`SubmitError`].
    pub fn reserve_waiting(&self, mut spec: JobSpec, user_waits: u16) -> Result<Reserved<SimDriver>, SubmitError> {
        if !spec.pieces.is_empty() {
            return Err(SubmitError::Held);
        }
        let payload = self.payload(&mut spec)?;
        self.reserve_payload(payload, spec, user_waits)
    }

    /// The rest of [`SimQueue::reserve_waiting`], with what [`SimQueue::payload`] made.
    pub(crate) fn reserve_payload(
        &self,
        payload: SimJob,
        spec: JobSpec,
        user_waits: u16,
    ) -> Result<Reserved<SimDriver>, SubmitError> {
        let bytes = payload.bytes();
        let mut job = Job::new(payload).credits(spec.credits).bytes(bytes).user_waits(user_waits);
        if let Some(timeout) = spec.timeout {
            job = job.timeout(timeout);
        }
        self.queue.reserve_after(job, spec.after).map_err(|refused| SubmitError::Refused(refused.kind))
    }

    /// Reserves and commits.
    ///
    /// # Errors
    /// [`SubmitError`]; nothing is left of the job then.
    pub fn submit(&self, spec: JobSpec) -> Result<Submitted, SubmitError> {
        if !spec.pieces.is_empty() {
            return self.submit_on_pieces(spec);
        }
        let reserved = self.reserve(spec)?;
        let (id, output) = (reserved.id(), reserved.output());
        // A payload has an output until it is dropped.
        let output = output.ok_or(SubmitError::Memory(MemoryError::NoSuchPage))?;
        Ok(Submitted { fences: reserved.commit(), id, output })
    }

    /// A buffer in the device's memory, zeroed. For [`JobSpec::into`] and [`JobSpec::commands`].
    ///
    /// # Errors
    /// [`BufferError`].
    pub fn buffer(&self, bytes: u64) -> Result<Arc<Buffer>, BufferError> {
        Ok(Arc::new(self.home().in_device(pages(bytes)?, true)?))
    }

    /// A buffer in the system's memory, which all devices of the machine reach; zeroed. For [`JobSpec::into`].
    ///
    /// # Errors
    /// [`BufferError`].
    pub fn system_buffer(&self, bytes: u64) -> Result<Arc<Buffer>, BufferError> {
        Ok(Arc::new(self.home().in_system(pages(bytes)?)?))
    }

    /// Another client's buffer, to read here too; of another device only if it is in the system's memory. Its pages live as
    /// long as either does.
    ///
    /// # Errors
    /// [`BufferError`].
    pub fn import(&self, buffer: &Buffer) -> Result<Arc<Buffer>, BufferError> {
        Ok(Arc::new(self.home().import(buffer)?))
    }

    /// Its client's address space.
    #[must_use]
    pub const fn vm(&self) -> &Vm<SimDriver> {
        &self.vm
    }

    pub(crate) const fn home(&self) -> Home<'_> {
        Home { vm: &self.vm, device: self.queue.device(), at_once: false }
    }

    /// The library's queue: suspend, resume, priority, weight, status.
    #[must_use]
    pub const fn queue(&self) -> &JobQueue<SimDriver> {
        &self.queue
    }

    /// The device's number for its ring.
    #[must_use]
    pub const fn hw(&self) -> QueueId {
        self.hw
    }

    /// Commits a driver's bug: drops the completion of a job on the ring, so that the library will not be told of its end.
    /// False if it is not there. Not in a callback of the library.
    pub fn drop_completion(&self, job: JobId) -> bool {
        let found = {
            let mut machine = self.vm.data().space().shared.lock();
            let ring = machine.ring(self.hw);
            ring.and_then(|ring| Some((Arc::clone(&ring.in_flight), ring.flying.seqno_of(job)?)))
        };
        let completion = found.and_then(|(in_flight, seqno)| in_flight.remove(seqno));
        completion.map(drop).is_some()
    }

    /// Accepts nothing more; what is on the hardware gets its drain time.
    pub fn close(&self) -> Drained {
        self.queue.close()
    }
}

/// A client: an address space of its own and a first queue. Dereferences to that queue. Dropping it is [`kill`].
///
/// [`kill`]: SimClient::kill
#[derive(Debug)]
pub struct SimClient {
    name: String,
    client: u64,
    first: SimQueue,
}

impl SimClient {
    /// A new client of `host`'s device. Takes memory for page tables and a ring: at most 128 KiB.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn new(host: &SimHost, name: &str, config: ClientConfig) -> Result<Self, ClientError> {
        Self::on(host.device().ok_or(OpenError::DeviceLost)?, name, config)
    }

    /// As [`SimClient::new`], with a handle on the device, wherever it comes from.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn on(device: &Device<SimDriver>, name: &str, config: ClientConfig) -> Result<Self, ClientError> {
        let shared = device.driver().shared();
        let client = config.client.unwrap_or_else(|| shared.lock().next_client());
        let reach = config.reach;
        let tables = SimTables::new(Arc::new(Space::new(device, reach)?));
        let len = reach.end().0 - DRIVER_START;
        let geometry = Geometry { base: DRIVER_START, len, page: PAGE_BYTES as u64 };
        let vm = Vm::new(device, VmConfig::new(geometry), tables)?;
        let first = SimQueue::new(device, &vm, ClientConfig { client: Some(client), ..config })?;
        Ok(Self { name: name.into(), client, first })
    }

    /// Another queue in the same address space, of the same client unless `config` says otherwise.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn another_queue(&self, config: ClientConfig) -> Result<SimQueue, ClientError> {
        let client = config.client.or(Some(self.client));
        SimQueue::new(self.first.queue.device(), &self.first.vm, ClientConfig { client, ..config })
    }

    /// What it was called.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its number for the library.
    #[must_use]
    pub const fn client(&self) -> u64 {
        self.client
    }

    /// Dies as a process would: its handles are gone without warning. What the hardware may touch stays until it is done.
    pub fn kill(self) {
        drop(self);
    }
}

impl core::ops::Deref for SimClient {
    type Target = SimQueue;

    fn deref(&self) -> &SimQueue {
        &self.first
    }
}
