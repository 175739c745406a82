//! What managed coordinates begin with: one prefix for the whole process.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

use crate::{Error, ErrorKind, Result};

/// The longest prefix in bytes. With it, the names of every scope of Airbyte still have room.
const MAX_BYTES: usize = 16;

static CURRENT: OnceLock<ManagedPrefix> = OnceLock::new();

/// What every managed coordinate of this process begins with: `airbyte_`, unless a platform that is
/// not Airbyte installs a prefix of its own.
///
/// The prefix decides which names this process may write, delete and list. Therefore it is no
/// option of a store or a call: [`ManagedCoordinate`](crate::ManagedCoordinate) is the proof that a
/// name is managed, and two parts of a process that disagree would make that proof worthless.
///
/// A prefix is 2 to 16 bytes: `[a-z]`, then `[a-z0-9]`, then one `_` at the end. So none is the
/// beginning of another, and installations with different prefixes never manage each other's
/// names. After a prefix other than `airbyte_`, a managed name must have exactly the form
/// `<scope prefix><uuid>_secret_<uuid>_v<version>` with lower-case UUIDs. A name that a person
/// chose, such as `acme_database_v2`, is therefore never managed.
///
/// ```
/// use secret_persistence_core::{Coordinate, ManagedCoordinate, ManagedPrefix, Scope};
/// use uuid::Uuid;
///
/// // First in `main`.
/// ManagedPrefix::parse("acme_")?.install()?;
/// let scope = Scope::new("project_", Uuid::from_u128(1))?;
/// let ours = ManagedCoordinate::new(&scope, Uuid::from_u128(2), 1)?;
/// assert!(ours.as_str().starts_with("acme_project_"));
/// assert!(Coordinate::parse("airbyte_workspace_1_secret_2_v1")?.managed().is_none());
/// // Too late for another one.
/// assert!(ManagedPrefix::AIRBYTE.install().is_err());
/// # Ok::<(), secret_persistence_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ManagedPrefix(Cow<'static, str>);

impl ManagedPrefix {
    /// `airbyte_`, the default.
    pub const AIRBYTE: Self = Self(Cow::Borrowed("airbyte_"));

    /// Parses a prefix.
    ///
    /// # Errors
    /// `InvalidConfig` if the text does not follow the rule.
    pub fn parse(text: &str) -> Result<Self> {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let follows = text.len() <= MAX_BYTES
            && text.strip_suffix('_').is_some_and(|word| {
                word.starts_with(|first: char| first.is_ascii_lowercase())
                    && word.bytes().all(allowed)
            });
        if follows {
            return Ok(Self(Cow::Owned(text.to_owned())));
        }
        Err(Error::new(
            ErrorKind::InvalidConfig,
            "this is no prefix of managed names",
        )
        .with_hint(
            "use a word of a-z and 0-9, beginning with a letter, and one _ at its end: acme_",
        ))
    }

    /// Fixes the prefix of this process. Call it first in `main`, before any coordinate exists: the
    /// first use of a coordinate, a scope or a listing fixes `airbyte_`.
    ///
    /// # Errors
    /// `InvalidConfig` if another prefix is fixed. Installing the same one again succeeds.
    pub fn install(self) -> Result<()> {
        let fixed = CURRENT.get_or_init(|| self.clone());
        if *fixed == self {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::InvalidConfig,
            format!("managed names of this process begin with {fixed}, so {self} is too late"),
        )
        .with_hint("install the prefix once, first in the program"))
    }

    /// The prefix of this process. The first call fixes it.
    #[must_use]
    pub fn current() -> &'static Self {
        CURRENT.get_or_init(|| Self::AIRBYTE)
    }

    /// The text, with its `_`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether names need only begin with the prefix and end in a version, as Airbyte's do.
    pub(crate) fn is_lenient(&self) -> bool {
        *self == Self::AIRBYTE
    }
}

impl FromStr for ManagedPrefix {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text)
    }
}

impl fmt::Display for ManagedPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_one_word_and_none_begins_another() {
        for text in ["airbyte_", "acme_", "a_", "acme2_", "abcdefghijklmno_"] {
            assert_eq!(ManagedPrefix::parse(text).unwrap().as_str(), text);
        }
        for text in [
            "",
            "_",
            "acme",
            "acme__",
            "acme_x_",
            "acme-",
            "Acme_",
            "2acme_",
            "acme _",
            "acmé_",
            "acme/_",
            "abcdefghijklmnop_",
        ] {
            assert_eq!(
                ManagedPrefix::parse(text).unwrap_err().kind(),
                ErrorKind::InvalidConfig,
                "{text}"
            );
        }
    }

    /// The tests of this crate share a process whose prefix is the default.
    #[test]
    fn the_first_use_fixes_the_prefix() {
        assert_eq!(ManagedPrefix::current(), &ManagedPrefix::AIRBYTE);
        let error = ManagedPrefix::parse("acme_")
            .unwrap()
            .install()
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert!(error.to_string().contains("airbyte_"), "{error}");
        assert!(ManagedPrefix::AIRBYTE.install().is_ok());
    }
}
