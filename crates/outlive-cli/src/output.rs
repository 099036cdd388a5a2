//! What the command writes: standard output, and files that are there whole or not at all. Used by `lib.rs`, by the frames
//! and by whoever writes a picture.

use std::fs;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use crate::args::shown;
use crate::error::Stop;

/// Writes `text` to standard output. Whoever stopped reading (`outlive ... | head`) wants no more, and that is fine.
///
/// # Errors
///
/// Standard output cannot be written, as when its disk is full.
pub fn print(text: &str) -> Result<(), Stop> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Stop::cannot_run(format_args!("outlive: standard output cannot be written: {error}")))
        }
        _ => Ok(()),
    }
}

/// Whether a file can be written at `path`: its folder exists and takes files, and `path` is no folder itself. Ask before a
/// run, so that nothing is half done when it cannot.
///
/// # Errors
///
/// Why it cannot; always bad input.
pub fn check_writable_file(path: &Path) -> Result<(), Stop> {
    let refuse = |why: &dyn core::fmt::Display| {
        Stop::bad_input(format_args!(
            "{}: cannot be written: {why}; expected a file in a folder that takes files",
            shown(path)
        ))
    };
    if path.is_dir() {
        return Err(refuse(&"it is a folder"));
    }
    if path.file_name().is_none() {
        return Err(refuse(&"it names no file"));
    }
    try_folder(folder_of(path)).map_err(|error| refuse(&error))
}

/// Whether files can be made in `folder`, tried with one that goes away at once.
pub(crate) fn try_folder(folder: &Path) -> io::Result<()> {
    let probe = folder.join(format!(".outlive-{}.probe", std::process::id()));
    fs::File::create(&probe)?;
    fs::remove_file(&probe)
}

/// Writes `bytes` to `path`: the whole file appears at once, or what was there stays.
///
/// # Errors
///
/// From the operating system.
pub fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let name = path.file_name().ok_or_else(|| io::Error::new(ErrorKind::InvalidInput, "it names no file"))?;
    let mut partial_name = name.to_owned();
    partial_name.push(format!(".{}.partial", std::process::id()));
    let partial: PathBuf = path.with_file_name(partial_name);
    let written = fs::write(&partial, bytes).and_then(|()| fs::rename(&partial, path));
    if written.is_err() {
        // The first error is the one to tell; a file that cannot be removed changes nothing about it.
        let _ = fs::remove_file(&partial);
    }
    written
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_there_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.svg");
        write_whole(&path, b"one").unwrap();
        write_whole(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(write_whole(&folder.path().join("none/a.svg"), b"x").is_err());
    }

    #[test]
    fn asking_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        check_writable_file(&folder.path().join("a.svg")).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        let error = check_writable_file(&folder.path().join("none/a.svg")).unwrap_err();
        assert!(error.message.contains("none/a.svg"), "{error}");
        assert!(check_writable_file(folder.path()).unwrap_err().message.contains("it is a folder"));
    }
}
