//! Reads a response body within limits on its size, read time and compression ratio, so that no
//! response exhausts memory.
//!
//! The client's own decompression is off, because it hides the compressed length that the ratio
//! needs. Only gzip is requested: every provider supports it, and its window is 32 KiB, while a
//! zstd frame may demand one of 128 MiB before the first byte is decoded.

use std::{
    io::{self, Write},
    time::Duration,
};

use bytes::Bytes;
use flate2::write::MultiGzDecoder;
use reqwest::header::CONTENT_ENCODING;
use tokio::time::{Instant, timeout};

use super::{CallErrorKind, Caps, Timeouts, exchange::TransportError};

/// The decompressed size below which the compression ratio is not checked.
const RATIO_COUNTS_FROM: usize = 64 * 1024;

/// The number of bytes fed to the decoder at once; the limits are checked while each is decoded.
const HELPING: usize = 4 * 1024;

/// Reads the whole body; fails if it exceeds a limit or is incomplete.
pub(super) async fn read(
    mut response: reqwest::Response,
    caps: &Caps,
    timeouts: &Timeouts,
) -> Result<Bytes, TransportError> {
    let declared = response.content_length();
    if declared.is_some_and(|length| length > caps.body_bytes as u64) {
        return Err(refused("the reply is larger than the cap"));
    }
    let mut unpacking = Decoder::of(&response, caps)?;
    let mut pace = ReadDeadline::new(timeouts);
    loop {
        let chunk = match timeout(pace.patience(), response.chunk()).await {
            Ok(Ok(Some(chunk))) => chunk,
            Ok(Ok(None)) => return unpacking.finish(),
            Ok(Err(error)) => return Err(TransportError::cut_short(&error.without_url())),
            Err(_) if pace.is_gap_over() => {
                return Err(TransportError::timeout("the reply stopped coming"));
            }
            // `slow_for` is over: `count` checks the rate, even without new bytes.
            Err(_) => bytes::Bytes::new(),
        };
        pace.count(chunk.len())?;
        for helping in chunk.chunks(HELPING) {
            unpacking.feed(helping)?;
        }
    }
}

fn refused(detail: &'static str) -> TransportError {
    TransportError::lasting(CallErrorKind::InvalidReply, detail)
}

