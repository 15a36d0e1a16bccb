//! Options for other verdicts: the same bytes, whatever happens on the way.

use crate::harness::{World, calls, score};

/// Ways to score; together they use all options.
const WAYS: [&str; 3] = [
    "--preset fast",
    "--preset careful --embedder bm25 --votes 2 --statements-per-call 2",
    "--verdict-first --whole-document --early-stop --passage-tokens 32 --passage-overlap 8",
];

const FILES: [&str; 2] = ["scored_responses.jsonl", "scored_responses.chunk_info.jsonl"];

#[test]
fn threads_batches_and_kills_do_not_show() {
    let world = World::new();
    for (i, way) in WAYS.iter().enumerate() {
        let all = calls(&world.expect(0, &score(&format!("a{i}"), &format!("{way} --threads 1"))));
        let other = format!("{way} --threads 2 --batch-tokens 100 --max-sequences 5");
        let (out, run) = (format!("b{i}"), score(&format!("b{i}"), &other));
        let out = format!("{out}/scored_responses.jsonl");
        assert!(world.kill_as_it_grows(&run, &out, all, 6) > 0, "{way}");
        let told = world.expect(0, &run);
        assert!(told.contains("found in the journal"), "{way}: {told}");
        for file in FILES {
            let [a, b] = ["a", "b"].map(|run| world.read(&format!("{run}{i}/{file}")));
            assert_eq!(a, b, "{way}: {file}");
        }
    }
}

#[test]
fn other_options_are_not_mixed_in_and_can_be_verified() {
    let world = World::new();
    world.expect(0, &score("out", "--preset fast"));
    let refused = world.expect(1, &score("out", "--preset fast --verdict-first=false"));
    assert!(refused.contains("verdict_first: was \"true\", is now not set"), "{refused}");
    let nothing = world.expect(0, &score("out", "--preset fast"));
    assert!(nothing.contains("nothing to do"), "{nothing}");
    let verify = "verify out/scored_responses.jsonl --model model --data sft.jsonl --responses \
                  sampled_responses.jsonl --embedder bm25 --max-reply-tokens 8 --sample 3";
    let same = world.expect(0, &format!("{verify} --preset fast"));
    assert!(same.contains("3 of 3 records came out the same"), "{same}");
    let wrong = world.expect(2, &score("out", "--votes 3 --verdict-first"));
    assert!(wrong.contains("is not sampled"), "{wrong}");
}
