//! The files of a data folder, read into typed records.
//!
//! Owns file names, columns and their spelling: AdventureWorks as published, fixed-width codes with trailing blanks,
//! decimals without a leading zero, empty for null. Knows neither system.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use rust_decimal::Decimal;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};

use super::DemoError;

/// Where the files are.
#[derive(Debug, Clone)]
pub(super) enum Files {
    Embedded,
    Folder(PathBuf),
}

macro_rules! embedded {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../demo/data/", $name, ".csv"))),)*]
    };
}

/// The data set that the program brings along, in the same files and columns.
const EMBEDDED: &[(&str, &str)] = embedded![
    "Address",
    "AddressType",
    "BusinessEntityAddress",
    "BusinessEntityContact",
    "ContactType",
    "CountryRegion",
    "CountryRegionCurrency",
    "Currency",
    "Customer",
    "EmailAddress",
    "PersonPhone",
    "PhoneNumberType",
    "Product",
    "ProductDescription",
    "ProductModelProductDescriptionCulture",
    "ProductVendor",
    "PurchaseOrderHeader",
    "SalesTerritory",
    "StateProvince",
    "Store",
    "UnitMeasure",
    "Vendor",
];

/// All records that the demo uses, in the order of their files.
#[derive(Debug, Clone)]
pub(super) struct Records {
    pub addresses: Vec<Address>,
    pub address_types: Vec<Named>,
    pub address_links: Vec<AddressLink>,
    pub contacts: Vec<ContactLink>,
    pub contact_types: Vec<Named>,
    pub countries: Vec<Country>,
    pub country_currencies: Vec<CountryCurrency>,
    pub currencies: Vec<Currency>,
    pub customers: Vec<Customer>,
    pub emails: Vec<Email>,
    pub phones: Vec<Phone>,
    pub phone_types: Vec<Named>,
    pub products: Vec<Product>,
    pub descriptions: Vec<Description>,
    pub description_links: Vec<DescriptionLink>,
    pub product_vendors: Vec<ProductVendor>,
    pub purchase_orders: Vec<PurchaseOrder>,
    pub territories: Vec<Territory>,
    pub states: Vec<State>,
    pub stores: Vec<Store>,
    pub units: Vec<Unit>,
    pub vendors: Vec<Vendor>,
}

impl Records {
    /// Reads every file. The first file that cannot be read ends it: they belong together.
    pub fn read(files: &Files) -> Result<Self, DemoError> {
        Ok(Self {
            addresses: read(files, "Address")?,
            address_types: read(files, "AddressType")?,
            address_links: read(files, "BusinessEntityAddress")?,
            contacts: read(files, "BusinessEntityContact")?,
            contact_types: read(files, "ContactType")?,
            countries: read(files, "CountryRegion")?,
            country_currencies: read(files, "CountryRegionCurrency")?,
            currencies: read(files, "Currency")?,
            customers: read(files, "Customer")?,
            emails: read(files, "EmailAddress")?,
            phones: read(files, "PersonPhone")?,
            phone_types: read(files, "PhoneNumberType")?,
            products: read(files, "Product")?,
            descriptions: read(files, "ProductDescription")?,
            description_links: read(files, "ProductModelProductDescriptionCulture")?,
            product_vendors: read(files, "ProductVendor")?,
            purchase_orders: read(files, "PurchaseOrderHeader")?,
            territories: read(files, "SalesTerritory")?,
            states: read(files, "StateProvince")?,
            stores: read(files, "Store")?,
            units: read(files, "UnitMeasure")?,
            vendors: read(files, "Vendor")?,
        })
    }
}

/// Whether a folder holds the data set: it has the file that everything hangs on.
pub(super) fn is_data_folder(folder: &Path) -> bool {
    folder.join("Customer.csv").is_file()
}

fn read<T: DeserializeOwned>(files: &Files, name: &'static str) -> Result<Vec<T>, DemoError> {
    let text: Cow<'static, str> = match files {
        Files::Embedded => {
            let (_, text) = EMBEDDED
                .iter()
                .find(|(own, _)| *own == name)
                .ok_or_else(|| DemoError::Data { file: name.to_owned(), message: "it is not embedded".to_owned() })?;
            Cow::Borrowed(*text)
        }
        Files::Folder(folder) => {
            let path = folder.join(format!("{name}.csv"));
            Cow::Owned(std::fs::read_to_string(&path).map_err(|source| DemoError::Read { file: path, source })?)
        }
    };
    csv::Reader::from_reader(text.as_bytes())
        .deserialize()
        .collect::<Result<Vec<T>, _>>()
        .map_err(|error| DemoError::Data { file: format!("{name}.csv"), message: error.to_string() })
}

