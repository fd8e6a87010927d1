//! A directory as large as they come: what is sealed equals the truth, id by id.

use reqwest::Method;
use rolecall::clock::Clock;

use crate::{is_full, process::House};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_directory_equals_the_truth() {
    let (users, groups) = if is_full() {
        (100_000, 5_000)
    } else {
        (2_000, 100)
    };
    let clock = Clock::system();
    let house = House::new(users, groups, 1).await;
    let mut served = house.serve();
    house.up(&mut served).await;
    let idle_mib = served.peak_mib();

    let began_at = clock.monotonic();
    let body = house.account_body();
    let account = house
        .ask(Method::POST, "/accounts", None, Some(&body))
        .await;
    let account = account.unwrap().expect(201)["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let (first, walk_took) = loop {
        let path = format!("/accounts/{account}/walks?page_size=1");
        let walks = house
            .ask(Method::GET, &path, None, None)
            .await
            .unwrap()
            .expect(200);
        let walk = &walks["data"][0];
        if !walk.is_null() && walk["state"] != "running" {
            break (walk.clone(), clock.monotonic() - began_at);
        }
        clock.sleep(std::time::Duration::from_millis(20)).await;
    };
    assert_eq!(first["state"], "sealed", "{first}");
    let walked_mib = served.peak_mib();

    let began_at = clock.monotonic();
    let picture = house.picture(&account).await.expect("it is served");
    let read_took = clock.monotonic() - began_at;
    let read_mib = served.peak_mib();
    let truth = house.truth().await;
    let differences = picture.differences(&truth);
    assert!(
        differences.is_empty(),
        "{} differences, among them {:#?}",
        differences.len(),
        &differences[..differences.len().min(5)]
    );

    served.kill().await;
    let mut served = house.serve();
    let (reply, restart_took) = house
        .first_answer(&mut served, "/iam/users?page_size=100", &account)
        .await;
    reply.expect(200);
    assert_eq!(reply.version(), picture.version);
    println!(
        "{users} users and {groups} groups: walked in {walk_took:.1?} with {} calls, read whole by \
         pages in {read_took:.1?}, served {restart_took:.1?} after a restart; the process's peak \
         was {idle_mib} MiB idle, {walked_mib} MiB after the walk, {read_mib} MiB after the read",
        first["upstream_calls"]
    );
    served.kill().await;
    assert!(!house.log().contains("panicked"), "{}", house.log());
}
