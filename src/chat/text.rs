//! The text of a reply while its tokens arrive: whole characters, cut before the first stop string.

use super::Finish;
use crate::engine::{self, Sampled};
use crate::tokenizer::{StreamDecoder, Tokenizer};

/// What can be shown of a reply and was not shown before.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Piece {
    pub text: String,
    /// The tokens that begin in `text`, or before its end and write nothing.
    pub tokens: Vec<Sampled>,
}

impl Piece {
    pub fn is_empty(&self) -> bool {
        self.text.is_empty() && self.tokens.is_empty()
    }

    /// Adds what comes next.
    pub fn join(&mut self, next: Self) {
        self.text.push_str(&next.text);
        self.tokens.extend(next.tokens);
    }
}

/// One sample's text.
///
/// Text that may be the beginning of a stop string, and the tokens in it, are held back until it
/// is known whether it is one. All pieces joined are the reply, however it is cut into them.
pub struct ReplyText {
    decoder: StreamDecoder,
    text: String,
    stops: Vec<String>,
    /// Bytes of `text` that were shown.
    shown: usize,
    /// Tokens that were not shown, each with the place in `text` where it begins.
    held: Vec<(usize, Sampled)>,
    finish: Option<Finish>,
}

impl ReplyText {
    /// An empty reply; `goes_on` says that it continues other text.
    pub fn new(tokenizer: &Tokenizer, goes_on: bool, stops: &[String]) -> Self {
        let decoder = if goes_on {
            StreamDecoder::continuing(tokenizer)
        } else {
            StreamDecoder::new(tokenizer)
        };
        Self {
            decoder,
            text: String::new(),
            stops: stops.iter().filter(|stop| !stop.is_empty()).cloned().collect(),
            shown: 0,
            held: Vec::new(),
            finish: None,
        }
    }

    /// Takes a token; returns whether a stop string ends the reply with it. Tokens after that
    /// change nothing.
    pub fn push(&mut self, token: Sampled) -> bool {
        if self.finish.is_some() {
            return false;
        }
        let from = self.text.len();
        self.text.push_str(self.decoder.push(token.token));
        self.held.push((from, token));
        let Some(end) = first_stop(&self.text, from, &self.stops) else { return false };
        self.text.truncate(end);
        self.held.retain(|(start, _)| *start < end);
        self.finish = Some(Finish::Stop);
        true
    }

    /// What can be shown by now.
    pub fn piece(&mut self) -> Piece {
        let end = match self.finish {
            Some(_) => self.text.len(),
            None => self.text.len() - beginning_of_stop(&self.text, &self.stops),
        };
        self.show(end)
    }

    /// The sample has ended: why, by what was found in the text too, and the rest of it.
    pub fn end(&mut self, finish: engine::Finish) -> (Finish, Piece) {
        let finish = *self.finish.get_or_insert(match finish {
            engine::Finish::Stop => Finish::Stop,
            engine::Finish::Length => Finish::Length,
        });
        // Characters that were cut off in the middle are marked as such.
        if finish == Finish::Length {
            self.text.push_str(self.decoder.finish());
        }
        let mut piece = self.show(self.text.len());
        piece.tokens.extend(self.held.drain(..).map(|(_, token)| token));
        (finish, piece)
    }

    fn show(&mut self, end: usize) -> Piece {
        let end = end.max(self.shown);
        let text = self.text[self.shown..end].to_owned();
        self.shown = end;
        let count = self.held.iter().take_while(|(start, _)| *start < end).count();
        Piece { text, tokens: self.held.drain(..count).map(|(_, token)| token).collect() }
    }
}

/// Where the first of `stops` begins in `text`, of which the part before `from` was searched
/// before.
fn first_stop(text: &str, from: usize, stops: &[String]) -> Option<usize> {
    stops
        .iter()
        .filter_map(|stop| {
            let mut start = from.saturating_sub(stop.len());
            while !text.is_char_boundary(start) {
                start -= 1;
            }
            text[start..].find(stop.as_str()).map(|at| start + at)
        })
        .min()
}

/// Length of the longest end of `text` with which a stop string begins.
fn beginning_of_stop(text: &str, stops: &[String]) -> usize {
    let longest = |stop: &String| {
        let lengths = stop.char_indices().map(|(at, _)| at).skip(1);
        lengths.filter(|&length| text.ends_with(&stop[..length])).max().unwrap_or(0)
    };
    stops.iter().map(longest).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::testing;

    /// The pieces of a reply of these tokens, and whether a stop string ended it.
    fn pieces(tokenizer: &Tokenizer, ids: &[u32], stops: &[&str]) -> (Vec<Piece>, Finish) {
        let stops: Vec<String> = stops.iter().map(|stop| (*stop).to_owned()).collect();
        let mut text = ReplyText::new(tokenizer, true, &stops);
        let mut pieces = Vec::new();
        let mut finish = engine::Finish::Length;
        for &token in ids {
            let stopped = text.push(Sampled { token, logprob: None, top: Vec::new() });
            pieces.push(text.piece());
            if stopped {
                finish = engine::Finish::Stop;
                break;
            }
        }
        let (finish, last) = text.end(finish);
        pieces.push(last);
        (pieces, finish)
    }

    #[test]
    fn pieces_join_to_the_text_before_the_first_stop_string() {
        for (name, tokenizer, _) in testing::all() {
            let whole = "hello world, 你好。 hello \u{1F600} wor";
            let ids = tokenizer.encode_continuation(whole);
            for (stops, end) in [
                (&[][..], whole.len()),
                (&["never"], whole.len()),
                (&["world"], 6),
                (&["wor", "world"], 6),
                (&["。 h", "\u{1F600}"], whole.find('。').unwrap()),
                (&["hello world, 你好!", " wor!"], whole.len()),
                (&["hello"], 0),
            ] {
                let (pieces, finish) = pieces(&tokenizer, &ids, stops);
                let mut joined = Piece::default();
                let tokens = pieces.iter().map(|piece| piece.tokens.len()).sum::<usize>();
                pieces.into_iter().for_each(|piece| joined.join(piece));
                assert_eq!(joined.text, whole[..end], "{name} {stops:?}");
                assert_eq!(tokens, joined.tokens.len());
                let cut = end < whole.len();
                assert_eq!((finish == Finish::Stop, tokens < ids.len()), (cut, cut), "{name}");
            }
        }
    }

    #[test]
    fn a_stop_string_is_found_across_pieces() {
        let stops = ["END".to_owned(), "。".to_owned()];
        assert_eq!(first_stop("abcEND", 5, &stops), Some(3));
        assert_eq!(first_stop("你好。END", 6, &stops), Some(6));
        assert_eq!(first_stop("abc", 0, &stops), None);
    }

    #[test]
    fn what_may_begin_a_stop_string_is_held_back() {
        let stops = ["END".to_owned(), "。。".to_owned(), "Na".to_owned()];
        let held = |text| beginning_of_stop(text, &stops);
        assert_eq!([held("abc"), held("abE"), held("abEN"), held("END")], [0, 1, 2, 0]);
        assert_eq!([held("你。"), held("")], [3, 0]);
    }
}
