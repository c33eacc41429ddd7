//! Checks the reports of ends, and the directory, once a schedule is through.

use hubcast_backplane::conformance::{eventually, group};
use hubcast_backplane::{Members, UserId};

use crate::client::Connection;
use crate::schedule::{CONNECTIONS, GROUPS, USERS};
use crate::world::{World, name_of};

impl World {
    /// The end of every connection that has ended was reported once, and no other end.
    pub(crate) async fn check_ends(&self) {
        let mut ended: Vec<_> = self
            .ended
            .iter()
            .map(|connection| connection.record.id.to_string())
            .collect();
        ended.sort();
        eventually("all ends are told", async || {
            (self.reported.lock().len() >= ended.len()).then_some(())
        })
        .await;
        let reported = self.reported.lock();
        assert!(reported.keys().eq(&ended), "{reported:?} {ended:?}");
        assert!(
            reported.values().all(|reported| reported == &["end"]),
            "{reported:?}"
        );
    }

    /// The directory has exactly the living connections, in their groups.
    pub(crate) async fn check_directory(&self) {
        let hub = &self.nodes[0].hub;
        let listed = async |of: Members<'_>, is_one: &dyn Fn(&Connection) -> bool| {
            let connections = self.connections.iter().filter(|connection| is_one(connection));
            let mut expected: Vec<_> = connections
                .map(|connection| connection.record.id.clone())
                .collect();
            expected.sort();
            let page = hub.page(of, None, 100).await;
            assert_eq!(page.unwrap(), expected, "{of:?}");
        };
        for number in 0..GROUPS {
            let name = group(&name_of(number));
            listed(Members::Group(&name), &|connection| connection.is_member(number)).await;
        }
        for number in 0..USERS {
            let user = UserId::parse(format!("u{number}")).unwrap();
            listed(Members::User(&user), &|connection| connection.user == number).await;
        }
        for connection in &self.connections {
            let found = hub.groups(&connection.record.id).await;
            let groups = (0..GROUPS).filter(|number| connection.is_member(*number));
            let expected: Vec<_> = groups.map(|number| group(&name_of(number))).collect();
            assert_eq!(found.unwrap(), expected);
        }
        let statistics = hub.connection_statistics().await.unwrap();
        let owned: u64 = statistics.nodes.iter().map(|(_, count)| count).sum();
        assert_eq!(
            (owned, statistics.parked),
            (CONNECTIONS as u64, 0),
            "{statistics:?}"
        );
    }
}
