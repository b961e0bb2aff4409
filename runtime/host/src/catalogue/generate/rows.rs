//! Master data, projects and stock: which rows there are, and what stands in them.

use rust_decimal::Decimal;

use super::{COMPANIES, Company, Numbers, Sizes};
use crate::demo::{Build, FinopsSet, Row};

/// Everything a row may follow from.
#[derive(Clone, Copy)]
pub(super) struct World<'a> {
    pub sizes: &'a Sizes,
    pub seed: u64,
}

/// The year of business.
const YEAR: i64 = 2026;

const FIRST: [&str; 12] = [
    "Alder", "Birch", "Cobalt", "Delta", "Ember", "Fjord", "Granite", "Harbour", "Ivory", "Juniper", "Kestrel", "Lumen",
];
const SECOND: [&str; 10] =
    ["Works", "Systems", "Trading", "Foods", "Optics", "Logistics", "Energy", "Medical", "Paper & Print", "O’Neill"];
const GIVEN: [&str; 12] =
    ["Ana", "Björn", "Chen", "Dana", "Émile", "Fatima", "Goran", "Hana", "Imre", "José", "Kaito", "Łucja"];
const FAMILY: [&str; 10] =
    ["Almeida", "Brandt", "Costa", "Doyle", "Eriksen", "Fischer", "García", "Hoffmann", "Itō", "Jansen"];
const THINGS: [&str; 10] = [
    "Barometer",
    "Caliper",
    "Damper",
    "Encoder",
    "Flow meter",
    "Gauge",
    "Hygrometer",
    "Inverter",
    "Level sensor",
    "Manometer",
];
const STREETS: [&str; 6] =
    ["Mill Lane", "Station Road", "Harbour Street", "Kirchgasse", "Quai du Port", "Market Square"];
const TERMS: [(&str, &str, i64, &str); 4] = [
    ("Cash", "Due at once", 0, "Cod"),
    ("Net10", "Ten days", 10, "Net"),
    ("Net30", "Thirty days", 30, "Net"),
    ("M15", "The middle of the next month", 15, "CurrentMth"),
];
const PAYMENT_DAYS: [(&str, &str); 2] = [("Fri", "Every Friday"), ("M1", "The first of the month")];
const PAYMENT_SCHEDULES: [(&str, &str, i64); 2] = [("Halves", "In two parts", 2), ("Quarter", "In four parts", 4)];
const PAYMENT_METHODS: [(&str, &str, &str); 2] = [("Transfer", "By bank", "Bank"), ("Check", "By check", "Check")];
const TAX_GROUPS: [(&str, &str); 2] = [("Full", "Full rate"), ("Low", "Reduced rate")];
const DELIVERY_TERMS: [(&str, &str); 3] =
    [("EXW", "Ex works"), ("DAP", "Delivered at place"), ("CIF", "Cost, insurance, freight")];
const DELIVERY_MODES: [(&str, &str); 3] =
    [("Road", "By truck"), ("Air", "By air"), ("Pickup", "Fetched by the customer")];
const ORDER_ORIGINS: [(&str, &str); 3] = [("Web", "Shop"), ("Phone", "By telephone"), ("Fair", "At a fair")];
const PRICE_GROUPS: [(&str, &str); 2] = [("Key", "Key accounts"), ("Std", "Everybody else")];
const CUSTOMER_GROUPS: [(&str, &str); 3] = [("10", "Wholesale"), ("20", "Retail"), ("30", "Export")];
const VENDOR_GROUPS: [(&str, &str); 2] = [("MAT", "Material"), ("SVC", "Services")];
/// Per company: site, and the warehouses in it.
pub(super) const SITES: [(&str, &str, [&str; 2]); 2] =
    [("1", "Main site", ["11", "12"]), ("2", "Branch", ["21", "22"])];
/// The warehouse of each company for goods that nobody may sell.
const QUARANTINE: &str = "99";

