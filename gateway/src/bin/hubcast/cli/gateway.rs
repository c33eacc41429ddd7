//! The gateway that a command talks to, and the key that its requests are signed with.

use std::{convert::Infallible, path::PathBuf};

use clap::Args;
use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};

use super::{ConfigArgs, Failure};

/// Variables of the commands that talk to a gateway. They are no keys of its configuration.
pub(super) const VARIABLES: [&str; 2] = [URL_VARIABLE, CONNECTION_STRING_VARIABLE];
const URL_VARIABLE: &str = "HUBCAST_URL";
const CONNECTION_STRING_VARIABLE: &str = "HUBCAST_CONNECTION_STRING";
const DEFAULT_URL: &str = "http://127.0.0.1:8080";

/// The end of the help of every such command.
macro_rules! about_gateway {
    () => {
        "\
Which gateway, and with which key: --connection-string, --url and --access-key come first, then the variables
HUBCAST_CONNECTION_STRING, HUBCAST_URL and HUBCAST_ACCESS_KEY, then the access_key in the file that --config or
HUBCAST_CONFIG names. Flags can be seen in the list of processes and in the shell's history: keep keys in variables
or in the file. The key itself is never sent or printed; it signs a token for each request.

Exits with 0 when it was done, with 1 when it was refused or failed, with 2 when the command line is wrong."
    };
}
pub(super) use about_gateway;

/// Flags of every command that talks to a gateway.
#[derive(Args)]
#[command(next_help_heading = "Gateway")]
pub(super) struct GatewayArgs {
    /// The hub
    #[arg(long, value_name = "HUB")]
    pub(super) hub: String,
    /// The gateway's URL, or HUBCAST_URL [default: http://127.0.0.1:8080]
    #[arg(long, value_name = "URL", conflicts_with = "connection_string")]
    url: Option<String>,
    /// Its access key; better HUBCAST_ACCESS_KEY or the file, which other users can't see
    #[arg(long, value_name = "KEY", conflicts_with = "connection_string", value_parser = secret)]
    access_key: Option<SecretString>,
    /// URL and key at once, as `hubcast check --connection-string` prints them; better HUBCAST_CONNECTION_STRING
    #[arg(long, value_name = "TEXT", value_parser = secret)]
    connection_string: Option<SecretString>,
    /// TOML file with the gateway's configuration, for its access_key
    #[arg(long, value_name = "FILE", conflicts_with_all = ["access_key", "connection_string"])]
    config: Option<PathBuf>,
    /// Print one JSON object, for scripts
    #[arg(long)]
    pub(super) json: bool,
}

fn secret(text: &str) -> Result<SecretString, Infallible> {
    Ok(text.trim().into()) // as the gateway reads its own
}

/// A gateway, and a key of it.
#[derive(Debug)]
pub(super) struct Target {
    /// Scheme, host and port alone.
    pub(super) url: Url,
    pub(super) key: SecretString,
}

impl GatewayArgs {
    /// Puts flags, variables and file together.
    pub(super) fn target(&self) -> Result<Target, Failure> {
        self.resolve(|name| std::env::var(name).ok())
    }

    fn resolve(&self, variable: impl Fn(&str) -> Option<String>) -> Result<Target, Failure> {
        let variable = |name| {
            let value = variable(name).map(|value| value.trim().to_owned());
            value.filter(|value| !value.is_empty())
        };
        if let Some(text) = &self.connection_string {
            return parse_connection_string("--connection-string", text.expose_secret());
        }
        let known = match variable(CONNECTION_STRING_VARIABLE) {
            Some(text) => Some(parse_connection_string(CONNECTION_STRING_VARIABLE, &text)?),
            None => None,
        };
        let (known_url, known_key) = known.map(|target| (target.url, target.key)).unzip();
        let url = match (&self.url, known_url) {
            (Some(text), _) => parse_url("--url", text)?,
            (None, Some(url)) => url,
            (None, None) => match variable(URL_VARIABLE) {
                Some(text) => parse_url(URL_VARIABLE, &text)?,
                None => parse_url("the default", DEFAULT_URL)?,
            },
        };
        let key = match (&self.access_key, &self.config, known_key) {
            (Some(key), ..) => key.clone(),
            (None, None, Some(key)) => key,
            _ => self.configured_key()?,
        };
        if key.expose_secret().is_empty() {
            return Err(Failure::Usage(NO_KEY.to_owned()));
        }
        Ok(Target { url, key })
    }

    fn configured_key(&self) -> Result<SecretString, Failure> {
        let config = ConfigArgs {
            config: self.config.clone(),
            ..ConfigArgs::default()
        };
        let auth = config.load()?.config.options.auth;
        auth.access_key.ok_or_else(|| Failure::Usage(NO_KEY.to_owned()))
    }
}