/// Whether brackets nest deeper than `most`. Checked before a recursive parser runs.
pub(super) fn is_deeper_than(json: &[u8], most: usize) -> bool {
    let mut depth = 0_usize;
    let mut bytes = json.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'[' | b'{' => {
                depth += 1;
                if depth > most {
                    return true;
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'"' => {
                while let Some(byte) = bytes.next() {
                    match byte {
                        b'\\' => {
                            bytes.next();
                        }
                        b'"' => break,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    false
}

/// Fails a body that arrives too slowly: after a gap, or below a minimum rate.
struct ReadDeadline<'a> {
    timeouts: &'a Timeouts,
    last_byte_at: Instant,
    stretch_from: Instant,
    stretch_bytes: u64,
}

impl<'a> ReadDeadline<'a> {
    fn new(timeouts: &'a Timeouts) -> Self {
        let now = Instant::now();
        Self {
            timeouts,
            last_byte_at: now,
            stretch_from: now,
            stretch_bytes: 0,
        }
    }

    /// How long to wait for the next bytes before one of the deadlines must be checked.
    fn patience(&self) -> Duration {
        let gap = self
            .timeouts
            .read_gap
            .saturating_sub(self.last_byte_at.elapsed());
        let stretch = self
            .timeouts
            .slow_for
            .saturating_sub(self.stretch_from.elapsed());
        gap.min(stretch)
    }

    fn is_gap_over(&self) -> bool {
        self.last_byte_at.elapsed() >= self.timeouts.read_gap
    }

    fn count(&mut self, bytes: usize) -> Result<(), TransportError> {
        if bytes > 0 {
            self.last_byte_at = Instant::now();
            self.stretch_bytes += bytes as u64;
        }
        let stretch = self.stretch_from.elapsed();
        if stretch >= self.timeouts.slow_for {
            // Bytes per second times milliseconds is 1,000 times the bytes.
            let least = u128::from(self.timeouts.slow_floor_bytes_per_s) * stretch.as_millis();
            if u128::from(self.stretch_bytes) * 1_000 < least {
                return Err(TransportError::timeout("the reply came too slowly"));
            }
            self.stretch_from = Instant::now();
            self.stretch_bytes = 0;
        }
        Ok(())
    }
}

/// Decodes the body by its `Content-Encoding`.
enum Decoder {
    Plain(Unfolded),
    Gzip(Box<MultiGzDecoder<Unfolded>>),
}

impl Decoder {
    fn of(response: &reqwest::Response, caps: &Caps) -> Result<Self, TransportError> {
        let unfolded = Unfolded {
            body: Vec::new(),
            packed: 0,
            cap: caps.body_bytes,
            ratio: caps.ratio,
            fault: None,
        };
        let encoding = response.headers().get(CONTENT_ENCODING);
        match encoding.map(|value| value.as_bytes().to_ascii_lowercase()) {
            None => Ok(Self::Plain(unfolded)),
            Some(encoding) => match encoding.as_slice() {
                b"" | b"identity" => Ok(Self::Plain(unfolded)),
                b"gzip" | b"x-gzip" => Ok(Self::Gzip(Box::new(MultiGzDecoder::new(unfolded)))),
                _ => Err(refused(
                    "the reply is packed in a way that was not asked for",
                )),
            },
        }
    }

    fn feed(&mut self, packed: &[u8]) -> Result<(), TransportError> {
        let unfolded = match self {
            Self::Plain(unfolded) => unfolded,
            Self::Gzip(decoder) => decoder.get_mut(),
        };
        unfolded.packed += packed.len();
        if unfolded.packed > unfolded.cap {
            return Err(refused("the reply is larger than the cap"));
        }
        let written = match self {
            Self::Plain(unfolded) => unfolded.write_all(packed),
            Self::Gzip(decoder) => decoder.write_all(packed),
        };
        written.map_err(|_| self.fault())
    }

    fn finish(self) -> Result<Bytes, TransportError> {
        match self {
            Self::Plain(unfolded) => Ok(unfolded.body.into()),
            Self::Gzip(mut decoder) => match decoder.try_finish() {
                Ok(()) => Ok(std::mem::take(&mut decoder.get_mut().body).into()),
                Err(_) => Err(Self::Gzip(decoder).fault()),
            },
        }
    }

    /// Why decoding failed: a limit was exceeded, or the gzip data is invalid.
    fn fault(&self) -> TransportError {
        let unfolded = match self {
            Self::Plain(unfolded) => unfolded,
            Self::Gzip(decoder) => decoder.get_ref(),
        };
        match unfolded.fault {
            Some(detail) => refused(detail),
            None => TransportError::passing(
                CallErrorKind::InvalidReply,
                "the reply does not unpack".to_owned(),
            ),
        }
    }
}

/// The decoded body so far, with its limits.
struct Unfolded {
    body: Vec<u8>,
    packed: usize,
    cap: usize,
    ratio: usize,
    fault: Option<&'static str>,
}

impl Write for Unfolded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = self.body.len() + bytes.len();
        if length > self.cap {
            self.fault = Some("the reply is larger than the cap");
        } else if length > RATIO_COUNTS_FROM && length / self.ratio > self.packed {
            self.fault = Some("the reply unfolds further than any honest one");
        }
        if self.fault.is_some() {
            return Err(io::Error::other("out of bounds"));
        }
        self.body.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_is_counted_outside_of_strings() {
        let nest = |levels| [vec![b'['; levels], vec![b']'; levels]].concat();
        assert!(!is_deeper_than(&nest(64), 64));
        assert!(is_deeper_than(&nest(65), 64));
        assert!(!is_deeper_than(br#"{"a":"[[[\"[[[","b":[1],"c":[2]}"#, 2));
        assert!(!is_deeper_than(br#""\"#, 0));
    }
}
