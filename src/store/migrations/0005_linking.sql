-- OAuth: apps at providers, invitations to link, sign-ins under way, and credentials that are
-- refreshed.

create table connector_profiles (
    id text not null primary key,
    project text not null references projects (id),
    provider text not null,
    label text,
    client_id text not null,
    proof text not null,
    endpoint text not null,
    scopes text not null,
    redirect_url text not null,
    actions text not null,
    is_enabled bigint not null,
    sealed_client_secret bytea not null,
    created_at bigint not null,
    updated_at bigint not null,
    unique (project, id)
);
create index connector_profiles_by_project on connector_profiles (project, created_at, id);

-- Where a customer may be sent back to once linked, and which pages may be told of it.
alter table projects add column return_urls text not null default '[]';
alter table projects add column opener_origins text not null default '[]';

create table connect_sessions (
    -- What the API calls its id: below 2^53, since StackOne's clients read a JSON number.
    number bigint not null primary key,
    project text not null references projects (id),
    token_digest bytea not null unique,
    provider text,
    profile text,
    -- The account to be linked again.
    account text,
    origin_owner_id text not null,
    kind text not null,
    is_multiple bigint not null,
    sealed_details bytea not null,
    -- What the customer brought and what the provider said of it, until it is saved. The number
    -- counts how often it changed: who saves says which one was looked at.
    sealed_draft bytea,
    draft bigint not null default 0,
    linked_account text,
    created_at bigint not null,
    expires_at bigint not null,
    used_at bigint
);
create index connect_sessions_by_end on connect_sessions (expires_at);

-- Sign-ins under way at a provider: whose browser, which app, what for (RFC 6749, 4.1.1).
create table authorizations (
    id text not null primary key,
    state_digest bytea not null unique,
    project text not null references projects (id),
    -- Null: the customer's own app.
    profile text,
    -- Null: asked for through the API or by the command line.
    connect_session bigint references connect_sessions (number) on delete cascade,
    -- Of the browser that set out; null where none of ours did.
    browser_digest bytea,
    sealed bytea not null,
    created_at bigint not null,
    expires_at bigint not null,
    used_at bigint
);
create index authorizations_by_end on authorizations (expires_at);

alter table credentials add column kind text not null default 'access_token';
-- Counts how often another credential took this one's place. A refresh keeps it, and so what was
-- read before a refresh and after it is one credential's.
alter table credentials add column lineage bigint not null default 1;
alter table credentials add column profile text;
-- The customer's own app.
alter table credentials add column sealed_app bytea;
-- idle, in_flight, uncertain, reauth or moved.
alter table credentials add column state text not null default 'idle';
alter table credentials add column state_since bigint not null default 0;
alter table credentials add column expires_at bigint;
-- When it is to be refreshed (idle), taken over (in_flight) or tried again (uncertain), by the
-- database's clock. Null: never.
alter table credentials add column due_at bigint;
alter table credentials add column intent text;
alter table credentials add column intent_node text;
alter table credentials add column intent_replica text;
-- How often in a row a refresh came to nothing.
alter table credentials add column attempts bigint not null default 0;
-- When the provider first said that the present refresh token is no good.
alter table credentials add column refused_at bigint;
-- Whether the refresh token may be spent already, and by which process, which may hold its
-- successor then.
alter table credentials add column is_doubtful bigint not null default 0;
alter table credentials add column doubted_replica text;
-- Why the last try came to nothing, as a word; null after one that did not.
alter table credentials add column fault text;
update credentials set state_since = (
    select accounts.created_at from accounts where accounts.id = credentials.account);
create index credentials_by_due on credentials (due_at);
