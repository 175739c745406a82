use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Instant;

use serde_json::json;

use super::*;

fn answer(pattern: &str, name: &str) -> Match {
    let mut room = MAX_PATTERN_ROOM;
    Pattern::new(pattern, &mut room).matches(name, &mut Run::with_steps(1_000_000))
}

#[test]
fn what_both_readings_of_ecma_say() {
    let cases: &[(&str, &[&str], &[&str])] = &[
        (r"^\d+$", &["0", "42"], &["٣", "", "4a"]),
        (r"^\w+$", &["a_1"], &["é", "a b"]),
        (r"^\D$", &["٣", "a"], &["3"]),
        (r"^[\w.-]+$", &["a.b-c"], &["a/b"]),
        ("^[a&&b]$", &["a", "b", "&"], &["c"]),
        ("^[[a]$", &["[", "a"], &["]"]),
        (r"^a.b$", &["a-b"], &["a\rb", "a\u{2028}b", "a\nb"]),
        (r"^\/x\-y$", &["/x-y"], &["x-y"]),
        (r"^\<a\>$", &["<a>"], &["a"]),
        (r"^\bkey\b", &["key", "key-1"], &["keys"]),
        (r"^\u00e9$", &["é"], &["e"]),
        ("_secret$", &["a_secret"], &["a_secret_"]),
        ("", &["", "anything"], &[]),
        // Beside an escape for many characters a hyphen is itself, and begins no range.
        (r"^[\w-~]$", &["-", "~", "a"], &["`", "{", "}", "|"]),
        (r"^[\w-|]$", &["-", "|", "_"], &["`", "{", "}", "~"]),
        (r"^[!-\d]$", &["!", "-", "7"], &["\"", "+"]),
        (r"^[\d-\w]$", &["-", "1", "a"], &["."]),
        // White space is what ECMA calls so.
        (
            r"^\s$",
            &["\u{feff}", "\u{a0}", "\u{2028}"],
            &["\u{85}", "\u{180e}"],
        ),
        (r"^\S$", &["\u{85}"], &["\u{feff}"]),
        (r"^[\s]$", &["\t"], &["\u{85}"]),
        (r"^[\D]$", &["a"], &["1"]),
        (r"\B", &["ab", ""], &["a"]),
        ("[^]", &["a", "\n"], &[""]),
        ("[]", &[], &["a", ""]),
        ("^(?:a|b){2,3}?$", &["ab", "bab"], &["a", "abab"]),
        ("^(?<x>a)$", &["a"], &["b"]),
        ("^x", &["x🔑"], &["🔑x"]),
        ("_key$", &["🔑_key"], &["_key🔑"]),
    ];
    for (pattern, yes, no) in cases {
        for name in *yes {
            assert_eq!(answer(pattern, name), Match::Yes, "{pattern} on {name:?}");
        }
        for name in *no {
            assert_eq!(answer(pattern, name), Match::No, "{pattern} on {name:?}");
        }
    }
}

#[test]
fn what_depends_on_the_flag_or_is_not_known_may_match_every_name() {
    for pattern in [
        "^(?!x)",
        "(?<=a)b",
        r"(a)\1",
        r"\ca",
        "(?i)a",
        "a{,3}",
        "a{2, 3}",
        "(",
        "a**",
        "^*",
        "[a--b]",
        r"\Aa",
        "x{1000}{1000}{1000}",
        "(((x{1000}){1000}){1000}){1000}",
        "\\",
        r"\pL",
        r"^\p{Greek}$",
        r"[\p{L}]",
        r"\x{41}",
        r"\u{41}",
        r"\ud83d",
        "🔑?",
        r"\k<a>",
        "(?<a>x)|(?<a>y)",
    ] {
        assert_eq!(answer(pattern, "zzz"), Match::Perhaps, "{pattern}");
    }
    // One character with the flag, two without.
    assert_eq!(answer("^.$", "🔑"), Match::Perhaps);
    assert_eq!(answer("^[^a]$", "🔑"), Match::Perhaps);
    assert_eq!(answer("^.+$", "🔑"), Match::Yes);
}

#[test]
fn all_patterns_of_a_specification_share_one_room() {
    let mut room = MAX_PATTERN_ROOM;
    let mut run = Run::with_steps(1_000_000);
    let answers: Vec<Match> = (0..10)
        .map(|_| Pattern::new("^(?:abc){1000}$", &mut room).matches("x", &mut run))
        .collect();
    assert_eq!(answers.first(), Some(&Match::No));
    assert_eq!(answers.last(), Some(&Match::Perhaps));
    // What is small enough for the rest still has a meaning.
    assert_eq!(
        Pattern::new("^a", &mut room).matches("x", &mut run),
        Match::No
    );
}

