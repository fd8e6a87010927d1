//! `/connectors/meta`, and an account's meta information: what they name is what is served.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::world::World;

/// The fields that hold something in one record at least.
fn filled(records: &[Value]) -> BTreeSet<&str> {
    let is_filled = |value: &Value| !value.is_null() && *value != json!([]);
    records
        .iter()
        .flat_map(|record| record.as_object().unwrap())
        .filter(|(_, value)| is_filled(value))
        .map(|(name, _)| name.as_str())
        .collect()
}

#[tokio::test]
async fn a_connector_names_the_fields_that_are_served_of_it_and_no_other() {
    let world = World::new().await;
    let connectors = world.get("/connectors/meta").await.expect(200);
    let connector = &connectors[0];
    assert_eq!(connectors.as_array().unwrap().len(), 1);
    assert_eq!(connector["provider"], "smartsheet");
    assert_eq!(connector["provider_name"], "Smartsheet");
    assert_eq!(connector["category"], "iam");
    assert_eq!(connector["active"], true);
    assert_eq!(connector["resources"], json!({"images": null}));
    let one = world.get("/connectors/meta/smartsheet").await.expect(200);
    assert_eq!(one, *connector);

    let account = world.link_admin().await;
    let meta = world.get(&format!("/accounts/{account}/meta")).await;
    assert_eq!(
        meta.expect(200),
        json!({"provider": "smartsheet", "category": "iam", "models": connector["models"]})
    );

    for (list, query) in [("users", ""), ("roles", ""), ("groups", "&expand=members")] {
        let fields = &connector["models"][list]["fields"];
        let named: BTreeSet<_> = fields
            .as_array()
            .unwrap()
            .iter()
            .map(|field| field.as_str().unwrap())
            .collect();
        let mut records = world.all(&account, list, query).await;
        if list == "users" {
            // A member's token may not see everything, and so brings the warnings.
            let member = world
                .link(&world.simulator.announcement().tokens.member)
                .await;
            world.read(&member, "/iam/users").await.expect(200);
            records.extend(world.all(&member, list, query).await);
        }
        if list == "groups" {
            // A group that cannot be read brings the warnings.
            let refused = json!({"kind": "status", "status": 403, "error_code": 1004});
            let id = records[0]["remote_id"].as_str().unwrap();
            let group = json!({"path_prefix": format!("/groups/{id}")});
            world
                .faults(&json!([{"match": group, "fault": refused}]))
                .await;
            world.walk_with(&account, "&full=true").await;
            records.extend(world.all(&account, list, query).await);
        }
        assert_eq!(named, filled(&records), "{list}");
    }
}

#[tokio::test]
async fn include_takes_the_words_of_stackone_and_no_other() {
    let world = World::new().await;
    let all = "field_path,unmapped_fields,resources,inactive,webhooks,static_fields";
    for path in ["/connectors/meta", "/connectors/meta/smartsheet"] {
        let plain = world.get(path).await.expect(200);
        for include in ["", "resources", all] {
            let reply = world.get(&format!("{path}?include={include}")).await;
            assert_eq!(reply.expect(200), plain, "{include}");
        }
        for query in ["include=logos", "include=resources,", "includes=resources"] {
            let reply = world.get(&format!("{path}?{query}")).await;
            reply.refused(400, "invalid_parameter");
        }
    }
}

#[tokio::test]
async fn an_unknown_connector_is_not_found() {
    let world = World::new().await;
    for provider in ["nobody", "Smartsheet", "smartsheet_iam", "%00", "%ff"] {
        let reply = world.get(&format!("/connectors/meta/{provider}")).await;
        let body = reply.refused(404, "not_found");
        assert!(body["hint"].as_str().unwrap().contains("/connectors/meta"));
    }
}
