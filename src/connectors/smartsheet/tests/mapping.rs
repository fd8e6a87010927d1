//! Tests of the mapping from rows to records, without a socket.

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::connectors::smartsheet::{map, wire};
use crate::{
    connectors::QuarantinedRow,
    model::{
        observed::{Identity, ObservedGroup, ObservedUser, Seats},
        schema::{
            GroupField, GroupWarning, Reason, RoleType, SeatType, UserField, UserStatus, Warning,
        },
    },
};

fn identity(is_admin: bool, seats: Seats) -> Identity {
    Identity {
        user: "1".into(),
        email: None,
        name: None,
        organization: "2".into(),
        organization_name: None,
        is_admin,
        seats,
    }
}

fn admin() -> Identity {
    let plan = "3".into();
    identity(true, Seats::Readable { plan })
}

fn member() -> Identity {
    identity(false, Seats::Hidden(Reason::NotPermitted))
}

fn without_plan() -> Identity {
    identity(true, Seats::Hidden(Reason::NotSupported))
}

/// A row with every field that a system admin sees.
fn whole() -> Value {
    json!({
        "id": 9_007_199_254_740_993_u64, "email": "ana.ruiz@example.org",
        "firstName": "Ana", "lastName": "Ruiz", "name": "Ana Ruiz",
        "admin": true, "groupAdmin": false, "licensedSheetCreator": true, "resourceViewer": false,
        "status": "ACTIVE", "isInternal": true, "seatType": "MEMBER",
        "seatTypeLastChangedAt": "2026-02-03T09:15:22.410233Z", "provisionalExpirationDate": null,
        "sheetCount": -1, "lastLogin": "2026-11-20T07:41:09Z",
        "profileImage": {"imageId": "u!1!abc", "height": 640, "width": "640"},
        "aNewField": [{}]
    })
}

fn with(field: &str, value: Value) -> Value {
    let mut row = whole();
    row[field] = value;
    row
}

fn without(fields: &[&str]) -> Value {
    let mut row = whole();
    for field in fields {
        row.as_object_mut().unwrap().remove(*field);
    }
    row
}

fn mapped(row: &Value, identity: &Identity) -> Result<ObservedUser, QuarantinedRow> {
    let text = row.to_string();
    map::listed_user(&serde_json::from_str(&text).unwrap(), identity)
}

fn user(row: &Value, identity: &Identity) -> ObservedUser {
    mapped(row, identity).unwrap()
}

fn group(row: &Value) -> Result<ObservedGroup, QuarantinedRow> {
    let text = row.to_string();
    map::listed_group(&serde_json::from_str(&text).unwrap())
}

fn roles(user: &ObservedUser) -> Option<Vec<&str>> {
    let roles = user.roles.as_ref()?;
    Some(roles.iter().map(|role| &**role).collect())
}

fn warnings(list: &[(UserField, Reason)]) -> Vec<Warning> {
    list.iter()
        .map(|&(field, reason)| Warning { field, reason })
        .collect()
}

#[test]
fn a_whole_row_becomes_a_whole_record() {
    let user = user(&whole(), &admin());
    assert_eq!(user.remote_id.as_str(), "9007199254740993");
    assert_eq!(user.email.as_deref(), Some("ana.ruiz@example.org"));
    assert_eq!(user.name.as_deref(), Some("Ana Ruiz"));
    assert_eq!(user.first_name.as_deref(), Some("Ana"));
    assert_eq!(user.last_name.as_deref(), Some("Ruiz"));
    assert_eq!(user.avatar.as_deref(), Some("u!1!abc"));
    assert_eq!(user.is_external, Some(false));
    let status = user.status.as_ref().unwrap();
    assert_eq!(status.value, UserStatus::Enabled);
    assert_eq!(status.source.as_deref(), Some("ACTIVE"));
    assert_eq!(
        roles(&user).unwrap(),
        ["system_admin", "licensed_user", "seat_member"]
    );
    let seat = user.seat.as_ref().unwrap();
    assert_eq!(seat.kind.value, SeatType::Member);
    assert_eq!(seat.since, "2026-02-03T09:15:22.410233Z".parse().ok());
    assert_eq!(seat.provisional_until, None);
    assert_eq!(user.last_login_at, "2026-11-20T07:41:09Z".parse().ok());
    assert_eq!(user.warnings, []);
}

