//! Mirrors a store to a second one during a live migration.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use crate::{
    Capabilities, Coordinate, Cost, Cursor, DeleteOptions, Entry, Error, ErrorKind, Identity,
    ListOptions, Listing, ManagedCoordinate, OnPending, Operation, Page, Read, Result,
    SecretPersistence, Write, Written,
};

/// A store that consists of two.
///
/// - Reads and descriptions use the primary, and the secondary if the primary returns `NotFound`,
///   `Unavailable` or `Throttled`. A secret is missing only if both say so; if one of them could
///   not answer, its error is the result.
/// - Writes and deletes go to the secondary first, then to the primary; the first failure is the
///   result. The secondary therefore always has what the primary has, and a delete that failed
///   halfway leaves the value readable and is repeated as a whole.
/// - Restores go to both, and succeed if at least one knows the name.
/// - Listings come from the primary.
/// - Capabilities are the weaker ones of the two, and are checked before any request.
#[derive(Debug)]
pub(crate) struct Mirror {
    primary: Arc<dyn SecretPersistence>,
    secondary: Arc<dyn SecretPersistence>,
    name: Arc<str>,
}

impl Mirror {
    pub(crate) fn new(
        primary: Arc<dyn SecretPersistence>,
        secondary: Arc<dyn SecretPersistence>,
        name: Arc<str>,
    ) -> Self {
        Self {
            primary,
            secondary,
            name,
        }
    }

    fn unsupported(&self, operation: Operation, message: &'static str) -> Error {
        Error::new(ErrorKind::Unsupported, message)
            .with_operation(operation)
            .with_store(Arc::clone(&self.name))
    }
}

/// Whether to ask the secondary.
fn falls_back(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::NotFound | ErrorKind::Throttled | ErrorKind::Unavailable
    )
}

/// The result after the primary could not answer and the secondary was asked.
fn second_answer<T>(primary: Error, secondary: Result<T>) -> Result<T> {
    match secondary {
        Ok(answer) => {
            metrics::counter!("secrets_mirror_fallbacks_total", "kind" => primary.kind().as_str())
                .increment(1);
            Ok(answer)
        }
        // The primary definitely does not have it, so the secondary decides.
        Err(error) if primary.kind() == ErrorKind::NotFound => Err(error),
        // The primary may have it, so its own error matters.
        Err(_) => Err(primary),
    }
}

fn weaker(a: Capabilities, b: Capabilities) -> Capabilities {
    let read_batch = a.read_batch.min(b.read_batch);
    // A call may ask both.
    let cost = Cost {
        read: a
            .read_cost(read_batch)
            .saturating_add(b.read_cost(read_batch)),
        write: a.cost.write.saturating_add(b.cost.write),
        delete: a.cost.delete.saturating_add(b.cost.delete),
        restore: a.cost.restore.saturating_add(b.cost.restore),
        list: a.cost.list,
        list_detail: a.cost.list_detail,
        describe: a.cost.describe.saturating_add(b.cost.describe),
    };
    Capabilities {
        read_batch,
        write_batch: a.write_batch.min(b.write_batch),
        delete_batch: a.delete_batch.min(b.delete_batch),
        concurrency: a.concurrency.min(b.concurrency),
        max_value_bytes: a.max_value_bytes.min(b.max_value_bytes),
        atomic_create: a.atomic_create && b.atomic_create,
        nul: a.nul && b.nul,
        owner: a.owner && b.owner,
        recovery: a.recovery && b.recovery,
        on_pending: if a.on_pending == b.on_pending {
            a.on_pending
        } else {
            OnPending::Refuse
        },
        expiry: a.expiry.min(b.expiry),
        reads_expiry: a.reads_expiry && b.reads_expiry,
        listing: a.listing.min(b.listing),
        cost,
        least: Cost {
            write: a.least.write.saturating_add(b.least.write),
            delete: a.least.delete.saturating_add(b.least.delete),
            restore: a.least.restore.saturating_add(b.least.restore),
            ..a.least
        },
    }
}

