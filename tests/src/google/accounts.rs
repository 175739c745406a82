//! The identities: a service account with a key, one to impersonate, a user, and a workload of
//! another provider.

use std::{
    collections::BTreeMap,
    fs::OpenOptions,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    sync::{Mutex, RwLock},
    time::Duration,
};

use serde_json::{Value, json};
use time::OffsetDateTime;
use uuid::Uuid;

use super::pretty;
use crate::jwt::{Jwt, SigningKey};

/// The scope that each method of the service
/// [requires](https://cloud.google.com/secret-manager/docs/reference/rest/v1/projects.secrets.versions/access#authorization-scopes).
pub(super) const CLOUD_PLATFORM: &str = "https://www.googleapis.com/auth/cloud-platform";

/// The issuer of the workload's tokens.
const WORKLOAD_ISSUER: &str = "https://workloads.example.com";

pub(super) struct Accounts {
    project: String,
    project_number: u64,
    /// Scheme, host and port of this server.
    origin: String,
    email: String,
    impersonated: String,
    refresh_token: String,
    client_secret: String,
    /// The current key of the service account, as an object and as the text of its file.
    key: RwLock<(SigningKey, String)>,
    workload_key: SigningKey,
    tokens: Mutex<BTreeMap<String, Token>>,
}

/// The identity and scope of an access token.
#[derive(Clone)]
pub(super) struct Token {
    pub(super) principal: String,
    pub(super) scopes: Vec<String>,
    /// In seconds since 1970.
    pub(super) expires: i64,
}

impl Accounts {
    pub(super) fn generate(project: &str, number: u64, origin: String) -> Self {
        let email = format!("airbyte-secrets@{project}.iam.gserviceaccount.com");
        let key = SigningKey::shared();
        let pem = key.pem();
        Self {
            project: project.to_owned(),
            project_number: number,
            origin,
            impersonated: format!("secret-writer@{project}.iam.gserviceaccount.com"),
            refresh_token: format!("1//0{}", random()),
            client_secret: format!("GOCSPX-{}", random()),
            email,
            key: RwLock::new((key, pem)),
            workload_key: SigningKey::shared(),
            tokens: Mutex::default(),
        }
    }

    pub(super) fn project(&self) -> &str {
        &self.project
    }

    pub(super) fn project_number(&self) -> u64 {
        self.project_number
    }

    pub(super) fn email(&self) -> &str {
        &self.email
    }

    pub(super) fn impersonated_email(&self) -> &str {
        &self.impersonated
    }

    pub(super) fn refresh_token(&self) -> &str {
        &self.refresh_token
    }

    pub(super) fn client_secret(&self) -> &str {
        &self.client_secret
    }

    pub(super) fn client_id(&self) -> String {
        format!(
            "{}-stand-in.apps.googleusercontent.com",
            self.project_number
        )
    }

    pub(super) fn token_url(&self) -> String {
        format!("{}/token", self.origin)
    }

    /// The full name of the workload's identity provider, which is the required audience of
    /// exchanged tokens.
    pub(super) fn provider(&self) -> String {
        format!(
            "//iam.googleapis.com/projects/{}/locations/global/workloadIdentityPools/stand-in/providers/workloads",
            self.project_number
        )
    }

    /// Whether the current key of the service account signed it.
    pub(super) fn has_signed(&self, jwt: &Jwt) -> bool {
        let key = &self.key.read().expect("no holder panics").0;
        jwt.key_id().is_none_or(|id| id == key.id()) && jwt.is_signed_by(key)
    }

    /// Whether the workload's provider issued it.
    pub(super) fn workload_has_signed(&self, jwt: &Jwt) -> bool {
        jwt.text("iss") == Some(WORKLOAD_ISSUER)
            && jwt.key_id() == Some(self.workload_key.id())
            && jwt.is_signed_by(&self.workload_key)
    }

    /// Creates a key. Signatures of the old one are refused from now on.
    pub(super) fn rotate(&self) -> io::Result<()> {
        let key = SigningKey::generate()?;
        let pem = key.pem();
        *self.key.write().expect("no holder panics") = (key, pem);
        Ok(())
    }