#[test]
fn each_status_has_its_word() {
    for (word, value) in [
        ("ACTIVE", UserStatus::Enabled),
        ("PENDING", UserStatus::Pending),
        ("DECLINED", UserStatus::Disabled),
        ("DEACTIVATED", UserStatus::Disabled),
        ("active", UserStatus::UnmappedValue),
        ("ON_HOLD", UserStatus::UnmappedValue),
    ] {
        let user = user(&with("status", json!(word)), &admin());
        let status = user.status.unwrap();
        assert_eq!(
            (status.value, status.source.as_deref()),
            (value, Some(word))
        );
        assert_eq!(user.warnings, []);
    }
}

#[test]
fn a_missing_status_is_never_active() {
    for row in [
        without(&["status"]),
        with("status", json!(null)),
        with("status", json!("")),
    ] {
        let user = user(&row, &admin());
        let status = user.status.unwrap();
        assert_eq!(
            (status.value, status.source),
            (UserStatus::UnmappedValue, None)
        );
        assert_eq!(
            user.warnings,
            warnings(&[(UserField::Status, Reason::Unknown)])
        );
    }
}

#[test]
fn each_seat_has_its_word_and_its_role() {
    for (word, value, role) in [
        ("MEMBER", SeatType::Member, Some("seat_member")),
        (
            "PROVISIONAL_MEMBER",
            SeatType::ProvisionalMember,
            Some("seat_provisional_member"),
        ),
        ("GUEST", SeatType::Guest, Some("seat_guest")),
        (
            "CONTRIBUTOR",
            SeatType::Contributor,
            Some("seat_contributor"),
        ),
        ("VIEWER", SeatType::Contributor, Some("seat_contributor")),
        ("COLLABORATOR", SeatType::UnmappedValue, None),
    ] {
        let user = user(&with("seatType", json!(word)), &admin());
        let kind = &user.seat.as_ref().unwrap().kind;
        assert_eq!((kind.value, kind.source.as_deref()), (value, Some(word)));
        let expected: Vec<_> = ["system_admin", "licensed_user"]
            .into_iter()
            .chain(role)
            .collect();
        assert_eq!(roles(&user).unwrap(), expected);
        let is_warned = user.warnings == warnings(&[(UserField::Seat, Reason::Unknown)]);
        assert_eq!(is_warned, role.is_none());
    }
}

#[test]
fn a_provisional_seat_ends_at_a_time_in_any_spelling() {
    let ends = |value: Value| {
        let mut row = with("seatType", json!("PROVISIONAL_MEMBER"));
        row["provisionalExpirationDate"] = value;
        user(&row, &admin()).seat.unwrap().provisional_until
    };
    let expected = "2026-12-01T00:00:00.5Z".parse().ok();
    assert_eq!(ends(json!("2026-12-01T00:00:00.500000Z")), expected);
    assert_eq!(ends(json!("2026-12-01T00:00:00.500000000Z")), expected);
    assert_eq!(ends(json!(1_796_083_200_500_u64)), expected);
}

#[test]
fn a_missing_flag_makes_the_roles_unknown() {
    for flag in [
        "admin",
        "groupAdmin",
        "licensedSheetCreator",
        "resourceViewer",
    ] {
        for row in [without(&[flag]), with(flag, json!(null))] {
            let user = user(&row, &admin());
            assert_eq!(user.roles, None, "{flag}");
            assert_eq!(
                user.warnings,
                warnings(&[(UserField::Roles, Reason::Unknown)]),
                "{flag}"
            );
        }
    }
}

#[test]
fn a_missing_seat_makes_the_roles_unknown_too() {
    let user = user(&without(&["seatType"]), &admin());
    assert_eq!((&user.seat, &user.roles), (&None, &None));
    assert_eq!(
        user.warnings,
        warnings(&[
            (UserField::Roles, Reason::Unknown),
            (UserField::Seat, Reason::Unknown)
        ])
    );
}

#[test]
fn without_a_plan_the_roles_are_those_of_the_flags() {
    let user = user(&without(&["seatType"]), &without_plan());
    assert_eq!(roles(&user).unwrap(), ["system_admin", "licensed_user"]);
    assert_eq!(user.seat, None);
    assert_eq!(
        user.warnings,
        warnings(&[(UserField::Seat, Reason::NotSupported)])
    );
}

