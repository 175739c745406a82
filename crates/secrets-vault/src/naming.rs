//! Coordinates and their paths in Vault.

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use secret_persistence_core::{Coordinate, Error, ErrorKind, Result};

/// The field that contains the value, as in Airbyte.
pub(crate) const VALUE_FIELD: &str = "value";

/// Characters that are encoded in a path segment: all that have a meaning in a URL or for Vault.
const SEGMENT: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'`')
    .add(b'{')
    .add(b'}')
    .add(b'\\')
    .add(b'^')
    .add(b'|')
    .add(b'[')
    .add(b']')
    .add(b'+')
    .add(b';');

/// The mount, and the prefix of every name within it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Root {
    /// Without leading and trailing slashes.
    pub(crate) mount: String,
    /// Prepended to every name unchanged. Usually empty, or with a slash at its end.
    pub(crate) prefix: String,
}

impl Root {
    /// Splits a joined path at a known mount.
    pub(crate) fn split(joined: &str, mount: &str) -> Option<Self> {
        let mount = mount.trim_matches('/');
        let prefix = joined.strip_prefix(mount)?.strip_prefix('/')?;
        Some(Self {
            mount: mount.to_owned(),
            prefix: prefix.to_owned(),
        })
    }

    /// Splits a joined path, with its first segment as the mount.
    pub(crate) fn first_segment(joined: &str) -> Self {
        let (mount, prefix) = joined.split_once('/').unwrap_or((joined, ""));
        Self {
            mount: mount.to_owned(),
            prefix: prefix.to_owned(),
        }
    }

    /// The path of a name in one part of the engine: `data`, `metadata`, …, or none on version 1.
    pub(crate) fn path(&self, part: Option<&str>, name: &str) -> String {
        let part = part.map_or_else(String::new, |part| format!("{part}/"));
        encode(&format!("{}/{part}{}{name}", self.mount, self.prefix))
    }

    /// The folder that contains the names, and their prefix in it.
    pub(crate) fn folder(&self) -> (&str, &str) {
        match self.prefix.rfind('/') {
            Some(at) => self.prefix.split_at(at + 1),
            None => ("", &self.prefix),
        }
    }

    /// The path of that folder in one part of the engine.
    pub(crate) fn folder_path(&self, part: Option<&str>) -> String {
        let part = part.map_or_else(String::new, |part| format!("{part}/"));
        encode(&format!("{}/{part}{}", self.mount, self.folder().0))
    }
}

/// The name of a coordinate within the root, and its field.
///
/// An external name may choose a field: `team/database#password`.
///
/// # Errors
/// `InvalidCoordinate` for an external name that is not a clean path.
pub(crate) fn native(coordinate: &Coordinate) -> Result<(&str, &str)> {
    let name = coordinate.as_str();
    if coordinate.managed().is_some() {
        return Ok((name, VALUE_FIELD));
    }
    let (path, field) = name.split_once('#').unwrap_or((name, VALUE_FIELD));
    let clean = !field.is_empty()
        && !field.contains('#')
        && path
            .split('/')
            .all(|segment| !segment.is_empty() && segment != "." && segment != "..");
    if clean {
        return Ok((path, field));
    }
    Err(
        Error::new(ErrorKind::InvalidCoordinate, "not a path in Vault")
            .with_coordinate(coordinate.shared())
            .with_hint("write an external name as folder/name or folder/name#field"),
    )
}

/// Percent-encodes a path, keeping its slashes.
pub(crate) fn encode(path: &str) -> String {
    utf8_percent_encode(path, SEGMENT).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(mount: &str, prefix: &str) -> Root {
        Root {
            mount: mount.into(),
            prefix: prefix.into(),
        }
    }

    #[test]
    fn paths_follow_the_engine_and_keep_airbytes_joining() {
        assert_eq!(root("secret", "").path(Some("data"), "n"), "secret/data/n");
        assert_eq!(
            root("secret", "airbyte/").path(Some("metadata"), "n"),
            "secret/metadata/airbyte/n"
        );
        assert_eq!(
            root("secret", "airbyte").path(Some("data"), "n"),
            "secret/data/airbyten"
        );
        assert_eq!(root("kv/team", "a/b/").path(None, "n"), "kv/team/a/b/n");
        assert_eq!(
            root("kv", "").path(None, "a b#?%/ü"),
            "kv/a%20b%23%3F%25/%C3%BC"
        );
    }

    #[test]
    fn folders_are_what_can_be_listed() {
        for (prefix, folder, rest) in [
            ("", "", ""),
            ("a/", "a/", ""),
            ("a/b/", "a/b/", ""),
            ("a/b", "a/", "b"),
            ("b", "", "b"),
        ] {
            assert_eq!(root("m", prefix).folder(), (folder, rest), "{prefix}");
        }
    }

    #[test]
    fn a_joined_prefix_splits_at_the_mount_that_the_server_names() {
        assert_eq!(
            Root::split("secret/airbyte/", "secret/"),
            Some(root("secret", "airbyte/"))
        );
        assert_eq!(
            Root::split("kv/team/a", "kv/team/"),
            Some(root("kv/team", "a"))
        );
        assert_eq!(Root::split("secretive/a", "secret/"), None);
        assert_eq!(Root::first_segment("secret/a/b/"), root("secret", "a/b/"));
    }

    #[test]
    fn external_names_may_choose_a_field_and_never_leave_their_path() {
        let parse = |name: &str| Coordinate::parse(name).unwrap();
        assert_eq!(native(&parse("team/db")).unwrap(), ("team/db", "value"));
        assert_eq!(
            native(&parse("team/db#user name")).unwrap(),
            ("team/db", "user name")
        );
        for name in ["/team", "team/", "team//db", "team/./db", "db#", "a#b#c"] {
            assert_eq!(
                native(&parse(name)).unwrap_err().kind(),
                ErrorKind::InvalidCoordinate,
                "{name}"
            );
        }
    }

    #[test]
    fn aliases_of_managed_names_never_become_external_ones() {
        for alias in [
            "secret/data/airbyte_w_v1",
            "airbyte_w_v1#value",
            "AIRBYTE_w_v1",
            "airbyte-w-v1",
            "a/../airbyte_w_v1",
            "metadata/airbyte_w_v01",
        ] {
            assert!(Coordinate::parse(alias).is_err(), "{alias}");
        }
    }
}
