//! What `encrypt` and `rotate` do with rows, range by range of the table's order, so that several
//! processes can share a table.

use std::collections::HashSet;
use std::time::Duration;

use secret_persistence_core::{Error, ErrorKind, Operation, Result};
use uuid::Uuid;

use crate::client::{Before, Columns, Content, Filter, Row, Swap};
use crate::envelope::{Binding, Sealed};
use crate::keyring::{KeyId, KeyRing};
use crate::persistence::Database;
use crate::reencryption::{INTERRUPTED, Reencryption};
use crate::ring_check;

/// Rows per step: one transaction, one round trip.
const STEP: usize = 500;

/// How often the rows that others changed meanwhile are searched, or tried, again.
const ROUNDS: usize = 8;

/// The entry of the second table that tells the table apart from others.
const TABLE: &str = "table";

/// A conversion of all rows, one range after the other. [`Database::encrypt`] and [`Database::rotate`]
/// are whole ones; this is for several processes that share a table. It has no state: what says which
/// process has which range is the caller's.
///
/// 1. One process divides the table into ranges ([`range_after`](Self::range_after)).
/// 2. Each range is converted, step by step ([`convert`](Self::convert)). Each row is changed with
///    compare-and-swap, so two processes may have the same range.
/// 3. When all have ended, one process converts what others have written meanwhile, in
///    [rounds](Self::ROUNDS) over the whole table, until there was nothing to do
///    ([`convert_late`](Self::convert_late)).
/// 4. The same process [ends](Self::end) it.
#[derive(Clone, Debug)]
pub struct Conversion {
    database: Database,
    ring: KeyRing,
    kind: Kind,
}

/// What a conversion does to a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Encrypts what is plain, and rewrites the table at the end if told.
    Encrypt { rewrite: bool },
    /// Gives every encrypted value a new data key.
    Reencrypt,
    /// Wraps the data keys that are not under the active key.
    Rewrap,
}

/// The rows with names after one and up to another, in the table's order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Range {
    /// The last name before it; none if it begins with the table.
    pub after: Option<String>,
    /// Its last name; none if it ends with the table.
    pub upto: Option<String>,
}

impl Range {
    /// Describes a range. The default is the whole table.
    #[must_use]
    pub fn new(after: Option<String>, upto: Option<String>) -> Self {
        Self { after, upto }
    }
}

/// The result of one step.
#[derive(Debug)]
#[non_exhaustive]
pub struct Step {
    /// The number of rows that this step has changed.
    pub converted: u64,
    /// Whether no row was left to change: neither by this step nor by others at the same moment.
    pub is_settled: bool,
    /// Rows that cannot be converted, unchanged; each is an `Integrity` error.
    pub damaged: Vec<Error>,
    /// Rows that others have changed at the same moment, and of which nothing will show that they were
    /// not converted: [`convert_again`](Conversion::convert_again) converts them.
    pub lost: Vec<String>,
    /// What is left of the range.
    pub rest: Option<Range>,
}

/// The end of a conversion.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ended {
    /// Whether the table was rewritten, as [`Encrypted::rewritten`](crate::Encrypted::rewritten).
    pub rewritten: bool,
    /// Where plain text may remain, as
    /// [`Encrypted::out_of_reach`](crate::Encrypted::out_of_reach).
    pub out_of_reach: Vec<&'static str>,
}

impl Conversion {
    /// How many rounds over the whole table may find rows that others have written meanwhile, and how often
    /// a row is tried.
    pub const ROUNDS: usize = ROUNDS;

    /// How long what is known about an interrupted [re-encryption](Self::reencryption) counts.
    pub const INTERRUPTED: Duration = INTERRUPTED;

    /// A conversion with a key ring whose active key may be used for writing.
    pub(crate) async fn begin(database: &Database, ring: &KeyRing, kind: Kind) -> Result<Self> {
        let registered = database.registered(ring).await;
        registered.map_err(database.failed(Operation::Write))?;
        Ok(Self {
            database: database.clone(),
            ring: ring.clone(),
            kind,
        })
    }

