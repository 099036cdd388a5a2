//! A thread for each lane. They end by themselves when their executor has neither handles nor objects; a panic of foreign
//! code on a lane ends that thread and starts another in its place.

use super::Lane;
use super::hub::Hub;
use crate::mem::shared::Ref;
use crate::sync;
use crate::time::Time;
use core::time::Duration;

/// How long a reaper that was just busy looks again by itself, so that a queue in steady use wakes nobody.
const LINGER: Duration = Duration::from_millis(2);

/// Starts the three threads; false when the system refuses one (those that run then end with the executor).
pub(super) fn start(hub: &Ref<Hub>) -> bool {
    [Lane::Signalling, Lane::Notify, Lane::Reaper].into_iter().all(|lane| start_lane(hub.clone(), lane))
}

fn start_lane(hub: Ref<Hub>, lane: Lane) -> bool {
    let name = match lane {
        Lane::Signalling => "outlive-signal",
        Lane::Notify => "outlive-notify",
        Lane::Reaper => "outlive-reaper",
    };
    sync::spawn(name, move || run(&hub, lane))
}

fn run(hub: &Ref<Hub>, lane: Lane) {
    let replace = ReplaceOnPanic { hub, lane };
    loop {
        let busy = hub.run_lane(lane);
        if hub.is_finished() {
            break;
        }
        match lane {
            Lane::Signalling => hub.sleep(lane, hub.timers.next(), false),
            Lane::Reaper if busy => hub.sleep(lane, hub.now().after(LINGER), true),
            Lane::Notify | Lane::Reaper => hub.sleep(lane, Time::NEVER, false),
        }
    }
    // What made this one finished may have been seen by this one only.
    for other in [Lane::Signalling, Lane::Notify, Lane::Reaper] {
        hub.kick(other);
    }
    core::mem::forget(replace);
}

struct ReplaceOnPanic<'a> {
    hub: &'a Ref<Hub>,
    lane: Lane,
}

impl Drop for ReplaceOnPanic<'_> {
    fn drop(&mut self) {
        // Only reached by unwinding: foreign code on this lane panicked. Its work item is done with; the others go on.
        let _ = start_lane(self.hub.clone(), self.lane);
    }
}
