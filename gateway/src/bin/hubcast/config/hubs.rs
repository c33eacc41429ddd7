//! Hubs that exist by configuration alone: `[hubs.chat]`, or a name in `hubs.names`.

use std::collections::{BTreeMap, BTreeSet};

use hubcast::options::{HubDefaults, OptionError, Options};
use hubcast::upstream::HandlerSettings;
use hubcast_backplane::HubName;
use toml::{Table, Value};

use super::Config;
use super::load::{NOT_OF_ONE, Origin};

/// Values by the names of their shared keys, such as `hubs.retention_messages`.
type Own = BTreeMap<&'static str, (Value, Origin)>;

/// The tables `[hubs.NAME]`, by name.
#[derive(Clone, Debug, Default)]
pub(crate) struct HubTables(BTreeMap<String, Own>);

impl HubTables {
    pub(super) fn new(tables: BTreeMap<String, Own>) -> Self {
        Self(tables)
    }

    /// Writes the tables after all other sections.
    pub(super) fn write_toml(&self, text: &mut String) {
        for (hub, own) in &self.0 {
            text.push_str(&format!("\n[hubs.{}]\n", Value::String(hub.clone())));
            for (key, (value, origin)) in own {
                let name = key.trim_start_matches("hubs.");
                text.push_str(&format!("{name} = {value} # {origin}\n"));
            }
        }
    }
}

impl Config {
    /// The hubs to serve that have no code, and the options of each: those that are named, also for a handler.
    pub(crate) fn builtin_hubs(&self) -> Result<Vec<(String, HubDefaults)>, OptionError> {
        let of_handlers = self.upstream.iter().flat_map(HandlerSettings::named_hubs);
        let own = self
            .hub_names
            .iter()
            .chain(self.hub_tables.0.keys())
            .map(String::as_str);
        let named: BTreeSet<_> = own.chain(of_handlers).collect();
        named
            .into_iter()
            .map(|name| Ok((name.to_owned(), self.settings_of(name)?)))
            .collect()
    }

    /// `[hubs]` with the hub's own table over it.
    fn settings_of(&self, hub: &str) -> Result<HubDefaults, OptionError> {
        let mut table = Table::new();
        for key in super::KEYS {
            let Some(name) = key
                .name
                .strip_prefix("hubs.")
                .filter(|name| !NOT_OF_ONE.contains(name))
            else {
                continue;
            };
            let own = self.hub_tables.0.get(hub).and_then(|own| own.get(key.name));
            let value = own.map(|(value, _)| value.clone()).or_else(|| (key.value)(self));
            table.extend(value.map(|value| (name.to_owned(), as_number(name, value))));
        }
        table
            .try_into()
            .map_err(|error: toml::de::Error| wrong(hub, error.message()))
    }

    pub(super) fn check_hubs(&self) -> Result<(), OptionError> {
        for (name, settings) in self.builtin_hubs()? {
            HubName::parse(&name).map_err(|error| wrong(&name, &error.to_string()))?;
            if self.demo && name == "demo" {
                return Err(wrong(&name, "the demo has that name (--demo)"));
            }
            let options = Options {
                hubs: settings,
                ..self.options.clone()
            };
            options
                .check()
                .map_err(|error| wrong(&name, &error.to_string()))?;
        }
        Ok(())
    }
}

/// Seconds are floating-point numbers; files may write them without a point.
fn as_number(name: &str, value: Value) -> Value {
    match value {
        Value::Integer(seconds) if name.ends_with("_seconds") => Value::Float(seconds as f64),
        value => value,
    }
}

fn wrong(hub: &str, problem: &str) -> OptionError {
    OptionError {
        key: "hubs",
        problem: format!("hub {hub:?}: {problem}"),
    }
}
