//! The conformance suite with a real Vault: both versions of the engine, every form of prefix, and
//! the minimal policy.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a failed set-up is a failed test"
)]

mod support;

use std::sync::Arc;

use secret_persistence_core::conformance::{self, Options, Outsider};
use secret_persistence_core::{
    Coordinate, ErrorKind, ManagedCoordinate, Owner, SecretPersistence, SecretPersistenceExt,
    SecretValue, Timestamp, Write, Written,
};
use secret_persistence_vault::{PolicyOptions, policy};
use serde_json::{Value, json};
use support::Admin;

/// Stores secrets like another client: with the administrator's token, at the path itself.
#[derive(Debug)]
struct SomebodyElse {
    admin: Admin,
    folder: String,
    two: bool,
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Admin")
    }
}

impl SomebodyElse {
    fn path(&self, part: &str, name: &str) -> String {
        let (mount, rest) = self.folder.split_once('/').unwrap();
        let part = if self.two {
            format!("{part}/")
        } else {
            String::new()
        };
        format!("{mount}/{part}{rest}{name}")
    }
}

#[async_trait::async_trait]
impl Outsider for SomebodyElse {
    async fn insert(
        &self,
        name: &str,
        value: &SecretValue,
    ) -> secret_persistence_core::Result<Coordinate> {
        let fields = json!({"value": value.expose()});
        let body = if self.two {
            json!({"data": fields})
        } else {
            fields
        };
        self.admin
            .must("POST", &self.path("data", name), body)
            .await;
        Coordinate::parse(name)
    }

    async fn remove(&self, coordinate: &Coordinate) -> secret_persistence_core::Result<()> {
        self.admin
            .must(
                "DELETE",
                &self.path("metadata", coordinate.as_str()),
                Value::Null,
            )
            .await;
        Ok(())
    }
}

async fn conforms(admin: &Admin, version: u8, rest: &str, more: &[(&str, &str)]) {
    let mount = admin.mount(version).await;
    let prefix = format!("{mount}/{rest}");
    let settings = [&[("prefix", prefix.as_str())], more].concat();
    let store: Arc<dyn SecretPersistence> = Arc::new(admin.open(&settings).await.unwrap());
    assert_eq!(store.capabilities().atomic_create, version == 2);
    let outsider = SomebodyElse {
        admin: admin.clone(),
        folder: prefix,
        two: version == 2,
    };
    let mut options = Options::default().with_outsider(Arc::new(outsider));
    if let Some((_, owner)) = more.iter().find(|(name, _)| *name == "owner") {
        options = options.with_owner(Owner::parse(owner).unwrap());
    }
    let report = conformance::run(&store, &options).await;
    println!("{report}");
    report.assert_passed();
}

#[tokio::test(flavor = "multi_thread")]
async fn version_2_keeps_every_promise() {
    let Some(admin) = Admin::from_env() else {
        return;
    };
    conforms(&admin, 2, "", &[("owner", "tests")]).await;
    conforms(&admin, 2, "airbyte/", &[("kv-version", "2")]).await;
    // As Airbyte joins them: without a slash between prefix and name.
    conforms(&admin, 2, "a/joined", &[]).await;
}

