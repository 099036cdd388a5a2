//! Executes a scenario, or the requests of a trace, on the simulated GPU. Used by `outlive run` and `outlive replay`.
//!
//! ```text
//!   scenario ──▶ Engine ──submit, kill, close──▶ outlive on the simulated GPU
//!                 ▲ │ ▲                             │
//!      agenda ────┘ │ └── inbox ◀── fences' closures ┘
//!                   └──▶ ledger ──▶ records, frames, results
//! ```
//!
//! `script` decides what a client does next, `agenda` keeps what is due, `cycles` knows what those depend on who are `after`
//! another, `life` holds one incarnation's jobs, `ledger` writes down what is over. The `Engine` carries their decisions
//! out (`clients`, `submit`) on one thread; `clock` gives it time, virtual or real. Fences call nothing of it: they leave a
//! note in the `inbox`, whose lock is a leaf.

mod agenda;
mod clients;
mod clock;
mod cycles;
mod film;
mod inbox;
mod ledger;
mod life;
mod pace;
mod results;
mod script;
mod submit;
mod words;

use alloc::sync::Arc;
use core::sync::atomic::AtomicBool;

use outlive::sched::Arbiter;
use outlive::{Charges, Principal};
use outlive_sim::driver::SimHost;
use outlive_sim::gpu::rng::Rng;

use agenda::{Agenda, What};
use clients::Instance;
use film::Film;
pub use film::Written;
use inbox::Inbox;
use ledger::Ledger;
use life::Life;
pub use results::Done;
pub use script::Request;
use script::Script;
pub use submit::command_bytes;

use crate::args::Clock;
use crate::error::Stop;
use crate::frames::FrameWriter;
use crate::progress::Progress;
use crate::report::Collector;
use crate::scenario::Scenario;
use crate::scenario::model::{Action, ClientAction};
use crate::timeline::{Life as LifeSpan, Moment};

const NS_PER_MS: u64 = 1_000_000;
const NS_PER_US: u64 = 1000;

/// How to run.
#[derive(Debug)]
pub struct Options<'a> {
    /// In which time.
    pub clock: Clock,
    /// Whether to keep every job's record, for a timeline.
    pub keep_jobs: bool,
    /// What each instance submits, instead of its client's loop.
    pub requests: Option<&'a [Vec<Request>]>,
    /// Where frames go, if anywhere.
    pub frames: Option<FrameWriter>,
    /// How far it is.
    pub progress: Progress,
    /// Set from outside to end the run early: what is committed runs out.
    pub interrupted: &'a AtomicBool,
}

/// Runs `scenario` to its end.
///
/// # Errors
///
/// The device or a thread could not be made; nothing was run then.
pub fn execute(scenario: &Scenario, mut options: Options<'_>) -> Result<Done, Stop> {
    let cannot = |why: &dyn core::fmt::Display| Stop::cannot_run(format_args!("outlive: the simulated GPU: {why}"));
    let host = SimHost::new(words::host_config(scenario, options.clock)).map_err(|error| cannot(&error))?;
    let arbiter = words::arbiter(scenario, host.executor()).map_err(|error| cannot(&error))?;
    let names = scenario.instances.iter().map(|instance| instance.name.clone()).collect();
    // Last, since it starts a thread.
    let film = options.frames.take().map(|frames| Film::start(frames, names));
    let film = film.transpose().map_err(|error| cannot(&error))?;
    let principals = scenario.instances.iter().map(|_| Principal::new(Charges::UNLIMITED)).collect::<Result<_, _>>();
    let principals = principals.map_err(|error| cannot(&error))?;
    let mut engine = Engine::new(scenario, &options, Made { host, arbiter, principals, film });
    engine.fill_agenda();
    engine.run(options.clock, options.interrupted, &options.progress);
    Ok(engine.finish(options.clock))
}

