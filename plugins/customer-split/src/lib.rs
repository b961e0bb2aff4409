//! Maps one F&O customer to an account and its primary contact, and back.
//!
//! F&O keeps the contact's e-mail, phone and name in the customer itself; Dataverse wants a contact row that the account
//! points to. A table map alone cannot do that: it pairs one row with one row, and the contact has no id before it is
//! written. The contact's key is the customer's account number with a suffix, so both ways find the same row again.

use dualwright_sdk::prelude::*;

/// What becomes of the account's link when a customer has no contact data any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Choice)]
pub enum WithoutContact {
    /// The account keeps pointing to the contact, which stays as it is.
    Keep,
    /// The account points to no contact; the contact stays.
    Unlink,
    /// The account points to no contact, and the contact is deleted.
    Delete,
}

#[derive(Debug, Clone, Settings)]
pub struct CustomerSplit {
    /// What is added to the customer's account number to make the number of its contact. Together at most 20 characters.
    #[setting(default = "-C")]
    pub contact_suffix: String,
    /// Where the customer has no person's name, take it from the e-mail address: jane.doe@example.com becomes Jane Doe.
    #[setting(default = true)]
    pub name_from_email: bool,
    /// The contact's last name where nothing else gives one.
    #[setting(default = "Contact")]
    pub last_name: String,
    /// What happens when a customer has no contact data any more: keep, unlink or delete the contact.
    #[setting(default = "unlink")]
    pub without_contact: WithoutContact,

    /// Becomes the number of the account, and part of the contact's.
    #[column(name = "CustomerAccount", write, kinds(Text))]
    pub customer_account: Column,
    /// The account's name.
    #[column(name = "OrganizationName", write, kinds(Text))]
    pub organization_name: Column,
    /// The contact's e-mail address.
    #[column(name = "PrimaryContactEmail", write, kinds(Text))]
    pub contact_email: Column,
    /// The contact's phone number.
    #[column(name = "PrimaryContactPhone", write, kinds(Text))]
    pub contact_phone: Column,
    /// The contact's first name.
    #[column(name = "PersonFirstName", write, kinds(Text))]
    pub person_first_name: Option<Column>,
    /// The contact's last name.
    #[column(name = "PersonLastName", write, kinds(Text))]
    pub person_last_name: Option<Column>,
    /// The account's currency.
    #[column(name = "SalesCurrencyCode", write, kinds(Text))]
    pub currency: Option<Column>,
    /// The account's credit limit.
    #[column(name = "CreditLimit", write, kinds(Decimal, Money))]
    pub credit_limit: Option<Column>,
    /// The account's customer group.
    #[column(name = "CustomerGroupId", write, kinds(Text))]
    pub group: Option<Column>,

    #[table("accounts")]
    pub accounts: Table,
    /// Holds the customer's account number.
    #[column(table = "accounts", name = "accountnumber", write, kinds(Text))]
    pub account_number: Column,
    /// Holds the organization's name.
    #[column(table = "accounts", name = "name", write, kinds(Text))]
    pub account_name: Column,
    /// Points to the contact.
    #[column(table = "accounts", name = "primarycontactid", write, kinds(Lookup))]
    pub account_contact: Column,
    /// Says that the account is a customer.
    #[column(table = "accounts", name = "customertypecode", write, kinds(Choice))]
    pub account_type: Option<Column>,
    /// Holds the credit limit.
    #[column(table = "accounts", name = "creditlimit", write, kinds(Money, Decimal))]
    pub account_credit_limit: Option<Column>,
    /// Finds the currency.
    #[column(table = "accounts", name = "transactioncurrencyid.isocurrencycode", write, kinds(Text))]
    pub account_currency: Option<Column>,
    /// Finds the customer group.
    #[column(table = "accounts", name = "msdyn_customergroupid.msdyn_groupid", write, kinds(Text))]
    pub account_group: Option<Column>,
    /// Finds the company.
    #[column(table = "accounts", name = "msdyn_company.cdm_companycode", write, kinds(Text))]
    pub account_company: Option<Column>,