    /// The key under which rows will be. Processes with different ones would undo each other's work.
    #[must_use]
    pub fn key(&self) -> &KeyId {
        self.ring.active()
    }

    /// What tells the table apart from every other one, also from one that has its address on another host:
    /// a random text in the second table.
    ///
    /// # Errors
    /// `InvalidConfig` for a file, and if the database fails.
    pub async fn table_id(&self) -> Result<String> {
        let id = async {
            let client = self.database.client();
            if client.is_file() {
                let refused = "processes do not share a file: on another host, it is another one";
                return Err(Error::new(ErrorKind::InvalidConfig, refused)
                    .with_hint("one process converts it, without a journal"));
            }
            let new = Uuid::new_v4().simple().to_string();
            // Only the first counts.
            client.put_meta(TABLE, new.as_bytes(), false).await?;
            let entries = client.meta().await?;
            let entry = entries.into_iter().find(|(name, _)| name == TABLE);
            entry
                .and_then(|(_, id)| String::from_utf8(id).ok())
                .ok_or_else(|| {
                    Error::new(
                        ErrorKind::Integrity,
                        "the id of the table is missing or is no text",
                    )
                })
        };
        id.await.map_err(self.database.failed(Operation::Write))
    }

    /// The id of the re-encryption that is under way with this key, a random number in the second table. Begins
    /// one if there is none; [`end`](Self::end) ends it. Rows do not show that they have a new data key: whoever
    /// keeps how far they have come keeps it for this id, and not for longer than
    /// [so long](Self::INTERRUPTED) without progress.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn reencryption(&self) -> Result<u64> {
        let under_way = Reencryption::under_way(self.database.client(), self.key()).await;
        let under_way = under_way.map_err(self.database.failed(Operation::Write))?;
        Ok(under_way.id)
    }

    /// The range of the next rows after a name, at most so many, and their number. `None` if there are
    /// none.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn range_after(
        &self,
        after: Option<&str>,
        rows: usize,
    ) -> Result<Option<(Range, u64)>> {
        let end = self.database.client().range_end(after, rows).await;
        let end = end.map_err(self.database.failed(Operation::List))?;
        Ok(end.map(|(upto, rows)| (Range::new(after.map(str::to_owned), Some(upto)), rows)))
    }

    /// Converts the first rows of a range, in one transaction, and says what is left of it. After an
    /// interruption, the range can be begun again.
    ///
    /// # Errors
    /// `InvalidConfig` if the active key was retired, and if the database fails.
    pub async fn convert(&self, range: &Range) -> Result<Step> {
        let step = self.step(&self.filter(), range).await;
        step.map_err(self.database.failed(Operation::Write))
    }

    /// The same for rows that were written by processes with other settings after their range had ended.
    ///
    /// # Errors
    /// As [`convert`](Self::convert).
    pub async fn convert_late(&self, range: &Range) -> Result<Step> {
        let step = self.step(&self.late(), range).await;
        step.map_err(self.database.failed(Operation::Write))
    }

    /// Whether there are rows that show that they were not converted, and that can be.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn has_late(&self) -> Result<bool> {
        let has_late = async {
            let mut range = Some(Range::default());
            while let Some(left) = range {
                let (rows, rest) = self.scan(&self.late(), &left).await?;
                if rows
                    .into_iter()
                    .any(|(name, row)| self.changed(name, row).is_ok())
                {
                    return Ok(true);
                }
                range = rest;
            }
            Ok(false)
        };
        has_late
            .await
            .map_err(self.database.failed(Operation::Read))
    }

    /// Converts rows that a step has lost to others. What it loses again can be tried again; after
    /// [so many attempts](Self::ROUNDS), there is [no end](Self::too_fast).
    ///
    /// # Errors
    /// As [`convert`](Self::convert).
    pub async fn convert_again(&self, names: &[String]) -> Result<Step> {
        let step = self.step_again(names).await;
        step.map_err(self.database.failed(Operation::Write))
    }

    /// What is done once, after all rows: encryption rewrites the table, if told, and a re-encryption is under
    /// way no longer. `still` is called from time to time while the database works on that, which may take
    /// hours.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn end(&self, still: &(dyn Fn() + Sync)) -> Result<Ended> {
        let client = self.database.client();
        let ended = async {
            let rewrite = match self.kind {
                Kind::Encrypt { rewrite } => rewrite,
                Kind::Reencrypt => {
                    Reencryption::end(client).await?;
                    return Ok(Ended::default());
                }
                Kind::Rewrap => return Ok(Ended::default()),
            };
            Ok(Ended {
                rewritten: client.scrub(rewrite, still).await?,
                out_of_reach: client.out_of_reach().to_vec(),
            })
        };
        ended.await.map_err(self.database.failed(Operation::Write))
    }

    /// That there is no end: every round has found rows to convert.
    #[must_use]
    pub fn too_fast(&self) -> Error {
        let error = Error::new(
            ErrorKind::Conflict,
            "rows are changed faster than they are converted",
        );
        error
            .with_operation(Operation::Write)
            .with_store(self.database.to_string())
            .with_hint(match self.kind {
                Kind::Encrypt { .. } => {
                    "let all processes write encrypted rows (mode=converting or mode=encrypted), and run it again"
                }
                Kind::Reencrypt | Kind::Rewrap => {
                    "activate the key in every process that writes, and run it again"
                }
            })
    }

    /// Converts all rows that are left, in rounds until there is nothing to do. Returns those that cannot
    /// be converted.
    pub(crate) async fn rest(&self, changed: &mut (dyn FnMut(u64) + Send)) -> Result<Vec<Error>> {
        for _ in 0..ROUNDS {
            let (mut damaged, mut is_settled) = (Vec::new(), true);
            let mut range = Some(Range::default());
            while let Some(left) = range {
                let step = self.convert_late(&left).await?;
                is_settled &= step.is_settled;
                damaged.extend(step.damaged);
                changed(step.converted);
                range = step.rest;
            }
            if is_settled {
                return Ok(damaged);
            }
        }
        Err(self.too_fast())
    }

    /// The number of rows that it is to convert.
    pub(crate) async fn count(&self) -> Result<u64> {
        let count = self.database.client().count(&self.filter()).await;
        count.map_err(self.database.failed(Operation::Write))
    }

    /// The rows that a range is searched for.
    fn filter(&self) -> Filter {
        match self.kind {
            Kind::Reencrypt => Filter::Sealed,
            Kind::Encrypt { .. } | Kind::Rewrap => self.late(),
        }
    }

    /// The rows that show that they were not converted.
    fn late(&self) -> Filter {
        match self.kind {
            Kind::Encrypt { .. } => Filter::Plain,
            Kind::Reencrypt | Kind::Rewrap => {
                Filter::SealedNotUnder(self.ring.active().to_string())
            }
        }
    }

    async fn step(&self, filter: &Filter, range: &Range) -> Result<Step> {
        let (rows, rest) = self.scan(filter, range).await?;
        let step = self.swap(rows).await?;
        Ok(Step { rest, ..step })
    }

    /// The first rows of a range, and what is left of it.
    async fn scan(
        &self,
        filter: &Filter,
        range: &Range,
    ) -> Result<(Vec<(String, Row)>, Option<Range>)> {
        let client = self.database.client();
        let (after, upto) = (range.after.as_deref(), range.upto.as_deref());
        let rows = client.scan(filter, after, upto, STEP).await?;
        let rest = match rows.last() {
            Some((last, _)) if rows.len() == STEP => {
                Some(Range::new(Some(last.clone()), range.upto.clone()))
            }
            _ => None,
        };
        Ok((rows, rest))
    }

    async fn step_again(&self, names: &[String]) -> Result<Step> {
        let wanted: Vec<&str> = names.iter().map(String::as_str).collect();
        let found = self.database.client().read(&wanted, Columns::Sealed);
        let rows = found.await?.into_iter();
        self.swap(
            rows.map(|(place, row)| (names[place].clone(), row))
                .collect(),
        )
        .await
    }

    /// Changes rows, one by one or in one statement, depending on the engine.
    async fn swap(&self, rows: Vec<(String, Row)>) -> Result<Step> {
        let (mut swaps, mut damaged) = (Vec::with_capacity(rows.len()), Vec::new());
        for (coordinate, row) in rows {
            match self.changed(coordinate, row) {
                Ok(swap) => swaps.push(swap),
                Err(error) => damaged.push(self.database.failed(Operation::Write)(error)),
            }
        }
        let swapped = if swaps.is_empty() {
            HashSet::new()
        } else {
            self.database.client().swap(&swaps).await?
        };
        if let Some(swap) = swaps.first()
            && swapped.is_empty()
        {
            self.still_registered(&swap.after.key_id).await?;
        }
        let is_settled = swaps.is_empty();
        // A row that another process has just rewrapped still has its old data key. What is plain or under
        // another key is found in the next round.
        let lost = match self.kind {
            Kind::Reencrypt => swaps
                .into_iter()
                .map(|swap| swap.coordinate)
                .filter(|name| !swapped.contains(name))
                .collect(),
            Kind::Encrypt { .. } | Kind::Rewrap => Vec::new(),
        };
        Ok(Step {
            converted: swapped.len() as u64,
            is_settled,
            damaged,
            lost,
            rest: None,
        })
    }

    /// What becomes of a row, or why it cannot be converted.
    fn changed(&self, coordinate: String, row: Row) -> Result<Swap> {
        let binding = Binding {
            coordinate: &coordinate,
            expires: row.expires,
        };
        let changed = row
            .content
            .and_then(|content| self.kind.change(&self.ring, &content, binding));
        match changed {
            Ok((before, after)) => Ok(Swap {
                coordinate,
                expires: row.expires,
                before,
                after,
            }),
            Err(error) => Err(error.with_coordinate(coordinate)),
        }
    }

    /// Distinguishes a retired key from rows that others have changed.
    async fn still_registered(&self, key_id: &str) -> Result<()> {
        let name = ring_check::entry(key_id);
        let entries = self.database.client().meta().await?;
        if entries.iter().any(|(known, _)| *known == name) {
            return Ok(());
        }
        Err(ring_check::retired(&key_id.parse()?))
    }
}

