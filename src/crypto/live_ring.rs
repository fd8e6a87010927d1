//! The key ring of a running process, which can be replaced while the process runs.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;

use super::{Exposure, KeyRing, KeyRingError, key_ring::sync_folder_of};

/// A key ring that can be replaced. All clones see the new ring at once. A ring that
/// [`current`](Self::current) returned earlier stays usable.
#[derive(Clone)]
pub struct LiveRing(Arc<LiveRingInner>);

struct LiveRingInner {
    current: ArcSwap<KeyRing>,
    /// None if the ring came from the settings; such a ring is never reloaded.
    file: Option<PathBuf>,
}

/// Makes a ring that is never reloaded.
impl From<KeyRing> for LiveRing {
    fn from(ring: KeyRing) -> Self {
        Self::new(ring, None)
    }
}

impl LiveRing {
    fn new(ring: KeyRing, file: Option<PathBuf>) -> Self {
        let current = ArcSwap::from_pointee(ring);
        Self(Arc::new(LiveRingInner { current, file }))
    }

    /// Reads the ring from a key file, and remembers the path for reloads.
    pub fn read_file(path: &Path) -> Result<Self, KeyRingError> {
        let ring = read_durable(path)?;
        Ok(Self::new(ring, Some(path.to_owned())))
    }

    /// The current ring. An operation calls this once, and uses that ring for all of its steps.
    pub fn current(&self) -> KeyRing {
        KeyRing::clone(&self.0.current.load())
    }

    /// True if the ring came from a file, which can be reloaded.
    pub fn has_file(&self) -> bool {
        self.0.file.is_some()
    }

    /// Whether other users can access the key file. None if there is no file, or if its mode cannot
    /// be read.
    pub fn exposure(&self) -> Option<Exposure> {
        let file = self.0.file.as_deref()?;
        Exposure::of(file).ok().flatten()
    }

    /// Reads the file again. Returns its ring if it differs from the current ring. Blocks on disk
    /// I/O.
    ///
    /// # Errors
    /// The file cannot be read or parsed.
    pub fn changed(&self) -> Result<Option<KeyRing>, KeyRingError> {
        let Some(file) = &self.0.file else {
            return Ok(None);
        };
        // Read without a sync first; only a changed file needs the sync.
        if KeyRing::read_file(file)? == self.current() {
            return Ok(None);
        }
        let found = read_durable(file)?;
        Ok((found != self.current()).then_some(found))
    }

    /// Replaces the current ring.
    pub fn exchange(&self, ring: KeyRing) {
        self.0.current.store(Arc::new(ring));
    }
}

impl fmt::Debug for LiveRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LiveRing").field(&self.current()).finish()
    }
}

/// Reads a key file and syncs it to disk before anything is sealed with a new key from it. Its
/// writer may not have synced it, and data sealed with a lost key is lost.
fn read_durable(path: &Path) -> Result<KeyRing, KeyRingError> {
    // Resolve symbolic links, so that the target's folder is synced.
    let path = fs::canonicalize(path)?;
    let file = fs::File::open(&path)?;
    let ring = KeyRing::read(&file)?;
    let synced = file.sync_all().and_then(|()| sync_folder_of(&path));
    match synced {
        // A file system that cannot be written has no pending writes to sync.
        Err(error)
            if [
                io::ErrorKind::InvalidInput,
                io::ErrorKind::Unsupported,
                io::ErrorKind::ReadOnlyFilesystem,
            ]
            .contains(&error.kind()) => {}
        outcome => outcome?,
    }
    Ok(ring)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::{RingFile, Rng};

    fn ring(id: &str) -> KeyRing {
        KeyRing::generate(id, &Rng::system()).unwrap()
    }

    #[test]
    fn every_holder_sees_the_new_ring_and_whoever_took_the_old_one_keeps_it() {
        let live = LiveRing::from(ring("a"));
        let (holder, taken) = (live.clone(), live.current());
        live.exchange(ring("b"));
        assert_eq!(holder.current().encrypting_id(), "b");
        assert_eq!(taken.encrypting_id(), "a");
    }

    #[test]
    fn a_file_is_another_only_if_its_keys_or_their_order_are() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        let (old, new) = (ring("a"), ring("b"));
        old.create_file(&path).unwrap();
        let live = LiveRing::read_file(&path).unwrap();
        assert_eq!(live.changed().unwrap(), None);

        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("# a word of the operator's\n{text}")).unwrap();
        assert_eq!(live.changed().unwrap(), None);

        let [one, other] = [new.then(&old).unwrap(), old.then(&new).unwrap()];
        for ring in [one, other, KeyRing::generate("a", &Rng::system()).unwrap()] {
            RingFile::lock(&path).unwrap().replace(&ring).unwrap();
            assert_eq!(live.changed().unwrap().as_ref(), Some(&ring));
            live.exchange(ring);
            assert_eq!(live.changed().unwrap(), None);
        }

        std::fs::write(&path, "a: torn").unwrap();
        assert!(live.changed().is_err());
        std::fs::remove_file(&path).unwrap();
        assert!(live.changed().is_err());
        assert!(live.has_file() && !LiveRing::from(old).has_file());
    }
}
