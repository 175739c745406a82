//! JWTs of the platform, so that pods use their service account and nobody keeps a token.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Mutex as SyncMutex;
use std::time::{Duration, Instant, SystemTime};

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde_json::Value;
use std::sync::PoisonError;
use tokio::sync::Mutex;
use uuid::Uuid;

use super::authenticate::Refusal;
use super::principal::{Binding, Principal, Role};
use crate::settings::{Jwt, JwtKeys};

/// A key set has a handful of keys.
const MAX_KEY_SET_BYTES: usize = 1 << 20;

/// How often an address is asked for a key that is not known: whoever invents key ids must not make us
/// ask more often.
const REFETCH: Duration = Duration::from_secs(30);

/// Longer tokens are nobody's.
const MAX_TOKEN_BYTES: usize = 16 << 10;

/// Decides about JWTs.
#[derive(Debug)]
pub(super) struct Jwts {
    settings: Jwt,
    client: reqwest::Client,
    keys: SyncMutex<Option<Keys>>,
    fetching: Mutex<()>,
}

#[derive(Clone, Debug)]
struct Keys {
    set: JwkSet,
    read: Instant,
    modified: Option<SystemTime>,
}

impl Jwts {
    pub(super) fn new(settings: Jwt) -> Self {
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .timeout(Duration::from_secs(5))
            .build()
            .unwrap_or_default();
        Self {
            settings,
            client,
            keys: SyncMutex::new(None),
            fetching: Mutex::new(()),
        }
    }

    /// Whether a token has the form of a JWT: three parts.
    pub(super) fn looks_like_one(token: &str) -> bool {
        token.len() <= MAX_TOKEN_BYTES && token.bytes().filter(|byte| *byte == b'.').count() == 2
    }

    pub(super) async fn principal(&self, token: &str) -> Result<Principal, Refusal> {
        let header = decode_header(token).map_err(|_| Refusal::Unknown)?;
        let key = self.key(header.kid.as_deref()).await?;
        // What the token says of its algorithm is only believed where the key is of that kind.
        if !algorithms(&key).contains(&header.alg) {
            return Err(Refusal::Unknown);
        }
        let mut validation = Validation::new(header.alg);
        validation.set_audience(&[&self.settings.audience]);
        validation.set_issuer(&[&self.settings.issuer]);
        validation.set_required_spec_claims(&["exp", "aud", "iss"]);
        validation.validate_nbf = true;
        validation.leeway = 30;
        let decoding = DecodingKey::from_jwk(&key).map_err(|_| Refusal::Unknown)?;
        let claims = decode::<Value>(token, &decoding, &validation)
            .map_err(|error| match error.kind() {
                jsonwebtoken::errors::ErrorKind::ExpiredSignature => Refusal::Expired,
                _ => Refusal::Unknown,
            })?
            .claims;
        self.of_claims(&claims)
    }

    fn of_claims(&self, claims: &Value) -> Result<Principal, Refusal> {
        let roles: BTreeSet<Role> = texts(claim(claims, &self.settings.role_claim))
            .ok_or(Refusal::NoGrant)?
            .into_iter()
            // Roles of other programs may stand beside ours.
            .filter_map(|role| role.parse().ok())
            .collect();
        let workspaces =
            texts(claim(claims, &self.settings.workspace_claim)).ok_or(Refusal::NoGrant)?;
        if roles.is_empty() || workspaces.is_empty() {
            return Err(Refusal::NoGrant);
        }
        let binding = if workspaces == ["*"] {
            Binding::All
        } else {
            let ids: Result<BTreeSet<Uuid>, _> =
                workspaces.into_iter().map(Uuid::try_parse).collect();
            Binding::To {
                workspaces: ids.map_err(|_| Refusal::NoGrant)?,
                prefixes: Vec::new(),
            }
        };
        let subject = claims
            .get("sub")
            .and_then(Value::as_str)
            .unwrap_or("without subject");
        // It goes into audit events and logs.
        let name: String = subject
            .chars()
            .filter(|char| !char.is_control())
            .take(100)
            .collect();
        Ok(Principal {
            name: format!("jwt:{name}"),
            roles,
            binding,
            expires: claims.get("exp").and_then(Value::as_i64),
        })
    }

