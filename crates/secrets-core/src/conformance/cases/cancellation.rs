//! Futures that are dropped after each small number of polls.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};

use super::deletes::expect_gone;
use crate::conformance::context::{Context, Verdict, ensure, failed, passed, reads_as};
use crate::{
    Coordinate, DeleteOptions, ErrorKind, ListOptions, Listing, Recovery, SecretPersistenceExt,
    Write,
};

const POLLS: &[u32] = &[1, 2, 3, 4, 6, 8, 12, 20];

pub(super) async fn dropped_futures(cx: &Context) -> Verdict {
    for &polls in POLLS {
        writes(cx, polls).await?;
        reads(cx, polls).await?;
        deletes(cx, polls).await?;
    }
    match cx.capabilities().listing {
        Listing::None => Ok(()),
        _ => no_foreign_names(cx).await,
    }
}

/// Checks that the listing shows only names of this case.
async fn no_foreign_names(cx: &Context) -> Verdict {
    let mut known = cx.names();
    known.sort();
    let listing = ListOptions::default().with_prefix(cx.scope.to_string());
    for entry in cx.list(&listing).await? {
        ensure!(
            known.binary_search(&entry.coordinate).is_ok(),
            "a dropped future left a secret under `{}`, a name that no caller knows",
            entry.coordinate
        );
    }
    Ok(())
}

async fn writes(cx: &Context, polls: u32) -> Verdict {
    let writes: Vec<Write> = (0..3).map(|_| Write::new(cx.name(), cx.value())).collect();
    drop_after(polls, cx.writer.write_many(&writes)).await;
    // Read first, because the retry may complete what the first attempt left.
    if cx.capabilities().listing == Listing::Immediate {
        no_foreign_names(cx).await?;
    }
    for write in &writes {
        match cx.read_managed(&write.coordinate).await {
            Ok(read) => reads_as(Ok(read), &write.value, "reading after a dropped write")?,
            Err(error) => ensure!(
                error.kind() == ErrorKind::NotFound,
                "reading after a write was dropped after {polls} polls: {error}"
            ),
        }
        let what = format!("writing again after the write was dropped after {polls} polls");
        passed(cx.write(write).await, &what)?;
        let read = cx.read_managed(&write.coordinate).await;
        reads_as(read, &write.value, &what)?;
    }
    Ok(())
}

async fn reads(cx: &Context, polls: u32) -> Verdict {
    let write = cx.written().await?;
    let names: Vec<Coordinate> = vec![write.coordinate.clone().into(), cx.name().into()];
    drop_after(polls, cx.store.read_many(&names)).await;
    drop_after(polls, cx.store.describe(&write.coordinate)).await;
    let read = cx.read_managed(&write.coordinate).await;
    let what = format!("reading again after the read was dropped after {polls} polls");
    reads_as(read, &write.value, &what)
}

async fn deletes(cx: &Context, polls: u32) -> Verdict {
    let write = cx.written().await?;
    let immediate = DeleteOptions::default().with_recovery(Recovery::Immediate);
    drop_after(polls, cx.writer.delete(&write.coordinate, &immediate)).await;
    // It was either deleted, or the value is unchanged.
    match cx.read_managed(&write.coordinate).await {
        Ok(read) => reads_as(Ok(read), &write.value, "reading after a dropped delete")?,
        Err(error) if error.kind().is_gone() => {}
        Err(error) => {
            return failed(format!(
                "reading after a delete was dropped after {polls} polls: {error}"
            ));
        }
    }
    passed(
        cx.delete(&write.coordinate, Recovery::Immediate).await,
        &format!("deleting again after the delete was dropped after {polls} polls"),
    )?;
    expect_gone(cx, &write.coordinate).await
}

/// Polls a future at most `polls` times, then drops it.
async fn drop_after<F: Future>(polls: u32, future: F) {
    struct Cut<F> {
        future: Pin<Box<F>>,
        left: u32,
    }
    impl<F: Future> Future for Cut<F> {
        type Output = ();

        fn poll(mut self: Pin<&mut Self>, context: &mut TaskContext<'_>) -> Poll<()> {
            if self.future.as_mut().poll(context).is_ready() {
                return Poll::Ready(());
            }
            self.left = self.left.saturating_sub(1);
            if self.left == 0 {
                return Poll::Ready(());
            }
            Poll::Pending
        }
    }
    Cut {
        future: Box::pin(future),
        left: polls,
    }
    .await;
}
