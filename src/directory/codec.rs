//! The stored form of a directory and its evidence: postcard, compressed with zstd, after one byte
//! for the format.
//!
//! Stored bytes may be truncated, altered or of another format. Decoding them is then an error and
//! never a panic, and never takes more memory than a bound that follows from their length.

use std::io::Read;

use serde::{Serialize, de::DeserializeOwned};

use super::{Directory, columns::Columns};

/// The format byte. It changes whenever the meaning of the bytes does. An older format is not read:
/// the next walk writes the new one.
const FORMAT: u8 = 1;

/// The largest ratio of decompressed to compressed bytes. Directories compress to about a fifth.
const LARGEST_RATIO: u64 = 200;

/// The decompressed size that is always allowed, however short the input is.
const SMALLEST_BOUND: u64 = 1 << 20;

/// The largest zstd window: 2^this bytes. Frames that Rolecall writes need less.
const LARGEST_WINDOW_LOG: u32 = 23;

const LEVEL: i32 = 3;

/// The bytes are not a stored value of this format.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    #[error("written in another format")]
    Format,
    #[error("not compressed as it should be, or larger than it may be")]
    Compression(#[source] std::io::Error),
    #[error("unfolds to more than its length warrants")]
    TooLarge,
    #[error("cut short or altered")]
    Encoding(#[from] postcard::Error),
    #[error("contradicts itself")]
    Unsound,
}

impl Directory {
    pub fn encode(&self) -> Vec<u8> {
        encode(&(&self.columns, &self.pages, &self.group_warnings))
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (columns, (pages, group_warnings)): (Columns, _) = decode_grown(bytes)?;
        Self::from_columns(columns, pages, group_warnings).ok_or(DecodeError::Unsound)
    }
}

pub(super) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    let plain = postcard::to_stdvec(value).expect("plain data of known length");
    let mut bytes = vec![FORMAT];
    bytes.extend(zstd::bulk::compress(&plain, LEVEL).expect("compressing into memory"));
    bytes
}

pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    whole(&unfold(bytes)?)
}

/// Decodes a value and the two that later versions append. Older bytes lack the last one, or both.
pub(super) fn decode_grown<T, U, V>(bytes: &[u8]) -> Result<(T, (U, V)), DecodeError>
where
    T: DeserializeOwned,
    U: DeserializeOwned + Default,
    V: DeserializeOwned + Default,
{
    let plain = unfold(bytes)?;
    let (value, rest) = postcard::take_from_bytes(&plain)?;
    if rest.is_empty() {
        return Ok((value, Default::default()));
    }
    let (second, rest) = postcard::take_from_bytes(rest)?;
    let third = if rest.is_empty() {
        V::default()
    } else {
        whole(rest)?
    };
    Ok((value, (second, third)))
}

/// Decodes a value that must use all bytes.
fn whole<T: DeserializeOwned>(plain: &[u8]) -> Result<T, DecodeError> {
    let (value, rest) = postcard::take_from_bytes(plain)?;
    if rest.is_empty() {
        Ok(value)
    } else {
        Err(DecodeError::Unsound)
    }
}

fn unfold(bytes: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let (&FORMAT, packed) = bytes.split_first().ok_or(DecodeError::Format)? else {
        return Err(DecodeError::Format);
    };
    let bound = (packed.len() as u64)
        .saturating_mul(LARGEST_RATIO)
        .max(SMALLEST_BOUND);
    let mut reader =
        zstd::stream::read::Decoder::with_buffer(packed).map_err(DecodeError::Compression)?;
    reader
        .window_log_max(LARGEST_WINDOW_LOG)
        .map_err(DecodeError::Compression)?;
    // Reserve the size that the frame states, up to the bound: a vector that grows by doubling
    // would allocate twice as much.
    let told = zstd::zstd_safe::get_frame_content_size(packed);
    let told = told.ok().flatten().unwrap_or_default().min(bound);
    let mut plain = Vec::with_capacity(usize::try_from(told).unwrap_or_default());
    reader
        .take(bound + 1)
        .read_to_end(&mut plain)
        .map_err(DecodeError::Compression)?;
    if plain.len() as u64 > bound {
        return Err(DecodeError::TooLarge);
    }
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::{
        Evidence,
        origin::Pages,
        testing::{first, reading},
    };

    fn small() -> (Directory, Evidence) {
        first(reading(
            &["u0", "u1", "u2"],
            &[("g1", &["u0", "x9"]), ("g2", &[])],
            0,
        ))
    }

    #[test]
    fn what_is_written_is_read_back_the_same() {
        let (directory, evidence) = small();
        assert_eq!(Directory::decode(&directory.encode()).unwrap(), directory);
        assert_eq!(Evidence::decode(&evidence.encode()).unwrap(), evidence);
    }

    #[test]
    fn a_directory_from_before_pages_or_warnings_were_kept_is_read_without_them() {
        let (mut directory, _) = small();
        let without_warnings = encode(&(&directory.columns, &directory.pages));
        assert_eq!(Directory::decode(&without_warnings).unwrap(), directory);
        let without_pages = encode(&directory.columns);
        directory.pages = Pages::default();
        assert_eq!(Directory::decode(&without_pages).unwrap(), directory);
    }

    #[test]
    fn bytes_that_are_cut_short_or_of_another_format_are_an_error() {
        let bytes = small().0.encode();
        for end in 0..bytes.len() {
            assert!(Directory::decode(&bytes[..end]).is_err(), "{end}");
        }
        let mut other = bytes;
        other[0] = FORMAT + 1;
        assert!(matches!(
            Directory::decode(&other),
            Err(DecodeError::Format)
        ));
    }

    #[test]
    fn an_altered_directory_is_an_error_or_another_sound_directory() {
        let directory = small().0;
        let plain = (
            &directory.columns,
            &directory.pages,
            &directory.group_warnings,
        );
        let plain = postcard::to_stdvec(&plain).unwrap();
        for place in 0..plain.len() {
            for flip in [0x01, 0x10, 0x80, 0xff] {
                let mut altered = plain.clone();
                altered[place] ^= flip;
                let mut bytes = vec![FORMAT];
                bytes.extend(zstd::bulk::compress(&altered, LEVEL).unwrap());
                if let Ok(directory) = Directory::decode(&bytes) {
                    for resource in [
                        crate::directory::Resource::Users,
                        crate::directory::Resource::Groups,
                        crate::directory::Resource::Roles,
                    ] {
                        let query = crate::directory::PageQuery {
                            resource,
                            page_size: 100,
                            after: None,
                            fields: Default::default(),
                            expand: Default::default(),
                        };
                        let all = directory.matches(resource, &Default::default());
                        directory.page(&query, &all);
                    }
                }
            }
        }
    }

    #[test]
    fn a_small_frame_cannot_unfold_to_gigabytes() {
        let mut bytes = vec![FORMAT];
        bytes.extend(zstd::bulk::compress(&vec![0; 64 << 20], LEVEL).unwrap());
        assert!(bytes.len() < 10_000);
        assert!(matches!(
            Directory::decode(&bytes),
            Err(DecodeError::TooLarge)
        ));
    }
}
