use std::future::pending;
use std::task::Poll;

use futures::future::join_all;
use futures::poll;
use tokio::runtime;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep};

use super::*;

const CONNECT: Duration = Duration::from_secs(10);

/// A database that does what a name asks for, and notes each statement.
struct Fake {
    /// The number of names of each statement.
    asked: Mutex<Vec<usize>>,
    takes: Duration,
}

#[async_trait]
impl Describe for Fake {
    async fn describe(&self, names: &[&str]) -> Result<Vec<Described>> {
        self.asked.lock().push(names.len());
        yield_now().await;
        sleep(self.takes).await;
        let is_shared = names.len() > 1;
        if names.contains(&"hangs") || is_shared && names.contains(&"hangs shared") {
            pending::<()>().await;
        }
        if names.contains(&"fails") {
            return Err(Error::new(ErrorKind::Conflict, "a lock"));
        }
        assert!(!names.contains(&"panics"), "as the driver does");
        Ok(names
            .iter()
            .filter(|name| !name.starts_with("missing"))
            .map(|name| {
                let row = match *name {
                    "damaged" => Err(Error::new(ErrorKind::Integrity, "a column")),
                    _ => Ok(head(name)),
                };
                ((*name).to_owned(), row)
            })
            .rev()
            .collect())
    }
}

fn head(name: &str) -> Head {
    Head {
        coordinate: name.to_owned(),
        owner: None,
        created: None,
        expires: None,
        key_id: None,
    }
}

fn new() -> (Arc<Fake>, Arc<Describer>) {
    taking(Duration::ZERO)
}

fn taking(takes: Duration) -> (Arc<Fake>, Arc<Describer>) {
    let asked = Mutex::default();
    let fake = Arc::new(Fake { asked, takes });
    let describer = Describer::new(Arc::clone(&fake) as _, CONNECT);
    (fake, describer)
}

/// The name of the row, none, or the kind of the error.
fn outcome(answer: Answer) -> Result<Option<String>, ErrorKind> {
    answer
        .map(|head| head.map(|head| head.coordinate))
        .map_err(|error| error.kind())
}

fn found(name: &str) -> Result<Option<String>, ErrorKind> {
    Ok(Some(name.to_owned()))
}

async fn together(
    describer: &Arc<Describer>,
    names: &[&str],
) -> Vec<Result<Option<String>, ErrorKind>> {
    let answers = names.iter().map(|name| describer.describe(name));
    join_all(answers).await.into_iter().map(outcome).collect()
}

/// Each by itself would be 2,500 statements.
async fn many((fake, describer): (Arc<Fake>, Arc<Describer>)) -> Vec<usize> {
    let names: Vec<String> = (0..2_500)
        .map(|number| match number % 5 {
            0 => format!("missing {number}"),
            1 => "the same".to_owned(),
            _ => format!("{number}"),
        })
        .collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for (name, outcome) in names.iter().zip(together(&describer, &names).await) {
        match name.starts_with("missing") {
            true => assert_eq!(outcome, Ok(None)),
            false => assert_eq!(outcome, found(name)),
        }
    }
    assert!(describer.queue.lock().waiting.is_empty());
    fake.asked.lock().clone()
}