    #[table("contacts")]
    pub contacts: Table,
    /// Holds the customer's account number with the suffix.
    #[column(table = "contacts", name = "msdyn_contactpersonid", write, kinds(Text))]
    pub contact_number: Column,
    /// Holds the e-mail address.
    #[column(table = "contacts", name = "emailaddress1", write, kinds(Text))]
    pub contact_email_address: Column,
    /// Holds the phone number.
    #[column(table = "contacts", name = "telephone1", write, kinds(Text))]
    pub contact_telephone: Column,
    /// Holds the first name.
    #[column(table = "contacts", name = "firstname", write, kinds(Text))]
    pub contact_first_name: Column,
    /// Holds the last name.
    #[column(table = "contacts", name = "lastname", write, kinds(Text))]
    pub contact_last_name: Column,
    /// Finds the company.
    #[column(table = "contacts", name = "msdyn_company.cdm_companycode", write, kinds(Text))]
    pub contact_company: Option<Column>,
}

const NO_ACCOUNT: IssueText =
    IssueText::error("customer-without-account", "the customer has no account number: enter one, then retry");
const NUMBER_TOO_LONG: IssueText = IssueText::error(
    "contact-number-too-long",
    "the account number with the suffix {0} is longer than {1} characters: shorten the account number, or the suffix",
);

/// The option Customer of an account's customertypecode.
const TYPE_CUSTOMER: &str = "3";
/// What `msdyn_contactpersonid` holds, in characters.
const CONTACT_NUMBER_MAX: usize = 20;

/// One customer to an account, and to a contact when there is contact data.
pub fn split(settings: &CustomerSplit, row: Row<'_>, out: &mut Split<'_>) -> Option<Issue> {
    let number = row.text(settings.customer_account).unwrap_or_default().trim();
    if number.is_empty() {
        return Some(NO_ACCOUNT.on(settings.customer_account));
    }
    let contact_number = format!("{number}{}", settings.contact_suffix);
    if CONTACT_NUMBER_MAX < contact_number.chars().count() {
        return Some(
            NUMBER_TOO_LONG.on(settings.customer_account).arg(&settings.contact_suffix).arg(CONTACT_NUMBER_MAX),
        );
    }
    if row.operation() == Operation::Delete {
        let account = out.delete(settings.accounts);
        set_key(out, account, settings.account_number, number, settings.account_company, row);
        let contact = out.delete(settings.contacts);
        set_key(out, contact, settings.contact_number, &contact_number, settings.contact_company, row);
        return None;
    }
    // The contact comes first, because the account points to it.
    let contact = has_contact(settings, row).then(|| {
        let contact = out.upsert(settings.contacts);
        set_key(out, contact, settings.contact_number, &contact_number, settings.contact_company, row);
        out.copy(contact, settings.contact_email_address, row, settings.contact_email);
        out.copy(contact, settings.contact_telephone, row, settings.contact_phone);
        let name = contact_name(settings, row);
        out.set(contact, settings.contact_first_name, name.first.as_deref());
        out.set(contact, settings.contact_last_name, name.last.as_str());
        contact
    });
    let account = out.upsert(settings.accounts);
    set_key(out, account, settings.account_number, number, settings.account_company, row);
    out.copy(account, settings.account_name, row, settings.organization_name);
    if let Some(column) = settings.account_type {
        out.set(account, column, TYPE_CUSTOMER);
    }
    for (to, from) in [
        (settings.account_credit_limit, settings.credit_limit),
        (settings.account_currency, settings.currency),
        (settings.account_group, settings.group),
    ] {
        if let (Some(to), Some(from)) = (to, from) {
            out.copy(account, to, row, from);
        }
    }
    match contact {
        Some(contact) => out.refer(account, settings.account_contact, contact),
        None => leave(settings, row, out, account, &contact_number),
    }
    None
}

/// The customer has no contact data: what becomes of the contact that may be there.
fn leave(
    settings: &CustomerSplit,
    row: Row<'_>,
    out: &mut Split<'_>,
    account: dualwright_sdk::table_map::TargetRow,
    contact_number: &str,
) {
    // Nothing was said about contact data, or there never was a contact.
    let said = !row.cell(settings.contact_email).is_absent() || !row.cell(settings.contact_phone).is_absent();
    if !said || row.operation() == Operation::Create || settings.without_contact == WithoutContact::Keep {
        return;
    }
    out.set(account, settings.account_contact, Cell::Null);
    if settings.without_contact == WithoutContact::Delete {
        let contact = out.delete(settings.contacts);
        set_key(out, contact, settings.contact_number, contact_number, settings.contact_company, row);
    }
}

