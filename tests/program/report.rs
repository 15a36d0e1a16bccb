//! The report on what the program itself has scored.

use crate::harness::{World, score};

const REPORT: &str =
    "report --scored out/scored_responses.jsonl --data sft.jsonl --out report.html";

#[test]
fn what_was_scored_can_be_reported() {
    let world = World::new();
    world.expect(0, &score("out", ""));
    let told = world.expect(
        0,
        "pairs --scored out/scored_responses.jsonl --data sft.jsonl --min-scored 2 --tokenizer model \
         --out pairs.jsonl",
    );
    assert!(told.contains("train with max_length of at least "), "{told}");
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

#[test]
fn no_command_writes_over_what_it_reads() {
    let world = World::new();
    world.expect(0, &score("out", ""));
    world.write("labels.jsonl", "{}\n");
    world.write("l.summary.json", "{}\n");
    let scored = "out/scored_responses.jsonl";
    for (command, input) in [
        (REPORT.replace("--out report.html", "--out sft.jsonl"), "sft.jsonl"),
        (format!("pairs --scored {scored} --data sft.jsonl --out ./{scored}"), scored),
        (format!("calibrate --labels labels.jsonl --judged {scored} --out {scored}"), scored),
        (
            "agree --labels labels.jsonl --model model --embedder bm25 --out labels.jsonl --force"
                .to_owned(),
            "labels.jsonl",
        ),
        // Told before there is a judge.
        (
            "agree --labels l.summary.json --model nowhere --embedder bm25 --out l.jsonl"
                .to_owned(),
            "l.summary.json",
        ),
        (
            score("out", "--force").replace(&format!("--out {scored}"), "--out sft.jsonl"),
            "sft.jsonl",
        ),
    ] {
        let before = world.read(input);
        let told = world.expect(1, &command);
        assert!(told.contains("is read by this command"), "{command}: {told}");
        assert_eq!(world.read(input), before, "{command}");
    }
}

#[test]
fn no_command_writes_over_files_of_others() {
    let world = World::new();
    let data = "--data sft.jsonl --responses sampled_responses.jsonl";
    for (command, file) in [
        (REPORT.replace("report.html", "keep"), "keep"),
        ("calibrate --labels sft.jsonl --judged out --out keep".to_owned(), "keep"),
        (
            "agree --recall-only --labels sft.jsonl --embedder bm25 --out keep.jsonl".to_owned(),
            "keep.summary.json",
        ),
        (format!("bench --model model {data} --embedder bm25 --calls keep"), "keep"),
        ("dummy smollm2-135m --factor 0.1 --gguf keep".to_owned(), "keep"),
    ] {
        world.write(file, "{\"theirs\": 1}\n");
        let told = world.expect(1, &command);
        assert!(told.contains(&format!("{file}: holds something other than")), "{told}");
        assert_eq!(world.read(file), "{\"theirs\": 1}\n", "{command}");
    }
}

#[test]
fn what_force_deletes_is_said() {
    let world = World::new();
    world.expect(0, &score("out", ""));
    let told = world.expect(0, &score("out", "--seed 1 --force"));
    assert!(told.contains("scored_responses.jsonl was made otherwise"), "{told}");
    world.write("notes.txt", "notes\n");
    let onto = score("out", "--force").replace("out/scored_responses.jsonl", "notes.txt");
    world.expect(1, &onto);
    assert_eq!(world.read("notes.txt"), "notes\n");
}
