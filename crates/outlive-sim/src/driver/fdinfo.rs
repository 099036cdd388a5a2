//! A client's memory, in the form and under the keys of the kernel's `/proc/<pid>/fdinfo` for DRM clients.
//!
//! | key | what |
//! |---|---|
//! | `drm-total-vram` | all buffers that are open in the address space, wherever their bytes are |
//! | `drm-shared-vram` | those that are open in another one, too |
//! | `drm-resident-vram` | those in the device's memory |
//! | `drm-active-vram` | those in the device's memory that something still to come hangs on |
//! | `outlive-evictable-vram` | those in the device's memory that nothing hangs on |
//!
//! Sizes in KiB, rounded up. The keys are those of the kernel's documentation, "DRM client usage stats"; it has none for what
//! could be evicted, so that one has the driver's name in front, as it asks for.

use core::fmt;
use outlive::resv::Usage;
use outlive::vm::Bo;

use super::vm_client::{SimVm, SimVmError};

/// Bytes of a client's buffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VmMemory {
    /// All that are open.
    pub total: u64,
    /// Those that are open elsewhere, too.
    pub shared: u64,
    /// Those in the device's memory.
    pub resident: u64,
    /// Those of them that something still to come hangs on.
    pub active: u64,
    /// Those of them that nothing hangs on.
    pub evictable: u64,
}

impl fmt::Display for VmMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = [
            ("drm-total-vram", self.total),
            ("drm-shared-vram", self.shared),
            ("drm-resident-vram", self.resident),
            ("drm-active-vram", self.active),
            ("outlive-evictable-vram", self.evictable),
        ];
        for (key, bytes) in keys {
            writeln!(f, "{key}:\t{} KiB", bytes.div_ceil(1024))?;
        }
        Ok(())
    }
}

impl SimVm {
    /// What its buffers come to now.
    ///
    /// # Errors
    /// [`SimVmError::Vm`]: the calling thread is changing the address space.
    pub fn memory(&self) -> Result<VmMemory, SimVmError> {
        let edit = self.vm().edit()?;
        let mut memory = VmMemory::default();
        for (_, open) in edit.bos() {
            let (bo, size) = (open.bo(), open.bo().core().size());
            memory.total += size;
            memory.shared += if bo.opens() > 1 { size } else { 0 };
            if bo.is_resident() {
                memory.resident += size;
                // What is never free cannot be evicted, either.
                let idle = bo.core().reservation().is_idle(Usage::Bookkeep).unwrap_or(false);
                *(if idle { &mut memory.evictable } else { &mut memory.active }) += size;
            }
        }
        Ok(memory)
    }
}