impl fmt::Display for Mirror {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (primary, secondary) = (&self.primary, &self.secondary);
        if f.alternate() {
            write!(f, "mirror({primary:#}, {secondary:#})")
        } else {
            write!(f, "{primary} mirrored to {secondary}")
        }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl SecretPersistence for Mirror {
    fn capabilities(&self) -> Capabilities {
        weaker(self.primary.capabilities(), self.secondary.capabilities())
    }

    async fn read_batch(&self, coordinates: &[Coordinate]) -> Vec<Result<Read>> {
        let mut results = self.primary.read_batch(coordinates).await;
        if results.len() != coordinates.len() {
            // No result for any of them; the extension trait reports it.
            return results;
        }
        let missed: Vec<Coordinate> = coordinates
            .iter()
            .zip(&results)
            .filter(|(_, result)| result.as_ref().is_err_and(falls_back))
            .map(|(coordinate, _)| coordinate.clone())
            .collect();
        if missed.is_empty() {
            return results;
        }
        let answers = self.secondary.read_batch(&missed).await;
        if answers.len() != missed.len() {
            // No result: it stays open whether the secondary has what the primary lacks.
            for result in &mut results {
                if matches!(result, Err(error) if error.kind() == ErrorKind::NotFound) {
                    *result = Err(length_error(Operation::Read, &self.secondary));
                }
            }
            return results;
        }
        let mut answers: HashMap<&Coordinate, Result<Read>> = missed.iter().zip(answers).collect();
        coordinates
            .iter()
            .zip(results)
            .map(
                |(coordinate, result)| match (result, answers.remove(coordinate)) {
                    (Err(error), Some(answer)) => second_answer(error, answer),
                    (result, _) => result,
                },
            )
            .collect()
    }

    async fn write_batch(&self, writes: &[Write]) -> Vec<Result<Written>> {
        // A value that one store does not accept must not reach the other.
        let capabilities = self.capabilities();
        let mut results: Vec<Option<Result<Written>>> = writes
            .iter()
            .map(|write| {
                let refusal = capabilities.accepts(write).err()?;
                Some(Err(refusal.with_store(Arc::clone(&self.name))))
            })
            .collect();
        // The primary decides: only it knows which write was first.
        for store in [&self.secondary, &self.primary] {
            let open: Vec<usize> = (0..writes.len())
                .filter(|&at| !matches!(results[at], Some(Err(_))))
                .collect();
            if open.is_empty() {
                break;
            }
            let chunk: Vec<Write> = open.iter().map(|&at| writes[at].clone()).collect();
            let answers = store.write_batch(&chunk).await;
            if answers.len() == chunk.len() {
                for (at, answer) in open.into_iter().zip(answers) {
                    results[at] = Some(answer);
                }
            } else {
                for at in open {
                    let error = length_error(Operation::Write, store)
                        .with_coordinate(writes[at].coordinate.shared());
                    results[at] = Some(Err(error));
                }
            }
        }
        // Every entry was refused or answered.
        results.into_iter().flatten().collect()
    }

    async fn delete_batch(
        &self,
        coordinates: &[ManagedCoordinate],
        options: &DeleteOptions,
    ) -> Vec<Result<()>> {
        let mut results = vec![Ok(()); coordinates.len()];
        // From the primary last: while it still has a secret, reads do not depend on the secondary.
        for store in [&self.secondary, &self.primary] {
            let open: Vec<usize> = (0..coordinates.len())
                .filter(|&at| results[at].is_ok())
                .collect();
            if open.is_empty() {
                break;
            }
            let chunk: Vec<_> = open.iter().map(|&at| coordinates[at].clone()).collect();
            let answers = store.delete_batch(&chunk, options).await;
            if answers.len() == chunk.len() {
                for (at, answer) in open.into_iter().zip(answers) {
                    results[at] = answer;
                }
            } else {
                for at in open {
                    let error = length_error(Operation::Delete, store);
                    results[at] = Err(error.with_coordinate(coordinates[at].shared()));
                }
            }
        }
        results
    }

    async fn restore(&self, coordinate: &ManagedCoordinate) -> Result<()> {
        if !self.capabilities().recovery {
            let message = "one of the two stores does not support recovery";
            return Err(self
                .unsupported(Operation::Restore, message)
                .with_coordinate(coordinate.shared()));
        }
        // One of them may never have had it.
        match self.secondary.restore(coordinate).await {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.primary.restore(coordinate).await
            }
            Err(error) => Err(error),
            Ok(()) => match self.primary.restore(coordinate).await {
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
                other => other,
            },
        }
    }

    async fn list_page(&self, options: &ListOptions, after: Option<&Cursor>) -> Result<Page> {
        if self.capabilities().listing == Listing::None {
            return Err(self.unsupported(Operation::List, "one of the two stores cannot list"));
        }
        self.primary.list_page(options, after).await
    }

