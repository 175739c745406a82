//! What happens to the rest of a row, and to a row that cannot be saved.

use super::*;
use crate::connector::MAX_SECRETS;

/// A row as people and other programs write it: what a parser would lose, and what it would refuse.
fn text() -> String {
    let deep = format!("{}1{}", "[".repeat(400), "]".repeat(400));
    let (a, b) = (pointer(1), pointer(2));
    format!(
        "{{ \"z\": 12345678901234567890123456789.50,\n  \"a\" : {a},\"deep\":{deep},\t\"pi\": \
         3.14159265358979323846264338327950288, \"e\": 1E+2, \"\\u0062\": {b}, \"twice\": 1, \
         \"twice\": 1.0, \"quoted\": \"}}\\u00e9\" }}\n"
    )
}

fn expected(config: &serde_json::Value) -> String {
    let new = |name: &str| config[name].to_string();
    text()
        .replace(&pointer(1).to_string(), &new("a"))
        .replace(&pointer(2).to_string(), &new("b"))
}

fn refresh_of(text: &str) -> Refresh {
    let mut parser = serde_json::Deserializer::from_str(text);
    parser.disable_recursion_limit();
    let saved = serde::Deserialize::deserialize(&mut parser).unwrap();
    Refresh::new("row", &scope(), &saved, [place("a"), place("b")]).unwrap()
}

#[tokio::test(start_paused = true)]
async fn everything_but_the_places_stays_byte_for_byte() {
    for how in ["exchanged", "brought back", "healed"] {
        let (store, _, _) = world();
        let table = Table::of_text(&text());
        let refresh = refresh_of(&text());
        let (rows, secrets) = (table.rows(), over(&store));
        match how {
            "brought back" => {
                let new = vec![(place("a"), value("new a")), (place("b"), value("new b"))];
                secrets.bring_back(&rows, &refresh, new).await.unwrap();
            }
            _ => {
                table.locked().fails = how == "healed";
                let exchange = exchange(&Arc::default(), "new a", "new b");
                let saved = secrets.refresh(&rows, &refresh, exchange).await;
                assert_eq!(saved.is_err(), how == "healed");
                tokio::time::sleep(Duration::from_secs(61)).await;
                let healed = secrets.heal_refreshes(&rows).await.unwrap();
                assert_eq!(healed.adopted.len(), usize::from(how == "healed"));
            }
        }
        let config = table.deep_config();
        for (name, new) in [("a", "new a"), ("b", "new b")] {
            let found = stored(&store, target(&config, name)).await;
            assert_eq!(found.as_deref(), Some(new), "{how}");
        }
        assert_eq!(table.text(), expected(&config), "{how}");
        assert_ne!(table.text(), text());
    }
}

#[tokio::test]
async fn a_row_that_is_no_configuration_costs_no_exchange() {
    let (store, _, refresh) = world();
    let calls: Arc<AtomicUsize> = Arc::default();
    let pointers = vec![pointer(1).to_string(); MAX_SECRETS + 1].join(",");
    for text in [
        "{\"hunter2\": ",
        "[1e999]",
        &"[".repeat(100_000),
        &format!("[{pointers}]"),
    ] {
        let table = Table::of_text(text);
        let never = exchange(&calls, "never", "never");
        let refused = over(&store).refresh(&table.rows(), &refresh, never).await;
        // With serde_json's `arbitrary_precision`, the number is one, in a row without the token.
        if text == "[1e999]" && serde_json::from_str::<serde_json::Value>(text).is_ok() {
            continue;
        }
        let Err(RefreshError::Connector(error)) = refused else {
            panic!("it is no configuration");
        };
        let kind = error.problems()[0].kind();
        assert!(matches!(
            kind,
            ProblemKind::DecodingFailed | ProblemKind::LimitExceeded
        ));
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }
    assert_eq!(calls.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn a_table_that_refuses_updates_ends_the_attempt_and_keeps_the_new_values() {
    let (store, table, refresh) = world();
    let calls = Arc::default();
    table.locked().refuses = true;
    let (rows, secrets) = (table.rows(), over(&store));
    let first = exchange(&calls, "new a", "new b");
    let refused = secrets.refresh(&rows, &refresh, first).await;
    assert!(matches!(refused, Err(RefreshError::Unsaved)));
    let saves = table.locked().saves;
    assert!(saves > 1, "another save may come first");
    // Neither the next refresh nor the healer goes on for ever, or uses the old token again.
    let again = exchange(&calls, "never", "never");
    let refused = secrets.refresh(&rows, &refresh, again).await;
    assert!(matches!(refused, Err(RefreshError::Unsaved)));
    tokio::time::sleep(Duration::from_secs(61)).await;
    let healed = secrets.heal_refreshes(&rows).await.unwrap();
    assert!(matches!(
        healed.open.as_slice(),
        [(row, RefreshError::Unsaved)] if row == "row"
    ));
    assert_eq!(table.locked().saves, 3 * saves);
    // Once somebody has mended the table, the values are there.
    table.locked().refuses = false;
    tokio::time::sleep(Duration::from_secs(61)).await;
    let healed = secrets.heal_refreshes(&rows).await.unwrap();
    assert_eq!(healed.adopted, ["row"]);
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    has(&store, &table, "new a", "new b").await;
}
