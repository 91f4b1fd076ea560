-- A second hash per row, beside the one that existing verifiers know: it covers the
-- name that the actor's session had. Null in rows of earlier releases.
alter table audit_log add column name_hash blob;
