//! What the limit promises, in virtual time.

use std::collections::VecDeque;
use std::time::Duration;

use futures::future::join_all;
use tokio::time::Instant;

use super::class::{COOLDOWN, Pace};
use super::*;
use crate::conformance::{self, Options};
use crate::layer::probe::{Fault, Probe, coordinate, holding, write};
use crate::layer::recorder::{Recorder, recorded};
use crate::layer::retry::{Retry, RetryOptions};
use crate::layer::timeout::Timeout;
use crate::{Cost, Error, ErrorKind, Memory, Operation, SecretPersistenceExt};

const SECOND: Duration = Duration::from_secs(1);

fn limit(concurrency: usize, per_second: f64) -> ClassLimit {
    ClassLimit {
        concurrency,
        per_second,
    }
}

fn over(probe: &Arc<Probe>, options: LimitOptions) -> Arc<Limit> {
    Arc::new(Limit::new(
        Arc::clone(probe) as _,
        &"probe".into(),
        options,
        None,
    ))
}

#[tokio::test(start_paused = true)]
async fn a_total_bounds_all_classes_together() {
    let store = over(
        &Arc::new(Probe::new()),
        LimitOptions::in_total(limit(64, 10.0)),
    );
    let began = Instant::now();
    let reads: Vec<Coordinate> = (1..=11).map(|n| coordinate(n).into()).collect();
    join_all(
        reads
            .iter()
            .map(|name| store.read_batch(std::slice::from_ref(name))),
    )
    .await;
    for n in 1..=11 {
        store.describe(&coordinate(n)).await.unwrap_err();
    }
    assert_eq!(began.elapsed().as_secs(), 2);
}

/// Throttles what exceeds a quota, counted over a sliding second, as strict as a provider can be.
fn quota(probe: &Probe, per_second: usize) {
    let mut recent: VecDeque<Instant> = VecDeque::new();
    probe.on_every_request(move |_, _| {
        let now = Instant::now();
        while recent.front().is_some_and(|at| now - *at >= SECOND) {
            recent.pop_front();
        }
        if recent.len() >= per_second {
            return Fault::Fail(Error::new(ErrorKind::Throttled, "over the quota"));
        }
        recent.push_back(now);
        Fault::None
    });
}

#[tokio::test(start_paused = true)]
async fn every_promise_holds() {
    let store: Arc<dyn SecretPersistence> = over(&Arc::new(Probe::slow()), LimitOptions::default());
    let report = conformance::run(&store, &Options::default()).await;
    report.assert_passed();
}

#[tokio::test(start_paused = true)]
async fn ten_times_the_load_is_never_throttled_and_uses_the_share() {
    for (quota_per_second, share) in [(100, 0.5), (10, 1.0), (1500, 0.25), (5, 0.3)] {
        let latency = Duration::from_millis(20);
        let probe = holding(Probe::new().with_latency(latency), 1).await;
        // One more than the quota, since a second may begin between two requests.
        quota(&probe, quota_per_second + 1 + quota_per_second / 50);
        let options = LimitOptions::default()
            .with_read(limit(10_000, quota_per_second as f64))
            .with_share(share);
        let limited = over(&probe, options);
        let attempts = Timeout::new(limited, SECOND * 10);
        let store = Arc::new(Retry::new(
            Arc::new(attempts),
            "probe".into(),
            RetryOptions::default().with_deadline(SECOND * 3600),
        ));
        let rate = quota_per_second as f64 * share;
        let seconds = 20.0;
        // So many callers, each calling again when it is answered after 40 ms, would make ten
        // times the quota's load if nothing held them back.
        let callers = (quota_per_second * 10 * 40 / 1000).max(10);
        let end = Instant::now() + Duration::from_secs_f64(seconds);
        let answered: Vec<usize> = join_all((0..callers).map(|_| async {
            let mut answered = 0;
            while Instant::now() < end {
                store.read(&coordinate(0).into()).await.unwrap();
                answered += usize::from(Instant::now() < end);
            }
            answered
        }))
        .await;
        let answered: usize = answered.iter().sum();
        let used = answered as f64 / (rate * seconds);
        assert!(
            (0.9..=1.1).contains(&used),
            "{quota_per_second} × {share}: {used}"
        );
        // Not one request was throttled: each was answered at once.
        let sent = probe
            .requests()
            .iter()
            .filter(|request| request.at < end)
            .count();
        assert!(sent <= answered + callers, "{sent} > {answered}");
    }
}

