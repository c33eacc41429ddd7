//! Keys of tokens that change while a node runs: SIGHUP has it read them again.

use std::path::{Path, PathBuf};
use std::process::Command;

use hubcast_tests::entry_point::{EntryPoint, Secrets};
use hubcast_tests::eventually::eventually;
use hubcast_tests::gateway::{Gateway, Settings};
use hubcast_tests::http::{Request, fetch};
use hubcast_tests::hub_client::{HubClient, Transport};
use hubcast_tests::jwt::{now, token_with};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rcgen::{KeyPair, PKCS_ED25519};
use serde_json::{Value, json};

const OLD: &str = "the access key of last year, of 32 bytes and more";
const NEW: &str = "the access key of this year, of 32 bytes and more";

/// A node whose configuration is in a file.
struct Node {
    gateway: Gateway,
    folder: tempfile::TempDir,
    reloads: usize,
}

impl Node {
    async fn start(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("hubcast.toml");
        std::fs::write(&file, Self::text(folder.path(), text)).unwrap();
        let settings = Settings::default()
            .without("HUBCAST_ACCESS_KEY")
            .variable("HUBCAST_CONFIG", file.display());
        Self {
            gateway: Gateway::start(settings).await,
            folder,
            reloads: 0,
        }
    }

    fn text(folder: &Path, text: &str) -> String {
        let text = text.replace("FOLDER", &folder.display().to_string());
        format!("{text}\nauth.allow_anonymous = false\n[hubs.chat]\n")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn hang_up(&self) {
        let mut kill = Command::new("kill");
        let done = kill.args(["-HUP", &self.gateway.id().to_string()]).status();
        assert!(done.unwrap().success());
    }

    /// Gives it another configuration, which it takes or refuses.
    async fn reload(&mut self, text: &str, told: &str) {
        std::fs::write(self.path("hubcast.toml"), Self::text(self.folder.path(), text)).unwrap();
        self.reloads += 1;
        self.hang_up();
        let lines = ["were read again", "handlers and keys stay"];
        let log = eventually("it has read the file", async || {
            let log = self.gateway.log();
            let count: usize = lines.iter().map(|line| log.matches(line).count()).sum();
            (count == self.reloads).then_some(log)
        })
        .await;
        let last = log
            .lines()
            .rfind(|line| lines.iter().any(|part| line.contains(part)))
            .unwrap();
        assert!(last.contains(told), "{last}");
        assert!(!log.contains(OLD) && !log.contains(NEW), "{log}");
    }

    fn entry(&self, token: &str) -> std::sync::Arc<EntryPoint> {
        let entry = EntryPoint::new(&[self.gateway.address()], &Secrets::default());
        std::sync::Arc::new(entry.at("/hubs/chat").with_bearer(token))
    }

    async fn negotiates(&self, token: &str) -> u16 {
        self.entry(token)
            .negotiate_with("negotiateVersion=1")
            .await
            .status()
    }

    /// The status of a client's request and of a back end's, with tokens of this key.
    async fn opens(&self, key: &str) -> (u16, u16) {
        let token = token_with(&json!({ "sub": "ann", "exp": now() + 60 }), key);
        let target = "/api/hubs/chat/:send?api-version=2022-06-01";
        let aud = format!("http://{}{target}", self.gateway.address());
        let server = token_with(&json!({ "aud": aud, "exp": now() + 60 }), key);
        let request = Request::post(target, r#"{"target":"Said","arguments":[]}"#)
            .header("content-type", "application/json")
            .bearer(Some(&server));
        let answer = fetch(self.gateway.address(), &request).await;
        (self.negotiates(&token).await, answer.status())
    }

    /// A token that the gateway makes for a client, by the word of a back end with this key.
    async fn generates(&self, key: &str) -> String {
        let target = "/api/hubs/chat/:generateToken?api-version=2022-11-01&userId=eve";
        let aud = format!("http://{}{target}", self.gateway.address());
        let server = token_with(&json!({ "aud": aud, "exp": now() + 60 }), key);
        let request = Request::post(target, "").bearer(Some(&server));
        let answer = fetch(self.gateway.address(), &request).await;
        let answer: Value = serde_json::from_slice(&answer.body).unwrap();
        answer["token"].as_str().unwrap().to_owned()
    }
}

#[tokio::test]
async fn an_access_key_is_replaced_without_a_restart_and_without_a_refused_client() {
    let mut node = Node::start(&format!("access_key = \"{OLD}\"")).await;
    assert_eq!(node.opens(OLD).await, (200, 202));
    assert_eq!(node.opens(NEW).await, (401, 401));
    let by_old = node.entry(&token_with(&json!({ "sub": "ann", "exp": now() + 600 }), OLD));
    let mut ann = HubClient::connect(&by_old, Transport::WebSockets).await;

    let both = format!("access_key = \"{NEW}\"\naccess_key_secondary = \"{OLD}\"");
    node.reload(&both, "were read again").await;
    for key in [OLD, NEW] {
        assert_eq!(node.opens(key).await, (200, 202), "both count");
    }
    let made = node.generates(OLD).await;

    for (broken, key) in [
        ("access_key = \"short\"", "access_key"),
        (
            &*format!("access_key = \"{NEW}\"\nauth.key_files = [\"FOLDER/nowhere.pem\"]"),
            "auth.key_files",
        ),
        (&*format!("access_key = \"{NEW}\"\nauth.kyes = 1"), "auth.kyes"),
        (&*format!("access_key = \"{NEW}"), "hubcast.toml"),
    ] {
        node.reload(broken, "stay").await;
        assert!(node.gateway.log().contains(key), "{}", node.gateway.log());
        for key in [OLD, NEW] {
            assert_eq!(node.opens(key).await, (200, 202), "{broken}");
        }
    }

    node.reload(&format!("access_key = \"{NEW}\""), "were read again")
        .await;
    assert_eq!(node.opens(NEW).await, (200, 202));
    assert_eq!(node.opens(OLD).await, (401, 401));
    assert_eq!(node.negotiates(&made).await, 200, "the first key signs");
    while ann.expect("Said").await == json!([]) {
        if node.opens(NEW).await == (200, 202) {
            break; // who is connected stays, and is heard
        }
    }
    assert!(ann.call("Nothing", json!([])).await["error"].is_string());
}

/// A token that the holder of a private key makes.
fn signed(key: &KeyPair, id: Option<&str>) -> String {
    let mut header = Header::new(Algorithm::EdDSA);
    header.kid = id.map(str::to_owned);
    let key = EncodingKey::from_ed_pem(key.serialize_pem().as_bytes()).unwrap();
    encode(&header, &json!({ "sub": "ann", "exp": now() + 60 }), &key).unwrap()
}

fn set_of(key: &KeyPair, id: &str) -> String {
    use base64::Engine;
    let x = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(key.public_key_raw());
    json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "kid": id, "x": x }] }).to_string()
}

