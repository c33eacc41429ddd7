//! Tests of identities: claims, roles, changes and their stored form.

use serde_json::json;

use super::*;

fn identity(claims: Value) -> Identity {
    let Value::Object(claims) = claims else {
        panic!("claims are an object")
    };
    Identity::from_claims(claims).unwrap()
}

#[test]
fn roles_are_texts_or_arrays_of_texts_in_any_of_the_usual_claims() {
    let several = identity(json!({
        "role": "admin",
        "roles": ["editor", 7, null, "reader"],
        "http://schemas.microsoft.com/ws/2008/06/identity/claims/role": ["auditor"],
        "asrs.s.rt": "groups",
        "groups": ["chess"],
    }));
    let roles: Vec<_> = several.roles().collect();
    assert_eq!(roles, ["admin", "editor", "reader", "auditor", "chess"]);
    assert!(several.has_role("auditor") && several.has_role("editor"));
    assert!(!several.has_role("Admin") && !several.has_role("adm") && !several.has_role(""));
    for none in [
        json!({}),
        json!({ "role": 7 }),
        json!({ "role": { "admin": true } }),
        json!({ "groups": ["chess"] }),
    ] {
        assert_eq!(identity(none).roles().count(), 0);
    }
    assert!(!Identity::anonymous().has_role("admin"));
}

#[test]
fn an_application_makes_a_client_another_one() {
    let ann =
        identity(json!({ "sub": "ann", "role": "a", "roles": ["b"], "asrs.s.rt": "g", "g": "c", "x": 1 }));
    let same = ann.changed(Changes::default()).unwrap();
    assert_eq!((same.user(), same.roles().count()), (ann.user(), 3));
    let changes = Changes {
        user: Some("bob".to_owned()),
        roles: Some(vec!["hubcast.join".to_owned()]),
        groups: Some(vec!["tea".to_owned()]),
    };
    let bob = ann.changed(changes.clone()).unwrap();
    assert_eq!(bob.user().unwrap().as_str(), "bob");
    assert_eq!(bob.roles().collect::<Vec<_>>(), ["hubcast.join"]);
    assert_eq!(bob.webpubsub_groups().collect::<Vec<_>>(), ["tea"]);
    assert_eq!(bob.claim("x"), Some(&json!(1)));
    let there = Identity::from_json(bob.to_json().unwrap().as_bytes()).unwrap();
    assert!(there.has_role("hubcast.join") && !there.has_role("c"));
    let none = Changes {
        roles: Some(Vec::new()),
        ..Changes::default()
    };
    assert_eq!(bob.changed(none).unwrap().roles().count(), 0);
    let guest = Identity::anonymous()
        .changed(Changes {
            user: None,
            ..changes
        })
        .unwrap();
    assert!(guest.is_anonymous() && guest.has_role("hubcast.join"));
    let bad = Changes {
        user: Some(String::new()),
        ..Changes::default()
    };
    assert_eq!(ann.changed(bad).unwrap_err(), AuthError::UserId);
}

#[test]
fn strangers_may_have_roles_and_stay_strangers() {
    let stranger = Identity::anonymous_with(&["hubcast.join".to_owned()]);
    assert!(stranger.is_anonymous() && stranger.user().is_none());
    assert!(stranger.permissions().may_join("a") && !stranger.permissions().may_send_to_all());
    assert!(Identity::anonymous_with(&[]).is_anonymous());
    assert!(
        !identity(json!({})).is_anonymous(),
        "a token without a user is a token"
    );
}

#[test]
fn claims_of_azure_signalr_are_understood_and_hidden() {
    let ann = identity(json!({
        "asrs.s.uid": "ann", "nameid": "other", "sub": "another",
        "asrs.s.coae": "true", "asrs.s.aeo": "1700000000", "asrs.s.htt": "5",
        "asrs.u.exp": "mine", "exp": 1_700_000_100, "board": 7,
    }));
    assert_eq!(ann.user().unwrap().as_str(), "ann");
    assert_eq!(ann.close_at(), after_1970(1_700_000_000));
    assert_eq!(ann.expires(), after_1970(1_700_000_100));
    assert!(ann.may_use(0) && !ann.may_use(1) && ann.may_use(2));
    assert_eq!(ann.claim("asrs.s.uid"), None);
    assert_eq!(ann.claim("asrs.u.exp"), None);
    assert_eq!(ann.claim("exp"), Some(&json!("mine")));
    assert_eq!(ann.claim("board"), Some(&json!(7)));
    let never = identity(json!({ "asrs.s.aeo": "1700000000" }));
    assert_eq!((never.close_at(), never.expires()), (None, None));
    assert!(never.may_use(1));
}

