//! The builder: stacks the layers in the right order, whatever the order of the calls.

use std::sync::Arc;

use super::cache::{Cache, CacheOptions};
use super::limit::{Limit, LimitOptions, SharedLimit};
use super::metrics::Metrics;
use super::read_only::ReadOnly;
use super::retry::{Retry, RetryOptions};
use super::timeout::Timeout;
use crate::SecretPersistence;
use crate::mirror::Mirror;
use crate::rates::SharedRates;

/// A backend with its own layers: cache, retry, limit.
#[derive(Debug)]
#[must_use]
pub struct Stack {
    account: Option<Arc<str>>,
    backend: Arc<dyn SecretPersistence>,
    cache: Option<CacheOptions>,
    limit: Option<LimitOptions>,
    retry: Option<RetryOptions>,
    shared: Option<SharedLimit>,
}

impl Stack {
    /// A backend without any layer.
    pub fn over(backend: Arc<dyn SecretPersistence>) -> Self {
        Self {
            account: None,
            backend,
            cache: None,
            limit: None,
            retry: None,
            shared: None,
        }
    }

    /// Caches values that were read.
    pub fn with_cache(mut self, options: CacheOptions) -> Self {
        self.cache = Some(options);
        self
    }

    /// Limits requests to a share of the provider's quota.
    pub fn with_limit(mut self, options: LimitOptions) -> Self {
        self.limit = Some(options);
        self
    }

    /// Shares the rates of the limit with all processes that draw from this source, for the same
    /// [account](Self::with_account). Without a limit it has no effect.
    ///
    /// The limit's [`share`](LimitOptions::share) is then what all of them use together, up to 7.4 % less
    /// than that. A call that makes several requests counts as if it made all of them when it begins; where
    /// the share of a second is less than fourteen times as many, a second can have as many more, less one.
    /// While the source cannot be reached, which is logged once and tried again every thirty
    /// seconds, this process uses one of `replicas` equal parts of the share: requests go on. While some
    /// processes reach it and others do not, all together can use up to twice the share.
    pub fn with_shared_rates(mut self, rates: Arc<dyn SharedRates>, replicas: u32) -> Self {
        self.shared = Some(SharedLimit { rates, replicas });
        self
    }

    /// Names what the provider counts requests for: stores that share rates share those of one account.
    /// By default this is the name of the store, which may be too much (one server, two prefixes) or too
    /// little (two accounts, one region).
    pub fn with_account(mut self, account: impl Into<Arc<str>>) -> Self {
        self.account = Some(account.into());
        self
    }

    /// Retries retryable failures, and times out attempts.
    pub fn with_retry(mut self, options: RetryOptions) -> Self {
        self.retry = Some(options);
        self
    }

    /// The layered store, and the backend's name: errors and metrics name the store, not its
    /// layers.
    fn build(self) -> (Arc<dyn SecretPersistence>, Arc<str>) {
        let mut store = self.backend;
        let name: Arc<str> = store.to_string().into();
        if let Some(options) = &self.retry {
            // Below the limit: waiting for a permit is not the store's fault.
            store = Arc::new(Timeout::new(store, options.request_timeout));
        }
        if let Some(options) = self.limit {
            let account = self.account.as_ref().unwrap_or(&name);
            let shared = self.shared.as_ref().map(|shared| (shared, account));
            store = Arc::new(Limit::new(store, &name, options, shared));
        }
        if let Some(options) = self.retry {
            store = Arc::new(Retry::new(store, Arc::clone(&name), options));
        }
        if let Some(options) = self.cache {
            store = Arc::new(Cache::new(store, Arc::clone(&name), options));
        }
        (store, name)
    }
}

/// The layers around one stack, or around a mirror of two: read-only, metrics.
#[derive(Debug)]
#[must_use]
pub struct Layers {
    primary: Stack,
    secondary: Option<Stack>,
    read_only: bool,
    metrics: bool,
}

impl Layers {
    /// One stack.
    pub fn over(stack: Stack) -> Self {
        Self {
            primary: stack,
            secondary: None,
            read_only: false,
            metrics: false,
        }
    }

    /// Two stores in sync, for a live migration.
    ///
    /// Reads ask the primary, and the secondary if the primary returns `NotFound`, `Unavailable` or
    /// `Throttled`. Writes and deletes go to the secondary first, then to the primary, and fail if
    /// either fails. Before the switch, the old store is the primary; afterwards the new one.
    /// Listings come from the primary; the capabilities are the weaker ones of the two.
    pub fn mirror(primary: Stack, secondary: Stack) -> Self {
        Self {
            secondary: Some(secondary),
            ..Self::over(primary)
        }
    }

