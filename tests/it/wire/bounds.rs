//! A mesh that keeps all that it may: what it answers then, and what it takes no more.

use std::collections::BTreeSet;

use claudemesh_broker::limits;
use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, Connection as _};

use crate::harness::postgres::connection;
use crate::harness::{Node, Raw, Setup};

/// One kind of what a mesh keeps.
struct Kind {
    /// The kind's name in a refusal.
    name: &'static str,
    /// Fills it, in words that [`in_dialect`] knows.
    fill: &'static str,
    /// Asks for all of it; how the answer calls its rows, and what tells them apart.
    list: (&'static str, &'static str, &'static str),
    /// Asks for one more.
    one_more: Value,
}

impl Kind {
    /// Rows that a list gives in the end.
    fn listed(&self) -> i64 {
        match self.name {
            // One memory in ten has the word.
            "memory" => limits::SHARED_ROWS_MAX / 10,
            _ => limits::SHARED_ROWS_MAX,
        }
    }
}

fn kinds() -> [Kind; 12] {
    [
        Kind {
            name: "state",
            fill: "insert into {s}state (id, mesh_id, key, value, version, updated_by_name,
                    updated_at)
                select 'state' || {n}, {mesh}, 'key ' || {n}, {json100}, 1, 'owner', {at} {from}",
            list: ("list_state", "entries", "key"),
            one_more: json!({ "type": "set_state", "key": "k", "value": 1 }),
        },
        Kind {
            name: "memory",
            fill: "insert into {s}memory (id, mesh_id, content, remembered_by_name, remembered_at)
                select 'memory' || {n}, {mesh}, 'part' || (s.n % 10) || {x1200}, 'owner',
                    {at} {from}",
            list: ("recall", "matches", "id"),
            one_more: json!({ "type": "remember", "content": "one more" }),
        },
        Kind {
            name: "task",
            fill: "insert into {s}task (id, mesh_id, title, priority, status, tags,
                    created_by_name, created_at)
                select 'task' || {n}, {mesh}, 'do ' || {n} || {x100}, 'normal', 'open', {none},
                    'owner', {at} {from}",
            list: ("list_tasks", "tasks", "id"),
            one_more: json!({ "type": "create_task", "title": "one more" }),
        },
        Kind {
            name: "context",
            fill: "insert into {s}context (id, mesh_id, member_id, peer_name, summary, updated_at,
                    seq{+words+})
                select 'context' || {n}, {mesh}, 'member' || {n}, {n}, 'on it' || {x100}, {at},
                    1{+'on it'+} {from}",
            list: ("list_contexts", "contexts", "peerName"),
            one_more: json!({ "type": "share_context", "summary": "one more" }),
        },
        Kind {
            name: "skill",
            fill: "insert into {s}skill (id, mesh_id, name, description, instructions,
                    author_name, created_at, updated_at{+words+})
                select 'skill' || {n}, {mesh}, 'skill ' || {n}, {x100}, 'i', 'owner', {at},
                    {at}{+'skill'+} {from}",
            list: ("list_skills", "skills", "name"),
            one_more: json!({ "type": "share_skill", "name": "s", "description": "d",
                "instructions": "i" }),
        },
        Kind {
            name: "stream",
            fill: "insert into {s}stream (id, mesh_id, name, created_by_name, created_at)
                select 'stream' || {n}, {mesh}, 'stream ' || {n} || {x100}, 'owner', {at} {from}",
            list: ("list_streams", "streams", "id"),
            one_more: json!({ "type": "create_stream", "name": "one more" }),
        },
        Kind {
            name: "scheduled_message",
            fill: "insert into {s}scheduled_message (id, mesh_id, member_id, \"to\", message,
                    deliver_at, due_at, created_at)
                select 'scheduled' || {n}, {mesh}, {owner}, '*', 'later' || {x100}, {later},
                    {later}, {at} {from}",
            list: ("list_scheduled", "messages", "id"),
            one_more: json!({ "type": "schedule", "to": "*", "message": "m",
                "deliverAt": 1_900_000_000_000_i64, "cron": "0 0 1 1 *" }),
        },
        Kind {
            name: "vault",
            fill: "insert into {s}vault_entry (id, mesh_id, member_id, key, ciphertext, nonce,
                    sealed_key, entry_type, description, created_at, updated_at)
                select 'vault' || {n}, {mesh}, {owner}, 'key ' || {n}, 'Yw==', 'bg==', 'c2s=',
                    'env', {x100}, {at}, {at} {from}",
            list: ("vault_list", "entries", "key"),
            one_more: json!({ "type": "vault_set", "key": "k", "ciphertext": "Yw==",
                "nonce": "bg==", "sealed_key": "c2s=", "entry_type": "env" }),
        },
        Kind {
            name: "webhook",
            fill: "insert into {s}webhook (id, mesh_id, name, secret, created_by,
                    created_at{+secret_digest+})
                select 'hook' || {n}, {mesh}, 'hook ' || {n} || {x100}, 'secret' || {n}, {owner},
                    {at}{+{n}+} {from}",
            list: ("list_webhooks", "webhooks", "name"),
            one_more: json!({ "type": "create_webhook", "name": "one more" }),
        },
        Kind {
            name: "api_key",
            fill: "insert into {s}api_key (id, mesh_id, label, secret_hash, secret_prefix,
                    issued_by_member_id, created_at)
                select 'key' || {n}, {mesh}, 'ci' || {x100}, {n}, 'cm_' || {n}, {owner}, {at}
                {from}",
            list: ("apikey_list", "keys", "id"),
            one_more: json!({ "type": "apikey_create", "label": "l", "capabilities": ["read"] }),
        },
        Kind {
            name: "topics",
            fill: "insert into {s}topic (id, mesh_id, name, description, created_at)
                select 'topic' || {n}, {mesh}, 'topic ' || {n}, {x100}, {at} {from}",
            list: ("topic_list", "topics", "id"),
            one_more: json!({ "type": "topic_create", "name": "one more" }),
        },
        Kind {
            name: "mcp_server",
            fill: "insert into {servers} (id, mesh_id, name, member_id, presence_id, hosted_by,
                    description, tools, registered_at, seq)
                select 'server' || {n}, {mesh}, 'server ' || {n}, 'member00000', 'p', 'ada',
                    {x100}, '[]', {at}, 1 {from}",
            list: ("mcp_list", "servers", "name"),
            one_more: json!({ "type": "mcp_register", "serverName": "one more", "description": "d",
                "tools": [], "persistent": true }),
        },
    ]
}

