//! Secrets stay secret: whatever is done, and however it fails, none of them is in any log, metric or trace.

use std::sync::Arc;

use hubcast_tests::cluster::Plan;
use hubcast_tests::collector::Collector;
use hubcast_tests::eventually::eventually;
use hubcast_tests::http::Request;
use hubcast_tests::hub_client::{HubClient, Transport};
use hubcast_tests::jwt::{ACCESS_KEY, now, token_with};
use serde_json::json;

#[tokio::test]
async fn no_secret_is_in_any_log_metric_or_trace() {
    let collector = Collector::start().await;
    let plan = Plan::nodes(2)
        .trace()
        .set("hubs.names", "chat")
        .set("auth.cookie", "session")
        .set("auth.refresh", true)
        .set("auth.tickets", true)
        .set("auth.close_on_expiry", true)
        .set("auth.allow_anonymous", false)
        .set("telemetry.otlp_endpoint", collector.url())
        .variable("OTEL_BSP_SCHEDULE_DELAY", 100);
    let mut cluster = plan.start().await;
    let secrets = cluster.secrets.clone();
    let entry = cluster.entry();
    let jwt = |user: &str, seconds: i64| {
        let claims = json!({ "nameid": user, "exp": now() + seconds, "role": "hubcast.send" });
        let token = token_with(&claims, ACCESS_KEY);
        secrets.add(&token);
        token
    };
    secrets.add(ACCESS_KEY);
    let (ann, bob, expired) = (jwt("ann", 600), jwt("bob", 600), jwt("ann", -600));

    // Every transport with a token of its own, and a refresh that is granted, refused, and without a user.
    let with_token = Arc::new(entry.at("/hubs/chat").with_bearer(&ann));
    for transport in Transport::ALL {
        let mut client = HubClient::connect(&with_token, transport).await;
        client.result("SendToAll", json!(["Said", "hello"])).await;
        for (token, status) in [(&ann, 200), (&bob, 403), (&expired, 401)] {
            let refresh = Request::post(&format!("/hubs/chat/refresh?id={}", client.token()), "");
            assert_eq!(entry.fetch(&refresh.bearer(Some(token))).await.status(), status);
        }
        client.close().await;
    }

    // Tickets, good and bad, in URLs and headers; tokens where none may stand.
    let negotiated = entry
        .with_bearer(&ann)
        .negotiate_with("negotiateVersion=1")
        .await
        .json();
    let (id, ticket) = (
        negotiated["connectionToken"]
            .as_str()
            .expect("a token")
            .to_owned(),
        negotiated["accessToken"].as_str().expect("a ticket").to_owned(),
    );
    secrets.add(&id);
    secrets.add(&ticket);
    for (query, status) in [
        (format!("id={id}&access_token={ann}"), 401),
        (format!("id={id}&access_token={ticket}x"), 401),
        (format!("access_token={ticket}"), 401),
        (format!("id={id}&access_token={ticket}"), 101),
    ] {
        assert_eq!(entry.upgrade(&query).await.status(), status);
    }

    // Cookies, wrong schemes, a wrong origin, REST with a client's token and without one, and paths that are none.
    let cookie = format!("session={ann}");
    for request in [
        Request::post("/hubs/chat/negotiate", "").header("Cookie", &cookie),
        Request::post("/hubs/chat/negotiate", "")
            .header("Cookie", &cookie)
            .header("Origin", "https://evil.example"),
        Request::post("/hubs/chat/negotiate", "").header("Authorization", &format!("Basic {ann}")),
        Request::post("/hubs/chat/negotiate", "").bearer(Some(&format!("{ann}{ann}"))),
        Request::post("/api/hubs/chat/:send?api-version=2022-06-01", "{}").bearer(Some(&ann)),
        Request::get(&format!("/nowhere?access_token={ann}&id={id}")),
        Request::new("PUT", &format!("/hubs/chat?access_token={ann}&id={id}")),
        Request::get(&format!("/hubs/chat?access_token=%zz{ann}")),
    ] {
        for _ in 0..entry.nodes() {
            let _whatever = entry.fetch(&request).await;
        }
    }

    // A connection that ends with its token.
    let short = Arc::new(entry.with_bearer(&jwt("ann", 1)));
    drop(HubClient::open(&short, Transport::WebSockets).await);
    cluster.has_connections(0).await;
    eventually("there are spans", async || {
        (!collector.spans().is_empty()).then_some(())
    })
    .await;

    let mut pages = vec![format!("{:?}", collector.spans())];
    for node in &cluster.nodes {
        pages.push(node.fetch(&Request::get("/metrics")).await.text().to_owned());
        pages.push(node.log());
    }
    for secret in secrets.all() {
        // A part is too much as well: what signs a token is its end.
        let end = &secret[secret.len().saturating_sub(20)..];
        for page in &pages {
            assert!(
                !page.contains(&secret) && !page.contains(end),
                "a secret is written down"
            );
        }
    }
    assert!(
        pages.iter().any(|page| page.contains("hubcast_connections")),
        "something was looked at"
    );
    cluster.is_tidy().await;
}
