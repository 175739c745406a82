//! Expiry: kept to the second, and enforced by the sweeper or the store.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use super::deletes::{becomes_gone, expect_gone};
use crate::conformance::context::{
    Context, Shown, Verdict, Wait, ensure, not_applicable, passed, reads_as, refused,
};
use crate::{
    Capabilities, Coordinate, Cursor, DeleteOptions, Entry, ErrorKind, Expiry, Identity,
    ListOptions, Listing, ManagedCoordinate, Page, Read, Result, Scope, SecretPersistence,
    SecretPersistenceExt, Timestamp, Write, Written,
};

const HOUR: Duration = Duration::from_secs(3600);

pub(super) fn in_an_hour() -> Timestamp {
    Timestamp::now().saturating_add(HOUR)
}

pub(super) async fn is_kept(cx: &Context) -> Verdict {
    let expires = in_an_hour();
    let write = Write::new(cx.name(), cx.value()).with_expires(Some(expires));
    if cx.capabilities().expiry == Expiry::None {
        refused(
            cx.write(&write).await,
            &[ErrorKind::Unsupported],
            "writing with an expiry",
        )?;
        let read = cx.read_managed(&write.coordinate).await;
        refused(read, &[ErrorKind::NotFound], "reading what was refused")?;
        not_applicable!("the store does not support expiry, and refuses it");
    }
    // The scope of short-lived secrets: the all-zero id.
    let ephemeral = cx.own(&format!(
        "{}_secret_{}_v1",
        Scope::ephemeral(),
        Uuid::new_v4()
    ));
    let ephemeral = Write::new(ephemeral, cx.value()).with_expires(Some(expires));
    let forever = cx.written().await?;
    for (what, write) in [
        ("an expiring secret", &write),
        ("an expiring secret of nobody", &ephemeral),
        ("a secret that does not expire", &forever),
    ] {
        cx.create(write).await?;
        let read = passed(cx.read_managed(&write.coordinate).await, what)?;
        ensure!(
            read.expires.is_none() || read.expires == write.expires,
            "{what} was written to expire {:?} and reads as {:?}",
            write.expires,
            read.expires
        );
        reads_as(Ok(read), &write.value, what)?;
        let entry = passed(cx.describe(&write.coordinate).await, what)?;
        ensure!(
            entry.expires == write.expires,
            "{what} was written to expire {:?} and is described with {:?}",
            write.expires,
            entry.expires
        );
        let again = passed(cx.write(write).await, what)?;
        ensure!(
            again == Written::AlreadySame,
            "{what}, written again, is created again"
        );
    }
    Ok(())
}

pub(super) async fn sweep_removes_what_has_expired(cx: &Context) -> Verdict {
    if cx.capabilities().expiry == Expiry::None {
        not_applicable!("the store does not support expiry");
    }
    if cx.capabilities().listing == Listing::None {
        not_applicable!("the store cannot list, which sweeping requires");
    }
    let soon = Write::new(cx.name(), cx.value()).with_expires(Some(in_an_hour()));
    let later = Timestamp::now().saturating_add(HOUR * 48);
    let later = Write::new(cx.name(), cx.value()).with_expires(Some(later));
    cx.create(&soon).await?;
    cx.create(&later).await?;
    let forever = cx.written().await?;
    let mut names = [&soon, &later, &forever].map(|write| write.coordinate.clone());
    names.sort();
    let shown = cx
        .until_listed(&cx.listing_of_scope(), &names, &names)
        .await?;
    let entry = passed(cx.describe(&soon.coordinate).await, "describing")?;
    let store = Fenced {
        store: Arc::clone(&cx.writer),
        scope: cx.scope.to_string(),
    };
    let owner = entry.owner.as_deref();
    let tomorrow = Timestamp::now().saturating_add(HOUR * 24);
    // Before the expiry, or for another owner, nothing is deleted.
    let mut sweeps = vec![("sweeping too early", Timestamp::now(), owner)];
    if owner.is_some() {
        sweeps.push((
            "sweeping for another owner",
            tomorrow,
            Some("somebody-else"),
        ));
    }
    for (what, now, owner) in sweeps {
        let sweep = passed(cx.retrying(|| store.sweep(now, owner)).await, what)?;
        ensure!(
            sweep.deleted.is_empty() && sweep.failed.is_empty(),
            "{what} deleted {} secrets and failed on {}",
            sweep.deleted.len(),
            sweep.failed.len()
        );
        let read = cx.read_managed(&soon.coordinate).await;
        reads_as(read, &soon.value, what)?;
    }
    let (lag, patience) = (cx.lag(), cx.patience());
    loop {
        let sweep = passed(
            cx.retrying(|| store.sweep(tomorrow, owner)).await,
            "sweeping",
        )?;
        if sweep.deleted == [soon.coordinate.clone()] {
            break;
        }
        let failures: Vec<String> = sweep.failed.iter().map(ToString::to_string).collect();
        ensure!(
            sweep.deleted.is_empty(),
            "sweeping deleted {} secrets instead of the one that had expired",
            sweep.deleted.len()
        );
        // The next sweep retries a delete that failed, for example because of throttling.
        let again = sweep.failed.iter().any(crate::Error::is_retryable);
        let wait = if again { &patience } else { &lag };
        let complaint = || format!("sweeping does not delete what has expired: {failures:?}");
        if wait.wait(complaint).await? == Wait::Over {
            let behind = match shown {
                Shown::All => Shown::NotYet(complaint()),
                behind => behind,
            };
            return behind.or_not_applicable(&cx.options);
        }
    }
    expect_gone(cx, &soon.coordinate).await?;
    for write in [&later, &forever] {
        let read = cx.read_managed(&write.coordinate).await;
        reads_as(read, &write.value, "reading what has not expired")?;
    }
    Ok(())
}

