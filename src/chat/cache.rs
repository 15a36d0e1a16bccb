//! Replies kept on disk by what was asked, so that a job that is run again with one thing changed
//! computes only what depends on it.
//!
//! A reply is a function of the model and the call alone (its seed included), so a kept
//! reply is the one that the model would give. What names the model must therefore name
//! everything that its replies depend on.

use super::kept::Kept;
use super::{Call, CallId, Chat, ChatError, Reply, Usage};
use redb::{
    Database, DatabaseError, Durability, ReadableDatabase, ReadableTable, StorageError,
    TableDefinition,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Key to kept reply.
const REPLIES: TableDefinition<&[u8], &[u8]> = TableDefinition::new("replies");
/// Time of the last use (counted in uses) to key.
const USES: TableDefinition<u64, &[u8]> = TableDefinition::new("uses");
/// Bytes of all replies, and the next time.
const COUNTS: TableDefinition<&str, u64> = TableDefinition::new("counts");
const BYTES: &str = "bytes";
const NOW: &str = "now";

/// What is written between two commits that wait for the disk. After a crash the file is whole and
/// lacks at most these.
const WRITES_BETWEEN_SYNCS: usize = 64;

/// The file of kept replies can't be used.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    #[error(
        "{}: another run has this file of replies open: wait for it to end, or give --cache another \
         file", path.display()
    )]
    InUse { path: PathBuf },
    #[error("{}: is no file of replies that this program kept: give --cache another file", path.display())]
    NotOurs { path: PathBuf },
    #[error("{}: {problem}; move the file away to begin anew", path.display())]
    Damaged { path: PathBuf, problem: String },
}

/// Replies on disk, at most so many bytes of them: those that were not used for longest go first.
#[derive(Debug)]
pub struct CallCache {
    database: Database,
    path: PathBuf,
    limit: u64,
    writes: usize,
}

/// Names a call and the model that it is made to.
type Key = [u8; 32];

/// What stands in the file for a call.
#[derive(Serialize, Deserialize)]
struct Entry {
    used: u64,
    reply: Kept,
}

impl CallCache {
    /// Opens or makes the file.
    ///
    /// # Errors
    /// The file can't be made, is no such file, or another program has it open.
    pub fn open(path: &Path, limit: u64) -> Result<Self, CacheError> {
        let failed = |problem: String| CacheError::Damaged { path: path.to_owned(), problem };
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|e| failed(e.to_string()))?;
        }
        let database = Database::create(path).map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => CacheError::InUse { path: path.to_owned() },
            // It does not begin as such files do.
            DatabaseError::Storage(StorageError::Io(error))
                if error.kind() == ErrorKind::InvalidData =>
            {
                CacheError::NotOurs { path: path.to_owned() }
            }
            error => failed(error.to_string()),
        })?;
        let cache = Self { database, path: path.to_owned(), limit, writes: 0 };
        cache.make_tables().map_err(|e| failed(e.to_string()))?;
        Ok(cache)
    }

    fn make_tables(&self) -> Result<(), redb::Error> {
        let transaction = self.database.begin_write()?;
        transaction.open_table(REPLIES)?;
        transaction.open_table(USES)?;
        transaction.open_table(COUNTS)?;
        Ok(transaction.commit()?)
    }

    fn get(&self, key: &Key) -> Result<Option<Reply>, CacheError> {
        let read = || -> Result<Option<Entry>, redb::Error> {
            let replies = self.database.begin_read()?.open_table(REPLIES)?;
            let found = replies.get(key.as_slice())?;
            Ok(found.and_then(|bytes| serde_json::from_slice(bytes.value()).ok()))
        };
        let entry = read().map_err(|e| self.error(&e))?;
        Ok(entry.and_then(|entry| entry.reply.try_into().ok()))
    }

    /// Keeps new replies and remembers that others were used.
    fn put(&mut self, new: &[(Key, &Reply)], used: &[Key]) -> Result<(), CacheError> {
        self.writes += 1;
        let durability = match self.writes % WRITES_BETWEEN_SYNCS {
            0 => Durability::Immediate,
            _ => Durability::None,
        };
        self.write(new, used, durability).map_err(|e| self.error(&e))
    }

    /// Waits until all is on disk.
    ///
    /// # Errors
    /// The disk fails.
    pub fn sync(&mut self) -> Result<(), CacheError> {
        self.write(&[], &[], Durability::Immediate).map_err(|e| self.error(&e))
    }

    fn error(&self, error: &redb::Error) -> CacheError {
        CacheError::Damaged { path: self.path.clone(), problem: error.to_string() }
    }

    fn write(
        &self,
        new: &[(Key, &Reply)],
        used: &[Key],
        durability: Durability,
    ) -> Result<(), redb::Error> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(durability)?;
        {
            let mut tables = Tables {
                replies: transaction.open_table(REPLIES)?,
                uses: transaction.open_table(USES)?,
                counts: transaction.open_table(COUNTS)?,
            };
            for key in used {
                tables.touch(key)?;
            }
            for (key, reply) in new {
                tables.insert(key, reply)?;
            }
            tables.shrink(self.limit)?;
        }
        Ok(transaction.commit()?)
    }
}

