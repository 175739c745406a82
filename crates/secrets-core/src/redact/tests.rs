use std::io::{self, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use serde_json::json;
use tokio::io::AsyncWriteExt as _;

use super::*;
use crate::connector::MASK;

fn redactor(values: &[&str]) -> Redactor {
    values
        .iter()
        .fold(Redactor::builder(), |builder, value| {
            builder.value(&SecretValue::new((*value).to_owned()))
        })
        .build()
        .unwrap()
}

const CANARY: &str = "canary/+\"\\é§ü%& 7Gq2\t~*'()";

#[test]
fn finds_what_encoders_make_of_a_value() {
    let redactor = redactor(&[CANARY]);
    let document = json!({"k": CANARY}).to_string();
    let percent = |set| percent_encoding::utf8_percent_encode(CANARY, set).to_string();
    let everything = percent(percent_encoding::NON_ALPHANUMERIC);
    let form = url::form_urlencoded::Serializer::new(String::new())
        .append_pair("k", CANARY)
        .finish();
    let python = r#""canary/+\"\\\u00e9\u00a7\u00fc%& 7Gq2\t~*'()""#;
    for (form, text) in [
        ("plain", format!("<{CANARY}>")),
        ("json", document.clone()),
        ("json with slashes escaped", document.replace('/', "\\/")),
        ("ascii json", python.to_owned()),
        (
            "ascii json, upper case",
            python
                .replace("00e9", "00E9")
                .replace("00a7", "00A7")
                .replace("00fc", "00FC"),
        ),
        ("php", python.replace('/', "\\/")),
        ("go", document.replace('&', "\\u0026")),
        (
            "gson",
            document.replace('&', "\\u0026").replace('\'', "\\u0027"),
        ),
        ("debug", format!("{CANARY:?}")),
        ("form", form.clone()),
        ("form, lower case", lower_case_escapes(&form)),
    ] {
        let shown = redactor.redact(&text);
        assert!(shown.contains(MASK), "{form}: {shown}");
        assert!(!shown.contains("7Gq2"), "{form}: {shown}");
    }
    // Encoding more than RFC 3986 asks is not among the forms.
    assert!(!redactor.redact(&everything).contains(MASK));
}

fn lower_case_escapes(encoded: &str) -> String {
    let mut parts = encoded.split('%');
    let mut out = parts.next().unwrap().to_owned();
    for part in parts {
        out.push('%');
        out.push_str(&part[..2].to_lowercase());
        out.push_str(&part[2..]);
    }
    out
}

#[test]
fn finds_base64_at_every_alignment() {
    let value = "correct horse battery";
    let redactor = redactor(&[value]);
    for before in 0..9 {
        for after in 0..4 {
            let text = format!("{}{value}{}", "x".repeat(before), "y".repeat(after));
            for encoded in [
                STANDARD.encode(&text),
                base64::engine::general_purpose::URL_SAFE.encode(&text),
            ] {
                let shown = redactor.redact(&encoded).into_owned();
                let left = shown.replace(MASK, "");
                let own = STANDARD.encode(format!("{}{}", "x".repeat(before), "y".repeat(after)));
                assert!(shown.contains(MASK), "{before} {after}: {shown}");
                // Of the value at most two characters at each end.
                assert!(left.len() <= own.len() + 4, "{before} {after}: {shown}");
            }
        }
    }
}

#[test]
fn finds_single_lines_and_strings_of_documents() {
    let key = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBg\nkqhkiG9w0BAQEF\nAb3=\n-----END PRIVATE KEY-----\n";
    let account = json!({"type": "service_account", "private_key": key}).to_string();
    let redactor = redactor(&[&account]);
    assert_eq!(
        redactor.redact("at MIIEvQIBADANBg: bad"),
        "at **********: bad"
    );
    assert_eq!(redactor.redact(key), MASK);
    assert_eq!(redactor.redact(&format!("{key:?}")), "\"**********\"");
    assert_eq!(
        redactor.redact("-----BEGIN PRIVATE KEY-----!"),
        "-----BEGIN PRIVATE KEY-----!"
    );
}

#[test]
fn takes_the_values_of_a_hydrated_configuration() {
    let saved = json!({
        "host": "database.example",
        "password": {"_secret": "airbyte_workspace_1_secret_2_v1"},
        "pin": {"_secret": "airbyte_workspace_1_secret_3_v1", "_secret_encoding": "json"},
        "short": {"_secret": "airbyte_workspace_1_secret_4_v1"},
    });
    let full = json!({"host": "database.example", "password": "correct horse", "pin": {"n": 12345678}, "short": "abc"});
    let redactor = Redactor::builder()
        .hydrated(&saved, &full)
        .unwrap()
        .build()
        .unwrap();
    assert_eq!(
        redactor.redact("database.example: correct horse, 12345678, abc"),
        "database.example: **********, **********, abc"
    );
    assert_eq!(redactor.too_short(), 1);
    let error = Redactor::builder()
        .hydrated(&saved, &json!({"password": "correct horse"}))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidValue);
    assert!(
        error.to_string().contains("/pin") || error.to_string().contains("/short"),
        "{error}"
    );
    assert!(!format!("{redactor:?} {error:?}").contains("correct"));
}

