use std::collections::HashMap;
use std::str::FromStr;

use rust_decimal::Decimal;

use super::*;
use crate::mapping::{DataversePath, FieldDirection, FieldMapping, Severity, Transform};
use crate::schema::{AlternateKey, Lookup, LookupTarget};
use crate::value::{parse_date, parse_timestamp};

mod kinds;

// A small world of both systems.

/// A column as `name kind flag…`: `!` required, `#n` length, `/n` scale, `ro` read only, `>set,set` lookup, `a:1,b:2` options.
fn column(text: &str) -> Column {
    let mut words = text.split(' ');
    let name = words.next().expect("a name");
    let kind = match words.next().expect("a kind") {
        "text" => Kind::Text,
        "int" => Kind::Int64,
        "decimal" => Kind::Decimal,
        "money" => Kind::Money,
        "float" => Kind::Float64,
        "multi" => Kind::MultiChoice,
        "bool" => Kind::Boolean,
        "time" => Kind::Timestamp,
        "date" => Kind::Date,
        "guid" => Kind::Guid,
        "choice" => Kind::Choice,
        "lookup" => Kind::Lookup,
        other => panic!("unknown kind {other}"),
    };
    let mut column = Column::new(name, kind);
    for word in words {
        if word == "!" {
            column.required = true;
        } else if word == "ro" {
            column.read_only = true;
        } else if let Some(length) = word.strip_prefix('#') {
            column.length_max = Some(length.parse().expect("a length"));
        } else if let Some(scale) = word.strip_prefix('/') {
            column.scale = Some(scale.parse().expect("a scale"));
        } else if let Some(sets) = word.strip_prefix('>') {
            let targets = sets.split(',').map(|set| LookupTarget {
                table: Arc::from(DATAVERSE.iter().find(|(own, ..)| *own == set).map_or(set, |(_, table, ..)| table)),
                set: Arc::from(set),
                navigation_property: Arc::from(name),
            });
            column.lookup = Some(Lookup { targets: targets.collect() });
        } else {
            column.options = word
                .split(',')
                .map(|option| {
                    let (symbol, number) = option.split_once(':').expect("symbol:number");
                    (Arc::from(symbol), number.parse().expect("a number"))
                })
                .collect();
        }
    }
    column
}

