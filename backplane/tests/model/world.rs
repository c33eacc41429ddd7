//! Carries out a schedule.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hubcast_backplane::conformance::sessions::{change_wherever, exact};
use hubcast_backplane::conformance::{Member, envelope, eventually, group};
use hubcast_backplane::{
    Checkpoint, ConnectionId, End, Epoch, HubName, HubOptions, RecordedCall, TakeOver, Taken, Topic, UserId,
    Version,
};
use tokio::task::JoinSet;

use crate::Cluster;
use crate::client::{Answered, Connection, Place, Published, Session};
use crate::schedule::{CONNECTIONS, Change, GROUPS, Schedule, Step, To};
use crate::support::reporter::{Reported, Reporter, note};

pub(crate) struct World {
    cluster: Arc<dyn Cluster>,
    hub: HubName,
    epoch: Epoch,
    pub(crate) nodes: Vec<Member>,
    pub(crate) connections: Vec<Connection>,
    pub(crate) ended: Vec<Connection>,
    pub(crate) reported: Reported,
    published: Vec<Published>,
    /// Messages that are published while the next steps go on.
    bursts: JoinSet<Vec<Published>>,
    /// A counter for names that are used once.
    count: usize,
}

pub(crate) fn name_of(group: usize) -> String {
    format!("g{group}")
}

pub(crate) fn user_of(number: usize) -> usize {
    number / 2
}

impl World {
    pub(crate) async fn new(cluster: Arc<dyn Cluster>) -> Self {
        let unique = hubcast_backplane::conformance::record(None).id;
        let mut world = Self {
            hub: HubName::parse(format!("model-{unique}")).unwrap(),
            epoch: Epoch::new(""),
            nodes: Vec::new(),
            connections: Vec::new(),
            ended: Vec::new(),
            reported: Reported::default(),
            published: Vec::new(),
            bursts: JoinSet::new(),
            count: 0,
            cluster,
        };
        for _ in 0..world.cluster.size() {
            let node = world.node().await;
            world.nodes.push(node);
        }
        let position = world.nodes[0].hub.position().await.unwrap();
        world.epoch = position.epoch;
        for number in 0..CONNECTIONS {
            let connection = world.connect(number, number % world.nodes.len()).await;
            world.connections.push(connection);
        }
        world
    }

    fn name(&mut self, kind: &str) -> String {
        self.count += 1;
        format!("{kind}{}", self.count)
    }

    async fn node(&mut self) -> Member {
        let name = self.name("node");
        let node = self.cluster.node(name).await;
        let options = HubOptions {
            retention_messages: 100_000,
            reports_ends: true,
            ..HubOptions::default()
        };
        let member = Member::open(&node, &self.hub, options).await;
        Reporter::of(node.as_ref(), &member.hub, &self.reported);
        member
    }

    async fn connect(&self, number: usize, on: usize) -> Connection {
        let user = user_of(number);
        let (record, entered) = self.nodes[on].connect_resumable(Some(&format!("u{user}"))).await;
        Connection {
            number,
            user,
            record,
            version: entered.version,
            entered: entered.position.offset,
            place: Place::On(on),
            session: Session {
                sink: Arc::clone(&self.nodes[on].sink),
                first: 1,
                replayed: Vec::new(),
                from: entered.position.offset,
            },
            has: Vec::new(),
            checkpoint: Checkpoint {
                sequence: 0,
                position: entered.position,
            },
            received: 0,
            calls: Vec::new(),
            memberships: vec![Vec::new(); GROUPS],
            answered: Vec::new(),
        }
    }

