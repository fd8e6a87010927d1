-- What the processes on one database share of each access token's budget. `token` is a digest of
-- a digest of the token with its provider: it tells budgets apart and is no credential.

create table token_budgets (
    token bytea not null primary key,
    -- How many slices were ever asked for; the last one's number.
    slices bigint not null default 0,
    -- The theoretical arrival time of the rate (GCRA), in microseconds since the epoch.
    tat bigint not null,
    -- Null: nobody was told to wait since a request was last answered.
    paused_until bigint,
    -- The slice that goes first after a pause, and when it is given up for lost.
    probe bigint,
    probe_until bigint,
    -- What part of the rate was left when it was last halved, and from when it comes back.
    percent bigint not null default 100,
    recovers_from bigint not null default 0,
    halved_at bigint,
    used_at bigint not null
);
create index token_budgets_by_use on token_budgets (used_at);

create table budget_slices (
    token bytea not null references token_budgets (token) on delete cascade,
    number bigint not null,
    permits bigint not null,
    -- The last millisecond in which the provider may count one of its requests.
    counts_until bigint not null,
    primary key (token, number)
);
