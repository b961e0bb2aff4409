//! Making tables, columns, keys, relationships and choices through the metadata API.
//!
//! Owns the JSON that is sent for them ("Create and update table definitions", "… column definitions", "… table
//! relationships", "… choices using the Web API") and what is refused. What was made can be used by the next request,
//! even of the same change set; publishing is accepted and has nothing left to do.

use std::sync::Arc;

use dualwright_odata::batch::{Request, Response};
use dualwright_odata::url::{Key, Resource, Segment};
use serde_json::{Map, Value, json};

use super::read::find_table;
use super::{NAMESPACE, attribute_id, choice_id, key_id, metadata_id, relationship_id};
use crate::Dialect;
use crate::batch::Site;
use crate::catalogue::{self, Relation, Table};
use crate::dataverse::{BAD_PAYLOAD, BAD_QUERY, NOT_FOUND, context, error, failed, no_such_set};
use crate::definition::{
    ColumnDefinition, ColumnKind, DateBehavior, DeleteBehavior, KeyDefinition, ManyToManyDefinition, OptionDefinition,
    Ownership, SideDefinition, TableDefinition, TargetDefinition,
};
use crate::exchange::{self, no_content, with_header};
use crate::session::Session;

const DUPLICATE_TABLE: &str = "0x80047010";
const DUPLICATE_COLUMN: &str = "0x80047013";
const DUPLICATE_KEY_NAME: &str = "0x80060893";
const NO_COLUMN: &str = "0x80041103";
const INVALID: &str = "0x80040203";
/// What still is needed by something else cannot be deleted.
const HAS_DEPENDENCIES: &str = "0x8004f01f";

/// Keys that a table can have ("Work with alternate keys").
const KEYS_MAX: usize = 10;
/// Columns in one key.
const KEY_COLUMNS_MAX: usize = 16;

type Written = (Response, Option<String>);

/// Whether an unbound action is about definitions.
pub(super) fn is_action(name: &str) -> bool {
    matches!(
        name,
        "PublishXml"
            | "PublishAllXml"
            | "CreateOneToMany"
            | "CreateManyToMany"
            | "CreateCustomerRelationships"
            | "ReactivateEntityKey"
            | "InsertOptionValue"
    )
}

/// Answers a request that changes definitions.
pub(in crate::dataverse) fn write(
    site: &Site,
    session: &mut Session<'_>,
    request: &Request,
    resource: &Resource,
) -> Result<Written, Response> {
    let body = match request.body.iter().all(u8::is_ascii_whitespace) {
        true => Map::new(),
        false => serde_json::from_slice::<Map<String, Value>>(&request.body).map_err(|refusal| {
            error(400, BAD_PAYLOAD, &format!("Error identified in Payload provided by the user: {refusal}"))
        })?,
    };
    let Some((first, rest)) = resource.segments.split_first() else { return Err(no_such_set("")) };
    let mut writer = Writer { site, session };
    let name = first.name.strip_prefix(NAMESPACE).unwrap_or(&first.name);
    match (request.method.as_str(), name, rest) {
        ("POST", "EntityDefinitions", []) if first.key == Key::None => writer.create_table(&body),
        ("POST", "RelationshipDefinitions", []) if first.key == Key::None => writer.create_relationship(&body),
        ("POST", "GlobalOptionSetDefinitions", []) if first.key == Key::None => writer.create_choice(&body),
        ("POST", action, []) if is_action(action) => writer.act(action, &body),
        (method, "EntityDefinitions", below) if first.key != Key::None => {
            let table = Arc::clone(find_table(&writer.session.catalogue, &first.key)?);
            writer.below_table(method, &table, below, &body)
        }
        ("PUT" | "DELETE", "RelationshipDefinitions", _) => {
            writer.change_relationship(&request.method, &first.key, &body)
        }
        ("DELETE", "GlobalOptionSetDefinitions", []) => writer.delete_choice(&first.key),
        (method, ..) => Err(error(405, BAD_QUERY, &format!("The method {method} is not allowed for this definition."))),
    }
}

struct Writer<'a, 'c> {
    site: &'a Site,
    session: &'a mut Session<'c>,
}

impl Writer<'_, '_> {
    fn below_table(
        &mut self,
        method: &str,
        table: &Arc<Table>,
        below: &[Segment],
        body: &Map<String, Value>,
    ) -> Result<Written, Response> {
        match (method, below) {
            ("PUT", []) => self.change_table(table, body),
            ("DELETE", []) => self.delete_table(table),
            ("POST", [step]) if step.name == "Attributes" && step.key == Key::None => self.create_column(table, body),
            ("PUT", [step, ..]) if step.name == "Attributes" => self.change_column(table, &step.key, body),
            ("DELETE", [step, ..]) if step.name == "Attributes" => self.delete_column(table, &step.key),
            ("POST", [step]) if step.name == "Keys" && step.key == Key::None => self.create_key(table, body),
            ("DELETE", [step]) if step.name == "Keys" => self.delete_key(table, &step.key),
            (method, _) => {
                Err(error(405, BAD_QUERY, &format!("The method {method} is not allowed for this definition.")))
            }
        }
    }

    /// 204 with the URL of what was made.
    fn made(&self, path: &str) -> Written {
        let link = format!("{}{}/{path}", self.site.base, self.site.root);
        (with_header(no_content(204), "OData-EntityId", link), Some(path.to_owned()))
    }

