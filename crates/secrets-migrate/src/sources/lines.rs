//! A JSON lines file: `{"id","prefix"?,"baseId","connectionSpecification"?,"configuration"}`.
use std::collections::HashMap;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use parking_lot::{Mutex, MutexGuard};
use secret_persistence_core::SecretValue;
use secret_persistence_core::settings::unknown;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::json;
use crate::address::query_of_file;
use crate::private_file::{PrivateFile, not_trusted, not_written, open_own};
use crate::{
    Access, ConfigCursor, ConfigPage, ConfigRow, ConfigSource, MigrateError, MigrateErrorKind,
    MigrateResult, Update,
};

const KEYS: [&str; 5] = [
    "id",
    "prefix",
    "baseId",
    "connectionSpecification",
    "configuration",
];

/// An input file. Updates never change it: they go to `<output>.part`, which a later run continues,
/// and which becomes the output, a new file, once every row was processed.
#[derive(Debug)]
pub(super) struct Lines {
    path: PathBuf,
    output: PathBuf,
    opened: Stamp,
    changes: Option<Mutex<Changes>>,
}

/// The data that shows whether a file has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    length: u64,
    modified: Option<SystemTime>,
}

/// The updated rows: the offset of each in the part file.
#[derive(Debug, Default)]
struct Changes {
    part: Option<File>,
    /// Whether the part file is open for writing; the first update opens it.
    is_writable: bool,
    path: PathBuf,
    offsets: HashMap<String, u64>,
    end: u64,
}

impl Lines {
    /// Opens `file` or `file?output=other file`.
    pub(super) fn open(text: &str, access: Access) -> MigrateResult<Self> {
        let (file, mut parameters) = query_of_file(text)?;
        let path = PathBuf::from(file);
        let at = |error: MigrateError| error.within(path.display());
        if !path.is_file() {
            return Err(at(MigrateError::configurations(
                "there is no such file (write a database as a URL, like sqlite:config.db?table=…)",
            )));
        }
        let output = match parameters.iter().position(|(key, _)| key == "output") {
            Some(index) => PathBuf::from(parameters.remove(index).1),
            None => split_name(&path),
        };
        if let Some((key, _)) = parameters.first() {
            return Err(at(MigrateError::of_setting(unknown(
                key,
                ["output"].into_iter(),
            ))));
        }
        let opened = stamp(&path).map_err(|cause| {
            at(MigrateError::configurations("the file cannot be read").with_source(cause))
        })?;
        let changes = match access {
            Access::Update => {
                if output.exists() {
                    return Err(MigrateError::undecided(format!(
                        "{} already exists and would be replaced; move it away, or choose another file with ?output=…",
                        output.display()
                    )));
                }
                Some(Mutex::new(Changes::resume(&output)?))
            }
            Access::ReadOnly => None,
        };
        Ok(Self {
            path,
            output,
            opened,
            changes,
        })
    }

