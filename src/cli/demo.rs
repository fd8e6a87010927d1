//! `rolecall demo`: a complete installation on one machine. One process runs the Smartsheet
//! simulator and a gateway on loopback, with a project, an API key, two linked accounts (the tokens
//! of a system admin and of a member), a connector profile, and a hub link for more accounts.
//!
//! With `--data-dir` the data stays: a demo that is started there again serves the same accounts
//! from their last sealed directories. The file `curlrc` in it holds the key and an account for
//! `curl -K`.

use std::{
    fmt,
    io::Write,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
};

use clap::Args;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use smartsheet_simulator::{Announcement, Options, Simulator};

use super::{
    Failure,
    file::AtomicFile,
    progress::{Bar, await_first_walk},
    say, shutdown_signal,
};
use crate::{
    app::App,
    clock::Clock,
    config::Config,
    crypto::{KeyRing, Rng},
    error::Kind,
    gateway::{
        Gateway,
        auth::Caller,
        connector_profiles::NewProfile,
        linking::{
            AccountDetails, NewLink,
            connect_sessions::{LONGEST_LIFE, NewConnectSession},
        },
    },
    model::{
        accounts::{AccountKind, Endpoint},
        api_keys::{NewKey, Scope},
        connect_sessions::ConnectDetails,
        connector_profiles::{ActionSet, ClientProof, ProfileChange},
        id::ProjectId,
    },
    telemetry,
};

/// The provider that the simulator imitates.
const PROVIDER: &str = "smartsheet";

/// The simulator's default port, used unless free ports are requested or it is taken.
const SIMULATOR_PORT: u16 = 7070;

#[derive(Args)]
pub struct Arguments {
    /// The gateway's port on loopback; 0 takes free ports for gateway and simulator
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// Users in the simulated organization
    #[arg(long, default_value_t = 250)]
    users: usize,
    /// Groups in the simulated organization
    #[arg(long, default_value_t = 20)]
    groups: usize,
    /// Seed from which the organization is generated
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Requests per minute and token: the simulator's limit and the gateway's budget; 0 is no limit
    #[arg(long, default_value_t = 300)]
    rate_limit: u32,
    /// Directory for all data; a temporary directory if absent
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Print one line of JSON when everything is ready, and nothing else
    #[arg(long)]
    json: bool,
}

impl Arguments {
    const fn organization(&self) -> DemoOrganization {
        DemoOrganization {
            users: self.users,
            groups: self.groups,
            seed: self.seed,
        }
    }
}

/// The state of a demo, kept as `demo.json` in its data directory.
#[derive(Serialize, Deserialize)]
struct DemoState {
    api_key: String,
    simulator_port: u16,
    world: DemoOrganization,
    accounts: Vec<DemoAccount>,
    /// The gateway's port, which the redirect URL of the simulator's OAuth app contains.
    gateway_port: Option<u16>,
}

/// The parameters that determine the simulated organization.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct DemoOrganization {
    users: usize,
    groups: usize,
    seed: u64,
}

impl fmt::Display for DemoOrganization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            users,
            groups,
            seed,
        } = self;
        write!(f, "--users {users} --groups {groups} --seed {seed}")
    }
}

#[derive(Clone, Serialize, Deserialize)]
struct DemoAccount {
    id: String,
    #[serde(rename = "as")]
    persona: String,
}

/// The output of `--json`.
#[derive(Serialize)]
struct Ready<'a> {
    base_url: String,
    api_key: &'a str,
    project: &'a str,
    profile: String,
    /// A hub link through which customers link accounts.
    auth_link_url: String,
    accounts: &'a [DemoAccount],
    simulator: &'a Announcement,
}

