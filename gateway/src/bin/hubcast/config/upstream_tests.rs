//! Handlers from files and variables.

use std::ffi::OsString;

use hubcast::upstream::Form;

use crate::config::{ConfigError, Loaded, Sources, load};

const TEXT: &str = r#"
server.public_host = "chat.example.org"
[hubs.chat]
[[upstream]]
url = "https://app.example.org/{hub}/{event}?code=s3cret"
form = "cloudevents"
hubs = ["chat", "news"]
system_events = ["connect", "disconnected"]
timeout_seconds = 2
headers = { Authorization = "Bearer s3cret" }
[[upstream]]
url = "http://127.0.0.1:7071/"
form = "signalr"
keys = ["s3cret"]
"#;

fn loaded(text: &str, variables: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let sources = Sources {
        file: Some(file.path().to_owned()),
        flags: Vec::new(),
    };
    let variables = variables
        .iter()
        .map(|(name, value)| (OsString::from(name), OsString::from(value)));
    load(&sources, variables)
}

#[test]
fn handlers_come_from_files_and_variables() {
    let variables = [
        ("HUBCAST_UPSTREAM__1__FORM", "signalr"),
        ("HUBCAST_UPSTREAM__1__EVENTS", "a, b"),
        ("HUBCAST_UPSTREAM__2__URL", "https://last.example.org/"),
        ("HUBCAST_UPSTREAM__2__FORM", "signalr"),
        ("HUBCAST_UPSTREAM__2__HEADERS__X_KEY", "s3cret"),
        ("HUBCAST_UPSTREAM__2__ANSWER_BYTES", "100"),
    ];
    let loaded = loaded(TEXT, &variables).unwrap();
    let handlers = &loaded.config.upstream;
    assert_eq!(handlers.len(), 3);
    assert_eq!(handlers[0].form, Some(Form::CloudEvents));
    assert_eq!(handlers[0].timeout.as_secs(), 2);
    assert_eq!(handlers[1].events, ["a", "b"]);
    assert!(handlers[2].headers.contains_key("x-key"));
    assert_eq!(handlers[2].answer_bytes, 100);
    let hubs = loaded.config.builtin_hubs().unwrap();
    let hubs: Vec<_> = hubs.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        hubs,
        ["chat", "news"],
        "who names a hub for a handler wants it served"
    );
    let printed = loaded.config.to_toml(&loaded.origins);
    assert!(!printed.contains("s3cret"), "{printed}");
    for line in [
        "[[upstream]]",
        "code=***",
        "timeout_seconds = 2",
        "Authorization = \"***\"",
    ] {
        assert!(printed.contains(line), "{line} is not in\n{printed}");
    }
    printed.parse::<toml::Table>().unwrap();
}

#[test]
fn a_bad_handler_is_named_with_its_setting() {
    let with = |line: &str| {
        loaded(&format!("[hubs.chat]\n[[upstream]]\n{line}\n"), &[])
            .unwrap_err()
            .to_string()
    };
    let url = "url = 'https://a.example/'";
    for (line, expected) in [
        ("form = 'signalr'", "upstream[0].url"),
        (url, "upstream[0].form"),
        ("form = 'soap'", "upstream[0].form (file"),
        ("retries = 1", "unknown key \"upstream[0].retries\""),
        (&format!("form = 'cloudevents'\n{url}"), "server.public_host"),
        (
            &format!("form = 'signalr'\n{url}\nca_file = '/nowhere'"),
            "upstream[0].ca_file",
        ),
        ("headers = 'x'", "upstream[0].headers"),
        ("timeout_seconds = 'x'", "upstream[0].timeout_seconds (file"),
        (
            &format!("form = 'signalr'\n{url}\nsystem_events = ['connect']"),
            "categories = [\"connections\"]",
        ),
    ] {
        let error = with(line);
        assert!(error.contains(expected), "{line}: {error}");
    }
    let gap = loaded("", &[("HUBCAST_UPSTREAM__1__URL", "http://a/")])
        .unwrap_err()
        .to_string();
    assert!(
        gap.contains("upstream[1]") && gap.contains("HUBCAST_UPSTREAM__1__URL"),
        "{gap}"
    );
    let unknown = loaded("", &[("HUBCAST_UPSTREAM__0__URI", "http://a/")])
        .unwrap_err()
        .to_string();
    assert!(unknown.contains("upstream[0].uri"), "{unknown}");
    let table = loaded("[upstream]\nurl = 'x'\n", &[]).unwrap_err().to_string();
    assert!(table.contains("[[upstream]]"), "{table}");
}