#[tokio::test(start_paused = true)]
async fn where_others_use_the_quota_it_slows_down_and_recovers() {
    let probe = holding(Probe::new(), 1).await;
    let limited = over(
        &probe,
        LimitOptions::default().with_read(limit(10_000, 100.0)),
    );
    let store = Retry::new(
        limited.clone() as _,
        "probe".into(),
        RetryOptions::default(),
    );
    let run = async |seconds: u64| {
        probe.forget_requests();
        let end = Instant::now() + SECOND * u32::try_from(seconds).unwrap();
        let answered = join_all((0..50).map(|_| async {
            let mut answered = 0_u64;
            while Instant::now() < end {
                // The caller never sees that the store throttles.
                store.read(&coordinate(0).into()).await.unwrap();
                answered += u64::from(Instant::now() < end);
            }
            answered
        }))
        .await;
        let answered: u64 = answered.iter().sum();
        let requests = probe.count(Operation::Read) as u64;
        (answered / seconds, requests / seconds)
    };
    // Others leave us 40 requests a second: we send little more than that.
    quota(&probe, 40);
    run(10).await;
    let (answered, sent) = run(30).await;
    assert!(
        (28..=41).contains(&answered),
        "{answered} answered each second"
    );
    assert!(sent <= 60, "{sent} sent each second");
    // The others are gone: soon we are back at our share.
    probe.recovers();
    run(20).await;
    let (answered, _) = run(10).await;
    assert!(
        (90..=103).contains(&answered),
        "{answered} answered each second"
    );
}

#[tokio::test(start_paused = true)]
async fn retry_after_silences_the_whole_class() {
    let probe = holding(Probe::new(), 2).await;
    let mut first = true;
    probe.on_every_request(move |_, _| {
        if std::mem::take(&mut first) {
            let error = Error::new(ErrorKind::Throttled, "later");
            return Fault::Fail(error.with_retry_after(SECOND * 7));
        }
        Fault::None
    });
    let store = over(&probe, LimitOptions::default());
    let started = Instant::now();
    store.read(&coordinate(0).into()).await.unwrap_err();
    // Another caller, who knows nothing of it, and another class, which was not meant.
    store.write(write(5)).await.unwrap();
    assert!(started.elapsed() < SECOND);
    store.read(&coordinate(1).into()).await.unwrap();
    assert!(started.elapsed() >= SECOND * 7);
    assert!(started.elapsed() < SECOND * 8);
}

/// The first request is throttled with this Retry-After, after half a second.
fn throttled_first(probe: &Probe, retry_after: Duration) {
    let mut first = true;
    probe.on_every_request(move |_, _| {
        if std::mem::take(&mut first) {
            let error = Error::new(ErrorKind::Throttled, "later");
            return Fault::Fail(error.with_retry_after(retry_after));
        }
        Fault::None
    });
}

#[tokio::test(start_paused = true)]
async fn retry_after_silences_those_who_already_wait_for_the_rate() {
    let probe = holding(Probe::new().with_latency(SECOND / 4), 4).await;
    throttled_first(&probe, SECOND * 20);
    let store = over(&probe, LimitOptions::default().with_read(limit(10, 1.0)));
    let started = Instant::now();
    // Two go out at once; the others wait for the rate when the first is answered.
    let names = [0, 1, 2, 3].map(|n| Coordinate::from(coordinate(n)));
    drop(join_all(names.iter().map(|name| store.read(name))).await);
    let later: Vec<_> = probe
        .requests()
        .iter()
        .map(|request| request.at - started)
        .filter(|after| *after > SECOND / 2)
        .collect();
    assert_eq!(later.len(), 2);
    assert!(later.iter().all(|after| *after >= SECOND * 20), "{later:?}");
}

