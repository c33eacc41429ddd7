//! Rules about resumable connections: a connection that moves receives the same messages as one that never moves.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use tokio::task::JoinHandle;

use super::whole::{self, Whole};
use super::{Member, Nodes, group, open, record};
use crate::backplane::{ConnectionRecord, HubOptions};
use crate::error::BackplaneError;
use crate::position::{Offset, Position};
use crate::sessions::{Checkpoint, Entered, TakeOver, Taken, Version};
use crate::topic::{ConnectionId, Topic, UserId};

/// The offsets and targets of the messages that a connection received.
pub type Received = Vec<(Offset, String)>;

/// A resumable connection with an id of its own.
#[must_use]
pub fn resumable(user: Option<&str>) -> ConnectionRecord {
    ConnectionRecord {
        state: Some(Bytes::from_static(b"state\0\xff")),
        ..record(user)
    }
}

/// The topic of a group.
#[must_use]
pub fn of_group(name: &str) -> Topic {
    Topic::Group(group(name))
}

/// The topic of a connection.
#[must_use]
pub fn of_connection(id: &ConnectionId) -> Topic {
    Topic::Connection(id.clone())
}

impl Member {
    /// Enters a new resumable connection.
    pub async fn connect_resumable(&self, user: Option<&str>) -> (ConnectionRecord, Entered) {
        let connection = resumable(user);
        let entered = self.hub.enter(&connection, true).await.unwrap();
        (connection, entered)
    }

    /// The present ownership of a connection that exists.
    pub async fn version(&self, connection: &ConnectionId) -> Version {
        super::listing(self, connection).await.unwrap().version
    }

    /// Parks a connection in its present ownership.
    pub async fn park(&self, connection: &ConnectionId) -> bool {
        let version = self.version(connection).await;
        self.hub.park(connection, version, None).await.unwrap()
    }

    /// Takes a connection over from the ownership of this version.
    pub async fn take_over_of(&self, connection: &ConnectionId, version: Version) -> TakeOver {
        self.hub.take_over(connection, version).await.unwrap()
    }

    /// Takes a connection over from its present owner.
    pub async fn take_over(&self, connection: &ConnectionId) -> Taken {
        loop {
            let version = self.version(connection).await;
            match self.take_over_of(connection, version).await {
                TakeOver::Taken(taken) => return *taken,
                // Its groups changed all the time.
                TakeOver::Changed => assert_eq!(self.version(connection).await, version),
                TakeOver::Gone => panic!("it exists"),
            }
        }
    }

    /// The messages that a connection that was taken over missed since a position.
    pub async fn replay_after(&self, taken: &Taken, after: &Position) -> Whole {
        whole::replay(self.hub.as_ref(), whole::lacks(taken, after)).await
    }

    /// The messages that a connection that was taken over received after its checkpoint: the replay, then the live
    /// ones.
    pub async fn whole_until(&self, taken: &Taken, target: &str) -> Received {
        let mut whole = exact(
            self.replay_after(taken, &taken.checkpoint.position).await,
            &taken.record.id,
        );
        let live = self.sink.received_until(&taken.record.id, target).await;
        whole.extend(
            live.into_iter()
                .filter(|(offset, _)| *offset > taken.position.offset),
        );
        whole
    }
}

/// The messages of a read that must be exact, less those that leave the connection out.
#[must_use]
pub fn exact(read: Whole, connection: &ConnectionId) -> Received {
    let Whole::Exact(messages) = read else {
        panic!("{read:?}")
    };
    let due = messages
        .iter()
        .filter(|message| !message.envelope.except.iter().any(|id| id == connection.as_str()));
    due.map(|message| (message.offset, message.envelope.target.clone()))
        .collect()
}

/// Records the messages that a connection has to receive while they are published.
pub(super) struct Ledger {
    pub(super) expected: Received,
    count: usize,
}

impl Ledger {
    pub(super) fn new() -> Self {
        Self {
            expected: Vec::new(),
            count: 0,
        }
    }

    /// Publishes to topics that the connection has (`true`) or does not have.
    pub(super) async fn say(&mut self, member: &Member, topics: &[(&Topic, bool)]) {
        for (topic, due) in topics {
            self.count += 1;
            let target = format!("m{}", self.count);
            let offset = member.publish((*topic).clone(), &target).await.unwrap();
            if *due {
                self.expected.push((offset, target));
            }
        }
    }

    /// Publishes the last message, which the connection has to receive.
    pub(super) async fn end(&mut self, member: &Member) {
        let offset = member.publish(Topic::All, "end").await.unwrap();
        self.expected.push((offset, "end".to_owned()));
    }
}

