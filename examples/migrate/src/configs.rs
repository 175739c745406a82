//! Opens the sources of `--configs` and `--references`.

use std::sync::Arc;

use secret_persistence::Environment;
use secret_persistence_core::connector::ResolveReferences;
use secret_persistence_migrate::{Access, ConfigSource, sources};

use crate::role::Role;
use crate::status::{Failure, Result};

/// Opens every `--configs` option.
///
/// # Errors
/// For wrong settings, missing tables, columns and files, and a source that is listed twice.
pub(crate) async fn open(
    configs: &[String],
    environment: &Environment,
    access: Access,
) -> Result<Vec<Arc<dyn ConfigSource>>> {
    let mut opened: Vec<Arc<dyn ConfigSource>> = Vec::new();
    for text in configs {
        let source = sources::open(text, &Role::Config.variables(environment), access)
            .await
            .map_err(|error| Failure::from(error).at(Role::Config.option()))?;
        if opened
            .iter()
            .any(|known| known.to_string() == source.to_string())
        {
            return Err(Failure::input(format!(
                "--configs: {source} is listed twice; its configurations would be read twice"
            )));
        }
        opened.push(source);
    }
    Ok(opened)
}

/// Reads the table of `--references`, if there is one.
///
/// # Errors
/// For wrong settings and invalid rows.
pub(crate) async fn references(
    references: Option<&str>,
    environment: &Environment,
) -> Result<Option<Arc<dyn ResolveReferences>>> {
    let Some(text) = references else {
        return Ok(None);
    };
    let references = sources::ReferenceTable::open(text, &Role::Config.variables(environment))
        .await
        .map_err(|error| Failure::from(error).at("--references"))?;
    Ok(Some(Arc::new(references)))
}
