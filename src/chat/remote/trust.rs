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
