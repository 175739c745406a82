//! What a store returns about itself and its secrets.

use crate::conformance::context::{Context, Verdict, ensure, not_applicable, passed, refused};
use crate::{ErrorKind, Expiry};

pub(super) async fn capabilities_are_sane(cx: &Context) -> Verdict {
    let capabilities = cx.capabilities();
    for (name, number) in [
        ("read_batch", capabilities.read_batch),
        ("write_batch", capabilities.write_batch),
        ("concurrency", capabilities.concurrency),
        ("max_value_bytes", capabilities.max_value_bytes),
        ("cost.read", capabilities.cost.read as usize),
        ("cost.write", capabilities.cost.write as usize),
        ("cost.delete", capabilities.cost.delete as usize),
        ("cost.describe", capabilities.cost.describe as usize),
        ("cost.list", capabilities.cost.list as usize),
        ("cost.restore", capabilities.cost.restore as usize),
    ] {
        ensure!(number >= 1, "{name} is 0, and must be at least 1");
    }
    // Every error and log line contains the name.
    ensure!(
        !cx.store.to_string().trim().is_empty(),
        "the store's Display is empty"
    );
    Ok(())
}

pub(super) async fn identity_says_who_and_where(cx: &Context) -> Verdict {
    let identity = passed(
        cx.retrying(|| cx.store.identity()).await,
        "asking who we are",
    )?;
    for (name, text) in [
        ("store", identity.store),
        ("principal", &identity.principal),
        ("location", &identity.location),
    ] {
        ensure!(!text.trim().is_empty(), "the identity's {name} is empty");
    }
    ensure!(
        !identity
            .location
            .starts_with(&format!("{} ", identity.store)),
        "the location repeats the kind of store, which is a separate field: {}",
        identity.location
    );
    Ok(())
}

pub(super) async fn describe_knows_the_name(cx: &Context) -> Verdict {
    let write = cx.written().await?;
    let entry = passed(cx.describe(&write.coordinate).await, "describing a secret")?;
    ensure!(
        entry.coordinate == write.coordinate,
        "describing `{}` returned `{}`",
        write.coordinate,
        entry.coordinate
    );
    ensure!(
        !entry.pending_deletion,
        "a new secret is described as scheduled for deletion"
    );
    ensure!(
        entry.expires.is_none(),
        "a secret that was written without expiry is described with one"
    );
    ensure!(
        !format!("{entry:?}").contains(write.value.expose()),
        "the description shows the value"
    );
    let missing = cx.describe(&cx.name()).await;
    refused(missing, &[ErrorKind::NotFound], "describing a missing name").map(drop)
}

pub(super) async fn owner_is_kept(cx: &Context) -> Verdict {
    if !cx.capabilities().owner {
        not_applicable!("the store does not keep an owner");
    }
    let Some(owner) = &cx.options.owner else {
        not_applicable!("the options do not contain the owner with which the store was opened");
    };
    let write = cx.written().await?;
    let entry = passed(cx.describe(&write.coordinate).await, "describing a secret")?;
    ensure!(
        entry.owner.as_deref() == Some(owner.as_str()),
        "the owner is {owner}, and the secret is described with {:?}",
        entry.owner
    );
    // The sweeper checks the owner of expiring secrets.
    if cx.capabilities().expiry != Expiry::None {
        let write = crate::Write::new(cx.name(), cx.value())
            .with_expires(Some(super::expiry::in_an_hour()));
        cx.create(&write).await?;
        let entry = passed(cx.describe(&write.coordinate).await, "describing a secret")?;
        ensure!(
            entry.owner.as_deref() == Some(owner.as_str()),
            "an expiring secret is described with owner {:?} instead of {owner}",
            entry.owner
        );
    }
    Ok(())
}
