//! What is written into an exported fence: sixteen bytes, once.

use crate::fence::FenceError;

pub(super) const BYTES: usize = 16;
const MAGIC: [u8; 8] = *b"outlive1";

/// The magic, the result as in a fence's state word, and that word's complement; little endian.
pub(super) fn encode(result: Result<(), FenceError>) -> [u8; BYTES] {
    let word = FenceError::encode(result);
    let mut record = [0; BYTES];
    record[..8].copy_from_slice(&MAGIC);
    record[8..12].copy_from_slice(&word.to_le_bytes());
    record[12..].copy_from_slice(&(!word).to_le_bytes());
    record
}

/// What a record says; `None` if it is not exactly one. Every bit is looked at: it comes from somebody else.
pub(super) fn decode(bytes: &[u8]) -> Option<Result<(), FenceError>> {
    let record: &[u8; BYTES] = bytes.try_into().ok()?;
    let word = u32::from_le_bytes([record[8], record[9], record[10], record[11]]);
    let result = FenceError::decode(word);
    (*record == encode(result)).then_some(result)
}

#[cfg(test)]
mod tests {
    use super::{BYTES, decode, encode};
    use crate::fence::{Cause, FenceError};

    #[test]
    fn a_record_says_what_was_written_and_nothing_else_is_one() {
        let results = [
            Ok(()),
            Err(FenceError::Canceled),
            Err(FenceError::Faulted { code: 0xfffe }),
            Err(FenceError::Dependency(Cause::Faulted { code: 1 })),
            Err(FenceError::Quarantined),
        ];
        for result in results {
            let record = encode(result);
            assert_eq!(decode(&record), Some(result));
            for bit in 0..BYTES * 8 {
                let mut other = record;
                other[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(decode(&other), None, "bit {bit}");
            }
            assert_eq!((decode(&record[1..]), decode(&[record, record].concat())), (None, None));
        }
        assert_eq!(decode(&[]), None);
    }
}
