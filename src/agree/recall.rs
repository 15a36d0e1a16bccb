//! Whether retrieval finds the sentences that people say hold the support.

use super::labels::{Claim, Item, Kind};
use super::metrics::{Bootstrap, Metrics, clusters, mean};
use super::passages::{Cut, passages_of, sentence_ranges};
use crate::pipeline::Tokens;
use crate::retrieval::{EmbedError, Retriever};
use serde::{Deserialize, Serialize};

/// Recall of one way of finding passages.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recall {
    /// `bm25`, or the embedder.
    pub retriever: String,
    /// What a passage is.
    pub passage: String,
    /// Passages found for a claim.
    pub k: usize,
    /// Claims with labelled sentences.
    pub items: usize,
    /// `recall`: the share of a claim's labelled sentences that lie in the passages found, of the
    /// annotators' sets the best one; the mean over claims. `complete`: the share of claims of
    /// which some set is found wholly. `shown`: the share of the evidence that the passages are,
    /// about what passages picked by chance would recall.
    pub metrics: Metrics,
}

/// What is tried.
pub struct Trial<'a> {
    /// Ways of finding passages, by name.
    pub retrievers: &'a mut [(String, &'a mut Retriever)],
    pub cuts: &'a [Cut],
    /// Numbers of passages.
    pub ks: &'a [usize],
    /// For cuts by tokens.
    pub tokens: &'a Tokens<'a>,
}

/// Measures every retriever with every cut and number of passages, on the claims that have labelled
/// sentences. A sentence is found if at least half of it lies in passages that were found.
///
/// # Errors
/// From the embedder.
pub fn recall(
    items: &[Item],
    trial: &mut Trial,
    bootstrap: &Bootstrap,
) -> Result<Vec<Recall>, EmbedError> {
    let labelled = items.iter().filter_map(|item| Some((item, labelled(item)?)));
    let (items, claims): (Vec<&Item>, Vec<&Claim>) = labelled.unzip();
    let prompts = clusters(items.iter().map(|item| item.prompt()));
    let mut found = Vec::new();
    if claims.is_empty() {
        return Ok(found);
    }
    let Trial { retrievers, cuts, ks, tokens } = trial;
    for (name, retriever) in retrievers.iter_mut() {
        for cut in cuts.iter() {
            let look_up = |claim: &&Claim| look_up(claim, retriever, *cut, ks, tokens);
            let by_claim: Vec<Vec<Found>> =
                claims.iter().map(look_up).collect::<Result<_, EmbedError>>()?;
            for (i, &k) in ks.iter().enumerate() {
                let at_k: Vec<Found> = by_claim.iter().map(|found| found[i]).collect();
                let metrics = measure(&at_k, &prompts, bootstrap);
                let (retriever, passage) = (name.clone(), cut.to_string());
                found.push(Recall { retriever, passage, k, items: claims.len(), metrics });
            }
        }
    }
    Ok(found)
}

fn labelled(item: &Item) -> Option<&Claim> {
    match &item.kind {
        Kind::Support(claim) if !claim.supporting.is_empty() => Some(claim),
        _ => None,
    }
}

/// What was found for one claim.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Found {
    recall: f64,
    complete: f64,
    shown: f64,
}

fn look_up(
    claim: &Claim,
    retriever: &mut Retriever,
    cut: Cut,
    ks: &[usize],
    tokens: &Tokens,
) -> Result<Vec<Found>, EmbedError> {
    let mut passages = passages_of(&claim.evidence, cut, tokens);
    let sentences = sentence_ranges(&claim.evidence);
    let whole = 0..sentences.last().map_or(0, |last| last.end);
    let mut all = Vec::new();
    for &k in ks {
        let found = passages.search(retriever, &[&claim.claim], k)?.concat();
        let is_found = |sentence: &&usize| {
            let range = &sentences[**sentence];
            passages.covered(&found, range) * 2 >= range.len()
        };
        let share =
            |set: &Vec<usize>| set.iter().filter(is_found).count() as f64 / set.len() as f64;
        let recall = claim.supporting.iter().map(share).fold(0.0, f64::max);
        let shown = passages.covered(&found, &whole) as f64 / whole.len().max(1) as f64;
        all.push(Found { recall, complete: f64::from(u8::from(recall == 1.0)), shown });
    }
    Ok(all)
}

fn measure(found: &[Found], prompts: &[Vec<usize>], bootstrap: &Bootstrap) -> Metrics {
    bootstrap.estimate(prompts, |items| {
        let column = |value: fn(&Found) -> f64| {
            mean(&items.iter().map(|&item| value(&found[item])).collect::<Vec<_>>())
        };
        vec![
            ("recall", column(|found| found.recall)),
            ("complete", column(|found| found.complete)),
            ("shown", column(|found| found.shown)),
        ]
    })
}

#[cfg(test)]
mod tests {
    use super::super::labels::Level;
    use super::*;
    use crate::pipeline::testing::tokens;
    use crate::retrieval::chunk::Cutting;

    fn item(idx: &str, claim: &str, supporting: &[&[usize]]) -> Item {
        let evidence = ["The cat sat there.", "A dog ran.", "It rained all day.", "Birds sang."];
        Item {
            idx: idx.to_owned(),
            kind: Kind::Support(Claim {
                query: String::new(),
                claim: claim.to_owned(),
                evidence: evidence.map(str::to_owned).to_vec(),
                label: Level::Fully,
                votes: Vec::new(),
                supporting: supporting.iter().map(|set| set.to_vec()).collect(),
            }),
        }
    }

    fn run(items: &[Item], cut: Cut, ks: &[usize]) -> Vec<[Option<f64>; 3]> {
        let mut retriever = Retriever::Bm25;
        let retrievers = &mut [("bm25".to_owned(), &mut retriever)];
        let mut trial = Trial { retrievers, cuts: &[cut], ks, tokens: &tokens };
        let found = recall(items, &mut trial, &Bootstrap { resamples: 0, seed: 0 }).unwrap();
        let value = |recall: &Recall, name: &str| recall.metrics[name].value;
        let row = |r: &Recall| ["recall", "complete", "shown"].map(|name| value(r, name));
        found.iter().map(row).collect()
    }

    #[test]
    fn the_best_set_counts() {
        let items = [
            // The dog is found first; the set of one is complete, that of two is half found.
            item("1", "a dog", &[&[0, 1]]),
            item("2", "a dog", &[&[0, 1], &[1]]),
            item("3", "no label", &[]),
        ];
        let found = run(&items, Cut::Sentences, &[1, 4]);
        let share = 10.0 / 60.0;
        assert_eq!(found[0][..2], [Some(0.75), Some(0.5)]);
        assert!((found[0][2].unwrap() - share).abs() < 1e-12, "{found:?}");
        assert_eq!(found[1][..2], [Some(1.0), Some(1.0)]);
    }

    #[test]
    fn half_a_sentence_is_enough() {
        // Chunks of two words: "The cat ", "sat there.\nA ", "dog ran.\nIt ", …
        let items = [item("1", "dog", &[&[1]]), item("2", "dog", &[&[0]])];
        let found = run(&items, Cut::Chunks(Cutting::tokens(2)), &[1]);
        assert_eq!(found[0][0], Some(0.5));
    }

    #[test]
    fn without_labelled_sentences_there_is_nothing_to_measure() {
        assert!(run(&[item("1", "c", &[])], Cut::Sentences, &[1]).is_empty());
    }
}
