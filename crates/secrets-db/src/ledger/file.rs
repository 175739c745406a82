//! A ledger in a folder of JSON lines: each chain has files of its own, so that processes do not
//! share one, and whole files can be archived and pruned.

use std::collections::{BTreeMap, HashMap};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use secret_persistence_core::{Error, ErrorKind, Result, Timestamp};
use serde::Deserialize;
use tokio::task::spawn_blocking;

use super::line::Stored;
use super::table::{Append, ELSEWHERE, Examine, Names, RETURNED};

/// After this time, the next line begins a new file, so that old lines can be pruned although their
/// process still writes.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

const EXTENSION: &str = ".jsonl";

/// Locked by a prune, from its verification to its last removal.
const PRUNE_LOCK: &str = "prune.lock";

/// The digits of a file's first sequence, so that names sort like numbers.
const DIGITS: usize = 12;

/// Writes the files of one process.
pub(super) struct Appender {
    folder: PathBuf,
    most_bytes: u64,
    current: Option<Current>,
}

/// The file that is being written. It is locked, so that nobody prunes it.
struct Current {
    file: File,
    writer: String,
    bytes: u64,
    since: Instant,
}

impl Appender {
    pub(super) fn new(folder: PathBuf, most_bytes: u64) -> Self {
        Self {
            folder,
            most_bytes,
            current: None,
        }
    }
}

#[async_trait]
impl Append for Appender {
    async fn append(&mut self, lines: &[Stored]) -> Result<()> {
        // Taken out, so that a call that is cancelled or fails leaves none.
        let (folder, current, most) = (self.folder.clone(), self.current.take(), self.most_bytes);
        let first = lines
            .first()
            .map(|line| (line.writer.clone(), line.sequence));
        let mut text = String::with_capacity(lines.iter().map(|line| line.text.len() + 1).sum());
        for line in lines {
            text.push_str(&line.text);
            text.push('\n');
        }
        let write = move || -> io::Result<Option<Current>> {
            create_folder(&folder)?;
            let Some((writer, sequence)) = first else {
                let probe = folder.join(format!("{}.probe", uuid::Uuid::new_v4()));
                create_private(&probe)?;
                std::fs::remove_file(&probe)?;
                return Ok(current);
            };
            let fits = |current: &Current| {
                current.writer == writer
                    && current.bytes < most
                    && current.since.elapsed() < LONGEST
            };
            let mut current = match current.filter(fits) {
                Some(current) => current,
                None => Current::create(&folder, writer, sequence)?,
            };
            current.file.write_all(text.as_bytes())?;
            current.file.sync_data()?;
            current.bytes += text.len() as u64;
            Ok(Some(current))
        };
        let written = spawn_blocking(write).await.map_err(|_| ended())?;
        self.current = written.map_err(|error| failed(&self.folder, error))?;
        Ok(())
    }
}

impl Current {
    fn create(folder: &Path, writer: String, sequence: i64) -> io::Result<Self> {
        let file = create_private(&folder.join(name(&writer, sequence)))?;
        file.lock()?;
        // The name must survive a power failure too.
        File::open(folder)?.sync_all()?;
        Ok(Self {
            file,
            writer,
            bytes: 0,
            since: Instant::now(),
        })
    }
}

/// Reads and prunes a folder.
#[derive(Clone)]
pub(super) struct Examiner {
    folder: PathBuf,
}

impl Examiner {
    pub(super) fn open(folder: &Path) -> Result<Self> {
        if !folder.is_dir() {
            let message = format!("the folder {} does not exist", folder.display());
            return Err(Error::new(ErrorKind::InvalidConfig, message).with_hint("check the path"));
        }
        Ok(Self {
            folder: folder.to_owned(),
        })
    }

