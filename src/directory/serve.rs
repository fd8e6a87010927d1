//! Conversion of rows to the unified schema and to JSON.

use std::ops::Range;

use serde::{
    Deserialize, Serialize,
    de::{MapAccess, Visitor},
    ser::SerializeMap,
};
use serde_json::value::RawValue;

use crate::model::{
    id::RemoteId,
    observed::Sourced,
    schema::{
        EnumValue, File, Group, GroupEntry, GroupMember, GroupOwner, GroupType, Reference, Role,
        RoleEntry, Seat, User,
    },
};

use super::{
    Directory, ExpandSet, FieldSet, Matches, Page, PageQuery, Resource,
    record::{Email, Millis},
};

impl Directory {
    /// One page of a list, in order of remote id. `matches` must belong to this list and this
    /// directory.
    pub fn page(&self, query: &PageQuery, matches: &Matches) -> Page {
        let resource = query.resource;
        let Range { start, end } = self.span(query, matches);
        let mut data = vec![b'['];
        for at in start..end {
            if at > start {
                data.push(b',');
            }
            let place = matches.place(at);
            self.write(&mut data, resource, place, query.fields, query.expand);
        }
        data.push(b']');
        let last = (start < end && end < matches.len())
            .then(|| RemoteId::from(self.id_at(resource, matches.place(end - 1))));
        Page {
            data,
            last,
            total: matches.len() as u64,
        }
    }

    /// The range of matches that are on a page.
    pub(super) fn span(&self, query: &PageQuery, matches: &Matches) -> Range<usize> {
        let start = query.after.as_ref().map_or(0, |id| {
            matches.first_from(self.after(query.resource, id.as_str()))
        });
        let end = start
            .saturating_add(query.page_size as usize)
            .min(matches.len());
        start..end
    }

    /// One record as a JSON object, by remote or unified id.
    pub fn record(
        &self,
        resource: Resource,
        id: &str,
        fields: FieldSet,
        expand: ExpandSet,
    ) -> Option<Vec<u8>> {
        let place = self.place(resource, id)?;
        let mut data = Vec::new();
        self.write(&mut data, resource, place, fields, expand);
        Some(data)
    }

    /// All users in order of remote id, built one at a time.
    pub fn users(&self, expand: ExpandSet) -> impl Iterator<Item = User> {
        (0..self.columns.users.len()).map(move |place| self.user_out(place, expand))
    }

    fn write(
        &self,
        into: &mut Vec<u8>,
        resource: Resource,
        place: usize,
        fields: FieldSet,
        expand: ExpandSet,
    ) {
        match resource {
            Resource::Users => write_json(into, &self.user_out(place, expand), resource, fields),
            Resource::Roles => write_json(into, &self.role_out(place), resource, fields),
            Resource::Groups => write_json(into, &self.group_out(place, expand), resource, fields),
        }
    }

    fn user_out(&self, place: usize, expand: ExpandSet) -> User {
        let view = self.user(place);
        let row = &self.columns.users[place];
        let profile = view.profile.as_ref();
        let whole_roles = expand.includes(Resource::Users, "roles");
        let whole_groups = expand.includes(Resource::Users, "groups");
        User {
            id: unified(Resource::Users, view.id),
            remote_id: view.id.to_owned(),
            name: owned(view.name),
            first_name: owned(view.first_name),
            last_name: owned(view.last_name),
            primary_email_address: view.email.map(Email::whole),
            username: None,
            is_bot_user: None,
            status: profile.status.as_ref().map(enum_value),
            roles: profile.roles.as_ref().map(|words| {
                words
                    .iter()
                    .map(|word| self.role_entry(word, whole_roles))
                    .collect()
            }),
            groups: self.columns.visibility.groups.then(|| {
                self.groups_of(place)
                    .iter()
                    .map(|group| self.group_entry(*group as usize, whole_groups))
                    .collect()
            }),
            avatar: view.avatar.map(|image| File {
                id: None,
                remote_id: Some(image.to_owned()),
                name: None,
                remote_url: None,
            }),
            multi_factor_enabled: None,
            last_active_at: None,
            last_login_at: view.last_login_at.timestamp(),
            created_at: None,
            updated_at: row.updated_at.timestamp(),
            unified_custom_fields: None,
            seat: profile.seat.as_ref().map(|kind| Seat {
                value: kind.value,
                source_value: owned(kind.source.as_deref()),
                since: view.seat_since.timestamp(),
                provisional_until: view.seat_until.timestamp(),
            }),
            is_external: profile.is_external,
            first_seen_at: row.first_seen_at.timestamp(),
            listed: profile.listed,
            suspected: profile.suspected,
            warnings: profile.warnings.clone(),
        }
    }

