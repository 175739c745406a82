//! The mount: where its path ends, and its KV version. From the settings, or looked up on the
//! server once.

use std::sync::{Arc, OnceLock};

use futures::FutureExt;
use futures::future::{BoxFuture, Shared, WeakShared};
use parking_lot::Mutex;
use reqwest::Method;
use secret_persistence_core::{Error, ErrorKind, Result};

use crate::auth::Session;
use crate::client::{Answer, Body, Http};
use crate::config::{Config, KvVersion, Place};
use crate::error::malformed;
use crate::naming::{Root, encode};
use crate::wire;

/// The mount of the secrets, and its KV version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KvMount {
    pub(crate) root: Root,
    pub(crate) version: KvVersion,
}

impl KvMount {
    /// The part of a path that only version 2 has.
    pub(crate) fn part(&self, name: &'static str) -> Option<&'static str> {
        (self.version == KvVersion::Two).then_some(name)
    }
}

/// Looks up the mount, once for all callers.
pub(crate) struct Mount {
    http: Arc<Http>,
    session: Arc<Session>,
    place: Place,
    /// The version in the settings. The server is asked nevertheless: with a wrong version, values
    /// would be written where nothing finds them, and deletes would delete nothing.
    told: Option<KvVersion>,
    /// The mount in the settings, or the most common one: version 2, at the first part of the
    /// prefix.
    guess: KvMount,
    known: OnceLock<KvMount>,
    lookup: Mutex<Option<WeakShared<MountLookup>>>,
}

type MountLookup = BoxFuture<'static, Result<KvMount>>;

impl Mount {
    pub(crate) fn new(http: Arc<Http>, session: Arc<Session>, config: &Config) -> Self {
        let root = match &config.place {
            Place::Joined(joined) => Root::first_segment(joined),
            Place::Separate { mount, prefix } => Root {
                mount: mount.clone(),
                prefix: prefix.clone(),
            },
        };
        Self {
            http,
            session,
            place: config.place.clone(),
            told: config.version,
            guess: KvMount {
                root,
                version: config.version.unwrap_or(KvVersion::Two),
            },
            known: OnceLock::new(),
            lookup: Mutex::default(),
        }
    }

    pub(crate) fn is_known(&self) -> bool {
        self.known.get().is_some()
    }

    /// The known mount, or the guess.
    pub(crate) fn presumed(&self) -> &KvMount {
        self.known.get().unwrap_or(&self.guess)
    }

    /// The known mount, or the server's answer. Concurrent callers share one request and its
    /// failure; the next caller asks again.
    pub(crate) async fn resolve(&self) -> Result<&KvMount> {
        if let Some(known) = self.known.get() {
            return Ok(known);
        }
        let kv = match (self.lookup().await, self.told) {
            (Ok(kv), Some(told)) if kv.version != told => {
                let (is, told) = (kv.version.number(), told.number());
                return Err(Error::new(
                    ErrorKind::InvalidConfig,
                    format!(
                        "the mount `{}` is version {is} of the KV engine, but `kv-version` is {told}",
                        kv.root.mount
                    ),
                )
                .with_hint(format!(
                    "set kv-version to {is}, or remove it: then the store asks the server"
                )));
            }
            // Keep the settings if the server does not answer the question, for example because a
            // proxy does not pass it on.
            (Err(error), Some(_)) if error.kind() != ErrorKind::Unauthenticated => {
                if error.is_retryable() {
                    return Ok(&self.guess);
                }
                self.guess.clone()
            }
            (answer, _) => answer?,
        };
        Ok(self.known.get_or_init(|| kv))
    }

    /// Sends a request that changes nothing. If the mount is not known yet, the store looks it up
    /// concurrently, sends the request based on the guess, and resends it if the guess was wrong.
    pub(crate) async fn send_read(
        &self,
        method: Method,
        path: impl Fn(&KvMount) -> String,
    ) -> Result<(&KvMount, Answer)> {
        if !self.is_known() && self.told.is_some() {
            let guessed = path(&self.guess);
            let question = self
                .session
                .send(&self.http, method.clone(), &guessed, Body::Empty);
            let (kv, answer) = futures::join!(self.resolve(), question);
            let kv = kv?;
            if path(kv) == guessed {
                return Ok((kv, answer?));
            }
        } else if !self.is_known() {
            let guessed = path(&self.guess);
            let (kv, answer) = futures::join!(self.resolve(), self.send_guess(&method, &guessed));
            let kv = kv?;
            if let Some(answer) = answer.filter(|_| path(kv) == guessed) {
                return Ok((kv, answer));
            }
        }
        let kv = self.resolve().await?;
        let answer = self
            .session
            .send(&self.http, method, &path(kv), Body::Empty)
            .await?;
        Ok((kv, answer))
    }

    /// Returns only a response that is valid for any mount. A refusal may be due to a wrong guess
    /// and must not cause another login. An outage shows in the request that counts.
    async fn send_guess(&self, method: &Method, path: &str) -> Option<Answer> {
        let token = self.session.token().await.ok()?;
        let answer = self
            .http
            .send(method.clone(), path, Some(&token.value), Body::Empty)
            .await
            .ok()?;
        (!matches!(answer.status, 403 | 503)).then_some(answer)
    }

    fn lookup(&self) -> Shared<MountLookup> {
        let mut lookup = self.lookup.lock();
        let under_way = lookup.as_ref().and_then(WeakShared::upgrade);
        under_way.unwrap_or_else(|| {
            let (http, session) = (Arc::clone(&self.http), Arc::clone(&self.session));
            let place = self.place.clone();
            let question = async move { locate(&http, &session, &place).await };
            let question = question.boxed().shared();
            *lookup = question.downgrade();
            question
        })
    }
}

/// Asks the server for the mount at a path.
async fn locate(http: &Http, session: &Arc<Session>, place: &Place) -> Result<KvMount> {
    let asked = match place {
        Place::Joined(joined) => joined.as_str(),
        Place::Separate { mount, .. } => mount.as_str(),
    };
    // The CLI sends the same request. Any permission within the mount is enough for it.
    let path = format!(
        "sys/internal/ui/mounts/{}",
        encode(asked.trim_end_matches('/'))
    );
    let answer = session.send(http, Method::GET, &path, Body::Empty).await?;
    match answer.status {
        200 => {}
        403 => {
            return Err(Error::new(
                ErrorKind::PermissionDenied,
                "the mount does not exist, or the token has no permission in it",
            )
            .with_hint(
                "check mount and prefix (`vault secrets list`), namespace, and the token's policy: \
                 `secret-migrate policy vault` prints the minimal one",
            ));
        }
        _ => return Err(answer.error()),
    }
    let mount = answer.parse::<wire::Wrapped<wire::Mount>>()?.data;
    let version = match (
        mount.kind.as_str(),
        mount.options.unwrap_or_default().version.as_deref(),
    ) {
        ("kv", Some("2")) => KvVersion::Two,
        ("kv" | "generic", _) => KvVersion::One,
        (other, _) => {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                format!("the mount `{}` is an engine of type `{other}`", mount.path),
            )
            .with_hint("use the mount of a KV engine"));
        }
    };
    let root = match place {
        Place::Joined(joined) => Root::split(joined, &mount.path)
            .ok_or_else(|| malformed("Vault returned a mount that is not at the prefix"))?,
        Place::Separate { prefix, .. } => Root {
            mount: mount.path.trim_matches('/').to_owned(),
            prefix: prefix.clone(),
        },
    };
    Ok(KvMount { root, version })
}
