use std::time::Duration;

use tokio::io::{AsyncReadExt, DuplexStream, duplex};
use tokio::net::TcpListener;

use super::*;
use crate::limits::Budget;
use crate::protocol::websocket::client_frame;

const TEXT: u8 = 0x81;
const BEGINS: u8 = 0x01;
const PING: u8 = 0x89;

fn terms() -> Arc<Terms> {
    Arc::new(Terms {
        budget: Budget::new(0),
        grace: Duration::from_secs(10),
        least_rate: 1_000,
    })
}

fn socket(messages: Messages) -> (DuplexStream, WebSocket) {
    let (client, server) = duplex(1 << 20);
    (client, WebSocket::other(server, messages, terms()))
}

async fn data(socket: &mut WebSocket) -> Bytes {
    match socket.reader.next().await {
        Next::Incoming(Incoming::Data(bytes)) => bytes,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_has_to_get_on() {
    for messages in [Messages::Stream, Messages::Units { limit: 1_000_000 }] {
        let (mut client, mut socket) = socket(messages);
        client.write_all(&client_frame(TEXT, b"whole")).await.unwrap();
        assert_eq!(data(&mut socket).await, "whole");
        let idle = timeout(Duration::from_secs(600), socket.reader.next()).await;
        assert!(idle.is_err(), "who has begun nothing is never late");
        client
            .write_all(&client_frame(BEGINS, &[b'x'; 3_000]))
            .await
            .unwrap();
        let begun = tokio::time::Instant::now();
        let late = loop {
            match socket.reader.next().await {
                Next::Incoming(_) => {}
                other => break other,
            }
        };
        assert!(matches!(late, Next::Lost(TransportError::Unfinished)), "{late:?}");
        let took = begun.elapsed().as_secs();
        assert!((10..15).contains(&took), "{took}");
    }
}

#[tokio::test]
async fn what_is_unfinished_is_charged_and_nothing_is_kept_when_all_was_taken() {
    let (mut client, mut socket) = socket(Messages::Units { limit: 1 << 20 });
    let budget = Arc::clone(&socket.reader.held_budget());
    client
        .write_all(&client_frame(BEGINS, &[b'x'; 50_000]))
        .await
        .unwrap();
    let unfinished = timeout(Duration::from_millis(50), socket.reader.next()).await;
    assert!(unfinished.is_err());
    assert_eq!(budget.held(), 50_000);
    let last = client_frame(0x80, b"y");
    client.write_all(&last[..3]).await.unwrap();
    let unfinished = timeout(Duration::from_millis(50), socket.reader.next()).await;
    assert!(unfinished.is_err());
    assert_eq!(budget.held(), 50_003);
    assert!(socket.reader.tail.capacity() <= LEAST_COMPACT_BYTES);
    client.write_all(&last[3..]).await.unwrap();
    assert_eq!(data(&mut socket).await.len(), 50_001);
    assert_eq!(budget.held(), 0);
    let idle = timeout(Duration::from_millis(50), socket.reader.next()).await;
    assert!(idle.is_err());
    assert_eq!(socket.reader.tail.capacity(), 0);
}

#[tokio::test]
async fn a_tcp_socket_is_read_and_written_without_anything_before_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    let (mut client, (server, _)) = (client.unwrap(), accepted.unwrap());
    // The first bytes came with the request.
    let early = client_frame(PING, b"early");
    let mut socket = WebSocket::tcp(server, &early[..4], Messages::Stream, terms());
    client.write_all(&early[4..]).await.unwrap();
    client.write_all(&client_frame(TEXT, b"text")).await.unwrap();
    let first = socket.reader.next().await;
    assert!(matches!(&first, Next::Incoming(Incoming::Ping(payload)) if payload == "early"));
    assert_eq!(data(&mut socket).await, "text");
    let patience = Duration::from_secs(10);
    let mut frames = vec![Bytes::from_static(b"one"), Bytes::from_static(b"two")];
    socket.writer.write(&mut frames, patience).await.unwrap();
    let ending = socket.end(1_000, "bye", patience);
    let reading = async {
        let mut all = vec![0; 6 + 7];
        client.read_exact(&mut all).await.unwrap();
        assert_eq!(all, b"onetwo\x88\x05\x03\xe8bye");
        drop(client);
    };
    tokio::join!(ending, reading);
}
