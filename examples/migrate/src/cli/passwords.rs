//! Hides credentials in messages of clap.

use std::ffi::OsString;

use secret_persistence::StoreUrl;

/// Hides credentials in a message that clap built from these arguments: what the parser of a store's
/// URL refuses, and the query of a URL, as everywhere else.
pub(crate) fn without_passwords(message: &str, arguments: &[OsString]) -> String {
    let mut clean = message.to_owned();
    for argument in arguments {
        let argument = argument.to_string_lossy();
        // clap shows the whole argument or its value.
        let value = argument.split_once('=').map(|(_, value)| value);
        for text in [Some(&*argument), value].into_iter().flatten() {
            if let Some(shown) = shown(text) {
                clean = clean.replace(text, &shown);
            }
        }
    }
    clean
}

/// How to show an argument that may contain a credential; `None` if it cannot.
fn shown(argument: &str) -> Option<String> {
    match StoreUrl::parse(argument) {
        Ok(url) if argument.contains('?') => Some(format!("{url}?…")),
        Ok(_) => None,
        // A text without a colon is no URL, but a user and a password may stand before an @.
        Err(_) => (argument.contains('@')
            || argument.contains(':') && argument.contains(['?', '#']))
        .then(|| "…".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_messages_lose_their_passwords() {
        for (argument, kept) in [
            ("postgres://user:hunter2@host/db", ""),
            ("--from=postgres://user:hunter2@host/db", ""),
            ("postgres://hunter2@host/db", ""),
            ("postgres://user:12/hunter2@host/db", ""),
            ("postgres:user:12/hunter2@host/db", ""),
            ("postgres:/\n/user:12/hunter2@host/db", ""),
            ("postgres://user:hun'ter hunter2@host/db", ""),
            ("user:hunter2@host", ""),
            ("sqlite:x.db?keyring=hunter2#y", ""),
            ("--to=sqlite:x.db?keyring=hunter2", ""),
            ("sqlite:x.db?keyring=hunter2", "sqlite:x.db?…"),
            ("vault://v.example/hunter/", "vault://v.example/hunter/"),
        ] {
            let arguments = ["secret-migrate", "copy", argument].map(OsString::from);
            let message = format!("error: unexpected argument '{argument}' found");
            let clean = without_passwords(&message, &arguments);
            assert!(!clean.contains("hunter2"), "{clean}");
            assert!(
                clean.contains(kept) && clean.ends_with("' found"),
                "{clean}"
            );
        }
        let arguments = ["copy", "--frm"].map(OsString::from);
        let message = "unexpected argument '--frm' found";
        assert_eq!(without_passwords(message, &arguments), message);
    }
}
