-- Who did what to what: one chain per project. Each row is tagged over the row before it and all
-- that it holds, and so is the head, which names the last row (crate::store::audit).

create table audit_log (
    project text not null references projects (id),
    -- From 1, without gaps.
    seq bigint not null,
    at bigint not null,
    actor text not null,
    -- Empty where there is only one of its kind.
    actor_id text not null,
    action text not null,
    subject text not null,
    subject_id text not null,
    detail text not null,
    tag bytea not null,
    primary key (project, seq)
);
create index audit_log_by_action on audit_log (project, action, seq);
create index audit_log_by_subject on audit_log (project, subject_id, seq);

-- Every project has one, from its first moment on. Updated with each row, so that writers of one
-- project's log follow each other.
create table audit_heads (
    project text not null primary key references projects (id),
    -- Of the last row; 0 before the first.
    seq bigint not null,
    tag bytea not null,
    -- Over both.
    seal bytea not null
);
