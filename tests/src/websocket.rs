//! A WebSocket client that can say anything.

use std::net::SocketAddr;

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::tungstenite::http::{HeaderName, HeaderValue};
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use crate::eventually::within;

pub use tokio_tungstenite::tungstenite::Message;
pub use tokio_tungstenite::tungstenite::protocol::CloseFrame;
pub use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

/// The stream that a WebSocket runs on.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// One open WebSocket.
pub struct WebSocket {
    stream: WebSocketStream<Box<dyn Stream>>,
}

impl WebSocket {
    /// Opens one at `target` (path and query); the error is the refusal's status.
    pub async fn open(address: SocketAddr, target: &str, headers: &[(&str, &str)]) -> Result<Self, u16> {
        let request = upgrade(address, target, headers);
        let tcp = TcpStream::connect(address)
            .await
            .expect("the server accepts connections");
        tcp.set_nodelay(true).expect("a TCP socket has options");
        let tcp: Box<dyn Stream> = Box::new(tcp);
        // Some programs open thousands.
        let config = WebSocketConfig::default().read_buffer_size(4 << 10);
        let opening = client_async_with_config(request, tcp, Some(config));
        match within("a WebSocket opens", opening).await {
            Ok((stream, _)) => Ok(Self { stream }),
            Err(tokio_tungstenite::tungstenite::Error::Http(response)) => Err(response.status().as_u16()),
            Err(error) => panic!("no WebSocket at {address}{target}: {error}"),
        }
    }

    /// A WebSocket that a server has accepted already.
    pub async fn accepted(stream: impl Stream + 'static) -> Self {
        let stream: Box<dyn Stream> = Box::new(stream);
        let stream = WebSocketStream::from_raw_socket(stream, Role::Client, None).await;
        Self { stream }
    }

    /// Sends one message. That the peer has gone is not an error here: reading shows it.
    pub async fn send(&mut self, message: Message) {
        let _gone = within("a WebSocket message is sent", self.stream.send(message)).await;
    }

    /// Sends a Text message.
    pub async fn text(&mut self, text: &str) {
        self.send(Message::text(text)).await;
    }

    /// Sends a Binary message.
    pub async fn binary(&mut self, bytes: &[u8]) {
        self.send(Message::binary(bytes.to_vec())).await;
    }

    /// The next Text, Binary or Close message; `None` when the connection ended without a Close frame.
    pub async fn next(&mut self) -> Option<Message> {
        loop {
            match within("a WebSocket message arrives", self.stream.next()).await {
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Ok(message)) => {
                    if message.is_close() {
                        // The answer to it is written already, but not sent.
                        let _gone = within("a Close frame is answered", self.stream.flush()).await;
                    }
                    return Some(message);
                }
                Some(Err(_)) | None => return None,
            }
        }
    }

    /// Ends the connection without a Close frame.
    pub fn vanish(self) {
        drop(self);
    }
}

fn upgrade(address: SocketAddr, target: &str, headers: &[(&str, &str)]) -> Request {
    let mut request = format!("ws://{address}{target}")
        .into_client_request()
        .expect("a valid address");
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a valid name");
        request
            .headers_mut()
            .insert(name, HeaderValue::from_str(value).expect("a valid value"));
    }
    request
}