    fn changes(&self) -> Option<MutexGuard<'_, Changes>> {
        self.changes.as_ref().map(|changes| changes.lock())
    }

    /// The rows from an offset on, with their updates: `(row, offset of the next line)`.
    fn read(
        &self,
        offset: u64,
        number: u64,
    ) -> MigrateResult<impl Iterator<Item = MigrateResult<At>> + '_> {
        let mut file = File::open(&self.path).map_err(|cause| {
            MigrateError::configurations("the file cannot be read").with_source(cause)
        })?;
        file.seek(SeekFrom::Start(offset)).map_err(|cause| {
            MigrateError::configurations("the file cannot be read").with_source(cause)
        })?;
        let lines = numbered(BufReader::with_capacity(1 << 16, file), offset, number);
        Ok(lines.map(|line| {
            let mut line = line?;
            if let Some(mut changes) = self.changes()
                && let Some(changed) = changes.line(&line.row.id)?
            {
                line.row = parse(&changed)?.with_place(format!("line {}", line.number));
            }
            Ok(line)
        }))
    }

    fn page_from(&self, after: Option<&ConfigCursor>, limit: usize) -> MigrateResult<ConfigPage> {
        let (mut offset, mut number) = (0, 0);
        if let Some(cursor) = after {
            (offset, number) = cursor
                .as_str()
                .split_once(':')
                .and_then(|(offset, number)| Some((offset.parse().ok()?, number.parse().ok()?)))
                .ok_or_else(|| MigrateError::unavailable("a cursor of another source"))?;
        }
        let mut rows = Vec::new();
        for line in self.read(offset, number)? {
            let line = line?;
            (offset, number) = (line.next, line.number);
            rows.push(line.row);
            if rows.len() == limit {
                return Ok(ConfigPage::new(
                    rows,
                    Some(ConfigCursor::new(format!("{offset}:{number}"))),
                ));
            }
        }
        Ok(ConfigPage::new(rows, None))
    }

    fn find(&self, id: &str) -> MigrateResult<Option<ConfigRow>> {
        for line in self.read(0, 0)? {
            let line = line?;
            if line.row.id == id {
                return Ok(Some(line.row));
            }
        }
        Ok(None)
    }

    fn put_into_place(&self) -> MigrateResult<()> {
        let Some(mut changes) = self.changes() else {
            return Ok(());
        };
        // Without any change, a new file would be identical.
        if changes.part.is_none() {
            return Ok(());
        }
        let changed = || {
            MigrateError::undecided(format!(
                "the file has changed during the run, so {} was not written. Secrets and {} are kept; undo the change and run the same command again",
                self.output.display(),
                changes.path.display(),
            ))
        };
        let now = stamp(&self.path).map_err(|_| changed())?;
        if now != self.opened {
            return Err(changed());
        }
        let mut new = PrivateFile::begin(&self.output)?;
        let mut writer = BufWriter::new(&mut new);
        let file = File::open(&self.path).map_err(|cause| {
            MigrateError::unavailable("the file cannot be read").with_source(cause)
        })?;
        let written = |cause: io::Error| not_written(&self.output, cause);
        for line in numbered(BufReader::with_capacity(1 << 16, file), 0, 0) {
            let line = line?;
            let text = match changes.line(&line.row.id)? {
                Some(changed) => changed,
                None => line.text,
            };
            writer
                .write_all(text.trim_end().as_bytes())
                .and_then(|()| writer.write_all(b"\n"))
                .map_err(written)?;
        }
        writer.flush().map_err(written)?;
        drop(writer);
        new.put(&self.output, false)?;
        changes.discard();
        Ok(())
    }
}

impl Changes {
    /// Reads what an earlier run left.
    fn resume(output: &Path) -> MigrateResult<Self> {
        let mut name = output.as_os_str().to_owned();
        name.push(".part");
        let mut changes = Self {
            path: PathBuf::from(name),
            ..Self::default()
        };
        // Only read it here: a dry run changes nothing.
        let file = match open_own(&changes.path, OpenOptions::new().read(true)) {
            Ok(file) => file,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(changes),
            Err(cause) => return Err(not_trusted(&changes.path, cause)),
        };
        let mut reader = BufReader::new(&file);
        loop {
            let mut line = String::new();
            match reader.read_line(&mut line) {
                // An incomplete last line is from a kill in the middle of a write.
                Ok(read) if read > 0 && line.ends_with('\n') => {
                    let row = parse(&line).map_err(|error| error.within(changes.path.display()))?;
                    changes.offsets.insert(row.id, changes.end);
                    changes.end += read as u64;
                }
                Ok(_) => break,
                Err(cause) => return Err(not_written(&changes.path, cause)),
            }
        }
        changes.part = Some(file);
        Ok(changes)
    }

    /// The line of a row's update.
    fn line(&mut self, id: &str) -> MigrateResult<Option<String>> {
        let (Some(&offset), Some(part)) = (self.offsets.get(id), &mut self.part) else {
            return Ok(None);
        };
        let mut line = String::new();
        part.seek(SeekFrom::Start(offset))
            .and_then(|_| BufReader::new(&*part).read_line(&mut line))
            .map_err(|cause| not_written(&self.path, cause))?;
        Ok(Some(line))
    }

    /// Appends a line durably.
    fn push(&mut self, id: &str, line: &str) -> MigrateResult<()> {
        let path = self.path.clone();
        let written = |cause| not_written(&path, cause);
        if !self.is_writable {
            let mut options = OpenOptions::new();
            options
                .read(true)
                .write(true)
                .create_new(self.part.is_none());
            let part = open_own(&path, &mut options).map_err(|cause| not_trusted(&path, cause))?;
            // Remove the incomplete line of a killed write.
            part.set_len(self.end).map_err(written)?;
            self.part = Some(part);
            self.is_writable = true;
        }
        let Some(part) = &mut self.part else {
            return Err(MigrateError::unavailable("the file is closed").within(path.display()));
        };
        part.seek(SeekFrom::Start(self.end))
            .and_then(|_| part.write_all(line.as_bytes()))
            .and_then(|()| part.sync_data())
            .map_err(written)?;
        self.offsets.insert(id.to_owned(), self.end);
        self.end += line.len() as u64;
        Ok(())
    }

