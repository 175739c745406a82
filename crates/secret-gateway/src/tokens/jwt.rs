//! JWTs of the platform, so that pods use their service account instead of a token.

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

/// A key set has only a few keys.
const MAX_KEY_SET_BYTES: usize = 1 << 20;

/// The minimum interval between fetches for an unknown key, so that invented key ids do not cause
/// more requests.
const REFETCH: Duration = Duration::from_secs(30);

/// How long fetched keys are used without fetching again. For this long, a revoked key is still
/// accepted.
const KEPT: Duration = Duration::from_secs(300);

/// How long they are used while the address does not respond.
const KEPT_WITHOUT_ANSWER: Duration = Duration::from_secs(3600);

/// Longer tokens are refused.
const MAX_TOKEN_BYTES: usize = 16 << 10;

/// Verifies JWTs.
#[derive(Debug)]
pub(super) struct Jwts {
    settings: Jwt,
    kept: Duration,
    kept_without_answer: Duration,
    refetch: Duration,
    client: reqwest::Client,
    keys: SyncMutex<Option<Keys>>,
    fetching: Mutex<()>,
}

#[derive(Clone, Debug)]
struct Keys {
    set: JwkSet,
    read: Instant,
    tried: Instant,
    modified: Option<SystemTime>,
}

impl Keys {
    /// The key of an id, or the only key if the token has no id.
    fn find(&self, id: Option<&str>) -> Option<Jwk> {
        match (id, self.set.keys.as_slice()) {
            (Some(id), _) => self.set.find(id).cloned(),
            (None, [only]) => Some(only.clone()),
            (None, _) => None,
        }
    }
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
            kept: KEPT,
            kept_without_answer: KEPT_WITHOUT_ANSWER,
            refetch: REFETCH,
            client,
            keys: SyncMutex::new(None),
            fetching: Mutex::new(()),
        }
    }

    /// Whether a token looks like a JWT: three parts.
    pub(super) fn looks_like_one(token: &str) -> bool {
        token.len() <= MAX_TOKEN_BYTES && token.bytes().filter(|byte| *byte == b'.').count() == 2
    }

    pub(super) async fn principal(&self, token: &str) -> Result<Principal, Refusal> {
        let header = decode_header(token).map_err(|_| Refusal::Unknown)?;
        let key = self.key(header.kid.as_deref()).await?;
        // The algorithm in the token is trusted only if the key is of that kind.
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
            // There may be roles of other programs.
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
        // Becomes part of audit events and logs.
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

    /// The key of an id; the only key if the token names none.
    async fn key(&self, id: Option<&str>) -> Result<Jwk, Refusal> {
        if let Some(key) = self.known(id) {
            return Ok(key);
        }
        let _alone = self.fetching.lock().await;
        if let Some(key) = self.known(id) {
            return Ok(key);
        }
        let recently = |keys: &Keys| keys.tried.elapsed() < self.refetch;
        let is_url = matches!(self.settings.keys, JwtKeys::Url(_));
        if is_url && self.locked().as_ref().is_some_and(recently) {
            return self.old(id).ok_or(Refusal::Unknown);
        }
        match self.load().await {
            Some(keys) => *self.locked() = Some(keys),
            None => {
                tracing::error!(target: "secret_gateway", "the key set cannot be read");
                if let Some(keys) = &mut *self.locked() {
                    keys.tried = Instant::now();
                }
                return self.old(id).ok_or(Refusal::Unavailable);
            }
        }
        self.known(id).ok_or(Refusal::Unknown)
    }

    fn known(&self, id: Option<&str>) -> Option<Jwk> {
        let locked = self.locked();
        let keys = locked.as_ref()?;
        let is_old = match &self.settings.keys {
            JwtKeys::File(path) => keys.modified != modified(path),
            JwtKeys::Url(_) => keys.read.elapsed() > self.kept,
        };
        if is_old {
            return None;
        }
        keys.find(id)
    }

    /// A known key, while its address does not respond.
    fn old(&self, id: Option<&str>) -> Option<Jwk> {
        let locked = self.locked();
        let keys = locked.as_ref()?;
        let is_url = matches!(self.settings.keys, JwtKeys::Url(_));
        if is_url && keys.read.elapsed() <= self.kept_without_answer {
            keys.find(id)
        } else {
            None
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
        let now = Instant::now();
        Some(Keys {
            set,
            read: now,
            tried: now,
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

/// A claim by its name, or by its path if `/` leads into objects. A name that contains a `/`
/// itself, such as a URL, is found first.
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::Router;
    use axum::extract::State;
    use axum::http::StatusCode;
    use axum::routing::get;
    use jsonwebtoken::{EncodingKey, Header, encode};
    use serde_json::json;

    use super::*;

    /// A platform with an address of its keys, which counts how often it is asked.
    type Published = Arc<SyncMutex<(Option<String>, usize)>>;

    fn key() -> EncodingKey {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).unwrap()
    }

    fn set(keys: &[(&str, &EncodingKey)]) -> Option<String> {
        let keys = keys
            .iter()
            .map(|(id, key)| {
                let mut jwk = Jwk::from_encoding_key(key, Algorithm::ES256).unwrap();
                jwk.common.key_id = Some((*id).to_owned());
                jwk
            })
            .collect();
        Some(serde_json::to_string(&JwkSet { keys }).unwrap())
    }

    fn token(key: &EncodingKey, id: &str) -> String {
        let claims = json!({
            "iss": "https://platform.example", "aud": "secret-gateway", "sub": "pod", "exp": 4_000_000_000_u64,
            "roles": "kv-read", "workspaces": "*",
        });
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(id.to_owned());
        encode(&header, &claims, key).unwrap()
    }

    async fn answer(State(published): State<Published>) -> (StatusCode, String) {
        let mut published = published.lock().unwrap();
        published.1 += 1;
        match published.0.clone() {
            Some(text) => (StatusCode::OK, text),
            None => (StatusCode::SERVICE_UNAVAILABLE, String::new()),
        }
    }

    #[tokio::test]
    async fn keys_of_an_address_are_found_when_new_and_lost_when_taken_back() {
        let published: Published = Arc::default();
        let router = Router::new()
            .route("/jwks", get(answer))
            .with_state(Arc::clone(&published));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/jwks", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let mut jwts = Jwts::new(Jwt {
            keys: JwtKeys::Url(url.parse().unwrap()),
            issuer: "https://platform.example".to_owned(),
            audience: "secret-gateway".to_owned(),
            role_claim: "roles".to_owned(),
            workspace_claim: "workspaces".to_owned(),
        });
        let (one, two) = (key(), key());
        let (of_one, of_two) = (token(&one, "one"), token(&two, "two"));
        let asked = || published.lock().unwrap().1;
        let publish = |keys| published.lock().unwrap().0 = keys;

        // The address is down. The caller should retry, because the token may be valid.
        assert_eq!(
            jwts.principal(&of_one).await.unwrap_err(),
            Refusal::Unavailable
        );
        publish(set(&[("one", &one)]));
        assert_eq!(jwts.principal(&of_one).await.unwrap().name, "jwt:pod");
        let before = asked();
        for _ in 0..10 {
            // Invented key ids do not cause more requests.
            assert_eq!(jwts.principal(&of_two).await.unwrap_err(), Refusal::Unknown);
            jwts.principal(&of_one).await.unwrap();
        }
        assert_eq!(asked(), before);

        jwts.refetch = Duration::ZERO;
        publish(set(&[("one", &one), ("two", &two)]));
        jwts.principal(&of_two).await.unwrap();
        // A revoked key is accepted until the key set is old, and no longer.
        publish(set(&[("two", &two)]));
        jwts.principal(&of_one).await.unwrap();
        jwts.kept = Duration::ZERO;
        assert_eq!(jwts.principal(&of_one).await.unwrap_err(), Refusal::Unknown);
        // While the address does not respond, known keys are accepted for a while.
        publish(None);
        jwts.principal(&of_two).await.unwrap();
        jwts.kept_without_answer = Duration::ZERO;
        assert_eq!(
            jwts.principal(&of_two).await.unwrap_err(),
            Refusal::Unavailable
        );
    }
}
