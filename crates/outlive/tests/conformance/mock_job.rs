//! A job that is on the hardware until told otherwise, for its `retired`: all that a reservation accepts.

use outlive::{Completion, Device, Driver, Executor, FenceError, InFlight, JobCx, JobFences, JobQueue, QueueConfig};

pub(crate) struct Mock(InFlight);

impl Driver for Mock {
    type Job = ();
    type Queue = ();

    fn run(&self, cx: &mut JobCx<'_, Self>, done: Completion) {
        self.0.insert(cx.info().id.seqno, done).unwrap();
    }
}

/// One job after the other, in a context of their own.
pub(crate) struct Context {
    executor: Executor,
    queue: JobQueue<Mock>,
    committed: u64,
}

impl Context {
    pub(crate) fn new() -> Self {
        let executor = Executor::manual().unwrap();
        let device = Device::new(&executor, Mock(InFlight::with_capacity(64).unwrap())).unwrap();
        Self { queue: device.queue(QueueConfig::new("mock"), ()).unwrap(), executor, committed: 0 }
    }

    pub(crate) fn job(&mut self) -> JobFences {
        self.committed += 1;
        self.queue.reserve(()).unwrap().commit()
    }

    /// The hardware is done with all of them, and everybody has heard of it.
    pub(crate) fn signal(&self) {
        let done = (1..=self.committed).filter(|seqno| self.end(*seqno, Ok(()))).count();
        assert!(done > 0, "nothing was on the hardware");
        self.executor.run_until_idle();
    }

    pub(crate) fn end(&self, seqno: u64, result: Result<(), FenceError>) -> bool {
        self.queue.device().driver().0.complete(seqno, result)
    }
}
