//! Canaries: values that must not appear in any common encoding of text.

use std::{
    collections::{BTreeSet, HashMap},
    fmt::{self, Write as _},
};

use base64::engine::{
    Engine as _,
    general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};

/// Shorter texts may occur by chance.
const LEAST: usize = 8;

/// Values that must not appear.
///
/// ```
/// let mut canaries = e2e::Canaries::default();
/// canaries.add("first line\nsecond \"line\"");
/// let json = br#"{"password": "second \"line\""}"#;
/// assert!(canaries.found_in(json).is_some_and(|spelling| spelling.starts_with("second")));
/// canaries.expect_none_in(b"nothing of it", "the output");
/// ```
#[derive(Clone, Default)]
pub struct Canaries {
    /// By their first bytes: there may be thousands of them to search for in megabytes.
    spellings: HashMap<[u8; LEAST], BTreeSet<String>>,
    /// The hashes of all first bytes.
    beginnings: Vec<bool>,
}

impl Canaries {
    /// Adds a text: the whole text, and each of its lines.
    pub fn add(&mut self, text: &str) {
        self.beginnings.resize(1 << 20, false);
        let trimmed = text.lines().map(str::trim);
        for part in text.lines().chain(trimmed).chain([text]) {
            for spelling in spellings(part) {
                if let Some(beginning) = spelling.as_bytes().first_chunk() {
                    self.beginnings[hash(beginning)] = true;
                    self.spellings
                        .entry(*beginning)
                        .or_default()
                        .insert(spelling);
                }
            }
        }
    }

    /// The first spelling that occurs.
    pub fn found_in(&self, bytes: &[u8]) -> Option<&str> {
        if self.spellings.is_empty() {
            return None;
        }
        let places = (0..bytes.len()).filter_map(|start| {
            let rest = &bytes[start..];
            let beginning = rest.first_chunk()?;
            let known = self.beginnings[hash(beginning)];
            Some((known.then(|| self.spellings.get(beginning))??, rest))
        });
        let mut found = places.filter_map(|(spellings, rest)| {
            let shows = |spelling: &&String| rest.starts_with(spelling.as_bytes());
            spellings.iter().find(shows)
        });
        found.next().map(String::as_str)
    }

    /// Fails the test if any canary occurs.
    ///
    /// # Panics
    ///
    /// If one occurs, with its spelling, the place and the line.
    #[track_caller]
    pub fn expect_none_in(&self, bytes: &[u8], place: &str) {
        if let Some(spelling) = self.found_in(bytes) {
            let text = String::from_utf8_lossy(bytes);
            let line = text.lines().find(|line| line.contains(spelling));
            let line: String = line.unwrap_or_default().chars().take(400).collect();
            panic!("`{spelling}` shows in {place}: {line}");
        }
    }
}

impl fmt::Debug for Canaries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Canaries").finish_non_exhaustive()
    }
}

/// A hash of the first four bytes, in twenty bits.
fn hash(beginning: &[u8; LEAST]) -> usize {
    let [a, b, c, d, ..] = *beginning;
    (u32::from_le_bytes([a, b, c, d]).wrapping_mul(0x9e37_79b9) >> 12) as usize
}

/// One text, as it is and as JSON, `Debug`, URLs, forms, hexadecimal, lists of bytes and base64
/// encode it.
fn spellings(text: &str) -> Vec<String> {
    use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

    let json = serde_json::to_string(text).unwrap_or_default();
    let ascii_json = json.chars().fold(String::new(), |mut ascii, character| {
        if character.is_ascii() {
            ascii.push(character);
        } else {
            for unit in character.encode_utf16(&mut [0; 2]) {
                let _ = write!(ascii, "\\u{unit:04x}");
            }
        }
        ascii
    });
    let percent = utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let hexadecimal = text.bytes().fold(String::new(), |mut digits, byte| {
        let _ = write!(digits, "{byte:02x}");
        digits
    });
    let bytes = format!("{:?}", text.as_bytes());
    let mut spellings = vec![
        text.to_owned(),
        text.escape_debug().to_string(),
        text.replace('/', "%2F").replace('=', "%3D"),
        url::form_urlencoded::byte_serialize(text.as_bytes()).collect(),
        percent.to_lowercase(),
        percent,
        json.trim_matches('"').to_owned(),
        ascii_json.trim_matches('"').to_owned(),
        hexadecimal.to_uppercase(),
        hexadecimal,
        bytes.trim_matches(['[', ']']).to_owned(),
    ];
    // Base64 of the text at each offset, without the characters that depend on its neighbours.
    for (before, from) in [(0, 0), (1, 2), (2, 3)] {
        let shifted = [vec![0; before], text.as_bytes().to_vec()].concat();
        for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
            let encoded = engine.encode(&shifted);
            let to = encoded.len() - usize::from(!shifted.len().is_multiple_of(3));
            spellings.extend(encoded.get(from..to).map(str::to_owned));
        }
    }
    // Spaces at the ends do not distinguish a text.
    spellings.retain(|spelling| spelling.trim().len() >= LEAST);
    spellings
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::{STANDARD, URL_SAFE};

    use super::*;

    #[test]
    fn every_spelling_is_found_again() {
        let text = "cänary \"one\" /+?&\n  second canary line \\ %";
        let mut canaries = Canaries::default();
        canaries.add(text);
        for haystack in [
            format!("x {text} y"),
            format!("{text:?}"),
            serde_json::to_string(text).unwrap(),
            "{\"a\": \"c\\u00e4nary \\\"one\\\" /+?&\"}".into(),
            STANDARD.encode(format!("user:{text}:x")),
            URL_SAFE.encode(format!("us:{text}")),
            "second canary line \\ %".into(),
            format!("{:?}", text.as_bytes()),
            "?q=second+canary+line+%5C+%25&x".into(),
            "/second%20canary%20line%20%5c%20%25".into(),
            "7365636f6e642063616e617279206c696e65205c2025".into(),
        ] {
            assert!(
                canaries.found_in(haystack.as_bytes()).is_some(),
                "{haystack}"
            );
        }
        canaries.expect_none_in(b"canary one, second, line", "a harmless text");
        // A text that is too short to be unique is not searched.
        canaries.add("short");
        canaries.expect_none_in(b"a short text", "a harmless text");
    }
}
