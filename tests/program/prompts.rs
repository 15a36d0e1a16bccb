//! Prompt files laid out and named as in the public LongReward code.

use crate::harness::{World, calls, score};

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
fn the_built_in_ones_can_be_written_and_used() {
    let world = World::new();
    let told = world.expect(0, "prompts --out mine");
    assert!(told.contains("mine/extract_info_zh.txt") && told.lines().count() == 13, "{told}");
    world.expect(0, &score("out", "--prompts mine"));
    world.expect(0, &score("fast", "--prompts mine --preset fast"));
    let told = world.expect(1, "prompts --out mine --lang zh");
    assert!(told.contains("is there already"), "{told}");
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

#[test]
fn a_changed_file_is_refused_by_name_and_costs_its_own_dimension_only() {
    let world = World::new();
    for (name, text) in FILES {
        world.write(&format!("mine/{name}.txt"), text);
    }
    world.expect(0, &score("old", "--prompts mine --cache kept"));
    world.write("mine/logicality_few_shot.txt", "Anew: Q <<question>> A <<answer>>");
    let refused = world.expect(1, &score("old", "--prompts mine --cache kept"));
    assert!(refused.contains("prompt en/logicality: was"), "{refused}");
    assert!(!refused.contains("prompt en/helpfulness"), "{refused}");
    let said = world.expect(0, &score("new", "--prompts mine --cache kept"));
    assert!(said.contains(" replies came from kept"), "{said}");
    // Six answers, each with at most five tries and a distribution.
    let made = calls(&said);
    assert!(made > 0 && made <= 6 * 6, "{said}");
}
