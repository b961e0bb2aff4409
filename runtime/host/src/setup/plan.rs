//! What stands between two environments and a link, and the making of it.
//!
//! Owns the order in which both systems are asked: who we are, which tables there are, which legal entities, and what we
//! may do with the tables. `look` changes nothing; `make` does what `look` found to be done.

use std::collections::BTreeSet;
use std::time::Duration;

use dualwright_core::{Code, Fault, SystemKind};

use super::companies::Known;
use super::needs::{Needs, Use};
use super::record::LinkRecord;
use super::{Finding, companies, named, needs};
use crate::config::{Config, Limits};
use crate::connect::metadata::Catalogue;
use crate::connect::{Depth, Hello, Identity, OwnTable, Privileges, System, TableStanding};

/// One request. Metadata of a large environment takes its time.
pub const TIMEOUT: Duration = Duration::from_secs(60);

/// Something that `make` does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToDo {
    Install(OwnTable),
    /// Logical name of a Dataverse table.
    TrackChanges(String),
}

/// Both systems as they were found.
pub struct Look {
    pub findings: Vec<Finding>,
    pub to_do: Vec<ToDo>,
    pub identity: Option<Identity>,
    pub finops_companies: Known,
    pub dataverse_companies: Known,
}

/// Both systems of a configuration.
pub struct Systems {
    pub finops: System,
    pub dataverse: System,
}

impl Systems {
    pub fn of(config: &Config) -> Result<Self, Fault> {
        Ok(Self {
            finops: System::new(SystemKind::Finops, config.link.finops.clone())?,
            dataverse: System::new(SystemKind::Dataverse, config.link.dataverse.clone())?,
        })
    }
}

/// Asks both systems everything that a link needs.
pub async fn look(config: &Config, systems: &Systems, record: Option<&LinkRecord>) -> Look {
    let mut findings = Vec::new();
    let (left, right) = tokio::join!(enter(&systems.finops, &config.limits), enter(&systems.dataverse, &config.limits));
    let mut hellos = [None, None];
    let mut catalogues = [None, None];
    for (place, entered) in [left, right].into_iter().enumerate() {
        findings.extend(entered.findings);
        hellos[place] = entered.hello;
        catalogues[place] = entered.catalogue;
    }
    let identity = hellos[1].and_then(|hello| hello.identity);
    let mut look = Look { findings, to_do: Vec::new(), identity, finops_companies: None, dataverse_companies: None };
    if let (Some(record), Some(identity)) = (record, &identity) {
        look.findings.extend(judge_record(record, identity));
    }
    let [Some(finops), Some(dataverse)] = catalogues else { return look };
    let (needs, found) = needs::read(config, &finops, &dataverse);
    look.findings.extend(found);
    look.own_tables(&systems.finops, &finops, &needs);
    look.own_tables(&systems.dataverse, &dataverse, &needs);
    look.companies(config, systems, [&finops, &dataverse], &needs).await;
    look.findings.extend(readable(&systems.finops, needs.finops.keys()).await);
    look.dataverse_rights(&systems.dataverse, &dataverse, &needs).await;
    look.other_products(&systems.dataverse, &dataverse).await;
    look
}

struct Entered {
    findings: Vec<Finding>,
    hello: Option<Hello>,
    catalogue: Option<Catalogue>,
}

/// Says hello to a system and reads the names of its tables.
async fn enter(system: &System, limits: &Limits) -> Entered {
    let kind = system.kind();
    let hello = match system.hello(TIMEOUT).await {
        Ok(hello) => hello,
        Err(fault) => return Entered { findings: vec![not_let_in(kind, &fault)], hello: None, catalogue: None },
    };
    let mut findings = vec![let_in(kind, &hello)];
    findings.push(judge_clock(kind, hello.clock_ahead_seconds, limits.clock_skew_max));
    let catalogue = match system.catalogue(TIMEOUT).await {
        Ok(catalogue) => Some(catalogue),
        Err(fault) => {
            findings.push(Finding::of_fault(kind, "tables", &fault));
            None
        }
    };
    Entered { findings, hello: Some(hello), catalogue }
}

