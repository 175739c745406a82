//! What `scripts/release` makes of the programs. The build is not part of it: the tool is the one of the tests, the
//! gateway another program of this machine, because only what is packed around them is in question.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Command, Output},
};

use e2e::{Absent, available, packaging};
use serde_json::Value;

use crate::program::Program;

const PROGRAMS: [&str; 2] = ["secret-migrate", "secret-gateway"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn release(arguments: &[&Path]) -> Output {
    Command::new(root().join("scripts/release"))
        .args(arguments)
        .env("CARGO", env!("CARGO"))
        // As from the sources in an archive, where there is no commit to ask.
        .env("SOURCE_DATE_EPOCH", "1700000000")
        .output()
        .unwrap()
}

fn text_of(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// A folder with the two programs.
fn programs(folder: &Path, tool: &Path) {
    fs::create_dir(folder).unwrap();
    let script = format!("#!/bin/sh\nexec '{}' \"$@\"\n", tool.display());
    let ours = folder.join("secret-migrate");
    fs::write(&ours, script).unwrap();
    fs::set_permissions(&ours, fs::Permissions::from_mode(0o755)).unwrap();
    // A small program that is linked with the C library.
    symlink("/bin/true", folder.join("secret-gateway")).unwrap();
}

fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        (name, fs::read(path).unwrap())
    });
    entries.collect()
}

/// What makes the dependencies of a package and looks into it.
fn dpkg() -> Option<()> {
    let found = Command::new("dpkg-shlibdeps").arg("--version").output();
    let found = found.map_err(|_| Absent::Missing {
        server: "dpkg-shlibdeps",
        remedy: "run tests/servers/build debian".into(),
    });
    available(found).map(|_| ())
}

/// Names and modes of the files in a package.
fn contents(package: &Path) -> BTreeMap<String, String> {
    let listed = text_of(Command::new("dpkg-deb").arg("--contents").arg(package));
    let lines = listed.lines().filter(|line| !line.starts_with('d'));
    lines
        .map(|line| {
            let words: Vec<_> = line.split_whitespace().collect();
            assert_eq!(words[1], "0/0", "{line}");
            assert_eq!(words[3], "2023-11-14", "{line}");
            (
                words[5].trim_start_matches("./").to_owned(),
                words[0].to_owned(),
            )
        })
        .collect()
}

fn field(package: &Path, name: &str) -> String {
    let text = text_of(
        Command::new("dpkg-deb")
            .arg("--field")
            .arg(package)
            .arg(name),
    );
    text.trim_end().to_owned()
}

/// Two runs, in different folders and with another mask for new files, make the same bytes of the same programs; and
/// those contain what the documents promise.
#[test]
fn the_same_programs_make_the_same_packages() {
    let (Some(program), Some(_), Some(())) = (Program::found(), packaging(), dpkg()) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let [first, second] = ["first", "another-second"].map(|name| {
        let made_of = folder.path().join(name).with_extension("programs");
        programs(&made_of, program.file());
        let out = folder.path().join(name);
        let done = release(&["--programs".as_ref(), &made_of, &out]);
        assert!(done.status.success(), "{done:?}");
        out
    });
    let made = files(&first);
    let again = files(&second);
    assert!(made.keys().eq(again.keys()), "{:?}", again.keys());
    for (name, bytes) in &made {
        assert!(again[name] == *bytes, "{name} differs");
    }

    let version = env!("CARGO_PKG_VERSION");
    let named = |start: &str, end: &str| {
        let found = made
            .keys()
            .find(|name| name.starts_with(start) && name.ends_with(end));
        first.join(found.unwrap_or_else(|| panic!("no {start}…{end}: {:?}", made.keys())))
    };
    assert_eq!(made.len(), 6, "{:?}", made.keys());
    let checked = Command::new("sha256sum")
        .args(["--check", "--strict", "SHA256SUMS"])
        .current_dir(&first)
        .output()
        .unwrap();
    assert!(checked.status.success(), "{checked:?}");

    archived(&named("secret-persistence-", ".tar.gz"));
    for name in PROGRAMS {
        let package = named(&format!("{name}_{version}-1_"), ".deb");
        assert_eq!(field(&package, "Package"), name);
        assert_eq!(field(&package, "Recommends"), "ca-certificates");
        packaged(name, &contents(&package));
        listed(name, &made[&format!("{name}.cdx.json")]);
    }
    let gateway = named("secret-gateway_", ".deb");
    assert!(
        field(&gateway, "Depends").starts_with("libc6 "),
        "{}",
        field(&gateway, "Depends")
    );
    // What the scripts of the package do with the unit: neither enable nor start it.
    let scripts = folder.path().join("scripts");
    text_of(
        Command::new("dpkg-deb")
            .arg("--control")
            .arg(&gateway)
            .arg(&scripts),
    );
    let after = fs::read_to_string(scripts.join("postinst")).unwrap();
    assert!(
        !after.contains("deb-systemd-invoke start") && !after.contains("#DEBHELPER#"),
        "{after}"
    );
    assert!(
        !after.contains("deb-systemd-helper enable 'secret-gateway.service' >"),
        "{after}"
    );
}

