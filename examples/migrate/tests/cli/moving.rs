//! plan, copy, verify, rollback, retire: there and back.

use secret_persistence_core::{ManagedCoordinate, SecretPersistenceExt, SecretValue, Write};
use serde_json::json;
use uuid::Uuid;

use crate::lab::{Lab, names};

#[tokio::test]
async fn there_and_back_and_there_for_good() {
    let lab = Lab::with(30, 4).await;
    let plan = lab.moves("plan", &["--json"]).expect(0).json();
    assert_eq!(plan["tally"]["configurations"], 30);
    assert_eq!(plan["tally"]["secrets"], 120);
    lab.moves("copy", &["--dry-run"])
        .expect(0)
        .says("nothing was changed");
    assert_eq!(names(&lab.target().await).await.len(), 0);

    let copy = lab
        .moves("copy", &["--json", "--concurrency", "4"])
        .expect(0)
        .json();
    assert_eq!(copy["tally"]["written"], 120);
    lab.expect_moved().await;
    let verify = lab.moves("verify", &["--json"]).expect(0).json();
    assert_eq!(verify["tally"]["verified"], 120);
    assert_eq!(verify["tally"]["hydrated"], 30);
    // A delta has nothing to do.
    let again = lab.moves("copy", &["--json"]).expect(0).json();
    assert_eq!(again["tally"]["written"], 0);

    let back = lab.moves("rollback", &["--json"]).expect(0).json();
    assert_eq!(back["tally"]["deleted"], 120);
    assert_eq!(names(&lab.target().await).await.len(), 0);
    lab.expect_source_whole().await;

    lab.moves("copy", &[]).expect(0);
    lab.moves("verify", &[]).expect(0);
    lab.moves("retire", &[]).expect(3).says("--all-references");
    lab.expect_source_whole().await;
    let retired = lab
        .moves("retire", &["--all-references", "--json"])
        .expect(0)
        .json();
    assert_eq!(retired["tally"]["deleted"], 120);
    lab.expect_moved().await;
    assert_eq!(names(&lab.source().await).await.len(), 0);
}

#[tokio::test]
async fn verify_finds_what_the_target_lost_and_copy_repairs_it() {
    let lab = Lab::with(5, 2).await;
    lab.moves("copy", &[]).expect(0);
    let lost = lab.secrets.keys().next().unwrap();
    let target = lab.target().await;
    target.delete(lost, &Default::default()).await.unwrap();
    target.close().await;
    lab.moves("verify", &[]).expect(1).says("run copy again");
    lab.moves("copy", &[]).expect(0);
    lab.moves("verify", &[]).expect(0);
    lab.expect_moved().await;
}

#[tokio::test]
async fn what_shares_a_secret_gets_its_own_where_asked() {
    let mut lab = Lab::with(3, 1).await;
    lab.sql("UPDATE actor SET configuration = (SELECT configuration FROM actor WHERE id = 'connector-000000') WHERE id = 'connector-000001'").await;
    lab.moves("plan", &["--orphaned", "leave"])
        .expect(3)
        .says("in more than one configuration")
        .says("--unshare");
    lab.moves("copy", &["--orphaned", "leave"]).expect(3);
    lab.moves("copy", &["--orphaned", "leave", "--unshare"])
        .expect(0);
    lab.moves("verify", &["--orphaned", "leave", "--unshare"])
        .expect(0);
    let plan = lab
        .moves("plan", &["--orphaned", "leave", "--json"])
        .expect(0)
        .json();
    assert!(plan["findings"].get("shared").is_none(), "{plan}");
    lab.secrets.clear();
}

#[tokio::test]
async fn bare_coordinates_queries_and_json_lines_are_sources_too() {
    let lab = Lab::with(4, 1).await;
    lab.sql("CREATE TABLE bare (id INTEGER PRIMARY KEY, name TEXT)")
        .await;
    let mut lines = String::new();
    for (index, coordinate) in lab.secrets.keys().enumerate() {
        match index {
            0 => lab.sql(&format!("INSERT INTO bare VALUES (1, '{coordinate}'), (2, NULL)")).await,
            1 => lines.push_str(&format!(
                "{{\"id\":\"x\",\"baseId\":\"00000000-0000-0000-0000-000000000007\",\"configuration\":{{\"p\":{{\"_secret\":\"{coordinate}\"}}}}}}\n"
            )),
            _ => {}
        }
    }
    lab.write("c.jsonl", &lines);
    lab.write(
        "q.sql",
        "SELECT id, configuration FROM actor WHERE id > 'connector-000001' -- the rest;\n;",
    );
    let arguments = [
        "--configs",
        "sqlite:configurations.db?table=bare&id=id&coordinate=name",
        "--configs",
        "c.jsonl",
        "--configs",
        "sqlite:configurations.db?query-file=q.sql",
        "--json",
    ];
    let plan = lab.moves("plan", &arguments).expect(0).json();
    assert_eq!(plan["tally"]["secrets"], 4, "{plan}");
    assert_eq!(plan["tally"]["bare_coordinates"], 1, "{plan}");
    lab.moves("copy", &arguments).expect(0);
    lab.expect_moved().await;
}

