//! The data plane of a vault: secrets.

mod access;
mod bundle;
mod refusal;
mod request;
mod secrets;

use std::{sync::Mutex, time::Instant};

use hyper::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use self::{access::VAULT, bundle::Bundles, refusal::Refusal, secrets::Secrets};
use super::{
    directory::Directory,
    reply::Reply,
    route::{Operation, Query},
    switches::Switches,
};

/// The vault behind the stand-in.
#[derive(Default)]
pub(super) struct Vault {
    secrets: Mutex<Secrets>,
    traffic: Mutex<Traffic>,
}

/// The recent requests, for the limits.
#[derive(Default)]
struct Traffic {
    requests: u32,
    second: Option<(Instant, u32)>,
}

/// One request to the vault.
pub(super) struct Call<'a> {
    /// The address of Entra ID.
    pub(super) authority: &'a str,
    pub(super) body: &'a [u8],
    pub(super) directory: &'a Directory,
    pub(super) headers: &'a HeaderMap,
    /// The vault's address, as in the request.
    pub(super) host: &'a str,
    pub(super) operation: Option<&'a Operation>,
    pub(super) query: &'a Query,
    pub(super) switches: &'a Switches,
}

impl Vault {
    pub(super) fn serve(&self, call: &Call<'_>) -> Reply {
        self.answer(call).unwrap_or_else(Refusal::reply)
    }

    /// Authenticates before any other check: clients send their first request without token and
    /// body, to learn where to get a token.
    fn answer(&self, call: &Call<'_>) -> Result<Reply, Refusal> {
        let switches = call.switches;
        let caller = access::authenticate(call.directory, switches, call.authority, call.headers)?;
        access::check_network(switches, &caller)?;
        self.traffic
            .lock()
            .expect("no holder panics")
            .pass(switches)?;
        if let Some(status) = switches.failure {
            return Err(Refusal::failed(status));
        }
        request::check_api_version(call.query)?;
        // The message is that of a known path with another method; no other paths are served.
        let operation = call
            .operation
            .ok_or_else(|| Refusal::bad_parameter("The method does not allow this operation"))?;
        if let Some(name) = operation.name() {
            request::check_name(name)?;
        }
        access::authorize(switches, &caller, operation)?;
        self.perform(call, operation)
    }

    fn perform(&self, call: &Call<'_>, operation: &Operation) -> Result<Reply, Refusal> {
        let switches = call.switches;
        let bundles = Bundles::new(call.host, switches);
        // Locked for the shortest time: signatures are verified before, concurrently.
        let mut secrets = self.secrets.lock().expect("no holder panics");
        let body = match operation {
            Operation::Delete { name } => {
                let (secret, version) = secrets.delete(name, switches)?;
                bundles.deleted(secret, version)
            }
            Operation::Get { name, version } => {
                let (secret, version) =
                    secrets.get(name, version.as_deref(), &switches.disabled)?;
                bundles.with_value(secret, version)
            }
            Operation::GetDeleted { name } => {
                let (secret, version) = secrets.get_deleted(name, &switches.disabled)?;
                bundles.deleted(secret, version)
            }
            Operation::List => {
                let after = skipped(call.query)?;
                let listed = secrets.listed(after.as_deref());
                page(call, "secrets", &listed, |(_, secret)| bundles.item(secret))?
            }
            Operation::ListDeleted => {
                let after = skipped(call.query)?;
                let listed = secrets.listed_deleted(after.as_deref());
                page(call, "deletedsecrets", &listed, |(_, secret)| {
                    bundles.deleted_item(secret)
                })?
            }
            Operation::ListVersions { name } => {
                let after = skipped(call.query)?;
                let (secret, versions) = secrets.versions(name)?;
                // In the order of their ids, which do not reveal their age.
                let mut versions: Vec<_> = versions
                    .iter()
                    .map(|version| (version.id.as_str(), version))
                    .collect();
                versions.retain(|(id, _)| after.as_deref().is_none_or(|after| *id > after));
                versions.sort_unstable_by_key(|(id, _)| *id);
                let path = format!("secrets/{}/versions", secret.name);
                page(call, &path, &versions, |(_, version)| {
                    bundles.without_value(secret, version)
                })?
            }
            Operation::Purge { name } => {
                secrets.purge(name, VAULT, switches)?;
                return Ok(Reply::empty(StatusCode::NO_CONTENT));
            }
            Operation::Recover { name } => {
                let (secret, version) = secrets.recover(name, switches)?;
                bundles.without_value(secret, version)
            }
            Operation::Set { name } => {
                request::check_content_type(call.headers)?;
                let (value, content) = request::parse_set(call.body)?;
                let (secret, version) = secrets.set(name, value, content, switches)?;
                bundles.with_value(secret, version)
            }
            Operation::Update { name, version } => {
                request::check_content_type(call.headers)?;
                let change = request::parse_update(call.body)?;
                let (secret, version) =
                    secrets.update(name, version.as_deref(), |content| change.apply(content))?;
                bundles.without_value(secret, version)
            }
        };
        Ok(Reply::json(StatusCode::OK, &body))
    }
}

