//! What SQLite must do besides the contract: opening, keys, files, locks.

use std::path::Path;

use rolecall::{
    clock::Clock,
    crypto::{Chance, KeyRing},
    store::Store,
};

use crate::{
    contract,
    world::{World, ring, start},
};

fn url(path: &Path) -> String {
    format!("sqlite://{}", path.display())
}

async fn open(path: &Path, ring: &KeyRing) -> World {
    let clock = Clock::skipping(start());
    let store = Store::open(&url(path), ring.clone(), clock.clone()).await;
    World {
        store: store.unwrap(),
        clock,
        chance: Chance::system(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_keeps_the_contract() {
    for (name, contract) in contract::ALL {
        println!("{name}");
        let folder = tempfile::tempdir().unwrap();
        let world = open(&folder.path().join("store.db"), &ring("a")).await;
        let store = world.store.clone();
        contract(world).await;
        store.close().await;
    }
}
