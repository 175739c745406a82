//! Filters of listings.
//!
//! See [the page](https://cloud.google.com/secret-manager/docs/filtering) and, for the grammar,
//! which the page omits, [AIP-160](https://google.aip.dev/160): `OR` binds tighter than `AND`, `-`
//! is `NOT`, `:` tests for containment. Two rules are inferred from examples of that page: `:`
//! ignores case, and `*` matches anything.

use std::cmp::Ordering;

use serde_json::Value;

use super::schema::timestamp;

/// A parsed filter.
pub(super) enum Filter {
    All(Vec<Filter>),
    Any(Vec<Filter>),
    Compare {
        field: Vec<String>,
        operator: Operator,
        value: String,
    },
    Not(Box<Filter>),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Operator {
    Equal,
    Has,
    Less,
    LessOrEqual,
    More,
    MoreOrEqual,
    NotEqual,
}

#[derive(Debug, Eq, PartialEq)]
enum Word {
    Close,
    Minus,
    Open,
    Operator(Operator),
    Quoted(String),
    Text(String),
}

/// Parses a filter over messages with these fields, by their names in snake case.
///
/// The error describes the fault.
pub(super) fn parse(text: &str, fields: &[&str]) -> Result<Filter, String> {
    let words = words(text)?;
    let mut parser = Parser {
        words: &words,
        fields,
    };
    if parser.words.is_empty() {
        return Ok(Filter::All(Vec::new()));
    }
    let filter = parser.expression()?;
    match parser.words.first() {
        None => Ok(filter),
        Some(_) => Err("there is more than one expression".to_owned()),
    }
}

impl Filter {
    /// Whether a message, in JSON with camel case, matches.
    pub(super) fn passes(&self, message: &Value) -> bool {
        match self {
            Self::All(filters) => filters.iter().all(|filter| filter.passes(message)),
            Self::Any(filters) => filters.iter().any(|filter| filter.passes(message)),
            Self::Compare {
                field,
                operator,
                value,
            } => compare(message, field, *operator, value),
            Self::Not(filter) => !filter.passes(message),
        }
    }
}

struct Parser<'a> {
    words: &'a [Word],
    fields: &'a [&'a str],
}

impl Parser<'_> {
    fn next(&mut self) -> Option<&Word> {
        let (first, rest) = self.words.split_first()?;
        self.words = rest;
        Some(first)
    }

    fn take_keyword(&mut self, keyword: &str) -> bool {
        let found = matches!(self.words.first(), Some(Word::Text(text)) if text == keyword);
        if found {
            self.words = &self.words[1..];
        }
        found
    }

    /// Sequences, joined by `AND` or nothing.
    fn expression(&mut self) -> Result<Filter, String> {
        let mut all = vec![self.factor()?];
        loop {
            let joined = self.take_keyword("AND");
            if !joined && matches!(self.words.first(), None | Some(Word::Close)) {
                break;
            }
            all.push(self.factor()?);
        }
        Ok(Filter::All(all))
    }

    fn factor(&mut self) -> Result<Filter, String> {
        let mut any = vec![self.term()?];
        while self.take_keyword("OR") {
            any.push(self.term()?);
        }
        Ok(Filter::Any(any))
    }

    fn term(&mut self) -> Result<Filter, String> {
        if self.take_keyword("NOT") {
            return Ok(Filter::Not(Box::new(self.term()?)));
        }
        match self.words.first() {
            Some(Word::Minus) => {
                self.next();
                Ok(Filter::Not(Box::new(self.term()?)))
            }
            Some(Word::Open) => {
                self.next();
                let filter = self.expression()?;
                match self.next() {
                    Some(Word::Close) => Ok(filter),
                    _ => Err("a parenthesis is not closed".to_owned()),
                }
            }
            _ => self.comparison(),
        }
    }

    fn comparison(&mut self) -> Result<Filter, String> {
        let field = match self.next() {
            Some(Word::Text(text)) if !["AND", "OR"].contains(&text.as_str()) => text.clone(),
            _ => return Err("a field is expected".to_owned()),
        };
        let field: Vec<_> = field.split('.').map(str::to_owned).collect();
        let root = super::schema::snake(&field[0]);
        if !self.fields.contains(&root.as_str()) {
            return Err(format!("there is no field {}", field[0]));
        }
        let Some(Word::Operator(operator)) = self.next() else {
            return Err(format!("nothing is asked of {}", field.join(".")));
        };
        let operator = *operator;
        let value = match self.next() {
            Some(Word::Quoted(text) | Word::Text(text)) => text.clone(),
            // A value may begin with a minus.
            Some(Word::Minus) => match self.next() {
                Some(Word::Text(text)) => format!("-{text}"),
                _ => return Err("a value is expected".to_owned()),
            },
            _ => return Err("a value is expected".to_owned()),
        };
        Ok(Filter::Compare {
            field,
            operator,
            value,
        })
    }
}

