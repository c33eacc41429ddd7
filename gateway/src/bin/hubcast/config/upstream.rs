//! `[[upstream]]`: the handlers of hubs, in a file, or by variables `HUBCAST_UPSTREAM__0__URL` and so on, which change the
//! file's handler of that number or add one after it.

use hubcast::upstream::{HandlerSettings, Upstream, UpstreamError, UpstreamOptions};
use secrecy::ExposeSecret;
use toml::{Table, Value};

use super::Config;
use super::keys::{Kind, time};
use super::load::{ConfigError, Origin};
use super::values::typed;

/// The section's name, and the key of its table in errors.
pub(super) const UPSTREAM: &str = "upstream";
/// Most handlers: a number in a variable's name is no reason to allocate.
const MOST: usize = 1_000;

/// The settings of a handler and their kinds, but for `headers`.
const FIELDS: [(&str, Kind); 17] = [
    ("name", Kind::Text),
    ("hubs", Kind::List),
    ("url", Kind::Secret),
    ("form", Kind::OneOf(&["signalr", "cloudevents"])),
    ("events", Kind::List),
    ("categories", Kind::AnyOf(&["connections", "messages"])),
    (
        "system_events",
        Kind::AnyOf(&["connect", "connected", "disconnected", "joined", "left"]),
    ),
    ("timeout_seconds", Kind::Seconds),
    ("concurrency", Kind::Count),
    ("queue", Kind::Count),
    ("answer_bytes", Kind::Count),
    ("keys", Kind::List),
    ("ca_file", Kind::Text),
    ("identity_file", Kind::Text),
    ("allow_roles", Kind::List),
    ("allow_groups", Kind::List),
    ("protobuf_as_binary", Kind::Flag),
];
const HEADERS: &str = "headers";

/// The handlers as their sources write them.
#[derive(Default)]
pub(super) struct Handlers {
    tables: Vec<Table>,
    /// The origin of each handler's newest setting.
    origins: Vec<Origin>,
}

impl Handlers {
    pub(super) fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    /// Takes the handlers of a file.
    pub(super) fn add_file(&mut self, value: Value, origin: &Origin) -> Result<(), ConfigError> {
        let wrong = || ConfigError::Value {
            key: UPSTREAM.to_owned(),
            origin: origin.clone(),
            problem: "is written as [[upstream]], once for each handler".to_owned(),
        };
        let Value::Array(tables) = value else {
            return Err(wrong());
        };
        for (index, table) in tables.into_iter().enumerate() {
            let Value::Table(table) = table else {
                return Err(wrong());
            };
            for (name, value) in table {
                self.set(index, &name, value, origin)?;
            }
        }
        Ok(())
    }

    /// Takes one setting of a variable; `path` is `0.url`, in lower case. `false`: there is no such setting.
    pub(super) fn add_variable(
        &mut self,
        path: &str,
        text: String,
        origin: &Origin,
    ) -> Result<bool, ConfigError> {
        let Some((index, name)) = path.split_once('.') else {
            return Ok(false);
        };
        let Ok(index) = index.parse::<usize>() else {
            return Ok(false);
        };
        if index > self.tables.len() || index >= MOST {
            return Err(ConfigError::Value {
                key: format!("{UPSTREAM}[{index}]"),
                origin: origin.clone(),
                problem: format!(
                    "there is no handler {} before it; numbers begin at 0",
                    index.saturating_sub(1)
                ),
            });
        }
        if let Some(header) = name.strip_prefix("headers.") {
            let header = header.replace('_', "-");
            self.set(
                index,
                HEADERS,
                Value::Table(Table::from_iter([(header, Value::String(text))])),
                origin,
            )?;
        } else {
            self.set(index, name, Value::String(text), origin)?;
        }
        Ok(true)
    }

    fn set(&mut self, index: usize, name: &str, value: Value, origin: &Origin) -> Result<(), ConfigError> {
        while self.tables.len() <= index {
            self.tables.push(Table::new());
            self.origins.push(origin.clone());
        }
        let key = format!("{UPSTREAM}[{index}].{name}");
        let known = FIELDS.iter().find(|(field, _)| *field == name);
        let (Some(table), Some(last)) = (self.tables.get_mut(index), self.origins.get_mut(index)) else {
            return Ok(()); // both were made above
        };
        last.clone_from(origin);
        match (known, name, value) {
            (Some((field, kind)), _, value) => {
                let value = typed(*kind, &key, value, origin)?;
                table.insert((*field).to_owned(), value);
                Ok(())
            }
            (None, HEADERS, Value::Table(headers)) => {
                let all = table.entry(HEADERS).or_insert_with(|| Value::Table(Table::new()));
                for (header, value) in headers {
                    let value = typed(Kind::Secret, &format!("{key}.{header}"), value, origin)?;
                    if let Value::Table(all) = all {
                        all.insert(header, value);
                    }
                }
                Ok(())
            }
            (None, HEADERS, _) => Err(ConfigError::Value {
                key,
                origin: origin.clone(),
                problem: "must be a table, such as { Authorization = \"Bearer …\" }".to_owned(),
            }),
            (None, ..) => Err(ConfigError::UnknownKey {
                key,
                origin: origin.clone(),
                hint: format!(
                    "; a handler has {}, {HEADERS}",
                    FIELDS.map(|(field, _)| field).join(", ")
                ),
            }),
        }
    }

