//! The path of a request through the server.

use std::{
    io,
    sync::{Arc, Mutex, RwLock},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode, Uri, body::Incoming, header,
    server::conn::http1, service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use time::{OffsetDateTime, macros::format_description};
use tokio::{
    net::{TcpListener, TcpStream},
    time::sleep,
};

use super::{
    accounts::Accounts,
    bearer::caller,
    body, impersonation, metadata, oauth, operations,
    record::{self, Place, Record},
    refusal::{self, Answer, Refusal, invalid_argument},
    route::{self, Call, Class, MethodInfo, Target},
    store::Store,
    sts,
    switches::{Switches, When},
};

/// The port of a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Role {
    Main,
    Regional,
}

/// State that all connections share.
pub(super) struct Shared {
    pub(super) accounts: Accounts,
    pub(super) switches: RwLock<Switches>,
    store: Mutex<Store>,
    record: Mutex<Record>,
    spent: Mutex<Spent>,
}

/// Requests for secrets: all, and those of the current second by class.
struct Spent {
    total: u64,
    second: Instant,
    access: u32,
    read: u32,
    write: u32,
}

impl Shared {
    pub(super) fn new(accounts: Accounts, store: Store, switches: Switches) -> Self {
        Self {
            accounts,
            switches: RwLock::new(switches),
            store: Mutex::new(store),
            record: Mutex::default(),
            spent: Mutex::new(Spent {
                total: 0,
                second: Instant::now(),
                access: 0,
                read: 0,
                write: 0,
            }),
        }
    }

    pub(super) fn record<T>(&self, look: impl FnOnce(&mut Record) -> T) -> T {
        look(&mut self.record.lock().expect("no holder panics"))
    }

    pub(super) fn store<T>(&self, look: impl FnOnce(&mut Store, OffsetDateTime) -> T) -> T {
        let now = self.now();
        look(&mut self.store.lock().expect("no holder panics"), now)
    }

    /// The time of the server's clock.
    pub(super) fn now(&self) -> OffsetDateTime {
        let offset = self.switches.read().expect("no holder panics").clock_offset;
        OffsetDateTime::now_utc() + time::Duration::seconds(offset)
    }

    fn copied_switches(&self) -> Switches {
        self.switches.read().expect("no holder panics").clone()
    }
}

/// Serves connections until the runtime ends.
pub(super) async fn accept(listener: TcpListener, role: Role, shared: Arc<Shared>) {
    loop {
        // A client that disconnects before it is accepted does not matter.
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        // Otherwise the kernel delays small responses, and latencies are wrong.
        let _ = stream.set_nodelay(true);
        tokio::spawn(connection(stream, role, Arc::clone(&shared)));
    }
}

async fn connection(stream: TcpStream, role: Role, shared: Arc<Shared>) {
    let service = service_fn(move |request| serve(request, role, Arc::clone(&shared)));
    // Fails whenever a switch or a client cuts the connection.
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

/// An error closes the connection without a response.
async fn serve(
    request: Request<Incoming>,
    role: Role,
    shared: Arc<Shared>,
) -> io::Result<Response<Full<Bytes>>> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let destination = Destination::of(&head.method, &head.uri);
    let arrived = Arrived::new(&shared, destination.name(), &head.uri);
    let (cut, latency) = {
        let mut switches = shared.switches.write().expect("no holder panics");
        (switches.meet(destination.name()), switches.latency)
    };
    if latency > Duration::ZERO {
        sleep(latency).await;
    }
    let broken = || io::Error::other("the connection ends here by order of a switch");
    if cut == Some(When::BeforeWork) {
        arrived.answered(0);
        return Err(broken());
    }
    let answer = destination
        .answer(&shared, role, &head.uri, &head.headers, &body)
        .unwrap_or_else(|refusal| *refusal);
    if cut == Some(When::AfterWork) {
        arrived.answered(0);
        return Err(broken());
    }
    arrived.answered(answer.status.as_u16());
    Ok(response(answer, shared.now()))
}

/// The service that a path belongs to.
enum Destination {
    Impersonation(String),
    Metadata,
    OAuth,
    Secrets(&'static MethodInfo, Target),
    Sts,
    Unknown,
}

impl Destination {
    fn of(verb: &Method, uri: &Uri) -> Self {
        if let Some(email) = route::impersonated(verb, uri) {
            return Self::Impersonation(email);
        }
        if let Some((method, target)) = route::resolve(verb, uri) {
            return Self::Secrets(method, target);
        }
        match (verb.as_str(), uri.path()) {
            ("POST", "/token") => Self::OAuth,
            ("POST", "/v1/token") => Self::Sts,
            ("GET", path) if path == "/" || path.starts_with("/computeMetadata/") => Self::Metadata,
            _ => Self::Unknown,
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Impersonation(_) => "GenerateAccessToken",
            Self::Metadata => "Metadata",
            Self::OAuth => "Token",
            Self::Secrets(method, _) => method.name,
            Self::Sts => "ExchangeToken",
            Self::Unknown => "Unknown",
        }
    }