fn words(text: &str) -> Result<Vec<Word>, String> {
    let mut words = Vec::new();
    let mut characters = text.chars().peekable();
    while let Some(&first) = characters.peek() {
        match first {
            ' ' | '\t' | '\n' => {
                characters.next();
            }
            '(' | ')' => {
                characters.next();
                words.push(if first == '(' {
                    Word::Open
                } else {
                    Word::Close
                });
            }
            '-' => {
                characters.next();
                words.push(Word::Minus);
            }
            '"' | '\'' => {
                characters.next();
                let mut quoted = String::new();
                loop {
                    match characters.next() {
                        None => return Err("a quotation is not closed".to_owned()),
                        Some('\\') => quoted.extend(characters.next()),
                        Some(end) if end == first => break,
                        Some(other) => quoted.push(other),
                    }
                }
                words.push(Word::Quoted(quoted));
            }
            ':' | '=' | '<' | '>' | '!' => {
                characters.next();
                let equal = characters.peek() == Some(&'=');
                let operator = match (first, equal) {
                    (':', _) => Operator::Has,
                    ('=', _) => Operator::Equal,
                    ('<', false) => Operator::Less,
                    ('<', true) => Operator::LessOrEqual,
                    ('>', false) => Operator::More,
                    ('>', true) => Operator::MoreOrEqual,
                    (_, true) => Operator::NotEqual,
                    (_, false) => return Err("there is no operator !".to_owned()),
                };
                if equal && first != ':' {
                    characters.next();
                }
                words.push(Word::Operator(operator));
            }
            _ => {
                let mut word = String::new();
                while let Some(&next) = characters.peek() {
                    if " \t\n()\"'=<>!".contains(next) || next == ':' && !is_time(&word) {
                        break;
                    }
                    word.push(next);
                    characters.next();
                }
                words.push(Word::Text(word));
            }
        }
    }
    Ok(words)
}

/// Whether this begins a time, in which colons are not operators.
fn is_time(word: &str) -> bool {
    let bytes = word.as_bytes();
    bytes.len() > 10 && bytes[..4].iter().all(u8::is_ascii_digit) && bytes[10] == b'T'
}

fn compare(message: &Value, field: &[String], operator: Operator, value: &str) -> bool {
    let mut found = Vec::new();
    reach(message, field, &mut found);
    let any = |check: &dyn Fn(&str) -> bool| {
        found
            .iter()
            .filter_map(|value| text(value))
            .any(|text| check(&text))
    };
    let ordered = |check: fn(Ordering) -> bool| any(&|text| order(text, value).is_some_and(check));
    match operator {
        Operator::Has if value == "*" => !found.is_empty(),
        Operator::Has => found.iter().any(|found| match found {
            Value::Object(entries) => entries.contains_key(value),
            other => text(other).is_some_and(|text| contains(&text, value)),
        }),
        Operator::Equal => any(&|text| text == value),
        // A missing value is not equal either.
        Operator::NotEqual => !any(&|text| text == value),
        Operator::Less => ordered(Ordering::is_lt),
        Operator::LessOrEqual => ordered(Ordering::is_le),
        Operator::More => ordered(Ordering::is_gt),
        Operator::MoreOrEqual => ordered(Ordering::is_ge),
    }
}

