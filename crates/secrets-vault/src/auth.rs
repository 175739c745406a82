//! Tokens: one login for any number of callers, renewal ahead of expiry, a new login when refused.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use reqwest::Method;
use secret_persistence_core::{Error, ErrorKind, Operation, Result, SecretValue};
use secret_persistence_remote::Shared;
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;
use zeroize::Zeroizing;

use crate::client::{Answer, Body, Http, read};
use crate::config::{Credential, Login};

/// A refused token is replaced at most this often: Vault answers 403 to a missing capability too,
/// and that must not cause a login per request.
const LOGIN_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// A shorter lease is close to the token's maximum. Renewing it would keep us busy with nothing
/// else.
const SHORT_LEASE: Duration = Duration::from_secs(2);

/// The longest lease we accept, because a server may return any number. Vault's own limit is 768
/// hours by default.
const LONGEST_LEASE: Duration = Duration::from_secs(366 * 86_400);

/// Our login to one Vault. Dropping it stops the renewal.
#[derive(Debug)]
pub(crate) struct Session {
    http: Arc<Http>,
    login: Login,
    token: Shared<Token, Error>,
    /// The time of the last login that a refusal caused.
    last_refusal: Mutex<Option<Instant>>,
    renewal: Mutex<Option<JoinHandle<()>>>,
}

/// A token and its lease.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub(crate) value: SecretValue,
    lease: Option<Lease>,
    /// The server has answered a lookup of the token by itself.
    may_look_itself_up: bool,
    /// The server has accepted the token for some request, so it knows the token even if it refuses
    /// another one.
    accepted: Arc<AtomicBool>,
}

/// The state of a token for which the server refused a request. The status does not tell: it is 403
/// for a bad token and for a missing capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TokenState {
    /// The server knows the token, which lacks a capability.
    Known,
    /// The server knew the token. It has expired or was revoked.
    Lost,
    /// The server has never accepted the token, not even to look itself up.
    NeverAccepted,
}

impl TokenState {
    /// The error for this state, unless the server knows the token.
    fn refusal(self) -> Option<Error> {
        let (message, hint) = match self {
            Self::Known => return None,
            Self::Lost => (
                "the token has expired or was revoked",
                "give the store a new token, or a login method that gets one by itself",
            ),
            Self::NeverAccepted => (
                "the token is invalid or has expired, or it lacks every permission here, even the one to look itself up",
                "give the store another token, and check `namespace`; the policy that \
                 `secret-migrate policy vault` prints lets a token look itself up",
            ),
        };
        Some(Error::new(ErrorKind::Unauthenticated, message).with_hint(hint))
    }
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    from: Instant,
    length: Duration,
    renewable: bool,
}

impl Lease {
    fn new(seconds: u64, renewable: bool) -> Option<Self> {
        let length = Duration::from_secs(seconds).min(LONGEST_LEASE);
        (seconds > 0).then(|| Self {
            from: Instant::now(),
            length,
            renewable,
        })
    }

    fn has_expired(&self) -> bool {
        self.from.elapsed() >= self.length
    }