fn set_key(
    out: &mut Split<'_>,
    target: dualwright_sdk::table_map::TargetRow,
    column: Column,
    number: &str,
    company_column: Option<Column>,
    row: Row<'_>,
) {
    out.set(target, column, number);
    if let Some(column) = company_column
        && !row.company().is_empty()
    {
        out.set(target, column, row.company());
    }
}

fn filled<'a>(row: Row<'a>, column: Option<Column>) -> Option<&'a str> {
    row.text(column?).map(str::trim).filter(|text| !text.is_empty())
}

fn has_contact(settings: &CustomerSplit, row: Row<'_>) -> bool {
    [Some(settings.contact_email), Some(settings.contact_phone), settings.person_first_name, settings.person_last_name]
        .iter()
        .any(|&column| filled(row, column).is_some())
}

#[derive(Debug, PartialEq, Eq)]
struct Name {
    first: Option<String>,
    last: String,
}

fn contact_name(settings: &CustomerSplit, row: Row<'_>) -> Name {
    let owned = |column| filled(row, column).map(str::to_owned);
    let (first, last) = (owned(settings.person_first_name), owned(settings.person_last_name));
    if first.is_some() || last.is_some() {
        return Name { first, last: last.unwrap_or_else(|| settings.last_name.clone()) };
    }
    filled(row, Some(settings.contact_email))
        .filter(|_| settings.name_from_email)
        .and_then(name_in)
        .unwrap_or_else(|| Name { first: None, last: settings.last_name.clone() })
}

/// `jane.doe@example.com` is Jane Doe, `jon24@example.com` is Jon. None when there is no letter before the @.
fn name_in(address: &str) -> Option<Name> {
    let local = address.split(['@', '+']).next()?;
    let mut words = local
        .split(['.', '_', '-'])
        .map(|word| word.trim_matches(|character: char| !character.is_alphabetic()))
        .filter(|word| !word.is_empty())
        .map(|word| {
            let mut letters = word.chars();
            let first = letters.next().into_iter().flat_map(char::to_uppercase);
            first.chain(letters.flat_map(char::to_lowercase)).collect::<String>()
        });
    let first = words.next()?;
    let rest: Vec<String> = words.collect();
    if rest.is_empty() {
        Some(Name { first: None, last: first })
    } else {
        Some(Name { first: Some(first), last: rest.join(" ") })
    }
}

/// An account and its contact to one customer.
pub fn join(settings: &CustomerSplit, group: Group<'_>, out: &mut Joined<'_>) {
    let account = group.row(settings.accounts);
    let contact = group.rows(settings.contacts).find(|contact| {
        contact.text(settings.contact_number).is_some_and(|number| number.ends_with(&settings.contact_suffix))
    });
    let number = match (account, contact) {
        (Some(account), _) => account.text(settings.account_number),
        (None, Some(contact)) => contact
            .text(settings.contact_number)
            .and_then(|number| number.strip_suffix(settings.contact_suffix.as_str())),
        (None, None) => None,
    };
    // Somebody else's contact, or an account that is no customer yet.
    let Some(number) = number.filter(|number| !number.is_empty()) else { return };
    if account.is_some_and(|account| account.operation() == Operation::Delete) {
        out.set(settings.customer_account, number);
        out.delete();
        return;
    }
    // Nothing changes for a contact alone that goes with a customer that is not there.
    if account.is_none() && group.current().is_none() {
        return;
    }
    out.set(settings.customer_account, number);
    if let Some(account) = account {
        out.set(settings.organization_name, account.cell(settings.account_name));
        for (to, from) in [
            (settings.credit_limit, settings.account_credit_limit),
            (settings.currency, settings.account_currency),
            (settings.group, settings.account_group),
        ] {
            if let (Some(to), Some(from)) = (to, from) {
                out.set(to, account.cell(from));
            }
        }
    }
    let Some(contact) = contact else { return };
    let is_deleted = contact.operation() == Operation::Delete;
    let cell = |column| if is_deleted { Cell::Null } else { contact.cell(column) };
    out.set(settings.contact_email, cell(settings.contact_email_address));
    out.set(settings.contact_phone, cell(settings.contact_telephone));
    // A name that was only made up on the way there does not come back as a person's.
    if !is_deleted && has_own_name(settings, contact) {
        for (to, from) in [
            (settings.person_first_name, settings.contact_first_name),
            (settings.person_last_name, settings.contact_last_name),
        ] {
            if let Some(to) = to {
                out.set(to, contact.cell(from));
            }
        }
    }
}