    /// Removes the part file: the changes are in the output now.
    fn discard(&mut self) {
        self.part = None;
        self.is_writable = false;
        self.offsets.clear();
        // It contains nothing that the output does not: left behind, it only takes space.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl fmt::Display for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.display().fmt(f)
    }
}

#[async_trait]
impl ConfigSource for Lines {
    fn access(&self) -> Access {
        match self.changes {
            Some(_) => Access::Update,
            None => Access::ReadOnly,
        }
    }

    async fn page(&self, after: Option<&ConfigCursor>, limit: usize) -> MigrateResult<ConfigPage> {
        self.page_from(after, limit)
            .map_err(|error| error.within(self))
    }

    async fn row(&self, id: &str) -> MigrateResult<Option<ConfigRow>> {
        self.find(id).map_err(|error| error.within(self))
    }

    async fn update(&self, row: &ConfigRow, configuration: &Value) -> MigrateResult<Update> {
        let failed = |error: MigrateError| error.at_row(&row.id).within(self);
        let Some(mut changes) = self.changes() else {
            return Err(failed(MigrateError::configurations(
                "the file was opened read-only",
            )));
        };
        let now = changes.line(&row.id).map_err(failed)?;
        let as_read = row.as_read.as_ref().map(SecretValue::expose);
        // A row that was read before another update of the same row is outdated.
        if now.is_some() && now.as_deref().map(str::trim_end) != as_read {
            return Ok(Update::Changed);
        }
        changes
            .push(&row.id, &line_of(row, configuration))
            .map_err(failed)?;
        Ok(Update::Saved)
    }

    async fn finish(&self) -> MigrateResult<()> {
        self.put_into_place().map_err(|error| error.within(self))
    }
}

/// A line, its content, and the offset of the next one.
struct At {
    row: ConfigRow,
    text: String,
    number: u64,
    next: u64,
}

fn numbered(
    mut reader: impl BufRead,
    mut offset: u64,
    mut number: u64,
) -> impl Iterator<Item = MigrateResult<At>> {
    let mut over = false;
    std::iter::from_fn(move || {
        while !over {
            let mut text = String::new();
            number += 1;
            let row = match reader.read_line(&mut text) {
                Ok(0) => return None,
                Ok(read) => {
                    offset += read as u64;
                    if text.trim().is_empty() {
                        continue;
                    }
                    parse(&text)
                }
                Err(cause) => Err(
                    MigrateError::configurations("cannot be read, or is not UTF-8")
                        .with_source(cause),
                ),
            };
            let place = format!("line {number}");
            over = row.is_err();
            return Some(match row {
                Ok(row) => Ok(At {
                    row: row.with_place(place),
                    text,
                    number,
                    next: offset,
                }),
                Err(error) => Err(error.within(place)),
            });
        }
        None
    })
}

fn parse(line: &str) -> MigrateResult<ConfigRow> {
    let value: Value = json::parse("the line", line)?;
    let Value::Object(mut object) = value else {
        return Err(MigrateError::configurations(
            "the line is not a JSON object",
        ));
    };
    if let Some(key) = object.keys().find(|key| !KEYS.contains(&key.as_str())) {
        return Err(MigrateError::of_setting(unknown(key, KEYS.into_iter()))
            .of_kind(MigrateErrorKind::Configurations));
    }
    let configuration = object
        .get_mut("configuration")
        .map(Value::take)
        .ok_or_else(|| MigrateError::configurations("`configuration` is missing"))?;
    let mut take = |key: &str| {
        object
            .get_mut(key)
            .map(Value::take)
            .filter(|value| !value.is_null())
    };
    let specification = take("connectionSpecification").map(Arc::new);
    let mut text = |key: &str| match take(key) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(MigrateError::configurations(format!(
            "`{key}` is not a string"
        ))),
    };
    let id = text("id")?.ok_or_else(|| MigrateError::configurations("`id` is missing"))?;
    let prefix = text("prefix")?;
    let base_id = text("baseId")?
        .map(|text| {
            Uuid::parse_str(&text)
                .map_err(|_| MigrateError::configurations("`baseId` is not a UUID"))
        })
        .transpose()?;
    Ok(ConfigRow::new(id, configuration)
        .with_scope(prefix, base_id)
        .with_specification(specification)
        .with_as_read(SecretValue::new(line.trim_end().to_owned())))
}

