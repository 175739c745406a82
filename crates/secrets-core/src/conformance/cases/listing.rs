//! Listing: every name once, page by page, as late as the store says and no later.

use crate::conformance::context::{Context, Verdict, ensure, not_applicable, passed, refused};
use crate::{ErrorKind, ListOptions, Listing, ManagedCoordinate, Recovery, Write};

pub(super) async fn shows_every_name_once(cx: &Context) -> Verdict {
    can_list(cx).await?;
    // Several pages, the last one full.
    let writes = cx.written_many(cx.options.page_size * 3).await?;
    let expected = sorted(&writes);
    let lag = cx.lag();
    loop {
        let listed = cx.listed_names().await?;
        if listed == expected {
            break;
        }
        lag.wait(|| {
            format!(
                "of {} names the listing shows {}, {} of them expected",
                expected.len(),
                listed.len(),
                listed.iter().filter(|name| expected.contains(name)).count()
            )
        })
        .await?;
    }
    // Details tell of each name what describe tells.
    let details = cx.listing_of_scope().with_details(true);
    for entry in cx.list(&details).await? {
        let described = passed(cx.describe(&entry.coordinate).await, "describing a name")?;
        ensure!(
            (&entry.owner, entry.expires) == (&described.owner, described.expires),
            "`{}` is listed with owner {:?} and expiry {:?}, and described with {:?} and {:?}",
            entry.coordinate,
            entry.owner,
            entry.expires,
            described.owner,
            described.expires
        );
        ensure!(
            !writes
                .iter()
                .any(|write| format!("{entry:?}").contains(write.value.expose())),
            "the listing shows a value"
        );
    }
    Ok(())
}

pub(super) async fn keeps_to_its_prefix(cx: &Context) -> Verdict {
    can_list(cx).await?;
    let writes = cx.written_many(2).await?;
    let wanted = &writes[0].coordinate;
    let one = ListOptions::default().with_prefix(wanted.base());
    let lag = cx.lag();
    loop {
        let listed = names(cx, &one).await?;
        ensure!(
            listed.iter().all(|name| name == wanted),
            "a listing with the prefix of one name shows others"
        );
        if listed.len() == 1 {
            break;
        }
        lag.wait(|| {
            format!(
                "a listing with the prefix of one name shows {}",
                listed.len()
            )
        })
        .await?;
    }
    let none = ListOptions::default().with_prefix(cx.name().base());
    ensure!(
        names(cx, &none).await?.is_empty(),
        "a listing with the prefix of no name shows some"
    );
    Ok(())
}

pub(super) async fn forgets_what_was_deleted(cx: &Context) -> Verdict {
    can_list(cx).await?;
    let writes = cx.written_many(3).await?;
    let lag = cx.lag();
    while cx.listed_names().await?.len() < writes.len() {
        lag.wait(|| "the listing does not show new names".to_owned())
            .await?;
    }
    passed(
        cx.delete(&writes[0].coordinate, Recovery::Immediate).await,
        "deleting at once",
    )?;
    passed(
        cx.delete(&writes[1].coordinate, Recovery::Configured).await,
        "deleting",
    )?;
    let expected = sorted(&writes[2..]);
    let lag = cx.lag();
    while cx.listed_names().await? != expected {
        lag.wait(|| "the listing goes on showing deleted names".to_owned())
            .await?;
    }
    Ok(())
}

/// Ends the case where the store cannot list, after seeing that it says so.
async fn can_list(cx: &Context) -> Verdict {
    if cx.capabilities().listing != Listing::None {
        return Ok(());
    }
    let page = cx.store.list_page(&cx.listing_of_scope(), None).await;
    refused(page, &[ErrorKind::Unsupported], "listing")?;
    not_applicable!("the store cannot list, and says so when asked to");
}

async fn names(cx: &Context, options: &ListOptions) -> Verdict<Vec<ManagedCoordinate>> {
    let entries = cx.list(options).await?;
    Ok(entries.into_iter().map(|entry| entry.coordinate).collect())
}

fn sorted(writes: &[Write]) -> Vec<ManagedCoordinate> {
    let mut names: Vec<_> = writes
        .iter()
        .map(|write| write.coordinate.clone())
        .collect();
    names.sort();
    names
}
