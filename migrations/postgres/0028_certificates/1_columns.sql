-- Proofs that the mesh's owner let a member in.

-- As base64url; of whoever joined by an invite that certifies nobody, none.
alter table mesh.member add column if not exists certificate text;
-- Whether nobody joins without one any more.
alter table mesh.mesh add column if not exists certified_required boolean not null default false;
