//! What processes that share a quota rely on, in virtual time.

use async_trait::async_trait;
use futures::future::join_all;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::super::{ClassLimit, Limit, LimitOptions, SharedLimit};
use super::bucket::Buckets;
use super::*;
use crate::layer::probe::{Probe, coordinate, holding};
use crate::layer::recorder::{Recorder, recorded};
use crate::{Coordinate, SecretPersistence as _, SecretPersistenceExt};

const SECOND: Duration = Duration::from_secs(1);
const QUICK: Duration = Duration::from_millis(1);
const ACCOUNT: &str = "account 123456789012";

/// What draws for a class of the probe.
fn shared(rates: &Buckets, per_second: f64) -> Shared {
    of_account(Arc::new(rates.clone()), "probe", per_second)
}

fn of_account(rates: Arc<dyn SharedRates>, account: &str, per_second: f64) -> Shared {
    let counter = |name| Counter::new(name, []);
    let class = (&"probe".into(), "read");
    Shared::new(rates, account, class, per_second, counter)
}

/// A process that shares the quota of the probe.
pub(super) fn process(probe: &Arc<Probe>, rates: &Buckets, per_second: f64) -> Arc<Limit> {
    let limit = ClassLimit {
        concurrency: 64,
        per_second,
    };
    let shared = SharedLimit {
        rates: Arc::new(rates.clone()),
        replicas: 4,
    };
    let options = LimitOptions::default().with_read(limit);
    Arc::new(Limit::new(
        Arc::clone(probe) as _,
        &"probe".into(),
        options,
        Some((&shared, &ACCOUNT.into())),
    ))
}

/// So many callers that each call again as soon as they are answered.
pub(super) async fn load(store: &Arc<Limit>, callers: usize, until: Instant) {
    let name: Coordinate = coordinate(0).into();
    join_all((0..callers).map(|_| async {
        while Instant::now() < until {
            store.read(&name).await.unwrap();
        }
    }))
    .await;
}

/// The requests that arrived, and the most within any second.
fn arrived(probe: &Probe) -> (Vec<Instant>, usize) {
    let mut times: Vec<Instant> = probe.requests().iter().map(|request| request.at).collect();
    times.sort();
    let most = (0..times.len())
        .map(|first| times.partition_point(|at| *at < times[first] + SECOND) - first)
        .max();
    (times, most.unwrap_or(0))
}

/// How many requests arrived by then.
fn before(probe: &Probe, end: Instant) -> usize {
    arrived(probe).0.partition_point(|at| *at < end)
}

