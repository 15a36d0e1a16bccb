//! What a document says on its question, chunk by chunk.

use super::plan::Judging;
use super::records::ChunkInfo;
use crate::judge::{Ask, Completeness, Rated, Verdict};
use crate::retrieval::chunk::{chunks, labels};
use serde_json::{Map, Value};
use std::ops::Range;

/// The extracts of one document, some of them still to come.
#[derive(Debug)]
pub(crate) struct Extracts(Vec<Slot>);

#[derive(Debug)]
struct Slot {
    /// `0% - 12%`.
    place: String,
    /// The chunk in the document; empty if the extract was given.
    bytes: Range<usize>,
    extract: Option<Extract>,
}

#[derive(Debug)]
struct Extract {
    text: String,
    forced: bool,
    cut: bool,
}

impl Extracts {
    /// Cuts a document into chunks of `size` tokens.
    pub fn cut(context: &str, tokens: &[(u32, Range<usize>)], size: usize) -> Self {
        let chunks = chunks(context, tokens, size);
        let places = labels(&chunks).into_iter();
        let slots = places.zip(chunks).map(|(place, chunk)| Slot {
            place,
            bytes: chunk.bytes,
            extract: None,
        });
        Self(slots.collect())
    }

    /// Takes the extracts from a file.
    pub fn given(info: &ChunkInfo) -> Self {
        let slots = info.info_list.iter().map(|(place, text)| {
            let text = text.as_str().unwrap_or_default().to_owned();
            let (forced, cut) = (info.forced.contains(place), info.cut.contains(place));
            Slot { place: place.clone(), bytes: 0..0, extract: Some(Extract { text, forced, cut }) }
        });
        Self(slots.collect())
    }

    /// Numbers of the chunks whose extract is still to come.
    pub fn missing(&self) -> impl Iterator<Item = usize> {
        self.0.iter().enumerate().filter(|(_, slot)| slot.extract.is_none()).map(|(i, _)| i)
    }

    pub fn place(&self, chunk: usize) -> &str {
        &self.0[chunk].place
    }

    /// The unit's key within its stage: the same wherever extracts are computed, so that they are
    /// the same.
    pub fn key(prompt: u64, chunk: usize) -> String {
        format!("{prompt}/extract/{chunk}")
    }

    /// Asks for the extract of a chunk.
    pub fn ask(&self, judging: &Judging, context: &str, query: &str, chunk: usize) -> Ask {
        let text = &context[self.0[chunk].bytes.clone()];
        let lang = judging.judge.lang(&[text]);
        judging.judge.extract(lang, query, text)
    }

    /// Takes the verdict on a chunk; the error says that it is none on an extract.
    pub fn put(&mut self, chunk: usize, verdict: &Verdict) -> Result<(), String> {
        let text = verdict.extract().ok_or("the verdict is not an extract")?.to_owned();
        self.0[chunk].extract = Some(Extract { text, forced: verdict.forced, cut: verdict.cut });
        Ok(())
    }

    pub fn is_complete(&self) -> bool {
        self.missing().next().is_none()
    }

    /// Places and texts, in document order.
    pub fn list(&self) -> Vec<(&str, &str)> {
        let there = |slot: &'_ Slot| slot.extract.is_some();
        debug_assert!(self.0.iter().all(there), "extracts are listed when all are there");
        self.0
            .iter()
            .filter_map(|s| Some((s.place.as_str(), s.extract.as_ref()?.text.as_str())))
            .collect()
    }

    /// [`list`](Self::list) as files have it.
    pub fn info_list(&self) -> Map<String, Value> {
        let list = self.list().into_iter();
        list.map(|(place, text)| (place.to_owned(), Value::from(text))).collect()
    }

    /// Places whose extract was forced.
    pub fn forced(&self) -> Vec<String> {
        self.places(|extract| extract.forced)
    }

    /// Places whose extract was cut off by its budget.
    pub fn cut_off(&self) -> Vec<String> {
        self.places(|extract| extract.cut)
    }

    fn places(&self, those: impl Fn(&Extract) -> bool) -> Vec<String> {
        let those = |slot: &&Slot| slot.extract.as_ref().is_some_and(&those);
        self.0.iter().filter(those).map(|slot| slot.place.clone()).collect()
    }

    /// A rating that rests on them.
    pub fn completeness(&self, rated: Rated) -> Completeness {
        let (info_list, forced_extracts) = (self.info_list(), self.forced());
        Completeness { rated, info_list, forced_extracts, cut_extracts: self.cut_off() }
    }

    /// The row of `chunk_info.jsonl`.
    pub fn row(&self, idx: u64, query: &str, input_hash: &str) -> ChunkInfo {
        ChunkInfo {
            idx,
            query: query.to_owned(),
            info_list: self.info_list(),
            forced: self.forced(),
            cut: self.cut_off(),
            input_hash: Some(input_hash.to_owned()),
        }
    }
}
