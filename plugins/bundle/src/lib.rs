//! The standard plugins as components, built with this crate and embedded in it.

/// One standard plugin.
#[derive(Debug, Clone, Copy)]
pub struct Standard {
    pub name: &'static str,
    pub bytes: &'static [u8],
}

/// Every standard plugin.
pub const STANDARD: &[Standard] = &[];

/// The component of a standard plugin.
#[must_use]
pub fn standard(name: &str) -> Option<&'static [u8]> {
    STANDARD.iter().find(|plugin| plugin.name == name).map(|plugin| plugin.bytes)
}