fn archived(archive: &Path) {
    let listed = text_of(Command::new("tar").arg("--list").arg("--file").arg(archive));
    let top = archive
        .file_name()
        .unwrap()
        .to_str()
        .unwrap()
        .trim_end_matches(".tar.gz");
    for name in [
        "CHANGELOG.md",
        "LICENSE",
        "README.md",
        "SECURITY.md",
        "completions/secret-migrate.bash",
        "completions/secret-migrate.fish",
        "completions/secret-migrate.zsh",
        "man/secret-migrate-copy.1.gz",
        "man/secret-migrate.1.gz",
        "sbom/secret-gateway.cdx.json",
        "sbom/secret-migrate.cdx.json",
        "secret-gateway",
        "secret-gateway.service",
        "secret-migrate",
    ] {
        assert!(
            listed.lines().any(|line| line == format!("{top}/{name}")),
            "{name}: {listed}"
        );
    }
}

fn packaged(name: &str, contents: &BTreeMap<String, String>) {
    let mut expected = vec![
        format!("usr/bin/{name}"),
        format!("usr/share/doc/{name}/README.md"),
        format!("usr/share/doc/{name}/copyright"),
        format!("usr/share/doc/{name}/{name}.cdx.json"),
    ];
    if name == "secret-migrate" {
        expected.extend(
            [
                "usr/share/bash-completion/completions/secret-migrate",
                "usr/share/fish/vendor_completions.d/secret-migrate.fish",
                "usr/share/man/man1/secret-migrate-copy.1.gz",
                "usr/share/man/man1/secret-migrate.1.gz",
                "usr/share/zsh/vendor-completions/_secret-migrate",
            ]
            .map(String::from),
        );
    } else {
        expected.push("usr/lib/systemd/system/secret-gateway.service".into());
        expected.push("usr/share/doc/secret-gateway/gateway.md".into());
    }
    for file in expected {
        let mode = if file.starts_with("usr/bin/") {
            "-rwxr-xr-x"
        } else {
            "-rw-r--r--"
        };
        assert_eq!(
            contents.get(&file).map(String::as_str),
            Some(mode),
            "{file}: {contents:?}"
        );
    }
}

/// The list names each crate that cargo links into the program or runs to build it, in the locked version, and no place
/// of this machine.
fn listed(program: &str, sbom: &[u8]) {
    let text = std::str::from_utf8(sbom).unwrap();
    let here = fs::canonicalize(root()).unwrap();
    for trace in [
        here.to_str().unwrap(),
        &std::env::temp_dir().display().to_string(),
    ] {
        assert!(!text.contains(&format!("{trace}/")), "{program}: {trace}");
    }
    let sbom: Value = serde_json::from_str(text).unwrap();
    assert_eq!(sbom["bomFormat"], "CycloneDX");
    assert_eq!(sbom["serialNumber"], Value::Null);
    assert_eq!(
        sbom["metadata"]["timestamp"],
        "2023-11-14T22:13:20.000000000Z"
    );
    let named = |component: &Value| {
        let text = |name: &str| component[name].as_str().unwrap().to_owned();
        (text("name"), text("version"))
    };
    let components = sbom["components"].as_array().unwrap().iter();
    let mut components: BTreeSet<_> = components.map(named).collect();
    components.insert(named(&sbom["metadata"]["component"]));

    let package = if program == "secret-migrate" {
        "migrate"
    } else {
        program
    };
    let tree = text_of(
        Command::new(env!("CARGO"))
            .args(["tree", "--locked", "--all-features", "--edges=normal,build"])
            .args(["--prefix=none", "--format={p}", "--package", package])
            .current_dir(root()),
    );
    let reached: BTreeSet<_> = tree
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ');
            Some((
                words.next()?.to_owned(),
                words.next()?.trim_start_matches('v').to_owned(),
            ))
        })
        .collect();
    assert!(reached.len() > 200, "{tree}");
    let missing: Vec<_> = reached.difference(&components).collect();
    assert!(missing.is_empty(), "{program}: {missing:?}");
    for ours in [
        "secret-persistence",
        "secret-persistence-core",
        "secret-persistence-vault",
    ] {
        let ours = (ours.to_owned(), env!("CARGO_PKG_VERSION").to_owned());
        assert!(components.contains(&ours), "{program}: {ours:?}");
    }
    // The programs of the tests are in no release.
    let kit = components
        .iter()
        .find(|(name, _)| name == "e2e" || name == "proptest");
    assert_eq!(kit, None, "{program}");
}

/// Mistakes end with the status of mistakes, before anything is built.
#[test]
fn the_script_refuses_what_it_cannot_do() {
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let full = folder.path().join("full");
    fs::create_dir(&full).unwrap();
    fs::write(full.join("file"), "").unwrap();
    let made_of = folder.path().join("programs");
    programs(&made_of, Path::new("/bin/true"));
    let option = Path::new("--programs");
    for (arguments, said) in [
        (&[][..], "scripts/release FOLDER"),
        (&[Path::new("--else"), &empty], "scripts/release FOLDER"),
        (&[&empty, &empty], "scripts/release FOLDER"),
        (&[option], "has no program secret-migrate"),
        (&[option, &empty, &empty], "has no program secret-migrate"),
        (&[option, &made_of], "scripts/release FOLDER"),
        (&[option, &made_of, &full], "is not empty"),
    ] {
        let done = release(arguments);
        let errors = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(done.status.code(), Some(2), "{arguments:?}: {errors}");
        assert!(errors.contains(said), "{arguments:?}: {errors}");
    }
    assert_eq!(fs::read_dir(&empty).unwrap().count(), 0);
}
