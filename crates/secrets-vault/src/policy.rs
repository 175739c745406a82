//! The minimal policy of a token, in Vault's policy language.

use std::fmt::Write as _;

use secret_persistence_core::{Error, ErrorKind, ManagedPrefix, Result};

use crate::config::KvVersion;
use crate::naming::Root;

/// Options of the policy.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PolicyOptions {
    /// Mount and path together, as in the setting `prefix`. The first part is the mount.
    pub prefix: String,
    /// The mount, if it is not the first part of the prefix.
    pub mount: Option<String>,
    /// Version 1 or 2 of the KV engine; `None` prints the rules of both.
    pub kv_version: Option<u8>,
    /// Whether the token only reads.
    pub read_only: bool,
}

impl PolicyOptions {
    /// A policy for reading and writing under this prefix, for both versions of the engine.
    pub fn new(prefix: impl Into<String>) -> Self {
        Self {
            prefix: prefix.into(),
            mount: None,
            kv_version: None,
            read_only: false,
        }
    }

    /// Sets the mount.
    #[must_use]
    pub fn with_mount(mut self, mount: Option<String>) -> Self {
        self.mount = mount;
        self
    }

    /// Sets the version of the KV engine.
    #[must_use]
    pub fn with_kv_version(mut self, version: Option<u8>) -> Self {
        self.kv_version = version;
        self
    }

    /// Sets whether the token only reads.
    #[must_use]
    pub fn with_read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }
}

/// One rule: the capabilities on a path, and the reason.
/// <https://developer.hashicorp.com/vault/api-docs/secret/kv/kv-v2>,
/// <https://developer.hashicorp.com/vault/api-docs/secret/kv/kv-v1>
struct Rule {
    version: Option<KvVersion>,
    place: RulePlace,
    /// The capabilities for reading.
    reads: &'static [&'static str],
    /// Additional capabilities for writing.
    writes: &'static [&'static str],
    why: &'static str,
}

