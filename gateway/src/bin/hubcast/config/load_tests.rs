use std::time::Duration;

use hubcast::protocol::Transport;
use secrecy::ExposeSecret;

use super::*;

const KEY: &str = "0123456789012345678901234567890123456789";

fn flags(flags: &[(&str, &str)]) -> Vec<Flag> {
    let flag = |(key, value): &(&str, &str)| Flag {
        name: format!("--{key}"),
        key: (*key).to_owned(),
        value: (*value).to_owned(),
    };
    flags.iter().map(flag).collect()
}

fn variables(variables: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    variables
        .iter()
        .map(|(name, value)| (name.into(), value.into()))
        .collect()
}

fn with_variables(pairs: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
    load(&Sources::default(), variables(pairs))
}

/// A file that is gone at the end of the test.
struct TempFile(PathBuf);

impl TempFile {
    fn new(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("hubcast-{}-{name}.toml", std::process::id()));
        fs::write(&path, text).unwrap();
        Self(path)
    }

    fn sources(&self) -> Sources {
        Sources {
            file: Some(self.0.clone()),
            flags: Vec::new(),
        }
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        _ = fs::remove_file(&self.0);
    }
}

#[test]
fn later_layers_win_key_by_key() {
    let file = TempFile::new(
        "layers",
        "listen = '1.1.1.1:1'\nnode_id = 'file'\n[limits]\nmessage_bytes = 1000\nconnections = 7\n",
    );
    let mut sources = file.sources();
    sources.flags = flags(&[("listen", "3.3.3.3:3")]);
    let environment = [
        ("HUBCAST_LISTEN", "2.2.2.2:2"),
        ("HUBCAST_LIMITS__MESSAGE_BYTES", "2000"),
        ("OTHER", "x"),
    ];
    let loaded = load(&sources, variables(&environment)).unwrap();
    let config = loaded.config;
    assert_eq!(config.listen, "3.3.3.3:3");
    assert_eq!(config.node_id.as_deref(), Some("file"));
    assert_eq!(config.options.limits.message_bytes, 2000);
    assert_eq!(config.options.limits.connections, 7);
    assert_eq!(config.options.limits.outbox_bytes, 1024 * 1024);
    assert_eq!(loaded.origins["listen"], Origin::Flag("--listen".to_owned()));
    assert_eq!(loaded.origins["limits.connections"], Origin::File(file.0.clone()));
    assert!(!loaded.origins.contains_key("limits.outbox_bytes"));
}

#[test]
fn every_kind_of_value_is_read_from_text() {
    let config = with_variables(&[
        (
            "HUBCAST_CORS__ALLOWED_ORIGINS",
            "https://a.example, https://b.example",
        ),
        ("HUBCAST_TIMEOUTS__SEND_SECONDS", "2.5"),
        ("HUBCAST_HUBS__DETAILED_ERRORS", "true"),
        ("HUBCAST_TELEMETRY__SAMPLE_RATIO", "0.25"),
        ("HUBCAST_LOG__FORMAT", "json"),
        ("HUBCAST_ACCESS_KEY", KEY),
        ("HUBCAST_REDIS", ""),
    ])
    .unwrap()
    .config;
    assert_eq!(
        config.options.cors.allowed_origins,
        ["https://a.example", "https://b.example"]
    );
    assert_eq!(config.options.timeouts.send, Duration::from_millis(2500));
    assert!(config.options.hubs.detailed_errors);
    assert!((config.telemetry.sample_ratio - 0.25).abs() < f64::EPSILON);
    assert_eq!(config.log.format.name(), "json");
    assert_eq!(
        config.options.auth.access_key.unwrap().expose_secret(),
        KEY,
        "digits stay text"
    );
    assert!(config.redis.is_none(), "an empty variable is not set");
}

#[test]
fn the_demo_is_on_only_when_nothing_is_configured() {
    let demo = |sources: &Sources, environment: &[(&str, &str)]| {
        let config = load(sources, variables(environment)).unwrap().config;
        (config.demo, config.options.auth.allow_anonymous)
    };
    let with = |pairs: &[(&str, &str)]| Sources {
        file: None,
        flags: flags(pairs),
    };
    assert_eq!(demo(&Sources::default(), &[]), (true, Some(true)));
    assert_eq!(
        demo(&with(&[("listen", "127.0.0.1:0"), ("log.level", "debug")]), &[]),
        (true, Some(true))
    );
    assert_eq!(demo(&with(&[("node_id", "a")]), &[]), (false, None));
    assert_eq!(
        demo(&with(&[("demo", "true"), ("redis", "redis://a")]), &[]),
        (true, Some(true))
    );
    assert_eq!(demo(&with(&[("demo", "false")]), &[]), (false, None));
    assert_eq!(
        demo(&with(&[("demo", "true"), ("auth.allow_anonymous", "false")]), &[]),
        (true, Some(false))
    );
    assert_eq!(
        demo(&Sources::default(), &[("HUBCAST_NODE_ID", "a")]),
        (false, None)
    );
    assert_eq!(
        demo(&Sources::default(), &[("HUBCAST_SERVICE_HOST", "10.0.0.1")]),
        (true, Some(true))
    );
    assert_eq!(demo(&TempFile::new("demo", "").sources(), &[]), (false, None));
}

