//! The `smartsheet-simulator` binary: starts a simulator and stops it on SIGINT or SIGTERM.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use smartsheet_simulator::{Announcement, Options, Simulator};
use tokio::signal::unix::{SignalKind, signal};

/// A simulator of the Smartsheet API 2.0 on 127.0.0.1
#[derive(Parser)]
#[command(name = "smartsheet-simulator", version)]
struct Arguments {
    /// Port on 127.0.0.1; 0 takes a free one
    #[arg(long, default_value_t = 7070)]
    port: u16,
    /// Users of the plan, including guests; at least 5
    #[arg(long, default_value_t = 250)]
    users: usize,
    /// Groups
    #[arg(long, default_value_t = 20)]
    groups: usize,
    /// Seed of the world: the same users, groups and seed give the same world
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Requests per minute for each access token; 0 is no limit
    #[arg(long, default_value_t = 300)]
    rate_limit: u32,
    /// Minimum duration of an API request, in milliseconds
    #[arg(long, default_value_t = 0)]
    latency_ms: u64,
    /// Redirect URL of the first OAuth app [default: a page of the simulator]
    #[arg(long, value_name = "URL")]
    redirect_url: Option<String>,
    /// Print one line of JSON when the simulator listens
    #[arg(long)]
    json: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        // The reader of stdout is gone: exit without an error.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("smartsheet-simulator: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> io::Result<()> {
    let mut interrupted = signal(SignalKind::interrupt())?;
    let mut terminated = signal(SignalKind::terminate())?;
    let Arguments {
        port,
        users,
        groups,
        seed,
        rate_limit,
        latency_ms,
        redirect_url,
        json,
    } = arguments;
    let simulator = Simulator::start(Options {
        port,
        users,
        groups,
        seed,
        rate_limit,
        latency_ms,
        redirect_url,
    })
    .await
    .map_err(|error| io::Error::new(error.kind(), format!("port {port}: {error}")))?;
    let text = if json {
        line(simulator.announcement())?
    } else {
        lines(simulator.announcement())
    };
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    drop(out);
    tokio::select! {
        _ = interrupted.recv() => {}
        _ = terminated.recv() => {}
    }
    simulator.stop().await;
    Ok(())
}

fn line(announcement: &Announcement) -> io::Result<String> {
    Ok(format!("{}\n", serde_json::to_string(announcement)?))
}

fn lines(announcement: &Announcement) -> String {
    let Announcement {
        api_base,
        authorize_url,
        control_url,
        tokens,
        oauth_client,
    } = announcement;
    format!(
        "Smartsheet, simulated: {api_base}\n\
         \n  tokens\n\
         \x20   system admin   {}\n\
         \x20   group admin    {}\n\
         \x20   member         {}\n\
         \x20   no READ_USERS  {}\n\
         \x20   revoked        {}\n\
         \n  OAuth           {authorize_url}\n\
         \x20   client id      {}\n\
         \x20   client secret  {}\n\
         \x20   redirect URL   {}\n\
         \n  control         {control_url}\n\
         \nTry: curl -H 'Authorization: Bearer {}' {api_base}/users/me\n",
        tokens.system_admin,
        tokens.group_admin,
        tokens.member,
        tokens.no_read_users,
        tokens.revoked,
        oauth_client.client_id,
        oauth_client.client_secret,
        oauth_client.redirect_url,
        tokens.system_admin,
    )
}
