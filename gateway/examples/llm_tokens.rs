//! Tokens of a language model, shown as they come. `Ask(prompt)` answers with a stream; a client may ask several things
//! at once and stop each answer by itself. A model that fails in the middle sends its client the reason, and a client
//! that stops or leaves ends the work that was done for it.
//!
//! ```sh
//! cargo run -p hubcast --example llm_tokens
//! ```
//!
//! Open `http://127.0.0.1:8080` and ask, again before the first answer is complete. A prompt with the word `fail`
//! makes the model fail. The hub is `/hubs/model`: `connection.stream("Ask", "Why?").subscribe({ next, error, complete })`.
//! Another address to listen on can be given as an argument.

mod common;

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::response::Html;
use axum::routing::get;
use futures_util::stream::{self, Stream};
use hubcast::hub::State;
use hubcast::{Context, Gateway, Hub, HubError, Options};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::sleep;

/// Longest prompt, in bytes.
const MAX_PROMPT: usize = 4_000;
/// Answers that the model works on at the same time, for all clients together.
const PLACES: usize = 16;
/// Tokens that may wait for a slow client before the model waits, too.
const AHEAD: usize = 8;

#[derive(Serialize)]
struct Token {
    index: usize,
    text: String,
}

struct Model {
    places: Arc<Semaphore>,
}

type Tokens = mpsc::Receiver<Result<Token, HubError>>;

impl Model {
    /// Begins an answer in a task of its own, as a client of a real model would that reads its HTTP response.
    fn answer(&self, context: Context, prompt: String) -> Result<Tokens, HubError> {
        let place = Arc::clone(&self.places)
            .try_acquire_owned()
            .map_err(|_| HubError::new("the model is busy, try again later"))?;
        let (sender, tokens) = mpsc::channel(AHEAD);
        tokio::spawn(async move {
            // Ends when the client cancels this stream or leaves. `generate` is dropped where it waits, and so would
            // be a request to a real model.
            let cancelled = context.cancelled().clone();
            let how = tokio::select! {
                () = cancelled.cancelled() => "was cancelled",
                () = generate(&prompt, &sender, place) => "has ended",
            };
            println!("an answer for {} {how}", context.connection_id());
        });
        Ok(tokens)
    }
}

/// The fake model: the same tokens for the same prompt, at an uneven pace. It keeps its place while it works.
async fn generate(
    prompt: &str,
    tokens: &mpsc::Sender<Result<Token, HubError>>,
    _place: OwnedSemaphorePermit,
) {
    const WORDS: [&str; 16] = [
        "the", "gateway", "sends", "every", "token", "once", "and", "in", "order", "while", "the", "client",
        "reads", "what", "it", "asked",
    ];
    let fails = prompt.to_lowercase().contains("fail");
    let mut state = prompt.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mut next = move |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    let length = 30 + next(60) as usize;
    for index in 0..length {
        sleep(Duration::from_millis(10 + next(60))).await;
        if fails && index == 12 {
            let error = HubError::new("the model lost its thread after 12 tokens");
            let _ = tokens.send(Err(error)).await; // the receiver may be gone
            return;
        }
        let word = WORDS.get(next(16) as usize).copied().unwrap_or("and");
        let text = if index + 1 == length {
            format!("{word}.")
        } else {
            format!("{word} ")
        };
        if tokens.send(Ok(Token { index, text })).await.is_err() {
            return; // the stream was dropped
        }
    }
}

async fn ask(
    context: Context,
    model: State<Model>,
    prompt: String,
) -> Result<impl Stream<Item = Result<Token, HubError>>, HubError> {
    if prompt.trim().is_empty() || prompt.len() > MAX_PROMPT {
        return Err(HubError::new(format!("a prompt has 1 to {MAX_PROMPT} bytes")));
    }
    let tokens = model.answer(context, prompt)?;
    Ok(stream::unfold(tokens, |mut tokens| async move {
        tokens.recv().await.map(|token| (token, tokens))
    }))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let places = Arc::new(Semaphore::new(PLACES));
    let hub = Hub::new("model")
        .state(Model { places })
        .stream("Ask", ask)
        // The number of streams that one client may have at once.
        .configure(|options| options.limits.streams_per_connection = 4);
    let mut options = Options::default();
    options.auth.allow_anonymous = Some(true);
    let gateway = Gateway::builder().hub(hub).options(options).build().await?;
    let app = Router::new()
        .route("/", get(async || Html(PAGE)))
        .route(
            "/signalr.js",
            get(async || ([(CONTENT_TYPE, "text/javascript; charset=utf-8")], CLIENT)),
        )
        .merge(gateway.router());

    let address = std::env::args().nth(1);
    let stopped = common::stopped()?;
    let listener = TcpListener::bind(address.as_deref().unwrap_or("127.0.0.1:8080")).await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, app)
        .with_graceful_shutdown(async move {
            stopped.await;
            gateway.shutdown(Duration::from_secs(10)).await;
        })
        .await?;
    Ok(())
}

/// The official client for browsers.
const CLIENT: &str = include_str!("../src/bin/hubcast/demo/page/vendor/signalr.min.js");

const PAGE: &str = r##"<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Tokens</title>
<style>
  body { font: 16px/1.5 system-ui, sans-serif; max-width: 44rem; margin: 2rem auto; padding: 0 1rem; }
  form { display: flex; gap: .5rem; }
  input { flex: 1; font: inherit; padding: .4rem; }
  button { font: inherit; }
  article { border: 1px solid #bbb; border-radius: .4rem; margin-top: 1rem; padding: .6rem 1rem; }
  .answer { min-height: 1.5em; }
  .error { color: #b00; }
</style>
<h1>Tokens</h1>
<p id="status" role="status">Connecting…</p>
<form id="form">
  <input id="prompt" aria-label="Prompt" maxlength="1000" placeholder="Ask something; &quot;fail&quot; makes the model fail" required>
  <button>Ask</button>
</form>
<main id="answers"></main>
<script src="/signalr.js"></script>
<script>
  "use strict";
  const $ = (id) => document.getElementById(id);
  const connection = new signalR.HubConnectionBuilder().withUrl("/hubs/model").withAutomaticReconnect().build();
  const status = (text) => { $("status").textContent = text; };
  connection.onreconnecting(() => status("Connection lost, trying again…"));
  connection.onreconnected(() => status("Connected"));
  connection.onclose(() => status("Disconnected; reload the page"));

  function element(name, className, text) {
    const node = document.createElement(name);
    node.className = className;
    node.textContent = text;
    return node;
  }

  function ask(prompt) {
    const answer = element("p", "answer", "");
    const state = element("small", "", "…");
    const stop = element("button", "", "Stop");
    const article = document.createElement("article");
    article.append(element("strong", "", prompt), answer, stop, " ", state);
    $("answers").prepend(article);
    const end = (text, className = "") => {
      stop.disabled = true;
      state.textContent = text;
      state.className = className;
    };
    let count = 0;
    const subscription = connection.stream("Ask", prompt).subscribe({
      next: (token) => {
        answer.append(token.text); // strings become text nodes
        count += 1;
        state.textContent = `${count} tokens`;
      },
      complete: () => end(`${count} tokens, complete`),
      error: (error) => end(error.message, "error"),
    });
    stop.addEventListener("click", () => {
      subscription.dispose(); // tells the server to stop
      end(`${count} tokens, stopped`);
    });
  }

  $("form").addEventListener("submit", (event) => {
    event.preventDefault();
    ask($("prompt").value);
    $("prompt").value = "";
  });
  connection.start().then(() => status("Connected"), (error) => status(error.message));
</script>
</html>
"##;
