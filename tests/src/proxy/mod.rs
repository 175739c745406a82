//! A reverse proxy that counts, delays, refuses, cuts and records requests.
//!
//! It speaks HTTP/1.1 with persistent connections on both sides, and TLS on request. It has
//! separate threads, so a test may block while a child process uses it.
//!
//! # Example
//!
//! ```no_run
//! use e2e::proxy::{Answer, Fault, FaultProxy, Rule, aws_operation};
//!
//! let proxy = FaultProxy::builder("http://127.0.0.1:4566").with_operations(aws_operation).start()?;
//! proxy.inject(Rule::new(Fault::Respond(Answer::aws_throttling())).every(3));
//! proxy.inject(Rule::new(Fault::CutAfterWork).on("CreateSecret").times(1));
//! // … the client is pointed at `proxy.url()` …
//! assert_eq!(proxy.count("BatchGetSecretValue"), 5);
//! # std::io::Result::Ok(())
//! ```

mod answer;
mod body;
mod operation;
mod record;
mod rule;
mod serve;

use std::{
    fmt, io,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use hyper::http::request;
use tokio::runtime::Runtime;

pub use self::{
    answer::Answer,
    operation::{aws_operation, method_and_path},
    record::Request,
    rule::{Fault, Rule},
};
use self::{record::Record, serve::Shared};
use crate::Authority;

/// A running proxy. It stops immediately when dropped.
pub struct FaultProxy {
    address: SocketAddr,
    authority: Option<Authority>,
    shared: Arc<Shared>,
    // `None` only while dropping.
    runtime: Option<Runtime>,
}

/// Builds a [`FaultProxy`].
pub struct Builder {
    upstream: String,
    upstream_ca_file: Option<PathBuf>,
    operations: Arc<serve::Operations>,
    delay: Duration,
    port: u16,
    tls: bool,
}

impl Builder {
    /// Delays each request by this time. By default there is no delay.
    #[must_use]
    pub fn with_delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Sets the function that names the operation of a request: by default [`method_and_path`];
    /// [`aws_operation`] for AWS.
    #[must_use]
    pub fn with_operations(
        mut self,
        operations: impl Fn(&request::Parts) -> String + Send + Sync + 'static,
    ) -> Self {
        self.operations = Arc::new(operations);
        self
    }

    /// Listens on this port of `127.0.0.1`, by default on a free one.
    #[must_use]
    pub fn with_port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Uses TLS for its clients, with a certificate for `127.0.0.1` and `localhost`.
    #[must_use]
    pub fn with_tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// Trusts this authority (a PEM file) if the upstream's address begins with `https`.
    #[must_use]
    pub fn with_upstream_ca_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.upstream_ca_file = Some(file.into());
        self
    }

    /// Starts the proxy.
    ///
    /// # Errors
    ///
    /// If the port is taken, or the authority's file is invalid.
    pub fn start(self) -> io::Result<FaultProxy> {
        let authority = self.tls.then(Authority::new).transpose()?;
        let issue =
            |authority: &Authority| authority.issue(&["127.0.0.1", "localhost"])?.acceptor();
        let acceptor = authority.as_ref().map(issue).transpose()?;
        let client = serve::client(self.upstream_ca_file.as_deref())?;
        let listener = TcpListener::bind(("127.0.0.1", self.port))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;

        let shared = Arc::new(Shared::new(self.upstream, client, self.operations));
        shared
            .delay_nanos
            .store(nanos(self.delay), Ordering::Relaxed);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("fault-proxy")
            .enable_all()
            .build()?;
        let guard = runtime.enter();
        let listener = tokio::net::TcpListener::from_std(listener)?;
        drop(guard);
        runtime.spawn(serve::accept(listener, acceptor, Arc::clone(&shared)));
        Ok(FaultProxy {
            address,
            authority,
            shared,
            runtime: Some(runtime),
        })
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("upstream", &self.upstream)
            .finish_non_exhaustive()
    }
}