/// The contact's name is not the one that `contact_name` would give it without a person's name.
fn has_own_name(settings: &CustomerSplit, contact: Row<'_>) -> bool {
    let made_up = filled(contact, Some(settings.contact_email_address))
        .filter(|_| settings.name_from_email)
        .and_then(name_in)
        .unwrap_or_else(|| Name { first: None, last: settings.last_name.clone() });
    let first = filled(contact, Some(settings.contact_first_name));
    let last = filled(contact, Some(settings.contact_last_name));
    first != made_up.first.as_deref() || last != Some(made_up.last.as_str())
}

dualwright_sdk::plugin! {
    name: "customer-split",
    text: "Maps one F&O customer to an account and its primary contact, both written at once, and an account with its \
           contact back to the customer. The contact's number is the customer's with a suffix.",
    state: CustomerSplit,
    issues: [NO_ACCOUNT, NUMBER_TOO_LONG],
    table_map: split,
    table_map_back: join,
}

#[cfg(test)]
mod tests {
    use dualwright_sdk::settings::SettingValue;
    use dualwright_sdk::testing::{Bench, column};

    use super::*;

    fn bench() -> Bench {
        let text = |name| column(name, Kind::Text).writable();
        Bench::new([
            text("CustomerAccount"),
            text("OrganizationName"),
            text("PrimaryContactEmail"),
            text("PrimaryContactPhone"),
            text("PersonFirstName"),
            text("PersonLastName"),
            column("CreditLimit", Kind::Decimal).writable(),
        ])
        .target(
            "accounts",
            [
                text("accountnumber"),
                text("name"),
                column("primarycontactid", Kind::Lookup).writable(),
                column("creditlimit", Kind::Money).writable(),
                text("msdyn_company.cdm_companycode"),
            ],
        )
        .target(
            "contacts",
            [
                text("msdyn_contactpersonid"),
                text("emailaddress1"),
                text("telephone1"),
                text("firstname"),
                text("lastname"),
            ],
        )
    }

