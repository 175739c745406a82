//! Settings from a file, whichever of the forms it has.

use std::path::Path;

use secret_persistence_core::Result;

use super::{Environment, KubernetesSecrets, Settings, invalid};

impl Settings {
    /// Reads a file of any form: the JSON for external secret management, a Helm `values.yaml`, or
    /// environment variables, one `NAME=value` a line (blank lines and those that begin with `#` are
    /// passed over). The content says which it is.
    ///
    /// The environment stands behind the file, as each form says; behind a file of variables it is not
    /// asked, except for `SECRETS_…`.
    ///
    /// # Errors
    /// `InvalidConfig` where the file cannot be read, and as the form says.
    pub fn from_file(
        path: &Path,
        secrets: &KubernetesSecrets,
        environment: &Environment,
    ) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            invalid(format!("{} cannot be read", path.display())).with_source(error)
        })?;
        // Editors of Windows begin a text with it.
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        if text.trim_start().starts_with('{') {
            return Self::from_json(text, environment);
        }
        match variables(text)? {
            Some(file) => Self::from_env(&environment.only("SECRETS_").overlaid_with(file)),
            None => Self::from_helm(text, secrets, environment),
        }
    }
}

/// The variables of a file that has nothing else.
///
/// # Errors
/// `InvalidConfig` for a variable that has two values.
fn variables(text: &str) -> Result<Option<Environment>> {
    let lines = text
        .lines()
        .map(str::trim_start)
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    let pair = |line: &str| {
        let (name, value) = line.split_once('=')?;
        let is_name = !name.is_empty()
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        is_name.then(|| (name.to_owned(), value.to_owned()))
    };
    let Some(pairs) = lines.map(pair).collect::<Option<Vec<_>>>() else {
        return Ok(None);
    };
    let twice = |(at, (name, value)): (usize, &(String, String))| {
        let before = &pairs[..at];
        before
            .iter()
            .any(|(known, other)| known == name && other != value)
    };
    if let Some(at) = pairs.iter().enumerate().position(twice) {
        let name = &pairs[at].0;
        return Err(invalid(format!(
            "the variable {name} has two values in the file"
        )));
    }
    Ok((!pairs.is_empty()).then(|| pairs.into_iter().collect()))
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
            // As an editor of Windows writes it, too.
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