    /// The key of an id; the only one, where the token names none.
    async fn key(&self, id: Option<&str>) -> Result<Jwk, Refusal> {
        if let Some(key) = self.known(id) {
            return Ok(key);
        }
        let _alone = self.fetching.lock().await;
        if let Some(key) = self.known(id) {
            return Ok(key);
        }
        let recently = |keys: &Keys| keys.read.elapsed() < REFETCH;
        let is_url = matches!(self.settings.keys, JwtKeys::Url(_));
        if is_url && self.locked().as_ref().is_some_and(recently) {
            return Err(Refusal::Unknown);
        }
        match self.load().await {
            Some(keys) => *self.locked() = Some(keys),
            None => {
                tracing::error!("the key set of JWTs cannot be read; no JWT is taken");
                return Err(Refusal::Unavailable);
            }
        }
        self.known(id).ok_or(Refusal::Unknown)
    }

    fn known(&self, id: Option<&str>) -> Option<Jwk> {
        let locked = self.locked();
        let keys = locked.as_ref()?;
        if let JwtKeys::File(path) = &self.settings.keys
            && keys.modified != modified(path)
        {
            return None;
        }
        match (id, keys.set.keys.as_slice()) {
            (Some(id), _) => keys.set.find(id).cloned(),
            (None, [only]) => Some(only.clone()),
            (None, _) => None,
        }
    }

    async fn load(&self) -> Option<Keys> {
        let (text, modified) = match &self.settings.keys {
            JwtKeys::File(path) => {
                let modified = modified(path);
                (tokio::fs::read(path).await.ok()?, modified)
            }
            JwtKeys::Url(url) => {
                let mut response = self.client.get(url.clone()).send().await.ok()?;
                if !response.status().is_success() {
                    return None;
                }
                let mut text = Vec::new();
                while let Some(chunk) = response.chunk().await.ok()? {
                    if text.len() + chunk.len() > MAX_KEY_SET_BYTES {
                        return None;
                    }
                    text.extend_from_slice(&chunk);
                }
                (text, None)
            }
        };
        let set = serde_json::from_slice(&text).ok()?;
        Some(Keys {
            set,
            read: Instant::now(),
            modified,
        })
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, Option<Keys>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).ok()?.modified().ok()
}

/// The algorithms that a key may be used with: never one with a shared secret.
fn algorithms(key: &Jwk) -> &'static [Algorithm] {
    use Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
    match &key.algorithm {
        AlgorithmParameters::RSA(_) => &[RS256, RS384, RS512, PS256, PS384, PS512],
        AlgorithmParameters::EllipticCurve(parameters) => match parameters.curve {
            EllipticCurve::P256 => &[ES256],
            EllipticCurve::P384 => &[ES384],
            _ => &[],
        },
        AlgorithmParameters::OctetKeyPair(parameters)
            if parameters.curve == EllipticCurve::Ed25519 =>
        {
            &[EdDSA]
        }
        AlgorithmParameters::OctetKeyPair(_) | AlgorithmParameters::OctetKey(_) => &[],
    }
}

/// A claim by its name, or by the way to it where `/` leads into objects. A name that has a `/` itself,
/// as those of URLs do, is found first.
fn claim<'a>(claims: &'a Value, name: &str) -> Option<&'a Value> {
    claims.get(name).or_else(|| {
        name.split('/')
            .try_fold(claims, |value, part| value.get(part))
    })
}

fn texts(claim: Option<&Value>) -> Option<Vec<&str>> {
    match claim? {
        Value::String(text) => Some(text.split_whitespace().collect()),
        Value::Array(items) => items.iter().map(Value::as_str).collect(),
        _ => None,
    }
}
