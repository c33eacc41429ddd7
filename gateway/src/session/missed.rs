//! The messages that a reader has missed: it enters the cluster, and is sent from the log all that it lacks up to there.

use std::sync::Arc;

use bytes::Bytes;
use hubcast_backplane::{Entered, Epoch, GroupName, HistoryPage, Message, Offset, Position, Topic};

use super::reader::{Opens, Reader, point};
use super::{Begin, CloseReason, Frames, Reading, Session};
use crate::error::Error;
use crate::fanout::Audience;
use crate::protocol::HubMessage;

/// The part of the outbox's bound that is read from the log at once.
const PAGE: usize = 4;

/// The messages that a reader lacks.
enum Lacks {
    Nothing,
    After(Position),
    Newest(usize),
    /// The reader's lack is unknown.
    Unknown(Why),
}

/// The reason why messages may be missing.
#[derive(Clone, Copy)]
pub(super) enum Why {
    /// The log no longer has them.
    Trimmed,
    /// The place is of a log that has ended.
    Epoch,
}

impl Why {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Trimmed => "trimmed",
            Self::Epoch => "epoch",
        }
    }
}

/// The reason why a reader's stream did not begin.
enum NotBegun {
    Asked,
    Backplane(Error),
}

impl<E: Into<Error>> From<E> for NotBegun {
    fn from(error: E) -> Self {
        Self::Backplane(error.into())
    }
}

impl Session {
    /// Writes before the outbox, as fast as the client reads.
    async fn give(&self, message: Bytes) -> Result<(), NotBegun> {
        self.give_frame(self.carry(message)).await
    }

    /// As [`give`](Self::give), for a message that is wrapped as the transport carries it.
    async fn give_frame(&self, frame: Bytes) -> Result<(), NotBegun> {
        let past = self.reader().and_then(Reader::past).ok_or(NotBegun::Asked)?;
        tokio::select! {
            biased;
            () = self.closing.cancelled() => Err(NotBegun::Asked),
            given = past.push(frame) => given.map_err(|_| NotBegun::Asked),
        }
    }

    pub(super) async fn begin_once(self: &Arc<Self>) -> Result<(), CloseReason> {
        let Some(reader) = self.reader() else {
            return Err(CloseReason::Aborted);
        };
        let Some(Reading { groups, begin }) = reader.reading.lock().take() else {
            return Err(CloseReason::Aborted); // it begins once
        };
        let _entered = Opens(&reader.entered); // however it ends
        match self.begin(groups, begin).await {
            Ok(()) => Ok(()),
            Err(NotBegun::Asked) => Err(self.asked_to_close()),
            Err(NotBegun::Backplane(error)) => {
                tracing::warn!(connection_id = %self.id(), %error, "a reader could not be registered");
                let text = "The backplane can't be reached. Try again later.".to_owned();
                let close = HubMessage::Close {
                    error: Some(text),
                    allow_reconnect: true,
                };
                if let Some(frame) = self.encode_bare(&close) {
                    let _ = self.give(frame).await; // a client that is gone need not know
                }
                let detail = error.to_string();
                Err(CloseReason::Handshake { detail })
            }
        }
    }

    async fn begin(self: &Arc<Self>, groups: Vec<GroupName>, begin: Begin) -> Result<(), NotBegun> {
        let hub = &self.hub;
        let backplane = hub.backplane();
        let now = backplane.position().await?;
        hub.sink().learn_epoch(&now.epoch);
        self.give(self.first_frame()).await?;
        let of_user = match self.connection.user() {
            Some(user) => backplane.user_groups(user).await?,
            None => Vec::new(),
        };
        let joined = self.all_groups(&groups, &of_user);
        let user = self.connection.user().cloned().map(Topic::User);
        let topics: Vec<_> = std::iter::once(Topic::All)
            .chain(user)
            .chain(joined.iter().cloned().map(Topic::Group))
            .collect();
        let mut lacks = match begin {
            Begin::Now => Lacks::Nothing,
            Begin::Newest(most) => Lacks::Newest(most),
            Begin::Unreadable => Lacks::Unknown(Why::Epoch),
            Begin::After(point) => match point.of(&now.epoch) {
                Some(position) => Lacks::After(position),
                None => Lacks::Unknown(Why::Epoch),
            },
        };
        let topics: Vec<_> = topics.into_iter().map(|topic| (topic, 0)).collect();
        self.set_groups(&joined); // filters of messages look at them
        // Most of it before the connection enters: while it reads this, nothing else waits for it.
        self.catch_up(&topics, &mut lacks, Offset::MAX).await?;
        let entered = backplane.enter_with(&self.record(), &joined, true).await?;
        self.connection.has_entered();
        self.settle_groups_of_user(&entered, &groups, of_user).await?;
        if let Some(reader) = self.reader() {
            reader.entered.open();
        }
        self.finish(&topics, lacks, &entered.position).await
    }

