//! Requests to the REST API of a running gateway, each with a token of its own.

use std::{
    error::Error,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Client, Method, Response, StatusCode, Url, redirect::Policy};
use secrecy::ExposeSecret;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::gateway::{GatewayArgs, Target};
use super::{Failure, token};

/// The version of the API that has all routes.
const VERSION: &str = "2024-12-01";
const TIMEOUT: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const TOKEN_LIFETIME: Duration = Duration::from_secs(60);
/// No answer of a gateway comes near it.
const MAX_ANSWER_BYTES: usize = 16 * 1024 * 1024;
/// The characters that are not escaped in a segment of a path.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b':');

/// A hub of a gateway.
pub(super) struct Api {
    client: Client,
    target: Target,
    hub: String,
}

/// One request.
pub(super) struct Request<'a> {
    pub(super) method: Method,
    /// Below the hub; names in it are encoded here.
    pub(super) path: &'a [&'a str],
    pub(super) query: Vec<(&'a str, String)>,
    pub(super) body: Option<String>,
    pub(super) idempotency_key: Option<&'a str>,
}

impl<'a> Request<'a> {
    pub(super) fn new(method: Method, path: &'a [&'a str]) -> Self {
        Self {
            method,
            path,
            query: Vec::new(),
            body: None,
            idempotency_key: None,
        }
    }

    pub(super) fn query(mut self, name: &'a str, value: Option<impl ToString>) -> Self {
        self.query.extend(value.map(|value| (name, value.to_string())));
        self
    }
}

/// Runs a command's request to a hub.
pub(super) fn run<T>(
    args: &GatewayArgs,
    command: impl AsyncFnOnce(Api) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let api = Api::new(args)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(command(api))
}

impl Api {
    fn new(args: &GatewayArgs) -> Result<Self, Failure> {
        let client = Client::builder()
            .redirect(Policy::none())
            .no_proxy()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(TIMEOUT)
            .build();
        Ok(Self {
            client: client.map_err(|error| Failure::Runtime(root_cause(&error)))?,
            target: args.target()?,
            hub: args.hub.clone(),
        })
    }

    /// Sends a request that changes something.
    pub(super) async fn act(&self, request: Request<'_>) -> Result<(), Failure> {
        let (status, answer) = self.send(&request).await?;
        if status.is_success() {
            Ok(())
        } else {
            Err(self.refused(status, &answer))
        }
    }

    /// Sends a request whether something exists.
    pub(super) async fn ask(&self, path: &[&str]) -> Result<bool, Failure> {
        let (status, answer) = self.send(&Request::new(Method::GET, path)).await?;
        match status {
            status if status.is_success() => Ok(true),
            StatusCode::NOT_FOUND if answer.says_no() => Ok(false),
            status => Err(self.refused(status, &answer)),
        }
    }

    /// Sends a request for a JSON document.
    pub(super) async fn read<T: DeserializeOwned>(&self, request: Request<'_>) -> Result<T, Failure> {
        let (status, answer) = self.send(&request).await?;
        if status != StatusCode::OK {
            return Err(self.refused(status, &answer));
        }
        serde_json::from_slice(&answer.body).map_err(|_| {
            let text = format!("the answer of {} can't be read: {NO_GATEWAY}", self.place());
            Failure::Runtime(text)
        })
    }

    async fn send(&self, request: &Request<'_>) -> Result<(StatusCode, ApiAnswer), Failure> {
        let mut url = self.url(request.path)?;
        let token = self.token(&url)?;
        url.query_pairs_mut()
            .append_pair("api-version", VERSION)
            .extend_pairs(&request.query);
        let mut message = self
            .client
            .request(request.method.clone(), url)
            .bearer_auth(token);
        if let Some(body) = &request.body {
            message = message
                .header("content-type", "application/json")
                .body(body.clone());
        }
        if let Some(key) = request.idempotency_key {
            message = message.header("idempotency-key", key);
        }
        let message = message
            .build()
            .map_err(|_| Failure::Usage("this can't be written as an HTTP request".to_owned()))?;
        let response = self.client.execute(message).await;
        let read = async {
            let response = response?;
            Ok((response.status(), ApiAnswer::read(response).await?))
        };
        read.await.map_err(|error| self.unreachable(&error))
    }

    /// The URL of a path below the hub.
    fn url(&self, path: &[&str]) -> Result<Url, Failure> {
        let mut encoded = String::from("/api/hubs");
        for segment in [self.hub.as_str()].iter().chain(path) {
            // URLs can't hold these: the rest would be taken for another path.
            if matches!(*segment, "" | "." | "..") {
                return Err(Failure::Usage(format!(
                    "{segment:?} is not a name that REST requests can hold"
                )));
            }
            encoded.push('/');
            encoded.extend(utf8_percent_encode(segment, SEGMENT));
        }
        let mut url = self.target.url.clone();
        url.set_path(&encoded);
        Ok(url)
    }