    /// The first sequences of the files of every chain. The mark of a prune has the file 0.
    fn chains(&self) -> io::Result<BTreeMap<String, Vec<i64>>> {
        let mut chains: BTreeMap<String, Vec<i64>> = BTreeMap::new();
        for entry in self.folder.read_dir()? {
            let name = entry?.file_name();
            let Some((writer, first)) = name
                .to_str()
                .and_then(|name| name.strip_suffix(EXTENSION)?.split_once('.'))
            else {
                continue;
            };
            if let Ok(first) = first.parse() {
                chains.entry(writer.into()).or_default().push(first);
            }
        }
        chains.values_mut().for_each(|files| files.sort_unstable());
        Ok(chains)
    }

    fn read(&self, each: &mut (dyn FnMut(Stored) + Send)) -> io::Result<u64> {
        let mut unfinished = 0;
        for (writer, files) in self.chains()? {
            // What an interrupted prune has left is before its mark.
            let mut mark = 0;
            let mut next = 1;
            for (index, first) in files.iter().enumerate() {
                let is_last = index + 1 == files.len();
                let file = File::open(self.folder.join(name(&writer, *first)))?;
                let closed = !is_last || file.try_lock_shared().is_ok();
                let mut lines = BufReader::new(&file);
                let mut bytes = Vec::new();
                let mut held: Option<Stored> = None;
                loop {
                    bytes.clear();
                    if lines.read_until(b'\n', &mut bytes)? == 0 {
                        break;
                    }
                    // What is not UTF-8 is no line of ours, and must not end the search.
                    let text = String::from_utf8_lossy(&bytes);
                    let read = Columns::of(&text);
                    if is_last && read.is_none() && !text.ends_with('\n') {
                        // Cut off: by a crash in the middle of a write, or by somebody.
                        unfinished += 1;
                        break;
                    }
                    let columns = read.unwrap_or(Columns {
                        sequence: next,
                        at: Timestamp::now(),
                        coordinate: String::new(),
                    });
                    if columns.sequence <= mark {
                        continue;
                    }
                    if *first == 0 {
                        mark = columns.sequence;
                    }
                    next = columns.sequence.saturating_add(1);
                    let line = Stored {
                        writer: writer.clone(),
                        sequence: columns.sequence,
                        at: columns.at.unix_seconds(),
                        coordinate: columns.coordinate,
                        text: text.trim_end_matches('\n').to_owned(),
                        separable: false,
                    };
                    if let Some(before) = held.replace(line) {
                        each(before);
                    }
                }
                if let Some(mut last) = held {
                    last.separable = closed;
                    each(last);
                }
            }
        }
        Ok(unfinished)
    }

    /// Reads every file once, and keeps one line for each name, the marks and the oldest line. A name
    /// comes with whether its lines of every storage count, or only those of the default one.
    fn history_of(&self, names: Vec<(String, bool)>) -> io::Result<Vec<Stored>> {
        let mut last: HashMap<String, (bool, Option<Stored>)> = names
            .into_iter()
            .map(|(name, anywhere)| (name, (anywhere, None)))
            .collect();
        let (mut found, mut oldest): (Vec<Stored>, Option<Stored>) = (Vec::new(), None);
        self.read(&mut |line| {
            if line.coordinate.is_empty() {
                found.push(line);
                return;
            }
            if oldest.as_ref().is_none_or(|oldest| line.at < oldest.at) {
                oldest = Some(line.clone());
            }
            if let Some((anywhere, last)) = last.get_mut(&line.coordinate)
                && last.as_ref().is_none_or(|last| line.at >= last.at)
                && RETURNED.iter().all(|part| line.text.contains(part))
                && (*anywhere || !line.text.contains(ELSEWHERE))
            {
                *last = Some(line);
            }
        })?;
        let last = last.into_values().filter_map(|(_, last)| last);
        found.extend(last.chain(oldest));
        Ok(found)
    }

