//! What a refresh does to the caller's own rows.

use secret_persistence_core::ErrorKind;

use super::*;

/// Not what a parser would print: long numbers, deep nesting, spaces, a member twice.
fn text(pointers: [&str; 2]) -> String {
    let deep = format!("{}1{}", "[".repeat(200), "]".repeat(200));
    let [refresh, access] = pointers;
    format!(
        "{{ \"z\": 12345678901234567890123456789.50,\n  \"deep\":{deep},\t\"pi\": \
         3.14159265358979323846264338327950288, \"twice\": 1, \"twice\": 1.0, \"credentials\" : \
         {{\"access_token\": {access} , \"refresh_token\":{refresh}}} }}"
    )
}

fn pointers_of(text: &str) -> [String; 2] {
    let mut parser = serde_json::Deserializer::from_str(text);
    parser.disable_recursion_limit();
    let config: Value = serde::Deserialize::deserialize(&mut parser).unwrap();
    places().map(|place| place.find(&config).unwrap().to_string())
}

impl Scene {
    /// A connector with an expired token, and the row that it was hydrated from.
    async fn expired(&self, id: &str) -> Value {
        self.log_in(id).await;
        self.provider.expire(id);
        self.world.row(id).await
    }

    async fn text(&self, id: &str) -> String {
        self.world.rows.read(id).await.unwrap().unwrap().1
    }

