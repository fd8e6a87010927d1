//! A page: built once per directory version and query, then only handed out.

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

/// Which records of which directory. The version is part of it, so a new directory needs no
/// invalidation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ListKey {
    pub account: AccountId,
    pub version: u64,
    pub resource: Resource,
    pub filter: Filter,
}

impl ListKey {
    /// Bytes of memory. The texts are the caller's, and so they count.
    pub fn approximate_size(&self) -> usize {
        size_of::<Self>() + self.filter.text_size()
    }
}

/// What a page is of.
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
    /// The weak ETag (RFC 9110, 8.8.3): of what the page is of, not of its bytes, so that a 304
    /// is answered before a page exists.
    pub fn etag(&self) -> Arc<str> {
        etag(self.list.version, self)
    }
}

/// The weak ETag of an answer that follows from `of`, in which the version is.
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

/// One built answer: its bytes, and their compressed forms once somebody asked for them.
#[derive(Debug)]
pub struct CachedPage {
    /// That of its key, which takes longer to make than all else that a built page is asked for.
    pub etag: Arc<str>,
    body: Bytes,
    zstd: OnceLock<Bytes>,
    gzip: OnceLock<Bytes>,
}

/// How a body travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    Identity,
    Gzip,
    Zstd,
}

/// Below this a compressed form saves nothing worth a header.
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

    /// The body in the wanted coding, and the coding that it is in.
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

    /// Bytes of memory, counting the compressed forms as if they were there.
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
