//! Handlers behind HTTPS: authorities, client certificates, HTTP/2, and what is wrong with any of them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::http::{StatusCode, Version};
use axum::response::IntoResponse;
use axum::serve::Listener;
use hubcast_tests::eventually::eventually;
use hubcast_tests::webpubsub::JSON;
use rcgen::{CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};
use tokio_rustls::server::TlsStream;

use super::receiver::{Receiver, allowed};
use super::settings::{check, hang_up};
use super::*;

/// A certificate authority, with a folder for what it gives out.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: tempfile::TempDir,
}

/// A certificate and its key.
struct Issued {
    certificate: rcgen::Certificate,
    key: KeyPair,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, folder }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    fn issue(&self, host: &str, change: impl FnOnce(&mut CertificateParams)) -> Issued {
        let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Issued { certificate, key }
    }

    /// A server's settings: its clients need a certificate of `of`, if that is given.
    fn server(&self, issued: &Issued, of: Option<&Self>, protocols: &[&str]) -> ServerConfig {
        let builder = match of {
            None => ServerConfig::builder().with_no_client_auth(),
            Some(other) => {
                let mut roots = RootCertStore::empty();
                roots.add(other.issuer.der().clone()).unwrap();
                let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap();
                ServerConfig::builder().with_client_cert_verifier(verifier)
            }
        };
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(issued.key.serialize_der()));
        let chain = vec![issued.certificate.der().clone()];
        let mut config = builder.with_single_cert(chain, key).unwrap();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        config
    }
}

impl Issued {
    /// Both in one file.
    fn write(&self, path: &Path) {
        std::fs::write(
            path,
            format!("{}{}", self.certificate.pem(), self.key.serialize_pem()),
        )
        .unwrap();
    }
}

/// Connections after their handshake.
struct Secure {
    shaken: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
    address: SocketAddr,
}

impl Listener for Secure {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.shaken.recv().await {
            Some(connection) => connection,
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        Ok(self.address)
    }
}

impl Secure {
    async fn bind(config: ServerConfig) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let (done, shaken) = mpsc::channel(64);
        tokio::spawn(async move {
            while let Ok((socket, peer)) = listener.accept().await {
                let (acceptor, done) = (acceptor.clone(), done.clone());
                tokio::spawn(async move {
                    if let Ok(stream) = acceptor.accept(socket).await {
                        let _ = done.send((stream, peer)).await;
                    }
                });
            }
        });
        Self { shaken, address }
    }
}

/// A handler of both forms behind TLS, at `localhost`.
async fn receiver(config: ServerConfig) -> Receiver {
    let secure = Secure::bind(config).await;
    let origin = format!("https://localhost:{}", secure.address.port());
    Receiver::on(secure, origin, |seen| {
        let answer = match seen.event() {
            "" => allowed("*"),
            "moved" => {
                let target = seen.target.replace("moved", "elsewhere");
                (StatusCode::PERMANENT_REDIRECT, [("location", target)]).into_response()
            }
            _ if seen.header("ce-type").is_empty() => echo(&seen),
            _ => ().into_response(),
        };
        Box::pin(std::future::ready(answer))
    })
}

/// Settings with a secret wherever one can stand.
fn secretive(form: &str, url: &str) -> Settings {
    with(form, &format!("{url}{{event}}?code=s3cret"))
        .set("upstream.0.name", "shop")
        .set("upstream.0.headers.x_key", "s3cret")
        .set("upstream.0.timeout_seconds", 5)
}

fn trusting(settings: Settings, authority: &Authority) -> Settings {
    settings.set("upstream.0.ca_file", authority.file().display())
}

const BOTH: &[&str] = &["h2", "http/1.1"];

