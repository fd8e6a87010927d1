//! What the directory must say, worked out from the simulator's truth.
//!
//! This is the judge of the connector and the directory, so it shares nothing with them: it is
//! written from the contract alone, record by record, in the plainest way.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::{Value, json};

/// What a token may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sight {
    /// Everything.
    SystemAdmin,
    /// People without what they may do, and groups.
    Others,
    /// People without what they may do.
    OthersWithoutGroups,
}

/// Records by remote id.
pub type Records = BTreeMap<String, Value>;

/// A directory as it must be, but for the times that only Rolecall knows.
pub struct Directory {
    pub users: Records,
    pub groups: Option<Records>,
    /// Role by word, with the number of its holders.
    pub roles: BTreeMap<&'static str, (&'static str, Option<usize>)>,
}

/// Unified-iam 9.10: each role, its type, and how a user comes by it.
const ROLES: [(&str, &str, &str); 8] = [
    ("system_admin", "admin", "admin"),
    ("group_admin", "restricted", "groupAdmin"),
    ("licensed_user", "editor", "licensedSheetCreator"),
    ("resource_viewer", "viewer", "resourceViewer"),
    ("seat_member", "editor", "MEMBER"),
    ("seat_provisional_member", "basic", "PROVISIONAL_MEMBER"),
    ("seat_guest", "guest", "GUEST"),
    ("seat_contributor", "viewer", "CONTRIBUTOR"),
];

pub fn directory(truth: &Value, sight: Sight) -> Directory {
    let people = truth["users"].as_array().unwrap();
    let groups = truth["groups"].as_array().unwrap();
    let shows_groups = sight != Sight::OthersWithoutGroups;
    let mut users = Records::new();
    for person in people {
        // Without a plan the list is of insiders alone, and only an admin may name the plan.
        if sight == Sight::SystemAdmin || person["isInternal"] == true {
            users.insert(id(person), listed(person, sight));
        }
    }
    if shows_groups {
        let mut theirs: BTreeMap<String, Records> = BTreeMap::new();
        for group in groups {
            for member in members(group) {
                let entry = reference("grp", &id(group), &group["name"]);
                let of = theirs.entry(id(member)).or_default();
                of.insert(id(group), entry);
                users
                    .entry(id(member))
                    .or_insert_with(|| outsider(member, sight));
            }
        }
        for (remote_id, user) in &mut users {
            let theirs = theirs.remove(remote_id).unwrap_or_default();
            user["groups"] = theirs.into_values().collect();
        }
    }
    let roles = ROLES.map(|(word, kind, _)| {
        let holds = |user: &&Value| {
            let roles = user["roles"].as_array().unwrap();
            roles.iter().any(|role| role["remote_id"] == word)
        };
        let holders = (sight == Sight::SystemAdmin).then(|| users.values().filter(holds).count());
        (word, (kind, holders))
    });
    let groups = shows_groups.then(|| {
        groups
            .iter()
            .map(|group| (id(group), whole_group(group)))
            .collect()
    });
    Directory {
        users,
        groups,
        roles: roles.into_iter().collect(),
    }
}

fn id(record: &Value) -> String {
    record["id"].as_u64().unwrap().to_string()
}

fn members(group: &Value) -> impl Iterator<Item = &Value> {
    group["members"].as_array().unwrap().iter()
}

fn reference(prefix: &str, remote_id: &str, name: &Value) -> Value {
    json!({"id": format!("{prefix}_{remote_id}"), "remote_id": remote_id, "name": name})
}

fn warnings<const N: usize>(list: [(&str, &str); N]) -> Value {
    list.iter()
        .map(|(field, reason)| json!({"field": field, "reason": reason}))
        .collect()
}

/// The texts of a person, each with the provider's name for it.
const TEXTS: [(&str, &str); 4] = [
    ("name", "name"),
    ("first_name", "firstName"),
    ("last_name", "lastName"),
    ("primary_email_address", "email"),
];

/// What a list says of a person, and a group's member list says no less.
fn person(row: &Value) -> Value {
    let remote_id = id(row);
    let missing = TEXTS.iter().filter(|(_, source)| row[source].is_null());
    let warnings: Value = missing
        .map(|(field, _)| json!({"field": field, "reason": "unknown"}))
        .collect();
    json!({
        "id": format!("usr_{remote_id}"),
        "remote_id": remote_id,
        "name": row["name"],
        "first_name": row["firstName"],
        "last_name": row["lastName"],
        "primary_email_address": row["email"],
        "username": null,
        "is_bot_user": null,
        "status": null,
        "roles": null,
        "groups": null,
        "avatar": null,
        "multi_factor_enabled": null,
        "last_active_at": null,
        "last_login_at": null,
        "created_at": null,
        "unified_custom_fields": null,
        "seat": null,
        "is_external": null,
        "listed": true,
        "suspected": false,
        "warnings": warnings,
    })
}

fn warn(user: &mut Value, more: Value) {
    let Value::Array(more) = more else {
        unreachable!("a list of warnings");
    };
    user["warnings"].as_array_mut().unwrap().extend(more);
}

