//! WebSockets frame by frame: the cases of the Autobahn test suite (numbers as there), but those of compression, which is not
//! offered, and of speed. No method of the demo hub is called `message`, so that each message is answered by an error: one that was
//! read whole differs from one that was not.

use hubcast_tests::cluster::Plan;
use hubcast_tests::webpubsub::End;
use hubcast_tests::websocket::Message;
use tokio::io::AsyncWriteExt;

use super::raw::{BINARY, CLOSE, CONTINUATION, FIN, PING, PONG, Raw, Seen, TEXT, close, frame};
use super::{JSON, PLAIN, RELIABLE};

/// A case: what is sent, in pieces of this many bytes, and what is seen.
struct Case {
    name: String,
    sent: Vec<u8>,
    pieces: usize,
    seen: Vec<Seen>,
    /// The bytes that are sent after this many answers.
    last: Option<(usize, Vec<u8>)>,
}

fn case(name: impl Into<String>, sent: &[Vec<u8>], seen: &[Seen]) -> Case {
    Case {
        name: name.into(),
        sent: sent.concat(),
        pieces: usize::MAX,
        seen: seen.to_vec(),
        last: None,
    }
}

/// A case that ends with a Close of the client after all the rest was answered.
fn good(name: impl Into<String>, sent: &[Vec<u8>], mut seen: Vec<Seen>) -> Case {
    let last = Some((seen.len(), close(1_000, "done")));
    seen.extend([Seen::Close(1_000), Seen::End]);
    Case {
        last,
        ..case(name, sent, &seen)
    }
}

fn bad(name: impl Into<String>, sent: &[Vec<u8>], code: u16) -> Case {
    case(name, sent, &[Seen::Close(code), Seen::End])
}

fn text(payload: &str) -> Vec<u8> {
    frame(FIN | TEXT, payload.as_bytes())
}

/// 1: sizes. 2: pings. 3: reserved bits. 4: opcodes.
fn framing() -> Vec<Case> {
    let mut cases = Vec::new();
    for kind in [TEXT, BINARY] {
        for size in [0, 125, 126, 127, 128, 65_535, 65_536] {
            let sent = frame(FIN | kind, &vec![b'*'; size]);
            let name = format!("1.{kind}: {size} bytes");
            cases.push(good(&name, std::slice::from_ref(&sent), vec![Seen::Answer]));
            let pieces = 997;
            cases.push(Case {
                pieces,
                ..good(name, &[sent], vec![Seen::Answer])
            });
        }
    }
    for payload in [
        vec![],
        b"Hello, world!".to_vec(),
        vec![0, 0xFF, 0xFE],
        vec![0xFE; 125],
    ] {
        let name = format!("2: a ping of {} bytes", payload.len());
        let sent = frame(FIN | PING, &payload);
        let seen = vec![Seen::Pong(payload)];
        cases.push(good(&name, std::slice::from_ref(&sent), seen.clone()));
        cases.push(Case {
            pieces: 1,
            ..good(name, &[sent], seen)
        });
    }
    cases.push(bad(
        "2.5: a ping of 126 bytes",
        &[frame(FIN | PING, &[0xFE; 126])],
        1_002,
    ));
    cases.push(good(
        "2.7, 2.8: pongs that nobody asked for",
        &[frame(FIN | PONG, b""), frame(FIN | PONG, b"x")],
        vec![],
    ));
    let ping = frame(FIN | PING, b"payload");
    let pong = Seen::Pong(b"payload".to_vec());
    cases.push(good(
        "2.9: a pong, then a ping",
        &[frame(FIN | PONG, b"x"), ping.clone()],
        vec![pong.clone()],
    ));
    cases.push(good("2.10: ten pings", &vec![ping; 10], vec![pong; 10]));
    for bits in 1..8 {
        let sent = [
            text("Hello"),
            frame(FIN | bits << 4 | TEXT, b"Hello"),
            frame(FIN | PING, b""),
        ];
        cases.push(case(
            format!("3: reserved bits {bits}"),
            &sent,
            &[Seen::Answer, Seen::Close(1_002), Seen::End],
        ));
    }
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        for payload in ["", "reserved"] {
            let sent = frame(FIN | opcode, payload.as_bytes());
            cases.push(bad(format!("4: opcode {opcode}"), &[sent], 1_002));
        }
    }
    cases
}

