//! Prompt files laid out and named as in the public LongReward code.

use crate::harness::{World, score};

/// Name and holes of each file.
const FILES: [(&str, &str); 7] = [
    ("helpfulness_few_shot", "Q <<question>> A <<answer>>"),
    ("logicality_few_shot", "Q <<question>> A <<answer>>"),
    ("find_fact_few_shot", "Q <<question>> A <<answer>>"),
    ("faithfulness_few_shot", "C <<context>> S <<statement>>"),
    ("completeness_few_shot", "C <<context>> Q <<question>> A <<answer>>"),
    ("extract_info_en", "C <<context>> Q <<question>>"),
    ("extract_info_zh", "文 <<context>> 问 <<question>>"),
];

#[test]
fn they_drive_the_same_pipeline() {
    let world = World::new();
    for (name, text) in FILES {
        world.write(&format!("mine/{name}.txt"), text);
    }
    world.expect(0, &score("out", "--prompts mine"));
    assert_eq!(world.read("out/scored_responses.jsonl").lines().count(), 6);
}

#[test]
fn a_file_without_a_hole_is_refused_by_name() {
    let world = World::new();
    for (name, text) in FILES {
        world.write(&format!("mine/{name}.txt"), text.replace("<<statement>>", "statement"));
    }
    let told = world.expect(1, &score("out", "--prompts mine"));
    assert!(told.contains("faithfulness_few_shot.txt") && told.contains("<<statement>>"), "{told}");
}
