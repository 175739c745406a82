//! Names of secret values: managed names, and external names that are read-only.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use uuid::Uuid;
use uuid::fmt::Hyphenated;

use crate::{Error, ErrorKind, ManagedPrefix, Result};

/// The longest managed coordinate in bytes: Azure's limit for a secret's name, the smallest of all
/// stores. <https://learn.microsoft.com/azure/key-vault/general/about-keys-secrets-certificates>
pub const MAX_MANAGED_BYTES: usize = 127;

/// The longest external name in bytes: an ARN's limit, the largest of all stores.
/// <https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_GetSecretValue.html>
pub const MAX_EXTERNAL_BYTES: usize = 2048;

/// The name of one secret value.
///
/// Every name that is not [managed](ManagedCoordinate) is external: kept verbatim and read-only.
/// Functions that write or delete therefore take a [`ManagedCoordinate`].
///
/// ```
/// use secret_persistence_core::{Coordinate, ErrorKind};
///
/// assert!(Coordinate::parse("airbyte_workspace_1_secret_2_v3")?.managed().is_some());
/// assert!(Coordinate::parse("team/database-password")?.managed().is_none());
/// // An alias of a managed name is always refused.
/// let error = Coordinate::parse("arn:aws:secretsmanager:eu-west-1:1:secret:airbyte_x_v1").unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::InvalidCoordinate);
/// # Ok::<(), secret_persistence_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Coordinate {
    /// The name of an external secret.
    External(ExternalName),
    /// The name of a managed secret.
    Managed(ManagedCoordinate),
}

impl Coordinate {
    /// Parses a name: managed if it has that form, otherwise external.
    ///
    /// # Errors
    /// `InvalidCoordinate` for an empty name, one above [`MAX_EXTERNAL_BYTES`], and one that could
    /// be an alias of a managed secret or traverse a path, as for [`ExternalName::parse`].
    pub fn parse(name: &str) -> Result<Self> {
        match ManagedCoordinate::parse(name) {
            Ok(managed) => Ok(Self::Managed(managed)),
            Err(_) => ExternalName::parse(name).map(Self::External),
        }
    }

    /// The unchanged name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::External(name) => name.as_str(),
            Self::Managed(coordinate) => coordinate.as_str(),
        }
    }

    /// The managed coordinate, if it is managed.
    #[must_use]
    pub fn managed(&self) -> Option<&ManagedCoordinate> {
        match self {
            Self::External(_) => None,
            Self::Managed(coordinate) => Some(coordinate),
        }
    }

    /// The name, shared, as errors contain it.
    #[must_use]
    pub fn shared(&self) -> Arc<str> {
        match self {
            Self::External(name) => Arc::clone(&name.0),
            Self::Managed(coordinate) => coordinate.shared(),
        }
    }
}

impl From<ManagedCoordinate> for Coordinate {
    fn from(coordinate: ManagedCoordinate) -> Self {
        Self::Managed(coordinate)
    }
}

impl FromStr for Coordinate {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::parse(name)
    }
}

impl fmt::Display for Coordinate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// `airbyte_<base>_v<version>`: the name of one value, forever. Another [`ManagedPrefix`] replaces
/// `airbyte_` in a process that installs it.
///
/// Parsing is strict so that printing always gives the same bytes. The version has only ASCII
/// digits, no sign and no leading zero, and fits `i64`. The rest is `[A-Za-z0-9_-]`. The name has
/// at most [`MAX_MANAGED_BYTES`].
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ManagedCoordinate {
    name: Arc<str>,
    base_len: usize,
    version: i64,
}

impl ManagedCoordinate {
    /// Whether it is the name of a short-lived secret: [`Scope::ephemeral`] has written it.
    #[must_use]
    pub fn is_ephemeral(&self) -> bool {
        let scope = Scope::ephemeral().to_string();
        let rest = self.as_str().strip_prefix(&scope);
        rest.is_some_and(|rest| rest.starts_with("_secret_"))
    }