#[test]
fn a_name_too_long_for_its_pattern_may_match() {
    let heavy = "(a|b)*a(a|b){1000}c";
    assert_eq!(answer(heavy, "abab"), Match::No);
    assert_eq!(answer(heavy, &"ab".repeat(3_000)), Match::Perhaps);
    assert_eq!(answer("^x-", &"ab".repeat(3_000)), Match::No);
    // And so may every name once the steps are used up.
    let mut room = MAX_PATTERN_ROOM;
    let pattern = Pattern::new("(a|b)*c", &mut room);
    let mut run = Run::with_steps(1_000);
    let answers: Vec<Match> = (0..100)
        .map(|_| pattern.matches("abab", &mut run))
        .collect();
    assert_eq!(answers.first(), Some(&Match::No));
    assert_eq!(answers.last(), Some(&Match::Perhaps));
}

/// Numbers that look random and are the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % bound
    }

    fn choose<'v>(&mut self, items: &[&'v str]) -> &'v str {
        items[self.below(items.len())]
    }
}

const PARTS: &[&str] = &[
    "a",
    "b",
    "z",
    "A",
    "_",
    "-",
    "~",
    "|",
    "&&",
    "1",
    "7",
    " ",
    "#",
    "/",
    ",",
    "=",
    ":",
    "é",
    "ſ",
    "\u{85}",
    "\u{a0}",
    "\u{feff}",
    "\u{2028}",
    "\u{d7ff}",
    "\u{ffff}",
    "🔑",
    ".",
    "^",
    "$",
    r"\d",
    r"\D",
    r"\w",
    r"\W",
    r"\s",
    r"\S",
    r"\b",
    r"\B",
    r"\n",
    r"\t",
    r"\v",
    r"\f",
    r"\r",
    r"\0",
    r"\00",
    r"\1",
    r"\8",
    r"\-",
    r"\/",
    r"\.",
    r"\\",
    r"\]",
    r"\}",
    r"\_",
    r"\a",
    r"\e",
    r"\z",
    r"\x41",
    r"\x4",
    r"\x{41}",
    r"\u0041",
    r"\u{41}",
    r"\u00e9",
    r"\ud83d",
    r"\udd11",
    r"\ud83d\udd11",
    r"\pL",
    r"\p{L}",
    r"\P{L}",
    r"\p{Greek}",
    r"\cA",
    r"\c1",
    r"\k",
    r"\k<n>",
    "{",
    "}",
    "]",
    "{2}",
    "{,3}",
    "{ 2}",
];
const QUANTIFIERS: &[&str] = &[
    "*", "+", "?", "*?", "+?", "??", "{0}", "{2}", "{1,}", "{0,2}", "{2,3}?", "{3,2}", "{1,2",
    "{,2}", "**", "{2}{2}",
];
const OPENINGS: &[&str] = &[
    "(", "(?:", "(?<n>", "(?<n1>", "(?=", "(?!", "(?<=", "(?<!", "(?i:", "(?", "(?P<n>",
];
const IN_CLASSES: &[&str] = &[
    "a",
    "b",
    "-",
    "--",
    "&&",
    "~~",
    "[",
    "^",
    "~",
    "|",
    "_",
    "z",
    "0",
    "9",
    "é",
    "\u{85}",
    "\u{feff}",
    "🔑",
    ".",
    "$",
    r"\d",
    r"\D",
    r"\w",
    r"\W",
    r"\s",
    r"\S",
    r"\b",
    r"\B",
    r"\-",
    r"\]",
    r"\\",
    r"\n",
    r"\0",
    r"\01",
    r"\1",
    r"\x41",
    r"\x{41}",
    r"\u0061",
    r"\u{61}",
    r"\ud83d",
    r"\p{L}",
    r"\pL",
    r"\cA",
    r"\c_",
    "a-z",
    "0-9",
    r"\w-~",
    r"\w-|",
    r"!-\d",
    r"\s-\s",
    "+--",
    "z-a",
    "\u{0}-\u{ffff}",
    r"\u0000-\uffff",
];
const NAMES: &[&str] = &[
    "a", "b", "z", "A", "B", "_", "-", "~", "|", "&", "1", "7", "0", " ", "\t", "\n", "\r",
    "\u{b}", "\u{85}", "\u{a0}", "\u{180e}", "\u{200b}", "\u{2028}", "\u{feff}", "é", "ſ", "٣",
    "Ω", "\u{d7ff}", "\u{e000}", "\u{ffff}", "🔑", "{", "}", "[", "]", "\\", "/", ".", "p", "L",
    "x", "u", "k", "c", "\0", "\u{8}", "\u{1}", "`", "^", "$", ",", "=", ":",
];

