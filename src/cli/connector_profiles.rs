//! `rolecall profiles`: manages the OAuth apps that a project's customers sign in with. All
//! commands work beside a running server, which applies a change within a second.

use clap::{Args, Subcommand, builder::PossibleValuesParser, builder::TypedValueParser};
use serde::Serialize;

use super::{
    ConfigFile, Failure,
    accounts::{closing, open},
    api_keys::project_id,
    output::{json_line, table},
    say,
    token::{EndpointArg, read_client_secret},
};
use crate::{
    gateway::{admin::Operator, connector_profiles::NewProfile},
    http::{accounts::text, connector_profiles::ConnectorProfileOut},
    model::{
        accounts::Endpoint,
        connector_profiles::{
            ActionSet, ClientProof, ConnectorProfile, ProfileAction, ProfileChange,
        },
    },
};

#[derive(Subcommand)]
pub enum Command {
    /// Create a profile for an app that is registered at the provider
    Create(CreateArguments),
    /// List a project's profiles, oldest first, including disabled ones
    List {
        /// The project
        #[arg(long)]
        project: String,
        #[command(flatten)]
        file: ConfigFile,
        /// Print one line of JSON
        #[arg(long)]
        json: bool,
    },
    /// Show a profile, with the redirect URL to register at the provider
    Show(OneProfile),
    /// Change a profile; its accounts stay linked
    Update(UpdateProfileArguments),
    /// Enable a profile: its accounts are served again
    Enable(OneProfile),
    /// Disable a profile: its accounts become inactive, and no account can be linked with it
    Disable(OneProfile),
}

#[derive(Args)]
pub struct OneProfile {
    /// The profile's id
    profile: String,
    /// The project that the profile belongs to
    #[arg(long)]
    project: String,
    #[command(flatten)]
    file: ConfigFile,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub struct CreateArguments {
    /// The project that the profile is for
    #[arg(long)]
    project: String,
    /// The connector
    #[arg(long, default_value = "smartsheet")]
    provider: String,
    /// The app's client id
    #[arg(long)]
    client_id: String,
    /// Read the app's client secret from standard input
    // `EndpointArg` requires an argument with this id.
    #[arg(
        id = "token_stdin",
        long = "secret-stdin",
        required = true,
        requires = "EndpointArg"
    )]
    secret_stdin: bool,
    #[command(flatten)]
    place: EndpointArg,
    #[command(flatten)]
    fields: ProfileFields,
    #[command(flatten)]
    file: ConfigFile,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub struct UpdateProfileArguments {
    /// The profile's id
    profile: String,
    /// The project that the profile belongs to
    #[arg(long)]
    project: String,
    /// Read a new client secret of the app from standard input
    #[arg(long)]
    secret_stdin: bool,
    #[command(flatten)]
    fields: ProfileFields,
    #[command(flatten)]
    file: ConfigFile,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
}

/// Options that `create` and `update` share.
#[derive(Args)]
struct ProfileFields {
    /// A label of your choice
    #[arg(long)]
    label: Option<String>,
    /// How the app authenticates to the provider: client_secret (the default) or hash
    #[arg(long, value_parser = proof())]
    client_auth: Option<ClientProof>,
    /// Scopes that customers consent to; the scopes needed to read a directory if absent
    #[arg(long, value_delimiter = ',')]
    scopes: Option<Vec<String>>,
    /// Redirect URL as registered at the provider; the hub's callback if absent. `rolecall link`
    /// listens at this URL, such as http://localhost:7433/callback
    #[arg(long, value_name = "URL")]
    redirect_url: Option<String>,
    /// Data that the profile's accounts serve: users, roles, groups; all if absent
    #[arg(long, value_delimiter = ',', value_parser = action())]
    actions: Option<Vec<ProfileAction>>,
}

fn proof() -> impl TypedValueParser<Value = ClientProof> {
    PossibleValuesParser::new(["client_secret", "hash"]).map(|word| match word.as_str() {
        "hash" => ClientProof::Hash,
        _ => ClientProof::ClientSecret,
    })
}

fn action() -> impl TypedValueParser<Value = ProfileAction> {
    PossibleValuesParser::new(ProfileAction::ALL.map(ProfileAction::as_str)).map(|word| {
        let action = ProfileAction::ALL
            .into_iter()
            .find(|it| it.as_str() == word);
        action.expect("only these words are possible")
    })
}

impl ProfileFields {
    fn label(&self) -> Result<Option<String>, Failure> {
        let label = self.label.clone().map(|label| text("--label", label));
        label.transpose().map_err(Failure::other)
    }

    fn actions(&self) -> Option<ActionSet> {
        self.actions.as_deref().and_then(ActionSet::of)
    }
}

/// A profile as the API returns it, with its project.
#[derive(Serialize)]
struct ListedProfile {
    project: String,
    #[serde(flatten)]
    profile: ConnectorProfileOut,
}

impl From<ConnectorProfile> for ListedProfile {
    fn from(profile: ConnectorProfile) -> Self {
        Self {
            project: profile.project.to_string(),
            profile: profile.into(),
        }
    }
}

