//! Warns about prefixes of Vault that are probably mistakes. None is an error: prefixes are used
//! unchanged, and there may be secrets under such names.

use secret_persistence_core::settings::SettingMap;

use super::Warning;
use crate::kind::Kind;

/// The warnings about the prefix of a Vault store.
pub(super) fn warnings(kind: Kind, store: &SettingMap) -> Vec<Warning> {
    let prefix = match kind {
        Kind::Vault => store.text("prefix").unwrap_or_default(),
        _ => "",
    };
    if prefix.is_empty() {
        return Vec::new();
    }
    let of_the_api = |part: &str| part == "data" || part == "metadata";
    let mut found = Vec::new();
    if prefix.split('/').any(of_the_api) && store.text("kv-version") != Some("1") {
        found.push(
            "contains `data/` or `metadata/`, which the API of KV 2 adds by itself: use only mount and path",
        );
    }
    if !prefix.ends_with('/') {
        found.push(match prefix.contains('/') || store.is_set("mount") {
            true => "does not end with `/`, so its last part becomes part of the names",
            false => "does not end with `/`, and is used as the mount",
        });
    }
    if prefix.contains(char::is_whitespace) {
        found.push("contains spaces, which become part of every name");
    }
    let warning = |what| Warning::new(format!("the prefix of Vault {what}"));
    found.into_iter().map(warning).collect()
}

#[cfg(all(test, feature = "vault"))]
mod tests {
    use crate::settings::{Environment, KubernetesSecrets, Settings};

    /// The warnings about a prefix, the same in every form.
    fn of(prefix: &str) -> Vec<String> {
        let environment = Environment::from_iter([
            ("SECRET_PERSISTENCE", "VAULT"),
            ("VAULT_ADDRESS", "https://v"),
            ("VAULT_AUTH_TOKEN", "t"),
            ("VAULT_PREFIX", prefix),
        ]);
        let credentials = environment.clone();
        let helm = format!(
            "global: {{secretsManager: {{type: VAULT, vault: {{address: 'https://v', authToken: t, prefix: '{prefix}'}}}}}}"
        );
        let json = format!(r#"{{"address": "https://v", "token": "t", "prefix": "{prefix}"}}"#);
        let url = format!("vault://v?prefix={}", prefix.replace(' ', "%20"));
        let none = Environment::empty();
        let forms = [
            Settings::from_env(&environment),
            Settings::from_helm(&helm, &KubernetesSecrets::none(), &none),
            Settings::from_json(&json, &none),
            Settings::from_url(&url, &credentials),
        ];
        let mut told = forms.map(|settings| {
            let settings = settings.expect("every form is read");
            let warnings = settings.warnings().iter().map(ToString::to_string);
            warnings
                .filter(|text| text.contains("the prefix of Vault"))
                .collect::<Vec<_>>()
        });
        for form in &told {
            assert_eq!(*form, told[0], "{prefix}");
        }
        std::mem::take(&mut told[0])
    }

    #[test]
    fn a_prefix_that_is_probably_not_meant_is_told() {
        for fine in [
            "secret/",
            "secret/airbyte/",
            "kv/database/",
            "kv/metadata-of-us/",
        ] {
            assert_eq!(of(fine), [""; 0], "{fine}");
        }
        for (prefix, expected) in [
            ("secret/data/airbyte/", "`data/`"),
            ("secret/metadata/", "`metadata/`"),
            ("secret/airbyte", "does not end with `/`"),
            ("secret", "used as the mount"),
            ("secret/air byte/", "spaces"),
            (" secret/", "spaces"),
        ] {
            let told = of(prefix);
            assert!(
                told.len() == 1 && told[0].contains(expected),
                "{prefix}: {told:?}"
            );
        }
        assert_eq!(of("secret/data/air byte").len(), 3);
    }

    #[test]
    fn what_kv_1_has_under_data_is_its_own() {
        let environment = Environment::from_iter([("VAULT_AUTH_TOKEN", "t")]);
        let settings =
            Settings::from_url("vault://v/secret/data/a/?kv-version=1", &environment).unwrap();
        assert!(settings.warnings().is_empty(), "{:?}", settings.warnings());
    }
}