impl FaultProxy {
    /// A proxy in front of the server at this address, such as `http://127.0.0.1:8200`.
    pub fn builder(upstream: impl Into<String>) -> Builder {
        Builder {
            upstream: without_slash(upstream.into()),
            upstream_ca_file: None,
            operations: Arc::new(method_and_path),
            delay: Duration::ZERO,
            port: 0,
            tls: false,
        }
    }

    /// The proxy's address, such as `http://127.0.0.1:41234`.
    pub fn url(&self) -> String {
        let scheme = if self.authority.is_some() {
            "https"
        } else {
            "http"
        };
        format!("{scheme}://{}", self.address)
    }

    /// The PEM file of the authority that its clients must trust.
    ///
    /// # Panics
    ///
    /// If the proxy does not use TLS.
    pub fn ca_file(&self) -> &Path {
        self.authority
            .as_ref()
            .expect("a proxy that speaks TLS")
            .ca_file()
    }

    /// Adds a rule. Rules are tried in the order in which they were added, until one of them
    /// applies. Later rules neither affect nor count that request.
    pub fn inject(&self, rule: Rule) {
        self.shared
            .rules
            .lock()
            .expect("no holder panics")
            .push(rule);
    }

    /// Removes all rules.
    pub fn heal(&self) {
        self.shared.rules.lock().expect("no holder panics").clear();
    }

    /// Delays each request that arrives from now on.
    pub fn set_delay(&self, delay: Duration) {
        self.shared
            .delay_nanos
            .store(nanos(delay), Ordering::Relaxed);
    }

    /// Forwards requests to another server from now on.
    pub fn set_upstream(&self, upstream: impl Into<String>) {
        *self.shared.upstream.write().expect("no holder panics") = without_slash(upstream.into());
    }

    /// The number of requests whose operation is the pattern, or begins with it if it ends with `*`.
    pub fn count(&self, pattern: &str) -> usize {
        self.record(|record| record.count(pattern))
    }

    /// The number of requests per operation, in alphabetical order.
    pub fn counts(&self) -> Vec<(String, usize)> {
        self.record(|record| record.counts())
    }

    /// All requests, in the order in which they arrived.
    pub fn requests(&self) -> Vec<Request> {
        self.record(|record| record.requests.clone())
    }

    /// The number of all requests.
    pub fn total(&self) -> usize {
        self.record(|record| record.requests.len())
    }

    /// The number of connections that clients have opened.
    pub fn connections(&self) -> usize {
        self.record(|record| record.connections)
    }

    /// The maximum number of concurrent requests.
    pub fn in_flight_maximum(&self) -> usize {
        self.record(|record| record.in_flight_maximum)
    }

    /// Forgets all requests and connections so far, but not the rules and their counts.
    pub fn reset(&self) {
        self.record(Record::reset);
    }

    /// Waits until `count` requests match the pattern, including failed ones.
    pub async fn reached(&self, pattern: &str, count: usize) {
        loop {
            let arrival = self.shared.arrivals.notified();
            if self.count(pattern) >= count {
                return;
            }
            arrival.await;
        }
    }

    fn record<T>(&self, look: impl FnOnce(&mut Record) -> T) -> T {
        look(&mut self.shared.record.lock().expect("no holder panics"))
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Waiting would panic in a test's runtime.
            runtime.shutdown_background();
        }
    }
}

impl fmt::Debug for FaultProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultProxy")
            .field("url", &self.url())
            .finish_non_exhaustive()
    }
}

fn without_slash(address: String) -> String {
    address.trim_end_matches('/').to_owned()
}

/// Saturates after 584 years.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The text of a PEM file.
fn read_pem(file: &Path) -> io::Result<Vec<u8>> {
    std::fs::read(file)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", file.display())))
}

#[cfg(test)]
mod tests;
