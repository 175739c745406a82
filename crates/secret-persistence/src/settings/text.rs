//! Reads text files in the encodings that editors save.

use std::fs;
use std::path::Path;

use secret_persistence_core::Result;

use super::invalid;

/// Reads a file of UTF-8 or UTF-16, which PowerShell saves. A byte order mark is not part of the
/// text.
///
/// # Errors
/// `InvalidConfig` for a file that cannot be read or has another encoding.
pub(super) fn read(path: &Path) -> Result<String> {
    let bytes = fs::read(path).map_err(|error| {
        invalid(format!("{} cannot be read", path.display())).with_source(error)
    })?;
    decode(&bytes).ok_or_else(|| {
        invalid(format!("{} is not text", path.display())).with_hint("save it as UTF-8")
    })
}

fn decode(bytes: &[u8]) -> Option<String> {
    let utf16 = |bytes: &[u8], unit: fn([u8; 2]) -> u16| {
        let (pairs, rest) = bytes.as_chunks::<2>();
        let units = pairs.iter().map(|pair| unit(*pair));
        let text: std::result::Result<String, _> = char::decode_utf16(units).collect();
        text.ok().filter(|_| rest.is_empty())
    };
    match bytes {
        [0xff, 0xfe, rest @ ..] => utf16(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => utf16(rest, u16::from_be_bytes),
        // Without a mark: settings begin with ASCII, so the other byte is zero.
        [first, 0, ..] if *first != 0 => utf16(bytes, u16::from_le_bytes),
        [0, second, ..] if *second != 0 => utf16(bytes, u16::from_be_bytes),
        _ => {
            let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
            str::from_utf8(bytes).ok().map(str::to_owned)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_encoding_of_editors_is_read() {
        let text = "VAULT_PREFIX=größe/\r\n";
        let little: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let big: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
        for bytes in [
            text.as_bytes().to_vec(),
            [b"\xef\xbb\xbf", text.as_bytes()].concat(),
            [&[0xff, 0xfe][..], &little].concat(),
            [&[0xfe, 0xff][..], &big].concat(),
            little.clone(),
            big,
        ] {
            assert_eq!(decode(&bytes).as_deref(), Some(text), "{bytes:?}");
        }
        assert_eq!(decode(b"").as_deref(), Some(""));
        let half = &little[..little.len() - 1];
        for wrong in [half, &[0xff, 0xfe, 0x00, 0xd8], b"a=\xff"] {
            assert_eq!(decode(wrong), None, "{wrong:?}");
        }
    }
}
