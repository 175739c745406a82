//! The re-encryption that is under way: its id, and how far one process has come alone.

use std::time::Duration;

use secret_persistence_core::{Result, Timestamp};
use uuid::Uuid;

use crate::client::Client;
use crate::keyring::KeyId;

/// The entry of the second table from the beginning of a re-encryption to its end.
const ENTRY: &str = "reencrypt";

/// How long an interrupted re-encryption goes on where it was. Nothing in a row shows when it got its data key,
/// and whoever starts one a day later wants new ones for a reason that is newer.
pub(crate) const INTERRUPTED: Duration = Duration::from_secs(24 * 60 * 60);

/// A re-encryption that has begun and that nobody has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reencryption {
    /// What tells it apart from those before and after it. Whatever says how far it is, says of which one.
    pub(crate) id: u64,
    /// The key under which its rows are.
    active: String,
    /// The last name of the rows that are done, and when the last of them was.
    reached: Option<(i64, String)>,
}

impl Reencryption {
    /// The one that is under way with this key. Begins one if there is none.
    pub(crate) async fn under_way(client: &dyn Client, active: &KeyId) -> Result<Self> {
        let found = Self::read(client).await?;
        if let Some(found) = found.filter(|found| found.active == active.as_str()) {
            return Ok(found);
        }
        let new = Self {
            // Numbers of Postgres and SQLite have a sign.
            id: Uuid::new_v4().as_u64_pair().0 >> 1,
            active: active.to_string(),
            reached: None,
        };
        new.put(client).await?;
        Ok(new)
    }

    /// Where one process goes on that was interrupted not long ago.
    pub(crate) fn cursor(&self, now: Timestamp) -> Option<String> {
        let (at, last) = self.reached.as_ref()?;
        // A clock that went back says nothing either.
        let age = now.unix_seconds().abs_diff(*at);
        (age <= INTERRUPTED.as_secs()).then(|| last.clone())
    }

    /// Notes that all rows up to a name are done, unless another process has ended it meanwhile: then a later run
    /// begins anew, whatever this one has done.
    pub(crate) async fn reach(&mut self, client: &dyn Client, last: &str) -> Result<()> {
        let now = Self::read(client).await?;
        if now.is_none_or(|now| now.id != self.id) {
            return Ok(());
        }
        self.reached = Some((Timestamp::now().unix_seconds(), last.to_owned()));
        self.put(client).await
    }

    /// Notes that none is under way.
    pub(crate) async fn end(client: &dyn Client) -> Result<()> {
        client.remove_meta(ENTRY).await
    }

    async fn read(client: &dyn Client) -> Result<Option<Self>> {
        let entries = client.meta().await?;
        let entry = entries.into_iter().find(|(name, _)| name == ENTRY);
        Ok(entry.and_then(|(_, value)| Self::parse(&String::from_utf8(value).ok()?)))
    }

    async fn put(&self, client: &dyn Client) -> Result<()> {
        client
            .put_meta(ENTRY, self.to_text().as_bytes(), true)
            .await
    }

    /// Each part on a line, the name last: it may have any text.
    fn to_text(&self) -> String {
        let begun = format!("{}\n{}", self.id, self.active);
        match &self.reached {
            None => begun,
            Some((at, last)) => format!("{begun}\n{at}\n{last}"),
        }
    }

    /// `None` for what another version has written.
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(4, '\n');
        let (id, active) = (parts.next()?.parse().ok()?, parts.next()?.to_owned());
        let reached = match (parts.next(), parts.next()) {
            (None, _) => None,
            (Some(at), last) => Some((at.parse().ok()?, last?.to_owned())),
        };
        Some(Self {
            id,
            active,
            reached,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(reached: Option<(i64, &str)>) -> Reencryption {
        Reencryption {
            id: 7,
            active: "k2".to_owned(),
            reached: reached.map(|(at, last)| (at, last.to_owned())),
        }
    }

    #[test]
    fn what_is_written_is_read() {
        for written in [at(None), at(Some((1_000, "a\nb"))), at(Some((1_000, "")))] {
            assert_eq!(Reencryption::parse(&written.to_text()), Some(written));
        }
        // Earlier builds wrote the key and the name.
        for other in ["", "k2\nname", "7", "7\nk2\nname", "7\nk2\n1000"] {
            assert_eq!(Reencryption::parse(other), None, "{other:?}");
        }
    }

    #[test]
    fn a_cursor_that_is_older_than_a_day_is_void() {
        let now = |seconds| Timestamp::from_unix_seconds(seconds).unwrap();
        let day = 24 * 60 * 60;
        let reached = at(Some((day, "name")));
        for (seconds, is_valid) in [
            (day, true),
            (2 * day, true),
            (2 * day + 1, false),
            (0, true),
            (-1, false),
        ] {
            let cursor = reached.cursor(now(seconds));
            assert_eq!(cursor.is_some(), is_valid, "{seconds}");
        }
        assert_eq!(at(None).cursor(now(day)), None);
    }
}
