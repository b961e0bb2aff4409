//! Table maps by plugins, from the configuration to maps that the pipeline can run.
//!
//! A table map becomes one map for its source and one for each target. The plugin stands between them: the source map
//! pairs the real F&O table with the row as the plugin sees it, a target map pairs the row that the plugin gives with
//! the real Dataverse table. Both are compiled like any other map, so companies, keys, lookups and checks are the same.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use dualwright_core::mapping::{DataversePath, FieldDirection, FieldMapping, Leg, Reference};
use dualwright_core::plan::{self, MapPlan, PlanInput, PlanSettings};
use dualwright_core::schema::{Lookup, LookupTarget};
use dualwright_core::{Column, Kind, Schema, SystemKind};
use dualwright_sandbox::{Access, ColumnWant, ExtensionPoint, InstallationSpec, Plugin, Sandbox};

use super::bindings::called;
use super::order::Node;
use super::prepare::{Problems, Schemas, content_columns, parts, with_ids};
use crate::config::{Config, LeavingFilter, MappedTableConfig, TableMapConfig};
use crate::connect::Table;
use crate::connect::metadata::Catalogue;
use crate::pipeline::{LinkMap, Role, Side, TableMap, TargetColumn};

/// The lookup that stands for `dataAreaId` in the row as the plugin sees it.
const COMPANY: &str = "company";
const COMPANY_PATH: &str = "company.cdm_companycode";

/// A table map whose plugin and tables are there.
pub(super) struct ReadTableMap<'a> {
    pub config: &'a TableMapConfig,
    plugin: Arc<Plugin>,
}

/// A table map, compiled. Positions count within `maps`; the source comes first.
pub(super) struct CompiledTableMap {
    pub maps: Vec<(LinkMap, Node)>,
    pub table_map: TableMap,
}

pub(super) fn read<'a>(
    config: &'a Config,
    plugins: &HashMap<String, Arc<Plugin>>,
    finops: &Catalogue,
    dataverse: &Catalogue,
    problems: &mut Problems,
) -> Vec<ReadTableMap<'a>> {
    let mut read = Vec::new();
    for map in &config.table_maps {
        // A plugin that was not admitted was reported then.
        let Some(plugin) = plugins.get(&map.plugin) else { continue };
        let place = format!("map `{}`", map.slug);
        let before = problems.errors();
        let mut error = |message: String, remedy: &str| problems.error("dualwright.toml", &place, &message, remedy);
        if !plugin.points.contains(&ExtensionPoint::TableMap) {
            let what = format!("plugin `{}` has no table-map to offer", map.plugin);
            error(what, "Use a plugin for which `plugin inspect` lists table-map");
        }
        if !finops.has_set(&map.finops_collection) {
            let what = format!("F&O has no public collection {}", map.finops_collection);
            error(what, "Correct finops_collection of the map");
        }
        for table in &map.tables {
            if !dataverse.has_set(&table.set) {
                let what = format!("Dataverse has no table {}", table.set);
                error(what, "Correct the name, or install the solution that brings the table");
            }
        }
        let wanted = plugin.description.columns.iter().filter(|want| want.required && !want.table.is_empty());
        for table in wanted.map(|want| want.table.as_str()).collect::<BTreeSet<_>>() {
            if table != map.finops_collection && !map.tables.iter().any(|own| own.set == table) {
                let what = format!("plugin `{}` maps to table {table}, which the map does not list", map.plugin);
                error(what, "Add a [[map.table]] with that set and its integration_key");
            }
        }
        if !plugin.maps_back {
            problems.notice(
                "dualwright.toml",
                &place,
                "its plugin has no way back, so the map leads to Dataverse only",
            );
        }
        if problems.errors() == before {
            read.push(ReadTableMap { config: map, plugin: Arc::clone(plugin) });
        }
    }
    read
}

