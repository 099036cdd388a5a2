//! Unplugging, resets and suspensions while queues go away.

use super::*;

#[test]
fn unplug_ends_everything_and_another_device_can_be_opened() {
    let rig = Rig::new();
    let queue = rig.queue(QueueConfig::new("q").credits(1));
    let running = queue.reserve(rig.buffers(1)).unwrap().commit();
    let waiting = queue.reserve(rig.buffers(2)).unwrap().commit();
    rig.device.unplug();
    rig.idle();
    assert_eq!(error(&running.finished()), Some(FenceError::DeviceLost));
    assert_eq!(error(&waiting.finished()), Some(FenceError::DeviceLost));
    assert!(ok(&running.retired()) && ok(&waiting.retired()), "the driver excluded DMA");
    assert_eq!(queue.reserve(rig.buffers(3)).unwrap_err().kind, Refusal::DeviceLost);
    assert_eq!(rig.live.alive(), 0);
    let other = Rig::on(rig.executor.clone(), true);
    let fresh = other.queue(QueueConfig::new("q"));
    // A dependency on the lost device's job: of nobody's client, so it runs in spite of the error.
    let job = fresh.reserve_after(other.buffers(1), [waiting.finished()]).unwrap().commit();
    assert!(ok(&job.finished()));
    drop((queue, fresh));
    all_gone(other);
    all_gone(rig);
}

#[test]
fn a_device_reset_costs_the_innocent_only_what_was_on_the_hardware() {
    let rig = Rig::new();
    let guilty = rig.queue(QueueConfig::new("guilty").timeout(10 * MS));
    let innocent = rig.queue(QueueConfig::new("innocent").credits(1));
    rig.gpu().script(|script| script.timed_out = Some(Box::new(|_| Verdict::Reset(ResetScope::Device))));
    let hung = guilty.reserve(rig.buffers(1)).unwrap().commit();
    let running = innocent.reserve(rig.buffers(2)).unwrap().commit();
    let waiting = innocent.reserve(rig.buffers(3)).unwrap().commit();
    rig.pass_ms(11);
    assert_eq!(error(&hung.finished()), Some(FenceError::TimedOut));
    assert_eq!(error(&running.finished()), Some(FenceError::Innocent));
    assert!(ok(&waiting.scheduled()) && pending(&waiting.finished()), "what had not started survives and goes on");
    assert_eq!(rig.device.resets(), 1);
    rig.complete(&innocent, 2, Ok(()));
    assert!(ok(&waiting.retired()));
    drop((guilty, innocent));
    all_gone(rig);
}

#[test]
fn a_reset_that_takes_its_time_holds_starts_back_and_its_watchdog_ends_it() {
    let rig = Rig::new();
    let token = Arc::new(Mutex::new(None));
    let keep = token.clone();
    rig.gpu().script(|script| script.reset = Some(Box::new(move |_, reset| *keep.lock().unwrap() = Some(reset))));
    let queue = rig.queue(QueueConfig::new("q"));
    rig.device.reset();
    rig.idle();
    let job = queue.reserve(rig.buffers(1)).unwrap().commit();
    rig.idle();
    assert!(pending(&job.scheduled()), "nothing starts behind a reset's back");
    let young = rig.queue(QueueConfig::new("made meanwhile"));
    let early = young.reserve(rig.buffers(9)).unwrap().commit();
    assert!(pending(&early.scheduled()), "nor on a queue made meanwhile");
    token.lock().unwrap().take().unwrap().quiesced();
    rig.idle();
    assert!(ok(&job.scheduled()) && ok(&early.scheduled()));
    // The second one never answers.
    let keep = token.clone();
    rig.gpu().script(|script| script.reset = Some(Box::new(move |_, reset| *keep.lock().unwrap() = Some(reset))));
    rig.device.reset();
    rig.pass_ms(999);
    assert!(!rig.device.is_lost());
    rig.pass_ms(2);
    assert!(rig.device.is_lost());
    assert_eq!(error(&job.finished()), Some(FenceError::DeviceLost));
    token.lock().unwrap().take().unwrap().quiesced();
    rig.idle();
    assert!(ok(&job.retired()), "unplugging excluded DMA; the late answer changed nothing");
    drop((queue, young));
    all_gone(rig);
}

#[test]
fn a_reset_during_a_suspension_does_not_hold_the_queue_for_ever() {
    let rig = Rig::new();
    let queue = rig.queue(QueueConfig::new("q").suspend_limit(10 * MS));
    queue.suspend();
    rig.pass_ms(11);
    rig.device.reset();
    rig.idle();
    queue.resume();
    let job = queue.reserve(rig.buffers(1)).unwrap().commit();
    rig.idle();
    assert!(ok(&job.scheduled()));
    drop(queue);
    all_gone(rig);
}

#[test]
fn a_suspension_that_begins_while_the_driver_is_asked_ends_like_any_other() {
    let rig = Rig::new();
    let config = QueueConfig::new("q").credits(1).timeout(5 * MS).suspend_limit(10 * MS);
    let queue = Arc::new(rig.queue(config));
    let running = queue.reserve(rig.buffers(1)).unwrap().commit();
    let waiting = queue.reserve(rig.buffers(2)).unwrap().commit();
    let handle = Mutex::new(Some(queue.clone()));
    rig.gpu().script(|script| {
        script.timed_out = Some(Box::new(move |_| {
            // Any context may suspend: another thread, while this one is in here, or this one.
            if let Some(queue) = handle.lock().unwrap().take() {
                queue.suspend();
            }
            Verdict::KeepWaiting(1000 * MS)
        }));
    });
    rig.pass_ms(6);
    assert!(rig.gpu().calls().contains(&Call::TimedOut(1)));
    rig.complete(&queue, 1, Ok(()));
    rig.pass_ms(8);
    assert!(ok(&running.finished()) && !waiting.finished().is_signaled());
    rig.pass_ms(2);
    assert_eq!(error(&waiting.finished()), Some(FenceError::TimedOut), "the suspension lasted too long");
    drop(queue);
    all_gone(rig);
}

#[test]
fn a_suspension_that_begins_while_the_driver_is_asked_keeps_its_drain_time_whatever_the_answer() {
    let rig = Rig::new();
    let queue = Arc::new(rig.queue(QueueConfig::new("q").timeout(5 * MS).drain_timeout(20 * MS)));
    let running = queue.reserve(rig.buffers(1)).unwrap().commit();
    let handle = Mutex::new(Some(queue.clone()));
    rig.gpu().script(|script| {
        script.timed_out = Some(Box::new(move |_| match handle.lock().unwrap().take() {
            Some(queue) => {
                queue.suspend();
                Verdict::KeepWaiting(1000 * MS)
            }
            None => Verdict::Fail,
        }));
    });
    rig.pass_ms(24);
    assert!(pending(&running.finished()), "asked at 5 ms, and to be drained within 20 ms from then");
    rig.pass_ms(2);
    assert_eq!(error(&running.finished()), Some(FenceError::TimedOut), "the answer moved the drain time");
    drop(queue);
    all_gone(rig);
}
