//! How the options of all commands are arranged and read.

use super::args::Cli;
use clap::{Arg, Command, CommandFactory};
use std::collections::HashMap;

/// Headings of options whose struct holds others, of which it is no set.
pub const JUDGE: &str = "Judge";
pub const VERDICTS: &str = "Verdicts";

/// Sets of options, by the name of their struct, and what they stand below in a help text. All others are the command's
/// own, which stand first.
const HEADINGS: [(&str, &str); 8] = [
    ("Filters", "Sampling"),
    ("PromptArgs", JUDGE),
    ("VerdictArgs", VERDICTS),
    ("JudgeServer", "Models behind servers"),
    ("PolicyServer", "Models behind servers"),
    ("RemoteArgs", "Models behind servers"),
    ("Common", "Model and engine"),
    ("Process", "Every command"),
];

/// What can be typed.
pub fn command() -> Command {
    arranged(Cli::command())
}

fn arranged(command: Command) -> Command {
    let headings: HashMap<String, &str> = HEADINGS
        .iter()
        .flat_map(|(set, heading)| members(&command, set).map(move |id| (id, *heading)))
        .collect();
    let change = |arg: Arg| {
        let takes_values = arg.get_action().takes_values();
        let arg = arg.allow_negative_numbers(takes_values);
        match headings.get(arg.get_id().as_str()) {
            Some(heading) => arg.help_heading(*heading),
            None => arg,
        }
    };
    command.mut_args(change).mut_subcommands(arranged)
}

/// The ids of a set's options.
pub fn members<'c>(command: &'c Command, set: &str) -> impl Iterator<Item = String> + use<'c> {
    let group = command.get_groups().find(|group| group.get_id() == set);
    group.into_iter().flat_map(|group| group.get_args().map(ToString::to_string))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of<'c>(command: &'c Command, name: &str) -> &'c Command {
        command.find_subcommand(name).unwrap()
    }

    #[test]
    fn a_commands_own_options_have_no_heading_and_the_engines_have_one() {
        let command = command();
        let heading = |name: &str, option: &str| {
            let found =
                of(&command, name).get_arguments().find(|arg| arg.get_long() == Some(option));
            found.unwrap().get_help_heading().map(str::to_owned)
        };
        for own in ["data", "out", "force", "early-stop"] {
            assert_eq!(heading("score", own), None, "{own}");
        }
        assert_eq!(heading("score", "judge-url").as_deref(), Some("Models behind servers"));
        assert_eq!(heading("score", "embedder").as_deref(), Some(JUDGE));
        for verdicts in ["votes", "passages", "score-by"] {
            assert_eq!(heading("score", verdicts).as_deref(), Some(VERDICTS), "{verdicts}");
        }
        assert_eq!(heading("score", "kv-memory").as_deref(), Some("Model and engine"));
    }

    #[test]
    fn what_runs_no_model_has_no_options_of_the_engine() {
        let command = command();
        for name in ["pairs", "report", "calibrate", "tokenize", "pull", "dummy", "prompts"] {
            assert_eq!(members(of(&command, name), "Common").count(), 0, "{name}");
        }
        assert!(members(of(&command, "score"), "Common").count() > 0);
    }

    #[test]
    fn a_negative_number_is_a_value() {
        let typed = "longreward sample --model m --data d --out o --temperature -1".split(' ');
        let told = command().try_get_matches_from(typed).unwrap_err().to_string();
        assert!(told.contains("'-1' for '--temperature <T>'"), "{told}");
    }
}
