//! The ladder on a scripted model.

use super::*;
use crate::chat::{Chat, Finish, Scripted, Usage};
use crate::judge::{VoteBy, Voting};

fn ask(kind: AskKind) -> Ask {
    let (prompt, voting) = ("prompt".to_owned(), Voting::default());
    Ask { kind, prompt, max_new_tokens: 512, opening: None, voting }
}

fn statements(fallback: &[&str]) -> AskKind {
    AskKind::Statements { fallback: fallback.iter().map(|&text| text.to_owned()).collect() }
}

fn text(text: &str) -> Result<Reply, ChatError> {
    let (text, usage) = (text.to_owned(), Usage::default());
    Ok(Reply::Text { text, finish: Finish::Stop, usage })
}

fn scores(probabilities: &[f64]) -> Result<Reply, ChatError> {
    let logprobs = probabilities.iter().map(|p| p.ln()).collect();
    Ok(Reply::Scores { logprobs, usage: Usage::default() })
}

fn too_long() -> Result<Reply, ChatError> {
    Err(ChatError::TooLong { tokens: 9, limit: 5, why: "context".to_owned() })
}

fn refused() -> Result<Reply, ChatError> {
    Err(ChatError::Refused("no".to_owned()))
}

fn is_score(call: &Call) -> bool {
    matches!(call.task, Task::Score { .. })
}

/// Climbs the ladder on a model that samples `replies` one after the other and answers each
/// call for scores by `score`. Returns the end and the calls.
fn climb(
    kind: AskKind,
    replies: Vec<Result<Reply, ChatError>>,
    score: impl Fn(&Call) -> Result<Reply, ChatError>,
) -> (Result<Verdict, ChatError>, Vec<Call>) {
    climb_ask(ask(kind), replies, score)
}

fn climb_ask(
    ask: Ask,
    replies: Vec<Result<Reply, ChatError>>,
    score: impl Fn(&Call) -> Result<Reply, ChatError>,
) -> (Result<Verdict, ChatError>, Vec<Call>) {
    let mut replies = replies.into_iter();
    let mut chat = Scripted::new(|call: &Call| match is_score(call) {
        true => score(call),
        false => replies.next().expect("no further reply in the script"),
    });
    let mut ladder = Ladder::new(ask, 100);
    chat.submit(0, ladder.first());
    let end = loop {
        let (_, reply) = chat.wait().remove(0);
        match ladder.next(reply) {
            Step::Call(call) => chat.submit(0, call),
            Step::Done(verdict) => break Ok(verdict),
            Step::Failed(error) => break Err(error),
        }
    };
    let calls = std::mem::take(&mut chat.seen);
    (end, calls)
}

fn uniform(call: &Call) -> Result<Reply, ChatError> {
    match &call.task {
        Task::Score { continuations, .. } => scores(&vec![0.01; continuations.len()]),
        Task::Generate(_) => panic!("not a call for scores"),
    }
}

fn temperatures_and_seeds(calls: &[Call]) -> Vec<(f32, u64)> {
    let sampling = |call: &Call| match &call.task {
        Task::Generate(sampling) => Some((sampling.temperature, sampling.seed)),
        Task::Score { .. } => None,
    };
    calls.iter().filter_map(sampling).collect()
}

#[test]
fn a_readable_first_reply_takes_one_sample_and_one_scoring() {
    let (end, calls) = climb(AskKind::Rating, vec![text("Good. [[7]]")], uniform);
    let verdict = end.unwrap();
    assert_eq!(verdict.outcome, Outcome::Rating(7.0));
    assert_eq!(
        (verdict.text.as_str(), verdict.attempts, verdict.forced),
        ("Good. [[7]]", 1, false)
    );
    assert_eq!(temperatures_and_seeds(&calls), [(0.01, 100)]);
    assert_eq!(calls[0].messages, [Message::user("prompt")]);
    assert_eq!(calls[1].prefix, "Good. [[");
    let ratings = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10"].map(str::to_owned);
    let task = Task::Score { continuations: ratings.to_vec(), closing: "]".to_owned() };
    assert_eq!((calls[1].task.clone(), calls.len()), (task, 2));
}

