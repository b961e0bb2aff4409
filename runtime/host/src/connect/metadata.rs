//! The tables of a system as that system describes them (reference 7.10 and 8.1).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dualwright_core::schema::{AlternateKey, Lookup, LookupTarget};
use dualwright_core::{Class, Code, Column, CurrencyScales, Fault, Kind, Schema, SystemKind};
use dualwright_odata::escape::{component, quote};
use futures_util::future::{try_join_all, try_join3};
use rust_decimal::Decimal;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::OnceCell;

use super::{System, dataverse};

/// Every table's names, read once per start.
#[derive(Debug, Default)]
pub struct Catalogue {
    /// Entity set to logical name (Dataverse), or public collection to public entity name (F&O).
    by_set: HashMap<String, TableName>,
    set_of_table: HashMap<String, String>,
    /// Every name an F&O data entity goes by, in lower case, to its public collection.
    set_of_entity: HashMap<String, String>,
    /// Enumerations of F&O that were read before; most entities share a few of them.
    enumerations: Mutex<HashMap<String, Options>>,
    /// What says how many digits an amount has (Dataverse), once a table needed it.
    currencies: OnceCell<CurrencyScales>,
    pricing: OnceCell<Option<u8>>,
}

type Options = Arc<[(Arc<str>, i64)]>;

#[derive(Debug, Clone)]
struct TableName {
    table: String,
    primary_id: Option<String>,
    /// Of a kind whose rows have versions (Dataverse): neither virtual nor elastic.
    is_standard: bool,
    /// Its changes can be asked for (Dataverse); `None` where the system did not say.
    is_tracked: Option<bool>,
}

impl Catalogue {
    /// The public collection of an F&O data entity, by the name that a map gives it: its own, its public one or its
    /// label, in any case.
    #[must_use]
    pub fn collection_of_entity(&self, entity: &str) -> Option<&str> {
        self.set_of_entity.get(&entity.trim().to_lowercase()).map(String::as_str)
    }

    #[must_use]
    pub fn has_set(&self, set: &str) -> bool {
        self.by_set.contains_key(set)
    }

    /// Logical name (Dataverse) or public entity name (F&O) of a table.
    #[must_use]
    pub fn table_of(&self, set: &str) -> Option<&str> {
        self.by_set.get(set).map(|name| name.table.as_str())
    }

    /// The id column of a table (Dataverse).
    #[must_use]
    pub fn primary_id(&self, set: &str) -> Option<&str> {
        self.by_set.get(set)?.primary_id.as_deref()
    }

    /// The entity set of a table by its logical name.
    #[must_use]
    pub fn set_of(&self, table: &str) -> Option<&str> {
        self.set_of_table.get(table).map(String::as_str)
    }
}

#[derive(Deserialize)]
struct ValueOf<T> {
    value: Vec<T>,
}

impl System {
    async fn get_json<T: DeserializeOwned>(&self, url: &str, what: &str, timeout: Duration) -> Result<T, Fault> {
        let body = self.get(url, None, timeout).await?;
        serde_json::from_slice(&body).map_err(|error| {
            let message = format!("{} sent a description of {what} that cannot be read: {error}", self.kind);
            Fault::new(Code::TableUnknown, message)
        })
    }

    async fn get_values<T: DeserializeOwned>(&self, url: &str, what: &str, timeout: Duration) -> Result<Vec<T>, Fault> {
        self.get_json::<ValueOf<T>>(url, what, timeout).await.map(|list| list.value)
    }

