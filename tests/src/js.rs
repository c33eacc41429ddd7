//! The official JavaScript client in a Node process.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::{Command as StdCommand, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use serde::Serialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::{Mutex as AsyncMutex, oneshot};

use crate::eventually::{eventually, eventually_equals, within};

/// A Node process that runs any number of official clients. It ends when this value is dropped.
pub struct Js {
    shared: Arc<Shared>,
    _node: Child,
}

struct Shared {
    input: AsyncMutex<ChildStdin>,
    next_id: AtomicU64,
    /// The senders for the answers of commands; `None` once Node has ended.
    waiting: Mutex<Option<HashMap<u64, oneshot::Sender<Answer>>>>,
    events: Mutex<Vec<Value>>,
}

impl Shared {
    fn await_answer(&self, id: u64, answer: oneshot::Sender<Answer>) {
        let mut waiting = self.waiting.lock().expect("nobody panics while holding it");
        waiting.as_mut().expect("node is running").insert(id, answer);
    }
}

type Answer = Result<Value, String>;

/// How a client connects. Everything has the official client's default.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Connect {
    url: String,
    transport: Option<&'static str>,
    protocol: Option<&'static str>,
    token: Option<String>,
    headers: HashMap<String, String>,
    skip_negotiation: bool,
    reconnect: Option<Vec<u32>>,
    listen: Vec<&'static str>,
}

impl Connect {
    /// To this hub.
    pub fn to(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            ..Self::default()
        }
    }

    /// By this transport only: `WebSockets`, `ServerSentEvents` or `LongPolling`.
    pub fn transport(self, name: &'static str) -> Self {
        Self {
            transport: Some(name),
            ..self
        }
    }

    /// By this protocol: `json` or `messagepack`.
    pub fn protocol(self, name: &'static str) -> Self {
        Self {
            protocol: Some(name),
            ..self
        }
    }

    /// With an access token.
    pub fn token(self, token: &str) -> Self {
        Self {
            token: Some(token.to_owned()),
            ..self
        }
    }

    /// With a header on every request.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Connects without negotiate.
    pub fn skip_negotiation(self) -> Self {
        Self {
            skip_negotiation: true,
            ..self
        }
    }

    /// With automatic reconnect that tries often and for long.
    pub fn reconnecting(self) -> Self {
        Self {
            reconnect: Some([vec![0], vec![200; 100]].concat()),
            ..self
        }
    }

    /// With handlers that record what the hub sends to these targets.
    pub fn listening(self, targets: &[&'static str]) -> Self {
        Self {
            listen: targets.to_vec(),
            ..self
        }
    }
}

impl Js {
    /// Starts Node.
    pub async fn start() -> Self {
        let mut command = Command::new("node");
        command
            .arg(folder().join("driver.mjs"))
            .kill_on_drop(true)
            .process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut node = command.spawn().expect("node can be started");
        let input = AsyncMutex::new(node.stdin.take().expect("standard input is piped"));
        let output = BufReader::new(node.stdout.take().expect("standard output is piped")).lines();
        let shared = Arc::new(Shared {
            input,
            next_id: AtomicU64::new(1),
            waiting: Mutex::new(Some(HashMap::new())),
            events: Mutex::new(Vec::new()),
        });
        tokio::spawn(listen(output, Arc::clone(&shared)));
        Self { shared, _node: node }
    }

    /// Connects a client.
    pub async fn connect(&self, options: Connect) -> JsClient {
        self.try_connect(options)
            .await
            .unwrap_or_else(|error| panic!("the official client can't connect: {error}"))
    }

    /// Connects a client, or says why not.
    pub async fn try_connect(&self, options: Connect) -> Result<JsClient, String> {
        let name = format!("c{}", self.shared.next_id.fetch_add(1, Ordering::Relaxed));
        let client = JsClient {
            shared: Arc::clone(&self.shared),
            name,
        };
        client.command("connect", json!(options)).await.map(|_| client)
    }
}

/// One official client.
pub struct JsClient {
    shared: Arc<Shared>,
    name: String,
}

impl JsClient {
    /// Calls a method and waits for its result; the error is the text that a user of the client sees.
    pub async fn invoke(&self, method: &str, args: Value) -> Answer {
        self.command("invoke", json!({ "method": method, "args": args }))
            .await
    }

    /// Calls a method that succeeds.
    pub async fn call(&self, method: &str, args: Value) -> Value {
        self.invoke(method, args)
            .await
            .unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    /// Calls a method without wanting a result.
    pub async fn send(&self, method: &str, args: Value) -> Answer {
        self.command("send", json!({ "method": method, "args": args }))
            .await
    }

    /// Calls a method that answers with a stream.
    pub async fn stream(&self, method: &str, args: Value) -> JsStream<'_> {
        let stream = format!("s{}", self.shared.next_id.fetch_add(1, Ordering::Relaxed));
        let command = json!({ "method": method, "args": args, "stream": stream });
        self.command("stream", command)
            .await
            .expect("a stream begins without waiting");
        JsStream { client: self, stream }
    }

    /// Its connection id at this moment; changes with each reconnect.
    pub async fn id(&self) -> String {
        let state = self
            .command("state", json!({}))
            .await
            .expect("a client has a state");
        state["connectionId"]
            .as_str()
            .unwrap_or_else(|| panic!("no connection id in {state}"))
            .to_owned()
    }

