//! Reads ECMA-262 expressions, as far as they mean the same with and without the `u` flag.

use std::collections::{HashMap, HashSet};
use std::iter::Peekable;
use std::str::Chars;

/// The parts of an expression.
#[derive(Debug)]
pub(super) enum Expression {
    Assertion(Assertion),
    Choice(Vec<Expression>),
    /// As often as the numbers say, the second one inclusive.
    Repeated(Box<Expression>, u32, Option<u32>),
    Sequence(Vec<Expression>),
    /// One character of the set with this number.
    Set(SetId),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Assertion {
    Boundary,
    End,
    NoBoundary,
    Start,
}

pub(super) type SetId = u32;

/// Inclusive ranges, sorted and apart.
pub(super) type Set = Vec<(u32, u32)>;

/// How many groups may stand inside one another.
const MAX_NESTING: usize = 100;

const LAST: u32 = 0x10_FFFF;

const DIGITS: &[(u32, u32)] = &[(0x30, 0x39)];
const WORD: &[(u32, u32)] = &[(0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A)];
/// `WhiteSpace` and `LineTerminator`; U+0085 is neither.
const SPACE: &[(u32, u32)] = &[
    (0x09, 0x0D),
    (0x20, 0x20),
    (0xA0, 0xA0),
    (0x1680, 0x1680),
    (0x2000, 0x200A),
    (0x2028, 0x2029),
    (0x202F, 0x202F),
    (0x205F, 0x205F),
    (0x3000, 0x3000),
    (0xFEFF, 0xFEFF),
];
const LINE_ENDS: &[(u32, u32)] = &[(0x0A, 0x0A), (0x0D, 0x0D), (0x2028, 0x2029)];

/// Reads an expression into its parts and the sets they name.
///
/// `None` for what is no expression, for what we do not know (look-around, back references), and for
/// what the flag changes: `\p{…}` and `\u{…}` are letters without it, and a character beyond U+FFFF is
/// two there. What the flag forbids means what it means without.
pub(super) fn read(ecma: &str) -> Option<(Expression, Vec<Set>)> {
    let mut reader = Reader {
        chars: ecma.chars().peekable(),
        groups: HashSet::new(),
        numbers: HashMap::new(),
        sets: Vec::new(),
    };
    let expression = reader.choice(0)?;
    match reader.chars.next() {
        None => Some((expression, reader.sets)),
        Some(_) => None,
    }
}

struct Reader<'e> {
    chars: Peekable<Chars<'e>>,
    groups: HashSet<String>,
    numbers: HashMap<Set, SetId>,
    sets: Vec<Set>,
}

/// What one escape or one character comes to.
enum Atom {
    Char(u32),
    Set(Set),
}

