//! Any requests to a gateway: every one is answered in time with a documented status, no client gets at a connection
//! without its token, and nothing is left of a connection when its client is gone.
//!
//! An input is a script. Its steps are separated by the byte 0x1D; a step is one of
//!
//! * a request: `METHOD target`, or `METHOD target HTTP/2`, then headers, one a line, an empty line and the body;
//! * `sleep N`: so many milliseconds pass;
//! * `drop`: the client gives up every request that is not answered yet.
//!
//! Requests do not wait for each other's answers. In target and headers `$` and a letter stand for what a client may
//! have; see [`Secrets`]. Time is the runtime's own and passes only while nothing else is to be done.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderName, HeaderValue, Method, Request, StatusCode, Uri, Version, header};
use axum::response::Response;
use futures_util::Stream;
use futures_util::stream;
use http_body_util::BodyExt;
use hubcast::protocol::Value;
use hubcast::{Context, Gateway, Hub, HubError, Options};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tower::ServiceExt;

/// Ends a step of a script.
const STEP_END: u8 = 0x1D;
const MAX_STEPS: usize = 16;
const MAX_SLEEP: Duration = Duration::from_secs(60);

/// Longer than any time-out of the gateway, and than several in a row.
const LONG: Duration = Duration::from_secs(60);

const ACCESS_KEY: &str = "an access key of the fuzz target";

/// The statuses that a client may get. 500 and 503 are not among them: no part here can fail.
const STATUSES: [u16; 11] = [200, 202, 204, 400, 401, 403, 404, 405, 409, 413, 426];

/// Checks one script.
pub fn check(input: &[u8]) {
    static WORLD: OnceLock<World> = OnceLock::new();
    let world = WORLD.get_or_init(World::new);
    world.runtime.block_on(world.play(input));
}

struct World {
    runtime: Runtime,
    gateway: Gateway,
    router: Router,
}

impl World {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        let gateway = runtime
            .block_on(
                Gateway::builder()
                    .hub(hub("h"))
                    .hub(hub("o"))
                    .options(options())
                    .build(),
            )
            .expect("a gateway");
        let router = gateway.router();
        Self {
            runtime,
            gateway,
            router,
        }
    }

    async fn play(&self, input: &[u8]) {
        let secrets = self.secrets(input).await;
        let mut running = Vec::new();
        for step in input.split(|byte| *byte == STEP_END).take(MAX_STEPS) {
            if let Some(time) = sleep_of(step) {
                sleep(time).await;
            } else if step == b"drop" {
                running.drain(..).for_each(Running::give_up);
            } else if let Some(request) = self.request(step, &secrets) {
                running.push(request);
                sleep(Duration::from_millis(1)).await; // all that can be done at once is done
            }
        }
        sleep(LONG).await;
        for request in &running {
            assert!(
                request.answered.load(Ordering::Relaxed),
                "a request is not answered"
            );
        }
        for token in secrets.tokens() {
            let request = Request::delete(format!("/hubs/h?id={token}"));
            self.send(request.body(Body::empty()).expect("a request")).await;
        }
        running.drain(..).for_each(Running::give_up); // event streams have no end
        sleep(LONG).await;
        self.check_rest().await;
    }

    /// Checks that nothing is left of any connection.
    async fn check_rest(&self) {
        for hub in ["h", "o"] {
            let left = self.gateway.hub(hub).expect("a hub").local_connections();
            assert_eq!(left, 0, "connections of {hub} are left");
        }
        let request = Request::get("/metrics").body(Body::empty()).expect("a request");
        let metrics = text_of(self.send(request).await).await;
        for name in ["hubcast_tasks ", "hubcast_connections{", "hubcast_outbox_bytes "] {
            let mut lines = metrics.lines().filter(|line| line.starts_with(name)).peekable();
            assert!(lines.peek().is_some(), "{name} is not measured");
            lines.for_each(|line| assert!(line.ends_with(" 0"), "{line}"));
        }
    }

    async fn secrets(&self, input: &[u8]) -> Secrets {
        let wants = |letter: u8| input.windows(2).any(|pair| pair == [b'$', letter]);
        let mut secrets = Secrets::default();
        if wants(b'T') || wants(b'I') || wants(b'F') {
            (secrets.id, secrets.token) = self.negotiate("/hubs/h/negotiate?negotiateVersion=1").await;
            secrets.forged = secrets.token.clone();
            let last = secrets.forged.pop();
            secrets.forged.push(if last == Some('A') { 'B' } else { 'A' });
        }
        if wants(b'S') {
            (secrets.same, _) = self.negotiate("/hubs/h/negotiate").await;
        }
        if wants(b'X') {
            (_, secrets.foreign) = self.negotiate("/client/negotiate?hub=o&negotiateVersion=1").await;
        }
        secrets
    }

    /// The connection id, and the connection token if it is another.
    async fn negotiate(&self, target: &str) -> (String, String) {
        let request = Request::post(target).body(Body::empty()).expect("a request");
        let answer = text_of(self.send(request).await).await;
        let property = |name: &str| {
            let (_, from) = answer.split_once(name).unwrap_or_default();
            from.split('"').next().unwrap_or_default().to_owned()
        };
        let id = property("\"connectionId\":\"");
        assert!(!id.is_empty(), "no connection id: {answer}");
        (id, property("\"connectionToken\":\""))
    }

    /// Begins the request that this step is, if it is one.
    fn request(&self, step: &[u8], secrets: &Secrets) -> Option<Running> {
        let (head, body) = split_once(step, b"\n\n").unwrap_or((step, b""));
        let mut lines = head.split(|byte| *byte == b'\n');
        let mut words = lines.next()?.split(|byte| *byte == b' ');
        let method = Method::from_bytes(words.next()?).ok()?;
        let written = words.next()?;
        let version = match words.next() {
            Some(b"HTTP/2") => Version::HTTP_2,
            _ => Version::HTTP_11,
        };
        let uri = Uri::try_from(&*secrets.fill(written)).ok()?;
        let admitted = [b"$T", b"$S", b"$X"]
            .iter()
            .any(|token| written.windows(2).any(|pair| pair == *token));

        let mut request = Request::new(Body::from(body.to_vec()));
        *request.method_mut() = method.clone();
        *request.uri_mut() = uri.clone();
        *request.version_mut() = version;
        for line in lines {
            let (name, value) = split_once(line, b":")?;
            let name = HeaderName::from_bytes(name.trim_ascii()).ok()?;
            let value = HeaderValue::from_bytes(&secrets.fill(value.trim_ascii())).ok()?;
            request.headers_mut().append(name, value);
        }
        let host = HeaderValue::from_static("localhost");
        request.headers_mut().entry(header::HOST).or_insert(host); // steps need not name one
        let answering = self.router.clone().oneshot(request);
        let answered = Arc::new(AtomicBool::new(false));
        let done = Arc::clone(&answered);
        let task = tokio::spawn(async move {
            let Ok(response) = answering.await;
            check_response(&method, &uri, admitted, &response);
            done.store(true, Ordering::Relaxed);
            let is_json = response
                .headers()
                .get(header::CONTENT_TYPE)
                .is_some_and(|t| t == "application/json");
            let mut body = response.into_body();
            let mut whole = Vec::new();
            while let Some(frame) = body.frame().await {
                let frame = frame.expect("a body does not break");
                whole.extend_from_slice(frame.data_ref().map_or(&[], |data| &data[..]));
            }
            if is_json {
                Value::from_json_text(whole).expect("JSON was announced");
            }
        });
        Some(Running { task, answered })
    }

    async fn send(&self, mut request: Request<Body>) -> Response {
        let host = HeaderValue::from_static("localhost");
        request.headers_mut().entry(header::HOST).or_insert(host); // HTTP/1.1 wants one
        let Ok(response) = self.router.clone().oneshot(request).await;
        response
    }
}