    /// Writes the rest of the missing messages, and lets the frames that were pushed meanwhile follow.
    async fn finish(
        &self,
        topics: &[(Topic, Offset)],
        mut lacks: Lacks,
        entered: &Position,
    ) -> Result<(), NotBegun> {
        let hub = &self.hub;
        let id = point(hub, &entered.epoch, entered.offset);
        self.catch_up(topics, &mut lacks, entered.offset).await?;
        match lacks {
            Lacks::Unknown(why) => self.give(self.reset_frame(why, Some(&id))).await?,
            Lacks::Newest(most) => {
                self.give_newest(topics, entered, most).await?;
            }
            Lacks::Nothing | Lacks::After(_) => {}
        }
        self.end_past();
        // A reader that receives nothing must also know from where on it lacks messages.
        self.outbox.open(self.carry(self.place_frame(&id)));
        Ok(())
    }

    /// Writes the messages that the client lacks up to a place.
    async fn catch_up(
        &self,
        topics: &[(Topic, Offset)],
        lacks: &mut Lacks,
        upto: Offset,
    ) -> Result<(), NotBegun> {
        let hub = &self.hub;
        let most_bytes = hub.options().limits.outbox_bytes / PAGE;
        while let Lacks::After(position) = lacks {
            let backplane = hub.backplane();
            let reading = backplane.history(topics, position, upto, most_bytes);
            let page = tokio::select! {
                biased;
                () = self.closing.cancelled() => return Err(NotBegun::Asked),
                page = reading => page?,
            };
            match page {
                HistoryPage::Exact {
                    messages,
                    reached,
                    ends,
                } => {
                    let epoch = position.epoch.clone();
                    position.offset = reached;
                    self.give_all(messages, &epoch).await?;
                    if ends {
                        return Ok(());
                    }
                }
                HistoryPage::Trimmed => *lacks = Lacks::Unknown(Why::Trimmed),
                HistoryPage::OtherEpoch(_) => *lacks = Lacks::Unknown(Why::Epoch),
            }
        }
        Ok(())
    }

    /// Writes the last messages of each topic up to where the connection entered.
    async fn give_newest(
        &self,
        topics: &[(Topic, Offset)],
        entered: &Position,
        most: usize,
    ) -> Result<(), NotBegun> {
        let topics: Vec<_> = topics.iter().map(|(topic, _)| topic.clone()).collect();
        let backplane = self.hub.backplane();
        let looking = backplane.newest(&topics, entered.offset, most);
        let newest = tokio::select! {
            biased;
            () = self.closing.cancelled() => return Err(NotBegun::Asked),
            newest = looking => newest?,
        };
        let Some(first) = newest.iter().map(|(_, before)| *before).min() else {
            return Ok(());
        };
        let mut lacks = Lacks::After(Position {
            epoch: entered.epoch.clone(),
            offset: first,
        });
        self.catch_up(&newest, &mut lacks, entered.offset).await?;
        if let Lacks::Unknown(why) = lacks {
            self.give(self.reset_frame(why, None)).await?;
        }
        Ok(())
    }

    async fn give_all(&self, messages: Vec<Message>, epoch: &Epoch) -> Result<(), NotBegun> {
        let hub = &self.hub;
        let metrics = hub.shared().metrics();
        let Some(protocol) = self.connection.protocol() else {
            return Ok(());
        };
        let epoch = Arc::new(epoch.clone());
        for message in messages {
            let now = || hub.shared().backplane().now();
            let audience = Audience::of(&message.envelope, now);
            // It reads as if it had been in its groups all the time.
            if !audience.is_some_and(|audience| audience.held(self, || self.groups())) {
                continue;
            }
            let frame = {
                let frames = Frames::new(&message, hub.shared()).at(hub.name(), Some(Arc::clone(&epoch)));
                frames.get(protocol, self.carriage())
            };
            if let Some(frame) = frame {
                metrics.replayed.inc();
                self.give_frame(frame).await?;
            }
        }
        Ok(())
    }

    /// The groups that the connection enters with: those that its client requested, and those of its user.
    fn all_groups(&self, asked: &[GroupName], of_user: &[GroupName]) -> Vec<GroupName> {
        let registry = self.hub.registry();
        let shared = |group| registry.shared_name(group);
        let mut groups: Vec<_> = asked.iter().map(shared).collect();
        let limit = self.hub.options().limits.groups_per_connection;
        for group in of_user {
            if groups.contains(group) {
                continue;
            }
            if groups.len() >= limit {
                tracing::warn!(hub = %self.hub.name(), connection_id = %self.id(), limit, "a reader can't join all groups of its user");
                break;
            }
            groups.push(shared(group));
        }
        groups
    }

    /// The user's groups may have changed since they were looked up.
    async fn settle_groups_of_user(
        self: &Arc<Self>,
        entered: &Entered,
        asked: &[GroupName],
        before: Vec<GroupName>,
    ) -> Result<(), NotBegun> {
        let joined = self.groups();
        let new = entered.groups.iter().filter(|group| !joined.contains(group));
        self.hub.join_groups_of_user(self, new.cloned().collect()).await?;
        for group in before {
            if !entered.groups.contains(&group) && !asked.contains(&group) {
                self.hub.change_local_group(self.id(), &group, false).await?;
            }
        }
        Ok(())
    }
}