pub(super) fn let_in(kind: SystemKind, hello: &Hello) -> Finding {
    let what = match &hello.identity {
        Some(identity) => format!("it answers and knows us as user {}", identity.user_id),
        None => "it answers and takes our credentials".to_owned(),
    };
    Finding::fine(kind, "authentication", what)
}

/// Why a system does not let us in: by the token endpoint, by the system itself, because nobody knows us there, or
/// because it does not answer.
pub(super) fn not_let_in(kind: SystemKind, fault: &Fault) -> Finding {
    // "The user is not a member of the organization."
    const NO_MEMBER: &str = "0x80072560";
    let foreign = fault.foreign_code.as_deref();
    let place = format!("link.{kind}");
    let (check, remedy) = match (fault.code, foreign) {
        (Code::Unauthorized, Some(NO_MEMBER)) => {
            ("role", "create the application user in the environment, and give it its security roles".to_owned())
        }
        (Code::Unauthorized, Some("AADSTS7000215" | "AADSTS7000222")) => (
            "authentication",
            format!("{place}.auth.client_secret: give the value of a secret that is valid, not its id"),
        ),
        (Code::Unauthorized, Some("AADSTS700016")) => {
            ("authentication", format!("correct {place}.auth.client_id, or the tenant in {place}.auth.token_url"))
        }
        (Code::Unauthorized, Some("AADSTS500011")) => {
            ("authentication", format!("{place}.auth.scope: name this environment, with /.default behind its URL"))
        }
        (Code::Unauthorized, Some(code)) if code.starts_with("AADSTS") => {
            ("authentication", format!("correct {place}.auth; the code is explained by Microsoft Entra ID"))
        }
        (Code::Unauthorized, Some("401")) => {
            ("authentication", format!("give {place}.auth, or let its scope name this environment"))
        }
        (Code::Unauthorized, _) => ("role", "give the application user its security roles".to_owned()),
        (Code::Unavailable | Code::TimedOut, _) => {
            ("reach", format!("correct {place}.url, or see whether the environment runs and can be reached from here"))
        }
        (Code::Throttled, _) => ("reach", "repeat the command in some minutes".to_owned()),
        _ => ("reach", fault.code.remedy().to_owned()),
    };
    Finding::of_fault(kind, check, fault).remedy(remedy)
}

/// Our clock and theirs.
pub(super) fn judge_clock(kind: SystemKind, ahead_seconds: Option<i64>, skew_max: Duration) -> Finding {
    let Some(ahead) = ahead_seconds else {
        return Finding::notice(kind, "clock", "its answers have no date, so its clock is not known");
    };
    let apart = Duration::from_secs(ahead.unsigned_abs());
    if apart <= skew_max {
        return Finding::fine(kind, "clock", format!("its clock is within {} s of ours", skew_max.as_secs()));
    }
    let side = if ahead > 0 { "ahead of" } else { "behind" };
    Finding::wrong(kind, "clock", format!("its clock is {} s {side} ours", apart.as_secs()))
        .remedy("set the clock of this machine by a time server; tokens and waits go by it")
        .code(Code::ConfigInvalid)
}

pub(super) fn judge_record(record: &LinkRecord, identity: &Identity) -> Option<Finding> {
    record.is_elsewhere(identity).then(|| {
        let what = format!(
            "it is another organization ({}) than the one that was linked; a copied environment is one",
            identity.organization_id
        );
        Finding::wrong(SystemKind::Dataverse, "environment", what)
            .remedy("name the environment that was linked, or `link reset` and `link create` with this one")
            .code(Code::ConfigInvalid)
    })
}

