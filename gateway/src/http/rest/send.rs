//! Sending: to all, a group, a user, a connection, or several of them at once.

use aws_lc_rs::digest::{Context, SHA256};
use axum::Json;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use hubcast_backplane::{ConnectionId, GroupName, Once, Published, Topic, UserId};
use serde::Deserialize;
use serde_json::json;

use super::body::{self, Media};
use super::call::Call;
use super::error::Refusal;
use super::payload;
use crate::hub::Outgoing;
use crate::protocol::{DataType, Value};

/// The header by which a request may be repeated without sending twice.
pub(super) const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// The header by which the SDKs of Web PubSub name a request.
const REQUEST_ID: &str = "x-ms-client-request-id";
/// Longest value of it.
pub(super) const MAX_KEY_BYTES: usize = 255;
/// Most messages of one batch.
pub(super) const MAX_BATCH: usize = 1_000;

pub(super) async fn to_all(call: &Call<'_>, body: Body) -> Result<Response, Refusal> {
    send(call, Topic::All, body).await
}

pub(super) async fn to_group(call: &Call<'_>, body: Body) -> Result<Response, Refusal> {
    send(call, Topic::Group(call.group()?), body).await
}

pub(super) async fn to_user(call: &Call<'_>, body: Body) -> Result<Response, Refusal> {
    send(call, Topic::User(call.user()?), body).await
}

pub(super) async fn to_connection(call: &Call<'_>, body: Body) -> Result<Response, Refusal> {
    match ConnectionId::parse(call.connection()?) {
        Ok(connection) => send(call, Topic::Connection(connection), body).await,
        Err(_) => {
            read(call, body).await?;
            Ok(call.done()) // no connection has such an id
        }
    }
}

async fn read(call: &Call<'_>, body: Body) -> Result<Outgoing, Refusal> {
    if call.is_web_pubsub() {
        let (filter, life) = (call.filter()?, call.life()?); // before anything is read
        let message = payload::message(call.headers(), &call.read(body).await?)?;
        return Ok(Outgoing {
            filter,
            life,
            ..message
        });
    }
    let media = Media::of(call.headers(), &Media::ALL)?;
    body::message(media, call.read(body).await?)
}

async fn send(call: &Call<'_>, topic: Topic, body: Body) -> Result<Response, Refusal> {
    let message = Outgoing {
        except: call.excluded(),
        ..read(call, body).await?
    };
    let content = || digest(&[(topic.clone(), &message)]);
    if let Some(key) = key(call)? {
        let once = Once {
            key: format!("one:{key}"),
            content: content(),
        };
        publish(call, topic, message, Some(&once)).await?;
    } else if let Some(id) = request_id(call) {
        let once = Once {
            key: format!("request:{id}"),
            content: content(),
        };
        let hub = call.hub().runtime();
        let published = hub.publish_once(None, &topic, message.clone(), &once).await?;
        if published == Published::Differs {
            // The application gives all of its requests this id.
            publish(call, topic, message, None).await?;
        }
    } else {
        publish(call, topic, message, None).await?;
    }
    Ok(call.done())
}

/// The id that Azure's SDKs give a request, and give it again where they repeat it.
fn request_id<'a>(call: &'a Call<'_>) -> Option<&'a str> {
    let id = call.headers().get(REQUEST_ID).filter(|_| call.is_web_pubsub())?;
    let id = id.to_str().ok()?;
    (1..=MAX_KEY_BYTES).contains(&id.len()).then_some(id)
}

async fn publish(
    call: &Call<'_>,
    topic: Topic,
    message: Outgoing,
    once: Option<&Once>,
) -> Result<(), Refusal> {
    let hub = call.hub().runtime();
    let Some(once) = once else {
        return Ok(hub.publish_message(None, &[topic], message).await?);
    };
    match hub.publish_once(None, &topic, message, once).await? {
        Published::Now(_) | Published::Before => Ok(()),
        Published::Differs => Err(Refusal::key_reused()),
    }
}

/// The caller's name for the request, if it has one.
fn key<'a>(call: &'a Call<'_>) -> Result<Option<&'a str>, Refusal> {
    let Some(value) = call.headers().get(IDEMPOTENCY_KEY) else {
        return Ok(None);
    };
    match value.to_str() {
        Ok(key) if (1..=MAX_KEY_BYTES).contains(&key.len()) => Ok(Some(key)),
        _ => Err(Refusal::invalid(format!(
            "Idempotency-Key must be 1 to {MAX_KEY_BYTES} visible ASCII characters."
        ))),
    }
}

/// The receivers of a batch's message.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum To {
    All,
    Group(String),
    User(String),
    Connection(String),
}

impl To {
    /// `None` for a connection that can't exist.
    fn topic(self) -> Result<Option<Topic>, Refusal> {
        Ok(match self {
            Self::All => Some(Topic::All),
            Self::Group(name) => Some(Topic::Group(GroupName::parse(name)?)),
            Self::User(id) => Some(Topic::User(UserId::parse(id)?)),
            Self::Connection(id) => ConnectionId::parse(id).ok().map(Topic::Connection),
        })
    }
}