    fn define(&mut self, definition: TableDefinition) -> Result<(), Response> {
        let completed = catalogue::completed(Dialect::Dataverse, definition);
        self.session.redefine(completed).map_err(|refusal| error(400, INVALID, &format!("{refusal:#}")))
    }

    fn create_table(&mut self, body: &Map<String, Value>) -> Result<Written, Response> {
        let schema_name = schema_name(body)?;
        let name = schema_name.to_lowercase();
        if self.session.catalogue.by_name(&name).is_some() {
            let message = format!("An entity with the specified name {name} already exists. Specify a unique name.");
            return Err(error(400, DUPLICATE_TABLE, &message));
        }
        let attributes = body.get("Attributes").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let mut columns = Vec::with_capacity(attributes.len());
        let mut primary_name = None;
        for attribute in attributes {
            let attribute = attribute.as_object().ok_or_else(|| missing("Attributes"))?;
            let column = self.column_of(&name, attribute)?;
            if attribute.get("IsPrimaryName") == Some(&Value::Bool(true)) {
                primary_name = Some(column.name.clone());
            }
            columns.push(column);
        }
        let Some(primary_name) = primary_name else {
            return Err(error(
                400,
                "0x80047014",
                "The entity has no primary name attribute: one of Attributes needs IsPrimaryName.",
            ));
        };
        let set = text(body, "EntitySetName").map_or_else(|| plural(&name), str::to_owned);
        if self.session.catalogue.by_set(&set).is_some() {
            return Err(error(400, DUPLICATE_TABLE, &format!("An entity set with the name {set} already exists.")));
        }
        let ownership = match text(body, "OwnershipType") {
            None | Some("UserOwned") => Ownership::User,
            Some("OrganizationOwned") => Ownership::Organization,
            Some("BusinessOwned") => Ownership::Business,
            Some("None") => Ownership::None,
            Some(other) => return Err(invalid(&format!("'{other}' is not an ownership type that can be created."))),
        };
        self.define(TableDefinition {
            name: name.clone(),
            set,
            primary_name: Some(primary_name),
            schema_name: Some(schema_name),
            display_name: label(body.get("DisplayName")),
            display_collection_name: label(body.get("DisplayCollectionName")),
            description: label(body.get("Description")),
            ownership: Some(ownership),
            untracked: body.get("ChangeTrackingEnabled") != Some(&Value::Bool(true)),
            columns,
            ..TableDefinition::default()
        })?;
        Ok(self.made(&format!("EntityDefinitions({})", metadata_id(&name))))
    }

    /// The whole definition is sent; of it, what can be changed is taken.
    fn change_table(&mut self, table: &Table, body: &Map<String, Value>) -> Result<Written, Response> {
        let mut definition = table.definition.clone();
        if let Some(Value::Bool(tracked)) = body.get("ChangeTrackingEnabled") {
            definition.untracked = !tracked;
        }
        for (own, member) in [
            (&mut definition.display_name, "DisplayName"),
            (&mut definition.display_collection_name, "DisplayCollectionName"),
            (&mut definition.description, "Description"),
        ] {
            if let Some(text) = label(body.get(member)) {
                *own = Some(text);
            }
        }
        self.define(definition)?;
        Ok(self.made(&format!("EntityDefinitions({})", metadata_id(table.name()))))
    }

    fn delete_table(&mut self, table: &Table) -> Result<Written, Response> {
        if crate::dataverse::system::tables().iter().any(|own| own.name == table.name()) {
            return Err(error(400, INVALID, &format!("The table {} is part of the system.", table.name())));
        }
        let needed_by = self
            .session
            .catalogue
            .relations_to(table.name())
            .iter()
            .chain(self.session.catalogue.joins_to(table.name()))
            .find(|relation| relation.referencing != table.name())
            .map(|relation| relation.schema_name.clone());
        if let Some(relationship) = needed_by {
            let message = format!(
                "The {} component cannot be deleted because it is referenced by 1 or more other components \
                 (relationship {relationship}). Delete these first.",
                table.name()
            );
            return Err(error(400, HAS_DEPENDENCIES, &message));
        }
        self.session.drop_table(table).map_err(|refusal| failed(&refusal))?;
        Ok((no_content(204), None))
    }

    fn create_column(&mut self, table: &Arc<Table>, body: &Map<String, Value>) -> Result<Written, Response> {
        let column = self.column_of(table.name(), body)?;
        refuse_duplicate_column(table, &column.name)?;
        let name = column.name.clone();
        let mut definition = table.definition.clone();
        definition.columns.push(column);
        self.define(definition)?;
        let path = format!(
            "EntityDefinitions({})/Attributes({})",
            metadata_id(table.name()),
            attribute_id(table.name(), &name)
        );
        Ok(self.made(&path))
    }

    fn change_column(&mut self, table: &Arc<Table>, key: &Key, body: &Map<String, Value>) -> Result<Written, Response> {
        let at = column_at(table, key)?;
        let mut definition = table.definition.clone();
        let column = &mut definition.columns[at];
        if let Some(text) = label(body.get("DisplayName")) {
            column.display_name = Some(text);
        }
        if let Some(text) = label(body.get("Description")) {
            column.description = Some(text);
        }
        if let Some(level) = body.get("RequiredLevel") {
            column.required = is_required(level);
        }
        if let Some(longest) = body.get("MaxLength").and_then(Value::as_u64) {
            column.max_length = u32::try_from(longest).ok();
        }
        for (own, member) in [(&mut column.min, "MinValue"), (&mut column.max, "MaxValue")] {
            if let Some(Value::Number(bound)) = body.get(member) {
                *own = Some(bound.clone());
            }
        }
        if let Some(digits) = body.get("Precision").and_then(Value::as_u64) {
            column.precision = u8::try_from(digits).ok();
        }
        let path = format!(
            "EntityDefinitions({})/Attributes({})",
            metadata_id(table.name()),
            attribute_id(table.name(), &definition.columns[at].name)
        );
        self.define(definition)?;
        Ok(self.made(&path))
    }

