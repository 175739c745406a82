//! Patterns of names: ECMA-262 expressions, matched by our engine where both mean the same.

use regex::{Regex, RegexBuilder};

/// A pattern of `patternProperties`.
#[derive(Clone, Debug)]
pub(super) enum Pattern {
    /// It has a meaning that our engine has not (look-around, back references), or is no expression:
    /// it may match every name.
    Any,
    /// It means the same here.
    Regex(Regex),
}

/// What a pattern says of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Match {
    No,
    /// Taken for a match where that finds secrets, and for none where that finds secrets.
    Perhaps,
    Yes,
}

impl Pattern {
    /// The largest compiled form of one pattern.
    const SIZE_LIMIT: usize = 256 << 10;

    pub(super) fn new(ecma: &str) -> Self {
        translate(ecma)
            .and_then(|ours| {
                RegexBuilder::new(&ours)
                    .size_limit(Self::SIZE_LIMIT)
                    .dfa_size_limit(Self::SIZE_LIMIT)
                    .build()
                    .ok()
            })
            .map_or(Self::Any, Self::Regex)
    }

    pub(super) fn matches(&self, name: &str) -> Match {
        match self {
            Self::Any => Match::Perhaps,
            Self::Regex(regex) if regex.is_match(name) => Match::Yes,
            Self::Regex(_) => Match::No,
        }
    }
}

/// The expression in our engine's syntax; `None` where the two differ in what they match.
///
/// Our engine would read `\d` as every digit of Unicode and `[a&&b]` as an intersection, and would
/// then leave names to `additionalProperties`, or keep them from it, that a validator would not.
fn translate(ecma: &str) -> Option<String> {
    let mut ours = String::with_capacity(ecma.len() + 16);
    let mut chars = ecma.chars().peekable();
    let mut in_class = false;
    while let Some(char) = chars.next() {
        match char {
            '\\' => {
                let escaped = chars.next()?;
                match (escaped, in_class) {
                    ('d', true) => ours.push_str("0-9"),
                    ('d', false) => ours.push_str("[0-9]"),
                    ('D', false) => ours.push_str("[^0-9]"),
                    ('w', true) => ours.push_str("A-Za-z0-9_"),
                    ('w', false) => ours.push_str("[A-Za-z0-9_]"),
                    ('W', false) => ours.push_str("[^A-Za-z0-9_]"),
                    ('s', true) => ours.push_str(r"\s\u{feff}"),
                    ('s', false) => ours.push_str(r"[\s\u{feff}]"),
                    ('S', false) => ours.push_str(r"[^\s\u{feff}]"),
                    ('b', true) => ours.push_str(r"\x08"),
                    ('b', false) => ours.push_str(r"(?-u:\b)"),
                    ('0', _) if !chars.peek().is_some_and(char::is_ascii_digit) => {
                        ours.push_str(r"\x00");
                    }
                    ('f' | 'n' | 'r' | 't' | 'v' | 'x' | 'u' | 'p' | 'P', _) => {
                        ours.push('\\');
                        ours.push(escaped);
                    }
                    (punctuation, _) if punctuation.is_ascii_punctuation() => {
                        push_literal(&mut ours, punctuation);
                    }
                    _ => return None,
                }
            }
            '[' if in_class => ours.push_str(r"\["),
            '[' => {
                in_class = true;
                ours.push('[');
                if chars.peek() == Some(&'^') {
                    chars.next();
                    ours.push('^');
                }
                // `[]` matches nothing and `[^]` anything; our engine reads the bracket as a member.
                if chars.peek() == Some(&']') {
                    return None;
                }
            }
            ']' if in_class => {
                in_class = false;
                ours.push(']');
            }
            '&' | '~' if in_class => push_literal(&mut ours, char),
            '-' if in_class && chars.peek() == Some(&'-') => return None,
            _ if in_class => ours.push(char),
            '.' => ours.push_str(r"[^\n\r\u{2028}\u{2029}]"),
            ']' => ours.push_str(r"\]"),
            '{' if chars.peek() == Some(&',') => return None,
            '(' => {
                ours.push('(');
                if chars.peek() == Some(&'?') {
                    chars.next();
                    ours.push('?');
                    // Groups without capture and with a name; flags are ours alone.
                    if !matches!(chars.peek(), Some(':' | '<')) {
                        return None;
                    }
                }
            }
            _ => ours.push(char),
        }
    }
    Some(ours)
}

fn push_literal(ours: &mut String, char: char) {
    ours.push_str(&regex::escape(char.encode_utf8(&mut [0; 4])));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_both_engines_know_means_what_ecma_says() {
        let cases: &[(&str, &[&str], &[&str])] = &[
            (r"^\d+$", &["0", "42"], &["٣", "", "4a"]),
            (r"^\w+$", &["a_1"], &["é", "a b"]),
            (r"^\D$", &["٣", "a"], &["3"]),
            (r"^[\w.-]+$", &["a.b-c"], &["a/b"]),
            ("^[a&&b]$", &["a", "b", "&"], &["c"]),
            ("^[[a]$", &["[", "a"], &["]"]),
            (r"^a.b$", &["a-b"], &["a\rb", "a\u{2028}b", "a\nb"]),
            (r"^\/x\-y$", &["/x-y"], &["x-y"]),
            (r"^\<a\>$", &["<a>"], &["a"]),
            (r"^\bkey\b", &["key", "key-1"], &["keys"]),
            (r"^\u00e9$", &["é"], &["e"]),
            ("_secret$", &["a_secret"], &["a_secret_"]),
            ("", &["", "anything"], &[]),
        ];
        for (pattern, yes, no) in cases {
            let compiled = Pattern::new(pattern);
            for name in *yes {
                assert_eq!(compiled.matches(name), Match::Yes, "{pattern} on {name}");
            }
            for name in *no {
                assert_eq!(compiled.matches(name), Match::No, "{pattern} on {name}");
            }
        }
    }

    #[test]
    fn what_our_engine_does_not_know_may_match_every_name() {
        for pattern in [
            "^(?!x)",
            "(?<=a)b",
            r"(a)\1",
            r"\ca",
            "[^]",
            "[]",
            "(?i)a",
            "a{,3}",
            "(",
            "[a--b]",
            r"[\D]",
            r"\B",
            r"\Aa",
            "x{1000}{1000}{1000}",
            "\\",
        ] {
            assert_eq!(
                Pattern::new(pattern).matches("zzz"),
                Match::Perhaps,
                "{pattern}"
            );
        }
    }
}
