//! Names of tables and columns: parsed and then quoted, never inserted into SQL verbatim.
use std::fmt;

use crate::{MigrateError, MigrateResult};

/// A table, optionally with its schema, or a column. `Display` is the quoted SQL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identifier(Vec<String>);

impl Identifier {
    /// Parses `table` or `schema.table`, each part plain or in double quotes. Names are exact:
    /// Postgres keeps unquoted names in lower case, so write them in lower case.
    ///
    /// # Errors
    /// For empty parts, more than two parts, and characters that need quotes.
    pub(crate) fn table(text: &str) -> MigrateResult<Self> {
        let parts = parse(text)?;
        if parts.len() > 2 {
            return Err(invalid(text, "write a table as `table` or `schema.table`"));
        }
        Ok(Self(parts))
    }

    /// Parses a column.
    ///
    /// # Errors
    /// As for [`table`](Self::table), and for a dot outside quotes.
    pub(crate) fn column(text: &str) -> MigrateResult<Self> {
        let parts = parse(text)?;
        if parts.len() > 1 {
            return Err(invalid(text, "write a column without its table"));
        }
        Ok(Self(parts))
    }
}

impl fmt::Display for Identifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, part) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(".")?;
            }
            write!(f, "\"{}\"", part.replace('"', "\"\""))?;
        }
        Ok(())
    }
}

fn parse(text: &str) -> MigrateResult<Vec<String>> {
    let mut parts = Vec::new();
    let mut chars = text.chars().peekable();
    loop {
        let mut part = String::new();
        if chars.next_if_eq(&'"').is_some() {
            loop {
                match chars.next() {
                    None => return Err(invalid(text, "a double quote is not closed")),
                    Some('"') if chars.next_if_eq(&'"').is_some() => part.push('"'),
                    Some('"') => break,
                    Some('\0') => return Err(invalid(text, "a name contains the character NUL")),
                    Some(char) => part.push(char),
                }
            }
        } else {
            while let Some(char) =
                chars.next_if(|char| char.is_alphanumeric() || *char == '_' || *char == '$')
            {
                part.push(char);
            }
        }
        if part.is_empty() {
            return Err(invalid(text, "a name is empty or needs double quotes"));
        }
        parts.push(part);
        match chars.next() {
            None => return Ok(parts),
            Some('.') => {}
            Some(_) => {
                return Err(invalid(
                    text,
                    "other characters than letters, digits, _ and $ need double quotes",
                ));
            }
        }
    }
}

fn invalid(text: &str, reason: &str) -> MigrateError {
    let short: String = text.chars().take(80).flat_map(char::escape_debug).collect();
    MigrateError::settings(format!(
        "`{short}` is not the name of a table or column: {reason}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_whatever_they_hold() {
        for (text, sql) in [
            ("actor", r#""actor""#),
            ("public.actor", r#""public"."actor""#),
            (r#""we""ird; drop"."t t""#, r#""we""ird; drop"."t t""#),
        ] {
            assert_eq!(Identifier::table(text).unwrap().to_string(), sql);
        }
        for text in [
            "", "a.b.c", "a b", "a;b", "a\"b", "\"a", "a.", "a'--", "\"\"",
        ] {
            assert!(Identifier::table(text).is_err(), "{text}");
        }
        assert!(Identifier::column("t.c").is_err());
    }
}