    fn delete_column(&mut self, table: &Arc<Table>, key: &Key) -> Result<Written, Response> {
        let at = column_at(table, key)?;
        let column = &table.columns[at].definition;
        let of_system = catalogue::completed(
            Dialect::Dataverse,
            TableDefinition { columns: Vec::new(), ..table.definition.clone() },
        );
        let is_own = Some(at) == table.primary_id
            || table.definition.primary_name.as_ref() == Some(&column.name)
            || of_system.columns.iter().any(|own| own.name == column.name);
        if is_own {
            return Err(error(400, INVALID, &format!("The attribute {} is part of the system.", column.name)));
        }
        if let Some(key) = table.definition.alternate_keys.iter().find(|key| key.columns.contains(&column.name)) {
            let message = format!(
                "The Attribute({}) component cannot be deleted because it is referenced by 1 or more other components \
                 (key {}). Delete these first.",
                column.name, key.name
            );
            return Err(error(400, HAS_DEPENDENCIES, &message));
        }
        self.session.drop_column(table, at).map_err(|refusal| error(500, "0x80040216", &format!("{refusal:#}")))?;
        Ok((no_content(204), None))
    }

    fn create_key(&mut self, table: &Arc<Table>, body: &Map<String, Value>) -> Result<Written, Response> {
        let name = schema_name(body)?;
        let keys = &table.definition.alternate_keys;
        if keys.iter().any(|key| key.name.eq_ignore_ascii_case(&name)) {
            let message = format!("An entity key with the name {name} already exists on entity {}.", table.name());
            return Err(error(400, DUPLICATE_KEY_NAME, &message));
        }
        let columns = body.get("KeyAttributes").and_then(Value::as_array).ok_or_else(|| missing("KeyAttributes"))?;
        let columns = columns.iter().filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>();
        if columns.is_empty() || columns.len() > KEY_COLUMNS_MAX {
            return Err(invalid(&format!("A key has 1 to {KEY_COLUMNS_MAX} attributes.")));
        }
        if keys.len() >= KEYS_MAX {
            return Err(invalid(&format!("A table has at most {KEYS_MAX} keys.")));
        }
        if keys
            .iter()
            .any(|key| key.columns.len() == columns.len() && key.columns.iter().all(|one| columns.contains(one)))
        {
            return Err(error(400, DUPLICATE_KEY_NAME, "A key with the same attributes already exists."));
        }
        for column in &columns {
            let at = table.column(column).ok_or_else(|| no_column(table, column))?;
            let fits = matches!(
                table.columns[at].definition.kind,
                ColumnKind::Text
                    | ColumnKind::Int
                    | ColumnKind::Decimal
                    | ColumnKind::Datetime
                    | ColumnKind::Date
                    | ColumnKind::Lookup
                    | ColumnKind::Choice
            );
            if !fits {
                return Err(invalid(&format!("The attribute {column} is of a type that cannot be part of a key.")));
            }
        }
        let display_name = label(body.get("DisplayName"));
        self.put_key(table, KeyDefinition { name: name.clone(), columns, display_name, failed: false })?;
        let path = format!("EntityDefinitions({})/Keys({})", metadata_id(table.name()), key_id(table.name(), &name));
        Ok(self.made(&path))
    }

    /// Adds a key, or tries again to build its index. Rows that are in its way leave it failed, as the job that builds
    /// indexes does.
    fn put_key(&mut self, table: &Table, key: KeyDefinition) -> Result<(), Response> {
        let with = |failed: bool| {
            let mut definition = table.definition.clone();
            definition.alternate_keys.retain(|own| own.name != key.name);
            definition.alternate_keys.push(KeyDefinition { failed, ..key.clone() });
            definition
        };
        let fits = self.session.attempt(with(false)).map_err(|refusal| failed(&refusal))?;
        if fits { Ok(()) } else { self.define(with(true)) }
    }

    fn delete_key(&mut self, table: &Arc<Table>, key: &Key) -> Result<Written, Response> {
        let found = table.definition.alternate_keys.iter().find(|own| match named(key) {
            Some(Name::Id(id)) => id == key_id(table.name(), &own.name),
            Some(Name::Text(name)) => own.name.eq_ignore_ascii_case(name),
            None => false,
        });
        let name = found.map(|own| own.name.clone()).ok_or_else(|| no_definition("key"))?;
        self.session.drop_key(table, &name).map_err(|refusal| error(500, "0x80040216", &format!("{refusal:#}")))?;
        Ok((no_content(204), None))
    }

    fn create_relationship(&mut self, body: &Map<String, Value>) -> Result<Written, Response> {
        match text(body, "@odata.type").map(|kind| kind.trim_start_matches('#')) {
            Some("Microsoft.Dynamics.CRM.OneToManyRelationshipMetadata") => {}
            Some("Microsoft.Dynamics.CRM.ManyToManyRelationshipMetadata") => {
                let name = self.cross(body, text(body, "IntersectEntityName"))?;
                return Ok(self.made(&format!("RelationshipDefinitions({})", relationship_id(&name))));
            }
            _ => return Err(missing("@odata.type")),
        }
        let lookup = body.get("Lookup").and_then(Value::as_object).ok_or_else(|| missing("Lookup"))?;
        let (relationship, _) = self.relate(body, lookup)?;
        Ok(self.made(&format!("RelationshipDefinitions({})", relationship_id(&relationship))))
    }