#[test]
fn the_file_may_be_named_by_a_variable() {
    let file = TempFile::new("variable", "[drain]\nnotice_seconds = 3\n");
    let config = with_variables(&[("HUBCAST_CONFIG", file.0.to_str().unwrap())])
        .unwrap()
        .config;
    assert_eq!(config.drain.notice, Duration::from_secs(3));
    let error = with_variables(&[("HUBCAST_CONFIG", "/no/such/file.toml")])
        .unwrap_err()
        .to_string();
    assert!(error.contains("/no/such/file.toml"), "{error}");
}

#[test]
fn variables_that_kubernetes_makes_are_not_ours() {
    let made = [
        ("HUBCAST_SERVICE_HOST", "10.0.0.1"),
        ("HUBCAST_SERVICE_PORT", "80"),
        ("HUBCAST_SERVICE_PORT_HTTP", "80"),
        ("HUBCAST_PORT", "tcp://10.0.0.1:80"),
        ("HUBCAST_PORT_80_TCP", "tcp://10.0.0.1:80"),
        ("HUBCAST_PORT_80_TCP_PROTO", "tcp"),
        ("HUBCAST_PORT_80_TCP_PORT", "80"),
        ("HUBCAST_PORT_80_TCP_ADDR", "10.0.0.1"),
        ("HUBCAST_NODES_SERVICE_HOST", "10.0.0.1"),
        ("HUBCAST_NODES_PORT_80_TCP_ADDR", "10.0.0.1"),
    ];
    assert!(with_variables(&made).is_ok());
    assert!(
        with_variables(&[("HUBCAST_PORT", "80")]).is_err(),
        "somebody expects that to work"
    );
}

#[test]
fn an_error_names_the_key_and_the_layer() {
    let of = |environment: &[(&str, &str)]| with_variables(environment).unwrap_err().to_string();
    let in_file = |name: &str, text: &str| {
        load(&TempFile::new(name, text).sources(), [])
            .unwrap_err()
            .to_string()
    };
    let expected =
        "limits.message_bytes (variable HUBCAST_LIMITS__MESSAGE_BYTES): \"big\" is not a whole number";
    assert_eq!(of(&[("HUBCAST_LIMITS__MESSAGE_BYTES", "big")]), expected);
    let error = of(&[("HUBCAST_LIMIT__MESSAGE_BYTES", "1")]);
    assert!(error.contains("variable HUBCAST_LIMIT__MESSAGE_BYTES"), "{error}");
    assert!(error.contains("did you mean limits.message_bytes?"), "{error}");
    let error = in_file("unknown", "[limits]\nmesage = 1\n");
    assert!(error.contains("unknown key \"limits.mesage\" (file "), "{error}");
    assert!(error.contains("[limits] has message_bytes, "), "{error}");
    assert!(in_file("section", "[what]\n").contains("unknown key \"what\""));
    assert!(in_file("type", "demo = 1").contains("demo (file "));
    assert!(in_file("fraction", "limits.message_bytes = 1.5").contains("must be a whole number"));
    assert!(in_file("negative", "timeouts.send_seconds = -1").contains("must be from 0 to"));
    assert!(in_file("word", "log.format = 'xml'").contains("must be one of text, json"));
    let sources = Sources {
        file: None,
        flags: flags(&[("no.such", "1")]),
    };
    let error = load(&sources, []).unwrap_err().to_string();
    assert!(
        error.starts_with("unknown key \"no.such\" (flag --no.such)"),
        "{error}"
    );
}

