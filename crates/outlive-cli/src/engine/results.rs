//! The end of a run: what is left is let go, the hardware counts, and the figures are put together.

use outlive_sim::gpu;

use super::Engine;
use super::film::{Film, Written};
use crate::args::Clock;
use crate::report::{Audit, JobRecord, Results, RunFacts};
use crate::timeline::{Life as LifeSpan, Moment};

/// What came of a run.
#[derive(Debug)]
pub struct Done {
    /// The figures.
    pub results: Results,
    /// Every job, if that was asked for.
    pub jobs: Vec<JobRecord>,
    /// When clients were there.
    pub lives: Vec<LifeSpan>,
    /// What happened to the device.
    pub moments: Vec<Moment>,
    /// From the start to the end.
    pub elapsed_ns: u64,
    /// What came of the frames, if they were asked for.
    pub frames: Option<std::io::Result<Written>>,
}

impl Engine<'_> {
    pub(super) fn finish(mut self, clock: Clock) -> Done {
        let elapsed_ns = self.now_ns();
        self.bury();
        let mut unretired: usize = self.leaving.iter().map(|(_, life)| life.len()).sum();
        for (instance, this) in self.instances.iter().enumerate() {
            if let Some(life) = &this.life {
                unretired += life.len();
                let (evictions, restores) = life.moves();
                self.ledger.collector.client_moved(instance, evictions, restores);
                self.spans.push(LifeSpan { instance, from_ns: this.came_ns, to_ns: elapsed_ns });
            }
        }
        self.ledger.write_down(&self.host);
        // Before what the hardware found, of which there may be much.
        let mut own_words = self.compare_accounts();
        let frames = self.ledger.take_film().map(Film::finish);
        let Self { scenario, host, ledger, instances, leaving, arbiter, interrupted, spans, moments, requests, .. } =
            self;
        let replayed = requests.is_some();
        let resets = host.resets();
        let executor = host.executor().clone();
        // Clients and outputs go before the device does.
        drop((instances, leaving, arbiter));
        if unretired > 0 {
            own_words.push(format!("{unretired} jobs have not retired although nothing was left to happen"));
        }
        let counted = host.finish();
        let objects = executor.live_objects();
        if objects > 0 {
            own_words.push(format!("{objects} objects of the library live on after all handles are gone"));
        }
        let audit = in_words_of_the_contract(own_words, counted);
        let device_name = device_name(scenario.device.engines);
        let facts = RunFacts { device_name, clock, elapsed_ns, resets, interrupted, replayed, audit };
        let jobs = ledger.kept.unwrap_or_default();
        Done { results: ledger.collector.finish(facts), jobs, lives: spans, moments, elapsed_ns, frames }
    }
}

impl Engine<'_> {
    /// What the library accounts to each client must be what the hardware counted of its jobs; says where it is not, and who is
    /// banned.
    fn compare_accounts(&mut self) -> Vec<String> {
        let mut differences = Vec::new();
        for (instance, this) in self.instances.iter().enumerate() {
            if this.principal.is_banned() {
                self.ledger.collector.client_banned(instance);
            }
            let (name, hardware) = (&self.scenario.instances[instance].name, self.ledger.hardware_ns()[instance]);
            let library = this.principal.usage().active().as_nanos();
            if library != u128::from(hardware) {
                differences.push(format!(
                    "{name} had {hardware} ns of hardware time by the hardware's count, and {library} by the library's"
                ));
            }
        }
        differences
    }
}

fn device_name(engines: u32) -> String {
    format!("simulated GPU, {engines} engine{}", if engines == 1 { "" } else { "s" })
}

fn in_words_of_the_contract(own_words: Vec<String>, counted: gpu::Audit) -> Audit {
    let mut audit = Audit {
        fences_created: counted.fences_created,
        fences_signaled: counted.fences_signaled,
        fences_unsignaled: counted.fences_unsignaled,
        signaled_twice: counted.signaled_twice,
        out_of_order: counted.out_of_order,
        payloads_created: counted.payloads_created,
        payloads_released: counted.payloads_released,
        released_while_hardware_busy: counted.released_while_hardware_busy,
        conflicting_accesses: counted.conflicting_accesses,
        unexpected_page_faults: counted.unexpected_page_faults,
        leases_leaked: counted.leases_leaked,
        bytes_leaked: counted.bytes_leaked,
        quarantined_bytes: counted.quarantined_bytes,
        stale_translations: counted.stale_translations,
        violations: Vec::new(),
    };
    for violation in own_words.into_iter().chain(counted.violations) {
        audit.add_violation(violation);
    }
    audit
}