/// A code without the blanks that fill its fixed width.
fn code<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(String::deserialize(deserializer)?.trim().to_owned())
}

fn decimal<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Decimal, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_decimal(&text).ok_or_else(|| D::Error::custom("a decimal number was expected"))
}

fn decimal_if_any<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Decimal>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.trim().is_empty() {
        return Ok(None);
    }
    parse_decimal(&text).map(Some).ok_or_else(|| D::Error::custom("a decimal number was expected"))
}

fn parse_decimal(text: &str) -> Option<Decimal> {
    let text = text.trim();
    match text.strip_prefix('.') {
        Some(fraction) => format!("0.{fraction}").parse().ok(),
        None => text.parse().ok(),
    }
}

/// `2018-12-03 00:00:00.000` to `2018-12-03T00:00:00Z`: both systems keep whole seconds.
fn moment<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_moment(&text).ok_or_else(|| D::Error::custom("a date and time was expected"))
}

fn moment_if_any<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.trim().is_empty() {
        return Ok(None);
    }
    parse_moment(&text).map(Some).ok_or_else(|| D::Error::custom("a date and time was expected"))
}

fn parse_moment(text: &str) -> Option<String> {
    let (date, clock) = (text.get(..10)?, text.get(11..19)?);
    dualwright_core::value::parse_timestamp(&format!("{date}T{clock}Z"))?;
    Some(format!("{date}T{clock}Z"))
}

/// A small numbered list: address types, contact types, phone types.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Named {
    #[serde(alias = "AddressTypeID", alias = "ContactTypeID", alias = "PhoneNumberTypeID")]
    pub id: u32,
    #[serde(rename = "Name")]
    pub name: String,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Address {
    #[serde(rename = "AddressID")]
    pub id: u32,
    #[serde(rename = "AddressLine1")]
    pub line_1: String,
    #[serde(rename = "AddressLine2")]
    pub line_2: String,
    #[serde(rename = "City")]
    pub city: String,
    #[serde(rename = "StateProvinceID")]
    pub state: u32,
    #[serde(rename = "PostalCode")]
    pub postal_code: String,
    #[serde(rename = "ModifiedDate", deserialize_with = "moment")]
    pub modified: String,
}

/// An address of a store, a vendor or a person.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct AddressLink {
    #[serde(rename = "BusinessEntityID")]
    pub entity: u32,
    #[serde(rename = "AddressID")]
    pub address: u32,
    #[serde(rename = "AddressTypeID")]
    pub kind: u32,
}

