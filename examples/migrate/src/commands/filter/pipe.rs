//! Standard input to standard output, line by line.

use std::io::{self, BufRead as _, Write as _};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream;
use secret_persistence::SecretValue;
use secret_persistence_core::connector::{SecretJson, Staged};
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::console::remark;
use crate::interrupt;
use crate::status::{Failure, Result, Status};

/// The members that a line may have. A filter ignores those that only others need, so that filters
/// can be chained.
const KEYS: [&str; 8] = [
    "id",
    "prefix",
    "baseId",
    "connectionSpecification",
    "configuration",
    "edited",
    "record",
    "saved",
];

/// How soon a signal ends a filter that waits for input.
const LOOK: Duration = Duration::from_millis(200);

/// A line of input, which may contain secrets.
#[derive(Debug)]
pub(super) struct Line {
    id: Option<Value>,
    members: SecretJson,
}

impl Line {
    fn parse(text: &str) -> std::result::Result<Self, String> {
        // The error of the parser may quote the text.
        let value = serde_json::from_str(text)
            .map_err(|error| format!("not a JSON object: wrong at column {}", error.column()))?;
        let members = SecretJson::new(value);
        let Value::Object(map) = &*members else {
            return Err("not a JSON object".into());
        };
        if let Some(key) = map.keys().find(|key| !KEYS.contains(&key.as_str())) {
            return Err(format!(
                "`{key}` is unknown; a line may have {}",
                KEYS.join(", ")
            ));
        }
        Ok(Self {
            id: map.get("id").cloned(),
            members,
        })
    }

    /// The line's id, for its answer.
    pub(super) fn id(&self) -> Option<Value> {
        self.id.clone()
    }

    /// Takes a member that the filter needs.
    pub(super) fn take(&mut self, key: &str) -> std::result::Result<Value, String> {
        self.optional(key)
            .ok_or_else(|| format!("`{key}` is missing"))
    }

    /// Takes a member.
    pub(super) fn optional(&mut self, key: &str) -> Option<Value> {
        self.members.get_mut(key).map(Value::take)
    }
}

/// A line of output, which may contain secrets.
pub(super) struct Answer {
    content: SecretJson,
    /// The change that ends when the line is written.
    change: Option<Box<Staged>>,
}

impl Answer {
    pub(super) fn new(content: SecretJson) -> Self {
        Self {
            content,
            change: None,
        }
    }

    pub(super) fn with_change(mut self, change: Staged) -> Self {
        self.change = Some(Box::new(change));
        self
    }

    /// Writes the line and returns the change that nobody will save because this failed.
    fn send(self, closed: bool) -> Result<(), Option<Box<Staged>>> {
        let sent = !closed && write(&self.content).is_ok();
        match (sent, self.change) {
            (true, Some(change)) => {
                let _handed_over = change.into_parts();
                Ok(())
            }
            (true, None) => Ok(()),
            (false, change) => Err(change),
        }
    }
}

/// Deletes what a change wrote, because nobody will save it.
async fn undo(change: Staged) {
    match change.abort().await {
        Ok(cleanup) => {
            for undeleted in cleanup.failed {
                remark(format!("not deleted: {}", undeleted.error));
            }
        }
        Err(error) => remark(format!("not deleted: {error}")),
    }
}

/// Runs a filter over every line, several at once, and writes the answers in order.
///
/// # Errors
/// If standard input cannot be read, or standard output is closed.
pub(super) async fn pipe<F>(concurrency: usize, filter: F) -> Result<Status>
where
    F: AsyncFn(Line) -> std::result::Result<Answer, String>,
{
    let cancellation = interrupt::watch();
    let closed = AtomicBool::new(false);
    let (failed, number) = (AtomicU64::new(0), AtomicU64::new(0));
    let (mut unread, mut unsaved) = (None, Vec::new());
    let stopped = || closed.load(Ordering::Relaxed) || cancellation.is_cancelled();
    let (filter, stopped) = (&filter, &stopped);
    let texts = stream::unfold(lines(), async |mut input| {
        while !stopped() {
            // Nothing wakes a read of standard input when a signal arrives.
            if let Ok(line) = timeout(LOOK, input.recv()).await {
                return line.map(|line| (line, input));
            }
        }
        None
    });
    let mut answers = texts
        .map(|text| {
            let number = number.fetch_add(1, Ordering::Relaxed) + 1;
            async move {
                match text {
                    Err(cause) => Err(cause),
                    Ok(text) => Ok(answer(filter, text.expose(), number).await),
                }
            }
        })
        .buffered(concurrency)
        .boxed_local();
    while let Some(answer) = answers.next().await {
        match answer {
            Err(cause) => unread = Some(cause),
            Ok((answer, is_failure)) => {
                failed.fetch_add(u64::from(is_failure), Ordering::Relaxed);
                if let Err(change) = answer.send(closed.load(Ordering::Relaxed)) {
                    closed.store(true, Ordering::Relaxed);
                    unsaved.extend(change);
                }
            }
        }
    }
    drop(answers);
    // Only now: the lines under way may hold the connection that a delete needs.
    for change in unsaved {
        undo(*change).await;
    }
    if let Some(cause) = unread {
        return Err(
            Failure::failed("standard input cannot be read, or is not UTF-8").with_source(cause),
        );
    }
    if closed.into_inner() {
        return Err(Failure::failed(
            "standard output was closed; what was not handed over is undone",
        ));
    }
    if cancellation.is_cancelled() {
        return Ok(Status::Interrupted);
    }
    match failed.into_inner() {
        0 => Ok(Status::Done),
        failed => {
            remark(format!(
                "{failed} of {} lines failed; each has its `error` in the output",
                number.into_inner()
            ));
            Ok(Status::Found)
        }
    }
}

/// The answer to a line, and whether it is an error.
async fn answer<F>(filter: &F, text: &str, number: u64) -> (Answer, bool)
where
    F: AsyncFn(Line) -> std::result::Result<Answer, String>,
{
    let mut id = None;
    let answered = match Line::parse(text) {
        Ok(line) => {
            id = line.id();
            filter(line).await
        }
        Err(wrong) => Err(wrong),
    };
    match answered {
        Ok(answer) => (answer, false),
        Err(wrong) => {
            let mut members = Map::new();
            if let Some(id) = id {
                members.insert("id".into(), id);
            }
            members.insert("line".into(), json!(number));
            members.insert("error".into(), wrong.into());
            (Answer::new(SecretJson::new(Value::Object(members))), true)
        }
    }
}

/// The lines of standard input. A thread of its own reads them: a blocked read must not keep the
/// process alive.
fn lines() -> mpsc::Receiver<io::Result<SecretValue>> {
    let (sender, receiver) = mpsc::channel(1);
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines() {
            let is_last = line.is_err();
            let is_blank = line.as_ref().is_ok_and(|text| text.trim().is_empty());
            if is_blank {
                continue;
            }
            if sender.blocking_send(line.map(SecretValue::new)).is_err() || is_last {
                return;
            }
        }
    });
    receiver
}

fn write(content: &Value) -> io::Result<()> {
    let text = SecretValue::new(format!("{content}\n"));
    let mut out = io::stdout().lock();
    out.write_all(text.expose().as_bytes())?;
    out.flush()
}
