//! What of this store is looked through for statements.

/// The sources whose statements must all use an index.
pub(super) const SOURCES: &[&str] = &[
    include_str!("../chain.rs"),
    include_str!("../change.rs"),
    include_str!("../../accounts/sqlite.rs"),
    include_str!("../../api_keys/sqlite.rs"),
    include_str!("../../audit/sqlite.rs"),
    include_str!("../../bans/sqlite.rs"),
    include_str!("../../contexts/sqlite.rs"),
    include_str!("../../device_codes/sqlite.rs"),
    include_str!("../../envelopes/sqlite.rs"),
    include_str!("../../envelopes/sqlite/posts.rs"),
    include_str!("../../inventory/sqlite.rs"),
    include_str!("../../invites/sqlite.rs"),
    include_str!("../../mail/sqlite.rs"),
    include_str!("../../mcp_servers/sqlite.rs"),
    include_str!("../../members/sqlite.rs"),
    include_str!("../../memories/sqlite.rs"),
    include_str!("../../meshes/sqlite.rs"),
    include_str!("../../messages/sqlite.rs"),
    include_str!("../../ownership/sqlite.rs"),
    include_str!("../../presence_search/sqlite.rs"),
    include_str!("../../presences/sqlite.rs"),
    include_str!("../../profiles/sqlite.rs"),
    include_str!("../../schedules/sqlite.rs"),
    include_str!("../../skills/sqlite.rs"),
    include_str!("../../states/sqlite.rs"),
    include_str!("../../streams/sqlite.rs"),
    include_str!("../../tasks/sqlite.rs"),
    include_str!("../../topic_mail/sqlite.rs"),
    include_str!("../../topics/sqlite.rs"),
    include_str!("../../topic_calls/sqlite.rs"),
    include_str!("../../topic_reads/sqlite.rs"),
    include_str!("../../vault/sqlite.rs"),
    include_str!("../../webhooks/sqlite.rs"),
    include_str!("../../workspaces/sqlite.rs"),
];

/// Tables that grow, and the names that statements give them.
pub(super) const LARGE: &str = "message_queue presence audit_log send_key state removed stream usage \
    memory skill context vault_entry api_key task scheduled_message webhook_outbox webhook_call \
    topic_message topic_member notification tm m q p k s o c t";
