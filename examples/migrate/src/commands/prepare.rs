//! `prepare`: prints the SQL that adds our columns to a table, and runs it on request.

use secret_persistence::Environment;
use secret_persistence::database::Database;
use serde_json::json;

use crate::cli::PrepareArgs;
use crate::output::Output;
use crate::role::Role;
use crate::status::{Result, Status};
use crate::store::Described;

/// Runs it.
pub(crate) async fn run(
    args: PrepareArgs,
    environment: &Environment,
    output: &Output,
) -> Result<Status> {
    let config = Described::read(args.at.place(), Role::Store, environment)?.database()?;
    let sql = if args.run {
        Database::prepare(&config).await?
    } else {
        Database::prepare_sql(&config).await?
    };
    for statement in &sql {
        output.text(format!("{};", statement.trim_end_matches(';')));
    }
    output.line(match (sql.is_empty(), args.run) {
        (true, _) => "prepare: the table already has every column",
        (false, true) => "prepare: done",
        (false, false) => "prepare: nothing was changed; use --run to run this SQL",
    });
    output.object(
        Status::Done,
        &json!({ "command": "prepare", "sql": sql, "run": args.run }),
    );
    Ok(Status::Done)
}