    fn role_entry(&self, word: &str, whole: bool) -> RoleEntry {
        match self.find(Resource::Roles, word) {
            Some(place) if whole => RoleEntry::Whole(Box::new(self.role_out(place))),
            place => RoleEntry::Reference(Reference {
                id: unified(Resource::Roles, word),
                remote_id: word.to_owned(),
                name: place.map(|place| self.role(place).0.name.to_string()),
            }),
        }
    }

    fn group_entry(&self, place: usize, whole: bool) -> GroupEntry {
        if whole {
            return GroupEntry::Whole(Box::new(self.group_out(place, ExpandSet::default())));
        }
        let view = self.group(place);
        GroupEntry::Reference(Reference {
            id: unified(Resource::Groups, view.id),
            remote_id: view.id.to_owned(),
            name: owned(view.name),
        })
    }

    fn role_out(&self, place: usize) -> Role {
        let (role, holders) = self.role(place);
        Role {
            id: unified(Resource::Roles, role.remote_id.as_str()),
            remote_id: role.remote_id.to_string(),
            name: Some(role.name.to_string()),
            description: owned(role.description.as_deref()),
            kind: Some(enum_value(&role.kind)),
            policies: None,
            created_at: None,
            updated_at: None,
            holder_count: holders.map(u64::from),
        }
    }

    fn group_out(&self, place: usize, expand: ExpandSet) -> Group {
        let view = self.group(place);
        let row = &self.columns.groups[place];
        let are_members_known = row.members_read_at != Millis::NONE;
        let members = are_members_known.then(|| self.members(place));
        Group {
            id: unified(Resource::Groups, view.id),
            remote_id: view.id.to_owned(),
            name: owned(view.name),
            description: owned(view.description),
            kind: Some(EnumValue {
                value: GroupType::Group,
                source_value: None,
            }),
            roles: Vec::new(),
            parent_id: None,
            remote_parent_id: None,
            created_at: view.created_at.timestamp(),
            updated_at: self.group_updated_at(place).timestamp(),
            member_count: members.map(|members| members.len() as u64),
            owner: view.owner.map(|owner| GroupOwner {
                id: unified(Resource::Users, owner.id),
                remote_id: owner.id.to_owned(),
                email: owner.email.map(Email::whole),
            }),
            members: expand
                .includes(Resource::Groups, "members")
                .then(|| Some(members?.iter().map(|user| self.member_out(*user)).collect())),
            members_read_at: row.members_read_at.timestamp(),
            first_seen_at: row.first_seen_at.timestamp(),
            listed: view.listed,
            suspected: view.suspected,
            warnings: view.warnings.into_owned(),
        }
    }

    fn member_out(&self, place: u32) -> GroupMember {
        let user = self.user(place as usize);
        GroupMember {
            id: unified(Resource::Users, user.id),
            remote_id: user.id.to_owned(),
            name: owned(user.name),
            email: user.email.map(Email::whole),
        }
    }
}

/// The unified id of a record: the same on every replica, and after the account is linked again.
pub(super) fn unified(resource: Resource, remote_id: &str) -> String {
    [resource.prefix(), remote_id].concat()
}

fn owned(text: Option<&str>) -> Option<String> {
    text.map(str::to_owned)
}

fn enum_value<T: Copy>(word: &Sourced<T>) -> EnumValue<T> {
    EnumValue {
        value: word.value,
        source_value: owned(word.source.as_deref()),
    }
}

fn write_json<T: Serialize>(into: &mut Vec<u8>, record: &T, resource: Resource, fields: FieldSet) {
    const PLAIN: &str = "a record of the schema is plain JSON";
    if fields.is_all() {
        serde_json::to_writer(into, record).expect(PLAIN);
        return;
    }
    // The schema types have all fields, because the OpenAPI document is generated from them, so
    // fields are removed after serialization. A page is built once and then cached, so the second
    // pass is cheap.
    let whole = serde_json::to_vec(record).expect(PLAIN);
    let mut object: Object<'_> = serde_json::from_slice(&whole).expect(PLAIN);
    object.0.retain(|(field, _)| fields.keeps(resource, field));
    serde_json::to_writer(into, &object).expect(PLAIN);
}

/// A JSON object that keeps the order of its members and does not parse their values.
struct Object<'a>(Vec<(&'a str, &'a RawValue)>);

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MembersVisitor;
        impl<'de> Visitor<'de> for MembersVisitor {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Object(members))
            }
        }
        deserializer.deserialize_map(MembersVisitor)
    }
}

impl Serialize for Object<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (field, value) in &self.0 {
            map.serialize_entry(field, value)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::directory::{
        Filter,
        testing::{first, plain_identity, reading, user},
    };

    fn small() -> Directory {
        first(reading(
            &["u0", "u1", "u2"],
            &[("g1", &["u0", "u2", "x9"]), ("g2", &[])],
            0,
        ))
        .0
    }

    fn json(bytes: &[u8]) -> Value {
        serde_json::from_slice(bytes).unwrap()
    }