#[test]
fn every_operation_is_of_its_class() {
    let recorder = Recorder::default();
    recorded(&recorder, async {
        let probe = holding(Probe::new(), 1).await;
        let store = over(&probe, LimitOptions::default());
        let name = coordinate(0);
        let immediate = DeleteOptions::default();
        store.read(&name.clone().into()).await.unwrap();
        store.write(write(1)).await.unwrap();
        store.delete(&name, &immediate).await.unwrap();
        store.restore(&name).await.unwrap();
        store.describe(&name).await.unwrap();
        store.identity().await.unwrap();
        store
            .list_page(&ListOptions::default(), None)
            .await
            .unwrap();
    });
    for (class, permits) in [("read", 1), ("write", 3), ("list", 3)] {
        let key = format!("secrets_limit_permits_total{{store=probe,class={class}}}");
        assert_eq!(recorder.count(&key), permits, "{key} in {recorder:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_pace_comes_back_after_a_rest_and_never_beyond_the_full_one() {
    let now = Instant::now();
    let pace = Pace {
        part: 0.5,
        since: now,
        silent_until: now,
    };
    for (seconds, part) in [(0, 0.5), (1, 0.5), (3, 0.6), (11, 1.0), (100, 1.0)] {
        let present = pace.part_at(now + SECOND * seconds);
        assert!((present - part).abs() < 1e-9, "{present} after {seconds} s");
    }
}

#[tokio::test(start_paused = true)]
async fn no_retry_after_silences_us_for_longer_than_a_minute() {
    let probe = holding(Probe::new(), 2).await;
    throttled_first(&probe, SECOND * 3600);
    let store = over(&probe, LimitOptions::default());
    let started = Instant::now();
    store.read(&coordinate(0).into()).await.unwrap_err();
    store.read(&coordinate(1).into()).await.unwrap();
    assert!((60..=61).contains(&started.elapsed().as_secs()));
}

#[test]
fn requests_that_are_throttled_together_slow_us_down_once() {
    let recorder = Recorder::default();
    recorded(&recorder, async {
        let probe = holding(Probe::slow(), 1).await;
        probe.fails_with(ErrorKind::Throttled);
        let store = over(&probe, LimitOptions::default());
        let name: Coordinate = coordinate(0).into();
        join_all((0..10).map(|_| store.read(&name))).await;
        tokio::time::sleep(COOLDOWN).await;
        store.read(&name).await.unwrap_err();
    });
    let count = |name| recorder.count(&format!("{name}{{store=probe,class=read}}"));
    assert_eq!(count("secrets_limit_slowed_total"), 2, "{recorder:?}");
    assert_eq!(count("secrets_limit_permits_total"), 11, "{recorder:?}");
}

/// Like AWS: twenty in one request, and two more for each that it does not answer.
fn batches(per_write: u32) -> Memory {
    let memory = Memory::new();
    let capabilities = Capabilities {
        read_batch: 20,
        concurrency: 64,
        cost: Cost {
            read: 41,
            write: per_write + 2,
            list_detail: 1,
            ..Cost::ONE
        },
        least: Cost {
            write: per_write,
            ..Cost::ONE
        },
        ..memory.capabilities()
    };
    memory.with_capabilities(capabilities)
}

#[tokio::test(start_paused = true)]
async fn what_is_sure_is_paid_first_and_the_rest_when_it_is_known() {
    let probe = Arc::new(Probe::over(batches(4)));
    let store = over(
        &probe,
        LimitOptions::default()
            .with_batch_weight(20)
            .with_read(limit(10, 40.0))
            .with_write(limit(10, 8.0))
            .with_list(limit(10, 8.0)),
    );
    let rest = || tokio::time::sleep(SECOND * 60);
    let started = Instant::now();
    for n in 0..22 {
        store.write(write(n)).await.unwrap();
    }
    // Two at once, and two writes a second, four requests each.
    let took = started.elapsed().as_secs_f64();
    assert!((9.5..=10.8).contains(&took), "{took}");

    // Two full batches a second, or 40 single reads; two of the batches at once, as 40 of the reads.
    let names: Vec<Coordinate> = (0..20).map(|n| coordinate(n).into()).collect();
    for (count, calls) in [(20, 22), (2, 22), (1, 420)] {
        rest().await;
        let started = Instant::now();
        for _ in 0..calls {
            store.read_many(&names[..count]).await;
        }
        let took = started.elapsed().as_secs_f64();
        assert!(
            (9.5..=10.8).contains(&took),
            "{took} for {calls} of {count}"
        );
    }

    // Of each batch nothing is found: two more requests for each name.
    rest().await;
    let missing: Vec<Coordinate> = (100..120).map(|n| coordinate(n).into()).collect();
    let started = Instant::now();
    for _ in 0..11 {
        store.read_many(&missing).await;
    }
    let took = started.elapsed().as_secs_f64();
    assert!((14.0..=16.5).contains(&took), "{took}");

    // A page of fifteen costs sixteen.
    let details = ListOptions::default().with_details(true).with_page_size(15);
    let started = Instant::now();
    for _ in 0..6 {
        store.list_page(&details, None).await.unwrap();
    }
    let took = started.elapsed().as_secs_f64();
    assert!((9.0..=10.8).contains(&took), "{took}");
}

/// Counted as a provider does that counts requests of two kinds: batches, and all others.
fn quota_of_batches(probe: &Probe, per_second: usize, size: usize) {
    quota(probe, per_second * size);
}

#[tokio::test(start_paused = true)]
async fn below_the_quota_nothing_waits_and_at_it_nothing_is_throttled() {
    let latency = Duration::from_millis(10);
    let read = async |secrets: usize, limited: bool| {
        let probe = holding(Probe::over(batches(1)).with_latency(latency), secrets).await;
        // The provider counts to 100 batches of 20.
        quota_of_batches(&probe, 100, 20);
        let options = LimitOptions::default()
            .with_batch_weight(100)
            .with_read(limit(64, 10_000.0))
            .with_share(0.5);
        let store: Arc<dyn SecretPersistence> = if limited {
            over(&probe, options)
        } else {
            Arc::clone(&probe) as _
        };
        let names: Vec<Coordinate> = (0..secrets).map(|n| coordinate(n).into()).collect();
        let started = Instant::now();
        for read in store.read_many(&names).await {
            read.unwrap();
        }
        started.elapsed()
    };
    // Half of 100 batches a second are ours.
    for secrets in [1, 20, 100, 1_000] {
        let (limited, alone) = (read(secrets, true).await, read(secrets, false).await);
        assert!(
            limited.as_secs_f64() <= alone.as_secs_f64() * 1.05,
            "{secrets}: {limited:?} instead of {alone:?}"
        );
    }
    // Three seconds' share takes three seconds; nothing was throttled, or `unwrap` had panicked.
    let limited = read(3_000, true).await.as_secs_f64();
    assert!((2.9..=3.2).contains(&limited), "{limited}");
}

#[tokio::test(start_paused = true)]
async fn those_who_waited_go_at_even_distances() {
    let probe = holding(Probe::new(), 1).await;
    let store = over(
        &probe,
        LimitOptions::default().with_read(limit(1_000, 100.0)),
    );
    let started = Instant::now();
    let name: Coordinate = coordinate(0).into();
    join_all((0..200).map(|_| store.read(&name))).await;
    let after: Vec<Duration> = probe
        .requests()
        .iter()
        .map(|request| request.at - started)
        .collect();
    assert_eq!(after[99], Duration::ZERO);
    for tenth in 0..9 {
        let until = SECOND + SECOND / 10 * (tenth + 1);
        let sent = after.iter().filter(|after| **after < until).count();
        let expected = 100 + 10 * (tenth as usize + 1);
        assert!(sent.abs_diff(expected) <= 4, "{sent} before {until:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn no_more_calls_are_under_way_than_agreed() {
    let latency = Duration::from_millis(100);
    let probe = holding(Probe::new().with_latency(latency), 1).await;
    let store = over(
        &probe,
        LimitOptions::default().with_read(limit(5, 10_000.0)),
    );
    let started = Instant::now();
    let name = coordinate(0).into();
    join_all((0..50).map(|_| store.read(&name)))
        .await
        .into_iter()
        .for_each(|read| drop(read.unwrap()));
    // Ten rounds of five, each of two latencies.
    assert!(started.elapsed() >= latency * 20);
    for request in probe.requests() {
        let together = probe
            .requests()
            .iter()
            .filter(|other| other.at <= request.at && request.at < other.at + latency * 2)
            .count();
        assert!(together <= 5, "{together}");
    }
}

#[tokio::test(start_paused = true)]
async fn callers_that_give_up_free_their_place() {
    let probe = holding(Probe::new(), 1).await;
    probe.on_every_request(|_, _| Fault::Hang);
    let store = over(&probe, LimitOptions::default().with_read(limit(2, 100.0)));
    let name: Coordinate = coordinate(0).into();
    for _ in 0..10 {
        let reads = join_all((0..5).map(|_| store.read(&name)));
        tokio::time::timeout(SECOND, reads).await.unwrap_err();
    }
    probe.recovers();
    let started = Instant::now();
    store.read(&name).await.unwrap();
    assert!(started.elapsed() < SECOND);
}

#[tokio::test(start_paused = true)]
async fn no_setting_stalls_or_divides_by_zero() {
    let probe = holding(Probe::new(), 1).await;
    for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0, 0.0, 1e300] {
        let options = LimitOptions::default()
            .with_share(number)
            .with_read(limit(0, number));
        let store = over(&probe, options);
        for _ in 0..3 {
            store.read(&coordinate(0).into()).await.unwrap();
        }
    }
}