impl World<'_> {
    pub fn sets(&self) -> Vec<FinopsSet> {
        let set = |set, rows| FinopsSet { set, rows };
        let Sizes { customers, vendors, products, projects, on_hand_requests, .. } = *self.sizes;
        let each_company = |rows: &dyn Fn(&Company) -> Vec<Row>| COMPANIES.iter().flat_map(rows).collect::<Vec<_>>();
        let contracts = 0..projects;
        vec![
            set("LegalEntities", each_company(&legal_entity)),
            set("Currencies", currencies()),
            set("Ledgers", each_company(&ledger)),
            set("UnitsOfMeasure", units()),
            set("CDSParties", self.parties()),
            set("PaymentDaysCDS", each_company(&|company| named(company, ["Name", "Description"], &PAYMENT_DAYS))),
            set("PaymentSchedules", each_company(&payment_schedules)),
            set("PaymentTerms", each_company(&payment_terms)),
            set("CustomerPaymentMethods", each_company(&|company| payment_methods(company, true))),
            set("VendorPaymentMethods", each_company(&|company| payment_methods(company, false))),
            set("TaxGroups", each_company(&|company| named(company, ["TaxGroupCode", "Description"], &TAX_GROUPS))),
            set("CustomerGroups", each_company(&customer_groups)),
            set("VendorGroups", each_company(&vendor_groups)),
            set("VendorsV2", (0..vendors).map(|at| self.vendor(at)).collect()),
            set("CustomersV3", (0..customers).map(|at| self.customer(at)).collect()),
            set("AllProducts", (0..products).map(|at| self.product(at)).collect()),
            set("ReleasedProductsV2", self.each_release(&|at, company| self.released(at, company))),
            set("CDSReleasedDistinctProducts", self.each_release(&|at, company| self.distinct(at, company))),
            set("OperationalSites", each_company(&sites)),
            set("Warehouses", each_company(&warehouses)),
            set("DeliveryTerms", each_company(&delivery_terms)),
            set(
                "DeliveryModes",
                each_company(&|company| named(company, ["ModeCode", "ModeDescription"], &DELIVERY_MODES)),
            ),
            set(
                "SalesOrderOrigins",
                each_company(&|company| named(company, ["OriginCode", "OriginDescription"], &ORDER_ORIGINS)),
            ),
            set(
                "PriceCustomerGroups",
                each_company(&|company| named(company, ["GroupCode", "GroupName"], &PRICE_GROUPS)),
            ),
            set("CDSInventoryOnHandRequests", (0..on_hand_requests).map(|at| self.on_hand_request(at).0).collect()),
            set("CDSInventoryOnHandEntries", (0..on_hand_requests).flat_map(|at| self.on_hand_request(at).1).collect()),
            set("ProjectContracts", contracts.clone().map(|at| self.contract(at)).collect()),
            set("ProjectsV2", contracts.clone().map(|at| self.project(at)).collect()),
            set("CDSProjectTasks", contracts.flat_map(|at| self.tasks(at)).collect()),
        ]
    }

    pub fn numbers(&self, set: &str, row: usize) -> Numbers {
        Numbers::of(self.seed, set, row)
    }

    // Customers and vendors.

    /// Every seventh customer is a person.
    pub fn is_person(at: usize) -> bool {
        at % 7 == 6
    }

    fn parties(&self) -> Vec<Row> {
        let customers = (0..self.sizes.customers).map(|at| {
            let build =
                Build::new().text("PartyNumber", customer_party(at)).text("LanguageId", company_of(at).language);
            if Self::is_person(at) {
                let (given, family) = self.person(at);
                return build
                    .text("PartyType", "Person")
                    .text("PersonFirstName", given)
                    .text("PersonLastName", family)
                    .text("NameAlias", given)
                    .row();
            }
            let name = self.organization("customers", at);
            build
                .text("PartyType", "Organization")
                .text("OrganizationName", &name)
                .text("KnownAs", &name)
                .int("OrganizationNumOfEmployees", self.numbers("employees", at).between(2, 4_000))
                .row()
        });
        let vendors = (0..self.sizes.vendors).map(|at| {
            let name = self.organization("vendors", at);
            Build::new()
                .text("PartyNumber", vendor_party(at))
                .text("PartyType", "Organization")
                .text("LanguageId", company_of(at).language)
                .text("OrganizationName", &name)
                .text("KnownAs", &name)
                .text("OrganizationABCCode", self.numbers("abc", at).pick(&["A", "B", "C", "None"]))
                .row()
        });
        customers.chain(vendors).collect()
    }

    pub fn organization(&self, what: &str, at: usize) -> String {
        let mut numbers = self.numbers(what, at);
        format!("{} {} {}", numbers.pick(&FIRST), numbers.pick(&SECOND), at + 1)
    }

    pub fn person(&self, at: usize) -> (&'static str, &'static str) {
        let mut numbers = self.numbers("persons", at);
        (numbers.pick(&GIVEN), numbers.pick(&FAMILY))
    }

    fn vendor(&self, at: usize) -> Row {
        let company = company_of(at);
        let mut numbers = self.numbers("VendorsV2", at);
        Build::new()
            .text("dataAreaId", company.id)
            .text("VendorAccountNumber", vendor_account(at))
            .text("VendorGroupId", numbers.pick(&VENDOR_GROUPS).0)
            .text("VendorPartyType", "Organization")
            .text("VendorPartyNumber", vendor_party(at))
            .text("VendorOrganizationName", self.organization("vendors", at))
            .decimal("CreditLimit", Decimal::from(numbers.between(0, 500) * 1_000))
            .text("CreditRating", numbers.pick(&["A", "B", "C"]))
            .text("CurrencyCode", company.currency)
            .text("DefaultPaymentTermsName", numbers.pick(&TERMS).0)
            .text("DefaultPaymentDayName", numbers.pick(&PAYMENT_DAYS).0)
            .text("DefaultVendorPaymentMethodName", numbers.pick(&PAYMENT_METHODS).0)
            .text("SalesTaxGroupCode", numbers.pick(&TAX_GROUPS).0)
            .yes("IsWomanOwner", numbers.chance(30))
            .text("OurAccountNumber", format!("HI-{}", at + 1))
            .text("PrimaryURL", format!("https://vendor-{}.example", at + 1))
            .yes("IsForeignEntity", numbers.chance(20))
            .yes("IsVendorLocallyOwned", numbers.chance(60))
            .yes("HasOnlyTakenBids", numbers.chance(10))
            .yes("ArePricesIncludingSalesTax", numbers.chance(30))
            .int("OrganizationEmployeeAmount", numbers.between(1, 9_000))
            .text("OnHoldStatus", numbers.pick(&["No", "No", "No", "Payment", "Invoice"]))
            .row()
    }

    fn customer(&self, at: usize) -> Row {
        let company = company_of(at);
        let mut numbers = self.numbers("CustomersV3", at);
        let is_person = Self::is_person(at);
        let build = Build::new()
            .text("dataAreaId", company.id)
            .text("CustomerAccount", customer_account(at))
            .text("PartyNumber", customer_party(at))
            .text("CustomerGroupId", numbers.pick(&CUSTOMER_GROUPS).0)
            .text("SalesCurrencyCode", company.currency)
            .text("IdentificationNumber", format!("ID-{}", numbers.between(100_000, 999_999)))
            .text("PartyCountry", company.country)
            .text("PartyState", company.state)
            .text("PaymentTerms", numbers.pick(&TERMS).0);
        if is_person {
            let (given, family) = self.person(at);
            return build
                .text("PartyType", "Person")
                .text("PersonFirstName", given)
                .text("PersonLastName", family)
                .text("SalesMemo", if numbers.chance(20) { "Calls before each delivery" } else { "" })
                .row();
        }
        // Some pay through the organization before them in their company, and some are vendors as well.
        let payer = at.checked_sub(COMPANIES.len()).filter(|&payer| !Self::is_person(payer) && numbers.chance(20));
        let is_vendor = numbers.chance(5) || at < COMPANIES.len();
        let vendor = (is_vendor && at < self.sizes.vendors).then(|| vendor_account(at));
        build
            .text("PartyType", "Organization")
            .text("OrganizationName", self.organization("customers", at))
            .decimal("CreditLimit", Decimal::new(numbers.between(0, 5_000_000), 2))
            .yes("CreditLimitIsMandatory", numbers.chance(30))
            .text("CreditRating", numbers.pick(&["A", "B", "C", "D"]))
            .text("OnHoldStatus", numbers.pick(&["No", "No", "No", "No", "Invoice", "All"]))
            .yes("IsOneTimeCustomer", numbers.chance(3))
            .int("PaymentTermsBaseDays", numbers.between(0, 10))
            .text("TaxExemptNumber", format!("{}{}", company.country, numbers.between(100_000_000, 999_999_999)))
            .text("PaymentMethod", numbers.pick(&PAYMENT_METHODS).0)
            .text("PaymentSchedule", if numbers.chance(30) { PAYMENT_SCHEDULES[0].0 } else { "" })
            .text("PaymentDay", if numbers.chance(30) { PAYMENT_DAYS[0].0 } else { "" })
            .text("SalesTaxGroup", numbers.pick(&TAX_GROUPS).0)
            .text("InvoiceAccount", payer.map(customer_account).unwrap_or_default())
            .text("VendorAccount", vendor.unwrap_or_default())
            .row()
    }

    // Products.

    /// A product is released in two of the companies.
    fn each_release(&self, row: &dyn Fn(usize, &Company) -> Row) -> Vec<Row> {
        let releases = (0..self.sizes.products).flat_map(|at| [at, at + 1].map(|company| (at, company_of(company))));
        releases.map(|(at, company)| row(at, company)).collect()
    }

    /// A product that the company of this position has released.
    pub fn product_of(&self, company: usize, numbers: &mut Numbers) -> usize {
        // Those with the company's own position, and those with the one before.
        let (count, companies) = (self.sizes.products, COMPANIES.len());
        let own = company % companies;
        let choose = own + companies * numbers.below(count / companies);
        let before = (choose + companies - 1) % companies + companies * (choose / companies);
        if numbers.chance(50) || before >= count || own == 0 { choose } else { before }
    }

    pub fn product_name(&self, at: usize) -> String {
        let mut numbers = self.numbers("products", at);
        format!("{} {}-{}", numbers.pick(&THINGS), numbers.pick(&["LX", "MQ", "R", "ST"]), 100 + at)
    }

    /// Price of sale in the company's currency, at two places.
    pub fn price(&self, at: usize, company: &Company) -> Decimal {
        let cents = self.numbers("prices", at).between(195, 250_000);
        if company.currency == "JPY" { Decimal::from(cents) } else { Decimal::new(cents, 2) }
    }

    fn product(&self, at: usize) -> Row {
        Build::new()
            .text("ProductNumber", product_number(at))
            .text("ProductName", self.product_name(at))
            .text("ProductDescription", format!("{}, for panels and pipes", self.product_name(at)))
            .row()
    }

    fn released(&self, at: usize, company: &Company) -> Row {
        let mut numbers = self.numbers("ReleasedProductsV2", at);
        let price = self.price(at, company);
        let position = COMPANIES.iter().position(|own| own.id == company.id).unwrap_or_default();
        let vendors = self.sizes.vendors / COMPANIES.len();
        let vendor = position + COMPANIES.len() * numbers.below(vendors);
        Build::new()
            .text("dataAreaId", company.id)
            .text("ItemNumber", item_number(at))
            .text("ProductNumber", product_number(at))
            .text("ProductType", "Item")
            .text("InventoryUnitSymbol", "ea")
            .text("SalesUnitSymbol", "ea")
            .text("PurchaseUnitSymbol", numbers.pick(&["ea", "box"]))
            .decimal("SalesPrice", price)
            .decimal("UnitCost", (price * Decimal::new(6, 1)).round_dp(2))
            .decimal("PurchasePrice", (price * Decimal::new(55, 2)).round_dp(2))
            .int("UnitCostQuantity", 1)
            .decimal("NetProductWeight", Decimal::new(numbers.between(10, 90_000), 3))
            .text("SellStartDate", format!("{}-01-01", YEAR - 1))
            .yes("IsPhantom", false)
            .text("CarryingCostABCCode", numbers.pick(&["A", "B", "C", "None"]))
            .text("MarginABCCode", numbers.pick(&["A", "B", "C", "None"]))
            .int("ShelfAdvicePeriodDays", numbers.between(0, 30))
            .int("SalesPricingPrecision", 2)
            .text("PrimaryVendorAccountNumber", vendor_account(vendor))
            .row()
    }

    fn distinct(&self, at: usize, company: &Company) -> Row {
        let price = self.price(at, company);
        Build::new()
            .text("dataAreaId", company.id)
            .text("ProductNumber", product_number(at))
            .text("ItemNumber", item_number(at))
            .text("ProductName", self.product_name(at))
            .text("ProductDescription", format!("{}, for panels and pipes", self.product_name(at)))
            .text("CurrencyCode", company.currency)
            .text("SalesUnitSymbol", "ea")
            .int("SalesUnitDecimalPrecision", 0)
            .decimal("SalesPrice", price)
            .decimal("UnitCost", (price * Decimal::new(6, 1)).round_dp(2))
            .text("ProductType", "Item")
            .yes("IsStockedProduct", true)
            .yes("IsCatchWeightProduct", false)
            .text("FieldServiceProductType", "Inventory")
            .row()
    }

    // Stock.

    /// A request and its answers, one for each warehouse of its site.
    fn on_hand_request(&self, at: usize) -> (Row, Vec<Row>) {
        let company = company_of(at);
        let mut numbers = self.numbers("CDSInventoryOnHandRequests", at);
        let product = self.product_of(at % COMPANIES.len(), &mut numbers);
        let (site, _, warehouses) = numbers.pick(&SITES);
        let id = format!("OH-{:07}", at + 1);
        let wanted = Decimal::from(numbers.between(1, 40));
        let request = Build::new()
            .text("dataAreaId", company.id)
            .text("REQUESTID", &id)
            .text("PRODUCTNUMBER", product_number(product))
            .yes("ISATPCALCULATION", numbers.chance(50))
            .decimal("ORDERQUANTITY", wanted)
            .text("INVENTORYSITEID", site)
            .text("INVENTORYWAREHOUSEID", warehouses[0])
            .text("REFERENCENUMBER", format!("QU-{:06}", numbers.between(1, 999_999)))
            .int("LINECREATIONSEQUENCENUMBER", numbers.between(1, 9))
            .row();
        let entries = warehouses.map(|warehouse| {
            let (on_hand, reserved, on_order) =
                (numbers.between(0, 900), numbers.between(0, 80), numbers.between(0, 300));
            let available = (on_hand - reserved).max(0);
            let quantity = Decimal::from;
            Build::new()
                .text("dataAreaId", company.id)
                .text("REQUESTID", &id)
                .text("InventorySiteId", site)
                .text("InventoryWarehouseId", warehouse)
                .text("ATPDATE", date(numbers.between(0, 364)))
                .decimal("OnHandQuantity", quantity(on_hand))
                .decimal("ReservedOnHandQuantity", quantity(reserved))
                .decimal("AvailableOnHandQuantity", quantity(available))
                .decimal("OnOrderQuantity", quantity(on_order))
                .decimal("OrderedQuantity", quantity(on_order))
                .decimal("TotalAvailableQuantity", quantity(available + on_order))
                .decimal("ATPQUANTITY", quantity(available))
                .decimal("ORDERQUANTITY", wanted)
                .row()
        });
        (request, entries.into())
    }

    // Projects.

    fn contract(&self, at: usize) -> Row {
        let company = company_of(at);
        let mut numbers = self.numbers("ProjectContracts", at);
        let customer = self.customer_of(at, &mut numbers);
        Build::new()
            .text("dataAreaId", company.id)
            .text("ProjectContractId", contract_id(at))
            .text(
                "Name",
                format!("{} for {}", numbers.pick(&["Refit", "New line", "Service"]), customer_account(customer)),
            )
            .text("CustomerAccountNumber", customer_account(customer))
            .text("SalesCurrencyCode", company.currency)
            .text("TermsOfPayment", numbers.pick(&TERMS).0)
            .text("CustomersOrderReference", format!("PO-{}", numbers.between(1_000, 99_999)))
            .row()
    }

    fn project(&self, at: usize) -> Row {
        let mut numbers = self.numbers("ProjectsV2", at);
        // Accounts only: a project names no person.
        let customer = self.organization_of(at, &mut numbers);
        let start = numbers.between(0, 200);
        Build::new()
            .text("dataAreaId", company_of(at).id)
            .text("ProjectId", project_id(at))
            .text("ProjectName", format!("{} {}", numbers.pick(&FIRST), numbers.pick(&THINGS)))
            .text("Description", "Survey, installation and acceptance")
            .text("ProjectContractId", contract_id(at))
            .text("CustomerAccountNumber", customer_account(customer))
            .text("ScheduleStartDate", date(start))
            .text("ScheduleEndDate", date(start + numbers.between(20, 160)))
            .yes("IsProjectTemplate", false)
            .int("TotalPlannedEffortInHours", numbers.between(40, 2_000))
            .row()
    }

    /// Phases `1`, `2`, … with the steps `1.1`, `1.2`, … in them.
    fn tasks(&self, at: usize) -> Vec<Row> {
        let mut numbers = self.numbers("CDSProjectTasks", at);
        let mut rows = Vec::new();
        let mut add = |number: &str, parent: &str, name: &str| {
            rows.push(
                Build::new()
                    .text("dataAreaId", company_of(at).id)
                    .text("ProjectId", project_id(at))
                    .text("WorkBreakdownStructureID", number)
                    .text("ParentTask", parent)
                    .text("Name", name)
                    .row(),
            );
        };
        for phase in 1..=numbers.between(2, 4) {
            let number = phase.to_string();
            add(&number, "", numbers.pick(&["Survey", "Installation", "Acceptance"]));
            for step in 1..=numbers.between(1, 3) {
                add(&format!("{number}.{step}"), &number, numbers.pick(&["Prepare", "Carry out", "Report"]));
            }
        }
        rows
    }

    /// A customer of the company of this position.
    pub fn customer_of(&self, position: usize, numbers: &mut Numbers) -> usize {
        position % COMPANIES.len() + COMPANIES.len() * numbers.below(self.sizes.customers / COMPANIES.len())
    }

    /// The same, and no person: the next customer of the company, or the first of all, is none.
    fn organization_of(&self, position: usize, numbers: &mut Numbers) -> usize {
        let chosen = self.customer_of(position, numbers);
        if Self::is_person(chosen) { position % COMPANIES.len() } else { chosen }
    }
}