    /// The names of all tables.
    pub async fn catalogue(&self, timeout: Duration) -> Result<Catalogue, Fault> {
        let mut catalogue = Catalogue::default();
        match self.kind {
            SystemKind::Dataverse => {
                #[derive(Deserialize)]
                #[serde(rename_all = "PascalCase")]
                struct Definition {
                    logical_name: String,
                    entity_set_name: Option<String>,
                    primary_id_attribute: Option<String>,
                    table_type: Option<String>,
                    change_tracking_enabled: Option<bool>,
                }
                let url = format!(
                    "{}/EntityDefinitions?$select=LogicalName,EntitySetName,PrimaryIdAttribute,TableType,\
                     ChangeTrackingEnabled",
                    dataverse::ROOT
                );
                for definition in self.get_values::<Definition>(&url, "its tables", timeout).await? {
                    let Some(set) = definition.entity_set_name else { continue };
                    catalogue.set_of_table.insert(definition.logical_name.clone(), set.clone());
                    let name = TableName {
                        table: definition.logical_name,
                        primary_id: definition.primary_id_attribute,
                        is_standard: definition.table_type.is_none_or(|own| own == "Standard"),
                        is_tracked: definition.change_tracking_enabled,
                    };
                    catalogue.by_set.insert(set, name);
                }
            }
            SystemKind::Finops => {
                #[derive(Deserialize)]
                #[serde(rename_all = "PascalCase")]
                struct Entity {
                    name: String,
                    public_entity_name: Option<String>,
                    public_collection_name: Option<String>,
                    label_id: Option<String>,
                }
                for entity in self.get_values::<Entity>("/metadata/DataEntities", "its entities", timeout).await? {
                    let (Some(table), Some(set)) = (entity.public_entity_name, entity.public_collection_name) else {
                        continue;
                    };
                    // An entity's own name wins over the label of another.
                    for name in entity.label_id.iter().chain([&table]) {
                        catalogue.set_of_entity.entry(name.trim().to_lowercase()).or_insert_with(|| set.clone());
                    }
                    catalogue.set_of_entity.insert(entity.name.trim().to_lowercase(), set.clone());
                    catalogue.set_of_table.insert(table.clone(), set.clone());
                    let name = TableName { table, primary_id: None, is_standard: true, is_tracked: None };
                    catalogue.by_set.insert(set, name);
                }
            }
        }
        Ok(catalogue)
    }

    /// One table with all its columns.
    pub async fn schema(&self, catalogue: &Catalogue, set: &str, timeout: Duration) -> Result<Schema, Fault> {
        let name = catalogue
            .by_set
            .get(set)
            .ok_or_else(|| Fault::new(Code::TableUnknown, format!("{} has no table {set}", self.kind)))?;
        match self.kind {
            SystemKind::Dataverse => self.dataverse_schema(catalogue, set, name, timeout).await,
            SystemKind::Finops => self.finops_schema(catalogue, set, name, timeout).await,
        }
    }

