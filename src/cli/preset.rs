//! Options by name, put into the arguments before those that were typed.

use super::config_file::{command_path, insert, knows};
use anyhow::{Result, anyhow};
use clap::{Command, ValueEnum};
use std::ffi::OsString;

/// A combination of options.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Preset {
    /// The published method; the same as no preset
    Longreward,
    /// --verdict-first --score-by expected --statements-per-call 5 --embedder bm25
    Fast,
    /// --votes 5 --score-by expected --embedder bm25+minilm --passage-cut sentences --passage-overlap 32
    Careful,
}

impl Preset {
    /// # Errors
    /// There is none of this name.
    pub fn named(name: &str) -> Result<Self> {
        Self::from_str(name, false).map_err(|_| {
            let names = Self::value_variants().iter().filter_map(ValueEnum::to_possible_value);
            let names: Vec<String> = names.map(|value| value.get_name().to_owned()).collect();
            anyhow!("--preset {name}: there is no such preset; there are {}", names.join(", "))
        })
    }

    /// Long names of options with their values.
    pub fn options(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Preset::Longreward => &[],
            Preset::Fast => &[
                ("verdict-first", "true"),
                ("score-by", "expected"),
                ("statements-per-call", "5"),
                ("embedder", "bm25"),
            ],
            Preset::Careful => &[
                ("votes", "5"),
                ("score-by", "expected"),
                ("embedder", "bm25+minilm"),
                ("passage-cut", "sentences"),
                ("passage-overlap", "32"),
            ],
        }
    }
}

/// The arguments, with the options of the preset named by `--preset` (if it is) put right after the
/// command's name: those that the command has and that were not typed.
///
/// # Errors
/// There is no such preset.
pub fn expand(args: Vec<OsString>, cli: &Command) -> Result<Vec<OsString>> {
    let (at, path) = command_path(&args, cli);
    let Some(command) = path.last() else { return Ok(args) };
    let Some(name) = named(&args).filter(|_| knows(cli, command, "preset")) else {
        return Ok(args);
    };
    let own = Preset::named(&name)?.options().iter().filter(|(name, _)| knows(cli, command, name));
    let own = own.map(|&(name, value)| (name.to_owned(), Some(value.to_owned()))).collect();
    Ok(insert(args, at, own))
}

/// The last preset that is named.
fn named(args: &[OsString]) -> Option<String> {
    let value = |(i, arg): (usize, &OsString)| match arg.to_str()? {
        "--preset" => Some(args.get(i + 1)?.to_string_lossy().into_owned()),
        other => other.strip_prefix("--preset=").map(str::to_owned),
    };
    args.iter().enumerate().filter_map(value).next_back()
}

#[cfg(test)]
mod tests {
    use super::super::args::{Cli, Command as Chosen, ScoringArgs};
    use super::super::method_args::ScoreChoice;
    use super::super::parse_for_tests;
    use super::*;
    use crate::cli::verdict_args::CutChoice;

    fn parsed(typed: &str) -> Cli {
        parse_for_tests(typed).unwrap()
    }

    fn scoring(more: &str) -> ScoringArgs {
        let base = "longreward score --model m --data d --responses r --out o";
        let Chosen::Score(args) = parsed(&format!("{base} {more}")).command else {
            panic!("another command");
        };
        args.scoring
    }

    #[test]
    fn presets_are_what_they_say() {
        let mut published = scoring("--preset longreward");
        published.method.verdicts.preset = None;
        assert_eq!(format!("{published:?}"), format!("{:?}", scoring("")));
        let fast = scoring("--preset fast");
        assert!(
            fast.method.verdicts.verdict_first && fast.method.score_by == ScoreChoice::Expected
        );
        assert_eq!(
            (fast.method.verdicts.statements_per_call, fast.judging.embedder.as_str()),
            (5, "bm25")
        );
        let careful = scoring("--preset=careful");
        assert_eq!(
            (careful.method.verdicts.votes, careful.method.verdicts.passage_overlap),
            (5, 32)
        );
        assert_eq!(careful.method.verdicts.passage_cut, CutChoice::Sentences);
        assert_eq!(careful.judging.embedder, "bm25+minilm");
    }

    #[test]
    fn what_is_typed_goes_before_the_preset_wherever_it_stands() {
        let mixed = scoring("--embedder minilm --preset fast --verdict-first=false");
        assert!(!mixed.method.verdicts.verdict_first);
        assert_eq!(mixed.judging.embedder, "minilm");
        assert_eq!(
            (mixed.method.verdicts.statements_per_call, mixed.method.score_by),
            (5, ScoreChoice::Expected)
        );
        assert_eq!(scoring("--preset careful --votes 7").method.verdicts.votes, 7);
    }

    #[test]
    fn the_help_of_a_preset_names_its_options() {
        for preset in &Preset::value_variants()[1..] {
            let help = preset.to_possible_value().unwrap().get_help().unwrap().to_string();
            for (name, value) in preset.options() {
                let shown = if *value == "true" { String::new() } else { format!(" {value}") };
                assert!(help.contains(&format!("--{name}{shown}")), "{help}: {name}");
            }
        }
    }

    #[test]
    fn commands_take_the_options_that_they_know() {
        let Chosen::Agree(args) =
            parsed("longreward agree --labels l --model m --out o --preset careful").command
        else {
            panic!("another command");
        };
        assert_eq!((args.verdicts.votes, args.judging.embedder.as_str()), (5, "bm25+minilm"));
        let error = parse_for_tests("longreward score --preset slow").unwrap_err().to_string();
        assert!(error.contains("there are longreward, fast, careful"), "{error}");
    }
}
