use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use parking_lot::Mutex as Lock;
use serde_json::json;
use tokio::net::TcpListener;

use super::*;

/// Ed25519 keys of those names; the bytes are not important here.
fn set_of(ids: &[&str]) -> String {
    let key = |id: &&str| json!({ "kty": "OKP", "crv": "Ed25519", "kid": id, "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" });
    json!({ "keys": ids.iter().map(key).collect::<Vec<_>>() }).to_string()
}

const PACE: LoadPace = LoadPace {
    interval: Duration::from_millis(300),
    max_age: Duration::from_secs(3600),
};

/// A server of key sets that counts.
struct Server {
    answer: Arc<Lock<(StatusCode, String)>>,
    asked: Arc<AtomicUsize>,
    set: Arc<KeySet>,
}

impl Server {
    async fn start(ids: &[&str], pace: LoadPace) -> Self {
        let answer = Arc::new(Lock::new((StatusCode::OK, set_of(ids))));
        let asked = Arc::new(AtomicUsize::new(0));
        let (answers, asking) = (Arc::clone(&answer), Arc::clone(&asked));
        let handler = async move || {
            asking.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(20)).await;
            answers.lock().clone()
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/keys?secret=s", listener.local_addr().unwrap());
        let router = Router::new().route("/keys", get(handler));
        tokio::spawn(async move { axum::serve(listener, router).await });
        let source = KeySource::url(url.parse().unwrap(), None).unwrap();
        let set = KeySet::new(source, pace, 0);
        Self { answer, asked, set }
    }

