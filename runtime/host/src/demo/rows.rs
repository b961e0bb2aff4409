//! From records to rows of F&O entities, in the property names and spellings of F&O.
//!
//! Owns every rule of that translation, because tests compute the same values from the files alone:
//!
//! | entity | one row per | rules |
//! |---|---|---|
//! | Legal entities | company | sales territories by region: `usmf`, `camf`, … for North America by country, `eumf` Europe, `apmf` Pacific |
//! | Units | UnitMeasure | codes without trailing blanks; the class follows from the name |
//! | Currencies | Currency | the symbol of the well-known ones, else the code; and `999`, which the map's filter leaves out |
//! | CDS Parties | store, vendor, individual customer | number `P` + BusinessEntityID; individuals have no names in the data: first name = local part of the e-mail address, last name = account number |
//! | CDS postal address locations, history V2, party links | address of a party | `L` + AddressID; valid from the address's date; the street holds both lines with a line break |
//! | Party contacts V3 | e-mail and phone of an individual, and of each person who speaks for a store or vendor | `E` + EmailAddressID; `T` + BusinessEntityID + `-` + type |
//! | Customer groups, Vendor groups | territory × kind; credit rating × company | and one `OTHER` per company without members |
//! | Vendors V2 | Vendor | company by its first address; credit limit = what was ordered from it |
//! | Customers V3 | Customer | with a store it is an organization, else a person; credit limit = equal share of the territory's sales |
//! | All products, Released products V2 | Product; company × product | the company of the vendors has all, the others the finished goods |
//!
//! A property without a value is left out: F&O then has its empty value. Every lookup that carries a value names a row
//! that is there.

use std::collections::{BTreeMap, HashMap, HashSet};

use rust_decimal::Decimal;
use serde_json::Value;

use super::records::{Customer, Product, Records};
use super::{FinopsSet, Row};

/// What F&O stores for "for ever".
pub(super) const FOR_EVER: &str = "2154-12-31T23:59:59Z";

/// A row while it is put together.
#[derive(Debug, Clone, Default)]
pub(crate) struct Build(Row);

impl Build {
    pub fn new() -> Self {
        Self::default()
    }

    /// A text, when it is not empty.
    pub fn text(mut self, name: &str, text: impl AsRef<str>) -> Self {
        if !text.as_ref().is_empty() {
            self.0.insert(name.to_owned(), Value::from(text.as_ref()));
        }
        self
    }

    pub fn yes(self, name: &str, value: bool) -> Self {
        self.text(name, if value { "Yes" } else { "No" })
    }

    pub fn int(mut self, name: &str, value: impl Into<i64>) -> Self {
        self.0.insert(name.to_owned(), Value::from(value.into()));
        self
    }

    pub fn decimal(mut self, name: &str, value: Decimal) -> Self {
        self.0.insert(name.to_owned(), decimal_json(value));
        self
    }

    pub fn row(self) -> Row {
        self.0
    }
}

/// A JSON number with the digits of the decimal. Amounts of the demo have fewer digits than a double keeps.
pub(super) fn decimal_json(value: Decimal) -> Value {
    let text = value.normalize().to_string();
    let whole = text.parse::<i64>().ok().map(serde_json::Number::from);
    let number = whole.or_else(|| text.parse::<f64>().ok().and_then(serde_json::Number::from_f64));
    number.map_or(Value::Null, Value::Number)
}

/// What is asked of the records again and again.
pub(super) struct World<'a> {
    records: &'a Records,
    pub companies: Vec<Company>,
    company_of_territory: HashMap<u32, usize>,
    currency_of_country: BTreeMap<String, String>,
    /// Positions in `records.address_links`, in their order.
    addresses_of: HashMap<u32, Vec<usize>>,
}

/// A legal entity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Company {
    pub id: String,
    pub name: String,
    /// Country of its first territory.
    pub country: String,
    pub territories: Vec<u32>,
}

/// Who is behind a party number.
struct Party<'a> {
    entity: u32,
    kind: PartyKind<'a>,
}