#[test]
fn retries_are_warm_and_have_seeds_of_their_own() {
    let replies = ["no verdict", "", "[[85]]", "still none", "[[4]]"].map(text).to_vec();
    let (end, calls) = climb(AskKind::Rating, replies, uniform);
    let verdict = end.unwrap();
    assert_eq!(verdict.outcome, Outcome::Rating(4.0));
    assert_eq!((verdict.attempts, verdict.forced), (5, false));
    let expected = [(0.01, 100), (0.95, 101), (0.95, 102), (0.95, 103), (0.95, 104)];
    assert_eq!(temperatures_and_seeds(&calls), expected);
}

#[test]
fn the_distribution_is_normalised_and_has_an_expected_value() {
    let weigh = |_: &Call| {
        let mut weights = [0.0; 11];
        weights[7] = 0.06;
        weights[10] = 0.02;
        scores(&weights)
    };
    let verdict = climb(AskKind::Rating, vec![text("[[7]]")], weigh).0.unwrap();
    assert_eq!(verdict.distribution.len(), 11);
    assert_eq!((verdict.distribution[7], verdict.distribution[10]), (0.75, 0.25));
    assert!((verdict.distribution.iter().sum::<f64>() - 1.0).abs() < 1e-5);
    assert_eq!(verdict.expected, Some(7.75));
}

#[test]
fn a_support_verdict_is_scored_over_the_labels() {
    let reply = "Said. [[Partially supported]]";
    let weigh = |_: &Call| scores(&[0.1, 0.3, 0.1]);
    let (end, calls) = climb(AskKind::Support, vec![text(reply)], weigh);
    let verdict = end.unwrap();
    assert_eq!(verdict.outcome, Outcome::Support(0.5));
    assert_eq!(verdict.distribution, [0.2, 0.6, 0.2]);
    assert_eq!(verdict.expected, Some(0.5));
    assert_eq!(calls[1].prefix, "Said. [[");
}

#[test]
fn no_readable_rating_forces_the_likeliest_one() {
    let weigh = |call: &Call| {
        assert_eq!(call.prefix, "I can't say.\n\n[[");
        scores(&[0.1, 0.1, 0.3, 0.1, 0.3, 0.1, 0.0, 0.0, 0.0, 0.0, 0.0])
    };
    let replies = vec![text("  I can't say.\n"); ATTEMPTS as usize];
    let (end, calls) = climb(AskKind::Rating, replies, weigh);
    let verdict = end.unwrap();
    // Ratings 2 and 4 are equally likely: the lower one.
    assert_eq!(verdict.outcome, Outcome::Rating(2.0));
    assert_eq!((verdict.attempts, verdict.forced), (5, true));
    assert_eq!(verdict.text, "I can't say.\n\n[[2]]");
    assert_eq!(verdict.distribution[2], 0.3);
    assert_eq!(verdict.expected, Some(2.7));
    assert_eq!(calls.len(), 6);
}

#[test]
fn another_scale_is_read_weighed_and_forced_within_its_ends() {
    let kind = AskKind::Scale { low: 1, high: 3 };
    let weigh = |_: &Call| scores(&[0.1, 0.1, 0.3]);
    let replies = ["[[0]]", "[[4]]", "[[2/3]]"].map(text).to_vec();
    let (end, calls) = climb(kind.clone(), replies, weigh);
    let verdict = end.unwrap();
    assert_eq!((verdict.outcome, verdict.attempts), (Outcome::Rating(2.0), 3));
    assert_eq!((verdict.distribution, verdict.expected), (vec![0.2, 0.2, 0.6], Some(2.4)));
    let task = Task::Score {
        continuations: ["1", "2", "3"].map(str::to_owned).to_vec(),
        closing: "]".to_owned(),
    };
    assert_eq!(calls[3].task, task);
    let verdict = climb(kind, vec![text("?"); 5], weigh).0.unwrap();
    assert_eq!((verdict.outcome, verdict.forced), (Outcome::Rating(3.0), true));
}

#[test]
fn an_empty_reply_forces_from_the_brackets_alone() {
    let weigh = |call: &Call| {
        assert_eq!(call.prefix, "[[");
        scores(&[0.2, 0.5, 0.3])
    };
    let verdict = climb(AskKind::Support, vec![text(" "); 5], weigh).0.unwrap();
    assert_eq!(verdict.outcome, Outcome::Support(0.5));
    assert_eq!(verdict.text, "[[Partially supported]]");
    assert!(verdict.forced);
}

