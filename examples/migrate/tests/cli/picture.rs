//! The picture in the README is the demo's output. `scripts/picture` draws it again.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use crate::lab::Lab;

/// The columns of the terminal that is drawn.
const COLUMNS: usize = 80;

/// The width of a character, the height of a line and the margin, in tenths of a pixel.
const CHARACTER: usize = 78;
const LINE: usize = 180;
const MARGIN: usize = 160;

#[test]
fn the_picture_of_the_readme_is_the_output_of_the_demo() {
    let output = Lab::empty().run(&["demo"]).expect(0).stdout;
    let drawn = drawing(&with_fixed_names(&output));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/demo.svg");
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        std::fs::write(&path, &drawn).unwrap();
        return;
    }
    let picture = std::fs::read_to_string(&path).unwrap();
    assert!(
        picture == drawn,
        "the output has changed: run scripts/picture"
    );
}

/// Replaces the random names, which are the hexadecimal digits before `…`, in the order in which they appear.
fn with_fixed_names(output: &str) -> String {
    const NAMES: [&str; 6] = ["7c9e66", "3f2504", "9b1deb", "1b4e28", "6ba7b8", "f47ac1"];
    const DIGITS: usize = 6;
    let mut names: BTreeMap<String, &str> = BTreeMap::new();
    let mut text = String::new();
    for part in output.split_inclusive('…') {
        let end = part.trim_end_matches('…');
        let is_name = part.ends_with('…')
            && end.len() > DIGITS
            && end.is_char_boundary(end.len() - DIGITS)
            && end[end.len() - DIGITS..]
                .bytes()
                .all(|byte| byte.is_ascii_hexdigit());
        if !is_name {
            text += part;
            continue;
        }
        let (before, name) = end.split_at(end.len() - DIGITS);
        let next = NAMES[names.len() % NAMES.len()];
        let fixed = names.entry(name.to_owned()).or_insert(next);
        text += before;
        text += fixed;
        text.push('…');
    }
    text
}

fn drawing(output: &str) -> String {
    let lines: Vec<&str> = std::iter::once("$ cargo run -p migrate -- demo")
        .chain(output.lines())
        .collect();
    let width = pixels(COLUMNS * CHARACTER + 2 * MARGIN);
    let height = pixels(lines.len() * LINE + 2 * MARGIN);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" role=\"img\">\n\
         <title>The output of secret-migrate demo</title>\n\
         <style>text {{ font: 13px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; fill: #e6edf3; white-space: pre; }} \
         .step {{ font-weight: bold; }} .pointer {{ fill: #7ee787; }} .prompt {{ fill: #8b949e; }}</style>\n\
         <rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"#0d1117\"/>\n"
    );
    for (index, line) in lines.iter().enumerate() {
        let columns = line.chars().count();
        assert!(columns <= COLUMNS, "{columns} columns: {line}");
        let text = line.trim_start();
        if text.is_empty() {
            continue;
        }
        let indent = columns - text.chars().count();
        let is_step = line.starts_with(|first: char| first.is_ascii_digit());
        let class = if line.starts_with('$') {
            "prompt"
        } else if is_step || line.starts_with("demo:") {
            "step"
        } else if text.starts_with('→') {
            "pointer"
        } else {
            "text"
        };
        // The length makes a column as wide as it is, whatever font the reader has.
        writeln!(
            svg,
            "<text class=\"{class}\" x=\"{}\" y=\"{}\" textLength=\"{}\" lengthAdjust=\"spacingAndGlyphs\" xml:space=\"preserve\">{}</text>",
            pixels(MARGIN + indent * CHARACTER),
            pixels(MARGIN + (index + 1) * LINE - 50),
            pixels(text.chars().count() * CHARACTER),
            text.replace('&', "&amp;")
                .replace('<', "&lt;")
                .replace('>', "&gt;"),
        )
        .unwrap();
    }
    svg + "</svg>\n"
}

fn pixels(tenths: usize) -> String {
    format!("{}.{}", tenths / 10, tenths % 10)
}

#[test]
fn names_are_fixed_and_nothing_else() {
    assert_eq!(
        with_fixed_names("a_f5ed2e…_b_f6b84b…_c_f5ed2e…_v1 IGEga2V5\\… end"),
        "a_7c9e66…_b_3f2504…_c_7c9e66…_v1 IGEga2V5\\… end"
    );
}
