//! Finds what the words of a command mean: the store, a mesh, a member.

use super::Failure;
use crate::app;
use crate::config::Config;
use crate::id::Key;
use crate::store::{Member, Mesh, Stores};

/// Runs `work` on the configured store with its schema up to date, and closes
/// the store whatever came of it.
pub(crate) async fn with_store<T>(
    config: &Config,
    work: impl AsyncFnOnce(&Stores) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let store = app::open_store(config).await?;
    let result = work(&store).await;
    store.database.close().await;
    result
}

pub(crate) async fn mesh(store: &Stores, slug_or_id: &str) -> anyhow::Result<Mesh> {
    store.meshes.find(slug_or_id).await?.ok_or_else(|| {
        let message = format!(
            "there is no mesh {slug_or_id:?}; `claudemesh-broker mesh list` shows those there are"
        );
        Failure::new("mesh_not_found", message).into()
    })
}

/// The one of `members` that `target` means: an id, a key, the beginning of a
/// key, or a name. An exact key or id wins over a name, a name over the
/// beginning of a key.
pub(crate) fn member<'a>(members: &'a [Member], target: &str) -> Result<&'a Member, Failure> {
    let name = target.strip_prefix('@').unwrap_or(target);
    let exact = |member: &&Member| member.id.as_str() == target || member.key.as_str() == target;
    let named = |member: &&Member| member.display_name == name;
    let begins = |member: &&Member| target.len() >= 4 && member.key.as_str().starts_with(target);
    let mut found: Vec<&Member> = members.iter().filter(exact).collect();
    if found.is_empty() {
        found = members.iter().filter(named).collect();
    }
    if found.is_empty() {
        found = members.iter().filter(begins).collect();
    }
    match found[..] {
        [one] => Ok(one),
        [] => {
            let message = format!(
                "there is no such member: {target:?}; give a name, an id, a key or its first \
                 4 or more digits, as `claudemesh-broker member list` shows them"
            );
            Err(Failure::new("member_not_found", message))
        }
        _ => {
            let keys: Vec<&str> = found.iter().map(|member| member.key.short()).collect();
            let message =
                format!("{target:?} may mean any of {}; give the key instead", keys.join(", "));
            Err(Failure::new("member_ambiguous", message))
        }
    }
}

/// The key that `sender` means: that of a member, or itself when it is one (a
/// session's key is in nobody's list).
pub(crate) fn sender_key(members: &[Member], sender: &str) -> Result<Key, Failure> {
    match member(members, sender) {
        Ok(found) => Ok(found.key.clone()),
        Err(_) if crate::auth::is_public_key(sender) => Ok(Key::from(sender)),
        Err(failure) => Err(failure),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::store::testing;

    pub(in crate::cli) fn named(id: &str, key: &str, name: &str) -> Member {
        Member { key: Key::from(key), display_name: name.to_owned(), ..testing::member(id) }
    }

    #[test]
    fn a_member_is_found_by_id_key_name_or_the_keys_beginning() {
        let ada = "ab".repeat(32);
        let bob = "abcd".repeat(16);
        let members = [named("m1", &ada, "ada"), named("m2", &bob, "bob")];
        for target in ["m1", &ada, "ada", "@ada", "abab"] {
            assert_eq!(member(&members, target).expect(target).id.as_str(), "m1", "{target}");
        }
        for (target, code) in
            [("carol", "member_not_found"), ("aba", "member_not_found"), ("", "member_not_found")]
        {
            assert_eq!(member(&members, target).unwrap_err().code, code, "{target}");
        }
    }

    #[test]
    fn two_of_a_name_are_told_apart_by_key() {
        let (one, two) = ("1234".repeat(16), "1235".repeat(16));
        let members = [named("m1", &one, "ada"), named("m2", &two, "ada")];
        let failure = member(&members, "ada").unwrap_err();
        assert_eq!(failure.code, "member_ambiguous");
        assert!(failure.message.contains("123412341234"), "{failure}");
        assert!(failure.message.contains("123512351235"), "{failure}");
        assert_eq!(member(&members, &two[..5]).map(|member| member.id.as_str()).ok(), Some("m2"));
    }

    #[test]
    fn a_name_that_is_the_beginning_of_a_key_stays_a_name() {
        let members =
            [named("m1", &"beef".repeat(16), "ada"), named("m2", &"00".repeat(32), "beef")];
        assert_eq!(member(&members, "beef").expect("the name").id.as_str(), "m2");
    }

    #[test]
    fn a_session_key_may_be_granted_too() {
        let members = [named("m1", &"ab".repeat(32), "ada")];
        let session = "cd".repeat(32);
        assert_eq!(sender_key(&members, "ada").expect("a member").as_str(), "ab".repeat(32));
        assert_eq!(sender_key(&members, &session).expect("a key").as_str(), session);
        assert_eq!(sender_key(&members, "bob").unwrap_err().code, "member_not_found");
    }
}