fn legal_entity(company: &Company) -> Vec<Row> {
    let build = Build::new().text("LegalEntityId", company.id).text("Name", company.name);
    vec![build.text("LanguageId", company.language).row()]
}

fn ledger(company: &Company) -> Vec<Row> {
    let build = Build::new()
        .text("Name", company.id.to_uppercase())
        .text("LegalEntityId", company.id)
        .text("Description", format!("General ledger of {}", company.name))
        .text("AccountingCurrency", company.currency)
        .text("ReportingCurrency", "USD")
        .yes("IsBudgetControlEnabled", company.id == "usmf");
    vec![build.row()]
}

fn currencies() -> Vec<Row> {
    [
        ("USD", "US Dollar", "$"),
        ("EUR", "Euro", "€"),
        ("GBP", "Pound Sterling", "£"),
        ("JPY", "Yen", "¥"),
        ("CHF", "Swiss Franc", "CHF"),
    ]
    .iter()
    .map(|(code, name, symbol)| Build::new().text("CurrencyCode", code).text("Name", name).text("Symbol", symbol).row())
    .collect()
}

fn units() -> Vec<Row> {
    [
        ("ea", "Each", "Quantity", 0),
        ("box", "Box", "Quantity", 0),
        ("kg", "Kilogram", "Mass", 3),
        ("m", "Metre", "Length", 3),
    ]
    .iter()
    .map(|(symbol, name, class, precision)| {
        Build::new()
            .text("UnitSymbol", symbol)
            .text("UnitDescription", name)
            .text("UnitClass", class)
            .int("DecimalPrecision", *precision)
            .yes("IsBaseUnit", *symbol != "box")
            .yes("IsSystemUnit", *symbol == "ea")
            .text("SystemOfUnits", if *precision == 0 { "None" } else { "Metric" })
            .row()
    })
    .collect()
}