#[test]
fn a_last_reply_too_long_to_go_on_from_is_left_out() {
    let weigh = |call: &Call| if call.prefix == "[[" { uniform(call) } else { too_long() };
    let (end, calls) = climb(AskKind::Rating, vec![text("rambling"); 5], weigh);
    assert_eq!(end.unwrap().text, "[[0]]");
    assert_eq!(calls.len(), 7);
    let end = climb(AskKind::Rating, vec![text("rambling"); 5], |_| too_long()).0;
    assert!(matches!(end, Err(ChatError::TooLong { .. })));
}

#[test]
fn a_readable_verdict_stands_without_a_distribution() {
    for weigh in [too_long, refused, || text("8"), || scores(&[0.5, 0.5]), || scores(&[0.0; 11])] {
        let verdict = climb(AskKind::Rating, vec![text("[[8]]")], |_| weigh()).0.unwrap();
        assert_eq!(verdict.outcome, Outcome::Rating(8.0));
        assert_eq!((verdict.distribution.len(), verdict.expected), (0, None));
    }
}

#[test]
fn a_forced_verdict_is_never_invented() {
    for weigh in [refused, || text("8"), || scores(&[f64::NAN; 11]), || scores(&[0.0; 11])] {
        let end = climb(AskKind::Rating, vec![text("?"); 5], |_| weigh()).0;
        assert!(matches!(end, Err(ChatError::Refused(_))), "{end:?}");
    }
}

#[test]
fn a_prompt_too_long_fails_at_once() {
    let (end, calls) = climb(AskKind::Rating, vec![too_long()], uniform);
    assert!(matches!(end, Err(ChatError::TooLong { tokens: 9, limit: 5, .. })));
    assert_eq!(calls.len(), 1);
}

#[test]
fn a_broken_model_fails_at_once() {
    let broken = || Err(ChatError::Broken("gone".to_owned()));
    let end = climb(AskKind::Rating, vec![broken()], uniform).0;
    assert!(matches!(end, Err(ChatError::Broken(_))));
    let end = climb(AskKind::Rating, vec![text("[[8]]")], |_| broken()).0;
    assert!(matches!(end, Err(ChatError::Broken(_))));
}

#[test]
fn a_refusal_uses_up_an_attempt() {
    let verdict = climb(AskKind::Rating, vec![refused(), text("[[3]]")], uniform).0.unwrap();
    assert_eq!((verdict.outcome, verdict.attempts), (Outcome::Rating(3.0), 2));
    let refusals = || (0..5).map(|_| refused()).collect();
    let one_empty = || std::iter::once(text("")).chain((0..4).map(|_| refused())).collect();
    for kind in [AskKind::Extract, statements(&["s"])] {
        for replies in [refusals(), one_empty()] {
            let (end, calls) = climb(kind.clone(), replies, uniform);
            assert!(matches!(end, Err(ChatError::Refused(_))));
            assert_eq!(calls.len(), 5);
        }
    }
    assert!(climb(AskKind::Rating, refusals(), uniform).0.unwrap().forced);
}

#[test]
fn a_list_that_ended_by_itself_keeps_a_statement_that_is_not_closed() {
    let reply = "<statement>A is b.</statement>\n<statement>C is d.";
    let verdict = climb(statements(&["s"]), vec![text(reply)], uniform).0.unwrap();
    assert_eq!(
        (verdict.statements().unwrap(), verdict.cut),
        (&["A is b.", "C is d."].map(String::from)[..], false)
    );
}

#[test]
fn statements_are_done_without_scoring() {
    let reply = "<statement>One.</statement>";
    let (end, calls) = climb(statements(&["s"]), vec![text("?"), text(reply)], uniform);
    let verdict = end.unwrap();
    assert_eq!(verdict.outcome, Outcome::Statements(vec!["One.".to_owned()]));
    assert_eq!((verdict.attempts, verdict.forced, calls.len()), (2, false, 2));
}

#[test]
fn an_answer_without_statements_is_a_result() {
    let verdict = climb(statements(&["s"]), vec![text("<no_statements>")], uniform).0.unwrap();
    assert_eq!(verdict.outcome, Outcome::Statements(Vec::new()));
    assert!(!verdict.forced);
}

#[test]
fn unreadable_statements_fall_back_on_the_sentences() {
    let verdict = climb(statements(&["It rained."]), vec![text("?"); 5], uniform).0.unwrap();
    assert_eq!(verdict.outcome, Outcome::Statements(vec!["It rained.".to_owned()]));
    assert_eq!((verdict.attempts, verdict.forced), (5, true));
}

fn cut_off(text: &str) -> Result<Reply, ChatError> {
    let (text, usage) = (text.to_owned(), Usage::default());
    Ok(Reply::Text { text, finish: Finish::Length, usage })
}

