//! `keygen`: creates a key ring, adds a key, activates one, or removes one that no row uses.

use secret_persistence::database::{KeyId, KeyRingFile};
use secret_persistence::{Environment, Timestamp};
use serde_json::json;

use crate::cli::{KeygenArgs, Place};
use crate::output::Output;
use crate::role::Role;
use crate::status::{Result, Status};
use crate::store::Described;

/// Runs it.
pub(crate) async fn run(
    args: KeygenArgs,
    environment: &Environment,
    output: &Output,
) -> Result<Status> {
    let id = |text: &str| text.parse::<KeyId>();
    let file = &args.file;
    let (ring, done) = if let Some(text) = &args.add {
        let mut ring = KeyRingFile::open(file)?;
        ring.add(id(text)?)?;
        let next = format!(
            "added {text}; distribute the file to every process that reads the store, then run --activate {text}"
        );
        (ring, next)
    } else if let Some(text) = &args.activate {
        let mut ring = KeyRingFile::open(file)?;
        ring.activate(&id(text)?)?;
        let next = format!("{text} is active; `rotate` rewraps existing rows with it");
        (ring, next)
    } else if let Some(text) = &args.remove {
        let (mut ring, id) = (KeyRingFile::open(file)?, id(text)?);
        for url in &args.store {
            let store = Described::read(Place::Url(url), Role::Store, environment)?
                .open_database()
                .await?;
            let allowed = store.retire_key(&id).await;
            store.close().await;
            allowed?;
        }
        ring.remove(&id)?;
        (ring, format!("removed {text}"))
    } else {
        let today = || Timestamp::now().to_string().chars().take(10).collect();
        let text: String = args.id.clone().unwrap_or_else(today);
        let ring = KeyRingFile::create(file, id(&text)?)?;
        let next = format!(
            "created with the key {text}. Keep a copy apart from the database: without it, encrypted values cannot be recovered"
        );
        (ring, next)
    };
    let keys: Vec<String> = ring.ring().ids().map(ToString::to_string).collect();
    let active = ring.ring().active().to_string();
    output.line(format!("{}: {done}", file.display()));
    output.line(format!("keys: {} (active: {active})", keys.join(", ")));
    output.object(
        Status::Done,
        &json!({ "command": "keygen", "file": file, "keys": keys, "active": active }),
    );
    Ok(Status::Done)
}
