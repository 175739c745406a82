//! Reads: missing names, batches, external names, another handle.

use uuid::Uuid;

use crate::conformance::context::{
    Context, Verdict, ensure, not_applicable, passed, read_from, reads_as, refused,
};
use crate::{Coordinate, ErrorKind, SecretPersistenceExt, SecretValue, Write};

pub(super) async fn missing_is_not_found(cx: &Context) -> Verdict {
    refused(
        cx.read_managed(&cx.name()).await,
        &[ErrorKind::NotFound],
        "reading a missing name",
    )?;
    let external = format!("conformance-missing-{}", Uuid::new_v4());
    let external = passed(Coordinate::parse(&external), "an external name")?;
    // A minimal policy may permit only managed names.
    refused(
        cx.read(&external).await,
        &[ErrorKind::NotFound, ErrorKind::PermissionDenied],
        "reading a missing external name",
    )
    .map(drop)
}

pub(super) async fn batch_answers_by_name(cx: &Context) -> Verdict {
    ensure!(
        cx.store.read_batch(&[]).await.is_empty(),
        "a batch of no reads got results"
    );
    let size = cx.capabilities().read_batch.clamp(1, 24);
    let writes = cx.written_many(size.div_ceil(2)).await?;
    // Includes missing names, in an order that is neither sorted nor that of writing.
    let mut asked: Vec<(Coordinate, Option<SecretValue>)> = writes
        .into_iter()
        .map(|write| (write.coordinate.into(), Some(write.value)))
        .collect();
    while asked.len() < size {
        asked.push((cx.name().into(), None));
    }
    for round in 0..3 {
        asked.sort_by_cached_key(|_| Uuid::new_v4());
        let names: Vec<Coordinate> = asked.iter().map(|(name, _)| name.clone()).collect();
        let results = cx.read_batch(&names).await?;
        check_answers(
            &asked,
            results,
            &format!("round {round} of a batch of {size}"),
        )?;
    }
    // More than one batch, through the extension trait.
    let many = cx.capabilities().read_batch.min(24) * 2 + 1;
    while asked.len() < many {
        let write = cx.written().await?;
        asked.push((write.coordinate.into(), Some(write.value)));
    }
    asked.sort_by_cached_key(|_| Uuid::new_v4());
    let names: Vec<Coordinate> = asked.iter().map(|(name, _)| name.clone()).collect();
    let results = read_many(cx, &names).await;
    check_answers(&asked, results, &format!("reading {many} names"))
}

pub(super) async fn duplicates_read_the_same(cx: &Context) -> Verdict {
    let first = cx.written().await?;
    let second = cx.written().await?;
    let missing = cx.name();
    let asked: Vec<(Coordinate, Option<SecretValue>)> = [
        (first.coordinate.clone(), Some(first.value.clone())),
        (missing.clone(), None),
        (second.coordinate, Some(second.value)),
        (first.coordinate, Some(first.value)),
        (missing, None),
    ]
    .map(|(name, value)| (name.into(), value))
    .into();
    let names: Vec<Coordinate> = asked.iter().map(|(name, _)| name.clone()).collect();
    let results = read_many(cx, &names).await;
    check_answers(&asked, results, "reading names twice")
}

pub(super) async fn external_names(cx: &Context) -> Verdict {
    let value = cx.value();
    let external = cx.insert_external(&value).await?;
    reads_as(cx.read(&external).await, &value, "reading an external name")?;
    let ours = cx.written().await?;
    let asked: Vec<(Coordinate, Option<SecretValue>)> = vec![
        (cx.name().into(), None),
        (external, Some(value)),
        (ours.coordinate.into(), Some(ours.value)),
    ];
    let names: Vec<Coordinate> = asked.iter().map(|(name, _)| name.clone()).collect();
    let results = read_many(cx, &names).await;
    check_answers(
        &asked,
        results,
        "reading managed and external names together",
    )
}

pub(super) async fn empty_of_others(cx: &Context) -> Verdict {
    let empty = SecretValue::new(String::new());
    let external = cx.insert_external(&empty).await?;
    reads_as(
        cx.read(&external).await,
        &empty,
        "reading an empty value of others",
    )
}

pub(super) async fn outlive_the_handle(cx: &Context) -> Verdict {
    let Some(reopen) = &cx.options.reopen else {
        not_applicable!("the options do not contain a way to reopen the store");
    };
    let write: Write = cx.written().await?;
    let other = passed(reopen().await, "opening the store again")?;
    let coordinate: Coordinate = write.coordinate.into();
    reads_as(
        read_from(cx, &other, &coordinate).await,
        &write.value,
        "reading through another handle",
    )
}

async fn read_many(cx: &Context, names: &[Coordinate]) -> Vec<crate::Result<crate::Read>> {
    let mut results = cx.store.read_many(names).await;
    for (result, name) in results.iter_mut().zip(names) {
        if result.as_ref().is_err_and(crate::Error::is_retryable) {
            *result = cx.read(name).await;
        }
    }
    results
}

fn check_answers(
    asked: &[(Coordinate, Option<SecretValue>)],
    results: Vec<crate::Result<crate::Read>>,
    what: &str,
) -> Verdict {
    ensure!(
        results.len() == asked.len(),
        "{what} got {} answers",
        results.len()
    );
    for (result, (_, expected)) in results.into_iter().zip(asked) {
        match expected {
            Some(value) => reads_as(result, value, &format!("{what}: an existing name"))?,
            None => {
                let what = format!("{what}: a missing name");
                refused(result, &[ErrorKind::NotFound], &what)?;
            }
        }
    }
    Ok(())
}
