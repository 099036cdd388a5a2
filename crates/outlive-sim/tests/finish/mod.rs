//! The end of a host on which everything was dropped.

use outlive::Time;
use outlive_sim::driver::SimHost;
use outlive_sim::gpu::Audit;

/// Later than anything happens.
pub(crate) const NEVER: Time = Time::from_ns(u64::MAX / 4);

/// Nothing is left in the device's memory, nor of the library's objects; what was counted.
pub(crate) fn finish(host: SimHost) -> Audit {
    assert!(host.run_while_waiting(NEVER, || host.bytes_in_use() == 0), "memory is left");
    let executor = host.executor().clone();
    let audit = host.finish();
    assert_eq!(executor.live_objects(), 0);
    audit
}
