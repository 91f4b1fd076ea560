-- Proofs that the mesh's owner let a member in.

-- As base64url; of whoever joined by an invite that certifies nobody, none.
alter table member add column certificate text;
-- Whether nobody joins without one any more.
alter table mesh add column certified_required integer not null default 0;
