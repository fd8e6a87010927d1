-- What proves that a row is as Rolecall wrote it. Rows of earlier versions get theirs once, by
-- crate::store::upgrade.

-- Over the whole row, by a key of the project's. A key without it is refused.
alter table api_keys add column mac bytea;
-- The key that made this one; null: the command line did.
alter table api_keys add column created_by text;
create index api_keys_by_creator on api_keys (project, created_by);

-- Of a personal access token, by a key of the project's: tells whether two accounts have the same
-- one. Null for tokens that are refreshed.
alter table credentials add column token_digest bytea;
create index credentials_by_token on credentials (project, token_digest);
