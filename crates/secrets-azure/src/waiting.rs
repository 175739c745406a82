//! What takes time in a vault: deleting, recovering and purging go on after they were answered.
//!
//! Each wait looks at the state of the secret until it is the wanted one or the time is up; there is
//! no fixed sleep, and a dropped future waits no longer.

use std::time::Duration;

use secret_persistence_core::Write;
use tokio::time::{Instant, sleep};

use crate::client::{Facts, Stored};
use crate::error::Fault;
use crate::naming::SecretName;
use crate::persistence::AzureKeyVault;

/// The first pause between two looks: transitions take a second or several.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(4);

/// The pauses of one wait, twice as long each time.
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

/// Pauses until there is no more time.
struct Patience {
    deadline: Instant,
    pauses: Box<dyn Iterator<Item = Duration> + Send>,
}

impl Patience {
    fn new(wait: Duration) -> Self {
        Self {
            deadline: Instant::now() + wait,
            pauses: Box::new(pauses(wait)),
        }
    }

    /// Whether there is time for another look, after a pause: of our choice, or as long as the vault
    /// asked for.
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

/// A look that failed for the moment says nothing of the state: the change goes on, and so does the
/// wait. Anything else ends it.
impl AzureKeyVault {
    /// Waits until a secret that is being deleted can be recovered or purged; nothing where it has
    /// not come to that in time.
    pub(crate) async fn until_deleted(&self, name: &SecretName) -> Result<Option<Facts>, Fault> {
        let mut patience = Patience::new(self.config.wait);
        loop {
            let passing = match self.client.get_deleted(name).await {
                Ok(facts) => return Ok(Some(facts)),
                Err(fault) if fault.is_disabled() => return Ok(Some(Facts::default())),
                Err(fault) if fault.is_missing() || fault.is_conflict() => None,
                Err(fault) if fault.is_passing() => Some(fault),
                Err(fault) => return Err(fault),
            };
            if !patience.pause(passing.as_ref()).await {
                return passing.map_or(Ok(None), Err);
            }
        }
    }

    /// Waits until a secret that is being recovered can be read.
    pub(crate) async fn until_readable(&self, name: &SecretName) -> Result<Readable, Fault> {
        let mut patience = Patience::new(self.config.wait);
        loop {
            let passing = match self.client.get(name).await {
                Ok(stored) => return Ok(Readable::Yes(Box::new(stored))),
                // Back again, and not for us to read.
                Err(fault) if fault.is_disabled() || fault.is_denied() => {
                    return Ok(Readable::ForOthers(fault));
                }
                Err(fault) if fault.is_missing() || fault.is_conflict() => None,
                Err(fault) if fault.is_passing() => Some(fault),
                Err(fault) => return Err(fault),
            };
            if !patience.pause(passing.as_ref()).await {
                return passing.map_or(Ok(Readable::NotYet), Err);
            }
        }
    }

    /// Sets a secret as soon as its name is free of the one that was purged; whether it came to that
    /// in time. A purged name stays taken for a while after nothing is found under it.
    pub(crate) async fn set_when_free(
        &self,
        name: &SecretName,
        write: &Write,
    ) -> Result<bool, Fault> {
        let mut patience = Patience::new(self.config.wait);
        loop {
            match self.set(name, write).await {
                Ok(()) => return Ok(true),
                Err(fault) if fault.is_conflict() || fault.is_pending() || fault.is_vague() => {}
                // Nothing passing here: a set whose answer was lost may have been done, and doing it
                // again would add a version.
                Err(fault) => return Err(fault),
            }
            if !patience.pause(None).await {
                return Ok(false);
            }
        }
    }

    /// Waits until a purged secret is gone; whether it came to that in time.
    pub(crate) async fn until_gone(&self, name: &SecretName) -> Result<bool, Fault> {
        let mut patience = Patience::new(self.config.wait);
        loop {
            let passing = match self.client.get_deleted(name).await {
                Err(fault) if fault.is_missing() => return Ok(true),
                Ok(_) => None,
                Err(fault) if fault.is_conflict() || fault.is_disabled() => None,
                Err(fault) if fault.is_passing() => Some(fault),
                Err(fault) => return Err(fault),
            };
            if !patience.pause(passing.as_ref()).await {
                return passing.map_or(Ok(false), Err);
            }
        }
    }
}

/// What became of a secret that was being recovered.
pub(crate) enum Readable {
    /// It is there, and our rights or its state keep us from reading it.
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
