//! The upgrade of a database to the current row format. The process that first opens the database
//! with this version does it, once.
//!
//! Earlier versions sealed secrets without their destination (`destinations`) and stored API keys
//! without a MAC (`key_macs`). One transaction, under the lock of the ring, decrypts each secret,
//! seals it for the destination that its row names at that moment, adds a MAC to each key, and
//! raises the database's format. So the upgrade trusts the rows once.
//!
//! The format is part of the known answers and therefore authenticated (`open`). After the upgrade,
//! a secret in the earlier format is locked and a key without a MAC is refused, regardless of who
//! wrote it. A database with the earlier format and rows of the current one was tampered with, and
//! the upgrade fails.

use super::{
    FieldSealer, OpenError, SealedColumn, Store,
    credentials::{CredentialRow, token_digest},
    db::Tx,
    destinations::{Client, Destination, ProfileDestination, destroyed_digest, own_app_digest},
    key_macs::{KeyRow, key_columns, mac},
    open::{KeyChecks, RowFormat, known_answer_of, prove_keys},
    parse_id, parse_project, parse_word,
    secrets::{decode_app, decode_credential},
};
use crate::{
    crypto::DataKey,
    error::{Error, Kind, Result},
    model::{
        accounts::{Credential, Endpoint},
        audit_log::{Actor, AuditAction, Event},
        connector_profiles::OAuthApp,
        id::{AccountId, ProjectId},
    },
};

/// How much of one project was upgraded.
#[derive(Debug, Clone, Copy, Default)]
struct Upgraded {
    profiles: u64,
    credentials: u64,
    keys: u64,
    /// Secrets that do not decrypt. They were left as they are.
    locked: u64,
}

impl Store {
    /// Upgrades the database, unless another process has done so meanwhile.
    ///
    /// # Errors
    /// [`OpenError::InUse`] or [`OpenError::Served`] if another process serves the database. It
    /// would be a process of an earlier version, which would go on writing the earlier format.
    pub(super) async fn upgrade(&self) -> Result<(), OpenError> {
        if let Some(file) = &self.file
            && file.is_served_by_another().unwrap_or(true)
        {
            let path = file.path.clone();
            return Err(OpenError::InUse { path });
        }
        let mut tx = self.db.begin().await?;
        tx.disable_timeouts().await?;
        tx.lock_ring().await?;
        let ring = self.ring.current();
        let checks: KeyChecks = tx
            .fetch(
                "select key_id, sealed from key_checks order by created_at, key_id",
                [],
            )
            .await?;
        // Another process has upgraded the database meanwhile.
        if prove_keys(&ring, &checks)? == RowFormat::Bound {
            return Ok(());
        }
        if self.is_served(&mut tx).await? {
            return Err(OpenError::Served);
        }
        let projects: Vec<(String, String, Vec<u8>)> = tx
            .fetch(
                "select id, data_key_id, sealed_data_key from projects
                 where deleted_at is null order by id",
                [],
            )
            .await?;
        for (project, key_id, wrapped) in projects {
            let project = parse_project(&project)?;
            match self.unwrapped(&project, Some((key_id, wrapped))) {
                Ok(Some(key)) => self.upgrade_project(&mut tx, &project, &key).await?,
                Ok(None) => {}
                Err(error) => {
                    tracing::error!(%project, %error, "project not upgraded: it stays locked");
                }
            }
        }
        // Authorizations in progress are not upgraded. They live for ten minutes, and users can
        // start again.
        tx.execute("delete from authorizations", []).await?;
        for (key_id, _) in &checks {
            let sealed = known_answer_of(&ring, key_id, &self.rng);
            let sealed =
                sealed.ok_or_else(|| Error::internal("a proven key is not in the ring"))?;
            tx.execute(
                "update key_checks set sealed = $2 where key_id = $1",
                [key_id.as_str().into(), sealed.into()],
            )
            .await?;
        }
        tx.commit().await?;
        tracing::info!(
            "database upgraded: secrets are bound to their destinations, keys are signed"
        );
        Ok(())
    }

    async fn upgrade_project(
        &self,
        tx: &mut Tx,
        project: &ProjectId,
        key: &DataKey,
    ) -> Result<(), OpenError> {
        let mut upgraded = Upgraded::default();
        let mut sealer = FieldSealer {
            key: key.clone(),
            rng: &self.rng,
            project,
            account: String::new(),
        };
        bind_profiles(tx, &mut sealer, &mut upgraded).await?;
        let accounts: Vec<(String,)> = tx
            .fetch(
                "select account from credentials where project = $1 order by account",
                [project.into()],
            )
            .await?;
        for (account,) in accounts {
            sealer.account.clone_from(&account);
            bind_credential(tx, &sealer, parse_id(&account)?, &mut upgraded).await?;
        }
        sign_keys(tx, &sealer, &mut upgraded).await?;
        let event = Event::new(Actor::System, AuditAction::ProjectUpgraded, project)
            .with("profiles", upgraded.profiles)
            .with("credentials", upgraded.credentials)
            .with("api_keys", upgraded.keys)
            .with("locked", upgraded.locked);
        self.audit(tx, project, Some(key), &[event]).await?;
        Ok(())
    }
}

/// The error for a row of the current format in a database of the earlier format.
fn tampered() -> OpenError {
    OpenError::KeyChecks {
        fault: "are of an earlier format than the rows beside them",
    }
}

