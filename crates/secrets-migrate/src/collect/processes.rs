//! Runs by several processes over a store that is slow, or during which something happens.

// Clippy does not see that the module is one of tests.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::{BoxFuture, Either, pending, select};
use secret_persistence_core::{
    Capabilities, Cursor, DeleteOptions, ListOptions, ManagedCoordinate, Memory, Owner, Page,
    Result, Scope, SecretPersistence, SecretPersistenceExt as _, SecretValue, Timestamp, Write,
};
use serde_json::json;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::lapses::Place;
use super::{Collect, CollectJournal, CollectReport, CollectRules, CollectStop};
use crate::tests::wrapped::{Wrapped, Wrapper};
use crate::{
    AllReferences, Cancellation, ConfigRow, MemoryConfigs, MigrateErrorKind, MigrateOptions,
    MigrateResult,
};

/// So many that there are three pages of what is due.
const SECRETS: u32 = 40;

/// Longer than a case takes.
const LONG: Duration = Duration::from_secs(600);

/// A request that a store gets.
enum Request {
    /// For so many entries.
    List(usize),
    /// The first, the second, …
    Delete(u64),
}

type Before = Arc<dyn Fn(Request) -> BoxFuture<'static, ()> + Send + Sync>;

/// A store of which a process waits before it gets an answer.
struct Waiting {
    inner: Arc<Memory>,
    deletes: Arc<AtomicU64>,
    before: Before,
}

#[async_trait]
impl Wrapper for Waiting {
    fn store(&self) -> &dyn SecretPersistence {
        &*self.inner
    }

    /// One request after the other, and one for each entry of a listing.
    fn capabilities(&self) -> Capabilities {
        let mut capabilities = self.inner.capabilities();
        capabilities.concurrency = 1;
        capabilities.delete_batch = 1;
        capabilities.cost.list_detail = 1;
        capabilities
    }

    async fn delete_batch(
        &self,
        coordinates: &[ManagedCoordinate],
        options: &DeleteOptions,
    ) -> Vec<Result<()>> {
        let number = self.deletes.fetch_add(1, Ordering::SeqCst) + 1;
        (self.before)(Request::Delete(number)).await;
        self.inner.delete_batch(coordinates, options).await
    }

    async fn list_page(&self, options: &ListOptions, after: Option<&Cursor>) -> Result<Page> {
        let page = self.inner.list_page(options, after).await?;
        (self.before)(Request::List(page.entries.len())).await;
        Ok(page)
    }
}

fn us() -> Owner {
    Owner::parse("prod_eu").unwrap()
}

/// What goes without waiting for a second run.
fn name(number: u32) -> ManagedCoordinate {
    let id = Uuid::from_u128(number.into());
    ManagedCoordinate::new(&Scope::ephemeral(), id, 1).unwrap()
}

/// Secrets that no configuration names yet, and a journal that another process has open too: nobody is
/// alone, so that a pass is not over only because its processes are.
struct Site {
    place: Place,
    store: Arc<Memory>,
    configs: Arc<MemoryConfigs>,
    other: CollectJournal,
}

impl Site {
    async fn new() -> Option<Self> {
        let place = Place::new().await?;
        let store = Arc::new(Memory::new().with_owner(us()));
        for number in 1..=SECRETS {
            let value = SecretValue::new("canary".to_owned());
            store.write(Write::new(name(number), value)).await.unwrap();
        }
        let other = place.open().await;
        Some(Self {
            place,
            store,
            configs: Arc::new(MemoryConfigs::new("configs", Vec::new()).unwrap()),
            other,
        })
    }

    /// A process that has such a store, which counts its deletes.
    async fn process(
        &self,
        lease: Duration,
        before: impl Fn(Request) -> BoxFuture<'static, ()> + Send + Sync + 'static,
    ) -> Process {
        let deletes = Arc::new(AtomicU64::new(0));
        let store = Waiting {
            inner: Arc::clone(&self.store),
            deletes: Arc::clone(&deletes),
            before: Arc::new(before),
        };
        let journal = Arc::new(self.place.open().await);
        let rules = CollectRules {
            most_percent: 100,
            ..CollectRules::default()
        };
        let collect = Collect::new(Arc::new(Wrapped(store)), us(), Arc::clone(&journal))
            .with_configs(self.configs.clone())
            .with_rules(rules)
            .with_options(MigrateOptions::default().with_lease(lease))
            .with_clock(|| Timestamp::now().saturating_add(Duration::from_secs(2 * 24 * 3600)));
        Process {
            collect,
            journal,
            deletes,
        }
    }

