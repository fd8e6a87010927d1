-- What is over for good: ring keys and projects.

-- Ring keys that were taken out of use. None of them ever wraps again, whoever still has it.
create table retired_keys (
    key_id text not null primary key,
    retired_at bigint not null
);

-- A project that was deleted keeps its row, and so its name, for ever: its audit log stays, and in
-- the place of the data key there is what that log is verified with (crate::store::audit).
alter table projects add column deleted_at bigint;

-- Which ring keys a process has, with blanks between: none is used before all of them have it.
alter table replicas add column key_ids text not null default '';
