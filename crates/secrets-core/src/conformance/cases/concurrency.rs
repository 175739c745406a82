//! Many callers at once, in separate tasks so that they really race.

use std::sync::Arc;

use tokio::task::JoinSet;

use crate::conformance::context::{
    Context, Verdict, ensure, failed, not_applicable, passed, reads_as,
};
use crate::{
    Coordinate, Error, ErrorKind, Result, SecretPersistence, SecretPersistenceExt, Write, Written,
};

const RACERS: usize = 16;
const ROUNDS: usize = 4;

pub(super) async fn readers_and_writers(cx: &Context) -> Verdict {
    let shared = cx.written_many(4).await?;
    let writes: Vec<Write> = (0..cx.options.concurrency)
        .map(|_| Write::new(cx.name(), cx.value()))
        .collect();
    let mut tasks = JoinSet::new();
    for (index, write) in writes.iter().enumerate() {
        let (store, mine) = (Arc::clone(&cx.writer), write.clone());
        tasks.spawn(async move { insist(|| store.write(mine.clone())).await.map(drop) });
        let (store, known) = (Arc::clone(&cx.store), shared[index % shared.len()].clone());
        let being_written = write.clone();
        tasks.spawn(async move {
            for _ in 0..ROUNDS {
                let name = Coordinate::from(known.coordinate.clone());
                same_value(insist(|| store.read(&name)).await?, &known)?;
                // It is either there or not, and never incomplete.
                let name = Coordinate::from(being_written.coordinate.clone());
                match insist(|| store.read(&name)).await {
                    Ok(read) => same_value(read, &being_written)?,
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        });
    }
    while let Some(ended) = tasks.join_next().await {
        match ended {
            Ok(result) => passed(result, "one of many readers and writers")?,
            Err(_panic) => return failed("one of many readers and writers panicked".to_owned()),
        }
    }
    for write in shared.iter().chain(&writes) {
        let read = cx.read_managed(&write.coordinate).await;
        reads_as(read, &write.value, "reading after all others are done")?;
    }
    Ok(())
}

pub(super) async fn equal_writes_agree(cx: &Context) -> Verdict {
    for _ in 0..ROUNDS {
        let write = Write::new(cx.name(), cx.value());
        let results = race(cx, std::iter::repeat_n(write.clone(), RACERS).collect()).await?;
        let mut created = 0;
        for (_, result) in results {
            let written = passed(result, "one of several equal, concurrent writes")?;
            created += usize::from(written == Written::Created);
        }
        // A response may be lost, and the retry then finds the value: none or one creates it, never
        // two.
        ensure!(
            created <= 1 || !cx.capabilities().atomic_create,
            "{created} of {RACERS} equal, concurrent writes say that they created the name"
        );
        let read = cx.read_managed(&write.coordinate).await;
        reads_as(read, &write.value, "reading what many wrote")?;
    }
    Ok(())
}

pub(super) async fn different_writes_have_one_winner(cx: &Context) -> Verdict {
    if !cx.capabilities().atomic_create {
        not_applicable!("the store cannot refuse a concurrent second write");
    }
    for _ in 0..ROUNDS {
        let name = cx.name();
        let writes = (0..RACERS)
            .map(|_| Write::new(name.clone(), cx.value()))
            .collect();
        let mut winners = Vec::new();
        for (write, result) in race(cx, writes).await? {
            match result {
                Ok(_) => winners.push(write),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => {
                    return failed(format!(
                        "one of several different, concurrent writes is not already_exists: {error}"
                    ));
                }
            }
        }
        ensure!(
            winners.len() == 1,
            "{} of {RACERS} different, concurrent writes of one name succeeded",
            winners.len()
        );
        let read = cx.read_managed(&name).await;
        reads_as(read, &winners[0].value, "reading the winner's value")?;
    }
    Ok(())
}

/// Starts all writes together, and waits for them.
async fn race(cx: &Context, writes: Vec<Write>) -> Verdict<Vec<(Write, Result<Written>)>> {
    let start = Arc::new(tokio::sync::Barrier::new(writes.len()));
    let mut tasks = JoinSet::new();
    for write in writes {
        let (store, start): (Arc<dyn SecretPersistence>, _) =
            (Arc::clone(&cx.writer), Arc::clone(&start));
        tasks.spawn(async move {
            start.wait().await;
            let result = insist(|| store.write(write.clone())).await;
            (write, result)
        });
    }
    let mut results = Vec::new();
    while let Some(ended) = tasks.join_next().await {
        match ended {
            Ok(result) => results.push(result),
            Err(_panic) => return failed("one of several concurrent writes panicked".to_owned()),
        }
    }
    Ok(results)
}

/// Retries retryable failures with growing pauses.
async fn insist<T, F>(mut attempt: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    let mut result = attempt().await;
    for round in 1..20_u32 {
        match &result {
            Err(error) if error.is_retryable() => {
                let pause = error
                    .retry_after()
                    .unwrap_or(std::time::Duration::from_millis(20) * round);
                tokio::time::sleep(pause).await;
                result = attempt().await;
            }
            _ => break,
        }
    }
    result
}

fn same_value(read: crate::Read, write: &Write) -> Result<()> {
    if read.value == write.value {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Integrity,
        "it reads as another value than the written one",
    )
    .with_coordinate(write.coordinate.shared()))
}
