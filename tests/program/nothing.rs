//! Nothing to measure is an error, not a measure.

use crate::harness::World;

#[test]
fn files_without_anything_to_measure_are_refused() {
    let world = World::new();
    world.write("empty", "");
    world.write("no_tokens", "{\"prompt\": [1], \"new_tokens\": 0}\n");
    world.write("labels.jsonl", "{\"query\": \"q\"}\n");
    world.write("chat/test_cases.json", "[]");
    world.write("chat/few_shots.json", "[]");
    for (args, why) in [
        ("agree --labels empty --model model --out a", "empty has no good row"),
        ("agree --labels labels.jsonl --model model --out a", "labels.jsonl:1: has no field"),
        ("eval longbench-chat --data chat --model model --out-dir c", "chat: there is no good row"),
        ("bench --model model --quality empty", "no text has two tokens"),
        ("bench --model model --requests no_tokens", "no_tokens: no request has new tokens"),
    ] {
        let told = world.expect(1, args);
        assert!(told.contains(why), "{args}: {told}");
    }
    assert!(!world.path("a").exists() && !world.path("c").exists());
}