/// The file within a transaction.
struct Tables<'t> {
    replies: redb::Table<'t, &'static [u8], &'static [u8]>,
    uses: redb::Table<'t, u64, &'static [u8]>,
    counts: redb::Table<'t, &'static str, u64>,
}

impl Tables<'_> {
    fn count(&self, name: &str) -> Result<u64, redb::Error> {
        Ok(self.counts.get(name)?.map_or(0, |count| count.value()))
    }

    /// The next time, each only once.
    fn now(&mut self) -> Result<u64, redb::Error> {
        let now = self.count(NOW)?;
        self.counts.insert(NOW, now + 1)?;
        Ok(now)
    }

    fn insert(&mut self, key: &Key, reply: &Reply) -> Result<(), redb::Error> {
        self.remove(key)?;
        let used = self.now()?;
        self.keep(key, &Entry { used, reply: reply.into() })
    }

    fn touch(&mut self, key: &Key) -> Result<(), redb::Error> {
        if let Some(mut entry) = self.remove(key)? {
            entry.used = self.now()?;
            self.keep(key, &entry)?;
        }
        Ok(())
    }

    fn keep(&mut self, key: &Key, entry: &Entry) -> Result<(), redb::Error> {
        let json = serde_json::to_vec(entry).map_err(std::io::Error::from)?;
        self.replies.insert(key.as_slice(), json.as_slice())?;
        self.uses.insert(entry.used, key.as_slice())?;
        let bytes = self.count(BYTES)? + size(&json);
        self.counts.insert(BYTES, bytes)?;
        Ok(())
    }

    fn remove(&mut self, key: &[u8]) -> Result<Option<Entry>, redb::Error> {
        let Some(json) = self.replies.remove(key)?.map(|json| json.value().to_vec()) else {
            return Ok(None);
        };
        let bytes = self.count(BYTES)?.saturating_sub(size(&json));
        self.counts.insert(BYTES, bytes)?;
        let entry: Option<Entry> = serde_json::from_slice(&json).ok();
        if let Some(entry) = &entry {
            self.uses.remove(entry.used)?;
        }
        Ok(entry)
    }

    fn shrink(&mut self, limit: u64) -> Result<(), redb::Error> {
        while self.count(BYTES)? > limit {
            let oldest = self.uses.first()?.map(|(used, key)| (used.value(), key.value().to_vec()));
            let Some((used, key)) = oldest else { break };
            self.remove(&key)?;
            // An entry that can't be read does not say when it was used.
            self.uses.remove(used)?;
        }
        Ok(())
    }
}

/// What a reply counts for: itself, its key twice, and the numbers beside it.
fn size(json: &[u8]) -> u64 {
    json.len() as u64 + 96
}

/// A model whose replies are kept.
pub struct Cached<'a> {
    inner: &'a mut dyn Chat,
    cache: &'a mut CallCache,
    /// Hash of everything that names the model.
    model: Key,
    open: HashMap<CallId, Key>,
    /// Replies that were kept, and not handed out yet.
    found: Vec<(CallId, Key, Reply)>,
    /// How many calls were answered so.
    hits: u64,
    failed: Option<CacheError>,
}

