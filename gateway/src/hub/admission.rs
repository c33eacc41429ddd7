//! Admission to a hub and to its methods.

use super::{Entry, Hub, Problem};
use crate::auth::Identity;

/// Decides about a caller.
pub(super) type Permit = Box<dyn Fn(&Identity) -> bool + Send + Sync>;

impl Hub {
    /// Admits only clients for whose identity `holds` is true; others get 403, from negotiate on. Called several times,
    /// all conditions must hold.
    ///
    /// ```
    /// use hubcast::Hub;
    ///
    /// let hub = Hub::new("staff").admit(|identity| identity.has_role("staff"));
    /// ```
    #[must_use]
    pub fn admit(mut self, holds: impl Fn(&Identity) -> bool + Send + Sync + 'static) -> Self {
        self.required.push(Box::new(holds));
        self
    }

    /// Admits only clients with a role: see [`Identity::has_role`]. Of several all are needed.
    ///
    /// ```
    /// use hubcast::testing::HubTester;
    /// use hubcast::Hub;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let hub = Hub::new("staff").require("staff").method("Ping", async || "pong");
    /// let tester = HubTester::new(hub).await?;
    /// let mut ann = tester.client().user("ann").role("staff").connect().await;
    /// assert_eq!(ann.invoke::<String>("Ping", ()).await?, "pong");
    /// let mut bob = tester.connect_as("bob").await;
    /// assert!(bob.invoke::<String>("Ping", ()).await.is_err());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn require(self, role: impl Into<String>) -> Self {
        let role = role.into();
        self.admit(move |identity| identity.has_role(&role))
    }

    /// Lets only callers invoke a method for whose identity `holds` is true; others get the error that they are
    /// unauthorized. The method must have been added before. Called several times, all conditions must hold.
    ///
    /// ```
    /// use hubcast::{Context, Hub, HubError};
    ///
    /// async fn close_room(context: Context, room: String) -> Result<(), HubError> {
    ///     Ok(context.clients().group(room).send("Closed", ()).await?)
    /// }
    ///
    /// let hub = Hub::new("rooms")
    ///     .method("CloseRoom", close_room)
    ///     .restrict("CloseRoom", |identity| identity.has_role("moderator"));
    /// ```
    #[must_use]
    pub fn restrict(
        mut self,
        method: &str,
        holds: impl Fn(&Identity) -> bool + Send + Sync + 'static,
    ) -> Self {
        match self.targets.get_mut(&method.to_lowercase()) {
            Some(entry) => entry.required.push(Box::new(holds)),
            None => {
                self.problem
                    .get_or_insert(Problem::NoSuchMethod(method.to_owned()));
            }
        }
        self
    }

    /// Lets only callers with a role invoke a method: see [`Identity::has_role`]. The method must have been added before.
    ///
    /// ```
    /// use hubcast::Hub;
    ///
    /// let hub = Hub::new("rooms")
    ///     .method("Rooms", async || ["tea", "chess"])
    ///     .method("CloseRoom", async |room: String| println!("{room} is closed"))
    ///     .require_for("CloseRoom", "moderator");
    /// ```
    #[must_use]
    pub fn require_for(self, method: &str, role: impl Into<String>) -> Self {
        let role = role.into();
        self.restrict(method, move |identity| identity.has_role(&role))
    }

    /// Returns whether a client may connect.
    pub(crate) fn admits(&self, identity: &Identity) -> bool {
        self.required.iter().all(|holds| holds(identity))
    }
}

impl Entry {
    /// Returns whether a client may call it.
    pub(crate) fn permits(&self, identity: &Identity) -> bool {
        self.required.iter().all(|holds| holds(identity))
    }
}
