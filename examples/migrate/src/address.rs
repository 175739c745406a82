//! URLs of stores and databases: parsed once, never with a credential in them.

use secret_persistence_core::settings::StoreUrl;

use crate::environment::Role;
use crate::status::{Failure, Result};

/// Reads the URL of an option.
///
/// # Errors
/// For what is no URL, and for one that holds a password. Nothing of it is repeated then, because a
/// password with a slash or a question mark in it may have landed in any part.
pub(crate) fn parse(text: &str, role: Role) -> Result<StoreUrl> {
    let before_query = text.find('?').map_or(text, |at| &text[..at]);
    let may_hold_password = before_query
        .split_once("://")
        .is_some_and(|(_, rest)| rest.contains('@'));
    if may_hold_password {
        return Err(Failure::input(
            "a user or password stands in this URL (not repeated here). Every process of the machine can read \
             a command line: take it out, change it, and give it in the environment, \
             like DATABASE_USER and DATABASE_PASSWORD",
        )
        .at(role.option()));
    }
    StoreUrl::parse(text).map_err(|error| Failure::from(error).at(role.option()))
}

/// Hides what stands between `://` and `@` in text that other people's code made of our arguments.
pub(crate) fn without_passwords(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("://") {
        let (before, after) = rest.split_at(start + 3);
        clean.push_str(before);
        let end = after
            .find(|char: char| char.is_whitespace() || char == '\'')
            .unwrap_or(after.len());
        let (word, after) = after.split_at(end);
        match word.rfind('@') {
            Some(at) if word[..at].contains(':') => {
                clean.push('…');
                clean.push_str(&word[at..]);
            }
            _ => clean.push_str(word),
        }
        rest = after;
    }
    clean.push_str(rest);
    clean
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::Status;

    #[test]
    fn a_password_is_refused_without_being_repeated() {
        for text in [
            "postgres://user:hunter2@host/db",
            "postgres://user:hun/ter2@host/db",
            "postgres://user:12/hunter2@host/db",
            "postgres://user:12#hunter2@host/db",
            "postgres://hunter2@host/db",
            "postgres://:hunter2@host/db",
            "sqlite://user:hunter2@host/db",
            "aws://key:hunter2@us-east-1",
            "postgres://us er:hunter2",
        ] {
            let refused = parse(text, Role::From).and_then(|url| {
                let read = secret_persistence_db::SETTINGS.from_url(&url, &|_| None);
                read.map(drop).map_err(Failure::from)
            });
            let failure = refused.unwrap_err();
            assert_eq!(failure.status(), Status::Input, "{text}");
            let shown = format!("{failure} {failure:?}");
            assert!(!shown.contains("ter2"), "{text}: {shown}");
        }
    }

    #[test]
    fn foreign_messages_lose_their_passwords() {
        assert_eq!(
            without_passwords("unexpected 'postgres://u:p@ss@h/db' and http://h/x@y"),
            "unexpected 'postgres://…@h/db' and http://h/x@y"
        );
    }
}