    /// Adds a lookup with its relationship; a lookup that is there gets one target more.
    fn relate(&mut self, body: &Map<String, Value>, lookup: &Map<String, Value>) -> Result<(String, String), Response> {
        let relationship = schema_name(body)?;
        let referencing = text(body, "ReferencingEntity").ok_or_else(|| missing("ReferencingEntity"))?;
        let referenced = text(body, "ReferencedEntity").ok_or_else(|| missing("ReferencedEntity"))?;
        let no_table = |name: &str| error(404, NOT_FOUND, &format!("Could not find an entity with the name {name}."));
        let table = Arc::clone(self.session.catalogue.by_name(referencing).ok_or_else(|| no_table(referencing))?);
        if self.session.catalogue.by_name(referenced).is_none() {
            return Err(no_table(referenced));
        }
        self.refuse_duplicate_relationship(&relationship)?;
        let spelled = schema_name(lookup)?;
        let delete = body.get("CascadeConfiguration").and_then(|cascade| cascade.get("Delete")).and_then(Value::as_str);
        let target = TargetDefinition {
            table: referenced.to_owned(),
            navigation_property: text(body, "ReferencingEntityNavigationPropertyName").map(str::to_owned),
            relationship: Some(relationship.clone()),
            collection: text(body, "ReferencedEntityNavigationPropertyName").map(str::to_owned),
            on_delete: delete_behavior(delete)?,
            ..TargetDefinition::default()
        };
        let name = spelled.to_lowercase();
        let mut definition = table.definition.clone();
        match definition.columns.iter_mut().find(|column| column.name == name) {
            Some(column) if column.kind == ColumnKind::Lookup => {
                if column.targets.iter().any(|own| own.table == referenced) {
                    return Err(duplicate_column(&name));
                }
                // With several targets each has a name of its own.
                for own in column.targets.iter_mut().filter(|own| own.navigation_property.as_deref() == Some(&spelled))
                {
                    own.navigation_property = Some(format!("{spelled}_{}", own.table));
                }
                let navigation =
                    target.navigation_property.clone().unwrap_or_else(|| format!("{spelled}_{referenced}"));
                column.targets.push(TargetDefinition { navigation_property: Some(navigation), ..target });
            }
            Some(_) => return Err(duplicate_column(&name)),
            None => {
                let mut column = common(lookup, ColumnKind::Lookup)?;
                let navigation = target.navigation_property.clone().unwrap_or_else(|| spelled.clone());
                column.targets = vec![TargetDefinition { navigation_property: Some(navigation), ..target }];
                definition.columns.push(column);
            }
        }
        self.define(definition)?;
        Ok((relationship, name))
    }

    /// Adds a relationship with many rows on either side: a table for the pairs. Gives the name of the relationship.
    fn cross(&mut self, body: &Map<String, Value>, intersect: Option<&str>) -> Result<String, Response> {
        let relationship = schema_name(body)?;
        self.refuse_duplicate_relationship(&relationship)?;
        let spelled = intersect.unwrap_or(&relationship);
        let name = spelled.to_lowercase();
        if self.session.catalogue.by_name(&name).is_some() {
            let message = format!("An entity with the specified name {name} already exists. Specify a unique name.");
            return Err(error(400, DUPLICATE_TABLE, &message));
        }
        let entity = |number: u8| {
            let member = format!("Entity{number}LogicalName");
            let name = text(body, &member).ok_or_else(|| missing(&member))?;
            self.session.catalogue.by_name(name).cloned().ok_or_else(|| no_definition("table"))
        };
        let tables = [entity(1)?, entity(2)?];
        let is_same = tables[0].name() == tables[1].name();
        let side = |number: usize| {
            let table = tables[number].name();
            let id = tables[number].definition.primary_id.clone().unwrap_or_else(|| format!("{table}id"));
            // Where both sides are one table, the second is told from the first.
            let (column, usual) = match (is_same, number) {
                (false, _) => (id, relationship.clone()),
                (true, 0) => (format!("{id}one"), relationship.clone()),
                (true, _) => (format!("{id}two"), format!("{relationship}_referenced")),
            };
            let given = text(body, &format!("Entity{}NavigationPropertyName", number + 1));
            let navigation_property = given.filter(|name| !name.is_empty()).map_or(usual, str::to_owned);
            SideDefinition { table: table.to_owned(), column, navigation_property }
        };
        let sides = [side(0), side(1)];
        let columns = sides.iter().map(|side| ColumnDefinition {
            name: side.column.clone(),
            kind: ColumnKind::Guid,
            ..ColumnDefinition::default()
        });
        let key = KeyDefinition {
            name: format!("{name}_key"),
            columns: sides.iter().map(|side| side.column.clone()).collect(),
            ..KeyDefinition::default()
        };
        self.define(TableDefinition {
            set: format!("{name}set"),
            schema_name: Some(spelled.to_owned()),
            ownership: Some(Ownership::None),
            untracked: true,
            alternate_keys: vec![key],
            columns: columns.collect(),
            many_to_many: Some(ManyToManyDefinition { name: relationship.clone(), sides }),
            name,
            ..TableDefinition::default()
        })?;
        Ok(relationship)
    }

