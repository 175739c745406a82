//! A Postgres that cannot be reached: the error names the cause.

use secret_persistence_core::{Error, ErrorKind};
use secret_persistence_db::{Database, Mode};
use tokio::net::TcpListener;

use crate::support::Setup;

async fn refused(address: &str) -> Error {
    let setup = Setup::of_url(&format!("postgres://{address}/db?user=u&connect-timeout=5"));
    let config = setup.mode(Mode::Plain).build().unwrap();
    Database::connect(config).await.err().unwrap()
}

#[tokio::test]
async fn an_unknown_host_is_told_from_a_server_that_does_not_run() {
    let error = refused("nosuch.invalid").await;
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.message().contains("does not resolve"), "{error}");
    assert!(error.hint().unwrap().contains("host name"), "{error}");

    // The port is free again once the listener is gone.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let error = refused(&address).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(!error.message().contains("resolve"), "{error}");
}
