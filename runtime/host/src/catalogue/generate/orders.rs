//! Sales orders: a header and its lines, which belong together from the first moment.

use rust_decimal::Decimal;

use super::rows::{
    SITES, World, company_of, customer_account, date, delivery, origin, payment_term, product_number, street,
};
use super::{COMPANIES, Transaction};
use crate::demo::Build;

pub(super) const HEADERS: &str = "CDSSalesOrderHeaders";
pub(super) const LINES: &str = "CDSSalesOrderLines";

/// Per cent.
const TAX: i64 = 19;

pub(super) fn sales_order(world: &World<'_>, at: usize) -> Transaction {
    let mut numbers = world.numbers(HEADERS, at);
    let company = company_of(at);
    let customer = world.customer_of(at, &mut numbers);
    let order = format!("SO{}-{:07}", world.seed % 1_000_000_000, at + 1);
    let (site, _, warehouses) = numbers.pick(&SITES);
    let warehouse = numbers.pick(&warehouses);
    let ordered = numbers.between(0, 300);
    let wanted = ordered + numbers.between(2, 40);
    let places = if company.currency == "JPY" { 0 } else { 2 };
    let is_done = numbers.chance(40);
    let (mode, terms) = delivery(&mut numbers);
    let (origin, price_group) = origin(&mut numbers);

    // Most orders are short; one in eight is long.
    let lines_max = if numbers.chance(12) { 12 } else { 4 };
    let mut lines = Vec::new();
    let mut net = Decimal::ZERO;
    for line in 1..=numbers.between(1, lines_max) {
        let product = world.product_of(at % COMPANIES.len(), &mut numbers);
        let price = world.price(product, company);
        let quantity = Decimal::from(numbers.between(1, 60));
        let percent = if numbers.chance(25) { Decimal::from(numbers.pick(&[5, 10, 15])) } else { Decimal::ZERO };
        let full = price * quantity;
        let discount = (full * percent / Decimal::ONE_HUNDRED).round_dp(places);
        let amount = full - discount;
        net += amount;
        let row = Build::new()
            .text("dataAreaId", company.id)
            .text("SalesOrderNumber", &order)
            .int("LineCreationSequenceNumber", line)
            .text("ProductNumber", product_number(product))
            .text("ProductName", world.product_name(product))
            .text("CurrencyCode", company.currency)
            .text("SalesUnitSymbol", "ea")
            .decimal("OrderedSalesQuantity", quantity)
            .decimal("SalesPrice", price)
            .int("SalesPriceQuantity", 1)
            .decimal("LineDiscountPercentage", percent)
            .decimal("TotalDiscountAmount", discount)
            .decimal("LineAmount", amount)
            .decimal("TotalTaxAmount", (amount * Decimal::new(TAX, 2)).round_dp(places))
            .text("SalesOrderLineStatus", if is_done { "Delivered" } else { "Backorder" })
            .text("SalesOrderPromisingMethod", "None")
            .text("ShippingSiteId", site)
            .text("ShippingWarehouseId", warehouse)
            .text("DeliveryModeCode", mode)
            .text("DeliveryTermsId", terms)
            .text("RequestedReceiptDate", date(wanted))
            .text("RequestedShippingDate", format!("{}T12:00:00Z", date(wanted - 1)))
            .text("DeliveryAddressCity", company.city)
            .text("DeliveryAddressCountryRegionISOCode", company.country)
            .row();
        lines.push((LINES, row));
    }
    let tax = (net * Decimal::new(TAX, 2)).round_dp(places);
    let address = street(&mut numbers);
    let (number, street) = address.split_once(' ').unwrap_or(("", &address));
    let name = if World::is_person(customer) {
        let (given, family) = world.person(customer);
        format!("{given} {family}")
    } else {
        world.organization("customers", customer)
    };
    let status = if is_done {
        numbers.pick(&["Delivered", "Invoiced"])
    } else {
        numbers.pick(&["Active", "Confirmed", "Picked"])
    };
    let zip = numbers.between(10_000, 99_999).to_string();
    let header = Build::new()
        .text("dataAreaId", company.id)
        .text("SalesOrderNumber", &order)
        .text("SalesOrderName", &name)
        .text("OrderingCustomerAccountNumber", customer_account(customer))
        .text("InvoiceCustomerAccountNumber", customer_account(customer))
        .text("CurrencyCode", company.currency)
        .text("LanguageId", company.language)
        .text("PaymentTermsName", payment_term(&mut numbers))
        .text("Email", format!("orders@customer-{}.example", customer + 1))
        .text("CustomersOrderReference", format!("PO-{}", numbers.between(1_000, 999_999)))
        .text("DeliveryModeCode", mode)
        .text("DeliveryTermsCode", terms)
        .text("SalesOrderOriginCode", origin)
        .text("PriceCustomerGroupCode", price_group)
        .text("DefaultShippingSiteId", site)
        .text("DefaultShippingWarehouseId", warehouse)
        .text("DeliveryAddressName", &name)
        .text("DeliveryAddressStreet", street)
        .text("DeliveryAddressStreetNumber", number)
        .text("DeliveryAddressCity", company.city)
        .text("DeliveryAddressZipCode", &zip)
        .text("DeliveryAddressStateId", company.state)
        .text("DeliveryAddressCountryRegionISOCode", company.country)
        .text("FormattedDelveryAddress", format!("{address}\n{zip} {}", company.city))
        .text("InvoiceAddressStreet", street)
        .text("InvoiceAddressStreetNumber", number)
        .text("InvoiceAddressCity", company.city)
        .text("InvoiceAddressZipCode", &zip)
        .text("InvoiceAddressStateId", company.state)
        .text("InvoiceAddressCountryRegionISOCode", company.country)
        .text("RequestedReceiptDate", date(wanted))
        .text("RequestedShippingDate", format!("{}T12:00:00Z", date(wanted - 1)))
        .text("SalesOrderProcessingStatus", status)
        .text("SalesOrderPromisingMethod", "None")
        .yes("ArePricesIncludingSalesTax", false)
        .yes("IsOneTimeCustomer", false)
        .decimal("OrderTotalTaxAmount", tax)
        .decimal("OrderTotalAmount", net + tax)
        .row();
    let mut transaction = Vec::with_capacity(lines.len() + 1);
    transaction.push((HEADERS, header));
    transaction.append(&mut lines);
    transaction
}