    fn refuse_duplicate_relationship(&self, name: &str) -> Result<(), Response> {
        let catalogue = &self.session.catalogue;
        let is_taken = catalogue.relations().any(|own| own.schema_name.eq_ignore_ascii_case(name))
            || catalogue.tables().any(|table| {
                table.definition.many_to_many.as_ref().is_some_and(|own| own.name.eq_ignore_ascii_case(name))
            });
        if is_taken {
            let message = format!("A relationship with the specified name {name} already exists.");
            return Err(error(400, DUPLICATE_TABLE, &message));
        }
        Ok(())
    }

    fn change_relationship(&mut self, method: &str, key: &Key, body: &Map<String, Value>) -> Result<Written, Response> {
        let is_meant = |own: &str| match named(key) {
            Some(Name::Id(id)) => id == relationship_id(own),
            Some(Name::Text(name)) => own == name,
            None => false,
        };
        let intersect =
            self.session.catalogue.tables().find(|table| {
                table.definition.many_to_many.as_ref().is_some_and(|definition| is_meant(&definition.name))
            });
        if let Some(intersect) = intersect.cloned() {
            if method != "DELETE" {
                return Ok(self.made(&format!(
                    "RelationshipDefinitions({})",
                    relationship_id(
                        &intersect.definition.many_to_many.as_ref().map(|own| own.name.clone()).unwrap_or_default()
                    )
                )));
            }
            if !crate::dataverse::system::is_custom(intersect.name()) {
                return Err(invalid(&format!("The relationship of {} is part of the system.", intersect.name())));
            }
            self.session.drop_table(&intersect).map_err(|refusal| failed(&refusal))?;
            return Ok((no_content(204), None));
        }
        let relation = self.session.catalogue.relations().find(|relation| is_meant(&relation.schema_name));
        let relation = Arc::clone(relation.ok_or_else(|| no_definition("relationship"))?);
        let Some(table) = self.session.catalogue.by_name(&relation.referencing).cloned() else {
            return Err(no_definition("relationship"));
        };
        if method == "DELETE" {
            return self.delete_relationship(&table, &relation);
        }
        let delete = body.get("CascadeConfiguration").and_then(|cascade| cascade.get("Delete")).and_then(Value::as_str);
        let mut definition = table.definition.clone();
        for target in &mut definition.columns[relation.column].targets {
            if target.table == relation.referenced {
                target.on_delete = delete_behavior(delete)?.or(target.on_delete);
            }
        }
        self.define(definition)?;
        Ok(self.made(&format!("RelationshipDefinitions({})", relationship_id(&relation.schema_name))))
    }

    fn delete_relationship(&mut self, table: &Arc<Table>, relation: &Relation) -> Result<Written, Response> {
        let column = &table.columns[relation.column].definition;
        if column.targets.len() > 1 {
            let mut definition = table.definition.clone();
            definition.columns[relation.column].targets.retain(|target| target.table != relation.referenced);
            self.define(definition)?;
            return Ok((no_content(204), None));
        }
        // The lookup goes with its only relationship.
        let key = Key::Named(vec![("LogicalName".to_owned(), dualwright_odata::Literal::text(column.name.as_str()))]);
        self.delete_column(table, &key)
    }

    fn create_choice(&mut self, body: &Map<String, Value>) -> Result<Written, Response> {
        let name = text(body, "Name").ok_or_else(|| missing("Name"))?.to_owned();
        if self.session.catalogue.enums.contains_key(&name) {
            let message = format!("An object with the specified name {name} already exists.");
            return Err(error(400, DUPLICATE_TABLE, &message));
        }
        let options = options_of(body.get("Options"));
        self.session.put_choice(&name, &options).map_err(|refusal| failed(&refusal))?;
        Ok(self.made(&format!("GlobalOptionSetDefinitions({})", choice_id(&name))))
    }

    fn delete_choice(&mut self, key: &Key) -> Result<Written, Response> {
        let name = self.choice_named(key).ok_or_else(|| no_definition("choice"))?;
        let used = self.session.catalogue.tables().find_map(|table| {
            let column = table.columns.iter().find(|column| column.definition.enumeration.as_ref() == Some(&name))?;
            Some(format!("{}.{}", table.name(), column.definition.name))
        });
        if let Some(used) = used {
            let message = format!(
                "The Option Set({name}) component cannot be deleted because it is referenced by 1 or more other components \
                 ({used}). Delete these first."
            );
            return Err(error(400, HAS_DEPENDENCIES, &message));
        }
        self.session.drop_choice(&name).map_err(|refusal| failed(&refusal))?;
        Ok((no_content(204), None))
    }

    fn choice_named(&self, key: &Key) -> Option<String> {
        let name = named(key)?;
        let found = self.session.catalogue.enums.keys().find(|own| match name {
            Name::Id(id) => id == choice_id(own),
            Name::Text(name) => own.as_str() == name,
        });
        found.cloned()
    }

