//! Hubs without code: clients may do what their roles permit. Written with the public library alone.

use hubcast::hub::{MemberPage, Rest};
use hubcast::options::HubDefaults;
use hubcast::upstream::Upstream;
use hubcast::{Context, Error, Hub, HubError};
use serde::Serialize;

/// Connections of a page of `GetPresence`, unless the client says how many.
const PAGE: usize = 100;

/// A hub whose clients join and watch groups, and send to groups, users and all, as far as their roles permit: see
/// [`Permissions`](hubcast::auth::Permissions).
pub(crate) fn hub(name: &str, settings: HubDefaults) -> Hub {
    Hub::new(name)
        .configure(move |own| own.hubs = settings.clone())
        .method("JoinGroup", join_group)
        .method("LeaveGroup", leave_group)
        .method("WatchGroup", watch_group)
        .method("UnwatchGroup", unwatch_group)
        .method("GetPresence", get_presence)
        .method("SendToGroup", send_to_group)
        .method("SendToUser", send_to_user)
        .method("SendToAll", send_to_all)
}

/// As [`hub`], with the handlers of the configuration. A hub whose calls go to a handler has no methods besides: they could
/// have the names of the application's own.
pub(crate) fn hub_with(name: &str, settings: HubDefaults, upstream: &Upstream) -> Hub {
    if upstream.takes_messages(name) {
        let bare = Hub::new(name).configure(move |own| own.hubs = settings.clone());
        return bare.upstream(upstream);
    }
    let hub = hub(name, settings);
    if upstream.is_for(name) {
        hub.upstream(upstream)
    } else {
        hub
    }
}

async fn join_group(context: Context, group: String) -> Result<(), HubError> {
    check_join(&context, &group)?;
    Ok(context.join(group).await?)
}

async fn leave_group(context: Context, group: String) -> Result<(), HubError> {
    check_join(&context, &group)?;
    Ok(context.leave(group).await?)
}

async fn watch_group(context: Context, group: String) -> Result<(), HubError> {
    check_watch(&context, &group)?;
    Ok(context.watch(group).await?)
}

async fn unwatch_group(context: Context, group: String) -> Result<(), HubError> {
    check_watch(&context, &group)?;
    Ok(context.unwatch(group).await?)
}

/// The members of a group.
#[derive(Serialize)]
struct GroupPresence {
    /// All its connections.
    count: u64,
    #[serde(flatten)]
    page: MemberPage,
}

async fn get_presence(context: Context, group: String, rest: Rest) -> Result<GroupPresence, HubError> {
    check_watch(&context, &group)?;
    let (after, limit) = page_of(&rest).ok_or_else(|| {
        HubError::new("GetPresence takes a group, then the id to go on after or null, then how many")
    })?;
    let group = context.hub().in_group(group);
    Ok(GroupPresence {
        count: group.count().await?,
        page: group.members(after.as_deref(), limit.unwrap_or(PAGE)).await?,
    })
}

/// The beginning of a page and its size in connections, as far as a client gives them.
fn page_of(rest: &Rest) -> Option<(Option<String>, Option<usize>)> {
    match rest.0.as_slice() {
        [] => Some((None, None)),
        [after] => Some((after.decode().ok()?, None)),
        [after, limit] => Some((after.decode().ok()?, limit.decode().ok()?)),
        _ => None,
    }
}

async fn send_to_group(
    context: Context,
    group: String,
    target: String,
    arguments: Rest,
) -> Result<(), HubError> {
    let identity = context.connection().identity();
    if !identity.permissions().may_send_to_group(&group) {
        return Err(lacking(&format!("hubcast.send or hubcast.send.{group}")));
    }
    check_target(&target)?;
    Ok(context.clients().group(group).send(&target, arguments).await?)
}

async fn send_to_user(
    context: Context,
    user: String,
    target: String,
    arguments: Rest,
) -> Result<(), HubError> {
    if !context.connection().identity().permissions().may_send_to_users() {
        return Err(lacking("hubcast.send"));
    }
    check_target(&target)?;
    Ok(context.clients().user(user).send(&target, arguments).await?)
}

async fn send_to_all(context: Context, target: String, arguments: Rest) -> Result<(), HubError> {
    if !context.connection().identity().permissions().may_send_to_all() {
        return Err(lacking("hubcast.send"));
    }
    check_target(&target)?;
    Ok(context.clients().all().send(&target, arguments).await?)
}

