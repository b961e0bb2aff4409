//! What every Dataverse has before anybody defines a table: users, business units, currencies, and the columns that the
//! platform gives each table.
//!
//! Owns those definitions, the ids of the rows behind them and the names that the platform gives to what it makes
//! (system and lookup columns: "Table definitions in Microsoft Dataverse" and the table reference on
//! learn.microsoft.com). Setting the columns is the session's and the writer's business.

use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::definition::{
    ColumnDefinition, ColumnKind, DateBehavior, DeleteBehavior, OptionDefinition, Ownership, TableDefinition,
    TargetDefinition,
};

pub(crate) const USER: &str = "systemuser";
pub(crate) const TEAM: &str = "team";
pub(crate) const BUSINESS_UNIT: &str = "businessunit";
pub(crate) const ORGANIZATION: &str = "organization";
pub(crate) const CURRENCY: &str = "transactioncurrency";
const PUBLISHER: &str = "publisher";
const SOLUTION: &str = "solution";

fn known_id(name: &str) -> Uuid {
    Uuid::new_v5(&Uuid::NAMESPACE_URL, name.as_bytes())
}

/// The user as whom a caller acts when nothing says otherwise.
pub(crate) fn user_id() -> Uuid {
    known_id("user")
}

pub(crate) fn business_unit_id() -> Uuid {
    known_id("business unit")
}

pub(crate) fn organization_id() -> Uuid {
    known_id("organization")
}

/// The currency of the organization, as long as nobody brought currencies of their own.
pub(crate) fn base_currency_id() -> Uuid {
    known_id("base currency")
}

/// The state columns that only the platform writes, and the lookups that nobody follows backwards often enough to pay
/// for an entry with every row.
const UNLINKED: [&str; 9] = [
    "createdby",
    "createdonbehalfby",
    "modifiedby",
    "modifiedonbehalfby",
    "ownerid",
    "owninguser",
    "owningteam",
    "owningbusinessunit",
    "transactioncurrencyid",
];

/// Whether rows are found by the value of this lookup without reading the table.
pub(crate) fn is_linked(column: &ColumnDefinition) -> bool {
    column.kind == ColumnKind::Lookup && !UNLINKED.contains(&column.name.as_str())
}

fn column(name: &str, kind: ColumnKind) -> ColumnDefinition {
    ColumnDefinition { name: name.to_owned(), kind, ..ColumnDefinition::default() }
}

fn text(name: &str, max_length: u32, required: bool) -> ColumnDefinition {
    ColumnDefinition { max_length: Some(max_length), required, ..column(name, ColumnKind::Text) }
}

fn options(all: &[(&str, i64)]) -> Vec<OptionDefinition> {
    all.iter().map(|(name, value)| OptionDefinition { name: (*name).to_owned(), value: *value, state: None }).collect()
}

fn lookup(name: &str, targets: &[&str]) -> ColumnDefinition {
    let targets = targets
        .iter()
        .map(|table| TargetDefinition {
            table: (*table).to_owned(),
            on_delete: Some(DeleteBehavior::NoCascade),
            ..TargetDefinition::default()
        })
        .collect();
    ColumnDefinition { targets, ..column(name, ColumnKind::Lookup) }
}

fn read_only(column: ColumnDefinition) -> ColumnDefinition {
    ColumnDefinition { read_only: true, ..column }
}

/// Who owns the rows of a table that does not say.
fn usual_ownership(table: &str) -> Ownership {
    match table {
        USER | TEAM | BUSINESS_UNIT => Ownership::Business,
        ORGANIZATION => Ownership::None,
        CURRENCY | PUBLISHER | SOLUTION | "uom" | "uomschedule" | "product" | "pricelevel" => Ownership::Organization,
        _ => Ownership::User,
    }
}