    /// Restores a configuration that names the last secret.
    fn restore(&self) -> impl Fn() + Send + Sync + 'static + use<> {
        let configs = Arc::clone(&self.configs);
        move || {
            let configuration = json!({"password": {"_secret": name(SECRETS).as_str()}});
            configs.put(ConfigRow::new("restored", configuration));
        }
    }

    /// Changes the tables, when it is called.
    async fn change(&self, sql: &'static str) -> impl Fn() -> BoxFuture<'static, ()> + use<> {
        let connection = Arc::new(tokio::sync::Mutex::new(self.place.connect().await));
        move || {
            let connection = Arc::clone(&connection);
            Box::pin(async move {
                let mut connection = connection.lock().await;
                sqlx::query(sql).execute(&mut *connection).await.unwrap();
            })
        }
    }

    /// Which secrets there are.
    async fn left(&self) -> Vec<u32> {
        let mut left = Vec::new();
        for number in 1..=SECRETS {
            if self.store.read(&name(number).into()).await.is_ok() {
                left.push(number);
            }
        }
        left
    }

    async fn end(self) {
        self.other.close().await;
        self.place.drop().await;
    }
}

struct Process {
    collect: Collect,
    journal: Arc<CollectJournal>,
    deletes: Arc<AtomicU64>,
}

impl Process {
    fn with_cancellation(mut self, cancellation: &Cancellation) -> Self {
        self.collect = self.collect.with_cancellation(cancellation.clone());
        self
    }

    /// Runs to its end, which comes.
    async fn run(&self) -> MigrateResult<CollectReport> {
        let confirmed = AllReferences::confirmed();
        let run = timeout(Duration::from_secs(60), async {
            self.collect.run(confirmed, &mut |_| ()).await
        });
        let report = run.await.expect("it ends");
        self.journal.close().await;
        report
    }
}

fn nothing(_: Request) -> BoxFuture<'static, ()> {
    Box::pin(async {})
}

/// The listing and each page take several leases.
#[tokio::test]
async fn a_store_slower_than_the_lease_is_collected() {
    let Some(site) = Site::new().await else {
        return;
    };
    let slow = |request: Request| -> BoxFuture<'static, ()> {
        let requests = match request {
            Request::List(entries) => u32::try_from(entries).unwrap(),
            Request::Delete(_) => 1,
        };
        Box::pin(sleep(Duration::from_millis(100) * requests))
    };
    let lease = Duration::from_secs(1);
    let one = site.process(lease, slow).await;
    let two = site.process(lease, slow).await;
    let (one, two) = tokio::join!(one.run(), two.run());
    for report in [one.unwrap(), two.unwrap()] {
        assert!(report.is_complete(), "{report:?}");
    }
    assert_eq!(site.left().await, Vec::<u32>::new());
    site.end().await;
}

#[tokio::test]
async fn a_store_that_never_answers_within_the_lease_is_told() {
    let Some(site) = Site::new().await else {
        return;
    };
    let sql = "UPDATE collect_page SET epoch = epoch + 1, until = now() - interval '1 second'";
    let lapse = site.change(sql).await;
    let process = site.process(LONG, move |_| lapse()).await;
    let error = process.run().await.expect_err("it gives up");
    assert_eq!(error.kind(), MigrateErrorKind::Lapsed);
    assert!(error.to_string().contains("longer lease"), "{error}");
    assert_eq!(site.left().await.len(), 40);
    site.end().await;
}

#[tokio::test]
async fn no_delete_begins_after_the_page_was_taken_over() {
    let Some(site) = Site::new().await else {
        return;
    };
    let lease = Duration::from_secs(3);
    let (taken, cancellation) = (
        site.change("UPDATE collect_page SET epoch = epoch + 1 WHERE done = 0")
            .await,
        Cancellation::new(),
    );
    let cancel = cancellation.clone();
    let process = site.process(lease, move |request| match request {
        Request::List(_) => nothing(request),
        Request::Delete(_) => {
            // So that it does not go on with a claim of its own.
            cancel.cancel();
            let taken = taken();
            Box::pin(async move {
                taken.await;
                sleep(lease / 2).await;
            })
        }
    });
    let process = process.await.with_cancellation(&cancellation);
    let report = process.run().await.unwrap();
    assert_eq!(report.stopped, Some(CollectStop::Cancelled));
    assert_eq!(process.deletes.load(Ordering::SeqCst), 1);
    assert_eq!(report.deleted, 1, "it tells what it has deleted");
    site.end().await;
}

