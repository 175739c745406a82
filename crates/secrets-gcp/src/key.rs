//! Parses credentials files: their types, identity, and required fields.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secret_persistence_core::settings::invalid;
use secret_persistence_core::{Error, Result, SecretValue};
use serde_json::Value;

/// The only universe whose endpoints and tokens this crate supports.
/// <https://cloud.google.com/docs/authentication/universe-domain>
const UNIVERSE: &str = "googleapis.com";

/// The contents of a credentials file: a service account key, or a configuration of workload
/// identity federation, impersonation or a user's login. `Debug` hides them.
#[derive(Clone)]
pub(crate) struct Key {
    pub(crate) json: SecretValue,
}

impl Key {
    /// Parses the JSON text, which may be base64-encoded as in a Kubernetes manifest.
    ///
    /// # Errors
    /// `InvalidConfig` if it is not a credentials file or is incomplete. Errors never contain its
    /// contents.
    pub(crate) fn parse(text: &SecretValue) -> Result<Self> {
        let trimmed = text.expose().trim_start_matches('\u{feff}').trim();
        let json = if trimmed.starts_with('{') {
            text.clone()
        } else {
            let packed: String = trimmed.split_whitespace().collect();
            STANDARD
                .decode(packed)
                .ok()
                .and_then(|bytes| String::from_utf8(bytes).ok())
                .map(SecretValue::new)
                .ok_or_else(|| not_a_key("the credentials are neither JSON nor JSON in base64"))?
        };
        let key = Self { json };
        key.value()?.check()?;
        Ok(key)
    }

    /// Parses the contents again. The SDK gets this copy and does not wipe it.
    pub(crate) fn value(&self) -> Result<KeyContent> {
        let text = self.json.expose().trim_start_matches('\u{feff}');
        let value: Value =
            // Drops the cause, which may quote the contents.
            serde_json::from_str(text).map_err(|_| not_a_key("the credentials are not JSON"))?;
        Ok(KeyContent(value))
    }

    /// Checks what a tenant may use: only a service account key with tokens from Google.
    pub(crate) fn check_tenants(&self) -> Result<()> {
        let content = self.value()?;
        if content.kind() != Some(Kind::ServiceAccount) {
            return Err(invalid(
                "a tenant may use only a service account key as Google credentials",
            ));
        }
        if content.text("token_uri") != Some("https://oauth2.googleapis.com/token") {
            return Err(
                invalid("the service account key has another token address than Google's")
                    .with_hint("use the key as Google created it"),
            );
        }
        Ok(())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(redacted)")
    }
}

/// The fields of a credentials file.
pub(crate) struct KeyContent(pub(crate) Value);

impl KeyContent {
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_str()
    }

    pub(crate) fn kind(&self) -> Option<Kind> {
        match self.text("type")? {
            "authorized_user" => Some(Kind::AuthorizedUser),
            "external_account" => Some(Kind::ExternalAccount),
            "impersonated_service_account" => Some(Kind::Impersonated),
            "service_account" => Some(Kind::ServiceAccount),
            _ => None,
        }
    }

    /// The identity in the credentials, for display.
    pub(crate) fn principal(&self) -> Option<String> {
        let of_url = |name| {
            let (_, rest) = self.text(name)?.rsplit_once("/serviceAccounts/")?;
            Some(rest.split(':').next().unwrap_or(rest).to_owned())
        };
        match self.kind()? {
            Kind::AuthorizedUser => Some(
                self.text("account")
                    .filter(|account| !account.is_empty())
                    .map_or_else(|| "the user of gcloud's login".to_owned(), str::to_owned),
            ),
            Kind::ExternalAccount => of_url("service_account_impersonation_url")
                .or_else(|| self.text("audience").map(str::to_owned)),
            Kind::Impersonated => of_url("service_account_impersonation_url"),
            Kind::ServiceAccount => self.text("client_email").map(str::to_owned),
        }
    }

    /// Checks the required fields. Errors contain their names, never their contents.
    pub(crate) fn check(&self) -> Result<()> {
        let Some(kind) = self.kind() else {
            return Err(not_a_key("the credentials are JSON of an unknown type"));
        };
        let universe = self.text("universe_domain").unwrap_or(UNIVERSE);
        if universe != UNIVERSE {
            return Err(
                invalid("the credentials are for another universe than googleapis.com")
                    .with_hint("use credentials of the public Google Cloud"),
            );
        }
        let needed: &[&str] = match kind {
            Kind::AuthorizedUser => &["client_id", "client_secret", "refresh_token"],
            Kind::ExternalAccount => &["audience", "subject_token_type", "token_url"],
            Kind::Impersonated => &["service_account_impersonation_url"],
            Kind::ServiceAccount => &[
                "client_email",
                "private_key",
                "private_key_id",
                "project_id",
            ],
        };
        let missing: Vec<&str> = needed
            .iter()
            .copied()
            .filter(|name| self.text(name).is_none_or(str::is_empty))
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(not_a_key(format!(
            "the credentials lack {}",
            missing.join(", ")
        )))
    }
}