    async fn dataverse_schema(
        &self,
        catalogue: &Catalogue,
        set: &str,
        name: &TableName,
        timeout: Duration,
    ) -> Result<Schema, Fault> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Key {
            logical_name: Option<String>,
            key_attributes: Vec<String>,
            /// A key is enforced, and can stand in a URL, only when its index is `Active`.
            entity_key_index_status: Option<String>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Relationship {
            referencing_attribute: String,
            referencing_entity_navigation_property_name: String,
            referenced_entity: String,
        }
        let root = format!("{}/EntityDefinitions(LogicalName={})", dataverse::ROOT, component(&quote(&name.table)));
        let urls = ["Attributes", "Keys", "ManyToOneRelationships"].map(|what| format!("{root}/{what}"));
        let attributes = async {
            let listed = self.get_values::<Attribute>(&urls[0], set, timeout).await?;
            // The untyped list leaves out what only a type has, so each type is asked for by its cast.
            let casts = CASTS.iter().filter(|(own, _)| listed.iter().any(|attribute| attribute.own_type() == *own));
            let typed = try_join_all(casts.map(|(_, cast)| {
                let url = format!("{root}/Attributes/Microsoft.Dynamics.CRM.{cast}");
                async move { self.get_values::<Attribute>(&url, set, timeout).await }
            }))
            .await?;
            let mut attributes = listed
                .into_iter()
                .map(|attribute| (attribute.logical_name.clone(), attribute))
                .collect::<BTreeMap<_, _>>();
            for typed in typed.into_iter().flatten() {
                if let Some(attribute) = attributes.get_mut(&typed.logical_name) {
                    attribute.fill_from(typed);
                }
            }
            Ok(attributes)
        };
        let keys = self.get_values::<Key>(&urls[1], set, timeout);
        let relationships = self.get_values::<Relationship>(&urls[2], set, timeout);
        let (attributes, keys, relationships) = try_join3(attributes, keys, relationships).await?;

        let needs =
            |source| attributes.values().any(|own| own.own_type() == "Money" && own.precision_source == Some(source));
        let pricing = if needs(PRECISION_OF_PRICES) { self.pricing(catalogue, timeout).await? } else { None };
        let currencies = match needs(PRECISION_OF_CURRENCY) {
            true => self.currencies(catalogue, timeout).await?,
            false => Arc::from([]),
        };
        let columns = attributes
            .values()
            .filter_map(|attribute| {
                let mut column = Column::new(&attribute.logical_name, attribute.kind()?);
                column.length_max = attribute.max_length.and_then(|length| u32::try_from(length).ok());
                column.scale = attribute.precision.and_then(|digits| u8::try_from(digits).ok());
                if column.kind == Kind::Money {
                    (column.scale, column.scale_of_currency) =
                        scale_of_money(attribute.precision_source, column.scale, pricing, &currencies);
                }
                column.minimum = attribute.min_value.as_ref().and_then(decimal_of);
                column.maximum = attribute.max_value.as_ref().and_then(decimal_of);
                column.required =
                    attribute.is_required() && name.primary_id.as_deref() != Some(&attribute.logical_name);
                column.read_only =
                    attribute.is_valid_for_create == Some(false) && attribute.is_valid_for_update == Some(false);
                column.options = attribute.options();
                let targets = relationships
                    .iter()
                    .filter(|relationship| relationship.referencing_attribute == attribute.logical_name)
                    .filter_map(|relationship| {
                        Some(LookupTarget {
                            table: Arc::from(relationship.referenced_entity.as_str()),
                            set: Arc::from(catalogue.set_of(&relationship.referenced_entity)?),
                            navigation_property: Arc::from(
                                relationship.referencing_entity_navigation_property_name.as_str(),
                            ),
                        })
                    })
                    .collect::<Vec<_>>();
                if column.kind == Kind::Lookup && !targets.is_empty() {
                    column.lookup = Some(Lookup { targets });
                }
                Some(column)
            })
            .collect();
        let mut schema = Schema::new(SystemKind::Dataverse, &name.table, set, columns);
        schema.primary_id = name.primary_id.as_deref().and_then(|id| schema.index_of(id));
        schema.versioned = Some(name.is_standard && attributes.contains_key(VERSION));
        schema.tracked = name.is_tracked;
        schema.alternate_keys = keys
            .into_iter()
            .filter(|key| key.entity_key_index_status.as_deref().is_none_or(|status| status == "Active"))
            .map(|key| AlternateKey {
                name: Arc::from(key.logical_name.unwrap_or_default()),
                columns: key.key_attributes.iter().map(|column| Arc::from(column.as_str())).collect(),
            })
            .collect();
        // A table is company-specific when a lookup to cdm_company stands in one of its keys (reference 1.9).
        schema.company = (0..schema.columns().len()).find(|&index| {
            let column = schema.column(index);
            column.lookup.as_ref().is_some_and(|lookup| lookup.targets.iter().any(|to| &*to.table == "cdm_company"))
                && schema.alternate_keys.iter().any(|key| key.columns.contains(&column.name))
        });
        Ok(schema)
    }

    /// The digits of amounts in each currency that there is. None where they may not be read.
    async fn currencies(&self, catalogue: &Catalogue, timeout: Duration) -> Result<CurrencyScales, Fault> {
        #[derive(Deserialize)]
        struct Currency {
            isocurrencycode: Option<String>,
            currencyprecision: Option<u8>,
        }
        let read = catalogue.currencies.get_or_try_init(|| async {
            let url = format!("{}/transactioncurrencies?$select=isocurrencycode,currencyprecision", dataverse::ROOT);
            let all = unless_refused(self.get_values::<Currency>(&url, "its currencies", timeout).await)?;
            let known =
                all.into_iter().filter_map(|own| Some((Arc::from(own.isocurrencycode?), own.currencyprecision?)));
            Ok(known.collect())
        });
        read.await.cloned()
    }

