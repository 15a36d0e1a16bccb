//! Rows that can't be used: told with their line, counted, and the others are done.

use crate::harness::{World, score};

#[test]
fn bad_rows_are_told_and_the_rest_is_done() {
    let world = World::new();
    let good = world.read("sft.jsonl").replace('\n', "\r\n");
    let mut rows = good.into_bytes();
    rows.extend_from_slice(b"{\"idx\": 8, \"query\"\n");
    rows.extend_from_slice(b"{\"idx\": 9, \"query\": \"q\", \"answer\": \"a\"}\n");
    rows.extend_from_slice(
        b"{\"idx\": \"x\", \"query\": \"q\", \"answer\": \"a\", \"context\": \"c\"}\n",
    );
    rows.extend_from_slice(
        b"{\"idx\": 3, \"query\": \"q\", \"answer\": \"a\", \"context\": \"c\"}\n",
    );
    rows.extend_from_slice(
        b"{\"idx\": 10, \"query\": \"q\", \"answer\": \"a\", \"context\": \" \"}\n",
    );
    rows.extend_from_slice(
        b"{\"idx\": 11, \"query\": \"\xff\", \"answer\": \"a\", \"context\": \"c\"}\n",
    );
    rows.extend_from_slice(&vec![b'x'; 50 << 20]);
    rows.push(b'\n');
    world.write("sft.jsonl", rows);
    let told = world.expect(3, &score("out", ""));
    for line in 3..=9 {
        assert!(told.contains(&format!("sft.jsonl:{line}")), "line {line}:\n{told}");
    }
    for word in ["context", "idx", "UTF-8"] {
        assert!(told.contains(word), "{word}:\n{told}");
    }
    assert_eq!(world.read("out/scored_responses.jsonl").lines().count(), 6);
}

#[test]
fn input_without_a_good_row_is_an_error() {
    let world = World::new();
    world.write("bad.jsonl", "[\n{\"idx\": 3}\n");
    for (data, line) in
        [("/dev/null", ""), ("bad.jsonl", "bad.jsonl:2: field \"query\" is missing")]
    {
        for command in [
            format!("run --judge model --data {data} --out-dir out --embedder bm25"),
            format!("sample --model model --data {data} --out out/sampled.jsonl"),
            format!("chunk-info --model model --data {data} --out out/extracts.jsonl"),
        ] {
            let told = world.expect(1, &command);
            assert!(
                told.contains(line) && told.contains(&format!("{data}: holds no usable row")),
                "{told}"
            );
        }
    }
}

#[test]
fn a_prompt_that_does_not_fit_fails_alone() {
    let world = World::new();
    let mut rows = world.read("sft.jsonl");
    let long = "word ".repeat(40_000);
    let row = serde_json::json!({"idx": 20, "query": "q", "answer": "a", "context": long});
    rows.push_str(&format!("{row}\n"));
    world.write("sft.jsonl", rows);
    let told = world.expect(
        3,
        "sample --model model --data sft.jsonl --out out/sampled.jsonl -n 2 --max-new-tokens 4",
    );
    assert!(told.contains("20-0") && told.contains("12000"), "{told}");
    assert_eq!(world.read("out/sampled.jsonl").lines().count(), 4);
}
