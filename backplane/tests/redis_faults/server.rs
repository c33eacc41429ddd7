//! Tests of the keys that stay on a server, and of the servers that are accepted.

use std::sync::Arc;
use std::time::Duration;

use hubcast_backplane::conformance::{eventually, group, open, record};
use hubcast_backplane::redis::{RedisBackplane, RedisOptions};
use hubcast_backplane::{BackplaneError, End, HubOptions, Topic};

use crate::support::RedisServer;
use crate::{many, one};

#[tokio::test]
async fn nothing_stays_of_connections_that_ended() {
    let server = RedisServer::start().await;
    let nodes = server.nodes(2).await;
    let members = open(&nodes, HubOptions::default()).await;
    for member in &members {
        for number in 0..5 {
            let connection = member.connect(Some("u")).await;
            member.join(&connection, &format!("g{number}")).await;
            member.publish(Topic::Connection(connection.clone()), "m").await;
            assert!(
                member
                    .hub
                    .remove(&connection, End::unreported(Duration::from_millis(1)))
                    .await
                    .unwrap()
            );
        }
        let claimed = record(None);
        member.hub.claim(&claimed).await.unwrap();
        member.hub.release(&claimed.id).await.unwrap();
    }
    for node in &nodes {
        node.shutdown().await;
    }
    let hub = members[0].hub.name().as_str();
    let allowed = [
        "hubcast:{*}:cluster".to_owned(),
        "hubcast:{*}:hubs".to_owned(),
        "hubcast:{*}:secret".to_owned(),
        format!("hubcast:{{{hub}}}:log"),
    ];
    eventually("the keys are gone", async || {
        let keys = server.keys().await;
        let ends =
            ["log:slice", "batch:", "tail:g:", "tail:u:"].map(|name| format!("hubcast:{{{hub}}}:{name}")); // by themselves
        let stays = |key: &String| allowed.contains(key) || ends.iter().any(|end| key.starts_with(end));
        keys.iter().all(stays).then_some(())
    })
    .await;
}

#[tokio::test]
async fn unused_channels_are_left() {
    let server = RedisServer::start().await;
    let member = one(server.node("a").await, HubOptions::default()).await;
    let connection = member.connect(Some("u")).await;
    for number in 0..20 {
        member.join(&connection, &format!("g{number}")).await;
    }
    let channels = async || -> usize {
        let mut look = server.look().await;
        let channels: Vec<String> = redis::cmd("PUBSUB")
            .arg("CHANNELS")
            .query_async(&mut look)
            .await
            .unwrap();
        channels.len()
    };
    assert_eq!(channels().await, 24, "node, lane, all, user and the groups");
    member.remove(&connection).await;
    eventually("only node and lane are left", async || {
        (channels().await == 2).then_some(())
    })
    .await;
    let connection = member.connect(None).await;
    member.publish(Topic::All, "end").await;
    member.sink.received_until(&connection, "end").await;
    assert_eq!(member.sink.gaps(), 0);
}

#[tokio::test]
async fn a_server_with_users_is_used_with_the_right_password_only() {
    let server = RedisServer::start().await;
    server
        .command("ACL SETUSER hubcast on >open-sesame ~hubcast:* &hubcast:* +@all -@dangerous +info +client")
        .await;
    let url = |password: &str| format!("redis://hubcast:{password}@127.0.0.1:{}", server.port());
    let wrong = RedisOptions::parse(&url("wrong-word")).unwrap();
    let error = RedisBackplane::connect(wrong).await.err().unwrap();
    assert!(matches!(error, BackplaneError::Config { .. }), "{error:?}");
    let text = format!("{error} {error:?}");
    assert!(
        text.contains("password") && !text.contains("wrong-word"),
        "{text}"
    );
    let right = RedisOptions::parse(&url("open-sesame")).unwrap();
    let member = one(Arc::new(RedisBackplane::connect(right).await.unwrap()), many()).await;
    let connection = member.connect(Some("u")).await;
    member.join(&connection, "g").await;
    member.publish(Topic::Group(group("g")), "end").await;
    member.sink.received_until(&connection, "end").await;
    assert!(member.remove(&connection).await);
    member.node.shutdown().await;
}

#[tokio::test]
async fn a_server_is_reached_by_tls_with_its_own_authority() {
    let dir = tempfile::TempDir::new().unwrap();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let server = RedisServer::start_with(&[
        "--port 0",
        "--tls-port PORT",
        &format!("--tls-cert-file {}", cert.display()),
        &format!("--tls-key-file {}", key.display()),
        "--tls-auth-clients no",
    ])
    .await;
    let url = format!("rediss://localhost:{}", server.port());
    let mut options = RedisOptions::parse(&url).unwrap();
    let error = RedisBackplane::connect(options.clone()).await.err().unwrap();
    assert!(matches!(error, BackplaneError::Config { .. }), "{error:?}");
    assert!(error.to_string().contains("backplane.ca_file"), "{error}");
    options.ca_file = Some(cert);
    let member = one(Arc::new(RedisBackplane::connect(options).await.unwrap()), many()).await;
    let connection = member.connect(None).await;
    member.publish(Topic::All, "end").await;
    member.sink.received_until(&connection, "end").await;
}

#[tokio::test]
async fn a_server_that_is_not_there_is_told_within_the_bound() {
    let mut server = RedisServer::start().await;
    server.kill().await;
    let mut options = server.options("a");
    options.command_timeout = Duration::from_millis(300);
    let error = RedisBackplane::connect(options).await.err().unwrap();
    assert!(matches!(error, BackplaneError::Unavailable { .. }), "{error:?}");
    assert!(error.to_string().contains("refused"), "{error}");
}

/// A node goes on trying while a server is away; it fails where only another configuration helps.
#[tokio::test]
async fn what_trying_can_not_mend_is_told_from_what_it_can() {
    let server = RedisServer::start().await;
    let port = server.port();
    server
        .command("ACL SETUSER reader on >word ~* &* +@read +hello +info")
        .await;
    for (url, reported) in [
        (
            format!("redis://127.0.0.1:{port}/99"),
            "does not have the database",
        ),
        (format!("redis://reader:word@127.0.0.1:{port}"), "does not permit"),
        (
            format!("redis://nobody:word@127.0.0.1:{port}"),
            "user name or password",
        ),
    ] {
        let error = RedisBackplane::connect(RedisOptions::parse(&url).unwrap())
            .await
            .err()
            .unwrap();
        assert!(matches!(error, BackplaneError::Config { .. }), "{url}: {error:?}");
        assert!(error.to_string().contains(reported), "{url}: {error}");
    }
    for url in [
        "redis://no-such-host.invalid",
        "redis://127.0.0.1:1",
        "redis+sentinel://no-such-host.invalid/m",
    ] {
        let mut options = RedisOptions::parse(url).unwrap();
        options.connect_wait = Some(Duration::ZERO);
        let error = RedisBackplane::connect(options).await.err().unwrap();
        assert!(
            matches!(error, BackplaneError::Unavailable { .. }),
            "{url}: {error:?}"
        );
    }
}

#[tokio::test]
async fn a_server_with_as_many_clients_as_it_takes_is_told_as_that() {
    let server = RedisServer::start().await;
    let mut look = server.look().await;
    let _: () = redis::cmd("CONFIG")
        .arg("SET")
        .arg("maxclients")
        .arg(1)
        .query_async(&mut look)
        .await
        .unwrap();
    let options = RedisOptions::parse(&server.url()).unwrap();
    let reported = RedisBackplane::inspect(options).await.unwrap_err().to_string();
    assert!(reported.contains("maxclients"), "{reported}");
}