impl<'a> Cached<'a> {
    /// `model` names everything that replies depend on besides the call: checkpoint, type,
    /// tokenizer, chat template.
    pub fn new<'m>(
        inner: &'a mut dyn Chat,
        cache: &'a mut CallCache,
        model: impl IntoIterator<Item = (&'m str, &'m str)>,
    ) -> Self {
        let mut hasher = Sha256::new();
        for text in model.into_iter().flat_map(|(name, value)| [name, value]) {
            hasher.update((text.len() as u64).to_le_bytes());
            hasher.update(text);
        }
        let (model, open, found) = (hasher.finalize().into(), HashMap::new(), Vec::new());
        Self { inner, cache, model, open, found, hits: 0, failed: None }
    }

    /// How many calls were answered without the model, once all is on disk.
    ///
    /// # Errors
    /// The first failure of the cache. (The calls were answered nevertheless.)
    pub fn finish(self) -> Result<u64, CacheError> {
        match self.failed {
            Some(error) => Err(error),
            None => self.cache.sync().map(|()| self.hits),
        }
    }

    fn note<T: Default>(&mut self, result: Result<T, CacheError>) -> T {
        result.unwrap_or_else(|error| {
            self.failed.get_or_insert(error);
            T::default()
        })
    }
}

impl Chat for Cached<'_> {
    fn submit(&mut self, id: CallId, call: Call) {
        let key = key(&self.model, &call);
        let found = self.cache.get(&key);
        match self.note(found) {
            Some(reply) => self.found.push((id, key, reply)),
            None => {
                self.open.insert(id, key);
                self.inner.submit(id, call);
            }
        }
    }

    fn wait(&mut self) -> Vec<(CallId, Result<Reply, ChatError>)> {
        if !self.found.is_empty() {
            let found = std::mem::take(&mut self.found);
            self.hits += found.len() as u64;
            let used: Vec<Key> = found.iter().map(|(_, key, _)| *key).collect();
            let written = self.cache.put(&[], &used);
            self.note(written);
            return found.into_iter().map(|(id, _, reply)| (id, Ok(reply))).collect();
        }
        let finished = self.inner.wait();
        let mut new = Vec::new();
        for (id, reply) in &finished {
            if let (Some(key), Ok(reply)) = (self.open.remove(id), reply) {
                new.push((key, reply));
            }
        }
        if !new.is_empty() {
            let written = self.cache.put(&new, &[]);
            self.note(written);
        }
        finished
    }

    fn appetite(&self) -> usize {
        self.inner.appetite()
    }

    fn usage(&self) -> Usage {
        self.inner.usage()
    }

    fn kept(&self) -> u64 {
        self.hits
    }
}

