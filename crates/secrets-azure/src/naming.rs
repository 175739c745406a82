//! Coordinates and their names in Key Vault. `-` replaces `_` in coordinates; external names are
//! used unchanged.

use std::fmt;

use secret_persistence_core::{
    Coordinate, Error, ErrorKind, ManagedCoordinate, ManagedPrefix, Result,
};

/// The longest name of a secret in characters.
/// <https://learn.microsoft.com/azure/key-vault/general/about-keys-secrets-certificates>
const MAX_NAME_CHARS: usize = 127;

/// A valid name of a secret in Key Vault, so that it cannot reach another path: the SDK inserts
/// names into paths unchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SecretName(String);

impl SecretName {
    /// The name of a coordinate.
    ///
    /// Core has already refused every external spelling that could mean a managed secret.
    pub(crate) fn of(coordinate: &Coordinate) -> Result<Self> {
        if let Some(managed) = coordinate.managed() {
            return Ok(Self::managed(managed));
        }
        Self::parse(coordinate.as_str()).map_err(|error| error.with_coordinate(coordinate.shared()))
    }

    /// The name of a managed coordinate, as Airbyte writes it: Key Vault does not support `_`.
    pub(crate) fn managed(coordinate: &ManagedCoordinate) -> Self {
        // A coordinate consists of at most 127 characters of [A-Za-z0-9_-].
        Self(coordinate.as_str().replace('_', "-"))
    }

    fn parse(name: &str) -> Result<Self> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        if (1..=MAX_NAME_CHARS).contains(&name.len()) && name.bytes().all(allowed) {
            return Ok(Self(name.to_owned()));
        }
        Err(Error::new(
            ErrorKind::InvalidCoordinate,
            "this is not the name of a secret in Key Vault",
        )
        .with_hint("a name must have 1 to 127 characters of 0-9, A-Z, a-z and -, without vault, path or version"))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether Key Vault considers both names equal: it ignores case.
    pub(crate) fn is(&self, name: &str) -> bool {
        self.0.eq_ignore_ascii_case(name)
    }
}

impl fmt::Display for SecretName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether a tag contains this coordinate. Ignores case, like Key Vault.
pub(crate) fn is_tagged(coordinate: &ManagedCoordinate, tag: &str) -> bool {
    coordinate.as_str().eq_ignore_ascii_case(tag)
}

/// The name in a secret's id: `https://<vault>/secrets/<name>[/<version>]`.
pub(crate) fn name_of_id(id: &str) -> Option<&str> {
    let (_, path) = id.split_once("://")?;
    let mut segments = path.split('/').skip(1).filter(|part| !part.is_empty());
    segments
        .next()
        .filter(|collection| matches!(*collection, "secrets" | "deletedsecrets"))?;
    segments.next()
}

/// The coordinate of a listed name: from the tag, if it belongs to this name, otherwise from the
/// known form of the name.
pub(crate) fn coordinate_of(name: &str, tag: Option<&str>) -> Option<ManagedCoordinate> {
    match tag {
        Some(tag) => ManagedCoordinate::parse(tag)
            .ok()
            .filter(|coordinate| SecretName::managed(coordinate).is(name)),
        None => untagged(ManagedPrefix::current(), name)
            .and_then(|coordinate| ManagedCoordinate::parse(&coordinate).ok()),
    }
}

/// The coordinate with the name `airbyte-<prefix><uuid>-secret-<uuid>-v<version>`, the form that
/// Airbyte wrote.
///
/// Each `-` of the prefixes was a `_`, as in all of Airbyte's; those of the UUIDs were not.
fn untagged(managed: &ManagedPrefix, name: &str) -> Option<String> {
    if !name.is_ascii() {
        return None;
    }
    let rest = name.strip_prefix(&*managed.as_str().replace('_', "-"))?;
    let (rest, version) = rest.rsplit_once("-v")?;
    let (rest, secret) = ending_in_uuid(rest)?;
    let (prefix, base) = ending_in_uuid(rest.strip_suffix("-secret-")?)?;
    let prefix = prefix.replace('-', "_");
    Some(format!(
        "{managed}{prefix}{base}_secret_{secret}_v{version}"
    ))
}

