//! This build has the module, and what it encrypts goes through it.

use std::process::Command;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use secret_persistence::database::KeyRing;
use secret_persistence::{Environment, FipsModule, Settings, conformance, connect};

/// The major version of the library is the number of the module. NIST has validated 3.
#[test]
fn the_module_is_the_validated_one_and_becomes_the_default() {
    let module = FipsModule::require().unwrap();
    assert!(module.version().starts_with("3."), "{module}");
    assert_eq!(FipsModule::of_process(), Some(module));
    assert!(CryptoProvider::get_default().unwrap().fips());
    // Too late for another provider.
    aws_lc_rs::default_provider().install_default().unwrap_err();
    Environment::empty()
        .with_fips_required()
        .require_fips()
        .unwrap();
}

#[test]
fn both_programs_name_the_module() {
    let module = FipsModule::of_process().unwrap().to_string();
    for program in [
        env!("CARGO_BIN_EXE_secret-migrate"),
        env!("CARGO_BIN_EXE_secret-gateway"),
    ] {
        let output = Command::new(program).arg("--version").output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains(&module), "{program}: {text}");
    }
    // Beyond the version: the requirement holds, and they encrypt and hash.
    let folder = tempfile::tempdir().unwrap();
    let create = "token create --name ci --role kv-write --tokens-file tokens.json";
    let create: Vec<_> = create.split(' ').collect();
    for (program, arguments) in [
        (env!("CARGO_BIN_EXE_secret-migrate"), &["demo"][..]),
        (env!("CARGO_BIN_EXE_secret-gateway"), &create[..]),
    ] {
        let mut command = Command::new(program);
        let command = command.args(arguments).current_dir(folder.path());
        let output = command.output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program}: {errors}");
    }
}

#[tokio::test]
async fn an_encrypted_store_keeps_its_promises() {
    FipsModule::require().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let ring = KeyRing::generate("k1".parse().unwrap()).unwrap();
    let ring = ring.to_text().expose().to_owned();
    let environment = Environment::from_iter([("SECRETS_KEYRING", ring)]);
    let url = format!(
        "sqlite://{}/secrets.db?mode=encrypted",
        folder.path().display()
    );
    let settings = Settings::from_url(&url, &environment).unwrap();
    let store = connect(settings).await.unwrap();
    let report = conformance::run(&store, &conformance::Options::default()).await;
    report.assert_passed();
}