#[test]
fn nobody_holds_a_role_without_a_flag() {
    let mut row = without(&["seatType"]);
    row["admin"] = json!(false);
    row["licensedSheetCreator"] = json!(false);
    assert_eq!(roles(&user(&row, &without_plan())).unwrap(), [""; 0]);
}

#[test]
fn what_a_plain_member_is_not_shown_is_null_with_the_reason() {
    let shown = without(&[
        "admin",
        "groupAdmin",
        "licensedSheetCreator",
        "resourceViewer",
        "status",
        "isInternal",
        "seatType",
        "lastLogin",
    ]);
    // The same if the row has the fields after all: they are not used.
    for row in [shown, whole()] {
        let user = user(&row, &member());
        assert_eq!(user.name.as_deref(), Some("Ana Ruiz"));
        assert_eq!(
            (
                user.status,
                user.roles,
                user.seat,
                user.is_external,
                user.last_login_at
            ),
            (None, None, None, None, None)
        );
        assert_eq!(
            user.warnings,
            warnings(&[
                (UserField::Status, Reason::NotPermitted),
                (UserField::Roles, Reason::NotPermitted),
                (UserField::Seat, Reason::NotPermitted),
                (UserField::IsExternal, Reason::NotPermitted),
                (UserField::LastLoginAt, Reason::NotPermitted),
            ])
        );
    }
}

#[test]
fn no_last_login_says_an_admin_that_there_was_none() {
    let user = user(&without(&["lastLogin"]), &admin());
    assert_eq!((user.last_login_at, user.warnings), (None, vec![]));
}

#[test]
fn insiders_and_outsiders() {
    let external = |row: &Value| user(row, &admin()).is_external;
    assert_eq!(external(&with("isInternal", json!(false))), Some(true));
    let row = without(&["isInternal"]);
    assert_eq!(external(&row), None);
    assert_eq!(
        user(&row, &admin()).warnings,
        warnings(&[(UserField::IsExternal, Reason::Unknown)])
    );
}

#[test]
fn names_are_what_is_given_and_never_composed() {
    let user = user(
        &json!({"id": 5, "email": "x@example.org", "name": "", "firstName": "Xi"}),
        &member(),
    );
    assert_eq!((user.name, user.last_name, user.avatar), (None, None, None));
    assert_eq!(user.first_name.as_deref(), Some("Xi"));
}

/// A user whose `name` is this raw JSON, which `serde_json` cannot represent as a value.
fn with_raw_name(name: &str) -> ObservedUser {
    let row = with("name", json!("NAME"))
        .to_string()
        .replace("\"NAME\"", name);
    map::listed_user(&serde_json::from_str(&row).unwrap(), &admin()).unwrap()
}

#[test]
fn an_odd_field_costs_that_field_and_nothing_else() {
    for (field, value, lost) in [
        ("email", json!(7), &[UserField::PrimaryEmailAddress][..]),
        ("name", json!(["Ana"]), &[UserField::Name]),
        ("firstName", json!(true), &[UserField::FirstName]),
        ("lastName", json!({}), &[UserField::LastName]),
        ("admin", json!("yes"), &[UserField::Roles]),
        ("groupAdmin", json!(1), &[UserField::Roles]),
        ("status", json!(1), &[UserField::Status]),
        ("seatType", json!({}), &[UserField::Roles, UserField::Seat]),
        (
            "seatTypeLastChangedAt",
            json!("2026-02-30T00:00:00Z"),
            &[UserField::Seat],
        ),
        ("isInternal", json!(0), &[UserField::IsExternal]),
        ("lastLogin", json!("Never"), &[UserField::LastLoginAt]),
        (
            "lastLogin",
            json!("2026-11-20T07:41:09"),
            &[UserField::LastLoginAt],
        ),
        (
            "lastLogin",
            json!("1795160469000"),
            &[UserField::LastLoginAt],
        ),
        (
            "lastLogin",
            json!("9999-12-31T23:59:59Z"),
            &[UserField::LastLoginAt],
        ),
        ("profileImage", json!("u!1"), &[UserField::Avatar]),
        ("profileImage", json!({"imageId": 5}), &[UserField::Avatar]),
    ] {
        let odd = user(&with(field, value.clone()), &admin());
        let unreadable: Vec<_> = lost
            .iter()
            .map(|lost| (*lost, Reason::Unreadable))
            .collect();
        assert_eq!(odd.warnings, warnings(&unreadable), "{field}: {value}");
        crate::connectors::contract::nulls_are_explained(&odd);

        let mut rest = user(&whole(), &admin());
        for lost in lost {
            match lost {
                UserField::PrimaryEmailAddress => rest.email = None,
                UserField::Name => rest.name = None,
                UserField::FirstName => rest.first_name = None,
                UserField::LastName => rest.last_name = None,
                UserField::Roles => rest.roles = None,
                UserField::Status => {
                    let status = rest.status.as_mut().unwrap();
                    (status.value, status.source) = (UserStatus::UnmappedValue, None);
                }
                UserField::Seat if field == "seatType" => rest.seat = None,
                UserField::Seat => rest.seat.as_mut().unwrap().since = None,
                UserField::IsExternal => rest.is_external = None,
                UserField::LastLoginAt => rest.last_login_at = None,
                UserField::Avatar => rest.avatar = None,
                UserField::Groups | UserField::Listed => unreachable!("not of a row"),
            }
        }
        rest.warnings.clone_from(&odd.warnings);
        assert_eq!(odd, rest, "{field}: {value}");
    }
    assert_eq!(with_raw_name("1e999").name, None);
    let odd = with_raw_name("\"Ana\",\"name\":\"Bo\"");
    assert_eq!((odd.name.as_deref(), odd.email.is_some()), (None, true));
}