/// Gives a table the columns that every table of its kind has. What the definition has of its own stays as it is.
pub(crate) fn complete(definition: &mut TableDefinition, is_bookkeeping: bool) {
    let ownership = *definition.ownership.get_or_insert_with(|| match is_bookkeeping {
        true => Ownership::None,
        false => usual_ownership(&definition.name),
    });
    let mut add = |new: ColumnDefinition| {
        if !definition.columns.iter().any(|own| own.name == new.name) {
            definition.columns.push(new);
        }
    };
    for (name, kind) in [
        ("createdon", ColumnKind::Datetime),
        ("modifiedon", ColumnKind::Datetime),
        ("versionnumber", ColumnKind::Bigint),
    ] {
        add(read_only(column(name, kind)));
    }
    if ownership == Ownership::None {
        return;
    }
    for name in ["createdby", "createdonbehalfby", "modifiedby", "modifiedonbehalfby"] {
        add(read_only(lookup(name, &[USER])));
    }
    add(ColumnDefinition {
        create_only: true,
        format: Some("DateOnly".to_owned()),
        behavior: Some(DateBehavior::UserLocal),
        ..column("overriddencreatedon", ColumnKind::Datetime)
    });
    for name in ["importsequencenumber", "timezoneruleversionnumber", "utcconversiontimezonecode"] {
        add(ColumnDefinition { create_only: name.starts_with("import"), ..column(name, ColumnKind::Int) });
    }
    if ownership != Ownership::Business {
        add(ColumnDefinition {
            options: options(&[("Active", 0), ("Inactive", 1)]),
            ..column("statecode", ColumnKind::Choice)
        });
        add(ColumnDefinition {
            options: [("Active", 1, 0), ("Inactive", 2, 1)]
                .map(|(name, value, state)| OptionDefinition { name: name.to_owned(), value, state: Some(state) })
                .to_vec(),
            ..column("statuscode", ColumnKind::Choice)
        });
    }
    match ownership {
        Ownership::User => {
            add(lookup("ownerid", &[USER, TEAM]));
            add(read_only(lookup("owninguser", &[USER])));
            add(read_only(lookup("owningteam", &[TEAM])));
            add(read_only(lookup("owningbusinessunit", &[BUSINESS_UNIT])));
        }
        Ownership::Organization | Ownership::Business => add(read_only(lookup("organizationid", &[ORGANIZATION]))),
        Ownership::None => {}
    }
    complete_money(definition);
}

/// A table with an amount of money has its currency, the exchange rate, and each amount in the base currency.
fn complete_money(definition: &mut TableDefinition) {
    let is_base = |name: &str| name.ends_with("_base");
    let amounts = definition
        .columns
        .iter()
        .filter(|column| column.kind == ColumnKind::Money && !is_base(&column.name))
        .map(|column| (column.name.clone(), column.precision))
        .collect::<Vec<_>>();
    if amounts.is_empty() {
        return;
    }
    let mut add = |new: ColumnDefinition| {
        if !definition.columns.iter().any(|own| own.name == new.name) {
            definition.columns.push(new);
        }
    };
    add(lookup("transactioncurrencyid", &[CURRENCY]));
    add(read_only(ColumnDefinition { precision: Some(12), ..column("exchangerate", ColumnKind::Decimal) }));
    for (name, precision) in amounts {
        add(read_only(ColumnDefinition { precision, ..column(&format!("{name}_base"), ColumnKind::Money) }));
    }
}

/// The amount of which a column is the value in the base currency.
pub(crate) fn amount_of_base(column: &ColumnDefinition) -> Option<&str> {
    (column.kind == ColumnKind::Money).then(|| column.name.strip_suffix("_base")).flatten()
}

/// The tables that the lookups above point to.
pub(crate) fn tables() -> Vec<TableDefinition> {
    vec![
        table(
            USER,
            "systemusers",
            "fullname",
            vec![
                text("fullname", 200, false),
                text("firstname", 256, false),
                text("lastname", 256, false),
                text("domainname", 1_024, false),
                ColumnDefinition { format: Some("Email".to_owned()), ..text("internalemailaddress", 100, false) },
                column("azureactivedirectoryobjectid", ColumnKind::Guid),
                column("applicationid", ColumnKind::Guid),
                ColumnDefinition { options: crate::definition::no_yes(), ..column("isdisabled", ColumnKind::Boolean) },
                ColumnDefinition {
                    options: options(&[
                        ("Read-Write", 0),
                        ("Administrative", 1),
                        ("Read", 2),
                        ("Support User", 3),
                        ("Non-interactive", 4),
                        ("Delegated Admin", 5),
                    ]),
                    ..column("accessmode", ColumnKind::Choice)
                },
                lookup("businessunitid", &[BUSINESS_UNIT]),
            ],
        ),
        table(
            TEAM,
            "teams",
            "name",
            vec![
                text("name", 160, true),
                ColumnDefinition { max_length: Some(2_000), ..column("description", ColumnKind::Memo) },
                ColumnDefinition {
                    options: options(&[
                        ("Owner", 0),
                        ("Access", 1),
                        ("AAD Security Group", 2),
                        ("AAD Office Group", 3),
                    ]),
                    ..column("teamtype", ColumnKind::Choice)
                },
                ColumnDefinition { options: crate::definition::no_yes(), ..column("isdefault", ColumnKind::Boolean) },
                lookup("businessunitid", &[BUSINESS_UNIT]),
                lookup("administratorid", &[USER]),
            ],
        ),
        table(
            BUSINESS_UNIT,
            "businessunits",
            "name",
            vec![
                text("name", 160, true),
                ColumnDefinition { options: crate::definition::no_yes(), ..column("isdisabled", ColumnKind::Boolean) },
                lookup("parentbusinessunitid", &[BUSINESS_UNIT]),
            ],
        ),
        table(
            ORGANIZATION,
            "organizations",
            "name",
            vec![
                text("name", 160, true),
                column("languagecode", ColumnKind::Int),
                column("localeid", ColumnKind::Int),
                column("expirechangetrackingindays", ColumnKind::Int),
                lookup("basecurrencyid", &[CURRENCY]),
            ],
        ),
        currency(),
        table(
            PUBLISHER,
            "publishers",
            "friendlyname",
            vec![
                text("friendlyname", 256, true),
                text("uniquename", 256, true),
                text("customizationprefix", 8, true),
                ColumnDefinition {
                    min: Some(10_000.into()),
                    max: Some(99_999.into()),
                    ..column("customizationoptionvalueprefix", ColumnKind::Int)
                },
                text("description", 2_000, false),
                read_only(ColumnDefinition {
                    options: crate::definition::no_yes(),
                    ..column("isreadonly", ColumnKind::Boolean)
                }),
            ],
        ),
        table(
            SOLUTION,
            "solutions",
            "friendlyname",
            vec![
                text("friendlyname", 256, true),
                text("uniquename", 65, true),
                text("version", 256, true),
                text("description", 2_000, false),
                read_only(ColumnDefinition {
                    options: crate::definition::no_yes(),
                    ..column("ismanaged", ColumnKind::Boolean)
                }),
                ColumnDefinition { options: crate::definition::no_yes(), ..column("isvisible", ColumnKind::Boolean) },
                read_only(column("installedon", ColumnKind::Datetime)),
                ColumnDefinition { required: true, ..lookup("publisherid", &[PUBLISHER]) },
            ],
        ),
    ]
}

