//! The checksum of payloads, [Castagnoli's](https://cloud.google.com/secret-manager/docs/data-integrity).
//!
//! Written here instead of using the backend's crate, so that a fault there would be detected.

/// The polynomial 0x1EDC6F41, bits in reverse order.
const POLYNOMIAL: u32 = 0x82F6_3B78;

const TABLE: [u32; 256] = table();

pub(super) fn crc32c(data: &[u8]) -> u32 {
    !data.iter().fold(!0, |crc, byte| {
        let [low, ..] = crc.to_le_bytes();
        (crc >> 8) ^ TABLE[usize::from(low ^ byte)]
    })
}

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut crc = index;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 {
                (crc >> 1) ^ POLYNOMIAL
            } else {
                crc >> 1
            };
            bit += 1;
        }
        table[index as usize] = crc;
        index += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::crc32c;

    /// The check value in the algorithm's definition, and the example of the provider's page
    /// (`YQo=`, `163439259`).
    #[test]
    fn known_sums() {
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
        assert_eq!(crc32c(b"a\n"), 163_439_259);
        assert_eq!(crc32c(b""), 0);
    }
}
