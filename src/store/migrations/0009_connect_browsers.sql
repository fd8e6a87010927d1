-- One row for each browser that has brought a credential by a connect session. A draft belongs to
-- the browser that proved it: another one with the same link neither sees, saves nor cancels it.

create table connect_browsers (
    session bigint not null references connect_sessions (number) on delete cascade,
    project text not null,
    -- Of the secret in the browser's cookie.
    browser_digest bytea not null,
    -- The number of its draft in the session, and what was brought; null once it is saved or dropped.
    draft bigint not null,
    sealed_draft bytea,
    -- What this browser has linked last.
    linked_account text,
    primary key (session, browser_digest)
);

-- A draft that waits while this runs is dropped: its customer begins again with the same link.
alter table connect_sessions drop column sealed_draft;
