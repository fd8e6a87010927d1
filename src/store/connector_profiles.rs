//! Connector profiles: OAuth apps at providers. Their client secrets are sealed.

use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};

use super::{
    FieldSealer, SealedColumn, Store, db::Tx, decode_json, decode_timestamp,
    destinations::ProfileDestination, elsewhere, json, no_such_project, parse_id, parse_project,
    parse_word, word,
};
use crate::{
    crypto::DataKey,
    error::{Error, Kind, Result},
    model::{
        accounts::Endpoint,
        audit_log::{Actor, AuditAction, Event, Subject, SubjectKind},
        connector_profiles::{ClientProof, ConnectorProfile, OAuthApp, ProfileChange, ProfileId},
        id::ProjectId,
    },
};

type ProfileRow = (
    String,
    String,
    String,
    Option<String>,
    String,
    String,
    String,
    String,
    String,
    String,
    i64,
    i64,
    i64,
);

/// A connector profile's OAuth app, and the destination of its client secret.
#[derive(Debug, Clone)]
pub struct ProfileApp {
    pub app: OAuthApp,
    /// The connector's key.
    pub provider: String,
    pub endpoint: Endpoint,
}

impl Store {
    /// Stores a new profile with its client secret.
    pub async fn insert_profile(
        &self,
        profile: &ConnectorProfile,
        secret: &SecretString,
        by: Actor,
    ) -> Result<()> {
        let key = self
            .data_key(&profile.project)
            .await?
            .ok_or_else(no_such_project)?;
        let sealer = self.sealer_for_profile(key, &profile.project, profile.id);
        let sealed = sealed_secret(&sealer, profile, secret);
        let mut tx = self.db.begin().await?;
        if !tx.hold_project(&profile.project).await? {
            return Err(no_such_project());
        }
        tx.execute(
            "insert into connector_profiles
                 (id, project, provider, label, client_id, proof, endpoint, scopes, redirect_url,
                  actions, is_enabled, sealed_client_secret, created_at, updated_at)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
            [
                profile.id.into(),
                (&profile.project).into(),
                profile.provider.as_str().into(),
                profile.label.clone().into(),
                profile.client_id.as_str().into(),
                word(&profile.proof)?.into(),
                json(&profile.endpoint)?.into(),
                profile.scopes.join(" ").into(),
                profile.redirect_url.as_str().into(),
                profile.actions.to_string().into(),
                u64::from(profile.is_enabled).into(),
                sealed.into(),
                profile.created_at.into(),
                profile.updated_at.into(),
            ],
        )
        .await?;
        let subject = Subject::new(SubjectKind::Profile, profile.id);
        let created = Event::new(by, AuditAction::ProfileCreated, subject)
            .with("provider", profile.provider.as_str());
        self.audit(&mut tx, &profile.project, Some(&sealer.key), &[created])
            .await?;
        tx.commit().await
    }

    pub async fn profile(
        &self,
        project: &ProjectId,
        id: ProfileId,
    ) -> Result<Option<ConnectorProfile>> {
        let row = self
            .db
            .fetch_one(
                "select id, project, provider, label, client_id, proof, endpoint, scopes,
                        redirect_url, actions, is_enabled, created_at, updated_at
                 from connector_profiles where project = $1 and id = $2",
                [project.into(), id.into()],
            )
            .await?;
        row.map(decode_profile).transpose()
    }

    /// A project's profiles, oldest first, including disabled ones.
    pub async fn profiles(&self, project: &ProjectId) -> Result<Vec<ConnectorProfile>> {
        let rows = self
            .db
            .fetch(
                "select id, project, provider, label, client_id, proof, endpoint, scopes,
                        redirect_url, actions, is_enabled, created_at, updated_at
                 from connector_profiles where project = $1 order by created_at, id",
                [project.into()],
            )
            .await?;
        rows.into_iter().map(decode_profile).collect()
    }

    /// Changes a profile and returns it as it is afterwards; None if the project has no such
    /// profile.
    pub async fn update_profile(
        &self,
        project: &ProjectId,
        id: ProfileId,
        change: &ProfileChange,
        by: Actor,
        now: Timestamp,
    ) -> Result<Option<ConnectorProfile>> {
        let Some(key) = self.data_key(project).await? else {
            return Ok(None);
        };
        let sealer = self.sealer_for_profile(key, project, id);
        let mut tx = self.db.begin().await?;
        // Locks the row: other changes of the profile wait until this transaction ends.
        tx.execute(
            "update connector_profiles set updated_at = updated_at where project = $1 and id = $2",
            [project.into(), id.into()],
        )
        .await?;
        let row = tx
            .fetch_one(
                "select id, project, provider, label, client_id, proof, endpoint, scopes,
                        redirect_url, actions, is_enabled, created_at, updated_at
                 from connector_profiles where project = $1 and id = $2",
                [project.into(), id.into()],
            )
            .await?;
        let Some(row) = row else { return Ok(None) };
        let mut profile = decode_profile(row)?;
        let was_enabled = profile.is_enabled;
        // A change of the secret or its destination seals the secret again. The former one is
        // opened first: a secret that cannot be decrypted is not overwritten.
        let former = match change.is_of_secret() {
            true => self.app_of(&mut tx, &sealer.key, project, id).await?,
            false => None,
        };
        change.apply(&mut profile);
        profile.updated_at = now;
        let sealed = former.map(|former| {
            let kept = &former.app.client_secret;
            sealed_secret(
                &sealer,
                &profile,
                change.client_secret.as_ref().unwrap_or(kept),
            )
        });
        tx.execute(
            "update connector_profiles
             set label = $3, proof = $4, scopes = $5, redirect_url = $6, actions = $7,
                 is_enabled = $8, sealed_client_secret = coalesce($9, sealed_client_secret),
                 updated_at = $10
             where project = $1 and id = $2",
            [
                project.into(),
                id.into(),
                profile.label.clone().into(),
                word(&profile.proof)?.into(),
                profile.scopes.join(" ").into(),
                profile.redirect_url.as_str().into(),
                profile.actions.to_string().into(),
                u64::from(profile.is_enabled).into(),
                sealed.into(),
                now.into(),
            ],
        )
        .await?;
        let subject = || Subject::new(SubjectKind::Profile, id);
        let mut events = Vec::new();
        let changed = change.fields();
        if !changed.is_empty() {
            let updated = Event::new(by, AuditAction::ProfileUpdated, subject());
            events.push(updated.with("changed", changed.join(",")));
        }
        match (was_enabled, profile.is_enabled) {
            (true, false) => events.push(Event::new(by, AuditAction::ProfileDisabled, subject())),
            (false, true) => events.push(Event::new(by, AuditAction::ProfileEnabled, subject())),
            _ => {}
        }
        self.audit(&mut tx, project, Some(&sealer.key), &events)
            .await?;
        tx.commit().await?;
        Ok(Some(profile))
    }

