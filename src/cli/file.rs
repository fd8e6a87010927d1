//! A file that is whole or not there: written beside its place, for its owner's eyes, and renamed
//! into it.

use std::{
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
};

use tempfile::NamedTempFile;

use super::Failure;

/// A file on its way to its place. Dropped before that, it is gone.
pub struct AtomicFile {
    file: NamedTempFile,
    place: PathBuf,
    may_replace: bool,
}

impl AtomicFile {
    /// One that takes the place of what is there.
    pub fn replacing(place: &Path) -> Result<Self, Failure> {
        Self::beside(place, true)
    }

    /// One that never takes the place of anything.
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

    /// Where it is until it is finished.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Has everything written so far survive a power cut, while it is not in its place.
    pub fn settle(&self) -> io::Result<()> {
        self.file.as_file().sync_all()
    }

    /// Puts it in its place. On return it survives a power cut.
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
