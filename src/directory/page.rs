//! The parameters of a read: resource, position, fields and expansions.
//!
//! The sets of fields and expansions are small, `Copy` and canonical: `fields=name,id` and
//! `fields=id,name` are equal, so they can be part of a cache key.

use crate::model::id::RemoteId;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Resource {
    Users,
    Roles,
    Groups,
}

impl Resource {
    /// The plural name, as in the route.
    pub const fn as_str(self) -> &'static str {
        match self {
            Resource::Users => "users",
            Resource::Roles => "roles",
            Resource::Groups => "groups",
        }
    }

    /// The name of one record.
    pub const fn singular(self) -> &'static str {
        match self {
            Resource::Users => "user",
            Resource::Roles => "role",
            Resource::Groups => "group",
        }
    }

    /// The prefix that makes a remote id a unified id.
    pub const fn prefix(self) -> &'static str {
        match self {
            Resource::Users => "usr_",
            Resource::Roles => "rol_",
            Resource::Groups => "grp_",
        }
    }

    /// The names that `fields` accepts. Some are names of the unified API that Rolecall does not
    /// serve; a request with one of them is not an error.
    pub const fn fields(self) -> &'static [&'static str] {
        match self {
            Resource::Users => &[
                "id",
                "remote_id",
                "name",
                "first_name",
                "last_name",
                "primary_email_address",
                "username",
                "is_bot_user",
                "status",
                "roles",
                "groups",
                "avatar",
                "multi_factor_enabled",
                "last_active_at",
                "last_login_at",
                "created_at",
                "updated_at",
                "unified_custom_fields",
                "seat",
                "is_external",
                "first_seen_at",
                "listed",
                "suspected",
                "warnings",
            ],
            Resource::Roles => &[
                "id",
                "remote_id",
                "name",
                "description",
                "type",
                "policies",
                "created_at",
                "updated_at",
                "holder_count",
                "unified_custom_fields",
            ],
            Resource::Groups => &[
                "id",
                "remote_id",
                "name",
                "description",
                "type",
                "roles",
                "parent_id",
                "remote_parent_id",
                "created_at",
                "updated_at",
                "member_count",
                "owner",
                "members",
                "members_read_at",
                "first_seen_at",
                "listed",
                "suspected",
                "warnings",
                "unified_custom_fields",
            ],
        }
    }

    /// The names that `expand` accepts.
    pub const fn expansions(self) -> &'static [&'static str] {
        match self {
            Resource::Users => &["roles", "groups"],
            Resource::Roles => &["policies"],
            Resource::Groups => &["roles", "members"],
        }
    }
}

/// The top-level fields that a record is reduced to. The default keeps all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct FieldSet(u32);

impl FieldSet {
    /// Parses a comma-separated list. An empty string selects all fields; an unknown name is the
    /// error.
    pub fn parse(resource: Resource, text: &str) -> Result<Self, String> {
        parse(resource.fields(), text).map(Self)
    }

    pub const fn is_all(self) -> bool {
        self.0 == 0
    }

    pub(super) fn keeps(self, resource: Resource, field: &str) -> bool {
        self.is_all()
            || resource
                .fields()
                .iter()
                .position(|name| *name == field)
                .is_some_and(|bit| self.0 & (1 << bit) != 0)
    }
}

/// The references that are replaced by whole records. The default is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ExpandSet(u32);

impl ExpandSet {
    /// Parses a comma-separated list. An empty string selects nothing; an unknown name is the
    /// error.
    pub fn parse(resource: Resource, text: &str) -> Result<Self, String> {
        parse(resource.expansions(), text).map(Self)
    }

    /// The lists whose records are embedded whole in records of `resource`.
    pub fn shown_within(self, resource: Resource) -> impl Iterator<Item = Resource> {
        let lists = [("roles", Resource::Roles), ("groups", Resource::Groups)].into_iter();
        lists
            .filter(move |(expansion, _)| self.includes(resource, expansion))
            .map(|(_, list)| list)
    }

    pub(super) fn includes(self, resource: Resource, expansion: &str) -> bool {
        resource
            .expansions()
            .iter()
            .position(|name| *name == expansion)
            .is_some_and(|bit| self.0 & (1 << bit) != 0)
    }
}

fn parse(names: &[&str], text: &str) -> Result<u32, String> {
    if text.is_empty() {
        return Ok(0);
    }
    text.split(',').try_fold(0, |bits, asked| {
        names
            .iter()
            .position(|name| *name == asked)
            .map(|bit| bits | 1 << bit)
            .ok_or_else(|| asked.to_owned())
    })
}

/// One page of a list. A [`super::Filter`] selects the records of the list.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PageQuery {
    pub resource: Resource,
    pub page_size: u32,
    /// Start after this remote id, which need not exist any more.
    pub after: Option<RemoteId>,
    pub fields: FieldSet,
    pub expand: ExpandSet,
}

/// The response to a [`PageQuery`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The records as a JSON array.
    pub data: Vec<u8>,
    /// The remote id of the last record, if more follow.
    pub last: Option<RemoteId>,
    /// The number of records that match the filter, on all pages.
    pub total: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_of_fields_has_one_form_and_names_what_it_does_not_know() {
        let users = Resource::Users;
        assert_eq!(
            FieldSet::parse(users, "name,id,name"),
            FieldSet::parse(users, "id,name")
        );
        assert_eq!(FieldSet::parse(users, "id,nmae"), Err("nmae".to_owned()));
        assert_eq!(FieldSet::parse(users, "id,"), Err(String::new()));
        assert!(FieldSet::parse(users, "").is_ok_and(FieldSet::is_all));
        let only_id = FieldSet::parse(users, "id").unwrap();
        assert!(only_id.keeps(users, "id") && !only_id.keeps(users, "remote_id"));
    }

    #[test]
    fn expansions_are_those_of_the_route() {
        assert!(ExpandSet::parse(Resource::Users, "roles,groups").is_ok());
        assert!(ExpandSet::parse(Resource::Groups, "members,roles").is_ok());
        assert!(ExpandSet::parse(Resource::Roles, "policies").is_ok());
        assert_eq!(
            ExpandSet::parse(Resource::Users, "members"),
            Err("members".to_owned())
        );
    }
}
