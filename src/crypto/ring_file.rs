//! Exclusive access to a key file while a command changes it.
//!
//! A lost key is lost data. A command locks the file before it reads it, and replaces it as a
//! whole: it writes a new file next to the old one, syncs it and renames it. A concurrent reader
//! sees the old ring or the new ring, never a mixture.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, fchown},
    path::{Path, PathBuf},
};

use super::{KeyRing, KeyRingError, key_ring::sync_folder_of};

/// A locked key file. The lock is released on drop, and by the kernel when the process ends.
pub struct RingFile {
    path: PathBuf,
    /// Holds the lock. The key file itself is locked, so no separate lock file is needed.
    held: File,
}

impl RingFile {
    /// Locks the file. Blocks while another command holds the lock.
    ///
    /// # Errors
    /// There is no such file, or it may not be read.
    pub fn lock(path: &Path) -> Result<Self, KeyRingError> {
        // Resolve symbolic links, so that the target is replaced and the link stays.
        let path = fs::canonicalize(path)?;
        loop {
            // Some network file systems grant locks only on files opened for writing.
            let both = File::options().read(true).write(true).open(&path);
            let held = both.or_else(|_| File::open(&path))?;
            held.lock()?;
            // Another command may have replaced the file while this one waited for the lock.
            if is_same_file(&held.metadata()?, &fs::metadata(&path)?) {
                return Ok(Self { path, held });
            }
        }
    }

    /// Reads the current ring.
    pub fn read(&self) -> Result<KeyRing, KeyRingError> {
        KeyRing::read_file(&self.path)
    }

    /// Replaces the file's content with `ring`. Keeps owner and mode. On return the new file is
    /// synced to disk. Consumes the lock, because it is held on the replaced file.
    pub fn replace(self, ring: &KeyRing) -> Result<(), KeyRingError> {
        let mut name = self.path.clone().into_os_string();
        name.push(".new");
        let draft = PathBuf::from(name);
        // A killed command may have left a draft. The lock excludes every other writer.
        match fs::remove_file(&draft) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let placed = self
            .write(&draft, ring)
            .and_then(|()| Ok(fs::rename(&draft, &self.path)?));
        if placed.is_err() {
            // The draft contains keys. A failure to remove it is not reported: the first error is.
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
        // The server may run as another user than this command.
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
