//! What the cache promises, in virtual time.

use tokio::time::{sleep, timeout};

use super::*;
use crate::conformance::{self, Options};
use crate::layer::probe::{Fault, Probe, coordinate, holding, write};
use crate::layer::recorder::{Recorder, recorded};
use crate::{Recovery, Scope, SecretPersistenceExt, WeakSecret};

const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);

fn over(probe: &Arc<Probe>) -> Arc<Cache> {
    with(probe, CacheOptions::default())
}

fn with(probe: &Arc<Probe>, options: CacheOptions) -> Arc<Cache> {
    Arc::new(Cache::new(Arc::clone(probe) as _, "probe".into(), options))
}

fn name(n: usize) -> Coordinate {
    coordinate(n).into()
}

fn names(range: std::ops::Range<usize>) -> Vec<Coordinate> {
    range.map(name).collect()
}

async fn kind(cache: &Cache, n: usize) -> ErrorKind {
    cache.read(&name(n)).await.unwrap_err().kind()
}

async fn reads(cache: &Cache, n: usize) {
    assert_eq!(cache.read(&name(n)).await.unwrap().value, write(n).value);
}

#[tokio::test(start_paused = true)]
async fn every_promise_holds() {
    let options = CacheOptions::default();
    for options in [options.clone(), options.with_ttl(MILLISECOND)] {
        let store: Arc<dyn SecretPersistence> = with(&Arc::new(Probe::slow()), options);
        let report = conformance::run(&store, &Options::default()).await;
        report.assert_passed();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_promise_holds_on_many_threads() {
    let store: Arc<dyn SecretPersistence> = over(&Arc::new(Probe::new()));
    let report = conformance::run(&store, &Options::default()).await;
    report.assert_passed();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_readers_make_one_request_and_a_warm_one_none() {
    let latency = Duration::from_millis(100);
    let probe = holding(Probe::new().with_latency(latency), 20).await;
    let cache = over(&probe);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..1000 {
        let cache = Arc::clone(&cache);
        tasks.spawn(async move { cache.read_many(&names(0..20)).await });
    }
    while let Some(results) = tasks.join_next().await {
        for (n, result) in results.unwrap().into_iter().enumerate() {
            assert_eq!(result.unwrap().value, write(n).value);
        }
    }
    let requests = probe.requests();
    assert_eq!(requests.len(), 1, "{requests:?}");
    assert_eq!(requests[0].names.len(), 20);
    cache.read_many(&names(0..20)).await;
    assert_eq!(probe.requests().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_batch_asks_only_for_what_is_missing() {
    let probe = holding(Probe::slow(), 10).await;
    let cache = over(&probe);
    cache.read_many(&names(0..4)).await;
    // Some kept, some being loaded by somebody else, some new.
    let (others, ours) = (names(4..6), names(2..8));
    let (_, results) = tokio::join!(cache.read_many(&others), cache.read_many(&ours));
    for (n, result) in (2..8).zip(results) {
        assert_eq!(result.unwrap().value, write(n).value);
    }
    let asked: Vec<Vec<String>> = probe
        .requests()
        .into_iter()
        .map(|request| request.names)
        .collect();
    let expected = [0..4, 4..6, 6..8].map(|range| {
        let names = names(range);
        names.iter().map(ToString::to_string).collect::<Vec<_>>()
    });
    assert_eq!(asked, expected);
}

#[tokio::test(start_paused = true)]
async fn cancelling_one_of_many_waiting_callers_disturbs_no_other() {
    let probe = holding(Probe::new().with_latency(SECOND), 1).await;
    let cache = over(&probe);
    let mut callers: Vec<_> = (0..100)
        .map(|_| {
            let cache = Arc::clone(&cache);
            tokio::spawn(async move { cache.read(&name(0)).await })
        })
        .collect();
    sleep(SECOND / 2).await;
    // The first caller is the one who started the load.
    callers.remove(0).abort();
    callers.remove(40).abort();
    for caller in callers {
        assert_eq!(caller.await.unwrap().unwrap().value, write(0).value);
    }
    assert_eq!(probe.requests().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_load_nobody_waits_for_is_dropped_and_started_anew() {
    let probe = holding(Probe::new(), 1).await;
    probe.on_every_request(|_, _| Fault::Hang);
    let cache = over(&probe);
    timeout(SECOND, cache.read(&name(0))).await.unwrap_err();
    assert!(cache.state.loads.lock().under_way.is_empty());
    probe.recovers();
    reads(&cache, 0).await;
    assert_eq!(probe.requests().len(), 2);
}

/// Slows one operation of a probe down.
fn slow(probe: &Probe, slowed: Operation, before: Duration, after: Duration) {
    probe.on_every_request(move |operation, _| match operation {
        _ if operation == slowed => Fault::Slow { before, after },
        _ => Fault::None,
    });
}

#[tokio::test(start_paused = true)]
async fn a_delete_beats_a_load_in_flight() {
    // Without it, a deleted secret would be served for the whole TTL.
    for give_up in [false, true] {
        let probe = holding(Probe::new(), 1).await;
        let cache = over(&probe);
        // The load looks at once, and its answer is long on the way.
        slow(&probe, Operation::Read, Duration::ZERO, SECOND * 10);
        let reader = {
            let cache = Arc::clone(&cache);
            tokio::spawn(async move { cache.read(&name(0)).await })
        };
        sleep(SECOND).await;
        if give_up {
            // Dropped after it took effect, before its answer.
            slow(&probe, Operation::Delete, Duration::ZERO, SECOND * 10);
        }
        let immediate = DeleteOptions::default().with_recovery(Recovery::Immediate);
        let coordinate = coordinate(0);
        let deleted = timeout(SECOND, cache.delete(&coordinate, &immediate)).await;
        assert_eq!(deleted.is_err(), give_up);
        // Who asks now does not join the load that began before.
        assert_eq!(kind(&cache, 0).await, ErrorKind::NotFound);
        // Who asked before may have the value; it is not kept.
        assert!(reader.await.unwrap().is_ok());
        assert_eq!(kind(&cache, 0).await, ErrorKind::NotFound);
    }
}

#[tokio::test(start_paused = true)]
async fn a_load_during_a_delete_is_not_kept() {
    for give_up in [false, true] {
        let probe = holding(Probe::new(), 1).await;
        let cache = over(&probe);
        reads(&cache, 0).await;
        // The delete is long on its way; until it arrives, the value may be read.
        slow(&probe, Operation::Delete, SECOND * 10, SECOND * 10);
        let delete = {
            let cache = Arc::clone(&cache);
            tokio::spawn(async move {
                let options = DeleteOptions::default();
                cache.delete(&coordinate(0), &options).await
            })
        };
        sleep(SECOND).await;
        let read = cache.read(&name(0)).await.unwrap();
        let value = read.value.downgrade();
        drop(read);
        if give_up {
            sleep(SECOND * 12).await;
            delete.abort();
        }
        assert_eq!(delete.await.is_err(), give_up);
        assert!(value.is_wiped());
        assert_eq!(kind(&cache, 0).await, ErrorKind::PendingDeletion);
    }
}

#[tokio::test(start_paused = true)]
async fn who_has_written_reads_what_was_written() {
    let probe = Arc::new(Probe::new());
    let cache = over(&probe);
    // A load that began before the write, and may know nothing of it.
    let mut first = true;
    probe.on_every_request(move |_, _| {
        if std::mem::take(&mut first) {
            return Fault::Hang;
        }
        Fault::None
    });
    let early = {
        let cache = Arc::clone(&cache);
        tokio::spawn(async move { cache.read(&name(0)).await })
    };
    sleep(SECOND).await;
    cache.write(write(0)).await.unwrap();
    timeout(SECOND, reads(&cache, 0)).await.unwrap();
    early.abort();
}

#[tokio::test(start_paused = true)]
async fn what_is_missing_is_asked_for_each_time() {
    let probe = Arc::new(Probe::slow());
    let cache = over(&probe);
    for _ in 0..3 {
        assert_eq!(kind(&cache, 0).await, ErrorKind::NotFound);
    }
    assert_eq!(probe.requests().len(), 3);
    cache.write(write(0)).await.unwrap();
    reads(&cache, 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_value_is_served_for_the_ttl_and_then_loaded_again() {
    let probe = holding(Probe::new(), 1).await;
    let cache = with(&probe, CacheOptions::default().with_ttl(SECOND * 60));
    reads(&cache, 0).await;
    sleep(SECOND * 59).await;
    reads(&cache, 0).await;
    assert_eq!(probe.requests().len(), 1);
    sleep(SECOND * 2).await;
    reads(&cache, 0).await;
    assert_eq!(probe.requests().len(), 2);
    // Deleted by another process: at most the TTL.
    let immediate = DeleteOptions::default().with_recovery(Recovery::Immediate);
    probe
        .memory
        .delete(&coordinate(0), &immediate)
        .await
        .unwrap();
    reads(&cache, 0).await;
    sleep(SECOND * 60).await;
    assert_eq!(kind(&cache, 0).await, ErrorKind::NotFound);
}

#[test]
fn an_outage_is_bridged_for_the_configured_time_and_counted() {
    let recorder = Recorder::default();
    recorded(&recorder, async {
        let probe = holding(Probe::new(), 1).await;
        let options = CacheOptions::default()
            .with_ttl(SECOND * 60)
            .with_stale(SECOND * 600);
        let cache = with(&probe, options);
        reads(&cache, 0).await;
        for (second, outage) in [
            (61, ErrorKind::Unavailable),
            (300, ErrorKind::Throttled),
            (659, ErrorKind::Unavailable),
        ] {
            probe.fails_with(outage);
            let started = probe.requests()[0].at;
            sleep(SECOND * second - started.elapsed()).await;
            // Each time the store is asked again.
            let asked = probe.requests().len();
            reads(&cache, 0).await;
            assert_eq!(probe.requests().len(), asked + 1);
        }
        sleep(SECOND * 2).await;
        assert_eq!(kind(&cache, 0).await, ErrorKind::Unavailable);
    });
    assert_eq!(recorder.count("secrets_cache_total{result=stale}"), 3);
    assert_eq!(recorder.count("secrets_cache_total{result=loaded}"), 5);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_delays_no_longer_than_the_reload_timeout() {
    let probe = holding(Probe::new(), 2).await;
    let options = CacheOptions::default()
        .with_ttl(SECOND)
        .with_reload_timeout(SECOND * 2);
    let cache = with(&probe, options);
    reads(&cache, 0).await;
    probe.on_every_request(|_, _| Fault::Hang);
    sleep(SECOND * 2).await;
    let started = Instant::now();
    reads(&cache, 0).await;
    assert_eq!(started.elapsed(), SECOND * 2);
    // Who has nothing to fall back on waits as long as the layers below do.
    let both = names(0..2);
    let read = cache.read_many(&both);
    timeout(SECOND * 100, read).await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn what_the_store_refuses_is_served_no_longer() {
    for refusal in [
        ErrorKind::Integrity,
        ErrorKind::NotFound,
        ErrorKind::PendingDeletion,
        ErrorKind::PermissionDenied,
        ErrorKind::Unauthenticated,
        ErrorKind::Unexpected,
    ] {
        let probe = holding(Probe::new(), 1).await;
        let cache = with(&probe, CacheOptions::default().with_ttl(SECOND));
        let read = cache.read(&name(0)).await.unwrap();
        let value = read.value.downgrade();
        drop(read);
        sleep(SECOND * 2).await;
        probe.fails_with(refusal);
        assert_eq!(kind(&cache, 0).await, refusal);
        assert!(value.is_wiped());
        // Nor if an outage follows.
        probe.fails_with(ErrorKind::Unavailable);
        assert_eq!(kind(&cache, 0).await, ErrorKind::Unavailable);
    }
}

#[tokio::test(start_paused = true)]
async fn names_of_others_are_not_served_beyond_the_ttl() {
    let probe = Arc::new(Probe::new());
    let value = SecretValue::new("theirs".to_owned());
    probe.memory.insert("theirs", value);
    let external = Coordinate::parse("theirs").unwrap();
    let cache = with(&probe, CacheOptions::default().with_ttl(SECOND));
    cache.read(&external).await.unwrap();
    cache.read(&external).await.unwrap();
    assert_eq!(probe.requests().len(), 1);
    sleep(SECOND * 2).await;
    probe.fails_with(ErrorKind::Unavailable);
    let error = cache.read(&external).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn an_entry_never_outlives_its_expiry() {
    let probe = Arc::new(Probe::new());
    let expires = Timestamp::now().saturating_add(SECOND * 15);
    let expiring = write(0).with_expires(Some(expires));
    probe.memory.write(expiring).await.unwrap();
    let cache = over(&probe);
    reads(&cache, 0).await;
    sleep(SECOND * 12).await;
    reads(&cache, 0).await;
    assert_eq!(probe.requests().len(), 1);
    // Not because the eviction, which runs every 10 seconds, has removed it.
    sleep(SECOND * 4).await;
    probe.fails_with(ErrorKind::Unavailable);
    assert_eq!(kind(&cache, 0).await, ErrorKind::Unavailable);

    // What has expired already is read, where the store still serves it, and not kept.
    probe.recovers();
    let past = Timestamp::from_unix_seconds(1_000_000_000).unwrap();
    let expired = write(1).with_expires(Some(past));
    probe.memory.write(expired).await.unwrap();
    probe.forget_requests();
    reads(&cache, 1).await;
    reads(&cache, 1).await;
    assert_eq!(probe.requests().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn ephemeral_secrets_are_not_kept() {
    let probe = Arc::new(Probe::new());
    for scope in [
        Scope::ephemeral(),
        Scope::new("organization_", uuid::Uuid::nil()).unwrap(),
    ] {
        let id = uuid::Uuid::from_u128(7);
        let ephemeral = ManagedCoordinate::new(&scope, id, 1).unwrap();
        let secret = Write::new(ephemeral.clone(), write(0).value);
        probe.memory.write(secret).await.unwrap();
        let cache = over(&probe);
        probe.forget_requests();
        for _ in 0..2 {
            let read = cache.read(&ephemeral.clone().into()).await.unwrap();
            let value = read.value.downgrade();
            drop(read);
            assert!(value.is_wiped());
        }
        assert_eq!(probe.requests().len(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn what_goes_is_wiped() {
    let probe = holding(Probe::new(), 4).await;
    let options = CacheOptions::default()
        .with_ttl(SECOND * 60)
        .with_stale(SECOND * 60);
    let cache = with(&probe, options);
    let mut kept: Vec<WeakSecret> = Vec::new();
    for n in 0..4 {
        kept.push(cache.read(&name(n)).await.unwrap().value.downgrade());
    }
    assert!(kept.iter().all(|value| !value.is_wiped()));
    // Deleted: before the request is even answered.
    probe.on_every_request(|_, _| Fault::Hang);
    let (first, options) = (coordinate(0), DeleteOptions::default());
    {
        let mut delete = std::pin::pin!(cache.delete(&first, &options));
        assert!(futures::poll!(&mut delete).is_pending());
        assert!(kept[0].is_wiped());
    }
    probe.recovers();
    assert!(!kept[1].is_wiped());
    // Loaded again: the old copy goes.
    sleep(SECOND * 61).await;
    let again = cache.read(&name(1)).await.unwrap().value.downgrade();
    assert!(kept[1].is_wiped());
    assert!(!again.is_wiped() && !kept[2].is_wiped());
    // Outlived: though nobody asks.
    sleep(SECOND * 59 + HOUSEKEEPING + MILLISECOND).await;
    assert!(kept[2].is_wiped() && kept[3].is_wiped());
    assert!(!again.is_wiped());
    // Dropped with the cache.
    drop(cache);
    assert!(again.is_wiped());
}

#[tokio::test(start_paused = true)]
async fn memory_is_bounded_and_what_is_evicted_is_wiped() {
    let count = 200;
    let probe = holding(Probe::new(), count).await;
    let room = 10 * (OVERHEAD_BYTES as u64 + 64);
    let cache = with(&probe, CacheOptions::default().with_max_bytes(room));
    let mut kept: Vec<WeakSecret> = Vec::new();
    for n in 0..count {
        kept.push(cache.read(&name(n)).await.unwrap().value.downgrade());
    }
    sleep(HOUSEKEEPING + MILLISECOND).await;
    let alive = kept.iter().filter(|value| !value.is_wiped()).count();
    assert!((1..=10).contains(&alive), "{alive} of {count} are kept");
    assert!(cache.state.entries.weighted_size() <= room);
}
