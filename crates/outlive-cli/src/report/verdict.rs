//! The audit in plain words. Used by the table.

use super::results::Audit;
use super::style::{BOLD, GREEN, RED, Style};
use super::words::{counted, grouped, wrapped};

/// A verdict, and a line for each thing that was looked at, with an `x` before what is not as it must be.
pub(super) fn render(audit: &Audit, style: Style) -> String {
    let verdict = if audit.is_clean() { style.paint("clean", GREEN) } else { style.paint("FAILED", RED) };
    let mut text = format!("\n{}: {verdict}\n", style.paint("Audit", BOLD));
    let mut line = |good: bool, sentence: &str| {
        let wrapped = wrapped(if good { "  - " } else { "  x " }, sentence, style.text_width());
        text.push_str(&if good { wrapped } else { style.paint(&wrapped, RED) });
        text.push('\n');
    };
    for (good, sentence) in sentences(audit) {
        line(good, &sentence);
    }
    for violation in &audit.violations {
        line(false, violation);
    }
    text
}

/// What the audit looked at, and whether it was as it must be.
fn sentences(audit: &Audit) -> Vec<(bool, String)> {
    let mut sentences = Vec::new();
    let fences_good = audit.fences_created == audit.fences_signaled
        && (audit.fences_unsignaled, audit.signaled_twice, audit.out_of_order) == (0, 0, 0);
    sentences.push(if fences_good {
        (true, format!("{}: each signaled once and in order.", counted(audit.fences_created, "fence")))
    } else {
        let sentence = format!(
            "{}, {} signaled: {} never, {} twice, {} out of order.",
            counted(audit.fences_created, "fence"),
            grouped(audit.fences_signaled),
            grouped(audit.fences_unsignaled),
            grouped(audit.signaled_twice),
            grouped(audit.out_of_order),
        );
        (false, sentence)
    });
    let payloads = counted(audit.payloads_created, "payload");
    sentences.push(match (audit.payloads_created == audit.payloads_released, audit.released_while_hardware_busy) {
        (true, 0) => (true, format!("{payloads}: each released, none while the hardware could still touch it.")),
        (_, early) => {
            let released = grouped(audit.payloads_released);
            (
                false,
                format!("{payloads}, {released} released, {} while the hardware could still touch it.", grouped(early)),
            )
        }
    });
    for (count, none, some) in [
        (
            audit.conflicting_accesses,
            "No two jobs touched one page without an order between them.",
            "accesses to a page that another job was using, with no order between them.",
        ),
        (audit.unexpected_page_faults, "No page fault that was not asked for.", "page faults that were not asked for."),
        (audit.leases_leaked, "No lease on the hardware leaked.", "leases on the hardware leaked."),
        (audit.bytes_leaked, "No memory leaked.", "bytes of memory leaked."),
        (audit.quarantined_bytes, "Nothing is in quarantine.", "bytes in quarantine."),
        (audit.stale_translations, "", "uses of a translation that the page tables no longer had."),
    ] {
        // What seldom can be is told only if it was.
        if count == 0 && none.is_empty() {
            continue;
        }
        sentences.push(match count {
            0 => (true, none.to_owned()),
            _ => (false, format!("{} {some}", grouped(count))),
        });
    }
    sentences
}
