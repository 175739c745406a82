//! The values that may be stored, and what reads return.

use crate::conformance::context::{
    Context, Verdict, ensure, not_applicable, passed, reads_as, refused,
};
use crate::{ErrorKind, SecretValue, Write, Written};

/// Texts that incorrect code changes: by trimming, escaping, parsing, normalising, truncating or
/// recoding.
const AWKWARD: &[(&str, &str)] = &[
    ("one character", "x"),
    ("a blank", " "),
    ("blanks", "   "),
    ("a tab", "\t"),
    ("a newline", "\n"),
    ("a trailing newline", "line\n"),
    ("trailing newlines", "line\n\n"),
    ("a leading newline", "\nline"),
    ("carriage returns", "a\r\nb\rc\r\n"),
    ("blanks at both ends", "  padded\t "),
    ("a no-break space at the end", "x\u{a0}"),
    (
        "control characters",
        "\u{1}\u{8}\u{b}\u{c}\u{1b}[31m\u{1f}\u{7f}",
    ),
    ("next line and separators", "a\u{85}b\u{2028}c\u{2029}d"),
    ("a byte order mark", "\u{feff}text\u{feff}"),
    ("Latin", "pässwörd ñ ß ø"),
    ("composed", "caf\u{e9}"),
    ("decomposed", "cafe\u{301}"),
    ("Cyrillic and Greek", "пароль κωδικός"),
    ("right to left", "סיסמה \u{202e}كلمة"),
    ("Japanese", "秘密の言葉ヴ"),
    ("emoji with joiners", "👩\u{200d}🔬🇪🇺✊🏽"),
    ("the last code point", "\u{10ffff}\u{fffd}\u{e000}"),
    ("quotes", "\"double\" 'single' `back`"),
    ("backslashes", r"C:\new\table \u0041 \\ \n"),
    ("a lone quote", "\""),
    ("JSON", "{\"a\": [1, 2.50, null], \"b\":\"c\\\"d\"}\n"),
    ("JSON scalars", "null"),
    ("a number with a leading zero", "007"),
    ("a number in exponent form", "1e400"),
    ("a boolean", "true"),
    ("SQL", "'; DROP TABLE secrets; -- $1 ? :name"),
    ("templates", "${HOME} {{value}} %s %00 %2F &amp; <b>"),
    ("Base64", "c2VjcmV0Cg=="),
    ("a mask", "**********"),
    (
        "a pointer",
        "{\"_secret\": \"airbyte_workspace_1_secret_2_v1\"}",
    ),
    ("a coordinate", "airbyte_workspace_1_secret_2_v1"),
    (
        "a key file",
        "-----BEGIN PRIVATE KEY-----\nMIIB\n+/=\n-----END PRIVATE KEY-----\n",
    ),
];

pub(super) async fn come_back_byte_for_byte(cx: &Context) -> Verdict {
    for (what, text) in AWKWARD {
        let write = Write::new(cx.name(), SecretValue::new((*text).to_owned()));
        passed(cx.write(&write).await, &format!("writing {what}"))?;
        let read = cx.read_managed(&write.coordinate).await;
        reads_as(read, &write.value, &format!("reading {what}"))?;
    }
    let long = "0123456789abcdé\n".repeat(1024);
    let long: String = long
        .chars()
        .take(cx.capabilities().max_value_bytes.min(16_000) / 2)
        .collect();
    let write = Write::new(cx.name(), SecretValue::new(long));
    cx.create(&write).await?;
    let read = cx.read_managed(&write.coordinate).await;
    reads_as(read, &write.value, "reading many lines")
}

pub(super) async fn at_the_size_limit(cx: &Context) -> Verdict {
    let limit = limit(cx)?;
    for (what, unit) in [
        ("one-byte characters", "x"),
        ("two-byte characters", "é"),
        ("four-byte characters", "🔑"),
    ] {
        let write = Write::new(cx.name(), filled(unit, limit));
        let what = format!("a value of {limit} bytes in {what}");
        passed(cx.write(&write).await, &format!("writing {what}"))?;
        let read = cx.read_managed(&write.coordinate).await;
        reads_as(read, &write.value, &format!("reading {what}"))?;
    }
    Ok(())
}

pub(super) async fn above_the_size_limit(cx: &Context) -> Verdict {
    let limit = limit(cx)?;
    for (what, value) in [
        ("one byte above the limit", filled("x", limit + 1)),
        // The limit applies to bytes, so fewer characters than the limit exceed it.
        (
            "one byte above the limit, in characters of four",
            filled("🔑", limit + 1),
        ),
        ("twice the limit", filled("x", limit * 2)),
    ] {
        let write = Write::new(cx.name(), value);
        let error = refused(
            cx.write(&write).await,
            &[ErrorKind::PayloadTooLarge],
            &format!("writing a value {what}"),
        )?;
        let text = error.to_string();
        ensure!(
            text.contains(&limit.to_string()) && text.contains(&write.value.len().to_string()),
            "the error does not contain the limit, {limit}, and the size, {}: {text}",
            write.value.len()
        );
        let read = cx.read_managed(&write.coordinate).await;
        refused(read, &[ErrorKind::NotFound], "reading what was refused")?;
    }
    Ok(())
}

pub(super) async fn nul_is_kept_or_refused(cx: &Context) -> Verdict {
    for text in ["\0", "a\0b", "end\0"] {
        let write = Write::new(cx.name(), SecretValue::new(text.to_owned()));
        let written = cx.write(&write).await;
        let read = cx.read_managed(&write.coordinate).await;
        if cx.capabilities().nul {
            passed(written, "writing a value with NUL")?;
            reads_as(read, &write.value, "reading a value with NUL")?;
        } else {
            refused(
                written,
                &[ErrorKind::InvalidValue],
                "writing a value with NUL",
            )?;
            refused(read, &[ErrorKind::NotFound], "reading what was refused")?;
        }
    }
    Ok(())
}

pub(super) async fn empty_is_refused(cx: &Context) -> Verdict {
    let write = Write::new(cx.name(), SecretValue::new(String::new()));
    refused(
        cx.write(&write).await,
        &[ErrorKind::InvalidValue],
        "writing an empty value",
    )?;
    let read = cx.read_managed(&write.coordinate).await;
    refused(read, &[ErrorKind::NotFound], "reading what was refused")?;
    // The name is still free.
    let write = Write::new(write.coordinate, cx.value());
    let written = passed(cx.write(&write).await, "writing under the same name")?;
    ensure!(
        written == Written::Created,
        "the refused write left something under its name"
    );
    Ok(())
}

fn limit(cx: &Context) -> Verdict<usize> {
    let limit = cx.capabilities().max_value_bytes;
    if limit > cx.options.largest_value {
        not_applicable!(
            "the store accepts {limit} bytes, but the options try at most {}",
            cx.options.largest_value
        );
    }
    Ok(limit)
}

/// A value of exactly `bytes` bytes, of this character as far as possible.
fn filled(unit: &str, bytes: usize) -> SecretValue {
    let mut text = unit.repeat(bytes / unit.len());
    text.extend(std::iter::repeat_n('x', bytes - text.len()));
    SecretValue::new(text)
}