/// A short list of a company: codes and what they mean.
fn named(company: &Company, columns: [&str; 2], entries: &[(&str, &str)]) -> Vec<Row> {
    let row = |(code, meaning): &(&str, &str)| {
        Build::new().text("dataAreaId", company.id).text(columns[0], code).text(columns[1], meaning).row()
    };
    entries.iter().map(row).collect()
}

fn payment_schedules(company: &Company) -> Vec<Row> {
    let row = |(name, description, payments): &(&str, &str, i64)| {
        Build::new()
            .text("dataAreaId", company.id)
            .text("Name", name)
            .text("Description", description)
            .int("NumberOfPayments", *payments)
            .int("PaymentFrequency", 1)
            .row()
    };
    PAYMENT_SCHEDULES.iter().map(row).collect()
}

fn payment_methods(company: &Company, of_customers: bool) -> Vec<Row> {
    let row = |(name, description, account): &(&str, &str, &str)| {
        let build = Build::new()
            .text("dataAreaId", company.id)
            .text("Name", name)
            .text("Description", description)
            .text("AccountType", if *account == "Bank" { "Bank" } else { "Ledger" })
            .int("DiscountGracePeriodDays", 3);
        if of_customers { build.yes("IsSEPA", company.currency == "EUR") } else { build }.row()
    };
    PAYMENT_METHODS.iter().map(row).collect()
}

