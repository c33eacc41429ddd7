//! The settings in the environment: `HUBCAST_…` variables.

use std::ffi::OsString;
use std::path::PathBuf;

use super::keys::{KEYS, Key};
use super::load::{ConfigError, Origin, unknown};

const PREFIX: &str = "HUBCAST_";

/// Names the file where `--config` does not.
const CONFIG_VARIABLE: &str = "HUBCAST_CONFIG";

/// The settings in the environment.
#[derive(Default)]
pub(super) struct Variables {
    pub(super) file: Option<PathBuf>,
    pub(super) values: Vec<(&'static Key, String, String)>,
    /// Settings of handlers: `0.url`, the variable, the value.
    pub(super) handlers: Vec<(String, String, String)>,
}

impl Variables {
    pub(super) fn read(
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, ConfigError> {
        let mut variables = Self::default();
        for (name, value) in environment {
            let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) else {
                continue;
            };
            if name == CONFIG_VARIABLE {
                variables.file = Some(PathBuf::from(value)).filter(|path| !path.as_os_str().is_empty());
                continue;
            }
            let origin = Origin::Variable(name.to_owned());
            if let Some(path) = name.strip_prefix("HUBCAST_UPSTREAM__")
                && let Some(value) = value.to_str()
            {
                if !value.is_empty() {
                    let path = path.replace("__", ".").to_lowercase();
                    variables.handlers.push((path, name.to_owned(), value.to_owned()));
                }
                continue;
            }
            let Some(key) = KEYS.iter().find(|key| key.variable() == name) else {
                if is_service_link(name, &value) {
                    continue;
                }
                let key = name.trim_start_matches(PREFIX).replace("__", ".").to_lowercase();
                return Err(unknown(&key, origin));
            };
            let value = value.into_string().map_err(|_| ConfigError::Value {
                key: key.name.to_owned(),
                origin,
                problem: "is not UTF-8".to_owned(),
            })?;
            // `KEY=` is how compose files and manifests write "not set".
            if !value.is_empty() {
                variables.values.push((key, name.to_owned(), value));
            }
        }
        // A handler's number must not come before the one below it.
        let place = |path: &str| {
            path.split('.')
                .next()
                .and_then(|index| index.parse::<usize>().ok())
        };
        variables.handlers.sort_by_key(|(path, ..)| place(path));
        Ok(variables)
    }
}

/// Returns whether Kubernetes made that variable. It describes every Service to the pods of its namespace, and for
/// one that is called `hubcast` or `hubcast-…` these look like ours: `HUBCAST_SERVICE_HOST`,
/// `HUBCAST_PORT=tcp://…`, `HUBCAST_PORT_80_TCP_ADDR`.
fn is_service_link(name: &str, value: &OsString) -> bool {
    let protocol = |word: &str| ["_TCP", "_UDP", "_SCTP"].iter().any(|p| word.ends_with(p));
    let about_port = ["_PROTO", "_PORT", "_ADDR"]
        .iter()
        .find_map(|suffix| name.strip_suffix(suffix));
    name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
        || about_port.is_some_and(protocol)
        || value.to_str().is_some_and(|value| value.contains("://"))
            && (name.ends_with("_PORT") || protocol(name) && name.contains("_PORT_"))
}
