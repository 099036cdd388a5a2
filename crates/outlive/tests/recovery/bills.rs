//! Only the guilty pays: for the time a reset takes, and for what it costs those who were on the hardware.

use crate::common::{Queue, Rig, error, ok};
use outlive::sched::{Arbiter, ArbiterConfig};
use outlive::{Charges, DeviceConfig, Executor, FenceError, Job, Principal, QueueConfig, ResetScope, Verdict};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);

struct Court {
    rig: Rig,
    arbiter: Arbiter,
    victim: Queue,
    hog: Queue,
    /// Of the hog's group, if it has one.
    mate: Queue,
    users: [Principal; 2],
}

/// A victim's job from 0 to 110 ms, the hog's from 10 ms, which hangs; at 110 ms the device is reset, which takes until 115.
fn court(engines: u32, hogs_group: u64) -> Court {
    let rig = Rig::with(Executor::manual().unwrap(), DeviceConfig::new("fake"), false);
    let arbiter = Arbiter::new(&rig.executor, ArbiterConfig::new(2).engines(engines)).unwrap();
    let users = [0; 2].map(|_| Principal::new(Charges::UNLIMITED).unwrap());
    let config = |name, user: &Principal| QueueConfig::new(name).arbiter(&arbiter).principal(user.clone()).credits(1);
    let victim = rig.queue(config("victim", &users[0]).timeout(Duration::ZERO));
    let hog = rig.queue(config("hog", &users[1]).group(hogs_group).timeout(Duration::ZERO));
    let mate = rig.queue(config("mate", &users[1]).group(hogs_group).timeout(Duration::ZERO));
    let token = Arc::new(Mutex::new(None));
    let held = token.clone();
    rig.gpu().script(|script| {
        script.timed_out = Some(Box::new(|_| Verdict::Reset(ResetScope::Device)));
        script.reset = Some(Box::new(move |_, token| *held.lock().unwrap() = Some(token)));
    });
    let lost = victim.reserve(rig.buffers(1)).unwrap().commit();
    rig.pass_ms(10);
    let hung = hog.reserve(Job::new(rig.buffers(2)).timeout(100 * MS)).unwrap().commit();
    rig.pass_ms(105);
    let token = token.lock().unwrap().take().expect("it was asked for a reset");
    token.quiesced();
    rig.idle();
    assert_eq!(
        (error(&lost.finished()), error(&hung.finished())),
        (Some(FenceError::Innocent), Some(FenceError::TimedOut))
    );
    Court { rig, arbiter, victim, hog, mate, users }
}

#[test]
fn what_is_charged_adds_up_to_what_the_engines_had_to_give() {
    // One engine: before the hog came, 10 ms were the victim's. Two: it had one of them all the time.
    for (engines, lost_ms) in [(1, 10), (2, 110)] {
        let court = court(engines, 0);
        let [victim, hog] = court.users.each_ref().map(Principal::usage);
        assert_eq!((victim.fined(), hog.fined()), (Duration::ZERO, (5 + lost_ms) * MS));
        assert_eq!((victim.active(), hog.active()), (110 * MS, 100 * MS), "nobody was active in the reset");
        assert_eq!(court.hog.usage().fined(), hog.fined());
        assert_eq!(court.arbiter.status().credits_free, 2);
    }
}

/// How many jobs of 1 ms the victim gets before `other` gets one, if both always have one ready and one may run at a time.
fn head_start(court: &Court, other: &Queue) -> u32 {
    let rig = &court.rig;
    // One of the two credits goes to another device, for ever.
    let elsewhere = Rig::with(rig.executor.clone(), DeviceConfig::new("elsewhere"), false);
    let pinned = elsewhere.queue(QueueConfig::new("pin").arbiter(&court.arbiter).credits(1).timeout(Duration::ZERO));
    let pin = pinned.reserve(elsewhere.buffers(1)).unwrap().commit();
    assert!(ok(&pin.scheduled()));
    let mut numbers = [&court.victim, other].map(|queue| u64::from(queue.id() != court.mate.id()));
    for queue in [&court.victim, other] {
        for _ in 0..400 {
            queue.reserve(rig.buffers(3)).unwrap().commit();
        }
    }
    let mut had = [0, 0];
    while had[1] == 0 {
        rig.pass_ms(1);
        for (at, queue) in [&court.victim, other].into_iter().enumerate() {
            let hardware = queue.id() * 1_000_000 + numbers[at] + 1;
            if rig.gpu().held.complete(hardware, Ok(())) {
                numbers[at] += 1;
                had[at] += 1;
            }
        }
        rig.idle();
    }
    drop(pinned);
    had[0]
}

#[test]
fn the_victim_is_served_until_it_has_had_what_the_hog_and_its_reset_took() {
    for engines in [1, 2] {
        // The hog had 100 ms and pays 5 for the reset; the victim's 110 ms are lost, of which it pays as much as there was.
        let due = if engines == 1 { 115 } else { 215 };
        let court = court(engines, 0);
        let ahead = head_start(&court, &court.hog);
        assert!((due - 6..=due + 1).contains(&ahead), "{engines} engines: {ahead} jobs of 1 ms, due are {due}");
    }
}

#[test]
fn a_group_pays_for_its_member() {
    let court = court(1, 9);
    let ahead = head_start(&court, &court.mate);
    assert!((109..=116).contains(&ahead), "{ahead} jobs of 1 ms, due are 115");
}

#[test]
fn a_reset_that_nobody_is_to_blame_for_costs_nobody_anything() {
    let rig = Rig::new();
    let user = Principal::new(Charges::UNLIMITED).unwrap();
    let queue = rig.queue(QueueConfig::new("q").principal(user.clone()));
    let job = queue.reserve(rig.buffers(1)).unwrap().commit();
    rig.pass_ms(30);
    rig.device.reset();
    rig.idle();
    assert_eq!(error(&job.finished()), Some(FenceError::Innocent));
    assert_eq!((user.usage().fined(), user.usage().active(), user.usage().offences()), (Duration::ZERO, 30 * MS, 0));
    // A completion that the driver dropped is the driver's fault.
    rig.gpu().script(|script| {
        script.run = Some(Box::new(|_, _, done| {
            drop(done);
            None
        }));
    });
    queue.reserve(rig.buffers(1)).unwrap().commit();
    rig.pass_ms(3_000);
    assert_eq!((rig.device.resets(), user.usage().fined(), user.usage().offences()), (2, Duration::ZERO, 0));
}

#[test]
fn two_who_hang_share_the_reset() {
    let rig = Rig::new();
    let token = Arc::new(Mutex::new(None));
    let held = token.clone();
    rig.gpu().script(|script| {
        script.timed_out = Some(Box::new(|_| Verdict::Reset(ResetScope::Device)));
        script.reset = Some(Box::new(move |_, token| *held.lock().unwrap() = Some(token)));
    });
    let queues = [10, 20].map(|ms| rig.queue(QueueConfig::new("q").timeout(ms * MS)));
    for queue in &queues {
        queue.reserve(rig.buffers(1)).unwrap().commit();
    }
    // The second one's time is over while the first one's reset is under way.
    rig.pass_ms(40);
    token.lock().unwrap().take().unwrap().quiesced();
    rig.idle();
    assert_eq!(rig.device.resets(), 1, "it was for both");
    assert_eq!(queues.each_ref().map(|queue| queue.usage().fined()), [15 * MS; 2], "30 ms of reset");
    assert_eq!(queues.each_ref().map(|queue| queue.usage().active()), [10 * MS; 2]);
}
