//! Filters as BuildKit's clients write them: `type==regular,shared` must hold altogether, several of these are alternatives.
//! The operators are containerd's (`==`, `!=`, `~=`, a field alone), and `<`, `<=`, `>`, `>=` for what has an order.

use regex::Regex;

use crate::app::{Failure, Outcome};

/// A field that can be filtered by.
pub struct Field {
    pub name: &'static str,
    /// Reads a value that it is compared with, where it has an order; `None` for what is no such value.
    pub read: Option<fn(&str) -> Option<i64>>,
}

impl Field {
    pub const fn text(name: &'static str) -> Self {
        Self { name, read: None }
    }

    pub const fn ordered(name: &'static str, read: fn(&str) -> Option<i64>) -> Self {
        Self { name, read: Some(read) }
    }
}

/// What is filtered.
pub trait Filtered {
    /// `None` where it has no such field. Flags are "true" and "false".
    fn text(&self, field: &str) -> Option<String>;
    /// The value of a field that has an order.
    fn number(&self, field: &str) -> i64;
}

/// Alternatives; without any everything passes.
#[derive(Debug)]
pub struct Filter(Vec<Vec<Condition>>);

#[derive(Debug)]
struct Condition {
    field: String,
    test: Test,
}

#[derive(Debug)]
enum Test {
    Present,
    Equal(String),
    NotEqual(String),
    Matches(Regex),
    Less(i64),
    LessOrEqual(i64),
    Greater(i64),
    GreaterOrEqual(i64),
}

/// The longer ones first, since they begin like others.
const OPERATORS: [&str; 8] = ["==", "!=", "~=", ">=", "<=", "=", ">", "<"];

impl Filter {
    /// # Errors
    /// `InvalidArgument` for a field that is not among `fields`, and for what makes no sense with it.
    pub fn parse(texts: &[String], fields: &[Field]) -> Outcome<Self> {
        let alternatives = texts.iter().map(|text| {
            let conditions = split(text).into_iter().map(|condition| Condition::parse(&condition, fields));
            conditions.collect::<Outcome<Vec<_>>>()
        });
        Ok(Self(alternatives.collect::<Outcome<_>>()?))
    }

    pub fn passes(&self, what: &impl Filtered) -> bool {
        let holds = |condition: &Condition| condition.holds(what);
        self.0.is_empty() || self.0.iter().any(|all| all.iter().all(holds))
    }
}

impl Condition {
    fn parse(text: &str, fields: &[Field]) -> Outcome<Self> {
        let wrong = || Failure::invalid(format!("invalid filter {text:?}"));
        let end = text.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(text.len());
        let (name, rest) = text.split_at(end);
        let field = fields.iter().find(|field| field.name == name);
        let field = field.ok_or_else(|| Failure::invalid(format!("unsupported filter {text:?}")))?;
        let operator = OPERATORS.iter().find(|operator| rest.starts_with(**operator));
        let value = operator.map_or(rest, |operator| &rest[operator.len()..]);
        let number = || match field.read {
            Some(read) => read(value).ok_or_else(|| Failure::invalid(format!("invalid value {value:?} of {name}"))),
            None => Err(wrong()),
        };
        let test = match operator.copied() {
            Some(">=") => Test::GreaterOrEqual(number()?),
            Some("<=") => Test::LessOrEqual(number()?),
            Some(">") => Test::Greater(number()?),
            Some("<") => Test::Less(number()?),
            _ if field.read.is_some() => return Err(wrong()),
            // What a client makes of `--filter id~=a` that takes the `~` for a part of the name.
            Some("~=") if value.starts_with('=') => {
                return Err(Failure::invalid(format!("filter {text:?}: unsupported operator \"~==\"")));
            }
            Some("~=") => Test::Matches(Regex::new(value).map_err(|_| wrong())?),
            Some("!=") => Test::NotEqual(value.to_owned()),
            Some(_) => Test::Equal(value.to_owned()),
            None if rest.is_empty() => Test::Present,
            None => return Err(wrong()),
        };
        Ok(Self { field: name.to_owned(), test })
    }

    fn holds(&self, what: &impl Filtered) -> bool {
        let text = || what.text(&self.field);
        let number = || what.number(&self.field);
        match &self.test {
            Test::Present => text().is_some_and(|text| text != "false"),
            Test::Equal(value) => text().is_some_and(|text| text == *value),
            Test::NotEqual(value) => text().is_none_or(|text| text != *value),
            Test::Matches(pattern) => text().is_some_and(|text| pattern.is_match(&text)),
            Test::Less(value) => number() < *value,
            Test::LessOrEqual(value) => number() <= *value,
            Test::Greater(value) => number() > *value,
            Test::GreaterOrEqual(value) => number() >= *value,
        }
    }
}

/// The conditions of one text: at its commas, but for those in quotes, which go.
fn split(text: &str) -> Vec<String> {
    let mut conditions = vec![String::new()];
    let mut quoted = false;
    for c in text.chars() {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => conditions.push(String::new()),
            c => conditions.last_mut().expect("there is always one").push(c),
        }
    }
    conditions.retain(|condition| !condition.trim().is_empty());
    conditions.iter().map(|condition| condition.trim().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Record;

    impl Filtered for Record {
        fn text(&self, field: &str) -> Option<String> {
            match field {
                "id" => Some("abc".to_owned()),
                "shared" => Some("false".to_owned()),
                "inuse" => Some("true".to_owned()),
                _ => None,
            }
        }

        fn number(&self, _: &str) -> i64 {
            5
        }
    }

    const FIELDS: &[Field] = &[
        Field::text("id"),
        Field::text("shared"),
        Field::text("inuse"),
        Field::text("parents"),
        Field::ordered("size", |text| text.parse().ok()),
    ];

    #[test]
    fn conditions_and_alternatives() {
        for (texts, passes) in [
            (&[][..], true),
            (&[""], true),
            (&["id==abc"], true),
            (&["id=abc"], true),
            (&["id==ab"], false),
            (&["id~=^ab"], true),
            (&["id~=\"b,|c\""], true),
            (&["id!=abc"], false),
            (&["parents!=x"], true),
            (&["parents"], false),
            (&["inuse,shared"], false),
            (&["inuse,shared==false"], true),
            (&["id==x", "inuse"], true),
            (&["size>=5,size<6"], true),
            (&["size>5"], false),
        ] {
            let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
            assert_eq!(Filter::parse(&texts, FIELDS).expect("parsed").passes(&Record), passes, "{texts:?}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (text, why) in [
            ("colour==red", "unsupported filter \"colour==red\""),
            ("id>5", "invalid filter \"id>5\""),
            ("size==5", "invalid filter \"size==5\""),
            ("size>big", "invalid value \"big\" of size"),
            ("id~=(", "invalid filter \"id~=(\""),
            ("id~==x", "filter \"id~==x\": unsupported operator \"~==\""),
            ("id:x", "invalid filter \"id:x\""),
        ] {
            let refused = Filter::parse(&[text.to_owned()], FIELDS).map(drop).map_err(|failure| failure.message);
            assert_eq!(refused, Err(why.to_owned()));
        }
    }
}