/// A row as a line with its newline and another configuration.
fn line_of(row: &ConfigRow, configuration: &Value) -> String {
    let mut line = Map::new();
    line.insert("id".into(), row.id.clone().into());
    if let Some(prefix) = &row.prefix {
        line.insert("prefix".into(), prefix.clone().into());
    }
    if let Some(base_id) = row.base_id {
        line.insert("baseId".into(), base_id.to_string().into());
    }
    if let Some(specification) = &row.specification {
        line.insert(
            "connectionSpecification".into(),
            Value::clone(specification),
        );
    }
    line.insert("configuration".into(), configuration.clone());
    let mut text = Value::Object(line).to_string();
    text.push('\n');
    text
}

/// `configs.jsonl` → `configs.split.jsonl`.
fn split_name(path: &Path) -> PathBuf {
    let extension = path
        .extension()
        .map_or("jsonl".into(), |extension| extension.to_string_lossy());
    path.with_extension(format!("split.{extension}"))
}

fn stamp(path: &Path) -> io::Result<Stamp> {
    std::fs::metadata(path).map(|metadata| Stamp {
        length: metadata.len(),
        modified: metadata.modified().ok(),
    })
}

#[cfg(test)]
mod tests {
    use crate::Content;

    use super::*;

    const WHOLE: &str = r#"{"id":"a","baseId":"00000000-0000-0000-0000-000000000001","configuration":{"z":1,"a":2}}"#;

    fn opened(folder: &Path, text: &str, access: Access) -> MigrateResult<Lines> {
        let path = folder.join("c.jsonl");
        std::fs::write(&path, text).unwrap();
        Lines::open(path.to_str().unwrap(), access)
    }

    fn rows(text: &str) -> MigrateResult<Vec<ConfigRow>> {
        let folder = tempfile::tempdir().unwrap();
        let lines = opened(folder.path(), text, Access::ReadOnly)?;
        let mut rows = Vec::new();
        let mut after = None;
        loop {
            let page = lines.page_from(after.as_ref(), 1)?;
            rows.extend(page.rows);
            after = page.next;
            if after.is_none() {
                return Ok(rows);
            }
        }
    }

    fn configuration(row: &ConfigRow) -> String {
        match &row.content {
            Content::Configuration(value) => value.to_string(),
            Content::Coordinate(name) => name.clone(),
        }
    }

