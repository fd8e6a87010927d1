//! Pages of a directory. A page is built once per directory version and query, and then served from
//! memory.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::{
    directory::{ExpandSet, FieldSet, Filter, Resource},
    model::id::{AccountId, RemoteId},
};

/// The records of one version that a filter selects. The key contains the version, so a new
/// directory needs no invalidation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ListKey {
    pub account: AccountId,
    pub version: u64,
    pub resource: Resource,
    pub filter: Filter,
}

impl ListKey {
    /// Size in memory, in bytes. Includes the filter's strings, whose length the client determines.
    pub fn approximate_size(&self) -> usize {
        size_of::<Self>() + self.filter.text_size()
    }
}

/// Identifies a page: the list, the fields and the part.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PageKey {
    pub list: ListKey,
    pub fields: FieldSet,
    pub expand: ExpandSet,
    pub raw: bool,
    pub part: PageScope,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PageScope {
    List {
        page_size: u32,
        after: Option<RemoteId>,
    },
    Record {
        id: Box<str>,
    },
}

impl PageKey {
    /// The weak ETag (RFC 9110, 8.8.3). It depends on this key, not on the bytes of the page, so a
    /// 304 can be returned without building the page.
    pub fn etag(&self) -> Arc<str> {
        etag(self.list.version, self)
    }
}

/// The weak ETag of a response that `of` determines. `of` must contain the version.
pub fn etag(version: u64, of: &impl fmt::Debug) -> Arc<str> {
    use fmt::Write;

    let digest = Sha256::digest(format!("{of:?}").as_bytes());
    let mut etag = format!("W/\"{version}-");
    for byte in &digest[..12] {
        write!(etag, "{byte:02x}").expect("writing to a String does not fail");
    }
    etag.push('"');
    etag.into()
}

/// A built response: its bytes, and compressed forms that are created on first use.
#[derive(Debug)]
pub struct CachedPage {
    /// The ETag of its key, stored because computing it is the slowest part of serving a cached
    /// page.
    pub etag: Arc<str>,
    body: Bytes,
    zstd: OnceLock<Bytes>,
    gzip: OnceLock<Bytes>,
}

/// The content coding of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    Identity,
    Gzip,
    Zstd,
}

/// Smaller bodies are not compressed: the saving is not worth it.
const WORTH_COMPRESSING: usize = 860;

impl CachedPage {
    pub fn new(etag: Arc<str>, body: Vec<u8>) -> Self {
        Self {
            etag,
            body: body.into(),
            zstd: OnceLock::new(),
            gzip: OnceLock::new(),
        }
    }

    /// The body in the wanted coding, or uncompressed if it is small. Also returns the coding used.
    pub fn body(&self, wanted: Coding) -> (Bytes, Coding) {
        if self.body.len() < WORTH_COMPRESSING {
            return (self.body.clone(), Coding::Identity);
        }
        let bytes = match wanted {
            Coding::Identity => self.body.clone(),
            Coding::Zstd => self.zstd.get_or_init(|| zstd(&self.body)).clone(),
            Coding::Gzip => self.gzip.get_or_init(|| gzip(&self.body)).clone(),
        };
        (bytes, wanted)
    }

    /// Size in memory, in bytes. Assumes that the compressed forms exist.
    pub fn approximate_size(&self) -> usize {
        self.body.len() + self.body.len() / 2 + 256
    }
}

fn zstd(body: &[u8]) -> Bytes {
    zstd::bulk::compress(body, 6)
        .expect("compressing into memory does not fail")
        .into()
}

fn gzip(body: &[u8]) -> Bytes {
    use std::io::Write;

    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
    encoder
        .write_all(body)
        .and_then(|()| encoder.finish())
        .expect("compressing into memory does not fail")
        .into()
}
