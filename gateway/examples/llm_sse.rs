//! Tokens of a language model as plain server-sent events: the page needs no library, and an answer goes on without a
//! missing token when its connection is lost, on any node.
//!
//! `POST /ask` begins an answer and says which group it is sent to. Each token is a message to that group, so it is in
//! the log: a page that comes late gets it with `rewind`, and one that comes back gets the missed tokens by the id of
//! its last event, which browsers send by themselves. The work belongs to no connection: it goes on when no page
//! listens.
//!
//! ```sh
//! cargo run -p hubcast --example llm_sse
//! ```
//!
//! Open `http://127.0.0.1:8080`. For two nodes give both an address and the same Redis:
//!
//! ```sh
//! cargo run -p hubcast --example llm_sse -- 127.0.0.1:8080 redis://127.0.0.1:6379 &
//! cargo run -p hubcast --example llm_sse -- 127.0.0.1:8081 redis://127.0.0.1:6379 &
//! ```
//!
//! Open `http://127.0.0.1:8080/?other=http://127.0.0.1:8081`: "Lose the connection" then comes back to the other node.
//! Without a page:
//!
//! ```sh
//! answer=$(curl -s -d 'Why?' http://127.0.0.1:8080/ask)
//! curl -N "http://127.0.0.1:8081/sse/model?rewind=100&group=$answer"
//! ```

mod common;

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::rand;
use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::response::Html;
use axum::routing::{get, post};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hubcast::backplane::redis::{RedisBackplane, RedisOptions};
use hubcast::hub::HubHandle;
use hubcast::{Gateway, Hub, Options};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;

/// Longest prompt, in bytes.
const MAX_PROMPT: usize = 4_000;
/// Answers that the model works on at the same time.
const PLACES: usize = 16;
/// Groups of answers begin with this, and clients may join no other.
const ANSWER: &str = "answer-";

struct Model {
    hub: HubHandle,
    places: Arc<Semaphore>,
}

/// Begins an answer. Returns its group, whose name can't be guessed: a reader must know it.
async fn ask(State(model): State<Arc<Model>>, prompt: String) -> Result<String, (StatusCode, &'static str)> {
    if prompt.trim().is_empty() {
        return Err((StatusCode::BAD_REQUEST, "the prompt is empty"));
    }
    let busy = (
        StatusCode::SERVICE_UNAVAILABLE,
        "the model is busy, try again later",
    );
    let place = Arc::clone(&model.places).try_acquire_owned().map_err(|_| busy)?;
    let mut secret = [0; 16];
    rand::fill(&mut secret).map_err(|_| (StatusCode::INTERNAL_SERVER_ERROR, "no random bytes"))?;
    let group = format!("{ANSWER}{}", URL_SAFE_NO_PAD.encode(secret));
    tokio::spawn(answer(model, group.clone(), prompt, place));
    Ok(group)
}

/// Sends each token when it comes. With a real model this loop reads its HTTP response.
async fn answer(model: Arc<Model>, group: String, prompt: String, _place: OwnedSemaphorePermit) {
    let mut count = 0_usize;
    for token in generate(&prompt) {
        sleep(Duration::from_millis(80)).await;
        if let Err(error) = model
            .hub
            .clients()
            .group(&group)
            .send("token", (count, token))
            .await
        {
            eprintln!("{group} ends after {count} tokens: {error}");
            return; // the page gets no message: Redis can't be reached
        }
        count += 1;
    }
    if let Err(error) = model.hub.clients().group(&group).send("end", (count,)).await {
        eprintln!("{group} has no end: {error}");
    }
}

/// The fake model: it says the prompt again, at length.
fn generate(prompt: &str) -> Vec<String> {
    const BEGIN: [&str; 7] = ["You", "ask", "and", "I", "say", "it", "again:"];
    let words: Vec<_> = prompt.split_whitespace().take(100).collect();
    let again = words.iter().cycle().take(60).copied();
    BEGIN
        .into_iter()
        .chain(again)
        .map(|word| format!("{word} "))
        .collect()
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let mut options = Options::default();
    options.auth.allow_anonymous = Some(true);
    options.auth.anonymous_roles = vec![format!("hubcast.join.{ANSWER}*")];
    options.cors.allowed_origins = vec!["*".to_owned()]; // of the other node's page; name yours
    let mut gateway = Gateway::builder().hub(Hub::new("model")).options(options);
    if let Some(url) = arguments.next() {
        let backplane = RedisBackplane::connect(RedisOptions::parse(&url)?).await?;
        gateway = gateway.backplane(Arc::new(backplane));
    }
    let gateway = gateway.build().await?;
    let model = Model {
        hub: gateway.hub("model")?,
        places: Arc::new(Semaphore::new(PLACES)),
    };
    let app = Router::new()
        .route("/", get(async || Html(PAGE)))
        .route("/ask", post(ask))
        .layer(DefaultBodyLimit::max(MAX_PROMPT))
        .with_state(Arc::new(model))
        .merge(gateway.router());

    let stopped = common::stopped()?;
    let listener = TcpListener::bind(&address).await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, app)
        .with_graceful_shutdown(async move {
            stopped.await;
            gateway.shutdown(Duration::from_secs(10)).await;
        })
        .await?;
    Ok(())
}

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
  #answer { min-height: 6em; border: 1px solid #bbb; border-radius: .4rem; margin: 1rem 0; padding: .6rem 1rem; }
</style>
<h1>Tokens</h1>
<form id="form">
  <input id="prompt" aria-label="Prompt" maxlength="1000" value="what is it that comes back" required>
  <button>Ask</button>
</form>
<p id="answer" aria-live="polite"></p>
<button id="lose" disabled>Lose the connection</button>
<p id="status" role="status"></p>
<script>
  "use strict";
  const $ = (id) => document.getElementById(id);
  const nodes = [location.origin, new URLSearchParams(location.search).get("other")].filter(Boolean);
  let source = null;
  let last = "";
  let count = 0;
  let turn = 0;

  function listen(group) {
    const node = nodes[turn++ % nodes.length];
    const query = new URLSearchParams({ group, rewind: 100, lastEventId: last });
    source = new EventSource(`${node}/sse/model?${query}`); // it reconnects by itself, with the last id
    source.addEventListener("token", (event) => {
      const [index, token] = JSON.parse(event.data);
      last = event.lastEventId;
      if (index !== count) $("status").textContent = `Token ${count} is missing!`;
      count = index + 1;
      $("answer").append(token); // strings become text nodes
    });
    source.addEventListener("end", (event) => {
      const [length] = JSON.parse(event.data);
      finish(`${count} of ${length} tokens`);
    });
    source.addEventListener("reset", () => finish("The answer is no longer in the log: ask again"));
    source.onopen = () => { $("status").textContent = `Connected to ${node}`; };
    source.onerror = () => { $("status").textContent = "Connection lost, coming back…"; };
  }

  function finish(text) {
    source.close();
    $("lose").disabled = true;
    $("status").textContent = text;
  }

  let group = "";
  $("lose").addEventListener("click", () => {
    source.close();
    $("status").textContent = "Connection lost, coming back…";
    setTimeout(() => listen(group), 1500);
  });
  $("form").addEventListener("submit", async (event) => {
    event.preventDefault();
    source?.close();
    const response = await fetch("/ask", { method: "POST", body: $("prompt").value });
    if (!response.ok) {
      $("status").textContent = await response.text();
      return;
    }
    group = await response.text();
    [last, count] = ["", 0];
    $("answer").textContent = "";
    $("lose").disabled = false;
    listen(group);
  });
</script>
</html>
"##;