fn listed(row: &Value, sight: Sight) -> Value {
    let mut user = person(row);
    if let Some(image) = row["profileImage"]["imageId"].as_str() {
        user["avatar"] = json!({"id": null, "remote_id": image, "name": null, "remote_url": null});
    }
    if sight != Sight::SystemAdmin {
        warn(&mut user, hidden_fields(sight));
        return user;
    }
    let status = match row["status"].as_str().unwrap() {
        "ACTIVE" => "enabled",
        "PENDING" => "pending",
        "DECLINED" | "DEACTIVATED" => "disabled",
        other => panic!("the simulator's status {other}"),
    };
    user["status"] = json!({"value": status, "source_value": row["status"]});
    let seat = match row["seatType"].as_str().unwrap() {
        "MEMBER" => "member",
        "PROVISIONAL_MEMBER" => "provisional_member",
        "GUEST" => "guest",
        "CONTRIBUTOR" | "VIEWER" => "contributor",
        other => panic!("the simulator's seat {other}"),
    };
    user["seat"] = json!({
        "value": seat,
        "source_value": row["seatType"],
        "since": moment(&row["seatTypeLastChangedAt"]),
        "provisional_until": moment(&row["provisionalExpirationDate"]),
    });
    user["roles"] = ROLES
        .iter()
        .filter(|(word, _, flag)| row[flag] == true || *word == format!("seat_{seat}"))
        .map(|(word, ..)| json!({"id": format!("rol_{word}"), "remote_id": word}))
        .collect();
    user["is_external"] = json!(row["isInternal"] == false);
    user["last_login_at"] = moment(&row["lastLogin"]);
    user
}

/// Unified-iam 9.12: somebody in a group and in no list.
fn outsider(member: &Value, sight: Sight) -> Value {
    let mut user = person(member);
    user["is_external"] = json!(true);
    if sight == Sight::SystemAdmin {
        user["roles"] = json!([]);
        let unknown = warnings([
            ("last_login_at", "unknown"),
            ("seat", "unknown"),
            ("status", "unknown"),
        ]);
        warn(&mut user, unknown);
    } else {
        let hidden = warnings([
            ("last_login_at", "not_permitted"),
            ("roles", "not_permitted"),
            ("seat", "not_permitted"),
            ("status", "not_permitted"),
        ]);
        warn(&mut user, hidden);
    }
    user
}

/// The fields that are null for every listed user because of the token, in order of their names.
pub fn hidden_fields(sight: Sight) -> Value {
    let hidden = [
        "groups",
        "is_external",
        "last_login_at",
        "roles",
        "seat",
        "status",
    ];
    let is_hidden = |field: &&str| match sight {
        Sight::SystemAdmin => false,
        Sight::Others => *field != "groups",
        Sight::OthersWithoutGroups => true,
    };
    hidden
        .iter()
        .filter(|field| is_hidden(field))
        .map(|field| json!({"field": field, "reason": "not_permitted"}))
        .collect()
}

/// A group with `expand=members`.
fn whole_group(row: &Value) -> Value {
    let remote_id = id(row);
    let in_order: Records = members(row)
        .map(|member| {
            let mut entry = reference("usr", &id(member), &member["name"]);
            entry["email"] = member["email"].clone();
            (id(member), entry)
        })
        .collect();
    let owner = row["ownerId"].as_u64().unwrap();
    json!({
        "id": format!("grp_{remote_id}"),
        "remote_id": remote_id,
        "name": row["name"],
        "description": row["description"],
        "type": {"value": "group", "source_value": null},
        "roles": [],
        "parent_id": null,
        "remote_parent_id": null,
        "created_at": moment(&row["createdAt"]),
        "member_count": in_order.len(),
        "owner": {
            "id": format!("usr_{owner}"),
            "remote_id": owner.to_string(),
            "email": row["owner"],
        },
        "members": in_order.into_values().collect::<Vec<_>>(),
        "listed": true,
        "suspected": false,
        "warnings": [],
    })
}

/// A moment as it is served: in UTC, to the millisecond.
pub fn moment(text: &Value) -> Value {
    let Some(text) = text.as_str() else {
        return Value::Null;
    };
    let at: Timestamp = text.parse().unwrap();
    json!(format!("{at:.3}"))
}

/// A served record as it is compared: lists in order, and without what `taken` names.
pub fn comparable(record: &Value, taken: &[&str]) -> Value {
    let mut record = record.clone();
    let fields = record.as_object_mut().unwrap();
    for name in taken {
        assert!(fields.remove(*name).is_some(), "{name} is always there");
    }
    for role in fields
        .get_mut("roles")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        role.as_object_mut().unwrap().remove("name");
    }
    for (list, key) in [
        ("roles", "remote_id"),
        ("groups", "remote_id"),
        ("members", "remote_id"),
        ("warnings", "field"),
    ] {
        if let Some(list) = fields.get_mut(list).and_then(Value::as_array_mut) {
            list.sort_by_key(|entry| entry[key].as_str().unwrap().to_owned());
        }
    }
    record
}

/// The first difference of two sets of records, in words; none if they are the same.
pub fn difference(expected: &Records, served: &Records) -> Option<String> {
    let ids = |records: &Records| records.keys().cloned().collect::<BTreeSet<_>>();
    let (wanted, got) = (ids(expected), ids(served));
    if let Some(id) = wanted.symmetric_difference(&got).next() {
        let how = if wanted.contains(id) {
            "is not served"
        } else {
            "is served and should not be"
        };
        return Some(format!(
            "{id} {how}: {:?}",
            expected.get(id).or(served.get(id))
        ));
    }
    expected.iter().find_map(|(id, wanted)| {
        let (wanted, got) = (comparable(wanted, &[]), &served[id]);
        let names = wanted.as_object().unwrap().keys();
        let named = names.chain(got.as_object().unwrap().keys());
        named
            .filter(|name| wanted.get(name) != got.get(name))
            .map(|name| {
                format!(
                    "{name} of {id} is {:?} and should be {:?}",
                    got.get(name),
                    wanted.get(name)
                )
            })
            .next()
    })
}