#[tokio::test(start_paused = true)]
async fn any_number_of_processes_keeps_to_one_quota_and_uses_it() {
    for (quota, processes, callers) in [
        (100, 1, 64),
        (100, 2, 64),
        (100, 4, 64),
        (20, 3, 8),
        (1_000, 3, 64),
        (5, 3, 2),
    ] {
        let probe = holding(Probe::new().with_latency(QUICK * 10), 1).await;
        probe.forget_requests();
        let rates = Buckets::answering_after(QUICK);
        let seconds = 20;
        let end = Instant::now() + SECOND * seconds;
        let stores: Vec<_> = (0..processes)
            .map(|_| process(&probe, &rates, f64::from(quota)))
            .collect();
        join_all(stores.iter().map(|store| load(store, callers, end))).await;
        let (times, most) = arrived(&probe);
        let case = format!("{processes} at {quota}");
        assert!(most <= quota as usize, "{case}: {most} in a second");
        let used = times.partition_point(|at| *at < end);
        let used = used as f64 / f64::from(quota * seconds);
        assert!((0.9..=1.0).contains(&used), "{case}: {used}");
        // In slices, not one by one.
        let draws = f64::from(rates.asked()) / f64::from(seconds);
        assert!(draws <= 40.0 * f64::from(processes), "{case}: {draws}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_killed_process_had_is_lost_for_a_slice_and_no_longer() {
    let probe = holding(Probe::new().with_latency(QUICK * 10), 1).await;
    let rates = Buckets::answering_after(QUICK);
    let stores = [(); 3].map(|()| process(&probe, &rates, 100.0));
    let end = Instant::now() + SECOND * 12;
    let killed = stores[2].clone();
    let others = join_all(stores[..2].iter().map(|store| load(store, 64, end)));
    let dies = async {
        let killed = load(&killed, 64, end);
        // It had drawn, and its callers waited for slots.
        timeout(SECOND * 5, killed).await.unwrap_err();
        Instant::now()
    };
    let ((), died) = futures::join!(async { drop(others.await) }, dies);
    let (times, most) = arrived(&probe);
    assert!(most <= 100, "{most}");
    let within = |from: Instant, until: Instant| {
        times
            .iter()
            .filter(|at| **at >= from && **at < until)
            .count()
    };
    let after = within(died + SECOND, died + SECOND * 6);
    assert!((450..=500).contains(&after), "{after} in five seconds");
    let meanwhile = within(died, died + SECOND);
    assert!(meanwhile >= 70, "{meanwhile} in the second after it died");
}

#[tokio::test(start_paused = true)]
async fn below_the_quota_a_call_waits_for_the_draw_alone() {
    let probe = holding(Probe::new(), 20).await;
    let rates = Buckets::answering_after(QUICK);
    let stores = [(); 2].map(|()| process(&probe, &rates, 100.0));
    let name: Coordinate = coordinate(0).into();
    let twenty = async |store: &Arc<Limit>| {
        let started = Instant::now();
        for read in join_all((0..20).map(|_| store.read(&name))).await {
            read.unwrap();
        }
        started.elapsed()
    };
    for store in stores.iter().cycle().take(4) {
        let took = twenty(store).await;
        // Twenty at once, drawn in slices of nine.
        assert!(took <= QUICK * 10, "{took:?}");
    }
    // Then a whole quota has been used within a second, and this one waits.
    let took = twenty(&stores[0]).await + twenty(&stores[0]).await;
    assert!(took > QUICK * 200, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn one_caller_beside_a_busy_process_waits_its_turn_and_no_longer() {
    let probe = holding(Probe::new().with_latency(QUICK * 10), 1).await;
    let rates = Buckets::answering_after(QUICK);
    let (busy, quiet) = (
        process(&probe, &rates, 100.0),
        process(&probe, &rates, 100.0),
    );
    let end = Instant::now() + SECOND * 10;
    let name: Coordinate = coordinate(0).into();
    let one = async {
        let mut longest = Duration::ZERO;
        while Instant::now() < end {
            let started = Instant::now();
            quiet.read(&name).await.unwrap();
            longest = longest.max(started.elapsed());
        }
        longest
    };
    // At the beginning the busy one has taken a whole second's quota at once.
    let (longest, ()) = futures::join!(one, load(&busy, 64, end));
    assert!(longest < SECOND * 2, "{longest:?}");
    assert!(arrived(&probe).1 <= 100);
}

#[test]
fn without_the_source_each_keeps_to_its_part_and_says_so_once() {
    let recorder = Recorder::default();
    let said = Said::default();
    let guard = tracing::subscriber::set_default(said.clone());
    recorded(&recorder, async {
        let probe = holding(Probe::new().with_latency(QUICK * 10), 1).await;
        probe.forget_requests();
        let rates = Buckets::answering_after(QUICK);
        let stores = [(); 4].map(|()| process(&probe, &rates, 100.0));
        rates.fail(true);
        let end = Instant::now() + SECOND * 100;
        join_all(stores.iter().map(|store| load(store, 64, end))).await;
        let used = before(&probe, end);
        // Four of four parts, and the callers who had been let through when it failed.
        assert!((9_000..=10_500).contains(&used), "{used}");
        rates.fail(false);
        tokio::time::sleep(PAUSE).await;
        probe.forget_requests();
        // Alone and with the source: the whole quota.
        let end = Instant::now() + SECOND * 10;
        load(&stores[0], 64, end).await;
        let used = before(&probe, end);
        assert!((900..=1_000).contains(&used), "{used}");
        let most = arrived(&probe).1;
        assert!(most <= 100, "{most}");
    });
    drop(guard);
    let away = said.count("by `replicas`");
    assert_eq!(away, 4, "once for each process: {said:?}");
    // The account may be one that nobody here has to know.
    assert_eq!(said.count("\"probe\""), 5, "{said:?}");
    assert_eq!(said.count(ACCOUNT), 0, "{said:?}");
    assert_eq!(said.count("the quota is shared again"), 1);
    let counted = recorder.count("secrets_limit_unshared_total{store=probe,class=read}");
    // Tried again every thirty seconds.
    assert!((12..=20).contains(&counted), "{counted}");
}

#[tokio::test(start_paused = true)]
async fn a_source_that_gives_up_delays_one_call_by_that() {
    let probe = holding(Probe::new(), 1).await;
    let rates = Buckets::answering_after(SECOND);
    rates.fail(true);
    let store = process(&probe, &rates, 100.0);
    let name: Coordinate = coordinate(0).into();
    let started = Instant::now();
    store.read(&name).await.unwrap();
    assert_eq!(started.elapsed(), SECOND);
    store.read(&name).await.unwrap();
    assert_eq!(started.elapsed(), SECOND);
}

/// A slot that has passed when it arrives was another process's time.
#[tokio::test(start_paused = true)]
async fn a_late_answer_adds_nothing_and_its_successors_are_for_later() {
    let rates = Buckets::answering_after(QUICK);
    let late = shared(&rates, 100.0);
    late.take(1).await.unwrap();
    let asked = rates.asked();
    rates.answer_after(QUICK * 300);
    let started = Instant::now();
    late.take(1).await.unwrap();
    // Two answers of 600 ms whose slots had passed when they arrived, and one for 900 ms ahead.
    assert_eq!(rates.asked() - asked, 3);
    let took = started.elapsed();
    assert!(took >= QUICK * 2400 && took <= QUICK * 2410, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_source_that_became_slow_hands_out_most_of_the_quota() {
    let probe = holding(Probe::new().with_latency(QUICK * 10), 1).await;
    let rates = Buckets::answering_after(QUICK);
    let stores = [(); 3].map(|()| process(&probe, &rates, 100.0));
    let end = Instant::now() + SECOND * 24;
    let loads = join_all(stores.iter().map(|store| load(store, 64, end)));
    let slows = async {
        tokio::time::sleep(SECOND * 2).await;
        rates.answer_after(QUICK * 250);
    };
    futures::join!(async { drop(loads.await) }, slows);
    let (times, most) = arrived(&probe);
    assert!(most <= 100, "{most}");
    let last = times.iter().filter(|at| **at > end - SECOND * 10);
    let last = last.filter(|at| **at < end).count();
    assert!(last > 600, "{last} in ten seconds");
}

/// Nothing would be sent otherwise, for ever.
#[tokio::test(start_paused = true)]
async fn a_source_that_is_far_away_is_used_as_late_as_it_answers() {
    let probe = holding(Probe::new().with_latency(QUICK * 10), 1).await;
    let rates = Buckets::answering_after(QUICK * 40);
    let stores = [(); 2].map(|()| process(&probe, &rates, 100.0));
    let started = Instant::now();
    let end = started + SECOND * 10;
    join_all(stores.iter().map(|store| load(store, 64, end))).await;
    let (times, most) = arrived(&probe);
    // The answers take 80 ms.
    assert!(times[0] < started + SECOND * 2);
    assert!(most <= 108, "{most}");
    let used = before(&probe, end);
    assert!(used > 600, "{used}");
}

/// Otherwise many processes that start together exceed the quota by these, and the whole quota at once.
#[tokio::test(start_paused = true)]
async fn what_opening_a_store_has_sent_is_paid_for() {
    let probe = Arc::new(Probe::new());
    let rates = Buckets::answering_after(QUICK);
    let store = process(&probe, &rates, 100.0);
    let identities = join_all((0..60).map(|_| store.identity()));
    timeout(SECOND, identities).await.unwrap_err();
    // Listings have fifty a second.
    let sent = probe.requests().len();
    assert!((40..=47).contains(&sent), "{sent}");
}

/// Whoever asked for them is gone, and others wait.
#[tokio::test(start_paused = true)]
async fn slots_that_a_caller_asked_for_who_gave_up_go_to_the_next() {
    let rates = Buckets::answering_after(QUICK * 5);
    let shared = shared(&rates, 100.0);
    timeout(QUICK * 5, shared.take(1)).await.unwrap_err();
    shared.take(1).await.unwrap();
    assert_eq!(rates.asked(), 1);
    // An old answer is of no use.
    timeout(QUICK * 5, shared.take(1)).await.unwrap_err();
    tokio::time::sleep(SECOND).await;
    shared.take(1).await.unwrap();
    assert_eq!(rates.asked(), 3);
}

/// A source that answers two questions at a time, as one with two connections.
#[derive(Debug)]
struct Two(Buckets, Semaphore);

#[async_trait]
impl SharedRates for Two {
    async fn draw(&self, draw: &Draw) -> Result<Slice> {
        let _connection = self.1.acquire().await.unwrap();
        self.0.draw(draw).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_question_whose_callers_gave_up_holds_nothing_of_the_source() {
    let rates = Arc::new(Two(Buckets::answering_after(QUICK * 5), Semaphore::new(2)));
    let stores =
        ["one", "two", "three"].map(|name| of_account(Arc::clone(&rates) as _, name, 100.0));
    for store in &stores[..2] {
        timeout(QUICK, store.take(1)).await.unwrap_err();
    }
    // The others are still there, and nobody calls them again.
    let served = timeout(SECOND, stores[2].take(1)).await;
    served.expect("a connection").unwrap();
    // With the store, its question ends.
    let asks = of_account(Arc::clone(&rates) as _, "four", 100.0);
    rates.0.answer_after(SECOND * 600);
    timeout(QUICK, asks.take(1)).await.unwrap_err();
    assert_eq!(rates.1.available_permits(), 1);
    drop(asks);
    tokio::task::yield_now().await;
    assert_eq!(rates.1.available_permits(), 2);
}

#[tokio::test(start_paused = true)]
async fn requests_that_are_known_only_afterwards_are_paid_with_the_next_draw() {
    let rates = Buckets::answering_after(QUICK);
    let (first, second) = (shared(&rates, 100.0), shared(&rates, 100.0));
    first.take(1).await.unwrap();
    first.owe(98);
    first.take(1).await.unwrap();
    let started = Instant::now();
    second.take(1).await.unwrap();
    assert!(started.elapsed() > QUICK * 900, "{:?}", started.elapsed());
}

/// What was owed meanwhile would stall every process when the source is back.
#[tokio::test(start_paused = true)]
async fn requests_without_the_source_are_not_owed_to_it() {
    let probe = holding(Probe::new(), 1).await;
    let rates = Buckets::answering_after(QUICK);
    let stores = [(); 2].map(|()| process(&probe, &rates, 100.0));
    let name: Coordinate = coordinate(0).into();
    // Learned before the source is found to be away, and afterwards.
    stores[0].read.charge(500);
    rates.fail(true);
    stores[0].read(&name).await.unwrap();
    stores[0].read.charge(5_000);
    rates.fail(false);
    // Until its own window has paid for them.
    tokio::time::sleep(SECOND * 600).await;
    for store in stores {
        let started = Instant::now();
        store.read(&name).await.unwrap();
        assert!(started.elapsed() < QUICK * 10, "{:?}", started.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_large_debt_is_paid_a_window_at_a_time() {
    let rates = Buckets::answering_after(QUICK);
    let [debtor, other] = [(); 2].map(|()| shared(&rates, 100.0));
    debtor.owe(1_000);
    let started = Instant::now();
    let pays = async {
        debtor.take(1).await.unwrap();
        started.elapsed()
    };
    let waits = async {
        tokio::time::sleep(SECOND).await;
        let asked = Instant::now();
        other.take(1).await.unwrap();
        asked.elapsed()
    };
    let (paid, waited) = futures::join!(pays, waits);
    // All of it, at the quota.
    assert!((SECOND * 9..=SECOND * 11).contains(&paid), "{paid:?}");
    assert!(waited < SECOND * 2, "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_call_of_many_requests_gets_them_all() {
    let rates = Buckets::answering_after(QUICK);
    let shared = shared(&rates, 20.0);
    let started = Instant::now();
    for _ in 0..4 {
        shared.take(50).await.unwrap();
    }
    // The first slot is for now.
    let took = started.elapsed().as_secs_f64();
    assert!((10.7..=10.8).contains(&took), "{took}");
}

/// What was logged.
#[derive(Clone, Debug, Default)]
struct Said(Arc<Mutex<Vec<String>>>);

impl Said {
    fn count(&self, text: &str) -> usize {
        let said = self.0.lock();
        said.iter().filter(|line| line.contains(text)).count()
    }
}

impl tracing::Subscriber for Said {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::INFO
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        struct Message<'a>(&'a mut String);
        impl tracing::field::Visit for Message<'_> {
            fn record_debug(&mut self, _: &tracing::field::Field, value: &dyn fmt::Debug) {
                self.0.push_str(&format!("{value:?} "));
            }
        }
        let mut line = String::new();
        event.record(&mut Message(&mut line));
        self.0.lock().push(line);
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}