pub async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Create(arguments) => create(arguments).await,
        Command::List {
            project,
            file,
            json,
        } => list(&project, &file, json).await,
        Command::Show(one) => show(&one).await,
        Command::Update(arguments) => update(arguments).await,
        Command::Enable(one) => set_enabled(&one, true).await,
        Command::Disable(one) => set_enabled(&one, false).await,
    }
}

async fn create(arguments: CreateArguments) -> Result<(), Failure> {
    let project = project_id(&arguments.project)?;
    let fields = arguments.fields;
    let new = NewProfile {
        provider: arguments.provider,
        label: fields.label()?,
        client_id: text("--client-id", arguments.client_id).map_err(Failure::other)?,
        proof: fields.client_auth.unwrap_or_default(),
        endpoint: arguments.place.endpoint(),
        actions: fields.actions().unwrap_or(ActionSet::ALL),
        scopes: fields.scopes,
        redirect_url: fields.redirect_url,
        client_secret: read_client_secret()?,
    };
    let operator = open(&arguments.file).await?;
    let made = closing(&operator, async {
        Ok(operator.create_profile(&project, new).await?)
    });
    let profile = made.await?;
    if arguments.json {
        return json_line(&ListedProfile::from(profile));
    }
    say(format!("Made the connector profile {}.", profile.id))?;
    say("Register this redirect URL with the app, letter for letter:")?;
    say(format!("\n    {}\n", profile.redirect_url))
}

async fn list(project: &str, file: &ConfigFile, is_json: bool) -> Result<(), Failure> {
    let project = project_id(project)?;
    let operator = open(file).await?;
    let profiles = closing(&operator, async { Ok(operator.profiles(&project).await?) }).await?;
    if is_json {
        let profiles: Vec<_> = profiles
            .into_iter()
            .map(ConnectorProfileOut::from)
            .collect();
        return json_line(&serde_json::json!({ "project": project, "profiles": profiles }));
    }
    let rows = profiles.into_iter().map(|profile| {
        [
            profile.id.to_string(),
            profile.label.unwrap_or_default(),
            profile.provider,
            enabled(profile.is_enabled).to_owned(),
            profile.client_id,
            profile.redirect_url,
        ]
    });
    table(
        [
            "PROFILE",
            "LABEL",
            "PROVIDER",
            "STATE",
            "CLIENT ID",
            "REDIRECT URL",
        ],
        rows,
    )
}

async fn show(one: &OneProfile) -> Result<(), Failure> {
    let project = project_id(&one.project)?;
    let operator = open(&one.file).await?;
    let found = closing(&operator, async {
        Ok(operator.profile(&project, &one.profile).await?)
    });
    tell(found.await?.profile, one.json)
}

async fn update(arguments: UpdateProfileArguments) -> Result<(), Failure> {
    let fields = arguments.fields;
    let secret = arguments.secret_stdin.then(read_client_secret);
    let change = ProfileChange {
        label: fields.label()?.map(Some),
        client_secret: secret.transpose()?,
        proof: fields.client_auth,
        actions: fields.actions(),
        scopes: fields.scopes,
        redirect_url: fields.redirect_url,
        is_enabled: None,
    };
    if change.fields().is_empty() {
        return Err(Failure::other(
            "nothing is to change; `rolecall profiles update --help` names what can be",
        ));
    }
    let one = OneProfile {
        profile: arguments.profile,
        project: arguments.project,
        file: arguments.file,
        json: arguments.json,
    };
    changed(&one, change).await
}

async fn set_enabled(one: &OneProfile, is_enabled: bool) -> Result<(), Failure> {
    let change = ProfileChange {
        is_enabled: Some(is_enabled),
        ..ProfileChange::default()
    };
    changed(one, change).await
}

async fn changed(one: &OneProfile, change: ProfileChange) -> Result<(), Failure> {
    let project = project_id(&one.project)?;
    let operator = open(&one.file).await?;
    let work = async |operator: &Operator| {
        let own = operator.profile(&project, &one.profile).await?;
        Ok(operator
            .gateway()
            .connector_profiles()
            .update_profile(&own, change)
            .await?)
    };
    let profile = closing(&operator, work(&operator)).await?;
    tell(profile, one.json)
}

fn tell(profile: ConnectorProfile, is_json: bool) -> Result<(), Failure> {
    if is_json {
        return json_line(&ListedProfile::from(profile));
    }
    let row = |field: &str, value: String| [field.to_owned(), value];
    let place = match &profile.endpoint {
        Endpoint::Region(region) => row("region", region.to_string()),
        Endpoint::BaseUrl(base) => row("base URL", base.clone()),
    };
    table(
        ["FIELD", "VALUE"],
        [
            row("profile", profile.id.to_string()),
            row("project", profile.project.to_string()),
            row("provider", profile.provider),
            row("label", profile.label.unwrap_or_default()),
            row("state", enabled(profile.is_enabled).to_owned()),
            place,
            row("client id", profile.client_id),
            row("redirect URL", profile.redirect_url),
            row("scopes", profile.scopes.join(" ")),
            row("actions", profile.actions.to_string()),
        ],
    )
}

const fn enabled(is_enabled: bool) -> &'static str {
    if is_enabled { "enabled" } else { "disabled" }
}