/// Members besides, since each says what it works on.
const MEMBERS: &str = "insert into {s}member (id, mesh_id, peer_pubkey, display_name, joined_at)
    select 'member' || {n}, {mesh}, {key}, {n}, {at} {from}";

/// That statement for one of the databases, and ten thousand rows of it. What is in `{+ +}`
/// only SQLite has. The texts are such that each of their bytes is written as six.
fn in_dialect(text: &str, is_postgres: bool, node: &Node) -> String {
    let mut text = text.replace("{mesh}", &format!("'{}'", node.mesh));
    text = text.replace("{owner}", &format!("'{}'", node.owner.id));
    while let (Some(begin), Some(end)) = (text.find("{+"), text.find("+}")) {
        let own = format!(", {}", &text[begin + 2..end]);
        text.replace_range(begin..end + 2, if is_postgres { "" } else { &own });
    }
    let long = |bytes: usize| match is_postgres {
        true => format!("repeat(chr(1), {bytes})"),
        false => format!("replace(hex(zeroblob({})), '0', char(1))", bytes / 2),
    };
    let words = match is_postgres {
        true => [
            ("{s}", "mesh."),
            ("{servers}", "mesh.broker_mcp_server"),
            ("{n}", "lpad(s.n::text, 5, '0')"),
            ("{key}", "lpad(s.n::text, 64, '0')"),
            ("{at}", "timestamp '2026-01-01' + s.n / 7 * interval '1 ms'"),
            ("{later}", "timestamp '2099-01-01'"),
            ("{none}", "'{}'"),
            ("{json100}", "to_jsonb({x100})"),
            ("{from}", "from generate_series(0, 9999) s (n)"),
        ],
        false => [
            ("{s}", ""),
            ("{servers}", "mcp_server"),
            ("{n}", "printf('%05d', s.n)"),
            ("{key}", "printf('%064d', s.n)"),
            ("{at}", "1767225600000 + s.n / 7"),
            ("{later}", "4070908800000"),
            ("{none}", "'[]'"),
            ("{json100}", "json_quote({x100})"),
            (
                "{from}",
                "from (with recursive r (n) as (select 0 union all select n + 1 from r
                    where n < 9999) select n from r) s",
            ),
        ],
    };
    let text = words.iter().fold(text, |text, (word, meant)| text.replace(word, meant));
    text.replace("{x100}", &long(100)).replace("{x1200}", &long(1200))
}

