//! How many requests a listing makes: one for all its pages, and one more wherever the kept names
//! are gone.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a failed set-up is a failed test"
)]

mod support;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use e2e::FaultProxy;
use futures::{StreamExt, TryStreamExt, stream};
use secret_persistence_core::{Cursor, ListOptions, Page, SecretPersistence, SecretPersistenceExt};
use secret_persistence_vault::Vault;
use serde_json::{Value, json};
use support::{Admin, Fake, looked_up, open, reply};

fn name(number: usize) -> String {
    format!("airbyte_workspace_7_secret_{number:05}_v1")
}

/// A fake Vault whose folder is this set of names.
async fn folder(names: impl IntoIterator<Item = String>) -> (Fake, Arc<Mutex<BTreeSet<String>>>) {
    let names = Arc::new(Mutex::new(names.into_iter().collect::<BTreeSet<_>>()));
    let listed = Arc::clone(&names);
    let fake = Fake::start(
        move |seen| match (seen.method.as_str(), seen.path.as_str()) {
            (_, "/v1/auth/token/lookup-self") => looked_up(),
            ("LIST", "/v1/secret/metadata") => {
                reply(200, json!({"data": {"keys": *listed.lock().unwrap()}}))
            }
            _ => reply(403, json!({"errors": []})),
        },
    )
    .await;
    (fake, names)
}

async fn at(fake: &Fake) -> Vault {
    open(&fake.address, &[("token", "t"), ("kv-version", "2")])
        .await
        .unwrap()
}

async fn page(store: &Vault, after: Option<&Cursor>) -> Page {
    let options = ListOptions::default().with_page_size(2);
    store.list_page(&options, after).await.unwrap()
}

fn names(page: &Page) -> Vec<&str> {
    let entries = page.entries.iter();
    entries.map(|entry| entry.coordinate.as_str()).collect()
}

async fn walk(store: &Vault, options: &ListOptions) -> Vec<String> {
    let names = store
        .list(options)
        .map_ok(|entry| entry.coordinate.as_str().to_owned());
    names.try_collect().await.unwrap()
}