    /// A token for one URL, for as long as a request takes.
    fn token(&self, url: &Url) -> Result<String, Failure> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let end = now.saturating_add(TOKEN_LIFETIME).as_secs();
        let claims = json!({ "aud": url.as_str(), "iat": now.as_secs(), "exp": end });
        token::sign(&claims, self.target.key.expose_secret().as_bytes())
    }

    /// The gateway, as messages call it.
    fn place(&self) -> &str {
        self.target.url.as_str().trim_end_matches('/')
    }

    fn refused(&self, status: StatusCode, answer: &ApiAnswer) -> Failure {
        let advice = match (status, answer.code.as_deref()) {
            (_, None) => NO_GATEWAY,
            (StatusCode::UNAUTHORIZED, _) => WRONG_KEY,
            (_, Some("Error.Hub.NotExisted")) => NO_HUB,
            (StatusCode::SERVICE_UNAVAILABLE, _) => "try again later; /readyz of the gateway says when",
            _ => "",
        };
        let code = answer.code.as_deref().map(printable);
        let said = [code, answer.message().map(|text| printable(&text))];
        let said: Vec<String> = said.into_iter().flatten().collect();
        let mut text = format!("{} answered with status {}", self.place(), status.as_u16());
        for part in said
            .iter()
            .map(String::as_str)
            .chain([advice])
            .filter(|part| !part.is_empty())
        {
            text.push_str(": ");
            text.push_str(part);
        }
        Failure::Runtime(text)
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        let place = self.place();
        let text = if error.is_connect() {
            format!("{place} can't be reached: {}: {UNREACHABLE}", root_cause(error))
        } else if error.is_timeout() {
            format!("{place} did not answer within {TIMEOUT:?}: {UNKNOWN_OUTCOME}")
        } else {
            format!("no answer from {place}: {}: {UNKNOWN_OUTCOME}", root_cause(error))
        };
        Failure::Runtime(text)
    }
}

const WRONG_KEY: &str = "check that the access key is the gateway's (HUBCAST_ACCESS_KEY or access_key in the file that \
     --config names), and that both clocks are right";
const NO_HUB: &str = "check --hub; `hubcast check` on the gateway prints hubs.names";
const NO_GATEWAY: &str = "is it a Hubcast gateway? Check --url (HUBCAST_URL)";
const UNREACHABLE: &str = "is the gateway running there? Say where it is with --url (HUBCAST_URL)";
const UNKNOWN_OUTCOME: &str = "whether it was carried out is not known; a message with an --idempotency-key can be sent \
     again under the same key";

/// The response of a gateway.
struct ApiAnswer {
    code: Option<String>,
    body: Vec<u8>,
}

impl ApiAnswer {
    async fn read(mut response: Response) -> reqwest::Result<Self> {
        let code = response.headers().get("x-ms-error-code");
        let code = code.and_then(|code| code.to_str().ok()).map(str::to_owned);
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            if body.len() + chunk.len() > MAX_ANSWER_BYTES {
                break; // a part is no JSON, which is then reported
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Self { code, body })
    }

    /// Returns whether the requested item does not exist, while the request was valid.
    fn says_no(&self) -> bool {
        let code = self.code.as_deref().unwrap_or_default();
        code.starts_with("Warning.") || code.starts_with("Info.")
    }

    fn message(&self) -> Option<String> {
        let body: Value = serde_json::from_slice(&self.body).ok()?;
        body.get("message")?.as_str().map(str::to_owned)
    }
}

/// The end of an error's chain says what happened; the text before it says where, and has the URL.
fn root_cause(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    printable(&cause.to_string())
}

/// Text of others, fit for a terminal: it can't move the cursor or pretend to be more lines.
pub(super) fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn api() -> Api {
        Api {
            client: Client::new(),
            target: Target {
                url: "http://[::1]:8080".parse().unwrap(),
                key: "an access key of at least 32 bytes".into(),
            },
            hub: "chat".to_owned(),
        }
    }

    #[test]
    fn names_stay_within_their_segment() {
        let url = |group: &str| api().url(&["groups", group, ":send"]);
        let encoded = url("a/b ü?#%").unwrap();
        assert_eq!(
            encoded.as_str(),
            "http://[::1]:8080/api/hubs/chat/groups/a%2Fb%20%C3%BC%3F%23%25/:send"
        );
        assert_eq!(
            url("%2e%2e").unwrap().path(),
            "/api/hubs/chat/groups/%252e%252e/:send"
        );
        assert_eq!(url("a\\..").unwrap().path(), "/api/hubs/chat/groups/a%5C../:send");
        for name in ["", ".", ".."] {
            assert_eq!(url(name).unwrap_err().code(), 2, "{name}");
        }
    }

    #[test]
    fn text_of_others_stays_on_its_line() {
        assert_eq!(printable("ü\u{1b}[2J\n"), "ü\\u{1b}[2J\\n");
    }
}