/// The types of credentials files.
/// <https://cloud.google.com/docs/authentication/application-default-credentials>
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    AuthorizedUser,
    ExternalAccount,
    Impersonated,
    ServiceAccount,
}

fn not_a_key(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    invalid(message).with_hint(
        "use the whole JSON file that `gcloud iam service-accounts keys create` writes \
         (SECRET_STORE_GCP_CREDENTIALS), or its path (SECRET_STORE_GCP_CREDENTIALS_FILE)",
    )
}

#[cfg(test)]
mod tests {
    use secret_persistence_core::ErrorKind;
    use serde_json::json;

    use super::*;

    fn service_account() -> Value {
        json!({
            "type": "service_account",
            "project_id": "my-project",
            "private_key_id": "canary-key-id",
            "private_key": "canary-private-key",
            "client_email": "x@my-project.iam.gserviceaccount.com",
            "token_uri": "https://oauth2.googleapis.com/token",
        })
    }

    fn parse(value: &Value) -> Result<Key> {
        Key::parse(&SecretValue::new(value.to_string()))
    }

    #[test]
    fn keys_are_json_or_json_in_base64() {
        let text = service_account().to_string();
        let packed = STANDARD.encode(&text);
        let (start, end) = packed.split_at(76);
        for text in [
            text.clone(),
            format!("\n {text}\n"),
            format!("\u{feff}{text}\r\n"),
            packed.clone(),
            format!("{start}\n{end}\n"),
        ] {
            let key = Key::parse(&SecretValue::new(text)).unwrap();
            assert_eq!(
                key.value().unwrap().principal().unwrap(),
                "x@my-project.iam.gserviceaccount.com"
            );
        }
    }

    #[test]
    fn what_is_no_key_is_refused_and_not_shown() {
        let mut missing = service_account();
        missing["private_key"] = Value::Null;
        let mut foreign = service_account();
        foreign["universe_domain"] = json!("canary.example");
        for (text, expected) in [
            ("canary".to_owned(), "neither JSON"),
            ("{\"canary\": canary}".to_owned(), "not JSON"),
            ("{\"type\": \"canary\"}".to_owned(), "unknown type"),
            ("{\"canary\": 1}".to_owned(), "unknown type"),
            (missing.to_string(), "lack private_key"),
            (foreign.to_string(), "another universe"),
            (String::new(), "not JSON"),
        ] {
            let error = Key::parse(&SecretValue::new(text.clone())).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{text}");
            assert!(error.message().contains(expected), "{text}: {error}");
            assert!(!format!("{error} {error:?}").contains("canary"), "{error}");
        }
    }

    #[test]
    fn a_tenants_key_is_a_service_accounts_and_googles() {
        parse(&service_account()).unwrap().check_tenants().unwrap();
        let mut elsewhere = service_account();
        elsewhere["token_uri"] = json!("https://oauth2.googleapis.com.evil.example/token");
        let mut nowhere = service_account();
        nowhere.as_object_mut().unwrap().remove("token_uri");
        let user = json!({
            "type": "authorized_user",
            "client_id": "x",
            "client_secret": "x",
            "refresh_token": "x",
        });
        let external = json!({
            "type": "external_account",
            "audience": "x",
            "subject_token_type": "x",
            "token_url": "http://169.254.169.254/",
        });
        for value in [elsewhere, nowhere, user, external] {
            let error = parse(&value).unwrap().check_tenants().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{value}");
        }
    }
}