#[tokio::test]
async fn those_who_wait_share_statements_and_each_gets_its_answer() {
    assert_eq!(many(new()).await, [1, 1_000, 1_000, 499]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn those_who_wait_share_statements_over_several_threads() {
    const TAKES: Duration = Duration::from_millis(1);
    let asked = many(taking(TAKES)).await;
    assert_eq!(asked.iter().sum::<usize>(), 2_500);
    assert!(asked.len() <= 50, "{asked:?}");
    let (fake, describer) = taking(TAKES);
    let calls: Vec<_> = (0..500)
        .map(|number| {
            let describer = Arc::clone(&describer);
            tokio::spawn(async move { outcome(describer.describe(&number.to_string()).await) })
        })
        .collect();
    for (number, call) in calls.into_iter().enumerate() {
        assert_eq!(call.await.unwrap(), found(&number.to_string()));
    }
    let asked = fake.asked.lock().clone();
    assert_eq!(asked.iter().sum::<usize>(), 500);
    assert!(asked.len() <= 100, "{asked:?}");
}

#[tokio::test]
async fn one_alone_asks_without_a_task() {
    let (fake, describer) = new();
    for name in ["1", "missing", "damaged", "fails"] {
        let mut call = pin!(describer.describe(name));
        assert!(poll!(&mut call).is_pending());
        assert!(describer.queue.lock().task.is_none());
        let expected = match name {
            "1" => found("1"),
            "missing" => Ok(None),
            "damaged" => Err(ErrorKind::Integrity),
            _ => Err(ErrorKind::Conflict),
        };
        assert_eq!(outcome(call.await), expected);
    }
    assert_eq!(*fake.asked.lock(), [1; 4]);
}

#[tokio::test]
async fn a_damaged_row_is_an_error_for_who_asked_for_it() {
    let (fake, describer) = new();
    let outcomes = together(&describer, &["1", "2", "damaged", "3"]).await;
    assert_eq!(
        outcomes,
        [
            found("1"),
            found("2"),
            Err(ErrorKind::Integrity),
            found("3")
        ]
    );
    assert_eq!(*fake.asked.lock(), [1, 3]);
}

#[tokio::test]
async fn a_statement_that_fails_or_panics_is_an_error_for_all_of_it_and_for_nobody_else() {
    for (name, kind) in [
        ("fails", ErrorKind::Conflict),
        ("panics", ErrorKind::Unexpected),
    ] {
        let (fake, describer) = new();
        let mut names = vec!["1"; 1_001];
        names[7] = name;
        names.push("after");
        let outcomes = together(&describer, &names).await;
        assert_eq!(outcomes[0], found("1"));
        assert!(
            outcomes[1..=1_000]
                .iter()
                .all(|outcome| *outcome == Err(kind))
        );
        assert_eq!(outcomes[1_001], found("after"));
        assert_eq!(*fake.asked.lock(), [1, 1_000, 1]);
        assert!(describer.queue.lock().task.is_none());
    }
}

/// Its future keeps its permit, and a caller that waits for both would wait for ever.
#[tokio::test(start_paused = true)]
async fn a_caller_that_is_not_polled_keeps_nobody_waiting() {
    let (_, describer) = new();
    let started = Instant::now();
    let mut alone = pin!(describer.describe("1"));
    assert!(poll!(&mut alone).is_pending());
    let mut second = pin!(describer.describe("2"));
    assert!(poll!(&mut second).is_pending());
    assert_eq!(outcome(describer.describe("3").await), found("3"));
    assert_eq!(outcome(describer.describe("4").await), found("4"));
    assert_eq!(outcome(second.await), found("2"));
    assert_eq!(outcome(alone.await), found("1"));
    assert_eq!(started.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn callers_that_give_up_take_nothing_from_the_others() {
    let (fake, describer) = new();
    let started = Instant::now();
    // One that asks by itself, one whose statement was sent, and one that waits for the next.
    {
        let mut calls: Vec<_> = ["1", "hangs", "unasked"]
            .map(|name| Box::pin(describer.describe(name)))
            .into();
        for call in &mut calls[..2] {
            assert!(poll!(call).is_pending());
        }
        // The task asks.
        while fake.asked.lock().len() < 2 {
            yield_now().await;
        }
        assert!(poll!(&mut calls[2]).is_pending());
        let others = tokio::spawn({
            let describer = Arc::clone(&describer);
            async move { together(&describer, &["2", "3"]).await }
        });
        sleep(Duration::from_secs(1)).await;
        assert!(!others.is_finished());
        drop(calls);
        assert_eq!(others.await.unwrap(), [found("2"), found("3")]);
    }
    assert_eq!(started.elapsed(), Duration::from_secs(1));
    assert_eq!(*fake.asked.lock(), [1, 1, 2]);
    assert!(describer.queue.lock().task.is_none());
    assert_eq!(outcome(describer.describe("4").await), found("4"));
}

/// A connection may be dead, which nobody notices for long.
#[tokio::test(start_paused = true)]
async fn a_statement_that_hangs_holds_up_its_callers_for_a_while_and_then_nobody() {
    let (fake, describer) = new();
    let started = Instant::now();
    // It has the permit.
    let mut hanging = pin!(describer.describe("hangs"));
    assert!(poll!(&mut hanging).is_pending());
    let outcomes = together(&describer, &["1", "2", "hangs shared"]).await;
    assert_eq!(outcomes, [found("1"), found("2"), found("hangs shared")]);
    assert_eq!(started.elapsed(), CONNECT + PATIENCE);
    assert_eq!(*fake.asked.lock(), [1, 3, 1, 1, 1]);
    let outcomes = together(&describer, &["3", "4"]).await;
    assert_eq!(outcomes, [found("3"), found("4")]);
    assert_eq!(started.elapsed(), CONNECT + PATIENCE);
}

/// As with tests that share a store: each has a runtime, and ends when it likes.
#[test]
fn a_runtime_that_stands_still_or_ends_strands_nobody() {
    let (fake, describer) = new();
    let new = || {
        let mut builder = runtime::Builder::new_current_thread();
        builder.enable_time().start_paused(true).build().unwrap()
    };
    let (first, second) = (new(), new());
    let call = |name| Box::pin(describer.describe(name));
    let (mut alone, mut hanging, mut beside) = (call("1"), call("hangs"), call("2"));
    first.block_on(async {
        assert!(poll!(&mut alone).is_pending());
        assert!(poll!(&mut hanging).is_pending());
    });
    second.block_on(async { assert!(poll!(&mut beside).is_pending()) });
    first.block_on(async {
        while fake.asked.lock().len() < 2 {
            yield_now().await;
        }
    });
    assert_eq!(*fake.asked.lock(), [1, 2]);
    // The task belongs to a runtime that is not driven.
    second.block_on(async {
        let started = Instant::now();
        assert_eq!(outcome(describer.describe("3").await), found("3"));
        assert_eq!(started.elapsed(), CONNECT + PATIENCE);
    });
    drop(first);
    second.block_on(async {
        let started = Instant::now();
        assert_eq!(outcome(beside.await), found("2"));
        let outcomes = together(&describer, &["4", "5", "6"]).await;
        assert_eq!(outcomes, [found("4"), found("5"), found("6")]);
        assert_eq!(started.elapsed(), Duration::ZERO);
    });
    assert_eq!(*fake.asked.lock(), [1, 2, 1, 1, 3]);
    assert!(describer.queue.lock().task.is_none());
}

/// It has a reference to the store's connections.
#[tokio::test]
async fn the_task_ends_with_the_store() {
    let (fake, describer) = new();
    {
        let mut calls = ["1", "hangs"].map(|name| Box::pin(describer.describe(name)));
        for call in &mut calls {
            assert!(matches!(poll!(call), Poll::Pending));
        }
    }
    drop(describer);
    while Arc::strong_count(&fake) > 1 {
        yield_now().await;
    }
}
