//! Settings from a file in any form.

use std::path::Path;

use secret_persistence_core::Result;

use super::{Environment, KubernetesSecrets, Settings, helm, text, tree, variables};

impl Settings {
    /// Reads a file of any form: the JSON for external secret management, a Helm `values.yaml`, or
    /// environment variables, one `NAME=value` per line, in UTF-8 or UTF-16. The form is detected
    /// from the contents.
    ///
    /// Variables are read as people write them for docker, systemd and shells: with `export`, in
    /// quotes, over several lines within quotes, with spaces around `=` and comments after a space.
    /// A line that two of those would read differently is an error.
    ///
    /// The environment completes the file as documented for each form. For a file of variables, it
    /// only adds `SECRETS_…`. Variables that define an identity for an SDK are refused in a file:
    /// the SDK would not see them, and would use the identity of the process.
    ///
    /// # Errors
    /// `InvalidConfig` if the file cannot be read, and the errors of its form.
    pub fn from_file(
        path: &Path,
        secrets: &KubernetesSecrets,
        environment: &Environment,
    ) -> Result<Self> {
        let text = text::read(path)?;
        if variables::is_of_variables(&text) {
            let file = variables::parse(&text)?;
            return Self::from_file_of_variables(file, environment.clone().only("SECRETS_"));
        }
        helm::refuse_text(&text)?;
        if !text.trim_start().starts_with(['{', '[']) {
            return Self::from_helm(&text, secrets, environment);
        }
        match tree::json("the file", &text) {
            Ok(document) if helm::is_of_values(&document) => {
                Self::from_values(&document, secrets, environment)
            }
            Ok(document) => Self::from_value(&document, environment),
            // YAML may begin with a brace too.
            Err(error) => match tree::yaml("the file", &text) {
                Ok(documents)
                    if documents
                        .first()
                        .is_some_and(|first| helm::is_of_values(first)) =>
                {
                    Self::from_helm(&text, secrets, environment)
                }
                _ => Err(error),
            },
        }
    }
}

#[cfg(all(test, feature = "vault", feature = "sqlite"))]
mod tests {
    use super::*;
    use crate::kind::Kind;

    #[test]
    fn the_content_says_which_form_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("settings");
        let environment = Environment::from_iter([
            ("SECRETS_OWNER", "here"),
            ("VAULT_ADDRESS", "https://other"),
        ]);
        for (text, kind) in [
            (
                "\n{\"address\": \"https://v\", \"token\": \"t\", \"prefix\": \"p/\"}",
                Kind::Vault,
            ),
            (
                "# ours\n\nSECRET_PERSISTENCE=VAULT\nVAULT_ADDRESS=https://v\n",
                Kind::Vault,
            ),
            (
                "global:\n  secretsManager:\n    type: VAULT\n    vault:\n      address: https://v\n",
                Kind::Vault,
            ),
            ("externalDatabase: {host: h}", Kind::Database),
        ] {
            // As a Windows editor saves it.
            let windows = format!("\u{feff}{}", text.replace('\n', "\r\n"));
            std::fs::write(&path, windows).unwrap();
            let read = || Settings::from_file(&path, &KubernetesSecrets::none(), &environment);
            let names = |settings: &Settings| settings.store().names().collect::<Vec<_>>();
            let windows = names(&read().unwrap());
            std::fs::write(&path, text).unwrap();
            let settings = read().unwrap();
            assert_eq!(names(&settings), windows, "{text}");
            assert_eq!(settings.kind(), kind, "{text}");
            if kind == Kind::Vault {
                assert_eq!(
                    settings.store().text("address"),
                    Some("https://v"),
                    "{text}"
                );
            }
            assert_eq!(
                settings.owner().unwrap().unwrap().as_str(),
                "here",
                "{text}"
            );
        }
        std::fs::write(&path, "VAULT_AUTH_TOKEN=a\nVAULT_AUTH_TOKEN=canary\n").unwrap();
        let error = Settings::from_file(&path, &KubernetesSecrets::none(), &environment);
        let error = error.unwrap_err();
        assert!(
            error.message().contains("VAULT_AUTH_TOKEN has two values"),
            "{error}"
        );
        assert!(!format!("{error:?}").contains("canary"));
        let missing = folder.path().join("missing");
        let error = Settings::from_file(&missing, &KubernetesSecrets::none(), &environment);
        assert!(error.unwrap_err().message().contains("cannot be read"));
    }
}
