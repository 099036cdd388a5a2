//! `outlive devices`: what can be used here, and why not where not. Used by `lib.rs`.

/// The list, as lines of name, whether it can be used, and what it is or why not.
#[must_use]
pub fn list() -> String {
    let lines = [
        ("sim", "usable", "a simulated GPU with memory, page tables, engines and faults"),
        ("vulkan", "not usable", "not built yet"),
    ];
    let mut text = String::new();
    for (name, usable, why) in lines {
        text.push_str(&format!("{name:<8}{usable:<12}{why}\n"));
    }
    text
}