/// 5: messages in parts.
fn parts() -> Vec<Case> {
    let ping = |last| frame(last | PING, b"ping");
    let pong = Seen::Pong(b"ping".to_vec());
    let (first, next, last) = (
        frame(TEXT, b"fragment1"),
        frame(CONTINUATION, b"fragment2"),
        frame(FIN | CONTINUATION, b"fragment3"),
    );
    let mut cases = vec![
        bad(
            "5.1: a ping in parts",
            &[ping(0), frame(FIN | CONTINUATION, b"x")],
            1_002,
        ),
        bad(
            "5.2: a pong in parts",
            &[frame(PONG, b"p"), frame(FIN | CONTINUATION, b"x")],
            1_002,
        ),
        bad("5.9: a part of nothing", &[last.clone(), text("Hello")], 1_002),
        bad(
            "5.12: a part of nothing that is not the last",
            &[next.clone(), text("Hello")],
            1_002,
        ),
        bad(
            "5.15: a part after the last",
            &[first.clone(), last.clone(), next.clone()],
            1_002,
        ),
        bad(
            "5.18: a second beginning",
            &[first.clone(), text("fragment2")],
            1_002,
        ),
    ];
    cases[4].seen.insert(0, Seen::Answer);
    for pieces in [usize::MAX, 1] {
        let name = "5.3 to 5.8, 5.19: parts with pings between them";
        let sent = [
            first.clone(),
            ping(FIN),
            next.clone(),
            next.clone(),
            ping(FIN),
            next.clone(),
            last.clone(),
        ];
        let seen = vec![pong.clone(), pong.clone(), Seen::Answer];
        cases.push(Case {
            pieces,
            ..good(name, &sent, seen)
        });
        let sent = [first.clone(), last.clone()];
        cases.push(Case {
            pieces,
            ..good("5.3: two parts", &sent, vec![Seen::Answer])
        });
    }
    cases
}

/// 6: texts that are UTF-8, and those that are not.
fn texts() -> Vec<Case> {
    let mut cases = vec![
        good(
            "6.1: empty",
            &[text(""), frame(TEXT, b""), frame(FIN | CONTINUATION, b"")],
            vec![Seen::Answer; 2],
        ),
        good(
            "6.1.3: an empty frame on each side",
            &[
                frame(TEXT, b""),
                frame(CONTINUATION, b"middle"),
                frame(FIN | CONTINUATION, b""),
            ],
            vec![Seen::Answer],
        ),
    ];
    let word = "Hello-µ@ßöäüàá-UTF-8!!";
    cases.push(good("6.2.1: letters", &[text(word)], vec![Seen::Answer]));
    let bytes: Vec<_> = word.bytes().collect();
    let mut split: Vec<_> = bytes.iter().map(|byte| frame(CONTINUATION, &[*byte])).collect();
    split[0] = frame(TEXT, &bytes[..1]);
    split.push(frame(FIN | CONTINUATION, b""));
    cases.push(good(
        "6.2.3: letters in parts of a byte",
        &split,
        vec![Seen::Answer],
    ));
    let valid = [
        "κόσμε",
        "\u{80}",
        "\u{800}",
        "\u{10000}",
        "\u{7f}",
        "\u{7ff}",
        "\u{ffff}",
        "\u{10ffff}",
        "\u{d7ff}",
        "\u{e000}",
        "\u{fffd}",
        "\u{fffe}",
        "\u{1fffe}",
        "\u{10fffe}",
        "\0",
    ];
    for text_ in valid {
        cases.push(good(format!("6: {text_:?}"), &[text(text_)], vec![Seen::Answer]));
        cases.push(Case {
            pieces: 1,
            ..good(
                format!("6: {text_:?} byte by byte"),
                &[text(text_)],
                vec![Seen::Answer],
            )
        });
    }
    let invalid: [&[u8]; 26] = [
        b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited",
        b"\xce",
        b"\xce\xba\xe1",
        b"\xce\xba\xe1\xbd",
        b"\xf8\x88\x80\x80\x80",
        b"\xfc\x84\x80\x80\x80\x80",
        b"\xf7\xbf\xbf\xbf",
        b"\xfb\xbf\xbf\xbf\xbf",
        b"\xfd\xbf\xbf\xbf\xbf\xbf",
        b"\xf4\x90\x80\x80",
        b"\x80",
        b"\xbf",
        b"\x80\xbf\x80",
        b"\xc0\x20",
        b"\xe0\x80\x20",
        b"\xfe",
        b"\xff",
        b"\xfe\xfe\xff\xff",
        b"\xc0\xaf",
        b"\xe0\x80\xaf",
        b"\xf0\x80\x80\xaf",
        b"\xc0\x80",
        b"\xed\xa0\x80",
        b"\xed\xbf\xbf",
        b"\xed\xa0\x80\xed\xb0\x80",
        b"\xf4\x90\x80\x80",
    ];
    for payload in invalid {
        let name = format!("6: {payload:x?}");
        cases.push(bad(&name, &[frame(FIN | TEXT, payload)], 1_007));
        let (begin, end) = payload.split_at(payload.len() / 2);
        cases.push(bad(
            name,
            &[frame(TEXT, begin), frame(FIN | CONTINUATION, end)],
            1_007,
        ));
    }
    cases
}

