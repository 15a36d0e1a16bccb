//! Writing that survives being killed at any instant: whole lines only, one writer at a time,
//! replacement in one step.

use crate::pipeline::Error;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Adds lines to the end of a file.
#[derive(Debug)]
pub struct Appender {
    path: PathBuf,
    file: File,
    len: u64,
    dirty: bool,
}

impl Appender {
    /// Opens or makes the file. If its last line has no end, because a writer was killed, that
    /// line is cut off.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn open(path: &Path) -> Result<Self, Error> {
        let open = || {
            let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
            let len = end_of_last_line(&mut file)?;
            if len < file.metadata()?.len() {
                file.set_len(len)?;
                file.sync_data()?;
            }
            Ok((file, len))
        };
        let (file, len) = open().map_err(Error::io(path))?;
        Ok(Self { path: path.to_owned(), file, len, dirty: false })
    }

    /// Bytes in the file: where the next line will begin.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether the file has no line yet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds a line in a single write. It is on disk after the next [`sync`](Appender::sync).
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn append(&mut self, line: &str) -> Result<(), Error> {
        debug_assert!(!line.contains('\n'), "a record is one line");
        let bytes = format!("{line}\n");
        self.file.write_all(bytes.as_bytes()).map_err(Error::io(&self.path))?;
        self.len += bytes.len() as u64;
        self.dirty = true;
        Ok(())
    }

    /// Waits until all lines are on disk.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn sync(&mut self) -> Result<(), Error> {
        if std::mem::take(&mut self.dirty) {
            self.file.sync_data().map_err(Error::io(&self.path))?;
        }
        Ok(())
    }
}

/// The number of bytes up to and with the last line break.
fn end_of_last_line(file: &mut File) -> io::Result<u64> {
    const PIECE: u64 = 64 << 10;
    let mut end = file.seek(SeekFrom::End(0))?;
    while end > 0 {
        let start = end.saturating_sub(PIECE);
        let mut piece = vec![0; (end - start) as usize];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(&mut piece)?;
        if let Some(at) = piece.iter().rposition(|&byte| byte == b'\n') {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

/// Opens or makes a file and locks it until it is dropped.
///
/// # Errors
/// [`Error::Locked`] if another process holds it, which is said of `guarded`; [`Error::Io`].
pub fn lock(path: &Path, guarded: &Path) -> Result<File, Error> {
    let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
    let file = open.map_err(Error::io(path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::Locked { path: guarded.to_owned() }),
        Err(TryLockError::Error(source)) => Err(Error::io(path)(source)),
    }
}

/// Makes the folder that a file is to stand in.
pub(in crate::pipeline) fn make_folder(path: &Path) -> Result<(), Error> {
    let folder = path.parent().unwrap_or(Path::new(""));
    std::fs::create_dir_all(folder).map_err(Error::io(folder))
}

/// Puts a file in the place of `path` in one step: whoever looks sees the old or the new one whole.
///
/// # Errors
/// [`Error::Io`], also for what `write` returns; then the old file is still there.
pub fn replace(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> Result<(), Error>,
) -> Result<(), Error> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.tmp"));
    let file = File::create(&temporary).map_err(Error::io(&temporary))?;
    let mut writer = BufWriter::new(file);
    write(&mut writer)?;
    let file = writer.into_inner().map_err(|e| Error::io(&temporary)(e.into_error()))?;
    file.sync_all().map_err(Error::io(&temporary))?;
    std::fs::rename(&temporary, path).map_err(Error::io(path))?;
    sync_folder(path);
    Ok(())
}

/// Makes a rename durable where folders can be synced; elsewhere the system sees to it.
fn sync_folder(path: &Path) {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    if let Ok(folder) = File::open(folder.unwrap_or(Path::new("."))) {
        // Not every system can sync a folder, and the new file is in place either way.
        let _ = folder.sync_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(dir: &tempfile::TempDir) -> PathBuf {
        dir.path().join("out.jsonl")
    }

    #[test]
    fn a_torn_tail_is_cut_wherever_it_tore() {
        let dir = tempfile::tempdir().unwrap();
        let path = path(&dir);
        let long = "x".repeat(150_000);
        let whole = format!("one\n{long}\nthree\n");
        for cut in (0..20).chain(64_000..64_010).chain(149_990..whole.len() + 1) {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let mut appender = Appender::open(&path).unwrap();
            appender.append("next").unwrap();
            appender.sync().unwrap();
            let kept = whole[..cut].rfind('\n').map_or("", |end| &whole[..end + 1]);
            assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{kept}next\n"));
            assert_eq!(appender.len(), (kept.len() + 5) as u64);
        }
    }

    #[test]
    fn a_second_writer_is_refused_until_the_first_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let path = path(&dir);
        let first = lock(&path, &path).unwrap();
        assert!(matches!(lock(&path, &path), Err(Error::Locked { .. })));
        drop(first);
        assert!(lock(&path, &path).is_ok());
    }

    #[test]
    fn a_failed_replacement_leaves_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = path(&dir);
        std::fs::write(&path, "old").unwrap();
        let failed = replace(&path, |writer| {
            writer.write_all(b"half").map_err(Error::io(Path::new("x")))?;
            Err(Error::Broken("no".to_owned()))
        });
        assert!(failed.is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "old");
        replace(&path, |writer| writer.write_all(b"new").map_err(Error::io(Path::new("x"))))
            .unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