/// Sends several messages, one after the other. All are read before the first is sent.
pub(super) async fn batch(call: &Call<'_>, body: Body) -> Result<Response, Refusal> {
    let media = Media::of(call.headers(), &[Media::Json, Media::MessagePack])?;
    let body = body::value(media, call.read(body).await?)?;
    let mut messages = Vec::new();
    for (index, item) in items(&body)?.iter().enumerate() {
        messages.extend(addressed(item).map_err(|refusal| refusal.about(&format!("messages[{index}]")))?);
    }
    let accepted = messages.len();
    let key = key(call)?;
    let references: Vec<_> = messages
        .iter()
        .map(|(topic, message)| (topic.clone(), message))
        .collect();
    let content = digest(&references);
    for (index, (topic, message)) in messages.into_iter().enumerate() {
        let once = key.map(|key| Once {
            key: format!("{index}:{key}"),
            content: content.clone(),
        });
        let sent = publish(call, topic, message, once.as_ref()).await;
        sent.map_err(|refusal| {
            refusal.about(&format!("messages[{index}] and those behind it were not sent"))
        })?;
    }
    Ok((call.success(), Json(json!({ "accepted": accepted }))).into_response())
}

fn items(body: &Value) -> Result<Vec<Value>, Refusal> {
    let fields = body.fields().unwrap_or_default();
    let messages = fields
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case("messages"));
    let Some((_, messages)) = messages else {
        return Err(Refusal::invalid(
            "The body must be an object with an array of messages.",
        ));
    };
    let messages = body::elements("messages", messages)?;
    if messages.is_empty() || messages.len() > MAX_BATCH {
        let text = format!("A batch has 1 to {MAX_BATCH} messages, not {}.", messages.len());
        return Err(Refusal::invalid(text));
    }
    Ok(messages)
}

/// One message of a batch, and its topic; `None` if no client can have it.
fn addressed(item: &Value) -> Result<Option<(Topic, Outgoing)>, Refusal> {
    let mut message = body::outgoing(item)?;
    let mut to = None;
    for (name, value) in item.fields().unwrap_or_default() {
        if name.eq_ignore_ascii_case("to") {
            to = value.decode::<To>().ok();
        } else if name.eq_ignore_ascii_case("excluded") {
            message.except = value
                .decode()
                .map_err(|_| Refusal::invalid("excluded must be an array of connection ids."))?;
        }
    }
    let Some(to) = to else {
        let text = "to must be \"all\", or {\"group\": …}, {\"user\": …} or {\"connection\": …} with a text.";
        return Err(Refusal::invalid(text));
    };
    Ok(to.topic()?.map(|topic| (topic, message)))
}

/// The digest that tells one content of a request from another.
fn digest(messages: &[(Topic, &Outgoing)]) -> Bytes {
    let mut context = Context::new(&SHA256);
    let mut add = |part: &[u8]| {
        context.update(&part.len().to_be_bytes());
        context.update(part);
    };
    for (topic, message) in messages {
        add(topic.key().as_bytes());
        add(message.target.as_bytes());
        add(message.filter.as_bytes());
        add(&[
            u8::from(message.data_type != DataType::Json),
            u8::from(message.data_type == DataType::Text),
        ]);
        for values in [&message.arguments, &message.translated] {
            add(&values.len().to_be_bytes());
            values.iter().for_each(|value| add(value.bytes()));
        }
        for entry in message.web_pubsub.iter().flat_map(|more| &more.metadata) {
            add(entry.name.as_bytes());
            add(entry.value.as_bytes());
        }
        let mut except = message.except.clone();
        except.sort_unstable();
        add(&except.len().to_be_bytes());
        except.iter().for_each(|id| add(id.as_bytes()));
    }
    Bytes::copy_from_slice(context.finish().as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(text: &'static str) -> Result<Option<(Topic, Outgoing)>, Refusal> {
        addressed(&Value::from_json_text(text).unwrap())
    }

    #[test]
    fn messages_of_a_batch_say_whom_they_are_for() {
        let (topic, message) = item("{\"to\":{\"group\":\"g\"},\"target\":\"t\",\"excluded\":[\"c\"]}")
            .unwrap()
            .unwrap();
        assert_eq!(topic, Topic::Group(GroupName::parse("g").unwrap()));
        assert_eq!(message.except, ["c"]);
        assert_eq!(
            item("{\"to\":\"all\",\"target\":\"t\"}").unwrap().unwrap().0,
            Topic::All
        );
        let nobody = item("{\"to\":{\"connection\":\"a b\"},\"target\":\"t\"}");
        assert!(nobody.unwrap().is_none());
        for bad in [
            "{\"target\":\"t\"}",
            "{\"to\":\"everybody\",\"target\":\"t\"}",
            "{\"to\":\"all\"}",
            "{\"to\":{\"group\":\"\"},\"target\":\"t\"}",
            "{\"to\":\"all\",\"target\":\"t\",\"excluded\":\"c\"}",
        ] {
            assert!(item(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn contents_are_told_apart() {
        let message = |target: &str, except: &[&str]| Outgoing {
            target: target.to_owned(),
            except: except.iter().map(ToString::to_string).collect(),
            ..Outgoing::default()
        };
        let of = |topic: Topic, message: &Outgoing| digest(&[(topic, message)]);
        let one = of(Topic::All, &message("t", &["a", "b"]));
        assert_eq!(one, of(Topic::All, &message("t", &["b", "a"])));
        assert_ne!(one, of(Topic::All, &message("t", &["ab"])));
        assert_ne!(one, of(Topic::All, &message("u", &["a", "b"])));
        let user = Topic::User(UserId::parse("ann").unwrap());
        assert_ne!(one, of(user, &message("t", &["a", "b"])));
    }
}
