//! The key ring: the keys that wrap data keys, and which of them is active.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use secret_persistence_core::{Error, ErrorKind, Result, SecretValue};
use zeroize::Zeroizing;

use crate::cipher::{Cipher, KEY_BYTES, Mac, NONCE_BYTES, random_key};

/// Standard base64, with or without padding: what `openssl rand -base64 32` prints.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

const ACTIVE: &str = "active";
const CHECK: &str = "secret-persistence-db 1 check";

/// Keys by id, exactly one of which is active: it encrypts new values. The other keys only decrypt
/// existing ones.
///
/// # Format
///
/// Text with one entry per line; in an environment variable, `;` separates entries too. `active=`
/// names the active key. Every other entry is a key's id, `=`, and its 32 bytes in base64 (from
/// `openssl rand -base64 32`). Lines that begin with `#` are comments.
///
/// ```text
/// active=2026-11
/// 2026-11=dGhpcyBpcyAzMiBieXRlcyBvZiBhbiBleGFtcGxlISE=
/// 2025-03=YW5kIHRoaXMgaXMgYW5vdGhlciBleGFtcGxlIGtleSE=
/// ```
///
/// `Debug` shows the ids and never a key.
#[derive(Clone)]
pub struct KeyRing {
    keys: BTreeMap<KeyId, Arc<Key>>,
    active: KeyId,
}

struct Key {
    bytes: Zeroizing<[u8; KEY_BYTES]>,
    cipher: Cipher,
}

/// The id of a key: 1 to 63 of `a-z`, `0-9`, `.`, `_` and `-`, beginning with a letter or a digit.
/// Every row contains it in plain text.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(Arc<str>);

impl KeyRing {
    /// Creates a ring with one new random key, which is active.
    ///
    /// # Errors
    /// If the system's random number generator fails.
    pub fn generate(id: KeyId) -> Result<Self> {
        Ok(Self {
            keys: BTreeMap::from([(id.clone(), Arc::new(Key::new(random_key()?)?))]),
            active: id,
        })
    }

    /// Parses the text form.
    ///
    /// # Errors
    /// `InvalidConfig` with the number of the invalid entry, never its text.
    pub fn parse(text: &SecretValue) -> Result<Self> {
        let mut active = None;
        let mut keys: BTreeMap<KeyId, Arc<Key>> = BTreeMap::new();
        for (index, entry) in text.expose().split(['\n', ';']).enumerate() {
            let entry = entry.trim();
            if entry.is_empty() || entry.starts_with('#') {
                continue;
            }
            let wrong = |what: &str| invalid(format!("entry {} {what}", index + 1));
            let (name, content) = entry
                .split_once('=')
                .ok_or_else(|| wrong("is neither `active=<id>` nor `<id>=<key>`"))?;
            let (name, content) = (name.trim(), content.trim());
            if name == ACTIVE {
                let id = content
                    .parse::<KeyId>()
                    .map_err(|_| wrong("does not name a key id"))?;
                if active.replace(id).is_some() {
                    return Err(wrong("is a second `active=`"));
                }
                continue;
            }
            let id = name
                .parse::<KeyId>()
                .map_err(|_| wrong("does not begin with a key id"))?;
            let bytes = decode(content).ok_or_else(|| wrong("does not have 32 bytes in base64"))?;
            if keys.values().any(|other| other.bytes == bytes) {
                return Err(wrong("repeats a key under another id"));
            }
            if keys.insert(id, Arc::new(Key::new(bytes)?)).is_some() {
                return Err(wrong("repeats a key id"));
            }
        }
        let active = active.ok_or_else(|| invalid("it does not define the active key"))?;
        if !keys.contains_key(&active) {
            return Err(invalid(format!("its active key `{active}` is missing")));
        }
        Ok(Self { keys, active })
    }

    /// The text form, which is a secret.
    #[must_use]
    pub fn to_text(&self) -> SecretValue {
        let mut text = String::with_capacity(128 * (self.keys.len() + 1));
        text.push_str("active=");
        text.push_str(self.active.as_str());
        text.push('\n');
        for (id, key) in &self.keys {
            let encoded = Zeroizing::new(BASE64.encode(key.bytes.as_slice()));
            text.push_str(id.as_str());
            text.push('=');
            text.push_str(&encoded);
            text.push('\n');
        }
        SecretValue::new(text)
    }