pub async fn run(arguments: Arguments) -> Result<(), Failure> {
    let temporary;
    let directory = match &arguments.data_dir {
        Some(directory) => {
            std::fs::create_dir_all(directory).map_err(|error| {
                Failure::Other(format!("cannot make {}: {error}", directory.display()))
            })?;
            directory.as_path()
        }
        None => {
            temporary = tempfile::tempdir().map_err(Failure::other)?;
            temporary.path()
        }
    };
    let known = DemoState::read(directory)?;
    let config = config(&arguments, known.as_ref(), directory)?;
    let _guard = telemetry::start(&config.log);
    let ring = ring(directory)?;
    let asked_for = arguments.organization();
    if let Some(known) = known.as_ref().filter(|known| known.world != asked_for) {
        return Err(Failure::Other(format!(
            "the demo in {} was made with {}; start it with these, or take another --data-dir",
            directory.display(),
            known.world
        )));
    }

    let app = App::build(&config, ring, Clock::system(), Rng::system()).await?;
    let (port, gateway) = (app.port(), app.gateway().clone());
    let callback_url = gateway.connector_profiles().callback_url(PROVIDER);
    let simulator = start_simulator(&arguments, known.as_ref(), callback_url).await?;

    // The gateway serves from here on, until a signal or a failure of the setup stops it.
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(app.run(async move {
        tokio::select! {
            () = shutdown_signal() => {}
            Ok(()) = stopped => {}
        }
    }));
    let set_up = async {
        let mut remembered = match known {
            Some(known) => known,
            None => link_accounts(&gateway, &simulator, asked_for).await?,
        };
        remembered.gateway_port = Some(port);
        remembered.write(directory)?;
        remembered.write_curlrc(directory)?;
        let caller = gateway.auth().authenticate(&remembered.api_key).await?;
        let profile = profile(&gateway, &caller, &simulator).await?;
        await_first_walks(&gateway, &remembered, !arguments.json).await?;
        let ready = Ready {
            base_url: gateway.public_url().to_owned(),
            api_key: &remembered.api_key,
            project: "demo",
            profile,
            auth_link_url: invite(&gateway, &caller).await?,
            accounts: &remembered.accounts,
            simulator: simulator.announcement(),
        };
        if arguments.json {
            say(serde_json::to_string(&ready).map_err(Failure::other)?)
        } else {
            introduce(&ready)
        }
    };
    let outcome = set_up.await;
    if outcome.is_err() {
        // If the server has already ended, the receiver is gone.
        let _ = stop.send(());
    }
    serving.await.map_err(Failure::other)??;
    simulator.stop().await;
    outcome
}

fn config(
    arguments: &Arguments,
    known: Option<&DemoState>,
    directory: &Path,
) -> Result<Config, Failure> {
    let quoted = |text: String| serde_json::Value::String(text).to_string();
    let port = match known.and_then(|known| known.gateway_port) {
        Some(former) if arguments.port == 0 => former,
        _ => arguments.port,
    };
    let listen = quoted(format!("127.0.0.1:{port}"));
    let url = quoted(format!(
        "sqlite://{}",
        directory.join("rolecall.db").display()
    ));
    let rate_limit = arguments.rate_limit.to_string();
    Ok(Config::with(&[
        ("server.listen", &listen),
        ("store.url", &url),
        ("server.requests_per_minute_per_key", "0"),
        ("server.requests_per_minute_per_project", "0"),
        ("server.lame_duck_seconds", "0"),
        ("provider.rate_limit", &rate_limit),
        ("provider.loopback_base_urls", "true"),
        ("walk.held_confirmed_after_seconds", "0"),
        ("log.level", "\"warn\""),
    ])?)
}

/// Loads the demo's key ring. Generates one on the first start only, never beside an existing
/// database.
fn ring(directory: &Path) -> Result<KeyRing, Failure> {
    let path = directory.join("rolecall.keys");
    if path.exists() {
        return KeyRing::read_file(&path)
            .map_err(|error| Failure::Config(format!("{}: {error}", path.display())));
    }
    let database = directory.join("rolecall.db");
    if database.exists() {
        return Err(Failure::Config(format!(
            "{} is there, but its key ring {} is not; put it back, or take another --data-dir",
            database.display(),
            path.display()
        )));
    }
    let ring = KeyRing::generate("demo", &Rng::system()).map_err(Failure::other)?;
    ring.create_file(&path).map_err(Failure::other)?;
    Ok(ring)
}