#[tokio::test]
async fn references_are_resolved_by_the_table_that_says_so() {
    let lab = Lab::with(3, 1).await;
    let id = "0b5e0000-0000-0000-0000-00000000000a";
    let coordinate = lab.secrets.keys().next().unwrap();
    lab.sql(&format!(
        "UPDATE actor SET configuration = '{{\"secret0\":{{\"_secret_reference_id\":\"{id}\"}}}}' WHERE id = 'connector-000000'"
    ))
    .await;
    lab.sql("CREATE TABLE secret_reference (id TEXT, config TEXT)")
        .await;
    lab.sql("CREATE TABLE secret_config (id TEXT, external_coordinate TEXT)")
        .await;
    lab.sql(&format!(
        "INSERT INTO secret_reference VALUES ('{id}', 'c')"
    ))
    .await;
    lab.sql(&format!(
        "INSERT INTO secret_config VALUES ('c', '{coordinate}')"
    ))
    .await;
    lab.write(
        "references.sql",
        "SELECT r.id, c.external_coordinate AS coordinate FROM secret_reference r JOIN secret_config c ON c.id = r.config",
    );
    lab.moves("plan", &["--orphaned", "leave"])
        .expect(3)
        .says("connector-000000");
    let references = [
        "--references",
        "sqlite:configurations.db?query-file=references.sql",
    ];
    let plan = lab
        .moves("plan", &[&references[..], &["--json"]].concat())
        .expect(0)
        .json();
    assert_eq!(plan["tally"]["secrets"], 3, "{plan}");
    lab.moves("copy", &references).expect(0);
    lab.moves("verify", &references).expect(0);
    lab.expect_moved().await;
}

#[cfg(unix)]
#[tokio::test]
async fn an_interrupted_copy_says_how_to_go_on_and_does() {
    use std::io::{BufRead, BufReader};

    let lab = Lab::with(1000, 4).await;
    let arguments = lab.between("copy", &["--rate", "1", "--concurrency", "1"]);
    let mut child = lab
        .command(&arguments)
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    // At one request per second the copy takes longer than this.
    std::thread::sleep(std::time::Duration::from_millis(2500));
    let killed = std::process::Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(killed.unwrap().success());
    let told: Vec<String> = BufReader::new(child.stderr.take().unwrap())
        .lines()
        .map(Result::unwrap)
        .collect();
    let output = child.wait_with_output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(130), "{told:?} {stdout}");
    assert!(
        told.iter().any(|line| line.starts_with("stopping")),
        "{told:?}"
    );
    assert!(
        stdout.contains("the same command continues from there"),
        "{stdout}"
    );
    lab.moves("copy", &[]).expect(0);
    lab.expect_moved().await;
}

/// Killed between two pages, a second page of a small page must not skip or repeat rows whatever
/// type the ids have.
#[tokio::test]
async fn ids_of_any_type_are_read_once_each() {
    let lab = Lab::with(1, 1).await;
    lab.sql("CREATE TABLE odd (id, configuration TEXT)").await;
    lab.sql(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1300) \
         INSERT INTO odd SELECT CASE i % 3 WHEN 0 THEN i WHEN 1 THEN 'text-' || i ELSE i + 0.5 END, '{}' FROM n",
    )
    .await;
    let odd = "sqlite:configurations.db?table=odd&id=id&configuration=configuration";
    let plan = lab.moves("plan", &["--configs", odd, "--orphaned", "leave", "--json"]);
    assert_eq!(plan.expect(0).json()["tally"]["configurations"], 1300);
}

#[tokio::test]
async fn conflicts_stop_and_nothing_is_overwritten() {
    let lab = Lab::with(2, 1).await;
    let name: &ManagedCoordinate = lab.secrets.keys().next().unwrap();
    let target = lab.target().await;
    let other = Write::new(name.clone(), SecretValue::new("somebody else's".into()));
    target.write(other).await.unwrap();
    target.close().await;
    let ran = lab.moves("copy", &[]);
    assert!([1, 3].contains(&ran.status), "{ran:?}");
    let target = lab.target().await;
    let kept = target.read(&name.clone().into()).await.unwrap();
    assert_eq!(kept.value.expose(), "somebody else's");
}

#[tokio::test]
async fn one_workspace_is_moved_with_a_journal_of_its_own() {
    let lab = Lab::with(3, 2).await;
    // The last connector is another tenant's, whatever the names of its secrets say.
    let (ours, theirs) = (
        Uuid::from_u128(7).to_string(),
        Uuid::from_u128(8).to_string(),
    );
    lab.sql(&format!(
        "UPDATE actor SET workspace_id = '{theirs}' WHERE id = 'connector-000002'"
    ))
    .await;
    let of_theirs = ["--workspace", &theirs, "--other-scope", "keep"];
    let of_ours = ["--workspace", &ours, "--other-scope", "keep"];
    let plan = lab
        .moves("plan", &[&of_theirs[..], &["--json"]].concat())
        .expect(0)
        .json();
    assert_eq!(plan["tally"]["configurations"], 1);
    assert_eq!(plan["run"]["workspaces"], json!([theirs]));
    lab.moves("copy", &of_theirs)
        .expect(0)
        .says("only workspace");
    let target = lab.target().await;
    assert_eq!(names(&target).await.len(), 2);
    lab.moves("verify", &of_theirs).expect(0);
    // Neither another choice nor none may go on with this journal.
    for command in ["copy", "verify", "rollback"] {
        lab.moves(command, &of_ours).expect(2).says("another run");
        lab.moves(command, &["--other-scope", "keep"])
            .expect(2)
            .says("another run");
    }
    assert_eq!(names(&target).await.len(), 2);
    lab.moves("rollback", &of_theirs).expect(0);
    assert_eq!(names(&target).await.len(), 0);
    target.close().await;
    lab.expect_source_whole().await;
}
