//! The hubs of this node: those that it was built with, and those that were declared on use.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use hubcast_backplane::{BackplaneError, HubName};
use tokio::sync::Mutex;

use super::{CheckedHub, Hub, HubRuntime, Shared, deliver_events};
use crate::error::Error;

/// Makes the hub of a name.
pub(crate) type Template = Box<dyn Fn(&str) -> Hub + Send + Sync>;

/// The hubs of this node.
pub(crate) struct Hubs {
    open: ArcSwap<HashMap<HubName, Arc<HubRuntime>>>,
    undeclared: Option<Undeclared>,
    shared: Arc<Shared>,
}

/// How hubs are declared on use.
struct Undeclared {
    most: usize,
    template: Template,
    /// The number of those that are open. Held while one is opened.
    count: Mutex<usize>,
}

/// The reason why a hub was not declared.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotDeclared {
    #[error(
        "{most} hubs were opened on use already, as many as may be (hubs.undeclared): declare it in the gateway's configuration"
    )]
    Full { most: usize },
    #[error(
        "its name must begin with a letter, and have letters, digits, '.', '_' and '-' only, at most 128"
    )]
    Name,
    #[error("this node is leaving")]
    Leaving,
    #[error(transparent)]
    Backplane(#[from] BackplaneError),
    /// A setting of the template can't work.
    #[error("it can't be made from the settings of hubs")]
    Template,
}

impl Hubs {
    /// Takes the declared hubs, which are open.
    pub(crate) fn new(
        hubs: HashMap<HubName, Arc<HubRuntime>>,
        undeclared: Option<(usize, Template)>,
        shared: Arc<Shared>,
    ) -> Self {
        let undeclared = undeclared.filter(|(most, _)| *most > 0);
        Self {
            open: ArcSwap::from_pointee(hubs),
            undeclared: undeclared.map(|(most, template)| Undeclared {
                most,
                template,
                count: Mutex::default(),
            }),
            shared,
        }
    }

    /// All hubs.
    pub(crate) fn all(&self) -> Arc<HashMap<HubName, Arc<HubRuntime>>> {
        self.open.load_full()
    }

    /// The hub of that name, or else one whose name differs in case alone: SDKs write it in small letters.
    pub(crate) fn find(&self, name: &str) -> Option<Arc<HubRuntime>> {
        let open = self.open.load();
        let alike = || {
            let mut hubs = open.values();
            hubs.find(|hub| hub.name().as_str().eq_ignore_ascii_case(name))
        };
        open.get(name).or_else(alike).cloned()
    }

    /// Returns whether hubs may be declared on use.
    pub(crate) fn take_undeclared(&self) -> bool {
        self.undeclared.is_some()
    }

    /// The name under which a hub would be declared: in small letters, so that all nodes and SDKs mean the same one.
    pub(crate) fn name_of_undeclared(name: &str) -> Result<HubName, NotDeclared> {
        let begins = name.starts_with(|first: char| first.is_ascii_alphabetic());
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if !begins || name.len() > 128 || !name.chars().all(allowed) {
            return Err(NotDeclared::Name);
        }
        HubName::parse(name.to_ascii_lowercase()).map_err(|_| NotDeclared::Name)
    }

    /// The hub of that name, which is opened if it is not there. The caller has looked at who asks. `None` where hubs must be
    /// declared.
    pub(crate) async fn declare(
        self: &Arc<Self>,
        name: &str,
    ) -> Option<Result<Arc<HubRuntime>, NotDeclared>> {
        self.undeclared.as_ref()?;
        if let Some(hub) = self.find(name) {
            return Some(Ok(hub));
        }
        let name = match Self::name_of_undeclared(name) {
            Ok(name) => name,
            Err(error) => return Some(Err(error)),
        };
        // In a task of its own: a caller that goes away leaves no hub half open.
        let own = Arc::clone(self);
        let opening = self
            .shared
            .tasks()
            .spawn(async move { own.open_undeclared(name).await });
        Some(opening.await.unwrap_or(Err(NotDeclared::Leaving)))
    }

    async fn open_undeclared(&self, name: HubName) -> Result<Arc<HubRuntime>, NotDeclared> {
        let Some(undeclared) = &self.undeclared else {
            return Err(NotDeclared::Leaving);
        };
        let mut count = undeclared.count.lock().await;
        if let Some(hub) = self.find(name.as_str()) {
            return Ok(hub); // opened for another caller meanwhile
        }
        if self.shared.stopping().is_cancelled() {
            return Err(NotDeclared::Leaving);
        }
        if *count >= undeclared.most {
            return Err(NotDeclared::Full {
                most: undeclared.most,
            });
        }
        let hub = (undeclared.template)(name.as_str());
        let checked = CheckedHub::new(hub, self.shared.options()).map_err(|_| NotDeclared::Template)?;
        let opening = HubRuntime::open(checked, Arc::clone(&self.shared)).await;
        let hub = Arc::new(opening.map_err(|error| match error {
            Error::Backplane(error) => NotDeclared::Backplane(error),
            _ => NotDeclared::Template,
        })?);
        begin_delivery(&hub);
        *count = count.saturating_add(1);
        tracing::info!(hub = %name, undeclared = *count, most = undeclared.most, "a hub was declared on use");
        self.open.rcu(|open| {
            let mut open = HashMap::clone(open);
            open.insert(name.clone(), Arc::clone(&hub));
            open
        });
        Ok(hub)
    }
}

impl fmt::Debug for Hubs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.all().keys()).finish()
    }
}

/// Begins to deliver the events of a hub's connections, where code of it wants them.
pub(crate) fn begin_delivery(hub: &Arc<HubRuntime>) {
    if hub.hub().event_handler().is_some() {
        hub.shared().tasks().spawn(deliver_events(Arc::clone(hub)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn undeclared_hubs_have_names_in_small_letters() {
        let name = |text: &str| Hubs::name_of_undeclared(text).ok().map(|name| name.to_string());
        assert_eq!(name("Chat_7").as_deref(), Some("chat_7"));
        assert_eq!(name("a.b-c").as_deref(), Some("a.b-c"));
        for bad in [
            "",
            "7chat",
            "_chat",
            "a b",
            "ä",
            "a/b",
            "a{b}",
            "a:b",
            "a*",
            &"a".repeat(129),
        ] {
            assert_eq!(name(bad), None, "{bad}");
        }
    }
}