#[test]
fn rules_across_keys_name_the_key_and_the_layer() {
    let rules: [(&[(&str, &str)], &str); 11] = [
        (
            &[("HUBCAST_ACCESS_KEY", "short")],
            "access_key (variable HUBCAST_ACCESS_KEY): has 5 bytes",
        ),
        (
            &[("HUBCAST_ACCESS_KEY_SECONDARY", KEY)],
            "access_key_secondary (variable",
        ),
        (
            &[("HUBCAST_LISTEN", "8080")],
            "listen (variable HUBCAST_LISTEN): \"8080\" is not a host and a port",
        ),
        (&[("HUBCAST_LISTEN", "::1:80")], "listen (variable"),
        (
            &[("HUBCAST_REDIS", "localhost:6379")],
            "redis (variable HUBCAST_REDIS): the Redis URL must start with redis://",
        ),
        (
            &[("HUBCAST_REDIS", "redis+sentinel://:pa55word@a,b")],
            "redis (variable HUBCAST_REDIS): the Redis URL can't be read: after the sentinels",
        ),
        (&[("HUBCAST_NODE_ID", "a b")], "node_id (variable"),
        (
            &[("HUBCAST_BACKPLANE__LEASE_SECONDS", "1")],
            "backplane.lease_seconds (variable",
        ),
        (
            &[("HUBCAST_BACKPLANE__CA_FILE", "/ca.pem")],
            "backplane.ca_file (variable",
        ),
        (&[("HUBCAST_LOG__LEVEL", "infoo")], "log.level (variable"),
        (
            &[("HUBCAST_TELEMETRY__OTLP_ENDPOINT", "collector:4317")],
            "telemetry.otlp_endpoint (variable",
        ),
    ];
    for (environment, expected) in rules {
        let error = with_variables(environment).unwrap_err().to_string();
        assert!(
            error.starts_with(expected) && !error.contains("pa55word"),
            "{error}"
        );
    }
}

#[test]
fn every_form_of_redis_is_accepted() {
    let file = TempFile::new("ca", "");
    for url in [
        "rediss://a",
        "rediss+sentinel://a,b:1/mymaster/2",
        "rediss+cluster://a,b",
    ] {
        let ca_file = ("HUBCAST_BACKPLANE__CA_FILE", file.0.to_str().unwrap());
        with_variables(&[("HUBCAST_REDIS", url), ca_file]).unwrap();
        let plain = url.replacen("rediss", "redis", 1);
        with_variables(&[("HUBCAST_REDIS", &plain)]).unwrap();
        let error = with_variables(&[("HUBCAST_REDIS", &plain), ca_file]).unwrap_err();
        assert!(error.to_string().contains("has no use without TLS"), "{error}");
    }
}

#[test]
fn a_syntax_error_shows_its_place_and_not_the_line() {
    let file = TempFile::new("syntax", "demo = true\naccess_key = s3cret-without-quotes\n");
    let error = load(&file.sources(), []).unwrap_err().to_string();
    assert!(error.contains(", line 2: "), "{error}");
    assert!(!error.contains("s3cret"), "{error}");
}

#[test]
fn secrets_are_never_printed() {
    let environment = [
        ("HUBCAST_ACCESS_KEY", KEY),
        ("HUBCAST_REDIS", "redis://:pa55word@localhost"),
    ];
    let loaded = with_variables(&environment).unwrap();
    for text in [
        format!("{:?}", loaded.config),
        format!("{loaded:?}"),
        loaded.config.to_toml(&loaded.origins),
    ] {
        assert!(!text.contains(KEY) && !text.contains("pa55word"), "{text}");
        assert!(text.contains("redis = \"***\""), "{text}");
    }
}

#[test]
fn what_is_printed_can_be_read_again() {
    let environment = [
        ("HUBCAST_CORS__ALLOWED_ORIGINS", "https://a.example"),
        ("HUBCAST_DRAIN__NOTICE_SECONDS", "1.5"),
    ];
    let loaded = with_variables(&environment).unwrap();
    let text = loaded.config.to_toml(&loaded.origins);
    assert!(
        text.contains("notice_seconds = 1.5 # variable HUBCAST_DRAIN__NOTICE_SECONDS\n"),
        "{text}"
    );
    let again = load(&TempFile::new("again", &text).sources(), []).unwrap().config;
    assert_eq!(again.to_string(), loaded.config.to_string());
}