async fn start_simulator(
    arguments: &Arguments,
    known: Option<&DemoState>,
    callback_url: String,
) -> Result<Simulator, Failure> {
    // The linked accounts' base URL contains the simulator's port, so a restarted demo needs the
    // same one.
    let port = match known {
        Some(known) => known.simulator_port,
        None if arguments.port == 0 => 0,
        None if is_free(SIMULATOR_PORT) => SIMULATOR_PORT,
        None => 0,
    };
    let options = Options {
        port,
        users: arguments.users,
        groups: arguments.groups,
        seed: arguments.seed,
        rate_limit: arguments.rate_limit,
        redirect_url: Some(callback_url),
        ..Options::default()
    };
    Simulator::start(options).await.map_err(|error| {
        Failure::Other(format!(
            "the simulator cannot listen on 127.0.0.1:{port}: {error}"
        ))
    })
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

async fn link_accounts(
    gateway: &Gateway,
    simulator: &Simulator,
    world: DemoOrganization,
) -> Result<DemoState, Failure> {
    let project: ProjectId = "demo".parse().expect("a well-formed project id");
    match gateway.create_project(&project).await {
        // An earlier start created the project, then failed.
        Err(error) if error.kind() == Kind::InvalidParameter => {}
        outcome => outcome?,
    }
    let (key, _) = gateway
        .api_keys()
        .create_key(&project, &NewKey::with_scopes(&Scope::ALL))
        .await?;
    let caller = gateway.auth().authenticate(key.expose()).await?;
    let announcement = simulator.announcement();
    let mut accounts = Vec::new();
    for (persona, name, token) in [
        (
            "system_admin",
            "Example Ltd",
            &announcement.tokens.system_admin,
        ),
        (
            "member",
            "Example Ltd, seen by a member",
            &announcement.tokens.member,
        ),
    ] {
        let link = NewLink {
            provider: PROVIDER.to_owned(),
            description: AccountDetails {
                origin_owner_id: format!("demo-{persona}"),
                origin_owner_name: name.to_owned(),
                origin_username: None,
                label: None,
                kind: AccountKind::Test,
            },
            assume_user: None,
            endpoint: Endpoint::BaseUrl(announcement.api_base.clone()),
            token: SecretString::from(token.as_str()),
        };
        let account = gateway.linking().link(&caller, link).await?;
        accounts.push(DemoAccount {
            id: account.id.to_string(),
            persona: persona.to_owned(),
        });
    }
    let port = url::Url::parse(&announcement.api_base)
        .ok()
        .and_then(|url| url.port())
        .ok_or_else(|| Failure::Other("the simulator has no port".to_owned()))?;
    Ok(DemoState {
        api_key: key.expose().to_owned(),
        simulator_port: port,
        world,
        accounts,
        gateway_port: None,
    })
}

/// Creates the connector profile of the simulator's OAuth app, or updates its redirect URL to the
/// hub's current address. Returns the profile's id.
async fn profile(
    gateway: &Gateway,
    caller: &Caller,
    simulator: &Simulator,
) -> Result<String, Failure> {
    let Announcement {
        api_base,
        oauth_client: client,
        ..
    } = simulator.announcement();
    let profiles = gateway.connector_profiles().profiles(caller).await?;
    let former = profiles
        .iter()
        .find(|profile| profile.client_id == client.client_id);
    if let Some(former) = former {
        let own = gateway
            .connector_profiles()
            .own_profile(caller, &former.id.to_string())
            .await?;
        let change = ProfileChange {
            redirect_url: Some(client.redirect_url.clone()),
            ..ProfileChange::default()
        };
        if former.redirect_url != client.redirect_url {
            gateway
                .connector_profiles()
                .update_profile(&own, change)
                .await?;
        }
        return Ok(former.id.to_string());
    }
    let new = NewProfile {
        provider: PROVIDER.to_owned(),
        label: Some("Smartsheet simulator".to_owned()),
        client_id: client.client_id.clone(),
        client_secret: client.client_secret.as_str().into(),
        proof: ClientProof::ClientSecret,
        endpoint: Endpoint::BaseUrl(api_base.clone()),
        scopes: None,
        redirect_url: None,
        actions: ActionSet::ALL,
    };
    let profile = gateway
        .connector_profiles()
        .create_profile(caller, new)
        .await?;
    Ok(profile.id.to_string())
}

/// Creates a reusable hub link with the longest lifetime that a connect session can have.
async fn invite(gateway: &Gateway, caller: &Caller) -> Result<String, Failure> {
    let new = NewConnectSession {
        provider: None,
        profile: None,
        account: None,
        kind: AccountKind::Test,
        is_multiple: true,
        origin_owner_id: "demo-hub".to_owned(),
        details: ConnectDetails {
            origin_owner_name: "Example Ltd".to_owned(),
            ..ConnectDetails::default()
        },
        expires_in: LONGEST_LIFE,
    };
    let invited = gateway
        .connect_sessions()
        .create_connect_session(caller, new)
        .await?;
    Ok(gateway.connect_sessions().auth_link_url(&invited.token))
}

async fn await_first_walks(
    gateway: &Gateway,
    remembered: &DemoState,
    is_shown: bool,
) -> Result<(), Failure> {
    let caller = gateway.auth().authenticate(&remembered.api_key).await?;
    for account in &remembered.accounts {
        let own = gateway.auth().own_account(&caller, &account.id).await?;
        let bar = is_shown.then(|| Bar::new(&account.persona));
        let counts = await_first_walk(gateway, &own, bar.as_ref()).await?;
        if let Some(bar) = bar {
            bar.finish(&format!("{} users, {} groups", counts.users, counts.groups));
        }
    }
    Ok(())
}

fn introduce(ready: &Ready<'_>) -> Result<(), Failure> {
    let Ready {
        base_url,
        api_key,
        simulator,
        ..
    } = ready;
    let account = &ready.accounts[0].id;
    say(format!(
        "
Rolecall serves {base_url}, the simulator {}.
Project `demo`, API key {api_key}

Read the directory (as a system admin; {} is the same organization as a plain member sees it):

  curl -H 'Authorization: Bearer {api_key}' -H 'x-account-id: {account}' '{base_url}/iam/users?page_size=3'
  curl -H 'Authorization: Bearer {api_key}' -H 'x-account-id: {account}' '{base_url}/iam/groups?expand=members'
  curl -H 'Authorization: Bearer {api_key}' -H 'x-account-id: {account}' '{base_url}/iam/roles'

Change the organization, walk again, and look:

  curl -d '[{{\"op\":\"add_user\",\"email\":\"new.hire@example.org\"}}]' -H 'content-type: application/json' {}/mutate
  curl -X POST -H 'Authorization: Bearer {api_key}' '{base_url}/accounts/{account}/walks?wait=30'

Link an account as a customer does, by sign-in at the simulator, with one of its access tokens, or
with an app of your own (the link can be used for 30 days):

  {}

Pages for people: {base_url}/swagger-ui/ (authorize with the key). Ctrl-C ends it all.",
        simulator.api_base,
        ready.accounts[1].id,
        simulator.control_url,
        ready.auth_link_url,
    ))
}

impl DemoState {
    fn path(directory: &Path) -> PathBuf {
        directory.join("demo.json")
    }

    fn read(directory: &Path) -> Result<Option<Self>, Failure> {
        let path = Self::path(directory);
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| {
                Failure::Other(format!("{} is no demo's memory: {error}", path.display()))
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Failure::Other(format!(
                "cannot read {}: {error}",
                path.display()
            ))),
        }
    }

    fn write(&self, directory: &Path) -> Result<(), Failure> {
        let text = serde_json::to_vec(self).map_err(Failure::other)?;
        write_whole(&Self::path(directory), &text)
    }

    /// Writes `curlrc` for `curl -K`: the API key, and the system admin's account.
    fn write_curlrc(&self, directory: &Path) -> Result<(), Failure> {
        let text = format!(
            "header = \"Authorization: Bearer {}\"\nheader = \"x-account-id: {}\"\n",
            self.api_key, self.accounts[0].id
        );
        write_whole(&directory.join("curlrc"), text.as_bytes())
    }
}

/// Writes a file atomically, readable by its owner only, because it contains the demo's API key.
fn write_whole(path: &Path, text: &[u8]) -> Result<(), Failure> {
    let mut draft = AtomicFile::replacing(path)?;
    draft.write_all(text)?;
    draft.finish()
}