fn table(name: &str, set: &str, primary_name: &str, columns: Vec<ColumnDefinition>) -> TableDefinition {
    TableDefinition {
        name: name.to_owned(),
        set: set.to_owned(),
        primary_name: Some(primary_name.to_owned()),
        columns,
        ..TableDefinition::default()
    }
}

/// Currencies; a link to F&O usually brings a definition of its own.
pub(crate) fn currency() -> TableDefinition {
    table(
        CURRENCY,
        "transactioncurrencies",
        "currencyname",
        vec![
            text("currencyname", 100, true),
            text("isocurrencycode", 5, true),
            text("currencysymbol", 13, true),
            ColumnDefinition {
                min: Some(0.into()),
                max: Some(10.into()),
                ..column("currencyprecision", ColumnKind::Int)
            },
            ColumnDefinition { precision: Some(12), ..column("exchangerate", ColumnKind::Decimal) },
        ],
    )
}

/// The rows of a new organization, by set. Whoever defined currencies of their own brings the rows as well.
pub(crate) fn rows(with_currency: bool) -> Vec<(&'static str, Map<String, Value>)> {
    let currency = with_currency.then(base_currency_id);
    let all = [
        Some(("businessunits", json!({"businessunitid": business_unit_id(), "name": "org", "isdisabled": false}))),
        Some((
            "systemusers",
            json!({
                "systemuserid": user_id(), "fullname": "System Administrator", "firstname": "System",
                "lastname": "Administrator", "domainname": "admin@org.onmicrosoft.com", "isdisabled": false,
                "internalemailaddress": "admin@org.onmicrosoft.com", "accessmode": 0,
                "azureactivedirectoryobjectid": known_id("directory object of the user"),
                "businessunitid": business_unit_id(),
            }),
        )),
        Some((
            "teams",
            json!({
                "teamid": known_id("team of the business unit"), "name": "org", "teamtype": 0, "isdefault": true,
                "businessunitid": business_unit_id(), "administratorid": user_id(),
            }),
        )),
        currency.map(|id| {
            (
                "transactioncurrencies",
                json!({
                    "transactioncurrencyid": id, "currencyname": "US Dollar", "isocurrencycode": "USD",
                    "currencysymbol": "$", "currencyprecision": 2, "exchangerate": 1,
                }),
            )
        }),
        Some((
            "organizations",
            json!({
                "organizationid": organization_id(), "name": "org", "languagecode": 1033, "localeid": 1033,
                "expirechangetrackingindays": 7, "basecurrencyid": currency,
            }),
        )),
        Some((
            "publishers",
            json!({
                "publisherid": known_id("default publisher"), "friendlyname": "Default Publisher for org",
                "uniquename": "DefaultPublisherorg", "customizationprefix": "new",
                "customizationoptionvalueprefix": 10_000, "isreadonly": false,
            }),
        )),
        Some(("solutions", default_solution("Default", "Default Solution"))),
        Some(("solutions", default_solution("Active", "Active Solution"))),
    ];
    all.into_iter()
        .flatten()
        .filter_map(|(set, row)| match row {
            Value::Object(row) => Some((set, row)),
            _ => None,
        })
        .collect()
}

