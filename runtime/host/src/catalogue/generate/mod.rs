//! Rows for the maps of the catalogue, from a seed: the same on every machine.
//!
//! Owns how many rows there are of what, and which rows belong together. Keys and companies of master data follow from
//! the sizes alone, so that the orders of another seed fit the customers and products that are there already; every other
//! value follows from the seed. Every reference names a row that is there. All names are invented.

mod numbers;
mod orders;
mod rows;

use crate::demo::{FinopsSet, Row};
use numbers::Numbers;

/// How many rows of what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    pub customers: usize,
    pub vendors: usize,
    pub products: usize,
    pub sales_orders: usize,
    pub projects: usize,
    pub on_hand_requests: usize,
}

/// Rows of one kind that may be asked for: keys have seven digits, and a set is put together in memory.
const ROWS_MAX: usize = 2_000_000;

impl Sizes {
    /// Names by which single sizes are set.
    pub const NAMES: [&str; 6] = ["customers", "vendors", "products", "sales-orders", "projects", "on-hand-requests"];

    /// A company of this many customers, with as much of the rest as goes with it; at least one of everything for each
    /// legal entity.
    #[must_use]
    pub fn of(customers: usize) -> Self {
        let least = COMPANIES.len();
        let customers = customers.clamp(least, ROWS_MAX);
        Self {
            customers,
            vendors: (customers / 5).max(least),
            products: (customers / 4).max(least),
            sales_orders: (customers * 2).min(ROWS_MAX),
            projects: (customers / 10).max(least),
            on_hand_requests: (customers / 4).max(least),
        }
    }

    /// Sets one size by its name, and says what is wrong with it.
    pub fn set(&mut self, name: &str, rows: usize) -> Result<(), String> {
        // Customers, vendors and products of every legal entity are referred to, so that there must be some.
        let least = match name {
            "customers" | "vendors" | "products" => COMPANIES.len(),
            _ => 0,
        };
        if rows < least || ROWS_MAX < rows {
            return Err(format!("{name} has to be from {least} to {ROWS_MAX}, and not {rows}"));
        }
        *match name {
            "customers" => &mut self.customers,
            "vendors" => &mut self.vendors,
            "products" => &mut self.products,
            "sales-orders" => &mut self.sales_orders,
            "projects" => &mut self.projects,
            "on-hand-requests" => &mut self.on_hand_requests,
            _ => return Err(format!("there is no size {name}; there are {}", Self::NAMES.join(", "))),
        } = rows;
        Ok(())
    }
}

/// A legal entity of the invented group.
#[derive(Debug)]
struct Company {
    id: &'static str,
    name: &'static str,
    currency: &'static str,
    /// ISO code, as F&O writes it.
    country: &'static str,
    state: &'static str,
    city: &'static str,
    language: &'static str,
}

const COMPANIES: [Company; 4] = [
    Company {
        id: "usmf",
        name: "Heron Instruments USA",
        currency: "USD",
        country: "US",
        state: "WA",
        city: "Tacoma",
        language: "en-us",
    },
    Company {
        id: "demf",
        name: "Heron Instrumente Deutschland",
        currency: "EUR",
        country: "DE",
        state: "BY",
        city: "Augsburg",
        language: "de",
    },
    Company {
        id: "gbsi",
        name: "Heron Instruments UK",
        currency: "GBP",
        country: "GB",
        state: "KEN",
        city: "Canterbury",
        language: "en-gb",
    },
    Company {
        id: "jpmf",
        name: "Heron Instruments Japan",
        currency: "JPY",
        country: "JP",
        state: "26",
        city: "Kyoto",
        language: "ja",
    },
];

/// The legal entities of generated rows, as `dataAreaId` spells them.
#[must_use]
pub fn companies() -> Vec<&'static str> {
    COMPANIES.iter().map(|company| company.id).collect()
}

