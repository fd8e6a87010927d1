//! Atomic files: written beside the target path, readable by the owner only, then renamed. A reader
//! finds the complete file or none.

use std::{
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
};

use tempfile::NamedTempFile;

use super::Failure;

/// A file that is not yet at its target path. Dropping it deletes it.
pub struct AtomicFile {
    file: NamedTempFile,
    place: PathBuf,
    may_replace: bool,
}

impl AtomicFile {
    /// Starts a file that replaces an existing one.
    pub fn replacing(place: &Path) -> Result<Self, Failure> {
        Self::beside(place, true)
    }

    /// Starts a file that never replaces an existing one.
    pub fn new(place: &Path) -> Result<Self, Failure> {
        if place.symlink_metadata().is_ok() {
            return Err(taken(place));
        }
        Self::beside(place, false)
    }

    fn beside(place: &Path, may_replace: bool) -> Result<Self, Failure> {
        let cannot = |why: &dyn std::fmt::Display| {
            Failure::Other(format!(
                "{} cannot be written: {why}; name a file in a folder that is there and may be \
                 written to",
                place.display()
            ))
        };
        if place.is_dir() || place.file_name().is_none() {
            return Err(cannot(&"it is a folder"));
        }
        let file = NamedTempFile::new_in(folder(place)).map_err(|error| cannot(&error))?;
        Ok(Self {
            file,
            place: place.to_owned(),
            may_replace,
        })
    }

    /// The temporary path, until the file is finished.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Syncs everything written so far to disk. The file stays at its temporary path.
    pub fn settle(&self) -> io::Result<()> {
        self.file.as_file().sync_all()
    }

    /// Moves the file to its target path. When this returns, the file survives a power cut.
    pub fn finish(self) -> Result<(), Failure> {
        let Self {
            file,
            place,
            may_replace,
        } = self;
        file.as_file().sync_all()?;
        let placed = if may_replace {
            file.persist(&place)
        } else {
            file.persist_noclobber(&place)
        };
        match placed {
            Ok(_) => Ok(File::open(folder(&place))?.sync_all()?),
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Err(taken(&place)),
            Err(error) => Err(Failure::Other(format!(
                "{} cannot be put in its place: {}",
                place.display(),
                error.error
            ))),
        }
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn folder(place: &Path) -> &Path {
    match place.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn taken(place: &Path) -> Failure {
    Failure::Other(format!(
        "{} is there already and is left as it is; name another file",
        place.display()
    ))
}