    fn customer(number: &'static str, email: Cell<'static>, phone: Cell<'static>) -> Vec<Cell<'static>> {
        vec![number.into(), "Bike Shop".into(), email, phone]
    }

    #[test]
    fn there() {
        let jane = "jane.doe@example.com".into();
        let without = |what: &str| bench().setting("without-contact", SettingValue::Text(what.to_owned()));
        let suffix = || bench().setting("contact-suffix", SettingValue::Text("-contact-person".to_owned()));
        let account = "accounts 0<-0: accountnumber=C1 name=Bike Shop";
        let usmf = "msdyn_company.cdm_companycode=usmf";
        let linked = format!("{account} {usmf} primarycontactid->contacts 0");
        let unlinked = format!("{account} primarycontactid=null {usmf}");
        let contact = |cells: &str| format!("contacts 0<-0: msdyn_contactpersonid=C1-C {cells}");
        let table: &[(&str, Bench, Vec<Cell<'_>>, Vec<String>)] = &[
            (
                "a contact",
                bench(),
                customer("C1", jane, "555-0100".into()),
                vec![
                    linked.clone(),
                    contact("emailaddress1=jane.doe@example.com telephone1=555-0100 firstname=Jane lastname=Doe"),
                ],
            ),
            (
                "one word before the @",
                bench(),
                customer("C1", "jon24@example.com".into(), Cell::Null),
                vec![
                    linked.clone(),
                    contact("emailaddress1=jon24@example.com telephone1=null firstname=null lastname=Jon"),
                ],
            ),
            (
                "no name in the address",
                bench(),
                customer("C1", "42@example.com".into(), Cell::Absent),
                vec![linked.clone(), contact("emailaddress1=42@example.com firstname=null lastname=Contact")],
            ),
            (
                "names not wanted from addresses",
                bench().setting("name-from-email", SettingValue::Boolean(false)),
                customer("C1", jane, Cell::Absent),
                vec![linked.clone(), contact("emailaddress1=jane.doe@example.com firstname=null lastname=Contact")],
            ),
            (
                "a person's name",
                bench(),
                [customer("C1", jane, Cell::Absent), vec!["Ann".into(), "Lee".into()]].concat(),
                vec![linked.clone(), contact("emailaddress1=jane.doe@example.com firstname=Ann lastname=Lee")],
            ),
            ("no contact data", bench(), customer("C1", Cell::Null, "".into()), vec![unlinked.clone()]),
            (
                "nothing said of it",
                bench(),
                customer("C1", Cell::Absent, Cell::Absent),
                vec![format!("{account} {usmf}")],
            ),
            (
                "the contact is kept",
                without("keep"),
                customer("C1", Cell::Null, Cell::Null),
                vec![format!("{account} {usmf}")],
            ),
            (
                "the contact is deleted",
                without("delete"),
                customer("C1", Cell::Null, Cell::Null),
                vec![unlinked, "contacts 0<-0 delete: msdyn_contactpersonid=C1-C".to_owned()],
            ),
            (
                "no account number",
                bench(),
                customer(" ", jane, Cell::Null),
                vec!["source 0 CustomerAccount!customer-without-account()".to_owned()],
            ),
            (
                "a number that is too long",
                suffix(),
                customer("CUSTOMER", jane, Cell::Null),
                vec!["source 0 CustomerAccount!contact-number-too-long(-contact-person,20)".to_owned()],
            ),
        ];
        for (name, bench, row, wanted) in table {
            assert_eq!(bench.table_map::<Plugin>(std::slice::from_ref(row)).expect("it runs"), *wanted, "{name}");
        }
    }

    #[test]
    fn rows_are_counted_within_their_table() {
        let rows = [
            customer("C1", Cell::Null, Cell::Null),
            customer("C2", "a@b.com".into(), Cell::Null),
            customer("", Cell::Null, Cell::Null),
            customer("C4", "c@d.com".into(), Cell::Null),
        ];
        let lines = bench().table_map::<Plugin>(&rows).expect("it runs");
        let starts: Vec<&str> =
            lines.iter().map(|line| line.split_once(':').map_or(line.as_str(), |(start, _)| start)).collect();
        assert_eq!(
            starts,
            [
                "accounts 0<-0",
                "accounts 1<-1",
                "accounts 2<-3",
                "contacts 0<-1",
                "contacts 1<-3",
                "source 2 CustomerAccount!customer-without-account()"
            ]
        );
        assert!(lines[2].ends_with("primarycontactid->contacts 1"), "{}", lines[2]);
    }

    #[test]
    fn back() {
        let account = || (0, vec!["C1".into(), "Bike Shop".into()]);
        let contact = |cells: &[Cell<'static>]| (0, cells.to_vec());
        let there = vec![vec!["C1".into()]];
        let made_up = contact(&["C1-C".into(), "jane.doe@example.com".into(), "1".into(), "Jane".into(), "Doe".into()]);
        let own = contact(&["C1-C".into(), "jane.doe@example.com".into(), "1".into(), "Ann".into(), "Lee".into()]);
        let other = contact(&["X9".into(), "x@y.com".into()]);
        type Parts<'a> = Vec<Vec<(u32, Vec<Cell<'a>>)>>;
        let table: &[(&str, Parts<'_>, Vec<Vec<Cell<'_>>>, &str)] = &[
            (
                "both",
                vec![vec![account()], vec![own.clone()]],
                vec![],
                "upsert CustomerAccount=C1 OrganizationName=Bike Shop PrimaryContactEmail=jane.doe@example.com \
                 PrimaryContactPhone=1 PersonFirstName=Ann PersonLastName=Lee",
            ),
            (
                "a name that was made up stays there",
                vec![vec![account()], vec![made_up]],
                vec![],
                "upsert CustomerAccount=C1 OrganizationName=Bike Shop PrimaryContactEmail=jane.doe@example.com \
                 PrimaryContactPhone=1",
            ),
            (
                "an account alone",
                vec![vec![account()], vec![]],
                vec![],
                "upsert CustomerAccount=C1 OrganizationName=Bike Shop",
            ),
            (
                "a contact alone",
                vec![vec![], vec![own.clone()]],
                there.clone(),
                "upsert CustomerAccount=C1 PrimaryContactEmail=jane.doe@example.com PrimaryContactPhone=1 \
                 PersonFirstName=Ann PersonLastName=Lee",
            ),
            ("a contact of no customer", vec![vec![], vec![own]], vec![], "nothing"),
            ("somebody else's contact", vec![vec![], vec![other]], there, "nothing"),
        ];
        for (name, parts, current, wanted) in table {
            let lines = bench().table_map_back::<Plugin>(parts, current).expect("it runs");
            assert_eq!(lines, [*wanted], "{name}");
        }
    }
}
