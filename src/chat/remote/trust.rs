//! Whose word counts for who a server is: certificate authorities other than the built-in ones.

use super::RemoteError;
use std::path::Path;
use ureq::tls::{PemItem, RootCerts, parse_pem};

/// Certificate authorities, in the place of the built-in ones.
#[derive(Debug, Clone)]
pub struct Authorities(RootCerts);

impl Authorities {
    /// All certificates of a file in PEM; what else is in it does not matter.
    ///
    /// # Errors
    /// The file can't be read or is no PEM, or holds no certificate.
    pub fn read(path: &Path) -> Result<Self, RemoteError> {
        let unusable = |why: String| RemoteError::Authorities { path: path.to_owned(), why };
        let text = std::fs::read(path).map_err(|e| unusable(e.to_string()))?;
        let items = parse_pem(&text).collect::<Result<Vec<_>, _>>();
        let items = items.map_err(|e| unusable(format!("is no PEM: {e}")))?;
        let certificates = items.into_iter().filter_map(|item| match item {
            PemItem::Certificate(certificate) => Some(certificate),
            _ => None,
        });
        let certificates: Vec<_> = certificates.collect();
        if certificates.is_empty() {
            return Err(unusable("holds no certificate (-----BEGIN CERTIFICATE-----)".into()));
        }
        Ok(Self(RootCerts::from(certificates)))
    }

    pub(super) fn roots(&self) -> RootCerts {
        self.0.clone()
    }
}

/// Why a server is not believed to be who it says, if that is why a request failed.
pub(super) fn disbelief(error: &ureq::Error) -> Option<String> {
    let inner = match error {
        ureq::Error::Rustls(inner) => Some(inner),
        ureq::Error::Io(error) => error.get_ref().and_then(|e| e.downcast_ref()),
        _ => None,
    };
    let rustls::Error::InvalidCertificate(why) = inner? else { return None };
    Some(match why {
        rustls::CertificateError::UnknownIssuer => {
            "it comes from an authority that is not known here; if it is yours, give the \
             authority's certificate with --ca-file FILE or SSL_CERT_FILE"
                .to_owned()
        }
        other => other.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::remote::{Patience, Remote, Settings};
    use rustls::crypto::ring::default_provider;
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use rustls::{ServerConfig, ServerConnection, StreamOwned};
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;
    use std::path::PathBuf;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn golden(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/tls").join(name)
    }

    /// A server that has a model `n` and nothing else. Counts who came.
    fn start(seen: Arc<AtomicUsize>) -> String {
        let chain = CertificateDer::pem_file_iter(golden("server.pem")).unwrap();
        let key = PrivateKeyDer::from_pem_file(golden("server.key")).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain.collect::<Result<_, _>>().unwrap(), key)
            .unwrap();
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                seen.fetch_add(1, Ordering::SeqCst);
                let connection = ServerConnection::new(config.clone()).unwrap();
                let mut stream = BufReader::new(StreamOwned::new(connection, stream.unwrap()));
                let mut line = String::new();
                while stream.read_line(&mut line).is_ok_and(|read| read > 2) {
                    line.clear();
                }
                let body = r#"{"data": [{"id": "n"}]}"#;
                let length = body.len();
                let head = format!("HTTP/1.1 200 X\r\nContent-Length: {length}\r\n\r\n");
                let _ = stream.get_mut().write_all((head + body).as_bytes());
            }
        });
        format!("https://{address}")
    }

    fn told(url: &str, authorities: Option<Authorities>) -> String {
        let patience = Patience { attempts: 1, ..Patience::default() };
        let settings = Settings { authorities, patience, ..Settings::of(url, "m") };
        let cancel = std::sync::atomic::AtomicBool::new(false);
        Remote::open(settings, None, &cancel).err().unwrap().to_string()
    }

    #[test]
    fn a_server_is_believed_by_the_word_of_the_authority_that_is_given() {
        let seen = Arc::new(AtomicUsize::new(0));
        let url = start(seen.clone());
        let refused = told(&url, None);
        assert!(refused.contains("/v1/models: the server's certificate: "), "{refused}");
        assert!(refused.contains("--ca-file"), "{refused}");
        assert_eq!(seen.load(Ordering::SeqCst), 1, "it is asked once");
        let known = told(&url, Some(Authorities::read(&golden("ca.pem")).unwrap()));
        assert!(known.contains("has no model \"m\"; it has: n"), "{known}");
        // The certificate is for the address, not for the name.
        let other = url.replace("127.0.0.1", "localhost");
        let other = told(&other, Some(Authorities::read(&golden("ca.pem")).unwrap()));
        assert!(other.contains("localhost"), "{other}");
    }

    #[test]
    fn files_without_a_certificate_are_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let told = |content: Option<&str>| {
            let path = dir.path().join("ca.pem");
            match content {
                Some(content) => std::fs::write(&path, content).unwrap(),
                None => drop(std::fs::remove_file(&path)),
            }
            Authorities::read(&path).unwrap_err().to_string()
        };
        for (content, words) in [
            (Some("nothing\n"), "holds no certificate"),
            (Some("-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n"), "is no PEM"),
            (Some("-----BEGIN CERTIFICATE-----\nAAAA\n"), "is no PEM"),
            (None, "No such file"),
        ] {
            let told = told(content);
            assert!(told.contains(words) && told.contains("ca.pem"), "{told}");
        }
    }

    #[test]
    fn only_certificates_are_disbelieved() {
        let io = |kind| ureq::Error::Io(std::io::Error::from(kind));
        assert_eq!(disbelief(&io(std::io::ErrorKind::ConnectionRefused)), None);
        let unknown = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        let wrapped = std::io::Error::new(std::io::ErrorKind::InvalidData, unknown);
        assert!(disbelief(&ureq::Error::Io(wrapped)).unwrap().contains("--ca-file"));
    }
}
