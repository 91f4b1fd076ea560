-- API keys are counted as whatever a mesh keeps, found by the member that made them, and
-- those that ended by when they did.

create index if not exists api_key_issuer_idx on mesh.api_key (issued_by_member_id)
  where revoked_at is null;
create index if not exists api_key_ended_idx on mesh.api_key
  (mesh_id, least(revoked_at, expires_at));

select mesh.broker_count_v1('api_key', 'api_key',
  'octet_length(r.label) + octet_length(coalesce(r.topic_scopes::text, ''''))');

-- All members of a user, by whichever program enrolled them.
create index if not exists member_user_idx on mesh.member
  ((coalesce(user_id, dashboard_user_id)));
