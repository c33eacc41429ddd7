//! Nodes that see different masters for a while: some have followed a promotion, others still work with the former
//! master, and connections of one node may lead to both.
//!
//! Messages that only the former master took are lost. The model checks that this is reported where it must be, and
//! that all nodes agree once they have come to the present master.

mod check;
mod publisher;
mod record;
mod schedule;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hubcast_backplane::conformance::sessions::resumable;
use hubcast_backplane::conformance::whole;
use hubcast_backplane::conformance::{eventually, group};
use hubcast_backplane::{
    Backplane, BackplaneError, ConnectionId, End, Epoch, HistoryPage, HubBackplane, HubName, HubOptions,
    Listing, Position, TakeOver, Taken, Topic, UserId, Version,
};
use tokio::task::JoinSet;

use self::publisher::Publisher;
use self::record::{Clock, Record, Sent};
use self::schedule::{NODES, Step};
use crate::schedule::{CONNECTIONS, Change, GROUPS, To};
use crate::support::RedisServer;
use crate::support::reporter::{Reported, Reporter, note};
use crate::support::way::Way;
use crate::world::{name_of, user_of};

pub(crate) use self::schedule::steps;

struct Node {
    node: Arc<dyn Backplane>,
    hub: Arc<dyn HubBackplane>,
    /// The epoch in which the node started.
    first: Epoch,
    record: Arc<Record>,
    way: Way,
    /// The server that the node is led to.
    at: usize,
    /// True if connections to the former master may go on.
    drifts: bool,
}

/// A time in which a node took itself for the owner of a connection.
struct Ownership {
    node: usize,
    version: Version,
    since: u64,
    /// The targets that the node replayed to the client when it came; `None` where it reported that messages may be
    /// lost.
    replayed: Option<HashSet<String>>,
    /// The time at which the next ownership began, or the end.
    until: u64,
    /// For each group, the spans in which the connection certainly was a member.
    memberships: Vec<Vec<(u64, u64)>>,
}

struct Connection {
    id: ConnectionId,
    user: usize,
    /// The ownerships in the order in which they began. The one with the highest version counts.
    ownerships: Vec<Ownership>,
    ended: bool,
}

pub(crate) struct Split {
    clock: Clock,
    servers: [RedisServer; 2],
    /// The server that is the master.
    master: usize,
    nodes: Vec<Node>,
    connections: Vec<Connection>,
    sent: Vec<Sent>,
    bursts: JoinSet<Vec<Sent>>,
    reported: Reported,
    /// A counter for names that are used once.
    count: usize,
}

impl Ownership {
    fn new(node: usize, version: Version, since: u64, groups: impl Fn(usize) -> bool) -> Self {
        let membership = |number| {
            if groups(number) {
                vec![(since, u64::MAX)]
            } else {
                Vec::new()
            }
        };
        Self {
            node,
            version,
            since,
            replayed: Some(HashSet::new()),
            until: u64::MAX,
            memberships: (0..GROUPS).map(membership).collect(),
        }
    }

    fn is_member(&self, group: usize) -> bool {
        matches!(self.memberships[group].last(), Some((_, u64::MAX)))
    }
}

impl Connection {
    fn present(&self) -> &Ownership {
        self.ownerships.iter().max_by_key(|owner| owner.version).unwrap()
    }

    fn present_mut(&mut self) -> &mut Ownership {
        self.ownerships
            .iter_mut()
            .max_by_key(|owner| owner.version)
            .unwrap()
    }
}

impl Node {
    async fn connect(clock: &Clock, number: usize, server: &RedisServer, reported: &Reported) -> Self {
        let way = Way::to(server.port()).await;
        let mut options = way.options(&format!("node{number}"));
        // However long a node stays away, the others do not take it for dead.
        options.lease = Duration::from_secs(600);
        let node: Arc<dyn Backplane> = Arc::new(
            hubcast_backplane::redis::RedisBackplane::connect(options)
                .await
                .unwrap(),
        );
        let (name, record) = (HubName::parse("split").unwrap(), Arc::new(Record::new(clock)));
        let options = HubOptions {
            retention_messages: 100_000,
            reports_ends: true,
            ..HubOptions::default()
        };
        let opened = node.open_hub(name, options, Arc::clone(&record) as Arc<_>);
        let hub = opened.await.unwrap();
        Reporter::of(node.as_ref(), &hub, reported);
        Self {
            first: hub.position().await.unwrap().epoch,
            node,
            hub,
            record,
            way,
            at: 0,
            drifts: false,
        }
    }

    fn publisher(&self, by: usize, clock: &Clock) -> Publisher {
        Publisher {
            by,
            clock: clock.clone(),
            hub: Arc::clone(&self.hub),
            drifts: self.drifts,
        }
    }
}