/// A connection that was parked and taken over receives all messages once, in order, with its memberships as they were
/// before, while it was parked, and after.
pub async fn what_came_meanwhile_is_replayed(nodes: &Nodes) {
    let members = open(nodes, HubOptions::default()).await;
    let (home, other) = (&members[0], members.last().unwrap());
    let between = &members[members.len() / 2];
    let (connection, _) = home.connect_resumable(Some("me")).await;
    let id = &connection.id;
    let user = |name| Topic::User(UserId::parse(name).unwrap());
    let (me, you, own) = (user("me"), user("you"), of_connection(id));
    let (g, h, k) = (of_group("g"), of_group("h"), of_group("k"));
    let mut ledger = Ledger::new();
    home.join(id, "g").await;
    home.join(id, "h").await;
    ledger
        .say(
            between,
            &[
                (&g, true),
                (&h, true),
                (&k, false),
                (&me, true),
                (&you, false),
                (&own, true),
            ],
        )
        .await;
    home.leave(id, "h").await;
    ledger
        .say(other, &[(&h, false), (&g, true), (&Topic::All, true)])
        .await;
    home.sink
        .received_until(id, &ledger.expected.last().unwrap().1)
        .await;
    assert_eq!(home.sink.received(id), ledger.expected);
    assert!(home.park(id).await);
    ledger
        .say(
            between,
            &[(&g, true), (&h, false), (&own, true), (&me, true), (&you, false)],
        )
        .await;
    between.join(id, "k").await;
    ledger
        .say(home, &[(&k, true), (&g, true), (&Topic::All, true)])
        .await;
    other.leave(id, "g").await;
    home.join(id, "h").await;
    ledger
        .say(other, &[(&g, false), (&h, true), (&k, true), (&own, true)])
        .await;
    let taken = other.take_over(id).await;
    assert_eq!(taken.record, connection);
    let mut groups = taken.groups.clone();
    groups.sort();
    assert_eq!(groups, [group("h"), group("k")]);
    ledger.say(home, &[(&g, false), (&h, true), (&k, true)]).await;
    other.leave(id, "k").await;
    other.join(id, "g").await;
    ledger
        .say(
            between,
            &[(&g, true), (&h, true), (&k, false), (&me, true), (&own, true)],
        )
        .await;
    ledger.end(home).await;
    assert_eq!(other.whole_until(&taken, "end").await, ledger.expected);
}

/// Joining a group twice, and leaving a group that was not joined, does not change a replay.
pub async fn redundant_changes_are_not_replayed(nodes: &Nodes) {
    let members = open(nodes, HubOptions::default()).await;
    let (home, other) = (&members[0], members.last().unwrap());
    let (connection, _) = home.connect_resumable(None).await;
    let id = &connection.id;
    let (g, h) = (of_group("g"), of_group("h"));
    let mut ledger = Ledger::new();
    home.leave(id, "h").await;
    home.join(id, "g").await;
    ledger.say(other, &[(&g, true), (&h, false)]).await;
    home.join(id, "g").await;
    home.leave(id, "h").await;
    ledger.say(other, &[(&g, true), (&h, false)]).await;
    assert!(home.park(id).await);
    other.join(id, "g").await;
    other.leave(id, "h").await;
    ledger.say(home, &[(&g, true), (&h, false)]).await;
    let taken = other.take_over(id).await;
    other.join(id, "g").await;
    other.leave(id, "h").await;
    ledger.say(home, &[(&g, true), (&h, false)]).await;
    // The same from a position in the middle of it.
    assert!(other.park(id).await);
    let middle = Position {
        offset: ledger.expected[0].0,
        ..taken.position.clone()
    };
    let again = home.take_over(id).await;
    let replayed = exact(home.replay_after(&again, &middle).await, id);
    assert_eq!(replayed, ledger.expected[1..]);
    ledger.end(other).await;
    assert_eq!(home.whole_until(&again, "end").await, ledger.expected);
}

/// Messages to a parked connection's own topic reach the node that takes it over.
pub async fn what_is_for_a_parked_connection_is_kept(nodes: &Nodes) {
    let members = open(nodes, HubOptions::default()).await;
    let (home, other) = (&members[0], members.last().unwrap());
    let (connection, _) = home.connect_resumable(None).await;
    let own = of_connection(&connection.id);
    assert!(home.park(&connection.id).await);
    let mut ledger = Ledger::new();
    for member in &members {
        ledger.say(member, &[(&own, true), (&own, true)]).await;
    }
    let taken = other.take_over(&connection.id).await;
    ledger.end(home).await;
    assert_eq!(other.whole_until(&taken, "end").await, ledger.expected);
}

/// Most messages of a [`Stream`], so that no log is trimmed while a test reads it, however long that takes.
const STREAMED: usize = 20_000;

/// Number of moves of a connection from node to node.
const MOVES: usize = 60;

/// Number of changes of a connection's groups, there and back, during one move.
const CHANGES: usize = 50;

/// Publishes to a topic without pause until stopped, or until it has published enough.
struct Stream {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Received>,
}

impl Stream {
    fn start(member: &Member, topic: Topic) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, member) = (Arc::clone(&stop), member.clone());
        let task = tokio::spawn(async move {
            let mut published = Vec::new();
            while !stopped.load(Ordering::Acquire) && published.len() < STREAMED {
                published.push((member.publish(topic.clone(), "m").await.unwrap(), "m".to_owned()));
                tokio::task::yield_now().await;
            }
            published
        });
        Self { stop, task }
    }

    async fn stop(self) -> Received {
        self.stop.store(true, Ordering::Release);
        self.task.await.unwrap()
    }
}

