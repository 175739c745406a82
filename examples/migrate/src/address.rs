//! URLs of stores and databases: parsed once, never with a credential in them.

#[cfg(any(feature = "postgres", test))]
use std::net::IpAddr;
use std::path::PathBuf;

use secret_persistence_core::settings::{Setting, Settings, StoreUrl};
use url::form_urlencoded;

use crate::environment::{Environment, Role};
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

/// The settings of a table from a URL's query and the environment, in this order.
///
/// # Errors
/// For unknown parameters, and for secrets in the URL.
pub(crate) fn settings(
    url: &StoreUrl,
    table: &'static [Setting],
    role: Role,
    environment: &Environment,
) -> Result<Settings> {
    let mut settings = Settings::new(table);
    settings
        .set_query(url)
        .map_err(|error| Failure::from(error).at(format!("{} {url}", role.option())))?;
    settings.set_env(|name| environment.of(role, name).map(str::to_owned));
    Ok(settings)
}

/// The file of `sqlite:///abs`, `sqlite://rel/path`, `sqlite:/abs` or `sqlite:rel/path`.
///
/// # Errors
/// Where no file is named.
pub(crate) fn sqlite_path(url: &StoreUrl) -> Result<PathBuf> {
    let path = format!("{}{}", url.host().unwrap_or_default(), url.path());
    if path.is_empty() || path.ends_with('/') {
        return Err(Failure::input(
            "this sqlite URL names no file; write it like sqlite:///path/to/secrets.db or sqlite:secrets.db",
        ));
    }
    Ok(PathBuf::from(path))
}

/// Whether a host is this very machine, where transport without TLS is allowed.
#[cfg(any(feature = "postgres", test))]
pub(crate) fn is_loopback(host: &str) -> bool {
    host == "localhost"
        || host
            .trim_matches(['[', ']'])
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// `file?key=value&…`: the name as it is, and the query, decoded.
///
/// # Errors
/// Where a key stands twice.
pub(crate) fn query_of_file(text: &str) -> Result<(&str, Vec<(String, String)>)> {
    let (file, query) = text.split_once('?').unwrap_or((text, ""));
    let mut parameters: Vec<(String, String)> = Vec::new();
    for (key, value) in form_urlencoded::parse(query.as_bytes()) {
        if parameters.iter().any(|(known, _)| *known == key) {
            return Err(Failure::input("one parameter stands twice").at(file));
        }
        parameters.push((key.into_owned(), value.into_owned()));
    }
    Ok((file, parameters))
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
            "postgres://user:12?hunter2@host/db",
            "postgres://hunter2@host/db",
            "postgres://:hunter2@host/db",
            "sqlite://user:hunter2@host/db",
            "aws://key:hunter2@us-east-1",
            "postgres://us er:hunter2",
        ] {
            let refused = parse(text, Role::From).and_then(|url| {
                settings(&url, &[], Role::From, &Environment::default()).map(|_| ())
            });
            let failure = refused.unwrap_err();
            assert_eq!(failure.status(), Status::Input, "{text}");
            let shown = format!("{failure} {failure:?}");
            assert!(!shown.contains("ter2"), "{text}: {shown}");
        }
    }

    #[test]
    fn files_are_absolute_or_relative_as_written() {
        for (text, path) in [
            ("sqlite:///srv/a%20b.db?mode=plain", "/srv/a b.db"),
            ("sqlite:/srv/s.db", "/srv/s.db"),
            ("sqlite:s.db", "s.db"),
            ("sqlite://s.db", "s.db"),
            ("sqlite://folder/s.db", "folder/s.db"),
        ] {
            let url = parse(text, Role::Store).unwrap();
            assert_eq!(sqlite_path(&url).unwrap(), PathBuf::from(path), "{text}");
        }
        assert!(sqlite_path(&parse("sqlite:", Role::Store).unwrap()).is_err());
    }

    #[test]
    fn loopback_is_an_address_or_the_one_name() {
        for host in ["127.0.0.1", "127.9.9.9", "[::1]", "localhost"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["10.0.0.1", "localhost.example", "127.0.0.1.example", ""] {
            assert!(!is_loopback(host), "{host}");
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
