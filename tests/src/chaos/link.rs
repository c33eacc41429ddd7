//! One WebSocket and the request before it. Unlike the tests' other clients, everything may fail here.

use std::net::SocketAddr;

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::entry_point::HUB;
use crate::http::{Connection, Request};

/// One open WebSocket.
pub(crate) struct Link {
    stream: WebSocketStream<TcpStream>,
    /// The code of the peer's Close frame.
    pub(crate) code: Option<u16>,
}

impl Link {
    /// Opens one for a connection token; the error says how that was refused.
    pub(crate) async fn open(address: SocketAddr, token: &str) -> Result<Self, String> {
        Self::open_at(address, &format!("{HUB}?id={token}"), None).await
    }

    /// Opens one at a path with its query, perhaps with a subprotocol.
    pub(crate) async fn open_at(
        address: SocketAddr,
        target: &str,
        subprotocol: Option<&'static str>,
    ) -> Result<Self, String> {
        let tcp = TcpStream::connect(address)
            .await
            .map_err(|error| format!("connecting: {}", error.kind()))?;
        tcp.set_nodelay(true).map_err(|error| error.to_string())?;
        let request = format!("ws://{address}{target}").into_client_request();
        let mut request = request.map_err(|error| error.to_string())?;
        if let Some(name) = subprotocol {
            let value = HeaderValue::from_static(name);
            request.headers_mut().insert("Sec-WebSocket-Protocol", value);
        }
        match client_async(request, tcp).await {
            Ok((stream, _)) => Ok(Self { stream, code: None }),
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
        self.stream.send(Message::text(text)).await.map_err(|_| ())
    }

    /// The next text; `None` when the socket is gone.
    pub(crate) async fn next(&mut self) -> Option<String> {
        loop {
            match self.stream.next().await?.ok()? {
                Message::Text(text) => return Some(text.as_str().to_owned()),
                Message::Close(frame) => {
                    self.code = frame.map(|frame| frame.code.into());
                    return None;
                }
                Message::Binary(_) => return None,
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
    }

    /// Breaks the connection, as a network does that goes away.
    pub(crate) fn abort(&mut self) {
        let _gone_anyway = self.stream.get_ref().set_zero_linger();
    }
}

/// A connection before its first transport.
pub(crate) struct Negotiated {
    pub(crate) id: String,
    pub(crate) token: String,
}

/// Requests a connection token, perhaps with stateful reconnect.
pub(crate) async fn negotiate(address: SocketAddr, is_stateful: bool) -> Result<Negotiated, String> {
    let target = format!("{HUB}/negotiate?negotiateVersion=1&useStatefulReconnect={is_stateful}");
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
    if is_stateful && answer["useStatefulReconnect"] != true {
        return Err("negotiate: no stateful reconnect".to_owned());
    }
    match (
        answer["connectionId"].as_str(),
        answer["connectionToken"].as_str(),
    ) {
        (Some(id), Some(token)) => Ok(Negotiated {
            id: id.to_owned(),
            token: token.to_owned(),
        }),
        _ => Err(format!("negotiate: {answer}")),
    }
}