/// A request that is being answered.
struct Running {
    task: JoinHandle<()>,
    answered: Arc<AtomicBool>,
}

impl Running {
    fn give_up(self) {
        self.task.abort();
    }
}

fn check_response(method: &Method, uri: &Uri, admitted: bool, response: &Response) {
    let status = response.status();
    assert!(
        STATUSES.contains(&status.as_u16()),
        "{method} {uri} is answered with {status}"
    );
    let path = uri.path().strip_suffix('/').unwrap_or(uri.path());
    let to_hub = (path.starts_with("/hubs/") || path.starts_with("/client")) && !path.ends_with("/negotiate");
    let acts = [Method::GET, Method::POST, Method::DELETE, Method::CONNECT].contains(method);
    if to_hub && acts && !admitted {
        assert!(
            status.is_client_error(),
            "{method} {uri} has no token and gets {status}"
        );
    }
    if response.status() == StatusCode::UNAUTHORIZED {
        assert!(response.headers().contains_key(header::WWW_AUTHENTICATE));
    }
}

async fn text_of(response: Response) -> String {
    let body = to_bytes(response.into_body(), usize::MAX).await.expect("a body");
    String::from_utf8(body.to_vec()).expect("text")
}

fn sleep_of(step: &[u8]) -> Option<Duration> {
    let millis = str::from_utf8(step.strip_prefix(b"sleep ")?).ok()?;
    Some(Duration::from_millis(millis.parse().ok()?).min(MAX_SLEEP))
}

fn split_once<'a>(bytes: &'a [u8], separator: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let at = bytes
        .windows(separator.len())
        .position(|window| window == separator)?;
    Some((&bytes[..at], &bytes[at + separator.len()..]))
}

/// Secrets that a client may have got from the gateway or its application.
#[derive(Default)]
struct Secrets {
    /// `$T`: a connection token.
    token: String,
    /// `$I`: the id of that connection, which is no token.
    id: String,
    /// `$F`: that token with another last character.
    forged: String,
    /// `$S`: a token that is also the connection's id.
    same: String,
    /// `$X`: a token of another hub.
    foreign: String,
}