/// What a run is made with, and may be refused.
struct Made {
    host: SimHost,
    arbiter: Option<Arbiter>,
    /// One for each instance.
    principals: Vec<Principal>,
    film: Option<Film>,
}

/// A run under way.
struct Engine<'a> {
    scenario: &'a Scenario,
    requests: Option<&'a [Vec<Request>]>,
    host: SimHost,
    /// Chooses who is next, in arbiter mode.
    arbiter: Option<Arbiter>,
    inbox: Arc<Inbox>,
    agenda: Agenda,
    instances: Vec<Instance<'a>>,
    /// Clients that left with jobs that have not retired, and whose they were.
    leaving: Vec<(usize, Life)>,
    ledger: Ledger<'a>,
    /// The start of the run, on the host's clock.
    epoch_ns: u64,
    /// Nobody begins a cycle any more.
    ending: bool,
    interrupted: bool,
    draws: bool,
    spans: Vec<LifeSpan>,
    moments: Vec<Moment>,
    resets_seen: u64,
    /// Jobs that were over when that last changed, and when.
    last_progress: (u64, u64),
}

impl<'a> Engine<'a> {
    fn new(scenario: &'a Scenario, options: &Options<'a>, made: Made) -> Self {
        let Made { host, arbiter, principals, film } = made;
        let latency_ns = match options.clock {
            Clock::Virtual => scenario.submit_latency_us * NS_PER_US,
            // There it costs what it costs.
            Clock::Real => 0,
        };
        let mut seeds = Rng::new(scenario.seed);
        let mut script = |instance: usize| {
            let (client, seed) = (scenario.client_of(instance), seeds.next_u64());
            match options.requests {
                Some(requests) => Script::replaying(client, requests.get(instance).map_or(&[][..], Vec::as_slice)),
                None => Script::new(client, latency_ns, seed),
            }
        };
        let mut instances: Vec<Instance<'a>> = principals
            .into_iter()
            .enumerate()
            .map(|(instance, principal)| Instance::new(scenario.client_of(instance), script(instance), principal))
            .collect();
        for instance in 0..instances.len() {
            if let Some(leader) = scenario.instances[instance].after {
                instances[leader].followers.push(instance);
            }
        }
        let (epoch_ns, draws) = (host.now().as_ns(), film.is_some());
        let ledger = Ledger::new(Collector::new(scenario), instances.len(), options.keep_jobs, film, epoch_ns);
        Self {
            scenario,
            requests: options.requests,
            host,
            arbiter,
            inbox: Arc::new(Inbox::default()),
            agenda: Agenda::default(),
            instances,
            leaving: Vec::new(),
            ledger,
            epoch_ns,
            ending: false,
            interrupted: false,
            draws,
            spans: Vec::new(),
            moments: Vec::new(),
            resets_seen: 0,
            last_progress: (0, 0),
        }
    }

    /// Since the start of the run.
    fn now_ns(&self) -> u64 {
        self.host.now().as_ns().saturating_sub(self.epoch_ns)
    }

    fn fill_agenda(&mut self) {
        for instance in 0..self.instances.len() {
            let client = self.scenario.client_of(instance);
            self.agenda.add(client.start_ms.saturating_mul(NS_PER_MS), What::Look(instance));
            if let Some(stop_ms) = client.stop_ms {
                // Others may wait for a cycle that will not come.
                self.agenda.add(stop_ms.saturating_mul(NS_PER_MS), What::Look(instance));
            }
        }
        for event in 0..self.scenario.events.len() {
            self.schedule(event, self.scenario.events[event].at_ms);
        }
        if self.requests.is_none() {
            self.agenda.add(self.scenario.run_for_ms.saturating_mul(NS_PER_MS), What::End);
        }
    }

