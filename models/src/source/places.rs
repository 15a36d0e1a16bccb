//! Folders and switches that the environment decides on.

use std::ffi::OsString;
use std::path::PathBuf;

/// What of the environment matters for finding models.
pub(super) struct Places {
    /// Cache of the Hugging Face hub, in its standard layout.
    pub hub: PathBuf,
    /// `HF_HUB_OFFLINE`: nothing may be fetched from the hub.
    pub offline: bool,
    pub token: Option<String>,
    pub endpoint: Option<String>,
    /// What this program fetched itself.
    pub own: PathBuf,
    /// Whether variables tell where these two are. Else they would be in whatever folder one is in, where nothing is put.
    pub hub_is_told: bool,
    pub own_is_told: bool,
}

impl Places {
    pub fn from_env() -> Self {
        Self::new(&|name| std::env::var_os(name).filter(|value| !value.is_empty()))
    }

    /// `variable` looks up an environment variable.
    pub fn new(variable: &dyn Fn(&str) -> Option<OsString>) -> Self {
        let path = |name: &str| variable(name).map(PathBuf::from);
        let text = |name: &str| variable(name).and_then(|value| value.into_string().ok());
        let home = path("HOME").or_else(|| path("USERPROFILE"));
        let told = path("XDG_CACHE_HOME").or_else(|| home.map(|home| home.join(".cache")));
        let is_told =
            |names: &[&str]| told.is_some() || names.iter().any(|name| path(name).is_some());
        let (hub_is_told, own_is_told) =
            (is_told(&["HF_HUB_CACHE", "HF_HOME"]), is_told(&["LONGREWARD_CACHE"]));
        let caches = told.unwrap_or_else(|| ".cache".into());
        let hub_home = path("HF_HOME").unwrap_or_else(|| caches.join("huggingface"));
        let token_file = path("HF_TOKEN_PATH").unwrap_or_else(|| hub_home.join("token"));
        let token = text("HF_TOKEN").or_else(|| std::fs::read_to_string(token_file).ok());
        Self {
            hub: path("HF_HUB_CACHE").unwrap_or_else(|| hub_home.join("hub")),
            offline: text("HF_HUB_OFFLINE").is_some_and(|value| is_on(&value)),
            token: token.map(|token| token.trim().to_owned()).filter(|token| !token.is_empty()),
            endpoint: text("HF_ENDPOINT"),
            own: path("LONGREWARD_CACHE").unwrap_or_else(|| caches.join("longreward")),
            hub_is_told,
            own_is_told,
        }
    }
}

/// The spellings that `huggingface_hub` takes for yes.
fn is_on(value: &str) -> bool {
    ["1", "on", "yes", "true"].iter().any(|yes| value.eq_ignore_ascii_case(yes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(variables: &[(&str, &str)]) -> Places {
        Places::new(&|name| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into())
        })
    }

    #[test]
    fn defaults_lie_in_the_home_folder() {
        let places = places(&[("HOME", "/home/u")]);
        assert_eq!(places.hub, PathBuf::from("/home/u/.cache/huggingface/hub"));
        assert_eq!(places.own, PathBuf::from("/home/u/.cache/longreward"));
        assert!(!places.offline && places.token.is_none() && places.endpoint.is_none());
    }

    #[test]
    fn without_a_home_the_place_must_be_told() {
        let told = |variables: &[(&str, &str)]| {
            let Places { hub_is_told, own_is_told, .. } = places(variables);
            (hub_is_told, own_is_told)
        };
        assert_eq!(told(&[]), (false, false));
        assert_eq!(told(&[("LONGREWARD_CACHE", "/l")]), (false, true));
        assert_eq!(told(&[("HF_HOME", "/f")]), (true, false));
        assert_eq!(told(&[("HOME", "/h")]), (true, true));
        assert_eq!(told(&[("XDG_CACHE_HOME", "/x")]), (true, true));
    }

    #[test]
    fn the_more_special_variable_wins() {
        let home = [("HOME", "/h"), ("XDG_CACHE_HOME", "/x"), ("LONGREWARD_CACHE", "/l")];
        assert_eq!(places(&home).hub, PathBuf::from("/x/huggingface/hub"));
        assert_eq!(places(&home).own, PathBuf::from("/l"));
        assert_eq!(places(&home[..2]).own, PathBuf::from("/x/longreward"));
        let hub = [("HF_HOME", "/f"), ("HF_HUB_CACHE", "/c")];
        assert_eq!(places(&hub).hub, PathBuf::from("/c"));
        assert_eq!(places(&hub[..1]).hub, PathBuf::from("/f/hub"));
    }

    #[test]
    fn offline_is_spelled_in_several_ways() {
        for (value, expected) in [("1", true), ("True", true), ("0", false), ("no", false)] {
            assert_eq!(places(&[("HF_HUB_OFFLINE", value)]).offline, expected, "{value}");
        }
    }

    #[test]
    fn the_token_comes_from_the_variable_or_the_file() {
        let folder = tempfile::TempDir::new().unwrap();
        std::fs::write(folder.path().join("token"), "from-file\n").unwrap();
        let home = ("HF_HOME", folder.path().to_str().unwrap());
        assert_eq!(places(&[home]).token.as_deref(), Some("from-file"));
        assert_eq!(places(&[home, ("HF_TOKEN", "given")]).token.as_deref(), Some("given"));
    }
}
