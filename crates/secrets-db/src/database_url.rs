//! Parses `DATABASE_URL` in the forms of libpq, JDBC and SQLite. It may contain credentials.

use std::path::PathBuf;

use percent_encoding::percent_decode_str;
use secret_persistence_core::settings::{StoreUrl, invalid};
use secret_persistence_core::{Error, Result, SecretValue};
use url::Url;

use crate::config::unbracketed;

/// The location and credentials in a URL.
#[derive(Default)]
pub(crate) struct Address {
    pub(crate) file: Option<PathBuf>,
    pub(crate) host: Option<String>,
    pub(crate) port: Option<u16>,
    pub(crate) database: Option<String>,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<SecretValue>,
    pub(crate) sslmode: Option<String>,
    pub(crate) root_certificate: Option<String>,
}

/// Parses a URL. The error describes the fault and never contains the URL.
pub(crate) fn parse(url: &SecretValue) -> Result<Address> {
    let text = url.expose().trim();
    // For Postgres, a JDBC URL is a libpq URL with a prefix.
    let text = text.strip_prefix("jdbc:").unwrap_or(text);
    if text.starts_with("sqlite:") {
        let url = StoreUrl::parse(text)?;
        if let Some((name, _)) = url.query().next() {
            return Err(wrong("has settings that SQLite does not support")
                .with_hint(format!("set `{}` as a separate setting", safe(&name))));
        }
        return Ok(Address {
            file: Some(url.file()?.into()),
            ..Address::default()
        });
    }
    let url = Url::parse(text).map_err(|_| {
        wrong("is not a URL").with_hint("several hosts in one URL are not supported")
    })?;
    if !matches!(url.scheme(), "postgres" | "postgresql") || !url.has_authority() {
        return Err(wrong("is not for a supported database")
            .with_hint("it must begin with postgres://, jdbc:postgresql:// or sqlite:"));
    }
    let mut address = Address {
        host: url
            .host_str()
            .filter(|host| !host.is_empty())
            .map(|host| unbracketed(host).to_owned()),
        port: url.port(),
        database: Some(decoded(url.path().trim_start_matches('/'))?)
            .filter(|name| !name.is_empty()),
        user: Some(decoded(url.username())?).filter(|user| !user.is_empty()),
        password: url
            .password()
            .map(decoded)
            .transpose()?
            .map(SecretValue::new),
        ..Address::default()
    };
    for (name, value) in url.query_pairs() {
        match &*name {
            "user" => address.user = Some(value.into_owned()),
            "password" => address.password = Some(SecretValue::new(value.into_owned())),
            "sslmode" => address.sslmode = Some(value.into_owned()),
            "ssl" if value == "true" || value.is_empty() => {
                address
                    .sslmode
                    .get_or_insert_with(|| "verify-full".to_owned());
            }
            "ssl" => {
                address.sslmode.get_or_insert_with(|| "disable".to_owned());
            }
            "sslrootcert" => address.root_certificate = Some(value.into_owned()),
            // Settings for TLS, credentials or the schema must not be ignored silently.
            name if name.starts_with("ssl")
                || name.contains("pass")
                || ["currentSchema", "options", "service"].contains(&name) =>
            {
                return Err(wrong("has an unsupported setting")
                    .with_hint(format!("remove `{}` from it", safe(name))));
            }
            // Options of another driver: socketTimeout, ApplicationName, prepareThreshold, …
            _ => {}
        }
    }
    Ok(address)
}

fn decoded(part: &str) -> Result<String> {
    percent_decode_str(part)
        .decode_utf8()
        .map(std::borrow::Cow::into_owned)
        .map_err(|_| wrong("is not UTF-8"))
}

/// A text that is certainly a name. Any other text may be part of a password.
fn safe(name: &str) -> &str {
    let known = name.len() <= 24 && name.bytes().all(|byte| byte.is_ascii_alphabetic());
    if known { name } else { "the setting" }
}

fn wrong(what: &str) -> Error {
    invalid(format!("the database's URL {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Address> {
        parse(&SecretValue::new(text.to_owned()))
    }

    #[test]
    fn libpq_and_jdbc_forms_are_read() {
        for (text, host, port, database, user, password) in [
            (
                "postgres://u%40x:p%2Fw@h:5/d%20b",
                "h",
                Some(5),
                "d b",
                Some("u@x"),
                Some("p/w"),
            ),
            (
                "jdbc:postgresql://h/d?user=u&password=p%26w&ssl=true&socketTimeout=3",
                "h",
                None,
                "d",
                Some("u"),
                Some("p&w"),
            ),
            ("postgresql://[::1]:5/d", "::1", Some(5), "d", None, None),
        ] {
            let address = parsed(text).unwrap();
            assert_eq!(address.host.as_deref(), Some(host), "{text}");
            assert_eq!(address.port, port);
            assert_eq!(address.database.as_deref(), Some(database));
            assert_eq!(address.user.as_deref(), user);
            assert_eq!(address.password.as_ref().map(SecretValue::expose), password);
        }
        let address = parsed("jdbc:postgresql://h/d?ssl=true&sslmode=require").unwrap();
        assert_eq!(address.sslmode.as_deref(), Some("require"));
        let address = parsed("jdbc:sqlite:/a/b.db").unwrap();
        assert_eq!(address.file, Some(PathBuf::from("/a/b.db")));
    }

    #[test]
    fn what_is_not_understood_is_refused_and_not_echoed() {
        for text in [
            "canary",
            "jdbc:mysql://u:canary@h/d",
            "postgres://u:canary@h:x/d",
            "postgres://u:canary@h1:1,h2:2/d",
            "postgres://u:canary@h/d?sslfactory=canary",
            "postgres://h/d?sslpassword=canary",
            "jdbc:postgresql://h/d?currentSchema=canary",
            "postgres:canary",
            "sqlite:///a?canary1=2",
            "postgres://u:%ff@canary/d",
        ] {
            let error = parsed(text).err().expect(text);
            assert!(!format!("{error} {error:?}").contains("canary"), "{text}");
        }
    }
}