impl Reader<'_> {
    fn choice(&mut self, nesting: usize) -> Option<Expression> {
        if nesting > MAX_NESTING {
            return None;
        }
        let mut branches = vec![self.sequence(nesting)?];
        while self.chars.next_if_eq(&'|').is_some() {
            branches.push(self.sequence(nesting)?);
        }
        if branches.len() == 1 {
            return branches.pop();
        }
        Some(Expression::Choice(branches))
    }

    fn sequence(&mut self, nesting: usize) -> Option<Expression> {
        let mut parts = Vec::new();
        while let Some(char) = self.chars.next_if(|char| !matches!(char, '|' | ')')) {
            let part = match char {
                '^' => Expression::Assertion(Assertion::Start),
                '$' => Expression::Assertion(Assertion::End),
                '\\' if self.chars.next_if_eq(&'b').is_some() => {
                    Expression::Assertion(Assertion::Boundary)
                }
                '\\' if self.chars.next_if_eq(&'B').is_some() => {
                    Expression::Assertion(Assertion::NoBoundary)
                }
                '*' | '+' | '?' | '{' => return None,
                '(' => {
                    let group = self.group(nesting)?;
                    self.quantified(group)?
                }
                _ => {
                    let set = match char {
                        '[' => self.class()?,
                        '.' => complement(LINE_ENDS),
                        '\\' => self.escape(false)?.into_set(),
                        _ => literal(char)?.into_set(),
                    };
                    let set = self.set(set);
                    self.quantified(set)?
                }
            };
            parts.push(part);
        }
        if parts.len() == 1 {
            return parts.pop();
        }
        Some(Expression::Sequence(parts))
    }

    /// Parses up to the closing parenthesis, after the opening one.
    fn group(&mut self, nesting: usize) -> Option<Expression> {
        if self.chars.next_if_eq(&'?').is_some() {
            match self.chars.next()? {
                ':' => {}
                '<' => self.group_name()?,
                _ => return None,
            }
        }
        let inner = self.choice(nesting + 1)?;
        self.chars.next_if_eq(&')')?;
        Some(inner)
    }

    /// A name tells a group from a look behind, and may not stand twice.
    fn group_name(&mut self) -> Option<()> {
        let mut name = String::new();
        while let Some(char) = self.chars.next_if(|char| *char != '>') {
            let fits = char.is_ascii_alphabetic() || matches!(char, '_' | '$');
            if !fits && (name.is_empty() || !char.is_ascii_digit()) {
                return None;
            }
            name.push(char);
        }
        self.chars.next()?;
        (!name.is_empty() && self.groups.insert(name)).then_some(())
    }

    fn quantified(&mut self, part: Expression) -> Option<Expression> {
        let (least, most) = match self.chars.peek() {
            Some('*') => (0, None),
            Some('+') => (1, None),
            Some('?') => (0, Some(1)),
            Some('{') => {
                self.chars.next();
                let least = self.number()?;
                let most = if self.chars.next_if_eq(&',').is_some() {
                    match self.chars.peek() {
                        Some('}') => None,
                        _ => Some(self.number()?),
                    }
                } else {
                    Some(least)
                };
                (least, most)
            }
            _ => return Some(part),
        };
        // What ends the quantifier: `*`, `+`, `?` or the closing brace.
        if !matches!(self.chars.next(), Some('*' | '+' | '?' | '}')) {
            return None;
        }
        // Whether it is lazy does not change what matches.
        self.chars.next_if_eq(&'?');
        if most.is_some_and(|most| most < least) {
            return None;
        }
        Some(Expression::Repeated(Box::new(part), least, most))
    }

    fn number(&mut self) -> Option<u32> {
        let mut digits = 0;
        let mut number = 0_u32;
        while let Some(digit) = self.chars.peek().and_then(|char| char.to_digit(10)) {
            self.chars.next();
            digits += 1;
            number = number.saturating_mul(10).saturating_add(digit);
        }
        (digits > 0).then_some(number)
    }

    /// Parses up to the closing bracket, after the opening one.
    fn class(&mut self) -> Option<Set> {
        let negated = self.chars.next_if_eq(&'^').is_some();
        let mut members = Set::new();
        while self.chars.next_if_eq(&']').is_none() {
            let first = self.class_atom()?;
            if self.chars.next_if_eq(&'-').is_none() {
                members.extend(first.into_set());
                continue;
            }
            if self.chars.peek() == Some(&']') {
                members.extend(first.into_set());
                members.push(single('-'));
                continue;
            }
            match (first, self.class_atom()?) {
                (Atom::Char(first), Atom::Char(last)) if first <= last => {
                    members.push((first, last));
                }
                (Atom::Char(_), Atom::Char(_)) => return None,
                // Beside an escape for many the hyphen is itself.
                (first, last) => {
                    members.extend(first.into_set());
                    members.push(single('-'));
                    members.extend(last.into_set());
                }
            }
        }
        let members = normal(members);
        Some(if negated {
            complement(&members)
        } else {
            members
        })
    }

    fn class_atom(&mut self) -> Option<Atom> {
        match self.chars.next()? {
            '\\' => self.escape(true),
            char => literal(char),
        }
    }

    /// What follows a backslash.
    fn escape(&mut self, in_class: bool) -> Option<Atom> {
        Some(match self.chars.next()? {
            'd' => Atom::Set(DIGITS.to_vec()),
            'D' => Atom::Set(complement(DIGITS)),
            'w' => Atom::Set(WORD.to_vec()),
            'W' => Atom::Set(complement(WORD)),
            's' => Atom::Set(SPACE.to_vec()),
            'S' => Atom::Set(complement(SPACE)),
            'b' if in_class => Atom::Char(0x08),
            'f' => Atom::Char(0x0C),
            'n' => Atom::Char(0x0A),
            'r' => Atom::Char(0x0D),
            't' => Atom::Char(0x09),
            'v' => Atom::Char(0x0B),
            '0' if !self.chars.peek().is_some_and(char::is_ascii_digit) => Atom::Char(0),
            'x' => Atom::Char(self.hexadecimal(2)?),
            'u' => match self.hexadecimal(4)? {
                // Half a character with the flag, a whole one without.
                0xD800..=0xDFFF => return None,
                char => Atom::Char(char),
            },
            char if char.is_ascii_punctuation() => Atom::Char(u32::from(char)),
            _ => return None,
        })
    }

    fn hexadecimal(&mut self, digits: usize) -> Option<u32> {
        let mut number = 0;
        for _ in 0..digits {
            number = number * 16 + self.chars.next()?.to_digit(16)?;
        }
        Some(number)
    }

    fn set(&mut self, set: Set) -> Expression {
        let (numbers, sets) = (&mut self.numbers, &mut self.sets);
        let id = *numbers.entry(set).or_insert_with_key(|set| {
            sets.push(set.clone());
            // There are fewer sets than characters in the expression.
            SetId::try_from(sets.len() - 1).unwrap_or(SetId::MAX)
        });
        Expression::Set(id)
    }
}

impl Atom {
    fn into_set(self) -> Set {
        match self {
            Self::Char(char) => vec![(char, char)],
            Self::Set(set) => set,
        }
    }
}

fn literal(char: char) -> Option<Atom> {
    let char = u32::from(char);
    (char <= 0xFFFF).then_some(Atom::Char(char))
}

fn single(char: char) -> (u32, u32) {
    (u32::from(char), u32::from(char))
}

/// Sorted, and nothing twice.
fn normal(mut members: Set) -> Set {
    members.sort_unstable();
    let mut set = Set::with_capacity(members.len());
    for (first, last) in members {
        match set.last_mut() {
            Some((_, before)) if first <= before.saturating_add(1) => *before = last.max(*before),
            _ => set.push((first, last)),
        }
    }
    set
}

/// All characters that a set has not.
fn complement(set: &[(u32, u32)]) -> Set {
    let mut others = Set::with_capacity(set.len() + 1);
    let mut next = 0;
    for &(first, last) in set {
        if next < first {
            others.push((next, first - 1));
        }
        next = last + 1;
    }
    if next <= LAST {
        others.push((next, LAST));
    }
    others
}