    /// The digits of prices. `None` where they may not be read.
    async fn pricing(&self, catalogue: &Catalogue, timeout: Duration) -> Result<Option<u8>, Fault> {
        #[derive(Deserialize)]
        struct Organization {
            pricingdecimalprecision: Option<u8>,
        }
        let read = catalogue.pricing.get_or_try_init(|| async {
            let url = format!("{}/organizations?$select=pricingdecimalprecision", dataverse::ROOT);
            let all = unless_refused(self.get_values::<Organization>(&url, "its organization", timeout).await)?;
            Ok(all.into_iter().find_map(|own| own.pricingdecimalprecision))
        });
        read.await.copied()
    }

    async fn finops_schema(
        &self,
        catalogue: &Catalogue,
        set: &str,
        name: &TableName,
        timeout: Duration,
    ) -> Result<Schema, Fault> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Entity {
            properties: Vec<Property>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Property {
            name: String,
            type_name: String,
            /// The type within F&O.
            #[serde(default)]
            data_type: String,
            #[serde(default)]
            is_key: bool,
            #[serde(default)]
            is_mandatory: bool,
            #[serde(default = "yes")]
            allow_edit: bool,
            #[serde(default = "yes")]
            allow_edit_on_create: bool,
            /// Not sent by every version.
            max_length: Option<i64>,
        }
        const fn yes() -> bool {
            true
        }
        let url = format!("/metadata/PublicEntities({})", component(&quote(&name.table)));
        let entity: Entity = self.get_json(&url, set, timeout).await?;
        let names = entity.properties.iter().filter_map(|property| property.type_name.strip_prefix(ENUM_NAMESPACE));
        let enumerations = self.finops_enumerations(catalogue, names.collect(), timeout).await?;
        let columns = entity
            .properties
            .iter()
            .map(|property| {
                let enum_name = property.type_name.strip_prefix(ENUM_NAMESPACE);
                let kind =
                    enum_name.map_or_else(|| finops_kind(&property.type_name, &property.data_type), |_| Kind::Choice);
                let mut column = Column::new(&property.name, kind);
                column.required = property.is_mandatory;
                column.read_only = !property.allow_edit && !property.allow_edit_on_create;
                column.length_max = property.max_length.and_then(|length| u32::try_from(length).ok());
                if let Some(options) = enum_name.and_then(|name| enumerations.get(name)) {
                    column.options = Arc::clone(options);
                }
                column.enumeration = enum_name.map(Arc::from);
                column
            })
            .collect();
        let mut schema = Schema::new(SystemKind::Finops, &name.table, set, columns);
        schema.key = entity
            .properties
            .iter()
            .enumerate()
            .filter(|(_, property)| property.is_key)
            .map(|(index, _)| index)
            .collect();
        schema.company = schema.index_of("dataAreaId").filter(|index| schema.key.contains(index));
        Ok(schema)
    }

    async fn finops_enumerations<'a>(
        &self,
        catalogue: &Catalogue,
        names: BTreeSet<&'a str>,
        timeout: Duration,
    ) -> Result<HashMap<&'a str, Options>, Fault> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Enumeration {
            members: Vec<Member>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Member {
            name: String,
            value: i64,
        }
        let known = || catalogue.enumerations.lock().unwrap_or_else(PoisonError::into_inner);
        let read = try_join_all(names.into_iter().map(async |name| {
            if let Some(options) = known().get(name) {
                return Ok((name, Arc::clone(options)));
            }
            let url = format!("/metadata/PublicEnumerations({})", component(&quote(name)));
            let enumeration: Enumeration = self.get_json(&url, name, timeout).await?;
            let members = enumeration.members.into_iter();
            let options: Options = members.map(|member| (Arc::from(member.name), member.value)).collect();
            known().insert(name.to_owned(), Arc::clone(&options));
            Ok((name, options))
        }))
        .await?;
        Ok(read.into_iter().collect())
    }
}

