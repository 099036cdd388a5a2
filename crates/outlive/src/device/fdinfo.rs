//! `Fdinfo`: what a client has used, as text that monitoring tools read.

use super::usage::Usage;
use core::fmt::{self, Write};

/// A kind of engine, as tools show it. The first is that of queues with [`engine`](crate::QueueConfig::engine) 0, and so on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EngineName<'a> {
    /// Part of a key: white space and colons in it are written as `_`.
    pub name: &'a str,
    /// How many of the kind there are; 1 at least.
    pub capacity: u32,
}

impl<'a> EngineName<'a> {
    /// One engine called `name`.
    #[must_use]
    pub const fn new(name: &'a str) -> Self {
        Self { name, capacity: 1 }
    }
}

/// A client's [`Usage`] as text in the form of the kernel's `/proc/<pid>/fdinfo` entries for DRM files
/// (`Documentation/gpu/drm-usage-stats.rst`). Its `Display` allocates nothing itself.
///
/// Written are, a line each and in this order, `drm-driver`, `drm-client-id`, `drm-pdev`, `drm-client-name`, and for each engine
/// `drm-engine-<name>` in nanoseconds and `drm-engine-capacity-<name>`. Not written are cycles and frequencies, which the
/// library does not know, and memory, which is the embedder's.
///
/// ```
/// use outlive::{Charges, EngineName, Fdinfo, Principal};
///
/// let client = Principal::new(Charges::UNLIMITED)?;
/// let engines = [EngineName::new("render"), EngineName { name: "copy", capacity: 2 }];
/// let text = Fdinfo::new("outlive", client.id(), client.usage(), &engines).pdev("0000:03:00.0").to_string();
/// assert!(text.starts_with("drm-driver:\toutlive\ndrm-client-id:\t"));
/// assert!(text.ends_with("drm-engine-copy:\t0 ns\ndrm-engine-capacity-copy:\t2\n"));
/// # Ok::<(), outlive::AllocError>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Fdinfo<'a> {
    driver: &'a str,
    client: u64,
    pdev: Option<&'a str>,
    name: Option<&'a str>,
    engines: &'a [EngineName<'a>],
    usage: Usage,
}

impl<'a> Fdinfo<'a> {
    /// What client number `client` has had of the `engines` of a device driven by `driver`. The number is to be no other
    /// client's, ever, as [`Principal::id`](crate::Principal::id) is.
    #[must_use]
    pub const fn new(driver: &'a str, client: u64, usage: Usage, engines: &'a [EngineName<'a>]) -> Self {
        Self { driver, client, pdev: None, name: None, engines, usage }
    }

    /// The PCI slot of the device.
    #[must_use]
    pub const fn pdev(mut self, slot: &'a str) -> Self {
        self.pdev = Some(slot);
        self
    }

    /// What the client calls itself.
    #[must_use]
    pub const fn name(mut self, name: &'a str) -> Self {
        self.name = Some(name);
        self
    }
}

impl fmt::Display for Fdinfo<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "drm-driver:\t{}", Text(self.driver))?;
        writeln!(f, "drm-client-id:\t{}", self.client)?;
        if let Some(slot) = self.pdev {
            writeln!(f, "drm-pdev:\t{}", Text(slot))?;
        }
        if let Some(name) = self.name {
            writeln!(f, "drm-client-name:\t{}", Text(name))?;
        }
        for (number, engine) in (0..).zip(self.engines) {
            writeln!(f, "drm-engine-{}:\t{} ns", Key(engine.name), self.usage.active_on(number).as_nanos())?;
            if engine.capacity > 1 {
                writeln!(f, "drm-engine-capacity-{}:\t{}", Key(engine.name), engine.capacity)?;
            }
        }
        Ok(())
    }
}

/// A value: what a client calls itself may not look like another line.
struct Text<'a>(&'a str);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        replaced(f, self.0, char::is_control)
    }
}

/// A part of a key.
struct Key<'a>(&'a str);

impl fmt::Display for Key<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        replaced(f, self.0, |c| c == ':' || c.is_whitespace() || c.is_control())
    }
}

fn replaced(f: &mut fmt::Formatter<'_>, text: &str, bad: fn(char) -> bool) -> fmt::Result {
    text.chars().try_for_each(|c| f.write_char(if bad(c) { '_' } else { c }))
}

#[cfg(all(test, not(loom), not(shuttle)))]
mod tests {
    use super::{EngineName, Fdinfo};
    use crate::device::usage::{Counters, Writers};
    use core::time::Duration;

    #[test]
    fn keys_are_the_kernels_and_no_name_forges_a_line() {
        let counters = Counters::new(Writers::Many);
        counters.active(0, Duration::from_micros(5));
        counters.active(1, Duration::from_nanos(7));
        let engines =
            [EngineName::new("gfx ring:0"), EngineName { name: "copy", capacity: 4 }, EngineName::new("video")];
        let info = Fdinfo::new("drv", 42, counters.read(), &engines).pdev("0000:01:00.0");
        let text = std::format!("{}", info.name("game\ndrm-engine-copy:\t9 ns"));
        let expected = "drm-driver:\tdrv\ndrm-client-id:\t42\ndrm-pdev:\t0000:01:00.0\n\
            drm-client-name:\tgame_drm-engine-copy:_9 ns\ndrm-engine-gfx_ring_0:\t5000 ns\n\
            drm-engine-copy:\t7 ns\ndrm-engine-capacity-copy:\t4\ndrm-engine-video:\t0 ns\n";
        assert_eq!(text, expected);
    }
}