async fn bind_profiles(
    tx: &mut Tx,
    sealer: &mut FieldSealer<'_>,
    upgraded: &mut Upgraded,
) -> Result<(), OpenError> {
    type UpgradeRow = (String, String, String, String, String, String, Vec<u8>);
    let rows: Vec<UpgradeRow> = tx
        .fetch(
            "select id, provider, endpoint, client_id, proof, redirect_url, sealed_client_secret
             from connector_profiles where project = $1 order by id",
            [sealer.project.into()],
        )
        .await?;
    for (id, provider, endpoint, client_id, proof, redirect_url, sealed) in rows {
        sealer.account.clone_from(&id);
        let endpoint: Option<Endpoint> = serde_json::from_str(&endpoint).ok();
        let (Some(endpoint), Ok(proof)) = (endpoint, parse_word(proof)) else {
            upgraded.locked += 1;
            continue;
        };
        let bound = ProfileDestination {
            provider: &provider,
            endpoint: &endpoint,
            client_id: &client_id,
            proof,
            redirect_url: &redirect_url,
        }
        .digest();
        if sealer
            .open_for(bound, SealedColumn::ClientSecret, "", &sealed)
            .is_ok()
        {
            return Err(tampered());
        }
        let Some(secret) = unlocked(sealer.open(SealedColumn::ClientSecret, "", &sealed))? else {
            upgraded.locked += 1;
            continue;
        };
        let sealed = sealer.seal_for(bound, SealedColumn::ClientSecret, "", &secret);
        tx.execute(
            "update connector_profiles set sealed_client_secret = $3
             where project = $1 and id = $2",
            [sealer.project.into(), id.into(), sealed.into()],
        )
        .await?;
        upgraded.profiles += 1;
    }
    Ok(())
}

async fn bind_credential(
    tx: &mut Tx,
    sealer: &FieldSealer<'_>,
    account: AccountId,
    upgraded: &mut Upgraded,
) -> Result<(), OpenError> {
    let Some(row) = CredentialRow::read(tx, sealer.project, account).await? else {
        return Ok(());
    };
    // A row of the current format proves tampering: the format was set back.
    if row.opened(sealer).is_ok() {
        return Err(tampered());
    }
    let Some(before) = unlocked(opened_before(sealer, &row))? else {
        upgraded.locked += 1;
        return Ok(());
    };
    let generation = row.generation.to_string();
    let (provider, endpoint) = (&before.destination.provider, &before.destination.endpoint);
    let (sealed, digest) = match &before.text {
        None => {
            let bound = destroyed_digest(provider, endpoint);
            (
                sealer.seal_for(bound, SealedColumn::Destroyed, &generation, b""),
                None,
            )
        }
        Some(text) => {
            let bound = before.destination.digest();
            let digest = match decode_credential(text)? {
                Credential::AccessToken(token) => Some(token_digest(&sealer.key, &token)),
                Credential::OAuth(_) => None,
            };
            (
                sealer.seal_for(bound, SealedColumn::Credential, &generation, text),
                digest,
            )
        }
    };
    let sealed_app = before.app.map(|text| {
        let bound = own_app_digest(provider, endpoint);
        sealer.seal_for(bound, SealedColumn::App, &row.lineage.to_string(), &text)
    });
    tx.execute(
        "update credentials set sealed = $3, sealed_app = $4, token_digest = $5
         where project = $1 and account = $2",
        [
            sealer.project.into(),
            account.into(),
            sealed.into(),
            sealed_app.into(),
            digest.into(),
        ],
    )
    .await?;
    upgraded.credentials += 1;
    Ok(())
}

type SecretBytes = zeroize::Zeroizing<Vec<u8>>;

/// A decrypted credential of the earlier format.
struct Before {
    destination: Destination,
    /// None for a destroyed credential.
    text: Option<SecretBytes>,
    /// The customer's own app.
    app: Option<SecretBytes>,
}

fn opened_before(sealer: &FieldSealer<'_>, row: &CredentialRow) -> Result<Before> {
    let endpoint: Endpoint =
        serde_json::from_str(&row.endpoint).map_err(|_| super::elsewhere("credential"))?;
    let mut before = Before {
        destination: Destination {
            provider: row.provider.clone(),
            endpoint,
            client: Client::None,
        },
        text: None,
        app: None,
    };
    if row.is_destroyed() {
        return Ok(before);
    }
    let generation = row.generation.to_string();
    before.text = Some(sealer.open(SealedColumn::Credential, &generation, &row.sealed)?);
    if let Some(sealed) = &row.sealed_app {
        let text = sealer.open(SealedColumn::App, &row.lineage.to_string(), sealed)?;
        let app: OAuthApp = decode_app(&text)?;
        before.destination.client = Client::of_own_app(&app);
        before.app = Some(text);
    } else if let Some(id) = &row.profile {
        before.destination.client = Client::Profile {
            id: id.clone(),
            client_id: row.client_id.clone().unwrap_or_default(),
        };
    }
    Ok(before)
}

async fn sign_keys(
    tx: &mut Tx,
    sealer: &FieldSealer<'_>,
    upgraded: &mut Upgraded,
) -> Result<(), OpenError> {
    let rows: Vec<KeyRow> = tx
        .fetch(
            concat!(
                "select ",
                key_columns!(),
                " from api_keys where project = $1 order by id"
            ),
            [sealer.project.into()],
        )
        .await?;
    for row in rows {
        if row.mac.is_some() {
            return Err(tampered());
        }
        tx.execute(
            "update api_keys set mac = $2 where id = $1",
            [row.id.as_str().into(), mac(&sealer.key, &row).into()],
        )
        .await?;
        upgraded.keys += 1;
    }
    Ok(())
}

/// None if the secret does not decrypt. It was locked before the upgrade and stays so.
fn unlocked<T>(opened: Result<T>) -> Result<Option<T>> {
    match opened {
        Ok(opened) => Ok(Some(opened)),
        Err(error) if error.kind() == Kind::CredentialLocked => {
            tracing::error!(%error, "a secret is locked; it is left as it is");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
