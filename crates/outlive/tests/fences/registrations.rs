//! Closures on fences: run once, removed, kept or dropped.

use super::*;

#[test]
fn say_signaled_before_and_callbacks_done_after() {
    let executor = manual();
    let (signaler, fence) = alone(&executor);
    let seen = Arc::new(Mutex::new(None));
    let (into, this) = (seen.clone(), fence.clone());
    // Harmless: reads a fence and writes a word under a lock nobody else holds.
    on_signal(&fence, move |_| *into.lock().unwrap() = Some((this.is_signaled(), this.callbacks_done()))).keep();
    let runs = Arc::new(AtomicUsize::new(0));
    fence.on_signaled(counting(&runs)).unwrap().keep();
    assert!(!fence.is_signaled() && !fence.callbacks_done());
    signaler.signal(Ok(()));
    assert_eq!(*seen.lock().unwrap(), Some((true, false)), "signaled, and its callbacks being acted on");
    assert!(fence.callbacks_done(), "handed over is done");
    assert_eq!(runs.load(SeqCst), 0, "run is the notify lane's");
    assert!(executor.notify());
    assert_eq!(runs.load(SeqCst), 1);
    assert!(!executor.notify());
}

#[test]
fn run_in_the_order_they_were_made_and_are_told_the_result() {
    let executor = manual();
    let (signaler, fence) = alone(&executor);
    let order = Arc::new(Mutex::new(Vec::new()));
    for turn in 0..5 {
        let order = order.clone();
        fence.on_signaled(move |result| order.lock().unwrap().push((turn, result))).unwrap().keep();
    }
    signaler.signal(Err(FAULT));
    executor.notify();
    let expected: Vec<_> = (0..5).map(|turn| (turn, Err(FAULT))).collect();
    assert_eq!(*order.lock().unwrap(), expected);
}

#[test]
fn late_are_refused_and_the_closure_comes_back() {
    let executor = manual();
    let (signaler, fence) = alone(&executor);
    signaler.signal(Ok(()));
    let runs = Arc::new(AtomicUsize::new(0));
    let refused = fence.on_signaled(counting(&runs)).unwrap_err();
    assert_eq!(refused.to_string(), "the fence has signaled: act on it at once");
    let Refused::AlreadySignaled(closure) = refused else { panic!("{refused:?}") };
    executor.run_until_idle();
    assert_eq!(runs.load(SeqCst), 0, "not called behind one's back");
    closure(Ok(()));
    assert_eq!(runs.load(SeqCst), 1);
    let inline = Short(counting(&runs));
    assert!(matches!(fence.on_signal(inline), Err(Refused::AlreadySignaled(_))));
}

#[test]
fn dropped_take_the_closure_out_and_drop_it() {
    let executor = manual();
    let (signaler, fence) = alone(&executor);
    let runs = Arc::new(AtomicUsize::new(0));
    let registration = fence.on_signaled(counting(&runs)).unwrap();
    assert_eq!(Arc::strong_count(&runs), 2);
    drop(registration);
    assert_eq!(Arc::strong_count(&runs), 1);
    signaler.signal(Ok(()));
    assert!(!executor.notify());
    assert_eq!(runs.load(SeqCst), 0);
}

#[test]
fn kept_run_after_their_handle_is_gone() {
    let executor = manual();
    let (signaler, fence) = alone(&executor);
    let runs = Arc::new(AtomicUsize::new(0));
    fence.on_signaled(counting(&runs)).unwrap().keep();
    drop(fence);
    signaler.signal(Ok(()));
    executor.notify();
    assert_eq!((runs.load(SeqCst), Arc::strong_count(&runs)), (1, 1));
}

#[test]
fn detached_or_removed_in_time_do_not_run() {
    let executor = manual();
    for remove in [false, true] {
        let take = |registration: Registration| {
            if remove { registration.remove().unwrap() } else { registration.detach() }
        };
        let (signaler, fence) = alone(&executor);
        let runs = Arc::new(AtomicUsize::new(0));
        let on_the_fence = fence.on_signaled(counting(&runs)).unwrap();
        let on_the_lane = fence.on_signaled(counting(&runs)).unwrap();
        let has_run = fence.on_signaled(counting(&runs)).unwrap();
        assert!(take(on_the_fence));
        signaler.signal(Ok(()));
        assert!(take(on_the_lane), "handed over is not begun");
        assert_eq!(Arc::strong_count(&runs), 2, "both closures are gone");
        assert!(executor.notify());
        assert_eq!(runs.load(SeqCst), 1);
        assert!(!take(has_run), "too late");
        assert_eq!(Arc::strong_count(&runs), 1);
    }
}

/// A closure that runs on the notify lane of `executor` until it is told to end.
fn running(executor: &Executor) -> (Registration, mpsc::Sender<()>, Arc<AtomicBool>) {
    let (signaler, fence) = alone(executor);
    let ((began, has_begun), (end, may_end)) = (mpsc::channel(), mpsc::channel());
    let ended = Arc::new(AtomicBool::new(false));
    let at_end = ended.clone();
    let registration = fence
        .on_signaled(move |_| {
            began.send(()).unwrap();
            may_end.recv().unwrap();
            at_end.store(true, SeqCst);
        })
        .unwrap();
    signaler.signal(Ok(()));
    has_begun.recv().unwrap();
    (registration, end, ended)
}

