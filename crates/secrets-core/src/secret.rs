//! The type of secret values.

use std::fmt;
use std::mem;
use std::sync::{Arc, Weak};

use zeroize::optimization_barrier;

/// A secret value: UTF-8 text in one shared allocation that is wiped when its last handle drops.
///
/// Cloning shares the allocation. `Debug` is redacted, and there is neither `Display` nor
/// `Serialize`: [`expose`](Self::expose) is the only way in, to be called at the last line before
/// the value leaves for a store or a connector. Copies that others make (an SDK's buffers, a
/// `serde_json::Value` that the caller keeps) are out of its reach; SECURITY.md lists them.
///
/// ```
/// use secret_persistence_core::SecretValue;
///
/// let value = SecretValue::new(String::from("hunter2"));
/// assert_eq!(format!("{value:?}"), "SecretValue(redacted)");
/// assert_eq!(value.expose(), "hunter2");
/// ```
#[derive(Clone)]
pub struct SecretValue(Arc<Wiped>);

impl SecretValue {
    /// Takes a value over. The `String`'s own allocation becomes the shared one: nothing is copied.
    #[must_use]
    pub fn new(value: String) -> Self {
        Self(Arc::new(Wiped(value)))
    }

    /// The value in the clear.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0.0
    }

    /// Its length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.0.len()
    }

    /// Whether it has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.0.is_empty()
    }

    /// Whether it is this text, compared as two values are.
    pub(crate) fn is(&self, text: &str) -> bool {
        equal(&self.0.0, text)
    }

    /// A handle that does not keep the value alive, to prove that it has been wiped.
    #[must_use]
    pub fn downgrade(&self) -> WeakSecret {
        WeakSecret(Arc::downgrade(&self.0))
    }
}

impl From<String> for SecretValue {
    fn from(value: String) -> Self {
        Self::new(value)
    }
}

/// Compares without leaving at the first difference, so that timing tells nothing of the content.
impl PartialEq for SecretValue {
    fn eq(&self, other: &Self) -> bool {
        equal(&self.0.0, &other.0.0)
    }
}

impl Eq for SecretValue {}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretValue(redacted)")
    }
}

/// A text that is wiped when it drops.
struct Wiped(String);

impl Drop for Wiped {
    fn drop(&mut self) {
        wipe_text(mem::take(&mut self.0));
    }
}

/// Overwrites a text's whole allocation, with what is left in it of longer texts. As `zeroize` does
/// it, but in one `memset`: zeroize writes byte by byte, which was most of what a hydrate cost.
pub(crate) fn wipe_text(text: String) {
    if text.capacity() > 0 {
        wipe_bytes(&mut text.into_bytes());
    }
}

fn wipe_bytes(bytes: &mut Vec<u8>) {
    bytes.clear();
    bytes.resize(bytes.capacity(), 0);
    // Nobody reads the zeros, so without this they need not be written.
    optimization_barrier(bytes.as_slice());
}

fn equal(ours: &str, theirs: &str) -> bool {
    ours.len() == theirs.len()
        && std::hint::black_box(
            ours.bytes()
                .zip(theirs.bytes())
                .fold(0, |diff, (a, b)| diff | (a ^ b)),
        ) == 0
}

/// A handle on a [`SecretValue`] that does not keep it alive.
#[derive(Clone)]
pub struct WeakSecret(Weak<Wiped>);

impl fmt::Debug for WeakSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WeakSecret(redacted)")
    }
}

impl WeakSecret {
    /// Whether the last handle has gone, and the wipe with it.
    #[must_use]
    pub fn is_wiped(&self) -> bool {
        self.0.strong_count() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_one_allocation_and_dies_with_the_last_handle() {
        let text = String::from("correct horse");
        let address = text.as_ptr();
        let value = SecretValue::new(text);
        let clone = value.clone();
        assert_eq!(value.expose().as_ptr(), address);
        assert_eq!(clone.expose().as_ptr(), address);
        let weak = value.downgrade();
        drop(value);
        assert!(!weak.is_wiped());
        drop(clone);
        assert!(weak.is_wiped());
    }

    #[test]
    fn the_whole_allocation_is_wiped() {
        let mut bytes = b"correct horse battery".to_vec();
        let (address, capacity) = (bytes.as_ptr(), bytes.capacity());
        // What is cut off is still in the allocation.
        bytes.truncate(7);
        wipe_bytes(&mut bytes);
        assert_eq!((bytes.as_ptr(), bytes.len()), (address, capacity));
        assert!(bytes.iter().all(|byte| *byte == 0));
    }

    #[test]
    fn equality_looks_at_every_byte() {
        let value = |text: &str| SecretValue::new(text.to_owned());
        assert_eq!(value("a\0b"), value("a\0b"));
        for other in ["", "a", "b\0b", "a\0c", "a\0bb"] {
            assert_ne!(value("a\0b"), value(other));
        }
    }
}
