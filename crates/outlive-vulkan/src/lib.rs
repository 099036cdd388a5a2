//! A real GPU through Vulkan. Built so far: finding the devices of this machine, and saying why there is none. The driver
//! behind [`outlive`](https://docs.rs/outlive)'s `Driver` trait is still to come.
//!
//! # Contexts
//! Everything here may allocate and block: it talks to the Vulkan loader and the drivers behind it.
#![expect(unsafe_code, reason = "Vulkan calls; docs/unsafe.md, `outlive_vulkan`")]

use ash::vk;
use core::fmt;

/// A device that Vulkan offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Its position in the loader's list: the `INDEX` of `--device vulkan:INDEX`.
    pub index: usize,
    /// As its driver calls it.
    pub name: String,
    /// What kind of device.
    pub kind: Kind,
    /// The Vulkan version it offers: major, minor, patch.
    pub version: (u32, u32, u32),
    /// Whether it offers timeline semaphores (Vulkan 1.2), without which it cannot be used.
    pub timelines: bool,
}

/// What kind of device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// A graphics card.
    Discrete,
    /// Part of the processor's chip.
    Integrated,
    /// Lent to a virtual machine.
    Virtual,
    /// A driver that computes on the processor, such as lavapipe.
    Software,
    /// Something else.
    Other,
}

/// Why Vulkan cannot be used here.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unavailable {
    /// There is no Vulkan loader.
    NoLoader(String),
    /// The loader refused an instance.
    NoInstance(String),
    /// There is a loader, but no driver for any device.
    NoDevice,
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoLoader(error) => {
                write!(f, "no Vulkan loader ({error}); install libvulkan1 or your system's equivalent")
            }
            Self::NoInstance(error) => write!(f, "the Vulkan loader refused an instance ({error})"),
            Self::NoDevice => f.write_str("no Vulkan driver found; a software one is in Debian's mesa-vulkan-drivers"),
        }
    }
}

impl core::error::Error for Unavailable {}

/// The devices of this machine.
///
/// # Errors
/// [`Unavailable`], with what to install.
pub fn devices() -> Result<Vec<DeviceInfo>, Unavailable> {
    // SAFETY: the loader is a library meant to be loaded; nothing else is assumed of it.
    let entry = unsafe { ash::Entry::load() }.map_err(|error| Unavailable::NoLoader(error.to_string()))?;
    let application = vk::ApplicationInfo::default().application_name(c"outlive").api_version(vk::API_VERSION_1_2);
    let create = vk::InstanceCreateInfo::default().application_info(&application);
    // SAFETY: the structures live through the call and are filled in as Vulkan wants them.
    let instance = unsafe { entry.create_instance(&create, None) };
    let instance = instance.map_err(|error| Unavailable::NoInstance(error.to_string()))?;
    // SAFETY: the instance is alive.
    let found = unsafe { instance.enumerate_physical_devices() };
    let devices = found.unwrap_or_default().into_iter().enumerate().map(|(index, device)| {
        // SAFETY: the device is this instance's, which is alive.
        let properties = unsafe { instance.get_physical_device_properties(device) };
        describe(index, &properties)
    });
    let devices: Vec<DeviceInfo> = devices.collect();
    // SAFETY: nothing made from the instance is left.
    unsafe { instance.destroy_instance(None) };
    if devices.is_empty() { Err(Unavailable::NoDevice) } else { Ok(devices) }
}

fn describe(index: usize, properties: &vk::PhysicalDeviceProperties) -> DeviceInfo {
    let version = properties.api_version;
    DeviceInfo {
        index,
        name: properties.device_name_as_c_str().unwrap_or(c"?").to_string_lossy().into_owned(),
        kind: match properties.device_type {
            vk::PhysicalDeviceType::DISCRETE_GPU => Kind::Discrete,
            vk::PhysicalDeviceType::INTEGRATED_GPU => Kind::Integrated,
            vk::PhysicalDeviceType::VIRTUAL_GPU => Kind::Virtual,
            vk::PhysicalDeviceType::CPU => Kind::Software,
            _ => Kind::Other,
        },
        version: (vk::api_version_major(version), vk::api_version_minor(version), vk::api_version_patch(version)),
        timelines: version >= vk::API_VERSION_1_2,
    }
}

#[cfg(test)]
mod tests {
    use super::{Unavailable, devices};

    /// In CI a software device is installed, so there finding none is a failure; elsewhere it is said.
    #[test]
    fn devices_are_found_or_the_reason_is_said() {
        match devices() {
            Ok(devices) => assert!(devices.iter().all(|device| !device.name.is_empty())),
            Err(reason @ (Unavailable::NoLoader(_) | Unavailable::NoDevice)) if std::env::var_os("CI").is_none() => {
                println!("skipped: {reason}");
            }
            Err(reason) => panic!("{reason}"),
        }
    }
}