fn check_join(context: &Context, group: &str) -> Result<(), HubError> {
    if context.connection().identity().permissions().may_join(group) {
        return Ok(());
    }
    Err(lacking(&format!("hubcast.join or hubcast.join.{group}")))
}

fn check_watch(context: &Context, group: &str) -> Result<(), HubError> {
    let identity = context.connection().identity();
    if !identity.permissions().may_watch(group) {
        return Err(lacking(&format!("hubcast.watch or hubcast.watch.{group}")));
    }
    if !context.hub().announces_presence() {
        return Err(Error::NoPresence.into());
    }
    Ok(())
}

fn check_target(target: &str) -> Result<(), HubError> {
    if target.is_empty() {
        return Err(HubError::new("The target is empty"));
    }
    Ok(())
}

fn lacking(role: &str) -> HubError {
    HubError::new(format!("Not permitted: it takes the role {role}"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use hubcast::testing::{HubTester, TestClient};

    async fn tester() -> HubTester {
        HubTester::new(hub("chat", HubDefaults::default())).await.unwrap()
    }

    async fn with_roles(tester: &HubTester, user: &str, roles: &[&str]) -> TestClient {
        let client = tester.client().user(user);
        let client = roles.iter().fold(client, |client, role| client.role(*role));
        client.connect().await
    }

    async fn is_refused(
        client: &mut TestClient,
        method: &str,
        arguments: impl hubcast::hub::Arguments,
        role: &str,
    ) {
        let error = client
            .invoke::<()>(method, arguments)
            .await
            .unwrap_err()
            .to_string();
        let expected = format!("HubException: Not permitted: it takes the role {role}");
        assert!(error.ends_with(&expected), "{method}: {error}");
    }

    #[tokio::test]
    async fn who_may_joins_and_sends_whatever_it_is() {
        let tester = tester().await;
        let mut ann = with_roles(&tester, "ann", &["hubcast.join.tea", "hubcast.send.*"]).await;
        let mut bob = with_roles(&tester, "bob", &["webpubsub.joinLeaveGroup"]).await;
        ann.invoke::<()>("JoinGroup", ("tea",)).await.unwrap();
        bob.invoke::<()>("joingroup", ("tea",)).await.unwrap();
        let anything = (json!({"b": [1, 2.50], "a": null}), 7, "x");
        ann.invoke::<()>("SendToGroup", ("tea", "Said", anything.0.clone(), 7, "x"))
            .await
            .unwrap();
        for client in [&mut ann, &mut bob] {
            let call = client.expect("Said").await.unwrap();
            assert_eq!(call.argument::<Value>(0), Some(anything.0.clone()));
            assert_eq!(call.argument::<u8>(1), Some(7));
            assert_eq!(call.argument::<String>(2), Some("x".to_owned()));
        }
        bob.invoke::<()>("LeaveGroup", ("tea",)).await.unwrap();
        ann.invoke::<()>("SendToGroup", ("tea", "Empty")).await.unwrap();
        assert_eq!(ann.expect("Empty").await.unwrap().argument::<Value>(0), None);
        is_refused(
            &mut ann,
            "JoinGroup",
            ("chess",),
            "hubcast.join or hubcast.join.chess",
        )
        .await;
        is_refused(
            &mut ann,
            "LeaveGroup",
            ("chess",),
            "hubcast.join or hubcast.join.chess",
        )
        .await;
        is_refused(
            &mut bob,
            "SendToGroup",
            ("tea", "x"),
            "hubcast.send or hubcast.send.tea",
        )
        .await;
        for client in [&mut ann, &mut bob] {
            is_refused(client, "SendToUser", ("ann", "x"), "hubcast.send").await;
            is_refused(client, "SendToAll", ("x",), "hubcast.send").await;
        }
    }

    #[tokio::test]
    async fn who_may_send_reaches_users_and_all() {
        let tester = tester().await;
        let mut ann = with_roles(&tester, "ann", &["hubcast.send"]).await;
        let mut bob = with_roles(&tester, "bob", &[]).await;
        ann.invoke::<()>("SendToUser", ("bob", "Mail", "hello"))
            .await
            .unwrap();
        let mail = bob.expect("Mail").await.unwrap();
        assert_eq!(mail.argument::<String>(0), Some("hello".to_owned()));
        ann.invoke::<()>("SendToAll", ("News", 1)).await.unwrap();
        for client in [&mut ann, &mut bob] {
            assert_eq!(client.expect("News").await.unwrap().argument::<u8>(0), Some(1));
        }
        let error = ann
            .invoke::<()>("SendToAll", ("",))
            .await
            .unwrap_err()
            .to_string();
        assert!(error.ends_with("The target is empty"), "{error}");
        for (method, arguments) in [("SendToAll", vec![]), ("SendToGroup", vec![json!("a")])] {
            let arguments: Vec<_> = arguments
                .iter()
                .map(|value| hubcast::protocol::Value::encode(value).unwrap())
                .collect();
            assert!(ann.invoke::<()>(method, arguments).await.is_err(), "{method}");
        }
    }

    #[tokio::test]
    async fn who_has_no_role_may_nothing() {
        let tester = tester().await;
        let mut stranger = tester.connect().await;
        is_refused(
            &mut stranger,
            "JoinGroup",
            ("a",),
            "hubcast.join or hubcast.join.a",
        )
        .await;
        is_refused(
            &mut stranger,
            "SendToGroup",
            ("a", "x"),
            "hubcast.send or hubcast.send.a",
        )
        .await;
        is_refused(&mut stranger, "SendToAll", ("x",), "hubcast.send").await;
    }

    #[tokio::test]
    async fn who_may_watches_and_asks_who_is_there() {
        let settings = HubDefaults {
            presence: true,
            ..HubDefaults::default()
        };
        let tester = HubTester::new(hub("chat", settings)).await.unwrap();
        let mut ann = with_roles(&tester, "ann", &["hubcast.watch.tea"]).await;
        let mut bob = with_roles(&tester, "bob", &["hubcast.join"]).await;
        let nobody = tester.connect().await;
        tester.hub().groups().add(nobody.id(), "tea").await.unwrap();
        ann.invoke::<()>("WatchGroup", ("tea",)).await.unwrap();
        bob.invoke::<()>("JoinGroup", ("tea",)).await.unwrap();
        let reported = ann.expect("presence").await.unwrap();
        let expected = json!({ "event": "join", "group": "tea", "connectionId": bob.id(), "userId": "bob" });
        assert_eq!(reported.argument(0), Some(expected));

        let mut members = vec![
            json!({ "connectionId": bob.id(), "userId": "bob" }),
            json!({ "connectionId": nobody.id() }),
        ];
        members.sort_by_key(|member| member["connectionId"].to_string());
        let all: Value = ann.invoke("GetPresence", ("tea",)).await.unwrap();
        assert_eq!(all, json!({ "count": 2, "members": members, "next": null }));
        let none = Option::<String>::None;
        let first: Value = ann.invoke("GetPresence", ("tea", none, 1)).await.unwrap();
        assert_eq!(first["members"], json!(members[..1]));
        let next = first["next"].as_str().unwrap();
        let second: Value = ann.invoke("GetPresence", ("tea", next)).await.unwrap();
        assert_eq!(
            second,
            json!({ "count": 2, "members": members[1..], "next": null })
        );
        let wrong = ann
            .invoke::<Value>("GetPresence", ("tea", 1))
            .await
            .unwrap_err()
            .to_string();
        assert!(wrong.contains("GetPresence takes a group"), "{wrong}");

        ann.invoke::<()>("UnwatchGroup", ("tea",)).await.unwrap();
        bob.invoke::<()>("LeaveGroup", ("tea",)).await.unwrap();
        tester.hub().clients().all().send("End", ()).await.unwrap();
        assert_eq!(ann.receive().await.unwrap().target, "End");
        for method in ["WatchGroup", "UnwatchGroup", "GetPresence"] {
            let role = "hubcast.watch or hubcast.watch.tea";
            is_refused(&mut bob, method, ("tea",), role).await;
            let role = "hubcast.watch or hubcast.watch.te";
            is_refused(&mut ann, method, ("te",), role).await;
        }
    }

    #[tokio::test]
    async fn a_hub_without_presence_names_the_option() {
        let tester = tester().await;
        let mut ann = with_roles(&tester, "ann", &["hubcast.watch"]).await;
        for method in ["WatchGroup", "UnwatchGroup", "GetPresence"] {
            let error = ann.invoke::<()>(method, ("tea",)).await.unwrap_err().to_string();
            assert!(error.contains("(hubs.presence)"), "{method}: {error}");
        }
    }
}
