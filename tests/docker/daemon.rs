//! An engine that is spoken to over TLS, with certificates on both sides: the real one, behind a door that checks them.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio::net::{TcpListener, UnixStream};
use tokio_rustls::TlsAcceptor;

use super::workspace::{Workspace, finish};

/// An authority, a server and a client that it vouches for, and a client that nobody vouches for in `other/`.
fn certificates(dir: &Path) {
    let authority = || {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    };
    let (ours, others) = (authority(), authority());
    fs::create_dir(dir.join("other")).unwrap();
    fs::write(dir.join("ca.pem"), ours.pem()).unwrap();
    fs::write(dir.join("other/ca.pem"), ours.pem()).unwrap();
    for (issuer, name, cert, key) in [
        (&ours, "127.0.0.1", "server.pem", "server-key.pem"),
        (&ours, "client", "cert.pem", "key.pem"),
        (&others, "client", "other/cert.pem", "other/key.pem"),
    ] {
        let own = KeyPair::generate().unwrap();
        let signed = CertificateParams::new(vec![name.to_string()]).unwrap().signed_by(&own, issuer).unwrap();
        fs::write(dir.join(cert), signed.pem()).unwrap();
        fs::write(dir.join(key), own.serialize_pem()).unwrap();
    }
}

fn acceptor(dir: &Path) -> TlsAcceptor {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(dir.join("ca.pem")).unwrap()).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().unwrap();
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let chain = vec![CertificateDer::from_pem_file(dir.join("server.pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(dir.join("server-key.pem")).unwrap();
    let config = builder.with_client_cert_verifier(verifier).with_single_cert(chain, key).unwrap();
    TlsAcceptor::from(Arc::new(config))
}

/// Hands every connection with the right certificate on to the engine's socket, until the test process ends. Gives the
/// address.
fn serve(acceptor: TlsAcceptor) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = format!("tcp://{}", listener.local_addr().unwrap());
    let host = std::env::var("DOCKER_HOST").unwrap_or_default();
    let socket = host.strip_prefix("unix://").unwrap_or("/var/run/docker.sock").to_string();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::from_std(listener).unwrap();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, socket) = (acceptor.clone(), socket.clone());
                tokio::spawn(async move {
                    let mut client = acceptor.accept(stream).await?;
                    let mut engine = UnixStream::connect(socket).await?;
                    tokio::io::copy_bidirectional(&mut client, &mut engine).await
                });
            }
        });
    });
    address
}

#[test]
fn an_engine_can_be_spoken_to_over_tls() {
    let Some(w) = Workspace::new("tls") else { return };
    certificates(w.path());
    let address = serve(acceptor(w.path()));
    let command = |args: &[&str], certificates: Option<&Path>| {
        let mut command = w.command(args);
        command.env("DOCKER_HOST", &address).env_remove("DOCKER_TLS_VERIFY").env_remove("DOCKER_CERT_PATH");
        if let Some(dir) = certificates {
            command.env("DOCKER_TLS_VERIFY", "1").env("DOCKER_CERT_PATH", dir);
        }
        finish(command.spawn().unwrap())
    };
    for wrong in [Some(w.path().join("other")), Some("/nowhere".into()), None] {
        let failed = command(&["ps", "--json"], wrong.as_deref()).expect(7);
        assert!(failed.stderr.contains(&format!("no container engine answers at {address}")), "{}", failed.stderr);
    }
    // A whole run: creating, following the log, stopping.
    let file = w.one_cell(&[], "");
    let done = command(&["run", "--json", file.to_str().unwrap()], Some(w.path())).expect(0);
    assert_eq!(done.event("run_finished")["measured"], 1);
    w.assert_clean();
}
