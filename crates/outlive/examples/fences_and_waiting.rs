//! Fences by themselves: every way to wait, and what happens if a producer dies. With `--features linux` also across processes.
//! Run it with `cargo run --release -p outlive --features linux --example fences_and_waiting`.
#![expect(clippy::disallowed_methods, clippy::std_instead_of_core, clippy::std_instead_of_alloc, reason = "on std")]

use outlive::{Executor, Fence, FenceContext, FenceError, Names, Signaler, Status};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{Thread, current, park, sleep, spawn};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(5);

/// A producer: some other thread, a device, an interrupt handler. It owns the `Signaler`; everybody else has the `Fence`.
fn signals_after(ms: u64, signaler: Signaler) {
    spawn(move || {
        sleep(Duration::from_millis(ms));
        signaler.signal(Ok(()));
    });
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let executor = Executor::global();
    let context = FenceContext::new(&executor, Names { driver: "example", timeline: "camera" })?;
    // Allocating may fail; publishing gives the fence its place in the context's order, and cannot.
    let issue = || context.allocate().map(|fence| fence.publish());

    // 1. Block. Every wait has an end, and says why it ended.
    let (signaler, frame) = issue()?;
    println!("pending: a wait of 1 ms says {:?}", frame.wait(Duration::from_millis(1)));
    signals_after(5, signaler);
    frame.wait(SOON)?;
    println!("blocked until {} was signaled", frame.id());
    let first = frame;

    // 2. Await. The future allocates nothing, and any async executor will do.
    let (signaler, frame) = issue()?;
    signals_after(5, signaler);
    block_on(frame)?;
    println!("awaited");

    // 3. Be called. Closures run on the executor's notify lane, never inside the signal, so they may lock and allocate.
    let (signaler, frame) = issue()?;
    let (told, hears) = std::sync::mpsc::channel();
    let registration = frame.on_signaled(move |result| _ = told.send(result))?;
    registration.keep(); // or drop it, to be called no more
    signaler.signal(Ok(()));
    println!("called with {:?}", hears.recv_timeout(SOON)?);

    // 4. Several as one.
    let ((left, left_eye), (right, right_eye)) = (issue()?, issue()?);
    let both = Fence::all_of(&[left_eye.clone(), right_eye.clone()])?;
    let either = Fence::any_of(&[left_eye, right_eye])?;
    left.signal(Ok(()));
    println!("one of two: any of {}, all of {}", either.is_signaled(), both.is_signaled());
    right.signal(Ok(()));
    both.wait(SOON)?;

    // 5. A producer that dies signals with an error; nobody hangs.
    let (signaler, frame) = issue()?;
    drop(signaler);
    println!("producer dropped: {:?}", frame.status());
    assert!(matches!(frame.status(), Status::Signaled(Err(FenceError::Canceled))));

    across_processes(&executor, issue()?)?;

    // 6. A fence does not need who issued it any more.
    drop(context);
    println!("context gone: {} of `{}` still says {:?}", first.id(), first.timeline_name(), first.status());
    Ok(())
}

/// A fence as a descriptor: `poll` it, pass it on. It keeps its promise even if this process is killed.
#[cfg(all(feature = "linux", target_os = "linux"))]
fn across_processes(
    executor: &Executor,
    (signaler, frame): (Signaler, Fence),
) -> Result<(), Box<dyn std::error::Error>> {
    let descriptor = outlive::linux::export(&frame)?; // give this to the other process
    let watcher = outlive::linux::Watcher::with_thread(executor)?; // there: one thread for any number of them
    let theirs = watcher.import(&descriptor)?;
    signaler.signal(Ok(()));
    theirs.wait(SOON)?;
    println!("imported: {:?}", theirs.status());
    Ok(())
}

#[cfg(not(all(feature = "linux", target_os = "linux")))]
fn across_processes(_: &Executor, (signaler, _): (Signaler, Fence)) -> Result<(), Box<dyn std::error::Error>> {
    signaler.signal(Ok(()));
    println!("without the feature `linux`: nothing across processes");
    Ok(())
}

/// The smallest async executor there is: one future, one thread.
fn block_on<F: IntoFuture>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(current())));
    let mut future = pin!(future.into_future());
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => park(),
        }
    }
}

#[test]
fn runs() -> Result<(), Box<dyn std::error::Error>> {
    main()
}