/// The solutions into which everything goes that is not put elsewhere.
fn default_solution(unique_name: &str, friendly_name: &str) -> Value {
    json!({
        "solutionid": known_id(&format!("solution {unique_name}")), "friendlyname": friendly_name,
        "uniquename": unique_name, "version": "1.0", "ismanaged": false, "isvisible": unique_name == "Default",
        "publisherid": known_id("default publisher"),
    })
}

/// `ObjectTypeCode` of the tables that every organization numbers alike; custom tables count from 10,000.
pub(crate) fn object_type_code(table: &str, number: i64) -> i64 {
    match table {
        "account" => 1,
        "contact" => 2,
        "lead" => 4,
        "annotation" => 5,
        USER => 8,
        TEAM => 9,
        BUSINESS_UNIT => 10,
        ORGANIZATION => 1_019,
        "pricelevel" => 1_022,
        "product" => 1_024,
        "uom" => 1_055,
        "uomschedule" => 1_056,
        "quote" => 1_084,
        "quotedetail" => 1_085,
        "salesorder" => 1_088,
        "salesorderdetail" => 1_089,
        "invoice" => 1_090,
        "invoicedetail" => 1_091,
        PUBLISHER => 7_101,
        SOLUTION => 7_100,
        CURRENCY => 9_105,
        _ => 10_000 + number,
    }
}

/// `new_bankaccount` is a publisher's, `account` the platform's own.
pub(crate) fn is_custom(name: &str) -> bool {
    name.contains('_')
}

/// `SchemaName` of a name whose publisher did not say how it is written: `Account`, `new_bankaccount`.
pub(crate) fn schema_name(name: &str) -> String {
    let mut letters = name.chars();
    match letters.next() {
        Some(first) if !is_custom(name) => first.to_uppercase().chain(letters).collect(),
        _ => name.to_owned(),
    }
}

/// What people read for a name that has no label: `Bankaccount` for `new_bankaccount`.
pub(crate) fn label_of(name: &str) -> String {
    let bare = match name.split_once('_') {
        Some((prefix, rest)) if !rest.is_empty() && prefix.len() <= 8 => rest,
        _ => name,
    };
    let words = bare.replace('_', " ");
    let mut letters = words.trim().chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

/// The relationship behind a lookup, and what its target calls the rows that point to it.
pub(crate) fn relationship_names(
    referencing: &str,
    set: &str,
    lookup: &str,
    target: &TargetDefinition,
) -> (String, String) {
    let referenced = target.table.as_str();
    // Tables of the platform are named in the plural, custom ones by their own name.
    let plural = if is_custom(referencing) { referencing } else { set };
    let usual = match (referencing, lookup, referenced) {
        ("account", "primarycontactid", "contact") => "account_primary_contact".to_owned(),
        ("account", "parentaccountid", "account") => "account_parent_account".to_owned(),
        ("contact", "parentcustomerid", "account") => "contact_customer_accounts".to_owned(),
        ("contact", "parentcustomerid", "contact") => "contact_customer_contacts".to_owned(),
        (_, "createdby" | "createdonbehalfby" | "modifiedby" | "modifiedonbehalfby", USER) => {
            let stem = if is_custom(referencing) { referencing.to_owned() } else { format!("{referencing}base") };
            format!("lk_{stem}_{lookup}")
        }
        (_, "ownerid", _) => format!("owner_{plural}"),
        (_, "owninguser", USER) => format!("user_{plural}"),
        (_, "owningteam", TEAM) => format!("team_{plural}"),
        (_, "owningbusinessunit", BUSINESS_UNIT) => format!("business_unit_{plural}"),
        (_, "transactioncurrencyid", CURRENCY) if is_custom(referencing) => {
            format!("TransactionCurrency_{referencing}")
        }
        (_, "transactioncurrencyid", CURRENCY) => format!("transactioncurrency_{referencing}"),
        (_, "organizationid", ORGANIZATION) => format!("organization_{plural}"),
        (_, "businessunitid", BUSINESS_UNIT) => format!("business_unit_{referencing}s"),
        _ => format!("{referenced}_{referencing}_{}", target.navigation_property.as_deref().unwrap_or(lookup)),
    };
    let name = target.relationship.clone().unwrap_or(usual);
    let collection = target.collection.clone().unwrap_or_else(|| name.clone());
    (name, collection)
}