    /// Creates the coordinate of a new value: `airbyte_<prefix><base id>_secret_<uuid>_v<version>`.
    ///
    /// # Errors
    /// `InvalidCoordinate` for a version below 1, or a name that would be too long.
    pub fn new(scope: &Scope, id: Uuid, version: i64) -> Result<Self> {
        Self::with_text(scope, id, version).map(|(coordinate, _)| coordinate)
    }

    /// Also returns the name as a separate text for the pointer. It is built only once, because
    /// this is most of the work of a split.
    pub(crate) fn with_text(scope: &Scope, id: Uuid, version: i64) -> Result<(Self, String)> {
        if version < 1 {
            return Err(Error::new(
                ErrorKind::InvalidCoordinate,
                "versions start at 1",
            ));
        }
        let mut buffer = Uuid::encode_buffer();
        let mut name = String::with_capacity(MAX_MANAGED_BYTES);
        name.push_str(ManagedPrefix::current().as_str());
        name.push_str(&scope.text);
        name.push_str("_secret_");
        name.push_str(id.hyphenated().encode_lower(&mut buffer));
        let base_len = name.len();
        name.push_str("_v");
        if version == 1 {
            // The usual case, without the formatting machinery.
            name.push('1');
        } else {
            name.push_str(&version.to_string());
        }
        if name.len() > MAX_MANAGED_BYTES {
            return Err(too_long(&name));
        }
        let coordinate = Self {
            name: name.as_str().into(),
            base_len,
            version,
        };
        Ok((coordinate, name))
    }

    /// Parses a managed coordinate.
    ///
    /// # Errors
    /// `InvalidCoordinate`, with the rule that the name breaks.
    pub fn parse(name: &str) -> Result<Self> {
        Self::parse_with(ManagedPrefix::current(), name)
    }

    fn parse_with(prefix: &ManagedPrefix, name: &str) -> Result<Self> {
        let invalid = |reason: &'static str| {
            Error::new(ErrorKind::InvalidCoordinate, reason).with_coordinate(printable(name))
        };
        let begins = |what: &str| {
            Error::new(ErrorKind::InvalidCoordinate, format!("{what} {prefix}"))
                .with_coordinate(printable(name))
        };
        let rest = name
            .strip_prefix(prefix.as_str())
            .ok_or_else(|| begins("a managed coordinate must begin with"))?;
        if name.len() > MAX_MANAGED_BYTES {
            return Err(too_long(name));
        }
        // What follows the last `_v` can only be digits, so they are counted from the end.
        let count = rest.bytes().rev().take_while(u8::is_ascii_digit).count();
        let (before, digits) = rest.split_at(rest.len() - count);
        let base = before.strip_suffix("_v").ok_or_else(|| {
            invalid("a managed coordinate must end in _v and a version of digits")
        })?;
        if base.is_empty() {
            return Err(invalid(
                "there is nothing between the prefix and the version",
            ));
        }
        // Without an early exit, so that the compiler can check many bytes at once.
        if !base
            .bytes()
            .fold(true, |all, byte| all & is_name_byte(byte))
        {
            return Err(invalid(
                "a managed coordinate may contain only A-Z, a-z, 0-9, _ and -",
            ));
        }
        if digits.is_empty() || digits.starts_with('0') {
            return Err(invalid(
                "a version must be ASCII digits without sign or leading zero",
            ));
        }
        if !prefix.is_lenient() && !is_generated(base) {
            return Err(invalid(
                "a managed coordinate must be <prefix><scope prefix><uuid>_secret_<uuid>_v<version>",
            ));
        }
        let version = digits
            .parse()
            .map_err(|_| invalid("the version does not fit 63 bits"))?;
        Ok(Self {
            name: name.into(),
            base_len: prefix.as_str().len() + base.len(),
            version,
        })
    }

    /// The whole name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// The name without its version, as old Airbyte versions stored it.
    #[must_use]
    pub fn base(&self) -> &str {
        &self.name[..self.base_len]
    }

    /// The version, at least 1.
    #[must_use]
    pub fn version(&self) -> i64 {
        self.version
    }

    /// The name, shared, as errors carry it.
    #[must_use]
    pub fn shared(&self) -> Arc<str> {
        Arc::clone(&self.name)
    }
}