    #[test]
    fn lines_are_read_and_keys_keep_their_order() {
        let rows = rows(&format!(
            "{WHOLE}\n\n{}",
            WHOLE.replace("\"id\":\"a\"", "\"id\":\"c\"")
        ))
        .unwrap();
        assert_eq!(rows.len(), 2);
        assert_eq!(configuration(&rows[0]), r#"{"z":1,"a":2}"#);
        assert_eq!(rows[1].place.as_deref(), Some("line 3"));
    }

    #[test]
    fn what_is_wrong_is_numbered_and_not_repeated() {
        let canary = r#"{"id":"x","configuration":{"password":"canary"#;
        for (text, place) in [
            (
                format!("{WHOLE}\n{canary}"),
                "line 2: the line ends in the middle",
            ),
            (
                format!("{WHOLE}\n\n{canary}\"}}x"),
                "line 3: the line is not valid JSON",
            ),
            (
                format!("{canary}\"}},\"extra\":1}}"),
                "line 1: unknown setting `extra`",
            ),
            (
                r#"{"id":["canary"],"configuration":1}"#.into(),
                "line 1: `id` is not a string",
            ),
            (
                r#"{"configuration":"canary"}"#.into(),
                "line 1: `id` is missing",
            ),
            (
                r#"{"id":"x","baseId":"canary","configuration":1}"#.into(),
                "line 1: `baseId` is not a UUID",
            ),
            (
                "[\"canary\"]".into(),
                "line 1: the line is not a JSON object",
            ),
        ] {
            let shown = rows(&text).unwrap_err().to_string();
            assert!(shown.starts_with(place), "{shown}");
            assert!(!shown.contains("canary"), "{shown}");
        }
    }

    #[tokio::test]
    async fn updates_survive_a_kill_and_end_in_a_new_file() {
        let folder = tempfile::tempdir().unwrap();
        let text = format!(
            "{WHOLE}\n{}\n",
            WHOLE.replace("\"id\":\"a\"", "\"id\":\"b\"")
        );
        let path = folder.path().join("c.jsonl");
        let part = folder.path().join("c.split.jsonl.part");
        {
            let lines = opened(folder.path(), &text, Access::Update).unwrap();
            let row = lines.find("b").unwrap().unwrap();
            let saved = lines
                .update(&row, &serde_json::json!({"n": 1}))
                .await
                .unwrap();
            assert_eq!(saved, Update::Saved);
            // Who still has the row as it was first read comes too late.
            let late = lines
                .update(&row, &serde_json::json!({"n": 2}))
                .await
                .unwrap();
            assert_eq!(late, Update::Changed);
        }
        // Killed in the middle of another write.
        let mut torn = std::fs::read(&part).unwrap();
        torn.extend_from_slice(br#"{"id":"a","configur"#);
        std::fs::write(&part, torn).unwrap();

        let lines = Lines::open(path.to_str().unwrap(), Access::Update).unwrap();
        let rows = lines.page_from(None, 10).unwrap().rows;
        assert_eq!(configuration(&rows[0]), r#"{"z":1,"a":2}"#);
        assert_eq!(configuration(&rows[1]), r#"{"n":1}"#);
        lines.finish().await.unwrap();
        let output = std::fs::read_to_string(folder.path().join("c.split.jsonl")).unwrap();
        assert_eq!(
            output,
            format!(
                "{WHOLE}\n{}\n",
                WHOLE
                    .replace("\"id\":\"a\"", "\"id\":\"b\"")
                    .replace(r#"{"z":1,"a":2}"#, r#"{"n":1}"#)
            )
        );
        assert!(!part.exists());
        // The result of one run is not overwritten by the next.
        let again = Lines::open(path.to_str().unwrap(), Access::Update).unwrap_err();
        assert!(
            again.to_string().contains("c.split.jsonl already exists"),
            "{again}"
        );
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn a_part_file_of_somebody_else_is_refused_and_a_look_touches_nothing() {
        use std::os::unix::fs::{PermissionsExt, symlink};

        let folder = tempfile::tempdir().unwrap();
        let part = folder.path().join("c.split.jsonl.part");
        let victim = folder.path().join("victim");
        std::fs::write(&victim, "precious").unwrap();
        symlink(&victim, &part).unwrap();
        let refused = opened(folder.path(), WHOLE, Access::Update).unwrap_err();
        assert!(
            refused.to_string().contains("cannot continue with"),
            "{refused}"
        );
        assert_eq!(std::fs::read_to_string(&victim).unwrap(), "precious");
        std::fs::remove_file(&part).unwrap();

        // Torn by a kill: opening it, as a dry run does, leaves it as it is.
        let torn = format!("{WHOLE}\n{{\"id\":\"a\",\"conf");
        std::fs::write(&part, &torn).unwrap();
        std::fs::set_permissions(&part, std::fs::Permissions::from_mode(0o600)).unwrap();
        let lines = opened(folder.path(), WHOLE, Access::Update).unwrap();
        assert_eq!(std::fs::read_to_string(&part).unwrap(), torn);
        // The first update cuts the torn line off.
        let row = lines.find("a").unwrap().unwrap();
        lines.update(&row, &serde_json::json!({})).await.unwrap();
        let now = std::fs::read_to_string(&part).unwrap();
        assert_eq!(now.lines().count(), 2, "{now}");

        std::fs::set_permissions(&part, std::fs::Permissions::from_mode(0o666)).unwrap();
        let refused = opened(folder.path(), WHOLE, Access::Update).unwrap_err();
        assert!(
            refused.to_string().contains("others may write it"),
            "{refused}"
        );
    }

    #[test]
    fn the_new_file_stands_beside_the_old_one() {
        assert_eq!(
            split_name(Path::new("d/c.jsonl")),
            PathBuf::from("d/c.split.jsonl")
        );
        assert_eq!(split_name(Path::new("c")), PathBuf::from("c.split.jsonl"));
    }
}
