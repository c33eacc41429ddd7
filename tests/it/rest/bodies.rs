//! Bodies, versions, paths: what is refused, and how.

use hubcast_tests::http::Request;
use hubcast_tests::messagepack::{self, Value as Packed};
use hubcast_tests::rest::{Rest, dated};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{World, said, say};

fn pack(value: &Packed) -> Vec<u8> {
    let mut bytes = Vec::new();
    rmpv::encode::write_value(&mut bytes, value).unwrap();
    bytes
}

async fn send(rest: &Rest, media: &str, body: Vec<u8>) -> (u16, String) {
    let request = rest
        .request("POST", &dated("/:send"))
        .header("Content-Type", media);
    let response = rest.fetch(&request.body(body)).await;
    (response.status(), response.text().to_owned())
}

#[tokio::test]
async fn a_body_may_be_messagepack() {
    let mut world = World::start().await;
    let message = messagepack::from_json(&json!({ "Target": "Say", "arguments": ["packed"], "x": 1 }));
    let (status, text) = send(&world.rest, "application/x-msgpack", pack(&message)).await;
    assert_eq!((status, text.as_str()), (202, ""));
    let expected = vec![said("packed")];
    assert_eq!(world.received().await, [expected.clone(), expected]);
    for bad in [
        Vec::new(),
        vec![0x80],
        vec![0x90],
        vec![0xC1],
        b"\x81\xa6target".to_vec(),
        [pack(&message), vec![0xC0]].concat(),
        vec![0x91; 1_000],
    ] {
        let (status, text) = send(&world.rest, "application/x-msgpack", bad).await;
        assert_eq!(status, 400, "{text}");
    }
    world.ends().await;
}

/// PowerShell and .NET put a mark before a text; some agents compress what they send.
#[tokio::test]
async fn a_mark_before_json_is_skipped_and_compressed_bodies_are_refused_in_words() {
    let mut world = World::start().await;
    let body = format!("\u{feff}{}", say("marked"));
    let (status, text) = send(&world.rest, "application/json", body.into_bytes()).await;
    assert_eq!((status, text.as_str()), (202, ""));
    let expected = vec![said("marked")];
    assert_eq!(world.received().await, [expected.clone(), expected]);
    for coding in ["gzip", "br", "identity, gzip"] {
        let request = world.rest.message(&dated("/:send"), &say("packed"));
        let response = world
            .rest
            .fetch(&request.header("Content-Encoding", coding))
            .await;
        assert_eq!(response.status(), 415);
        assert_eq!(response.head.header("accept-encoding"), Some("identity"));
        let told = response.json()["message"].as_str().unwrap_or_default().to_owned();
        assert!(told.contains(&format!("Content-Encoding: {coding}")), "{told}");
    }
    let request = world.rest.message(&dated("/:send"), &say("plain"));
    let response = world
        .rest
        .fetch(&request.header("Content-Encoding", "identity"))
        .await;
    assert_eq!(response.status(), 202);
    world.ends().await;
}

