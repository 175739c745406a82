//! The documentation's table of settings is made from the code's.

use std::fmt::Write as _;
use std::path::Path;

use secret_gateway::{TABLE, variable};

#[test]
fn the_table_of_settings_is_the_codes() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/gateway.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (begin, end) = ("<!-- table: gateway -->\n", "<!-- end -->");
    let start = text.find(begin).unwrap() + begin.len();
    let stop = start + text[start..].find(end).unwrap();
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
    if text[start..stop] == table {
        return;
    }
    let updated = format!("{}{table}{}", &text[..start], &text[stop..]);
    assert!(
        std::env::var_os("UPDATE_EXPECTED").is_some(),
        "docs/gateway.md is not made from the code; set UPDATE_EXPECTED=1"
    );
    std::fs::write(&path, updated).unwrap();
}
