//! Does breaking the rule that a case proves make the case fail? Each line below runs its cases again, one process each, with one
//! defect switched on (`outlive::sabotage`), and they must fail. A case that does not is no proof of its rule.

use crate::LONG;
use outlive::sabotage::{Sabotage, commit};
use std::process::{Command, Stdio};
use std::sync::Once;
use std::time::Duration;

const ASKED: &str = "OUTLIVE_CONFORMANCE_BREAKS";

/// The rule, the defect that breaks it, and cases that prove it.
const RULES: &[(&str, Sabotage, &[&str])] = &[
    (
        "a signal changes the status",
        Sabotage::SkipSignal,
        &["st_dma_fence::signaling", "st_dma_fence::add_callback", "st_dma_fence::status", "st_dma_fence::error"],
    ),
    (
        "an array signals after its last member",
        Sabotage::ArrayBeforeLast,
        &["igt_sw_sync::sync_random_merge", "kselftest_sync::merge_stress_random_merge"],
    ),
    (
        "an array's members are seen",
        Sabotage::FirstMemberOnly,
        &["st_dma_fence_unwrap::array", "st_dma_fence_unwrap::merge", "igt_sw_sync::sync_multi_timeline_wait"],
    ),
    (
        "the newest of a context stands for the others",
        Sabotage::MergeKeepsOlder,
        &["st_dma_fence_unwrap::merge_seqno", "igt_sw_sync::sync_merge", "kselftest_sync::fence_one_timeline_merge"],
    ),
    ("a point signals in its turn", Sabotage::PointOutOfTurn, &["igt_syncobj_timeline::host_signal_ordered"]),
    (
        "a point waits for its own fence",
        Sabotage::PointWithoutFence,
        &["st_dma_fence_chain::signal_forward", "igt_syncobj_timeline::device_signal_unordered"],
    ),
    ("a gap resolves to the next point", Sabotage::ExactPointOnly, &["st_dma_fence_chain::find_gap"]),
    (
        "a wait hears of what is submitted later",
        Sabotage::MissInstall,
        &["igt_syncobj_wait::wait_for_submit_complex", "igt_syncobj_timeline::wait_for_submit_complex"],
    ),
    (
        "a running wait has its snapshot",
        Sabotage::ForgetSnapshot,
        &["igt_syncobj_wait::wait_all_for_submit_snapshot", "igt_syncobj_timeline::wait_all_snapshot"],
    ),
    (
        "a wait for all ends after the last",
        Sabotage::WaitForAllButOne,
        &[
            "igt_syncobj_wait::multi_wait_all_submitted_signaled",
            "igt_syncobj_timeline::etime_multi_wait_all_submitted_signaled",
        ],
    ),
    (
        "submitted is not signaled",
        Sabotage::SubmittedIsSignaled,
        &[
            "igt_syncobj_wait::single_wait_submitted",
            "igt_syncobj_wait::multi_wait_for_submit_submitted",
            "igt_syncobj_timeline::etime_single_wait_for_submit_submitted",
            "igt_syncobj_timeline::transfer_timeline_point",
        ],
    ),
    (
        "a query shows what has signaled",
        Sabotage::QuerySubmitted,
        &["igt_syncobj_timeline::transfer_timeline_point", "igt_syncobj_timeline::host_signal_ordered"],
    ),
    (
        "what nobody submitted is refused",
        Sabotage::AcceptUnsubmitted,
        &[
            "igt_syncobj_wait::invalid_single_wait_unsubmitted",
            "igt_syncobj_wait::reset_signaled",
            "igt_syncobj_wait::signal",
            "igt_syncobj_timeline::invalid_multi_wait_all_unsubmitted",
        ],
    ),
    (
        "an empty list is refused",
        Sabotage::AcceptNone,
        &[
            "igt_syncobj_wait::invalid_reset_zero_handles",
            "igt_syncobj_wait::invalid_signal_zero_handles",
            "igt_syncobj_timeline::invalid_query_zero_handles",
            "igt_syncobj_timeline::invalid_signal_zero_handles",
        ],
    ),
];

/// How long a case waits for what only a defect keeps from coming.
pub fn patience() -> Duration {
    if std::env::var_os(ASKED).is_some() { Duration::from_millis(500) } else { LONG }
}

/// Commits the defect that this process was asked to commit, if any. Whatever a case is made of calls it.
pub fn break_a_rule() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if let Ok(asked) = std::env::var(ASKED) {
            commit(RULES.iter().map(|rule| rule.1).find(|defect| format!("{defect:?}") == asked));
        }
    });
}

fn passes(case: &str, defect: Sabotage) -> bool {
    let mut again = Command::new(std::env::current_exe().unwrap());
    again.args(["--exact", case, "--quiet"]).stdout(Stdio::null()).stderr(Stdio::null());
    // A backtrace of each failure would take longer than the case.
    again.env("RUST_BACKTRACE", "0");
    again.env(ASKED, format!("{defect:?}")).status().unwrap().success()
}

#[test]
fn breaking_its_rule_makes_a_case_fail() {
    if std::env::var_os(ASKED).is_some() {
        return;
    }
    let (mut proved, mut unproved) = (0, Vec::new());
    for (rule, defect, cases) in RULES {
        for case in *cases {
            if passes(case, *defect) {
                unproved.push(format!("{case} does not prove that {rule}"));
            }
            proved += 1;
        }
    }
    assert!(unproved.is_empty(), "{unproved:#?}");
    println!("{proved} proofs of {} rules", RULES.len());
}