/// Set, table, integration key, columns; the first column is the id.
type DataverseTable = (&'static str, &'static str, &'static str, &'static [&'static str]);

const DATAVERSE: &[DataverseTable] = &[
    (
        "cdm_companies",
        "cdm_company",
        "cdm_companycode",
        &["cdm_companyid guid", "cdm_companycode text", "cdm_name text"],
    ),
    (
        "transactioncurrencies",
        "transactioncurrency",
        "isocurrencycode",
        &["transactioncurrencyid guid", "isocurrencycode text #5", "currencyname text", "exchangerate decimal"],
    ),
    (
        "msdyn_customergroups",
        "msdyn_customergroup",
        "msdyn_groupid msdyn_company.cdm_companycode",
        &["msdyn_customergroupid guid", "msdyn_groupid text", "msdyn_company lookup >cdm_companies", "msdyn_name text"],
    ),
    (
        "accounts",
        "account",
        "accountnumber msdyn_company.cdm_companycode",
        &[
            "accountid guid",
            "accountnumber text #20",
            "msdyn_company lookup >cdm_companies",
            "name text #10",
            "creditlimit money /2",
            "transactioncurrencyid lookup >transactioncurrencies",
            "msdyn_customergroupid lookup >msdyn_customergroups",
            "msdyn_billingaccount lookup >accounts",
            "msdyn_onholdstatus int a:1,b:2,c:3",
            "msdyn_onetimecustomer bool",
            "customertypecode int Competitor:1,Customer:3",
            "openedon date",
            "changedat time",
            "createdby text ro",
            "other lookup >accounts,contacts",
            "untargeted lookup",
        ],
    ),
    (
        "contacts",
        "contact",
        "msdyn_contactpersonid msdyn_company.cdm_companycode",
        &["contactid guid", "msdyn_contactpersonid text", "msdyn_company lookup >cdm_companies"],
    ),
    (
        "salesorders",
        "salesorder",
        "msdyn_salesordernumber msdyn_company.cdm_companycode",
        &[
            "salesorderid guid",
            "msdyn_salesordernumber text",
            "msdyn_company lookup >cdm_companies",
            "customerid lookup >accounts,contacts",
        ],
    ),
    (
        "salesorderdetails",
        "salesorderdetail",
        "sequencenumber salesorderid.msdyn_salesordernumber salesorderid.msdyn_company.cdm_companycode",
        &[
            "salesorderdetailid guid",
            "sequencenumber int",
            "salesorderid lookup >salesorders",
            "msdyn_salesproductcategory lookup >msdyn_productcategories",
            "quantity decimal",
        ],
    ),
    (
        "msdyn_productcategories",
        "msdyn_productcategory",
        "msdyn_name msdyn_hierarchy.msdyn_name",
        &["msdyn_productcategoryid guid", "msdyn_name text", "msdyn_hierarchy lookup >msdyn_hierarchies"],
    ),
    ("msdyn_hierarchies", "msdyn_hierarchy", "msdyn_name", &["msdyn_hierarchyid guid", "msdyn_name text"]),
    (
        "msdyn_postaladdresses",
        "msdyn_postaladdress",
        "msdyn_validfrom msdyn_parcel",
        &["msdyn_postaladdressid guid", "msdyn_validfrom date", "msdyn_parcel decimal", "msdyn_street text !"],
    ),
    // Nobody maps these.
    (
        "msdyn_taxgroups",
        "msdyn_taxgroup",
        "",
        &["msdyn_taxgroupid guid", "msdyn_name text", "msdyn_company lookup >cdm_companies"],
    ),
];

/// Entity, key, columns.
const FINOPS: &[(&str, &str, &[&str])] = &[
    (
        "CustomersV3",
        "dataAreaId CustomerAccount",
        &[
            "dataAreaId text #4",
            "CustomerAccount text #20 !",
            "Name text #8",
            "CreditLimit decimal /4",
            "CurrencyCode text",
            "GroupId text",
            "InvoiceAccount text",
            "OnHoldStatus choice No:0,Invoice:1,All:2",
            "IsOneTime choice No:0,Yes:1",
            "PartyType choice Person:0,Organization:1",
            "OpenedOn time",
            "ChangedAt time",
            "TaxGroup text",
            "Locked text ro",
            "Mandatory text !",
        ],
    ),
    ("Groups", "dataAreaId GroupId", &["dataAreaId text", "GroupId text", "Description text"]),
    ("Currencies", "CurrencyCode", &["CurrencyCode text", "Name text", "Rate decimal"]),
    ("Orders", "dataAreaId OrderNumber", &["dataAreaId text", "OrderNumber text", "Customer text"]),
    (
        "Lines",
        "dataAreaId OrderNumber Sequence",
        &["dataAreaId text", "OrderNumber text", "Sequence int", "Category text", "Hierarchy text", "Quantity decimal"],
    ),
    ("Addresses", "ValidFrom Parcel", &["ValidFrom time", "Parcel decimal", "Street text"]),
];

fn dataverse(set: &str) -> Option<Arc<Schema>> {
    let (set, table, key, columns) = DATAVERSE.iter().find(|(own, ..)| *own == set)?;
    let mut schema = Schema::new(SystemKind::Dataverse, table, set, columns.iter().map(|text| column(text)).collect());
    schema.primary_id = Some(0);
    let own = key.split_whitespace().map(|path| Arc::from(path.split('.').next().expect("a name")));
    schema.alternate_keys.push(AlternateKey { name: Arc::from("key"), columns: own.collect() });
    schema.company = schema.index_of("msdyn_company").filter(|_| key.contains(" msdyn_company") || key.is_empty());
    if key.is_empty() {
        schema.alternate_keys.clear();
    }
    Some(Arc::new(schema))
}

fn integration_key(set: &str) -> Option<Vec<String>> {
    let (_, _, key, _) = DATAVERSE.iter().find(|(own, ..)| *own == set)?;
    (!key.is_empty()).then(|| key.split_whitespace().map(str::to_owned).collect())
}

fn finops(entity: &str) -> Schema {
    let (entity, key, columns) = FINOPS.iter().find(|(own, ..)| *own == entity).expect("an entity");
    let mut schema = Schema::new(SystemKind::Finops, entity, entity, columns.iter().map(|text| column(text)).collect());
    schema.key = key.split_whitespace().map(|name| schema.index_of(name).expect("a key column")).collect();
    schema.company = schema.index_of("dataAreaId");
    schema
}

/// Field mappings, one a line, as the documentation writes them: `NONE >> customertypecode (3)`,
/// `ISONETIME >< msdyn_onetimecustomer {no:False,yes:True}`, `NAME >> name |5|`.
fn leg(entity: &str, set: &str, fields: &str) -> Leg {
    let fields = fields
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(|line| {
            let mut words = line.split_whitespace();
            let (left, symbol, right) = (words.next(), words.next(), words.next());
            let direction = match symbol.expect("a direction") {
                "=" | "><" => FieldDirection::Both,
                ">" | ">>" => FieldDirection::ToDataverse,
                "<" | "<<" => FieldDirection::ToFinops,
                other => panic!("unknown direction {other}"),
            };
            let transforms = words
                .map(|word| {
                    if let Some(value) = word.strip_prefix('(') {
                        Transform::Default { value: value.trim_end_matches(')').to_owned() }
                    } else if let Some(pairs) = word.strip_prefix('{') {
                        let pairs = pairs.trim_end_matches('}').split(',').map(|pair| {
                            let (left, right) = pair.split_once(':').expect("a pair");
                            (left.to_owned(), right.to_owned())
                        });
                        Transform::ValueMap { pairs: pairs.collect(), default: None }
                    } else {
                        Transform::Truncate { length: word.trim_matches('|').parse().expect("a length") }
                    }
                })
                .collect();
            FieldMapping {
                direction,
                finops: left.filter(|name| *name != "none").map(str::to_owned),
                dataverse: right.filter(|path| *path != "none").map(|path| DataversePath::parse(path).expect(path)),
                transforms,
                related_set: None,
            }
        })
        .collect();
    Leg {
        finops_entity: entity.to_owned(),
        finops_distinct_name: None,
        dataverse_set: set.to_owned(),
        finops_filter: String::new(),
        dataverse_filter: String::new(),
        fields,
    }
}

struct World {
    plan: MapPlan,
    finops: Schema,
    dataverse: Arc<Schema>,
}

fn compile_leg(leg: &Leg, key: &[String]) -> Result<World, Vec<Problem>> {
    let (finops, table) = (finops(&leg.finops_entity), dataverse(&leg.dataverse_set).expect("a table"));
    let plan = compile(&PlanInput {
        leg,
        finops: &finops,
        dataverse: &table,
        integration_key: key,
        tables: &dataverse,
        key_of_set: &integration_key,
        settings: PlanSettings::default(),
    })?;
    Ok(World { plan, finops, dataverse: table })
}

fn world(entity: &str, set: &str, fields: &str) -> World {
    let key = integration_key(set).expect("a key");
    compile_leg(&leg(entity, set, fields), &key).unwrap_or_else(|problems| {
        panic!("{}", problems.iter().map(|problem| format!("\n{problem}")).collect::<String>())
    })
}

const ACCOUNTS: &str = "
    CUSTOMERACCOUNT = accountnumber
    NAME = name
    CREDITLIMIT = creditlimit
    CURRENCYCODE = transactioncurrencyid.isocurrencycode
    GROUPID = msdyn_customergroupid.msdyn_groupid
    INVOICEACCOUNT = msdyn_billingaccount.accountnumber
    ONHOLDSTATUS >< msdyn_onholdstatus {no:1,invoice:2,all:3}
    ISONETIME >< msdyn_onetimecustomer {no:False,yes:True}
    none >> customertypecode (3)
    PARTYTYPE << none (organization)
    OPENEDON = openedon
    CHANGEDAT = changedat
    MANDATORY << none (x)
";

impl World {
    fn accounts() -> Self {
        Self::new("CustomersV3", "accounts", ACCOUNTS)
    }

    fn new(entity: &str, set: &str, fields: &str) -> Self {
        world(entity, set, fields)
    }

    fn to_dataverse(&self) -> &Flow {
        self.plan.to_dataverse.as_ref().expect("a flow to Dataverse")
    }

    fn to_finops(&self) -> &Flow {
        self.plan.to_finops.as_ref().expect("a flow to F&O")
    }

    /// A row of `column=value` words; what is not named is absent.
    fn row(schema: &Schema, text: &str) -> Vec<Value> {
        let mut row = vec![Value::Absent; schema.columns().len()];
        for word in text.split_whitespace() {
            let (name, value) = word.split_once('=').expect("column=value");
            let index = schema.index_of(name).unwrap_or_else(|| panic!("no column {name}"));
            row[index] = cell(schema.column(index).kind, value);
        }
        row
    }

    fn finops_row(&self, text: &str) -> Vec<Value> {
        Self::row(&self.finops, text)
    }

    fn dataverse_row(&self, text: &str) -> Vec<Value> {
        Self::row(&self.dataverse, text)
    }
}

/// A cell from its text: `null`, or a value of the kind; ids are the number in them.
fn cell(kind: Kind, text: &str) -> Value {
    match kind {
        _ if text == "null" => Value::Null,
        Kind::Text | Kind::Choice => Value::text(text.replace('_', " ")),
        Kind::Int64 => Value::Int(text.parse().expect("a number")),
        Kind::Decimal | Kind::Money => Value::Decimal(Decimal::from_str(text).expect("a number")),
        Kind::Boolean => Value::Boolean(text == "true"),
        Kind::Timestamp => Value::Timestamp(parse_timestamp(text).expect("a date")),
        Kind::Date => Value::Date(parse_date(text).expect("a date")),
        Kind::Guid | Kind::Lookup => Value::Guid(id(text.parse().expect("a number"))),
        other => panic!("no cell of {other:?}"),
    }
}

fn id(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

fn shown(value: &Value) -> String {
    match value {
        Value::Absent => "absent".to_owned(),
        Value::Null => "null".to_owned(),
        Value::Guid(id) => id.as_u128().to_string(),
        Value::Text(text) => format!("{text:?}"),
        other => other.to_string(),
    }
}

/// Ids by `set key`, and the other way round: values by id and path.
#[derive(Default)]
struct Rows {
    ids: HashMap<String, u128>,
    names: HashMap<(Uuid, String), Value>,
}

impl Rows {
    fn with(mut self, set: &str, key: &str, id_number: u128, names: &[(&str, &str)]) -> Self {
        self.ids.insert(format!("{set} {key}"), id_number);
        for (path, value) in names {
            self.names.insert((id(id_number), (*path).to_owned()), Value::text(value));
        }
        self
    }

    fn id(&self, key: &LookupKey) -> Option<Uuid> {
        self.ids.get(&format!("{} {}", key.set, key.key)).copied().map(id)
    }

    fn world() -> Self {
        Self::default()
            .with("cdm_companies", "usmf", 1, &[("cdm_companycode", "USMF")])
            .with("transactioncurrencies", "eur", 2, &[("isocurrencycode", "EUR")])
            .with("msdyn_customergroups", "usmf/10", 3, &[("msdyn_groupid", "10")])
            .with("accounts", "usmf/us-1", 4, &[("accountnumber", "US-1")])
            .with("contacts", "usmf/c-1", 5, &[("msdyn_contactpersonid", "C-1")])
            .with(
                "salesorders",
                "usmf/so-1",
                6,
                &[("msdyn_salesordernumber", "SO-1"), ("msdyn_company.cdm_companycode", "usmf")],
            )
            .with(
                "msdyn_productcategories",
                "bikes/retail",
                7,
                &[("msdyn_name", "Bikes"), ("msdyn_hierarchy.msdyn_name", "Retail")],
            )
    }
}

impl LookupNames for Rows {
    fn name(&self, slot: &NameSlot, id: Uuid) -> Option<Value> {
        slot.targets.iter().find_map(|target| self.names.get(&(id, target.path.join("."))).cloned())
    }
}

/// A whole way: project, references, finish; shown as `column=value` of what is written.
fn carry(flow: &Flow, target: &Schema, row: &[Value], rows: &Rows, creating: bool) -> String {
    let company = flow.company(row, rows);
    let fields = match flow.project(row, rows) {
        Ok(fields) => fields,
        Err(fault) => return fault.to_string(),
    };
    match flow.finish(&fields, company.as_deref(), &|key| rows.id(key), creating) {
        Ok(values) => flow
            .target_columns
            .iter()
            .zip(&values)
            .filter(|(_, value)| !value.is_absent())
            .map(|(&column, value)| format!("{}={}", target.column(column).name, shown(value)))
            .collect::<Vec<_>>()
            .join(" "),
        Err(faults) => faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
    }
}

#[test]
fn rows_go_to_dataverse() {
    let world = World::accounts();
    let flow = world.to_dataverse();
    let cases = [
        (
            "dataAreaId=USMF CustomerAccount=US-2 Name=Contoso CreditLimit=10.005 CurrencyCode=EUR GroupId=10 \
             InvoiceAccount=us-1 OnHoldStatus=Invoice IsOneTime=Yes OpenedOn=2024-01-02 ChangedAt=2024-01-02",
            "msdyn_company=1 accountnumber=\"US-2\" name=\"Contoso\" creditlimit=10.01 transactioncurrencyid=2 \
             msdyn_customergroupid=3 msdyn_billingaccount=4 msdyn_onholdstatus=2 msdyn_onetimecustomer=true \
             customertypecode=3 openedon=2024-01-02 changedat=2024-01-02T00:00:00Z",
        ),
        // What F&O stores for nothing is nothing; numbers stay.
        (
            "dataAreaId=usmf CustomerAccount=US-2 Name= CreditLimit=0 CurrencyCode= GroupId=_ InvoiceAccount= \
             OnHoldStatus=No IsOneTime=No OpenedOn=1900-01-01 ChangedAt=1900-01-01",
            "msdyn_company=1 accountnumber=\"US-2\" name=null creditlimit=0 transactioncurrencyid=null \
             msdyn_customergroupid=null msdyn_billingaccount=null msdyn_onholdstatus=1 msdyn_onetimecustomer=false \
             customertypecode=3 openedon=null changedat=null",
        ),
        // What the source does not say is not written.
        ("dataAreaId=usmf CustomerAccount=US-2", "msdyn_company=1 accountnumber=\"US-2\" customertypecode=3"),
        (
            "dataAreaId=usmf CustomerAccount=US-2 Name=Longer_than_10 GroupId=99 CurrencyCode=USD",
            "DW-1002: name takes 10 characters, the text has 14 [column name]; \
             DW-1006: transactioncurrencies has no row usd for transactioncurrencyid [column transactioncurrencyid]; \
             DW-1006: msdyn_customergroups has no row usmf/99 for msdyn_customergroupid [column msdyn_customergroupid]",
        ),
        (
            "dataAreaId=usmf CustomerAccount=US-2 OnHoldStatus=Never",
            "DW-1005: the value map of msdyn_onholdstatus does not list the value [column msdyn_onholdstatus]",
        ),
        (
            "dataAreaId=dat CustomerAccount=US-2",
            "DW-1006: cdm_companies has no row dat for msdyn_company [column msdyn_company]",
        ),
        (
            "dataAreaId= CustomerAccount=US-2",
            "DW-1008: msdyn_company refers to a row of a company, and the row names none [column msdyn_company]",
        ),
    ];
    for (row, wanted) in cases {
        let row = world.finops_row(row);
        assert_eq!(carry(flow, &world.dataverse, &row, &Rows::world(), true), wanted);
    }
}

#[test]
fn rows_go_to_finops() {
    let world = World::accounts();
    let flow = world.to_finops();
    let cases = [
        (
            "msdyn_company=1 accountnumber=US-2 name=Contoso creditlimit=10.5 transactioncurrencyid=2 \
             msdyn_customergroupid=3 msdyn_billingaccount=4 msdyn_onholdstatus=2 msdyn_onetimecustomer=true \
             openedon=2024-01-02 changedat=2024-01-02",
            "dataAreaId=\"usmf\" CustomerAccount=\"US-2\" Name=\"Contoso\" CreditLimit=10.5 CurrencyCode=\"EUR\" \
             GroupId=\"10\" InvoiceAccount=\"US-1\" OnHoldStatus=\"Invoice\" IsOneTime=\"Yes\" \
             PartyType=\"Organization\" OpenedOn=2024-01-02T00:00:00Z ChangedAt=2024-01-02T00:00:00Z Mandatory=\"x\"",
        ),
        // Nothing is what F&O stores for it.
        (
            "msdyn_company=1 accountnumber=US-2 name=null creditlimit=null transactioncurrencyid=null \
             msdyn_customergroupid=null msdyn_billingaccount=null msdyn_onholdstatus=null msdyn_onetimecustomer=null \
             openedon=null changedat=null",
            "dataAreaId=\"usmf\" CustomerAccount=\"US-2\" Name=\"\" CreditLimit=0 CurrencyCode=\"\" GroupId=\"\" \
             InvoiceAccount=\"\" OnHoldStatus=\"No\" IsOneTime=\"No\" PartyType=\"Organization\" \
             OpenedOn=1900-01-01T00:00:00Z ChangedAt=1900-01-01T00:00:00Z Mandatory=\"x\"",
        ),
        (
            "msdyn_company=1 name=Contoso",
            "DW-1001: CustomerAccount is required and has no value [column CustomerAccount]",
        ),
        (
            "msdyn_company=1 accountnumber=US-2 msdyn_customergroupid=99",
            "DW-1006: msdyn_customergroups has no row with the id that the row refers to [column GroupId]",
        ),
        (
            "msdyn_company=null accountnumber=US-2 name=Longer_than_8",
            "DW-1008: the row names no company [column dataAreaId]; \
             DW-1002: Name takes 8 characters, the text has 13 [column Name]",
        ),
    ];
    for (row, wanted) in cases {
        let row = world.dataverse_row(row);
        assert_eq!(carry(flow, &world.finops, &row, &Rows::world(), true), wanted);
    }
}

#[test]
fn an_update_may_leave_a_required_column_alone_but_not_clear_it() {
    let world = World::accounts();
    let flow = world.to_finops();
    let finish = |account: Value, creating| {
        let mut fields = vec![Value::Absent; flow.fields.len()];
        fields[0] = account;
        let faults = flow.finish(&fields, Some("usmf"), &|_| None, creating).err().unwrap_or_default();
        faults.iter().map(|fault| (fault.code, fault.column.clone().unwrap_or_default())).collect::<Vec<_>>()
    };
    let account = (Code::RequiredMissing, "CustomerAccount".to_owned());
    let mandatory = (Code::RequiredMissing, "Mandatory".to_owned());
    assert_eq!(finish(Value::Absent, false), []);
    assert_eq!(finish(Value::Null, false), std::slice::from_ref(&account));
    assert_eq!(finish(Value::text(" "), false), std::slice::from_ref(&account));
    assert_eq!(finish(Value::Absent, true), [account, mandatory]);
}

#[test]
fn what_a_plugin_leaves_behind_is_checked_again() {
    let world = World::accounts();
    let flow = world.to_dataverse();
    let fields = flow.project(&world.finops_row("dataAreaId=usmf CustomerAccount=a"), &()).expect("fields");
    let at =
        |path: &str| flow.fields.iter().position(|field| field.dataverse.as_deref() == Some(path)).expect("a field");
    let cases = [
        ("name", Value::Int(7), Ok("\"7\"")),
        ("name", Value::Null, Ok("null")),
        ("name", Value::text("a\u{1}"), Err(Code::TextInvalid)),
        ("creditlimit", Value::text("12.346"), Ok("12.35")),
        ("creditlimit", Value::text("much"), Err(Code::WrongType)),
        ("msdyn_onholdstatus", Value::Int(9), Err(Code::OptionUnknown)),
        ("msdyn_onholdstatus", Value::text("2"), Ok("2")),
        ("openedon", Value::text("2024-01-02"), Ok("2024-01-02")),
        ("transactioncurrencyid.isocurrencycode", Value::text("eur"), Ok("2")),
        ("transactioncurrencyid.isocurrencycode", Value::Guid(id(9)), Err(Code::LookupNotFound)),
    ];
    for (path, value, wanted) in cases {
        let place = format!("{path}: {value:?}");
        let mut fields = fields.clone();
        fields[at(path)] = value;
        let rows = Rows::world();
        let finished = flow.finish(&fields, Some("usmf"), &|key| rows.id(key), true);
        let first = path.split('.').next().expect("a name");
        let column = flow
            .target_columns
            .iter()
            .position(|&column| *world.dataverse.column(column).name == *first)
            .expect("a column");
        let got = finished.map(|values| shown(&values[column])).map_err(|faults| faults[0].code);
        assert_eq!(got, wanted.map(str::to_owned), "{place}");
    }
}

const ORDERS: &str = "
    ORDERNUMBER = msdyn_salesordernumber
    CUSTOMER = customerid.Account(accountnumber).Contact(msdyn_contactpersonid)
";

const LINES: &str = "
    SEQUENCE = sequencenumber
    ORDERNUMBER = salesorderid.msdyn_salesordernumber
    CATEGORY = msdyn_salesproductcategory.msdyn_name
    HIERARCHY > msdyn_salesproductcategory.msdyn_hierarchy.msdyn_name
    QUANTITY = quantity
";

/// Global, with numbers and dates in its key.
const ADDRESSES: &str = "
    VALIDFROM = msdyn_validfrom
    PARCEL = msdyn_parcel
    STREET = msdyn_street
";

#[test]
fn references_by_natural_key() {
    let accounts = World::accounts();
    let orders = World::new("Orders", "salesorders", ORDERS);
    let lines = World::new("Lines", "salesorderdetails", LINES);
    let company = "cdm_companies usmf [cdm_companycode=\"usmf\"] complete";
    let order =
        "salesorders usmf/so-1 [msdyn_salesordernumber=\"SO-1\" msdyn_company.cdm_companycode=\"usmf\"] complete";
    let cases = [
        (
            &accounts,
            "dataAreaId=USMF CustomerAccount=a CurrencyCode=EUR_ GroupId=10 InvoiceAccount=A",
            vec![
                company,
                "transactioncurrencies eur [isocurrencycode=\"EUR \"] complete",
                "msdyn_customergroups usmf/10 [msdyn_groupid=\"10\" msdyn_company.cdm_companycode=\"usmf\"] complete",
                "accounts usmf/a [accountnumber=\"A\" msdyn_company.cdm_companycode=\"usmf\"] complete",
            ],
        ),
        (&accounts, "dataAreaId=usmf CustomerAccount=a CurrencyCode= GroupId=null", vec![company]),
        // Polymorphic: once per table.
        (
            &orders,
            "dataAreaId=usmf OrderNumber=SO-1 Customer=C-1",
            vec![
                company,
                "accounts usmf/c-1 [accountnumber=\"C-1\" msdyn_company.cdm_companycode=\"usmf\"] complete",
                "contacts usmf/c-1 [msdyn_contactpersonid=\"C-1\" msdyn_company.cdm_companycode=\"usmf\"] complete",
            ],
        ),
        // Composite, through another table; no company of its own.
        (
            &lines,
            "dataAreaId=usmf OrderNumber=SO-1 Sequence=1 Category=Bikes Hierarchy=Retail",
            vec![
                order,
                "msdyn_productcategories bikes/retail [msdyn_name=\"Bikes\" msdyn_hierarchy.msdyn_name=\"Retail\"] complete",
            ],
        ),
        // One empty part: no reference.
        (&lines, "dataAreaId=usmf OrderNumber=SO-1 Sequence=1 Category= Hierarchy=Retail", vec![order]),
    ];
    for (world, row, wanted) in cases {
        let flow = world.to_dataverse();
        let row = world.finops_row(row);
        let company = flow.company(&row, &());
        let fields = flow.project(&row, &()).expect("fields");
        let keys = flow.lookup_keys(&fields, company.as_deref()).expect("keys");
        let shown_keys = keys
            .iter()
            .map(|key| {
                let pairs = key.columns.iter().zip(&key.values).map(|(path, value)| format!("{path}={}", shown(value)));
                let complete = if flow.lookups[key.slot].complete { " complete" } else { "" };
                format!("{} {} [{}]{complete}", key.set, key.key, pairs.collect::<Vec<_>>().join(" "))
            })
            .collect::<Vec<_>>();
        assert_eq!(shown_keys, wanted);
    }
}

#[test]
fn a_polymorphic_reference_leads_to_the_table_that_has_the_row() {
    let world = World::new("Orders", "salesorders", ORDERS);
    let flow = world.to_dataverse();
    let cases = [
        ("US-1", "customerid=4", Some("accounts")),
        ("c-1", "customerid=5", Some("contacts")),
        ("", "customerid=null", None),
        ("x", "accounts or contacts has no row usmf/x for customerid", None),
    ];
    for (customer, wanted, set) in cases {
        let row = world.finops_row(&format!("dataAreaId=usmf OrderNumber=1 Customer={customer}"));
        let rows = Rows::world();
        let written = carry(flow, &world.dataverse, &row, &rows, true);
        assert!(written.contains(wanted), "{customer}: {written}");
        let fields = flow.project(&row, &()).expect("fields");
        let sets = flow.polymorphic_sets(&fields, Some("usmf"), &|key| rows.id(key));
        let sets = sets.iter().map(|(column, set)| (flow.target_columns[*column], &**set)).collect::<Vec<_>>();
        let customerid = world.dataverse.index_of("customerid").expect("the column");
        assert_eq!(sets, set.map(|set| (customerid, set)).into_iter().collect::<Vec<_>>(), "{customer}");
    }
    // And back: whichever table the id is of.
    for (id, wanted) in [(4, "Customer=\"US-1\""), (5, "Customer=\"C-1\"")] {
        let row = world.dataverse_row(&format!("msdyn_company=1 msdyn_salesordernumber=1 customerid={id}"));
        assert!(carry(world.to_finops(), &world.finops, &row, &Rows::world(), true).contains(wanted));
    }
}

#[test]
fn both_sides_spell_a_key_alike() {
    let accounts = World::accounts();
    let lines = World::new("Lines", "salesorderdetails", LINES);
    let addresses = World::new("Addresses", "msdyn_postaladdresses", ADDRESSES);
    let currencies = World::new("Currencies", "transactioncurrencies", "CURRENCYCODE = isocurrencycode");
    let cases = [
        (&accounts, "dataAreaId=USMF CustomerAccount=Us-2_", "msdyn_company=1 accountnumber=US-2", "usmf/us-2"),
        (&currencies, "CurrencyCode=EUR", "isocurrencycode=eur", "eur"),
        (&lines, "dataAreaId=usmf OrderNumber=so-1 Sequence=7", "salesorderid=6 sequencenumber=7", "usmf/7/so-1"),
        (
            &addresses,
            "ValidFrom=2024-01-02 Parcel=1.500",
            "msdyn_validfrom=2024-01-02 msdyn_parcel=1.5",
            "2024-01-02t00:00:00z/1.5",
        ),
        // No date is a date in a key.
        (&addresses, "ValidFrom=1900-01-01 Parcel=0", "msdyn_validfrom=null msdyn_parcel=0", "1900-01-01t00:00:00z/0"),
    ];
    for (world, left, right, wanted) in cases {
        let rows = Rows::world();
        let left = world.to_dataverse().key(&world.finops_row(left), &rows).expect("a key");
        let right = world.to_finops().key(&world.dataverse_row(right), &rows).expect("a key");
        assert_eq!(left, right);
        assert_eq!(left.to_string(), wanted);
    }
}

#[test]
fn a_row_without_a_key_is_a_fault() {
    let accounts = World::accounts();
    let lines = World::new("Lines", "salesorderdetails", LINES);
    let left = [
        (&accounts, "dataAreaId=usmf CustomerAccount=_", Code::KeyEmpty),
        (&accounts, "dataAreaId=usmf", Code::KeyEmpty),
        (&accounts, "dataAreaId= CustomerAccount=a", Code::CompanyUnknown),
        (&accounts, "CustomerAccount=a", Code::CompanyUnknown),
        (&accounts, "dataAreaId=usmf CustomerAccount=a\u{1f}b", Code::TextInvalid),
    ];
    for (world, row, code) in left {
        let fault = world.to_dataverse().key(&world.finops_row(row), &()).expect_err(row);
        assert_eq!(fault.code, code, "{row}");
    }
    let right = [
        (&accounts, "msdyn_company=1 accountnumber=null", Code::KeyEmpty),
        (&accounts, "msdyn_company=null accountnumber=a", Code::CompanyUnknown),
        (&lines, "sequencenumber=1 salesorderid=99", Code::CompanyUnknown),
    ];
    for (world, row, code) in right {
        let fault = world.to_finops().key(&world.dataverse_row(row), &Rows::world()).expect_err(row);
        assert_eq!(fault.code, code, "{row}");
    }
}

#[test]
fn rows_are_found_on_the_target() {
    let accounts = World::accounts();
    let lines = World::new("Lines", "salesorderdetails", LINES);
    let addresses = World::new("Addresses", "msdyn_postaladdresses", ADDRESSES);
    let pairs = |pairs: Vec<(Arc<str>, Value)>| {
        pairs.iter().map(|(name, value)| format!("{name}={}", shown(value))).collect::<Vec<_>>().join(" ")
    };
    // F&O row, its address on Dataverse, Dataverse row, its address on F&O
    let cases = [
        (
            &accounts,
            "dataAreaId=USMF CustomerAccount=US-2",
            "accountnumber=\"US-2\" msdyn_company=1",
            "msdyn_company=1 accountnumber=US-2",
            "dataAreaId=\"usmf\" CustomerAccount=\"US-2\"",
            "dataAreaId=\"usmf\" CustomerAccount=\"us-2\"",
        ),
        (
            &lines,
            "dataAreaId=usmf OrderNumber=SO-1 Sequence=7",
            "sequencenumber=7 salesorderid=6",
            "salesorderid=6 sequencenumber=7",
            "dataAreaId=\"usmf\" OrderNumber=\"SO-1\" Sequence=7",
            "dataAreaId=\"usmf\" OrderNumber=\"so-1\" Sequence=7",
        ),
        (
            &addresses,
            "ValidFrom=1900-01-01 Parcel=1.50 Street=x",
            "msdyn_validfrom=1900-01-01 msdyn_parcel=1.5",
            "msdyn_validfrom=2024-01-02 msdyn_parcel=1.5",
            "ValidFrom=2024-01-02T00:00:00Z Parcel=1.5",
            "ValidFrom=2024-01-02T00:00:00Z Parcel=1.5",
        ),
    ];
    for (world, left, on_dataverse, right, on_finops, by_key) in cases {
        let rows = Rows::world();
        let address = |flow: &Flow, row: &[Value]| {
            let company = flow.company(row, &rows);
            let fields = flow.project(row, &rows).expect("fields");
            let values = flow.finish(&fields, company.as_deref(), &|key| rows.id(key), false).expect("values");
            pairs(flow.target_key(&fields, &values, company.as_deref()))
        };
        assert_eq!(address(world.to_dataverse(), &world.finops_row(left)), on_dataverse);
        let right = world.dataverse_row(right);
        assert_eq!(address(world.to_finops(), &right), on_finops);
        let key = world.to_finops().key(&right, &rows).expect("a key");
        assert_eq!(pairs(world.plan.finops_key(&world.finops, &key).expect("a key")), by_key);
    }
}

#[test]
fn a_key_behind_a_value_map_is_spelled_in_dataverse_terms() {
    let mut leg = leg("Groups", "accounts", "GROUPID >< msdyn_onholdstatus {ten:1,twenty:2}");
    leg.finops_filter = "GroupId != \"thirty\"".to_owned();
    let key = ["msdyn_onholdstatus".to_owned(), "msdyn_company.cdm_companycode".to_owned()];
    let world = compile_leg(&leg, &key).expect("compiles");
    let rows = Rows::world();
    let row = world.finops_row("dataAreaId=usmf GroupId=Ten");
    let left = world.to_dataverse().key(&row, &rows).expect("a key");
    let right = world.to_finops().key(&world.dataverse_row("msdyn_company=1 msdyn_onholdstatus=1"), &rows);
    assert_eq!((left.to_string().as_str(), Ok(&left)), ("usmf/1", right.as_ref()));
    let pairs = world.plan.finops_key(&world.finops, &left).expect("a key");
    assert_eq!(pairs[1], (Arc::from("GroupId"), Value::text("ten")));
    assert!(world.to_dataverse().in_scope(&row));
    assert!(!world.to_dataverse().in_scope(&world.finops_row("dataAreaId=usmf GroupId=THIRTY")));
    assert!(world.to_finops().in_scope(&world.dataverse_row("msdyn_company=1")));
}

#[test]
fn one_way_maps_have_one_flow() {
    let cases = [
        ("CURRENCYCODE > isocurrencycode\n NAME > currencyname", true, false),
        ("CURRENCYCODE < isocurrencycode\n NAME < currencyname", false, true),
        ("CURRENCYCODE = isocurrencycode\n NAME > currencyname", true, true),
    ];
    for (fields, to_dataverse, to_finops) in cases {
        let plan = World::new("Currencies", "transactioncurrencies", fields).plan;
        assert_eq!((plan.to_dataverse.is_some(), plan.to_finops.is_some()), (to_dataverse, to_finops), "{fields}");
        assert!(!plan.company_specific);
    }
}

#[test]
fn a_plan_knows_the_columns_it_touches_and_compiles_against_only_those() {
    let mut leg = leg("CustomersV3", "accounts", ACCOUNTS);
    leg.finops_filter = "TaxGroup != \"x\"".to_owned();
    leg.dataverse_filter = "other eq null".to_owned();
    let key = integration_key("accounts").expect("a key");
    let world = compile_leg(&leg, &key).expect("compiles");
    let names = |schema: &Schema, columns: &[usize]| {
        columns.iter().map(|&column| schema.column(column).name.to_string()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(
        names(&world.finops, &world.plan.finops_columns),
        "dataAreaId CustomerAccount Name CreditLimit CurrencyCode GroupId InvoiceAccount OnHoldStatus IsOneTime \
         PartyType OpenedOn ChangedAt TaxGroup Mandatory"
    );
    assert_eq!(
        names(&world.dataverse, &world.plan.dataverse_columns),
        "accountid accountnumber msdyn_company name creditlimit transactioncurrencyid msdyn_customergroupid \
         msdyn_billingaccount msdyn_onholdstatus msdyn_onetimecustomer customertypecode openedon changedat other"
    );
    let (finops, table) =
        (world.finops.narrow(&world.plan.finops_columns), world.dataverse.narrow(&world.plan.dataverse_columns));
    let narrow = compile(&PlanInput {
        leg: &leg,
        finops: &finops,
        dataverse: &table,
        integration_key: &key,
        tables: &dataverse,
        key_of_set: &integration_key,
        settings: PlanSettings::default(),
    })
    .expect("compiles");
    let row = World::row(&finops, "dataAreaId=usmf CustomerAccount=US-2 OnHoldStatus=All TaxGroup=y");
    let flow = narrow.to_dataverse.expect("a flow");
    assert!(flow.in_scope(&row));
    assert_eq!(
        carry(&flow, &table, &row, &Rows::world(), true),
        "msdyn_company=1 accountnumber=\"US-2\" msdyn_onholdstatus=3 customertypecode=3"
    );
}

#[test]
fn of_a_column_mapped_twice_the_first_value_counts() {
    let fields = "ORDERNUMBER = msdyn_salesordernumber\n CUSTOMER = customerid.Account(accountnumber)\n \
                  ORDERNUMBER = customerid";
    let world = compile_leg(&leg("Orders", "salesorders", fields), &integration_key("salesorders").expect("a key"));
    assert!(world.is_err(), "a lookup cannot be a column and a reference");
    let fields = "CURRENCYCODE = isocurrencycode\n CURRENCYCODE = currencyname";
    let world = World::new("Currencies", "transactioncurrencies", fields);
    let notices = world.plan.notices.iter().map(|notice| notice.foreign_code).collect::<Vec<_>>();
    assert_eq!(notices, [Some("DIPV1023")]);
    for (row, wanted) in [
        ("isocurrencycode=A currencyname=B", "CurrencyCode=\"A\""),
        ("isocurrencycode=null currencyname=B", "CurrencyCode=\"B\""),
        ("isocurrencycode=null currencyname=null", "CurrencyCode=\"\""),
    ] {
        let row = world.dataverse_row(row);
        assert_eq!(carry(world.to_finops(), &world.finops, &row, &(Rows::world()), false), wanted);
    }
}

#[test]
fn every_problem_of_a_leg_is_told() {
    let account = "CUSTOMERACCOUNT = accountnumber\n MANDATORY << none (x)\n";
    let currency = "CURRENCYCODE = isocurrencycode\n";
    // entity, set, fields, key ("" for the usual one), codes of all problems, a part of the last message
    let cases = [
        ("CustomersV3", "accounts", format!("{account} NOWHERE = name"), "", "DIPV1022", "no column NOWHERE"),
        ("CustomersV3", "accounts", format!("{account} NAME = nowhere"), "", "DIPV1025", "no column nowhere"),
        (
            "CustomersV3",
            "accounts",
            format!("{account} NOWHERE = name\n NAME = nowhere\n OPENEDON = creditlimit"),
            "",
            "DIPV1022 DIPV1025 DIPV1030 DIPV1030",
            "creditlimit is a Money",
        ),
        ("CustomersV3", "accounts", format!("{account} NAME = name.x"), "", "DIPV1030", "leads nowhere"),
        (
            "CustomersV3",
            "accounts",
            format!("{account} GROUPID = msdyn_customergroupid"),
            "",
            "DIPV1027 DIPV1028",
            "no key column is named",
        ),
        (
            "CustomersV3",
            "accounts",
            format!("{account} GROUPID = msdyn_customergroupid.x"),
            "",
            "DIPV1025",
            "no column x",
        ),
        (
            "CustomersV3",
            "accounts",
            format!("{account} GROUPID = other.accountnumber"),
            "",
            "DIPV1020",
            "several tables",
        ),
        ("CustomersV3", "accounts", format!("{account} GROUPID = other.Lead(leadid)"), "", "DIPV1020", "table Lead"),
        ("CustomersV3", "accounts", format!("{account} GROUPID = untargeted.x"), "", "DIPV1020", "not known"),
        (
            "CustomersV3",
            "accounts",
            format!("{account} GROUPID = msdyn_customergroupid.msdyn_company"),
            "",
            "DIPV1015",
            "itself a lookup",
        ),
        ("CustomersV3", "accounts", format!("{account} none > name"), "", "DIPV1021", "neither a source"),
        ("CustomersV3", "accounts", format!("{account} NAME < none"), "", "DIPV1021", "neither a source"),
        ("CustomersV3", "accounts", format!("{account} NAME > none"), "", "DIPV1024", "no column on Dataverse"),
        ("CustomersV3", "accounts", format!("{account} none < name"), "", "DIPV1024", "no column on F&O"),
        ("CustomersV3", "accounts", format!("{account} NAME > createdby"), "", "DIPV1011", "kept by dataverse"),
        ("CustomersV3", "accounts", format!("{account} LOCKED = name"), "", "DIPV1011", "kept by finops"),
        ("CustomersV3", "accounts", format!("{account} none >> customertypecode (x)"), "", "DIPV1030", "default"),
        (
            "CustomersV3",
            "accounts",
            format!("{account} ISONETIME >< msdyn_onholdstatus {{no:1,yes:1}}"),
            "",
            "DIPV1029 DIPV1029",
            "lists \"1\" twice",
        ),
        ("CustomersV3", "accounts", format!("{account} ISONETIME >> msdyn_onholdstatus {{no:1,yes:1}}"), "", "", ""),
        (
            "CustomersV3",
            "accounts",
            format!("{account} NAME > name\n TAXGROUP > name"),
            "",
            "DIPV1026",
            "more than one",
        ),
        (
            "CustomersV3",
            "accounts",
            format!("{account} NAME < name\n NAME < createdby"),
            "",
            "DIPV1026",
            "more than one",
        ),
        ("CustomersV3", "accounts", format!("{account} DATAAREAID = name"), "", "DIPV1026", "stamped"),
        ("CustomersV3", "accounts", "CUSTOMERACCOUNT = accountnumber".to_owned(), "", "DIPV1010", "finops requires"),
        (
            "CustomersV3",
            "accounts",
            "CUSTOMERACCOUNT = accountnumber\n MANDATORY < none".to_owned(),
            "",
            "DIPV1010 DIPV1031",
            "neither a source",
        ),
        ("CustomersV3", "accounts", format!("{account} NAME = name"), " ", "DIPV1003", "no integration key"),
        (
            "CustomersV3",
            "accounts",
            "NAME = name\n MANDATORY << none (x)".to_owned(),
            "",
            "DIPV1014 DIPV1014",
            "CustomerAccount of CustomersV3 is not written",
        ),
        (
            "CustomersV3",
            "accounts",
            "CUSTOMERACCOUNT > accountnumber\n NAME = name\n MANDATORY << none (x)".to_owned(),
            "",
            "DIPV1004 DIPV1014",
            "is not written",
        ),
        ("Currencies", "accounts", "CURRENCYCODE > accountnumber".to_owned(), "", "DIPV1002", "account belongs"),
        ("Groups", "transactioncurrencies", "GROUPID > isocurrencycode".to_owned(), "", "DIPV1002", "Groups belongs"),
        (
            "Lines",
            "salesorderdetails",
            LINES.replace("HIERARCHY", "CATEGORY").replace("CATEGORY = msdyn_salesproductcategory.msdyn_name", ""),
            "",
            "DIPV1027",
            "msdyn_name is missing",
        ),
        (
            "Lines",
            "salesorderdetails",
            "SEQUENCE > sequencenumber".to_owned(),
            "",
            "DIPV1015",
            "the key column is not mapped",
        ),
        ("Currencies", "transactioncurrencies", format!("{currency} NAME = currencyname |3|"), "", "", ""),
        (
            "Addresses",
            "msdyn_postaladdresses",
            "VALIDFROM = msdyn_validfrom\n PARCEL = msdyn_parcel".to_owned(),
            "",
            "",
            "",
        ),
    ];
    for (entity, set, fields, key, codes, message) in cases {
        let key = match key {
            "" => integration_key(set).expect("a key"),
            key => key.split_whitespace().map(str::to_owned).collect(),
        };
        let problems = match compile_leg(&leg(entity, set, &fields), &key) {
            Ok(world) => world.plan.notices,
            Err(problems) => problems,
        };
        let errors = problems.iter().filter(|problem| problem.severity == Severity::Error).collect::<Vec<_>>();
        let mut told = errors.iter().map(|problem| problem.foreign_code.unwrap_or("none")).collect::<Vec<_>>();
        told.sort_unstable();
        assert_eq!(told.join(" "), codes, "{fields}: {errors:?}");
        let all = errors.iter().map(|problem| format!("{problem}\n")).collect::<String>();
        assert!(all.contains(message), "{fields}: {all}");
    }
}

#[test]
fn keys_keep_the_limits_of_dataverse() {
    // How many columns of which length, whether an alternate key has them, and what is told.
    let cases: [(usize, u32, bool, &[&str]); 5] = [
        (2, 20, true, &[]),
        (2, 20, false, &["no alternate key"]),
        (16, 20, true, &[]),
        (17, 20, true, &["17 columns"]),
        (2, 300, true, &["1200 bytes"]),
    ];
    for (count, length, enforced, wanted) in cases {
        let names = (0..count).map(|number| format!("k{number}")).collect::<Vec<_>>();
        let columns = |names: &[String]| names.iter().map(|name| column(&format!("{name} text #{length}"))).collect();
        let finops = Schema::new(SystemKind::Finops, "F", "F", columns(&names));
        let mut dataverse = Schema::new(SystemKind::Dataverse, "d", "ds", columns(&names));
        if enforced {
            let columns = names.iter().rev().map(|name| Arc::from(name.as_str())).collect();
            dataverse.alternate_keys.push(AlternateKey { name: Arc::from("key"), columns });
        }
        let fields = names.iter().map(|name| format!("{name} = {name}\n")).collect::<String>();
        let leg = leg("F", "ds", &fields);
        let compiled = compile(&PlanInput {
            leg: &leg,
            finops: &finops,
            dataverse: &dataverse,
            integration_key: &names,
            tables: &|_| None,
            key_of_set: &|_| None,
            settings: PlanSettings::default(),
        });
        assert_eq!(compiled.is_err(), count > 16);
        let problems = compiled.map_or_else(|problems| problems, |plan| plan.notices);
        assert_eq!(problems.len(), wanted.len(), "{problems:?}");
        for (problem, part) in problems.iter().zip(wanted) {
            assert!(problem.message.contains(part) && problem.foreign_code == Some("DIPV1003"), "{problem}");
        }
    }
}

/// What a map leaves undone as a whole, and a company that is mapped though it is stamped.
#[test]
fn the_map_as_a_whole_is_checked() {
    let mut table = (*dataverse("transactioncurrencies").expect("a table")).clone();
    let fields = |direction: &str| {
        leg("Currencies", "transactioncurrencies", &format!("CURRENCYCODE {direction} isocurrencycode"))
    };
    let key = integration_key("transactioncurrencies").expect("a key");
    for (versioned, tracked, direction, wanted) in [
        (None, None, "=", &[][..]),
        (Some(true), Some(true), "=", &[]),
        (Some(false), None, "=", &["DIPV1019"]),
        (Some(false), Some(false), "=", &["DIPV1019"]),
        (Some(true), Some(false), "=", &["DIPV1019"]),
        (Some(false), Some(false), ">", &[]),
        (Some(true), Some(true), "<", &["HC500"]),
    ] {
        (table.versioned, table.tracked) = (versioned, tracked);
        let (leg, finops) = (fields(direction), finops("Currencies"));
        let compiled = compile(&PlanInput {
            leg: &leg,
            finops: &finops,
            dataverse: &table,
            integration_key: &key,
            tables: &dataverse,
            key_of_set: &integration_key,
            settings: PlanSettings::default(),
        });
        let problems = compiled.map_or_else(|problems| problems, |plan| plan.notices);
        let told = problems.iter().filter_map(|problem| problem.foreign_code).filter(|code| *code != "DIPV1003");
        assert_eq!(
            told.filter(|code| *code != "DIPV1010").collect::<Vec<_>>(),
            wanted,
            "{versioned:?} {tracked:?} {direction}"
        );
    }
    let fields = "CUSTOMERACCOUNT = accountnumber\n MANDATORY << none (x)\n DATAAREAID > msdyn_company.cdm_companycode";
    let problems = compile_leg(&leg("CustomersV3", "accounts", fields), &integration_key("accounts").expect("a key"));
    let problems = problems.err().expect("the company is mapped");
    assert!(problems.iter().any(|problem| problem.message.contains("never a mapped field")), "{problems:?}");
}

#[test]
fn filters_are_checked_with_the_map() {
    let mut leg = leg("Currencies", "transactioncurrencies", "CURRENCYCODE = isocurrencycode");
    leg.finops_filter = "(Nowhere == 1)".to_owned();
    leg.dataverse_filter = "isocurrencycode eq".to_owned();
    let problems = compile_leg(&leg, &integration_key("transactioncurrencies").expect("a key")).err().expect("fails");
    let told = problems.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(
        told,
        [
            "filter on finops: Currencies has no column Nowhere at character 2 [HC900]; correct the filter",
            "filter on dataverse: a value was expected at character 19 [DIPV1012]; correct the filter",
        ]
    );
}

#[test]
fn a_table_that_nobody_maps_is_searched_by_what_is_mapped_and_the_company() {
    let mut own = leg("CustomersV3", "accounts", "CUSTOMERACCOUNT > accountnumber\n TAXGROUP > untargeted.msdyn_name");
    own.fields[1].related_set = Some("msdyn_taxgroups".to_owned());
    let world = compile_leg(&own, &integration_key("accounts").expect("a key")).unwrap_or_else(|all| panic!("{all:?}"));
    assert_eq!(
        world.plan.notices.iter().map(|notice| &*notice.message).collect::<Vec<_>>(),
        ["no map writes msdyn_taxgroups"]
    );
    let flow = world.to_dataverse();
    let row = world.finops_row("dataAreaId=usmf CustomerAccount=a TaxGroup=T1");
    let keys = flow.lookup_keys(&flow.project(&row, &()).expect("fields"), Some("usmf")).expect("keys");
    let key = &keys[1];
    assert_eq!(*key.columns, [Arc::from("msdyn_name"), Arc::from("msdyn_company.cdm_companycode")]);
    assert_eq!(key.key.to_string(), "usmf/t1");
    assert!(!flow.lookups[key.slot].complete);
}

/// Numbers that look random and are the same every time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }

    fn pick<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[usize::try_from(self.below(choices.len() as u64)).expect("a small number")]
    }
}

#[test]
fn there_and_back_again_changes_nothing() {
    let world = World::accounts();
    let (there, back) = (world.to_dataverse(), world.to_finops());
    let rows = Rows::world();
    let mut numbers = Numbers(42);
    for _ in 0..2_000 {
        let text = format!(
            "dataAreaId={} CustomerAccount={} Name={} CreditLimit={} CurrencyCode={} GroupId={} InvoiceAccount={} \
             OnHoldStatus={} IsOneTime={} PartyType=Organization OpenedOn={} ChangedAt={} Mandatory=x",
            numbers.pick(&["usmf", "USMF"]),
            numbers.pick(&["US-1", "us-9", "Ä_1", "0"]),
            numbers.pick(&["", "Contoso", "a_b", "Łódź"]),
            numbers.pick(&["0", "0.00", "12.50", "-3.1", "99999999.99"]),
            numbers.pick(&["", "EUR", "eur"]),
            numbers.pick(&["", "10"]),
            numbers.pick(&["", "US-1"]),
            numbers.pick(&["No", "Invoice", "All", "all"]),
            numbers.pick(&["No", "Yes"]),
            numbers.pick(&["1900-01-01", "2024-02-29", "1899-12-31"]),
            numbers.pick(&["1900-01-01", "2024-02-29T23:59:59Z"]),
        );
        let first = world.finops_row(&text);
        // A reference comes back in the spelling of the row it leads to; the second way must not differ.
        let mut row = first.clone();
        let mut others = Vec::new();
        for _ in 0..2 {
            let company = there.company(&row, &rows);
            let fields = there.project(&row, &rows).expect(&text);
            let values = there.finish(&fields, company.as_deref(), &|key| rows.id(key), true).expect(&text);
            let mut other = vec![Value::Absent; world.dataverse.columns().len()];
            for (&column, value) in there.target_columns.iter().zip(&values) {
                other[column] = value.clone();
            }
            assert_eq!(there.key(&row, &rows), back.key(&other, &rows), "{text}");
            let fields = back.project(&other, &rows).expect(&text);
            let values = back.finish(&fields, Some("usmf"), &|_| None, true).expect(&text);
            for (&column, value) in back.target_columns.iter().zip(&values) {
                row[column] = value.clone();
            }
            others.push(other);
        }
        for (index, column) in world.finops.columns().iter().enumerate() {
            let is_reference = matches!(&*column.name, "CurrencyCode" | "dataAreaId");
            let equal = crate::content::same(&world.finops, index, &first[index], &row[index]);
            assert!(equal || is_reference, "{} of {text}: {:?} and {:?}", column.name, first[index], row[index]);
        }
        assert_eq!(others[0], others[1], "{text}");
    }
}

#[test]
fn a_key_that_does_not_tell_rows_of_the_entity_apart_is_noticed() {
    let key = |paths: &str| paths.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let fields = "CURRENCYCODE = isocurrencycode\nNAME = currencyname";
    for (fields, paths, missing) in [
        (fields, "isocurrencycode", None),
        (fields, "currencyname", Some("CURRENCYCODE")),
        // Cut off, two currencies may be one.
        ("CURRENCYCODE > isocurrencycode |5|", "isocurrencycode", Some("CURRENCYCODE")),
        ("CURRENCYCODE > isocurrencycode {a:1,b:2}", "isocurrencycode", None),
        ("CURRENCYCODE > isocurrencycode {a:1,b:1}", "isocurrencycode", Some("CURRENCYCODE")),
        // What comes from Dataverse is told apart by its id.
        ("CURRENCYCODE < isocurrencycode\nNAME < currencyname", "currencyname", None),
    ] {
        let world = match compile_leg(&leg("Currencies", "transactioncurrencies", fields), &key(paths)) {
            Ok(world) => world,
            Err(problems) => panic!("{paths}: {problems:?}"),
        };
        let own = |notice: &&Problem| notice.place == "integration key";
        let told = world.plan.notices.iter().find(own).map(|notice| notice.message.to_uppercase());
        assert_eq!(told.is_some(), missing.is_some(), "{fields} {paths}: {told:?}");
        if let (Some(told), Some(missing)) = (&told, missing) {
            assert!(told.contains(missing), "{told}");
            assert!(!world.plan.key_complete);
        }
    }
}
