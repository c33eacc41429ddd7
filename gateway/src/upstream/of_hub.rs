//! The handlers of one hub.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use hubcast_backplane::ConnectionId;
use parking_lot::Mutex;

use super::handler::Handler;
use super::line::Line;
use super::settings::{HandlerSettings, SystemEvent};

/// The handlers of one hub, in the order in which they are asked.
pub(super) struct HubUpstream {
    name: String,
    handlers: ArcSwap<Vec<Arc<Handler>>>,
    /// Events of connections are delivered.
    delivers: bool,
    /// Calls that run, by their connection: its end is told after them.
    running: Mutex<HashMap<ConnectionId, (Line, usize)>>,
}

/// A call that runs, as long as this is kept.
pub(super) struct Running<'a> {
    of: &'a HubUpstream,
    connection: &'a ConnectionId,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let mut running = self.of.running.lock();
        if let Some((_, count)) = running.get_mut(self.connection) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                running.remove(self.connection);
            }
        }
    }
}

fn wants_events(settings: &HandlerSettings) -> bool {
    settings.wants_system(SystemEvent::Connected) || settings.wants_system(SystemEvent::Disconnected)
}

impl HubUpstream {
    pub(super) fn new(name: &str, handlers: &[Handler]) -> Self {
        let own = Self {
            name: name.to_owned(),
            handlers: ArcSwap::default(),
            delivers: false,
            running: Mutex::default(),
        };
        own.take(handlers);
        let delivers = own
            .handlers
            .load()
            .iter()
            .any(|handler| wants_events(&handler.settings));
        Self { delivers, ..own }
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

    /// Returns whether the hub can go on with these: its methods were chosen by whether it has a handler for messages, and
    /// its events are kept if one wanted them.
    pub(super) fn may_have(&self, handlers: &[Handler]) -> bool {
        let takes = |settings: &HandlerSettings| settings.is_for(&self.name) && settings.takes_messages();
        let of_hub = handlers
            .iter()
            .filter(|handler| handler.settings.is_for(&self.name));
        if !self.delivers && of_hub.into_iter().any(|handler| wants_events(&handler.settings)) {
            return false;
        }
        let before = self
            .handlers
            .load()
            .iter()
            .any(|handler| takes(&handler.settings));
        before == handlers.iter().any(|handler| takes(&handler.settings))
    }

    pub(super) fn delivers(&self) -> bool {
        self.delivers
    }

    /// Notes a call of a connection that runs.
    pub(super) fn runs<'a>(&'a self, connection: &'a ConnectionId, line: &Line) -> Running<'a> {
        let mut running = self.running.lock();
        let own = running
            .entry(connection.clone())
            .or_insert_with(|| (line.clone(), 0));
        own.1 = own.1.saturating_add(1);
        Running { of: self, connection }
    }

    /// The line of a connection of which a call runs.
    pub(super) fn running(&self, connection: &ConnectionId) -> Option<Line> {
        self.running.lock().get(connection).map(|(line, _)| line.clone())
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
