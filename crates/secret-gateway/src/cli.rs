//! The command line: `serve` (the default command) and `token`.

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use secret_persistence::{Environment, FipsModule, Timestamp};
use uuid::Uuid;

use crate::{InvalidSetting, Role, TABLE, Texts, variable};

/// The command line, with a flag for every setting that is not a credential.
pub(crate) fn command() -> Command {
    let token = Command::new("token")
        .about("Creates, lists and revokes tokens; a running gateway applies the change immediately")
        .subcommand_required(true)
        .subcommand(
            Command::new("create")
                .about("Creates a token and prints it once")
                .arg(Arg::new("name").long("name").required(true).help("Its name, for audit events and for revoking it"))
                .arg(
                    Arg::new("role")
                        .long("role")
                        .required(true)
                        .action(ArgAction::Append)
                        .value_delimiter(',')
                        .value_parser(|text: &str| text.parse::<Role>().map_err(|error| error.to_string()))
                        .help("change, hydrate, kv-read, kv-write or operate; may be given several times"),
                )
                .arg(
                    Arg::new("workspace")
                        .long("workspace")
                        .action(ArgAction::Append)
                        .value_parser(|text: &str| Uuid::try_parse(text).map_err(|_| "is not a UUID".to_owned()))
                        .help("Binds it to the secrets of a workspace"),
                )
                .arg(
                    Arg::new("prefix")
                        .long("prefix")
                        .action(ArgAction::Append)
                        .help("Binds it to names with this prefix"),
                )
                .arg(
                    Arg::new("expires")
                        .long("expires")
                        .value_parser(|text: &str| text.parse::<Timestamp>().map_err(|error| error.to_string()))
                        .help("When it expires, like 2027-01-31T00:00:00Z"),
                )
                .arg(
                    Arg::new("certificate")
                        .long("certificate")
                        .value_parser(value_parser!(PathBuf))
                        .help("A PEM client certificate to grant the roles to, instead of creating a token"),
                ),
        )
        .subcommand(Command::new("list").about("Lists the tokens and their roles"))
        .subcommand(
            Command::new("revoke")
                .about("Revokes a token")
                .arg(Arg::new("name").long("name").required(true).help("Its name")),
        );
    let settings = TABLE
        .iter()
        .filter(|setting| !setting.secret)
        .map(|setting| {
            let mut help = format!("{} [{}]", setting.text, variable(setting.name));
            if let Some(default) = setting.default.filter(|default| !default.is_empty()) {
                help.push_str(&format!(" [default: {default}]"));
            }
            Arg::new(setting.name)
                .long(setting.name)
                .global(true)
                .help(help)
                .help_heading("Settings")
        });
    Command::new("secret-gateway")
        .about("Vault's key/value protocol, and connector configurations over HTTP, in front of any secret store")
        .version(version())
        .arg(
            Arg::new("settings")
                .long("settings")
                .global(true)
                .value_parser(value_parser!(PathBuf))
                .help("A JSON file of settings; flags and environment take precedence [SECRET_GATEWAY_SETTINGS]"),
        )
        .args(settings)
        .subcommand(Command::new("serve").about("Serves (the default command)"))
        .subcommand(token)
}

/// The version, and the FIPS module in a build that has one.
fn version() -> String {
    let version = env!("CARGO_PKG_VERSION");
    FipsModule::of_process().map_or_else(
        || version.to_owned(),
        |module| format!("{version} ({module})"),
    )
}

/// The settings of flags, then of the environment, then of the file.
pub(crate) fn texts(
    matches: &ArgMatches,
    environment: &Environment,
) -> Result<Texts, InvalidSetting> {
    let mut texts = Texts::new();
    for setting in TABLE.iter().filter(|setting| !setting.secret) {
        if let Some(value) = matches.get_one::<String>(setting.name) {
            texts.set(setting.name, value.as_str())?;
        }
    }
    texts.set_environment(|name| environment.get(name));
    let file = matches.get_one::<PathBuf>("settings").cloned().or_else(|| {
        environment
            .get("SECRET_GATEWAY_SETTINGS")
            .map(PathBuf::from)
    });
    if let Some(file) = file {
        texts.set_file(&file)?;
    }
    Ok(texts)
}
