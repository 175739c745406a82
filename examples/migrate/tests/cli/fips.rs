//! A build without the FIPS module, where `SECRETS_FIPS` requires it. The package `fips` tests a build
//! that has it.

use crate::lab::{Lab, Ran};

#[tokio::test]
async fn nothing_runs_without_the_module_where_it_is_required() {
    let lab = Lab::with(1, 1).await;
    let run = |arguments: &[&str], value: &str| -> Ran {
        let mut command = lab.command(arguments);
        command.env("SECRETS_FIPS", value).output().unwrap().into()
    };
    // Not even a command that opens no store.
    let harmless = ["completions", "bash"];
    run(&harmless, "required")
        .expect(2)
        .says("`SECRETS_FIPS=required`")
        .says("not a FIPS module")
        .says("scripts/fips");
    run(&harmless, "true").expect(2).says("`required` or unset");
    run(&harmless, "").expect(0);
    // The version tells the builds apart.
    let version = run(&["--version"], "required").expect(0);
    assert_eq!(
        version.stdout.trim_end(),
        concat!("secret-migrate ", env!("CARGO_PKG_VERSION"))
    );
}