fn delivery_terms(company: &Company) -> Vec<Row> {
    let row = |(code, description): &(&str, &str)| {
        Build::new()
            .text("dataAreaId", company.id)
            .text("TermsCode", code)
            .text("TermsDescription", description)
            .yes("IsCashOnDelivery", *code == "DAP")
            .row()
    };
    DELIVERY_TERMS.iter().map(row).collect()
}

fn payment_terms(company: &Company) -> Vec<Row> {
    let row = |(name, description, days, method): &(&str, &str, i64, &str)| {
        Build::new()
            .text("dataAreaId", company.id)
            .text("Name", name)
            .text("Description", description)
            .int("NumberOfDays", *days)
            .text("PaymentDayName", if *name == "M15" { PAYMENT_DAYS[1].0 } else { "" })
            .text("PaymentMethodType", method)
            .text("CreditCardPaymentType", "Na")
            .text("CreditCardCreditCheckType", "Normal")
            .yes("IsCashPayment", *days == 0)
            .yes("IsDefaultPaymentTerm", *name == "Net30")
            .row()
    };
    TERMS.iter().map(row).collect()
}

fn customer_groups(company: &Company) -> Vec<Row> {
    let row = |(at, (id, name)): (usize, &(&str, &str))| {
        Build::new()
            .text("dataAreaId", company.id)
            .text("CustomerGroupId", id)
            .text("Description", name)
            .text("PaymentTermId", TERMS[at + 1].0)
            .yes("IsSalesTaxIncludedInPrice", company.currency == "EUR")
            .row()
    };
    CUSTOMER_GROUPS.iter().enumerate().map(row).collect()
}

