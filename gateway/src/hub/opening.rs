//! A hub before it is open: its checked name and settings, and the options that the backplane opens it with.

use hubcast_backplane::{EventOptions, HubName, HubOptions};

use super::Hub;
use crate::error::Error;
use crate::options::Options;

/// A hub whose name and settings can work, and which is not open yet.
pub(crate) struct CheckedHub {
    pub(super) name: HubName,
    pub(super) hub: Hub,
    /// The gateway's, as far as the hub has none of its own.
    pub(super) options: Options,
}

impl CheckedHub {
    /// Checks a hub of a gateway with these options.
    ///
    /// # Errors
    /// A name, or a setting of this hub's own, that can't work.
    pub(crate) fn new(hub: Hub, gateway: &Options) -> Result<Self, Error> {
        let name = hub.check()?;
        let options = hub.options(gateway);
        options.check()?;
        Ok(Self { name, hub, options })
    }

    pub(crate) fn name(&self) -> &HubName {
        &self.name
    }

    /// The settings of the hub in the backplane.
    pub(super) fn log(&self) -> HubOptions {
        let hubs = &self.options.hubs;
        HubOptions {
            retention_messages: hubs.retention_messages,
            retention: hubs.retention,
            retention_topic_bytes: hubs.retention_topic_bytes,
            retention_bytes: hubs.retention_bytes,
            resume_window: hubs.resume_window,
            volatile: hubs.volatile,
            keeps_unread: hubs.keep_unread,
            presence: hubs.presence,
            reports_ends: self.hears_of_ends(),
            events: self.events(),
        }
    }

    /// Returns whether code of the hub runs for a connection that has ended.
    fn hears_of_ends(&self) -> bool {
        self.hub.disconnected().is_some() || !self.hub.filters().is_empty()
    }

    /// The hub's connection events, if it has any.
    fn events(&self) -> Option<EventOptions> {
        let hubs = &self.options.hubs;
        let deliver = self.hub.event_handler().is_some();
        (hubs.events || deliver).then_some(EventOptions {
            most: hubs.events_most,
            life: hubs.events_life,
            deliver,
        })
    }
}
