//! Names in the database: tables are quoted, coordinates are stored unchanged.
//!
//! A coordinate is a value in a text column. Every name that
//! [`secret_persistence_core::Coordinate`] accepts is stored and looked up byte for byte, without
//! escaping, case folding or aliases. Results are matched by their bytes too, so a column with an
//! unusual collation cannot return another name.

use std::fmt;
use std::str::FromStr;

use secret_persistence_core::{Error, ErrorKind, Result};

/// The longest identifier of Postgres, minus the suffix of the second table.
/// <https://www.postgresql.org/docs/current/sql-syntax-lexical.html#SQL-SYNTAX-IDENTIFIERS>
const MAX_IDENTIFIER_BYTES: usize = 63 - META_SUFFIX.len();

const META_SUFFIX: &str = "_meta";

/// The name of the table with the secrets: `secrets`, `public.secrets`, `"Odd name"`.
///
/// Parsed once, and always quoted in SQL. A part is a letter or `_`, followed by letters, digits,
/// `_` or `$`, all ASCII; or any text without control characters between double quotes, in which a
/// double quote is written twice. Case is significant, quoted or not.
///
/// ```
/// use secret_persistence_db::TableName;
///
/// let table: TableName = "public.secrets".parse()?;
/// assert_eq!(table.quoted(), r#""public"."secrets""#);
/// assert_eq!(table.meta().to_string(), "public.secrets_meta");
/// assert!("secrets; DROP TABLE secrets".parse::<TableName>().is_err());
/// # Ok::<(), secret_persistence_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableName {
    schema: Option<String>,
    table: String,
}

impl TableName {
    /// The schema, if there is one.
    #[must_use]
    pub fn schema(&self) -> Option<&str> {
        self.schema.as_deref()
    }

    /// The table's name without schema and quotes.
    #[must_use]
    pub fn table(&self) -> &str {
        &self.table
    }

    /// The quoted name for SQL.
    #[must_use]
    pub fn quoted(&self) -> String {
        match &self.schema {
            Some(schema) => format!("{}.{}", quote(schema), quote(&self.table)),
            None => quote(&self.table),
        }
    }

    /// The second table, which contains check values and cursors: the same name with `_meta`.
    #[must_use]
    pub fn meta(&self) -> Self {
        Self {
            schema: self.schema.clone(),
            table: format!("{}{META_SUFFIX}", self.table),
        }
    }
}

impl FromStr for TableName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (first, rest) = identifier(text)?;
        let Some(rest) = rest.strip_prefix('.') else {
            return if rest.is_empty() {
                Ok(Self {
                    schema: None,
                    table: first,
                })
            } else {
                Err(invalid("there is extra text after the table's name"))
            };
        };
        let (table, rest) = identifier(rest)?;
        if !rest.is_empty() {
            return Err(invalid("a table's name must be `table` or `schema.table`"));
        }
        Ok(Self {
            schema: Some(first),
            table,
        })
    }
}

/// The form in settings, quoted only if necessary.
impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, part) in self.schema.iter().chain([&self.table]).enumerate() {
            if index > 0 {
                f.write_str(".")?;
            }
            if is_plain(part) {
                f.write_str(part)?;
            } else {
                f.write_str(&quote(part))?;
            }
        }
        Ok(())
    }
}

/// Parses one identifier, and returns the rest.
fn identifier(text: &str) -> Result<(String, &str)> {
    let (name, rest) = if let Some(mut rest) = text.strip_prefix('"') {
        let mut name = String::new();
        loop {
            let (part, after) = rest
                .split_once('"')
                .ok_or_else(|| invalid("a quoted name has no closing quote"))?;
            name.push_str(part);
            match after.strip_prefix('"') {
                Some(after) => {
                    name.push('"');
                    rest = after;
                }
                None => break (name, after),
            }
        }
    } else {
        let end = text.find('.').unwrap_or(text.len());
        let (name, rest) = text.split_at(end);
        if !is_plain(name) {
            return Err(invalid(
                "a name may have ASCII letters, digits, `_` and `$`, and must not begin with a digit",
            )
            .with_hint("put double quotes around any other name"));
        }
        (name.to_owned(), rest)
    };
    if name.is_empty() || name.chars().any(char::is_control) {
        return Err(invalid("a name is empty or contains a control character"));
    }
    if name.len() > MAX_IDENTIFIER_BYTES {
        return Err(invalid("a name may have at most 58 bytes"));
    }
    Ok((name, rest))
}

fn is_plain(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_$".contains(&byte))
}

pub(crate) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn invalid(message: &'static str) -> Error {
    Error::new(
        ErrorKind::InvalidConfig,
        format!("the table's name cannot be used: {message}"),
    )
}

#[cfg(test)]
mod tests {
    use secret_persistence_core::Coordinate;

    use super::*;

    #[test]
    fn names_are_parsed_and_quoted() {
        for (text, quoted) in [
            ("secrets", r#""secrets""#),
            ("Secrets", r#""Secrets""#),
            ("public.secrets", r#""public"."secrets""#),
            (r#""odd "" name".t"#, r#""odd "" name"."t""#),
            (r#""a.b""#, r#""a.b""#),
            ("_s$1", r#""_s$1""#),
        ] {
            let name: TableName = text.parse().unwrap();
            assert_eq!(name.quoted(), quoted, "{text}");
            assert_eq!(name.to_string().parse::<TableName>().unwrap(), name);
        }
    }

    #[test]
    fn nothing_else_gets_into_sql() {
        for text in [
            "",
            ".",
            "a.",
            ".b",
            "a.b.c",
            "a b",
            "1a",
            "a;b",
            "a'b",
            "a\"b",
            "\"a",
            "\"\"",
            "\"a\"b",
            "\"a\nb\"",
            "ä",
            "a--",
            &"x".repeat(59),
        ] {
            let error = text.parse::<TableName>().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{text}");
        }
    }

    /// Core refuses what would be an alias elsewhere, or it is simply another name here.
    #[test]
    fn no_alias_of_a_managed_name_reaches_the_database() {
        let managed = "airbyte_workspace_1_secret_2_v3";
        for alias in [
            "AIRBYTE_workspace_1_secret_2_v3",
            "airbyte-workspace-1-secret-2-v3",
            "airbyte_workspace_1_secret_2_v03",
            "airbyte_workspace_1_secret_2_v3 ",
            "x/airbyte_workspace_1_secret_2_v3",
            "airbyte_workspace_1_secret_2_v3\0",
            "\u{feff}airbyte_workspace_1_secret_2_v3",
        ] {
            assert!(Coordinate::parse(alias).is_err(), "{alias:?}");
        }
        assert!(Coordinate::parse(managed).unwrap().managed().is_some());
    }
}
