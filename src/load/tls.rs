//! TLS for the load generator: the system's trust or a given authority, an optional client certificate.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_platform_verifier::BuilderVerifierExt;

use super::LoadError;

/// How TLS connections are made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsConfig {
    /// PEM file of authorities to trust instead of the system's.
    pub ca: Option<PathBuf>,
    /// PEM file of the client's certificate chain; with `key`.
    pub cert: Option<PathBuf>,
    /// PEM file of the client's private key.
    pub key: Option<PathBuf>,
    /// Accept any server certificate.
    pub insecure: bool,
}

/// Builds the client's side of TLS; HTTP/1.1 is the only protocol offered.
pub fn client_config(tls: &TlsConfig) -> Result<ClientConfig, LoadError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let failed = |what: &str, e: &dyn std::fmt::Display| LoadError::Tls(format!("{what}: {e}"));
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| failed("TLS cannot be set up", &e))?;
    let builder = if tls.insecure {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(AcceptAny::new(&provider)))
    } else if let Some(ca) = &tls.ca {
        let mut roots = RootCertStore::empty();
        for cert in certificates(ca)? {
            roots.add(cert).map_err(|e| failed(&ca.display().to_string(), &e))?;
        }
        builder.with_root_certificates(roots)
    } else {
        builder.with_platform_verifier().map_err(|e| {
            failed("the system's certificate authorities cannot be read (set tls.ca or tls.insecure)", &e)
        })?
    };
    let mut config = match (&tls.cert, &tls.key) {
        (Some(cert), Some(key)) => {
            let key_der =
                PrivateKeyDer::from_pem_file(key).map_err(|e| failed(&format!("tls.key {}", key.display()), &e))?;
            builder
                .with_client_auth_cert(certificates(cert)?, key_der)
                .map_err(|e| failed(&format!("tls.cert {}", cert.display()), &e))?
        }
        (None, None) => builder.with_no_client_auth(),
        _ => return Err(LoadError::Tls("tls.cert and tls.key go together: set both or neither".into())),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, LoadError> {
    let failed = |e: &dyn std::fmt::Display| LoadError::Tls(format!("certificates in {}: {e}", path.display()));
    let all: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).map_err(|e| failed(&e))?.collect();
    let all = all.map_err(|e| failed(&e))?;
    if all.is_empty() { Err(failed(&"there are none")) } else { Ok(all) }
}

/// The verifier of `tls.insecure`: checks that the peer holds the key it shows, and nothing else.
#[derive(Debug)]
struct AcceptAny(WebPkiSupportedAlgorithms);

impl AcceptAny {
    fn new(provider: &CryptoProvider) -> AcceptAny {
        AcceptAny(provider.signature_verification_algorithms)
    }
}

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