impl Traffic {
    fn pass(&mut self, switches: &Switches) -> Result<(), Refusal> {
        self.requests += 1;
        let now = Instant::now();
        let (begun, count) = match self.second {
            Some((begun, count)) if now.duration_since(begun).as_secs() < 1 => (begun, count + 1),
            _ => (now, 1),
        };
        self.second = Some((begun, count));

        let over = switches
            .requests_per_second
            .is_some_and(|limit| count > limit);
        let unlucky = switches
            .throttle_every
            .is_some_and(|n| self.requests.is_multiple_of(n.max(1)));
        if over || unlucky {
            return Err(Refusal::throttled(switches.retry_after));
        }
        Ok(())
    }
}

/// One page of a listing, and the address of the next one.
///
/// Entries have the key after which the next page continues. A page may have fewer entries than
/// requested, even none, and still have a successor:
/// <https://github.com/microsoft/api-guidelines/blob/vNext/azure/Guidelines.md#collections>.
fn page<'a, T>(
    call: &Call<'_>,
    path: &str,
    entries: &[(&'a str, T)],
    show: impl Fn(&(&'a str, T)) -> Value,
) -> Result<Value, Refusal> {
    let size = request::page_size(call.query)?;
    let empty = call.switches.sparse_pages && !call.query.has(SPARSE);
    let shown = if empty { 0 } else { size.min(entries.len()) };
    let next = if empty {
        let last = skipped(call.query)?.unwrap_or_default();
        Some(format!("{SPARSE}=1&$skiptoken={}", token(&last)))
    } else if shown < entries.len() {
        Some(format!("$skiptoken={}", token(entries[shown - 1].0)))
    } else {
        None
    };
    let next = next.map(|next| {
        let version = call.query.get("api-version").unwrap_or_default();
        format!(
            "https://{}/{path}?api-version={version}&{next}&maxresults={size}",
            call.host
        )
    });
    let value: Vec<_> = entries[..shown].iter().map(show).collect();
    Ok(json!({"value": value, "nextLink": next}))
}

/// Marks the link from an empty page to a full one.
const SPARSE: &str = "$sparse";

/// Opaque to clients: the key in hexadecimal digits, with a prefix so that it is never empty.
fn token(key: &str) -> String {
    key.bytes()
        .fold("k".into(), |token, byte| format!("{token}{byte:02x}"))
}

/// The key after which this page begins.
fn skipped(query: &Query) -> Result<Option<String>, Refusal> {
    let Some(token) = query.get("$skiptoken") else {
        return Ok(None);
    };
    let digits = token.strip_prefix('k').filter(|digits| digits.is_ascii());
    let bytes: Option<Vec<u8>> = digits.and_then(|digits| {
        (0..digits.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok())
            .collect()
    });
    bytes
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .map(Some)
        .ok_or_else(|| Refusal::bad_parameter("The skip token is not valid"))
}
