//! An embedder that begins early, for when the model does not need the processor: while a judge on a GPU or
//! behind a server lists the statements of an answer, the passages of its document are embedded.

use super::{Embed, EmbedError};
use rayon::{ThreadPoolBuilder, current_num_threads};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

/// Documents that are expected, at most: who expects more has forgotten the first.
const EXPECTED: usize = 64;

type Vectors = Result<Vec<Vec<f32>>, EmbedError>;

/// Embeds what is expected on threads of its own, in order, and what is not where it is asked for. The vectors are
/// the embedder's, wherever they are made.
pub struct Background<E> {
    embed: E,
    orders: Sender<Order>,
    expected: VecDeque<Expected>,
    /// Nobody asks any more.
    stopped: Arc<AtomicBool>,
}

struct Order {
    texts: Arc<[String]>,
    give: Sender<Vectors>,
}

struct Expected {
    texts: Arc<[String]>,
    vectors: Receiver<Vectors>,
}

impl<E: Embed + Clone + Send + 'static> Background<E> {
    /// Clones of `embed` must be the same embedder.
    pub fn new(embed: E) -> Self {
        let (orders, inbox) = channel::<Order>();
        let stopped = Arc::new(AtomicBool::new(false));
        let (mut own, is_over) = (embed.clone(), stopped.clone());
        let work = move || {
            for Order { texts, give } in inbox {
                if is_over.load(Ordering::Relaxed) {
                    return;
                }
                let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
                // It may have been forgotten.
                let _ = give.send(own.embed(&texts));
            }
        };
        // Of the pool of those who ask, all threads may be waiting for vectors. Without one of its own everything is
        // embedded where it is asked for.
        if let Ok(pool) = ThreadPoolBuilder::new().num_threads(current_num_threads()).build() {
            let named = std::thread::Builder::new().name("embedder".into());
            let _ = named.spawn(move || pool.install(work));
        }
        Self { embed, orders, expected: VecDeque::new(), stopped }
    }
}

impl<E: Embed> Embed for Background<E> {
    fn embed(&mut self, texts: &[&str]) -> Vectors {
        let is_meant =
            |one: &Expected| one.texts.iter().map(String::as_str).eq(texts.iter().copied());
        let meant = self.expected.iter().position(is_meant);
        let begun = meant.and_then(|at| self.expected.remove(at));
        // A thread that is gone gives nothing.
        let made = begun.and_then(|begun| begun.vectors.recv().ok());
        made.unwrap_or_else(|| self.embed.embed(texts))
    }

    fn expect(&mut self, texts: &[&str]) {
        let texts: Arc<[String]> = texts.iter().map(|&text| text.to_owned()).collect();
        let (give, vectors) = channel();
        if self.orders.send(Order { texts: texts.clone(), give }).is_err() {
            return;
        }
        if self.expected.len() == EXPECTED {
            self.expected.pop_front();
        }
        self.expected.push_back(Expected { texts, vectors });
    }
}

impl<E> Drop for Background<E> {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use std::thread::{ThreadId, current};

    type Noted = Vec<(ThreadId, Vec<String>)>;

    /// Notes who embedded what; may embed only what it is let.
    #[derive(Clone)]
    struct Noting {
        noted: Arc<Mutex<Noted>>,
        lets: Arc<Mutex<Option<Receiver<()>>>>,
    }

    impl Embed for Noting {
        fn embed(&mut self, texts: &[&str]) -> Vectors {
            if let Some(lets) = &*self.lets.lock().unwrap() {
                lets.recv().unwrap();
            }
            assert!(texts[0] != "panic");
            let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
            let vectors = texts.iter().map(|text| vec![text.len() as f32]).collect();
            self.noted.lock().unwrap().push((current().id(), texts));
            Ok(vectors)
        }
    }

    fn noting(lets: Option<Receiver<()>>) -> Noting {
        Noting { noted: Arc::default(), lets: Arc::new(Mutex::new(lets)) }
    }

    #[test]
    fn what_is_expected_is_embedded_once_and_elsewhere() {
        let noting = noting(None);
        let mut embed = Background::new(noting.clone());
        embed.expect(&["a", "bb"]);
        embed.expect(&["ccc"]);
        assert_eq!(embed.embed(&["ccc"]).unwrap(), [[3.0]]);
        assert_eq!(embed.embed(&["dddd"]).unwrap(), [[4.0]]);
        assert_eq!(embed.embed(&["a", "bb"]).unwrap(), [[1.0], [2.0]]);
        // Once.
        assert_eq!(embed.embed(&["a", "bb"]).unwrap(), [[1.0], [2.0]]);
        let noted = noting.noted.lock().unwrap();
        let here = |(thread, _): &&(ThreadId, _)| *thread == current().id();
        let here: Vec<_> = noted.iter().filter(here).map(|(_, texts)| texts.concat()).collect();
        assert_eq!(here, ["dddd", "abb"]);
        assert_eq!(noted.len(), 4);
    }

    #[test]
    fn expecting_waits_for_nothing_and_asking_for_the_end() {
        let (lets, waits) = channel();
        let mut embed = Background::new(noting(Some(waits)));
        embed.expect(&["a"]);
        // It would never come here if it had to be embedded first.
        let letting = std::thread::spawn(move || lets.send(()).unwrap());
        assert_eq!(embed.embed(&["a"]).unwrap(), [[1.0]]);
        letting.join().unwrap();
    }

    #[test]
    fn what_was_forgotten_or_failed_is_embedded_when_it_is_asked_for() {
        let mut embed = Background::new(noting(None));
        for k in 0..EXPECTED + 3 {
            embed.expect(&[&"x".repeat(k + 1)]);
        }
        assert_eq!(embed.expected.len(), EXPECTED);
        assert_eq!(embed.embed(&["x"]).unwrap(), [[1.0]]);
        assert_eq!(embed.embed(&["xxxx"]).unwrap(), [[4.0]]);
        embed.expect(&["panic"]);
        embed.expect(&["after"]);
        // Its thread is gone.
        assert_eq!(embed.embed(&["after"]).unwrap(), [[5.0]]);
    }
}
