//! Options from a TOML file, by turning them into arguments before those that were typed.
//!
//! ```toml
//! threads = 8                 # every command that knows the option
//! kv-memory = "16GiB"
//! [score]                     # one command
//! embedder = "bm25"
//! [eval.longbench]            # one of a command's own; what stands in [eval] is for all of them
//! sets = ["qasper", "vcsum"]
//! ```

use super::help::members;
use anyhow::{Context, Result, bail, ensure};
use clap::error::{ContextKind, ContextValue};
use clap::{Arg, Command};
use std::ffi::OsString;
use std::path::Path;
use toml::{Table, Value};

/// The arguments, with those of the file named by `--config` (if it is) put right after the
/// command's name. An option that was typed as well is left out, and so is one that can't be used with
/// one that was typed, or that is for models behind servers where none is named.
///
/// # Errors
/// The file can't be read, is no TOML, or names an option that no command (or not its own) has.
pub fn expand(args: Vec<OsString>, cli: &Command) -> Result<Vec<OsString>> {
    let Some(file) = path(&args) else { return Ok(args) };
    let (at, path) = command_path(&args, cli);
    if path.is_empty() {
        return Ok(args);
    }
    let table = read(Path::new(&file))?;
    let mut added = Vec::new();
    Reader { cli, path: &path }.read(&table, 0, &mut added).with_context(|| file_name(&file))?;
    added.retain(|(name, _)| !path.last().is_some_and(|own| is_displaced(own, name, &args)));
    let is_added = |name: &str| added.iter().any(|(given, _)| given == name);
    if !SERVERS.iter().any(|name| is_typed(&args, name) || is_added(name)) {
        added.retain(|(name, _)| !path.last().is_some_and(|own| is_for_servers(own, name)));
    }
    Ok(insert(args, at, added))
}

/// The options that name a server.
const SERVERS: [&str; 2] = ["judge-url", "policy-url"];

/// Whether an option of a command is for models behind servers.
fn is_for_servers(command: &Command, name: &str) -> bool {
    members(command, "RemoteArgs").any(|id| {
        command.get_arguments().any(|arg| arg.get_id() == &id && arg.get_long() == Some(name))
    })
}

/// Whether an option of a command conflicts with one that was typed.
fn is_displaced(command: &Command, name: &str, typed: &[OsString]) -> bool {
    let with_name = || command.get_arguments().filter_map(|arg| Some((arg, arg.get_long()?)));
    let conflict = |one: &Arg, other: &Arg| {
        command.get_arg_conflicts_with(one).iter().any(|arg| arg.get_id() == other.get_id())
    };
    let Some((own, _)) = with_name().find(|(_, long)| *long == name) else { return false };
    with_name()
        .filter(|(_, long)| is_typed(typed, long))
        .any(|(other, _)| conflict(own, other) || conflict(other, own))
}

/// The command that is typed, as the names of which it consists (`eval`, `longbench`), and where the
/// last of them stands.
pub fn command_path<'c>(args: &[OsString], cli: &'c Command) -> (usize, Vec<&'c Command>) {
    let (mut at, mut path) = (0, Vec::new());
    let mut owner = cli;
    loop {
        let name = |arg: &OsString| owner.get_subcommands().find(|c| arg == c.get_name());
        let next = args.iter().enumerate().skip(at + 1).find_map(|(k, arg)| Some((k, name(arg)?)));
        let Some((place, command)) = next else { return (at, path) };
        (at, owner) = (place, command);
        path.push(command);
    }
}

/// The arguments with options put after the one at `at`, but for those that were typed as well. A value
/// is joined to its option, so that it may begin with a dash, or be left out of those that allow it.
pub fn insert(args: Vec<OsString>, at: usize, options: Vec<Given>) -> Vec<OsString> {
    let mut expanded = args[..=at].to_vec();
    for (name, value) in options {
        if !is_typed(&args, &name) {
            expanded.push(match value {
                Some(value) => format!("--{name}={value}").into(),
                None => format!("--{name}").into(),
            });
        }
    }
    expanded.extend_from_slice(&args[at + 1..]);
    expanded
}

fn is_typed(args: &[OsString], name: &str) -> bool {
    let flag = format!("--{name}");
    let joined = format!("{flag}=");
    args.iter().filter_map(|a| a.to_str()).any(|a| a == flag || a.starts_with(&joined))
}

/// Whether what clap complains of is an option that was not typed, so that it stands in the file.
pub fn is_cause(error: &clap::Error, typed: &[OsString]) -> bool {
    let Some(ContextValue::String(option)) = error.get(ContextKind::InvalidArg) else {
        return false;
    };
    let name = option.trim_start_matches('-').split([' ', '=', '[']).next().unwrap_or_default();
    option.starts_with("--") && !is_typed(typed, name)
}

