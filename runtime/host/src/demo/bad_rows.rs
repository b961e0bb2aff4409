//! Rows that must be rejected when they are synced, each for one reason, and none that another row needs.
//!
//! The list is an asset, `demo/bad-rows.json`. Its values may be placeholders, so that it fits every data set:
//! `$company`, `$customerGroup`, `$vendorGroup`, `$currency`, `$organization` (a party), `$person` (a party),
//! `$location` and `$product` are those of the first good row; `{"repeat": "…", "times": n}` is a long text.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{DemoError, FinopsSet, Row};

/// One bad row and what has to become of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BadRow {
    /// What is wrong, in a few words; several rows may be of one kind.
    pub kind: String,
    /// Display name of the F&O entity.
    pub entity: String,
    /// Public collection.
    pub set: String,
    /// Slug of the map that must reject it.
    pub map: String,
    /// What was done to the row.
    pub how: String,
    /// The code that it must be rejected with.
    pub code: String,
    /// The column that the rejection must name, where it names one.
    pub column: Option<String>,
    /// F&O properties that name the row in a report; the company is added where there is one.
    pub key: Vec<String>,
    pub row: Row,
}

impl BadRow {
    /// The row's key as reports write it: `usmf/BAD-01`, in lower case.
    #[must_use]
    pub fn readable_key(&self) -> String {
        let part =
            |name: &str| self.row.get(name).and_then(Value::as_str).unwrap_or_default().trim_end().to_lowercase();
        let company = self.row.contains_key("dataAreaId").then(|| part("dataAreaId"));
        let parts = company.into_iter().chain(self.key.iter().map(|name| part(name)));
        parts.skip_while(String::is_empty).collect::<Vec<_>>().join("/")
    }
}

const ASSET: &str = include_str!("../../demo/bad-rows.json");

/// The list as it is written, placeholders and all.
pub(super) fn written() -> Result<Vec<BadRow>, DemoError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    struct File {
        rows: Vec<BadRow>,
    }
    serde_json::from_str::<File>(ASSET).map(|file| file.rows).map_err(|error| data(error.to_string()))
}

fn data(message: String) -> DemoError {
    DemoError::Data { file: "bad-rows.json".to_owned(), message }
}

/// The list with the values of a data set.
pub(super) fn planted(good: &[FinopsSet]) -> Result<Vec<BadRow>, DemoError> {
    let mut list = written()?;
    let values = Placeholders::of(good);
    for bad in &mut list {
        for (name, value) in &mut bad.row {
            *value = values.filled(value).map_err(|message| data(format!("{}, {name}: {message}", bad.how)))?;
        }
    }
    Ok(list)
}

/// Good rows that bad rows refer to: set, and the values of its key.
pub(super) fn leaned_on(good: &[FinopsSet]) -> Vec<(&'static str, Vec<String>)> {
    let values = Placeholders::of(good);
    let company = || values.company.clone();
    vec![
        ("CustomerGroups", vec![company(), values.customer_group.clone()]),
        ("VendorGroups", vec![company(), values.vendor_group.clone()]),
        ("Currencies", vec![values.currency.clone()]),
        ("CDSParties", vec![values.organization.clone()]),
        ("CDSParties", vec![values.person.clone()]),
        ("CDSPostalAddressLocations", vec![values.location.clone()]),
        ("AllProducts", vec![values.product.clone()]),
    ]
}

struct Placeholders {
    company: String,
    customer_group: String,
    vendor_group: String,
    currency: String,
    organization: String,
    person: String,
    location: String,
    product: String,
}

impl Placeholders {
    fn of(good: &[FinopsSet]) -> Self {
        let rows =
            |set: &str| good.iter().find(|own| own.set == set).map(|own| own.rows.as_slice()).unwrap_or_default();
        let text = |row: &Row, name: &str| row.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let first = |set: &str, name: &str, fits: &dyn Fn(&Row) -> bool| {
            rows(set).iter().find(|row| fits(row)).map(|row| text(row, name)).unwrap_or_default()
        };
        let any = |_: &Row| true;
        let company = first("LegalEntities", "LegalEntityId", &any);
        let own = |row: &Row| text(row, "dataAreaId") == company;
        Self {
            customer_group: first("CustomerGroups", "CustomerGroupId", &own),
            vendor_group: first("VendorGroups", "VendorGroupId", &own),
            currency: first("CustomersV3", "SalesCurrencyCode", &own),
            organization: first("CDSParties", "PartyNumber", &|row| text(row, "PartyType") == "Organization"),
            person: first("CDSParties", "PartyNumber", &|row| text(row, "PartyType") == "Person"),
            location: first("CDSPostalAddressLocations", "LocationId", &any),
            product: first("AllProducts", "ProductNumber", &any),
            company,
        }
    }

    fn filled(&self, value: &Value) -> Result<Value, String> {
        if let Some(long) = value.as_object() {
            let text = long.get("repeat").and_then(Value::as_str).ok_or("a long text needs `repeat`")?;
            let times = long.get("times").and_then(Value::as_u64).filter(|times| *times <= 10_000);
            let times = times.and_then(|times| usize::try_from(times).ok()).ok_or("a long text needs `times`")?;
            return Ok(Value::from(text.repeat(times)));
        }
        let Some(name) = value.as_str().and_then(|text| text.strip_prefix('$')) else { return Ok(value.clone()) };
        let text = match name {
            "company" => &self.company,
            "customerGroup" => &self.customer_group,
            "vendorGroup" => &self.vendor_group,
            "currency" => &self.currency,
            "organization" => &self.organization,
            "person" => &self.person,
            "location" => &self.location,
            "product" => &self.product,
            other => return Err(format!("there is no placeholder ${other}")),
        };
        Ok(Value::from(text.as_str()))
    }
}
