//! Measurements for stores with a real server.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use secret_persistence_core::{
    ManagedCoordinate, SecretPersistence, SecretPersistenceExt as _, SecretValue, Write,
};

use crate::{
    configuration::{self, acting, configuration, names, value, write},
    rows::{Rows, timed},
    target::Target,
};

const SECRETS: usize = 100;

/// Enough for medians on a machine with other load; the loop of single reads takes seconds each
/// time.
const REPETITIONS: usize = 31;
const WRITE_REPETITIONS: usize = 7;
const LOOP_REPETITIONS: usize = 3;

pub(crate) fn header() {
    println!(
        "| store | delay | what | ours, ms | bare, ms | ratio | target | requests | in flight | connections |\n\
         |---|---|---|---|---|---|---|---|---|---|"
    );
}

/// Code without our library.
pub(crate) trait Bare {
    /// Our store at the same address, including the connection.
    async fn ours(&self) -> Arc<dyn SecretPersistence>;

    /// The same client as after a start, without any connection.
    fn anew(&self) -> Self;

    /// Reads different names in the fastest way of the server.
    async fn read(&self, names: &[ManagedCoordinate]);

    async fn read_one(&self, name: &ManagedCoordinate);

    async fn write_one(&self, name: &ManagedCoordinate);
}

/// Measures one store with one delay, for all written names.
pub(crate) async fn measure<B: Bare>(
    store: &'static str,
    delay: Duration,
    target: &Target,
    at_ours: &B,
    bare: &B,
) -> Vec<ManagedCoordinate> {
    let rows = Rows {
        store,
        delay,
        target,
    };
    let names = names(SECRETS);
    write(&names, |name| bare.write_one(name)).await;

    let one = configuration(&names[..1], 1);
    rows.row(
        ("first call after start", REPETITIONS, None),
        async || {
            timed(async {
                acting(at_ours.ours().await)
                    .hydrate(one.clone())
                    .await
                    .unwrap()
            })
            .await
        },
        async || timed(async { bare.anew().read_one(&names[0]).await }).await,
    )
    .await;

    let ours = at_ours.ours().await;
    let secrets = acting(Arc::clone(&ours));
    for count in [1, 10, 20, SECRETS] {
        let names = &names[..count];
        let saved = configuration(names, 1);
        rows.row(
            (&format!("hydrate {count}"), REPETITIONS, Some(1.15)),
            async || {
                let saved = saved.clone();
                timed(async { secrets.hydrate(saved).await.unwrap() }).await
            },
            async || timed(bare.read(names)).await,
        )
        .await;
    }
    let same = configuration(&names[..1], SECRETS);
    rows.row(
        ("hydrate 1, asked 100 ×", REPETITIONS, Some(1.15)),
        async || {
            let saved = same.clone();
            timed(async { secrets.hydrate(saved).await.unwrap() }).await
        },
        async || timed(bare.read_one(&names[0])).await,
    )
    .await;
    let saved = configuration(&names, 1);
    rows.row(
        ("hydrate 100, loop", LOOP_REPETITIONS, None),
        async || {
            let saved = saved.clone();
            timed(async { secrets.hydrate(saved).await.unwrap() }).await
        },
        async || {
            timed(async {
                for name in &names {
                    bare.read_one(name).await;
                }
            })
            .await
        },
    )
    .await;

    let written = Mutex::new(names);
    let fresh = || {
        let names = configuration::names(SECRETS);
        written.lock().unwrap().extend_from_slice(&names);
        names
    };
    rows.row(
        ("write 100, 16 at once", WRITE_REPETITIONS, Some(1.3)),
        async || {
            let names = fresh();
            let write_one = async |name: &ManagedCoordinate| {
                let value = SecretValue::new(value(name));
                ours.write(Write::new(name.clone(), value)).await.unwrap();
            };
            timed(write(&names, write_one)).await
        },
        async || {
            let names = fresh();
            timed(write(&names, |name| bare.write_one(name))).await
        },
    )
    .await;
    written.into_inner().unwrap()
}
