//! A shared whiteboard, at a high rate in both directions: each client uploads its strokes in one stream that stays
//! open, and the others on its board are sent batches of them.
//!
//! ```sh
//! cargo run -p hubcast --example whiteboard
//! ```
//!
//! Open `http://127.0.0.1:8080` in two windows and draw; `http://127.0.0.1:8080/?board=plans` is another board. A
//! double click leaves a stamp, and one with the shift key a stamp that is too large, which a filter refuses. The hub
//! is `/hubs/whiteboard`. Another address to listen on can be given as an argument. What was drawn is kept by this
//! process, so newcomers of a cluster would need a store.

mod common;

use std::collections::{HashMap, VecDeque};
use std::error::Error;
use std::time::Duration;

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::response::Html;
use axum::routing::get;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use hubcast::hub::{Event, Filter, Invoked, Next, Reply, State, Upload};
use hubcast::{Context, Gateway, Hub, HubError, Options};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::time::{MissedTickBehavior, interval};

const BOARDS: [&str; 3] = ["main", "plans", "sketches"];
const COLOURS: [&str; 6] = ["#d33", "#27c", "#293", "#a3a", "#d80", "#088"];
/// Most points of a stroke, and most bytes of one as an argument.
const MAX_POINTS: usize = 200;
const MAX_STROKE_BYTES: usize = 16 * 1024;
/// Strokes that go out in one message, and how long one waits for others.
const BATCH: usize = 64;
const PAUSE: Duration = Duration::from_millis(30);
/// Most strokes that are kept of a board.
const MAX_KEPT: usize = 200;

#[derive(Clone, Serialize, Deserialize)]
struct Stroke {
    points: Vec<(f32, f32)>,
    width: f32,
}

impl Stroke {
    fn check(&self) -> Result<(), HubError> {
        if self.points.len() > MAX_POINTS || !(0.5..=40.0).contains(&self.width) {
            return Err(HubError::new("this stroke is too large"));
        }
        Ok(())
    }
}

/// The message that the other members of a board are sent.
#[derive(Clone, Serialize)]
struct Drawn {
    colour: &'static str,
    strokes: Vec<Stroke>,
}

impl Event for Drawn {
    const TARGET: &'static str = "Drawn";
}

/// The hub's data for one connection.
#[derive(Clone)]
struct Seat {
    board: String,
    colour: &'static str,
}

