//! Rules about history: several topics are read in one order, and a connection that enters with them misses no message.

use super::whole::Whole;
use super::{Member, Nodes, envelope, group, open, record};
use crate::backplane::HubOptions;
use crate::history::HistoryPage;
use crate::position::{Epoch, Offset, Position};
use crate::topic::{ConnectionId, Topic, UserId};
use crate::wire::Envelope;

fn topics() -> Vec<Topic> {
    let user = Topic::User(UserId::parse("me").unwrap());
    let groups = ["a", "b", "never"].map(|name| Topic::Group(group(name)));
    [Topic::All, user].into_iter().chain(groups).collect()
}

/// Publishes to each of the topics in turn, and to a group that is none of them.
async fn publish(member: &Member, count: usize) -> Vec<Offset> {
    let (topics, other) = (topics(), Topic::Group(group("other")));
    let mut published = Vec::new();
    for number in 0..count {
        member.publish(other.clone(), "other").await;
        let topic = topics[number * number % 4].clone();
        published.push(member.publish(topic, "m").await.unwrap());
    }
    published
}

fn whole(topics: &[Topic]) -> Vec<(Topic, Offset)> {
    topics.iter().map(|topic| (topic.clone(), 0)).collect()
}

/// Reads in pages of about `most_bytes` until the end.
async fn read(
    member: &Member,
    topics: &[(Topic, Offset)],
    after: &Position,
    upto: Offset,
    most_bytes: usize,
) -> Vec<Offset> {
    let (mut found, mut after) = (Vec::new(), after.clone());
    loop {
        let page = member.hub.history(topics, &after, upto, most_bytes).await;
        let HistoryPage::Exact {
            messages,
            reached,
            ends,
        } = page.unwrap()
        else {
            panic!("the log has it all");
        };
        found.extend(messages.iter().map(|message| message.offset));
        if ends {
            return found;
        }
        assert!(reached > after.offset, "each page comes further");
        after.offset = reached;
    }
}

async fn enter(member: &Member, groups: &[&str]) -> (ConnectionId, Position) {
    let connection = record(Some("me"));
    let groups: Vec<_> = groups.iter().map(|name| group(name)).collect();
    let entered = member.hub.enter_with(&connection, &groups, true).await;
    (connection.id, entered.unwrap().position)
}

/// While others publish: the messages read up to the entry of a connection with all its topics, and those that it
/// received from there on, are together all messages, in order.
pub async fn history_and_what_is_received_meet_where_a_connection_enters(nodes: &Nodes) {
    let options = HubOptions {
        retention_messages: 1_000_000, // all messages of the test are kept
        ..HubOptions::default()
    };
    let members = open(nodes, options).await;
    let (publisher, member) = (members[0].clone(), members.last().unwrap());
    let begin = member.hub.position().await.unwrap();
    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    let publishing = tokio::spawn(async move {
        let mut published = Vec::new();
        while stopped.try_recv().is_err() {
            published.extend(publish(&publisher, 10).await);
        }
        published
    });
    let mut received = Vec::new();
    for _ in 0..5 {
        let (id, position) = enter(member, &["a", "b", "never"]).await;
        let history = read(member, &whole(&topics()), &begin, position.offset, 297).await;
        assert!(history.iter().all(|offset| *offset < position.offset));
        received.push((id, history));
    }
    stop.send(()).unwrap();
    let published = publishing.await.unwrap();
    member.publish(Topic::All, "end").await;
    for (id, history) in received {
        let live = member.sink.received_until(&id, "end").await;
        let live = live
            .iter()
            .filter(|(_, target)| target == "m")
            .map(|(offset, _)| *offset);
        assert_eq!(history.into_iter().chain(live).collect::<Vec<_>>(), published);
        assert!(member.remove(&id).await);
    }
}

/// A connection that entered with groups is a member like any other: it can leave them, and its end ends them.
pub async fn groups_that_a_connection_enters_with_are_joined(nodes: &Nodes) {
    for member in open(nodes, HubOptions::default()).await {
        let (id, _) = enter(&member, &["a", "b"]).await;
        member.publish(Topic::Group(group("a")), "1").await;
        member.leave(&id, "a").await;
        member.publish(Topic::Group(group("a")), "2").await;
        member.join(&id, "b").await;
        member.publish(Topic::Group(group("b")), "3").await;
        let received = member.sink.received_until(&id, "3").await;
        let targets: Vec<_> = received.iter().map(|(_, target)| target.as_str()).collect();
        assert_eq!(targets, ["1", "3"]);
        assert!(member.remove(&id).await);
        let statistics = member.hub.connection_statistics().await.unwrap();
        assert_eq!(statistics.groups, 0, "{statistics:?}");
    }
}

