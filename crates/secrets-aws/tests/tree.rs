//! There is one TLS stack: the default one of the AWS crates stays out.

/// The versions of a package in the lock file of the workspace.
fn versions(name: &str) -> Vec<&'static str> {
    let header = format!("name = \"{name}\"\nversion = \"");
    include_str!("../../../Cargo.lock")
        .split("[[package]]\n")
        .filter_map(|package| package.strip_prefix(header.as_str())?.split('"').next())
        .collect()
}

#[test]
fn there_is_one_tls_stack_and_one_hyper() {
    for (name, expected) in [("h2", "0.4."), ("hyper", "1."), ("rustls", "0.23.")] {
        let found = versions(name);
        assert!(
            found.len() == 1 && found[0].starts_with(expected),
            "{name}: {found:?}"
        );
    }
    for name in ["hyper-tls", "native-tls", "openssl", "openssl-sys"] {
        assert!(versions(name).is_empty(), "{name}");
    }
}