/// Returns whether a call failed because a server is being left, and may work again.
fn is_passing(error: &BackplaneError) -> bool {
    matches!(
        error,
        BackplaneError::Unavailable { .. } | BackplaneError::Timeout { .. } | BackplaneError::Unsettled
    )
}

/// An owner is refused while the server that it has come to does not have it as the owner yet.
fn unless_forgotten<T>(outcome: Result<T, BackplaneError>) -> Result<T, BackplaneError> {
    match outcome {
        Err(BackplaneError::NotOwner { .. }) => Err(BackplaneError::Unsettled),
        outcome => outcome,
    }
}

/// Repeats a call that fails because a server is being left.
async fn persist<T>(what: &str, mut call: impl AsyncFnMut() -> Result<T, BackplaneError>) -> T {
    eventually(what, async || match call().await {
        Ok(value) => Some(value),
        Err(error) if is_passing(&error) => None,
        Err(error) => panic!("{what}: {error}"),
    })
    .await
}

impl Split {
    pub(crate) async fn new() -> Self {
        let arguments = ["--repl-diskless-sync-delay 0", "--repl-backlog-ttl 1"];
        let servers = [
            RedisServer::start_with(&arguments).await,
            RedisServer::start_with(&arguments).await,
        ];
        let (clock, reported) = (Clock::default(), Reported::default());
        let mut nodes = Vec::new();
        for number in 0..NODES {
            nodes.push(Node::connect(&clock, number, &servers[0], &reported).await);
        }
        let mut connections = Vec::new();
        for number in 0..CONNECTIONS {
            let (on, user) = (number % NODES, user_of(number));
            let node = &nodes[on];
            let record = resumable(Some(&format!("u{user}")));
            let entered = node.hub.enter(&record, true).await.unwrap();
            connections.push(Connection {
                id: record.id,
                user,
                ownerships: vec![Ownership::new(on, entered.version, clock.now(), |_| false)],
                ended: false,
            });
        }
        Self {
            clock,
            servers,
            master: 0,
            nodes,
            connections,
            sent: Vec::new(),
            bursts: JoinSet::new(),
            reported,
            count: 0,
        }
    }

