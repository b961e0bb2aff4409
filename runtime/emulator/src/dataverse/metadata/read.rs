//! Questions about definitions: `EntityDefinitions(LogicalName='account')/Attributes?$select=…`.
//!
//! Owns the paths below the three sets of definitions, their casts, and `$select`, `$filter` and `$expand` as far as
//! they are documented for definitions ("Query table definitions using the Web API"). Answers are never paged.

use dualwright_odata::Literal;
use dualwright_odata::batch::Response;
use dualwright_odata::filter::{self, Expression};
use dualwright_odata::url::{self, Key, Resource, Segment};
use serde_json::{Value, json};

use super::shape::{self, Members};
use super::{NAMESPACE, attribute_id, choice_id, key_id, metadata_id, relationship_id};
use crate::batch::Site;
use crate::catalogue::{Catalogue, Relation, Table};
use crate::dataverse::{BAD_QUERY, NOT_FOUND, error, no_such_set};
use crate::definition::KeyDefinition;
use crate::definition::ManyToManyDefinition;
use crate::exchange;

/// What is asked of each definition.
#[derive(Default)]
struct Options<'a> {
    select: Vec<&'a str>,
    filter: Option<Expression>,
    /// Name and options of each.
    expand: Vec<(&'a str, &'a str)>,
}

impl<'a> Options<'a> {
    fn new(option: impl Fn(&str) -> Option<&'a str>) -> Result<Self, Response> {
        let filter = match option("$filter") {
            None => None,
            Some(text) => Some(filter::parse(text).map_err(|refusal| error(400, BAD_QUERY, &refusal.to_string()))?),
        };
        Ok(Self {
            select: option("$select").map(url::split_list).unwrap_or_default(),
            filter,
            expand: option("$expand")
                .map(url::split_list)
                .unwrap_or_default()
                .into_iter()
                .map(|item| match item.split_once('(') {
                    Some((name, options)) => (name, options.strip_suffix(')').unwrap_or(options)),
                    None => (item, ""),
                })
                .collect(),
        })
    }

    fn of_resource(resource: &'a Resource) -> Result<Self, Response> {
        for name in ["$top", "$skip", "$orderby", "$apply", "$search"] {
            if resource.option(name).is_some() {
                return Err(error(400, BAD_QUERY, &format!("The query parameter {name} is not supported.")));
            }
        }
        Self::new(|name| resource.option(name))
    }

    /// The options in the brackets of an `$expand`.
    fn nested(text: &'a str) -> Result<Self, Response> {
        let options = url::split_options(text);
        Self::new(|name| options.iter().find(|(own, _)| *own == name).map(|(_, value)| *value))
    }
}

