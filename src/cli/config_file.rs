//! Options from a TOML file, by turning them into arguments before those that were typed.
//!
//! ```toml
//! threads = 8                 # every command that knows the option
//! kv-memory = "16GiB"
//! [score]                     # one command
//! embedder = "bm25"
//! ```

use anyhow::{Context, Result, bail};
use clap::Command;
use std::ffi::OsString;
use std::path::Path;
use toml::{Table, Value};

/// The arguments, with those of the file named by `--config` (if it is) put right after the
/// command's name. An option that was typed as well is left out.
///
/// # Errors
/// The file can't be read, is no TOML, or names an option that no command (or not its own) has.
pub fn expand(args: Vec<OsString>, cli: &Command) -> Result<Vec<OsString>> {
    let Some(file) = config_path(&args) else { return Ok(args) };
    let commands: Vec<&str> = cli.get_subcommands().map(Command::get_name).collect();
    let at = args.iter().skip(1).position(|a| commands.iter().any(|c| a == c));
    let Some(at) = at.map(|at| at + 1) else { return Ok(args) };
    let command = args[at].to_string_lossy().into_owned();
    let table = read(Path::new(&file))?;
    let added = options(&table, &command, cli).with_context(|| file_name(&file))?;
    Ok(insert(args, at, added))
}

/// The arguments with options put after the one at `at`, but for those that were typed as well. An
/// option is a long name, with its value apart or behind `=`.
pub fn insert(
    args: Vec<OsString>,
    at: usize,
    options: Vec<(String, Option<String>)>,
) -> Vec<OsString> {
    let mut expanded = args[..=at].to_vec();
    for (option, value) in options {
        let name = option.split('=').next().unwrap_or_default();
        let flag = format!("--{name}");
        let typed = |a: &OsString| {
            a.to_str().is_some_and(|a| a == flag || a.starts_with(&format!("{flag}=")))
        };
        if !args.iter().any(typed) {
            expanded.push(format!("--{option}").into());
            expanded.extend(value.map(OsString::from));
        }
    }
    expanded.extend_from_slice(&args[at + 1..]);
    expanded
}

fn file_name(file: &OsString) -> String {
    file.to_string_lossy().into_owned()
}

fn config_path(args: &[OsString]) -> Option<OsString> {
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

/// Flags and values of `command`, those of its own table last.
fn options(table: &Table, command: &str, cli: &Command) -> Result<Vec<(String, Option<String>)>> {
    let mut found = Vec::new();
    for (key, value) in table {
        match value {
            Value::Table(_) if cli.find_subcommand(key).is_some() => {}
            Value::Table(_) => bail!("[{key}]: there is no such command"),
            value if knows(cli, command, key) => {
                found.extend(
                    switched_off(key, value, command, cli)
                        .map_or_else(|| option(key, value), Ok)?,
                );
            }
            _ if cli.get_subcommands().any(|c| knows(cli, c.get_name(), key)) => {}
            _ => bail!("{key}: no command has this option"),
        }
    }
    let Some(Value::Table(own)) = table.get(command) else { return Ok(found) };
    for (key, value) in own {
        if !knows(cli, command, key) {
            bail!("[{command}] {key}: the command has no such option");
        }
        found.retain(|(other, _)| other != key);
        found
            .extend(switched_off(key, value, command, cli).map_or_else(|| option(key, value), Ok)?);
    }
    Ok(found)
}

/// `false` for a flag that can be switched off, so that it holds against a preset.
fn switched_off(
    key: &str,
    value: &Value,
    command: &str,
    cli: &Command,
) -> Option<Vec<(String, Option<String>)>> {
    let own = cli.find_subcommand(command)?;
    let arg = own.get_arguments().find(|a| a.get_long() == Some(key))?;
    let off = *value == Value::Boolean(false) && arg.is_require_equals_set();
    off.then(|| vec![(format!("{key}=false"), None)])
}

/// Whether a command has an option of this long name.
pub fn knows(cli: &Command, command: &str, key: &str) -> bool {
    let own = cli.find_subcommand(command).into_iter().flat_map(Command::get_arguments);
    key != "config" && own.chain(cli.get_arguments()).any(|a| a.get_long() == Some(key))
}

/// A flag with its value; nothing for `false`; one with each element of an array.
fn option(key: &str, value: &Value) -> Result<Vec<(String, Option<String>)>> {
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
    use crate::cli::args::Cli;
    use clap::CommandFactory;

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
        let want = "longreward score --embedder bm25 --threads 3 --force --seed 1 --model m";
        assert_eq!(got.join(" "), want);
        let toml = "[score]\nverdict-first = false\npreset = \"fast\"\n";
        let got = expanded(toml, "longreward score").unwrap();
        assert_eq!(got.join(" "), "longreward score --preset fast --verdict-first=false");
        let toml = "threads = 3\n";
        let got = expanded(toml, "longreward pull m").unwrap();
        assert_eq!(got.join(" "), "longreward pull --threads 3 m");
    }

    #[test]
    fn unknown_options_are_refused() {
        for (toml, word) in
            [("thread = 3", "thread"), ("[score]\nn = 1", "[score] n"), ("[x]", "[x]")]
        {
            let error = format!("{:#}", expanded(toml, "longreward score").unwrap_err());
            assert!(error.contains(word), "{error}");
        }
    }
}
