//! `rolecall link`: an account linked by signing in at the provider, from this machine's browser or
//! from any other.
//!
//! It is the engine of the hub and of the API that begins and ends the sign-in; what is of the
//! command line is how the answer comes back: to a port here, where the profile's redirect URL
//! leads (*desktop*), or by a person's hand (*headless*).

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
    accounts::{AccountArguments, closing, open_alone, tell_of_link},
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
            authorizations::{AuthorizationUrl, GOOD_FOR},
        },
    },
    http::accounts::text,
    model::{accounts::AccountKind, id::ProjectId},
};

/// What does this beside a running server.
const INSTEAD: &str = "send the customer a connect session's auth_link_url (POST /connect_sessions), \
                       or have the sign-in begun with POST /oauth/authorization_url";

#[derive(Args)]
pub struct Arguments {
    /// The project that the account is for
    #[arg(long)]
    project: String,
    /// The connector profile to sign in under; `rolecall profiles list` lists them
    #[arg(long)]
    profile: String,
    /// Your own id of the customer
    #[arg(long)]
    owner_id: String,
    /// Your own name of the customer
    #[arg(long)]
    owner_name: String,
    /// What the account is for, in your words
    #[arg(long)]
    label: Option<String>,
    /// Print the address to sign in at, and read what came back from standard input: the code, or
    /// the whole URL that the browser was sent to
    #[arg(long)]
    headless: bool,
    /// Print the address only; listen for whoever comes back from it
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
    let (operator, _log) = open_alone(&arguments.shared.file, INSTEAD).await?;
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
    // Before the sign-in begins: what cannot come back need not set out.
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
    let mut visitor = in_time(listener.visitor(&sign_in.state)).await?;
    let decision = std::mem::replace(&mut visitor.decision, Decision::Refused("other"));
    let ended = end(operator, project, &sign_in, decision).await;
    match &ended {
        Ok(own) => {
            let organisation = &own.account.identity.organisation_name;
            let of = organisation.as_deref().unwrap_or("your organisation");
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

/// On standard error, since standard output is for what was linked. The address is no secret: it
/// is of use only to whoever also sees what comes back, and once.
fn show_address(sign_in: &AuthorizationUrl) {
    note("sign in at this address, within ten minutes:");
    // As in `note`: there need be nobody to read it.
    let _ = writeln!(io::stderr(), "\n{}\n", sign_in.url);
}

/// # Errors
/// When a sign-in takes longer than it may.
async fn in_time<T>(back: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    timeout(GOOD_FOR, back).await.unwrap_or_else(|_| {
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

/// Lines that arrive within this time are read together: a URL may be broken over lines.
const PAUSE: Duration = Duration::from_millis(200);

/// Reads lines until some of them are what this sign-in came back with.
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

/// The lines of standard input, without keeping the process from ending while nobody writes one: a
/// thread of the runtime would be waited for.
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