    /// With the table as it is now.
    async fn reopened(&self) -> World {
        let variable = |name: &str| match name {
            "CHILD_PORT" => Some(self.provider.port.to_string()),
            name => {
                let mut variables = self.variables.iter();
                let found = variables.find(|(known, _)| *known == name);
                found.map(|(_, value)| value.clone())
            }
        };
        World::open(&self.url, &variable, Points::new(usize::MAX)).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_save_changes_nothing_but_the_places() {
    for place in Place::all("a_save_changes_nothing_but_the_places").await {
        let kinds: &[&str] = match place {
            Place::Sqlite(_) => &["TEXT"],
            #[cfg(feature = "postgres")]
            Place::Postgres(_) => &["TEXT", "json", "jsonb"],
        };
        let scene = Scene::new(place, u64::MAX).await;
        for kind in kinds {
            let change = format!(
                "ALTER TABLE connectors ALTER COLUMN configuration TYPE {kind} \
                 USING CAST(configuration AS {kind})"
            );
            if *kind != "TEXT" {
                scene.raw.run(&change).await.unwrap();
            }
            let world = scene.reopened().await;
            let id = format!("in-{kind}");
            let seen = scene.expired(&id).await;
            let old = pointers_of(&seen.to_string());
            let row = text([&old[0], &old[1]]);
            let update = format!("UPDATE connectors SET configuration = '{row}' WHERE id = '{id}'");
            scene.raw.run(&update).await.unwrap();
            let refreshed = world.refresh(&id, &seen, Points::new(usize::MAX)).await;
            assert!(refreshed.unwrap().ours);
            let saved = scene.text(&id).await;
            let new = pointers_of(&saved);
            assert_ne!(new, old);
            let expected = text([&new[0], &new[1]]);
            if *kind == "jsonb" {
                // Postgres has numbers of any length, and its own spaces and order.
                let same = format!(
                    "SELECT count(*) FROM connectors WHERE id = '{id}' \
                     AND configuration = CAST('{expected}' AS jsonb)"
                );
                assert_eq!(scene.raw.number(&same).await, 1);
                assert!(
                    saved.contains("12345678901234567890123456789.50"),
                    "{saved}"
                );
            } else {
                assert_eq!(saved, expected, "{kind}");
            }
            assert!(scene.works(&id).await);
            world.store.close().await;
        }
        scene.nothing_is_left().await;
        scene.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_refuses_updates_costs_no_second_exchange() {
    for place in Place::all("a_table_that_refuses_updates").await {
        // One trigger drops the update without a word, the other one fails it.
        let refusals: [&[&str]; 2] = match place {
            Place::Sqlite(_) => [
                &[
                    "CREATE TRIGGER refuses BEFORE UPDATE ON connectors BEGIN SELECT RAISE(IGNORE); END",
                ],
                &[
                    "CREATE TRIGGER refuses BEFORE UPDATE ON connectors BEGIN SELECT RAISE(ABORT, 'no'); END",
                ],
            ],
            #[cfg(feature = "postgres")]
            Place::Postgres(_) => [
                &[
                    "CREATE FUNCTION ignores() RETURNS trigger LANGUAGE plpgsql AS \
                     'BEGIN RETURN NULL; END'",
                    "CREATE TRIGGER refuses BEFORE UPDATE ON connectors FOR EACH ROW \
                     EXECUTE FUNCTION ignores()",
                ],
                &[
                    "CREATE FUNCTION aborts() RETURNS trigger LANGUAGE plpgsql AS \
                     'BEGIN RAISE EXCEPTION ''no''; END'",
                    "CREATE TRIGGER refuses BEFORE UPDATE ON connectors FOR EACH ROW \
                     EXECUTE FUNCTION aborts()",
                ],
            ],
        };
        let drop = match place {
            Place::Sqlite(_) => "DROP TRIGGER refuses",
            #[cfg(feature = "postgres")]
            Place::Postgres(_) => "DROP TRIGGER refuses ON connectors",
        };
        let scene = Scene::new(place, u64::MAX).await;
        for (id, statements) in ["silent", "loud"].into_iter().zip(refusals) {
            let seen = scene.expired(id).await;
            for statement in statements {
                scene.raw.run(statement).await.unwrap();
            }
            for _ in 0..2 {
                let points = Points::new(usize::MAX);
                let refused = scene.world.refresh(id, &seen, points).await;
                match refused {
                    Err(RefreshError::Unsaved) => assert_eq!(id, "silent"),
                    Err(RefreshError::Rows(_)) => assert_eq!(id, "loud"),
                    other => panic!("{id}: {other:?}"),
                }
                assert_eq!(scene.provider.grant(id).used.len(), 1, "{id}");
                scene.let_leases_expire().await;
            }
            scene.raw.run(drop).await.unwrap();
            let healed = scene.world.secrets.heal_refreshes(&scene.world.rows).await;
            assert_eq!(healed.unwrap().adopted, [id]);
            assert!(scene.works(id).await);
            assert_eq!(scene.provider.grant(id).used.len(), 1, "{id}");
        }
        scene.nothing_is_left().await;
        scene.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_newer_version_wrote_is_named_and_holds_nothing_else_up() {
    for place in Place::all("what_a_newer_version_wrote").await {
        let scene = Scene::new(place, u64::MAX).await;
        let (world, raw) = (&scene.world, &scene.raw);
        let row = scene.expired("row").await;
        let newer = r#"{"format": "3", "planned": "hunter2"}"#;
        for statement in [
            format!("INSERT INTO secret_refreshes VALUES ('row', 7, 0, '{newer}')"),
            format!(
                "INSERT INTO secret_refresh_outbox VALUES \
                 ('00000000-0000-0000-0000-00000000000a', '{newer}', 'saved')"
            ),
            format!("INSERT INTO secret_refresh_outbox VALUES ('hunter2', '{newer}', 'saved')"),
        ] {
            raw.run(&statement).await.unwrap();
        }
        // An entry that is readable, after them.
        let other = scene.expired("other").await;
        let refreshed = world.refresh("other", &other, Points::new(usize::MAX));
        assert!(refreshed.await.unwrap().ours);
        raw.run(
            "INSERT INTO secret_refresh_outbox VALUES \
             ('ffffffff-0000-0000-0000-00000000000b', '{\"format\":\"1\",\
             \"planned\":\"2026-11-21T06:47:53Z\",\"writes\":[],\"supersedes\":[]}', 'saved')",
        )
        .await
        .unwrap();
        // Each time, not only the first one: the lease stays free, so that the cause is seen.
        for _ in 0..2 {
            let refused = world.refresh("row", &row, Points::new(usize::MAX)).await;
            let Err(RefreshError::Rows(error)) = refused else {
                panic!("the record is of another version: {refused:?}");
            };
            assert_eq!(error.kind(), ErrorKind::Integrity);
            let healed = world.secrets.heal_refreshes(&world.rows).await.unwrap();
            let [(named, RefreshError::Rows(error))] = healed.open.as_slice() else {
                panic!("the healer names the row: {healed:?}");
            };
            assert_eq!(
                (named.as_str(), error.kind()),
                ("row", ErrorKind::Integrity)
            );
            let shown = format!("{healed:?}");
            assert_eq!(healed.unreadable.len(), 2, "{shown}");
            assert!(shown.contains("00000000-0000-0000-0000-00000000000a"));
            assert!(!shown.contains("hunter2"), "{shown}");
        }
        assert_eq!(scene.provider.grant("row").used.len(), 0);
        for (expected, what) in [
            (2, "secret_refresh_outbox"),
            (
                1,
                "secret_refreshes WHERE row_id = 'row' AND epoch = 7 AND expires = 0",
            ),
        ] {
            let count = format!("SELECT count(*) FROM {what}");
            assert_eq!(raw.number(&count).await, expected, "{what}");
        }
        // The newer version has ended them.
        for statement in [
            "UPDATE secret_refreshes SET record = NULL",
            "DELETE FROM secret_refresh_outbox",
        ] {
            raw.run(statement).await.unwrap();
        }
        assert!(scene.works("row").await);
        scene.nothing_is_left().await;
        scene.close().await;
    }
}
