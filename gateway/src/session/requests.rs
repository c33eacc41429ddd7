//! Requests that the gateway itself serves, for clients whose protocol has them: joining, leaving, and sending to
//! groups, as far as their roles permit.

use std::time::Duration;

use aws_lc_rs::digest;
use bytes::Bytes;
use hubcast_backplane::{BackplaneError, GroupName, Once, Published, Recorded, Topic};

use super::completions::{call_name, invocation_of};
use super::{CloseReason, Session};
use crate::error::Error;
use crate::hub::{LONGEST_LIFE, Outgoing, with_metadata};
use crate::protocol::webpubsub::{self, RefusedAs};
use crate::protocol::{ClientProtocol, GroupSend, HubMessage, MESSAGE, Request, RequestWish};

/// The reason why a request was not done, for the client.
pub(super) type Refusal = (RefusedAs, String);

fn ack_id_of(call: &str) -> Option<u64> {
    webpubsub::event_ack_id(invocation_of(call)?)
}

impl Session {
    /// The name of a call that a client whose messages have no numbers may repeat: one with an `ackId`.
    pub(super) fn request_name(&self, message: &HubMessage) -> Option<String> {
        let HubMessage::Invocation(invocation) = message else {
            return None;
        };
        let id = invocation.invocation_id.as_deref()?;
        let protocol = self.connection.protocol()?;
        let repeats = self.is_stateful() && protocol.is_reliable();
        (repeats && webpubsub::event_ack_id(id).is_some()).then(|| call_name(0, Some(id)))
    }

    /// Records such a call in the backplane, unless it was recorded before.
    pub(super) async fn note_once(&self, call: &str) -> Result<Recorded, BackplaneError> {
        let (Some(version), Some(ack_id)) = (self.version(), ack_id_of(call)) else {
            return Ok(Recorded::Now);
        };
        let backplane = self.hub.backplane();
        backplane
            .record_once(self.id(), version, call, &self.request_key(ack_id))
            .await
    }

    /// The name under which the backplane knows the client's request with an `ackId`.
    pub(super) fn request_key(&self, ack_id: u64) -> String {
        format!("ack:{}:{ack_id}", self.id())
    }

    /// Notifies the client that such a call has ended before.
    pub(super) fn report_duplicate(&self, call: &str) {
        if let Some(ack_id) = ack_id_of(call) {
            let text = webpubsub::duplicate(ack_id);
            self.answer_message(|protocol| protocol.ack(ack_id, Err((RefusedAs::Duplicate, &text))));
        }
    }

    /// Serves a client's request, and sends it the outcome if it wants that.
    pub(super) async fn carry_out(&self, request: Request) {
        let mut followed = None;
        let outcome = match request.wish {
            RequestWish::Join(group) => self.change_group(&group, true).await,
            RequestWish::Leave(group) => self.change_group(&group, false).await,
            RequestWish::Send(send) => self.send_to_group(send, request.ack_id).await,
            RequestWish::GroupState(wish) => {
                let served = self.serve_states(wish, request.ack_id).await;
                served.map(|group| followed = group)
            }
            RequestWish::Stream(request) => self.serve_stream(request).await,
        };
        if request.ack_id.is_none()
            && let Err((RefusedAs::InternalServerError, _)) = outcome
        {
            // Its client would take it for done.
            self.close(CloseReason::LogLost("a message could not be passed on"));
        }
        if let Some(ack_id) = request.ack_id {
            self.follow().await;
            let outcome = outcome.as_ref().map(drop);
            let refused = outcome.map_err(|(name, text)| (*name, text.as_str()));
            self.answer_message(|protocol| protocol.ack(ack_id, refused));
        }
        if let Some(group) = followed {
            self.send_states(&group).await;
        }
    }

    async fn change_group(&self, group: &str, join: bool) -> Result<(), Refusal> {
        if !self.connection.identity().permissions().may_join(group) {
            return Err(lacking("join", group));
        }
        let group = parse(group)?;
        let changing = self.hub.change_local_group(self.id(), &group, join);
        changing.await.map_err(|error| self.refusal(&error))
    }

