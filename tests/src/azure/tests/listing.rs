//! Pages, and what is in them.

use std::time::Duration;

use serde_json::Value;

use super::{Setup, answer};

/// The names on all pages from here on, and how many entries each page had.
async fn walk(setup: &Setup, path: &str) -> (Vec<String>, Vec<usize>) {
    let mut url = format!("{}{path}", setup.azure.vault_url());
    let (mut names, mut sizes) = (Vec::new(), Vec::new());
    loop {
        let page = answer(setup.client.get(&url).bearer_auth(&setup.token))
            .await
            .ok();
        let entries = page["value"].as_array().unwrap();
        sizes.push(entries.len());
        for entry in entries {
            let id = entry["id"].as_str().unwrap();
            names.push(id.rsplit_once('/').unwrap().1.to_owned());
        }
        match &page["nextLink"] {
            Value::String(next) => url.clone_from(next),
            _ => return (names, sizes),
        }
    }
}

async fn seeded(number: usize) -> Setup {
    let setup = Setup::new().await;
    for at in 0..number {
        setup.seed(&format!("secret-{at:02}")).await;
    }
    setup
}

fn expected(number: usize) -> Vec<String> {
    (0..number).map(|at| format!("secret-{at:02}")).collect()
}

#[tokio::test]
async fn a_page_has_25_entries_at_most() {
    let setup = seeded(53).await;
    let (names, sizes) = walk(&setup, "/secrets?api-version=7.6").await;
    assert_eq!(names, expected(53));
    assert_eq!(sizes, [25, 25, 3]);
    let (names, sizes) = walk(&setup, "/secrets?api-version=7.6&maxresults=20").await;
    assert_eq!(names, expected(53));
    assert_eq!(sizes, [20, 20, 13]);
    for number in ["0", "26", "many"] {
        let refused = setup
            .get(&format!("/secrets?api-version=7.6&maxresults={number}"))
            .await;
        assert_eq!(refused.refusal(), (400, "BadParameter", None));
    }
    let refused = setup
        .get("/secrets?api-version=7.6&$skiptoken=nonsense")
        .await;
    assert_eq!(refused.refusal(), (400, "BadParameter", None));
}

#[tokio::test]
async fn a_page_may_be_empty_though_another_one_follows() {
    let setup = seeded(5).await;
    setup
        .azure
        .switches(|switches| switches.sparse_pages = true);
    let (names, sizes) = walk(&setup, "/secrets?api-version=7.6&maxresults=3").await;
    assert_eq!(names, expected(5));
    assert_eq!(sizes, [0, 3, 0, 2]);
}

#[tokio::test]
async fn versions_and_deleted_secrets_are_paged_too() {
    let setup = seeded(4).await;
    setup
        .azure
        .switches(|switches| switches.deleting = Duration::ZERO);
    for _ in 0..3 {
        setup.seed("secret-00").await;
    }
    let path = "/secrets/secret-00/versions?api-version=7.6&maxresults=3";
    let (versions, sizes) = walk(&setup, path).await;
    assert_eq!(sizes, [3, 1]);
    assert!(versions.is_sorted());

    for name in expected(3) {
        setup.delete(&format!("/secrets/{name}")).await.ok();
    }
    let path = "/deletedsecrets?api-version=7.6&maxresults=2";
    let (names, sizes) = walk(&setup, path).await;
    assert_eq!(names, expected(3));
    assert_eq!(sizes, [2, 1]);
    assert_eq!(
        walk(&setup, "/secrets?api-version=7.6").await.0,
        ["secret-03"]
    );
}

#[tokio::test]
async fn listings_lag_and_reads_do_not() {
    let setup = Setup::new().await;
    setup.seed("old").await;
    setup
        .azure
        .switches(|switches| switches.list_lag = Duration::from_millis(300));
    setup.seed("new").await;
    setup.delete("/secrets/old").await.ok();

    setup.get("/secrets/new").await.ok();
    assert_eq!(setup.get("/secrets/old").await.status, 404);
    assert_eq!(walk(&setup, "/secrets?api-version=7.6").await.0, ["old"]);
    tokio::time::sleep(Duration::from_millis(350)).await;
    assert_eq!(walk(&setup, "/secrets?api-version=7.6").await.0, ["new"]);
}
