//! Runs the stand-in for Google Secret Manager, to try clients by hand.
//!
//! Prints its address, its project and the file with the key of its service account, serves until
//! Ctrl-C, and then prints how often each method was called.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    time::Duration,
};

use clap::Parser;
use e2e::google::{Google, Options, Quota, Switches};

/// A stand-in for Google Secret Manager.
#[derive(Parser)]
struct Arguments {
    /// The port to listen on; 0 takes a free one
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// The id of the project that exists
    #[arg(long, default_value = "stand-in-project")]
    project: String,
    /// The number of the project that exists
    #[arg(long, default_value_t = 410_528_736_193)]
    project_number: u64,
    /// How long each request takes
    #[arg(long, default_value_t = 0)]
    latency_ms: u64,
    /// How long listings lag behind
    #[arg(long, default_value_t = 0)]
    list_lag_ms: u64,
    /// How long `latest` lags behind
    #[arg(long, default_value_t = 0)]
    latest_lag_ms: u64,
    /// How long metadata lags behind
    #[arg(long, default_value_t = 0)]
    metadata_lag_ms: u64,
    /// Requests per second of each class: access, read and write
    #[arg(long)]
    quota: Option<u32>,
    /// Throttle every n-th request
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    throttle_every: Option<u32>,
    /// Deny a permission, such as secretmanager.versions.access; may be given more than once
    #[arg(long)]
    deny: Vec<String>,
    /// The API is not enabled in the project
    #[arg(long)]
    api_disabled: bool,
    /// The project has no billing account
    #[arg(long)]
    billing_disabled: bool,
    /// Every key of the service account is revoked
    #[arg(long)]
    revoked_keys: bool,
    /// How many seconds the server's clock is ahead
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    clock_offset: i64,
    /// How many seconds access tokens are valid
    #[arg(long, default_value_t = 3600)]
    token_lifetime: u64,
    /// Serve regional names only at the regional endpoint, like the service
    #[arg(long)]
    strict_endpoints: bool,
}

impl Arguments {
    fn switches(&self) -> Switches {
        let mut switches = Switches::default();
        switches.api_disabled = self.api_disabled;
        switches.billing_disabled = self.billing_disabled;
        switches.clock_offset = self.clock_offset;
        for permission in &self.deny {
            switches.deny(permission);
        }
        switches.latency = Duration::from_millis(self.latency_ms);
        switches.latest_lag = Duration::from_millis(self.latest_lag_ms);
        switches.list_lag = Duration::from_millis(self.list_lag_ms);
        switches.metadata_lag = Duration::from_millis(self.metadata_lag_ms);
        switches.quota = self.quota.map(Quota::per_second).unwrap_or_default();
        switches.revoked_keys = self.revoked_keys;
        switches.strict_endpoints = self.strict_endpoints;
        switches.throttle_every = self.throttle_every;
        switches.token_lifetime = Duration::from_secs(self.token_lifetime);
        switches
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let arguments = Arguments::parse();
    let options = Options::default()
        .with_port(arguments.port)
        .with_project(arguments.project.clone(), arguments.project_number)
        .with_switches(arguments.switches());
    let google = Google::start(options).await?;

    let mut output = io::stdout();
    writeln!(output, "endpoint          {}", google.endpoint())?;
    writeln!(output, "regional endpoint {}", google.regional_endpoint())?;
    writeln!(output, "metadata host     {}", google.metadata_host())?;
    writeln!(output, "project           {}", google.project())?;
    writeln!(output, "project number    {}", google.project_number())?;
    let key = google.service_account_file()?;
    writeln!(output, "key file          {}", key.display())?;
    output.flush()?;
    tokio::signal::ctrl_c().await?;

    let mut counts: BTreeMap<_, usize> = BTreeMap::new();
    for request in google.requests() {
        *counts.entry((request.method, request.status)).or_default() += 1;
    }
    for ((method, status), count) in counts {
        writeln!(output, "{count:8} {method} {status}")?;
    }
    Ok(())
}