#[test]
fn the_user_may_be_in_another_claim_and_then_nowhere_else() {
    let claims = |claims: Value| claims.as_object().cloned().unwrap();
    let user = |value, claim| {
        let identity = Identity::from_claims_with(claims(value), Some(claim));
        identity.map(|identity| identity.user().map(ToString::to_string))
    };
    let token = json!({ "sub": "s", "nameid": "n", "email": "ann@example.org" });
    assert_eq!(
        user(token.clone(), "email"),
        Ok(Some("ann@example.org".to_owned()))
    );
    assert_eq!(user(token, "oid"), Ok(None));
    assert_eq!(user(json!({ "oid": 7 }), "oid"), Ok(Some("7".to_owned())));
    assert_eq!(user(json!({ "oid": [7] }), "oid"), Err(AuthError::UserId));
    assert_eq!(user(json!({ "oid": "" }), "oid"), Err(AuthError::UserId));
}

#[test]
fn an_identity_is_the_same_on_another_node() {
    let ann = identity(json!({
        "asrs.s.uid": "ann", "sub": "x", "role": ["a"], "asrs.s.rt": "groups", "groups": "b",
        "asrs.u.sub": "y", "exp": 1_700_000_000, "asrs.s.coae": true, "asrs.s.aeo": 1_700_000_001,
    }));
    let there = Identity::from_json(ann.to_json().unwrap().as_bytes()).unwrap();
    assert_eq!(there.user(), ann.user());
    assert_eq!(there.roles().collect::<Vec<_>>(), ann.roles().collect::<Vec<_>>());
    assert_eq!(
        (there.expires(), there.close_at()),
        (ann.expires(), ann.close_at())
    );
    assert_eq!(there.claim("sub"), Some(&json!("y")));
    assert!(!there.is_anonymous());
    assert!(Identity::from_json(b"{").is_none());
}

fn of(claims: Value) -> Identity {
    let Value::Object(claims) = claims else {
        panic!("claims")
    };
    Identity::from_claims_with(claims, None).unwrap()
}

#[test]
fn a_token_may_say_how_long_the_handshake_takes() {
    for (claim, expected) in [(json!(7), 7), (json!("7"), 7), (json!(31), 30), (json!(0), 1)] {
        let identity = of(json!({ "asrs.s.cht": claim }));
        assert_eq!(
            identity.handshake(),
            Some(Duration::from_secs(expected)),
            "{claim}"
        );
    }
    assert_eq!(of(json!({ "asrs.s.cht": "x" })).handshake(), None);
}

#[test]
fn claims_of_a_back_end_keep_user_and_permissions() {
    let ann = of(json!({ "nameid": "ann", "exp": 10, "role": ["a", "b"], "n": 7 }));
    let permission = Permission::SendToGroup;
    let ann = ann.with_permission(permission, Some("g"), true).unwrap();
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let mut claims = ann.claim_texts();
    claims.sort();
    let expected = [
        pair("n", "7"),
        pair("nameid", "ann"),
        pair("role", "a"),
        pair("role", "b"),
    ];
    assert_eq!(claims, expected);

    let changed = ann.with_claims(
        Some(vec![pair("role", "c"), pair("x", "1"), pair("x", "2")]),
        Some(99),
    );
    let changed = changed.unwrap().unwrap();
    assert_eq!(changed.user(), ann.user());
    assert!(changed.has_role("c") && !changed.has_role("a"));
    assert_eq!(changed.claim("x"), Some(&json!(["1", "2"])));
    assert_eq!(changed.expires(), after_1970(99));
    assert!(changed.has_permission(permission, Some("g")));
    let through_json = Identity::from_json(changed.to_known_json().as_bytes()).unwrap();
    assert!(
        through_json.has_permission(permission, Some("g")) && !through_json.has_permission(permission, None)
    );

    assert!(
        ann.with_claims(Some(vec![pair("nameid", "eve")]), None)
            .unwrap()
            .is_none()
    );
    let same = ann.with_claims(None, None).unwrap().unwrap();
    assert_eq!(same.claim_texts().len(), 4);
    assert_eq!(same.expires(), ann.expires());
}