#[tokio::test]
async fn each_protocol_gets_what_was_written_for_it() {
    let mut world = World::start().await;
    let json = "{\"type\":1,\"target\":\"Say\",\"arguments\":[\"for json\"]}\u{1e}";
    let call = Packed::Array(vec![
        1.into(),
        Packed::Map(Vec::new()),
        Packed::Nil,
        "Say".into(),
        Packed::Array(vec!["for messagepack".into()]),
        Packed::Array(Vec::new()),
    ]);
    let frames = |which: &[(&str, Vec<u8>)]| {
        let pairs = which
            .iter()
            .map(|(name, frame)| (Packed::from(*name), Packed::Binary(frame.clone())));
        pack(&Packed::Map(pairs.collect()))
    };
    let (text, packed) = (json.as_bytes().to_vec(), messagepack::frame(&call));
    let both = frames(&[
        ("json", text.clone()),
        ("messagepack", packed.clone()),
        ("other", vec![7]),
    ]);
    assert_eq!(send(&world.rest, "application/octet-stream", both).await.0, 202);
    assert_eq!(
        world.received().await,
        [vec![said("for json")], vec![said("for messagepack")]]
    );
    let turned = frames(&[("messagepack", packed.clone()), ("json", text.clone())]);
    assert_eq!(send(&world.rest, "application/octet-stream", turned).await.0, 202);
    assert_eq!(
        world.received().await,
        [vec![said("for json")], vec![said("for messagepack")]]
    );
    for (alone, expected) in [
        (("json", text.clone()), "for json"),
        (("messagepack", packed.clone()), "for messagepack"),
    ] {
        assert_eq!(
            send(&world.rest, "application/octet-stream", frames(&[alone]))
                .await
                .0,
            202
        );
        let expected = vec![said(expected)];
        assert_eq!(
            world.received().await,
            [expected.clone(), expected],
            "a converted copy"
        );
    }
    for bad in [
        frames(&[]),
        frames(&[("other", vec![7])]),
        frames(&[("json", b"{\"type\":1}".to_vec())]),
        frames(&[("json", b"{\"type\":6}\x1e".to_vec())]),
        frames(&[("json", [text.clone(), text.clone()].concat())]),
        frames(&[("messagepack", packed[..3].to_vec())]),
        frames(&[
            ("json", text),
            (
                "messagepack",
                messagepack::frame(&messagepack::invocation("1", "Other", vec![])),
            ),
        ]),
        b"{}".to_vec(),
    ] {
        let (status, text) = send(&world.rest, "application/octet-stream", bad).await;
        assert_eq!(status, 400, "{text}");
    }
    world.ends().await;
}

#[tokio::test]
async fn what_is_no_message_is_refused_with_the_reason() {
    let world = World::start().await;
    for (body, text) in [
        ("", "Message in request body is required."),
        ("{", "line 1"),
        ("[]", "object"),
        ("{}", "target"),
        ("{\"target\":\"\"}", "target"),
        ("{\"target\":7}", "target"),
        ("{\"target\":\"t\",\"arguments\":{}}", "arguments"),
        ("{\"target\":\"t\"} x", "trailing"),
        ("\u{FEFF}\u{FEFF}{\"target\":\"t\"}", "can't be read"),
    ] {
        let (status, answer) = send(&world.rest, "application/json", body.as_bytes().to_vec()).await;
        assert_eq!(status, 400, "{body}");
        assert!(answer.contains(text), "{body}: {answer}");
    }
    assert_eq!(
        send(&world.rest, "application/json", b"\xFF".to_vec()).await.0,
        400
    );
    let deep = format!(
        "{{\"target\":\"t\",\"arguments\":[{}{}]}}",
        "[".repeat(70),
        "]".repeat(70)
    );
    assert_eq!(
        send(&world.rest, "application/json", deep.into_bytes()).await.0,
        400
    );
    for media in [
        "text/plain",
        "application/jsonp",
        "application/x-www-form-urlencoded",
        "",
    ] {
        let (status, answer) = send(&world.rest, media, say("x").to_string().into_bytes()).await;
        assert_eq!(status, 415, "{media}");
        assert!(answer.contains("application/json"), "{answer}");
    }
    world.ends().await;
}

#[tokio::test]
async fn a_body_has_a_limit_however_it_is_sent() {
    let mut world = World::with(|plan| plan.set("limits.http_body_bytes", 40_000)).await;
    let fits = say(&"x".repeat(39_000));
    assert_eq!(world.rest.send("/:send", &fits).await.status(), 202);
    let both = world.received().await;
    assert_eq!(both[0], both[1]);
    assert_eq!(both[0][0].1, fits["arguments"]);
    let response = world.rest.send("/:send", &say(&"x".repeat(40_000))).await;
    assert_eq!(response.status(), 413);
    assert!(
        response.text().contains("limits.http_body_bytes"),
        "{}",
        response.text()
    );
    for (length, expected) in [(39_000, 202), (40_000, 413)] {
        assert_eq!(
            chunked(&world.rest, &say(&"x".repeat(length)).to_string()).await,
            expected
        );
    }
    assert_eq!(world.received().await[0].len(), 1);
    world.ends().await;
}

