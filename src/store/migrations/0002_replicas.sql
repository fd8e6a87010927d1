-- Several processes may serve one database: who they are, and whose each walk is.

create table replicas (
    -- Of one run of one process.
    id text not null primary key,
    -- By the database's clock. Who was not seen for long is taken for dead.
    seen_at bigint not null
);

alter table walks add column replica text not null default '';

-- What runs ended with the process that ran it, if this is the first to know of replicas.
update walks set state = 'failed', reason = 'interrupted', ended_at = started_at
where state = 'running';

-- One walk of an account at a time, whoever runs it.
create unique index walks_one_running on walks (project, account) where state = 'running';
drop index walks_running;
