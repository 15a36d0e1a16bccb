//! One request and its answer, without any policy.

use super::failure::Failure;
use super::trust::disbelief;
use super::{Key, RemoteError, Settings};
use std::time::{Duration, SystemTime};
use ureq::http::HeaderMap;
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, Proxy};

/// Bytes of an answer that are read, at most.
pub const MAX_ANSWER: u64 = 64 << 20;

/// Connecting takes longer than this only where nobody is there.
const CONNECT: Duration = Duration::from_secs(10);

/// A way to one server. Threads may share it.
pub struct Http {
    agent: Agent,
    base: String,
    key: Option<Key>,
}

/// What a server answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// How long it wants not to be asked again.
    pub retry_after: Option<Duration>,
    pub body: Vec<u8>,
}

impl Http {
    /// `base` is from [`base_url`].
    pub fn new(base: String, settings: &Settings) -> Self {
        let (timeout, idle) = (settings.timeout, settings.concurrency.max(1));
        let proxy = if is_loopback(&base) { None } else { Proxy::try_from_env() };
        let roots = settings.authorities.as_ref().map_or(RootCerts::WebPki, |own| own.roots());
        let config = Agent::config_builder()
            .http_status_as_error(false)
            // The key is for this server alone.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(proxy)
            .tls_config(TlsConfig::builder().root_certs(roots).build())
            .timeout_global(Some(timeout))
            .timeout_connect(Some(CONNECT.min(timeout)))
            .max_idle_connections(idle)
            .max_idle_connections_per_host(idle)
            .user_agent(concat!("longreward/", env!("CARGO_PKG_VERSION")))
            .build();
        Self { agent: config.into(), base, key: settings.key.clone() }
    }

    /// The address of `path`: below the base, or if it begins with a slash below the server.
    pub fn url(&self, path: &str) -> String {
        match path.strip_prefix('/') {
            Some(path) => {
                let root = self.base.strip_suffix("/v1").unwrap_or(&self.base);
                format!("{root}/{path}")
            }
            None => format!("{}/{path}", self.base),
        }
    }

    pub fn base(&self) -> &str {
        &self.base
    }

    /// # Errors
    /// Why there is no whole answer.
    pub fn post(&self, path: &str, body: &[u8]) -> Result<Answer, Failure> {
        let request = self.agent.post(self.url(path)).content_type("application/json");
        let request = match &self.key {
            Some(key) => request.header("Authorization", key.bearer()),
            None => request,
        };
        read(request.send(body))
    }

    /// # Errors
    /// As [`Http::post`].
    pub fn get(&self, path: &str) -> Result<Answer, Failure> {
        let request = self.agent.get(self.url(path));
        let request = match &self.key {
            Some(key) => request.header("Authorization", key.bearer()),
            None => request,
        };
        read(request.call())
    }
}

fn read(answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Result<Answer, Failure> {
    let mut answer = answer.map_err(no_answer)?;
    let body = answer.body_mut().with_config().limit(MAX_ANSWER).read_to_vec();
    Ok(Answer {
        status: answer.status().as_u16(),
        retry_after: retry_after(answer.headers()),
        body: body.map_err(no_answer)?,
    })
}

fn no_answer(error: ureq::Error) -> Failure {
    if let Some(why) = disbelief(&error) {
        return Failure::Untrusted { what: format!("the server's certificate: {why}") };
    }
    let what = error.to_string();
    match error {
        // It will be as long the next time.
        ureq::Error::BodyExceedsLimit(_) => Failure::Refused { what },
        _ => Failure::Passing { what },
    }
}

/// `Retry-After` in seconds or as a date; `retry-after-ms`, which some servers send, goes first.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
    if let Some(wait) = text("retry-after-ms").and_then(|text| text.parse().ok()) {
        return Some(Duration::from_millis(wait));
    }
    let text = text("retry-after")?;
    match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds.max(0.0)).ok(),
        Err(_) => {
            let date = httpdate::parse_http_date(text).ok()?;
            Some(date.duration_since(SystemTime::now()).unwrap_or_default())
        }
    }
}

/// The base of an API's addresses: as given, without a slash at its end; `/v1` where only a server
/// is named.
///
/// # Errors
/// No address of a server, or one that holds what should not be shown.
pub fn base_url(url: &str) -> Result<String, RemoteError> {
    let invalid = |why: &'static str| RemoteError::Url { why };
    let url = url.trim().trim_end_matches('/');
    let rest = url
        .strip_prefix("http://")
        .or_else(|| url.strip_prefix("https://"))
        .ok_or_else(|| invalid("it must begin with http:// or https://"))?;
    if rest.contains('@') {
        return Err(invalid(
            "it must not hold a name or a password: the key is read from the environment",
        ));
    }
    if rest.contains(['?', '#', ' ']) {
        return Err(invalid("it must end with a path, as in https://host/v1"));
    }
    if host(rest).is_empty() {
        return Err(invalid("it names no server"));
    }
    Ok(if rest.contains('/') { url.to_owned() } else { format!("{url}/v1") })
}

/// Whether the address is on this machine.
pub fn is_loopback(base: &str) -> bool {
    let rest = base.split_once("://").map_or(base, |(_, rest)| rest);
    let host = host(rest);
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || address.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// The host of an address without its scheme.
fn host(rest: &str) -> &str {
    let authority = rest.split('/').next().unwrap_or_default();
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => authority,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_get_the_path_that_they_lack() {
        let base = |url| base_url(url).unwrap();
        assert_eq!(base("http://127.0.0.1:8000"), "http://127.0.0.1:8000/v1");
        assert_eq!(base("http://127.0.0.1:8000/"), "http://127.0.0.1:8000/v1");
        assert_eq!(base("https://api.example.com/openai/v2/"), "https://api.example.com/openai/v2");
        for refused in
            ["127.0.0.1:8000", "http://", "http://me:secret@host/v1", "http://h/v1?key=x"]
        {
            let told = base_url(refused).unwrap_err().to_string();
            assert!(!told.contains("secret"), "{told}");
        }
    }

    #[test]
    fn paths_lie_below_the_base_or_the_server() {
        let settings = Settings::of("http://h", "m");
        let http = |base: &str| Http::new(base.into(), &settings);
        let ours = http("http://h:1/v1");
        assert_eq!(ours.url("models"), "http://h:1/v1/models");
        assert_eq!(ours.url("/longreward/x"), "http://h:1/longreward/x");
        assert_eq!(http("http://h/api").url("/longreward/x"), "http://h/api/longreward/x");
    }

    #[test]
    fn this_machine_is_known_by_its_names() {
        for near in ["http://localhost:1/v1", "http://127.0.0.1/v1", "http://[::1]:8000/v1"] {
            assert!(is_loopback(near), "{near}");
        }
        for far in ["https://example.com/v1", "http://10.0.0.1:80/v1"] {
            assert!(!is_loopback(far), "{far}");
        }
    }

    #[test]
    fn waiting_times_come_in_three_forms() {
        let headers = |name: &'static str, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            retry_after(&headers)
        };
        assert_eq!(headers("retry-after", "3"), Some(Duration::from_secs(3)));
        assert_eq!(headers("retry-after-ms", "250"), Some(Duration::from_millis(250)));
        let soon = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(100));
        let wait = headers("retry-after", &soon).unwrap();
        assert!((90..=100).contains(&wait.as_secs()), "{wait:?}");
        assert_eq!(headers("retry-after", "Fri, 01 Jan 1999 00:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(headers("retry-after", "soon"), None);
    }
}