    async fn send_to_group(&self, send: GroupSend, ack_id: Option<u64>) -> Result<(), Refusal> {
        if !self
            .connection
            .identity()
            .permissions()
            .may_send_to_group(&send.group)
        {
            return Err(lacking("send", &send.group));
        }
        if send.data.json.is_null() {
            // The official .NET client drops its socket at each message without data.
            let text = "A message needs data that is not null.".to_owned();
            return Err((RefusedAs::BadRequest, text));
        }
        if send.ttl_seconds > LONGEST_LIFE {
            let text = format!("ttlSeconds is at most {LONGEST_LIFE}.");
            return Err((RefusedAs::BadRequest, text));
        }
        let topic = Topic::Group(parse(&send.group)?);
        let once = ack_id.map(|ack_id| Once {
            key: self.request_key(ack_id),
            content: content_of(&send),
        });
        let message = Outgoing {
            target: MESSAGE.to_owned(),
            arguments: vec![send.data.json],
            translated: send.data.packed.into_iter().collect(),
            except: send.no_echo.then(|| self.id().to_string()).into_iter().collect(),
            from_user: self.connection.user().map(ToString::to_string),
            data_type: send.data.kind,
            life: (send.ttl_seconds > 0).then(|| Duration::from_secs(send.ttl_seconds)),
            web_pubsub: with_metadata(send.metadata),
            ..Outgoing::default()
        };
        let caller = Some(self.connection.as_ref());
        let Some((once, ack_id)) = once.zip(ack_id) else {
            let published = self.hub.publish_message(caller, &[topic], message).await;
            return published.map_err(|error| self.refusal(&error));
        };
        match self.hub.publish_once(caller, &topic, message, &once).await {
            Ok(Published::Now(_)) => Ok(()),
            Ok(published @ (Published::Before | Published::Differs)) => {
                if published == Published::Before {
                    self.follow_all().await; // it was sent on whatever node, at a place that is not known here
                }
                Err((RefusedAs::Duplicate, webpubsub::duplicate(ack_id)))
            }
            Err(error) => Err(self.refusal(&error)),
        }
    }

    pub(super) fn refusal(&self, error: &Error) -> Refusal {
        match error {
            Error::TooManyGroups { .. } | Error::Name(_) | Error::Transcode { .. } => {
                (RefusedAs::BadRequest, error.to_string())
            }
            error => {
                tracing::warn!(connection_id = %self.id(), %error, "a client's request failed");
                let text = error.client_text();
                let text = text.unwrap_or_else(|| "The request could not be done.".to_owned());
                (RefusedAs::InternalServerError, text)
            }
        }
    }

    /// Joins the groups that a Web PubSub client's token names.
    pub(super) async fn join_groups_of_token(&self) -> Result<(), Error> {
        let protocol = self.connection.protocol();
        if protocol.and_then(ClientProtocol::web_pubsub).is_none() {
            return Ok(());
        }
        let identity = self.connection.identity();
        for name in identity.webpubsub_groups() {
            let Ok(group) = GroupName::parse(name) else {
                tracing::warn!(connection_id = %self.id(), "a group that the token names can't be used");
                continue;
            };
            self.hub.change_local_group(self.id(), &group, true).await?;
        }
        Ok(())
    }
}

pub(super) fn parse(group: &str) -> Result<GroupName, Refusal> {
    GroupName::parse(group).map_err(|error| (RefusedAs::BadRequest, error.to_string()))
}

pub(super) fn lacking(what: &str, group: &str) -> Refusal {
    let text = format!("Not permitted: it takes the role hubcast.{what} or hubcast.{what}.{group}");
    (RefusedAs::Forbidden, text)
}

/// A digest of the message.
fn content_of(send: &GroupSend) -> Bytes {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(send.group.as_bytes());
    context.update(b"\0");
    context.update(send.data.json.bytes());
    for (name, value) in &send.metadata {
        for part in [name, value] {
            context.update(b"\0");
            context.update(part.as_bytes());
        }
    }
    Bytes::copy_from_slice(context.finish().as_ref())
}
