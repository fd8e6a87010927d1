//! The file that a ring is kept in, while a command changes it.
//!
//! A lost key is lost data. So whoever changes the file keeps everybody else from it from before
//! it is read, and it is replaced whole: written beside its place, forced to the disk, renamed.
//! Whoever reads it meanwhile finds one ring or the other.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, fchown},
    path::{Path, PathBuf},
};

use super::{KeyRing, KeyRingError, key_ring::sync_folder_of};

/// A ring's file in the hands of one command. Freed when dropped, and by the kernel with the
/// process.
pub struct RingFile {
    path: PathBuf,
    /// The lock is on the file itself, so that nothing else need lie about.
    held: File,
}

impl RingFile {
    /// Waits until nobody else has the file in hand.
    ///
    /// # Errors
    /// When there is no such file, or it may not be read.
    pub fn lock(path: &Path) -> Result<Self, KeyRingError> {
        // What a link points to is replaced, and not the link.
        let path = fs::canonicalize(path)?;
        loop {
            // Some network file systems lock only what may be written.
            let both = File::options().read(true).write(true).open(&path);
            let held = both.or_else(|_| File::open(&path))?;
            held.lock()?;
            // Somebody may have put another in its place while this one was waited for.
            if is_same_file(&held.metadata()?, &fs::metadata(&path)?) {
                return Ok(Self { path, held });
            }
        }
    }

    /// What is in it.
    pub fn read(&self) -> Result<KeyRing, KeyRingError> {
        KeyRing::read_file(&self.path)
    }

    /// Puts `ring` in the place of what is there, for the same owner and with the same mode. On
    /// return it survives a power cut. The lock is on what was replaced, so nothing may follow.
    pub fn replace(self, ring: &KeyRing) -> Result<(), KeyRingError> {
        let mut name = self.path.clone().into_os_string();
        name.push(".new");
        let draft = PathBuf::from(name);
        // One that a killed command left behind: nobody else is at it, as we hold the lock.
        match fs::remove_file(&draft) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let placed = self
            .write(&draft, ring)
            .and_then(|()| Ok(fs::rename(&draft, &self.path)?));
        if placed.is_err() {
            // It has keys in it. What cannot be removed either is told by the error that we have.
            let _ = fs::remove_file(&draft);
        }
        placed?;
        Ok(sync_folder_of(&self.path)?)
    }

    fn write(&self, draft: &Path, ring: &KeyRing) -> Result<(), KeyRingError> {
        let mut options = File::options();
        options.write(true).create_new(true).mode(0o600);
        let mut file = options.open(draft)?;
        let (was, is) = (self.held.metadata()?, file.metadata()?);
        // The server may be another user than whoever changes its keys.
        if (is.uid(), is.gid()) != (was.uid(), was.gid()) {
            fchown(&file, Some(was.uid()), Some(was.gid()))?;
        }
        file.set_permissions(was.permissions())?;
        file.write_all(ring.to_text().as_bytes())?;
        Ok(file.sync_all()?)
    }
}

fn is_same_file(one: &fs::Metadata, other: &fs::Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::PermissionsExt, sync::mpsc, thread};

    use super::*;
    use crate::crypto::Rng;

    fn ring(id: &str) -> KeyRing {
        KeyRing::generate(id, &Rng::system()).unwrap()
    }

    #[test]
    fn a_replaced_file_keeps_its_mode_and_what_a_killed_command_left_is_no_hindrance() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        ring("a").create_file(&path).unwrap();
        fs::write(folder.path().join("keys.new"), "half a ri").unwrap();
        for mode in [0o600, 0o640] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let new = ring("b");
            RingFile::lock(&path).unwrap().replace(&new).unwrap();
            assert_eq!(KeyRing::read_file(&path).unwrap(), new);
            let found = fs::metadata(&path).unwrap().permissions();
            assert_eq!(found.mode() & 0o777, mode);
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        }
    }

    #[test]
    fn a_link_stays_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let [path, link] = ["keys", "link"].map(|name| folder.path().join(name));
        ring("a").create_file(&path).unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let new = ring("b");
        RingFile::lock(&link).unwrap().replace(&new).unwrap();
        assert_eq!(KeyRing::read_file(&path).unwrap(), new);
        assert!(link.symlink_metadata().unwrap().is_symlink());
    }

    #[test]
    fn of_many_who_add_a_key_at_once_none_loses_anothers() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        ring("first").create_file(&path).unwrap();
        let ids: Vec<_> = (0..8).map(|n| format!("k{n}")).collect();
        thread::scope(|scope| {
            for id in &ids {
                scope.spawn(|| {
                    let file = RingFile::lock(&path).unwrap();
                    let more = file.read().unwrap().then(&ring(id)).unwrap();
                    file.replace(&more).unwrap();
                });
            }
        });
        let all = KeyRing::read_file(&path).unwrap();
        assert_eq!(all.ids().count(), 9);
        assert!(ids.iter().all(|id| all.has(id)));
    }

    #[test]
    fn whoever_comes_second_waits_and_finds_what_the_first_has_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        ring("a").create_file(&path).unwrap();
        let first = RingFile::lock(&path).unwrap();
        let (tell, told) = mpsc::channel();
        thread::scope(|scope| {
            scope.spawn(|| {
                let second = RingFile::lock(&path).unwrap();
                tell.send(second.read().unwrap()).unwrap();
            });
            assert!(told.try_recv().is_err());
            let new = ring("b");
            first.replace(&new).unwrap();
            assert_eq!(told.recv().unwrap(), new);
        });
    }
}