impl ReadTableMap<'_> {
    /// Every path on Dataverse that the plugin or a key follows, with the table where it begins.
    pub(super) fn paths(&self) -> Vec<(String, Vec<String>)> {
        let of = |table: &MappedTableConfig| {
            self.names(table).into_iter().map(|name| (table.set.clone(), parts(&name))).collect::<Vec<_>>()
        };
        self.config.tables.iter().flat_map(of).collect()
    }

    fn wants<'p>(&'p self, table: &'p str) -> impl Iterator<Item = &'p ColumnWant> {
        self.plugin.description.columns.iter().filter(move |want| want.table == table)
    }

    /// The paths of one target table: its key and what the plugin wants, each once.
    fn names(&self, table: &MappedTableConfig) -> Vec<String> {
        let wants = self.wants(&table.set).map(|want| want.name.clone());
        once(table.integration_key.iter().cloned().chain(wants))
    }

    pub(super) fn compile(
        &self,
        config: &Config,
        schemas: &Schemas,
        keys: &HashMap<String, Vec<String>>,
        sandbox: &Sandbox,
        problems: &mut Problems,
    ) -> Option<CompiledTableMap> {
        let place = format!("map `{}`", self.config.slug);
        let context = Context { place: &place, schemas, keys };
        let finops = schemas.finops.get(&self.config.finops_collection)?;
        let source = self.source(finops, &context, problems);
        let mut targets = Vec::new();
        for table in &self.config.tables {
            targets.push(self.target(table, finops.company.is_some(), &context, problems)?);
        }
        let source = source?;
        let spec = InstallationSpec {
            tenant: Arc::from(config.tenant.as_str()),
            place: format!("map {}, table-map", self.config.slug),
            point: ExtensionPoint::TableMap,
            source: Arc::new(source.granted),
            targets: targets.iter().map(|target| Arc::clone(&target.granted)).collect(),
            writable: source.writable,
            parameters: self.config.parameters.clone(),
            limits: Some(self.config.limits),
        };
        let installation = match sandbox.install(&self.plugin, spec) {
            Ok(installation) => installation,
            Err(fault) => {
                problems.fault("dualwright.toml", &format!("{place}, plugin `{}`", self.config.plugin), &fault);
                return None;
            }
        };
        // Parents, source, targets, and whoever refers to the targets: the source's rows are what writes all of them.
        let own_set = source.map.dataverse.table.schema.set.to_string();
        let own_sets = self.config.tables.iter().map(|table| &table.set).collect::<BTreeSet<_>>();
        let refers_to =
            targets.iter().flat_map(|target| &target.refers_to).filter(|set| !own_sets.contains(set)).cloned();
        let mut maps = vec![(source.map, Node { set: own_set.clone(), refers_to: refers_to.collect() })];
        let mut columns = Vec::new();
        for (target, table) in targets.into_iter().zip(&self.config.tables) {
            let mut refers_to = target.refers_to;
            refers_to.insert(own_set.clone());
            columns.push(target.columns);
            maps.push((target.map, Node { set: table.set.clone(), refers_to }));
        }
        let table_map = TableMap {
            slug: Arc::from(self.config.slug.as_str()),
            plugin: Arc::from(self.config.plugin.as_str()),
            source: 0,
            targets: (1..maps.len()).collect(),
            installation,
            on_fault: self.config.on_fault,
            source_columns: source.columns,
            target_columns: columns,
        };
        Some(CompiledTableMap { maps, table_map })
    }

    fn direction(&self, writable: bool) -> FieldDirection {
        if writable && self.plugin.maps_back { FieldDirection::Both } else { FieldDirection::ToDataverse }
    }

    /// The real F&O table, and the row as the plugin sees it.
    fn source(&self, finops: &Arc<Schema>, context: &Context<'_>, problems: &mut Problems) -> Option<Source> {
        let collection = self.config.finops_collection.as_str();
        let wants = self.wants("").chain(self.wants(collection)).collect::<Vec<_>>();
        let key = finops.key.iter().copied().filter(|&index| Some(index) != finops.company).collect::<Vec<_>>();
        let named = self.plugin.description.columns_in(&self.config.parameters);
        let names = once(
            key.iter()
                .map(|&index| finops.column(index).name.to_string())
                .chain(wants.iter().map(|want| want.name.clone()))
                .chain(named.into_iter().map(str::to_owned)),
        );
        let mut granted = Vec::new();
        let mut writable = Vec::new();
        let mut seen = Vec::new();
        let mut fields = Vec::new();
        // A required column that is not there is for the installation to name.
        for (name, index) in names.into_iter().filter_map(|name| finops.index_of(&name).map(|index| (name, index))) {
            let column = finops.column(index);
            if wants.iter().any(|want| want.name.eq_ignore_ascii_case(&name) && want.access == Access::Write)
                && !column.read_only
            {
                writable.push(granted.len());
            }
            granted.push(called(column, &name));
            if Some(index) != finops.company {
                seen.push(plain(column, &column.name));
                let goes_back = key.contains(&index) || writable.last() == Some(&(granted.len() - 1));
                fields.push(field(&column.name, self.direction(goes_back)));
            }
        }
        let mut integration_key = key.iter().map(|&index| finops.column(index).name.to_string()).collect::<Vec<_>>();
        if finops.company.is_some() {
            integration_key.push(COMPANY_PATH.to_owned());
            seen.push(company_lookup());
        }
        // No set of Dataverse has such a name, so no change of Dataverse is ever taken for it.
        let set = format!("{}: {collection}", self.config.slug);
        let mut seen = Schema::new(SystemKind::Dataverse, &finops.table, &set, seen);
        seen.company = seen.index_of(COMPANY).filter(|_| finops.company.is_some());
        let leg = self.leg(finops, &set, fields);
        let whole = context.plan(&leg, finops, &seen, &integration_key, problems)?;
        let finops = Arc::new(finops.narrow(&with_ids(finops, &whole.finops_columns)));
        let plan = context.plan(&leg, &finops, &seen, &integration_key, problems)?;
        let columns = granted.iter().filter_map(|column: &Column| finops.index_of(&column.name)).collect();
        let granted = Schema::new(SystemKind::Finops, &finops.table, &finops.set, granted);
        let map = link_map(self.config.slug.clone(), plan, finops, Arc::new(seen));
        Some(Source { map, granted, writable, columns })
    }

    /// The row that the plugin gives, and the real Dataverse table.
    fn target(
        &self,
        table: &MappedTableConfig,
        of_company: bool,
        context: &Context<'_>,
        problems: &mut Problems,
    ) -> Option<Target> {
        let slug = self.config.slug_of(&table.set);
        let dataverse = context.schemas.dataverse.get(&table.set)?;
        let names_company = |path: &str| path.to_ascii_lowercase().ends_with(".cdm_companycode");
        let specific =
            of_company && (dataverse.company.is_some() || table.integration_key.iter().any(|path| names_company(path)));
        let mut given = Vec::new();
        if specific {
            given.push(Column::new("dataAreaId", Kind::Text));
        }
        let mut fields = Vec::new();
        let mut granted = Vec::new();
        let mut columns = Vec::new();
        let mut references = Vec::new();
        let mut refers_to = BTreeSet::new();
        for name in self.names(table) {
            let path = parts(&name);
            let in_key = table.integration_key.iter().any(|own| own.eq_ignore_ascii_case(&name));
            let want = self.wants(&table.set).find(|want| want.name.eq_ignore_ascii_case(&name));
            let Some(column) = context.column_at(&table.set, &path) else {
                if in_key {
                    let what = format!("Dataverse has no column {name} in {}, which the key names", table.set);
                    problems.error("dualwright.toml", context.place, &what, "Correct integration_key of the table");
                }
                // What the plugin requires and does not get is for the installation to name.
                continue;
            };
            if let Some(index) = dataverse.index_of(&path[0]) {
                let targets = dataverse.column(index).lookup.iter().flat_map(|lookup| &lookup.targets);
                refers_to.extend(targets.map(|target| target.set.to_string()));
            }
            if names_company(&name) {
                if want.is_some() {
                    granted.push(plain(&column, &name));
                    columns.push(Given::Company);
                }
                continue;
            }
            if column.kind == Kind::Lookup {
                granted.push(called(&column, &name));
                columns.push(Given::Reference(path[0].clone()));
                references.push(path[0].clone());
                continue;
            }
            let is_written = in_key || (want.is_some_and(|want| want.access == Access::Write) && !column.read_only);
            if !is_written && !self.plugin.maps_back {
                continue;
            }
            let direction = if is_written { self.direction(true) } else { FieldDirection::ToFinops };
            // The metadata of Dataverse calls a choice a number; it crosses as the text that it is to a plugin.
            let is_choice = column.kind == Kind::Int64
                && want.is_some_and(|want| want.kinds.contains(&Kind::Choice) && !want.kinds.contains(&Kind::Int64));
            let (kind_granted, kind_given) =
                if is_choice { (Kind::Choice, Kind::Text) } else { (column.kind, column.kind) };
            columns.push(Given::Value(given.len()));
            granted.push(Column { read_only: !is_written, kind: kind_granted, ..plain(&column, &name) });
            given.push(Column { kind: kind_given, ..plain(&column, &name) });
            match DataversePath::parse(&name) {
                Ok(path) => fields.push(FieldMapping { dataverse: Some(path), ..field(&name, direction) }),
                Err(message) => {
                    let place = format!("{}, table {}", context.place, table.set);
                    problems.error("dualwright.toml", &place, &message, "Write a column path, as in a field mapping");
                }
            }
        }
        let mut given = Schema::new(SystemKind::Finops, &dataverse.table, &slug, given);
        given.company = Some(0).filter(|_| specific);
        given.key = given.company.into_iter().collect();
        let key = table.integration_key.iter().filter(|path| !names_company(path));
        given.key.extend(key.filter_map(|path| given.index_of(path)).collect::<Vec<_>>());
        let leg = self.leg(&given, &table.set, fields);
        let whole = context.plan(&leg, &given, dataverse, &table.integration_key, problems)?;
        let mut touched = whole.dataverse_columns.clone();
        touched.extend(references.iter().filter_map(|name| dataverse.index_of(name)));
        let dataverse = Arc::new(dataverse.narrow(&with_ids(dataverse, &touched)));
        let plan = context.plan(&leg, &given, &dataverse, &table.integration_key, problems)?;
        let columns = columns
            .into_iter()
            .map(|column| match column {
                Given::Value(index) => Some(TargetColumn::Value(index)),
                Given::Company => Some(TargetColumn::Company),
                Given::Reference(name) => dataverse.index_of(&name).map(TargetColumn::Reference),
            })
            .collect::<Option<Vec<_>>>()?;
        let granted = Arc::new(Schema::new(SystemKind::Dataverse, &dataverse.table, &dataverse.set, granted));
        let map = link_map(slug, plan, Arc::new(given), dataverse);
        Some(Target { map, granted, columns, refers_to })
    }

    fn leg(&self, finops: &Schema, set: &str, fields: Vec<FieldMapping>) -> Leg {
        Leg {
            finops_entity: finops.table.to_string(),
            finops_distinct_name: None,
            dataverse_set: set.to_owned(),
            finops_filter: String::new(),
            dataverse_filter: String::new(),
            fields,
        }
    }
}

