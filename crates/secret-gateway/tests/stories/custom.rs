//! A gateway in front of a backend of the caller.

use std::sync::Arc;

use secret_gateway::{Grant, Role, TokenFile};
use secret_persistence::{CustomBackend, Environment, KeyTable, Memory, SecretPersistence};
use serde_json::json;

use crate::world::{ask, kv_path, texts};

#[tokio::test]
async fn the_setting_store_takes_a_scheme_of_the_caller() {
    let store = Arc::new(Memory::new());
    let opened = Arc::clone(&store);
    let table = KeyTable::new(&["acme"], &[], |_, _| Ok(()));
    let backend = CustomBackend::new(table, move |_, _| {
        let store: Arc<dyn SecretPersistence> = Arc::clone(&opened) as _;
        async move { Ok(store) }
    });
    let folder = tempfile::tempdir().unwrap();
    let settings = || {
        texts(folder.path(), &[("store", "acme://north")])
            .parse()
            .unwrap()
    };
    let unknown = secret_gateway::start(settings(), &Environment::empty(), None).await;
    assert_eq!(
        unknown.unwrap_err().to_string(),
        "cannot use the settings of the store"
    );

    let environment = Environment::empty().with_backend(backend.unwrap());
    let started = secret_gateway::start(settings(), &environment, None)
        .await
        .unwrap();
    let router = secret_gateway::router(started.gateway);
    let token = std::fs::read_to_string(folder.path().join("token-kv-write")).unwrap();
    let headers = [("x-vault-token", token.as_str())];
    let body = json!({"data": {"value": "hunter2"}}).to_string();
    let path = kv_path(1, 1);
    ask(&router, "POST", &path, &headers, Some(body))
        .await
        .expect(200);
    assert_eq!(store.len(), 1);
}

/// The program is a call of this function, with an environment that the caller may extend.
#[test]
fn the_program_is_a_function_with_the_environment_of_the_caller() {
    let folder = tempfile::tempdir().unwrap();
    let tokens = TokenFile::new(folder.path().join("tokens.json"));
    tokens.create(&Grant::new("old", [Role::KvRead])).unwrap();
    let path = folder.path().to_str().unwrap();
    let environment = Environment::from_iter([("SECRET_GATEWAY_DATA_FOLDER", path)]);
    let arguments = ["secret-gateway", "token", "revoke", "--name", "old"];
    let ended = secret_gateway::run(arguments.map(Into::into), &environment);
    assert_eq!(
        format!("{ended:?}"),
        format!("{:?}", std::process::ExitCode::SUCCESS)
    );
    assert!(tokens.list().unwrap().is_empty());
}
