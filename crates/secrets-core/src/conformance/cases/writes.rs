//! Writes: one name has one value forever.

use uuid::Uuid;

use crate::conformance::context::{Context, Verdict, ensure, passed, reads_as, refused};
use crate::{
    ErrorKind, MAX_MANAGED_BYTES, ManagedPrefix, Result, SecretPersistenceExt, SecretValue, Write,
    Written,
};

pub(super) async fn again_is_already_the_same(cx: &Context) -> Verdict {
    let write = Write::new(cx.name(), cx.value());
    let first = passed(cx.write(&write).await, "the first write")?;
    ensure!(
        first == Written::Created,
        "the first write of a new name says that the name existed"
    );
    for _ in 0..2 {
        let again = passed(cx.write(&write).await, "the same write again")?;
        ensure!(
            again == Written::AlreadySame,
            "the same write again says that it created the name"
        );
    }
    let read = cx.read_managed(&write.coordinate).await;
    reads_as(read, &write.value, "reading what was written twice")
}

pub(super) async fn another_value_already_exists(cx: &Context) -> Verdict {
    let write = cx.written().await?;
    let text = write.value.expose();
    // Values that an incorrect comparison considers equal.
    for (what, other) in [
        ("another value", cx.value()),
        (
            "the value and a newline",
            SecretValue::new(format!("{text}\n")),
        ),
        (
            "the value in capitals",
            SecretValue::new(text.to_uppercase()),
        ),
        (
            "the beginning of the value",
            SecretValue::new(text[..text.len() - 1].to_owned()),
        ),
    ] {
        let other = Write::new(write.coordinate.clone(), other);
        refused(
            cx.write(&other).await,
            &[ErrorKind::AlreadyExists],
            &format!("writing {what} under the same name"),
        )?;
        let read = cx.read_managed(&write.coordinate).await;
        reads_as(read, &write.value, "reading after a refused write")?;
    }
    Ok(())
}

pub(super) async fn each_of_a_batch_stands_alone(cx: &Context) -> Verdict {
    ensure!(
        cx.writer.write_batch(&[]).await.is_empty(),
        "a batch of no writes got results"
    );
    let there = cx.written().await?;
    let taken = cx.written().await?;
    let too_large = cx.capabilities().max_value_bytes < cx.options.largest_value;
    let too_large = too_large.then(|| {
        let value = "x".repeat(cx.capabilities().max_value_bytes + 1);
        (
            "a value above the limit",
            Write::new(cx.name(), SecretValue::new(value)),
            Err(ErrorKind::PayloadTooLarge),
        )
    });
    let entries: Vec<(&str, Write, Result<Written, ErrorKind>)> = [
        (
            "an empty value",
            Write::new(cx.name(), SecretValue::new(String::new())),
            Err(ErrorKind::InvalidValue),
        ),
        (
            "a new name",
            Write::new(cx.name(), cx.value()),
            Ok(Written::Created),
        ),
        (
            "another value",
            Write::new(taken.coordinate.clone(), cx.value()),
            Err(ErrorKind::AlreadyExists),
        ),
        ("the same value", there, Ok(Written::AlreadySame)),
        (
            "another new name",
            Write::new(cx.name(), cx.value()),
            Ok(Written::Created),
        ),
    ]
    .into_iter()
    .chain(too_large)
    .collect();
    for chunk in entries.chunks(cx.writer.capabilities().write_batch.max(1)) {
        let writes: Vec<Write> = chunk.iter().map(|(_, write, _)| write.clone()).collect();
        let results = cx.write_batch(&writes).await?;
        for (result, (what, write, expected)) in results.into_iter().zip(chunk) {
            let what = format!("{what} among others");
            let read = cx.read_managed(&write.coordinate).await;
            match expected {
                Ok(written) => {
                    ensure!(
                        passed(result, &what)? == *written,
                        "{what} does not return {written:?}"
                    );
                    reads_as(read, &write.value, &what)?;
                }
                Err(ErrorKind::AlreadyExists) => {
                    refused(result, &[ErrorKind::AlreadyExists], &what)?;
                    reads_as(read, &taken.value, &what)?;
                }
                Err(kind) => {
                    refused(result, &[*kind], &what)?;
                    refused(read, &[ErrorKind::NotFound], &what)?;
                }
            }
        }
    }
    Ok(())
}

pub(super) async fn many_are_chunked(cx: &Context) -> Verdict {
    let batch = cx.writer.capabilities().write_batch.min(24);
    let mut writes: Vec<Write> = (0..batch * 2 + 1)
        .map(|_| Write::new(cx.name(), cx.value()))
        .collect();
    // The same entry twice is one write.
    writes.push(writes[0].clone());
    let results = cx.writer.write_many(&writes).await;
    ensure!(
        results.len() == writes.len(),
        "{} writes got {} results",
        writes.len(),
        results.len()
    );
    for (result, write) in results.into_iter().zip(&writes) {
        let result = match result {
            Err(error) if error.is_retryable() => cx.write(write).await,
            other => other,
        };
        passed(result, "one of many writes")?;
        let read = cx.read_managed(&write.coordinate).await;
        reads_as(read, &write.value, "reading one of many writes")?;
    }
    Ok(())
}

pub(super) async fn versions_are_names_of_their_own(cx: &Context) -> Verdict {
    let id = Uuid::new_v4();
    let mut writes = Vec::new();
    for version in [10, 1, 2, i64::MAX] {
        let write = Write::new(cx.version_of(id, version), cx.value());
        cx.create(&write).await?;
        writes.push(write);
    }
    for write in &writes {
        let read = cx.read_managed(&write.coordinate).await;
        reads_as(
            read,
            &write.value,
            &format!("reading version {}", write.coordinate.version()),
        )?;
    }
    refused(
        cx.read_managed(&cx.version_of(id, 3)).await,
        &[ErrorKind::NotFound],
        "reading a version that was never written",
    )
    .map(drop)
}

pub(super) async fn longest_name(cx: &Context) -> Verdict {
    let (prefix, scope) = (ManagedPrefix::current(), cx.scope.prefix());
    let rest = format!("{}_secret_{}_v1", cx.scope.base_id(), Uuid::new_v4());
    let padding = MAX_MANAGED_BYTES - format!("{prefix}{scope}{rest}1").len();
    let stem = format!("{prefix}{scope}{}{rest}", "x".repeat(padding));
    let name = cx.own(&format!("{stem}1"));
    let shorter = cx.own(&stem);
    let write = Write::new(name, cx.value());
    cx.create(&write).await?;
    let read = cx.read_managed(&write.coordinate).await;
    reads_as(read, &write.value, "reading under the longest name")?;
    refused(
        cx.read_managed(&shorter).await,
        &[ErrorKind::NotFound],
        "reading under a name one character shorter",
    )
    .map(drop)
}