/// Sends a body in chunks, as the SDKs do. Gives the status.
async fn chunked(rest: &Rest, body: &str) -> u16 {
    let target = dated("/:send");
    let mut stream = TcpStream::connect(rest.address()).await.unwrap();
    let head = format!(
        "POST {target} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
         Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n",
        rest.address(),
        rest.token(&target)
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    for piece in body.as_bytes().chunks(1_000) {
        let chunk = [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat();
        if stream.write_all(&chunk).await.is_err() {
            break; // it was refused
        }
    }
    let _refused = stream.write_all(b"0\r\n\r\n").await;
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    std::str::from_utf8(&answer[9..]).unwrap().parse().unwrap()
}

#[tokio::test]
async fn paths_versions_and_hubs_are_checked() {
    let world = World::start().await;
    for (method, target, status, code) in [
        (
            "POST",
            "/api/hubs/demo/:send".to_owned(),
            400,
            "Error.ApiVersion.Unsupported",
        ),
        (
            "POST",
            "/api/hubs/demo/:send?api-version=2020-01-01".to_owned(),
            400,
            "Error.ApiVersion.Unsupported",
        ),
        (
            "POST",
            "/api/hubs/demo/:send?api-version=2026-13".to_owned(),
            400,
            "Error.ApiVersion.Unsupported",
        ),
        (
            "POST",
            "/api/hubs/other/:send?api-version=2026-07-01".to_owned(), // of an SDK to come
            400,
            "Error.Hub.NotExisted",
        ),
        (
            "POST",
            "/api/hubs/other/:send?api-version=2022-06-01".to_owned(),
            400,
            "Error.Hub.NotExisted",
        ),
        (
            "POST",
            "/api/v1/hubs/other".to_owned(),
            400,
            "Error.Hub.NotExisted",
        ),
        (
            "POST",
            dated("/:send?application=shop"),
            400,
            "Error.Hub.NotExisted",
        ),
        (
            "GET",
            "/api/hubs/1demo/users/u?api-version=2022-06-01".to_owned(),
            400,
            "Error.Hub.NotExisted",
        ),
        (
            "GET",
            "/api/hubs/de%20mo/users/u?api-version=2022-06-01".to_owned(),
            400,
            "Error.BadRequest",
        ),
        (
            "POST",
            "/api/hubs//:send?api-version=2022-06-01".to_owned(),
            400,
            "Error.BadRequest",
        ),
        ("GET", "/api/nothing".to_owned(), 404, "Error.Route.NotExisted"),
        (
            "GET",
            "/api/hubs/demo/users/%FF".to_owned(),
            404,
            "Error.Route.NotExisted",
        ),
        (
            "POST",
            "/api/hubs/demo/groups/:send?api-version=2022-06-01".to_owned(),
            404,
            "Error.Route.NotExisted",
        ),
        ("PATCH", dated("/:send"), 405, "Error.Request.MethodNotAllowed"),
        ("GET", dated("/:send"), 405, "Error.Request.MethodNotAllowed"),
    ] {
        let response = world.rest.fetch(&world.rest.request(method, &target)).await;
        assert_eq!(response.status(), status, "{method} {target}");
        assert_eq!(
            response.head.header("x-ms-error-code"),
            Some(code),
            "{method} {target}"
        );
        assert_eq!(response.json()["code"], code);
    }
    let response = world.rest.fetch(&Request::new("PATCH", &dated("/users/u"))).await;
    let mut allowed = response.head.list("allow");
    allowed.sort();
    assert_eq!(allowed, ["get", "head", "post"]);
    for method in ["HEAD", "GET"] {
        for target in [
            "/api/health?api-version=2022-06-01",
            "/api/v1/health",
            "/api/health",
        ] {
            let response = world.rest.fetch(&Request::new(method, target)).await;
            assert_eq!(response.outcome(), (200, ""), "without a token");
        }
    }
    world.ends().await;
}
