//! What is asked of a directory: which records, from where, with which fields, how whole.
//!
//! Everything here is small, `Copy` and canonical (`fields=name,id` and `fields=id,name` are
//! equal), so that it can be part of a cache key as it is.

use crate::model::id::RemoteId;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Resource {
    Users,
    Roles,
    Groups,
}

impl Resource {
    /// The word of the list, as in its path.
    pub const fn as_str(self) -> &'static str {
        match self {
            Resource::Users => "users",
            Resource::Roles => "roles",
            Resource::Groups => "groups",
        }
    }

    /// The word of one record.
    pub const fn singular(self) -> &'static str {
        match self {
            Resource::Users => "user",
            Resource::Roles => "role",
            Resource::Groups => "group",
        }
    }

    /// What stands before the remote id in the unified id.
    pub const fn prefix(self) -> &'static str {
        match self {
            Resource::Users => "usr_",
            Resource::Roles => "rol_",
            Resource::Groups => "grp_",
        }
    }

    /// The names that `fields` takes. The contract's list may be longer than what we serve:
    /// a name without effect is still no misspelling.
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

    /// The names that `expand` takes.
    pub const fn expansions(self) -> &'static [&'static str] {
        match self {
            Resource::Users => &["roles", "groups"],
            Resource::Roles => &["policies"],
            Resource::Groups => &["roles", "members"],
        }
    }
}

/// The top-level fields that a record is cut down to. The default keeps all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct FieldSet(u32);

impl FieldSet {
    /// Reads a comma list. An empty text is all fields; an unknown name is the error.
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

/// What is shown whole rather than by reference. The default is nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ExpandSet(u32);

impl ExpandSet {
    /// Reads a comma list. An empty text is nothing; an unknown name is the error.
    pub fn parse(resource: Resource, text: &str) -> Result<Self, String> {
        parse(resource.expansions(), text).map(Self)
    }

    /// The lists whose records it shows whole within those of another.
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

/// One page of a list; which records the list has, a [`super::Filter`] says.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PageQuery {
    pub resource: Resource,
    pub page_size: u32,
    /// Go on behind this remote id, whether or not somebody still has it.
    pub after: Option<RemoteId>,
    pub fields: FieldSet,
    pub expand: ExpandSet,
}

/// The answer to a [`PageQuery`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The records as a JSON array.
    pub data: Vec<u8>,
    /// The key of the last record, if more follow.
    pub last: Option<RemoteId>,
    /// How many records the filter leaves in all.
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