/// Rows that F&O commits together, with their sets: a header and its lines.
pub type Transaction = Vec<(&'static str, Row)>;

/// Every set of F&O, parents first; sales orders are in [`sales_orders`].
#[must_use]
pub fn master_data(sizes: &Sizes, seed: u64) -> Vec<FinopsSet> {
    rows::World { sizes, seed }.sets()
}

/// Sales orders, one transaction each. The number of an order holds the seed, so that those of several seeds are apart.
pub fn sales_orders(sizes: &Sizes, seed: u64) -> impl Iterator<Item = Transaction> + use<> {
    let sizes = *sizes;
    (0..sizes.sales_orders).map(move |number| orders::sales_order(&rows::World { sizes: &sizes, seed }, number))
}

/// Everything, set by set, as a store is seeded with it.
#[must_use]
pub fn all(sizes: &Sizes, seed: u64) -> Vec<FinopsSet> {
    let mut sets = master_data(sizes, seed);
    let (mut headers, mut lines) = (Vec::with_capacity(sizes.sales_orders), Vec::new());
    for (set, row) in sales_orders(sizes, seed).flatten() {
        if set == orders::HEADERS { headers.push(row) } else { lines.push(row) }
    }
    sets.push(FinopsSet { set: orders::HEADERS, rows: headers });
    sets.push(FinopsSet { set: orders::LINES, rows: lines });
    sets
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashSet};

    use super::*;

    fn text<'a>(row: &'a Row, name: &str) -> &'a str {
        row.get(name).and_then(serde_json::Value::as_str).unwrap_or_default()
    }

    #[test]
    fn the_same_seed_gives_the_same_rows_and_another_seed_fits_the_same_master_data() {
        let sizes = Sizes::of(40);
        let shown = |seed| serde_json::to_string(&all(&sizes, seed).iter().map(|set| &set.rows).collect::<Vec<_>>());
        let first = shown(7).expect("JSON");
        assert_eq!(first, shown(7).expect("JSON"));
        assert_ne!(first, shown(8).expect("JSON"));
        let keys = |seed: u64, set: &str, columns: [&str; 2]| {
            let sets = master_data(&sizes, seed);
            let rows = sets.iter().find(|own| own.set == set).map(|own| own.rows.clone()).unwrap_or_default();
            rows.iter().map(|row| columns.map(|name| text(row, name).to_owned())).collect::<Vec<_>>()
        };
        for (set, key) in [("CustomersV3", "CustomerAccount"), ("CDSReleasedDistinctProducts", "ProductNumber")] {
            assert_eq!(keys(7, set, ["dataAreaId", key]), keys(8, set, ["dataAreaId", key]), "{set}");
        }
        let orders = |seed| sales_orders(&sizes, seed).map(|order| text(&order[0].1, "SalesOrderNumber").to_owned());
        let of_seven = orders(7).collect::<HashSet<_>>();
        assert!(orders(8).all(|order| !of_seven.contains(&order)), "orders of two seeds have one number");
    }

    /// Sets by column, and the column of another set that it names; both rows are of one company.
    const REFERENCES: &[(&str, &str, &str, &str)] = &[
        ("Ledgers", "LegalEntityId", "LegalEntities", "LegalEntityId"),
        ("CustomersV3", "CustomerGroupId", "CustomerGroups", "CustomerGroupId"),
        ("CustomersV3", "PartyNumber", "CDSParties", "PartyNumber"),
        ("CustomersV3", "InvoiceAccount", "CustomersV3", "CustomerAccount"),
        ("CustomersV3", "VendorAccount", "VendorsV2", "VendorAccountNumber"),
        ("CustomersV3", "PaymentTerms", "PaymentTerms", "Name"),
        ("CustomersV3", "SalesCurrencyCode", "Currencies", "CurrencyCode"),
        ("CustomersV3", "PaymentMethod", "CustomerPaymentMethods", "Name"),
        ("CustomersV3", "PaymentSchedule", "PaymentSchedules", "Name"),
        ("CustomersV3", "SalesTaxGroup", "TaxGroups", "TaxGroupCode"),
        ("PaymentTerms", "PaymentDayName", "PaymentDaysCDS", "Name"),
        ("VendorsV2", "DefaultVendorPaymentMethodName", "VendorPaymentMethods", "Name"),
        ("CDSSalesOrderHeaders", "DeliveryTermsCode", "DeliveryTerms", "TermsCode"),
        ("CDSSalesOrderHeaders", "PriceCustomerGroupCode", "PriceCustomerGroups", "GroupCode"),
        ("CDSSalesOrderHeaders", "SalesOrderOriginCode", "SalesOrderOrigins", "OriginCode"),
        ("CDSSalesOrderLines", "DeliveryModeCode", "DeliveryModes", "ModeCode"),
        ("VendorsV2", "VendorGroupId", "VendorGroups", "VendorGroupId"),
        ("VendorsV2", "VendorPartyNumber", "CDSParties", "PartyNumber"),
        ("ReleasedProductsV2", "ProductNumber", "AllProducts", "ProductNumber"),
        ("ReleasedProductsV2", "PrimaryVendorAccountNumber", "VendorsV2", "VendorAccountNumber"),
        ("ReleasedProductsV2", "SalesUnitSymbol", "UnitsOfMeasure", "UnitSymbol"),
        ("Warehouses", "OperationalSiteId", "OperationalSites", "SiteId"),
        ("Warehouses", "QuarantineWarehouseId", "Warehouses", "WarehouseId"),
        ("CDSSalesOrderHeaders", "OrderingCustomerAccountNumber", "CustomersV3", "CustomerAccount"),
        ("CDSSalesOrderHeaders", "DefaultShippingWarehouseId", "Warehouses", "WarehouseId"),
        ("CDSSalesOrderLines", "SalesOrderNumber", "CDSSalesOrderHeaders", "SalesOrderNumber"),
        ("CDSSalesOrderLines", "ProductNumber", "CDSReleasedDistinctProducts", "ProductNumber"),
        ("CDSInventoryOnHandRequests", "PRODUCTNUMBER", "CDSReleasedDistinctProducts", "ProductNumber"),
        ("CDSInventoryOnHandEntries", "REQUESTID", "CDSInventoryOnHandRequests", "REQUESTID"),
        ("CDSInventoryOnHandEntries", "InventoryWarehouseId", "Warehouses", "WarehouseId"),
        ("ProjectContracts", "CustomerAccountNumber", "CustomersV3", "CustomerAccount"),
        ("ProjectsV2", "ProjectContractId", "ProjectContracts", "ProjectContractId"),
        ("CDSProjectTasks", "ProjectId", "ProjectsV2", "ProjectId"),
    ];

    #[test]
    fn every_reference_names_a_row_of_the_same_company() {
        let mut sizes = Sizes::of(60);
        sizes.set("sales-orders", 25).expect("a size");
        let sets = all(&sizes, 3).into_iter().map(|set| (set.set, set.rows)).collect::<BTreeMap<_, _>>();
        assert_eq!((sets["CustomersV3"].len(), sets["CDSSalesOrderHeaders"].len()), (60, 25));
        for (set, column, target, key) in REFERENCES {
            let company = |row: &Row| text(row, "dataAreaId").to_owned();
            // A row without a company is there for all.
            let known =
                sets[target].iter().map(|row| (company(row), text(row, key).to_owned())).collect::<HashSet<_>>();
            let mut named = 0;
            for row in sets[set].iter().filter(|row| !text(row, column).is_empty()) {
                let value = text(row, column).to_owned();
                named += 1;
                assert!(
                    known.contains(&(company(row), value.clone())) || known.contains(&(String::new(), value.clone())),
                    "{set}: {column} {value} names no row of {target}"
                );
            }
            assert!(named > 0, "{set} has no {column}");
        }
    }

    #[test]
    fn an_order_is_one_transaction_whose_total_is_that_of_its_lines() {
        let mut sizes = Sizes::of(20);
        sizes.set("sales-orders", 50).expect("a size");
        let number = |row: &Row, name: &str| row.get(name).and_then(serde_json::Value::as_f64).unwrap_or_default();
        for order in sales_orders(&sizes, 1) {
            let (header, lines) = order.split_first().expect("a header");
            assert_eq!(header.0, "CDSSalesOrderHeaders");
            assert!(!lines.is_empty() && lines.len() <= 12);
            let sum = lines.iter().map(|(_, line)| number(line, "LineAmount")).sum::<f64>();
            let total = number(&header.1, "OrderTotalAmount");
            let tax = number(&header.1, "OrderTotalTaxAmount");
            assert!((sum + tax - total).abs() < 0.005, "{sum} and {tax} are not {total}");
            assert!(lines.iter().all(|(set, line)| {
                *set == "CDSSalesOrderLines" && text(line, "SalesOrderNumber") == text(&header.1, "SalesOrderNumber")
            }));
        }
    }

    #[test]
    fn sizes_are_as_asked_or_refused() {
        let mut sizes = Sizes::of(1_000);
        for (name, rows, fits) in [
            ("vendors", 7, true),
            ("vendors", 3, false),
            ("sales-orders", 0, true),
            ("people", 5, false),
            ("projects", ROWS_MAX + 1, false),
        ] {
            assert_eq!(sizes.set(name, rows).is_ok(), fits, "{name} {rows}");
        }
        assert_eq!(sizes, Sizes { vendors: 7, sales_orders: 0, ..Sizes::of(1_000) });
        let sets = all(&sizes, 5);
        let rows = |name: &str| sets.iter().find(|set| set.set == name).map_or(0, |set| set.rows.len());
        assert_eq!((rows("VendorsV2"), rows("CDSSalesOrderHeaders"), rows("ProjectContracts")), (7, 0, 100));
    }
}