#[test]
fn a_missing_name_or_address_has_a_warning_and_an_empty_one_has_none() {
    for (field, lost) in [
        ("email", UserField::PrimaryEmailAddress),
        ("name", UserField::Name),
        ("firstName", UserField::FirstName),
        ("lastName", UserField::LastName),
    ] {
        for row in [without(&[field]), with(field, json!(null))] {
            let user = user(&row, &admin());
            assert_eq!(
                user.warnings,
                warnings(&[(lost, Reason::Unknown)]),
                "{field}"
            );
        }
        assert_eq!(user(&with(field, json!("")), &admin()).warnings, []);
    }
    assert_eq!(user(&with("email", json!("")), &admin()).email, None);
}

#[test]
fn a_row_without_an_id_is_nobody() {
    for row in [
        json!(null),
        json!([1, "a@example.org"]),
        json!("row"),
        without(&["id"]),
        with("id", json!(null)),
        with("id", json!(1.5)),
        with("id", json!("abc")),
    ] {
        assert!(mapped(&row, &admin()).is_err(), "{row}");
    }
    let doubled = r#"{"id":1,"id":2,"email":"a@example.org"}"#;
    assert!(map::listed_user(&serde_json::from_str(doubled).unwrap(), &member()).is_err());
}

#[test]
fn a_single_read_shows_status_and_the_roles_of_flags_but_no_seat() {
    let single = |row: &Value| {
        let wire: wire::WireUser = wire::object(&row.to_string()).unwrap();
        map::single_user(wire)
    };
    let profile = without(&["seatType", "seatTypeLastChangedAt", "isInternal", "name"]);
    let user = single(&profile).unwrap();
    assert_eq!(user.status.unwrap().value, UserStatus::Enabled);
    assert!(user.last_login_at.is_some());
    let roles = user.roles.unwrap();
    assert!(!roles.is_empty() && roles.iter().all(|role| !role.starts_with("seat_")));
    assert_eq!(
        user.warnings,
        warnings(&[
            (UserField::Seat, Reason::NotFetched),
            (UserField::IsExternal, Reason::NotFetched),
            (UserField::Name, Reason::Unknown),
        ])
    );
    let seen_by_member = json!({
        "id": 5, "email": "x@example.org", "name": "", "firstName": "", "lastName": ""
    });
    let seen_by_member = single(&seen_by_member).unwrap();
    assert_eq!(seen_by_member.status, None);
    assert!(
        seen_by_member
            .warnings
            .iter()
            .all(|warning| warning.reason == Reason::NotPermitted)
    );
    assert!(single(&json!({"email": "x@example.org"})).is_err());
    assert_eq!(single(&with("admin", json!("yes"))).unwrap().roles, None);
}

