//! The fifteen table maps of the demo: their names, files and keys, and what the rest of the demo asks of them.
//!
//! The same list serves the maps that Microsoft ships and the program's own smaller ones: same entities, tables, columns
//! and value maps.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use dualwright_core::SystemKind;
use dualwright_core::mapping::{FieldMapping, Leg, Mapping, Reference};

use super::{DemoError, Row};

/// What is known of a map before its file is read.
#[derive(Debug)]
pub struct MapFacts {
    pub slug: &'static str,
    /// File name of the shipped map, without its ending.
    pub shipped: &'static str,
    pub finops_collection: &'static str,
    pub dataverse_set: &'static str,
    /// Dataverse column paths.
    pub integration_key: &'static [&'static str],
    /// Rows go both ways.
    pub both_ways: bool,
    embedded: &'static str,
}

macro_rules! facts {
    ($($slug:literal in $folder:literal, $shipped:literal, $collection:literal => $set:literal, $key:expr, $both:literal;)*) => {
        &[$(MapFacts {
            slug: $slug,
            shipped: $shipped,
            finops_collection: $collection,
            dataverse_set: $set,
            integration_key: &$key,
            both_ways: $both,
            embedded: include_str!(concat!("../../", $folder, "/maps/", $slug, ".json")),
        },)*]
    };
}

/// Every map, parents first. Those that need no column less than elsewhere are the ones of the catalogue.
pub const MAPS: &[MapFacts] = facts![
    "legal-entities" in "catalogue", "cdm_companies__legal-entities", "LegalEntities" => "cdm_companies", ["cdm_companycode"], false;
    "units" in "catalogue", "uoms__units", "UnitsOfMeasure" => "uoms", ["msdyn_symbol"], false;
    "currencies" in "catalogue", "transactioncurrencies__currencies", "Currencies" => "transactioncurrencies",
        ["isocurrencycode"], true;
    "parties" in "catalogue", "msdyn_parties__cds-parties", "CDSParties" => "msdyn_parties", ["msdyn_partynumber"], true;
    "postal-address-locations" in "demo", "msdyn_postaladdresscollections__cds-postal-address-locations",
        "CDSPostalAddressLocations" => "msdyn_postaladdresscollections", ["msdyn_location"], true;
    "postal-addresses" in "demo", "msdyn_postaladdresses__cds-postal-address-history-v2",
        "CDSPostalAddressHistoriesV2" => "msdyn_postaladdresses",
        ["msdyn_validfrom", "msdyn_postaladdresscollectionid.msdyn_location"], true;
    "party-postal-addresses" in "demo", "msdyn_partypostaladdresses__cds-party-postal-address-locations",
        "CDSPartyPostalAddressLocations" => "msdyn_partypostaladdresses",
        ["msdyn_postaladdresscollectionid.msdyn_location", "msdyn_partyid.msdyn_partynumber"], true;
    "party-contacts" in "demo", "msdyn_partyelectronicaddresses__party-contacts-v3",
        "PartyContactsV3" => "msdyn_partyelectronicaddresses",
        ["msdyn_electronicaddressnumber", "msdyn_partyid.msdyn_partynumber"], true;
    "customer-groups" in "demo", "msdyn_customergroups__customer-groups", "CustomerGroups" => "msdyn_customergroups",
        ["msdyn_groupid", "msdyn_company.cdm_companycode"], true;
    "vendor-groups" in "demo", "msdyn_vendorgroups__vendor-groups", "VendorGroups" => "msdyn_vendorgroups",
        ["msdyn_vendorgroup", "msdyn_company.cdm_companycode"], true;
    "vendors" in "demo", "msdyn_vendors__vendors-v2", "VendorsV2" => "msdyn_vendors",
        ["msdyn_vendoraccountnumber", "msdyn_company.cdm_companycode"], true;
    "customers-accounts" in "demo", "accounts__customers-v3", "CustomersV3" => "accounts",
        ["accountnumber", "msdyn_company.cdm_companycode"], true;
    "customers-contacts" in "catalogue", "contacts__customers-v3", "CustomersV3" => "contacts",
        ["msdyn_contactpersonid", "msdyn_company.cdm_companycode"], true;
    "products" in "catalogue", "msdyn_globalproducts__all-products", "AllProducts" => "msdyn_globalproducts",
        ["msdyn_productnumber"], false;
    "released-products" in "catalogue", "msdyn_sharedproductdetails__released-products-v2",
        "ReleasedProductsV2" => "msdyn_sharedproductdetails",
        ["msdyn_itemnumber", "msdyn_companyid.cdm_companycode"], false;
];