impl FromStr for ManagedCoordinate {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::parse(name)
    }
}

impl fmt::Display for ManagedCoordinate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl fmt::Debug for ManagedCoordinate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ManagedCoordinate({})", self.name)
    }
}

/// The name of an external secret.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExternalName(Arc<str>);

impl ExternalName {
    /// Parses an external name and keeps it verbatim.
    ///
    /// # Errors
    /// `InvalidCoordinate` for a name that is empty or above [`MAX_EXTERNAL_BYTES`], contains
    /// control characters or `..`, or has a segment that begins with `airbyte_` (or the
    /// [`ManagedPrefix`] of the process) after lower-casing it and replacing `-` by `_`. Such a name
    /// would be an alias of a managed secret (an ARN, Azure's spelling, a resource name, a path).
    pub fn parse(name: &str) -> Result<Self> {
        Self::parse_with(ManagedPrefix::current(), name)
    }

    fn parse_with(prefix: &ManagedPrefix, name: &str) -> Result<Self> {
        let invalid = |reason: &'static str| {
            Error::new(ErrorKind::InvalidCoordinate, reason).with_coordinate(printable(name))
        };
        if name.is_empty() {
            return Err(invalid("the name is empty"));
        }
        if name.len() > MAX_EXTERNAL_BYTES {
            return Err(invalid("an external name may have at most 2,048 bytes"));
        }
        if name.chars().any(char::is_control) {
            return Err(invalid("the name contains a control character"));
        }
        if name.contains("..") {
            return Err(invalid(
                "the name contains `..`, which stores resolve as a path",
            ));
        }
        if name
            .split(|char: char| !is_segment_char(char))
            .any(|segment| begins_like(prefix, segment))
        {
            return Err(invalid(
                "an external name must not be an alias of a managed secret",
            ));
        }
        Ok(Self(name.into()))
    }

    /// The unchanged name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ExternalName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The owner of a secret within the platform: a prefix and a base id, for example of a workspace.
///
/// ```
/// use secret_persistence_core::{ManagedCoordinate, Scope};
/// use uuid::Uuid;
///
/// let scope = Scope::workspace(Uuid::from_u128(1));
/// let ours = ManagedCoordinate::new(&scope, Uuid::from_u128(2), 1)?;
/// assert!(scope.contains(&ours));
/// assert!(!Scope::workspace(Uuid::from_u128(3)).contains(&ours));
/// # Ok::<(), secret_persistence_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Scope {
    /// The prefix and the base id as every name of the scope has them, built once.
    text: Arc<str>,
    base_id: Uuid,
}

impl Scope {
    /// The scope of a workspace: prefix `workspace_`.
    #[must_use]
    pub fn workspace(id: Uuid) -> Self {
        Self::with_text("workspace_", id)
    }

    fn with_text(prefix: &str, id: Uuid) -> Self {
        let mut buffer = Uuid::encode_buffer();
        let base_id = id.hyphenated().encode_lower(&mut buffer);
        Self {
            text: [prefix, base_id].concat().into(),
            base_id: id,
        }
    }

    /// A scope with another prefix, such as `organization_` or `storage_organization_`.
    ///
    /// # Errors
    /// `InvalidCoordinate` if the prefix has characters other than `[A-Za-z0-9_-]`, or is so long
    /// that no coordinate of the scope would fit [`MAX_MANAGED_BYTES`].
    pub fn new(prefix: &str, id: Uuid) -> Result<Self> {
        if !prefix.bytes().all(is_name_byte) {
            return Err(Error::new(
                ErrorKind::InvalidCoordinate,
                "a scope's prefix may contain only A-Z, a-z, 0-9, _ and -",
            ));
        }
        let scope = Self::with_text(prefix, id);
        // The longest version has 19 digits, but a scope must allow at least versions up to a
        // million.
        ManagedCoordinate::new(&scope, Uuid::nil(), 999_999)?;
        Ok(scope)
    }

