//! HTTPS: whom the client trusts, and who it says it is.

use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tempfile::TempDir;
use tokio_rustls::TlsAcceptor;

use super::server::{Server, counted, good};
use super::*;
use crate::load::discover_model;

/// An authority and a certificate of it for 127.0.0.1, as files.
struct Authority {
    dir: TempDir,
}

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec!["127.0.0.1".to_string()]).unwrap().signed_by(&key, &issuer).unwrap();
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in [("ca.pem", issuer.pem()), ("cert.pem", leaf.pem()), ("key.pem", key.serialize_pem())] {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        Authority { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A server with the certificate; with `mutual` it asks for one of the same authority.
    fn acceptor(&self, mutual: bool) -> TlsAcceptor {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(provider.clone());
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let builder = if mutual {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_file(self.path("ca.pem")).unwrap()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
            builder.with_client_cert_verifier(verifier)
        } else {
            builder.with_no_client_auth()
        };
        let chain = vec![CertificateDer::from_pem_file(self.path("cert.pem")).unwrap()];
        let key = PrivateKeyDer::from_pem_file(self.path("key.pem")).unwrap();
        TlsAcceptor::from(Arc::new(builder.with_single_cert(chain, key).unwrap()))
    }
}

fn over(server: &Server, tls: TlsConfig) -> Target {
    Target { tls, ..target(&server.url, Dialect::Openai) }
}

#[tokio::test]
async fn a_given_authority_or_none_at_all_is_trusted_and_no_stranger() {
    let authority = Authority::new();
    let server = Server::start_tls(authority.acceptor(false), |r| {
        if r.head.starts_with("GET ") {
            return counted("200 OK", "application/json", r#"{"data":[{"id":"m"}]}"#);
        }
        good(r)
    })
    .await;
    let trusting = TlsConfig { ca: Some(authority.path("ca.pem")), ..TlsConfig::default() };
    let data = sample(&over(&server, trusting.clone()), &workload(3, 12)).await.unwrap();
    let s = summary(&data);
    assert_eq!((s.n_ok, s.connect.n, server.connections()), (12, 3, 3), "{:?}", s.errors);
    let model = discover_model(&over(&server, trusting), std::time::Duration::from_secs(20)).await.unwrap();
    assert_eq!(model, "m");
    let insecure = TlsConfig { insecure: true, ..TlsConfig::default() };
    assert_eq!(summary(&sample(&over(&server, insecure), &workload(1, 2)).await.unwrap()).n_ok, 2);
    let stranger = TlsConfig { ca: Some(Authority::new().path("ca.pem")), ..TlsConfig::default() };
    // The directory of the stranger's file is gone with it: a file that cannot be read is told as such.
    let e = sample(&over(&server, stranger), &workload(1, 2)).await.unwrap_err().to_string();
    assert!(e.contains("ca.pem"), "{e}");
    let other = Authority::new();
    let stranger = TlsConfig { ca: Some(other.path("ca.pem")), ..TlsConfig::default() };
    let e = sample(&over(&server, stranger), &workload(1, 2)).await.unwrap_err();
    assert!(matches!(&e, LoadError::Unreachable { message, .. } if message.contains("certificate")), "{e}");
}

#[tokio::test]
async fn a_client_certificate_is_shown_where_it_is_asked_for() {
    let authority = Authority::new();
    let server = Server::start_tls(authority.acceptor(true), good).await;
    let tls = TlsConfig {
        ca: Some(authority.path("ca.pem")),
        cert: Some(authority.path("cert.pem")),
        key: Some(authority.path("key.pem")),
        insecure: false,
    };
    assert_eq!(summary(&sample(&over(&server, tls.clone()), &workload(2, 4)).await.unwrap()).n_ok, 4);
    let half = TlsConfig { key: None, ..tls };
    let e = sample(&over(&server, half), &workload(1, 1)).await.unwrap_err().to_string();
    assert!(e.contains("go together"), "{e}");
}