/// A person who speaks for a store or a vendor.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct ContactLink {
    #[serde(rename = "BusinessEntityID")]
    pub entity: u32,
    #[serde(rename = "PersonID")]
    pub person: u32,
    #[serde(rename = "ContactTypeID")]
    pub kind: u32,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Country {
    #[serde(rename = "CountryRegionCode", deserialize_with = "code")]
    pub code: String,
    #[serde(rename = "Name")]
    pub name: String,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct CountryCurrency {
    #[serde(rename = "CountryRegionCode", deserialize_with = "code")]
    pub country: String,
    #[serde(rename = "CurrencyCode", deserialize_with = "code")]
    pub currency: String,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Currency {
    #[serde(rename = "CurrencyCode", deserialize_with = "code")]
    pub code: String,
    #[serde(rename = "Name")]
    pub name: String,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Customer {
    #[serde(rename = "CustomerID")]
    pub id: u32,
    #[serde(rename = "PersonID")]
    pub person: Option<u32>,
    #[serde(rename = "StoreID")]
    pub store: Option<u32>,
    #[serde(rename = "TerritoryID")]
    pub territory: u32,
    #[serde(rename = "AccountNumber", deserialize_with = "code")]
    pub account: String,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Email {
    #[serde(rename = "BusinessEntityID")]
    pub person: u32,
    #[serde(rename = "EmailAddressID")]
    pub id: u32,
    #[serde(rename = "EmailAddress")]
    pub address: String,
    #[serde(rename = "ModifiedDate", deserialize_with = "moment")]
    pub modified: String,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Phone {
    #[serde(rename = "BusinessEntityID")]
    pub person: u32,
    #[serde(rename = "PhoneNumber")]
    pub number: String,
    #[serde(rename = "PhoneNumberTypeID")]
    pub kind: u32,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Product {
    #[serde(rename = "ProductID")]
    pub id: u32,
    #[serde(rename = "Name")]
    pub name: String,
    #[serde(rename = "ProductNumber", deserialize_with = "code")]
    pub number: String,
    #[serde(rename = "MakeFlag")]
    pub is_made: u8,
    #[serde(rename = "FinishedGoodsFlag")]
    pub is_finished: u8,
    #[serde(rename = "SafetyStockLevel")]
    pub safety_stock: u32,
    #[serde(rename = "StandardCost", deserialize_with = "decimal")]
    pub cost: Decimal,
    #[serde(rename = "ListPrice", deserialize_with = "decimal")]
    pub price: Decimal,
    #[serde(rename = "Weight", deserialize_with = "decimal_if_any")]
    pub weight: Option<Decimal>,
    #[serde(rename = "DaysToManufacture")]
    pub days_to_manufacture: u32,
    #[serde(rename = "Class", deserialize_with = "code")]
    pub class: String,
    #[serde(rename = "Style", deserialize_with = "code")]
    pub style: String,
    #[serde(rename = "ProductModelID")]
    pub model: Option<u32>,
    #[serde(rename = "SellStartDate", deserialize_with = "moment")]
    pub sell_start: String,
    #[serde(rename = "SellEndDate", deserialize_with = "moment_if_any")]
    pub sell_end: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Description {
    #[serde(rename = "ProductDescriptionID")]
    pub id: u32,
    #[serde(rename = "Description")]
    pub text: String,
}

/// The description of a product model in one language.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct DescriptionLink {
    #[serde(rename = "ProductModelID")]
    pub model: u32,
    #[serde(rename = "ProductDescriptionID")]
    pub description: u32,
    #[serde(rename = "CultureID", deserialize_with = "code")]
    pub culture: String,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct ProductVendor {
    #[serde(rename = "ProductID")]
    pub product: u32,
    #[serde(rename = "BusinessEntityID")]
    pub vendor: u32,
    #[serde(rename = "StandardPrice", deserialize_with = "decimal")]
    pub price: Decimal,
    #[serde(rename = "LastReceiptDate", deserialize_with = "moment_if_any")]
    pub last_receipt: Option<String>,
    #[serde(rename = "MinOrderQty")]
    pub quantity_min: u32,
    #[serde(rename = "UnitMeasureCode", deserialize_with = "code")]
    pub unit: String,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct PurchaseOrder {
    #[serde(rename = "VendorID")]
    pub vendor: u32,
    #[serde(rename = "TotalDue", deserialize_with = "decimal")]
    pub total: Decimal,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Territory {
    #[serde(rename = "TerritoryID")]
    pub id: u32,
    #[serde(rename = "Name")]
    pub name: String,
    #[serde(rename = "CountryRegionCode", deserialize_with = "code")]
    pub country: String,
    #[serde(rename = "Group")]
    pub group: String,
    #[serde(rename = "SalesYTD", deserialize_with = "decimal")]
    pub sales: Decimal,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct State {
    #[serde(rename = "StateProvinceID")]
    pub id: u32,
    #[serde(rename = "StateProvinceCode", deserialize_with = "code")]
    pub code: String,
    #[serde(rename = "CountryRegionCode", deserialize_with = "code")]
    pub country: String,
    #[serde(rename = "Name")]
    pub name: String,
    #[serde(rename = "TerritoryID")]
    pub territory: u32,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Store {
    #[serde(rename = "BusinessEntityID")]
    pub id: u32,
    #[serde(rename = "Name")]
    pub name: String,
    #[serde(rename = "SalesPersonID")]
    pub sales_person: Option<u32>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Unit {
    #[serde(rename = "UnitMeasureCode", deserialize_with = "code")]
    pub code: String,
    #[serde(rename = "Name")]
    pub name: String,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Vendor {
    #[serde(rename = "BusinessEntityID")]
    pub id: u32,
    #[serde(rename = "AccountNumber", deserialize_with = "code")]
    pub account: String,
    #[serde(rename = "Name")]
    pub name: String,
    #[serde(rename = "CreditRating")]
    pub credit_rating: u8,
    #[serde(rename = "PreferredVendorStatus")]
    pub is_preferred: u8,
    #[serde(rename = "ActiveFlag")]
    pub is_active: u8,
    #[serde(rename = "PurchasingWebServiceURL")]
    pub url: String,
    #[serde(rename = "ModifiedDate", deserialize_with = "moment")]
    pub modified: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spellings_of_the_files_are_read() {
        for (text, wanted) in
            [(".9900", Some("0.9900")), ("-1", Some("-1")), ("7887186.7882", Some("7887186.7882")), ("x", None)]
        {
            assert_eq!(parse_decimal(text).map(|number| number.to_string()).as_deref(), wanted, "{text}");
        }
        for (text, wanted) in [
            ("2025-09-11 11:15:06.967", Some("2025-09-11T11:15:06Z")),
            ("2019-04-30 00:00:00.000", Some("2019-04-30T00:00:00Z")),
            ("2019-04-30", None),
            ("2019-13-30 00:00:00.000", None),
        ] {
            assert_eq!(parse_moment(text).as_deref(), wanted, "{text}");
        }
    }
}
