//! A store that takes no write is found while the old token is still good.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_store_that_takes_no_write_costs_no_exchange() {
    for kind in [
        ErrorKind::PermissionDenied,
        ErrorKind::Unavailable,
        ErrorKind::Unauthenticated,
        ErrorKind::Unsupported,
    ] {
        let (store, table, refresh) = world();
        let calls = Arc::default();
        store.fail_all(Operation::Write, kind);
        let (rows, secrets) = (table.rows(), over(&store));
        let never = exchange(&calls, "never", "never");
        let refused = secrets.refresh(&rows, &refresh, never).await;
        let Err(RefreshError::Connector(error)) = refused else {
            panic!("{kind}: the store takes no writes");
        };
        let problem = &error.problems()[0];
        assert_eq!(problem.place(), &place("a"));
        assert_eq!(problem.error().unwrap().kind(), kind);
        assert_eq!(calls.load(Ordering::SeqCst), 0, "{kind}");
        assert!(table.locked().record.is_none());
        // The write may have arrived nevertheless: the outbox has the probe until it cannot any more.
        assert_eq!(table.locked().ended.len(), 1);
        has(&store, &table, "old a", "old b").await;
        // Nobody has to wait for the lease.
        store.fail(|_| None);
        let works = exchange(&calls, "new a", "new b");
        secrets.refresh(&rows, &refresh, works).await.unwrap();
        has(&store, &table, "new a", "new b").await;
    }
}

#[cfg(feature = "layers")]
#[tokio::test(start_paused = true)]
async fn a_store_that_can_only_be_read_costs_no_exchange() {
    let (store, table, refresh) = world();
    let layers = crate::layer::Layers::over(crate::layer::Stack::over(store.clone()));
    let read_only = layers.with_read_only(true).build();
    let secrets = acting(Stores::new(read_only), ConnectorOptions::default());
    let calls = Arc::default();
    let never = exchange(&calls, "never", "never");
    let refused = secrets.refresh(&table.rows(), &refresh, never).await;
    assert!(matches!(refused, Err(RefreshError::Connector(_))));
    assert_eq!(calls.load(Ordering::SeqCst), 0);
    has(&store, &table, "old a", "old b").await;
}

#[tokio::test(start_paused = true)]
async fn a_probe_leaves_nothing_and_is_made_where_no_write_has_proven_as_much() {
    let (store, table, refresh) = world();
    let (rows, secrets) = (table.rows(), over(&store));
    let mut refresh = refresh;
    for (wait, writes) in [
        (Duration::ZERO, 3),
        (Duration::from_secs(9 * 60), 2),
        // Its own write was the last proof.
        (Duration::from_secs(9 * 60), 2),
        (Duration::from_secs(11 * 60), 3),
    ] {
        tokio::time::sleep(wait).await;
        let before = store.calls(Operation::Write).len();
        let exchange = |_| async {
            let new = vec![(place("a"), value("new a")), (place("b"), value("new b"))];
            Ok::<_, Infallible>(new)
        };
        let refreshed = secrets.refresh(&rows, &refresh, exchange).await.unwrap();
        assert!(refreshed.ours);
        let made = store.calls(Operation::Write).len() - before;
        assert_eq!(made, writes, "after {wait:?}");
        has(&store, &table, "new a", "new b").await;
        assert!(table.locked().ended.is_empty(), "nothing is left to delete");
        let places = [place("a"), place("b")];
        refresh = Refresh::new("row", &scope(), &refreshed.config, places).unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_cannot_be_deleted_is_deleted_later() {
    let (store, table, refresh) = world();
    let (rows, secrets) = (table.rows(), over(&store));
    store.fail_all(Operation::Delete, ErrorKind::Unavailable);
    let exchange = exchange(&Arc::default(), "new a", "new b");
    secrets.refresh(&rows, &refresh, exchange).await.unwrap();
    assert_eq!(
        store.memory.len(),
        5,
        "two old ones, two new ones, the probe"
    );
    store.fail(|_| None);
    let healed = secrets.heal_refreshes(&rows).await.unwrap();
    assert!(healed.failed.is_empty());
    has(&store, &table, "new a", "new b").await;
}

#[tokio::test(start_paused = true)]
async fn a_probe_of_a_process_that_died_is_deleted_by_its_record() {
    let (store, table, refresh) = world();
    // It dies in the exchange.
    store.fail_all(Operation::Delete, ErrorKind::Unavailable);
    let (rows, secrets) = (table.rows(), over(&store));
    let dies = tokio::spawn({
        let (rows, refresh) = (Arc::clone(&rows), refresh.clone());
        async move {
            let hangs = |_| std::future::pending::<Result<_, Infallible>>();
            let run = secrets.refresh(&rows, &refresh, hangs);
            tokio::time::timeout(Duration::from_secs(1), run).await
        }
    });
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(dies.await.unwrap().is_err());
    let record = table.locked().record.clone().unwrap();
    assert_eq!(record.targets().len(), 2);
    let probe = record.probe().unwrap().coordinate.clone();
    assert_eq!(
        stored(&store, probe.as_str()).await.as_deref(),
        Some("written and deleted by a refresh")
    );
    store.fail(|_| None);
    table.locked().expires = None;
    let healed = over(&store).heal_refreshes(&rows).await.unwrap();
    assert_eq!(healed.abandoned, ["row"]);
    has(&store, &table, "old a", "old b").await;
}
