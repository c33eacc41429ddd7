//! One WebSocket and the request before it. Unlike the tests' other clients, everything may fail here.

use std::net::SocketAddr;

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::door::HUB;
use crate::http::{Connection, Request};

/// One open WebSocket.
pub(crate) struct Link(WebSocketStream<TcpStream>);

impl Link {
    /// Opens one for a connection token; the error says how that was refused.
    pub(crate) async fn open(address: SocketAddr, token: &str) -> Result<Self, String> {
        let tcp = TcpStream::connect(address)
            .await
            .map_err(|error| format!("connecting: {}", error.kind()))?;
        tcp.set_nodelay(true).map_err(|error| error.to_string())?;
        match client_async(format!("ws://{address}{HUB}?id={token}"), tcp).await {
            Ok((stream, _)) => Ok(Self(stream)),
            Err(Error::Http(response)) => {
                let body = response.body().as_deref().unwrap_or_default();
                let body = String::from_utf8_lossy(body);
                let first = body.lines().next().unwrap_or_default();
                Err(format!("status {} {first}", response.status().as_u16()))
            }
            Err(_) => Err("no answer to the upgrade".to_owned()),
        }
    }

    /// Sends text; the error is that the socket is gone.
    pub(crate) async fn send(&mut self, text: String) -> Result<(), ()> {
        self.0.send(Message::text(text)).await.map_err(|_| ())
    }

    /// The next text; `None` when the socket is gone.
    pub(crate) async fn next(&mut self) -> Option<String> {
        loop {
            match self.0.next().await?.ok()? {
                Message::Text(text) => return Some(text.as_str().to_owned()),
                Message::Close(_) | Message::Binary(_) => return None,
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
    }

    /// Breaks the connection, as a network does that goes away.
    pub(crate) fn abort(&mut self) {
        let _gone_anyway = self.0.get_ref().set_zero_linger();
    }
}

/// Asks for a connection token with stateful reconnect.
pub(crate) async fn negotiate(address: SocketAddr) -> Result<String, String> {
    let target = format!("{HUB}/negotiate?negotiateVersion=1&useStatefulReconnect=true");
    let exchange = async {
        Connection::open(address)
            .await?
            .fetch(&Request::post(&target, ""))
            .await
    };
    let response = exchange
        .await
        .map_err(|error| format!("negotiate: {}", error.kind()))?;
    if response.status() != 200 {
        return Err(format!("negotiate: status {}", response.status()));
    }
    let answer: Value =
        serde_json::from_slice(&response.body).map_err(|error| format!("negotiate: {error}"))?;
    if answer["useStatefulReconnect"] != true {
        return Err("negotiate: no stateful reconnect".to_owned());
    }
    let token = answer["connectionToken"].as_str();
    token
        .map(str::to_owned)
        .ok_or_else(|| format!("negotiate: {answer}"))
}