enum PartyKind<'a> {
    Store { name: &'a str },
    Vendor { name: &'a str, rating: u8 },
    Individual { customer: &'a Customer },
}

impl<'a> World<'a> {
    pub fn new(records: &'a Records) -> Self {
        let mut companies: Vec<Company> = Vec::new();
        let mut company_of_territory = HashMap::new();
        for territory in &records.territories {
            let (id, region) = match territory.group.as_str() {
                "North America" => {
                    let country = records.countries.iter().find(|country| country.code == territory.country);
                    let region = country.map_or(territory.country.as_str(), |country| country.name.as_str());
                    (format!("{}mf", territory.country.to_lowercase()), region)
                }
                "Europe" => ("eumf".to_owned(), "Europe"),
                "Pacific" => ("apmf".to_owned(), "Pacific"),
                other => {
                    let letters = other.chars().filter(char::is_ascii_alphabetic).take(2).collect::<String>();
                    (format!("{}mf", letters.to_lowercase()), other)
                }
            };
            let at = companies.iter().position(|company| company.id == id).unwrap_or_else(|| {
                companies.push(Company {
                    id,
                    name: format!("{region}:"),
                    country: territory.country.clone(),
                    territories: Vec::new(),
                });
                companies.len() - 1
            });
            let company = &mut companies[at];
            let separator = if company.territories.is_empty() { " " } else { ", " };
            company.name.push_str(separator);
            company.name.push_str(&territory.name);
            company.territories.push(territory.id);
            company_of_territory.insert(territory.id, at);
        }
        // The euro where the country has it, else its first currency.
        let mut currency_of_country: BTreeMap<String, String> = BTreeMap::new();
        for own in &records.country_currencies {
            let currency = currency_of_country.entry(own.country.clone()).or_insert_with(|| own.currency.clone());
            if own.currency == "EUR" {
                currency.clone_from(&own.currency);
            }
        }
        let mut addresses_of: HashMap<u32, Vec<usize>> = HashMap::new();
        for (at, link) in records.address_links.iter().enumerate() {
            addresses_of.entry(link.entity).or_default().push(at);
        }
        Self { records, companies, company_of_territory, currency_of_country, addresses_of }
    }

    /// Every set, parents first.
    pub fn sets(&self) -> Vec<FinopsSet> {
        let parties = self.parties();
        let vendors = self.vendor_companies();
        let set = |set, rows| FinopsSet { set, rows };
        let (products, released) = self.products(&vendors);
        let (locations, histories, links) = self.addresses(&parties);
        vec![
            set("LegalEntities", self.legal_entities()),
            set("UnitsOfMeasure", self.units()),
            set("Currencies", self.currencies()),
            set("CDSParties", self.party_rows(&parties)),
            set("CDSPostalAddressLocations", locations),
            set("CDSPostalAddressHistoriesV2", histories),
            set("CDSPartyPostalAddressLocations", links),
            set("PartyContactsV3", self.contacts(&parties)),
            set("CustomerGroups", self.customer_groups()),
            set("VendorGroups", self.vendor_groups()),
            set("VendorsV2", self.vendors(&vendors)),
            set("CustomersV3", self.customers()),
            set("AllProducts", products),
            set("ReleasedProductsV2", released),
        ]
    }

    fn company(&self, territory: u32) -> &Company {
        // Files that belong together name only territories that they have.
        &self.companies[self.company_of_territory.get(&territory).copied().unwrap_or_default()]
    }

    fn country(&self, territory: u32) -> &str {
        self.records.territories.iter().find(|own| own.id == territory).map_or("", |own| own.country.as_str())
    }

    fn currency(&self, country: &str) -> &str {
        self.currency_of_country.get(country).map_or("USD", String::as_str)
    }

    /// Country and state code of the first address.
    fn first_state(&self, entity: u32) -> Option<&super::records::State> {
        let link = &self.records.address_links[*self.addresses_of.get(&entity)?.first()?];
        let address = self.records.addresses.binary_search_by_key(&link.address, |address| address.id);
        let address = match address {
            Ok(at) => &self.records.addresses[at],
            Err(_) => self.records.addresses.iter().find(|address| address.id == link.address)?,
        };
        self.records.states.iter().find(|state| state.id == address.state)
    }

    fn legal_entities(&self) -> Vec<Row> {
        self.companies
            .iter()
            .map(|company| {
                Build::new()
                    .text("LegalEntityId", &company.id)
                    .text("Name", &company.name)
                    .text("NameAlias", company.id.to_uppercase())
                    .text("LanguageId", language(&company.country, ""))
                    .row()
            })
            .collect()
    }

    fn units(&self) -> Vec<Row> {
        self.records
            .units
            .iter()
            .map(|unit| {
                let (class, system) = unit_class(&unit.name);
                Build::new()
                    .text("UnitSymbol", &unit.code)
                    .text("UnitClass", class)
                    .int("DecimalPrecision", if class == "Quantity" { 0 } else { 3 })
                    .yes("IsBaseUnit", matches!(unit.code.as_str(), "EA" | "KG" | "L" | "M" | "M2"))
                    .yes("IsSystemUnit", unit.code == "EA")
                    .text("SystemOfUnits", system)
                    .text("UnitDescription", &unit.name)
                    .row()
            })
            .collect()
    }

    fn currencies(&self) -> Vec<Row> {
        let row = |code: &str, name: &str| {
            Build::new().text("CurrencyCode", code).text("Name", name).text("Symbol", currency_symbol(code)).row()
        };
        let mut rows = self.records.currencies.iter().map(|own| row(&own.code, &own.name)).collect::<Vec<_>>();
        rows.push(row("999", "Several currencies"));
        rows
    }

    fn parties(&self) -> Vec<Party<'_>> {
        let stores = self
            .records
            .stores
            .iter()
            .map(|store| Party { entity: store.id, kind: PartyKind::Store { name: &store.name } });
        let vendors = self.records.vendors.iter().map(|vendor| Party {
            entity: vendor.id,
            kind: PartyKind::Vendor { name: &vendor.name, rating: vendor.credit_rating },
        });
        let individuals =
            self.records.customers.iter().filter(|customer| customer.store.is_none()).filter_map(|customer| {
                Some(Party { entity: customer.person?, kind: PartyKind::Individual { customer } })
            });
        stores.chain(vendors).chain(individuals).collect()
    }

    fn party_rows(&self, parties: &[Party<'_>]) -> Vec<Row> {
        let emails = self.records.emails.iter().map(|email| (email.person, email)).collect::<HashMap<_, _>>();
        parties
            .iter()
            .map(|party| {
                let state = self.first_state(party.entity);
                let (country, state) = state.map_or(("", ""), |state| (state.country.as_str(), state.code.as_str()));
                let build = Build::new()
                    .text("PartyNumber", party_number(party.entity))
                    .text("LanguageId", language(country, state));
                match party.kind {
                    PartyKind::Store { name } => build
                        .text("PartyType", "Organization")
                        .text("OrganizationName", name)
                        .text("NameAlias", shortened(name, 20))
                        .text("KnownAs", name)
                        .row(),
                    PartyKind::Vendor { name, rating } => build
                        .text("PartyType", "Organization")
                        .text("OrganizationName", name)
                        .text("NameAlias", shortened(name, 20))
                        .text("KnownAs", name)
                        .text(
                            "OrganizationABCCode",
                            match rating {
                                1 => "A",
                                2 => "B",
                                3 => "C",
                                _ => "None",
                            },
                        )
                        .row(),
                    PartyKind::Individual { customer } => {
                        let email = emails.get(&party.entity);
                        let local = email.map_or("", |email| local_part(&email.address));
                        let build = build
                            .text("PartyType", "Person")
                            .text("PersonFirstName", shortened(local, 25))
                            .text("PersonLastName", &customer.account)
                            .text("NameAlias", shortened(local, 20))
                            .text("KnownAs", local);
                        // Since when they are known: the date of their e-mail address.
                        match email.and_then(|email| day_parts(&email.modified)) {
                            Some((year, month, day)) => build
                                .int("PersonAnniversaryDay", day)
                                .text("PersonAnniversaryMonth", month_name(month))
                                .int("PersonAnniversaryYear", year)
                                .row(),
                            None => build.row(),
                        }
                    }
                }
            })
            .collect()
    }

    fn addresses(&self, parties: &[Party<'_>]) -> (Vec<Row>, Vec<Row>, Vec<Row>) {
        let addresses = self.records.addresses.iter().map(|own| (own.id, own)).collect::<HashMap<_, _>>();
        let states = self.records.states.iter().map(|own| (own.id, own)).collect::<HashMap<_, _>>();
        let (mut locations, mut histories, mut links) = (Vec::new(), Vec::new(), Vec::new());
        let mut seen = HashSet::new();
        for party in parties {
            let own = self.addresses_of.get(&party.entity).map(Vec::as_slice).unwrap_or_default();
            for (position, &at) in own.iter().enumerate() {
                let link = &self.records.address_links[at];
                let Some(address) = addresses.get(&link.address) else { continue };
                let kind = name_of(&self.records.address_types, link.kind);
                let location = location_id(address.id);
                // Two parties may share an address; the first one owns it.
                let is_owner = seen.insert(address.id);
                if is_owner {
                    let state = states.get(&address.state);
                    locations.push(
                        Build::new()
                            .text("LocationId", &location)
                            .text("Description", format!("{kind}, {}", address.city))
                            .row(),
                    );
                    histories.push(
                        Build::new()
                            .text("LocationId", &location)
                            .text("ValidFrom", &address.modified)
                            .text("ValidTo", FOR_EVER)
                            .text("Description", kind)
                            .text("Street", street(&address.line_1, &address.line_2))
                            .text("StreetNumber", street_number(&address.line_1))
                            .text("City", &address.city)
                            .text("State", state.map_or("", |state| &state.code))
                            .text("CountryRegionId", state.map_or("", |state| &state.country))
                            .text("ZipCode", &address.postal_code)
                            .text("County", state.map_or("", |state| &state.name))
                            .row(),
                    );
                }
                links.push(
                    Build::new()
                        .text("LocationId", &location)
                        .text("PartyNumber", party_number(party.entity))
                        .yes("IsPrimary", position == 0)
                        .yes("IsLocationOwner", is_owner)
                        .text("Purpose", kind)
                        .row(),
                );
            }
        }
        (locations, histories, links)
    }

    fn contacts(&self, parties: &[Party<'_>]) -> Vec<Row> {
        let mut emails: HashMap<u32, Vec<usize>> = HashMap::new();
        for (at, email) in self.records.emails.iter().enumerate() {
            emails.entry(email.person).or_default().push(at);
        }
        let mut phones: HashMap<u32, Vec<usize>> = HashMap::new();
        for (at, phone) in self.records.phones.iter().enumerate() {
            phones.entry(phone.person).or_default().push(at);
        }
        let mut people: HashMap<u32, Vec<usize>> = HashMap::new();
        for (at, contact) in self.records.contacts.iter().enumerate() {
            people.entry(contact.entity).or_default().push(at);
        }
        let mut rows = Vec::new();
        for party in parties {
            let spoken_for = match party.kind {
                PartyKind::Individual { .. } => vec![(party.entity, "")],
                PartyKind::Store { .. } | PartyKind::Vendor { .. } => people
                    .get(&party.entity)
                    .into_iter()
                    .flatten()
                    .map(|&at| &self.records.contacts[at])
                    .map(|contact| (contact.person, name_of(&self.records.contact_types, contact.kind)))
                    .collect(),
            };
            let number = party_number(party.entity);
            let is_individual = matches!(party.kind, PartyKind::Individual { .. });
            for (position, (person, role)) in spoken_for.into_iter().enumerate() {
                for &at in emails.get(&person).into_iter().flatten() {
                    let email = &self.records.emails[at];
                    rows.push(
                        Build::new()
                            .text("ElectronicAddressId", email_id(email.id))
                            .text("PartyNumber", &number)
                            .text("Type", "Email")
                            .text("Description", if role.is_empty() { "E-mail" } else { role })
                            .text("Locator", &email.address)
                            .yes("IsPrimary", position == 0)
                            .yes("IsPrivate", is_individual)
                            .text("Purpose", if is_individual { "Home" } else { "Business" })
                            .row(),
                    );
                }
                for &at in phones.get(&person).into_iter().flatten() {
                    let phone = &self.records.phones[at];
                    let kind = name_of(&self.records.phone_types, phone.kind);
                    rows.push(
                        Build::new()
                            .text("ElectronicAddressId", phone_id(phone.person, phone.kind))
                            .text("PartyNumber", &number)
                            .text("Type", "Phone")
                            .text("Description", if role.is_empty() { kind } else { role })
                            .text("Locator", &phone.number)
                            .yes("IsPrimary", position == 0)
                            .yes("IsPrivate", is_individual)
                            .yes("IsMobilePhone", kind == "Cell")
                            .text("CountryRegionCode", if phone.number.starts_with("1 (11)") { "1" } else { "" })
                            .text("Purpose", if is_individual { "Home" } else { "Business" })
                            .row(),
                    );
                }
            }
        }
        rows
    }

    fn customer_groups(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        for company in &self.companies {
            let group = |id: &str, description: &str| {
                Build::new()
                    .text("dataAreaId", &company.id)
                    .text("CustomerGroupId", id)
                    .text("Description", description)
                    .yes("IsSalesTaxIncludedInPrice", company.id == "eumf" || company.id == "apmf")
                    .row()
            };
            for &territory in &company.territories {
                let name = self.records.territories.iter().find(|own| own.id == territory).map_or("", |own| &own.name);
                rows.push(group(&customer_group(territory, true), &format!("{name}, stores")));
                rows.push(group(&customer_group(territory, false), &format!("{name}, individuals")));
            }
            rows.push(group("OTHER", "Other customers"));
        }
        rows
    }

    fn vendor_groups(&self) -> Vec<Row> {
        let ratings = self.records.vendors.iter().map(|vendor| vendor.credit_rating);
        let ratings = ratings.collect::<std::collections::BTreeSet<_>>();
        let mut rows = Vec::new();
        for company in &self.companies {
            let group = |id: &str, description: &str| {
                Build::new()
                    .text("dataAreaId", &company.id)
                    .text("VendorGroupId", id)
                    .text("Description", description)
                    .row()
            };
            rows.extend(ratings.iter().map(|&rating| group(&vendor_group(rating), &format!("Credit rating {rating}"))));
            rows.push(group("OTHER", "Other vendors"));
        }
        rows
    }

    /// The company of every vendor: that of the territory of its first address.
    fn vendor_companies(&self) -> HashMap<u32, usize> {
        self.records
            .vendors
            .iter()
            .map(|vendor| {
                let territory = self.first_state(vendor.id).map(|state| state.territory);
                let company = territory.and_then(|territory| self.company_of_territory.get(&territory).copied());
                (vendor.id, company.unwrap_or_default())
            })
            .collect()
    }

    fn vendors(&self, companies: &HashMap<u32, usize>) -> Vec<Row> {
        let mut ordered: HashMap<u32, Decimal> = HashMap::new();
        for order in &self.records.purchase_orders {
            *ordered.entry(order.vendor).or_default() += order.total;
        }
        self.records
            .vendors
            .iter()
            .map(|vendor| {
                let company = &self.companies[companies.get(&vendor.id).copied().unwrap_or_default()];
                let country = self.first_state(vendor.id).map_or(company.country.as_str(), |state| &state.country);
                let is_active = vendor.is_active == 1;
                let build = Build::new()
                    .text("dataAreaId", &company.id)
                    .text("VendorAccountNumber", &vendor.account)
                    .text("VendorGroupId", vendor_group(vendor.credit_rating))
                    .text("VendorPartyType", "Organization")
                    .text("VendorPartyNumber", party_number(vendor.id))
                    .text("VendorOrganizationName", &vendor.name)
                    .text("VendorSearchName", shortened(&vendor.name, 20))
                    .decimal("CreditLimit", ordered.get(&vendor.id).copied().unwrap_or_default())
                    .text("CreditRating", vendor.credit_rating.to_string())
                    .text("CurrencyCode", self.currency(country))
                    .text("PrimaryURL", &vendor.url)
                    .text("OurAccountNumber", format!("AW-{}", vendor.id))
                    .yes("IsForeignEntity", country != company.country)
                    .yes("IsVendorLocallyOwned", country == company.country)
                    .yes("HasOnlyTakenBids", vendor.is_preferred == 1)
                    .yes("ArePricesIncludingSalesTax", company.id == "eumf" || company.id == "apmf")
                    .text(
                        "OnHoldStatus",
                        match (is_active, vendor.is_preferred == 1) {
                            (false, _) => "All",
                            (true, false) => "Requisition",
                            (true, true) => "No",
                        },
                    );
                // An empty date otherwise: F&O has 1900-01-01 for it.
                if is_active { build } else { build.text("VendorHoldReleaseDate", date_of(&vendor.modified)) }.row()
            })
            .collect()
    }

    fn customers(&self) -> Vec<Row> {
        let stores = self.records.stores.iter().map(|store| (store.id, store)).collect::<HashMap<_, _>>();
        let emails =
            self.records.emails.iter().map(|email| (email.person, email.address.as_str())).collect::<HashMap<_, _>>();
        let territories = self.records.territories.iter().map(|own| (own.id, own)).collect::<HashMap<_, _>>();
        let mut organizations: HashMap<u32, i64> = HashMap::new();
        // The customer that stands for the store itself, without a person: it pays for the others.
        let mut payers: HashMap<u32, &Customer> = HashMap::new();
        for customer in &self.records.customers {
            if let Some(store) = customer.store {
                *organizations.entry(customer.territory).or_default() += 1;
                if customer.person.is_none() {
                    payers.insert(store, customer);
                }
            }
        }
        self.records
            .customers
            .iter()
            .map(|customer| {
                let company = self.company(customer.territory);
                let entity = customer.store.or(customer.person).unwrap_or_default();
                let state = self.first_state(entity);
                let build = Build::new()
                    .text("dataAreaId", &company.id)
                    .text("CustomerAccount", &customer.account)
                    .text("PartyNumber", party_number(entity))
                    .text("CustomerGroupId", customer_group(customer.territory, customer.store.is_some()))
                    .text("SalesCurrencyCode", self.currency(self.country(customer.territory)))
                    .text("IdentificationNumber", format!("CUSTOMER-{}", customer.id))
                    .text("PartyCountry", state.map_or("", |state| &state.country))
                    .text("PartyState", state.map_or("", |state| &state.code));
                let Some(store) = customer.store else {
                    let email = customer.person.and_then(|person| emails.get(&person)).copied().unwrap_or_default();
                    return build
                        .text("PartyType", "Person")
                        .text("PersonFirstName", shortened(local_part(email), 25))
                        .text("PersonLastName", &customer.account)
                        .text("NameAlias", shortened(local_part(email), 20))
                        .text("PrimaryContactEmail", email)
                        .row();
                };
                let territory = territories.get(&customer.territory);
                let members = organizations.get(&customer.territory).copied().unwrap_or(1).max(1);
                let share = territory.map_or(Decimal::ZERO, |own| own.sales) / Decimal::from(members);
                let (name, sales_person) =
                    stores.get(&store).map_or(("", None), |store| (store.name.as_str(), store.sales_person));
                let mut memo = name.trim_end().to_owned();
                memo.push_str(territory.map_or(String::new(), |own| format!("\nTerritory: {}", own.name)).as_str());
                if let Some(person) = sales_person {
                    memo.push_str(&format!("\nSales person: {person}"));
                }
                let payer = payers
                    .get(&store)
                    .filter(|payer| payer.id != customer.id && self.company(payer.territory).id == company.id);
                build
                    .text("PartyType", "Organization")
                    .text("OrganizationName", name)
                    .text("NameAlias", shortened(name, 20))
                    .text("SalesMemo", memo)
                    .decimal("CreditLimit", share.round_dp(4))
                    .yes("CreditLimitIsMandatory", customer.person.is_none())
                    .text("CreditRating", if customer.id % 3 == 0 { "Good" } else { "" })
                    .text("InvoiceAccount", payer.map_or("", |payer| payer.account.as_str()))
                    .yes("IsOneTimeCustomer", customer.id % 101 == 0)
                    .text("OnHoldStatus", hold_status(customer.id))
                    .int("PaymentTermsBaseDays", customer.id % 4 * 15)
                    .row()
            })
            .collect()
    }

    fn products(&self, vendor_companies: &HashMap<u32, usize>) -> (Vec<Row>, Vec<Row>) {
        let vendors = self.records.vendors.iter().map(|vendor| (vendor.id, vendor)).collect::<HashMap<_, _>>();
        let mut offers: HashMap<u32, Vec<usize>> = HashMap::new();
        for (at, offer) in self.records.product_vendors.iter().enumerate() {
            offers.entry(offer.product).or_default().push(at);
        }
        let texts = self.records.descriptions.iter().map(|own| (own.id, own.text.as_str())).collect::<HashMap<_, _>>();
        let mut descriptions: HashMap<u32, Vec<(&str, &str)>> = HashMap::new();
        for link in &self.records.description_links {
            if let Some(text) = texts.get(&link.description) {
                descriptions.entry(link.model).or_default().push((&link.culture, text));
            }
        }
        let home = self.records.vendors.first().and_then(|vendor| vendor_companies.get(&vendor.id)).copied();
        let home = home.unwrap_or_default();
        let products = self
            .records
            .products
            .iter()
            .map(|product| {
                let english = in_language(&descriptions, product.model, "en");
                Build::new()
                    .text("ProductNumber", &product.number)
                    .text("ProductName", &product.name)
                    .text("ProductSearchName", shortened(&product.name, 20))
                    .text("ProductDescription", english)
                    .row()
            })
            .collect();
        let mut released = Vec::new();
        for (at, company) in self.companies.iter().enumerate() {
            // The first product of its model in the company stands in for the others.
            let mut first_of_model: HashMap<u32, &Product> = HashMap::new();
            for product in self.records.products.iter().filter(|product| at == home || product.is_finished == 1) {
                let offer = offers
                    .get(&product.id)
                    .into_iter()
                    .flatten()
                    .map(|&offer| &self.records.product_vendors[offer])
                    .find(|offer| vendor_companies.get(&offer.vendor) == Some(&at));
                let alternative = product.model.and_then(|model| {
                    let first = *first_of_model.entry(model).or_insert(product);
                    (first.id != product.id).then_some(first)
                });
                let language = match company.id.as_str() {
                    "camf" | "eumf" => "fr",
                    "apmf" => ["th", "zh-cht", "ar", "he"][(product.id % 4) as usize],
                    _ => "en",
                };
                let abc = |letter: &str| match letter {
                    "H" | "W" => "A",
                    "M" => "B",
                    "L" | "U" => "C",
                    _ => "None",
                };
                let mut build = Build::new()
                    .text("dataAreaId", &company.id)
                    .text("ItemNumber", &product.number)
                    .text("ProductNumber", &product.number)
                    .text("SearchName", shortened(&product.name, 20))
                    .text("ProductType", "Item")
                    .text("InventoryUnitSymbol", "EA")
                    .text("SalesUnitSymbol", "EA")
                    .text("BOMUnitSymbol", if product.is_finished == 1 { "" } else { "EA" })
                    .decimal("UnitCost", product.cost)
                    .decimal("SalesPrice", product.price)
                    .int("UnitCostQuantity", 1)
                    .text("UnitCostDate", date_of(&product.sell_start))
                    .text("SellStartDate", date_of(&product.sell_start))
                    .yes("IsPhantom", product.is_made == 1 && product.is_finished == 0)
                    .text("CarryingCostABCCode", abc(&product.class))
                    .text("MarginABCCode", abc(&product.style))
                    .text("SalesPriceCalculationModel", if product.price.is_zero() { "None" } else { "PercentMarkup" })
                    .int("ShelfAdvicePeriodDays", product.days_to_manufacture)
                    .int("MaximumPickQuantity", product.safety_stock)
                    .int("SalesPricingPrecision", 4)
                    .decimal("SalesOverdeliveryPercentage", Decimal::new(25, 1))
                    .int("YieldPercentage", 100)
                    .text("WarehouseMobileDeviceDescriptionLine1", in_language(&descriptions, product.model, "en"))
                    .text("WarehouseMobileDeviceDescriptionLine2", in_language(&descriptions, product.model, language))
                    .text("AlternativeItemNumber", alternative.map_or("", |first| first.number.as_str()));
                if let Some(weight) = product.weight {
                    build = build.decimal("NetProductWeight", weight);
                }
                if let Some(end) = &product.sell_end {
                    build =
                        build.yes("IsPOSRegistrationBlocked", true).text("POSRegistrationBlockedDate", date_of(end));
                }
                if let Some(offer) = offer {
                    build = build
                        .text("PrimaryVendorAccountNumber", vendors.get(&offer.vendor).map_or("", |own| &own.account))
                        .text("PurchaseUnitSymbol", &offer.unit)
                        .decimal("PurchasePrice", offer.price)
                        .int("DefaultReceivingQuantity", offer.quantity_min)
                        .text("PurchasePriceDate", offer.last_receipt.as_deref().map_or("", date_of));
                }
                released.push(build.row());
            }
        }
        (products, released)
    }
}

fn name_of(list: &[super::records::Named], id: u32) -> &str {
    list.iter().find(|own| own.id == id).map_or("", |own| own.name.as_str())
}

fn in_language<'a>(descriptions: &HashMap<u32, Vec<(&str, &'a str)>>, model: Option<u32>, culture: &str) -> &'a str {
    let own = model.and_then(|model| descriptions.get(&model)).map(Vec::as_slice).unwrap_or_default();
    own.iter().find(|(own, _)| *own == culture).map_or("", |(_, text)| text)
}

pub(super) fn party_number(entity: u32) -> String {
    format!("P{entity:08}")
}

fn location_id(address: u32) -> String {
    format!("L{address:08}")
}

fn email_id(email: u32) -> String {
    format!("E{email:08}")
}

fn phone_id(person: u32, kind: u32) -> String {
    format!("T{person:08}-{kind}")
}

/// `T04S` for the stores of territory 4, `T04P` for its individuals.
fn customer_group(territory: u32, is_store: bool) -> String {
    format!("T{territory:02}{}", if is_store { 'S' } else { 'P' })
}

fn vendor_group(rating: u8) -> String {
    format!("RATING{rating}")
}

/// Most are open; some exercise the other options.
const fn hold_status(customer: u32) -> &'static str {
    if customer.is_multiple_of(97) {
        "All"
    } else if customer.is_multiple_of(50) {
        "Invoice"
    } else if customer.is_multiple_of(41) {
        "Never"
    } else {
        "No"
    }
}