struct Source {
    map: LinkMap,
    granted: Schema,
    writable: Vec<usize>,
    /// Of the map's F&O table, one per granted column.
    columns: Vec<usize>,
}

struct Target {
    map: LinkMap,
    granted: Arc<Schema>,
    /// One per granted column.
    columns: Vec<TargetColumn>,
    refers_to: BTreeSet<String>,
}

/// A [`TargetColumn`] before the table was narrowed.
enum Given {
    Value(usize),
    Company,
    Reference(String),
}

struct Context<'a> {
    place: &'a str,
    schemas: &'a Schemas,
    keys: &'a HashMap<String, Vec<String>>,
}

impl Context<'_> {
    fn plan(
        &self,
        leg: &Leg,
        finops: &Schema,
        dataverse: &Schema,
        integration_key: &[String],
        problems: &mut Problems,
    ) -> Option<MapPlan> {
        let plan = plan::compile(&PlanInput {
            leg,
            finops,
            dataverse,
            integration_key,
            tables: &|set| self.schemas.dataverse.get(set).cloned(),
            key_of_set: &|set| self.keys.get(set).cloned(),
            settings: PlanSettings::default(),
        });
        plan.map_err(|found| problems.extend(self.place, found)).ok()
    }

    /// The column at the end of a path.
    fn column_at(&self, set: &str, path: &[String]) -> Option<Column> {
        let schema = self.schemas.dataverse.get(set)?;
        let (first, rest) = path.split_first()?;
        let column = schema.column(schema.index_of(first)?);
        if rest.is_empty() {
            return Some(column.clone());
        }
        let targets = column.lookup.iter().flat_map(|lookup| &lookup.targets);
        targets.into_iter().find_map(|target| self.column_at(&target.set, rest))
    }
}