/// With a request per page this would be 40 requests, each with all 20,000 names.
#[tokio::test]
async fn a_walk_over_20_000_names_is_one_request() {
    let all: Vec<String> = (0..20_000).map(name).collect();
    let (fake, _) = folder(all.clone()).await;
    let store = at(&fake).await;
    // What a limit counts for the first page. Those that follow need less.
    let first = store.list_page(&ListOptions::default(), None).await;
    assert!(first.unwrap().next.is_some());
    let least = store.capabilities().least.list as usize;
    assert_eq!(fake.count("LIST", ""), least);
    assert_eq!(walk(&store, &ListOptions::default()).await, all);
    assert_eq!(fake.count("LIST", ""), 2);
    let options = ListOptions::default().with_prefix("airbyte_workspace_7_secret_1");
    assert_eq!(walk(&store, &options).await, all[10_000..]);
    assert_eq!(fake.count("LIST", ""), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_walk_of_a_real_server_is_one_request() {
    let (Some(vault), Some(openbao)) = (Admin::from_env(), e2e::OpenBao::start_or_env().await)
    else {
        return;
    };
    let openbao = Admin::new(openbao.address(), openbao.root_token());
    for (admin, version, count) in [
        (&vault, 1, 2_000),
        (&vault, 2, 20_000),
        (&openbao, 1, 2_000),
        (&openbao, 2, 20_000),
    ] {
        let all: Vec<String> = (0..count).map(name).collect();
        let mount = admin.mount(version).await;
        let part = if version == 2 { "metadata/" } else { "" };
        stream::iter(&all)
            .for_each_concurrent(32, |name| {
                let path = format!("{mount}/{part}p/{name}");
                async move {
                    admin.must("POST", &path, json!({"max_versions": 1})).await;
                }
            })
            .await;
        let proxy = FaultProxy::builder(admin.address.as_str()).start().unwrap();
        let prefix = format!("{mount}/p/");
        let settings = [("prefix", prefix.as_str()), ("token", &admin.token)];
        let store = open(&proxy.url(), &settings).await.unwrap();
        let options = ListOptions::default().with_page_size(count / 40);
        assert_eq!(walk(&store, &options).await, all);
        assert_eq!(proxy.count("LIST *"), 1, "{:?}", proxy.counts());
    }
}

/// OpenBao cuts a listing to its `limit` before it filters: a page of two would be empty here, like
/// one after the last name.
#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_filters_listings_loses_no_name() {
    let Some(server) = e2e::OpenBao::start_or_env().await else {
        return;
    };
    let admin = Admin::new(server.address(), server.root_token());
    let mount = admin.mount(2).await;
    let mut hcl = format!(
        r#"path "auth/token/lookup-self" {{ capabilities = ["read"] }}
        path "{mount}/metadata/p" {{
            capabilities = ["list"]
            list_scan_response_keys_filter_path = "{{{{ .path }}}}{{{{ .key }}}}"
        }}"#
    );
    let visible = [name(0), name(7), name(8), name(9)];
    for number in 0..10 {
        let path = format!("{mount}/metadata/p/{}", name(number));
        admin.must("POST", &path, json!({"max_versions": 1})).await;
        if visible.contains(&name(number)) {
            hcl += &format!("\npath \"{path}\" {{ capabilities = [\"read\"] }}");
        }
    }
    let token = admin.token(&hcl, "1h").await;
    let raw = Admin::new(&admin.address, &token);
    let path = format!("{mount}/metadata/p?limit=2&after={}", name(0));
    assert_eq!(raw.request("LIST", &path, Value::Null).await.0, 404);
    let prefix = format!("{mount}/p/");
    let settings = [("prefix", prefix.as_str()), ("token", &token)];
    let store = open(&admin.address, &settings).await.unwrap();
    let options = ListOptions::default().with_page_size(2);
    assert_eq!(walk(&store, &options).await, visible);
}

/// A walk that continued with another's names would miss what was written before it began.
#[tokio::test]
async fn walks_at_the_same_time_do_not_share_names() {
    let (fake, stored) = folder((0..6).map(|number| name(2 * number))).await;
    let store = at(&fake).await;
    let early = page(&store, None).await;
    stored.lock().unwrap().insert(name(5));
    let late = page(&store.clone(), None).await;
    assert_eq!(names(&early), [name(0), name(2)]);
    assert_eq!(early.entries, late.entries);
    let next = |page: Page| page.next.unwrap();
    let (early, late) = (next(early), next(late));
    let late_page = page(&store, Some(&late)).await;
    assert_eq!(names(&late_page), [name(4), name(5)]);
    let early_page = page(&store, Some(&early)).await;
    assert_eq!(names(&early_page), [name(4), name(6)]);
    // A repeated request for a page gets the same page.
    assert_eq!(page(&store, Some(&late)).await, late_page);
    let last = page(&store, Some(&next(late_page))).await;
    assert_eq!(names(&last), [name(6), name(8)]);
    assert_eq!(fake.count("LIST", ""), 2);
}

#[tokio::test]
async fn a_walk_whose_names_are_gone_lists_the_folder_again() {
    let (fake, stored) = folder((0..6).map(name)).await;
    let first = page(&at(&fake).await, None).await;
    let cursor = first.next.unwrap();
    // Another process continues, and the last name of the first page has been deleted.
    stored.lock().unwrap().remove(&name(1));
    let another = at(&fake).await;
    let second = page(&another, Some(&cursor)).await;
    assert_eq!(names(&second), [name(2), name(3)]);
    assert_eq!(fake.count("LIST", ""), 2);
    // Its new names serve the rest, and end with it.
    let cursor = second.next.unwrap();
    for lists in [2, 3] {
        let third = page(&another, Some(&cursor)).await;
        assert_eq!(names(&third), [name(4), name(5)]);
        assert_eq!(third.next, None);
        assert_eq!(fake.count("LIST", ""), lists);
    }
}