/// 7: closing. 9: what is too large.
fn closing() -> Vec<Case> {
    let mut cases = vec![
        good(
            "7.1.1: a message, then Close",
            &[text("Hello")],
            vec![Seen::Answer],
        ),
        case(
            "7.1.2: two Closes",
            &[close(1_000, ""), close(1_000, "")],
            &[Seen::Close(1_000), Seen::End],
        ),
        case(
            "7.1.3: a ping after Close",
            &[close(1_000, ""), frame(FIN | PING, b"")],
            &[Seen::Close(1_000), Seen::End],
        ),
        case(
            "7.1.4: a message after Close",
            &[close(1_000, ""), text("Hello")],
            &[Seen::Close(1_000), Seen::End],
        ),
        case(
            "7.1.5: the end of a message after Close",
            &[
                frame(TEXT, b"x"),
                close(1_000, ""),
                frame(FIN | CONTINUATION, b"y"),
            ],
            &[Seen::Close(1_000), Seen::End],
        ),
        case(
            "7.3.1: no code",
            &[frame(FIN | CLOSE, b"")],
            &[Seen::Close(1_005), Seen::End],
        ),
        bad("7.3.2: half a code", &[frame(FIN | CLOSE, b"a")], 1_002),
        case(
            "7.3.4: words",
            &[close(1_000, "Hello World!")],
            &[Seen::Close(1_000), Seen::End],
        ),
        case(
            "7.3.5: the most words",
            &[close(1_000, &"*".repeat(123))],
            &[Seen::Close(1_000), Seen::End],
        ),
        bad("7.3.6: too many words", &[close(1_000, &"*".repeat(124))], 1_002),
        bad(
            "7.5.1: words that are not UTF-8",
            &[frame(FIN | CLOSE, b"\x03\xe8\xce\xba\xe1\xbd\xb9\xed\xa0\x80")],
            1_007,
        ),
        bad(
            "9: more than is read",
            &[frame(TEXT, b""), frame(FIN | CONTINUATION, &vec![b'*'; 100_000])],
            1_009,
        ),
    ];
    for code in [
        1_000, 1_001, 1_002, 1_003, 1_007, 1_008, 1_009, 1_010, 1_011, 3_000, 3_999, 4_000, 4_999,
    ] {
        cases.push(case(
            format!("7.7: {code}"),
            &[close(code, "")],
            &[Seen::Close(code), Seen::End],
        ));
    }
    for code in [
        0, 999, 1_004, 1_005, 1_006, 1_016, 1_100, 2_000, 2_999, 5_000, 65_535,
    ] {
        cases.push(bad(format!("7.9: {code}"), &[close(code, "")], 1_002));
    }
    cases
}

#[tokio::test]
async fn each_case_ends_with_the_code_that_the_protocol_says() {
    let plan = Plan::one_node()
        .set("limits.message_bytes", 70_000)
        .set("limits.http_body_bytes", 90_000);
    let mut cluster = plan.start().await;
    let mut wrong = Vec::new();
    for case in [framing(), parts(), texts(), closing()].into_iter().flatten() {
        let mut raw = Raw::open(super::at(&cluster, 0)).await;
        raw.tcp.set_nodelay(true).expect("it is a TCP socket");
        for piece in case.sent.chunks(case.pieces.min(case.sent.len()).max(1)) {
            // A server that has seen enough may have ended it.
            let _ended = raw.tcp.write_all(piece).await;
        }
        let mut seen = Vec::new();
        while seen.last() != Some(&Seen::End) {
            if let Some((_, last)) = case.last.as_ref().filter(|(after, _)| *after == seen.len()) {
                let _ended = raw.tcp.write_all(last).await;
            }
            seen.push(raw.seen().await);
        }
        if seen != case.seen {
            wrong.push(format!("{}: {seen:?}, not {:?}", case.name, case.seen));
        }
    }
    assert!(wrong.is_empty(), "{} cases:\n{}", wrong.len(), wrong.join("\n"));
    cluster.is_tidy().await;
}

#[tokio::test]
async fn a_node_that_leaves_tells_that_clients_are_to_come_back() {
    let cluster = Plan::one_node().start().await;
    let mut clients = Vec::new();
    for protocol in [PLAIN, JSON] {
        clients.push(super::demo(&cluster, 0, protocol).await);
    }
    cluster.nodes[0].terminate();
    for mut client in clients {
        assert_eq!(
            client.rest().await.1,
            End::Closed(1_012),
            "1000 would be a goodbye for good"
        );
    }
}

#[tokio::test]
async fn each_kind_of_client_is_answered_when_it_closes() {
    let mut cluster = Plan::nodes(2).start().await;
    for protocol in [PLAIN, JSON, RELIABLE] {
        let mut client = super::demo(&cluster, 1, protocol).await;
        client.socket().send(Message::Close(None)).await;
        assert_eq!(client.rest().await.1, End::Closed(1_005), "{protocol}");
    }
    cluster.is_tidy().await;
}