    /// The key that encrypts new values.
    #[must_use]
    pub fn active(&self) -> &KeyId {
        &self.active
    }

    /// All keys, in the order of their ids.
    pub fn ids(&self) -> impl Iterator<Item = &KeyId> {
        self.keys.keys()
    }

    /// Whether the ring has this key.
    #[must_use]
    pub fn contains(&self, id: &KeyId) -> bool {
        self.keys.contains_key(id)
    }

    /// Adds a new random key, without activating it.
    ///
    /// # Errors
    /// `InvalidConfig` if the ring already has the id.
    pub fn add(&mut self, id: KeyId) -> Result<()> {
        if self.contains(&id) {
            return Err(invalid(format!("it already has a key `{id}`")));
        }
        self.keys.insert(id, Arc::new(Key::new(random_key()?)?));
        Ok(())
    }

    /// Makes another key the active one.
    ///
    /// # Errors
    /// `InvalidConfig` if the ring does not have it.
    pub fn activate(&mut self, id: &KeyId) -> Result<()> {
        if !self.contains(id) {
            return Err(invalid(format!("it has no key `{id}`")));
        }
        self.active = id.clone();
        Ok(())
    }

    /// Removes a key. The values that it encrypts can never be decrypted again: call
    /// [`Database::retire_key`](crate::Database::retire_key) first.
    ///
    /// # Errors
    /// `InvalidConfig` for the active key, and for a key that is not in the ring.
    pub fn remove(&mut self, id: &KeyId) -> Result<()> {
        if *id == self.active {
            return Err(invalid(format!("`{id}` is its active key"))
                .with_hint("activate another key and rotate first"));
        }
        match self.keys.remove(id) {
            Some(_) => Ok(()),
            None => Err(invalid(format!("it has no key `{id}`"))),
        }
    }

    pub(crate) fn cipher(&self, id: &KeyId) -> Option<&Cipher> {
        self.keys.get(id).map(|key| &key.cipher)
    }

    /// A key that is derived from one of the ring for another purpose, so that what one does with it
    /// says nothing about values.
    pub(crate) fn derive(&self, id: &KeyId, purpose: &str) -> Option<Mac> {
        let key = self.keys.get(id)?;
        let derived = Zeroizing::new(Mac::new(&key.bytes).sign(purpose.as_bytes()));
        Some(Mac::new(&derived))
    }

    pub(crate) fn active_cipher(&self) -> &Cipher {
        &self.keys[&self.active].cipher
    }

    /// A value that only the holder of the key can create and verify, and that reveals nothing
    /// about the key: a nonce, and the tag over the purpose and the id.
    pub(crate) fn check_value(&self, id: &KeyId) -> Result<Option<Vec<u8>>> {
        let Some(cipher) = self.cipher(id) else {
            return Ok(None);
        };
        let (tag, nonce) = cipher.seal(&check_data(id), Vec::new())?;
        Ok(Some([nonce.as_slice(), &tag].concat()))
    }

    /// Whether our key of this id created a check value.
    pub(crate) fn recognises(&self, id: &KeyId, check_value: &[u8]) -> bool {
        let (Some(cipher), Some((nonce, tag))) =
            (self.cipher(id), check_value.split_at_checked(NONCE_BYTES))
        else {
            return false;
        };
        cipher
            .open(nonce, &check_data(id), &mut tag.to_vec())
            .is_some_and(|length| length == 0)
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyRing")
            .field("active", &self.active)
            .field("ids", &self.keys.keys())
            .finish_non_exhaustive()
    }
}

impl Key {
    fn new(bytes: Zeroizing<[u8; KEY_BYTES]>) -> Result<Self> {
        Ok(Self {
            cipher: Cipher::new(&bytes)?,
            bytes,
        })
    }
}

fn decode(text: &str) -> Option<Zeroizing<[u8; KEY_BYTES]>> {
    let mut bytes = Zeroizing::new([0; KEY_BYTES]);
    // Space for the longest decoding, so that a longer key is refused instead of truncated.
    let mut buffer = Zeroizing::new([0; KEY_BYTES + 4]);
    let length = BASE64.decode_slice(text, buffer.as_mut_slice()).ok()?;
    if length != KEY_BYTES || buffer[..length].iter().all(|byte| *byte == buffer[0]) {
        return None;
    }
    bytes.copy_from_slice(&buffer[..length]);
    Some(bytes)
}