    fn answer(
        self,
        shared: &Shared,
        role: Role,
        uri: &Uri,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<Answer, Refusal> {
        let switches = shared.copied_switches();
        let accounts = &shared.accounts;
        let now = shared.now();
        let name = self.name();
        match self {
            Self::Impersonation(email) => {
                let method = "google.iam.credentials.v1.IAMCredentials.GenerateAccessToken";
                let revoked = switches.revoked_keys;
                caller(
                    accounts,
                    revoked,
                    headers,
                    now,
                    impersonation::SERVICE,
                    method,
                )?;
                let body = body::json(headers, body)?;
                impersonation::generate(accounts, &switches, &email, &body, now)
            }
            Self::Metadata => Ok(metadata::answer(accounts, &switches, uri, headers, now)),
            Self::OAuth => oauth::exchange(accounts, &switches, headers, body, now),
            Self::Secrets(method, target) => {
                let rpc = format!("google.cloud.secretmanager.v1.SecretManagerService.{name}");
                let revoked = switches.revoked_keys;
                caller(accounts, revoked, headers, now, refusal::SERVICE, &rpc)?;
                check_project(shared, &switches, method.class, &target, headers)?;
                let call = route::call(method, target, uri)?;
                let body = body::json(headers, body)?;
                check_endpoint(&switches, role, &call)?;
                secrets(shared, &switches, &call, &body, now)
            }
            Self::Sts => sts::exchange(accounts, &switches, headers, body, now),
            Self::Unknown => Err(route::unknown(uri)),
        }
    }
}

fn secrets(
    shared: &Shared,
    switches: &Switches,
    call: &Call,
    body: &Value,
    now: OffsetDateTime,
) -> Result<Answer, Refusal> {
    let mut store = shared.store.lock().expect("no holder panics");
    let answer = operations::perform(&mut store, switches, call, body, now)?;
    Ok(Answer::json(StatusCode::OK, &answer))
}

/// The checks before the service: the project, its state, and the quota.
fn check_project(
    shared: &Shared,
    switches: &Switches,
    class: Class,
    target: &Target,
    headers: &HeaderMap,
) -> Result<(), Refusal> {
    let (known, number) =
        shared.store(|store, _| (store.is_project(&target.project), store.number));
    if !known {
        return Err(refusal::consumer_invalid(&target.project));
    }
    if let Some(charged) = headers.get("x-goog-user-project") {
        let charged = charged.to_str().unwrap_or_default();
        if !shared.store(|store, _| store.is_project(charged)) {
            return Err(refusal::user_project_denied(charged));
        }
    }
    if switches.api_disabled {
        return Err(refusal::service_disabled(number));
    }
    if switches.billing_disabled {
        return Err(refusal::billing_disabled(number));
    }
    let mut spent = shared.spent.lock().expect("no holder panics");
    if spent.exceeds(switches, class) {
        let class = format!("{class:?}");
        return Err(refusal::rate_limit(&class, number, switches.retry_after));
    }
    Ok(())
}

impl Spent {
    /// Counts a request, and returns whether it exceeds the quota.
    fn exceeds(&mut self, switches: &Switches, class: Class) -> bool {
        self.total += 1;
        if let Some(every) = switches.throttle_every
            && every > 0
            && self.total.is_multiple_of(u64::from(every))
        {
            return true;
        }
        if self.second.elapsed() >= Duration::from_secs(1) {
            self.second = Instant::now();
            (self.access, self.read, self.write) = (0, 0, 0);
        }
        let (count, limit) = match class {
            Class::Access => (&mut self.access, switches.quota.access),
            Class::Read => (&mut self.read, switches.quota.read),
            Class::Write => (&mut self.write, switches.quota.write),
        };
        if limit.is_some_and(|limit| *count >= limit) {
            return true;
        }
        *count += 1;
        false
    }
}

/// Only regional endpoints serve regional names, as
/// [the service responds](https://github.com/googleapis/google-cloud-python/issues/13389):
/// <https://cloud.google.com/secret-manager/docs/reference/rest#service-endpoint>.
fn check_endpoint(switches: &Switches, role: Role, call: &Call) -> Result<(), Refusal> {
    let regional = call.target.location.is_some();
    let (refused, location) = match role {
        Role::Main => (regional && switches.strict_endpoints, ""),
        Role::Regional => (!regional, "/locations/*"),
    };
    if !refused {
        return Ok(());
    }
    let mut expected = format!("projects/*{location}");
    if call.target.secret.is_some() {
        expected += "/secrets/*";
    }
    if call.target.version.is_some() {
        expected += "/versions/*";
    }
    Err(invalid_argument(&format!(
        "The provided Secret ID [{}] does not match the expected format [{expected}]",
        call.target.name(&call.target.project)
    )))
}

fn response(answer: Answer, now: OffsetDateTime) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(answer.body)));
    *response.status_mut() = answer.status;
    for (name, value) in answer.headers {
        // Text from the client is omitted if it is not a valid header.
        if let Ok(value) = value.parse() {
            response.headers_mut().append(name, value);
        }
    }
    // The server's time, from which a client can see that its own clock is wrong.
    let format = format_description!(
        "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
    );
    if let Ok(date) = now.format(format).unwrap_or_default().parse() {
        response.headers_mut().insert(header::DATE, date);
    }
    response
}

/// A request in progress, until it is dropped.
struct Arrived<'a> {
    shared: &'a Shared,
    method: &'static str,
    path: String,
    place: Place,
}

impl<'a> Arrived<'a> {
    fn new(shared: &'a Shared, method: &'static str, uri: &Uri) -> Self {
        Self {
            shared,
            method,
            path: uri.path().to_owned(),
            place: shared.record(|record| record.arrive(method)),
        }
    }

    fn answered(&self, status: u16) {
        let request = record::Request {
            method: self.method,
            path: self.path.clone(),
            status,
        };
        self.shared
            .record(|record| record.answer(self.place, request));
    }
}

impl Drop for Arrived<'_> {
    fn drop(&mut self) {
        self.shared.record(|record| record.in_flight -= 1);
    }
}