    /// A profile's OAuth app with its client secret and destination; None if the project has no
    /// such profile.
    ///
    /// # Errors
    /// `credential_locked`, also if the profile's row differs from the destination that the secret
    /// is sealed for.
    pub async fn oauth_app(
        &self,
        project: &ProjectId,
        id: ProfileId,
    ) -> Result<Option<ProfileApp>> {
        let Some(key) = self.data_key(project).await? else {
            return Ok(None);
        };
        let mut tx = self.db.begin().await?;
        self.app_of(&mut tx, &key, project, id).await
    }

    pub(super) async fn app_of(
        &self,
        tx: &mut Tx,
        key: &DataKey,
        project: &ProjectId,
        id: ProfileId,
    ) -> Result<Option<ProfileApp>> {
        type ProfileRow = (String, String, String, String, String, Vec<u8>);
        let row: Option<ProfileRow> = tx
            .fetch_one(
                "select provider, endpoint, client_id, proof, redirect_url, sealed_client_secret
                 from connector_profiles where project = $1 and id = $2",
                [project.into(), id.into()],
            )
            .await?;
        let Some((provider, endpoint, client_id, proof, redirect_url, sealed)) = row else {
            return Ok(None);
        };
        let moved = || elsewhere("client secret");
        let endpoint: Endpoint = serde_json::from_str(&endpoint).map_err(|_| moved())?;
        let proof: ClientProof = parse_word(proof).map_err(|_| moved())?;
        let bound = ProfileDestination {
            provider: &provider,
            endpoint: &endpoint,
            client_id: &client_id,
            proof,
            redirect_url: &redirect_url,
        };
        let sealer = self.sealer_for_profile(key.clone(), project, id);
        let secret = sealer.open_for(bound.digest(), SealedColumn::ClientSecret, "", &sealed)?;
        let secret = std::str::from_utf8(&secret).map_err(|_| Error::internal("not a text"))?;
        Ok(Some(ProfileApp {
            app: OAuthApp {
                client_id,
                client_secret: secret.into(),
                proof,
                redirect_url,
            },
            provider,
            endpoint,
        }))
    }

    fn sealer_for_profile<'a>(
        &'a self,
        key: DataKey,
        project: &'a ProjectId,
        id: ProfileId,
    ) -> FieldSealer<'a> {
        FieldSealer {
            key,
            rng: &self.rng,
            project,
            account: id.to_string(),
        }
    }
}

impl ProfileApp {
    /// The OAuth app, if this endpoint is its destination.
    ///
    /// # Errors
    /// `credential_locked` if it is not.
    pub fn for_endpoint(&self, provider: &str, endpoint: &Endpoint) -> Result<&OAuthApp> {
        if self.provider == provider && self.endpoint == *endpoint {
            return Ok(&self.app);
        }
        Err(elsewhere("client secret"))
    }
}

/// Seals a client secret for the destination that the profile names.
fn sealed_secret(
    sealer: &FieldSealer<'_>,
    profile: &ConnectorProfile,
    secret: &SecretString,
) -> Vec<u8> {
    let bound = ProfileDestination {
        provider: &profile.provider,
        endpoint: &profile.endpoint,
        client_id: &profile.client_id,
        proof: profile.proof,
        redirect_url: &profile.redirect_url,
    };
    let secret = secret.expose_secret().as_bytes();
    sealer.seal_for(bound.digest(), SealedColumn::ClientSecret, "", secret)
}

pub(super) fn no_such_profile() -> Error {
    Error::new(Kind::NotFound, "there is no such connector profile")
}

fn decode_profile(row: ProfileRow) -> Result<ConnectorProfile> {
    let (
        id,
        project,
        provider,
        label,
        client_id,
        proof,
        endpoint,
        scopes,
        redirect_url,
        actions,
        is_enabled,
        created_at,
        updated_at,
    ) = row;
    Ok(ConnectorProfile {
        id: parse_id(&id)?,
        project: parse_project(&project)?,
        provider,
        label,
        client_id,
        proof: parse_word(proof)?,
        endpoint: decode_json(endpoint.as_bytes())?,
        scopes: scopes.split_whitespace().map(str::to_owned).collect(),
        redirect_url,
        actions: actions.parse().map_err(Error::internal)?,
        is_enabled: is_enabled != 0,
        created_at: decode_timestamp(created_at)?,
        updated_at: decode_timestamp(updated_at)?,
    })
}
