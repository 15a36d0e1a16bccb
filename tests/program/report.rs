//! The report on what the program itself has scored.

use crate::harness::{World, score};

const REPORT: &str =
    "report --scored out/scored_responses.jsonl --data sft.jsonl --out report.html";

#[test]
fn what_was_scored_can_be_reported() {
    let world = World::new();
    world.expect(0, &score("out", ""));
    world.expect(
        0,
        "pairs --scored out/scored_responses.jsonl --data sft.jsonl --min-scored 2 \
         --out pairs.jsonl",
    );
    let told = world.expect(0, &format!("{REPORT} --pairs pairs.jsonl"));
    assert!(told.contains("report: 6 candidates of 2 prompts"), "{told}");
    let page = world.read("report.html");
    // A question of the data, a setting of the scores, and the last prompt's block.
    for part in ["磨坊建于哪一年", "passage_tokens", "id=\"block-1\""] {
        assert!(page.contains(part), "{part}");
    }
    world.expect(0, &format!("{REPORT} --pairs pairs.jsonl"));
    assert!(world.read("report.html") == page);
    let rows = world.read("out/scored_responses.jsonl") + "{\"idx\": \"3-9\"}\n";
    world.write("out/scored_responses.jsonl", rows);
    let told = world.expect(3, REPORT);
    assert!(told.contains("scored_responses.jsonl:7: field \"query\" is missing"), "{told}");
}