/// A map with its file.
#[derive(Debug, Clone)]
pub struct DemoMap {
    pub facts: &'static MapFacts,
    /// The file as it is.
    pub json: String,
    mapping: Mapping,
}

impl DemoMap {
    /// The only leg.
    #[must_use]
    pub fn leg(&self) -> &Leg {
        &self.mapping.legs[0]
    }

    /// Whether the row of the map's F&O entity is one that the map takes to Dataverse. The demo knows its filters; the
    /// pipeline compiles them.
    #[must_use]
    pub fn takes(&self, row: &Row) -> bool {
        let text = |name: &str| row.get(name).and_then(serde_json::Value::as_str).unwrap_or_default();
        match self.facts.slug {
            "customers-accounts" => text("PartyType") == "Organization",
            "customers-contacts" => text("PartyType") == "Person",
            "currencies" => text("CurrencyCode") != "999",
            _ => true,
        }
    }

    /// The lookups of the map: F&O column in the spelling of the map, and the Dataverse table it leads to.
    pub(super) fn lookups(&self) -> impl Iterator<Item = (&str, &str)> {
        self.leg().fields.iter().filter_map(|field| match (&field.finops, &field.dataverse, &field.related_set) {
            (Some(finops), Some(path), Some(set)) if matches!(path.reference, Reference::Path(_)) => {
                Some((finops.as_str(), set.as_str()))
            }
            _ => None,
        })
    }

    /// The field mappings that lead to Dataverse.
    pub(super) fn fields_to_dataverse(&self) -> impl Iterator<Item = &FieldMapping> {
        self.leg().fields.iter().filter(|field| field.direction.goes_to(SystemKind::Dataverse))
    }
}

/// The program's own maps.
pub(super) fn embedded() -> Result<Vec<DemoMap>, DemoError> {
    MAPS.iter().map(|facts| parsed(facts, facts.embedded.to_owned(), facts.slug)).collect()
}

/// The shipped maps in a folder.
pub(super) fn shipped(folder: &Path) -> Result<Vec<DemoMap>, DemoError> {
    MAPS.iter()
        .map(|facts| {
            let path = folder.join(format!("{}.json", facts.shipped));
            let json =
                std::fs::read_to_string(&path).map_err(|source| DemoError::Read { file: path.clone(), source })?;
            parsed(facts, json, &path.display().to_string())
        })
        .collect()
}

/// Where the shipped maps are that belong to a data folder.
pub(super) fn folder_of(data: &Path) -> Option<PathBuf> {
    [data.join("maps"), data.join("../maps")].into_iter().find(|folder| folder.is_dir())
}

fn parsed(facts: &'static MapFacts, json: String, file: &str) -> Result<DemoMap, DemoError> {
    let data = |message: String| DemoError::Data { file: file.to_owned(), message };
    let mapping = Mapping::parse(&json)
        .map_err(|problems| data(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")))?;
    if mapping.legs.len() != 1 || mapping.legs[0].dataverse_set != facts.dataverse_set {
        return Err(data(format!("it is not the map of {}", facts.dataverse_set)));
    }
    Ok(DemoMap { facts, json, mapping })
}

/// Maps by the Dataverse table that they write. Two maps may share an F&O entity, not a table.
pub(super) fn by_dataverse_set(maps: &[DemoMap]) -> HashMap<&str, &DemoMap> {
    maps.iter().map(|map| (map.facts.dataverse_set, map)).collect()
}
