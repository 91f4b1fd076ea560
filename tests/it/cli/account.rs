//! Accounts, as operators make and end them.

use super::*;

#[test]
fn an_account_is_made_listed_given_a_token_and_revoked() {
    let place = Place::new();
    let made = place.json(&["account", "create", "Ada", "--email", "ada@example.org"]);
    let key = text(&made["signInKey"]);
    assert!(key.starts_with("cma_") && key.len() == 36, "{made}");
    let list = place.json(&["account", "list"]);
    assert_eq!(list["accounts"][0]["accountId"], made["accountId"]);
    assert!(!list.to_string().contains(&key), "shown once");

    let token = place.json(&["account", "token", "ada@example.org"]);
    assert_eq!(text(&token["token"]).split('.').count(), 3, "{token}");
    let sync = place.json(&["account", "token", "Ada", "--sync"]);
    assert_eq!((&sync["sync"], text(&sync["token"]).split('.').count()), (&true.into(), 3));

    assert_eq!(place.json(&["account", "revoke", "Ada"])["changed"], true);
    assert_eq!(place.json(&["account", "revoke", "Ada"])["changed"], false);
    assert_eq!(place.failure(&["account", "token", "Ada"]).0, "account_revoked");
    assert_eq!(place.failure(&["account", "token", "Bob"]).0, "account_not_found");
}

#[test]
fn an_account_of_a_dashboards_user_has_that_users_id() {
    let place = Place::new();
    let made = place.json(&["account", "create", "Ada", "--id", "user_1"]);
    assert_eq!(made["accountId"], "user_1");
    assert_eq!(place.failure(&["account", "create", "Eve", "--id", "user_1"]).0, "conflict");
    place.json(&["account", "create", "Ada"]);
    assert_eq!(place.failure(&["account", "revoke", "Ada"]).0, "account_ambiguous");
    assert_eq!(place.failure(&["account", "create", "a\nb"]).0, "invalid_name");
}
