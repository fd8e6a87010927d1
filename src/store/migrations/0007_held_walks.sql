-- What walks leave out, and which one keeps a directory as it was.

-- How many rows of its two lists a walk left out, because they had no usable id.
alter table walks add column quarantined_users bigint not null default 0;
alter table walks add column quarantined_groups bigint not null default 0;

-- The same of the last walk that found the version in force to be true.
alter table directories add column quarantined_users bigint not null default 0;
alter table directories add column quarantined_groups bigint not null default 0;

-- Of a held walk: how many users and groups it was held for, and when the first walk ended of the
-- walks in a row that were held for them.
alter table walks add column suspect_count bigint;
alter table walks add column held_since bigint;

-- The last walk, if it was held and nobody has decided on it. For walks held before this column
-- was there it is null; the next one sets it.
alter table accounts add column held_walk text;

-- A personal access token that the provider no longer takes is in the state of one from now on.
update credentials
set state = 'reauth', state_since = (
    select accounts.updated_at from accounts where accounts.id = credentials.account)
where kind = 'access_token' and state = 'idle' and account in (
    select id from accounts where status_reasons like '%"code":"reauth_required"%');