    /// Two thirds of the lease, like Vault's own agent.
    fn renew_in(&self) -> Duration {
        (self.length * 2 / 3).saturating_sub(self.from.elapsed())
    }
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl Session {
    /// Logs in. A token from the settings is usable at once; call
    /// [`look_up_lease`](Self::look_up_lease) afterwards.
    pub(crate) async fn open(http: Arc<Http>, login: Login) -> Result<Arc<Self>> {
        let session = Arc::new(Self {
            http,
            login,
            token: Shared::default(),
            last_refusal: Mutex::default(),
            renewal: Mutex::default(),
        });
        let given = match &session.login {
            Login::AppRole { .. } | Login::Jwt { .. } => None,
            Login::Token(value) => Some(value.clone()),
            Login::TokenFile(path) => Some(token_in(path).await.map_err(opening)?),
        };
        match given {
            Some(value) => {
                let given = |_| async { Ok(Token::new(value, None, false)) };
                session.token.get(|_| true, given).await?;
            }
            None => drop(session.token().await?),
        }
        Ok(session)
    }

    /// Whether the token is from the settings. A login returns the lease of its token; the lease of
    /// this one must be looked up.
    pub(crate) fn is_given(&self) -> bool {
        matches!(self.login, Login::Token(_) | Login::TokenFile(_))
    }

    /// Looks up the lease of a token from the settings, and renews it from then on. This is a
    /// separate request, so that a start can send its next request at the same time.
    pub(crate) async fn look_up_lease(self: &Arc<Self>) -> Result<()> {
        let Some(token) = self.token.held().filter(|_| self.is_given()) else {
            return Ok(());
        };
        let known = self.look_up(token.value.clone()).await.map_err(opening)?;
        let lease = known.lease;
        if self.token.update(&token, known) {
            self.renew_ahead(lease);
        }
        Ok(())
    }

    /// The current token, or a new one if its lease has expired.
    pub(crate) async fn token(self: &Arc<Self>) -> Result<Arc<Token>> {
        let is_good = |token: &Token| !token.has_expired() || !self.can_replace();
        self.token.get(is_good, |_| self.log_in_and_renew()).await
    }

    /// Another token than the refused one, if there is one.
    pub(crate) async fn after_refusal(
        self: &Arc<Self>,
        refused: &Token,
    ) -> Result<Option<Arc<Token>>> {
        let current = self.token().await?;
        // Renewal changes the lease, not the token.
        if current.value != refused.value {
            return Ok(Some(current));
        }
        let log_in = || async {
            if self.may_log_in_again() {
                self.log_in_and_renew().await.map(Some)
            } else {
                Ok(None)
            }
        };
        let other = self.token.replace(&current, log_in).await?;
        Ok(other.filter(|token| token.value != refused.value))
    }

    /// Whether a refusal may cause a login now. If so, the next one is refused for
    /// [`LOGIN_AGAIN_AFTER`].
    fn may_log_in_again(&self) -> bool {
        let mut last = self.last_refusal.lock();
        let just_tried = last.is_some_and(|at| at.elapsed() < LOGIN_AGAIN_AFTER);
        let may = self.can_replace() && !just_tried;
        if may {
            *last = Some(Instant::now());
        }
        may
    }

    /// Sends a request with the current token, and resends it with another one if the server
    /// refuses the token.
    pub(crate) async fn send(
        self: &Arc<Self>,
        http: &Http,
        method: Method,
        path: &str,
        body: Body<'_>,
    ) -> Result<Answer> {
        let token = self.token().await?;
        let answer = http
            .send(method.clone(), path, Some(&token.value), body)
            .await?;
        match answer.status {
            403 => {}
            503 => return Err(http.diagnose(answer.error()).await),
            _ => {
                // Vault checks the permission before it looks for the name.
                if answer.is_success() || answer.status == 404 {
                    token.accepted.store(true, Ordering::Relaxed);
                }
                return Ok(answer);
            }
        }
        if let Some(token) = self.after_refusal(&token).await? {
            return http.send(method, path, Some(&token.value), body).await;
        }
        match self.state_of(&token).await.refusal() {
            Some(error) => Err(error),
            None => Ok(answer),
        }
    }

    /// The state of a refused token. Asks the server if we do not know it.
    async fn state_of(&self, token: &Token) -> TokenState {
        if token.has_expired() {
            return TokenState::Lost;
        }
        let unknown = self
            .lookup(&token.value)
            .await
            .is_ok_and(|answer| answer.status == 403);
        match unknown {
            true if token.may_look_itself_up => TokenState::Lost,
            // A token from a login was accepted once, and may lack the permission to look itself
            // up.
            true if self.is_given() && !token.accepted.load(Ordering::Relaxed) => {
                TokenState::NeverAccepted
            }
            _ => TokenState::Known,
        }
    }

    /// The server's description of the token.
    pub(crate) async fn lookup(&self, token: &SecretValue) -> Result<Answer> {
        self.http
            .send(
                Method::GET,
                "auth/token/lookup-self",
                Some(token),
                Body::Empty,
            )
            .await
    }

    /// Whether another token can be obtained.
    fn can_replace(&self) -> bool {
        !matches!(self.login, Login::Token(_))
    }

    /// Logs in, and renews the new token from now on.
    async fn log_in_and_renew(self: &Arc<Self>) -> Result<Token> {
        let token = self.obtain().await.map_err(opening)?;
        self.renew_ahead(token.lease);
        Ok(token)
    }

    async fn obtain(&self) -> Result<Token> {
        match &self.login {
            Login::AppRole {
                mount,
                role_id,
                secret_id,
            } => {
                let secret_id = secret_id.value().await?;
                let body = AppRoleLogin {
                    role_id,
                    secret_id: secret_id.expose(),
                };
                self.log_in(mount, &body).await
            }
            Login::Jwt { mount, role, jwt } => {
                let jwt = jwt.value().await?;
                self.log_in(
                    mount,
                    &JwtLogin {
                        role,
                        jwt: jwt.expose(),
                    },
                )
                .await
            }
            Login::Token(value) => self.look_up(value.clone()).await,
            Login::TokenFile(path) => self.look_up(token_in(path).await?).await,
        }
    }

    async fn log_in(&self, mount: &str, body: &impl Serialize) -> Result<Token> {
        let path = format!("auth/{}/login", crate::naming::encode(mount));
        let answer = self
            .http
            .send(Method::POST, &path, None, Body::Secret(&json(body)?))
            .await?;
        if answer.is_success() {
            let auth = answer.parse::<AuthAnswer>()?.auth;
            let lease = Lease::new(auth.lease_duration, auth.renewable);
            return Ok(Token::new(
                SecretValue::new(auth.client_token),
                lease,
                false,
            ));
        }
        Err(match answer.status {
            400 | 401 | 403 => {
                Error::new(ErrorKind::Unauthenticated, "Vault refuses the login")
                    .with_hint(match self.login {
                        Login::AppRole { .. } => {
                            "check role-id and secret-id: the secret id may be used up or expired"
                        }
                        _ => {
                            "check role and audience, and that the role is bound to this service account"
                        }
                    })
                    .with_source(crate::error::Status(answer.status))
            }
            404 => Error::new(ErrorKind::InvalidConfig, "this login method does not exist")
                .with_hint("check auth-method, auth-mount and namespace; `vault auth list` shows them")
                .with_source(crate::error::Status(404)),
            503 => self.http.diagnose(answer.error()).await,
            _ => answer.error(),
        })
    }

    /// The lease of a token from the settings. The lease is unknown if the token has no permission
    /// to look itself up. The first request finds out if the server does not know the token.
    async fn look_up(&self, value: SecretValue) -> Result<Token> {
        let answer = self.lookup(&value).await?;
        match answer.status {
            200 => {
                let data = answer.parse::<LookupAnswer>()?.data;
                Ok(Token::new(
                    value,
                    Lease::new(data.ttl, data.renewable),
                    true,
                ))
            }
            403 => Ok(Token::new(value, None, false)),
            503 => Err(self.http.diagnose(answer.error()).await),
            _ => Err(answer.error()),
        }
    }

    /// Renews the current token in the background, instead of the previous one.
    fn renew_ahead(self: &Arc<Self>, lease: Option<Lease>) {
        let task = tokio::spawn(renew(Arc::downgrade(self), lease));
        let mut renewal = self.renewal.lock();
        // A login from within the renewal must not abort its own task.
        if let Some(before) = renewal
            .replace(task)
            .filter(|before| Some(before.id()) != tokio::task::try_id())
        {
            before.abort();
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let renewal = self.renewal.get_mut();
        if let Some(task) = renewal.take() {
            task.abort();
        }
    }
}

impl Token {
    fn new(value: SecretValue, lease: Option<Lease>, may_look_itself_up: bool) -> Self {
        Self {
            value,
            lease,
            may_look_itself_up,
            accepted: Arc::default(),
        }
    }

    /// Whether its lease, if known, has expired.
    pub(crate) fn has_expired(&self) -> bool {
        self.lease.is_some_and(|lease| lease.has_expired())
    }
}

/// Renews the session's token until the session is dropped or another login replaces the token.
async fn renew(session: Weak<Session>, mut lease: Option<Lease>) {
    while let Some(current) = lease {
        tokio::time::sleep(current.renew_in()).await;
        let Some(session) = session.upgrade() else {
            return;
        };
        let Some(token) = session.token.held() else {
            return;
        };
        match session.renew_once(&token, current).await {
            Ok(Some(renewed)) => {
                lease = Some(renewed);
                let renewed = Token {
                    lease,
                    ..(*token).clone()
                };
                session.token.update(&token, renewed);
            }
            // The token cannot be renewed, or not for long enough. A login starts another renewal.
            Ok(None) if session.can_replace() => {
                let log_in = || async { session.log_in_and_renew().await.map(Some) };
                match session.token.replace(&token, log_in).await {
                    Ok(_) => return,
                    Err(error) => {
                        tracing::warn!(target: "secret_persistence_vault", kind = %error.kind(), "login failed, trying again");
                        pause(current).await;
                    }
                }
            }
            Ok(None) => {
                tracing::warn!(
                    target: "secret_persistence_vault",
                    "the token cannot be renewed and will expire; give the store another one"
                );
                return;
            }
            Err(error) => {
                tracing::warn!(target: "secret_persistence_vault", kind = %error.kind(), "renewal failed, trying again");
                pause(current).await;
            }
        }
    }
}

async fn token_in(path: &Path) -> Result<SecretValue> {
    Credential::File(path.to_owned()).value().await
}

fn opening(error: Error) -> Error {
    error.with_operation(Operation::Open)
}

/// Waits a tenth of the lease, so that several attempts fit into the rest.
async fn pause(lease: Lease) {
    tokio::time::sleep(
        (lease.length / 10).clamp(Duration::from_millis(100), Duration::from_secs(30)),
    )
    .await;
}

impl Session {
    /// The renewed lease; `None` if the token is not renewable, refused, or near its maximum.
    async fn renew_once(&self, token: &Token, lease: Lease) -> Result<Option<Lease>> {
        if !lease.renewable {
            return Ok(None);
        }
        let answer = self
            .http
            .send(
                Method::POST,
                "auth/token/renew-self",
                Some(&token.value),
                // The response contains the token.
                Body::Secret(b"{}"),
            )
            .await?;
        match answer.status {
            200 => {
                let auth = answer.parse::<AuthAnswer>()?.auth;
                let renewed = Lease::new(auth.lease_duration, auth.renewable);
                Ok(renewed.filter(|renewed| {
                    renewed.length > SHORT_LEASE && renewed.length * 3 > lease.length
                }))
            }
            400..=499 => Ok(None),
            _ => Err(answer.error()),
        }
    }
}

impl Credential {
    async fn value(&self) -> Result<SecretValue> {
        match self {
            Self::Given(value) => Ok(value.clone()),
            Self::File(path) => {
                let text = String::from_utf8(read(path).await?).map_err(|_| {
                    Error::new(
                        ErrorKind::InvalidConfig,
                        format!("{} is not text", path.display()),
                    )
                })?;
                let text = Zeroizing::new(text);
                Ok(SecretValue::new(text.trim().to_owned()))
            }
        }
    }
}

/// Serializes a body as JSON, in memory that is wiped.
pub(crate) fn json(body: &impl Serialize) -> Result<Zeroizing<Vec<u8>>> {
    // The first pass measures, so that the second one never grows the buffer, which would leave a
    // copy behind.
    struct Count(usize);
    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let failed = |_| {
        Error::new(
            ErrorKind::Unexpected,
            "the request cannot be written as JSON",
        )
    };
    let mut count = Count(0);
    serde_json::to_writer(&mut count, body).map_err(failed)?;
    let mut bytes = Zeroizing::new(Vec::with_capacity(count.0));
    serde_json::to_writer(&mut *bytes, body).map_err(failed)?;
    Ok(bytes)
}

#[derive(Serialize)]
struct AppRoleLogin<'a> {
    role_id: &'a str,
    secret_id: &'a str,
}

#[derive(Serialize)]
struct JwtLogin<'a> {
    role: &'a str,
    jwt: &'a str,
}

#[derive(Deserialize)]
struct AuthAnswer {
    auth: Auth,
}

#[derive(Deserialize)]
struct Auth {
    client_token: String,
    lease_duration: u64,
    renewable: bool,
}

#[derive(Deserialize)]
struct LookupAnswer {
    data: LookupData,
}

#[derive(Deserialize)]
struct LookupData {
    #[serde(default)]
    ttl: u64,
    #[serde(default)]
    renewable: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Any number from the server is safe: it must not end the renewal task.
    #[test]
    fn no_lease_is_longer_than_can_be_counted() {
        for seconds in [1, 3600, 1 << 40, u64::MAX] {
            let lease = Lease::new(seconds, true).unwrap();
            assert!(lease.length <= LONGEST_LEASE && lease.length * 3 > lease.length);
            assert!(lease.renew_in() < lease.length && !lease.has_expired());
        }
        assert!(Lease::new(0, true).is_none());
    }
}