impl Look {
    /// Receipts, fences and the change feed: there, to be made, or what goes without them.
    fn own_tables(&mut self, system: &System, catalogue: &Catalogue, needs: &Needs) {
        let kind = system.kind();
        let missing = system.missing_tables(catalogue);
        if missing.is_empty() {
            let sets = OwnTable::of(kind).iter().map(|table| table.set(kind)).collect::<Vec<_>>();
            self.findings.push(Finding::fine(kind, "own-tables", format!("{} are there", sets.join(", "))));
            return;
        }
        for table in missing {
            let set = table.set(kind);
            if kind == SystemKind::Dataverse {
                let what = format!("{set} is missing and will be made; {}", purpose(table));
                self.findings.push(Finding::to_do(kind, "own-tables", what));
                self.to_do.push(ToDo::Install(table));
                continue;
            }
            let (is_needed, without) = match table {
                OwnTable::Receipts | OwnTable::Fences => {
                    (needs.writes(kind), "without it nothing is written to F&O, and only maps to Dataverse run")
                }
                OwnTable::Changes => {
                    (needs.follows(kind), "without it no change of F&O is seen, and only maps to F&O run")
                }
            };
            let what = format!("{set} is missing, and an entity comes to F&O with a package; {without}");
            let finding = if is_needed {
                Finding::wrong(kind, "own-tables", what)
                    .remedy("deploy the package of dualwright, or make every map of the link one-way the other way")
                    .code(Code::TargetIncapable)
            } else {
                Finding::notice(kind, "own-tables", what)
            };
            self.findings.push(finding);
        }
    }

    async fn companies(&mut self, config: &Config, systems: &Systems, catalogues: [&Catalogue; 2], needs: &Needs) {
        let wanted = &config.link.companies;
        self.findings.extend(companies::judge_count(wanted.len(), config.limits.companies_when_linking_max));
        if !needs.has_companies {
            let what = "no map carries rows of a legal entity, so the list means nothing";
            self.findings.push(Finding::notice(None, "companies", what));
            return;
        }
        let [finops, dataverse] = catalogues;
        let (left, right) = tokio::join!(
            companies::read(&systems.finops, finops, TIMEOUT),
            companies::read(&systems.dataverse, dataverse, TIMEOUT)
        );
        for (kind, known) in [(SystemKind::Finops, &left), (SystemKind::Dataverse, &right)] {
            if let Err(fault) = known {
                self.findings.push(refused(kind, "companies", companies::set_of(kind), fault));
            }
        }
        if let (Ok(left), Ok(right)) = (left, right) {
            self.findings.extend(companies::judge(wanted, &left, &right, needs.companies_map.as_deref()));
            (self.finops_companies, self.dataverse_companies) = (left, right);
        }
    }

    /// Dataverse says what a user may do, and whether the changes of a table are kept.
    async fn dataverse_rights(&mut self, system: &System, catalogue: &Catalogue, needs: &Needs) {
        let kind = SystemKind::Dataverse;
        let Some(identity) = self.identity else { return };
        let privileges = match system.privileges(identity.user_id, TIMEOUT).await {
            Ok(privileges) => privileges,
            Err(fault) => {
                self.findings.push(refused(kind, "role", "the privileges of our user", &fault));
                return;
            }
        };
        let own = Use { written: true, ..Use::default() };
        let own =
            OwnTable::of(kind).iter().map(|table| (table.set(kind), &own)).filter(|(set, _)| catalogue.has_set(set));
        let mut missing = Vec::new();
        let mut tracked = BTreeSet::new();
        let mut standings = Vec::new();
        for (set, using) in needs.dataverse.iter().map(|(set, using)| (set.as_str(), using)).chain(own) {
            let Some(table) = catalogue.table_of(set) else { continue };
            match system.table_standing(table, TIMEOUT).await {
                Ok(standing) => standings.push((set, using, standing)),
                Err(fault) => self.findings.push(refused(kind, "role", set, &fault)),
            }
        }
        for (set, using, standing) in &standings {
            missing.extend(missing_privileges(using, standing, &privileges));
            if using.followed && standing.change_tracking_enabled {
                tracked.insert(*set);
            }
            if using.followed && !standing.change_tracking_enabled {
                let what = format!("changes of {set} are not kept; its change tracking will be switched on");
                self.findings.push(Finding::to_do(kind, "change-tracking", what));
                self.to_do.push(ToDo::TrackChanges(standing.logical_name.clone()));
            }
        }
        if !tracked.is_empty() {
            let what = format!("changes of {} tables are kept", tracked.len());
            self.findings.push(Finding::fine(kind, "change-tracking", what));
        }
        self.findings.push(judge_privileges(&missing));
    }

