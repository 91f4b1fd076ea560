-- What a mesh asks of messages to many: off, preferred, required.
alter table mesh add column sealing text not null default 'preferred';
