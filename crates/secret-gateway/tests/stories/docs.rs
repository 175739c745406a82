//! The documentation's tables are made from the code's.

use std::fmt::Write as _;
use std::path::Path;

use secret_gateway::{ProblemKind, TABLE, variable};

#[test]
fn the_table_of_settings_is_the_codes() {
    let mut table =
        String::from("| setting | environment | default | what it is |\n|---|---|---|---|\n");
    for setting in TABLE {
        let default = setting.default.filter(|default| !default.is_empty());
        let default = default.map_or_else(|| "–".to_owned(), |default| format!("`{default}`"));
        let secret = if setting.secret {
            "*secret, no flag*: "
        } else {
            ""
        };
        let (name, text) = (setting.name, setting.text);
        writeln!(
            table,
            "| `{name}` | `{}` | {default} | {secret}{text} |",
            variable(name)
        )
        .unwrap();
    }
    is_in_docs("gateway", &table);
}

#[test]
fn the_table_of_problems_is_the_codes() {
    let mut table = String::from("| kind | status | meaning |\n|---|---|---|\n");
    for kind in ProblemKind::ALL {
        let (name, status) = (kind.as_str(), kind.status().as_u16());
        writeln!(table, "| `{name}` | {status} | {} |", kind.meaning()).unwrap();
    }
    is_in_docs("problems", &table);
}

/// The part of `docs/gateway.md` between the marks of this name is the table.
#[track_caller]
fn is_in_docs(mark: &str, table: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/gateway.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (begin, end) = (format!("<!-- table: {mark} -->\n"), "<!-- end -->");
    let start = text.find(&begin).unwrap() + begin.len();
    let stop = start + text[start..].find(end).unwrap();
    if &text[start..stop] == table {
        return;
    }
    let updated = format!("{}{table}{}", &text[..start], &text[stop..]);
    assert!(
        std::env::var_os("UPDATE_EXPECTED").is_some(),
        "docs/gateway.md is not made from the code; set UPDATE_EXPECTED=1"
    );
    std::fs::write(&path, updated).unwrap();
}