const NO_KEY: &str = "no access key is set: set HUBCAST_ACCESS_KEY, or access_key in the file that --config names, to \
     the gateway's key; a demo that makes its own prints a connection string when it starts, for HUBCAST_CONNECTION_STRING";

/// Errors don't show the text: it may hold a secret in the wrong place.
fn parse_url(origin: &str, text: &str) -> Result<Url, Failure> {
    let wrong = || {
        Failure::Usage(format!(
            "{origin} is not the URL of a gateway, such as {DEFAULT_URL}, without a path"
        ))
    };
    let url: Url = text.parse().map_err(|_| wrong())?;
    let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
    let anonymous = url.username().is_empty() && url.password().is_none();
    if matches!(url.scheme(), "http" | "https") && url.has_host() && bare && anonymous {
        Ok(url)
    } else {
        Err(wrong())
    }
}

fn parse_connection_string(origin: &str, text: &str) -> Result<Target, Failure> {
    let wrong = |what: &str| {
        Failure::Usage(format!(
            "{origin} {what}; it looks like Endpoint=http://127.0.0.1:8080;AccessKey=…;Version=1.0; in quotes"
        ))
    };
    let part = |name: &str| {
        let parts = text.split(';').filter_map(|part| part.split_once('='));
        let mut found = parts.filter(|(key, _)| key.trim().eq_ignore_ascii_case(name));
        found.next().map(|(_, value)| value.trim())
    };
    let endpoint = part("Endpoint").ok_or_else(|| wrong("has no Endpoint"))?;
    let mut url = parse_url(&format!("the Endpoint in {origin}"), endpoint)?;
    if let Some(port) = part("Port") {
        let port = port.parse().map_err(|_| wrong("has a Port that is no number"))?;
        url.set_port(Some(port))
            .map_err(|()| wrong("has a Port that can't be used"))?;
    }
    let key = part("AccessKey")
        .filter(|key| !key.is_empty())
        .ok_or_else(|| wrong("has no AccessKey"))?;
    Ok(Target { url, key: key.into() })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    const KEY: &str = "an access key of at least 32 bytes==";

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        gateway: GatewayArgs,
    }

    fn target(args: &[&str], variables: &[(&str, &str)]) -> Result<(String, String), Failure> {
        let args = Command::try_parse_from([&["x", "--hub", "chat"], args].concat()).unwrap();
        let variable = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| value.to_string())
        };
        let target = args.gateway.resolve(variable)?;
        Ok((target.url.to_string(), target.key.expose_secret().to_owned()))
    }

    #[test]
    fn flags_come_before_variables() {
        let of = |url: &str, key: &str| (url.to_owned(), key.to_owned());
        let string = format!("Endpoint=http://a;AccessKey={KEY};Version=1.0;");
        let known = [
            (CONNECTION_STRING_VARIABLE, string.as_str()),
            (URL_VARIABLE, "http://b"),
        ];
        assert_eq!(target(&[], &known).unwrap(), of("http://a/", KEY));
        assert_eq!(
            target(&["--url", "https://c"], &known).unwrap(),
            of("https://c/", KEY)
        );
        assert_eq!(
            target(&["--access-key", "k"], &known).unwrap(),
            of("http://a/", "k")
        );
        let other = ["--connection-string", "endpoint=http://d/;port=81;accesskey=k"];
        assert_eq!(target(&other, &known).unwrap(), of("http://d:81/", "k"));
        let key = ["--access-key", "k"];
        assert_eq!(target(&key, &known[1..]).unwrap(), of("http://b/", "k"));
        assert_eq!(
            target(&key, &[(URL_VARIABLE, "")]).unwrap(),
            of("http://127.0.0.1:8080/", "k")
        );
    }

    #[test]
    fn what_is_wrong_is_told_without_the_secret() {
        for string in [
            "AccessKey=secret",
            "Endpoint=http://a;AccessKey=",
            "Endpoint=http://me:secret@a;AccessKey=secret",
            "Endpoint=secret;AccessKey=secret",
            "Endpoint=http://a;AccessKey=secret;Port=secret",
            "secret",
        ] {
            let failure = target(&["--connection-string", string], &[]).unwrap_err();
            assert_eq!(failure.code(), 2);
            assert!(!failure.to_string().contains("secret"), "{failure}");
        }
        for url in [
            "a",
            "127.0.0.1:80",
            "ftp://a",
            "http://a/b",
            "http://a?b",
            "http://me@a",
        ] {
            assert_eq!(
                target(&["--url", url, "--access-key", "k"], &[])
                    .unwrap_err()
                    .code(),
                2,
                "{url}"
            );
        }
        assert_eq!(target(&["--access-key", ""], &[]).unwrap_err().code(), 2);
    }
}