impl Secrets {
    fn tokens(&self) -> impl Iterator<Item = &str> {
        [&self.token, &self.same]
            .into_iter()
            .filter(|token| !token.is_empty())
            .map(String::as_str)
    }

    fn fill<'a>(&self, text: &'a [u8]) -> Cow<'a, [u8]> {
        if !text.contains(&b'$') {
            return text.into();
        }
        let mut filled = Vec::new();
        let mut rest = text;
        while let Some((&first, after)) = rest.split_first() {
            let secret = match rest {
                [b'$', b'T', ..] => &self.token,
                [b'$', b'I', ..] => &self.id,
                [b'$', b'F', ..] => &self.forged,
                [b'$', b'S', ..] => &self.same,
                [b'$', b'X', ..] => &self.foreign,
                [b'$', b'A', ..] => ANN,
                [b'$', b'B', ..] => BOB,
                [b'$', b'E', ..] => EXPIRED,
                _ => {
                    filled.push(first);
                    rest = after;
                    continue;
                }
            };
            filled.extend_from_slice(secret.as_bytes());
            rest = &after[1..];
        }
        filled.into()
    }
}

/// `$A`: a user's token.
const ANN: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJuYW1laWQiOiJhbm4iLCJleHAiOjk5OTk5OTk5OTl9.\
    0Cm-xZ4XCi_D18nUtt8W6RvIlzpF6zRZw3fBEE6cI0U";
/// `$B`: another user's token.
const BOB: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJuYW1laWQiOiJib2IiLCJleHAiOjk5OTk5OTk5OTl9.\
    chBxQv0oVFHYNjMBccP2DvQfvpSA6-TjVeG8VKjSTs0";
/// `$E`: a user's token that has expired.
const EXPIRED: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJuYW1laWQiOiJhbm4iLCJleHAiOjF9.\
    xp_Z08P1vzMa035Dqnc1bNOoXtOepC3-AiMhNf2ckhk";

/// Small limits and short times, so that short scripts reach them.
fn options() -> Options {
    let mut options = Options::default();
    options.auth.access_key = Some(ACCESS_KEY.into());
    options.auth.allow_anonymous = Some(true);
    options.cors.allowed_origins = vec!["https://app.example".to_owned()];
    options.limits.message_bytes = 256;
    options.limits.http_body_bytes = 512;
    options.limits.outbox_bytes = 1024;
    options.limits.inbox_bytes = 1024;
    options.limits.groups_per_connection = 2;
    options.timeouts.handshake = Duration::from_secs(3);
    options.timeouts.keep_alive = Duration::from_secs(3);
    options.timeouts.client_timeout = Duration::from_secs(5);
    options.timeouts.disconnect = Duration::from_secs(4);
    options.timeouts.long_poll = Duration::from_secs(2);
    options.timeouts.send = Duration::from_secs(1);
    options.hubs.detailed_errors = true;
    options.hubs.parallel_invocations = 2;
    options.hubs.retention_messages = 16;
    options.hubs.retention = Duration::from_secs(10);
    options
}

fn hub(name: &str) -> Hub {
    Hub::new(name)
        .method("Echo", echo)
        .method("Join", join)
        .method("Leave", leave)
        .method("Say", say)
        .method("Wait", wait)
        .method("Abort", abort)
        .stream("Count", count)
        .on_connected(welcome)
        .on_disconnected(farewell)
}

async fn echo(text: String) -> String {
    text
}

async fn join(context: Context, group: String) -> Result<usize, HubError> {
    context.join(&group).await?;
    Ok(context.groups().len())
}

async fn leave(context: Context, group: String) -> Result<(), HubError> {
    context.leave(&group).await?;
    Ok(())
}

async fn say(context: Context, group: Option<String>, text: String) -> Result<(), HubError> {
    match group {
        Some(group) => context.clients().group(group).send("Said", (text,)).await?,
        None => context.clients().all().send("Said", (text,)).await?,
    }
    Ok(())
}

async fn wait(millis: u16) {
    sleep(Duration::from_millis(millis.into()).min(Duration::from_secs(10))).await;
}

async fn abort(context: Context) {
    context.abort();
}

async fn count(to: u8) -> Result<impl Stream<Item = u8>, HubError> {
    if to == 0 {
        return Err(HubError::new("nothing to count"));
    }
    Ok(stream::unfold(0, move |last| async move {
        sleep(Duration::from_millis(100)).await;
        (last < to).then_some((last + 1, last + 1))
    }))
}

async fn welcome(context: Context) -> Result<(), HubError> {
    if context.connection().query("refuse").is_some() {
        return Err(HubError::new("not today"));
    }
    context.clients().caller().send("Welcome", ()).await?;
    Ok(())
}

async fn farewell(context: Context, reason: hubcast::hub::Disconnected) -> Result<(), HubError> {
    context
        .clients()
        .all()
        .send("Left", (reason.to_string(),))
        .await?;
    Ok(())
}
