//! Deletes, and the states until a secret is gone.

use uuid::Uuid;

use crate::conformance::context::{
    Context, Patience, Verdict, ensure, failed, not_applicable, passed, reads_as, refused,
};
use crate::{
    DeleteOptions, ErrorKind, ManagedCoordinate, OnPending, Recovery, SecretPersistenceExt, Write,
    Written,
};

pub(super) async fn deleted_is_gone(cx: &Context) -> Verdict {
    for recovery in [
        Recovery::Immediate,
        Recovery::Configured,
        Recovery::Window { days: 7 },
    ] {
        let write = cx.written().await?;
        // Read first, so that a caching layer has a value to forget.
        let read = cx.read_managed(&write.coordinate).await;
        reads_as(read, &write.value, "reading before the delete")?;
        passed(
            cx.delete(&write.coordinate, recovery).await,
            &format!("deleting ({recovery:?})"),
        )?;
        expect_gone(cx, &write.coordinate).await?;
    }
    Ok(())
}

pub(super) async fn missing_succeeds(cx: &Context) -> Verdict {
    for recovery in [Recovery::Configured, Recovery::Immediate] {
        passed(
            cx.delete(&cx.name(), recovery).await,
            "deleting a missing name",
        )?;
        let write = cx.written().await?;
        for what in ["deleting", "deleting again", "deleting a third time"] {
            passed(cx.delete(&write.coordinate, recovery).await, what)?;
        }
        expect_gone(cx, &write.coordinate).await?;
    }
    // A secret that is scheduled for deletion may still be deleted immediately.
    let write = cx.written().await?;
    for recovery in [Recovery::Configured, Recovery::Immediate] {
        passed(
            cx.delete(&write.coordinate, recovery).await,
            &format!("deleting ({recovery:?}) a secret that is being deleted"),
        )?;
    }
    expect_gone(cx, &write.coordinate).await
}

pub(super) async fn takes_that_one_name(cx: &Context) -> Verdict {
    let id = Uuid::new_v4();
    let mut kept = Vec::new();
    for name in [cx.version_of(id, 2), cx.version_of(id, 10), cx.name()] {
        let write = Write::new(name, cx.value());
        cx.create(&write).await?;
        kept.push(write);
    }
    let write = Write::new(cx.version_of(id, 1), cx.value());
    cx.create(&write).await?;
    passed(
        cx.delete(&write.coordinate, Recovery::Immediate).await,
        "deleting version 1",
    )?;
    expect_gone(cx, &write.coordinate).await?;
    for other in kept {
        let read = cx.read_managed(&other.coordinate).await;
        reads_as(read, &other.value, "reading another name after a delete")?;
    }
    Ok(())
}

pub(super) async fn many_are_chunked(cx: &Context) -> Verdict {
    let batch = cx.writer.capabilities().delete_batch.min(12);
    let kept = cx.written().await?;
    let mut names = Vec::new();
    for _ in 0..=batch {
        names.push(cx.written().await?.coordinate);
    }
    // A missing name succeeds among others, and the same name twice is one delete.
    names.insert(1, cx.name());
    names.push(names[0].clone());
    let options = DeleteOptions::default().with_recovery(Recovery::Immediate);
    let results = cx.writer.delete_many(&names, &options).await;
    ensure!(
        results.len() == names.len(),
        "{} deletes got {} answers",
        names.len(),
        results.len()
    );
    for (result, name) in results.into_iter().zip(&names) {
        let result = match result {
            Err(error) if error.is_retryable() => cx.delete(name, Recovery::Immediate).await,
            other => other,
        };
        passed(result, "one of many deletes")?;
        expect_gone(cx, name).await?;
    }
    let read = cx.read_managed(&kept.coordinate).await;
    reads_as(read, &kept.value, "reading another name after many deletes")
}

pub(super) async fn pending_is_told_apart(cx: &Context) -> Verdict {
    let write = pending(cx).await?;
    match cx.describe(&write.coordinate).await {
        Ok(entry) => ensure!(
            entry.pending_deletion,
            "a name that is scheduled for deletion is described as if it were not"
        ),
        Err(error) => ensure!(
            error.kind() == ErrorKind::PendingDeletion,
            "describing a name that is scheduled for deletion: {error}"
        ),
    }
    Ok(())
}

pub(super) async fn pending_name_is_not_free(cx: &Context) -> Verdict {
    on_pending(cx, OnPending::Refuse)?;
    let write = pending(cx).await?;
    let other = Write::new(write.coordinate.clone(), cx.value());
    for (what, attempt) in [("the same value", &write), ("another value", &other)] {
        refused(
            cx.write(attempt).await,
            &[ErrorKind::PendingDeletion],
            &format!("writing {what} under a name that is scheduled for deletion"),
        )?;
        refused(
            cx.read_managed(&write.coordinate).await,
            &[ErrorKind::PendingDeletion],
            "reading after that write",
        )?;
    }
    Ok(())
}