/// Values of `PrecisionSource`; 0 stands for the column's own `Precision`
/// (<https://learn.microsoft.com/power-apps/developer/data-platform/use-currency-attributes>).
const PRECISION_OF_PRICES: i64 = 1;
const PRECISION_OF_CURRENCY: i64 = 2;

/// The digits that a column of money keeps, and those of each currency where they depend on it. Until a row says its
/// currency no digit may be lost that one of the currencies keeps.
fn scale_of_money(
    source: Option<i64>,
    own: Option<u8>,
    pricing: Option<u8>,
    currencies: &CurrencyScales,
) -> (Option<u8>, Option<CurrencyScales>) {
    match source {
        Some(PRECISION_OF_PRICES) => (pricing.or(own), None),
        Some(PRECISION_OF_CURRENCY) => match currencies.iter().map(|(_, scale)| *scale).max() {
            Some(most) => (Some(own.map_or(most, |own| own.max(most))), Some(Arc::clone(currencies))),
            None => (own, None),
        },
        _ => (own, None),
    }
}

/// What the user may not read, or the system does not have, is not known; that the system is away is a fault.
fn unless_refused<T>(read: Result<Vec<T>, Fault>) -> Result<Vec<T>, Fault> {
    match read {
        Err(fault) if fault.class() != Class::Transient => Ok(Vec::new()),
        read => read,
    }
}

/// The column by which Dataverse counts the changes of a row; virtual and elastic tables have none to go by.
const VERSION: &str = "versionnumber";

const ENUM_NAMESPACE: &str = "Microsoft.Dynamics.DataEntities.";

/// A day travels as a moment, so that only the type within F&O tells it.
fn finops_kind(type_name: &str, data_type: &str) -> Kind {
    match type_name {
        "Edm.Int32" | "Edm.Int64" | "Edm.Int16" => Kind::Int64,
        "Edm.Decimal" | "Edm.Double" => Kind::Decimal,
        "Edm.DateTimeOffset" if data_type == "Date" => Kind::Date,
        "Edm.DateTimeOffset" => Kind::Timestamp,
        "Edm.Date" => Kind::Date,
        "Edm.Guid" => Kind::Guid,
        "Edm.Boolean" => Kind::Boolean,
        _ => Kind::Text,
    }
}

/// Attribute types and the cast that shows what only they have.
const CASTS: &[(&str, &str)] = &[
    ("String", "StringAttributeMetadata"),
    ("Memo", "MemoAttributeMetadata"),
    ("Integer", "IntegerAttributeMetadata"),
    ("Decimal", "DecimalAttributeMetadata"),
    ("Double", "DoubleAttributeMetadata"),
    ("Money", "MoneyAttributeMetadata"),
    ("DateTime", "DateTimeAttributeMetadata"),
    ("Picklist", "PicklistAttributeMetadata?$expand=OptionSet,GlobalOptionSet"),
    ("State", "StateAttributeMetadata?$expand=OptionSet"),
    ("Status", "StatusAttributeMetadata?$expand=OptionSet"),
    (MULTI_SELECT, "MultiSelectPicklistAttributeMetadata?$expand=OptionSet,GlobalOptionSet"),
];

