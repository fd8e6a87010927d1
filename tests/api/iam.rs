//! `/iam`: the directory as it is.

use crate::world::World;

#[tokio::test]
async fn every_user_of_the_provider_is_served_once() {
    let world = World::new().await;
    let account = world.link_admin().await;
    let users = world.all(&account, "users", "").await;
    let truth = world.truth().await;
    let listed = users
        .iter()
        .filter(|user| user["is_external"] == false)
        .count();
    assert!(listed > 0);
    for person in truth["users"].as_array().unwrap() {
        let id = person["id"].to_string();
        assert_eq!(
            users.iter().filter(|user| user["remote_id"] == *id).count(),
            1,
            "{id}"
        );
    }
}
