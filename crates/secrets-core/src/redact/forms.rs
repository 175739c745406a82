//! The forms in which programs print a value.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use zeroize::{Zeroize as _, Zeroizing};

/// RFC 3986: everything but the unreserved characters.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');
/// JavaScript's `encodeURIComponent`.
const COMPONENT: &AsciiSet = &UNRESERVED
    .remove(b'!')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')')
    .remove(b'*');
/// Python's `urllib.parse.quote` and a path.
const PATH: &AsciiSet = &UNRESERVED.remove(b'/');

/// Calls with each form of the value: the value, its lines, and what encoders make of both.
pub(super) fn visit(value: &str, found: &mut dyn FnMut(&[u8])) {
    encoded(value, found);
    if value.contains(['\n', '\r']) {
        for line in value.split(['\n', '\r']).map(str::trim) {
            // The armour of a key is the same in every key.
            if !line.starts_with("-----") {
                encoded(line, found);
            }
        }
    }
}

fn encoded(text: &str, found: &mut dyn FnMut(&[u8])) {
    if text.is_empty() {
        return;
    }
    found(text.as_bytes());
    json(text, found);
    url(text, found);
    base64(text, found);
}

/// JSON, JSON in ASCII (Python's default, in both cases of hexadecimal digits), both with what some
/// encoders escape besides, and Rust's `Debug`.
fn json(text: &str, found: &mut dyn FnMut(&[u8])) {
    let mut plain = Zeroizing::new(serde_json::Value::from(text).to_string());
    // Without the quotation marks.
    plain.pop();
    let plain = &plain[1..];
    escaped(plain, found);
    for upper in [false, true] {
        let mut ascii = Zeroizing::new(String::with_capacity(plain.len() * 6));
        for character in plain.chars() {
            if character.is_ascii() {
                ascii.push(character);
                continue;
            }
            for unit in character.encode_utf16(&mut [0; 2]) {
                let written = if upper {
                    write!(ascii, "\\u{unit:04X}")
                } else {
                    write!(ascii, "\\u{unit:04x}")
                };
                written.expect("a String takes every text");
            }
        }
        escaped(&ascii, found);
    }
    let debug = Zeroizing::new(format!("{text:?}"));
    found(debug[1..debug.len() - 1].as_bytes());
}

/// As it is, with slashes escaped (PHP), and safe in HTML (Go, Gson).
fn escaped(json: &str, found: &mut dyn FnMut(&[u8])) {
    found(json.as_bytes());
    found(Zeroizing::new(json.replace('/', "\\/")).as_bytes());
    for also in ["<>&", "<>&='"] {
        let mut safe = Zeroizing::new(String::with_capacity(json.len() * 6));
        for character in json.chars() {
            if also.contains(character) {
                write!(safe, "\\u{:04x}", u32::from(character)).expect("a String takes every text");
            } else {
                safe.push(character);
            }
        }
        found(safe.as_bytes());
    }
}

/// Percent-encoding as the common encoders do it, in both cases of hexadecimal digits.
fn url(text: &str, found: &mut dyn FnMut(&[u8])) {
    for set in [UNRESERVED, COMPONENT, PATH] {
        let encoded = Zeroizing::new(utf8_percent_encode(text, set).to_string());
        both_cases(&encoded, found);
    }
    let form =
        Zeroizing::new(url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>());
    both_cases(&form, found);
}

fn both_cases(encoded: &str, found: &mut dyn FnMut(&[u8])) {
    found(encoded.as_bytes());
    let mut lower = Zeroizing::new(encoded.as_bytes().to_vec());
    let mut at = 0;
    while at < lower.len() {
        if lower[at] == b'%' {
            lower[at + 1..at + 3].make_ascii_lowercase();
            at += 3;
        } else {
            at += 1;
        }
    }
    found(&lower);
}

/// Base64 in both alphabets, with the value at each of the three positions that it can have in a longer
/// text: the characters that depend on the value alone.
fn base64(text: &str, found: &mut dyn FnMut(&[u8])) {
    for (before, skip) in [(0, 0), (1, 2), (2, 3)] {
        let mut shifted = Zeroizing::new(vec![0; before]);
        shifted.extend_from_slice(text.as_bytes());
        let whole = shifted.len() * 8 / 6;
        for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
            let mut encoded = engine.encode(&shifted);
            if whole > skip {
                found(&encoded.as_bytes()[skip..whole]);
            }
            encoded.zeroize();
        }
    }
}