fn file_name(file: &OsString) -> String {
    file.to_string_lossy().into_owned()
}

/// The file that is named.
pub fn path(args: &[OsString]) -> Option<OsString> {
    args.iter().enumerate().find_map(|(i, a)| match a.to_str()? {
        "--config" => args.get(i + 1).cloned(),
        other => other.strip_prefix("--config=").map(OsString::from),
    })
}

fn read(file: &Path) -> Result<Table> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("{}: can't be read", file.display()))?;
    text.parse().with_context(|| format!("{}: is no TOML", file.display()))
}

/// An option by its long name, with its value if it has one.
type Given = (String, Option<String>);

/// Reads what a file says for one command.
struct Reader<'a> {
    cli: &'a Command,
    /// The names of the command.
    path: &'a [&'a Command],
}

impl Reader<'_> {
    /// Adds the options of the table that belongs to the first `depth` names of the command, then
    /// those of the tables in it, which go before.
    fn read(&self, table: &Table, depth: usize, found: &mut Vec<Given>) -> Result<()> {
        let owner = depth.checked_sub(1).map_or(self.cli, |last| self.path[last]);
        let names: Vec<&str> = self.path[..depth].iter().map(|c| c.get_name()).collect();
        let table_name = names.join(".");
        for (key, value) in table {
            if value.is_table() {
                let place = [names.as_slice(), &[key.as_str()]].concat().join(".");
                let known = owner.find_subcommand(key).is_some();
                ensure!(known, "[{place}]: there is no such command");
            } else if self.takes(key) {
                found.retain(|(other, _)| other != key);
                found.extend(self.given(key, value)?);
            } else if depth == 0 {
                ensure!(somewhere(owner, key), "{key}: no command has this option");
            } else {
                ensure!(somewhere(owner, key), "[{table_name}] {key}: no such option");
            }
        }
        match self.path.get(depth).and_then(|next| table.get(next.get_name())) {
            Some(Value::Table(own)) => self.read(own, depth + 1, found),
            _ => Ok(()),
        }
    }

    /// Whether the command has this option, or every command.
    fn takes(&self, key: &str) -> bool {
        self.path.last().is_some_and(|command| knows(self.cli, command, key))
    }

    fn given(&self, key: &str, value: &Value) -> Result<Vec<Given>> {
        self.path
            .last()
            .and_then(|command| switched_off(key, value, command))
            .map_or_else(|| option(key, value), Ok)
    }
}

fn has(command: &Command, key: &str) -> bool {
    key != "config" && command.get_arguments().any(|arg| arg.get_long() == Some(key))
}

/// Whether a command, or one below it, has an option.
fn somewhere(command: &Command, key: &str) -> bool {
    has(command, key) || command.get_subcommands().any(|below| somewhere(below, key))
}

/// `false` for a flag that can be switched off, so that it holds against a preset.
fn switched_off(key: &str, value: &Value, command: &Command) -> Option<Vec<Given>> {
    let arg = command.get_arguments().find(|a| a.get_long() == Some(key))?;
    let off = *value == Value::Boolean(false) && arg.is_require_equals_set();
    off.then(|| vec![(key.to_owned(), Some("false".to_owned()))])
}

/// Whether a command has an option of this long name, or every command.
pub fn knows(cli: &Command, command: &Command, key: &str) -> bool {
    has(command, key) || has(cli, key)
}