    async fn describe(&self, coordinate: &ManagedCoordinate) -> Result<Entry> {
        match self.primary.describe(coordinate).await {
            Err(error) if falls_back(&error) => {
                second_answer(error, self.secondary.describe(coordinate).await)
            }
            other => other,
        }
    }

    /// Both identities, or the error of the store that does not answer: a mirror needs both.
    async fn identity(&self) -> Result<Identity> {
        let primary = self.primary.identity().await?;
        let secondary = self.secondary.identity().await?;
        Ok(Identity::new(
            primary.store,
            format!("{} and {}", primary.principal, secondary.principal),
            format!(
                "{}, mirrored to {} ({})",
                primary.location, secondary.location, secondary.store
            ),
        ))
    }
}

fn length_error(operation: Operation, store: &Arc<dyn SecretPersistence>) -> Error {
    Error::new(
        ErrorKind::Unexpected,
        "the store answered another number of results",
    )
    .with_operation(operation)
    .with_store(store.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::{self, Options, Outcome};
    use crate::layer::probe::{Fault, Probe, coordinate, write};
    use crate::layer::recorder::{Recorder, recorded};
    use crate::{Expiry, Memory, Owner, Recovery, SecretPersistenceExt};

    fn over(primary: &Arc<Probe>, secondary: &Arc<Probe>) -> Mirror {
        Mirror::new(
            Arc::clone(primary) as _,
            Arc::clone(secondary) as _,
            "probes".into(),
        )
    }

    fn pair() -> (Arc<Probe>, Arc<Probe>, Mirror) {
        let (primary, secondary) = (Arc::new(Probe::new()), Arc::new(Probe::new()));
        let mirror = over(&primary, &secondary);
        (primary, secondary, mirror)
    }

    fn immediate() -> DeleteOptions {
        DeleteOptions::default().with_recovery(Recovery::Immediate)
    }

    const OUTAGES: [ErrorKind; 2] = [ErrorKind::Unavailable, ErrorKind::Throttled];

    #[tokio::test(start_paused = true)]
    async fn every_promise_holds_over_equal_and_unequal_stores() {
        let full = Memory::new().capabilities();
        let weak = Capabilities {
            read_batch: 3,
            write_batch: 2,
            max_value_bytes: 1000,
            nul: false,
            recovery: false,
            expiry: Expiry::None,
            listing: Listing::None,
            owner: false,
            ..full
        };
        let store = |capabilities| {
            let owner = Owner::parse("mirror").unwrap();
            let memory = Memory::new()
                .with_owner(owner)
                .with_capabilities(capabilities);
            Arc::new(Probe::over(memory))
        };
        for (primary, secondary) in [(full, full), (full, weak), (weak, full)] {
            let store: Arc<dyn SecretPersistence> =
                Arc::new(over(&store(primary), &store(secondary)));
            let report = conformance::run(&store, &Options::default()).await;
            report.assert_passed();
            let passed = |name| {
                let is_it = |case: &&conformance::CaseReport| case.name == name;
                report.cases.iter().find(is_it).unwrap().outcome == Outcome::Passed
            };
            assert_eq!(passed("expiry is kept"), primary == secondary);
            assert_eq!(
                store.capabilities().max_value_bytes,
                primary.max_value_bytes.min(secondary.max_value_bytes)
            );
        }
    }

    #[tokio::test]
    async fn reads_fall_back_on_what_is_missing_and_on_outages() {
        let (primary, secondary, mirror) = pair();
        primary.memory.write(write(0)).await.unwrap();
        secondary.memory.write(write(1)).await.unwrap();
        let names = [0, 1, 2].map(|n| coordinate(n).into());
        let results = mirror.read_batch(&names).await;
        assert_eq!(results[0].as_ref().unwrap().value, write(0).value);
        assert_eq!(results[1].as_ref().unwrap().value, write(1).value);
        assert_eq!(results[2].as_ref().unwrap_err().kind(), ErrorKind::NotFound);
        // The secondary was asked for what the primary misses, and for nothing else.
        let asked = &secondary.requests()[0].names;
        assert_eq!(*asked, [coordinate(1).as_str(), coordinate(2).as_str()]);

        for outage in OUTAGES {
            primary.fails_with(outage);
            let read = mirror.read(&coordinate(1).into()).await.unwrap();
            assert_eq!(read.value, write(1).value);
            assert!(mirror.describe(&coordinate(1)).await.is_ok());
            // Only the primary could know: it is not missing, it is unknown.
            let error = mirror.read(&coordinate(0).into()).await.unwrap_err();
            assert_eq!(error.kind(), outage);
            let error = mirror.describe(&coordinate(0)).await.unwrap_err();
            assert_eq!(error.kind(), outage);
        }
        primary.recovers();
        for outage in OUTAGES {
            secondary.fails_with(outage);
            let read = mirror.read(&coordinate(0).into()).await.unwrap();
            assert_eq!(read.value, write(0).value);
            let error = mirror.read(&coordinate(1).into()).await.unwrap_err();
            assert_eq!(error.kind(), outage);
        }
    }

    #[tokio::test]
    async fn a_refusal_of_the_primary_is_final() {
        let (primary, secondary, mirror) = pair();
        secondary.memory.write(write(0)).await.unwrap();
        for refusal in [
            ErrorKind::Integrity,
            ErrorKind::PendingDeletion,
            ErrorKind::PermissionDenied,
            ErrorKind::Unauthenticated,
            ErrorKind::Unexpected,
        ] {
            primary.fails_with(refusal);
            let error = mirror.read(&coordinate(0).into()).await.unwrap_err();
            assert_eq!(error.kind(), refusal);
        }
        assert_eq!(secondary.requests().len(), 0);
    }

    #[tokio::test]
    async fn writes_reach_the_secondary_first_and_fail_where_either_fails() {
        let (primary, secondary, mirror) = pair();
        secondary.fails_with(ErrorKind::Unavailable);
        let error = mirror.write(write(0)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert_eq!(primary.requests().len(), 0);

        secondary.recovers();
        primary.fails_with(ErrorKind::Unavailable);
        let error = mirror.write(write(0)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert_eq!((primary.memory.len(), secondary.memory.len()), (0, 1));

        // Repeated, it ends in both.
        primary.recovers();
        assert_eq!(mirror.write(write(0)).await.unwrap(), Written::Created);
        assert_eq!(mirror.write(write(0)).await.unwrap(), Written::AlreadySame);
        assert_eq!((primary.memory.len(), secondary.memory.len()), (1, 1));
    }

    #[tokio::test]
    async fn what_failed_in_the_secondary_alone_is_not_written_to_the_primary() {
        let (primary, secondary, mirror) = pair();
        secondary.memory.insert(
            coordinate(1).as_str(),
            crate::SecretValue::new("another".to_owned()),
        );
        let results = mirror.write_batch(&[write(0), write(1), write(2)]).await;
        assert_eq!(results[0].as_ref().unwrap(), &Written::Created);
        assert_eq!(
            results[1].as_ref().unwrap_err().kind(),
            ErrorKind::AlreadyExists
        );
        assert_eq!(results[2].as_ref().unwrap(), &Written::Created);
        assert_eq!(primary.memory.len(), 2);
    }

    #[tokio::test]
    async fn a_delete_that_fails_halfway_leaves_the_value_readable() {
        let (primary, secondary, mirror) = pair();
        mirror.write(write(0)).await.unwrap();
        secondary.fails_with(ErrorKind::Unavailable);
        assert!(mirror.delete(&coordinate(0), &immediate()).await.is_err());
        assert_eq!((primary.memory.len(), secondary.memory.len()), (1, 1));

        // Had the primary gone first, the secondary would now bring the secret back to life.
        secondary.recovers();
        primary.fails_with(ErrorKind::Unavailable);
        assert!(mirror.delete(&coordinate(0), &immediate()).await.is_err());
        assert_eq!((primary.memory.len(), secondary.memory.len()), (1, 0));

        primary.recovers();
        mirror.delete(&coordinate(0), &immediate()).await.unwrap();
        assert_eq!((primary.memory.len(), secondary.memory.len()), (0, 0));
    }

    #[tokio::test]
    async fn restoring_works_where_one_of_them_never_had_it() {
        for (in_primary, in_secondary) in [(true, true), (true, false), (false, true)] {
            let (primary, secondary, mirror) = pair();
            for (there, probe) in [(in_primary, &primary), (in_secondary, &secondary)] {
                if there {
                    probe.memory.write(write(0)).await.unwrap();
                }
            }
            mirror
                .delete(&coordinate(0), &DeleteOptions::default())
                .await
                .unwrap();
            let error = mirror.read(&coordinate(0).into()).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::PendingDeletion);
            mirror.restore(&coordinate(0)).await.unwrap();
            let read = mirror.read(&coordinate(0).into()).await.unwrap();
            assert_eq!(read.value, write(0).value);
        }
        let (_, _, mirror) = pair();
        let error = mirror.restore(&coordinate(0)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }

    #[tokio::test]
    async fn identity_names_both_sides() {
        let (primary, _, mirror) = pair();
        let identity = mirror.identity().await.unwrap();
        assert!(identity.location.contains("mirrored to"));
        primary.fails_with(ErrorKind::Unauthenticated);
        assert!(mirror.identity().await.is_err());
        let (_, secondary, mirror) = pair();
        secondary.fails_with(ErrorKind::Unauthenticated);
        assert!(mirror.identity().await.is_err());
    }

    #[test]
    fn capabilities_are_the_weaker_of_the_two_and_costs_those_of_both() {
        let strong = Capabilities {
            read_batch: 20,
            write_batch: 5,
            delete_batch: 7,
            concurrency: 32,
            max_value_bytes: 2000,
            atomic_create: true,
            nul: true,
            owner: true,
            recovery: true,
            on_pending: OnPending::Purge,
            expiry: Expiry::Enforced,
            reads_expiry: true,
            listing: Listing::Immediate,
            cost: Cost {
                read: 41,
                write: 2,
                delete: 3,
                restore: 4,
                list: 5,
                list_detail: 6,
                describe: 7,
            },
            least: Cost {
                write: 2,
                ..Cost::ONE
            },
        };
        let weak = Capabilities {
            concurrency: 16,
            max_value_bytes: 1000,
            ..Capabilities::LEAST
        };
        // Of a read with one entry, which is the most that the weak one takes, the strong one makes three.
        let both = Cost {
            read: 4,
            write: 3,
            delete: 4,
            restore: 5,
            list: 0,
            list_detail: 0,
            describe: 8,
        };
        for (primary, secondary) in [(strong, weak), (weak, strong)] {
            let list = primary.cost;
            let expected = Capabilities {
                cost: Cost {
                    list: list.list,
                    list_detail: list.list_detail,
                    ..both
                },
                least: Cost {
                    write: 3,
                    delete: 2,
                    restore: 2,
                    ..Cost::ONE
                },
                ..weak
            };
            assert_eq!(weaker(primary, secondary), expected);
        }
        assert_eq!(weaker(strong, strong).listing, Listing::Immediate);
        assert!(weaker(strong, strong).atomic_create && weaker(strong, strong).reads_expiry);
    }

    #[tokio::test]
    async fn a_secondary_that_leaves_something_out_has_answered_nothing() {
        let (primary, secondary, mirror) = pair();
        primary.memory.write(write(0)).await.unwrap();
        secondary.memory.write(write(1)).await.unwrap();
        secondary.on_every_request(|_, name| match name {
            name if name == coordinate(2).as_str() => Fault::Omit,
            _ => Fault::None,
        });
        let names = [0, 1, 2].map(|n| coordinate(n).into());
        let results = mirror.read_batch(&names).await;
        assert!(results[0].is_ok());
        // Missing in the primary is not missing: nobody knows what the secondary has.
        for result in &results[1..] {
            assert_eq!(result.as_ref().unwrap_err().kind(), ErrorKind::Unexpected);
        }
    }

    #[test]
    fn what_the_secondary_answers_is_counted_by_why_it_was_asked() {
        let recorder = Recorder::default();
        recorded(&recorder, async {
            let (primary, secondary, mirror) = pair();
            secondary.memory.write(write(0)).await.unwrap();
            mirror.read(&coordinate(0).into()).await.unwrap();
            mirror.read(&coordinate(1).into()).await.unwrap_err();
            primary.fails_with(ErrorKind::Unavailable);
            mirror.read(&coordinate(0).into()).await.unwrap();
            mirror.describe(&coordinate(0)).await.unwrap();
        });
        let count =
            |kind| recorder.count(&format!("secrets_mirror_fallbacks_total{{kind={kind}}}"));
        assert_eq!(
            (count("not_found"), count("unavailable")),
            (1, 2),
            "{recorder:?}"
        );
    }
}