    pub(crate) async fn run(mut self, schedule: Schedule) {
        for step in schedule.steps {
            self.step(step).await;
        }
        self.end_bursts().await;
        for number in 0..CONNECTIONS {
            if !matches!(self.connections[number].place, Place::On(_)) {
                self.take_over(number, number % self.nodes.len(), Vec::new())
                    .await;
            }
        }
        self.publish(0, To::All, None, "end".to_owned()).await;
        for connection in &mut self.connections {
            let what = format!("connection {} comes to the end", connection.number);
            eventually(&what, async || {
                connection.receive(usize::MAX / 2);
                let end = connection.has.last().is_some_and(|(_, target)| target == "end");
                end.then_some(())
            })
            .await;
            connection.check(&self.published);
        }
        for connection in &self.ended {
            connection.check_gone(&self.published);
        }
        self.check_ends().await;
        self.check_directory().await;
        for member in &self.nodes {
            assert_eq!(member.sink.gaps(), 0);
            member.node.shutdown().await;
        }
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Publish { on, to, except } => {
                let target = self.name("m");
                self.publish(on, to, except, target).await;
            }
            Step::Burst { on, to, count } => self.burst(on, to, count),
            Step::Change {
                connection,
                on,
                change,
            } => self.change(connection, on, change).await,
            Step::Receive { connection, most } => {
                let connection = &mut self.connections[connection];
                if matches!(connection.place, Place::On(_)) {
                    connection.receive(most);
                }
            }
            Step::Checkpoint { connection, behind } => self.checkpoint(connection, behind).await,
            Step::Note { connection, call } => self.note(connection, call).await,
            Step::Answer { connection, on, last } => self.answer(connection, on, last).await,
            Step::Park { connection, behind } => self.park(connection, behind).await,
            Step::TakeOver {
                connection,
                on,
                meanwhile,
            } => self.take_over(connection, on, meanwhile).await,
            Step::Crash { node } => self.crash(node).await,
            Step::End { connection, on, dies } => self.end(connection, on, dies).await,
            Step::LoseAnswer { on, after } => self.cluster.lose_answer(self.nodes[on].node.node(), after),
        }
    }

    fn topic(&self, to: To) -> Topic {
        match to {
            To::All => Topic::All,
            To::User(user) => Topic::User(UserId::parse(format!("u{user}")).unwrap()),
            To::Group(number) => Topic::Group(group(&name_of(number))),
            To::Connection(number) => Topic::Connection(self.connections[number].record.id.clone()),
        }
    }

    async fn publish(&mut self, on: usize, to: To, except: Option<usize>, target: String) {
        let mut message = envelope(&target);
        message.except = except
            .map(|number| self.connections[number].record.id.to_string())
            .into_iter()
            .collect();
        let topics = [self.topic(to)];
        let receipts = self.nodes[on].hub.publish(&topics, &message).await;
        self.published.push(Published {
            offset: receipts.unwrap()[0].unwrap(),
            target,
            to,
            except,
        });
    }

    fn burst(&mut self, on: usize, to: To, count: usize) {
        let (member, topic, name) = (self.nodes[on].clone(), self.topic(to), self.name("burst"));
        self.bursts.spawn(async move {
            let mut published = Vec::new();
            for number in 0..count {
                let target = format!("{name}-{number}");
                published.push(Published {
                    offset: member.publish(topic.clone(), &target).await.unwrap(),
                    target,
                    to,
                    except: None,
                });
                tokio::task::yield_now().await;
            }
            published
        });
    }

    async fn end_bursts(&mut self) {
        while let Some(published) = self.bursts.join_next().await {
            self.published.extend(published.unwrap());
        }
    }

    async fn change(&mut self, number: usize, on: usize, change: Change) {
        let connection = &mut self.connections[number];
        let on = match connection.place {
            Place::On(owner) => owner,
            Place::Parked => on,
            Place::Lost => return,
        };
        let (member, id) = (&self.nodes[on], &connection.record.id);
        let offset = if change.join {
            member.join(id, &name_of(change.group)).await
        } else {
            member.leave(id, &name_of(change.group)).await
        };
        connection.changed(change.group, change.join, offset);
    }

    async fn checkpoint(&mut self, number: usize, behind: usize) {
        let connection = &mut self.connections[number];
        let Place::On(owner) = connection.place else {
            return;
        };
        let checkpoint = connection.checkpoint_at(behind, &self.epoch);
        let written = [(
            connection.record.id.clone(),
            connection.version,
            checkpoint.clone(),
        )];
        let outcome = self.nodes[owner].hub.checkpoint(&written).await;
        outcome.unwrap();
        connection.written(checkpoint);
    }

    async fn note(&mut self, number: usize, call: bool) {
        let call = call.then(|| self.name("call"));
        let connection = &mut self.connections[number];
        let Place::On(owner) = connection.place else {
            return;
        };
        let member = &self.nodes[owner];
        connection.received += 1;
        let (id, version) = (&connection.record.id, connection.version);
        let noted = member
            .hub
            .record(id, version, connection.received, call.as_deref());
        assert!(noted.await.unwrap());
        connection
            .calls
            .extend(call.map(|call| (call, member.node.node().clone())));
    }

    async fn answer(&mut self, number: usize, on: usize, last: bool) {
        let target = self.name("answer");
        let connection = &mut self.connections[number];
        let Some((call, host)) = connection.calls.first().cloned() else {
            return;
        };
        let hub = &self.nodes[on].hub;
        let after = hub.position().await.unwrap().offset;
        let (id, named) = (
            &connection.record.id,
            RecordedCall {
                id: &call,
                host: &host,
            },
        );
        let answered = hub.reply(id, named, &envelope(&target), last).await;
        assert!(answered.unwrap().is_some());
        let upto = hub.position().await.unwrap().offset;
        connection.answered.push(Answered { target, after, upto });
        if last {
            connection.calls.remove(0);
            let again = hub.reply(id, named, &envelope("late"), last).await;
            assert_eq!(again.unwrap(), None);
        }
    }

    async fn park(&mut self, number: usize, behind: Option<usize>) {
        let connection = &mut self.connections[number];
        let Place::On(owner) = connection.place else {
            return;
        };
        let checkpoint = behind.map(|behind| connection.checkpoint_at(behind, &self.epoch));
        let (id, version) = (&connection.record.id, connection.version);
        let parked = self.nodes[owner].hub.park(id, version, checkpoint.as_ref());
        assert!(parked.await.unwrap());
        if let Some(checkpoint) = checkpoint {
            connection.written(checkpoint);
        }
        connection.place = Place::Parked;
    }

    /// The client comes back on a node.
    async fn take_over(&mut self, number: usize, on: usize, mut meanwhile: Vec<Change>) {
        let id = self.connections[number].record.id.clone();
        if self.connections[number].place == Place::Lost {
            meanwhile.clear(); // no node could change it before
        }
        let changing = async {
            let mut changed = Vec::new();
            for change in meanwhile {
                let name = name_of(change.group);
                let offset = change_wherever(&self.nodes, &id, &name, change.join).await;
                changed.push((change, offset));
            }
            changed
        };
        let version = self.connections[number].version;
        let taking = take(&self.nodes[on], &id, version);
        let (changed, taken) = tokio::join!(changing, taking);
        let read = self.nodes[on].replay_after(&taken, &taken.checkpoint.position);
        let replayed = exact(read.await, &id);
        let connection = &mut self.connections[number];
        for (change, offset) in changed {
            connection.changed(change.group, change.join, offset);
        }
        self.compare(number, &taken);
        let connection = &mut self.connections[number];
        connection.version = taken.version;
        connection.place = Place::On(on);
        connection.session = Session {
            sink: Arc::clone(&self.nodes[on].sink),
            first: taken.checkpoint.sequence as usize + 1,
            replayed,
            from: taken.position.offset,
        };
    }

    /// Compares the result of a take-over with the records that the model expects.
    fn compare(&self, number: usize, taken: &Taken) {
        let connection = &self.connections[number];
        assert_eq!(taken.record, connection.record);
        assert_eq!(taken.checkpoint, connection.checkpoint);
        assert_eq!(taken.received, connection.received);
        let (mut found, mut expected) = (taken.calls.clone(), connection.calls.clone());
        found.sort();
        expected.sort();
        assert_eq!(found, expected);
        let mut groups = taken.groups.clone();
        groups.sort();
        let at = taken.position.offset;
        let members = (0..GROUPS).filter(|group| connection.is_member_at(*group, at));
        let expected: Vec<_> = members.map(|number| group(&name_of(number))).collect();
        assert_eq!(groups, expected, "groups at {at}");
    }

    /// A connection ends, and another one comes in its place.
    async fn end(&mut self, number: usize, on: usize, dies: bool) {
        self.end_bursts().await; // so that the receivers of their messages are known
        let connection = &mut self.connections[number];
        let id = connection.record.id.clone();
        let end = || End {
            tombstone: Duration::from_secs(60),
            report: Some(Bytes::from_static(b"end")),
            reason: "end".to_owned(),
        };
        let ender = match connection.place {
            Place::Lost => return,
            Place::On(owner) => {
                connection.receive(usize::MAX / 2);
                let ended = self.nodes[owner].hub.remove(&id, end()).await;
                assert!(ended.unwrap());
                owner
            }
            Place::Parked => {
                let other = (on + 1) % self.nodes.len();
                let remove = |on: usize| self.nodes[on].hub.remove_parked(&id, end());
                let (ended, by_other) = tokio::join!(remove(on), remove(other));
                let record = connection.record.clone();
                match (ended.unwrap(), by_other.unwrap()) {
                    (Some(ended), None) => {
                        assert_eq!(ended, record);
                        on
                    }
                    (None, Some(ended)) => {
                        assert_eq!(ended, record);
                        other
                    }
                    ended => panic!("{ended:?}"),
                }
            }
        };
        if dies && self.cluster.mortal() {
            self.crash(ender).await;
        } else {
            note(&self.reported, &id, Bytes::from_static(b"end"));
            self.nodes[ender].hub.end_reported(&id);
        }
        let next = self.connect(number, on).await;
        self.ended
            .push(std::mem::replace(&mut self.connections[number], next));
    }

    /// A node dies without notice to the others.
    async fn crash(&mut self, node: usize) {
        self.end_bursts().await; // because it is not known whether a dead node's message was published
        for connection in &mut self.connections {
            if connection.place == Place::On(node) {
                connection.place = Place::Lost;
            }
        }
        if self.cluster.mortal() {
            self.nodes[node] = self.node().await;
        }
    }
}

/// Takes a connection over from the ownership that the model knows.
async fn take(member: &Member, id: &ConnectionId, version: Version) -> Taken {
    loop {
        match member.take_over_of(id, version).await {
            TakeOver::Taken(taken) => return *taken,
            // Its groups changed all the time.
            TakeOver::Changed => assert_eq!(member.version(id).await, version),
            TakeOver::Gone => panic!("it exists"),
        }
    }
}