enum RulePlace {
    /// The folder of the names, in one part of the engine.
    Folder(Option<&'static str>),
    /// Managed names, in one part of the engine.
    Names(Option<&'static str>),
    /// A path of the server.
    Server(&'static str),
}

const RULES: &[Rule] = &[
    Rule {
        version: Some(KvVersion::Two),
        place: RulePlace::Names(Some("data")),
        reads: &["read"],
        // For Vault, a name with metadata exists, so its first value is an update.
        writes: &["create", "update"],
        why: "values",
    },
    Rule {
        version: Some(KvVersion::Two),
        place: RulePlace::Names(Some("metadata")),
        reads: &["read"],
        // `update`, because an interrupted write leaves its metadata.
        writes: &["create", "update", "delete"],
        why: "owner and expiry; deleting them deletes every version",
    },
    Rule {
        version: Some(KvVersion::Two),
        place: RulePlace::Names(Some("undelete")),
        reads: &[],
        writes: &["update"],
        why: "restore what another client soft-deleted",
    },
    Rule {
        version: Some(KvVersion::Two),
        place: RulePlace::Folder(Some("metadata")),
        reads: &["list"],
        writes: &[],
        why: "the list of names",
    },
    Rule {
        version: Some(KvVersion::One),
        place: RulePlace::Names(None),
        reads: &["read"],
        writes: &["create", "delete"],
        why: "values (a name is written once, so `update` is not needed)",
    },
    Rule {
        version: Some(KvVersion::One),
        place: RulePlace::Folder(None),
        reads: &["list"],
        writes: &[],
        why: "the list of names",
    },
    Rule {
        version: None,
        place: RulePlace::Server("auth/token/lookup-self"),
        reads: &["read"],
        writes: &[],
        why: "look up the token's lease and identity",
    },
    Rule {
        version: None,
        place: RulePlace::Server("auth/token/renew-self"),
        reads: &["update"],
        writes: &[],
        why: "renew the token before it expires",
    },
];

/// Prints the minimal policy in HCL. It is sufficient with `no_default_policy`.
///
/// ```
/// use secret_persistence_vault::{PolicyOptions, policy};
///
/// let hcl = policy(&PolicyOptions::new("secret/airbyte/").with_kv_version(Some(2)))?;
/// assert!(hcl.contains(r#"path "secret/data/airbyte/airbyte_*" {"#));
/// # Ok::<(), secret_persistence_core::Error>(())
/// ```
///
/// # Errors
/// `InvalidConfig` if prefix or mount contain a wildcard (`*`, `+`), a template (`{{`), a quote or
/// another character with a meaning in a policy, or if the version is not 1 or 2.
pub fn policy(options: &PolicyOptions) -> Result<String> {
    let root = match &options.mount {
        Some(mount) => Root {
            mount: mount.trim_matches('/').to_owned(),
            prefix: options.prefix.clone(),
        },
        None => Root::first_segment(&options.prefix),
    };
    let plain = |text: &str| {
        text.chars()
            .all(|char| char.is_alphanumeric() || "-_./ @=,".contains(char))
    };
    if root.mount.is_empty() || !plain(&root.mount) || !plain(&root.prefix) {
        return Err(Error::new(
            ErrorKind::InvalidConfig,
            "this prefix is not valid in a policy",
        )
        .with_hint("use a path without wildcards, templates and quotes, such as secret/airbyte/"));
    }
    let version = match options.kv_version {
        None => None,
        Some(1) => Some(KvVersion::One),
        Some(2) => Some(KvVersion::Two),
        Some(_) => {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                "the KV engine has versions 1 and 2",
            ));
        }
    };
    let mut hcl = String::new();
    for rule in RULES {
        let applies = rule.version.is_none() || version.is_none() || rule.version == version;
        let writes = if options.read_only { &[] } else { rule.writes };
        let capabilities: Vec<String> = rule
            .reads
            .iter()
            .chain(writes)
            .map(|capability| format!("\"{capability}\""))
            .collect();
        if !applies || capabilities.is_empty() {
            continue;
        }
        let join = |part: &Option<&str>, rest: String| match part {
            Some(part) => format!("{}/{part}/{rest}", root.mount),
            None => format!("{}/{rest}", root.mount),
        };
        let path = match &rule.place {
            RulePlace::Folder(part) => join(part, root.folder().0.to_owned()),
            RulePlace::Names(part) => join(
                part,
                format!("{}{}*", root.prefix, ManagedPrefix::current()),
            ),
            RulePlace::Server(path) => (*path).to_owned(),
        };
        let engine = match rule.version {
            Some(KvVersion::One) if version.is_none() => " (KV version 1)",
            Some(KvVersion::Two) if version.is_none() => " (KV version 2)",
            _ => "",
        };
        // Writing to a String cannot fail.
        let _ = write!(
            hcl,
            "# {}{engine}\npath \"{path}\" {{\n  capabilities = [{}]\n}}\n\n",
            rule.why,
            capabilities.join(", ")
        );
    }
    hcl.truncate(hcl.trim_end().len());
    hcl.push('\n');
    Ok(hcl)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_gets_no_right_to_change() {
        let hcl = policy(&PolicyOptions::new("secret/airbyte/").with_read_only(true)).unwrap();
        for capability in ["\"create\"", "\"delete\""] {
            assert!(!hcl.contains(capability), "{hcl}");
        }
        assert!(!hcl.contains("undelete"));
        assert!(hcl.contains("path \"secret/metadata/airbyte/\" {\n  capabilities = [\"list\"]"));
    }

    #[test]
    fn a_prefix_without_slash_stays_joined_as_airbyte_joins_it() {
        let hcl = policy(&PolicyOptions::new("kv/team/x").with_kv_version(Some(1))).unwrap();
        assert!(hcl.contains("path \"kv/team/xairbyte_*\""));
        assert!(hcl.contains("path \"kv/team/\""));
    }

    #[test]
    fn wildcards_templates_and_quotes_are_refused() {
        for prefix in [
            "",
            "/",
            "secret/*",
            "secret/+/x/",
            "secret/{{identity}}/",
            "a\"b/",
            "a\n/",
        ] {
            let error = policy(&PolicyOptions::new(prefix)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{prefix}");
        }
        assert!(policy(&PolicyOptions::new("secret/").with_kv_version(Some(3))).is_err());
    }
}