/// All rows of a list, page by page, each of which fits.
async fn read_to_the_end(raw: &mut Raw, kind: &Kind) -> (i64, BTreeSet<String>) {
    let (list, rows, id) = kind.list;
    let mut ask = json!({ "type": list, "query": "", "limit": 100 });
    if list == "recall" {
        ask["query"] = json!("part7");
    }
    let (mut count, mut seen) = (0, BTreeSet::new());
    loop {
        let page = raw.ask(ask.clone()).await;
        let bytes = page.to_string().len();
        assert!(bytes <= limits::ANSWER_BYTES_MAX, "{list}: {bytes}");
        let found = page[rows].as_array().unwrap_or_else(|| panic!("{list}: {page}"));
        assert!(!found.is_empty(), "{list} after {count}");
        count += i64::try_from(found.len()).expect("few");
        seen.extend(found.iter().map(|row| row[id].to_string()));
        assert_eq!(page["more"] == true, page["cursor"].is_string(), "{list}");
        if page["cursor"].is_null() {
            return (count, seen);
        }
        ask["cursor"] = page["cursor"].clone();
    }
}

async fn a_full_mesh_answers_in_pages_and_takes_no_more(node: &Node) {
    let mut owner = Raw::hello(node, &node.owner).await;
    for kind in kinds() {
        let (count, seen) = read_to_the_end(&mut owner, &kind).await;
        let unique = i64::try_from(seen.len()).expect("few");
        assert_eq!((count, unique), (kind.listed(), kind.listed()), "{}", kind.name);
        let refused = owner.ask(kind.one_more).await;
        let told = (&refused["type"], &refused["code"], &refused["limit"], &refused["current"]);
        let expected = (&json!("error"), &json!("quota"), &json!(10_000), &json!(10_001));
        assert_eq!(told, expected, "{}: {refused}", kind.name);
        let text = refused["message"].as_str().expect("a sentence");
        assert!(text.contains(&format!("10000 rows of {}", kind.name)), "{text}");
    }
    // What is answered with a list besides, and what finds some of all that.
    for ask in [
        json!({ "type": "claim_task", "taskId": "task00007" }),
        json!({ "type": "complete_task", "taskId": "task00007" }),
        json!({ "type": "get_context", "query": "on it" }),
        json!({ "type": "list_skills", "query": "skill" }),
        json!({ "type": "list_tasks", "status": "open" }),
        json!({ "type": "audit_query", "limit": 500 }),
        json!({ "type": "list_peers" }),
    ] {
        let answer = owner.ask(ask.clone()).await;
        assert_ne!(answer["type"], "error", "{ask}: {answer}");
        assert!(answer.to_string().len() <= limits::ANSWER_BYTES_MAX, "{ask}");
    }
    // A change of what is there is no row more.
    let set = json!({ "type": "set_state", "key": "key 00007", "value": 1 });
    assert_eq!(owner.ask(set).await["type"], "ack");
    assert!(node.audit_is_valid().await);
}

#[tokio::test]
async fn a_full_mesh_in_sqlite_answers_in_pages_and_takes_no_more() {
    let node = Node::start().await;
    let url = format!("sqlite://{}", node.data_dir().join("broker.db").display());
    let mut sqlite = SqliteConnection::connect(&url).await.expect("a file");
    for fill in std::iter::once(MEMBERS).chain(kinds().map(|kind| kind.fill)) {
        let statement = in_dialect(fill, false, &node);
        sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut sqlite).await.expect(fill);
    }
    a_full_mesh_answers_in_pages_and_takes_no_more(&node).await;
}

#[tokio::test]
async fn a_full_mesh_in_postgres_answers_in_pages_and_takes_no_more() {
    let cluster = Setup::new(1).start().await;
    let node = &cluster.nodes[0];
    let mut postgres = connection(cluster.database()).await;
    for fill in std::iter::once(MEMBERS).chain(kinds().map(|kind| kind.fill)) {
        let statement = in_dialect(fill, true, node);
        sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut postgres).await.expect(fill);
    }
    a_full_mesh_answers_in_pages_and_takes_no_more(node).await;
}
