//! Checks by file mode whether other users can access a file or folder that holds secrets.

use std::{
    fmt, fs, io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
};

const OTHERS_READ: u32 = 0o004;
const OTHERS_WRITE: u32 = 0o002;
const GROUP_WRITE: u32 = 0o020;

/// A file or folder that users other than its owner can access.
///
/// Read access for its group is allowed, because orchestrators mount secrets with mode 0440.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exposure {
    mode: u32,
    mend: String,
}

impl Exposure {
    /// None if others can neither read nor write the file at `path`, and its group cannot write it.
    /// Follows symbolic links.
    ///
    /// # Errors
    /// The file's metadata cannot be read.
    pub fn of(path: &Path) -> io::Result<Option<Self>> {
        let found = fs::metadata(path)?;
        let mode = found.permissions().mode() & 0o7777;
        if mode & (OTHERS_READ | OTHERS_WRITE | GROUP_WRITE) == 0 {
            return Ok(None);
        }
        // If another user owns the file, this process can read it only through its group.
        let is_ours = found.uid() == rustix::process::geteuid().as_raw();
        let right = match (is_ours, found.is_dir()) {
            (true, false) => "600",
            (true, true) => "700",
            (false, false) => "640",
            (false, true) => "750",
        };
        let mend = format!("chmod {right} {}", quoted(path));
        Ok(Some(Self { mode, mend }))
    }

    fn who(&self) -> &'static str {
        let has = |bits| self.mode & bits != 0;
        if has(OTHERS_READ) && has(OTHERS_WRITE) {
            "can be read and written by others"
        } else if has(OTHERS_READ) {
            "can be read by others"
        } else if has(OTHERS_WRITE) {
            "can be written by others"
        } else {
            "can be written by its group"
        }
    }
}

impl fmt::Display for Exposure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { mode, mend } = self;
        write!(f, "{} (mode {mode:04o}); `{mend}` mends that", self.who())
    }
}

/// A path quoted for a POSIX shell.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte);
    if text.bytes().all(is_plain) {
        return text;
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_for_its_owner_and_the_readers_of_its_group() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("it's a ring");
        fs::write(&path, "").unwrap();
        let exposure = |mode| {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            Exposure::of(&path).unwrap().map(|found| found.to_string())
        };
        for mode in [0o400, 0o440, 0o600, 0o640, 0o700, 0o750, 0o641] {
            assert_eq!(exposure(mode), None, "{mode:o}");
        }
        for (mode, words) in [
            (0o644, "can be read by others (mode 0644)"),
            (0o604, "can be read by others (mode 0604)"),
            (0o444, "can be read by others (mode 0444)"),
            (0o602, "can be written by others (mode 0602)"),
            (0o666, "can be read and written by others (mode 0666)"),
            (0o777, "can be read and written by others (mode 0777)"),
            (0o660, "can be written by its group (mode 0660)"),
            (0o620, "can be written by its group (mode 0620)"),
        ] {
            let found = exposure(mode).unwrap_or_else(|| panic!("{mode:o}"));
            assert!(found.starts_with(words), "{found}");
            assert!(found.contains(r"it'\''s a ring'` mends that"), "{found}");
        }
        assert!(Exposure::of(&folder.path().join("absent")).is_err());
    }
}