    /// Refuses every change before any request.
    pub fn with_read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }

    /// Counts and times every call with the `metrics` facade, and traces it with `tracing`.
    pub fn with_metrics(mut self, metrics: bool) -> Self {
        self.metrics = metrics;
        self
    }

    /// Stacks the layers.
    #[must_use]
    pub fn build(self) -> Arc<dyn SecretPersistence> {
        let (mut store, mut name) = self.primary.build();
        if let Some(secondary) = self.secondary {
            let (second, second_name) = secondary.build();
            name = format!("{name} mirrored to {second_name}").into();
            store = Arc::new(Mirror::new(store, second, Arc::clone(&name)));
        }
        if self.read_only {
            store = Arc::new(ReadOnly::new(store, Arc::clone(&name)));
        }
        if self.metrics {
            store = Arc::new(Metrics::new(store, name));
        }
        store
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Memory;
    use crate::SecretPersistenceExt;
    use crate::conformance::{self, Options};
    use crate::layer::probe::{Probe, coordinate, holding, write};

    fn full(backend: Arc<dyn SecretPersistence>) -> Stack {
        // The order of the calls does not matter.
        Stack::over(backend)
            .with_limit(LimitOptions::default())
            .with_cache(CacheOptions::default())
            .with_retry(RetryOptions::default())
    }

    #[tokio::test]
    async fn layers_stand_in_the_one_right_order() {
        let memory = || Arc::new(Memory::new()) as Arc<dyn SecretPersistence>;
        for (layers, expected) in [
            (Layers::over(Stack::over(memory())), "memory"),
            (
                Layers::over(full(memory())),
                "cache(retry(limit(timeout(memory))))",
            ),
            (
                Layers::mirror(full(memory()), Stack::over(memory()))
                    .with_metrics(true)
                    .with_read_only(true),
                "metrics(read_only(mirror(cache(retry(limit(timeout(memory)))), memory)))",
            ),
        ] {
            let store = layers.build();
            assert_eq!(format!("{store:#}"), expected);
            // A reader of a message need not know about layers.
            assert!(!store.to_string().contains('('), "{store}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_hangs_ends_after_a_requests_time_and_errors_speak_of_the_store() {
        let second = std::time::Duration::from_secs(1);
        let probe = Arc::new(Probe::new());
        probe.on_every_request(|_, _| crate::layer::probe::Fault::Hang);
        let options = RetryOptions::default()
            .with_attempts(1)
            .with_request_timeout(second)
            .with_deadline(second * 60);
        let stack = Stack::over(probe).with_retry(options);
        let other = Stack::over(Arc::new(Memory::new()));
        let started = tokio::time::Instant::now();
        let store = Layers::mirror(stack, other).build();
        let error = store.write(write(1)).await.unwrap_err();
        assert_eq!(started.elapsed(), second);
        assert_eq!(error.store(), Some("probe"));
        // The second of them is the secondary, which is written first.
        assert_eq!(
            format!("{store:#}"),
            "mirror(retry(timeout(probe)), memory)"
        );

        let both = Layers::mirror(
            Stack::over(Arc::new(Probe::new())),
            Stack::over(Arc::new(Memory::new())),
        );
        let store = both.with_read_only(true).build();
        let error = store.write(write(1)).await.unwrap_err();
        assert_eq!(error.store(), Some("probe mirrored to memory"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_thousand_hydrates_make_one_set_of_requests_and_a_warm_one_none() {
        use crate::Actor;
        use crate::connector::{ConnectorOptions, ConnectorSecrets};

        let latency = std::time::Duration::from_millis(50);
        let memory = Memory::new();
        let capabilities = crate::Capabilities {
            read_batch: 20,
            ..memory.capabilities()
        };
        let memory = memory.with_capabilities(capabilities);
        let probe = holding(Probe::over(memory).with_latency(latency), 45).await;
        let store = Layers::over(full(Arc::clone(&probe) as _))
            .with_metrics(true)
            .build();
        let secrets = ConnectorSecrets::new(crate::Stores::new(store), ConnectorOptions::default())
            .acting_as(&Actor::new("test"));
        let saved: serde_json::Map<String, serde_json::Value> = (0..45)
            .map(|n| {
                let pointer = serde_json::json!({"_secret": coordinate(n).as_str()});
                (format!("field {n}"), pointer)
            })
            .collect();
        let saved = serde_json::Value::Object(saved);
        let started = tokio::time::Instant::now();
        let hydrated = (0..1000).map(|_| secrets.hydrate(saved.clone()));
        for full in futures::future::join_all(hydrated).await {
            assert_eq!(full.unwrap()["field 44"], "value 44");
        }
        // 45 secrets, 20 in each request, all in flight together.
        assert_eq!(probe.requests().len(), 3);
        assert!(started.elapsed() < latency * 3);
        secrets.hydrate(saved).await.unwrap();
        assert_eq!(probe.requests().len(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn the_whole_stack_keeps_every_promise() {
        let slow = || Arc::new(Probe::slow()) as Arc<dyn SecretPersistence>;
        let store = Layers::mirror(full(slow()), full(slow()))
            .with_metrics(true)
            .build();
        let report = conformance::run(&store, &Options::default()).await;
        report.assert_passed();
    }
}