fn vendor_groups(company: &Company) -> Vec<Row> {
    let row = |(id, name): &(&str, &str)| {
        Build::new()
            .text("dataAreaId", company.id)
            .text("VendorGroupId", id)
            .text("Description", name)
            .text("DefaultPaymentTermName", "Net30")
            .row()
    };
    VENDOR_GROUPS.iter().map(row).collect()
}

fn sites(company: &Company) -> Vec<Row> {
    let row = |(site, name, _): &(&str, &str, [&str; 2])| {
        Build::new()
            .text("dataAreaId", company.id)
            .text("SiteId", site)
            .text("SiteName", format!("{name} {}", company.city))
            .yes("IsPrimaryAddressAssigned", true)
            .text("PrimaryAddressCity", company.city)
            .text("PrimaryAddressCountryRegionId", company.country)
            .text("PrimaryAddressStateId", company.state)
            .row()
    };
    SITES.iter().map(row).collect()
}

fn warehouses(company: &Company) -> Vec<Row> {
    let row = |site: &str, warehouse: &str, name: String| {
        Build::new()
            .text("dataAreaId", company.id)
            .text("WarehouseId", warehouse)
            .text("WarehouseName", name)
            .text("OperationalSiteId", site)
            .text("WarehouseType", if warehouse == QUARANTINE { "Quarantine" } else { "Standard" })
            .text("QuarantineWarehouseId", if warehouse == QUARANTINE { "" } else { QUARANTINE })
            .row()
    };
    let quarantine = row(SITES[0].0, QUARANTINE, format!("Quarantine {}", company.city));
    let stores = SITES.iter().flat_map(|(site, _, warehouses)| {
        warehouses.map(|warehouse| row(site, warehouse, format!("Store {warehouse} {}", company.city)))
    });
    std::iter::once(quarantine).chain(stores).collect()
}