    fn remove(&self, mark: &Stored) -> io::Result<()> {
        let chains = self.chains()?;
        let files = chains
            .get(&mark.writer)
            .map(Vec::as_slice)
            .unwrap_or_default();
        // First the mark, so that a crash leaves lines too many and not too few.
        let path = self.folder.join(name(&mark.writer, 0));
        let temporary = path.with_extension("new");
        let _ = std::fs::remove_file(&temporary);
        let mut file = create_private(&temporary)?;
        file.write_all(mark.text.as_bytes())?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        std::fs::rename(&temporary, &path)?;
        File::open(&self.folder)?.sync_all()?;
        for first in files
            .iter()
            .filter(|first| (1..=mark.sequence).contains(*first))
        {
            std::fs::remove_file(self.folder.join(name(&mark.writer, *first)))?;
        }
        Ok(())
    }
}

#[async_trait]
impl Examine for Examiner {
    async fn scan(&self, each: &mut (dyn FnMut(Stored) + Send)) -> Result<u64> {
        // A program that reads a ledger waits for it.
        self.read(each).map_err(|error| failed(&self.folder, error))
    }

    async fn search(
        &self,
        query: &super::LedgerQuery,
        each: &mut (dyn FnMut(Stored) + Send),
    ) -> Result<()> {
        let mut found = Vec::new();
        self.scan(&mut |stored| {
            if query.has_columns(stored.at, &stored.coordinate) {
                found.push(stored);
            }
        })
        .await?;
        found.sort_by(|one, other| {
            (one.at, &one.writer, one.sequence).cmp(&(other.at, &other.writer, other.sequence))
        });
        found.into_iter().for_each(each);
        Ok(())
    }

    async fn history(
        &self,
        names: &Names<'_>,
        each: &mut (dyn FnMut(Stored) + Send),
    ) -> Result<()> {
        let owned = |anywhere: bool| move |name: &&str| ((*name).to_owned(), anywhere);
        let managed = names.managed.iter().map(owned(true));
        let names: Vec<(String, bool)> = managed
            .chain(names.external.iter().map(owned(false)))
            .collect();
        let ours = self.clone();
        // A service asks too, and its other calls go on.
        let found = spawn_blocking(move || ours.history_of(names))
            .await
            .map_err(|_| ended())?;
        found
            .map_err(|error| failed(&self.folder, error))?
            .into_iter()
            .for_each(each);
        Ok(())
    }

    async fn alone(&self) -> Result<Option<File>> {
        let path = self.folder.join(PRUNE_LOCK);
        let lock = move || -> io::Result<File> {
            let file = open_private(&path)?;
            file.lock()?;
            Ok(file)
        };
        let locked = spawn_blocking(lock).await.map_err(|_| ended())?;
        locked
            .map(Some)
            .map_err(|error| failed(&self.folder, error))
    }

    async fn prune(&self, mark: &Stored, _: u64) -> Result<()> {
        self.remove(mark)
            .map_err(|error| failed(&self.folder, error))
    }
}

/// The columns of a table, which a file takes from the lines.
#[derive(Deserialize)]
struct Columns {
    sequence: i64,
    at: Timestamp,
    #[serde(default)]
    coordinate: String,
}

impl Columns {
    fn of(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }
}

fn name(writer: &str, first: i64) -> String {
    format!("{writer}.{first:0DIGITS$}{EXTENSION}")
}

fn create_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

fn create_private(path: &Path) -> io::Result<File> {
    private().create_new(true).open(path)
}

fn open_private(path: &Path) -> io::Result<File> {
    private().create(true).open(path)
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.append(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

fn failed(folder: &Path, error: io::Error) -> Error {
    Error::new(
        ErrorKind::Unavailable,
        format!("the ledger in {} cannot be used", folder.display()),
    )
    .with_hint("free disk space, or correct the permissions of the folder and its files")
    .with_source(error)
}

fn ended() -> Error {
    Error::new(
        ErrorKind::Unavailable,
        "the work on the ledger ended midway",
    )
}
