//! The handlers of one hub.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::handler::Handler;
use super::settings::SystemEvent;

/// The handlers of one hub, in the order in which they are asked.
pub(super) struct HubUpstream {
    name: String,
    handlers: ArcSwap<Vec<Arc<Handler>>>,
}

impl HubUpstream {
    pub(super) fn new(name: &str, handlers: &[Handler]) -> Self {
        let own = Self {
            name: name.to_owned(),
            handlers: ArcSwap::default(),
        };
        own.take(handlers);
        own
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Takes other handlers. Those that are as before go on.
    pub(super) fn take(&self, handlers: &[Handler]) {
        let former = self.handlers.load_full();
        let own = handlers
            .iter()
            .filter(|handler| handler.settings.is_for(&self.name));
        let own = own.map(|handler| {
            let same = former.iter().find(|former| former.is_same(handler));
            same.map_or_else(|| Arc::new(handler.another()), Arc::clone)
        });
        self.handlers.store(Arc::new(own.collect()));
    }

    /// Returns whether the hub can go on with these: its methods were chosen by whether it has a handler for messages.
    pub(super) fn may_have(&self, handlers: &[Handler]) -> bool {
        let takes =
            |settings: &super::HandlerSettings| settings.is_for(&self.name) && settings.takes_messages();
        let before = self
            .handlers
            .load()
            .iter()
            .any(|handler| takes(&handler.settings));
        before == handlers.iter().any(|handler| takes(&handler.settings))
    }

    /// The handler for an event of connections.
    pub(super) fn for_system(&self, event: SystemEvent) -> Option<Arc<Handler>> {
        let handlers = self.handlers.load();
        handlers
            .iter()
            .find(|handler| handler.settings.wants_system(event))
            .cloned()
    }

    /// The handler for an invocation or user event.
    pub(super) fn for_message(&self, event: &str) -> Option<Arc<Handler>> {
        let handlers = self.handlers.load();
        handlers
            .iter()
            .find(|handler| handler.settings.wants_message(event))
            .cloned()
    }
}
