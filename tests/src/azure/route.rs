//! Maps requests to operations.

use std::collections::BTreeMap;

use hyper::Method;
use percent_encoding::percent_decode_str;
use url::form_urlencoded;

/// The parameters after the `?`.
#[derive(Debug)]
pub(super) struct Query(BTreeMap<String, String>);

impl Query {
    pub(super) fn parse(query: Option<&str>) -> Self {
        let pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
        Self(pairs.into_owned().collect())
    }

    /// Whether the parameter exists.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// The value of the parameter, unless it is missing or empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }
}

/// The target of a request to the https port.
#[derive(Debug, PartialEq)]
pub(super) enum Route {
    Token { tenant: String },
    Vault(Operation),
    Unknown,
}

/// An operation on the vault's secrets.
///
/// See <https://learn.microsoft.com/rest/api/keyvault/secrets/operation-groups>.
#[derive(Debug, PartialEq)]
pub(super) enum Operation {
    Delete {
        name: String,
    },
    Get {
        name: String,
        version: Option<String>,
    },
    GetDeleted {
        name: String,
    },
    List,
    ListDeleted,
    ListVersions {
        name: String,
    },
    Purge {
        name: String,
    },
    Recover {
        name: String,
    },
    Set {
        name: String,
    },
    Update {
        name: String,
        version: Option<String>,
    },
}

impl Route {
    pub(super) fn parse(method: &Method, path: &str) -> Self {
        // A trailing slash means that the version is missing.
        let segments: Vec<_> = path
            .split('/')
            .filter(|segment| !segment.is_empty())
            .map(|segment| percent_decode_str(segment).decode_utf8_lossy().into_owned())
            .collect();
        let segments: Vec<_> = segments.iter().map(String::as_str).collect();
        match (method.as_str(), segments.as_slice()) {
            ("POST", [tenant, "oauth2", "v2.0", "token"]) => Self::Token {
                tenant: (*tenant).to_owned(),
            },
            (method, segments) => {
                Operation::parse(method, segments).map_or(Self::Unknown, Self::Vault)
            }
        }
    }

    pub(super) fn operation(&self) -> &'static str {
        match self {
            Self::Token { .. } => "Token",
            Self::Unknown => "Unknown",
            Self::Vault(operation) => operation.id(),
        }
    }
}

impl Operation {
    fn parse(method: &str, segments: &[&str]) -> Option<Self> {
        let owned = |name: &str| name.to_owned();
        Some(match (method, segments) {
            ("GET", ["secrets"]) => Self::List,
            ("GET", ["secrets", name]) => Self::Get {
                name: owned(name),
                version: None,
            },
            ("GET", ["secrets", name, "versions"]) => Self::ListVersions { name: owned(name) },
            ("GET", ["secrets", name, version]) => Self::Get {
                name: owned(name),
                version: Some(owned(version)),
            },
            ("PUT", ["secrets", name]) => Self::Set { name: owned(name) },
            ("PATCH", ["secrets", name]) => Self::Update {
                name: owned(name),
                version: None,
            },
            ("PATCH", ["secrets", name, version]) => Self::Update {
                name: owned(name),
                version: Some(owned(version)),
            },
            ("DELETE", ["secrets", name]) => Self::Delete { name: owned(name) },
            ("GET", ["deletedsecrets"]) => Self::ListDeleted,
            ("GET", ["deletedsecrets", name]) => Self::GetDeleted { name: owned(name) },
            ("DELETE", ["deletedsecrets", name]) => Self::Purge { name: owned(name) },
            ("POST", ["deletedsecrets", name, "recover"]) => Self::Recover { name: owned(name) },
            _ => return None,
        })
    }

    pub(super) fn name(&self) -> Option<&str> {
        match self {
            Self::Delete { name }
            | Self::Get { name, .. }
            | Self::GetDeleted { name }
            | Self::ListVersions { name }
            | Self::Purge { name }
            | Self::Recover { name }
            | Self::Set { name }
            | Self::Update { name, .. } => Some(name),
            Self::List | Self::ListDeleted => None,
        }
    }

    fn id(&self) -> &'static str {
        match self {
            Self::Delete { .. } => "DeleteSecret",
            Self::Get { .. } => "GetSecret",
            Self::GetDeleted { .. } => "GetDeletedSecret",
            Self::List => "ListSecrets",
            Self::ListDeleted => "ListDeletedSecrets",
            Self::ListVersions { .. } => "ListSecretVersions",
            Self::Purge { .. } => "PurgeDeletedSecret",
            Self::Recover { .. } => "RecoverDeletedSecret",
            Self::Set { .. } => "SetSecret",
            Self::Update { .. } => "UpdateSecret",
        }
    }

    /// The data action that a role must contain.
    ///
    /// See <https://learn.microsoft.com/azure/role-based-access-control/permissions/security#microsoftkeyvault>.
    pub(super) fn data_action(&self) -> &'static str {
        match self {
            Self::Delete { .. } => "Microsoft.KeyVault/vaults/secrets/delete",
            Self::Get { .. } => "Microsoft.KeyVault/vaults/secrets/getSecret/action",
            Self::GetDeleted { .. }
            | Self::List
            | Self::ListDeleted
            | Self::ListVersions { .. } => "Microsoft.KeyVault/vaults/secrets/readMetadata/action",
            Self::Purge { .. } => "Microsoft.KeyVault/vaults/secrets/purge/action",
            Self::Recover { .. } => "Microsoft.KeyVault/vaults/secrets/recover/action",
            Self::Set { .. } => "Microsoft.KeyVault/vaults/secrets/setSecret/action",
            Self::Update { .. } => "Microsoft.KeyVault/vaults/secrets/update/action",
        }
    }

    /// The permission that an access policy must contain, from the page of each operation in
    /// <https://learn.microsoft.com/rest/api/keyvault/secrets/operation-groups>.
    pub(super) fn permission(&self) -> &'static str {
        match self {
            Self::Delete { .. } => "delete",
            Self::Get { .. } | Self::GetDeleted { .. } => "get",
            Self::List | Self::ListDeleted | Self::ListVersions { .. } => "list",
            Self::Purge { .. } => "purge",
            Self::Recover { .. } => "recover",
            Self::Set { .. } | Self::Update { .. } => "set",
        }
    }
}
