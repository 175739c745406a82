//! Waits for changes in a vault: deleting, recovering and purging continue after the response.
//!
//! Each wait polls the secret until it has the expected state or the deadline has passed. There is
//! no fixed sleep, and a dropped future stops waiting.

use std::time::Duration;

use secret_persistence_core::Write;
use tokio::time::{Instant, sleep};

use crate::client::{Facts, Stored};
use crate::error::Fault;
use crate::naming::SecretName;
use crate::persistence::AzureKeyVault;

/// The first pause between two polls: changes take one second or a few.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(4);

/// The pauses of one wait, each twice as long as the previous one.
fn pauses(wait: Duration) -> impl Iterator<Item = Duration> {
    let mut left = wait;
    let mut next = FIRST_PAUSE;
    std::iter::from_fn(move || {
        let pause = next.min(left);
        left -= pause;
        next = (next * 2).min(LONGEST_PAUSE);
        (!pause.is_zero()).then_some(pause)
    })
}

/// Pauses until the deadline.
struct Deadline {
    deadline: Instant,
    pauses: Box<dyn Iterator<Item = Duration> + Send>,
}

impl Deadline {
    fn new(wait: Duration) -> Self {
        Self {
            deadline: Instant::now() + wait,
            pauses: Box::new(pauses(wait)),
        }
    }

    /// Pauses, for our own delay or for the vault's Retry-After. Returns whether there is time for
    /// another poll.
    async fn pause(&mut self, fault: Option<&Fault>) -> bool {
        let asked = fault.and_then(|fault| fault.failure.retry_after);
        let left = self.deadline.saturating_duration_since(Instant::now());
        match self.pauses.next() {
            Some(pause) if !left.is_zero() && asked.is_none_or(|asked| asked <= left) => {
                sleep(pause.max(asked.unwrap_or_default())).await;
                true
            }
            _ => false,
        }
    }
}

/// A poll that fails temporarily reveals nothing about the state: the change continues, and so does
/// the wait. Any other failure ends the wait.
impl AzureKeyVault {
    /// Waits until a deleted secret can be recovered or purged. `None` if the deadline passes
    /// first.
    pub(crate) async fn until_deleted(&self, name: &SecretName) -> Result<Option<Facts>, Fault> {
        let mut deadline = Deadline::new(self.config.wait);
        loop {
            let passing = match self.client.get_deleted(name).await {
                Ok(facts) => return Ok(Some(facts)),
                Err(fault) if fault.is_disabled() => return Ok(Some(Facts::default())),
                Err(fault) if fault.is_missing() || fault.is_conflict() => None,
                Err(fault) if fault.is_transient() => Some(fault),
                Err(fault) => return Err(fault),
            };
            if !deadline.pause(passing.as_ref()).await {
                return passing.map_or(Ok(None), Err);
            }
        }
    }

    /// Waits until a recovered secret can be read.
    pub(crate) async fn until_readable(&self, name: &SecretName) -> Result<Readable, Fault> {
        let mut deadline = Deadline::new(self.config.wait);
        loop {
            let passing = match self.client.get(name).await {
                Ok(stored) => return Ok(Readable::Yes(Box::new(stored))),
                // It is back, but we may not read it.
                Err(fault) if fault.is_disabled() || fault.is_denied() => {
                    return Ok(Readable::ForOthers(fault));
                }
                Err(fault) if fault.is_missing() || fault.is_conflict() => None,
                Err(fault) if fault.is_transient() => Some(fault),
                Err(fault) => return Err(fault),
            };
            if !deadline.pause(passing.as_ref()).await {
                return passing.map_or(Ok(Readable::NotYet), Err);
            }
        }
    }

    /// Sets a secret as soon as the name of a purged one is free. Returns whether that happened in
    /// time. A purged name stays reserved for a while after reads find nothing.
    pub(crate) async fn set_when_free(
        &self,
        name: &SecretName,
        write: &Write,
    ) -> Result<bool, Fault> {
        let mut deadline = Deadline::new(self.config.wait);
        loop {
            match self.set(name, write).await {
                Ok(()) => return Ok(true),
                Err(fault) if fault.is_conflict() || fault.is_pending() || fault.is_ambiguous() => {
                }
                // Not retried after an unknown outcome: a set whose response was lost may have
                // succeeded, and another one would add a version.
                Err(fault) => return Err(fault),
            }
            if !deadline.pause(None).await {
                return Ok(false);
            }
        }
    }

    /// Waits until a purged secret is gone. Returns whether that happened in time.
    pub(crate) async fn until_gone(&self, name: &SecretName) -> Result<bool, Fault> {
        let mut deadline = Deadline::new(self.config.wait);
        loop {
            let passing = match self.client.get_deleted(name).await {
                Err(fault) if fault.is_missing() => return Ok(true),
                Ok(_) => None,
                Err(fault) if fault.is_conflict() || fault.is_disabled() => None,
                Err(fault) if fault.is_transient() => Some(fault),
                Err(fault) => return Err(fault),
            };
            if !deadline.pause(passing.as_ref()).await {
                return passing.map_or(Ok(false), Err);
            }
        }
    }
}

/// The state of a secret that was being recovered.
pub(crate) enum Readable {
    /// It exists, but our permissions or its state prevent reading it.
    ForOthers(Fault),
    NotYet,
    Yes(Box<Stored>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_fill_the_time() {
        let all: Vec<u64> = pauses(Duration::from_secs(20))
            .map(|pause| u64::try_from(pause.as_millis()).unwrap())
            .collect();
        assert_eq!(
            all,
            [250, 500, 1_000, 2_000, 4_000, 4_000, 4_000, 4_000, 250]
        );
    }
}