/// The statements of a list that was cut off, from an answer of four sentences.
fn listed_before_the_cut(reply: &str) -> (Vec<String>, bool) {
    let answer = [
        "The bridge was built in 1887.",
        "Its arch is of steel.",
        "The river froze twice.",
        "Nobody crossed it.",
    ];
    let verdict = climb(statements(&answer), vec![cut_off(reply)], uniform).0.unwrap();
    assert!(!verdict.forced && verdict.attempts == 1);
    (verdict.statements().unwrap().to_vec(), verdict.cut)
}

#[test]
fn a_list_that_is_cut_off_goes_on_with_the_sentences_it_had_not_come_to() {
    let first = "<statement>A bridge was built in 1887.</statement>";
    let arch = "<statement>The arch of the bridge is of steel.</statement>";
    let rest = ["The river froze twice.", "Nobody crossed it."];
    let (found, cut) = listed_before_the_cut(&format!("{first}{arch}<statement>The riv"));
    assert!(cut && found.len() == 4 && found[2..] == rest);
    // Half of what the second sentence says is listed.
    let (found, _) = listed_before_the_cut(&format!("{first}{arch}<statement>The arch is wi"));
    assert!(found.len() == 5 && found[2] == "Its arch is of steel." && found[3..] == rest);
    let (found, cut) = listed_before_the_cut(&format!("{first}{arch}{first}{arch}"));
    assert!(cut && found.len() == 4 && found[2..] == rest);
    let whole = format!("{first}<statement>Nobody crossed the river.</statement>\nThese are all");
    assert_eq!(listed_before_the_cut(&whole).0.len(), 2);
    assert_eq!(listed_before_the_cut("<no_statements> since").0, [""; 0]);
    let (found, _) = listed_before_the_cut("<statement>无</statement><statement>这座桥");
    assert_eq!(found.len(), 4);
}

#[test]
fn an_extract_that_is_cut_off_is_marked_and_no_other_reply() {
    let verdict = climb(AskKind::Extract, vec![cut_off("- a\n- b")], uniform).0.unwrap();
    assert!(verdict.cut && verdict.extract() == Some("- a\n- b"));
    let verdict = climb(AskKind::Rating, vec![cut_off("[[7]]\n\nMore")], uniform).0.unwrap();
    assert!(!verdict.cut);
    assert!(!serde_json::to_string(&verdict).unwrap().contains("cut"));
}

#[test]
fn a_rating_that_an_analysis_mentions_before_it_is_cut_off_is_no_verdict() {
    let mention = "The criteria say at most [[5]] for one error. This answer has none, and";
    let end = climb(AskKind::Rating, vec![cut_off(mention), text("[[8]]")], uniform).0;
    assert_eq!((end.as_ref().unwrap().score(), end.unwrap().attempts), (Some(8.0), 2));
    let mention = "To be [[Fully supported]] the year must";
    let verdict = climb(AskKind::Support, vec![cut_off(mention); 5], uniform).0.unwrap();
    assert!(verdict.forced && verdict.text.starts_with(mention));
    // Without an analysis the verdict comes first.
    let replies = vec![cut_off("[[6]] since the")];
    let end = climb_ask(opened(AskKind::Rating, "[["), replies, |_| refused()).0;
    assert_eq!(end.unwrap().score(), Some(6.0));
}

#[test]
fn extracts() {
    let verdict = climb(AskKind::Extract, vec![text(""), text("- a")], uniform).0.unwrap();
    assert_eq!(verdict.outcome, Outcome::Extract(Some("- a".to_owned())));
    let reply = text("No relevant information");
    let verdict = climb(AskKind::Extract, vec![reply], uniform).0.unwrap();
    assert_eq!((verdict.outcome, verdict.forced), (Outcome::Extract(None), false));
    let verdict = climb(AskKind::Extract, vec![text(""); 5], uniform).0.unwrap();
    assert_eq!((verdict.outcome, verdict.forced), (Outcome::Extract(None), true));
}

#[test]
fn scores_where_a_text_was_asked_for_are_refused() {
    let end = climb(AskKind::Extract, vec![scores(&[1.0])], uniform).0;
    assert!(matches!(end, Err(ChatError::Refused(_))));
}

fn opened(kind: AskKind, opening: &str) -> Ask {
    Ask { opening: Some(opening.to_owned()), ..ask(kind) }
}

