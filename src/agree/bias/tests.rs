//! Few records whose biases are known.

use super::*;
use crate::agree::labels::{Claim, Level, Pair, Preference, Rating};
use crate::judge::{Rated, testing};

fn known() -> Known {
    let bootstrap = Bootstrap { resamples: 0, seed: 0 };
    let own = vec!["Me".to_owned()];
    Known { lang: LangChoice::Auto, own, seeds_by_text: true, bootstrap }
}

fn answered(score: f64) -> Box<Details> {
    let rated = Rated { expected: Some(score + 0.5), ..testing::rated(score, &[]) };
    Box::new(Details { helpfulness: Some(rated), ..Details::default() })
}

fn judged(item: &str, variant: Variant, found: Found) -> Judged {
    let (idx, item) = (Judged::id(item, 0, variant), item.to_owned());
    Judged { idx, item, run: 0, variant, found, forced: false, input_hash: String::new() }
}

fn pair(idx: &str, label: Preference, authors: [Option<&str>; 2]) -> Item {
    let responses = ["an answer", "another answer"].map(str::to_owned);
    let authors = authors.map(|author| author.map(str::to_owned));
    let (query, votes) = (format!("question {idx}"), Vec::new());
    let kind = Kind::Pairwise(Pair { query, context: None, responses, authors, label, votes });
    Item { idx: idx.to_owned(), kind }
}

fn rating(idx: &str, rating: f64, length: usize, author: Option<&str>) -> Item {
    let (query, answer) = (format!("question {idx}"), "x".repeat(length));
    let author = author.map(str::to_owned);
    let row = Rating { query, context: None, answer, author, rating, votes: Vec::new() };
    Item { idx: idx.to_owned(), kind: Kind::Rating(row) }
}

fn claim(idx: &str, label: Level) -> Item {
    let (claim, evidence) = ("the cat sat".to_owned(), vec!["x".to_owned()]);
    let (query, votes, supporting) = (String::new(), Vec::new(), Vec::new());
    let kind = Kind::Support(Claim { query, claim, evidence, label, votes, supporting });
    Item { idx: idx.to_owned(), kind }
}

fn scored(a: f64, b: f64) -> Found {
    Found::Pairwise { a: answered(a), b: answered(b) }
}

fn supported(score: f64) -> Found {
    Found::Support { details: testing::supported(score, &[]) }
}

#[test]
fn padding_that_pays_is_found_out() {
    let items = [pair("1", Preference::A, [None; 2]), pair("2", Preference::B, [None; 2])];
    let records = [
        judged("1", Variant::Plain, scored(5.0, 6.0)),
        judged("1", Variant::Padded, scored(7.0, 6.0)),
        judged("2", Variant::Plain, scored(5.0, 5.0)),
        judged("2", Variant::Padded, scored(4.0, 6.0)),
    ];
    let bias = Bias::new(&items, &records, &known());
    let padding = bias.padding.unwrap();
    let value = |name: &str| padding.metrics[name].value;
    assert_eq!((padding.answers, padding.pairs), (4, 2));
    // Shifts 2, 0, -1, 1.
    assert_eq!((value("shift"), value("shift_expected")), (Some(0.5), Some(0.5)));
    assert_eq!((value("shift_helpfulness"), value("shift_logicality")), (Some(0.5), None));
    assert_eq!((value("raised"), value("lowered")), (Some(0.5), Some(0.25)));
    // 7 against 6, 6 against 5, 4 against 5, 6 against 5.
    assert_eq!(value("padded_preferred"), Some(0.75));
    assert!(bias.position.unwrap().contains("one by one"));
    assert_eq!((bias.languages.len(), bias.self_preference.len()), (0, 0));
}

#[test]
fn languages_are_compared_row_by_row() {
    let items = [
        claim("1", Level::Fully),
        claim("2", Level::Not),
        pair("3", Preference::A, [None; 2]),
        pair("4", Preference::B, [None; 2]),
    ];
    let records = [
        judged("1", Variant::Plain, supported(1.0)),
        judged("1", Variant::Zh, supported(1.0)),
        judged("2", Variant::Plain, supported(0.0)),
        judged("2", Variant::Zh, supported(0.5)),
        judged("3", Variant::Plain, scored(5.0, 4.0)),
        judged("3", Variant::Zh, scored(8.0, 3.0)),
        judged("4", Variant::Plain, scored(5.0, 5.0)),
    ];
    let bias = Bias::new(&items, &records, &known());
    let [support, pairs] = &bias.languages[..] else { panic!("{:?}", bias.languages) };
    let value = |bias: &LanguageBias, name: &str| bias.metrics[name].value;
    assert_eq!((support.items, pairs.items), (2, 1));
    assert_eq!((value(support, "same_verdict"), value(support, "shift")), (Some(0.5), Some(0.25)));
    assert_eq!(value(support, "agreement_en"), Some(1.0));
    assert_eq!(value(support, "agreement_difference"), Some(-0.5));
    assert_eq!((value(pairs, "same_verdict"), value(pairs, "shift")), (Some(1.0), Some(1.0)));
    assert_eq!(
        (pairs.measure.as_str(), value(pairs, "agreement_zh")),
        ("accuracy_ties_half", Some(1.0))
    );
}

#[test]
fn own_answers_are_known_by_their_author() {
    let items = [
        pair("1", Preference::A, [Some("you"), Some("me")]),
        pair("2", Preference::A, [Some("ME"), Some("you")]),
        pair("3", Preference::A, [Some("me"), Some("me")]),
        pair("4", Preference::A, [Some("me"), None]),
    ];
    let records: Vec<Judged> =
        items.iter().map(|item| judged(&item.idx, Variant::Plain, scored(4.0, 5.0))).collect();
    let bias = Bias::new(&items, &records, &known());
    let [own] = &bias.self_preference[..] else { panic!() };
    let value = |name: &str| own.metrics[name].value;
    assert_eq!((own.items, value("judge_prefers_own")), (2, Some(0.5)));
    assert_eq!((value("people_prefer_own"), value("excess")), (Some(0.5), Some(0.0)));
}

#[test]
fn what_own_answers_get_more_is_told_apart_from_what_they_deserve() {
    // The judge gives rating + 1, and 2 more to its own, which people rate higher.
    let rows = [(1.0, false), (2.0, false), (3.0, true), (4.0, true), (2.5, true)];
    let item = |(i, (score, own)): (usize, &(f64, bool))| {
        rating(&i.to_string(), *score, 10 + i * i, Some(if *own { "me" } else { "you" }))
    };
    let items: Vec<Item> = rows.iter().enumerate().map(item).collect();
    let record = |(i, (score, own)): (usize, &(f64, bool))| {
        let details = answered(score + 1.0 + if *own { 2.0 } else { 0.0 });
        judged(&i.to_string(), Variant::Plain, Found::Rating { details })
    };
    let records: Vec<Judged> = rows.iter().enumerate().map(record).collect();
    let bias = Bias::new(&items, &records, &known());
    let [own] = &bias.self_preference[..] else { panic!() };
    assert_eq!((own.items, own.own), (5, 3));
    assert!((own.metrics["excess"].value.unwrap() - 2.0).abs() < 1e-9, "{:?}", own.metrics);
    assert_eq!(own.metrics["judge_others"].value, Some(2.5));
    let length = bias.rating_length.unwrap();
    assert!(length.metrics["score_and_length"].value.unwrap() > 0.5);
}