/// OpenBao is a fork of Vault: the same API, by now implemented by others.
#[tokio::test(flavor = "multi_thread")]
async fn openbao_keeps_every_promise() {
    let Some(server) = e2e::OpenBao::start_or_env().await else {
        return;
    };
    let admin = Admin::new(server.address(), server.root_token());
    for version in [1, 2] {
        conforms(&admin, version, "airbyte/", &[("owner", "tests")]).await;
    }
    let settings = [("prefix", "secret/"), ("token", "nonsense")];
    let error = admin.open(&settings).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn version_1_keeps_every_promise_but_those_it_has_no_room_for() {
    let Some(admin) = Admin::from_env() else {
        return;
    };
    conforms(&admin, 1, "", &[("owner", "tests")]).await;
    conforms(&admin, 1, "a/b/", &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_least_policy_is_enough() {
    let Some(admin) = Admin::from_env() else {
        return;
    };
    for version in [1, 2] {
        let mount = admin.mount(version).await;
        let prefix = format!("{mount}/airbyte/");
        let hcl = policy(&PolicyOptions::new(&prefix).with_kv_version(Some(version))).unwrap();
        let token = admin.token(&hcl, "1h").await;
        let settings = [
            ("prefix", prefix.as_str()),
            ("token", &token),
            ("owner", "tests"),
        ];
        let store: Arc<dyn SecretPersistence> = Arc::new(admin.open(&settings).await.unwrap());
        let report = conformance::run(&store, &Options::default()).await;
        println!("{report}");
        report.assert_passed();
    }
}

/// Everything that the policy's lines are for. Returns the first failure, if any.
async fn battery(admin: &Admin, mount: &str, version: u8, hcl: &str) -> Result<(), String> {
    let id = uuid::Uuid::new_v4();
    let coordinate =
        |name: &str| ManagedCoordinate::parse(&format!("airbyte_{name}-{id}_secret_x_v1")).unwrap();
    let write = |name: &str| {
        let write = Write::new(coordinate(name), SecretValue::new("value".into()));
        let expires = (version == 2)
            .then(|| Timestamp::now().saturating_add(std::time::Duration::from_secs(9)));
        write.with_expires(expires)
    };
    let token = admin.token(hcl, "3s").await;
    let prefix = format!("{mount}/p/");
    let failed = |what: &'static str| {
        move |error: secret_persistence_core::Error| format!("{what}: {error}")
    };
    let store = admin
        .open(&[("prefix", &prefix), ("token", &token)])
        .await
        .map_err(failed("open"))?;
    let a = write("a");
    store.write(a.clone()).await.map_err(failed("write"))?;
    if store
        .write(a.clone())
        .await
        .map_err(failed("write again"))?
        != Written::AlreadySame
    {
        return Err("a second write was not recognised".into());
    }
    store
        .read(&a.coordinate.clone().into())
        .await
        .map_err(failed("read"))?;
    store
        .describe(&a.coordinate)
        .await
        .map_err(failed("describe"))?;
    store
        .write(Write::new(
            coordinate("c"),
            SecretValue::new("value".into()),
        ))
        .await
        .map_err(failed("write without expiry"))?;
    if version == 2 {
        let unfinished = write("b");
        let path = format!("{mount}/metadata/p/{}", unfinished.coordinate);
        admin
            .must(
                "POST",
                &path,
                json!({"custom_metadata": {"airbyte-owner": "x"}}),
            )
            .await;
        store
            .write(unfinished)
            .await
            .map_err(failed("finish a write"))?;
        admin
            .must(
                "DELETE",
                &format!("{mount}/data/p/{}", a.coordinate),
                Value::Null,
            )
            .await;
        store
            .restore(&a.coordinate)
            .await
            .map_err(failed("restore"))?;
    }
    let page = store
        .list_page(&Default::default(), None)
        .await
        .map_err(failed("list"))?;
    if !page
        .entries
        .iter()
        .any(|entry| entry.coordinate == a.coordinate)
    {
        return Err("list: the name is missing".into());
    }
    store
        .delete(&a.coordinate, &Default::default())
        .await
        .map_err(failed("delete"))?;
    let identity = store.identity().await.map_err(failed("identity"))?;
    if identity
        .principal
        .contains("without permission to look itself up")
    {
        return Err("identity: unknown".into());
    }
    tokio::time::sleep(std::time::Duration::from_millis(4500)).await;
    match store.read(&a.coordinate.clone().into()).await {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        outcome => Err(format!("the token was not renewed: {outcome:?}")),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_line_of_the_least_policy_is_needed() {
    let Some(admin) = Admin::from_env() else {
        return;
    };
    for version in [1, 2] {
        let mount = admin.mount(version).await;
        let whole =
            policy(&PolicyOptions::new(format!("{mount}/p/")).with_kv_version(Some(version)))
                .unwrap();
        battery(&admin, &mount, version, &whole).await.unwrap();
        // Without each capability of each path.
        let mut lesser = Vec::new();
        for (number, line) in whole
            .lines()
            .enumerate()
            .filter(|(_, line)| line.contains("capabilities"))
        {
            for capability in line.split('"').skip(1).step_by(2) {
                let without = line
                    .replace(&format!("\"{capability}\""), "")
                    .replace("[,", "[")
                    .replace(", ,", ",")
                    .replace(", ]", "]");
                let hcl: Vec<&str> = whole
                    .lines()
                    .enumerate()
                    .map(|(at, text)| if at == number { without.as_str() } else { text })
                    .collect();
                lesser.push((format!("{capability} in line {number}"), hcl.join("\n")));
            }
        }
        assert!(lesser.len() >= 6, "{}", lesser.len());
        let outcomes = futures::future::join_all(
            lesser
                .iter()
                .map(|(_, hcl)| battery(&admin, &mount, version, hcl)),
        )
        .await;
        for ((what, _), outcome) in lesser.iter().zip(outcomes) {
            println!("without {what}: {outcome:?}");
            assert!(outcome.is_err(), "nothing needs {what}\n{whole}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conflicting_write_leaves_the_owner_and_expiry_of_what_is_there() {
    let Some(admin) = Admin::from_env() else {
        return;
    };
    let mount = admin.mount(2).await;
    let prefix = format!("{mount}/");
    let coordinate = ManagedCoordinate::parse("airbyte_w_secret_x_v1").unwrap();
    let write = |value: &str| Write::new(coordinate.clone(), SecretValue::new(value.into()));
    let production = admin
        .open(&[("prefix", &prefix), ("owner", "production")])
        .await
        .unwrap();
    let staging = admin
        .open(&[("prefix", &prefix), ("owner", "staging")])
        .await
        .unwrap();
    production.write(write("value")).await.unwrap();
    // A staging system that was restored from production's backup writes the same values. Otherwise
    // it would become their owner, and delete production's secrets.
    assert_eq!(
        staging.write(write("value")).await.unwrap(),
        Written::AlreadySame
    );
    assert_eq!(
        staging.write(write("other")).await.unwrap_err().kind(),
        ErrorKind::AlreadyExists
    );
    let entry = staging.describe(&coordinate).await.unwrap();
    assert_eq!(entry.owner.as_deref(), Some("production"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unfinished_write_is_completed_by_the_next_or_removed() {
    let Some(admin) = Admin::from_env() else {
        return;
    };
    let mount = admin.mount(2).await;
    let store = admin
        .open(&[("prefix", &format!("{mount}/")), ("owner", "tests")])
        .await
        .unwrap();
    let coordinate = ManagedCoordinate::parse("airbyte_w_secret_x_v1").unwrap();
    let unfinished = json!({"custom_metadata": {
        "airbyte-owner": "tests", "airbyte-expires": "2020-01-01T00:00:00Z"}});
    let path = format!("{mount}/metadata/{coordinate}");
    admin.must("POST", &path, unfinished.clone()).await;
    let kind = |error: secret_persistence_core::Error| error.kind();
    let read = || async { store.read(&coordinate.clone().into()).await.map_err(kind) };
    assert_eq!(read().await.unwrap_err(), ErrorKind::NotFound);
    assert_eq!(
        store.describe(&coordinate).await.map_err(kind).unwrap_err(),
        ErrorKind::NotFound
    );
    // The sweeper finds it, because its expiry was written first.
    let swept = store.sweep(Timestamp::now(), Some("tests")).await.unwrap();
    assert_eq!(swept.deleted, std::slice::from_ref(&coordinate));
    assert_eq!(admin.request("GET", &path, Value::Null).await.0, 404);
    admin.must("POST", &path, unfinished).await;
    let write = Write::new(coordinate.clone(), SecretValue::new("value".into()));
    assert_eq!(store.write(write).await.unwrap(), Written::Created);
    assert_eq!(store.describe(&coordinate).await.unwrap().expires, None);
    assert_eq!(read().await.unwrap().value.expose(), "value");
}

#[tokio::test(flavor = "multi_thread")]
async fn soft_deleted_and_destroyed_secrets_are_told_from_missing_ones() {
    let Some(admin) = Admin::from_env() else {
        return;
    };
    let mount = admin.mount(2).await;
    let store = admin
        .open(&[("prefix", &format!("{mount}/"))])
        .await
        .unwrap();
    let coordinate = ManagedCoordinate::parse("airbyte_w_secret_x_v1").unwrap();
    let write = Write::new(coordinate.clone(), SecretValue::new("value".into()));
    store.write(write.clone()).await.unwrap();
    admin
        .must("DELETE", &format!("{mount}/data/{coordinate}"), Value::Null)
        .await;
    for error in [
        store.read(&coordinate.clone().into()).await.unwrap_err(),
        store.write(write.clone()).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::PendingDeletion);
        assert!(error.hint().unwrap().contains("undelete"));
    }
    assert!(store.describe(&coordinate).await.unwrap().pending_deletion);
    store.restore(&coordinate).await.unwrap();
    assert_eq!(
        store
            .read(&coordinate.clone().into())
            .await
            .unwrap()
            .value
            .expose(),
        "value"
    );
    store.restore(&coordinate).await.unwrap();
    admin
        .must(
            "PUT",
            &format!("{mount}/destroy/{coordinate}"),
            json!({"versions": [1]}),
        )
        .await;
    let gone = store.read(&coordinate.clone().into()).await.unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NotFound);
    assert_eq!(
        store.restore(&coordinate).await.unwrap_err().kind(),
        ErrorKind::NotFound
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn external_names_choose_a_field_and_text_is_required() {
    let Some(admin) = Admin::from_env() else {
        return;
    };
    for version in [1, 2] {
        let mount = admin.mount(version).await;
        let store = admin
            .open(&[("prefix", &format!("{mount}/"))])
            .await
            .unwrap();
        let fields =
            json!({"value": "v", "user name": "u", "port": 5432, "list": [1], "map": {"a": {}}});
        let (part, body) = if version == 2 {
            ("data/", json!({"data": fields}))
        } else {
            ("", fields)
        };
        admin
            .must("POST", &format!("{mount}/{part}team/db"), body)
            .await;
        let read = |name: &str| {
            let (store, name) = (store.clone(), Coordinate::parse(name).unwrap());
            async move {
                store
                    .read(&name)
                    .await
                    .map(|read| read.value.expose().to_owned())
            }
        };
        assert_eq!(read("team/db").await.unwrap(), "v");
        assert_eq!(read("team/db#user name").await.unwrap(), "u");
        for field in ["port", "list", "map"] {
            let error = read(&format!("team/db#{field}")).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        }
        for name in ["team/db#none", "team/other"] {
            assert_eq!(read(name).await.unwrap_err().kind(), ErrorKind::NotFound);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mounts_of_several_parts_are_found_by_asking() {
    let Some(admin) = Admin::from_env() else {
        return;
    };
    let mount = format!("deep-{}/er", uuid::Uuid::new_v4());
    let body = json!({"type": "kv", "options": {"version": "1"}});
    admin
        .must("POST", &format!("sys/mounts/{mount}"), body)
        .await;
    let write = Write::new(
        ManagedCoordinate::parse("airbyte_w_secret_x_v1").unwrap(),
        SecretValue::new("value".into()),
    );
    let joined = admin
        .open(&[("prefix", &format!("{mount}/p/"))])
        .await
        .unwrap();
    let apart = admin
        .open(&[("mount", &mount), ("prefix", "p/")])
        .await
        .unwrap();
    assert_eq!(joined.write(write.clone()).await.unwrap(), Written::Created);
    assert_eq!(apart.write(write).await.unwrap(), Written::AlreadySame);
    assert!(joined.to_string().ends_with(&format!("/{mount}/p/")));
}
