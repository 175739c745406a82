//! Output for people: results on standard output, errors and logs on standard error.

use std::error::Error;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;

use secret_persistence::ManagedPrefix;
use tracing_subscriber::filter::{FilterExt as _, filter_fn};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry};

use crate::{Binding, Gateway, Principal, REQUEST_SPAN, Role};

/// Prints a line on standard output. A closed pipe is ignored.
pub(crate) fn line(text: &str) {
    let _ = writeln!(io::stdout().lock(), "{text}");
}

/// An error with its causes.
pub(crate) fn failed(error: &(dyn Error + 'static)) {
    let mut text = format!("error: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Logs to standard error, and traces to `traces`.
pub(crate) fn log(
    json: bool,
    traces: Option<impl Layer<Registry> + Send + Sync>,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let filter = match std::env::var("SECRET_GATEWAY_LOG_FILTER") {
        Ok(text) if !text.is_empty() => EnvFilter::try_new(text)?,
        // SDK messages below this level are for their developers.
        _ => EnvFilter::new("info"),
    };
    // A request's span repeats what its line says.
    let filter = filter.and(filter_fn(|metadata| metadata.target() != REQUEST_SPAN));
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    let registry = tracing_subscriber::registry().with(traces);
    if json {
        let lines = lines.json().flatten_event(true);
        registry.with(lines.with_filter(filter)).try_init()?;
    } else {
        let lines = lines.with_ansi(false);
        registry.with(lines.with_filter(filter)).try_init()?;
    }
    Ok(())
}

/// A token in one line.
pub(crate) fn principal(principal: &Principal) -> String {
    let roles: Vec<&str> = principal.roles.iter().map(|role| role.as_str()).collect();
    let bound = match &principal.binding {
        Binding::All => "everything".to_owned(),
        Binding::To {
            workspaces,
            prefixes,
        } => {
            let workspaces = workspaces.iter().map(|id| format!("workspace {id}"));
            let prefixes = prefixes.iter().map(|prefix| format!("prefix {prefix}"));
            workspaces.chain(prefixes).collect::<Vec<_>>().join(", ")
        }
    };
    let expires = principal
        .expires
        .and_then(|at| secret_persistence::Timestamp::from_unix_seconds(at).ok())
        .map_or_else(|| "never".to_owned(), |at| at.to_string());
    format!(
        "{}\troles {}\tbound to {bound}\texpires {expires}",
        principal.name,
        roles.join(",")
    )
}

/// Prints the address and, at the first start, commands to try.
pub(crate) fn welcome(gateway: &Gateway, address: SocketAddr, tokens: &[(Role, PathBuf)]) {
    let scheme = if gateway.settings().tls.is_some() {
        "https"
    } else {
        "http"
    };
    let base = format!("{scheme}://{address}");
    line(&format!("secret-gateway listens at {base}"));
    if tokens.is_empty() {
        return;
    }
    line("This is the first start. Created one token for each role:");
    for (role, path) in tokens {
        line(&format!("  {role:<9} {}", path.display()));
    }
    let file = |role: Role| {
        tokens
            .iter()
            .find(|(theirs, _)| *theirs == role)
            .map(|(_, path)| path.display().to_string())
            .unwrap_or_default()
    };
    let (mount, prefix) = (&gateway.settings().kv.mount, &gateway.settings().kv.prefix);
    let name = format!(
        "{}workspace_00000000-0000-4000-8000-000000000001_secret_00000000-0000-4000-8000-000000000002_v1",
        ManagedPrefix::current()
    );
    line("Try:");
    line(&format!(
        "  curl -H \"X-Vault-Token: $(cat {})\" -d '{{\"data\":{{\"value\":\"hunter2\"}}}}' {base}/v1/{mount}/data/{prefix}{name}",
        file(Role::KvWrite)
    ));
    line(&format!(
        "  curl -H \"X-Vault-Token: $(cat {})\" {base}/v1/{mount}/data/{prefix}{name}",
        file(Role::KvRead)
    ));
    line(&format!(
        "  curl -H \"Authorization: Bearer $(cat {})\" {base}/api/v1/stores",
        file(Role::Operate)
    ));
}