/// The first characters, as F&O cuts a search name, without trailing blanks.
pub(super) fn shortened(text: &str, length: usize) -> String {
    text.chars().take(length).collect::<String>().trim_end().to_owned()
}

fn local_part(email: &str) -> &str {
    email.rsplit_once('@').map_or(email, |(local, _)| local)
}

fn street(line_1: &str, line_2: &str) -> String {
    if line_2.is_empty() { line_1.to_owned() } else { format!("{line_1}\n{line_2}") }
}

/// The digits that a street begins with, when a blank follows.
fn street_number(line: &str) -> &str {
    let digits = line.len() - line.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    if line[digits..].starts_with(' ') { &line[..digits] } else { "" }
}

fn date_of(moment: &str) -> &str {
    moment.get(..10).unwrap_or_default()
}

fn day_parts(moment: &str) -> Option<(i64, usize, i64)> {
    let mut parts = date_of(moment).split('-');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn month_name(month: usize) -> &'static str {
    const NAMES: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    NAMES.get(month.wrapping_sub(1)).copied().unwrap_or("None")
}

/// A language of the maps' value map, by country; French in Québec.
fn language(country: &str, state: &str) -> &'static str {
    match (country, state) {
        ("CA", "QC") => "fr-ca",
        ("CA", _) => "en-ca",
        ("GB", _) => "en-gb",
        ("AU", _) => "en-au",
        ("DE", _) => "de",
        ("FR", _) => "fr",
        ("JP", _) => "ja",
        ("BR", _) => "pt-br",
        ("ES", _) => "es",
        _ => "en-us",
    }
}