fn key(model: &Key, call: &Call) -> Key {
    Sha256::new().chain_update(model).chain_update(call.hash()).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::{Finish, Message, Sampling, Scripted, Task};

    fn generate(text: &str, seed: u64) -> Call {
        let sampling = Sampling { seed, ..Sampling::default() };
        Call {
            messages: vec![Message::user(text)],
            prefix: String::new(),
            task: Task::Generate(sampling),
        }
    }

    fn score(text: &str) -> Call {
        let task = Task::Score { continuations: vec![text.to_owned()], closing: "]".into() };
        Call { task, ..generate("q", 0) }
    }

    fn answer(call: &Call) -> Result<Reply, ChatError> {
        let usage = Usage { prompt_tokens: 3, ..Usage::default() };
        match &call.task {
            Task::Generate(sampling) if sampling.seed == 99 => {
                Err(ChatError::Refused("as asked".into()))
            }
            Task::Generate(sampling) => {
                let text = format!("{} {}", call.messages[0].content, sampling.seed);
                Ok(Reply::Text { text, finish: Finish::Length, usage })
            }
            Task::Score { .. } => Ok(Reply::Scores { logprobs: vec![-0.1 - 0.2, -1e-300], usage }),
        }
    }

    /// The replies to `calls`, how many of them the model gave, and how many were kept.
    fn run(cache: &mut CallCache, model: &str, calls: &[Call]) -> (Vec<Option<Reply>>, usize, u64) {
        let mut inner = Scripted::new(answer);
        let mut chat = Cached::new(&mut inner, cache, [("model", model)]);
        for (id, call) in calls.iter().enumerate() {
            chat.submit(id as u64, call.clone());
        }
        let mut replies = vec![None; calls.len()];
        for _ in 0..2 * calls.len() {
            for (id, reply) in chat.wait() {
                replies[id as usize] = reply.ok();
            }
        }
        let hits = chat.finish().unwrap();
        (replies, inner.seen.len(), hits)
    }

    fn free(replies: Vec<Option<Reply>>) -> Vec<Option<Reply>> {
        let usage = Usage::default();
        let free = |reply| match reply {
            Reply::Text { text, finish, .. } => Reply::Text { text, finish, usage },
            Reply::Scores { logprobs, .. } => Reply::Scores { logprobs, usage },
            Reply::Estimates { logprobs, way, .. } => Reply::Estimates { logprobs, way, usage },
        };
        replies.into_iter().map(|reply| reply.map(free)).collect()
    }

    #[test]
    fn a_call_is_made_once_for_each_model_and_survives_the_program() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/calls.redb");
        let calls = [generate("a", 1), generate("a", 2), score("1"), score("2")];
        let (first, asked, hits) = run(&mut CallCache::open(&path, 1 << 20).unwrap(), "m", &calls);
        assert_eq!((asked, hits), (4, 0));
        let mut cache = CallCache::open(&path, 1 << 20).unwrap();
        let (again, asked, hits) = run(&mut cache, "m", &calls);
        assert_eq!((asked, hits), (0, 4));
        assert_eq!(again, free(first));
        assert_eq!(run(&mut cache, "another", &calls).1, 4);
        assert_eq!(run(&mut cache, "m", &[generate("a", 3), generate("b", 1)]).1, 2);
    }

    #[test]
    fn failures_are_not_kept() {
        let folder = tempfile::tempdir().unwrap();
        let mut cache = CallCache::open(&folder.path().join("c"), 1 << 20).unwrap();
        for _ in 0..2 {
            let (replies, asked, _) = run(&mut cache, "m", &[generate("a", 99)]);
            assert_eq!((replies, asked), (vec![None], 1));
        }
    }

    #[test]
    fn what_was_not_used_for_longest_goes_first() {
        let folder = tempfile::tempdir().unwrap();
        let reply = Kept::from(&answer(&generate("a", 1)).unwrap());
        let one = size(&serde_json::to_vec(&Entry { used: 1, reply }).unwrap());
        let mut cache = CallCache::open(&folder.path().join("c"), 3 * one + one / 2).unwrap();
        for seed in [1, 2, 3, 1, 4] {
            run(&mut cache, "m", &[generate("a", seed)]);
        }
        // 2 was used before 1 was used again.
        for (seed, asked) in [(1, 0), (3, 0), (4, 0), (2, 1), (1, 1)] {
            assert_eq!(run(&mut cache, "m", &[generate("a", seed)]).1, asked, "{seed}");
        }
    }

    #[test]
    fn entries_of_another_form_make_room_as_well() {
        let folder = tempfile::tempdir().unwrap();
        let mut cache = CallCache::open(&folder.path().join("c"), 1 << 20).unwrap();
        run(&mut cache, "m", &[generate("a", 1), generate("a", 2)]);
        let transaction = cache.database.begin_write().unwrap();
        {
            let mut replies = transaction.open_table(REPLIES).unwrap();
            let keys = replies.iter().unwrap().map(|row| row.unwrap().0.value().to_vec());
            for key in keys.collect::<Vec<_>>() {
                replies.insert(key.as_slice(), br#"{"newer": 1}"#.as_slice()).unwrap();
            }
        }
        transaction.commit().unwrap();
        cache.limit = 1;
        assert_eq!(run(&mut cache, "m", &[generate("a", 3)]).1, 1);
    }

    #[test]
    fn another_file_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes.txt");
        std::fs::write(&path, "notes").unwrap();
        let error = CallCache::open(&path, 1).unwrap_err().to_string();
        assert!(error.contains("notes.txt: is no file of replies"), "{error}");
        assert!(error.contains("--cache another file"), "{error}");
        let path = folder.path().join("open");
        let _first = CallCache::open(&path, 1).unwrap();
        let error = CallCache::open(&path, 1).unwrap_err().to_string();
        assert!(error.contains("wait for it") && !error.contains("move the file"), "{error}");
    }
}
