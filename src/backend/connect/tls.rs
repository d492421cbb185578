//! Certificates in files, which somebody may replace while the process runs.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::target::Target;

/// The PEM files that a URL names. They are read for each connection that is made, so that rotated certificates
/// are in use from the next connection on. Small local files: no need for another thread.
#[derive(Debug, Clone)]
pub(super) struct TlsFiles {
    /// Whom to trust; the system's certificates if absent.
    ca: Option<PathBuf>,
    identity: Option<Identity>,
}

#[derive(Debug, Clone)]
struct Identity {
    cert: PathBuf,
    key: PathBuf,
}

impl TlsFiles {
    pub(super) fn of(target: &Target<'_>) -> Option<Self> {
        let file = |name| target.parameter(name).map(PathBuf::from);
        let identity = file("cert").zip(file("key")).map(|(cert, key)| Identity { cert, key });
        let ca = file("cacert");
        (ca.is_some() || identity.is_some()).then_some(Self { ca, identity })
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    fs::read(path).map_err(|error| in_file(path, error.kind(), error))
}

fn in_file(path: &Path, kind: io::ErrorKind, error: impl std::fmt::Display) -> io::Error {
    io::Error::new(kind, format!("{}: {error}", path.display()))
}

#[cfg(feature = "redis-rs-tls")]
mod for_redis_rs {
    use redis::{ClientTlsConfig, TlsCertificates};

    use super::{TlsFiles, io, read};

    impl TlsFiles {
        /// What the files contain now.
        pub(in super::super) fn certificates(&self) -> io::Result<TlsCertificates> {
            let root_cert = self.ca.as_deref().map(read).transpose()?;
            let client_tls = match &self.identity {
                None => None,
                Some(identity) => Some(ClientTlsConfig {
                    client_cert: read(&identity.cert)?,
                    client_key: read(&identity.key)?,
                }),
            };
            Ok(TlsCertificates { client_tls, root_cert })
        }
    }
}

#[cfg(feature = "fred-tls")]
mod for_fred {
    use std::sync::Arc;

    use fred::types::config::TlsConnector;
    use rustls::{
        ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
        client::{
            ResolvesClientCert, Resumption, WebPkiServerVerifier,
            danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        },
        crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
        pki_types::{
            CertificateDer, PrivateKeyDer, ServerName, UnixTime,
            pem::{self, PemObject},
        },
        sign::CertifiedKey,
    };

    use super::{Identity, Path, PathBuf, TlsFiles, in_file, io, read};

    impl TlsFiles {
        /// A connector that reads the files at each handshake.
        pub(in super::super) fn connector(
            &self,
            provider: Arc<CryptoProvider>,
        ) -> io::Result<TlsConnector> {
            // An error now is worth more than one at each attempt to connect.
            if let Some(ca) = &self.ca {
                roots(ca)?;
            }
            if let Some(identity) = &self.identity {
                identity.read(&provider)?;
            }
            let mut config = match &self.ca {
                Some(ca) => {
                    let verifier = CurrentRoots { ca: ca.clone(), provider: provider.clone() };
                    ClientConfig::builder_with_provider(provider.clone())
                        .with_safe_default_protocol_versions()
                        .map_err(io::Error::other)?
                        .dangerous()
                        .with_custom_certificate_verifier(Arc::new(verifier))
                        .with_no_client_auth()
                }
                None => system_trust()?,
            };
            if let Some(identity) = self.identity.clone() {
                config.client_auth_cert_resolver = Arc::new(CurrentIdentity { identity, provider });
            }
            // A resumed session stands for the certificates of its beginning.
            config.resumption = Resumption::disabled();
            Ok(config.into())
        }
    }

    fn system_trust() -> io::Result<ClientConfig> {
        let connector = TlsConnector::default_rustls().map_err(io::Error::other)?;
        // Another crate may have turned on fred's second kind.
        #[allow(irrefutable_let_patterns)]
        let TlsConnector::Rustls(connector) = connector else {
            return Err(io::Error::other("fred's TLS is not rustls"));
        };
        Ok(ClientConfig::clone(connector.config()))
    }

    /// The certificates in a file of PEM.
    fn certificates(path: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
        let pem = read(path)?;
        let read: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(&pem).collect();
        match read {
            Ok(found) if found.is_empty() => Err(invalid(path, "no certificate in this file")),
            Ok(found) => Ok(found),
            Err(error) => Err(invalid(path, error)),
        }
    }

    fn roots(path: &Path) -> io::Result<RootCertStore> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(path)? {
            roots.add(certificate).map_err(|error| invalid(path, error))?;
        }
        Ok(roots)
    }

    fn invalid(path: &Path, error: impl std::fmt::Display) -> io::Error {
        in_file(path, io::ErrorKind::InvalidData, error)
    }

    impl Identity {
        fn read(&self, provider: &CryptoProvider) -> io::Result<CertifiedKey> {
            let chain = certificates(&self.cert)?;
            let key = PrivateKeyDer::from_pem_slice(&read(&self.key)?)
                .map_err(|error| invalid(&self.key, error))?;
            CertifiedKey::from_der(chain, key, provider).map_err(|error| invalid(&self.cert, error))
        }
    }

    /// The client certificate that is in the files at the time of a handshake.
    #[derive(Debug)]
    struct CurrentIdentity {
        identity: Identity,
        provider: Arc<CryptoProvider>,
    }

    impl ResolvesClientCert for CurrentIdentity {
        fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
            match self.identity.read(&self.provider) {
                Ok(key) => Some(Arc::new(key)),
                // Perhaps half replaced. The server refuses the connection, and the next attempt reads again.
                Err(error) => {
                    tracing::warn!(
                        target: "distkit::connection",
                        %error,
                        "no client certificate can be shown"
                    );
                    None
                }
            }
        }

        fn has_certs(&self) -> bool {
            true
        }
    }

    /// Checks servers as rustls does, against the authorities that are in the file at the time of a handshake.
    #[derive(Debug)]
    struct CurrentRoots {
        ca: PathBuf,
        provider: Arc<CryptoProvider>,
    }

    impl ServerCertVerifier for CurrentRoots {
        fn verify_server_cert(
            &self,
            end_entity: &CertificateDer<'_>,
            intermediates: &[CertificateDer<'_>],
            name: &ServerName<'_>,
            ocsp: &[u8],
            now: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            let refused = |error: &dyn std::fmt::Display| Error::General(error.to_string());
            let roots = roots(&self.ca).map_err(|error| refused(&error))?;
            let provider = self.provider.clone();
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(|error| refused(&error))?
                .verify_server_cert(end_entity, intermediates, name, ocsp, now)
        }

        fn verify_tls12_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            let algorithms = &self.provider.signature_verification_algorithms;
            verify_tls12_signature(message, cert, signed, algorithms)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            let algorithms = &self.provider.signature_verification_algorithms;
            verify_tls13_signature(message, cert, signed, algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.provider.signature_verification_algorithms.supported_schemes()
        }
    }
}
