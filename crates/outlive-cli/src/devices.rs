//! `outlive devices`: what can be used here, and why not where not. Used by `lib.rs`.

use outlive_vulkan::{DeviceInfo, Unavailable};

use crate::error::one_line;

/// The list, as lines of what to say to `--device`, whether it can be used, and what it is or why not.
#[must_use]
pub fn list() -> String {
    lines(&outlive_vulkan::devices())
}

fn lines(vulkan: &Result<Vec<DeviceInfo>, Unavailable>) -> String {
    let mut text = String::new();
    let mut line = |name: &str, usable: bool, why: &str| {
        let usable = if usable { "usable" } else { "not usable" };
        text.push_str(&format!("{name:<10}{usable:<12}{}\n", one_line(why)));
    };
    line("sim", true, "a simulated GPU with memory, page tables, engines and faults");
    match vulkan {
        Err(why) => line("vulkan", false, &why.to_string()),
        Ok(devices) => {
            for DeviceInfo { index, name, version: (major, minor, patch), .. } in devices {
                let what = format!("{name}, Vulkan {major}.{minor}.{patch}: driving it is not built yet");
                line(&format!("vulkan:{index}"), false, &what);
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use outlive_vulkan::Kind;

    use super::*;

    #[test]
    fn each_device_has_its_line() {
        let device = |index, name: &str| DeviceInfo {
            index,
            name: name.to_owned(),
            kind: Kind::Software,
            version: (1, 3, 2),
            timelines: true,
        };
        let text = lines(&Ok(vec![device(0, "one"), device(1, "two\nlines")]));
        assert_eq!(text.lines().count(), 3);
        assert!(text.contains("\nvulkan:1  not usable  two\\nlines, Vulkan 1.3.2: driving"), "{text}");
        let text = lines(&Err(Unavailable::NoDevice));
        assert!(text.contains("\nvulkan    not usable  no Vulkan driver found"), "{text}");
    }
}
