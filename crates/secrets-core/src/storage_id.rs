//! The id of a store other than the default one.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The id of a storage other than the default one, as in pointers and settings: not empty, at most
/// 255 bytes, no control characters.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StorageId(Arc<str>);

impl StorageId {
    /// Parses a storage id.
    ///
    /// # Errors
    /// [`InvalidStorageId`] for text that is empty, longer than 255 bytes or contains control
    /// characters.
    pub fn parse(text: &str) -> Result<Self, InvalidStorageId> {
        if text.is_empty() || text.len() > 255 || text.chars().any(char::is_control) {
            return Err(InvalidStorageId);
        }
        Ok(Self(text.into()))
    }

    /// The unchanged id.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for StorageId {
    type Err = InvalidStorageId;

    fn from_str(text: &str) -> Result<Self, InvalidStorageId> {
        Self::parse(text)
    }
}

impl TryFrom<String> for StorageId {
    type Error = InvalidStorageId;

    fn try_from(text: String) -> Result<Self, InvalidStorageId> {
        Self::parse(&text)
    }
}

impl From<StorageId> for String {
    fn from(id: StorageId) -> Self {
        id.0.as_ref().to_owned()
    }
}

impl fmt::Display for StorageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for StorageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StorageId({})", self.0)
    }
}

/// A text that is not a storage id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidStorageId;

impl fmt::Display for InvalidStorageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a storage id must have 1 to 255 bytes and no control character")
    }
}

impl std::error::Error for InvalidStorageId {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn storage_ids_are_refused_where_they_could_confuse() {
        assert!(StorageId::parse("a b/c").is_ok());
        for text in ["", "a\nb", &"x".repeat(256)] {
            assert_eq!(StorageId::parse(text), Err(InvalidStorageId));
        }
    }
}