impl KeyId {
    /// The id.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for KeyId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let allowed =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
        if (1..=63).contains(&text.len())
            && text.bytes().all(allowed)
            && text.as_bytes()[0].is_ascii_alphanumeric()
            && text != ACTIVE
        {
            return Ok(Self(text.into()));
        }
        Err(Error::new(
            ErrorKind::InvalidConfig,
            "a key id must have 1 to 63 characters of a-z, 0-9, `.`, `_` and `-`, begin with a letter or a digit, \
             and must not be `active`",
        ))
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn check_data(id: &KeyId) -> Vec<u8> {
    format!("{CHECK} {id}").into_bytes()
}

pub(crate) fn invalid(what: impl fmt::Display) -> Error {
    Error::new(
        ErrorKind::InvalidConfig,
        format!("the key ring cannot be used: {what}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = "# ring\nactive = b\n\n a=dGhpcyBpcyAzMiBieXRlcyBvZiBhbiBleGFtcGxlISE=\n\
                           b=YW5kIHRoaXMgaXMgYW5vdGhlciBleGFtcGxlIGtleSE";

    fn parse(text: &str) -> Result<KeyRing> {
        KeyRing::parse(&SecretValue::new(text.to_owned()))
    }

    fn id(text: &str) -> KeyId {
        text.parse().unwrap()
    }

    #[test]
    fn text_round_trips_with_lines_or_semicolons() {
        let ring = parse(EXAMPLE).unwrap();
        assert_eq!(ring.active().as_str(), "b");
        assert_eq!(
            ring.ids().map(KeyId::as_str).collect::<Vec<_>>(),
            ["a", "b"]
        );
        let text = ring.to_text();
        let again = KeyRing::parse(&text).unwrap();
        assert_eq!(again.to_text(), text);
        let one_line = text.expose().replace('\n', ";");
        assert_eq!(parse(&one_line).unwrap().to_text(), text);
    }

    #[test]
    fn what_is_wrong_is_named_by_number_and_never_shown() {
        let short = "canaryAAAAAAAAAAAAAAAA==";
        let zero = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
        for (text, place) in [
            (String::new(), "active"),
            (EXAMPLE.replace("active = b", ""), "active"),
            (EXAMPLE.replace("active = b", "active=c"), "`c`"),
            (EXAMPLE.replace("a=dGhp", "b=dGhp"), "entry 5"),
            (format!("{EXAMPLE}\nc={short}"), "entry 6"),
            (format!("{EXAMPLE}\nc={zero}"), "entry 6"),
            (format!("{EXAMPLE}\nCanary={short}"), "entry 6"),
            (format!("{EXAMPLE};canary"), "entry 6"),
            (format!("{EXAMPLE}\nactive=a"), "entry 6"),
            (
                format!("{EXAMPLE}\nc=YW5kIHRoaXMgaXMgYW5vdGhlciBleGFtcGxlIGtleSE"),
                "entry 6",
            ),
        ] {
            let error = parse(&text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig);
            let shown = format!("{error} {error:?}");
            assert!(shown.contains(place), "{shown}");
            assert!(!shown.to_lowercase().contains("canary"), "{shown}");
        }
    }

    #[test]
    fn the_active_key_cannot_be_removed() {
        let mut ring = parse(EXAMPLE).unwrap();
        assert!(ring.remove(&id("b")).is_err());
        assert!(ring.remove(&id("c")).is_err());
        assert!(ring.add(id("a")).is_err());
        assert!(ring.activate(&id("c")).is_err());
        ring.remove(&id("a")).unwrap();
        assert!(!ring.contains(&id("a")));
    }

    #[test]
    fn a_check_value_knows_its_key_and_its_id() {
        let ring = parse(EXAMPLE).unwrap();
        let check = ring.check_value(&id("a")).unwrap().unwrap();
        assert!(ring.recognises(&id("a"), &check));
        assert!(!ring.recognises(&id("b"), &check));
        assert!(!ring.recognises(&id("c"), &check));
        assert!(!ring.recognises(&id("a"), &check[1..]));
        assert!(!ring.recognises(&id("a"), &[]));
        let other = KeyRing::generate(id("a")).unwrap();
        assert!(!other.recognises(&id("a"), &check));
    }

    #[test]
    fn debug_shows_no_key() {
        let ring = parse(EXAMPLE).unwrap();
        assert_eq!(
            format!("{ring:?}"),
            r#"KeyRing { active: b, ids: [a, b], .. }"#
        );
    }
}