    fn answers(&self, status: u16, body: impl Into<String>) {
        *self.answer.lock() = (StatusCode::from_u16(status).unwrap(), body.into());
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn holds(&self, id: &str) -> bool {
        self.set.keys().iter().any(|key| key.is_named(id))
    }
}

#[tokio::test]
async fn an_unknown_key_is_fetched_once_for_all_who_ask() {
    let server = Server::start(&["a"], PACE).await;
    let asking = (0..50).map(|_| async { server.set.freshen(Some("a")).await });
    futures_util::future::join_all(asking).await;
    assert!(server.holds("a"));
    assert_eq!(server.asked(), 1);
    server.set.freshen(Some("a")).await;
    assert_eq!(server.asked(), 1, "a known one is not fetched");
}

#[tokio::test]
async fn a_new_key_is_found_and_a_flood_of_unknown_ones_asks_rarely() {
    let server = Server::start(&["a"], PACE).await;
    server.set.freshen(None).await;
    server.answers(200, set_of(&["b", "a"]));
    for i in 0..200 {
        server.set.freshen(Some(&format!("made-up-{i}"))).await;
    }
    assert_eq!(server.asked(), 1, "not again within the interval");
    tokio::time::sleep(PACE.interval).await;
    server.set.freshen(Some("b")).await;
    assert!(server.holds("a") && server.holds("b"));
    assert_eq!(server.asked(), 2);
}

#[tokio::test]
async fn keys_stay_when_they_can_not_be_fetched() {
    let pace = LoadPace {
        interval: Duration::ZERO,
        ..PACE
    };
    let server = Server::start(&["a"], pace).await;
    server.set.freshen(Some("a")).await;
    let large = format!("{{\"keys\":[],\"x\":\"{}\"}}", "x".repeat(MAX_BYTES));
    for (status, body) in [
        (500, set_of(&["b"])),
        (302, String::new()),
        (200, "<html>".to_owned()),
        (200, "{\"keys\":[]}".to_owned()),
        (200, large),
    ] {
        server.answers(status, body);
        server.set.freshen(Some("b")).await;
        assert!(server.holds("a") && !server.holds("b"), "{status}");
    }
    server.answers(200, set_of(&["b"]));
    server.set.freshen(Some("b")).await;
    assert!(
        server.holds("b") && !server.holds("a"),
        "what was taken back is gone"
    );
}

#[tokio::test]
async fn old_keys_are_fetched_again_while_they_are_used() {
    let pace = LoadPace {
        interval: Duration::ZERO,
        max_age: Duration::from_millis(50),
    };
    let server = Server::start(&["a"], pace).await;
    server.set.freshen(Some("a")).await;
    server.answers(200, set_of(&["b"]));
    tokio::time::sleep(pace.max_age).await;
    server.set.freshen(Some("a")).await;
    assert!(server.holds("a"), "nobody waits for it");
    let gone = async {
        while server.holds("a") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(5), gone).await.unwrap();
}

#[tokio::test]
async fn who_goes_away_does_not_keep_others_from_their_keys() {
    let server = Server::start(&["a"], PACE).await;
    let given_up = timeout(Duration::from_millis(1), server.set.freshen(Some("a"))).await;
    assert!(given_up.is_err());
    server.set.freshen(Some("a")).await;
    assert!(server.holds("a"));
    assert_eq!(server.asked(), 1);
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap(); // accepts, and says nothing
    let url = format!("http://{}/keys", listener.local_addr().unwrap());
    let source = KeySource::url(url.parse().unwrap(), None).unwrap();
    let set = KeySet::new(source, PACE, 0);
    let began = Instant::now();
    set.freshen(Some("a")).await;
    assert!(began.elapsed() < PATIENCE + Duration::from_secs(2));
    assert!(set.keys().is_empty());
}

#[tokio::test]
async fn a_file_is_read_again_when_it_has_a_new_key() {
    let path = std::env::temp_dir().join(format!("hubcast-jwks-{}.json", std::process::id()));
    std::fs::write(&path, set_of(&["a"])).unwrap();
    let pace = LoadPace {
        interval: Duration::ZERO,
        ..PACE
    };
    let set = KeySet::of_file(path.clone(), pace, 0).unwrap();
    std::fs::write(&path, set_of(&["a", "b"])).unwrap();
    set.freshen(Some("b")).await;
    assert_eq!(set.keys().len(), 2);
    std::fs::remove_file(&path).unwrap();
    set.freshen(Some("c")).await;
    assert_eq!(set.keys().len(), 2);
    assert!(
        KeySet::of_file(path, pace, 0).is_err(),
        "at the start it must be there"
    );
}

#[test]
fn log_lines_name_the_host_alone() {
    let source = KeySource::url(
        "https://user:pass@idp.example/keys?secret=s".parse().unwrap(),
        None,
    )
    .unwrap();
    assert_eq!(source.name(), "idp.example");
}

/// Answers one request for a set, over TLS, with a certificate that it has signed itself. Returns its port and the
/// certificate.
async fn serve_securely(body: String) -> (u16, String) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_rustls::rustls::ServerConfig;
    use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else {
                continue; // the client does not trust the certificate
            };
            let _request = stream.read(&mut [0; 4096]).await;
            let length = body.len();
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}");
            let _gone = stream.write_all(answer.as_bytes()).await;
            let _gone = stream.shutdown().await;
        }
    });
    (port, made.cert.pem())
}

#[tokio::test]
async fn keys_come_over_tls_from_who_is_trusted() {
    let (port, certificate) = serve_securely(set_of(&["a"])).await;
    let certificates = reqwest::Certificate::from_pem_bundle(certificate.as_bytes()).unwrap();
    let load = async |host: &str, certificates| {
        let url = format!("https://{host}:{port}/keys").parse().unwrap();
        let set = KeySet::new(KeySource::url(url, certificates).unwrap(), PACE, 0);
        set.freshen(Some("a")).await;
        set.keys().len()
    };
    assert_eq!(load("localhost", Some(certificates.clone())).await, 1);
    assert_eq!(load("localhost", None).await, 0, "the system does not know it");
    assert_eq!(
        load("127.0.0.1", Some(certificates)).await,
        0,
        "it is another name's"
    );
}
