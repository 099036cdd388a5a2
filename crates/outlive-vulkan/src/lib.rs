//! A Vulkan device.