pub(super) async fn writing_purges_a_pending_name(cx: &Context) -> Verdict {
    on_pending(cx, OnPending::Purge)?;
    let write = pending(cx).await?;
    let other = Write::new(write.coordinate.clone(), cx.value());
    let what = "writing under a name that is scheduled for deletion";
    // A retry after a lost response finds the existing value.
    passed(cx.write(&other).await, what)?;
    let read = cx.read_managed(&other.coordinate).await;
    reads_as(read, &other.value, "reading after that write")?;
    refused(
        cx.write(&write).await,
        &[ErrorKind::AlreadyExists],
        "writing the value that was purged",
    )
    .map(drop)
}

pub(super) async fn writing_restores_a_pending_name(cx: &Context) -> Verdict {
    on_pending(cx, OnPending::Restore)?;
    let write = pending(cx).await?;
    let what = "writing the same value under a name that is scheduled for deletion";
    let written = passed(cx.write(&write).await, what)?;
    ensure!(
        written == Written::AlreadySame,
        "{what} says that it created the name"
    );
    let read = cx.read_managed(&write.coordinate).await;
    reads_as(read, &write.value, "reading after that write")?;
    let write = pending(cx).await?;
    refused(
        cx.write(&Write::new(write.coordinate.clone(), cx.value()))
            .await,
        &[ErrorKind::AlreadyExists],
        "writing another value under a name that is scheduled for deletion",
    )?;
    let read = cx.read_managed(&write.coordinate).await;
    reads_as(read, &write.value, "reading after that write")
}

pub(super) async fn restore_brings_back(cx: &Context) -> Verdict {
    let restore =
        async |coordinate: &ManagedCoordinate| cx.retrying(|| cx.writer.restore(coordinate)).await;
    if !cx.capabilities().recovery {
        let write = cx.written().await?;
        passed(
            cx.delete(&write.coordinate, Recovery::Configured).await,
            "deleting",
        )?;
        refused(
            restore(&write.coordinate).await,
            // A store without a recovery window may still restore secrets that others soft-deleted.
            &[ErrorKind::NotFound, ErrorKind::Unsupported],
            "restoring where there is no recovery",
        )?;
        not_applicable!("a deleted secret is gone, and the store says so on restore");
    }
    refused(
        restore(&cx.name()).await,
        &[ErrorKind::NotFound],
        "restoring a missing name",
    )?;
    let write = pending(cx).await?;
    for what in ["restoring", "restoring what is readable"] {
        passed(restore(&write.coordinate).await, what)?;
        let read = cx.read_managed(&write.coordinate).await;
        reads_as(read, &write.value, &format!("reading after {what}"))?;
    }
    Ok(())
}

/// Ends the case if the store treats a name that is scheduled for deletion differently.
fn on_pending(cx: &Context, wanted: OnPending) -> Verdict {
    if !cx.capabilities().recovery {
        not_applicable!("the store deletes immediately");
    }
    let does = match cx.capabilities().on_pending {
        does if does == wanted => return Ok(()),
        OnPending::Purge => "purges",
        OnPending::Refuse => "refuses a write of",
        OnPending::Restore => "restores",
    };
    not_applicable!(
        "with its configuration, the store {does} a name that is scheduled for deletion"
    );
}

/// Waits until a deleted secret is scheduled for deletion.
async fn pending(cx: &Context) -> Verdict<Write> {
    if !cx.capabilities().recovery {
        not_applicable!("the store deletes immediately");
    }
    let write = cx.written().await?;
    passed(
        cx.delete(&write.coordinate, Recovery::Configured).await,
        "deleting",
    )?;
    let patience = cx.patience();
    loop {
        match cx.read_managed(&write.coordinate).await {
            Err(error) if error.kind() == ErrorKind::PendingDeletion => return Ok(write),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let complaint = || {
                    "a name that can be restored reads as not found instead of pending_deletion"
                        .to_owned()
                };
                patience.wait(complaint).await?;
            }
            Err(error) => return failed(format!("reading after a delete: {error}")),
            Ok(_) => return failed("a deleted secret is still readable".to_owned()),
        }
    }
}

/// Checks that a name reads as deleted, permanently or not.
pub(super) async fn expect_gone(cx: &Context, coordinate: &ManagedCoordinate) -> Verdict {
    // A store may keep a deleted secret for a while without a way to restore it.
    let kinds = &[ErrorKind::NotFound, ErrorKind::PendingDeletion];
    let read = cx.read_managed(coordinate).await;
    refused(read, kinds, "reading what was deleted").map(drop)
}

/// Waits until a name reads as deleted.
pub(super) async fn becomes_gone(
    cx: &Context,
    coordinate: &ManagedCoordinate,
    patience: &Patience,
    complaint: &str,
) -> Verdict {
    while cx.read_managed(coordinate).await.is_ok() {
        patience.wait(|| complaint.to_owned()).await?;
    }
    expect_gone(cx, coordinate).await
}
