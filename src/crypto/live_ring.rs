//! The ring that a process works with, which may be exchanged while it does.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;

use super::{Exposure, KeyRing, KeyRingError, key_ring::sync_folder_of};

/// A key ring that can be exchanged for another. Clones see the new one at once; who took the
/// [`current`](Self::current) one before goes on with that.
#[derive(Clone)]
pub struct LiveRing(Arc<LiveRingInner>);

struct LiveRingInner {
    current: ArcSwap<KeyRing>,
    /// None: it came with the settings and stays.
    file: Option<PathBuf>,
}

/// One that is never exchanged.
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

    /// The ring in this file, as it is now and as it will be.
    pub fn read_file(path: &Path) -> Result<Self, KeyRingError> {
        let ring = read_for_good(path)?;
        Ok(Self::new(ring, Some(path.to_owned())))
    }

    /// The ring of this moment. Whatever belongs together is done with one.
    pub fn current(&self) -> KeyRing {
        KeyRing::clone(&self.0.current.load())
    }

    /// Whether there is a file to look at again.
    pub fn has_file(&self) -> bool {
        self.0.file.is_some()
    }

    /// Who else can get at the file; None where there is no file, or none that can be looked at.
    pub fn exposure(&self) -> Option<Exposure> {
        let file = self.0.file.as_deref()?;
        Exposure::of(file).ok().flatten()
    }

    /// What is in the file, if that is another ring than the current one. Waits for the disk.
    ///
    /// # Errors
    /// What keeps the file from being read.
    pub fn changed(&self) -> Result<Option<KeyRing>, KeyRingError> {
        let Some(file) = &self.0.file else {
            return Ok(None);
        };
        if KeyRing::read_file(file)? == self.current() {
            return Ok(None);
        }
        let found = read_for_good(file)?;
        Ok((found != self.current()).then_some(found))
    }

    /// Takes another ring in the place of the current one.
    pub fn exchange(&self, ring: KeyRing) {
        self.0.current.store(Arc::new(ring));
    }
}

impl fmt::Debug for LiveRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LiveRing").field(&self.current()).finish()
    }
}

/// Reads a file, and forces what was read to the disk before anything relies on it: whoever wrote it
/// may not have, and what a new key seals is lost with that key.
fn read_for_good(path: &Path) -> Result<KeyRing, KeyRingError> {
    // What a link points to.
    let path = fs::canonicalize(path)?;
    let file = fs::File::open(&path)?;
    let ring = KeyRing::read(&file)?;
    let synced = file.sync_all().and_then(|()| sync_folder_of(&path));
    match synced {
        // Where nothing can be written, nothing waits to be.
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
