//! Writing that survives being killed at any instant: whole lines only, one writer at a time,
//! replacement in one step.

use crate::pipeline::Error;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

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

/// What one process holds at a time: a locked file, which goes with it.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    _file: File,
}

impl Lock {
    /// # Errors
    /// [`Error::Locked`] if another process holds it, which is said of `guarded`; [`Error::Io`].
    pub fn take(path: &Path, guarded: &Path) -> Result<Self, Error> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        loop {
            let file = options.open(path).map_err(Error::io(path))?;
            match file.try_lock() {
                Err(TryLockError::WouldBlock) => {
                    return Err(Error::Locked { path: guarded.to_owned() });
                }
                Err(TryLockError::Error(source)) => return Err(Error::io(path)(source)),
                // Whoever held it may have removed the file since it was opened.
                Ok(()) if is_at(&file, path) => {
                    return Ok(Self { path: path.to_owned(), _file: file });
                }
                Ok(()) => {}
            }
        }
    }
}

/// Removed while it is held, so that nobody else's is.
impl Drop for Lock {
    fn drop(&mut self) {
        // A file that stays locks nobody out.
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(unix)]
fn identity(metadata: &std::fs::Metadata) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt;
    (metadata.dev(), metadata.ino())
}

/// Whether `path` still leads to an open file.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    let both = file.metadata().ok().zip(std::fs::metadata(path).ok());
    both.is_some_and(|(own, there)| identity(&own) == identity(&there))
}

#[cfg(not(unix))]
fn is_at(_: &File, path: &Path) -> bool {
    path.exists()
}

/// Whether two paths lead to one file.
#[cfg(unix)]
fn is_same(a: &Path, b: &Path) -> bool {
    let both = std::fs::metadata(a).ok().zip(std::fs::metadata(b).ok());
    both.is_some_and(|(a, b)| identity(&a) == identity(&b))
}

#[cfg(not(unix))]
fn is_same(a: &Path, b: &Path) -> bool {
    let both = a.canonicalize().ok().zip(b.canonicalize().ok());
    both.is_some_and(|(a, b)| a == b)
}

/// Refuses an output that is one of the inputs, by whatever name.
///
/// # Errors
/// [`Error::Tools`], with the names of both.
pub fn keep_inputs(out: &Path, inputs: &[&Path]) -> Result<(), Error> {
    let Some(input) = inputs.iter().find(|input| is_same(out, input)) else { return Ok(()) };
    let (out, input) = (out.display(), input.display());
    Err(Error::Tools(format!("{out}: is read by this command as {input}: choose another output")))
}

/// Refuses an output that would replace a file of others: one that holds something that `is_ours` does not
/// know. `what` says what the command writes there. What is no file is written to, not replaced.
///
/// # Errors
/// [`Error::Tools`]; what `is_ours` returns.
pub fn keep_others(
    out: &Path,
    what: &str,
    is_ours: impl FnOnce(&Path) -> Result<bool, Error>,
) -> Result<(), Error> {
    let holds_something =
        std::fs::metadata(out).is_ok_and(|found| found.is_file() && found.len() > 0);
    if !holds_something || is_ours(out)? {
        return Ok(());
    }
    Err(Error::Tools(format!(
        "{}: holds something other than {what}: choose another output, or move the file away",
        out.display()
    )))
}

/// Makes the folder that a file is to stand in.
pub(in crate::pipeline) fn make_folder(path: &Path) -> Result<(), Error> {
    let folder = path.parent().unwrap_or(Path::new(""));
    std::fs::create_dir_all(folder).map_err(Error::io(folder))
}

/// Puts a file in the place of `path` in one step: whoever looks sees the old or the new one whole. A link
/// stays, and what it leads to is replaced. What is no file (a pipe, a terminal) is written to. The folder of
/// `path` is made.
///
/// # Errors
/// [`Error::Io`], also for what `write` returns; then the old file is still there.
pub fn replace(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> Result<(), Error>,
) -> Result<(), Error> {
    let old = std::fs::metadata(path).ok();
    if old.as_ref().is_some_and(|old| !old.is_file()) {
        let file = OpenOptions::new().write(true).open(path).map_err(Error::io(path))?;
        return write_to(file, path, write).map(drop);
    }
    make_folder(path)?;
    let target = followed(path);
    // It goes with the value, unless it gets to its place.
    let new = temporary(&target).map_err(Error::io(path))?;
    let file = new.as_file().try_clone().map_err(Error::io(path))?;
    let file = write_to(file, path, write)?;
    if let Some(old) = old {
        file.set_permissions(old.permissions()).map_err(Error::io(path))?;
    }
    file.sync_all().map_err(Error::io(path))?;
    drop(file);
    new.persist(&target).map_err(|e| Error::io(path)(e.error))?;
    sync_folder(&target);
    Ok(())
}

fn write_to(
    file: File,
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> Result<(), Error>,
) -> Result<File, Error> {
    let mut writer = BufWriter::new(file);
    write(&mut writer)?;
    writer.into_inner().map_err(|e| Error::io(path)(e.into_error()))
}

/// A new file beside another one, which nobody else has.
fn temporary(path: &Path) -> io::Result<NamedTempFile> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let prefix = format!(".{name}.");
    let mut builder = tempfile::Builder::new();
    builder.prefix(&prefix).suffix(".tmp");
    // As other new files have it.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(folder.unwrap_or(Path::new(".")))
}