#[tokio::test]
async fn public_keys_in_files_are_read_again() {
    let [old, new, set_old, set_new] = [(); 4].map(|()| KeyPair::generate_for(&PKCS_ED25519).unwrap());
    let text = "auth.key_files = [\"FOLDER/key.pem\"]\nauth.jwks_file = \"FOLDER/keys.json\"";
    let folder = tempfile::tempdir().unwrap();
    let text = text.replace("FOLDER", &folder.path().display().to_string());
    let write = |key: &KeyPair, set: &str| {
        std::fs::write(folder.path().join("key.pem"), key.public_key_pem()).unwrap();
        std::fs::write(folder.path().join("keys.json"), set).unwrap();
    };
    write(&old, &set_of(&set_old, "a"));
    let mut node = Node::start(&text).await;
    let tokens = [
        signed(&old, None),
        signed(&set_old, Some("a")),
        signed(&new, None),
        signed(&set_new, Some("a")),
    ];
    let opens = async |node: &Node| {
        let mut statuses = Vec::new();
        for token in &tokens {
            statuses.push(node.negotiates(token).await);
        }
        statuses
    };
    assert_eq!(opens(&node).await, [200, 200, 401, 401]);
    // The set is broken: the file of the other key is not taken either.
    write(&new, "{}");
    node.reload(&text, "stay").await;
    assert!(
        node.gateway.log().contains("auth.jwks_file"),
        "{}",
        node.gateway.log()
    );
    assert_eq!(opens(&node).await, [200, 200, 401, 401]);
    write(&new, &set_of(&set_new, "a"));
    node.reload(&text, "were read again").await;
    assert_eq!(opens(&node).await, [401, 401, 200, 200]);
}
