//! The standard plugins as components, built with this crate and embedded in it.
//!
//! Knows their names and bytes and nothing of what is in them; `build.rs` builds them from the folders beside this one.

/// One standard plugin.
#[derive(Debug, Clone, Copy)]
pub struct Standard {
    pub name: &'static str,
    pub bytes: &'static [u8],
}

include!(concat!(env!("OUT_DIR"), "/standard.rs"));

/// The component of a standard plugin.
#[must_use]
pub fn standard(name: &str) -> Option<&'static [u8]> {
    STANDARD.iter().find(|plugin| plugin.name == name).map(|plugin| plugin.bytes)
}