/// Somebody sees that a secret is needed, stops all processes, restores its configuration, and starts
/// again at once.
#[tokio::test]
async fn whoever_comes_after_all_others_have_stopped_reads_again() {
    let Some(site) = Site::new().await else {
        return;
    };
    let cancellation = Cancellation::new();
    let cancel = cancellation.clone();
    let first = site.process(LONG, move |request| {
        if matches!(request, Request::Delete(_)) {
            cancel.cancel();
        }
        nothing(request)
    });
    let first = first.await.with_cancellation(&cancellation);
    let report = first.run().await.unwrap();
    assert_eq!(report.stopped, Some(CollectStop::Cancelled));
    assert_eq!(report.deleted, 16, "a page");
    site.restore()();
    let (one, two) = (
        site.process(LONG, nothing).await,
        site.process(LONG, nothing).await,
    );
    let (one, two) = tokio::join!(one.run(), two.run());
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!(one.deleted + two.deleted, 23);
    assert_eq!(site.left().await, [SECRETS]);
    site.end().await;
}

/// The same after `kill -9`: what was killed still has a page.
#[tokio::test]
async fn whoever_comes_after_all_others_were_killed_reads_again() {
    let Some(site) = Site::new().await else {
        return;
    };
    let deletes = Arc::new(Notify::new());
    let notify = Arc::clone(&deletes);
    let killed = site.process(Duration::from_secs(3), move |request| match request {
        Request::List(_) => nothing(request),
        Request::Delete(_) => {
            notify.notify_one();
            Box::pin(pending())
        }
    });
    let killed = killed.await;
    let run = Box::pin(killed.run());
    let until = std::pin::pin!(deletes.notified());
    match select(run, until).await {
        Either::Left(_) => panic!("it waits"),
        Either::Right((_, run)) => drop(run),
    }
    killed.journal.close().await;
    site.restore()();
    let next = site.process(LONG, nothing).await.run().await.unwrap();
    assert_eq!((next.configurations, next.deleted), (1, 39));
    assert_eq!(site.left().await, [SECRETS]);
    site.end().await;
}

/// Several are at work, and one more helps.
#[tokio::test]
async fn whoever_comes_while_others_are_at_work_helps() {
    let Some(site) = Site::new().await else {
        return;
    };
    let working = Arc::new(Notify::new());
    let notify = Arc::clone(&working);
    let sql = "UPDATE collect_page SET epoch = epoch + 1, until = now() + interval '600 seconds' \
               WHERE page = 3 AND done = 0";
    let claims = site.change(sql).await;
    let killed = site.process(LONG, move |request| match request {
        Request::List(_) => nothing(request),
        Request::Delete(_) => {
            notify.notify_one();
            Box::pin(pending())
        }
    });
    let killed = killed.await;
    let run = Box::pin(killed.run());
    let until = std::pin::pin!(working.notified());
    let Either::Right((_, working)) = select(run, until).await else {
        panic!("it waits");
    };
    // It has the first page. Another one claims the last, again and again.
    let cancellation = Cancellation::new();
    let cancel = cancellation.clone();
    let helper = site.process(LONG, move |request| {
        cancel.cancel();
        nothing(request)
    });
    let helper = helper.await.with_cancellation(&cancellation);
    let others = async {
        while !cancellation.is_cancelled() {
            claims().await;
            sleep(Duration::from_millis(50)).await;
        }
    };
    let (report, ()) = tokio::join!(helper.run(), others);
    let report = report.unwrap();
    assert_eq!(
        (report.configurations, report.deleted),
        (0, 16),
        "{report:?}"
    );
    drop(working);
    site.end().await;
}

/// The first delete takes hours, and a configuration is restored meanwhile.
#[tokio::test]
async fn what_was_read_long_ago_is_read_again() {
    let Some(site) = Site::new().await else {
        return;
    };
    let hours = site
        .change("UPDATE collect_page SET until = until - interval '2 hours' WHERE page = 0")
        .await;
    let restore = site.restore();
    let process = site.process(Duration::from_secs(60), move |request| match request {
        Request::Delete(1) => {
            restore();
            hours()
        }
        _ => nothing(request),
    });
    let report = process.await.run().await.unwrap();
    assert!(report.is_complete(), "{report:?}");
    assert_eq!((report.configurations, report.deleted), (1, 39));
    assert_eq!(site.left().await, [SECRETS]);
    site.end().await;
}