#[test]
fn the_least_length_counts_bytes() {
    for (value, least, found) in [
        ("7654321", LEAST_LENGTH, false),
        ("87654321", LEAST_LENGTH, true),
        // Four characters, eight bytes; three characters, six bytes.
        ("éüöä", LEAST_LENGTH, true),
        ("éüö", LEAST_LENGTH, false),
        ("éüö", 6, true),
        ("éüö", 7, false),
        ("4321", 1, true),
        ("321", 1, false),
    ] {
        let value_of = SecretValue::new(value.to_owned());
        let builder = Redactor::builder().value(&value_of).least_length(least);
        let redactor = builder.build().unwrap();
        let shown = redactor.redact(&format!("<{value}>")).into_owned();
        let expected = if found { MASK } else { value };
        assert_eq!(shown, format!("<{expected}>"), "{value} {least}");
        assert_eq!(redactor.too_short(), usize::from(!found), "{value} {least}");
    }
    // A short line is found with its neighbours only.
    let redactor = redactor(&["short\na longer line"]);
    assert_eq!(redactor.redact("short|a longer line|"), "short|**********|");
    assert_eq!(redactor.redact("short\na longer line|"), "**********|");
    assert_eq!(redactor.too_short(), 0);
}

/// Every form, cut into two chunks at every byte, is removed like the whole; by the writer for files
/// and by the asynchronous one.
#[tokio::test]
async fn every_form_is_found_across_the_border_of_chunks() {
    let lines = "-----BEGIN KEY-----\nMIIEvQIBADANBg\nkqhkiG9w0BAQEF\n";
    let redactor = redactor(&[CANARY, lines]);
    let json = json!({ "k": CANARY }).to_string();
    let form = url::form_urlencoded::Serializer::new(String::new())
        .append_pair("k", CANARY)
        .finish();
    let base64 = ["", "x", "xx"].map(|before| STANDARD.encode(format!("{before}{CANARY}")));
    let mut texts = vec![
        format!("<{CANARY}>"),
        json.replace('/', "\\/"),
        format!("<{CANARY:?}>"),
        json,
        form,
        format!("<{lines}>"),
        "at MIIEvQIBADANBg: bad".to_owned(),
    ];
    texts.extend(base64.map(|text| format!("<{text}>")));
    for text in texts {
        let expected = redactor.redact(&text).into_owned();
        assert!(expected.contains(MASK), "{text}");
        for at in 0..=text.len() {
            let (first, second) = text.as_bytes().split_at(at);
            let (mut out, mut asynchronous) = (Vec::new(), Vec::new());
            let mut writer = redactor.writer(&mut out);
            let mut other = redactor.async_writer(&mut asynchronous);
            for chunk in [first, second] {
                writer.write_all(chunk).unwrap();
                // A flush sends nothing that may still become a value.
                writer.flush().unwrap();
                other.write_all(chunk).await.unwrap();
                other.flush().await.unwrap();
            }
            writer.finish().unwrap();
            other.shutdown().await.unwrap();
            drop((writer, other));
            assert_eq!(String::from_utf8_lossy(&out), expected, "{text} at {at}");
            assert_eq!(out, asynchronous, "{text} at {at}");
        }
    }
}

#[test]
fn overlapping_values_leave_nothing() {
    let redactor = redactor(&["abcdefghij", "ghijklmnop", "cdefghij"]);
    assert_eq!(redactor.redact("-abcdefghijklmnop-"), "-**********-");
    assert_eq!(redactor.redact("abcdefghijabcdefghij"), MASK);
    // Cut off at the end.
    assert_eq!(redactor.redact("-abcdefghi"), "-**********");
    assert_eq!(redactor.redact("-abcdefg"), "-abcdefg");
}

/// Takes few bytes at a time, and fails now and then.
struct Reluctant {
    taken: Vec<u8>,
    calls: usize,
}