pub(super) async fn store_removes_what_has_expired(cx: &Context) -> Verdict {
    if cx.capabilities().expiry != Expiry::Enforced {
        not_applicable!("the store does not remove expired secrets itself");
    }
    let Some(ahead) = cx.options.expiry_wait else {
        not_applicable!("the options do not request waiting until a secret expires");
    };
    // One more second, because the current one has begun.
    let expires = Timestamp::now().saturating_add(ahead + Duration::from_secs(1));
    let write = Write::new(cx.name(), cx.value()).with_expires(Some(expires));
    cx.create(&write).await?;
    let read = cx.read_managed(&write.coordinate).await;
    reads_as(read, &write.value, "reading before it expires")?;
    tokio::time::sleep(ahead + Duration::from_secs(1)).await;
    becomes_gone(
        cx,
        &write.coordinate,
        &cx.patience(),
        "the store still serves an expired secret",
    )
    .await
}

/// The store, restricted to one scope: sweeping must not reach other secrets, even expired ones.
#[derive(Debug)]
struct Fenced {
    store: Arc<dyn SecretPersistence>,
    scope: String,
}

impl fmt::Display for Fenced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.store.fmt(f)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl SecretPersistence for Fenced {
    fn capabilities(&self) -> Capabilities {
        self.store.capabilities()
    }

    async fn read_batch(&self, coordinates: &[Coordinate]) -> Vec<Result<Read>> {
        self.store.read_batch(coordinates).await
    }

    async fn write_batch(&self, writes: &[Write]) -> Vec<Result<Written>> {
        self.store.write_batch(writes).await
    }

    async fn delete_batch(
        &self,
        coordinates: &[ManagedCoordinate],
        options: &DeleteOptions,
    ) -> Vec<Result<()>> {
        let outside = coordinates
            .iter()
            .find(|coordinate| !coordinate.as_str().starts_with(&self.scope));
        let Some(outside) = outside else {
            return self.store.delete_batch(coordinates, options).await;
        };
        let error = crate::Error::new(
            ErrorKind::Unexpected,
            "the listing shows names outside of its prefix",
        )
        .with_coordinate(outside.shared());
        vec![Err(error); coordinates.len()]
    }

    async fn restore(&self, coordinate: &ManagedCoordinate) -> Result<()> {
        self.store.restore(coordinate).await
    }

    async fn list_page(&self, options: &ListOptions, after: Option<&Cursor>) -> Result<Page> {
        let options = options.clone().with_prefix(self.scope.clone());
        self.store.list_page(&options, after).await
    }

    async fn describe(&self, coordinate: &ManagedCoordinate) -> Result<Entry> {
        self.store.describe(coordinate).await
    }

    async fn identity(&self) -> Result<Identity> {
        self.store.identity().await
    }
}