    /// The hub's data about this client.
    pub async fn who_am_i(&self) -> Value {
        self.call("WhoAmI", json!([])).await
    }

    /// Stops it as its user would.
    pub async fn stop(&self) {
        self.command("stop", json!({})).await.expect("a client stops");
    }

    /// Everything that happened to it of this kind: `message`, `closed`, `reconnecting`, `reconnected`.
    pub fn events(&self, kind: &str) -> Vec<Value> {
        let events = self.shared.events.lock().expect("nobody panics while holding it");
        events
            .iter()
            .filter(|event| event["client"] == self.name.as_str() && event["event"] == kind)
            .cloned()
            .collect()
    }

    /// The arguments of every invocation of `target` by the hub.
    pub fn received(&self, target: &str) -> Vec<Value> {
        let messages = self.events("message").into_iter();
        messages
            .filter(|event| event["target"] == target)
            .map(|event| event["args"].clone())
            .collect()
    }

    /// Waits until the hub has invoked `target` with exactly these arguments.
    pub async fn receives(&self, target: &str, args: Value) {
        let what = format!("{} receives {target}{args}", self.name);
        eventually(&what, async || {
            self.received(target).contains(&args).then_some(())
        })
        .await;
    }

    /// Waits until something of this kind has happened so many times.
    pub async fn has_events(&self, kind: &str, count: usize) {
        let what = format!("{} has {kind} events", self.name);
        eventually_equals(&what, &count, async || self.events(kind).len()).await;
    }

    async fn command(&self, op: &str, mut command: Value) -> Answer {
        let id = self.shared.next_id.fetch_add(1, Ordering::Relaxed);
        command["id"] = id.into();
        command["op"] = op.into();
        command["client"] = self.name.as_str().into();
        let (answer, answered) = oneshot::channel();
        self.shared.await_answer(id, answer);
        let line = format!("{command}\n");
        self.shared
            .input
            .lock()
            .await
            .write_all(line.as_bytes())
            .await
            .expect("node is running");
        within(&format!("the official client's {command}"), answered)
            .await
            .expect("node is running")
    }
}

/// A stream that a hub method answers with.
pub struct JsStream<'a> {
    client: &'a JsClient,
    stream: String,
}

impl JsStream<'_> {
    /// The items so far.
    pub fn items(&self) -> Vec<Value> {
        self.events("item")
            .into_iter()
            .map(|event| event["item"].clone())
            .collect()
    }

    /// Waits for its end and returns the items.
    pub async fn completed(&self) -> Vec<Value> {
        self.ended("completed").await;
        self.items()
    }

    /// Waits for its failure and returns the text.
    pub async fn failed(&self) -> Value {
        self.ended("failed").await["error"].clone()
    }

    /// Says that no more items are wanted.
    pub async fn cancel(&self) {
        let command = json!({ "stream": self.stream });
        self.client
            .command("cancel", command)
            .await
            .expect("a stream can be cancelled");
    }

    async fn ended(&self, how: &str) -> Value {
        let what = format!("stream {} has {how}", self.stream);
        eventually(&what, async || {
            let ends = ["completed", "failed"].map(|kind| self.events(kind)).concat();
            let end = ends.into_iter().next()?;
            assert_eq!(end["event"], how, "the stream's end: {end}");
            Some(end)
        })
        .await
    }

    fn events(&self, kind: &str) -> Vec<Value> {
        let mut events = self.client.events(kind);
        events.retain(|event| event["stream"] == self.stream.as_str());
        events
    }
}

async fn listen(mut output: Lines<BufReader<ChildStdout>>, shared: Arc<Shared>) {
    while let Ok(Some(line)) = output.next_line().await {
        let mut line: Value =
            serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error} in {line:?}"));
        let Some(id) = line["id"].as_u64() else {
            shared
                .events
                .lock()
                .expect("nobody panics while holding it")
                .push(line);
            continue;
        };
        let answer = match line["error"].take() {
            Value::String(error) => Err(error),
            _ => Ok(line["ok"].take()),
        };
        let mut waiting = shared.waiting.lock().expect("nobody panics while holding it");
        if let Some(waiting) = waiting.as_mut().and_then(|waiting| waiting.remove(&id)) {
            let _nobody_waits_any_more = waiting.send(answer);
        }
    }
    // Callers that still wait see that node is gone.
    *shared.waiting.lock().expect("nobody panics while holding it") = None;
}

/// The folder of the driver, with the packages that its lock file names.
pub fn folder() -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(install).clone()
}

fn install() -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("clients/js");
    let modified = |name: &str| std::fs::metadata(folder.join(name)).and_then(|file| file.modified());
    let locked = modified("package-lock.json").expect("the lock file is there");
    let is_installed = modified("node_modules/.package-lock.json").is_ok_and(|installed| installed >= locked);
    if !is_installed {
        let mut npm = StdCommand::new("npm");
        npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
            .current_dir(&folder)
            .stdout(Stdio::null());
        assert!(
            npm.status().expect("npm can be started").success(),
            "the official client can't be installed"
        );
    }
    folder
}