/// The last messages of each topic are found, as many as requested, up to an offset.
pub async fn the_newest_messages_of_each_topic_are_read(nodes: &Nodes) {
    let members = open(nodes, HubOptions::default()).await;
    let (home, other) = (&members[0], members.last().unwrap());
    let (mut of_a, mut of_b) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        of_a.push(home.publish(Topic::Group(group("a")), "a").await.unwrap());
        of_b.push(home.publish(Topic::Group(group("b")), "b").await.unwrap());
    }
    let begin = Position {
        offset: 0,
        ..other.hub.position().await.unwrap()
    };
    let newest = async |upto, most| -> Vec<Offset> {
        let found = other.hub.newest(&topics(), upto, most).await;
        read(other, &found.unwrap(), &begin, upto, 40).await
    };
    assert_eq!(newest(Offset::MAX, 2).await, [of_a[3], of_b[3], of_a[4], of_b[4]]);
    assert_eq!(newest(of_a[1], 1).await, [of_b[0], of_a[1]]);
    assert_eq!(newest(Offset::MAX, 100).await.len(), 10);
}

/// Trimmed messages, a position of another epoch and a position that was never assigned are reported.
pub async fn history_that_the_log_can_not_vouch_for_is_refused(nodes: &Nodes) {
    let options = HubOptions {
        retention_messages: 10,
        ..HubOptions::default()
    };
    let members = open(nodes, options).await;
    let (home, other) = (&members[0], members.last().unwrap());
    let begin = other.hub.position().await.unwrap();
    for _ in 0..300 {
        home.publish(Topic::Group(group("b")), "m").await;
    }
    let page = async |after: &Position| {
        other
            .hub
            .history(&whole(&topics()), after, Offset::MAX, 1_000)
            .await
    };
    assert!(matches!(page(&begin).await.unwrap(), HistoryPage::Trimmed));
    let ahead = Position {
        offset: begin.offset + 1_000,
        ..begin.clone()
    };
    assert!(matches!(page(&ahead).await.unwrap(), HistoryPage::Trimmed));
    let foreign = Position {
        epoch: Epoch::new("another"),
        ..begin.clone()
    };
    let answer = page(&foreign).await.unwrap();
    assert!(
        matches!(&answer, HistoryPage::OtherEpoch(epoch) if *epoch == begin.epoch),
        "{answer:?}"
    );
    let end = other.hub.position().await.unwrap();
    assert!(matches!(
        page(&end).await.unwrap(),
        HistoryPage::Exact { ends: true, .. }
    ));
}

/// However large messages are, and however many topics: a page exceeds the requested bytes by one message at most.
pub async fn a_page_is_bounded_by_bytes(nodes: &Nodes) {
    let members = open(nodes, HubOptions::default()).await;
    let (home, other) = (&members[0], members.last().unwrap());
    let begin = other.hub.position().await.unwrap();
    let groups: Vec<_> = (0..150)
        .map(|number| Topic::Group(group(&format!("g{number}"))))
        .collect();
    let mut published = Vec::new();
    for number in 0..300 {
        let target = "x".repeat(1 + number * number * 7_919 % 3_000);
        let topic = groups[number * 31 % groups.len()].clone();
        published.push(home.publish(topic, &target).await.unwrap());
    }
    let topics = whole(&groups);
    for most_bytes in [1, 5_000, 1_000_000] {
        let (mut found, mut after) = (Vec::new(), begin.clone());
        loop {
            let page = other
                .hub
                .history(&topics, &after, Offset::MAX, most_bytes)
                .await
                .unwrap();
            let HistoryPage::Exact {
                messages,
                reached,
                ends,
            } = page
            else {
                panic!("{page:?}");
            };
            let sizes = messages.iter().map(|message| message.envelope.target.len());
            assert!(sizes.sum::<usize>() <= most_bytes + 4_000);
            found.extend(messages.iter().map(|message| message.offset));
            after.offset = reached;
            if ends {
                break;
            }
        }
        assert_eq!(found, published, "{most_bytes}");
    }
}

/// Clients' messages for groups and users without members are pushed and not kept, unless a member has left lately.
pub async fn nothing_is_kept_for_nobody(nodes: &Nodes) {
    let members = open(nodes, HubOptions::default()).await;
    let (home, other) = (&members[0], members.last().unwrap());
    let begin = other.hub.position().await.unwrap();
    let user = Topic::User(UserId::parse("me").unwrap());
    let topics = [Topic::Group(group("a")), user];
    for topic in &topics {
        by_client(home, topic, "to nobody").await;
        let read = other.read(topic, &begin).await;
        assert!(matches!(read, Whole::Trimmed), "that is told: {read:?}");
    }
    let newest = other.hub.newest(&topics, Offset::MAX, 9).await;
    assert_eq!(newest.unwrap(), []);
    let (id, entered) = enter(other, &["a"]).await;
    let mut expected = Vec::new();
    for topic in &topics {
        expected.push(by_client(home, topic, "to a member").await);
    }
    assert!(other.remove(&id).await);
    for topic in &topics {
        expected.push(by_client(home, topic, "to who left").await);
    }
    let read = read(home, &whole(&topics), &entered, Offset::MAX, 1_000).await;
    assert_eq!(read, expected);
}

async fn by_client(member: &Member, topic: &Topic, target: &str) -> Offset {
    let envelope = Envelope {
        by_client: true,
        ..envelope(target)
    };
    let topics = std::slice::from_ref(topic);
    let receipts = member.hub.publish(topics, &envelope).await;
    receipts.unwrap()[0].unwrap()
}