impl Kind {
    fn change(
        self,
        ring: &KeyRing,
        content: &Content,
        binding: Binding<'_>,
    ) -> Result<(Before, Sealed)> {
        match self {
            Self::Encrypt { .. } => match content {
                Content {
                    payload: Some(value),
                    ..
                } if !content.is_touched_by_encryption() => {
                    let after = Sealed::seal(ring, binding, value)?;
                    Ok((Before::Plain(value.clone()), after))
                }
                _ => Err(Error::new(
                    ErrorKind::Integrity,
                    "the row is partly plain and partly encrypted",
                )
                .with_hint("restore it from a backup, or delete it")),
            },
            Self::Reencrypt => change(content, |sealed| {
                Sealed::seal(ring, binding, &sealed.clone().open(ring, binding)?)
            }),
            Self::Rewrap => change(content, |sealed| sealed.rewrap(ring, binding)),
        }
    }
}

fn change(
    content: &Content,
    after: impl FnOnce(&Sealed) -> Result<Sealed>,
) -> Result<(Before, Sealed)> {
    let sealed = content.to_sealed().ok_or_else(|| {
        Error::new(
            ErrorKind::Integrity,
            "the row was altered or damaged: columns of its encrypted value are empty",
        )
    })?;
    let after = after(&sealed)?;
    Ok((Before::Sealed(sealed.wrapped_key), after))
}