    pub(super) fn issue(
        &self,
        principal: &str,
        scopes: Vec<String>,
        now: OffsetDateTime,
        lifetime: Duration,
    ) -> String {
        let text = format!("ya29.c.{}{}", random(), random());
        let token = Token {
            principal: principal.to_owned(),
            scopes,
            expires: (now + lifetime).unix_timestamp(),
        };
        let mut tokens = self.tokens.lock().expect("no holder panics");
        tokens.insert(text.clone(), token);
        text
    }

    pub(super) fn token(&self, text: &str) -> Option<Token> {
        let tokens = self.tokens.lock().expect("no holder panics");
        tokens.get(text).cloned()
    }

    pub(super) fn subject_token(&self, now: OffsetDateTime, lifetime: Duration) -> String {
        let claims = json!({
            "iss": WORKLOAD_ISSUER,
            "sub": "airbyte-server",
            "aud": format!("https:{}", self.provider()),
            "iat": now.unix_timestamp(),
            "exp": (now + lifetime).unix_timestamp(),
        });
        self.workload_key.sign(&claims)
    }

    /// See [the provider's page](https://cloud.google.com/iam/docs/keys-create-delete#creating).
    pub(super) fn key_file(&self) -> String {
        let key = self.key.read().expect("no holder panics");
        pretty(&self.key_object(key.0.id(), &key.1))
    }

    fn key_object(&self, id: &str, pem: &str) -> Value {
        json!({
            "type": "service_account",
            "project_id": self.project,
            "private_key_id": id,
            "private_key": pem,
            "client_email": self.email,
            "client_id": "104719283746501928374",
            "auth_uri": "https://accounts.google.com/o/oauth2/auth",
            "token_uri": self.token_url(),
            "auth_provider_x509_cert_url": "https://www.googleapis.com/oauth2/v1/certs",
            "client_x509_cert_url": format!("https://www.googleapis.com/robot/v1/metadata/x509/{}", self.email),
            "universe_domain": "googleapis.com",
        })
    }

    /// See [the provider's page](https://cloud.google.com/docs/authentication/application-default-credentials#personal).
    pub(super) fn user_file(&self) -> String {
        pretty(&json!({
            "type": "authorized_user",
            "client_id": self.client_id(),
            "client_secret": self.client_secret,
            "refresh_token": self.refresh_token,
            "token_uri": self.token_url(),
            "quota_project_id": self.project,
            "universe_domain": "googleapis.com",
        }))
    }

    /// See [the provider's page](https://cloud.google.com/iam/docs/workload-identity-federation-with-other-providers).
    pub(super) fn external_account_file(&self, token_file: &Path) -> String {
        pretty(&json!({
            "type": "external_account",
            "audience": self.provider(),
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "token_url": format!("{}/v1/token", self.origin),
            "credential_source": {"file": token_file, "format": {"type": "text"}},
            "universe_domain": "googleapis.com",
        }))
    }

    /// See [the provider's page](https://cloud.google.com/docs/authentication/use-service-account-impersonation).
    pub(super) fn impersonated_file(&self) -> String {
        let key = self.key.read().expect("no holder panics");
        pretty(&json!({
            "type": "impersonated_service_account",
            "service_account_impersonation_url": format!(
                "{}/v1/projects/-/serviceAccounts/{}:generateAccessToken",
                self.origin, self.impersonated
            ),
            "delegates": [],
            "source_credentials": self.key_object(key.0.id(), &key.1),
        }))
    }
}

/// Writes a file that only its owner can read.
pub(super) fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())
}

fn random() -> String {
    Uuid::new_v4().simple().to_string()
}

#[cfg(test)]
impl Accounts {
    /// A token signed with the service account's current key.
    pub(super) fn sign(&self, claims: &Value) -> String {
        let key = self.key.read().expect("no holder panics");
        key.0.sign(claims)
    }
}