fn random_pattern(random: &mut Random, depth: usize) -> String {
    let mut pattern = String::new();
    if random.below(4) == 0 {
        pattern.push('^');
    }
    for _ in 0..=random.below(3) {
        match random.below(10) {
            0..=4 => pattern.push_str(random.choose(PARTS)),
            5..=7 => {
                pattern.push('[');
                if random.below(3) == 0 {
                    pattern.push('^');
                }
                for _ in 0..random.below(4) {
                    pattern.push_str(random.choose(IN_CLASSES));
                }
                pattern.push(']');
            }
            8 if depth < 3 => {
                // Mostly groups that mean something.
                let opening = if random.below(3) == 0 {
                    random.choose(OPENINGS)
                } else {
                    "("
                };
                pattern.push_str(opening);
                pattern.push_str(&random_pattern(random, depth + 1));
                if random.below(20) > 0 {
                    pattern.push(')');
                }
            }
            _ => {
                pattern.push('|');
            }
        }
        if random.below(4) == 0 {
            pattern.push_str(random.choose(QUANTIFIERS));
        }
    }
    if random.below(4) == 0 {
        pattern.push('$');
    }
    pattern
}

/// Answers per line, a name in two characters: without the flag and with it, `x` if it is no
/// expression.
const NODE: &str = "
    const compile = (pattern, flag) => { try { return new RegExp(pattern, flag); } catch { return null; } };
    const lines = require('fs').readFileSync(0, 'utf8').split('\\n').filter(Boolean);
    process.stdout.write(lines.map(line => {
        const [pattern, names] = JSON.parse(line);
        const both = ['', 'u'].map(flag => compile(pattern, flag));
        return names.map(name => both.map(one => one ? +one.test(name) : 'x').join('')).join(' ');
    }).join('\\n'));
";

/// An engine that is the reference itself says what each of the patterns matches.
#[test]
fn node_never_says_otherwise() {
    const PATTERNS: usize = 100_000;
    const NAMES_EACH: usize = 4;
    if Command::new("node").arg("--version").output().is_err() {
        assert!(
            std::env::var_os("CI").is_none_or(|ci| ci != "true"),
            "CI needs node"
        );
        println!("SKIPPED: node is not installed, so no pattern was compared");
        return;
    }
    let mut random = Random(11);
    let cases: Vec<(String, Vec<String>)> = (0..PATTERNS)
        .map(|_| {
            let pattern = random_pattern(&mut random, 0);
            let names = (0..NAMES_EACH)
                .map(|_| (0..random.below(5)).map(|_| random.choose(NAMES)).collect())
                .collect();
            (pattern, names)
        })
        .collect();
    let mut lines = String::new();
    for (pattern, names) in &cases {
        lines.push_str(&json!([pattern, names]).to_string());
        lines.push('\n');
    }
    let mut node = Command::new("node")
        .args(["-e", NODE])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = node.stdin.take().unwrap();
    let writer = thread::spawn(move || input.write_all(lines.as_bytes()));
    let mut said = String::new();
    node.stdout
        .take()
        .unwrap()
        .read_to_string(&mut said)
        .unwrap();
    writer.join().unwrap().unwrap();
    assert!(node.wait().unwrap().success());

    let (mut compared, mut decided, mut valid) = (0, 0, 0);
    let start = Instant::now();
    for ((pattern, names), line) in cases.iter().zip(said.split('\n')) {
        let said: Vec<&str> = line.split(' ').collect();
        assert_eq!(said.len(), names.len());
        for (name, said) in names.iter().zip(said) {
            let ours = answer(pattern, name);
            let expected = match ours {
                Match::Yes => '1',
                Match::No => '0',
                Match::Perhaps => '?',
            };
            for (said, flag) in said.chars().zip(["without", "with"]) {
                compared += 1;
                if said == 'x' {
                    continue;
                }
                valid += 1;
                if ours != Match::Perhaps {
                    decided += 1;
                    assert_eq!(expected, said, "{pattern:?} on {name:?} {flag} the flag");
                }
            }
            assert!(
                said != "xx" || ours == Match::Perhaps,
                "{pattern:?} is no expression"
            );
        }
    }
    println!(
        "{compared} compared, {valid} of them valid, {decided} decided, in {:?}",
        start.elapsed()
    );
    assert!(compared >= 2 * PATTERNS * NAMES_EACH);
    // A pattern that is taken for anything agrees with everybody; most must say something.
    assert!(decided * 2 > valid, "{decided} of {valid}");
}