/// Joins or leaves on the node that owns the connection at the moment.
pub async fn change_wherever(members: &[Member], id: &ConnectionId, name: &str, join: bool) -> Offset {
    loop {
        for member in members {
            let changed = if join {
                member.hub.join(id, &group(name)).await
            } else {
                member.hub.leave(id, &group(name)).await
            };
            match changed {
                Ok(offset) => return offset,
                Err(BackplaneError::NotOwner { .. }) => tokio::task::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// While others publish without pause and its groups change, a connection moves from node to node, parked or not, and
/// misses no message.
pub async fn a_connection_that_moves_misses_nothing(nodes: &Nodes) {
    let options = HubOptions {
        retention_messages: 100_000,
        ..HubOptions::default()
    };
    let members = open(nodes, options).await;
    let (connection, entered) = members[0].connect_resumable(None).await;
    let id = &connection.id;
    let always = [
        Stream::start(&members[0], Topic::All),
        Stream::start(members.last().unwrap(), of_connection(id)),
    ];
    let at_times = Stream::start(&members[0], of_group("g"));
    let (mut memberships, mut taken) = (Vec::new(), None);
    for round in 0..MOVES {
        let (owner, next) = (
            &members[round % members.len()],
            &members[(round + 1) % members.len()],
        );
        let moved = AtomicBool::new(false);
        let changes = async {
            for change in 0..CHANGES {
                if moved.load(Ordering::Acquire) {
                    break;
                }
                // A take-over is begun anew when they change under it: some pauses are long enough for one, some are
                // not.
                for _ in 0..change % 10 {
                    members[0].version(id).await;
                }
                let joined = change_wherever(&members, id, "g", true).await;
                memberships.push((joined, change_wherever(&members, id, "g", false).await));
            }
        };
        let moves = async {
            if round % 3 != 0 {
                assert!(owner.park(id).await);
                tokio::task::yield_now().await;
            }
            let taken = next.take_over(id).await;
            moved.store(true, Ordering::Release);
            taken
        };
        taken = Some(tokio::join!(changes, moves).1);
    }
    let mut expected = Vec::new();
    for stream in always {
        expected.extend(stream.stop().await);
    }
    let within = |offset: &Offset| memberships.iter().any(|(from, to)| (from..to).contains(&offset));
    expected.extend(
        at_times
            .stop()
            .await
            .into_iter()
            .filter(|(offset, _)| within(offset)),
    );
    expected.retain(|(offset, _)| *offset > entered.position.offset);
    expected.push((
        members[0].publish(Topic::All, "end").await.unwrap(),
        "end".to_owned(),
    ));
    expected.sort();
    let whole = members[MOVES % members.len()]
        .whole_until(&taken.unwrap(), "end")
        .await;
    let lost = expected.iter().filter(|message| !whole.contains(message));
    assert_eq!(lost.collect::<Vec<_>>(), Vec::<&(Offset, String)>::new(), "lost");
    assert_eq!(whole, expected);
}

/// A replay begins at the checkpoint, which stays with the connection.
pub async fn a_replay_begins_at_the_checkpoint(nodes: &Nodes) {
    let members = open(nodes, HubOptions::default()).await;
    let (home, other) = (&members[0], members.last().unwrap());
    let (connection, entered) = home.connect_resumable(None).await;
    let (id, own) = (&connection.id, of_connection(&connection.id));
    let epoch = home.hub.position().await.unwrap().epoch;
    let at = |sequence, offset| Checkpoint {
        sequence,
        position: Position {
            epoch: epoch.clone(),
            offset,
        },
    };
    let mut ledger = Ledger::new();
    for _ in 0..6 {
        home.join(id, "g").await;
        ledger.say(other, &[(&own, true), (&of_group("g"), true)]).await;
        home.leave(id, "g").await;
    }
    let place = |ledger: &Ledger, sequence: usize| at(sequence as u64, ledger.expected[sequence - 1].0);
    let (first, second) = (place(&ledger, 3), place(&ledger, 7));
    let stranger = (record(None).id, entered.version, first.clone());
    let written = [stranger, (id.clone(), entered.version, first.clone())];
    home.hub.checkpoint(&written).await.unwrap();
    // A checkpoint that was overtaken changes nothing.
    let overtaken = [(id.clone(), entered.version, place(&ledger, 2))];
    home.hub.checkpoint(&overtaken).await.unwrap();
    let taken = other.take_over(id).await;
    assert_eq!(taken.checkpoint, first);
    // A checkpoint of the ownership that is over is ignored.
    home.hub
        .checkpoint(&[(id.clone(), entered.version, at(1, 1))])
        .await
        .unwrap();
    let replayed = exact(other.replay_after(&taken, &taken.checkpoint.position).await, id);
    assert_eq!(replayed, ledger.expected[3..]);
    let parked = other.hub.park(id, taken.version, Some(&second)).await;
    assert!(parked.unwrap());
    let again = home.take_over(id).await;
    assert_eq!(again.checkpoint, second);
    ledger.end(other).await;
    assert_eq!(home.whole_until(&again, "end").await, ledger.expected[7..]);
}
