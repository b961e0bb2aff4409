//! What differs between two versions of a map, field by field, in words.

use super::{FieldDirection, FieldMapping, Leg, Mapping, Transform};

/// One thing that one version says differently from the other.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Difference {
    pub place: String,
    /// A sentence without its subject, which is the place: `goes both ways; it went to Dataverse only`.
    pub what: String,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.place, self.what)
    }
}

/// What `after` says that `before` did not, and the other way round. The order of fields is not a difference.
#[must_use]
pub fn differences(before: &Mapping, after: &Mapping) -> Vec<Difference> {
    let mut found = Vec::new();
    texts(&mut found, "the name", &before.name, &after.name);
    for position in 0..before.legs.len().max(after.legs.len()) {
        let number =
            |what: &str| if position == 0 { what.to_owned() } else { format!("{what} of leg {}", position + 1) };
        match (before.legs.get(position), after.legs.get(position)) {
            (Some(before), Some(after)) => legs(&mut found, &number, before, after),
            (Some(_), None) => add(&mut found, number("the leg"), "is gone"),
            (None, _) => add(&mut found, number("the leg"), "is new"),
        }
    }
    found
}

fn add(found: &mut Vec<Difference>, place: impl Into<String>, what: impl Into<String>) {
    found.push(Difference { place: place.into(), what: what.into() });
}

fn texts(found: &mut Vec<Difference>, place: &str, before: &str, after: &str) {
    let quoted = |text: &str| if text.is_empty() { "nothing".to_owned() } else { format!("`{text}`") };
    if before != after {
        add(found, place, format!("is {}; it was {}", quoted(after), quoted(before)));
    }
}

fn legs(found: &mut Vec<Difference>, number: &dyn Fn(&str) -> String, before: &Leg, after: &Leg) {
    let own_name = |leg: &Leg| leg.finops_distinct_name.clone().unwrap_or_default();
    texts(found, &number("the F&O entity"), &before.finops_entity, &after.finops_entity);
    texts(found, &number("the name of the F&O entity"), &own_name(before), &own_name(after));
    texts(found, &number("the Dataverse table"), &before.dataverse_set, &after.dataverse_set);
    texts(found, &number("the filter on F&O"), &before.finops_filter, &after.finops_filter);
    texts(found, &number("the filter on Dataverse"), &before.dataverse_filter, &after.dataverse_filter);
    let pairs = pair(&before.fields, &after.fields);
    for (position, field) in before.fields.iter().enumerate() {
        match pairs.iter().find(|(own, _)| *own == position) {
            Some((_, other)) => fields(found, field, &after.fields[*other]),
            None => add(found, format!("the field {field}"), "is gone"),
        }
    }
    for (position, field) in after.fields.iter().enumerate() {
        if !pairs.iter().any(|(_, own)| *own == position) {
            add(found, format!("the field {field}"), format!("is new{}", with_transforms(field)));
        }
    }
}

/// Which field of one version is which of the other: the same two columns, else the same column on one side, each
/// used once.
fn pair(before: &[FieldMapping], after: &[FieldMapping]) -> Vec<(usize, usize)> {
    let same_finops = |a: &FieldMapping, b: &FieldMapping| match (&a.finops, &b.finops) {
        (Some(a), Some(b)) => a.eq_ignore_ascii_case(b),
        (None, None) => true,
        _ => false,
    };
    type Rule<'a> = &'a dyn Fn(&FieldMapping, &FieldMapping) -> bool;
    let rules: [Rule<'_>; 4] = [
        &|a, b| a == b,
        &|a, b| same_finops(a, b) && a.dataverse == b.dataverse,
        &|a, b| a.dataverse.is_some() && a.dataverse == b.dataverse,
        &|a, b| a.finops.is_some() && same_finops(a, b),
    ];
    let mut pairs = Vec::<(usize, usize)>::new();
    for rule in rules {
        for (position, field) in before.iter().enumerate() {
            if pairs.iter().any(|(own, _)| *own == position) {
                continue;
            }
            let other = (0..after.len())
                .find(|other| rule(field, &after[*other]) && !pairs.iter().any(|(_, own)| own == other));
            pairs.extend(other.map(|other| (position, other)));
        }
    }
    pairs
}

fn fields(found: &mut Vec<Difference>, before: &FieldMapping, after: &FieldMapping) {
    let place = format!("the field {after}");
    let none = || "none".to_owned();
    let finops = |field: &FieldMapping| field.finops.clone().unwrap_or_else(none);
    let dataverse = |field: &FieldMapping| field.dataverse.as_ref().map_or_else(none, ToString::to_string);
    let mut say = |what: String| add(found, place.as_str(), what);
    if finops(before) != finops(after) {
        say(format!("maps {} of F&O; it mapped {}", finops(after), finops(before)));
    }
    if dataverse(before) != dataverse(after) {
        say(format!("maps {} of Dataverse; it mapped {}", dataverse(after), dataverse(before)));
    }
    if before.direction != after.direction {
        say(format!("goes {}; it went {}", way(after.direction), way(before.direction)));
    }
    if before.related_set != after.related_set {
        let set = |field: &FieldMapping| field.related_set.clone().unwrap_or_else(|| "no table by name".to_owned());
        say(format!("refers to {}; it referred to {}", set(after), set(before)));
    }
    if before.transforms != after.transforms {
        transforms(&mut say, &before.transforms, &after.transforms);
    }
}

const fn way(direction: FieldDirection) -> &'static str {
    match direction {
        FieldDirection::ToDataverse => "to Dataverse only",
        FieldDirection::ToFinops => "to F&O only",
        FieldDirection::Both => "both ways",
    }
}

fn transforms(say: &mut dyn FnMut(String), before: &[Transform], after: &[Transform]) {
    match (before, after) {
        ([Transform::ValueMap { pairs: old, default: old_default }], [Transform::ValueMap { pairs, default }]) => {
            for (finops, dataverse) in pairs {
                match old.iter().find(|(own, _)| own == finops) {
                    None => say(format!("maps the value `{finops}` to `{dataverse}`; it did not list it")),
                    Some((_, was)) if was != dataverse => {
                        say(format!("maps the value `{finops}` to `{dataverse}`; it was `{was}`"));
                    }
                    Some(_) => {}
                }
            }
            for (finops, _) in old.iter().filter(|(own, _)| !pairs.iter().any(|(other, _)| other == own)) {
                say(format!("does not list the value `{finops}` any more"));
            }
            if old_default != default {
                let said = |default: &Option<String>| {
                    default.as_ref().map_or_else(|| "nothing".to_owned(), |value| format!("`{value}`"))
                };
                say(format!("gives other values {}; it gave them {}", said(default), said(old_default)));
            }
        }
        _ => say(format!("transforms by {}; it did by {}", listed(after), listed(before))),
    }
}

fn with_transforms(field: &FieldMapping) -> String {
    if field.transforms.is_empty() { String::new() } else { format!(", with {}", listed(&field.transforms)) }
}

fn listed(transforms: &[Transform]) -> String {
    if transforms.is_empty() {
        return "nothing".to_owned();
    }
    transforms.iter().map(ToString::to_string).collect::<Vec<_>>().join(", then ")
}
