//! A disk that is full: nothing is half recorded, and what a caller was told is true.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::program::{Program, everything};
use crate::world::{name, specification, workspace};

/// A file system of a few megabytes in memory, which only root may make.
struct Disk(PathBuf);

impl Disk {
    fn mount(at: &Path) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=2m,mode=0700", "tmpfs"])
            .arg(at)
            .output()
            .is_ok_and(|output| output.status.success());
        mounted.then(|| Self(at.to_owned()))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[tokio::test]
async fn a_full_disk_loses_nothing_that_was_told() {
    let folder = tempfile::tempdir().unwrap();
    let Some(_disk) = Disk::mount(&folder.path().join("data")) else {
        let mut report = std::io::stderr();
        let text = "SKIPPED a full disk: only root mounts a small one\n";
        let _ = std::io::Write::write_all(&mut report, text.as_bytes());
        return;
    };
    let token = everything(folder.path());
    let ballast = folder.path().join("data").join("ballast");
    std::fs::write(&ballast, vec![0; 700 << 10]).unwrap();
    let gateway = Program::start(folder.path(), &[]);
    what_was_told_is_true(folder.path(), &token, gateway, || {
        std::fs::remove_file(&ballast).unwrap();
    })
    .await;
}

/// The same where a quota lets no file grow, which needs no rights to set up.
#[tokio::test]
async fn a_quota_loses_nothing_that_was_told() {
    let folder = tempfile::tempdir().unwrap();
    let token = everything(folder.path());
    let gateway = Program::start_with_quota(folder.path(), 1200);
    what_was_told_is_true(folder.path(), &token, gateway, || ()).await;
}

/// Fills the gateway until it refuses, starts it again where there is room, and compares.
async fn what_was_told_is_true(
    folder: &Path,
    token: &str,
    gateway: Program,
    make_room: impl FnOnce(),
) {
    let client = reqwest::Client::new();
    let post = |path: String, body: Value| {
        let sent = client
            .post(format!("{}{path}", gateway.base))
            .header("x-vault-token", token)
            .header("content-type", "application/json")
            .body(body.to_string());
        async move {
            let answer = sent.send().await.unwrap();
            let status = answer.status().as_u16();
            let body: Value =
                serde_json::from_str(&answer.text().await.unwrap()).unwrap_or_default();
            (status, body)
        }
    };

    // Secrets and changes until neither can be recorded.
    let (mut told, mut made) = (Vec::new(), Vec::new());
    let mut refused = 0;
    for secret in 0..2_000 {
        let (name, value) = (
            name(1, secret),
            format!("{}{}", Uuid::new_v4(), "x".repeat(4_000)),
        );
        let (status, body) = post(
            format!("/v1/secret/data/{name}"),
            json!({"data": {"value": value}}),
        )
        .await;
        match status {
            200 => told.push((name, value)),
            _ => {
                assert!(status >= 500, "{status} {body}");
                refused += 1;
            }
        }
        let (status, body) = post(
            "/api/v1/changes".to_owned(),
            json!({
                "kind": "create", "specification": specification(), "scope": workspace(2),
                "edited": {"host": "h".repeat(2_000), "password": Uuid::new_v4().to_string()},
            }),
        )
        .await;
        match status {
            201 => made.push(body),
            _ => assert!(status >= 500, "{status} {body}"),
        }
        if refused > 3 && status != 201 {
            break;
        }
    }
    assert!(
        refused > 3 && told.len() > 10 && made.len() > 10,
        "{refused}"
    );

    // There is room again, and a new process.
    gateway.kill();
    make_room();
    let gateway = Program::start(folder, &[]);
    let get = |path: String| {
        let sent = client
            .get(format!("{}{path}", gateway.base))
            .header("x-vault-token", token);
        async move {
            let answer = sent.send().await.unwrap();
            serde_json::from_str::<Value>(&answer.text().await.unwrap()).unwrap()
        }
    };
    for (name, value) in &told {
        let read = get(format!("/v1/secret/data/{name}")).await;
        assert_eq!(read["data"]["data"]["value"], value.as_str());
    }
    // Exactly the changes that callers were told are open, each as it was told.
    let mut open = Vec::new();
    let mut next = String::new();
    loop {
        let page = get(format!("/api/v1/changes?state=open&limit=500{next}")).await;
        open.extend(
            page["changes"]
                .as_array()
                .unwrap()
                .iter()
                .map(|change| change["id"].clone()),
        );
        match page["next"].as_str() {
            Some(after) => next = format!("&after={after}"),
            None => break,
        }
    }
    for change in &made {
        assert!(open.contains(&change["id"]), "{change}");
        let kept = get(format!(
            "/api/v1/changes/{}",
            change["id"].as_str().unwrap()
        ))
        .await;
        assert_eq!(kept["configuration"], change["configuration"]);
    }
    // One whose answer failed after it was recorded may be open beside them; its caller settles it.
    assert!(
        open.len() <= made.len() + 1,
        "{} of {}",
        open.len(),
        made.len()
    );
    let sent = client
        .post(format!("{}/v1/secret/data/{}", gateway.base, name(3, 1)))
        .header("x-vault-token", token)
        .body(json!({"data": {"value": "there is room again"}}).to_string());
    assert_eq!(sent.send().await.unwrap().status(), 200);
}