#[test]
fn hubs_are_named_by_a_list_or_by_their_own_tables() {
    let text = "[hubs]\nnames = ['news', 'chat']\nretention_messages = 50\n\
                [hubs.chat]\nretention_messages = 7\nretention_seconds = 60\n[hubs.\"a.b\"]\n";
    let file = TempFile::new("hubs", text);
    let loaded = load(&file.sources(), []).unwrap();
    let hubs = loaded.config.builtin_hubs().unwrap();
    let seen: Vec<_> = hubs
        .iter()
        .map(|(name, hub)| (name.as_str(), hub.retention_messages))
        .collect();
    assert_eq!(seen, [("a.b", 50), ("chat", 7), ("news", 50)]);
    assert_eq!(hubs[1].1.retention, Duration::from_secs(60));
    let printed = loaded.config.to_toml(&loaded.origins);
    let again = load(&TempFile::new("hubs-again", &printed).sources(), [])
        .unwrap()
        .config;
    let again = again.builtin_hubs().unwrap();
    let again: Vec<_> = again
        .iter()
        .map(|(name, hub)| (name.as_str(), hub.retention_messages))
        .collect();
    assert_eq!(again, seen, "{printed}");
    let loaded = with_variables(&[("HUBCAST_HUBS__NAMES", "chat, news")]).unwrap();
    assert_eq!(loaded.config.builtin_hubs().unwrap().len(), 2);
    assert!(!loaded.config.demo, "who names hubs wants no demo");
}

#[test]
fn a_hub_of_its_own_may_tell_presence() {
    let file = TempFile::new("hub-presence", "[hubs.chat]\npresence = true\n[hubs.news]\n");
    let hubs = load(&file.sources(), []).unwrap().config.builtin_hubs().unwrap();
    let reported: Vec<_> = hubs
        .iter()
        .map(|(name, hub)| (name.as_str(), hub.presence))
        .collect();
    assert_eq!(reported, [("chat", true), ("news", false)]);
}

#[test]
fn a_hub_may_have_transports_of_its_own() {
    let text = "[hubs]\ntransports = ['WebSockets', 'LongPolling']\n[hubs.chat]\ntransports = ['LongPolling']\n[hubs.news]\n";
    let file = TempFile::new("hub-transports", text);
    let hubs = load(&file.sources(), []).unwrap().config.builtin_hubs().unwrap();
    let transports: Vec<_> = hubs.into_iter().map(|(_, hub)| hub.transports).collect();
    let [web_sockets, _, polls] = Transport::ALL;
    assert_eq!(transports, [vec![polls], vec![web_sockets, polls]]);
    let error = |text| {
        with_variables(&[("HUBCAST_HUBS__TRANSPORTS", text)])
            .unwrap_err()
            .to_string()
    };
    let expected = "hubs.transports (variable HUBCAST_HUBS__TRANSPORTS): has \"Pigeons\", must be of \
                    WebSockets, ServerSentEvents, LongPolling";
    assert_eq!(error("LongPolling, Pigeons"), expected);
    let file = TempFile::new("no-transports", "hubs.transports = []");
    let error = load(&file.sources(), []).unwrap_err().to_string();
    assert!(error.contains("no client could connect"), "{error}");
}

#[test]
fn a_hub_that_can_not_be_served_is_named() {
    let error = |name: &str, text: &str| {
        let loaded = load(&TempFile::new(name, text).sources(), []);
        loaded.unwrap_err().to_string()
    };
    let unknown = error("hub-key", "[hubs.chat]\nretention = 1\n");
    assert!(
        unknown.contains("unknown key \"hubs.chat.retention\""),
        "{unknown}"
    );
    let kind = error("hub-type", "[hubs.chat]\nvolatile = 1\n");
    assert!(kind.contains("hubs.chat.volatile (file "), "{kind}");
    let names = error("hub-names", "[hubs.chat]\nnames = ['x']\n");
    assert!(names.contains("hubs.chat.names"), "{names}");
    let name = error("hub-name", "[hubs.\"a b\"]\n");
    assert!(name.contains("hub \"a b\""), "{name}");
    let zero = error("hub-zero", "[hubs.chat]\nretention_messages = 0\n");
    assert!(
        zero.contains("hub \"chat\"") && zero.contains("retention_messages"),
        "{zero}"
    );
    let demo = error("hub-demo", "demo = true\nhubs.names = ['demo']\n");
    assert!(demo.contains("the demo has that name"), "{demo}");
}

#[test]
fn strangers_of_the_demo_may_try_things_out() {
    let roles = |environment: &[(&str, &str)]| {
        with_variables(environment)
            .unwrap()
            .config
            .options
            .auth
            .anonymous_roles
    };
    assert_eq!(
        roles(&[("HUBCAST_DEMO", "true")]),
        ["hubcast.join", "hubcast.send", "hubcast.watch"]
    );
    assert!(roles(&[("HUBCAST_AUTH__ALLOW_ANONYMOUS", "true")]).is_empty());
    let own = [
        ("HUBCAST_DEMO", "true"),
        ("HUBCAST_AUTH__ANONYMOUS_ROLES", "guest"),
    ];
    assert_eq!(roles(&own), ["guest"]);
}
