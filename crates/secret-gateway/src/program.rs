//! The whole program: serves, and manages tokens.

use std::error::Error;
use std::ffi::OsString;
use std::net::TcpListener;
use std::process::ExitCode;

use clap::ArgMatches;
use metrics_exporter_prometheus::PrometheusBuilder;
use secret_persistence::{Environment, Timestamp};
use uuid::Uuid;

#[cfg(feature = "otlp")]
use crate::traces;
use crate::{Grant, Role, Settings, Started, TokenFile, cli, console, serve, start};

type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

/// Runs the program `secret-gateway` with these arguments, of which the first is its name: serves
/// until SIGTERM or Ctrl-C, or manages tokens.
///
/// Variables and backends come from the environment, so its
/// [backends](Environment::with_backend) are valid in the setting `store`:
///
/// ```no_run
/// use secret_persistence::{CustomBackend, Environment};
///
/// # fn main_of_yours(acme: CustomBackend) -> std::process::ExitCode {
/// secret_gateway::run(std::env::args_os(), &Environment::of_process().with_backend(acme))
/// # }
/// ```
///
/// It sets the logger and the metrics recorder of the process, ends the process for arguments that
/// it does not understand, and starts a runtime of its own, so call it once and outside of one. To
/// embed a gateway in a program, use [`start`] and [`serve`].
#[must_use]
pub fn run(arguments: impl IntoIterator<Item = OsString>, environment: &Environment) -> ExitCode {
    let matches = cli::command().get_matches_from(arguments);
    let done = environment
        .require_fips()
        .and_then(|()| environment.install_managed_prefix())
        .map_err(Into::into)
        .and_then(|()| {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .build()?;
            runtime.block_on(command(&matches, environment))
        });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            console::failed(&*error);
            ExitCode::FAILURE
        }
    }
}

async fn command(matches: &ArgMatches, environment: &Environment) -> Outcome {
    let (texts, tokens) = match matches.subcommand() {
        Some(("token", token)) => (cli::texts(token, environment)?, token.subcommand()),
        Some((_, matches)) => (cli::texts(matches, environment)?, None),
        None => (cli::texts(matches, environment)?, None),
    };
    let settings = texts.parse()?;
    match tokens {
        Some(("create", matches)) => create(&settings, matches),
        Some(("list", _)) => {
            for principal in TokenFile::new(&settings.tokens_file).list()? {
                console::line(&console::principal(&principal));
            }
            Ok(())
        }
        Some(("revoke", matches)) => {
            let name = matches.get_one::<String>("name").map_or("", String::as_str);
            TokenFile::new(&settings.tokens_file).revoke(name)?;
            console::line(&format!("`{name}` is revoked"));
            Ok(())
        }
        _ => serving(settings, environment).await,
    }
}

fn create(settings: &Settings, matches: &ArgMatches) -> Outcome {
    let all = |name: &str| {
        matches
            .get_many::<String>(name)
            .into_iter()
            .flatten()
            .cloned()
    };
    let name = matches
        .get_one::<String>("name")
        .cloned()
        .unwrap_or_default();
    let roles = matches
        .get_many::<Role>("role")
        .into_iter()
        .flatten()
        .copied();
    let workspaces = matches
        .get_many::<Uuid>("workspace")
        .into_iter()
        .flatten()
        .copied();
    let grant = Grant::new(name, roles)
        .with_workspaces(workspaces)
        .with_prefixes(all("prefix"))
        .with_expires(matches.get_one::<Timestamp>("expires").copied());
    let tokens = TokenFile::new(&settings.tokens_file);
    match matches.get_one::<std::path::PathBuf>("certificate") {
        None => console::line(tokens.create(&grant)?.expose()),
        Some(path) => {
            use rustls::pki_types::pem::PemObject as _;
            let certificate = rustls::pki_types::CertificateDer::from_pem_file(path)
                .map_err(|_| format!("{} does not contain a PEM certificate", path.display()))?;
            tokens.add_certificate(&grant, &certificate)?;
            console::line("the certificate now has this grant");
        }
    }
    Ok(())
}

async fn serving(settings: Settings, environment: &Environment) -> Outcome {
    #[cfg(feature = "otlp")]
    let traces = traces::provider()?;
    #[cfg(feature = "otlp")]
    console::log(settings.json_logs, traces.as_ref().map(traces::layer))?;
    #[cfg(not(feature = "otlp"))]
    console::log(
        settings.json_logs,
        None::<tracing_subscriber::layer::Identity>,
    )?;
    let metrics = PrometheusBuilder::new()
        .set_buckets(&[0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0])?
        .install_recorder()?;
    if settings.behind_proxy {
        tracing::warn!(
            target: "secret_gateway",
            listen = %settings.listen,
            "behind-proxy: serving plain HTTP beyond loopback; anyone who can read the network between proxy and gateway can read secrets"
        );
    }
    let listener = TcpListener::bind(settings.listen)
        .map_err(|error| format!("cannot listen at {}: {error}", settings.listen))?;
    let address = listener.local_addr()?;
    let Started {
        gateway, tokens, ..
    } = start(settings, environment, Some(metrics)).await?;
    console::welcome(&gateway, address, &tokens);
    tracing::info!(target: "secret_gateway", %address, "listening");
    let served = serve(gateway, listener, signal()).await;
    #[cfg(feature = "otlp")]
    if let Some(traces) = traces {
        // It sends what is left, and waits for the collector.
        tokio::task::spawn_blocking(move || traces::stop(&traces)).await?;
    }
    Ok(served?)
}

/// Completes on SIGTERM or Ctrl-C.
async fn signal() {
    let interrupted = tokio::signal::ctrl_c();
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminated) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = interrupted => {}
                _ = terminated.recv() => {}
            }
            return;
        }
    }
    // Without a handler, the gateway can only be killed, which is safe too.
    let _ = interrupted.await;
}