    /// Two programs that keep the same rows in step answer each other for ever.
    async fn other_products(&mut self, system: &System, catalogue: &Catalogue) {
        const RUNTIME_CONFIGS: &str = "msdyn_dualwriteruntimeconfigs";
        let kind = SystemKind::Dataverse;
        if !catalogue.has_set(RUNTIME_CONFIGS) {
            return;
        }
        if let Ok(Some(maps @ 1..)) = system.rows_of_other_products(RUNTIME_CONFIGS, TIMEOUT).await {
            let what = format!("{RUNTIME_CONFIGS} has {maps} rows: Dual-write itself runs here, or left them behind");
            self.findings.push(
                Finding::notice(kind, "other-products", what)
                    .remedy("stop its maps before the same tables are linked; what a copied environment left, delete")
                    .foreign(Some("DWDVEV1004")),
            );
        }
    }
}

/// F&O does not say what a user may do, so each table is read.
pub(super) async fn readable<'a>(system: &System, sets: impl ExactSizeIterator<Item = &'a String>) -> Vec<Finding> {
    let kind = system.kind();
    let count = sets.len();
    let mut findings = Vec::new();
    for set in sets {
        if let Err(fault) = system.may_read(set, TIMEOUT).await {
            findings.push(refused(kind, "role", set, &fault));
        }
    }
    if findings.is_empty() {
        findings.push(Finding::fine(kind, "role", format!("all {count} tables of the maps can be read")));
    }
    findings
}

const fn purpose(table: OwnTable) -> &'static str {
    match table {
        OwnTable::Receipts => "with it a repeated transaction is refused",
        OwnTable::Fences => "with it a request that comes late is refused",
        OwnTable::Changes => "with it changes are seen",
    }
}

fn refused(kind: SystemKind, check: &'static str, what: &str, fault: &Fault) -> Finding {
    let remedy = match fault.code {
        Code::Unauthorized => "give the application user a role that may do this".to_owned(),
        code => code.remedy().to_owned(),
    };
    Finding::wrong(kind, check, format!("{what}: {}", fault.message))
        .remedy(remedy)
        .code(fault.code)
        .foreign(fault.foreign_code.as_deref())
}

/// What we lack for what the maps do with a table: the name of each privilege.
pub(super) fn missing_privileges(using: &Use, standing: &TableStanding, ours: &Privileges) -> Vec<String> {
    let wanted = |kind: &str| match kind {
        // Change tracking is for those who may read all rows of a table, and a target row may be anybody's.
        "Read" => Some(Depth::Global),
        "Write" | "Delete" if using.written => Some(Depth::Global),
        "Append" if using.refers => Some(Depth::Global),
        "Create" if using.written => Some(Depth::Basic),
        _ => None,
    };
    let lacks = |privilege: &&crate::connect::TablePrivilege| {
        wanted(&privilege.privilege_type)
            .is_some_and(|depth| ours.get(&privilege.name.to_lowercase()).is_none_or(|own| *own < depth))
    };
    standing.privileges.iter().filter(lacks).map(|privilege| privilege.name.clone()).collect()
}

pub(super) fn judge_privileges(missing: &[String]) -> Finding {
    let kind = SystemKind::Dataverse;
    if missing.is_empty() {
        return Finding::fine(kind, "role", "our user may do what the maps need");
    }
    Finding::wrong(kind, "role", format!("our user lacks {}", named(missing)))
        .remedy("give the application user a role with these privileges, for the rows of the whole organization")
        .code(Code::Unauthorized)
        .foreign(Some("0x80040220"))
}

