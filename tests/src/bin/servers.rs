//! Starts the servers of the tests, runs a command with their addresses in its environment, and
//! stops them.
//!
//! Without a command, it prints the environment as lines for a shell and waits for Ctrl-C or the
//! end of its standard input. It does not start servers whose addresses are in the environment. It
//! reports and skips servers that are not installed, or fails if `CI=true`.
//!
//! Its exit status is that of the command.

use std::{
    env,
    ffi::OsString,
    io::{self, Read as _, Write as _},
    process::{Command, ExitCode},
};

use clap::{Parser, ValueEnum};
use e2e::{LocalStack, Moto, OpenBao, Postgres, VaultServer, available};

/// Starts the servers of the tests while a command runs.
#[derive(Parser)]
struct Options {
    /// Start only this server; may be given more than once
    #[arg(long, value_enum)]
    only: Vec<Server>,
    /// The command and its arguments
    #[arg(last = true)]
    command: Vec<OsString>,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Server {
    Localstack,
    Moto,
    Openbao,
    Postgres,
    Vault,
}

type Variables = Vec<(&'static str, String)>;

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(status) => status,
        Err(error) => {
            // If standard error is closed, there is no one to tell.
            let _ = writeln!(io::stderr(), "servers: {error}");
            ExitCode::from(2)
        }
    }
}

async fn run() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let Options { only, command } = Options::parse();
    let wanted = |server: Server, variable: &str| {
        (only.is_empty() || only.contains(&server)) && env::var_os(variable).is_none()
    };

    let localstack = async {
        if wanted(Server::Localstack, LocalStack::URL_VARIABLE) {
            available(LocalStack::start().await)
        } else {
            None
        }
    };
    let moto = async {
        if wanted(Server::Moto, Moto::URL_VARIABLE) {
            available(Moto::start().await)
        } else {
            None
        }
    };
    let openbao = async {
        if wanted(Server::Openbao, OpenBao::ADDRESS_VARIABLE) {
            available(OpenBao::start().await)
        } else {
            None
        }
    };
    let postgres = async {
        if wanted(Server::Postgres, Postgres::URL_VARIABLE) {
            available(Postgres::start().await)
        } else {
            None
        }
    };
    let vault = async {
        if wanted(Server::Vault, VaultServer::ADDRESS_VARIABLE) {
            available(VaultServer::start().await)
        } else {
            None
        }
    };
    let (localstack, moto, openbao, postgres, vault) =
        tokio::join!(localstack, moto, openbao, postgres, vault);

    let mut variables = Variables::new();
    variables.extend(localstack.iter().flat_map(LocalStack::variables));
    variables.extend(moto.iter().flat_map(Moto::variables));
    variables.extend(openbao.iter().flat_map(OpenBao::variables));
    variables.extend(postgres.iter().flat_map(Postgres::variables));
    variables.extend(vault.iter().flat_map(VaultServer::variables));
    match command.split_first() {
        Some((program, arguments)) => {
            // Ctrl-C also reaches the command, which ends. Then the servers are stopped.
            tokio::spawn(async { while tokio::signal::ctrl_c().await.is_ok() {} });
            let mut command = Command::new(program);
            command.args(arguments).envs(variables);
            let status = tokio::task::spawn_blocking(move || command.status()).await??;
            // Killed by a signal: any failure status will do.
            let code = status
                .code()
                .and_then(|code| u8::try_from(code).ok())
                .unwrap_or(1);
            Ok(ExitCode::from(code))
        }
        None => {
            let mut output = io::stdout().lock();
            for (name, value) in variables {
                writeln!(output, "export {name}='{value}'")?;
            }
            output.flush()?;
            drop(output);
            let end_of_input =
                tokio::task::spawn_blocking(|| io::stdin().read_to_end(&mut Vec::new()));
            tokio::select! {
                _ = end_of_input => (),
                interrupted = tokio::signal::ctrl_c() => interrupted?,
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}