    fn act(&mut self, action: &str, body: &Map<String, Value>) -> Result<Written, Response> {
        let answered = |site: &Site, kind: &str, members: Value| {
            let mut answer = context(site, &format!("Microsoft.Dynamics.CRM.{kind}"));
            let members = members.to_string();
            answer.push(b',');
            answer.extend_from_slice(members.trim_start_matches('{').as_bytes());
            (exchange::json(200, answer), None)
        };
        match action {
            "PublishXml" if text(body, "ParameterXml").is_none() => Err(missing("ParameterXml")),
            "PublishXml" | "PublishAllXml" => Ok((no_content(204), None)),
            "ReactivateEntityKey" => {
                let table =
                    text(body, "EntityLogicalName").and_then(|name| self.session.catalogue.by_name(name)).cloned();
                let table = table.ok_or_else(|| no_definition("table"))?;
                let name = text(body, "EntityKeyLogicalName").ok_or_else(|| missing("EntityKeyLogicalName"))?;
                let key = table.definition.alternate_keys.iter().find(|key| key.name.eq_ignore_ascii_case(name));
                let key = key.cloned().ok_or_else(|| no_definition("key"))?;
                self.put_key(&table, key)?;
                Ok((no_content(204), None))
            }
            "CreateOneToMany" => {
                let part = |name: &str| body.get(name).and_then(Value::as_object).ok_or_else(|| missing(name));
                let relationship = part("OneToManyRelationship")?;
                let (schema_name, column) = self.relate(relationship, part("Lookup")?)?;
                let table = text(relationship, "ReferencingEntity").unwrap_or_default();
                let members = json!({
                    "AttributeId": attribute_id(table, &column), "RelationshipId": relationship_id(&schema_name),
                });
                Ok(answered(self.site, "CreateOneToManyResponse", members))
            }
            "CreateCustomerRelationships" => {
                let lookup = body.get("Lookup").and_then(Value::as_object).ok_or_else(|| missing("Lookup"))?;
                let all = body.get("OneToManyRelationships").and_then(Value::as_array);
                let all = all.ok_or_else(|| missing("OneToManyRelationships"))?;
                let (mut ids, mut attribute) = (Vec::new(), None);
                for relationship in all.iter().filter_map(Value::as_object) {
                    let (schema_name, column) = self.relate(relationship, lookup)?;
                    ids.push(relationship_id(&schema_name));
                    attribute = text(relationship, "ReferencingEntity").map(|table| attribute_id(table, &column));
                }
                let members = json!({"AttributeId": attribute, "RelationshipIds": ids});
                Ok(answered(self.site, "CreateCustomerRelationshipsResponse", members))
            }
            "CreateManyToMany" => {
                let relationship = body.get("ManyToManyRelationship").and_then(Value::as_object);
                let relationship = relationship.ok_or_else(|| missing("ManyToManyRelationship"))?;
                let name = self.cross(relationship, text(body, "IntersectEntitySchemaName"))?;
                let members = json!({"ManyToManyRelationshipId": relationship_id(&name)});
                Ok(answered(self.site, "CreateManyToManyResponse", members))
            }
            "InsertOptionValue" => {
                let value = self.insert_option(body)?;
                Ok(answered(self.site, "InsertOptionValueResponse", json!({"NewOptionValue": value})))
            }
            other => Err(no_such_set(other)),
        }
    }

    /// A further option of a column's choice, or of a global one and of all columns that use it.
    fn insert_option(&mut self, body: &Map<String, Value>) -> Result<i64, Response> {
        let name = label(body.get("Label")).ok_or_else(|| missing("Label"))?;
        let given = body.get("Value").and_then(Value::as_i64);
        let add = |options: &mut Vec<OptionDefinition>| {
            let next =
                options.iter().map(|option| option.value).max().map_or(FIRST_OPTION, |last| last.saturating_add(1));
            let value = given.unwrap_or(next);
            if options.iter().any(|option| option.value == value) {
                return Err(error(400, INVALID, &format!("The option {value} already exists.")));
            }
            options.push(OptionDefinition { name: name.clone(), value, state: None });
            Ok(value)
        };
        if let Some(global) = text(body, "OptionSetName") {
            let mut options =
                self.session.catalogue.enums.get(global).cloned().ok_or_else(|| no_definition("choice"))?;
            let value = add(&mut options)?;
            self.session.put_choice(global, &options).map_err(|refusal| failed(&refusal))?;
            let users = self
                .session
                .catalogue
                .tables()
                .filter(|table| {
                    table.columns.iter().any(|column| column.definition.enumeration.as_deref() == Some(global))
                })
                .cloned()
                .collect::<Vec<_>>();
            for table in users {
                let mut definition = table.definition.clone();
                for column in definition.columns.iter_mut().filter(|own| own.enumeration.as_deref() == Some(global)) {
                    column.options.clone_from(&options);
                }
                self.define(definition)?;
            }
            return Ok(value);
        }
        let table = text(body, "EntityLogicalName").and_then(|name| self.session.catalogue.by_name(name)).cloned();
        let table = table.ok_or_else(|| no_definition("table"))?;
        let attribute = text(body, "AttributeLogicalName").ok_or_else(|| missing("AttributeLogicalName"))?;
        let at = table.column(attribute).ok_or_else(|| no_column(&table, attribute))?;
        let mut definition = table.definition.clone();
        let value = add(&mut definition.columns[at].options)?;
        self.define(definition)?;
        Ok(value)
    }

