-- One text for SQLite and PostgreSQL: ids and words as text, moments as milliseconds since the
-- epoch, ciphertext as bytea (which SQLite takes for "as it comes"). Columns named `sealed` and
-- `sealed_*` hold the sealed form of crate::crypto and nothing else.

-- One row for each ring key that has ever wrapped a data key and has not been retired.
create table key_checks (
    key_id text not null primary key,
    sealed bytea not null,
    created_at bigint not null
);

create table projects (
    id text not null primary key,
    data_key_id text not null,
    sealed_data_key bytea not null,
    wrapped_by text not null,
    created_at bigint not null
);

create table api_keys (
    id text not null primary key,
    project text not null references projects (id),
    label text not null,
    scopes text not null,
    digest bytea not null,
    created_at bigint not null,
    expires_at bigint,
    revoked_at bigint
);
create index api_keys_by_project on api_keys (project, created_at, id);

create table accounts (
    id text not null primary key,
    project text not null references projects (id),
    provider text not null,
    origin_owner_id text not null,
    kind text not null,
    status text not null,
    status_reasons text not null,
    endpoint text not null,
    sealed_profile bytea not null,
    sealed_identity bytea not null,
    created_at bigint not null,
    updated_at bigint not null,
    -- When the last walk began; 0 before the first.
    walked_at bigint not null default 0,
    -- What hangs on an account refers to both, so that no row can belong to one project and
    -- to an account of another.
    unique (project, id)
);
create index accounts_by_project on accounts (project, created_at, id);
create index accounts_by_walk on accounts (walked_at);

create table credentials (
    project text not null,
    account text not null,
    generation bigint not null,
    sealed bytea not null,
    primary key (project, account),
    foreign key (project, account) references accounts (project, id) on delete cascade
);

create table walks (
    id text not null primary key,
    project text not null,
    account text not null,
    state text not null,
    reason text,
    directory_version text,
    user_count bigint,
    group_count bigint,
    role_count bigint,
    upstream_calls bigint not null,
    started_at bigint not null,
    ended_at bigint,
    foreign key (project, account) references accounts (project, id) on delete cascade
);
create index walks_by_account on walks (project, account, id);
create index walks_running on walks (state) where state = 'running';

create table directories (
    project text not null,
    account text not null,
    version bigint not null,
    sealed_at bigint not null,
    verified_at bigint not null,
    -- Null: this version is in force.
    superseded_at bigint,
    primary key (project, account, version),
    foreign key (project, account) references accounts (project, id) on delete cascade
);

-- What is large, apart from the rows that change often: updating a row rewrites all of it.
-- `name` tells several of one field apart: a directory's version, a walk's id, or nothing.
create table blobs (
    project text not null,
    account text not null,
    field text not null,
    name text not null,
    sealed bytea not null,
    primary key (project, account, field, name),
    foreign key (project, account) references accounts (project, id) on delete cascade
);