#[test]
fn a_group_is_what_its_row_says() {
    let row = json!({
        "id": "4419027755311236", "name": "Finance", "description": "",
        "owner": "ana.ruiz@example.org", "ownerId": 3,
        "createdAt": "2024-05-01T08:00:00Z", "modifiedAt": 1_000
    });
    let finance = group(&row).unwrap();
    assert_eq!(finance.remote_id.as_str(), "4419027755311236");
    assert_eq!(finance.name.as_deref(), Some("Finance"));
    assert_eq!(finance.description, None);
    let owner = finance.owner.unwrap();
    assert_eq!(owner.remote_id.as_str(), "3");
    assert_eq!(owner.email.as_deref(), Some("ana.ruiz@example.org"));
    assert_eq!(finance.modified_at, "1970-01-01T00:00:01Z".parse().ok());

    assert_eq!(finance.warnings, []);

    let warned = |row: Value| {
        let warnings = group(&row).unwrap().warnings.into_iter();
        warnings
            .map(|GroupWarning { field, reason }| (field, reason))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        warned(json!({"id": 4})),
        [
            (GroupField::Name, Reason::Unknown),
            (GroupField::Owner, Reason::Unknown),
            (GroupField::CreatedAt, Reason::Unknown),
        ]
    );
    let odd = json!({
        "id": 4, "name": 7, "description": [], "ownerId": "ana", "owner": "a@example.org",
        "createdAt": "yesterday", "modifiedAt": "9999-12-31T23:59:59Z"
    });
    let unreadable = [
        GroupField::Name,
        GroupField::Description,
        GroupField::Owner,
        GroupField::CreatedAt,
        GroupField::UpdatedAt,
    ];
    assert_eq!(
        warned(odd),
        unreadable.map(|field| (field, Reason::Unreadable))
    );
}

#[test]
fn a_member_without_an_id_spoils_the_group_and_an_odd_field_does_not() {
    let members = |members: Value| {
        let text = json!({"members": members}).to_string();
        map::members(&serde_json::from_str(&text).unwrap()).map(|members| members.len())
    };
    assert_eq!(members(json!([])), Ok(0));
    assert_eq!(members(json!([{"id": 1}, {"id": "2", "email": ""}])), Ok(2));
    assert_eq!(members(json!([{"id": 1, "email": 2, "name": []}])), Ok(1));
    for bad in [json!(null), json!({}), json!({"id": 1.5})] {
        assert!(members(json!([{"id": 1}, bad])).is_err());
    }
}

#[test]
fn the_catalog_is_that_of_the_contract() {
    let catalog: Vec<_> = crate::connectors::smartsheet::roles::catalog()
        .into_iter()
        .map(|role| {
            (
                role.remote_id.to_string(),
                role.kind.value,
                role.kind.source.unwrap(),
            )
        })
        .collect();
    let expected = [
        ("system_admin", RoleType::Admin, "admin"),
        ("group_admin", RoleType::Restricted, "groupAdmin"),
        ("licensed_user", RoleType::Editor, "licensedSheetCreator"),
        ("resource_viewer", RoleType::Viewer, "resourceViewer"),
        ("seat_member", RoleType::Editor, "MEMBER"),
        (
            "seat_provisional_member",
            RoleType::Basic,
            "PROVISIONAL_MEMBER",
        ),
        ("seat_guest", RoleType::Guest, "GUEST"),
        ("seat_contributor", RoleType::Viewer, "CONTRIBUTOR"),
    ]
    .map(|(key, kind, source)| (key.to_owned(), kind, source.into()));
    assert_eq!(catalog, expected);
}

/// Arbitrary JSON in which known fields are likely.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[A-Z_]{0,9}|[0-9]{0,20}|\\PC{0,8}".prop_map(Value::from),
        prop::sample::select(vec!["MEMBER", "ACTIVE", "2026-02-03T09:15:22Z"])
            .prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 32, 6, |inner| {
        let known: Vec<String> = whole().as_object().unwrap().keys().cloned().collect();
        let key = prop_oneof![4 => prop::sample::select(known), 1 => "[a-zA-Z]{0,6}"];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map(key, inner, 0..18)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn no_row_makes_the_reader_panic_or_leaves_a_null_unexplained(
        row in any_json(),
        is_admin: bool,
        has_plan: bool,
    ) {
        let seats = if has_plan {
            Seats::Readable { plan: "3".into() }
        } else {
            Seats::Hidden(Reason::NotSupported)
        };
        let identity = identity(is_admin, seats);
        let _ = group(&row);
        let _ = wire::object::<wire::WireUser>(&row.to_string()).map(map::single_user);
        if let Ok(user) = mapped(&row, &identity) {
            crate::connectors::contract::nulls_are_explained(&user);
        }
    }
}
