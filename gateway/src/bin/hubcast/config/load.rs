//! The layers of the configuration: defaults, then the file, then `HUBCAST_…` variables, then flags.
//!
//! Every value remembers where it came from, so that an error can say it. Values are converted key by key and
//! never guessed: an access key of digits stays the text that it is.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt, fs, io,
    path::{Path, PathBuf},
};

use toml::{Table, Value};

use super::{
    Config, HubTables,
    derived::Means,
    keys::{KEYS, Key},
    upstream::{Handlers, UPSTREAM},
    values::typed,
    variables::Variables,
};

/// The sources of the configuration, besides the environment.
#[derive(Default, Debug)]
pub(crate) struct Sources {
    /// The file that `--config` names; it must exist.
    pub(crate) file: Option<PathBuf>,
    /// The flags, in order: later ones win.
    pub(crate) flags: Vec<Flag>,
}

/// One flag that sets a key.
#[derive(Debug)]
pub(crate) struct Flag {
    /// The flag as it was written, without the value: `--listen`.
    pub(crate) name: String,
    /// The key that it sets.
    pub(crate) key: String,
    /// The value.
    pub(crate) value: String,
}

/// The configuration, and where its values that are not defaults came from.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// The checked configuration.
    pub(crate) config: Config,
    /// The origin of every key that is not at its default.
    pub(crate) origins: BTreeMap<&'static str, Origin>,
}

/// The origin of a value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Origin {
    /// The built-in default.
    Default,
    /// Demo mode, which changes defaults.
    DemoMode,
    /// The process's resources, or the address where it listens.
    Derived(String),
    /// A file.
    File(PathBuf),
    /// An environment variable.
    Variable(String),
    /// A flag.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::DemoMode => f.write_str("demo mode"),
            Origin::Derived(from) => write!(f, "by {from}"),
            Origin::File(path) => write!(f, "file {}", path.display()),
            Origin::Variable(name) => write!(f, "variable {name}"),
            Origin::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// The reason why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// The file can't be read.
    #[error("the configuration file {path} can't be read: {source}")]
    Read { path: PathBuf, source: io::Error },
    /// The file is not TOML. The line itself is not shown, it may hold a secret.
    #[error("{path}, line {line}: {problem}")]
    Syntax {
        path: PathBuf,
        line: usize,
        problem: String,
    },
    /// A key that does not exist.
    #[error("unknown key {key:?} ({origin}){hint}")]
    UnknownKey {
        key: String,
        origin: Origin,
        hint: String,
    },
    /// A value that can't work.
    #[error("{key} ({origin}): {problem}")]
    Value {
        key: String,
        origin: Origin,
        problem: String,
    },
}