#[tokio::test]
async fn calls_share_one_connection_over_http_2_where_tls_agrees_on_it() {
    let authority = Authority::new("own");
    let issued = authority.issue("localhost", |_| {});
    for (protocols, version) in [
        (BOTH, Version::HTTP_2),
        (&["http/1.1"], Version::HTTP_11),
        (&[], Version::HTTP_11),
    ] {
        let receiver = receiver(authority.server(&issued, None, protocols)).await;
        let gateway = Gateway::start(trusting(secretive("signalr", &receiver.url("/")), &authority)).await;
        let mut ann = signalr(&gateway, "ann").await;
        let mut bob = signalr(&gateway, "bob").await;
        for number in 0..5 {
            for client in [&mut ann, &mut bob] {
                assert_eq!(client.result("Echo", json!([number])).await, json!([number]));
            }
        }
        let seen = receiver.of("Echo");
        assert_eq!(seen.len(), 10);
        assert!(seen.iter().all(|seen| seen.version == version), "{seen:?}");
        if version == Version::HTTP_2 {
            let first = seen[0].peer;
            assert!(seen.iter().all(|seen| seen.peer == first), "{seen:?}");
        }
    }
}

/// A call to the handler in both forms, and what the caller and the log are told.
async fn refused(settings: impl Fn(&str) -> Settings, part: &str) {
    for form in ["signalr", "cloudevents"] {
        let settings = settings(form).set("upstream.0.events", "Echo");
        let settings = if form == "signalr" {
            settings.set("upstream.0.categories", "messages")
        } else {
            settings
        };
        let gateway = Gateway::start(settings).await;
        let told = if form == "signalr" {
            signalr(&gateway, "ann").await.call("Echo", json!([])).await["error"].to_string()
        } else {
            let event = json!({ "type": "event", "event": "Echo", "data": 1 });
            client(&gateway, JSON, "ann").await.refusal(event).await.1
        };
        // A refusal of TLS 1.3 comes after the handshake, and may end the connection before there is a request, or while it
        // is written.
        let expected: &[&str] = match form {
            "signalr" => &[
                "\"Invocation failed, status code 500\"",
                "\"Invocation failed, error: the handler: the connection to it broke.\"",
            ],
            _ => &[
                "The handler of \"Echo\" failed: no TLS connection to it can be made.",
                "The handler of \"Echo\" failed: it can't be reached.",
                "The handler of \"Echo\" failed: the connection to it broke.",
            ],
        };
        assert!(
            expected.contains(&told.as_str()),
            "{part}: {told}: {}",
            gateway.log()
        );
        let log = gateway.log();
        let line = log
            .lines()
            .find(|line| line.contains("a handler did not serve a call"));
        let line = line.unwrap_or_else(|| panic!("{log}"));
        assert!(line.contains("shop") && line.contains(part), "{part}: {line}");
        assert!(!log.contains("s3cret") && !log.contains("PRIVATE KEY"), "{log}");
    }
}

#[tokio::test]
async fn certificates_that_are_not_trusted_are_named_with_their_fault() {
    let (authority, other) = (Authority::new("own"), Authority::new("other"));
    let good = authority.issue("localhost", |_| {});
    let secure = receiver(authority.server(&good, None, BOTH)).await;
    let url = secure.url("/");
    refused(|form| secretive(form, &url), "ca_file").await;
    refused(|form| trusting(secretive(form, &url), &other), "ca_file").await;
    for (host, from, to, part) in [
        ("localhost", 2020, 2021, "has expired"),
        ("localhost", 4000, 4001, "is not valid yet"),
        ("elsewhere.example", 2020, 4000, "is for other hosts"),
    ] {
        let issued = authority.issue(host, |params| {
            params.not_before = date_time_ymd(from, 1, 1);
            params.not_after = date_time_ymd(to, 1, 1);
        });
        let secure = receiver(authority.server(&issued, None, BOTH)).await;
        let url = secure.url("/");
        refused(|form| trusting(secretive(form, &url), &authority), part).await;
        assert!(secure.seen().is_empty());
    }
    let plain = echoing().await;
    let url = plain.url("/").replace("http://", "https://");
    refused(|form| secretive(form, &url), "does not speak TLS").await;
    assert!(plain.seen().is_empty());
}

