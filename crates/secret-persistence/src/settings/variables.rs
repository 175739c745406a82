//! Parses files of variables, one `NAME=value` per line.
//!
//! Docker, docker compose, systemd and shells read such files differently. This parser accepts what
//! means the same to all of them. It refuses lines that two of them would read differently.
//! `dotenvy` is not used because it replaces `$x` within passwords, drops the quotes of unquoted
//! JSON, and shows the line in its errors.

use secret_persistence_core::{Error, Result};

use super::{Environment, invalid};

/// Whether a text has this form: its first significant line is an assignment.
pub(super) fn is_of_variables(text: &str) -> bool {
    let line = text.lines().map(str::trim).find(|line| !is_comment(line));
    line.and_then(assignment).is_some()
}

/// Parses the variables.
///
/// # Errors
/// `InvalidConfig` with the line number and no value: for a line that is not an assignment, for
/// text after a closing quote, for a backslash that docker and systemd read differently, for an
/// unclosed quote, and for a name with two values.
pub(super) fn parse(text: &str) -> Result<Environment> {
    let mut found: Vec<(usize, String, String)> = Vec::new();
    let mut lines = Lines { text, number: 0 };
    while let Some(line) = lines.next() {
        // Spaces at the end of a line may be within quotes.
        let line = line.trim_start();
        if is_comment(line) {
            continue;
        }
        let number = lines.number;
        let Some((name, rest)) = assignment(line) else {
            return Err(no_assignment(number, line.trim_end(), found.last()));
        };
        let value = match rest.trim_start().chars().next() {
            Some(quote @ ('"' | '\'')) => {
                quoted(quote, rest.trim_start(), &mut lines, number, name)?
            }
            _ => {
                let value = bare(rest, number, name)?;
                if line.starts_with("export")
                    && value.contains([' ', '\t'])
                    && !value.starts_with('{')
                {
                    return Err(at_line(
                        number,
                        name,
                        "contains spaces after `export`, where a shell would read several words",
                        "write the value in single quotes, and one variable per line",
                    ));
                }
                value.to_owned()
            }
        };
        let before = found.iter().find(|(_, known, _)| known == name);
        if let Some((first, _, other)) = before
            && *other != value
        {
            return Err(invalid(format!(
                "the variable {name} has two values in the file, in lines {first} and {number}"
            ))
            .with_hint("remove one of them"));
        }
        found.push((number, name.to_owned(), value));
    }
    let encrypted = |name: &str| ["sops_mac", "sops_version"].contains(&name);
    if found.iter().any(|(_, name, _)| encrypted(name)) {
        return Err(
            invalid("the file is encrypted with SOPS").with_hint("pass the output of `sops -d`")
        );
    }
    Ok(found
        .into_iter()
        .map(|(_, name, value)| (name, value))
        .collect())
}

/// The remaining lines, and the number of the last line that was read.
struct Lines<'a> {
    text: &'a str,
    number: usize,
}

impl<'a> Lines<'a> {
    fn next(&mut self) -> Option<&'a str> {
        if self.text.is_empty() {
            return None;
        }
        self.number += 1;
        let (line, rest) = self.text.split_once('\n').unwrap_or((self.text, ""));
        self.text = rest;
        Some(line.strip_suffix('\r').unwrap_or(line))
    }
}

/// Blank lines and comments. Systemd has two kinds of comments.
fn is_comment(line: &str) -> bool {
    line.is_empty() || line.starts_with(['#', ';'])
}

/// A name and the text after its `=`. Spaces around it and a preceding `export` are allowed, as in
/// a shell.
fn assignment(line: &str) -> Option<(&str, &str)> {
    let line = match line.strip_prefix("export") {
        Some(rest) if rest.starts_with([' ', '\t']) => rest.trim_start(),
        _ => line,
    };
    let (name, value) = line.split_once('=')?;
    let name = name.trim_end();
    let first = name.bytes().next()?;
    let is_name = (first.is_ascii_alphabetic() || first == b'_')
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    is_name.then_some((name, value))
}

/// A value without quotes: to the end of the line, or to a comment, which has a space before its
/// `#`.
fn bare<'a>(text: &'a str, number: usize, name: &str) -> Result<&'a str> {
    let value = text.trim();
    // JSON may contain characters that have a meaning elsewhere.
    if value.starts_with(['{', '[']) && serde_json::from_str::<serde::de::IgnoredAny>(value).is_ok()
    {
        return Ok(value);
    }
    let is_blank = |at: usize| at > 0 && text.as_bytes()[at - 1].is_ascii_whitespace();
    let comment = text.match_indices('#').find(|(at, _)| is_blank(*at));
    let value = comment.map_or(value, |(at, _)| text[..at].trim());
    match value.ends_with('\\') {
        true => Err(at_line(
            number,
            name,
            "ends with a backslash, which joins lines for systemd and is part of the value for docker",
            "write the value in single quotes, or on one line",
        )),
        false => Ok(value),
    }
}

/// A value in quotes, which may span several lines. Single quotes keep everything unchanged.
fn quoted(
    quote: char,
    line: &str,
    lines: &mut Lines<'_>,
    number: usize,
    name: &str,
) -> Result<String> {
    let mut value = String::new();
    let mut rest = &line[1..];
    loop {
        let mut letters = rest.char_indices();
        while let Some((at, letter)) = letters.next() {
            match letter {
                _ if letter == quote => {
                    let after = rest[at + 1..].trim_start();
                    if after.is_empty() || after.starts_with('#') {
                        return Ok(value);
                    }
                    return Err(at_line(
                        lines.number,
                        name,
                        "continues after the closing quote",
                        "put JSON and other values that contain quotes in single quotes",
                    ));
                }
                '\\' if quote == '"' => match letters.next() {
                    Some((_, escaped @ ('"' | '\\' | '$' | '`'))) => value.push(escaped),
                    _ => {
                        return Err(at_line(
                            lines.number,
                            name,
                            "contains a backslash in double quotes that docker and systemd read differently",
                            "write the value in single quotes, which keep everything unchanged",
                        ));
                    }
                },
                _ => value.push(letter),
            }
        }
        value.push('\n');
        rest = lines
            .next()
            .ok_or_else(|| at_line(number, name, "opens a quote that never closes", "close it"))?;
    }
}