/// Where a link leads to, though there may be nothing yet; another path as it is.
fn followed(path: &Path) -> PathBuf {
    /// Links that lead to links, at most, as systems have it.
    const DEPTH: usize = 40;
    let mut path = path.to_owned();
    for _ in 0..DEPTH {
        let Ok(next) = std::fs::read_link(&path) else { break };
        path = path.parent().unwrap_or(Path::new("")).join(next);
    }
    path
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
    use super::super::holds_fields;
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
        let first = Lock::take(&path, &path).unwrap();
        assert!(matches!(Lock::take(&path, &path), Err(Error::Locked { .. })));
        drop(first);
        assert!(!path.exists());
        // What a killed process left locks nobody out.
        std::fs::write(&path, "").unwrap();
        assert!(Lock::take(&path, &path).is_ok());
    }

    #[cfg(unix)]
    #[test]
    fn many_that_want_the_lock_get_it_one_after_the_other() {
        use std::sync::atomic::{AtomicUsize, Ordering};
        let dir = tempfile::tempdir().unwrap();
        let path = path(&dir);
        let (inside, taken) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while taken.load(Ordering::SeqCst) < 200 {
                        let Ok(_lock) = Lock::take(&path, &path) else { continue };
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two at once");
                        taken.fetch_add(1, Ordering::SeqCst);
                        inside.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
    }

    #[test]
    fn an_output_that_is_read_is_refused_by_any_name() {
        let dir = tempfile::tempdir().unwrap();
        let (file, other) = (path(&dir), dir.path().join("other.jsonl"));
        std::fs::write(&file, "x").unwrap();
        let around = dir.path().join("../").join(dir.path().file_name().unwrap()).join("out.jsonl");
        let mut names = vec![file.clone(), around];
        #[cfg(unix)]
        {
            let [soft, hard] = ["soft", "hard"].map(|name| dir.path().join(name));
            std::os::unix::fs::symlink("out.jsonl", &soft).unwrap();
            std::fs::hard_link(&file, &hard).unwrap();
            names.extend([soft, hard]);
        }
        for name in names {
            let told = keep_inputs(&name, &[&other, &file]).unwrap_err().to_string();
            assert!(told.contains("choose another output"), "{told}");
        }
        keep_inputs(&other, &[&file]).unwrap();
        std::fs::write(&other, "x").unwrap();
        keep_inputs(&other, &[&file]).unwrap();
    }

    #[test]
    fn only_what_is_known_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let (file, ours) = (path(&dir), dir.path().join("ours"));
        let check = |path: &Path| {
            keep_others(path, "notes", |path| holds_fields(path, &[&["a"], &["b", "c"]]))
        };
        check(&file).unwrap();
        std::fs::write(&ours, "{\n \"c\": 1,\n \"b\": [{}]\n}\n").unwrap();
        check(&ours).unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink("ours", dir.path().join("link")).unwrap();
        for theirs in ["x", "{\"b\": 1}\n{\"a\": 1}", "[{\"a\": 1}]", "{\"a\": ", "\n"] {
            std::fs::write(&ours, theirs).unwrap();
            #[cfg(unix)]
            check(&dir.path().join("link")).unwrap_err();
            let told = check(&ours).unwrap_err().to_string();
            assert!(told.contains("ours: holds something other than notes"), "{told}");
        }
        std::fs::write(&ours, "").unwrap();
        check(&ours).unwrap();
        check(dir.path()).unwrap();
    }

    fn text(text: &str) -> impl FnOnce(&mut BufWriter<File>) -> Result<(), Error> {
        move |writer| writer.write_all(text.as_bytes()).map_err(Error::io(Path::new("x")))
    }

    #[cfg(unix)]
    #[test]
    fn links_and_permissions_stay() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (path(&dir), dir.path().join("link"));
        std::fs::create_dir(dir.path().join("below")).unwrap();
        // A link to a file that is not there yet, and to one that is.
        symlink("below/deep", dir.path().join("between")).unwrap();
        symlink("between", &link).unwrap();
        for told in ["one", "two"] {
            replace(&link, text(told)).unwrap();
            assert!(link.is_symlink() && dir.path().join("between").is_symlink());
            assert_eq!(std::fs::read_to_string(dir.path().join("below/deep")).unwrap(), told);
        }
        std::fs::write(&file, "").unwrap();
        let plain = std::fs::metadata(&file).unwrap().permissions().mode();
        std::fs::remove_file(&file).unwrap();
        replace(&file, text("new")).unwrap();
        let mode = || std::fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode(), plain);
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o640)).unwrap();
        replace(&file, text("newer")).unwrap();
        assert_eq!(mode() & 0o777, 0o640);
    }

    #[cfg(unix)]
    #[test]
    fn what_is_no_file_is_written_to() {
        use std::os::unix::fs::FileTypeExt;
        let dir = tempfile::tempdir().unwrap();
        let pipe = path(&dir);
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
        assert!(made.success());
        let from = pipe.clone();
        let reader = std::thread::spawn(move || std::fs::read_to_string(from).unwrap());
        replace(&pipe, text("told")).unwrap();
        assert_eq!(reader.join().unwrap(), "told");
        assert!(std::fs::metadata(&pipe).unwrap().file_type().is_fifo());
    }

    #[test]
    fn two_that_replace_a_file_do_not_disturb_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/out.jsonl");
        let nested = replace(&path, |outer| {
            replace(&path, text("inner"))?;
            text("outer")(outer)
        });
        nested.unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "outer");
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
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
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        replace(&path, |writer| writer.write_all(b"new").map_err(Error::io(Path::new("x"))))
            .unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
