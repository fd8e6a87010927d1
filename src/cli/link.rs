//! `rolecall link`: links an account by a sign-in at the provider, in a browser on this machine or
//! another.
//!
//! The sign-in itself is the one that the hub and the API use. This command adds two ways to
//! receive the authorization response: on a loopback port of the profile's redirect URL
//! (*desktop*), or pasted by a person (*headless*).

use std::{
    collections::VecDeque,
    io::{self, Write},
    time::Duration,
};

use clap::Args;
use secrecy::SecretString;
use tokio::{sync::mpsc, time::timeout};

use super::{
    Failure,
    accounts::{AccountArguments, closing, open_exclusive, tell_of_link},
    api_keys::project_id,
    loopback::{Decision, Listener},
    note,
    pasted::{Pasted, PastedStep, Refused},
};
use crate::{
    gateway::{
        admin::Operator,
        auth::OwnAccount,
        linking::{
            AccountDetails,
            authorizations::{AuthorizationUrl, STATE_LIFETIME},
        },
    },
    http::accounts::text,
    model::{accounts::AccountKind, id::ProjectId},
};

/// The alternative while a server runs.
const INSTEAD: &str = "send the customer a connect session's auth_link_url (POST /connect_sessions), \
                       or have the sign-in begun with POST /oauth/authorization_url";

#[derive(Args)]
pub struct Arguments {
    /// The project that the account belongs to
    #[arg(long)]
    project: String,
    /// The connector profile to sign in with; `rolecall profiles list` lists them
    #[arg(long)]
    profile: String,
    /// Your id of the customer
    #[arg(long)]
    owner_id: String,
    /// Your name of the customer
    #[arg(long)]
    owner_name: String,
    /// A label of your choice
    #[arg(long)]
    label: Option<String>,
    /// Print the sign-in address, and read the response from standard input: the code, or the whole
    /// URL that the browser was redirected to
    #[arg(long)]
    headless: bool,
    /// Print the sign-in address without opening a browser; listen for the redirect
    #[arg(long, conflicts_with = "headless")]
    no_browser: bool,
    #[command(flatten)]
    shared: AccountArguments,
}

pub async fn run(arguments: Arguments) -> Result<(), Failure> {
    let project = project_id(&arguments.project)?;
    let checked = |name, value: &str| text(name, value.to_owned()).map_err(Failure::other);
    let label = arguments.label.as_deref();
    let description = AccountDetails {
        origin_owner_id: checked("--owner-id", &arguments.owner_id)?,
        origin_owner_name: checked("--owner-name", &arguments.owner_name)?,
        origin_username: None,
        label: label.map(|label| checked("--label", label)).transpose()?,
        kind: AccountKind::Production,
    };
    let (operator, _log) = open_exclusive(&arguments.shared.file, INSTEAD).await?;
    let linking = async {
        let own = sign_in(&operator, &project, &arguments, description).await?;
        tell_of_link(&operator, &own, arguments.shared.json).await
    };
    closing(&operator, linking).await
}

async fn sign_in(
    operator: &Operator,
    project: &ProjectId,
    arguments: &Arguments,
    description: AccountDetails,
) -> Result<OwnAccount, Failure> {
    let profile = operator.profile(project, &arguments.profile).await?.profile;
    if arguments.headless {
        let sign_in = operator.begin_sign_in(&profile, description).await?;
        show_address(&sign_in);
        note("then paste the code, or the whole URL that the browser was sent to, and press Enter");
        let decision = in_time(pasted(&sign_in.state)).await?;
        return end(operator, project, &sign_in, decision).await;
    }
    // The listener starts first: without it, the sign-in could not be completed.
    let listener = Listener::at(&profile.redirect_url).await?;
    let sign_in = operator.begin_sign_in(&profile, description).await?;
    show_address(&sign_in);
    if !arguments.no_browser
        && let Err(error) = open::that_detached(sign_in.url.as_str())
    {
        note(format!(
            "no browser was opened ({error}); open the address yourself"
        ));
    }
    let mut visitor = in_time(listener.connection(&sign_in.state)).await?;
    // Takes the decision out, since `tell` needs the connection afterwards.
    let decision = std::mem::replace(&mut visitor.decision, Decision::Refused("other"));
    let ended = end(operator, project, &sign_in, decision).await;
    match &ended {
        Ok(own) => {
            let organization = &own.account.identity.organization_name;
            let of = organization.as_deref().unwrap_or("your organization");
            let told = format!("The account of {of} is linked. You can close this window.");
            visitor.tell(true, "Done", &told).await;
        }
        Err(failure) => {
            let told = format!("{}.", failure.message().trim_end_matches('.'));
            visitor.tell(false, "Nothing was linked", &told).await;
        }
    }
    ended
}

/// Prints the sign-in address on standard error, since standard output is for the linked account.
/// The address is no secret: it works once, and only together with the authorization response.
fn show_address(sign_in: &AuthorizationUrl) {
    note("sign in at this address, within ten minutes:");
    // As in `note`, a closed standard error is ignored.
    let _ = writeln!(io::stderr(), "\n{}\n", sign_in.url);
}

/// Limits the wait for the authorization response.
///
/// # Errors
/// If the sign-in takes longer than [`STATE_LIFETIME`].
async fn in_time<T>(back: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    timeout(STATE_LIFETIME, back).await.unwrap_or_else(|_| {
        Err(Failure::other(
            "nobody came back from the sign-in within ten minutes; begin again",
        ))
    })
}

async fn end(
    operator: &Operator,
    project: &ProjectId,
    sign_in: &AuthorizationUrl,
    decision: Decision,
) -> Result<OwnAccount, Failure> {
    use secrecy::ExposeSecret;

    match decision {
        Decision::Code(code) => {
            let state = sign_in.state.expose_secret();
            Ok(operator.end_sign_in(project, state, code).await?)
        }
        Decision::Refused("access_denied") => Err(Failure::other(
            "the consent was denied; begin again, and allow it",
        )),
        Decision::Refused(word) => Err(Failure::Other(format!(
            "the provider refused the sign-in ({word}); check the profile's client id, scopes and \
             redirect URL against the app's registration"
        ))),
    }
}

/// Lines that arrive within this time are read together, since a URL may be broken over lines.
const PAUSE: Duration = Duration::from_millis(200);

/// Reads lines until they contain the response of this sign-in.
async fn pasted(state: &SecretString) -> Result<Decision, Failure> {
    let mut input = lines();
    let mut pasted = Pasted::new(state.clone());
    loop {
        let Some(first) = input.recv().await else {
            return Err(Failure::other(
                "standard input ended without a code; begin again",
            ));
        };
        let mut together = VecDeque::from([first?]);
        while let Ok(Some(next)) = timeout(PAUSE, input.recv()).await {
            together.push_back(next?);
        }
        while let Some(step) = pasted.step(&mut together) {
            match step {
                PastedStep::Decided(decision) => return Ok(decision),
                PastedStep::Refused(why) => note(match why {
                    Refused::Foreign => {
                        "this URL is of another sign-in; paste the one that came back from this one"
                    }
                    Refused::Unfinished => {
                        "this is not the whole URL; paste the rest of it, or press Enter and then \
                         paste all of it"
                    }
                    Refused::Nothing => {
                        "there is no code in that; paste the code, or the whole URL"
                    }
                }),
            }
        }
    }
}

/// Reads the lines of standard input in a separate thread. A thread of the runtime that waits for
/// input would keep the process from ending.
fn lines() -> mpsc::UnboundedReceiver<io::Result<String>> {
    let (sender, receiver) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in io::stdin().lines() {
            // The receiver is gone: the command has ended.
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}
