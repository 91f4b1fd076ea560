-- A second hash per row, beside the one that existing verifiers know: it covers the
-- name that the actor's session had. Null in rows of earlier releases and of other
-- programs.
alter table mesh.audit_log add column if not exists name_hash bytea;