#[test]
fn an_opening_takes_one_call_for_scores_and_no_sample() {
    let weigh = |call: &Call| {
        assert_eq!(call.prefix, "Statement 2: [[");
        scores(&[0.2, 0.2, 0.6])
    };
    let (end, calls) = climb_ask(opened(AskKind::Support, "Statement 2: [["), vec![], weigh);
    let verdict = end.unwrap();
    assert_eq!(verdict.outcome, Outcome::Support(0.0));
    assert_eq!((verdict.attempts, verdict.forced, calls.len()), (0, false, 1));
    assert_eq!(verdict.text, "Statement 2: [[No support]]");
    assert_eq!((verdict.distribution[2], verdict.expected), (0.6, Some(0.3)));
}

#[test]
fn a_model_that_can_not_score_is_sampled_instead() {
    let replies = vec![text("?"), text("[[6]]")];
    let (end, calls) = climb_ask(opened(AskKind::Rating, "[["), replies, |_| refused());
    let verdict = end.unwrap();
    assert_eq!((verdict.outcome, verdict.attempts), (Outcome::Rating(6.0), 2));
    assert!(!verdict.forced && verdict.distribution.is_empty());
    assert_eq!(temperatures_and_seeds(&calls), [(0.01, 100), (0.95, 101)]);
    // A reply to all statements would be read as one to this.
    let end = climb_ask(opened(AskKind::Support, "2: [["), vec![], |_| refused()).0;
    assert!(matches!(end, Err(ChatError::Refused(_))));
    let end = climb_ask(opened(AskKind::Support, "2: [["), vec![], |_| too_long()).0;
    assert!(matches!(end, Err(ChatError::TooLong { .. })));
}

#[test]
fn votes_are_all_sampled_at_one_temperature() {
    let voting = Voting { count: 3, by: VoteBy::Mean };
    let ask = Ask { voting, ..ask(AskKind::Rating) };
    let (_, calls) = climb_ask(ask, vec![text("?"), text("[[6]]")], uniform);
    assert_eq!(temperatures_and_seeds(&calls), [(0.95, 100), (0.95, 101)]);
}

#[test]
fn several_statements_are_read_and_weighed_one_by_one() {
    let reply = "1: yes [[Fully supported]]\n2: hm\n3: no [[No support]]";
    let weigh = |call: &Call| match call.prefix.ends_with("3: no [[") {
        true => scores(&[0.0, 0.25, 0.75]),
        false => scores(&[0.5, 0.5, 0.0]),
    };
    let (end, calls) = climb(AskKind::Supports { count: 3 }, vec![text(reply)], weigh);
    let verdict = end.unwrap();
    let Outcome::Supports(found) = verdict.outcome else { panic!("not several") };
    let first = found[0].as_ref().unwrap();
    assert_eq!((first.text.as_str(), first.score()), ("1: yes [[Fully supported]]", Some(1.0)));
    assert_eq!((first.expected, first.attempts), (Some(0.75), 1));
    assert!(found[1].is_none());
    assert_eq!(found[2].as_ref().unwrap().expected, Some(0.125));
    assert_eq!((calls.len(), calls[1].prefix.as_str()), (3, "1: yes [["));
}

#[test]
fn a_group_that_can_not_be_asked_or_read_leaves_all_to_single_asks() {
    for reply in [text("I can't say."), too_long(), refused()] {
        let (end, calls) = climb(AskKind::Supports { count: 2 }, vec![reply], uniform);
        assert_eq!(end.unwrap().outcome, Outcome::Supports(vec![None, None]));
        assert_eq!(calls.len(), 1);
    }
    let broken = || Err(ChatError::Broken("gone".to_owned()));
    let end = climb(AskKind::Supports { count: 2 }, vec![broken()], uniform).0;
    assert!(matches!(end, Err(ChatError::Broken(_))));
    let reply = vec![text("1: [[No support]]")];
    let end = climb(AskKind::Supports { count: 1 }, reply, |_| broken()).0;
    assert!(matches!(end, Err(ChatError::Broken(_))));
}

#[test]
fn unit_seeds_are_pinned() {
    // printf '7/11-0/helpfulness' | sha256sum
    assert_eq!(unit_seed(7, "11-0/helpfulness"), 0xf910_2e22_043b_f367);
    assert_ne!(unit_seed(7, "11-0/logicality"), unit_seed(7, "11-0/helpfulness"));
    assert_ne!(unit_seed(8, "11-0/helpfulness"), unit_seed(7, "11-0/helpfulness"));
}
