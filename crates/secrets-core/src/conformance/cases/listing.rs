//! Listings: every name once, page by page, and no wrong name, whatever the delay.

use crate::conformance::context::{Context, Verdict, ensure, not_applicable, passed, refused};
use crate::{ErrorKind, ListOptions, Listing, ManagedCoordinate, Recovery, Write};

pub(super) async fn shows_every_name_once(cx: &Context) -> Verdict {
    can_list(cx).await?;
    // Several pages, the last one full.
    let writes = cx.written_many(cx.options.page_size * 3).await?;
    let expected = sorted(&writes);
    let listing = cx.listing_of_scope();
    let shown = cx.until_listed(&listing, &expected, &expected).await?;
    // Details match the description of each name.
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
    shown.or_not_applicable(&cx.options)
}

pub(super) async fn keeps_to_its_prefix(cx: &Context) -> Verdict {
    can_list(cx).await?;
    let writes = cx.written_many(2).await?;
    let wanted = [writes[0].coordinate.clone()];
    let one = ListOptions::default().with_prefix(wanted[0].base());
    let shown = cx.until_listed(&one, &wanted, &wanted).await?;
    let none = ListOptions::default().with_prefix(cx.name().base());
    ensure!(
        cx.list(&none).await?.is_empty(),
        "a listing with the prefix of no name shows some"
    );
    shown.or_not_applicable(&cx.options)
}

pub(super) async fn forgets_what_was_deleted(cx: &Context) -> Verdict {
    can_list(cx).await?;
    let writes = cx.written_many(3).await?;
    let all = sorted(&writes);
    let listing = cx.listing_of_scope();
    let shown = cx.until_listed(&listing, &all, &all).await?;
    passed(
        cx.delete(&writes[0].coordinate, Recovery::Immediate).await,
        "deleting at once",
    )?;
    passed(
        cx.delete(&writes[1].coordinate, Recovery::Configured).await,
        "deleting",
    )?;
    let left = cx
        .until_listed(&listing, &sorted(&writes[2..]), &all)
        .await?;
    // If the listing never showed the names, it cannot be seen to forget them.
    shown.or_not_applicable(&cx.options)?;
    left.or_not_applicable(&cx.options)
}

/// Ends the case if the store cannot list, after checking that it says so.
async fn can_list(cx: &Context) -> Verdict {
    if cx.capabilities().listing != Listing::None {
        return Ok(());
    }
    let page = cx.store.list_page(&cx.listing_of_scope(), None).await;
    refused(page, &[ErrorKind::Unsupported], "listing")?;
    not_applicable!("the store cannot list, and refuses it");
}

fn sorted(writes: &[Write]) -> Vec<ManagedCoordinate> {
    let mut names: Vec<_> = writes
        .iter()
        .map(|write| write.coordinate.clone())
        .collect();
    names.sort();
    names
}