/// All values at a path, including those in lists.
fn reach<'a>(value: &'a Value, path: &[String], found: &mut Vec<&'a Value>) {
    if let Value::Array(items) = value {
        for item in items {
            reach(item, path, found);
        }
        return;
    }
    let Some((first, rest)) = path.split_first() else {
        found.push(value);
        return;
    };
    let Value::Object(fields) = value else {
        return;
    };
    let wanted = super::schema::snake(first);
    // The keys of maps are unchanged.
    let next = fields.get(first).or_else(|| {
        let named = |(name, _): &(&String, &Value)| super::schema::snake(name) == wanted;
        fields.iter().find(named).map(|(_, value)| value)
    });
    if let Some(next) = next {
        reach(next, rest, found);
    }
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    }
}

/// Compares times or texts.
fn order(left: &str, right: &str) -> Option<Ordering> {
    match (timestamp(left), timestamp(right)) {
        (Some(left), Some(right)) => Some(left.cmp(&right)),
        (Some(_), None) => None,
        _ => Some(left.cmp(right)),
    }
}

/// Whether the parts between asterisks occur in this order.
fn contains(text: &str, pattern: &str) -> bool {
    let text = text.to_lowercase();
    let mut rest = text.as_str();
    pattern.to_lowercase().split('*').all(|part| {
        rest.find(part).is_some_and(|place| {
            rest = &rest[place + part.len()..];
            true
        })
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::parse;

    const FIELDS: [&str; 5] = ["create_time", "labels", "name", "replication", "topics"];

    #[test]
    fn comparisons() {
        let message = json!({
            "name": "projects/1/secrets/airbyte_workspace_A",
            "createTime": "2026-11-21T09:58:00.5Z",
            "labels": {"environment": "production", "owner-id": "a"},
            "replication": {"userManaged": {"replicas": [{"location": "us-east1"}, {"location": "europe-west1"}]}},
        });
        for (filter, passes) in [
            ("", true),
            ("name:airbyte_", true),
            ("name:AIRBYTE", true),
            ("name:asecret OR name:airbyte", true),
            ("name:air*workspace", true),
            ("name:workspace*air", false),
            ("name=airbyte_workspace_A", false),
            ("labels.environment=production", true),
            ("labels.environment=prod", false),
            ("labels.environment:prod", true),
            ("labels.owner-id:*", true),
            ("labels:owner-id", true),
            ("labels.owner:*", false),
            ("NOT labels.owner:*", true),
            ("-labels.owner:*", true),
            ("labels.environment!=test", true),
            ("create_time<2026-11-22T00:00:00Z", true),
            ("createTime >= 2026-11-22T00:00:00Z", false),
            ("create_time>\"2026-11-21T09:58:00Z\" AND name:a", true),
            ("replication.user_managed.replicas.location:us-east1", true),
            ("replication.automatic:*", false),
            ("topics:*", false),
            // `OR` binds tighter: only `name:b` matches.
            ("name:airbyte OR name:x AND name:nobody", false),
            ("name:airbyte OR (name:x AND name:nobody)", true),
            ("name:airbyte labels.environment:test", false),
        ] {
            let parsed = parse(filter, &FIELDS).unwrap_or_else(|error| panic!("{filter}: {error}"));
            assert_eq!(parsed.passes(&message), passes, "{filter}");
        }
    }

    #[test]
    fn what_is_no_filter() {
        for filter in [
            "name",
            "name:",
            ":x",
            "secret:x",
            "(name:a",
            "name:a)",
            "name:\"a",
            "name!a",
            "AND",
            "name:a AND",
            "OR name:a",
        ] {
            assert!(parse(filter, &FIELDS).is_err(), "{filter}");
        }
    }
}