/// Class and system of a unit, as its name tells.
fn unit_class(name: &str) -> (&'static str, &'static str) {
    let name = name.to_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| name.contains(word));
    if has(&["us pound", "ounce", "pint", "gallon", "inch", "cubic foot"]) {
        let class = if has(&["pint", "gallon", "cubic foot"]) {
            "LiquidVolume"
        } else if has(&["inch"]) {
            "Length"
        } else {
            "Mass"
        };
        (class, "Us")
    } else if has(&["celsius"]) {
        ("Temperature", "Metric")
    } else if has(&["gram", "ton"]) && !has(&["carton"]) {
        ("Mass", "Metric")
    } else if has(&["liter", "litre", "cubic"]) {
        ("LiquidVolume", "Metric")
    } else if has(&["square"]) {
        ("Area", "Metric")
    } else if has(&["meter", "metre"]) {
        ("Length", "Metric")
    } else {
        ("Quantity", "None")
    }
}

/// The sign of a well-known currency, else its code. F&O takes five characters.
fn currency_symbol(code: &str) -> &str {
    match code {
        "USD" => "$",
        "EUR" => "€",
        "GBP" => "£",
        "JPY" | "CNY" => "¥",
        "AUD" => "A$",
        "CAD" => "C$",
        "BRL" => "R$",
        "INR" => "₹",
        "KRW" => "₩",
        "ILS" => "₪",
        "PLN" => "zł",
        "CZK" => "Kč",
        "THB" => "฿",
        "VND" => "₫",
        "RUB" => "₽",
        "CHF" => "Fr.",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_rules() {
        assert_eq!(decimal_json(Decimal::new(98_800_000, 4)).to_string(), "9880");
        assert_eq!(decimal_json(Decimal::new(97_762_665, 4)).to_string(), "9776.2665");
        assert_eq!(street_number("1970 Napa Ct."), "1970");
        assert_eq!(street_number("9833rd Av."), "");
        assert_eq!(street_number("12"), "");
        assert_eq!(shortened("Helpful Sales and Repair Service ", 20), "Helpful Sales and Re");
        assert_eq!(shortened("Müller & Söhne, 19. und mehr", 18), "Müller & Söhne, 19");
        assert_eq!(local_part("josé1@adventure-works.com"), "josé1");
        assert_eq!(unit_class("Kilogram/cubic meter"), ("Mass", "Metric"));
        assert_eq!(unit_class("Carton"), ("Quantity", "None"));
        assert_eq!(day_parts("2024-02-29T00:00:00Z"), Some((2024, 2, 29)));
        assert_eq!(month_name(12), "December");
    }
}