    /// The column that an attribute describes.
    fn column_of(&self, table: &str, body: &Map<String, Value>) -> Result<ColumnDefinition, Response> {
        let metadata = text(body, "@odata.type").map(|kind| kind.trim_start_matches('#'));
        let metadata = metadata.and_then(|kind| kind.strip_prefix(NAMESPACE)).ok_or_else(|| missing("@odata.type"))?;
        let kind = match metadata {
            "StringAttributeMetadata" => ColumnKind::Text,
            "MemoAttributeMetadata" => ColumnKind::Memo,
            "IntegerAttributeMetadata" => ColumnKind::Int,
            "BigIntAttributeMetadata" => ColumnKind::Bigint,
            "DecimalAttributeMetadata" => ColumnKind::Decimal,
            "DoubleAttributeMetadata" => ColumnKind::Double,
            "MoneyAttributeMetadata" => ColumnKind::Money,
            "BooleanAttributeMetadata" => ColumnKind::Boolean,
            "DateTimeAttributeMetadata" => ColumnKind::Datetime,
            "UniqueIdentifierAttributeMetadata" => ColumnKind::Guid,
            "PicklistAttributeMetadata" => ColumnKind::Choice,
            "MultiSelectPicklistAttributeMetadata" => ColumnKind::MultiChoice,
            "LookupAttributeMetadata" | "ComplexLookupAttributeMetadata" => {
                return Err(invalid("A lookup is created with its relationship: POST it to RelationshipDefinitions."));
            }
            other => return Err(error(501, BAD_QUERY, &format!("Attributes of the type {other} are not supported."))),
        };
        let mut column = common(body, kind)?;
        let number = |name: &str| body.get(name).and_then(Value::as_u64);
        let bound = |name: &str| match body.get(name) {
            Some(Value::Number(bound)) => Some(bound.clone()),
            _ => None,
        };
        match kind {
            ColumnKind::Text | ColumnKind::Memo => {
                let (usual, most) = if kind == ColumnKind::Text { (100, 4_000) } else { (2_000, 1_048_576) };
                let longest = number("MaxLength").unwrap_or(usual);
                if longest < 1 || most < longest {
                    return Err(invalid(&format!("The MaxLength of {} has to be 1 to {most}.", column.name)));
                }
                column.max_length = u32::try_from(longest).ok();
                let named = body.get("FormatName").and_then(|name| name.get("Value")).and_then(Value::as_str);
                column.format = named
                    .or_else(|| text(body, "Format"))
                    .filter(|name| !matches!(*name, "Text" | "TextArea"))
                    .map(str::to_owned);
            }
            ColumnKind::Int => {
                (column.min, column.max) = (bound("MinValue"), bound("MaxValue"));
                column.format = text(body, "Format").filter(|name| *name != "None").map(str::to_owned);
            }
            ColumnKind::Decimal | ColumnKind::Double | ColumnKind::Money => {
                (column.min, column.max) = (bound("MinValue"), bound("MaxValue"));
                let most = match kind {
                    ColumnKind::Decimal => 10,
                    ColumnKind::Double => 5,
                    _ => 4,
                };
                let usual = if kind == ColumnKind::Money { None } else { Some(2) };
                // With a source of its own the currency says how many digits an amount has.
                let is_own = kind != ColumnKind::Money || matches!(number("PrecisionSource"), None | Some(0));
                let digits = number("Precision").filter(|_| is_own).or(usual);
                if digits.is_some_and(|digits| digits > most) {
                    return Err(invalid(&format!("The Precision of {} has to be 0 to {most}.", column.name)));
                }
                column.precision = digits.and_then(|digits| u8::try_from(digits).ok());
            }
            ColumnKind::Datetime => {
                let behavior =
                    body.get("DateTimeBehavior").and_then(|behavior| behavior.get("Value")).and_then(Value::as_str);
                column.format = text(body, "Format").map(str::to_owned);
                column.behavior = match behavior {
                    None | Some("UserLocal") => Some(DateBehavior::UserLocal),
                    Some("TimeZoneIndependent") => Some(DateBehavior::TimeZoneIndependent),
                    Some("DateOnly") => Some(DateBehavior::DateOnly),
                    Some(other) => return Err(invalid(&format!("'{other}' is not a DateTimeBehavior."))),
                };
                if column.behavior == Some(DateBehavior::DateOnly) {
                    column.kind = ColumnKind::Date;
                }
            }
            ColumnKind::Boolean => {
                let option = |name: &str, value: i64, usual: &str| {
                    let own =
                        body.get("OptionSet").and_then(|set| set.get(name)).and_then(|one| label(one.get("Label")));
                    OptionDefinition { name: own.unwrap_or_else(|| usual.to_owned()), value, state: None }
                };
                column.options = vec![option("FalseOption", 0, "No"), option("TrueOption", 1, "Yes")];
            }
            ColumnKind::Choice | ColumnKind::MultiChoice => self.choose(table, body, &mut column)?,
            _ => {}
        }
        Ok(column)
    }

    /// The options of a choice: its own, or those of a global one.
    fn choose(&self, table: &str, body: &Map<String, Value>, column: &mut ColumnDefinition) -> Result<(), Response> {
        if let Some(link) = text(body, "GlobalOptionSet@odata.bind") {
            let below = dualwright_odata::url::below(&self.site.root, link).unwrap_or(link);
            let key =
                dualwright_odata::url::parse(below).ok().and_then(|resource| resource.segments.into_iter().next());
            let name =
                key.and_then(|segment| self.choice_named(&segment.key)).ok_or_else(|| no_definition("choice"))?;
            column.options = self.session.catalogue.enums.get(&name).cloned().unwrap_or_default();
            column.enumeration = Some(name);
            return Ok(());
        }
        let Some(set) = body.get("OptionSet").and_then(Value::as_object) else {
            return Err(missing("OptionSet"));
        };
        if set.get("IsGlobal") == Some(&Value::Bool(true)) {
            let name = text(set, "Name").ok_or_else(|| missing("OptionSet/Name"))?;
            column.options = self.session.catalogue.enums.get(name).cloned().ok_or_else(|| no_definition("choice"))?;
            column.enumeration = Some(name.to_owned());
            return Ok(());
        }
        column.options = options_of(set.get("Options"));
        let mut seen = std::collections::HashSet::new();
        if let Some(twice) = column.options.iter().find(|option| !seen.insert(option.value)) {
            return Err(invalid(&format!("{table}.{}: the option {} stands there twice.", column.name, twice.value)));
        }
        Ok(())
    }
}

