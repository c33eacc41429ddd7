//! Tests of handlers' settings.

use super::*;

fn handler(form: Form) -> HandlerSettings {
    HandlerSettings {
        url: "https://app.example.org/{hub}?code=s3cret&e={event}".into(),
        form: Some(form),
        ..HandlerSettings::default()
    }
}

#[test]
fn each_bad_setting_is_named() {
    type Change = fn(&mut HandlerSettings);
    let cases: [(&str, Change); 12] = [
        ("form", |own| own.form = None),
        ("url", |own| own.url = "app.example.org".into()),
        ("system_events", |own| {
            own.system_events = vec![SystemEvent::Connect];
        }),
        ("hubs", |own| own.hubs.clear()),
        ("events", |own| own.events.clear()),
        ("timeout_seconds", |own| own.timeout = Duration::ZERO),
        ("concurrency", |own| own.concurrency = 0),
        ("answer_bytes", |own| own.answer_bytes = 17 * 1024 * 1024),
        ("headers", |own| {
            _ = own.headers.insert("X-ASRS-Hub".to_owned(), "x".into());
        }),
        ("headers", |own| {
            _ = own.headers.insert("X-A".to_owned(), "a\nb".into());
        }),
        ("keys", |own| own.keys.push(SecretString::default())),
        ("allow_roles", |own| own.allow_roles = vec!["a*b".to_owned()]),
    ];
    for (key, change) in cases {
        let mut settings = handler(Form::SignalR);
        assert_eq!(settings.check(), Ok(()));
        change(&mut settings);
        assert_eq!(settings.check().unwrap_err().key, key);
    }
    let mut events = handler(Form::CloudEvents);
    events.categories = Some(vec![Category::Messages]);
    assert_eq!(events.check().unwrap_err().key, "categories");
}

#[test]
fn nothing_secret_is_shown() {
    let mut settings = handler(Form::SignalR);
    settings.keys.push("s3cret".into());
    settings
        .headers
        .insert("Authorization".to_owned(), "Bearer s3cret".into());
    let shown = format!("{settings:?} {}", settings.shown_url());
    assert!(!shown.contains("s3cret"), "{shown}");
    assert!(shown.contains("code=***&e={event}"), "{shown}");
    let mut other = settings.clone();
    assert!(settings.same(&other));
    other.keys = vec!["another".into()];
    assert!(!settings.same(&other));
}

#[test]
fn the_forms_match_as_their_services_do() {
    let mut signalr = handler(Form::SignalR);
    signalr.events = vec!["Echo".to_owned(), "connected".to_owned()];
    assert!(signalr.wants_message("Echo") && !signalr.wants_message("echo"));
    assert!(signalr.wants_system(SystemEvent::Connected));
    assert!(!signalr.wants_system(SystemEvent::Disconnected));
    assert!(!signalr.wants_system(SystemEvent::Connect));
    signalr.categories = Some(vec![Category::Messages]);
    assert!(!signalr.wants_system(SystemEvent::Connected));
    let mut events = handler(Form::CloudEvents);
    assert!(events.wants_message("anything") && !events.wants_system(SystemEvent::Joined));
    events.events = vec!["Echo".to_owned()];
    events.system_events = vec![SystemEvent::Joined];
    assert!(events.wants_message("ECHO") && events.wants_system(SystemEvent::Joined));
}
