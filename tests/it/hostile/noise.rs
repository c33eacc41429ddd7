//! Bytes by chance. The seed is fixed: a failure can be repeated.

use hubcast_tests::http::Connection;
use hubcast_tests::hub_client::{HubClient, JSON_HANDSHAKE, MESSAGEPACK_HANDSHAKE, Transport};

use super::Target;

/// A small generator of reproducible noise (xorshift).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(bound).unwrap()).unwrap()
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next().to_le_bytes()[3]).collect()
    }
}

#[tokio::test]
async fn noise_in_pieces_harms_nobody() {
    let target = Target::start(|plan| {
        plan.set("timeouts.handshake_seconds", 1)
            .set("timeouts.disconnect_seconds", 2)
    })
    .await;
    let mut noise = Noise(0x5EED);
    for round in 0..60 {
        let transport = Transport::ALL[round % 3];
        let mut client = HubClient::open(&target.entry, transport).await;
        if let Some(handshake) = [None, Some(MESSAGEPACK_HANDSHAKE), Some(JSON_HANDSHAKE)][round % 4 % 3] {
            client.send(handshake).await;
        }
        for _ in 0..noise.below(6) {
            let length = noise.below(400);
            let mut bytes = noise.bytes(length);
            if noise.below(2) == 0 {
                bytes.push(0x1E);
            }
            client.send(bytes).await;
        }
        // Some wait for what comes, most just go.
        if round % 5 == 0 && transport == Transport::WebSockets {
            while client.receive_any().await.is_some() {}
        }
    }
    target.ends_unharmed().await;
}

#[tokio::test]
async fn messages_with_a_changed_byte_harm_nobody() {
    let target = Target::start(|plan| plan).await;
    let mut noise = Noise(0xC0FFEE);
    let json =
        b"{\"type\":1,\"invocationId\":\"0\",\"target\":\"Echo\",\"arguments\":[{\"a\":[1,2.5,\"x\"]}]}\x1e";
    let pack: &[u8] = &[
        0x13, 0x96, 0x01, 0x80, 0xA1, b'0', 0xA4, b'E', b'c', b'h', b'o', 0x91, 0x92, 0xC4, 0x01, 0xFF, 0xCD,
        0x01, 0x00, 0x90,
    ];
    for round in 0..120 {
        let (handshake, message) = if round % 2 == 0 {
            (JSON_HANDSHAKE, &json[..])
        } else {
            (MESSAGEPACK_HANDSHAKE, pack)
        };
        let mut bytes = message.to_vec();
        for _ in 0..=noise.below(3) {
            let at = noise.below(bytes.len());
            bytes[at] = noise.bytes(1)[0];
        }
        let mut client = HubClient::open(&target.entry, Transport::WebSockets).await;
        client.send(handshake).await;
        client.send(bytes).await;
        client.send("{\"type\":7}\u{1e}").await;
    }
    target.ends_unharmed().await;
}

#[tokio::test]
async fn requests_that_are_no_http_harm_nobody() {
    let target = Target::start(|plan| plan).await;
    let mut noise = Noise(0xBADC0DE);
    for round in 0..60 {
        let mut connection = Connection::open(target.entry.turn())
            .await
            .expect("the server accepts connections");
        let bytes = match round % 6 {
            0 => noise.bytes(300),
            1 => b"GET /hubs/demo?id=%ff%fe HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
            2 => b"POST /hubs/demo?id=x HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf".to_vec(),
            3 => b"POST /hubs/demo?id=x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"
                .to_vec(),
            4 => [b"GET /", &vec![b'a'; 100_000][..], b" HTTP/1.1\r\n\r\n"].concat(),
            _ => b"GET /hubs/demo HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
                .to_vec(),
        };
        let _refused = connection.send(&bytes).await;
        if round % 2 == 0 {
            drop(connection);
        } else {
            // Whatever the answer is, there may be one.
            let waiting = tokio::time::timeout(std::time::Duration::from_millis(50), connection.head("GET"));
            let _any = waiting.await;
        }
    }
    target.ends_unharmed().await;
}