    /// The scope of short-lived secrets, which belong to no workspace: the all-zero id.
    #[must_use]
    pub fn ephemeral() -> Self {
        Self::workspace(Uuid::nil())
    }

    /// Whether this is a scope of short-lived secrets.
    #[must_use]
    pub fn is_ephemeral(&self) -> bool {
        self.base_id.is_nil()
    }

    /// The prefix.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.text[..self.text.len() - Hyphenated::LENGTH]
    }

    /// The base id.
    #[must_use]
    pub fn base_id(&self) -> Uuid {
        self.base_id
    }

    /// Whether a coordinate belongs to this scope: it is exactly `airbyte_<prefix><lower-case base
    /// id>_secret_<uuid>_v<n>`, and the base id is not all-zero.
    #[must_use]
    pub fn contains(&self, coordinate: &ManagedCoordinate) -> bool {
        !self.is_ephemeral()
            && coordinate
                .base()
                .strip_prefix(ManagedPrefix::current().as_str())
                .and_then(|rest| rest.strip_prefix(&*self.text))
                .and_then(|rest| rest.strip_prefix("_secret_"))
                .is_some_and(|id| id.len() == 36 && Uuid::try_parse(id).is_ok())
    }
}

/// The prefix of every coordinate of the scope: `airbyte_<prefix><base id>`.
impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", ManagedPrefix::current(), self.text)
    }
}

/// The id of one installation, written with every secret if the store has a field for it.
///
/// At most 63 characters of `[a-z0-9_-]`, beginning with a letter: the rule for values of Google
/// labels, the strictest of all stores.
/// <https://cloud.google.com/secret-manager/docs/creating-and-managing-labels>
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Owner(Arc<str>);

impl Owner {
    /// Parses an owner.
    ///
    /// # Errors
    /// `InvalidConfig` if the text does not follow the rule.
    pub fn parse(text: &str) -> Result<Self> {
        let allowed =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte);
        if text.len() <= 63
            && text.starts_with(|first: char| first.is_ascii_lowercase())
            && text.bytes().all(allowed)
        {
            return Ok(Self(text.into()));
        }
        Err(Error::new(
            ErrorKind::InvalidConfig,
            "the owner is not a valid installation id",
        )
        .with_hint(
            "set SECRETS_OWNER to 1 to 63 of a-z, 0-9, _ and -, beginning with a letter, \
             different for every installation",
        ))
    }

    /// The id.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether this is `<scope prefix><uuid>_secret_<uuid>`, with UUIDs as this library writes them.
fn is_generated(base: &str) -> bool {
    let is_uuid = |text: &str| {
        let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        text.len() == 36
            && text.bytes().enumerate().all(|(at, byte)| match at {
                8 | 13 | 18 | 23 => byte == b'-',
                _ => digit(byte),
            })
    };
    base.rsplit_once("_secret_").is_some_and(|(scope, secret)| {
        let base_id = scope.len().checked_sub(36).and_then(|at| scope.get(at..));
        is_uuid(secret) && base_id.is_some_and(is_uuid)
    })
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
}

fn is_segment_char(char: char) -> bool {
    char.is_alphanumeric() || char == '_' || char == '-'
}

fn begins_like(prefix: &ManagedPrefix, segment: &str) -> bool {
    // Full Unicode lower-casing: stores fold case in different ways, so fold as much as possible.
    let mut folded = segment
        .chars()
        .flat_map(char::to_lowercase)
        .map(|char| match char {
            '-' => '_',
            other => other,
        });
    prefix
        .as_str()
        .chars()
        .all(|expected| folded.next() == Some(expected))
}

fn too_long(name: &str) -> Error {
    Error::new(
        ErrorKind::InvalidCoordinate,
        "a managed coordinate may have at most 127 bytes",
    )
    .with_coordinate(printable(name))
}