/// Goes under the attribute type `Virtual` and is told by its type name only.
const MULTI_SELECT: &str = "MultiSelectPicklistType";

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Attribute {
    logical_name: String,
    #[serde(default)]
    attribute_type: String,
    attribute_type_name: Option<TypeName>,
    required_level: Option<RequiredLevel>,
    is_valid_for_create: Option<bool>,
    is_valid_for_update: Option<bool>,
    max_length: Option<i64>,
    precision: Option<i64>,
    precision_source: Option<i64>,
    min_value: Option<serde_json::Number>,
    max_value: Option<serde_json::Number>,
    /// `DateOnly` or `DateAndTime`.
    format: Option<String>,
    option_set: Option<OptionSet>,
    global_option_set: Option<OptionSet>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct TypeName {
    value: String,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum RequiredLevel {
    Managed {
        #[serde(rename = "Value")]
        value: String,
    },
    Plain(String),
}

impl RequiredLevel {
    fn is_required(&self) -> bool {
        let (Self::Managed { value } | Self::Plain(value)) = self;
        matches!(value.as_str(), "ApplicationRequired" | "SystemRequired")
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct OptionSet {
    #[serde(default)]
    options: Vec<OptionEntry>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct OptionEntry {
    value: i64,
    label: Option<serde_json::Value>,
}

impl Attribute {
    fn own_type(&self) -> &str {
        match &self.attribute_type_name {
            Some(name) if name.value == MULTI_SELECT => MULTI_SELECT,
            _ => &self.attribute_type,
        }
    }

    /// Whoever creates a row has to fill it. Owner and state are required too, but have values of their own.
    fn is_required(&self) -> bool {
        self.required_level.as_ref().is_some_and(RequiredLevel::is_required)
            && !matches!(self.own_type(), "Owner" | "State" | "Status")
    }

    fn fill_from(&mut self, typed: Self) {
        self.max_length = typed.max_length.or(self.max_length);
        self.precision = typed.precision.or(self.precision);
        self.precision_source = typed.precision_source.or(self.precision_source);
        self.min_value = typed.min_value.or(self.min_value.take());
        self.max_value = typed.max_value.or(self.max_value.take());
        self.format = typed.format.or(self.format.take());
        self.option_set = typed.option_set.or(typed.global_option_set).or(self.option_set.take());
    }

    fn kind(&self) -> Option<Kind> {
        Some(match self.own_type() {
            "String" | "Memo" | "EntityName" => Kind::Text,
            "Integer" | "BigInt" | "Picklist" | "State" | "Status" => Kind::Int64,
            "Boolean" => Kind::Boolean,
            "Decimal" => Kind::Decimal,
            "Money" => Kind::Money,
            "Double" => Kind::Float64,
            "DateTime" if self.format.as_deref() == Some("DateOnly") => Kind::Date,
            "DateTime" => Kind::Timestamp,
            "Uniqueidentifier" => Kind::Guid,
            "Lookup" | "Customer" | "Owner" => Kind::Lookup,
            MULTI_SELECT => Kind::MultiChoice,
            // Images, files and what a later version adds: not mapped, so not read.
            _ => return None,
        })
    }

    fn options(&self) -> Options {
        let Some(set) = &self.option_set else { return Arc::from([]) };
        set.options
            .iter()
            .map(|option| {
                let label = option
                    .label
                    .as_ref()
                    .and_then(|label| label.pointer("/UserLocalizedLabel/Label"))
                    .and_then(serde_json::Value::as_str)
                    .unwrap_or_default();
                (Arc::from(label), option.value)
            })
            .collect()
    }
}

fn decimal_of(number: &serde_json::Number) -> Option<Decimal> {
    let text = number.to_string();
    Decimal::from_str(&text).or_else(|_| Decimal::from_scientific(&text)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_keeps_the_digits_that_its_precision_source_says() {
        let known: CurrencyScales = Arc::from([(Arc::from("JPY"), 0), (Arc::from("KWD"), 3)]);
        let none: CurrencyScales = Arc::from([]);
        for (source, own, pricing, currencies, wanted, by_currency) in [
            (None, Some(2), Some(4), &known, Some(2), false),
            (Some(0), Some(2), Some(4), &known, Some(2), false),
            (Some(1), Some(2), Some(4), &known, Some(4), false),
            (Some(1), Some(2), None, &known, Some(2), false),
            (Some(2), Some(2), Some(4), &known, Some(3), true),
            (Some(2), Some(4), None, &known, Some(4), true),
            (Some(2), None, None, &known, Some(3), true),
            (Some(2), Some(2), None, &none, Some(2), false),
        ] {
            let (scale, scales) = scale_of_money(source, own, pricing, currencies);
            assert_eq!((scale, scales.is_some()), (wanted, by_currency), "{source:?} {own:?} {pricing:?}");
        }
    }
}