    pub(crate) async fn run(mut self, steps: Vec<Step>) {
        for step in steps {
            self.step(step).await;
        }
        for on in 0..NODES {
            self.lead(on, true);
        }
        self.end_bursts().await;
        self.settle().await;
        self.check().await;
        for node in &self.nodes {
            node.node.shutdown().await;
        }
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Publish { on, to } => {
                let (topic, name) = (self.topic(to), self.name("m"));
                let publisher = self.nodes[on].publisher(on, &self.clock);
                self.sent.extend(publisher.publish(&topic, &name).await);
            }
            Step::Burst { on, to, count } => {
                let (topic, name) = (self.topic(to), self.name("burst"));
                let publisher = self.nodes[on].publisher(on, &self.clock);
                self.bursts.spawn(async move {
                    let mut sent = Vec::new();
                    for number in 0..count {
                        sent.extend(publisher.publish(&topic, &format!("{name}-{number}")).await);
                    }
                    sent
                });
            }
            Step::Change { connection, change } => self.change(connection, change).await,
            Step::TakeOver { connection, on } => self.take_over(connection, on).await,
            Step::Note { connection } => self.note(connection).await,
            Step::End { connection } => self.end(connection).await,
            Step::LoseAnswer { on, after } => self.nodes[on].way.lose_after(after),
            Step::Promote { early, whole } => self.promote(early, whole).await,
            Step::Lead { on, cut } => self.lead(on, cut),
        }
    }

    fn name(&mut self, kind: &str) -> String {
        self.count += 1;
        format!("{kind}{}", self.count)
    }

    fn topic(&self, to: To) -> Topic {
        match to {
            To::All => Topic::All,
            To::User(user) => Topic::User(UserId::parse(format!("u{user}")).unwrap()),
            To::Group(number) => Topic::Group(group(&name_of(number))),
            To::Connection(number) => Topic::Connection(self.connections[number].id.clone()),
        }
    }

    async fn end_bursts(&mut self) {
        while let Some(sent) = self.bursts.join_next().await {
            self.sent.extend(sent.unwrap());
        }
    }

    /// Returns whether all nodes are led to the master, and to nothing else.
    fn is_whole(&self) -> bool {
        self.nodes
            .iter()
            .all(|node| node.at == self.master && !node.drifts)
    }

    async fn promote(&mut self, early: [bool; NODES], whole: bool) {
        if !self.is_whole() {
            return;
        }
        let [a, b] = &self.servers;
        let (former, next) = if self.master == 0 { (a, b) } else { (b, a) };
        next.follow(former).await;
        if whole {
            next.has_all_of(former).await;
        }
        next.promote().await;
        self.master = 1 - self.master;
        for on in (0..NODES).filter(|on| early[*on]) {
            self.lead(on, true);
        }
    }

    fn lead(&mut self, on: usize, cut: bool) {
        let (node, port) = (&mut self.nodes[on], self.servers[self.master].port());
        if node.at == self.master && !node.drifts {
            return;
        }
        (node.at, node.drifts) = (self.master, !cut);
        if cut {
            node.way.lead_to(port);
        } else {
            node.way.lead_new_to(port);
        }
    }

    async fn change(&mut self, number: usize, change: Change) {
        let connection = &mut self.connections[number];
        if connection.ended {
            return;
        }
        let (id, name) = (connection.id.clone(), group(&name_of(change.group)));
        let owner = connection.present_mut();
        let hub = &self.nodes[owner.node].hub;
        if change.join {
            persist("it joins", async || unless_forgotten(hub.join(&id, &name).await)).await;
            if !owner.is_member(change.group) {
                owner.memberships[change.group].push((self.clock.now(), u64::MAX));
            }
        } else {
            if let Some((_, until @ u64::MAX)) = owner.memberships[change.group].last_mut() {
                *until = self.clock.now();
            }
            persist("it leaves", async || {
                unless_forgotten(hub.leave(&id, &name).await)
            })
            .await;
        }
    }

    /// The client comes to a node, which asks its own server for the connection's owner.
    async fn take_over(&mut self, number: usize, on: usize) {
        let connection = &mut self.connections[number];
        if connection.ended {
            return;
        }
        let former = &self.nodes[connection.present().node];
        let (begun, place) = (self.clock.now(), former.record.place(&former.first));
        let taken = take(&self.nodes[on], &connection.id).await;
        let since = self.clock.now();
        let is_in = |number| taken.groups.contains(&group(&name_of(number)));
        let mut owner = Ownership::new(on, taken.version, since, is_in);
        owner.replayed = match place {
            Some(place) => replay(&self.nodes[on], &taken, &place).await,
            None => None,
        };
        let present = connection.present_mut();
        if present.version < owner.version {
            present.until = begun;
        } else {
            owner.until = since; // its server does not know of a later owner
        }
        connection.ownerships.push(owner);
    }

    async fn note(&self, number: usize) {
        let connection = &self.connections[number];
        if connection.ended {
            return;
        }
        let owner = connection.present();
        let hub = &self.nodes[owner.node].hub;
        eventually("it is noted", async || {
            let noted = hub.record(&connection.id, owner.version, 1, None).await;
            noted.is_ok_and(|noted| noted).then_some(())
        })
        .await;
    }

    /// A connection ends, where it is the same one for all nodes.
    async fn end(&mut self, number: usize) {
        if self.connections[number].ended || !self.is_whole() {
            return;
        }
        self.end_bursts().await;
        // Losses that a node notices later can't be reported to a connection that has ended.
        let on = self.connections[number].present().node;
        self.hear_of_every_node(&[on]).await;
        let connection = &mut self.connections[number];
        let id = connection.id.clone();
        let owner = connection.present_mut();
        let hub = &self.nodes[owner.node].hub;
        // Entries that its node has not reached by then are not for the connection any more.
        persist("its node has handed on what came before", async || {
            hub.handed_on().await
        })
        .await;
        owner.until = self.clock.now();
        let end = End {
            tombstone: Duration::from_secs(60),
            report: Some(Bytes::from_static(b"end")),
            reason: "end".to_owned(),
        };
        let removed = hub.remove(&id, end).await.unwrap();
        assert!(
            removed,
            "{id} is the owner's: {:?}, {:?}, {:?}",
            owner.version,
            owner.node,
            hub.look_up(&id).await
        );
        note(&self.reported, &id, Bytes::from_static(b"end"));
        hub.end_reported(&id);
        connection.ended = true;
    }
}

async fn listing(node: &Node, id: &ConnectionId) -> Option<Listing> {
    persist("it is looked up", async || node.hub.look_up(id).await).await
}

async fn take(node: &Node, id: &ConnectionId) -> Taken {
    loop {
        let version = listing(node, id).await.unwrap().version;
        let taking = async || node.hub.take_over(id, version).await;
        match persist("it is taken over", taking).await {
            TakeOver::Taken(taken) => return *taken,
            TakeOver::Changed => {} // the answer to an earlier try was late, or the server is another one now
            TakeOver::Gone => panic!("{id} exists"),
        }
    }
}

/// The targets that a connection that was taken over missed since a position; `None` where they can't be known.
async fn replay(node: &Node, taken: &Taken, after: &Position) -> Option<HashSet<String>> {
    let mut lacks = whole::lacks(taken, after);
    let mut targets = HashSet::new();
    loop {
        let page = async || node.hub.replay(&mut lacks, 1_000).await;
        let HistoryPage::Exact { messages, ends, .. } = persist("it is replayed", page).await else {
            return None;
        };
        targets.extend(
            messages
                .into_iter()
                .map(|message| message.envelope.target.clone()),
        );
        if ends {
            return Some(targets);
        }
    }
}