    fn get(directory: &Directory, of: Resource, id: &str, fields: &str, expand: &str) -> Value {
        let fields = FieldSet::parse(of, fields).unwrap();
        let expand = ExpandSet::parse(of, expand).unwrap();
        json(&directory.record(of, id, fields, expand).unwrap())
    }

    #[test]
    fn a_user_is_served_by_either_id_with_every_key_of_the_schema() {
        let directory = small();
        let user = get(&directory, Resource::Users, "usr_u2", "", "");
        assert_eq!(user, get(&directory, Resource::Users, "u2", "", ""));
        assert_eq!(user["id"], "usr_u2");
        assert_eq!(user["primary_email_address"], "u2@example.org");
        assert_eq!(
            user["status"],
            json!({"value": "enabled", "source_value": "ACTIVE"})
        );
        assert_eq!(
            user["roles"],
            json!([{"id": "rol_licensed_user", "remote_id": "licensed_user", "name": "licensed user"}])
        );
        assert_eq!(
            user["groups"],
            json!([{"id": "grp_g1", "remote_id": "g1", "name": "Group g1"}])
        );
        assert_eq!(user["seat"]["value"], "member");
        assert_eq!(user["username"], Value::Null);
        assert_eq!(user["warnings"], json!([]));
        assert_eq!(user["first_seen_at"], "2026-09-21T14:13:20.000Z");
        assert!(
            directory
                .record(
                    Resource::Users,
                    "grp_g1",
                    FieldSet::default(),
                    ExpandSet::default()
                )
                .is_none()
        );
    }

    #[test]
    fn fields_cut_a_record_down_and_keep_the_order_of_the_schema() {
        let directory = small();
        let fields = FieldSet::parse(Resource::Users, "name,id,unified_custom_fields").unwrap();
        let record = directory
            .record(Resource::Users, "u1", fields, ExpandSet::default())
            .unwrap();
        assert_eq!(
            String::from_utf8(record).unwrap(),
            r#"{"id":"usr_u1","name":"Ana u1","unified_custom_fields":null}"#
        );
    }

    #[test]
    fn expand_shows_roles_groups_and_members_whole() {
        let directory = small();
        let user = get(&directory, Resource::Users, "u0", "", "roles,groups");
        assert_eq!(user["roles"][0]["holder_count"], 3);
        assert_eq!(user["groups"][0]["member_count"], 3);
        assert_eq!(user["groups"][0].get("members"), None);
        let group = get(&directory, Resource::Groups, "g1", "", "members");
        assert_eq!(group["members"][1]["id"], "usr_u2");
        assert_eq!(group["owner"]["email"], "u0@example.org");
        assert_eq!(group["type"]["value"], "group");
    }

    #[test]
    fn somebody_whom_only_a_group_names_is_an_external_user_without_roles() {
        let external = get(&small(), Resource::Users, "x9", "", "");
        assert_eq!(external["is_external"], true);
        assert_eq!(external["roles"], json!([]));
        assert_eq!(external["status"], Value::Null);
        assert_eq!(external["name"], "Ana x9");
        assert_eq!(external["groups"][0]["id"], "grp_g1");
    }

    #[test]
    fn what_a_token_may_not_see_is_null_with_a_reason() {
        let mut reading = reading(&["u0"], &[("g1", &["x9"])], 0);
        let mut hidden = user("u0");
        hidden.roles = None;
        hidden.status = None;
        hidden.seat = None;
        reading.users = crate::directory::testing::listing(&[hidden]);
        reading.identity = plain_identity();
        let directory = first(reading).0;
        let external = get(&directory, Resource::Users, "x9", "", "");
        assert_eq!(external["roles"], Value::Null);
        assert!(
            external["warnings"]
                .as_array()
                .unwrap()
                .contains(&json!({"field": "roles", "reason": "not_permitted"}))
        );
        let role = get(&directory, Resource::Roles, "rol_licensed_user", "", "");
        assert_eq!(role["holder_count"], Value::Null);
    }

    #[test]
    fn a_page_tells_where_to_go_on_and_how_many_there_are() {
        let directory = small();
        let all = directory.matches(Resource::Users, &Filter::default());
        let mut query = PageQuery {
            resource: Resource::Users,
            page_size: 3,
            after: None,
            fields: FieldSet::parse(Resource::Users, "remote_id").unwrap(),
            expand: ExpandSet::default(),
        };
        let page = directory.page(&query, &all);
        assert_eq!(
            (json(&page.data), page.total),
            (
                json!([{"remote_id": "u0"}, {"remote_id": "u1"}, {"remote_id": "u2"}]),
                4
            )
        );
        query.after = page.last;
        let page = directory.page(&query, &all);
        assert_eq!(json(&page.data), json!([{"remote_id": "x9"}]));
        assert_eq!(page.last, None);
    }
}
