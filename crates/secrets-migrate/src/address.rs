//! Addresses of databases and files, parsed once, never with a credential.

#[cfg(any(feature = "postgres", feature = "sqlite"))]
use secret_persistence_core::settings::StoreUrl;

use crate::{MigrateError, MigrateResult};

/// Reads an environment variable; the caller has handled prefixes.
pub type Variables<'a> = &'a (dyn Fn(&str) -> Option<String> + Send + Sync);

/// Whether a text is a URL and not a path. A one-letter scheme would be a drive.
pub(crate) fn is_url(text: &str) -> bool {
    text.split_once(':').is_some_and(|(scheme, _)| {
        scheme.len() > 1
            && scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
    })
}

/// Reads the URL of a database.
///
/// # Errors
/// For text that is not a URL, and for a URL with a user or a password.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub(crate) fn parse(text: &str) -> MigrateResult<StoreUrl> {
    StoreUrl::parse(text).map_err(MigrateError::of_setting)
}

/// Splits `file?key=value&…` into the unchanged name and the decoded query.
///
/// # Errors
/// If a key occurs twice.
pub(crate) fn query_of_file(text: &str) -> MigrateResult<(&str, Vec<(String, String)>)> {
    let (file, query) = text.split_once('?').unwrap_or((text, ""));
    let mut parameters: Vec<(String, String)> = Vec::new();
    for (key, value) in url::form_urlencoded::parse(query.as_bytes()) {
        if parameters.iter().any(|(known, _)| *known == key) {
            return Err(MigrateError::settings("a parameter occurs twice").within(file));
        }
        parameters.push((key.into_owned(), value.into_owned()));
    }
    Ok((file, parameters))
}

#[cfg(all(test, any(feature = "postgres", feature = "sqlite")))]
mod tests {
    use super::*;
    use crate::MigrateErrorKind;
    use crate::database::{SERVER, settings};

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
            "postgres://us er:hunter2",
        ] {
            let refused = parse(text).and_then(|url| settings(&url, SERVER, &|_| None).map(|_| ()));
            let error = refused.unwrap_err();
            assert_eq!(error.kind(), MigrateErrorKind::Settings, "{text}");
            let shown = format!("{error} {error:?}");
            assert!(!shown.contains("ter2"), "{text}: {shown}");
        }
    }
}