/// A flag with its value; nothing for `false`; one with each element of an array.
fn option(key: &str, value: &Value) -> Result<Vec<Given>> {
    let text = match value {
        Value::Boolean(false) => return Ok(Vec::new()),
        Value::Boolean(true) => None,
        Value::String(text) => Some(text.clone()),
        Value::Integer(n) => Some(n.to_string()),
        Value::Float(x) => Some(x.to_string()),
        Value::Array(items) => {
            let options = items.iter().map(|item| option(key, item)).collect::<Result<Vec<_>>>()?;
            return Ok(options.concat());
        }
        other => bail!("{key}: a {} is no value for an option", other.type_str()),
    };
    Ok(vec![(key.to_owned(), text)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::{Cli, Command as Chosen};
    use clap::{CommandFactory, Parser};

    fn expanded(toml: &str, typed: &str) -> Result<Vec<String>> {
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), toml)?;
        let mut args: Vec<OsString> = typed.split(' ').map(OsString::from).collect();
        args.extend(["--config".into(), file.path().into()]);
        let mut got = expand(args, &Cli::command())?;
        got.truncate(got.len() - 2);
        Ok(got.into_iter().map(|a| a.into_string().unwrap()).collect())
    }

    #[test]
    fn what_is_typed_goes_first_and_a_command_takes_what_it_knows() {
        let toml = "threads = 3\nembedder = \"bm25\"\n[score]\nseed = 7\nforce = true\n";
        let got = expanded(toml, "longreward score --seed 1 --model m").unwrap();
        let want = "longreward score --embedder=bm25 --threads=3 --force --seed 1 --model m";
        assert_eq!(got.join(" "), want);
        let toml = "[score]\nverdict-first = false\npreset = \"fast\"\n";
        let got = expanded(toml, "longreward score").unwrap();
        assert_eq!(got.join(" "), "longreward score --preset=fast --verdict-first=false");
        let toml = "threads = 3\n";
        let got = expanded(toml, "longreward pull m").unwrap();
        assert_eq!(got.join(" "), "longreward pull --threads=3 m");
    }

    #[test]
    fn what_is_typed_goes_before_what_it_conflicts_with() {
        let got = |toml: &str, typed: &str| expanded(toml, typed).unwrap().join(" ");
        let judge = "[score]\nmodel = \"m\"\nseed = 7\n";
        let typed = "--judge-url u --judge-model j";
        let want = format!("longreward score --seed=7 {typed}");
        assert_eq!(got(judge, &format!("longreward score {typed}")), want);
        let server = "[score]\njudge-url = \"u\"\njudge-model = \"j\"\nseed = 7\n";
        let want = "longreward score --seed=7 --model m";
        assert_eq!(got(server, "longreward score --model m"), want);
        // What only a server needs goes with it.
        let server = format!("{server}tokenizer = \"t\"\n");
        assert_eq!(got(&server, "longreward score --model m"), want);
        assert!(got(&server, "longreward score").contains("--tokenizer=t"));
        // Which of two says that they conflict does not matter.
        let typed = "longreward agree --labels l --scored s";
        assert_eq!(got("[agree]\nmodel = \"m\"\n", typed), typed);
    }

    #[test]
    fn values_may_begin_with_a_dash() {
        let got =
            expanded("[generate]\nstop = [\"-- \", \"-x\"]\n", "longreward generate").unwrap();
        assert_eq!(got[2..], ["--stop=-- ", "--stop=-x"]);
        let typed = [got, ["--model", "m", "--prompt", "x"].map(String::from).to_vec()].concat();
        let Chosen::Generate(args) = Cli::try_parse_from(typed).unwrap().command else { panic!() };
        assert_eq!(args.stop, ["-- ", "-x"]);
    }

    #[test]
    fn wrong_values_are_traced_to_the_file() {
        let typed = |line: &str| line.split(' ').map(OsString::from).collect::<Vec<_>>();
        let told = |line: &str| Cli::try_parse_from(typed(line)).unwrap_err();
        let error = told("longreward score --threads=x --model m");
        assert!(is_cause(&error, &typed("longreward score --config f --model m")));
        assert!(!is_cause(&error, &typed("longreward score --config f --model m --threads x")));
        let error = told("longreward score --threads=3 --model m");
        assert!(
            !is_cause(&error, &typed("longreward score --config f --model m")),
            "--data is missing"
        );
    }

    #[test]
    fn suites_have_tables_below_that_of_their_command() {
        let toml = "threads = 3\nseed = 1\n[eval]\nlimit = 5\njudge = \"j\"\ne = true\n\
                    [eval.longbench]\nsets = [\"qasper\", \"vcsum\"]\nlimit = 7\n\
                    [eval.longbench-chat]\ntemperature = 0.5\n";
        let got = expanded(toml, "longreward eval longbench --model m").unwrap();
        let want = "longreward eval longbench --seed=1 --threads=3 --e --judge=j --limit=7 \
                    --sets=qasper --sets=vcsum --model m";
        assert_eq!(got.join(" "), want);
        let got = expanded(toml, "longreward --threads 2 eval longbench-chat --judge k").unwrap();
        let want = "longreward --threads 2 eval longbench-chat --seed=1 --limit=5 \
                    --temperature=0.5 --judge k";
        assert_eq!(got.join(" "), want);
        assert_eq!(
            expanded(toml, "longreward pull m").unwrap().join(" "),
            "longreward pull --threads=3 m"
        );
    }

    #[test]
    fn unknown_options_are_refused() {
        for (toml, command, word) in [
            ("thread = 3", "score", "thread: no command"),
            ("[score]\nn = 1", "score", "[score] n"),
            ("[x]", "score", "[x]"),
            ("[eval]\nn = 1", "eval longbench", "[eval] n"),
            ("[eval.x]", "eval longbench", "[eval.x]"),
            (
                "[eval.longbench-chat]\nsets = [\"a\"]",
                "eval longbench-chat",
                "[eval.longbench-chat] sets",
            ),
        ] {
            let error =
                format!("{:#}", expanded(toml, &format!("longreward {command}")).unwrap_err());
            assert!(error.contains(word), "{error}");
        }
    }
}
