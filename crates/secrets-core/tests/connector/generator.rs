//! Configurations for a specification: every branch, filled arrays, awkward values.

use serde_json::{Map, Number, Value};

/// Numbers that look random and are the same in every run.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0xD1B5_4A32_D192_ED03)
    }

    /// Below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((z ^ (z >> 31)) % bound as u64).unwrap()
    }

    pub(crate) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub(crate) fn choose<'v, T>(&mut self, items: &'v [T]) -> &'v T {
        &items[self.below(items.len())]
    }
}

/// A configuration and the secrets in it.
pub(crate) struct Generated {
    pub(crate) config: Value,
    /// A part of every secret that occurs nowhere else.
    pub(crate) canaries: Vec<String>,
}

/// Makes the `seed`-th configuration of a specification; `awkward` if its values are to be.
pub(crate) fn generate(specification: &Value, seed: u64, awkward: bool) -> Generated {
    let mut generator = Generator {
        random: Random::new(seed),
        canaries: Vec::new(),
        awkward,
    };
    let config = generator.value(specification, 0);
    Generated {
        config,
        canaries: generator.canaries,
    }
}

struct Generator {
    random: Random,
    canaries: Vec<String>,
    awkward: bool,
}

impl Generator {
    fn value(&mut self, schema: &Value, depth: usize) -> Value {
        let Some(keywords) = schema.as_object() else {
            return self.text();
        };
        if keywords
            .get("airbyte_secret")
            .is_some_and(|mark| *mark != false && mark != "false")
        {
            return self.secret();
        }
        if let Some(value) = keywords.get("const") {
            return value.clone();
        }
        if let Some(Value::Array(values)) = keywords.get("enum")
            && !values.is_empty()
        {
            return self.random.choose(values).clone();
        }
        let kind = match keywords.get("type") {
            Some(Value::String(kind)) => kind.as_str(),
            Some(Value::Array(kinds)) if !kinds.is_empty() => {
                self.random.choose(kinds).as_str().unwrap_or("string")
            }
            _ if keywords.contains_key("items") => "array",
            _ if keywords.contains_key("properties") || keywords.contains_key("oneOf") => "object",
            _ => "string",
        };
        match kind {
            "object" => Value::Object(self.object(keywords, depth)),
            "array" => {
                let length = self.random.below(4);
                let item = keywords.get("items").unwrap_or(&Value::Null);
                (0..length).map(|_| self.value(item, depth + 1)).collect()
            }
            "integer" => Value::from(self.random.below(100_000)),
            "number" => {
                Value::Number(Number::from_f64(self.random.below(1000) as f64 / 7.0).unwrap())
            }
            "boolean" => Value::Bool(self.random.chance(50)),
            "null" => Value::Null,
            _ => match keywords.get("default") {
                Some(default @ Value::String(_)) if self.random.chance(30) => default.clone(),
                _ => self.text(),
            },
        }
    }

    fn object(&mut self, keywords: &Map<String, Value>, depth: usize) -> Map<String, Value> {
        let mut members = Map::new();
        if depth > 12 {
            return members;
        }
        for (name, property) in keywords
            .get("properties")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
        {
            if self.random.chance(85) {
                members.insert(name.clone(), self.value(property, depth + 1));
            }
        }
        for combinator in ["oneOf", "anyOf"] {
            let Some(Value::Array(branches)) = keywords.get(combinator) else {
                continue;
            };
            if branches.is_empty() {
                continue;
            }
            let branch = self.random.choose(branches);
            if let Value::Object(chosen) = self.value(branch, depth + 1) {
                members.extend(chosen);
            }
        }
        if let Some(additional @ Value::Object(_)) = keywords.get("additionalProperties") {
            for name in ["a.b", "x/y~z", "", "with space"] {
                if self.random.chance(50) {
                    members.insert(name.to_owned(), self.value(additional, depth + 1));
                }
            }
        } else if self.random.chance(10) {
            members.insert("not_in.the/spec".to_owned(), self.text());
        }
        members
    }

    fn text(&mut self) -> Value {
        if !self.awkward {
            return Value::from("db.example.com");
        }
        let texts = [
            "",
            "db.example.com",
            "ünïcödé",
            "a\"b\\c",
            "line\nbreak",
            "2020-01-01T00:00:00Z",
            " ",
            "{\"json\": true}",
            "secret_coordinate::not/at/a/secret/place",
        ];
        Value::from(*self.random.choose(&texts))
    }

    fn secret(&mut self) -> Value {
        let canary = format!(
            "canary{:016x}{}",
            self.random.below(1 << 62),
            self.canaries.len()
        );
        let kind = if self.awkward {
            self.random.below(12)
        } else {
            99
        };
        let value = match kind {
            0 => format!(" {canary} "),
            1 => format!("-----BEGIN KEY-----\n{canary}\r\n-----END KEY-----\n"),
            2 => format!("{{\"private_key\": \"{canary}\\n\"}}"),
            3 => format!("pässwörd-{canary}-🔑"),
            4 => format!("{canary}\0\u{1}\u{7f}"),
            5 => format!("{canary}{}", "x".repeat(5000)),
            6 => format!("{{\"_secret\": \"{canary}\"}}"),
            7 => return Value::Null,
            8 => return Value::from(""),
            9 => return Value::from("  "),
            _ => canary.clone(),
        };
        self.canaries.push(canary);
        Value::from(value)
    }
}