/// Splits a UUID off the end of an ASCII text.
fn ending_in_uuid(text: &str) -> Option<(&str, &str)> {
    let (rest, uuid) = text.split_at(text.len().checked_sub(36)?);
    let is_uuid = uuid.bytes().enumerate().all(|(at, byte)| match at {
        8 | 13 | 18 | 23 => byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    });
    is_uuid.then_some((rest, uuid))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = "11111111-2222-3333-4444-555555555555";
    const SECRET: &str = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee";

    fn managed(name: &str) -> ManagedCoordinate {
        ManagedCoordinate::parse(name).unwrap()
    }

    #[test]
    fn coordinates_are_named_as_airbyte_names_them() {
        let coordinate = managed(&format!("airbyte_workspace_{BASE}_secret_{SECRET}_v1"));
        let name = SecretName::managed(&coordinate);
        assert_eq!(
            name.as_str(),
            format!("airbyte-workspace-{BASE}-secret-{SECRET}-v1")
        );
        assert!(name.is(&name.as_str().to_uppercase()));
        // Two coordinates can have the same name, which is why there is a tag.
        let other = managed(&format!("airbyte_workspace-{BASE}_secret_{SECRET}_v1"));
        assert_eq!(SecretName::managed(&other), name);
        assert!(!is_tagged(&other, coordinate.as_str()));
        assert!(is_tagged(&coordinate, &coordinate.as_str().to_uppercase()));
    }

    #[test]
    fn external_names_are_valid_names_or_refused() {
        for name in ["db-password", "0", "A-1", &"x".repeat(127)] {
            let coordinate = Coordinate::parse(name).unwrap();
            assert_eq!(SecretName::of(&coordinate).unwrap().as_str(), name);
        }
        for name in [
            "db_password",
            "team/db",
            "db/0123456789abcdef",
            "https://v.vault.azure.net/secrets/db",
            "a.b",
            "a b",
            "a%2fb",
            "ключ",
            "a?b",
            "a#b",
            &"x".repeat(128),
        ] {
            let coordinate = Coordinate::parse(name).unwrap();
            let error = SecretName::of(&coordinate).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidCoordinate, "{name}");
            assert_eq!(error.coordinate(), Some(name));
        }
    }

    /// Core refuses every spelling with which Key Vault would find a managed secret, and no name
    /// that core accepts becomes one.
    #[test]
    fn no_alias_of_a_managed_secret_is_external() {
        let name = format!("airbyte-workspace-{BASE}-secret-{SECRET}-v1");
        for alias in [
            name.clone(),
            name.to_uppercase(),
            name.replacen('a', "A", 1),
            name.replace('-', "_").to_uppercase(),
            format!("{name}/0123456789abcdef0123456789abcdef"),
            format!("https://myvault.vault.azure.net/secrets/{name}"),
            format!("secrets/{name}"),
            format!("../secrets/{name}"),
            format!("x/../{name}"),
        ] {
            let error = Coordinate::parse(&alias).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidCoordinate, "{alias}");
        }
    }

    #[test]
    fn ids_give_names() {
        for (id, name) in [
            ("https://v.vault.azure.net/secrets/db", Some("db")),
            ("https://v.vault.azure.net/secrets/db/0123", Some("db")),
            ("https://localhost:8443/secrets/db/", Some("db")),
            ("https://v.vault.azure.net/deletedsecrets/db", Some("db")),
            ("https://v.vault.azure.net/keys/db", None),
            ("https://v.vault.azure.net/secrets", None),
            ("https://v.vault.azure.net", None),
            ("db", None),
        ] {
            assert_eq!(name_of_id(id), name, "{id}");
        }
    }

    #[test]
    fn untagged_names_are_read_by_their_shape() {
        for (prefix, spelt) in [
            ("workspace_", "workspace-"),
            ("organization_", "organization-"),
            ("storage_organization", "storage-organization"),
            ("", ""),
        ] {
            let name = format!("airbyte-{spelt}{BASE}-secret-{SECRET}-v12");
            let found = coordinate_of(&name, None).unwrap();
            assert_eq!(
                found.as_str(),
                format!("airbyte_{prefix}{BASE}_secret_{SECRET}_v12")
            );
            assert!(SecretName::managed(&found).is(&name));
        }
        for name in [
            "airbyte-workspace-x-secret-y-v1".to_owned(),
            format!("airbyte-workspace-{BASE}-secret-{SECRET}-v01"),
            format!("airbyte-workspace-{BASE}-secret-{SECRET}-v"),
            format!("airbyte-workspace-{BASE}-secret-{SECRET}"),
            format!("airbyte-workspace-{BASE}-other-{SECRET}-v1"),
            format!("Airbyte-workspace-{BASE}-secret-{SECRET}-v1"),
            format!(
                "airbyte-workspace-{}-secret-{SECRET}-v1",
                BASE.replace('1', "g")
            ),
            "db-password".to_owned(),
            format!("airbyte-é{BASE}-secret-{SECRET}-v1"),
            "airbyte-v1".to_owned(),
            String::new(),
        ] {
            assert_eq!(coordinate_of(&name, None), None, "{name}");
        }
    }

    #[test]
    fn names_with_another_prefix_are_read_by_their_shape() {
        let acme = ManagedPrefix::parse("acme_").unwrap();
        let name = format!("acme-project-{BASE}-secret-{SECRET}-v3");
        assert_eq!(
            untagged(&acme, &name).unwrap(),
            format!("acme_project_{BASE}_secret_{SECRET}_v3")
        );
        // Neither prefix reads the names of the other.
        assert_eq!(untagged(&ManagedPrefix::AIRBYTE, &name), None);
        assert_eq!(untagged(&acme, &name.replace("acme", "airbyte")), None);
        assert_eq!(untagged(&acme, "acme-database-v2"), None);
        assert_eq!(coordinate_of(&name, None), None);
        let tag = format!("acme_project_{BASE}_secret_{SECRET}_v3");
        assert_eq!(coordinate_of(&name, Some(&tag)), None);
    }

    #[test]
    fn a_tag_is_believed_only_where_it_belongs_to_the_name() {
        let coordinate = "airbyte_a-b_v1";
        let found = coordinate_of("airbyte-a-b-v1", Some(coordinate)).unwrap();
        assert_eq!(found.as_str(), coordinate);
        assert_eq!(coordinate_of("airbyte-a-c-v1", Some(coordinate)), None);
        assert_eq!(coordinate_of("airbyte-a-b-v1", Some("something")), None);
    }
}