    /// The handlers, and the origin of each.
    pub(super) fn build(self) -> Result<(Vec<HandlerSettings>, Vec<Origin>), ConfigError> {
        let Self { tables, origins } = self;
        let made = tables
            .into_iter()
            .zip(&origins)
            .enumerate()
            .map(|(index, (table, origin))| {
                table
                    .try_into()
                    .map_err(|error: toml::de::Error| ConfigError::Value {
                        key: format!("{UPSTREAM}[{index}]"),
                        origin: origin.clone(),
                        problem: error.message().to_owned(),
                    })
            });
        Ok((made.collect::<Result<_, _>>()?, origins))
    }
}

impl Config {
    /// The settings for the library's handlers.
    pub(crate) fn upstream_options(&self) -> UpstreamOptions {
        let auth = &self.options.auth;
        let keys = [&auth.access_key, &auth.access_key_secondary];
        UpstreamOptions {
            handlers: self.upstream.clone(),
            keys: keys.into_iter().flatten().cloned().collect(),
            public_host: self.options.server.public_host.clone(),
        }
    }

    /// The handlers, ready for use.
    pub(crate) fn upstream(&self) -> Result<Upstream, UpstreamError> {
        Upstream::new(&self.upstream_options())
    }
}

/// Writes the handlers after all other sections, without secrets.
pub(super) fn write_toml(handlers: &[HandlerSettings], text: &mut String) {
    for handler in handlers {
        text.push_str("\n[[upstream]]\n");
        for (name, value) in shown(handler) {
            text.push_str(&format!("{name} = {value}\n"));
        }
    }
}

fn shown(handler: &HandlerSettings) -> Vec<(&'static str, Value)> {
    let text = |text: &str| Value::String(text.to_owned());
    let texts = |texts: &[String]| Value::Array(texts.iter().map(|item| text(item)).collect());
    let words = |words: Vec<&str>| Value::Array(words.into_iter().map(text).collect());
    let count = |count: usize| Value::Integer(i64::try_from(count).unwrap_or(i64::MAX));
    let path = |path: &std::path::Path| text(&path.to_string_lossy());
    let categories = handler.categories.as_ref();
    let system = handler.system_events.iter().map(|event| event.name()).collect();
    let headers = handler.headers.keys().map(|name| (name.clone(), text("***")));
    let keys = Value::Array(handler.keys.iter().map(|_| text("***")).collect());
    let all = [
        ("name", Some(text(&handler.label()))),
        ("hubs", Some(texts(&handler.hubs))),
        (
            "url",
            Some(text(&handler.shown_url())).filter(|_| !handler.url.expose_secret().is_empty()),
        ),
        ("form", handler.form.map(|form| text(form.name()))),
        ("events", Some(texts(&handler.events))),
        (
            "categories",
            categories.map(|all| words(all.iter().map(|one| one.name()).collect())),
        ),
        (
            "system_events",
            Some(words(system)).filter(|_| !handler.system_events.is_empty()),
        ),
        ("timeout_seconds", time(handler.timeout)),
        ("concurrency", Some(count(handler.concurrency))),
        ("queue", Some(count(handler.queue))),
        ("answer_bytes", Some(count(handler.answer_bytes))),
        (
            "headers",
            Some(Value::Table(headers.collect())).filter(|_| !handler.headers.is_empty()),
        ),
        ("keys", Some(keys).filter(|_| !handler.keys.is_empty())),
        ("ca_file", handler.ca_file.as_deref().map(path)),
        ("identity_file", handler.identity_file.as_deref().map(path)),
        ("allow_roles", Some(texts(&handler.allow_roles))),
        ("allow_groups", Some(texts(&handler.allow_groups))),
        (
            "protobuf_as_binary",
            Some(Value::Boolean(handler.protobuf_as_binary)),
        ),
    ];
    all.into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .collect()
}

#[cfg(test)]
#[path = "upstream_tests.rs"]
mod tests;