    /// Events after the end of submissions would meet a run that only ends.
    fn schedule(&mut self, event: usize, at_ms: u64) {
        if at_ms <= self.scenario.run_for_ms {
            let instance = match &self.scenario.events[event].action {
                Action::Client { target, .. } => target.instance,
                Action::Unplug | Action::Reset => What::DEVICE,
            };
            self.agenda.add(at_ms.saturating_mul(NS_PER_MS), What::Event { instance, event });
        }
    }

    /// Does all that is due. True if there was anything.
    fn do_what_is_due(&mut self, woken: &mut Vec<usize>) -> bool {
        let now_ns = self.now_ns();
        self.inbox.take(woken);
        for instance in woken.drain(..) {
            self.agenda.add(now_ns, What::Look(instance));
        }
        let mut any = false;
        while let Some(what) = self.agenda.take(now_ns) {
            any = true;
            match what {
                What::Event { event, .. } => self.happens(event),
                What::End => self.end(),
                What::Look(instance) => self.look(instance),
            }
        }
        any
    }

    fn happens(&mut self, event: usize) {
        if self.ending {
            return;
        }
        let scenario = self.scenario;
        let it = &scenario.events[event];
        match &it.action {
            Action::Unplug => {
                self.note("unplugged");
                self.host.unplug();
            }
            Action::Reset => self.host.reset(),
            Action::Client { target, action } => self.happens_to(target.instance, *action),
        }
        // In real time it may be late; it does not drift.
        let late_ms = (self.now_ns() / NS_PER_MS).saturating_sub(it.at_ms);
        if let Some(times) = late_ms.checked_div(it.every_ms) {
            self.schedule(event, it.at_ms + (times + 1) * it.every_ms);
        }
    }

    fn happens_to(&mut self, instance: usize, action: ClientAction) {
        match action {
            ClientAction::Kill => self.leave(instance, clients::Manner::Killed),
            ClientAction::Close => self.leave(instance, clients::Manner::Closed),
            ClientAction::Start => self.come(instance),
            ClientAction::Suspend | ClientAction::Resume => self.suspend(instance, action == ClientAction::Suspend),
            ClientAction::SetPriority(priority) => {
                if let Some(client) = self.instances[instance].client() {
                    client.queue().set_priority(words::priority(priority));
                }
            }
            ClientAction::SetWeight(weight) => {
                if let Some(client) = self.instances[instance].client() {
                    // A scenario's weights are in range.
                    let _ = client.queue().set_weight(weight);
                }
            }
        }
    }

    /// Something happened to the whole device.
    fn note(&mut self, label: &str) {
        self.moments.push(Moment { at_ns: self.now_ns(), label: label.to_owned() });
    }

    fn note_resets(&mut self) {
        let resets = self.host.resets();
        if resets > self.resets_seen {
            self.resets_seen = resets;
            self.note("reset");
        }
    }

    /// Nobody begins a cycle from here on; who is suspended is closed, since nobody would wake it.
    fn end(&mut self) {
        self.ending = true;
        for instance in 0..self.instances.len() {
            if self.instances[instance].life.as_ref().is_some_and(|life| life.suspended) {
                self.leave(instance, clients::Manner::Closed);
            }
            self.agenda.add(self.now_ns(), What::Look(instance));
        }
    }

    /// Whether nothing is left to happen.
    fn is_over(&mut self) -> bool {
        if !self.instances.iter().all(Instance::submits_nothing) {
            return false;
        }
        let next_ns = self.agenda.next_ns();
        // A trace has no end but that of its requests.
        self.ending |= self.requests.is_some() && next_ns.is_none();
        let only_the_end = next_ns == Some(self.scenario.run_for_ms.saturating_mul(NS_PER_MS));
        if !(self.ending || only_the_end) {
            return false;
        }
        self.bury();
        for instance in 0..self.instances.len() {
            self.harvest(instance);
        }
        let has_jobs = |instance: &Instance<'_>| instance.life.as_ref().is_some_and(Life::has_jobs);
        self.leaving.is_empty() && !self.instances.iter().any(has_jobs)
    }
}
