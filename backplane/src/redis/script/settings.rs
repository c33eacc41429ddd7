//! The settings of a hub that its scripts get as arguments, and their form in the hub's log, for nodes that clean up
//! after others and don't serve the hub.

use crate::backplane::HubOptions;
use crate::error::BackplaneError;
use crate::redis::keys::HubKeys;
use crate::redis::script::arguments::{Argument, Arguments};
use crate::redis::server::replies::malformed;

/// The settings of presence messages, as `announce` in `directory.lua` has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::redis) struct PresenceSettings {
    /// Most messages that are kept of a topic.
    messages: u128,
    /// The life of a topic's entries, in milliseconds.
    life: u128,
    /// The life of a topic's newest offset, in milliseconds.
    tail_life: u128,
    /// Whether messages are kept also for topics without members.
    keeps_unread: bool,
}

/// The settings of connection events, as `append_event` in `events.lua` has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::redis) struct EventSettings {
    /// The key of the hub's stream.
    stream: String,
    /// Most events that are kept.
    most: usize,
    /// Whether nodes deliver the events.
    deliver: bool,
}

impl Argument for &PresenceSettings {
    const PARTS: &'static [&'static str] = &["messages", "life", "tail_life", "keeps_unread"];

    fn put(self, to: &mut impl Arguments) {
        self.messages.put(to);
        self.life.put(to);
        self.tail_life.put(to);
        self.keeps_unread.put(to);
    }
}

impl Argument for &EventSettings {
    const PARTS: &'static [&'static str] = &["stream", "most", "deliver"];

    fn put(self, to: &mut impl Arguments) {
        self.stream.as_str().put(to);
        self.most.put(to);
        self.deliver.put(to);
    }
}

impl PresenceSettings {
    /// `None` where the hub has no presence messages.
    pub(in crate::redis) fn of(options: &HubOptions) -> Option<Self> {
        options.presence.then(|| Self::of_own(options))
    }

    /// The settings of the backplane's own messages, which those about members' states are in every hub.
    pub(in crate::redis) fn of_own(options: &HubOptions) -> Self {
        Self {
            messages: options.kept_messages(),
            life: options.life_ms(),
            tail_life: options.tail_life_ms(),
            keeps_unread: options.keeps_unread,
        }
    }

    /// The form in the hub's log: lines, of which the first three are the prefixes of keys and channels.
    pub(in crate::redis) fn stored(&self, keys: &HubKeys) -> String {
        let Self {
            messages,
            life,
            tail_life,
            keeps_unread,
        } = self;
        let (stream, tail, channel) = (keys.stream(""), keys.tail(""), keys.topic_channel(""));
        let unread = u8::from(*keeps_unread);
        format!("{stream}\n{tail}\n{channel}\n{messages}\n{life}\n{tail_life}\n{unread}")
    }

    /// Reads the form in the hub's log; an empty text stands for `None`.
    pub(in crate::redis) fn read(text: &str) -> Result<Option<Self>, BackplaneError> {
        let mut lines = text.split('\n').skip(3);
        let mut number = || lines.next()?.parse().ok();
        let mut read = || {
            Some(Self {
                messages: number()?,
                life: number()?,
                tail_life: number()?,
                keeps_unread: number()? == 1,
            })
        };
        unless_empty(text, &mut read)
    }
}

impl EventSettings {
    /// `None` where the hub has no connection events.
    pub(in crate::redis) fn of(options: &HubOptions, keys: &HubKeys) -> Option<Self> {
        options.events.as_ref().map(|events| Self {
            stream: keys.events(),
            most: events.most.max(1),
            deliver: events.deliver,
        })
    }

    /// The form in the hub's log.
    pub(in crate::redis) fn stored(&self) -> String {
        let Self {
            stream,
            most,
            deliver,
        } = self;
        format!("{stream}\n{most}\n{}", u8::from(*deliver))
    }

    /// Reads the form in the hub's log; an empty text stands for `None`.
    pub(in crate::redis) fn read(text: &str) -> Result<Option<Self>, BackplaneError> {
        let mut lines = text.split('\n');
        let mut read = || {
            Some(Self {
                stream: lines.next()?.to_owned(),
                most: lines.next()?.parse().ok()?,
                deliver: lines.next()? == "1",
            })
        };
        unless_empty(text, &mut read)
    }
}

fn unless_empty<T>(text: &str, read: &mut impl FnMut() -> Option<T>) -> Result<Option<T>, BackplaneError> {
    if text.is_empty() {
        return Ok(None);
    }
    let settings = read().ok_or_else(|| malformed("settings in the log of a hub"))?;
    Ok(Some(settings))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::EventOptions;
    use crate::redis::keys::Keys;
    use crate::topic::HubName;

    #[test]
    fn settings_are_read_as_they_are_stored() {
        let keys = Keys::new("hubcast").hub(&HubName::parse("chat").unwrap());
        let mut options = HubOptions {
            presence: true,
            events: Some(EventOptions::default()),
            ..HubOptions::default()
        };
        for (volatile, keeps_unread, deliver) in [(false, true, false), (true, false, true)] {
            (options.volatile, options.keeps_unread) = (volatile, keeps_unread);
            options.events.as_mut().unwrap().deliver = deliver;
            let presence = PresenceSettings::of(&options).unwrap();
            let read = PresenceSettings::read(&presence.stored(&keys)).unwrap();
            assert_eq!(read, Some(presence));
            let events = EventSettings::of(&options, &keys).unwrap();
            assert_eq!(EventSettings::read(&events.stored()).unwrap(), Some(events));
        }
        assert_eq!(PresenceSettings::of(&HubOptions::default()), None);
        assert_eq!(EventSettings::of(&HubOptions::default(), &keys), None);
        assert_eq!(PresenceSettings::read("").unwrap(), None);
        assert_eq!(EventSettings::read("").unwrap(), None);
        assert!(
            PresenceSettings::read("1\n2\n3\n4\n5").is_err() && EventSettings::read("s\nmany\n1").is_err()
        );
    }

    #[test]
    fn the_stored_form_stays() {
        let keys = Keys::new("hubcast").hub(&HubName::parse("chat").unwrap());
        let presence = PresenceSettings {
            messages: 10,
            life: 20,
            tail_life: 30,
            keeps_unread: true,
        };
        assert_eq!(
            presence.stored(&keys),
            "hubcast:{chat}:stream:\nhubcast:{chat}:tail:\nhubcast:{chat}:topic:\n10\n20\n30\n1"
        );
        let events = EventSettings {
            stream: keys.events(),
            most: 7,
            deliver: false,
        };
        assert_eq!(events.stored(), "hubcast:{chat}:events\n7\n0");
    }
}