fn at_line(number: usize, name: &str, what: &str, remedy: &'static str) -> Error {
    invalid(format!(
        "line {number} of the file: the value of {name} {what}"
    ))
    .with_hint(remedy)
}

fn no_assignment(number: usize, line: &str, before: Option<&(usize, String, String)>) -> Error {
    let is_name = line
        .bytes()
        .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_');
    let hint = match before {
        _ if is_name => String::from(
            "it contains only a name, whose value docker takes from its own environment: write NAME=value",
        ),
        Some((_, name, value)) if value.starts_with(['{', '[']) => {
            format!(
                "the value of {name} seems to continue: put a value with several lines in single quotes"
            )
        }
        _ => String::from("a file of variables contains one NAME=value per line"),
    };
    invalid(format!("line {number} of the file is not an assignment")).with_hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The value of `A` in a file.
    fn read(text: &str) -> Result<Option<String>> {
        assert!(is_of_variables(text), "{text}");
        parse(text).map(|environment| environment.get("A"))
    }

    #[test]
    fn variables_are_read_as_people_write_them() {
        for (text, value) in [
            ("A=b", "b"),
            ("A=\"b\"", "b"),
            ("A='b'", "b"),
            ("export A=b", "b"),
            ("export\tA='b'", "b"),
            ("  A = b", "b"),
            ("A =b", "b"),
            ("A= b", "b"),
            ("A=b   # ours", "b"),
            ("A=b\t# ours", "b"),
            ("A='b' # ours", "b"),
            ("A=\"b\"# ours", "b"),
            ("A=b ", "b"),
            ("A=b\t\r\n", "b"),
            ("# ours\n\n; systemd's\n#A=c\nA=b", "b"),
            // Part of the value.
            ("A=b#c", "b#c"),
            ("A=#b", "#b"),
            ("A='b # c'", "b # c"),
            ("A=\"b # c\"", "b # c"),
            ("A='  b  '", "  b  "),
            ("A='b  \nc'", "b  \nc"),
            ("A=b c", "b c"),
            ("A=b=c", "b=c"),
            ("A=b'c", "b'c"),
            ("A=p$a$$s", "p$a$$s"),
            ("A='p\\n\"'", "p\\n\""),
            ("A=\"p\\\"\\\\\\$\\`'\"", "p\"\\$`'"),
            ("A=k=v,k2=v2", "k=v,k2=v2"),
            // Several lines, and JSON with or without quotes.
            ("A='{\n  \"a\": \"b\"\n}'\nB=c", "{\n  \"a\": \"b\"\n}"),
            ("A=\"b\r\nc\"", "b\nc"),
            (r#"A={"a": "b # c\n"}"#, r#"{"a": "b # c\n"}"#),
            (r#"A={"a": "b"} # ours"#, r#"{"a": "b"}"#),
            (r#"A="{\"a\": \"b\\n\"}""#, r#"{"a": "b\n"}"#),
            // The same value twice is not an error.
            ("A=b\nA='b'", "b"),
        ] {
            assert_eq!(read(text).unwrap().as_deref(), Some(value), "{text}");
        }
        for unset in ["A=", "A=''", "A= # ours", "A=  "] {
            assert_eq!(read(unset).unwrap(), None, "{unset}");
        }
    }

    #[test]
    fn what_two_readers_read_in_two_ways_is_refused_with_its_line() {
        for (text, expected) in [
            ("B=c\nA=\"canary\\n\"", "line 2"),
            ("A=\"canary\\\nb\"", "backslash in double quotes"),
            ("A=canary\\", "ends with a backslash"),
            ("export A=b C=canary", "after `export`"),
            ("A=\"canary\" b", "after the closing quote"),
            ("A=\"{\"a\":\"canary\"}\"", "single quotes"),
            ("A='canary'\"b\"", "after the closing quote"),
            (
                "A='canary\nB=c\n",
                "line 1 of the file: the value of A opens a quote",
            ),
            ("A=b\ncanary: d", "line 2 of the file is not an assignment"),
            (
                "A=b\n\nVAULT_AUTH_TOKEN\n",
                "line 3 of the file is not an assignment",
            ),
            (
                "A={\n\"a\": \"canary\"\n}",
                "the value of A seems to continue",
            ),
            ("A=b\nexport canary\n", "line 2"),
            (
                "A=\nB=c\nA=canary",
                "A has two values in the file, in lines 1 and 3",
            ),
            ("A=ENC[canary]\nsops_mac=ENC[x]", "sops -d"),
        ] {
            let error = read(text).expect_err(text);
            assert!(error.to_string().contains(expected), "{text}: {error}");
            assert!(
                !format!("{error} {error:?}").contains("canary"),
                "{error:?}"
            );
        }
    }

    #[test]
    fn what_is_no_file_of_variables_is_told_apart() {
        for text in [
            "",
            "# a\n",
            "global:\n  a: b=c\n",
            "a: b\nA=b",
            "{\"a\": \"b=c\"}",
            "- A=b",
            "1A=b",
        ] {
            assert!(!is_of_variables(text), "{text}");
        }
    }
}