/// What stands at a place, with what can be expanded there.
enum Found<'a> {
    Table(&'a Table),
    Attribute(&'a Table, usize, bool),
    Key(&'a Table, &'a KeyDefinition),
    Relationship(&'a Relation),
    ManyToMany(&'a Table, &'a ManyToManyDefinition),
    Choice(Value),
}

/// Answers a GET.
pub(in crate::dataverse) fn read(
    catalogue: &Catalogue,
    site: &Site,
    resource: &Resource,
) -> Result<Response, Response> {
    let Some((first, rest)) = resource.segments.split_first() else { return Err(no_such_set("")) };
    let options = Options::of_resource(resource)?;
    let reader = Reader { catalogue, site };
    match first.name.as_str() {
        "EntityDefinitions" => reader.entities(first, rest, &options),
        "RelationshipDefinitions" => {
            let all = catalogue.relations().map(|relation| Found::Relationship(relation));
            let all = all.chain(many_to_many(catalogue, None)).collect();
            reader.from(all, &[first], rest, &options, "RelationshipDefinitions")
        }
        "GlobalOptionSetDefinitions" => {
            let all =
                catalogue.enums.iter().map(|(name, options)| Found::Choice(shape::choice(name, options))).collect();
            reader.from(all, &[first], rest, &options, "GlobalOptionSetDefinitions")
        }
        other => Err(no_such_set(other)),
    }
}

struct Reader<'a> {
    catalogue: &'a Catalogue,
    site: &'a Site,
}

impl<'a> Reader<'a> {
    fn entities(&self, first: &Segment, rest: &[Segment], options: &Options<'_>) -> Result<Response, Response> {
        if first.key == Key::None {
            if let Some(next) = rest.first() {
                return Err(no_such_set(&next.name));
            }
            let all = self.catalogue.tables().map(|table| Found::Table(table)).collect();
            return self.list(all, options, "EntityDefinitions");
        }
        let table = find_table(self.catalogue, &first.key)?;
        let Some((step, below)) = rest.split_first() else {
            return self.one(&Found::Table(table), options, "EntityDefinitions");
        };
        if let Some(all) = self.collection(table, &step.name) {
            let place = format!("EntityDefinitions('{}')/{}", table.name(), step.name);
            return self.from(all, &[step], below, options, &place);
        }
        match shape::entity(table).get(&step.name) {
            Some(value) if below.is_empty() => {
                Ok(self.value(value, &format!("EntityDefinitions('{}')/{}", table.name(), step.name)))
            }
            _ => Err(no_such_set(&step.name)),
        }
    }

    /// A list below one table; `None` when there is none of that name.
    fn collection(&self, table: &'a Table, name: &str) -> Option<Vec<Found<'a>>> {
        Some(match name {
            // What only a type has is shown by its cast.
            "Attributes" => (0..table.columns.len()).map(|at| Found::Attribute(table, at, false)).collect(),
            "Keys" => table.definition.alternate_keys.iter().map(|key| Found::Key(table, key)).collect(),
            "ManyToOneRelationships" => {
                // In the order of the columns that refer.
                let mut own = self
                    .catalogue
                    .relations()
                    .filter(|relation| relation.referencing == table.name())
                    .collect::<Vec<_>>();
                own.sort_by_key(|relation| relation.column);
                own.into_iter().map(|relation| Found::Relationship(relation)).collect()
            }
            "OneToManyRelationships" => {
                self.catalogue.relations_to(table.name()).iter().map(|relation| Found::Relationship(relation)).collect()
            }
            "ManyToManyRelationships" => many_to_many(self.catalogue, Some(table.name())).collect(),
            _ => return None,
        })
    }

    /// Goes on from a list: all of it, one of it, those of a type, and what is inside.
    fn from(
        &self,
        all: Vec<Found<'a>>,
        at: &[&Segment],
        below: &[Segment],
        options: &Options<'_>,
        place: &str,
    ) -> Result<Response, Response> {
        let key = at.first().map_or(&Key::None, |segment| &segment.key);
        let (cast, below) = match below.split_first() {
            Some((step, rest)) if step.key == Key::None && step.name.starts_with(NAMESPACE) => {
                (step.name.strip_prefix(NAMESPACE), rest)
            }
            _ => (None, below),
        };
        let place = cast.map_or_else(|| place.to_owned(), |cast| format!("{place}/{NAMESPACE}{cast}"));
        let all = match cast {
            None => all,
            Some(cast) => all.into_iter().filter_map(|one| self.as_type(one, cast)).collect(),
        };
        if *key == Key::None {
            return match below.first() {
                Some(next) => Err(no_such_set(&next.name)),
                None => self.list(all, options, &place),
            };
        }
        let found = all.into_iter().find(|one| is_named(one, key));
        let found =
            found.ok_or_else(|| error(404, NOT_FOUND, "Could not find a definition with the specified name or id."))?;
        // One column by its name is shown as what it is.
        let found = match found {
            Found::Attribute(table, at, _) => Found::Attribute(table, at, true),
            other => other,
        };
        match below {
            [] => self.one(&found, options, &place),
            [step] => {
                let members = self.members(&found);
                let inside = self.inside(&found, &step.name)?.or_else(|| members.get(&step.name).cloned());
                match inside {
                    Some(Value::Object(inside)) => {
                        let mut inside = select(inside, &options.select);
                        inside.insert("@odata.context".into(), json!(self.context(&format!("{place}/{}", step.name))));
                        Ok(exchange::json(200, Value::Object(inside).to_string().into_bytes()))
                    }
                    Some(value) => Ok(self.value(&value, &format!("{place}/{}", step.name))),
                    None => Err(no_such_set(&step.name)),
                }
            }
            [_, next, ..] => Err(no_such_set(&next.name)),
        }
    }

    fn as_type(&self, found: Found<'a>, cast: &str) -> Option<Found<'a>> {
        match found {
            Found::Attribute(table, at, _) => (shape::attribute_type(table, &table.columns[at]).1 == cast)
                .then_some(Found::Attribute(table, at, true)),
            Found::Relationship(_) if cast != "OneToManyRelationshipMetadata" => None,
            Found::ManyToMany(..) if cast != "ManyToManyRelationshipMetadata" => None,
            Found::Choice(_) if cast != "OptionSetMetadata" => None,
            other => Some(other),
        }
    }

    fn members(&self, found: &Found<'_>) -> Members {
        match found {
            Found::Table(table) => shape::entity(table),
            Found::Attribute(table, at, typed) => shape::attribute(table, *at, *typed),
            Found::Key(table, key) => shape::key(table, key),
            Found::Relationship(relation) => shape::relationship(self.catalogue, relation),
            Found::ManyToMany(table, definition) => shape::many_to_many(table, definition),
            Found::Choice(Value::Object(members)) => members.clone(),
            Found::Choice(_) => Members::new(),
        }
    }

    /// What can be expanded; an error when the name is none of it.
    fn expanded(&self, found: &Found<'a>, name: &str, nested: &str) -> Result<Value, Response> {
        let options = Options::nested(nested)?;
        if let Found::Table(table) = found
            && let Some(all) = self.collection(table, name)
        {
            let all = self.matching(all, &options)?;
            return Ok(Value::Array(all));
        }
        match self.inside(found, name)? {
            Some(Value::Object(inside)) => Ok(Value::Object(select(inside, &options.select))),
            Some(value) => Ok(value),
            None => Err(error(
                400,
                BAD_QUERY,
                &format!("Could not find a property named '{name}' on type '{NAMESPACE}{}'.", type_name(found)),
            )),
        }
    }

    /// The choices of a column. A column that may have them, but has none of that sort, shows null.
    fn inside(&self, found: &Found<'_>, name: &str) -> Result<Option<Value>, Response> {
        let Found::Attribute(table, at, true) = found else { return Ok(None) };
        let column = &table.columns[*at];
        let has_choices = shape::option_set(table, column, false).is_some();
        Ok(match name {
            "OptionSet" if has_choices => shape::option_set(table, column, false),
            "GlobalOptionSet" if has_choices => Some(shape::option_set(table, column, true).unwrap_or(Value::Null)),
            _ => None,
        })
    }

    fn matching(&self, all: Vec<Found<'a>>, options: &Options<'_>) -> Result<Vec<Value>, Response> {
        let mut values = Vec::new();
        for one in all {
            let mut members = self.members(&one);
            let fits = match &options.filter {
                None => true,
                Some(condition) => filter::matches(condition, &|name| literal_at(&members, name)),
            };
            if !fits {
                continue;
            }
            if let Some(unknown) = options.select.iter().find(|name| !members.contains_key(**name) && **name != "*") {
                return Err(error(
                    400,
                    BAD_QUERY,
                    &format!("Could not find a property named '{unknown}' on type '{NAMESPACE}{}'.", type_name(&one)),
                ));
            }
            members = select(members, &options.select);
            for (name, nested) in &options.expand {
                members.insert((*name).to_owned(), self.expanded(&one, name, nested)?);
            }
            values.push(Value::Object(members));
        }
        Ok(values)
    }

    fn list(&self, all: Vec<Found<'a>>, options: &Options<'_>, place: &str) -> Result<Response, Response> {
        let values = self.matching(all, options)?;
        let body = json!({"@odata.context": self.selected_context(place, options), "value": values});
        Ok(exchange::json(200, body.to_string().into_bytes()))
    }

    fn one(&self, found: &Found<'a>, options: &Options<'_>, place: &str) -> Result<Response, Response> {
        let found = match found {
            Found::Table(table) => Found::Table(table),
            Found::Attribute(table, at, typed) => Found::Attribute(table, *at, *typed),
            Found::Key(table, key) => Found::Key(table, key),
            Found::Relationship(relation) => Found::Relationship(relation),
            Found::ManyToMany(table, definition) => Found::ManyToMany(table, definition),
            Found::Choice(value) => Found::Choice(value.clone()),
        };
        let unfiltered = Options { select: options.select.clone(), filter: None, expand: options.expand.clone() };
        let values = self.matching(vec![found], &unfiltered)?;
        let Some(Value::Object(mut members)) = values.into_iter().next() else { return Err(no_such_set(place)) };
        let context = format!("{}/$entity", self.selected_context(place, options));
        members.insert("@odata.context".into(), json!(context));
        Ok(exchange::json(200, Value::Object(members).to_string().into_bytes()))
    }

    fn value(&self, value: &Value, place: &str) -> Response {
        let body = json!({"@odata.context": self.context(place), "value": value});
        exchange::json(200, body.to_string().into_bytes())
    }

    fn context(&self, place: &str) -> String {
        format!("{}{}/$metadata#{place}", self.site.base, self.site.root)
    }

    fn selected_context(&self, place: &str, options: &Options<'_>) -> String {
        let names =
            options.select.iter().copied().chain(options.expand.iter().map(|(name, _)| *name)).collect::<Vec<_>>();
        let context = self.context(place);
        if options.select.is_empty() { context } else { format!("{context}({})", names.join(",")) }
    }
}

/// The relationships with many rows on either side: all, or those of one table.
fn many_to_many<'a>(catalogue: &'a Catalogue, of: Option<&'a str>) -> impl Iterator<Item = Found<'a>> {
    catalogue.tables().filter_map(move |table| {
        let definition = table.definition.many_to_many.as_ref()?;
        let is_of = of.is_none_or(|of| definition.sides.iter().any(|side| side.table == of));
        is_of.then_some(Found::ManyToMany(table, definition))
    })
}

fn type_name(found: &Found<'_>) -> &'static str {
    match found {
        Found::Table(_) => "EntityMetadata",
        Found::Attribute(table, at, true) => shape::attribute_type(table, &table.columns[*at]).1,
        Found::Attribute(..) => "AttributeMetadata",
        Found::Key(..) => "EntityKeyMetadata",
        Found::Relationship(_) => "OneToManyRelationshipMetadata",
        Found::ManyToMany(..) => "ManyToManyRelationshipMetadata",
        Found::Choice(_) => "OptionSetMetadata",
    }
}

/// The table that a key of `EntityDefinitions` names.
pub(super) fn find_table<'a>(catalogue: &'a Catalogue, key: &Key) -> Result<&'a std::sync::Arc<Table>, Response> {
    let named = |name: &str, wanted: &Literal, table: &Table| match (name, wanted) {
        ("LogicalName", Literal::Text(wanted)) => wanted == table.name(),
        ("EntitySetName", Literal::Text(wanted)) => wanted == table.set(),
        ("MetadataId", Literal::Guid(wanted)) => *wanted == metadata_id(table.name()),
        _ => false,
    };
    let found = catalogue.tables().find(|table| match key {
        Key::Single(literal) => named("MetadataId", literal, table),
        Key::Named(pairs) => matches!(pairs.as_slice(), [(name, value)] if named(name, value, table)),
        Key::None => false,
    });
    found.ok_or_else(|| {
        let shown = match key {
            Key::Named(pairs) => pairs.first().map(|(_, value)| value.to_string()),
            Key::Single(value) => Some(value.to_string()),
            Key::None => None,
        };
        let shown = shown.unwrap_or_default();
        error(404, NOT_FOUND, &format!("Could not find an entity with the name or id {shown}."))
    })
}

fn is_named(found: &Found<'_>, key: &Key) -> bool {
    let (id, names): (_, Vec<(&str, String)>) = match found {
        Found::Table(table) => (metadata_id(table.name()), vec![("LogicalName", table.name().to_owned())]),
        Found::Attribute(table, at, _) => {
            let name = &table.columns[*at].definition.name;
            (attribute_id(table.name(), name), vec![("LogicalName", name.clone())])
        }
        Found::Key(table, key) => (
            key_id(table.name(), &key.name),
            vec![("LogicalName", key.name.to_lowercase()), ("SchemaName", key.name.clone())],
        ),
        Found::Relationship(relation) => {
            (relationship_id(&relation.schema_name), vec![("SchemaName", relation.schema_name.clone())])
        }
        Found::ManyToMany(_, definition) => {
            (relationship_id(&definition.name), vec![("SchemaName", definition.name.clone())])
        }
        Found::Choice(value) => {
            let name = value["Name"].as_str().unwrap_or_default().to_owned();
            (choice_id(&name), vec![("Name", name)])
        }
    };
    match key {
        Key::Single(Literal::Guid(wanted)) => *wanted == id,
        Key::Named(pairs) => match pairs.as_slice() {
            [(name, Literal::Guid(wanted))] => name == "MetadataId" && *wanted == id,
            [(name, Literal::Text(wanted))] => names.iter().any(|(own, value)| own == name && value == wanted),
            _ => false,
        },
        _ => false,
    }
}

fn literal_at(members: &Members, path: &str) -> Literal {
    let (first, rest) = path.split_once('/').unwrap_or((path, ""));
    match members.get(first) {
        Some(Value::Object(inner)) => literal_at(inner, rest),
        Some(Value::Bool(value)) => Literal::Boolean(*value),
        Some(Value::String(text)) => match uuid::Uuid::parse_str(text) {
            Ok(id) => Literal::Guid(id),
            Err(_) => Literal::text(text.as_str()),
        },
        Some(Value::Number(number)) => Literal::parse(&number.to_string()).unwrap_or(Literal::Null),
        _ => Literal::Null,
    }
}

fn select(members: Members, names: &[&str]) -> Members {
    if names.is_empty() || names.contains(&"*") {
        return members;
    }
    members
        .into_iter()
        .filter(|(name, _)| name == "MetadataId" || name.starts_with('@') || names.contains(&name.as_str()))
        .collect()
}
