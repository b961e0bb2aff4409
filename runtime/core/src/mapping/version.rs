//! The version of a map and what is said about it. A version never changes; a change is another version.

use std::fmt;
use std::str::FromStr;

/// Four numbers, compared part by part: 1.10.0.0 is newer than 1.9.9.9.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MapVersion(pub [u32; 4]);

impl MapVersion {
    pub const FIRST: Self = Self([1, 0, 0, 0]);

    /// The version that an edit of this one gets when nobody names another.
    #[must_use]
    pub const fn next(self) -> Self {
        let [major, minor, build, revision] = self.0;
        match revision.checked_add(1) {
            Some(revision) => Self([major, minor, build, revision]),
            None => Self([major, minor, build.saturating_add(1), 0]),
        }
    }
}

impl fmt::Display for MapVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor, build, revision] = self.0;
        write!(f, "{major}.{minor}.{build}.{revision}")
    }
}

impl FromStr for MapVersion {
    type Err = String;

    /// Reads `1.0.0.7`; parts that are left out are 0, as in `2.1`.
    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.trim().split('.').collect::<Vec<_>>();
        let mut version = [0; 4];
        if parts.len() > version.len() {
            return Err(format!("{text:?} has more than four parts; a version is as 1.0.0.7"));
        }
        for (place, part) in version.iter_mut().zip(&parts) {
            let digits = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
            *place = part
                .parse()
                .ok()
                .filter(|_| digits)
                .ok_or_else(|| format!("{text:?} is no version; a version is as 1.0.0.7"))?;
        }
        Ok(Self(version))
    }
}

impl serde::Serialize for MapVersion {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for MapVersion {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// What is said about one version of a map. Empty texts say nothing.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct VersionFacts {
    pub version: MapVersion,
    #[serde(default)]
    pub publisher: String,
    #[serde(default)]
    pub author: String,
    #[serde(default)]
    pub description: String,
}

impl Default for VersionFacts {
    fn default() -> Self {
        Self { version: MapVersion::FIRST, publisher: String::new(), author: String::new(), description: String::new() }
    }
}

impl VersionFacts {
    /// `msdyn_name` of a row with this map: the publisher's prefix before the name in brackets.
    #[must_use]
    pub fn row_name(&self, name: &str) -> String {
        match self.publisher.as_str() {
            "" => name.to_owned(),
            _ if name.starts_with('[') => format!("{}_{name}", self.publisher),
            publisher => format!("{publisher}_[{name}]"),
        }
    }
}