#[tokio::test]
async fn a_receiver_that_wants_to_know_the_gateway_knows_it_by_its_certificate() {
    let (authority, other) = (Authority::new("own"), Authority::new("other"));
    let issued = authority.issue("localhost", |_| {});
    let secure = receiver(authority.server(&issued, Some(&authority), BOTH)).await;
    let file = authority.folder.path().join("gateway.pem");
    let settings = |form: &str| trusting(secretive(form, &secure.url("/")), &authority);
    let known = |form: &str| settings(form).set("upstream.0.identity_file", file.display());

    refused(settings, "identity_file").await;
    other.issue("gateway", |_| {}).write(&file);
    refused(known, "identity_file").await;
    assert!(secure.seen().is_empty());

    authority.issue("gateway", |_| {}).write(&file);
    let gateway = Gateway::start(known("signalr")).await;
    assert_eq!(
        signalr(&gateway, "ann").await.result("Echo", json!([1])).await,
        json!([1])
    );
    let gateway = Gateway::start(known("cloudevents")).await;
    client(&gateway, JSON, "ann")
        .await
        .done(json!({ "type": "event", "event": "Echo", "data": 1 }))
        .await;
}

#[tokio::test]
async fn certificates_are_read_again_while_the_node_runs() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::copy(old.file(), file.path()).unwrap();
    let secure = receiver(new.server(&new.issue("localhost", |_| {}), None, BOTH)).await;
    let settings = secretive("signalr", &secure.url("/")).set("upstream.0.categories", "messages");
    let gateway = Gateway::start(settings.set("upstream.0.ca_file", file.path().display())).await;
    let mut ann = signalr(&gateway, "ann").await;
    assert!(ann.call("Echo", json!([])).await["error"].is_string());
    for (content, told) in [
        ("no certificate", "the former handlers and keys stay"),
        (&new.issuer.pem(), "were read again"),
    ] {
        std::fs::write(file.path(), content).unwrap();
        hang_up(&gateway);
        eventually(told, async || gateway.log().contains(told).then_some(())).await;
    }
    assert!(gateway.log().contains("upstream[0].ca_file"), "{}", gateway.log());
    assert_eq!(ann.result("Echo", json!([1])).await, json!([1]));
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let authority = Authority::new("own");
    let secure = receiver(authority.server(&authority.issue("localhost", |_| {}), None, BOTH)).await;
    let settings = |form| trusting(secretive(form, &secure.url("/")), &authority);
    let gateway = Gateway::start(settings("signalr").set("upstream.0.categories", "messages")).await;
    let error = signalr(&gateway, "ann").await.call("moved", json!([])).await["error"].clone();
    assert_eq!(error, "Invocation failed, status code 308");
    let gateway = Gateway::start(settings("cloudevents")).await;
    let event = json!({ "type": "event", "event": "moved", "data": 1 });
    let (_, text) = client(&gateway, JSON, "ann").await.refusal(event).await;
    assert!(
        text.contains("status 308, a redirect, which is not followed"),
        "{text}"
    );
    assert_eq!(secure.seen().len(), 2, "{:?}", secure.seen());
}

#[test]
fn files_that_can_not_be_used_are_named_before_anything_starts() {
    let authority = Authority::new("own");
    let folder = authority.folder.path();
    let write = |name: &str, content: &str| {
        std::fs::write(folder.join(name), content).unwrap();
        folder.join(name).display().to_string()
    };
    let (one, two) = (authority.issue("one", |_| {}), authority.issue("two", |_| {}));
    for (key, file) in [
        ("ca_file", "/nowhere/ca.pem".to_owned()),
        ("ca_file", write("empty.pem", "")),
        ("identity_file", "/nowhere/own.pem".to_owned()),
        ("identity_file", write("no-key.pem", &one.certificate.pem())),
        (
            "identity_file",
            write("no-certificate.pem", &one.key.serialize_pem()),
        ),
        (
            "identity_file",
            write(
                "mixed.pem",
                &format!("{}{}", one.certificate.pem(), two.key.serialize_pem()),
            ),
        ),
    ] {
        let text = format!(
            "[[upstream]]\nhubs = [\"chat\"]\nform = \"signalr\"\nurl = \"https://localhost/\"\n{key} = \"{file}\"\n"
        );
        let done = check(&[], &text);
        let error = String::from_utf8(done.stderr).unwrap();
        assert_eq!(done.status.code(), Some(2), "{file}: {error}");
        assert!(error.contains(&format!("upstream[0].{key}")), "{file}: {error}");
        assert!(!error.contains("PRIVATE"), "{error}");
    }
}
