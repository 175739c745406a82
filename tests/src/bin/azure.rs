//! Runs the stand-in for Azure Key Vault and Entra ID, to try clients by hand.
//!
//! Prints addresses, ids and credentials as lines for a shell, serves until Ctrl-C, and then prints
//! how often each operation was called.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    time::Duration,
};

use clap::{Parser, ValueEnum};
use e2e::azure::{self, Azure, Firewall, PermissionModel, Switches};

/// A stand-in for Azure Key Vault and Entra ID.
#[derive(Parser)]
struct Options {
    /// The port of the vault and Entra ID (https); 0 takes a free one
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// The port of managed identities (http); 0 takes a free one
    #[arg(long, default_value_t = 0)]
    metadata_port: u16,
    /// The resource in challenges, and the audience of tokens [default: `https://vault.localhost`]
    #[arg(long)]
    resource: Option<String>,
    /// The delay of every request
    #[arg(long, default_value_t = 0)]
    latency_ms: u64,
    /// How long listings lag behind
    #[arg(long, default_value_t = 0)]
    list_lag_ms: u64,
    /// How long deleting, recovering and purging take
    #[arg(long, default_value_t = 20)]
    transition_ms: u64,
    /// Make every second page of a listing an empty one
    #[arg(long)]
    sparse_pages: bool,
    /// Throttle every n-th request to the vault
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    throttle_every: Option<u32>,
    /// Throttle requests to the vault above this number per second
    #[arg(long)]
    requests_per_second: Option<u32>,
    /// The Retry-After of throttled requests
    #[arg(long)]
    retry_after_seconds: Option<u32>,
    /// Deny a data action, such as Microsoft.KeyVault/vaults/secrets/delete; may be given more than once
    #[arg(long, value_parser = data_action)]
    deny: Vec<String>,
    /// Refuse with the vault's access policy instead of roles
    #[arg(long)]
    access_policy: bool,
    /// The time until the role assignment arrives
    #[arg(long)]
    role_after_seconds: Option<u64>,
    /// Exclude the caller with network rules
    #[arg(long, value_enum)]
    firewall: Option<Rule>,
    /// Disable a secret; may be given more than once
    #[arg(long)]
    disable: Vec<String>,
    /// Protect deleted secrets from purges
    #[arg(long)]
    purge_protection: bool,
    /// How long tokens are valid
    #[arg(long, default_value_t = 3599)]
    token_lifetime_seconds: u64,
}

#[derive(Clone, Copy, ValueEnum)]
enum Rule {
    Address,
    Connection,
}

impl Options {
    fn switches(&self) -> Switches {
        let transition = Duration::from_millis(self.transition_ms);
        let mut switches = Switches::default();
        switches.latency = Duration::from_millis(self.latency_ms);
        switches.list_lag = Duration::from_millis(self.list_lag_ms);
        switches.deleting = transition;
        switches.recovering = transition;
        switches.purging = transition;
        switches.sparse_pages = self.sparse_pages;
        switches.throttle_every = self.throttle_every;
        switches.requests_per_second = self.requests_per_second;
        switches.retry_after = self.retry_after_seconds;
        switches.disabled = self
            .disable
            .iter()
            .map(|name| name.to_ascii_lowercase())
            .collect();
        switches.purge_protection = self.purge_protection;
        switches.token_lifetime = Duration::from_secs(self.token_lifetime_seconds);
        for action in &self.deny {
            switches.deny(action);
        }
        if self.access_policy {
            switches.permission_model = PermissionModel::AccessPolicy;
        }
        if let Some(seconds) = self.role_after_seconds {
            switches.assign_role_after(Duration::from_secs(seconds));
        }
        switches.firewall = match self.firewall {
            None => Firewall::Open,
            Some(Rule::Address) => Firewall::AddressNotAllowed,
            Some(Rule::Connection) => Firewall::PublicAccessDisabled,
        };
        switches
    }
}

fn data_action(text: &str) -> Result<String, String> {
    if azure::DATA_ACTIONS.contains(&text) {
        Ok(text.to_owned())
    } else {
        Err(format!("one of {}", azure::DATA_ACTIONS.join(", ")))
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let options = Options::parse();
    let mut how = azure::Options::default()
        .with_port(options.port)
        .with_metadata_port(options.metadata_port)
        .with_switches(options.switches());
    if let Some(resource) = options.resource {
        how = how.with_resource(resource);
    }
    let azure = Azure::start(how).await?;

    let mut output = io::stdout().lock();
    for (name, value) in [
        ("AZURE_VAULT_URL", azure.vault_url()),
        ("AZURE_NAMED_VAULT_URL", azure.named_vault_url()),
        ("AZURE_AUTHORITY_HOST", azure.authority_host().to_owned()),
        ("AZURE_VAULT_RESOURCE", azure.resource().to_owned()),
        ("AZURE_CA_FILE", azure.ca_file().display().to_string()),
        ("AZURE_TENANT_ID", azure.tenant_id().to_owned()),
        ("AZURE_CLIENT_ID", azure.client_id().to_owned()),
        ("AZURE_CLIENT_SECRET", azure.client_secret().to_owned()),
        (
            "AZURE_FEDERATED_TOKEN_FILE",
            azure.federated_token_file().display().to_string(),
        ),
        ("IDENTITY_ENDPOINT", azure.managed_identity_endpoint()),
        (
            "IDENTITY_HEADER",
            azure.managed_identity_header().to_owned(),
        ),
        (
            "AZURE_MANAGED_IDENTITY_CLIENT_ID",
            azure.managed_identity_client_id().to_owned(),
        ),
        ("AZURE_METADATA_ENDPOINT", azure.metadata_endpoint()),
    ] {
        writeln!(output, "export {name}='{value}'")?;
    }
    output.flush()?;
    drop(output);

    tokio::signal::ctrl_c().await?;

    let mut counts = BTreeMap::<_, usize>::new();
    for request in azure.requests() {
        *counts
            .entry((request.operation, request.status.as_u16()))
            .or_default() += 1;
    }
    let mut output = io::stdout().lock();
    for ((operation, status), count) in counts {
        writeln!(output, "{count:8} {operation} {status}")?;
    }
    Ok(())
}