impl Write for Reluctant {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.calls += 1;
        if self.calls.is_multiple_of(3) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let some = bytes.len().min(3);
        self.taken.extend_from_slice(&bytes[..some]);
        Ok(some)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn errors_of_the_inner_writer_lose_and_repeat_nothing() {
    let redactor = redactor(&["correct horse"]);
    let mut inner = Reluctant {
        taken: Vec::new(),
        calls: 0,
    };
    let mut writer = redactor.writer(&mut inner);
    for chunk in b"the correct horse and the correct hors".chunks(5) {
        while writer.write(chunk).is_err() {}
    }
    while writer.finish().is_err() {}
    drop(writer);
    assert_eq!(inner.taken, b"the ********** and the **********");
}

impl AsyncWrite for Reluctant {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<io::Result<usize>> {
        match Write::write(&mut *self, bytes) {
            Err(_) if self.calls.is_multiple_of(2) => {
                context.waker().wake_by_ref();
                std::task::Poll::Pending
            }
            result => std::task::Poll::Ready(result),
        }
    }

    fn poll_flush(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn poll_shutdown(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn waiting_and_errors_of_the_inner_asynchronous_writer_lose_and_repeat_nothing() {
    let redactor = redactor(&["correct horse"]);
    let mut inner = Reluctant {
        taken: Vec::new(),
        calls: 0,
    };
    let mut writer = redactor.async_writer(&mut inner);
    for chunk in b"the correct horse and the correct hors".chunks(5) {
        while writer.write(chunk).await.is_err() {}
    }
    while writer.shutdown().await.is_err() {}
    drop(writer);
    assert_eq!(inner.taken, b"the ********** and the **********");
}

#[test]
fn lines_are_flushed_one_by_one() {
    let redactor = redactor(&["correct horse"]);
    let mut out = Vec::new();
    let lines = redactor
        .filter_lines(&b"a correct horse\n\ncorrect hor\nlast"[..], &mut out)
        .unwrap();
    assert_eq!(lines, 4);
    assert_eq!(out, b"a **********\n\n**********\nlast");
}

#[cfg(feature = "redact-tracing")]
#[test]
fn events_show_no_value() {
    use std::sync::Mutex;

    let written = Arc::new(Mutex::new(Vec::new()));
    #[derive(Clone)]
    struct Shared(Arc<Mutex<Vec<u8>>>);
    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let shared = Shared(Arc::clone(&written));
    let log = RedactingLog::new(move || shared.clone());
    let subscriber = tracing_subscriber::fmt().with_writer(log.clone()).finish();
    tracing::subscriber::with_default(subscriber, || {
        tracing::info!("before: correct horse");
        log.redact_with(redactor(&["correct horse", "line one\nline two"]));
        tracing::info!(password = "correct horse", key = ?"line one\nline two", "after");
    });
    let text = String::from_utf8(written.lock().unwrap().clone()).unwrap();
    let (before, after) = text.split_once('\n').unwrap();
    assert!(before.contains("correct horse"));
    assert!(
        !after.contains("correct horse") && !after.contains("line one"),
        "{after}"
    );
    assert_eq!(after.matches(MASK).count(), 2, "{after}");
}

/// What a window has to give, computed without one: the union of all matches, each run one mask.
fn expected(values: &[String], text: &str) -> String {
    let mut covered = vec![false; text.len()];
    for value in values {
        for at in 0..text.len() {
            if text[at..].starts_with(value.as_str()) {
                covered[at..at + value.len()].fill(true);
            }
        }
    }
    let mut out = String::new();
    for (at, character) in text.char_indices() {
        if !covered[at] {
            out.push(character);
        } else if at == 0 || !covered[at - 1] {
            out.push_str(MASK);
        }
    }
    out
}

proptest! {
    #[test]
    fn chunks_make_no_difference(
        values in prop::collection::vec("[ab]{8,12}", 1..4),
        text in "[abc]{0,200}",
        cuts in prop::collection::vec(1..9usize, 1..60),
    ) {
        let values_of: Vec<&str> = values.iter().map(String::as_str).collect();
        let redactor = redactor(&values_of);
        // The end is no beginning of a value.
        let text = format!("{text}|");
        let expected = expected(&values, &text);
        prop_assert_eq!(redactor.redact(&text), expected.as_str());

        let mut out = Vec::new();
        let mut asynchronous = Vec::new();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        {
            let mut writer = redactor.writer(&mut out);
            let mut other = redactor.async_writer(&mut asynchronous);
            let mut rest = text.as_bytes();
            for cut in cuts.iter().cycle() {
                let (chunk, after) = rest.split_at((*cut).min(rest.len()));
                writer.write_all(chunk).unwrap();
                runtime.block_on(other.write_all(chunk)).unwrap();
                if after.is_empty() {
                    break;
                }
                rest = after;
            }
            writer.finish().unwrap();
            runtime.block_on(other.shutdown()).unwrap();
        }
        prop_assert_eq!(String::from_utf8(out).unwrap(), expected.as_str());
        prop_assert_eq!(String::from_utf8(asynchronous).unwrap(), expected.as_str());
    }
}