/// A name for an error: shortened, and without characters that could forge a log line.
fn printable(name: &str) -> Arc<str> {
    let short: String = name
        .chars()
        .take(160)
        .flat_map(char::escape_debug)
        .collect();
    if name.chars().nth(160).is_some() {
        format!("{short}…").into()
    } else {
        short.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn managed_names_parse_strictly_and_print_the_same_bytes() {
        let longest = format!("airbyte_{}_v1", "a".repeat(MAX_MANAGED_BYTES - 11));
        for (name, base, version) in [
            (
                "airbyte_workspace_1_secret_2_v1",
                "airbyte_workspace_1_secret_2",
                1,
            ),
            ("airbyte_a_v2_v10", "airbyte_a_v2", 10),
            ("airbyte_a_v9223372036854775807", "airbyte_a", i64::MAX),
            (longest.as_str(), &longest[..longest.len() - 3], 1),
        ] {
            let parsed = ManagedCoordinate::parse(name).unwrap();
            assert_eq!(
                (parsed.as_str(), parsed.base(), parsed.version()),
                (name, base, version)
            );
        }
    }

    #[test]
    fn what_is_not_strictly_managed_is_neither_managed_nor_external() {
        for name in [
            "airbyte_x_v01",
            "airbyte_x_v+5",
            "airbyte_x_v-1",
            "airbyte_x_v٣",
            "airbyte_x_v0",
            "airbyte_x_v",
            "airbyte_x_v9223372036854775808",
            "airbyte_v1",
            "airbyte_x",
            "airbyte_x y_v1",
            "airbyte_é_v1",
            &format!("airbyte_{}_v1", "a".repeat(MAX_MANAGED_BYTES - 10)),
        ] {
            assert_eq!(
                Coordinate::parse(name).unwrap_err().kind(),
                ErrorKind::InvalidCoordinate,
                "{name}"
            );
        }
    }

    #[test]
    fn external_names_are_kept_verbatim() {
        for name in [
            "db-password",
            "team/db password",
            "arn:aws:secretsmanager:eu-west-1:123456789012:secret:team/db-AbCdEf",
            "projects/p/secrets/s/versions/3",
            "Airbytes_x_v1",
            "my_airbyte_x_v1",
            "ключ",
        ] {
            let parsed = Coordinate::parse(name).unwrap();
            assert!(parsed.managed().is_none(), "{name}");
            assert_eq!(parsed.as_str(), name);
        }
    }

    #[test]
    fn aliases_of_managed_secrets_and_path_tricks_are_refused() {
        for name in [
            "",
            "arn:aws:secretsmanager:eu-west-1:123456789012:secret:airbyte_w_v1-AbCdEf",
            "airbyte-workspace-1-secret-2-v1",
            "AIRBYTE_workspace_1_secret_2_v1",
            "projects/p/secrets/airbyte_w_v1/versions/1",
            "folder/airbyte_w_v1#value",
            "secret/data/Airbyte-w",
            "https://v.vault.azure.net/secrets/airbyte-w-v1",
            "x?name=airbyte_w_v1",
            "a/../b",
            "a\nb",
            "a\0b",
            "a\u{85}b",
            &"x".repeat(MAX_EXTERNAL_BYTES + 1),
        ] {
            assert_eq!(
                Coordinate::parse(name).unwrap_err().kind(),
                ErrorKind::InvalidCoordinate,
                "{name}"
            );
        }
    }

    /// A process with a prefix of its own deletes nothing that a person or another platform named.
    #[test]
    fn after_another_prefix_only_generated_names_are_managed() {
        const BASE: &str = "11111111-2222-3333-4444-555555555555";
        const SECRET: &str = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee";
        let acme = ManagedPrefix::parse("acme_").unwrap();
        for scope in ["", "project_", "a-b_secret_"] {
            let name = format!("acme_{scope}{BASE}_secret_{SECRET}_v12");
            let parsed = ManagedCoordinate::parse_with(&acme, &name).unwrap();
            assert_eq!(
                (parsed.as_str(), parsed.base(), parsed.version()),
                (name.as_str(), &name[..name.len() - 4], 12)
            );
            // It is external for everybody else, as it was before there was a choice.
            assert!(Coordinate::parse(&name).unwrap().managed().is_none());
            let other = ManagedPrefix::parse("acm_").unwrap();
            assert!(ManagedCoordinate::parse_with(&other, &name).is_err());
            assert!(ExternalName::parse_with(&other, &name).is_ok());
        }
        for name in [
            "acme_database_v2".to_owned(),
            format!("acme_{SECRET}_v1"),
            format!("acme_project_{BASE}_secret_{SECRET}"),
            format!("acme_project_{BASE}_secret_{SECRET}_v01"),
            format!("acme_project_{BASE}_secret_{}_v1", SECRET.to_uppercase()),
            format!("acme_project_{BASE}_secret_{SECRET}x_v1"),
            format!("acme_project_{BASE}x_secret_{SECRET}_v1"),
            format!("acme_project_{BASE}_other_{SECRET}_v1"),
            format!("Acme_project_{BASE}_secret_{SECRET}_v1"),
            format!("acme-project-{BASE}-secret-{SECRET}-v1"),
            format!("projects/p/secrets/acme_project_{BASE}_secret_{SECRET}_v1/versions/1"),
        ] {
            assert!(
                ManagedCoordinate::parse_with(&acme, &name).is_err(),
                "{name}"
            );
            let aliases = ExternalName::parse_with(&acme, &name).unwrap_err();
            assert_eq!(aliases.kind(), ErrorKind::InvalidCoordinate, "{name}");
        }
        let airbytes = format!("airbyte_workspace_{BASE}_secret_{SECRET}_v1");
        assert!(ManagedCoordinate::parse_with(&acme, &airbytes).is_err());
        assert!(ExternalName::parse_with(&acme, &airbytes).is_ok());
    }

    #[test]
    fn a_scope_contains_exactly_its_own() {
        let id = Uuid::from_u128(0xabcd);
        let scope = Scope::workspace(id);
        let secret = Uuid::from_u128(7);
        assert!(scope.contains(&ManagedCoordinate::new(&scope, secret, 3).unwrap()));
        let longer = Scope::new("workspace_x", id).unwrap();
        assert!(!scope.contains(&ManagedCoordinate::new(&longer, secret, 1).unwrap()));
        for foreign in [
            format!(
                "airbyte_workspace_{}_secret_{secret}_v1",
                id.to_string().to_uppercase()
            ),
            format!("airbyte_workspace_{id}_secret_{secret}x_v1"),
            format!("airbyte_workspace_{id}_secret_{}_v1", secret.simple()),
            format!("airbyte_workspace_{id}_other_{secret}_v1"),
        ] {
            assert!(
                !scope.contains(&ManagedCoordinate::parse(&foreign).unwrap()),
                "{foreign}"
            );
        }
        let nobody = Scope::ephemeral();
        assert!(!nobody.contains(&ManagedCoordinate::new(&nobody, secret, 1).unwrap()));
    }

    #[test]
    fn a_scope_refuses_a_prefix_that_leaves_no_room() {
        assert!(Scope::new("organization_", Uuid::nil()).is_ok());
        for prefix in ["a b", "a/b", "é", &"a".repeat(60)] {
            assert_eq!(
                Scope::new(prefix, Uuid::nil()).unwrap_err().kind(),
                ErrorKind::InvalidCoordinate
            );
        }
    }

    #[test]
    fn an_owner_fits_every_store() {
        assert_eq!(Owner::parse("prod-eu_1").unwrap().as_str(), "prod-eu_1");
        for text in ["", "Prod", "1prod", "prod eu", "é", &"a".repeat(64)] {
            assert_eq!(
                Owner::parse(text).unwrap_err().kind(),
                ErrorKind::InvalidConfig
            );
        }
    }

    #[test]
    fn names_in_errors_cannot_forge_log_lines() {
        let error = Coordinate::parse("a\nERROR forged").unwrap_err();
        assert!(!error.to_string().contains('\n'));
    }
}