/// The past strokes of each board, for members who come later.
struct Boards(HashMap<&'static str, Mutex<VecDeque<Drawn>>>);

impl Boards {
    fn new() -> Self {
        Self(BOARDS.map(|name| (name, Mutex::default())).into())
    }

    fn board(&self, name: &str) -> Result<&Mutex<VecDeque<Drawn>>, HubError> {
        self.0
            .get(name)
            .ok_or_else(|| HubError::new("there is no such board"))
    }

    fn keep(&self, name: &str, drawn: Drawn) -> Result<(), HubError> {
        let mut board = self.board(name)?.lock();
        board.push_back(drawn);
        let mut kept: usize = board.iter().map(|drawn| drawn.strokes.len()).sum();
        while kept > MAX_KEPT {
            kept -= board.pop_front().map_or(kept, |oldest| oldest.strokes.len());
        }
        Ok(())
    }
}

#[derive(Serialize)]
struct Joined {
    colour: &'static str,
    drawn: VecDeque<Drawn>,
}

async fn join(context: Context, boards: State<Boards>, board: String) -> Result<Joined, HubError> {
    let drawn = boards.board(&board)?;
    let sum: usize = context.connection_id().as_str().bytes().map(usize::from).sum();
    let colour = COLOURS[sum % COLOURS.len()];
    context.join(&board).await?;
    // After joining: a stroke drawn meanwhile may come twice, which shows no difference, but is not missed.
    let drawn = drawn.lock().clone();
    let seat = Seat { board, colour };
    if let Some(earlier) = context.connection().data().insert(seat.clone())
        && earlier.board != seat.board
    {
        context.leave(&earlier.board).await?;
    }
    Ok(Joined { colour, drawn })
}

async fn publish(context: &Context, boards: &Boards, strokes: Vec<Stroke>) -> Result<(), HubError> {
    let Some(Seat { board, colour }) = context.connection().data().get() else {
        return Err(HubError::new("join a board first"));
    };
    let drawn = Drawn { colour, strokes };
    context.clients().others_in_group(&board).emit(&drawn).await?;
    boards.keep(&board, drawn)
}

/// Passes strokes on until the client ends the upload or leaves. Returns how many there were.
async fn draw(context: Context, boards: State<Boards>, mut strokes: Upload<Stroke>) -> Result<u64, HubError> {
    let mut flush = interval(PAUSE);
    flush.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut batch = Vec::new();
    let mut count = 0;
    loop {
        let next = tokio::select! {
            next = strokes.next() => next,
            _ = flush.tick(), if !batch.is_empty() => {
                publish(&context, &boards, std::mem::take(&mut batch)).await?;
                continue;
            }
        };
        let Some(stroke) = next.transpose()? else { break };
        stroke.check()?; // a filter sees arguments, not the items of an upload
        batch.push(stroke);
        count += 1;
        if batch.len() == BATCH {
            publish(&context, &boards, std::mem::take(&mut batch)).await?;
        }
    }
    if !batch.is_empty() {
        publish(&context, &boards, batch).await?;
    }
    Ok(count)
}

/// One stroke by itself.
async fn stamp(context: Context, boards: State<Boards>, stroke: Stroke) -> Result<(), HubError> {
    stroke.check()?;
    publish(&context, &boards, vec![stroke]).await
}

/// Refuses a drawing that is too large before anything is decoded.
struct SmallArguments;

impl Filter for SmallArguments {
    fn invoke<'a>(&'a self, invoked: &'a Invoked, next: Next<'a>) -> BoxFuture<'a, Result<Reply, HubError>> {
        let too_large = |argument: &hubcast::protocol::Value| argument.bytes().len() > MAX_STROKE_BYTES;
        if invoked.arguments().iter().any(too_large) {
            let text = format!("{} takes at most {MAX_STROKE_BYTES} bytes", invoked.method());
            return Box::pin(async { Err(HubError::new(text)) });
        }
        next.run(invoked)
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let hub = Hub::new("whiteboard")
        .state(Boards::new())
        .method("Join", join)
        .method("Draw", draw)
        .method("Stamp", stamp)
        .filter(SmallArguments)
        .configure(|options| {
            // A stroke that is somewhat too large is refused; only a huge message ends the connection.
            options.limits.message_bytes = 256 * 1024;
            options.limits.outbox_bytes = 4 * 1024 * 1024;
            options.hubs.stream_buffer = 2 * BATCH;
            options.hubs.parallel_invocations = 4;
        });
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
<html lang="en"><meta charset="utf-8"><title>Whiteboard</title>
<style>
  body { font: 16px system-ui, sans-serif; margin: 1rem; }
  canvas { border: 1px solid #bbb; touch-action: none; }
</style>
<p id="status" role="status">Connecting…</p>
<canvas id="board" width="1000" height="600"></canvas>
<script src="/signalr.js"></script>
<script>
  "use strict";
  const canvas = document.getElementById("board");
  const pen = canvas.getContext("2d");
  const status = (text) => { document.getElementById("status").textContent = text; };
  const board = new URLSearchParams(location.search).get("board") || "main";
  const connection = new signalR.HubConnectionBuilder().withUrl("/hubs/whiteboard").withAutomaticReconnect().build();
  let colour = "#000", strokes = null, points = [];

  function paint(colour, stroke) {
    Object.assign(pen, { strokeStyle: colour, lineWidth: stroke.width, lineCap: "round", lineJoin: "round" });
    pen.beginPath();
    for (const [x, y] of stroke.points) pen.lineTo(x, y);
    pen.stroke();
  }
  const paintAll = (drawn) => drawn.strokes.forEach((stroke) => paint(drawn.colour, stroke));

  async function join() {
    const joined = await connection.invoke("Join", board);
    colour = joined.colour;
    joined.drawn.forEach(paintAll);
    strokes = new signalR.Subject();
    connection.invoke("Draw", strokes).catch((error) => { strokes = null; status(error.message); });
    status(`On the board ${board}`);
  }

  /// The points drawn since the last frame go out as one stroke.
  function flush() {
    if (points.length < 2 || !strokes) return;
    const stroke = { points: points.slice(0, 200), width: 3 };
    points = points.slice(-1);
    strokes.next(stroke);
    paint(colour, stroke);
  }
  const point = (event) => [event.offsetX, event.offsetY];
  canvas.addEventListener("pointerdown", (event) => { points = [point(event)]; });
  canvas.addEventListener("pointermove", (event) => {
    if (event.buttons === 0 || points.length === 0) return;
    points.push(point(event));
    if (points.length === 2) requestAnimationFrame(flush);
  });
  canvas.addEventListener("pointerup", flush);
  canvas.addEventListener("dblclick", (event) => {
    const [x, y] = point(event), corners = event.shiftKey ? 5000 : 6;
    const turn = (index) => index * 4 * Math.PI / 5;
    const points = Array.from({ length: corners }, (_, i) => [x + 30 * Math.sin(turn(i)), y - 30 * Math.cos(turn(i))]);
    const stroke = { points, width: 2 };
    connection.invoke("Stamp", stroke).then(() => paint(colour, stroke), (error) => status(error.message));
  });
  connection.on("Drawn", paintAll);
  connection.onreconnecting(() => { strokes = null; status("Connection lost, trying again…"); });
  connection.onreconnected(() => join().catch((error) => status(error.message)));
  connection.onclose(() => { strokes = null; status("Disconnected; reload the page"); });
  connection.start().then(join).catch((error) => status(error.message));
</script>
</html>
"##;
