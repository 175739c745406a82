//! Refuses placeholders that were not replaced.

use secret_persistence_core::settings::SettingMap;
use secret_persistence_core::{Error, Result};

use super::{Environment, invalid};

/// A kind of placeholder: its form, its name in errors, and the remedy.
struct Placeholder {
    looks: &'static str,
    begins: &'static str,
    ends: &'static str,
    /// The text between the delimiters; anything else could be a credential.
    holds: fn(&str) -> bool,
    remedy: &'static str,
}

const PLACEHOLDERS: &[Placeholder] = &[
    Placeholder {
        looks: "${…}",
        begins: "${",
        ends: "}",
        holds: is_variable,
        remedy: "a variable of a shell, docker compose or a template: write its value",
    },
    Placeholder {
        looks: "$(…)",
        begins: "$(",
        ends: ")",
        holds: is_variable,
        remedy: "a variable of Kubernetes or a pipeline: write its value",
    },
    Placeholder {
        looks: "{{…}}",
        begins: "{{",
        ends: "}}",
        holds: |_| true,
        remedy: "a template: pass the rendered file",
    },
    Placeholder {
        looks: "<…>",
        begins: "<",
        ends: ">",
        holds: is_description,
        remedy: "an example from documentation: write the value",
    },
];

/// References that another tool resolves, as whole values.
const REFERENCES: &[Placeholder] = &[
    Placeholder {
        looks: "ENC[…]",
        begins: "ENC[",
        ends: "]",
        holds: |_| true,
        remedy: "encrypted with SOPS: pass the output of `sops -d`",
    },
    Placeholder {
        looks: "ref+…://…",
        begins: "ref+",
        ends: "",
        holds: |text| text.contains("://"),
        remedy: "a reference of vals: pass the output of `vals eval`",
    },
    Placeholder {
        looks: "$…",
        begins: "$",
        ends: "",
        holds: is_name_of_variable,
        remedy: "a variable of a shell: write its value",
    },
    Placeholder {
        looks: "op://…",
        begins: "op://",
        ends: "",
        holds: |_| true,
        remedy: "a reference of 1Password: pass the output of `op inject`",
    },
    Placeholder {
        looks: "vault:…#…",
        begins: "vault:",
        ends: "",
        holds: |text| text.contains('/') && text.contains('#'),
        remedy: "a reference that a webhook replaces in the cluster: write the value",
    },
    Placeholder {
        looks: "$ANSIBLE_VAULT;…",
        begins: "$ANSIBLE_VAULT;",
        ends: "",
        holds: |_| true,
        remedy: "encrypted with Ansible: pass the output of `ansible-vault decrypt`",
    },
];

fn is_variable(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
}

fn is_name_of_variable(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    text.len() >= 4
        && text.starts_with(|first: char| first.is_ascii_uppercase())
        && text.bytes().all(allowed)
}

fn is_description(text: &str) -> bool {
    let allowed = |letter: char| letter.is_alphanumeric() || " -_.'".contains(letter);
    text.starts_with(char::is_alphabetic) && text.chars().all(allowed)
}

/// Refuses a text that is a placeholder.
///
/// # Errors
/// `InvalidConfig`, with the place and the remedy.
pub(super) fn refuse_whole(place: &str, text: &str) -> Result<()> {
    let text = text.trim();
    let is_whole = |known: &&Placeholder| {
        text.strip_prefix(known.begins)
            .and_then(|rest| rest.strip_suffix(known.ends))
            .is_some_and(known.holds)
    };
    match PLACEHOLDERS.iter().chain(REFERENCES).find(is_whole) {
        Some(known) => Err(not_filled_in(place, known)),
        None => Ok(()),
    }
}

/// Refuses a text that contains a placeholder. Not for credentials: a password may look like that.
///
/// # Errors
/// As [`refuse_whole`].
pub(super) fn refuse_any(place: &str, text: &str) -> Result<()> {
    let is_in = |known: &&Placeholder| {
        text.match_indices(known.begins).any(|(at, _)| {
            let rest = &text[at + known.begins.len()..];
            rest.find(known.ends)
                .is_some_and(|end| (known.holds)(&rest[..end]))
        })
    };
    match PLACEHOLDERS.iter().find(is_in) {
        Some(known) => Err(not_filled_in(place, known)),
        None => refuse_whole(place, text),
    }
}

/// Refuses placeholders among values, in any form.
///
/// # Errors
/// As [`refuse_whole`], with the name of the variable if there is one.
pub(super) fn refuse(values: &SettingMap, environment: &Environment) -> Result<()> {
    for row in values.table() {
        let Some(value) = values.secret(row.name) else {
            continue;
        };
        let has_it = |name: &&&str| environment.secret(name).as_ref() == Some(&value);
        let place = format!("`{}`", row.env.iter().find(has_it).unwrap_or(&row.name));
        // The URL of a database counts as a secret because it may contain a password.
        match row.secret && row.name != "url" {
            true => refuse_whole(&place, value.expose())?,
            false => refuse_any(&place, value.expose())?,
        }
    }
    Ok(())
}

fn not_filled_in(place: &str, known: &Placeholder) -> Error {
    invalid(format!("{place} contains a placeholder: {}", known.looks)).with_hint(known.remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_named_and_credentials_are_not_taken_for_them() {
        for (text, looks) in [
            ("${VAULT_TOKEN}", "${…}"),
            ("${VAULT_TOKEN:-none}", "${…}"),
            ("$(VAULT_TOKEN)", "$(…)"),
            ("$VAULT_TOKEN", "$…"),
            ("{{ .Values.token }}", "{{…}}"),
            ("<token>", "<…>"),
            (" <YOUR AWS KEY>\n", "<…>"),
            ("ENC[AES256_GCM,data:aa,iv:bb,tag:cc,type:str]", "ENC[…]"),
            ("ref+vault://secret/a#/b", "ref+…://…"),
            ("op://vault/item/field", "op://…"),
            ("vault:secret/data/a#b", "vault:…#…"),
            ("$ANSIBLE_VAULT;1.1;AES256", "$ANSIBLE_VAULT;…"),
        ] {
            for refused in [refuse_whole("x", text), refuse_any("x", text)] {
                let error = refused.expect_err(text);
                assert!(error.message().ends_with(looks), "{text}: {error}");
                assert!(error.hint().is_some());
            }
        }
        for credential in [
            "",
            "a",
            "$a",
            "${",
            "a${B}c",
            "$2b$10$x",
            "$AB",
            "$Abcd",
            "<>",
            "<a",
            "a>",
            "<a>b",
            "<p@ss>",
            "{\"a\": {\"b\": {}}}",
            "ENC",
            "ref+",
            "vault:x",
            "a{{b}}c",
            "$(1)",
        ] {
            refuse_whole("x", credential).expect(credential);
        }
    }

    #[test]
    fn what_is_no_credential_has_none_anywhere() {
        for text in [
            "https://${HOST}:8200",
            "secret/<team>/",
            "jdbc:postgresql://${DB_HOST}:5432/airbyte",
            "a-{{ env }}",
        ] {
            refuse_any("x", text).expect_err(text);
        }
        for fine in [
            "https://vault:8200",
            "secret/a/",
            "k=v,k2=<=3",
            "a{b}",
            "a < b > c",
        ] {
            refuse_any("x", fine).expect(fine);
        }
    }
}