#[test]
fn removed_wait_for_a_running_closure() {
    let executor = Executor::builder().threads().unwrap();
    let (registration, end, ended) = running(&executor);
    thread::scope(|scope| {
        let remover = scope.spawn(|| {
            let answer = registration.remove();
            (answer, ended.load(SeqCst))
        });
        thread::sleep(Duration::from_millis(20));
        assert!(!remover.is_finished());
        end.send(()).unwrap();
        assert_eq!(remover.join().unwrap(), (Ok(false), true), "it ran, and to its end");
    });
}

#[test]
fn detached_or_dropped_do_not_wait_for_a_running_closure() {
    let executor = Executor::builder().threads().unwrap();
    let (registration, end, ended) = running(&executor);
    assert!(!registration.detach());
    assert!(!ended.load(SeqCst));
    end.send(()).unwrap();
    let (registration, end, ended) = running(&executor);
    drop(registration);
    assert!(!ended.load(SeqCst));
    end.send(()).unwrap();
    until(|| ended.load(SeqCst));
}

#[test]
fn removed_inside_their_own_closure_are_refused() {
    check::set_reporter(false);
    let executor = manual();
    let (signaler, fence) = alone(&executor);
    let slot = Arc::new(Mutex::new(None::<Registration>));
    let answer = Arc::new(Mutex::new(None));
    let (own, into) = (slot.clone(), answer.clone());
    let registration = fence
        .on_signaled(move |_| {
            let registration = own.lock().unwrap().take().unwrap();
            *into.lock().unwrap() = Some(registration.remove());
        })
        .unwrap();
    *slot.lock().unwrap() = Some(registration);
    signaler.signal(Ok(()));
    executor.notify();
    assert_eq!(*answer.lock().unwrap(), Some(Err(WaitError::InCallback)));
    assert_eq!(check::take_report().unwrap().violation, Violation::WaitedInCallback);
}

#[test]
fn detached_inside_their_own_closure_say_it_is_too_late() {
    let executor = manual();
    let (signaler, fence) = alone(&executor);
    let slot = Arc::new(Mutex::new(None::<Registration>));
    let answer = Arc::new(Mutex::new(None));
    let (own, into) = (slot.clone(), answer.clone());
    let registration = fence
        .on_signaled(move |_| {
            let registration = own.lock().unwrap().take().unwrap();
            *into.lock().unwrap() = Some(registration.detach());
        })
        .unwrap();
    *slot.lock().unwrap() = Some(registration);
    signaler.signal(Ok(()));
    executor.notify();
    assert_eq!(*answer.lock().unwrap(), Some(false));
}

#[test]
fn removed_in_a_signalling_section_are_refused_and_reported() {
    check::set_reporter(false);
    let executor = manual();
    let (_signaler, fence) = alone(&executor);
    let runs = Arc::new(AtomicUsize::new(0));
    let registration = fence.on_signaled(counting(&runs)).unwrap();
    let section = check::signalling();
    let line = line!() + 1;
    let refused = registration.remove();
    drop(section);
    assert_eq!(refused, Err(WaitError::InSignallingSection));
    let report = check::take_report().unwrap();
    assert_eq!((report.violation, report.at.line()), (Violation::Waited, line));
}

#[test]
fn whose_removal_is_refused_stay() {
    check::set_reporter(false);
    let executor = manual();
    let (signaler, fence) = alone(&executor);
    let runs = Arc::new(AtomicUsize::new(0));
    let registration = fence.on_signaled(counting(&runs)).unwrap();
    let section = check::signalling();
    assert_eq!(registration.remove(), Err(WaitError::InSignallingSection));
    drop(section);
    let _ = check::take_report();
    signaler.signal(Ok(()));
    executor.notify();
    assert_eq!(runs.load(SeqCst), 1, "\"the closure is left as it is then\"");
}

#[test]
fn inline_run_in_the_signal_itself() {
    let executor = manual();
    let (signaler, fence) = alone(&executor);
    let runs = Arc::new(AtomicUsize::new(0));
    // Harmless: one atomic addition.
    on_signal(&fence, counting(&runs)).keep();
    let taken_out = on_signal(&fence, counting(&runs));
    assert!(taken_out.detach());
    signaler.signal(Ok(()));
    assert_eq!((runs.load(SeqCst), Arc::strong_count(&runs)), (1, 1));
    assert!(!executor.notify(), "nothing was left to the lane");
}

#[test]
fn that_panic_count_as_finished_and_the_next_still_runs() {
    let executor = manual();
    let (signaler, fence) = alone(&executor);
    let runs = Arc::new(AtomicUsize::new(0));
    let panics = fence.on_signaled(|_| panic!("on purpose")).unwrap();
    fence.on_signaled(counting(&runs)).unwrap().keep();
    signaler.signal(Ok(()));
    let caught = std::panic::catch_unwind(core::panic::AssertUnwindSafe(|| executor.notify()));
    assert!(caught.is_err());
    assert_eq!(panics.remove(), Ok(false), "and removing it does not wait for ever");
    executor.notify();
    assert_eq!(runs.load(SeqCst), 1);
}

#[test]
fn that_panic_on_a_thread_end_that_thread_and_not_the_lane() {
    let executor = Executor::builder().threads().unwrap();
    let runs = Arc::new(AtomicUsize::new(0));
    for turn in 1..=3 {
        let (signaler, fence) = alone(&executor);
        fence.on_signaled(|_| panic!("on purpose")).unwrap().keep();
        fence.on_signaled(counting(&runs)).unwrap().keep();
        signaler.signal(Ok(()));
        until(|| runs.load(SeqCst) == turn);
    }
}