/// What a publisher's options count from when they say no number: the default prefix 10000 with four zeros.
const FIRST_OPTION: i64 = 100_000_000;

fn options_of(options: Option<&Value>) -> Vec<OptionDefinition> {
    let all = options.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let mut next = FIRST_OPTION;
    all.iter()
        .map(|option| {
            let value = option.get("Value").and_then(Value::as_i64).unwrap_or(next);
            next = value.saturating_add(1);
            OptionDefinition { name: label(option.get("Label")).unwrap_or_default(), value, state: None }
        })
        .collect()
}

/// What every kind of column says of itself.
fn common(body: &Map<String, Value>, kind: ColumnKind) -> Result<ColumnDefinition, Response> {
    let schema_name = schema_name(body)?;
    Ok(ColumnDefinition {
        name: schema_name.to_lowercase(),
        kind,
        required: body.get("RequiredLevel").is_some_and(is_required),
        display_name: label(body.get("DisplayName")),
        description: label(body.get("Description")),
        schema_name: Some(schema_name),
        ..ColumnDefinition::default()
    })
}

/// Only what the application or the system requires is refused when it is missing.
fn is_required(level: &Value) -> bool {
    matches!(level.get("Value").and_then(Value::as_str), Some("ApplicationRequired" | "SystemRequired"))
}

fn schema_name(body: &Map<String, Value>) -> Result<String, Response> {
    let name = text(body, "SchemaName").ok_or_else(|| missing("SchemaName"))?;
    let is_name = name.len() <= 128
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if is_name { Ok(name.to_owned()) } else { Err(invalid(&format!("'{name}' is not a valid SchemaName."))) }
}

fn text<'a>(body: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    body.get(name).and_then(Value::as_str)
}

/// The text of a `Label`.
fn label(value: Option<&Value>) -> Option<String> {
    let value = value?;
    let localized = value.pointer("/LocalizedLabels/0/Label").or_else(|| value.pointer("/UserLocalizedLabel/Label"))?;
    localized.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}

fn delete_behavior(name: Option<&str>) -> Result<Option<DeleteBehavior>, Response> {
    Ok(Some(match name {
        None => return Ok(None),
        Some("RemoveLink") => DeleteBehavior::RemoveLink,
        Some("Restrict") => DeleteBehavior::Restrict,
        Some("Cascade") => DeleteBehavior::Cascade,
        Some("NoCascade") => DeleteBehavior::NoCascade,
        Some(other) => return Err(invalid(&format!("'{other}' is not a behavior of CascadeConfiguration/Delete."))),
    }))
}

/// How a key names a definition.
#[derive(Clone, Copy)]
enum Name<'a> {
    Id(uuid::Uuid),
    Text(&'a str),
}

fn named(key: &Key) -> Option<Name<'_>> {
    use dualwright_odata::Literal::{Guid, Text};
    match key {
        Key::Single(Guid(id)) => Some(Name::Id(*id)),
        Key::Named(pairs) => match pairs.as_slice() {
            [(_, Guid(id))] => Some(Name::Id(*id)),
            [(_, Text(text))] => Some(Name::Text(text)),
            _ => None,
        },
        _ => None,
    }
}

fn column_at(table: &Table, key: &Key) -> Result<usize, Response> {
    let found = table.columns.iter().position(|column| match named(key) {
        Some(Name::Id(id)) => id == attribute_id(table.name(), &column.definition.name),
        Some(Name::Text(name)) => column.definition.name == name,
        None => false,
    });
    found.ok_or_else(|| no_definition("attribute"))
}

fn refuse_duplicate_column(table: &Table, name: &str) -> Result<(), Response> {
    if table.column(name).is_some() { Err(duplicate_column(name)) } else { Ok(()) }
}

fn duplicate_column(name: &str) -> Response {
    error(400, DUPLICATE_COLUMN, &format!("An attribute with the specified name {name} already exists."))
}

fn no_column(table: &Table, name: &str) -> Response {
    let message = format!(
        "'{}' entity doesn't contain attribute with Name = '{name}' and NameMappingType = 'Logical'.",
        table.name()
    );
    error(400, NO_COLUMN, &message)
}

fn no_definition(what: &str) -> Response {
    error(404, NOT_FOUND, &format!("Could not find the {what} with the specified name or id."))
}

fn missing(member: &str) -> Response {
    error(400, BAD_PAYLOAD, &format!("Error identified in Payload provided by the user: '{member}' is missing."))
}

fn invalid(message: &str) -> Response {
    error(400, INVALID, message)
}

/// `new_bankaccounts`, `new_companies`: what Dataverse makes of a name.
fn plural(name: &str) -> String {
    match name.as_bytes() {
        [.., before, b'y'] if !b"aeiou".contains(before) => format!("{}ies", &name[..name.len() - 1]),
        [.., b's' | b'x' | b'z'] | [.., b'c' | b's', b'h'] => format!("{name}es"),
        _ => format!("{name}s"),
    }
}
