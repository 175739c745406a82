//! Keyed digests: detect whether two requests are the same, without storing anything from which
//! values could be guessed.

use std::fmt;
use std::io::{self, Write as _};
use std::path::Path;

use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::tokens::private;

const KEY_BYTES: usize = 32;

/// A key that never leaves the process and its file.
pub struct Digests(Key);

impl fmt::Debug for Digests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digests(redacted)")
    }
}

impl Digests {
    /// Reads the key file, and creates it for its owner only if it is missing.
    ///
    /// # Errors
    /// If the file cannot be read or created, has another length, or is readable by others than its
    /// owner and group.
    pub fn open(path: &Path) -> io::Result<Self> {
        match private(path, true) {
            Ok(mut file) => {
                let mut key = Zeroizing::new([0_u8; KEY_BYTES]);
                aws_lc_rs::rand::fill(&mut *key)
                    .map_err(|_| io::Error::other("the system has no random numbers"))?;
                file.write_all(&*key)?;
                file.sync_all()?;
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            // A mounted key is in a folder that cannot be written.
            Err(_) if path.exists() => {}
            Err(error) => return Err(error),
        }
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            if std::fs::metadata(path)?.permissions().mode() & 0o027 != 0 {
                return Err(io::Error::other(
                    "others may read it, or its group write it; chmod 600",
                ));
            }
        }
        let key = Zeroizing::new(std::fs::read(path)?);
        if key.len() != KEY_BYTES {
            return Err(io::Error::other("a key must have 32 bytes"));
        }
        Ok(Self::new(&key))
    }

    fn new(key: &[u8]) -> Self {
        Self(Key::new(HMAC_SHA256, key))
    }

    /// The digest of a JSON value, independent of the order of members.
    #[must_use]
    pub fn of(&self, purpose: &str, value: &Value) -> String {
        self.signed(purpose, |text| canonical(value, text))
    }

    /// The digest of an object with these members.
    #[must_use]
    pub fn of_members(&self, purpose: &str, members: &Map<String, Value>) -> String {
        self.signed(purpose, |text| canonical_members(members, text))
    }

    fn signed(&self, purpose: &str, write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut text = Zeroizing::new(Vec::new());
        text.extend_from_slice(purpose.as_bytes());
        text.push(0);
        write(&mut text);
        STANDARD.encode(sign(&self.0, &text))
    }

    /// A text that is the same wherever the key is, and reveals nothing about it.
    #[must_use]
    pub fn proof(&self) -> String {
        self.of("proof", &Value::Null)
    }
}

fn canonical(value: &Value, text: &mut Vec<u8>) {
    match value {
        Value::Array(items) => {
            text.push(b'[');
            for item in items {
                canonical(item, text);
                text.push(b',');
            }
            text.push(b']');
        }
        Value::Object(members) => canonical_members(members, text),
        Value::String(content) => quoted(content, text),
        other => text.extend_from_slice(other.to_string().as_bytes()),
    }
}

fn canonical_members(members: &Map<String, Value>, text: &mut Vec<u8>) {
    let mut sorted: Vec<_> = members.iter().collect();
    sorted.sort_unstable_by_key(|(name, _)| name.as_str());
    text.push(b'{');
    for (name, member) in sorted {
        quoted(name, text);
        canonical(member, text);
        text.push(b',');
    }
    text.push(b'}');
}

/// The length precedes the content, so that no two values have the same text.
fn quoted(content: &str, text: &mut Vec<u8>) {
    text.push(b'"');
    text.extend_from_slice(content.len().to_string().as_bytes());
    text.push(b':');
    text.extend_from_slice(content.as_bytes());
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_same_value_has_the_same_digest_and_another_key_another() {
        let (ours, theirs) = (Digests::new(&[1; 32]), Digests::new(&[2; 32]));
        let value = json!({"a": [1, "x"], "b": {"c": null}});
        let reordered: Value =
            serde_json::from_str(r#"{"b": {"c": null}, "a": [1, "x"]}"#).unwrap();
        assert_eq!(ours.of("x", &value), ours.of("x", &reordered));
        assert_ne!(ours.of("x", &value), theirs.of("x", &value));
        assert_ne!(ours.of("x", &value), ours.of("y", &value));
        for other in [
            json!({"a": ["1", "x"], "b": {"c": null}}),
            json!({"a": [1, "x"]}),
            json!("a"),
            json!(["a", "b"]),
            json!(["a,b"]),
        ] {
            assert_ne!(ours.of("x", &value), ours.of("x", &other));
        }
        assert_ne!(
            ours.of("x", &json!(["a", "b"])),
            ours.of("x", &json!(["ab"]))
        );
    }

    #[test]
    fn a_key_is_made_once_and_kept_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gateway.key");
        let first = Digests::open(&path).unwrap();
        assert_eq!(first.proof(), Digests::open(&path).unwrap().proof());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(
                std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
                0o600
            );
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
            assert!(Digests::open(&path).is_err());
        }
    }
}