/// Reads all layers, fills in values that depend on other keys, and checks the result.
///
/// # Errors
/// The first thing that is wrong, by key and layer.
pub(crate) fn load(
    sources: &Sources,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Loaded, ConfigError> {
    let mut settings = Settings::default();
    let variables = Variables::read(environment)?;
    let file = sources.file.as_ref().or(variables.file.as_ref());
    if let Some(path) = file {
        settings.add_table("", read_file(path)?, path)?;
    }
    for (key, name, value) in variables.values {
        settings.set(key, Value::String(value), Origin::Variable(name))?;
    }
    for (path, name, value) in variables.handlers {
        let origin = Origin::Variable(name);
        if !settings.handlers.add_variable(&path, value, &origin)? {
            return Err(unknown(&format!("{UPSTREAM}.{path}"), origin));
        }
    }
    for flag in &sources.flags {
        let origin = Origin::Flag(flag.name.clone());
        let key = Key::find(&flag.key).ok_or_else(|| unknown(&flag.key, origin.clone()))?;
        settings.set(key, Value::String(flag.value.clone()), origin)?;
    }
    settings.fill_in_demo(file.is_some());
    settings.fill_in_hosts();
    settings.fill_in_limits(&Means::of_this_process());
    settings.build()
}

fn read_file(path: &Path) -> Result<Table, ConfigError> {
    let text = fs::read_to_string(path).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    text.parse::<Table>().map_err(|error| {
        let before = error
            .span()
            .and_then(|span| text.get(..span.start))
            .unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        ConfigError::Syntax {
            path: path.to_owned(),
            line,
            problem: error.message().to_owned(),
        }
    })
}

/// The values that are set, by key.
#[derive(Default)]
struct Settings {
    values: BTreeMap<&'static str, (Value, Origin)>,
    /// The settings of `[hubs.NAME]`, by name and key.
    hubs: BTreeMap<String, BTreeMap<&'static str, (Value, Origin)>>,
    handlers: Handlers,
}

impl Settings {
    fn add_table(&mut self, section: &str, table: Table, path: &Path) -> Result<(), ConfigError> {
        for (name, value) in table {
            let name = if section.is_empty() {
                name
            } else {
                format!("{section}.{name}")
            };
            let origin = Origin::File(path.to_owned());
            match (Key::find(&name), value) {
                (Some(key), value) => self.set(key, value, origin)?,
                (None, value) if name == UPSTREAM => self.handlers.add_file(value, &origin)?,
                (None, Value::Table(table)) if section == HUBS => self.add_hub(&name, table, path)?,
                (None, Value::Table(table)) if section.is_empty() && is_section(&name) => {
                    self.add_table(&name, table, path)?;
                }
                (None, _) => return Err(unknown(&name, origin)),
            }
        }
        Ok(())
    }

    /// `[hubs.NAME]`: a hub with built-in methods, and its own options.
    fn add_hub(&mut self, section: &str, table: Table, path: &Path) -> Result<(), ConfigError> {
        let hub = section.trim_start_matches(HUBS).trim_start_matches('.');
        let mut own = BTreeMap::new();
        for (name, value) in table {
            let origin = Origin::File(path.to_owned());
            let shared =
                Key::find(&format!("{HUBS}.{name}")).filter(|_| !NOT_OF_ONE.contains(&name.as_str()));
            let key = shared.ok_or_else(|| unknown(&format!("{section}.{name}"), origin.clone()))?;
            let value = typed(key.kind, &format!("{section}.{name}"), value, &origin)?;
            own.insert(key.name, (value, origin));
        }
        self.hubs.insert(hub.to_owned(), own);
        Ok(())
    }

    fn set(&mut self, key: &'static Key, value: Value, origin: Origin) -> Result<(), ConfigError> {
        let value = typed(key.kind, key.name, value, &origin)?;
        self.values.insert(key.name, (value, origin));
        Ok(())
    }

    /// Without any setting but flags for the address and the log the binary serves the demo.
    fn fill_in_demo(&mut self, has_file: bool) {
        let says_nothing = |(key, (_, origin)): (&&str, &(Value, Origin))| {
            matches!(origin, Origin::Flag(_)) && (*key == "listen" || key.starts_with("log."))
        };
        let unconfigured = !has_file && self.handlers.is_empty() && self.values.iter().all(says_nothing);
        if unconfigured {
            self.values
                .insert("demo", (Value::Boolean(true), Origin::Default));
        }
        if matches!(self.values.get("demo"), Some((Value::Boolean(true), _))) {
            let anonymous = (Value::Boolean(true), Origin::DemoMode);
            self.values.entry("auth.allow_anonymous").or_insert(anonymous);
            let roles =
                ["hubcast.join", "hubcast.send", "hubcast.watch"].map(|role| Value::String(role.to_owned()));
            let roles = (Value::Array(roles.into()), Origin::DemoMode);
            self.values.entry("auth.anonymous_roles").or_insert(roles);
        }
    }

    /// A node on loopback is for programs of its machine, and for browsers, whose pages may be from any site. A proxy
    /// before it passes on the names that it has.
    fn fill_in_hosts(&mut self) {
        let text = |key| self.values.get(key).and_then(|(value, _)| value.as_str());
        let default = Config::default().listen;
        let listen = text("listen").unwrap_or(&default);
        if is_loopback(listen) && !self.values.contains_key("server.trusted_proxies") {
            let own = Value::Array(vec![Value::String("localhost".to_owned())]);
            let origin = Origin::Derived("listen, which is on loopback".to_owned());
            self.values.entry("server.allowed_hosts").or_insert((own, origin));
        }
    }

    /// Derives the limit on connections from the resources of the process.
    fn fill_in_limits(&mut self, means: &Means) {
        for (key, value) in means.limits() {
            let value = Value::Integer(i64::try_from(value).unwrap_or(i64::MAX));
            let origin = Origin::Derived(means.to_string());
            self.values.entry(key).or_insert((value, origin));
        }
    }

    fn build(self) -> Result<Loaded, ConfigError> {
        let mut table = Table::new();
        let mut origins = BTreeMap::new();
        for (key, (value, origin)) in self.values {
            insert(&mut table, &path_of(key), value);
            if origin != Origin::Default {
                origins.insert(key, origin);
            }
        }
        let fail = |key: &str, problem: String| ConfigError::Value {
            key: key.to_owned(),
            origin: origins.get(key).cloned().unwrap_or(Origin::Default),
            problem,
        };
        let mut config: Config = table
            .try_into()
            .map_err(|error: toml::de::Error| fail("configuration", error.message().to_owned()))?;
        config.hub_tables = HubTables::new(self.hubs);
        let (handlers, handler_origins) = self.handlers.build()?;
        config.upstream = handlers;
        config.check().map_err(|error| fail(error.key, error.problem))?;
        config.upstream().map_err(|error| {
            let index = error
                .key
                .split(['[', ']'])
                .nth(1)
                .and_then(|index| index.parse::<usize>().ok());
            let origin = index.and_then(|index| handler_origins.get(index)).cloned();
            ConfigError::Value {
                origin: origin
                    .or_else(|| origins.get(&*error.key).cloned())
                    .unwrap_or(Origin::Default),
                key: error.key,
                problem: error.problem,
            }
        })?;
        Ok(Loaded { config, origins })
    }
}

fn is_loopback(listen: &str) -> bool {
    let host = listen.rsplit_once(':').map_or(listen, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let address = host.parse::<std::net::IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

/// The path of a key's value in [`Config`].
fn path_of(key: &str) -> String {
    match key.split_once('.') {
        Some(("hubs", "names")) => "hub_names".to_owned(),
        Some(("hubs", "undeclared")) => "undeclared_hubs".to_owned(),
        Some(("auth" | "cors" | "server" | "limits" | "timeouts" | "hubs", _)) => format!("options.{key}"),
        None if key.starts_with("access_key") => format!("options.auth.{key}"),
        _ => key.to_owned(),
    }
}

fn insert(table: &mut Table, path: &str, value: Value) {
    match path.split_once('.') {
        None => _ = table.insert(path.to_owned(), value),
        Some((section, rest)) => {
            let inner = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(inner) = inner {
                insert(inner, rest, value);
            }
        }
    }
}

fn is_section(name: &str) -> bool {
    KEYS.iter().any(|key| {
        key.name
            .strip_prefix(name)
            .is_some_and(|rest| rest.starts_with('.'))
    })
}

pub(super) fn unknown(key: &str, origin: Origin) -> ConfigError {
    let last = |name: &str| name.rsplit('.').next().unwrap_or_default().replace('_', "");
    let section = key.split('.').next().unwrap_or_default();
    let alike = KEYS.iter().find(|known| last(known.name) == last(key));
    let hint = match alike {
        Some(known) => format!("; did you mean {}?", known.name),
        None if is_section(section) => {
            let names = KEYS
                .iter()
                .filter_map(|k| k.name.strip_prefix(section)?.strip_prefix('.'));
            format!("; [{section}] has {}", names.collect::<Vec<_>>().join(", "))
        }
        None => "; `hubcast help serve` lists all keys".to_owned(),
    };
    ConfigError::UnknownKey {
        key: key.to_owned(),
        origin,
        hint,
    }
}

/// The keys of the section of hubs that no hub has for itself.
pub(super) const NOT_OF_ONE: [&str; 2] = ["names", "undeclared"];
/// The section of hubs.
const HUBS: &str = "hubs";

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;