/// The company of a row that stands at this place.
pub(super) const fn company_of(at: usize) -> &'static Company {
    &COMPANIES[at % COMPANIES.len()]
}

pub(super) fn customer_account(at: usize) -> String {
    format!("C-{:07}", at + 1)
}

fn customer_party(at: usize) -> String {
    format!("PC-{:07}", at + 1)
}

fn vendor_account(at: usize) -> String {
    format!("V-{:07}", at + 1)
}

fn vendor_party(at: usize) -> String {
    format!("PV-{:07}", at + 1)
}

pub(super) fn product_number(at: usize) -> String {
    format!("P-{:07}", at + 1)
}

fn item_number(at: usize) -> String {
    format!("I-{:07}", at + 1)
}

fn contract_id(at: usize) -> String {
    format!("PCN-{:07}", at + 1)
}

fn project_id(at: usize) -> String {
    format!("PRJ-{:07}", at + 1)
}

pub(super) fn street(numbers: &mut Numbers) -> String {
    format!("{} {}", numbers.between(1, 240), numbers.pick(&STREETS))
}

/// How and on what terms an order is delivered: mode, terms.
pub(super) fn delivery(numbers: &mut Numbers) -> (&'static str, &'static str) {
    (numbers.pick(&DELIVERY_MODES).0, numbers.pick(&DELIVERY_TERMS).0)
}

/// Where an order came from, and whose prices it has.
pub(super) fn origin(numbers: &mut Numbers) -> (&'static str, &'static str) {
    (numbers.pick(&ORDER_ORIGINS).0, numbers.pick(&PRICE_GROUPS).0)
}

pub(super) fn payment_term(numbers: &mut Numbers) -> &'static str {
    numbers.pick(&TERMS).0
}

/// The day this many days after the first of the year, as F&O takes it; below 730, so that no year is a leap year.
pub(super) fn date(days: i64) -> String {
    const MONTHS: [i64; 12] = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let (year, mut rest) = (YEAR + days / 365, days % 365);
    let mut month = 0;
    while rest >= MONTHS[month] {
        rest -= MONTHS[month];
        month += 1;
    }
    format!("{year}-{:02}-{:02}", month + 1, rest + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_become_dates() {
        for (days, wanted) in [
            (0, "2026-01-01"),
            (31, "2026-02-01"),
            (58, "2026-02-28"),
            (59, "2026-03-01"),
            (364, "2026-12-31"),
            (365, "2027-01-01"),
        ] {
            assert_eq!(date(days), wanted);
        }
    }
}