/// Does what is to be done; what came of each.
pub async fn make(system: &System, to_do: &[ToDo]) -> Vec<Finding> {
    let kind = SystemKind::Dataverse;
    let mut made = Vec::new();
    for one in to_do {
        made.push(match one {
            ToDo::Install(table) => match system.install(*table, TIMEOUT).await {
                Ok(()) => Finding::fine(kind, "own-tables", format!("{} was made", table.set(kind))),
                Err(fault) => refused(kind, "own-tables", table.set(kind), &fault),
            },
            ToDo::TrackChanges(table) => match system.track_changes(table, TIMEOUT).await {
                Ok(()) => Finding::fine(kind, "change-tracking", format!("changes of {table} are kept from now on")),
                Err(fault) => refused(kind, "change-tracking", table, &fault),
            },
        });
    }
    made
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::connect::TablePrivilege;

    #[test]
    fn what_is_done_with_a_table_decides_which_privileges_are_needed() {
        let standing = TableStanding {
            logical_name: "account".to_owned(),
            change_tracking_enabled: true,
            privileges: ["Create", "Read", "Write", "Delete", "Append", "AppendTo", "Assign"]
                .map(|kind| TablePrivilege { name: format!("prv{kind}Account"), privilege_type: kind.to_owned() })
                .to_vec(),
        };
        let read = Use { followed: true, ..Use::default() };
        let written = Use { written: true, refers: true, ..Use::default() };
        for (using, ours, lacking) in [
            (&read, &[("read", Depth::Global)][..], ""),
            (&read, &[("read", Depth::Deep)], "Read"),
            (&read, &[], "Read"),
            (&written, &[("read", Depth::Global), ("create", Depth::Basic)], "Write Delete Append"),
            (
                &written,
                &[
                    ("read", Depth::Global),
                    ("create", Depth::Basic),
                    ("write", Depth::Global),
                    ("delete", Depth::Global),
                    ("append", Depth::Local),
                ],
                "Append",
            ),
        ] {
            let ours = ours.iter().map(|(kind, depth)| (format!("prv{kind}account"), *depth)).collect();
            let lacks = missing_privileges(using, &standing, &ours);
            let wanted = lacking.split_whitespace().map(|kind| format!("prv{kind}Account")).collect::<Vec<_>>();
            assert_eq!(lacks, wanted, "{using:?}");
        }
    }

    #[test]
    fn why_a_system_does_not_let_us_in_has_its_own_remedy() {
        for (code, foreign, check, remedy) in [
            (Code::Unauthorized, Some("AADSTS7000215"), "authentication", "client_secret"),
            (Code::Unauthorized, Some("AADSTS700016"), "authentication", "client_id"),
            (Code::Unauthorized, Some("AADSTS500011"), "authentication", "scope"),
            (Code::Unauthorized, Some("AADSTS50034"), "authentication", "link.finops.auth"),
            (Code::Unauthorized, Some("401"), "authentication", "link.finops.auth"),
            (Code::Unauthorized, Some("0x80072560"), "role", "create the application user"),
            (Code::Unauthorized, Some("403"), "role", "security roles"),
            (Code::Unavailable, None, "reach", "link.finops.url"),
            (Code::TimedOut, None, "reach", "link.finops.url"),
        ] {
            let mut fault = Fault::new(code, "no");
            fault.foreign_code = foreign.map(str::to_owned);
            let finding = not_let_in(SystemKind::Finops, &fault);
            assert_eq!(finding.check, check, "{foreign:?}");
            assert!(finding.remedy.contains(remedy), "{foreign:?}: {}", finding.remedy);
        }
    }

    #[test]
    fn a_clock_is_wrong_beyond_the_setting_on_either_side() {
        let max = Duration::from_secs(60);
        for (ahead, verdict) in
            [(Some(60), "fine"), (Some(-60), "fine"), (Some(61), "wrong"), (Some(-61), "wrong"), (None, "notice")]
        {
            assert_eq!(judge_clock(SystemKind::Finops, ahead, max).verdict.name(), verdict, "{ahead:?}");
        }
    }

    #[test]
    fn a_copied_environment_is_told_by_its_organization() {
        let organization = |id: u128| Identity {
            user_id: Uuid::nil(),
            business_unit_id: Uuid::nil(),
            organization_id: Uuid::from_u128(id),
        };
        let record = |id: Option<u128>| LinkRecord {
            id: Uuid::nil(),
            created_at: 0,
            ended_at: None,
            finops_url: String::new(),
            dataverse_url: String::new(),
            organization: id.map(Uuid::from_u128),
            companies: std::collections::BTreeMap::new(),
        };
        assert_eq!(judge_record(&record(Some(1)), &organization(1)), None);
        assert_eq!(judge_record(&record(None), &organization(2)), None);
        let finding = judge_record(&record(Some(1)), &organization(2)).expect("another organization");
        assert!(finding.what.contains("another organization") && finding.remedy.contains("link reset"), "{finding:?}");
    }
}