fn link_map(slug: String, plan: MapPlan, finops: Arc<Schema>, dataverse: Arc<Schema>) -> LinkMap {
    LinkMap {
        slug: Arc::from(slug),
        // Which of a table map it is, is said when all maps have their place.
        role: Role::Ordinary,
        finops: Side { columns: content_columns(&finops, &plan.finops_columns), table: Arc::new(Table::new(finops)) },
        dataverse: Side {
            columns: content_columns(&dataverse, &plan.dataverse_columns),
            table: Arc::new(Table::new(dataverse)),
        },
        plan,
        to_dataverse: Vec::new(),
        to_finops: Vec::new(),
        placeholders: Vec::new(),
        leaving_filter: LeavingFilter::Keep,
        companies: None,
    }
}

/// A column that carries a value from one map to the next: the tables at both ends make the demands.
fn plain(column: &Column, name: &str) -> Column {
    Column { required: false, read_only: false, lookup: None, ..called(column, name) }
}

fn company_lookup() -> Column {
    let target = LookupTarget {
        table: Arc::from("cdm_company"),
        set: Arc::from("cdm_companies"),
        navigation_property: Arc::from(COMPANY),
    };
    Column { lookup: Some(Lookup { targets: vec![target] }), ..Column::new(COMPANY, Kind::Lookup) }
}

/// A field that has the same name on both sides.
fn field(name: &str, direction: FieldDirection) -> FieldMapping {
    FieldMapping {
        direction,
        finops: Some(name.to_owned()),
        dataverse: Some(DataversePath { column: name.to_owned(), reference: Reference::None }),
        transforms: Vec::new(),
        related_set: None,
    }
}

fn once(names: impl Iterator<Item = String>) -> Vec<String> {
    let mut list: Vec<String> = Vec::new();
    for name in names {
        if !list.iter().any(|own| own.eq_ignore_ascii_case(&name)) {
            list.push(name);
        }
    }
    list
}
