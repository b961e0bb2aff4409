//! Settings as a struct: parameters, and the columns and tables that a plugin needs under fixed names.
//!
//! [`Settings`](derive@crate::Settings) writes both halves from one struct: what `describe` says, and what `configure`
//! reads. So the two cannot disagree.

use crate::bindings::describe::exports::dualwright::plugin::describe::{
    Access, ColumnWant, Parameter as ParameterText,
};
use crate::bindings::types::{ColumnDef, Schema, Setting};
use crate::cell::Kind;
use crate::decimal::Decimal;

pub use crate::bindings::describe::exports::dualwright::plugin::describe::ParameterKind;
pub use crate::bindings::types::{Refusal, SettingValue};

/// The source table, for [`Column`].
const SOURCE: u16 = u16::MAX;

/// A column that was granted, of the source table or of a target table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Column {
    table: u16,
    id: u16,
}

impl Column {
    /// The column of the source table with that index.
    #[must_use]
    pub const fn of_source(id: u16) -> Self {
        Self { table: SOURCE, id }
    }

    pub(crate) const fn new(table: Option<Table>, id: u16) -> Self {
        match table {
            Some(Table(table)) => Self { table, id },
            None => Self { table: SOURCE, id },
        }
    }

    /// Its index in the schema of its table.
    #[must_use]
    pub const fn id(self) -> u16 {
        self.id
    }

    /// None for a column of the source table.
    #[must_use]
    pub const fn table(self) -> Option<Table> {
        if self.table == SOURCE { None } else { Some(Table(self.table)) }
    }
}

/// A target table of a table map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Table(pub(crate) u16);

impl Table {
    /// Its index in the list of target tables.
    #[must_use]
    pub const fn id(self) -> u16 {
        self.0
    }
}

/// The tables that an installation was granted.
#[derive(Debug, Clone)]
pub struct Tables {
    pub source: Schema,
    /// Only for table maps; otherwise empty.
    pub targets: Vec<Schema>,
}

impl Tables {
    /// The columns that the installation is bound to: those of the source table that may be written.
    pub fn bound(&self) -> impl Iterator<Item = Column> + '_ {
        self.all().filter(|&column| self.definition(column).is_some_and(|definition| definition.writable))
    }

    /// Every column of the source table.
    pub fn all(&self) -> impl Iterator<Item = Column> + '_ {
        (0..self.source.columns.len()).filter_map(|id| Some(Column { table: SOURCE, id: u16::try_from(id).ok()? }))
    }

    /// A column of the source table by its name, in any case.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<Column> {
        find(&self.source, name).map(|id| Column { table: SOURCE, id })
    }

    /// A target table by its entity set.
    #[must_use]
    pub fn find_table(&self, set: &str) -> Option<Table> {
        let id = self.targets.iter().position(|table| table.set.eq_ignore_ascii_case(set))?;
        Some(Table(u16::try_from(id).ok()?))
    }

    /// A column of a target table by its name, in any case.
    #[must_use]
    pub fn find_in(&self, table: Table, name: &str) -> Option<Column> {
        let schema = self.targets.get(usize::from(table.0))?;
        find(schema, name).map(|id| Column { table: table.0, id })
    }

    /// What the system says of a column.
    #[must_use]
    pub fn definition(&self, column: Column) -> Option<&ColumnDef> {
        let schema = if column.table == SOURCE { &self.source } else { self.targets.get(usize::from(column.table))? };
        schema.columns.get(usize::from(column.id))
    }

    /// None for a kind that this SDK does not know yet.
    #[must_use]
    pub fn kind(&self, column: Column) -> Option<Kind> {
        Kind::from_code(self.definition(column)?.kind)
    }
}

fn find(schema: &Schema, name: &str) -> Option<u16> {
    let id = schema.columns.iter().position(|column| column.name.eq_ignore_ascii_case(name))?;
    u16::try_from(id).ok()
}

/// A refusal of the installation as a whole.
#[must_use]
pub fn refuse(message: impl Into<String>) -> Refusal {
    Refusal { parameter: None, column: None, message: message.into() }
}

/// A refusal that concerns one parameter.
#[must_use]
pub fn refuse_parameter(name: &str, message: impl Into<String>) -> Refusal {
    Refusal { parameter: Some(name.to_owned()), column: None, message: message.into() }
}

/// A refusal that concerns one column.
#[must_use]
pub fn refuse_column(name: &str, message: impl Into<String>) -> Refusal {
    Refusal { parameter: None, column: Some(name.to_owned()), message: message.into() }
}

/// Implemented by `#[derive(Settings)]`.
pub trait Settings: Sized {
    /// Says which parameters and columns there are.
    fn declare(to: &mut Declared);

    /// Reads them. All that is wrong is returned, not the first.
    ///
    /// # Errors
    /// When a parameter or column is missing or of the wrong kind.
    fn read(input: &Input<'_>) -> Result<Self, Vec<Refusal>>;
}

/// A plugin without settings.
impl Settings for () {
    fn declare(_: &mut Declared) {}

    fn read(_: &Input<'_>) -> Result<Self, Vec<Refusal>> {
        Ok(())
    }
}

/// What a plugin's functions receive: its settings as they are, or what it has made of them.
///
/// Settings are a state already. Implement this for a type of your own to work things out once per instance, and to
/// refuse settings that do not go together.
pub trait State: Sized + 'static {
    type Settings: Settings;

    /// Makes the state.
    ///
    /// # Errors
    /// When the settings do not fit together, or not with the tables. The start stops and the operator sees each reason.
    fn prepare(settings: Self::Settings, tables: &Tables) -> Result<Self, Vec<Refusal>>;
}

impl<S: Settings + 'static> State for S {
    type Settings = S;

    fn prepare(settings: S, _: &Tables) -> Result<Self, Vec<Refusal>> {
        Ok(settings)
    }
}

/// The value of a parameter that is not set.
#[derive(Debug, Clone, Copy)]
pub enum DefaultValue {
    Boolean(bool),
    Integer(i64),
    Decimal(&'static str),
    Text(&'static str),
    Texts(&'static [&'static str]),
}

impl DefaultValue {
    fn json(self) -> String {
        match self {
            Self::Boolean(value) => value.to_string(),
            Self::Integer(value) => value.to_string(),
            Self::Decimal(digits) => digits.to_owned(),
            Self::Text(text) => json_text(text),
            Self::Texts(texts) => {
                let texts: Vec<String> = texts.iter().map(|text| json_text(text)).collect();
                format!("[{}]", texts.join(","))
            }
        }
    }

    fn value(self) -> SettingValue {
        match self {
            Self::Boolean(value) => SettingValue::Boolean(value),
            Self::Integer(value) => SettingValue::Integer(value),
            Self::Decimal(digits) => SettingValue::Decimal(digits.to_owned()),
            Self::Text(text) => SettingValue::Text(text.to_owned()),
            Self::Texts(texts) => SettingValue::Texts(texts.iter().map(|&text| text.to_owned()).collect()),
        }
    }
}

fn json_text(text: &str) -> String {
    let mut json = String::with_capacity(text.len() + 2);
    json.push('"');
    for character in text.chars() {
        match character {
            '"' => json.push_str("\\\""),
            '\\' => json.push_str("\\\\"),
            control if control < ' ' => json.push_str(&format!("\\u{:04x}", u32::from(control))),
            other => json.push(other),
        }
    }
    json.push('"');
    json
}

/// What a settings struct declares; filled by `#[derive(Settings)]`.
#[derive(Debug, Default)]
pub struct Declared {
    pub parameters: Vec<ParameterText>,
    pub columns: Vec<ColumnWant>,
}

impl Declared {
    pub fn parameter<T: Parameter>(
        &mut self,
        name: &str,
        text: &str,
        default: Option<DefaultValue>,
        minimum: Option<&str>,
        maximum: Option<&str>,
    ) {
        self.parameters.push(ParameterText {
            name: name.to_owned(),
            kind: T::KIND,
            required: T::REQUIRED && default.is_none(),
            default_value: default.map(DefaultValue::json),
            options: T::options().iter().map(|&option| option.to_owned()).collect(),
            minimum: minimum.map(str::to_owned),
            maximum: maximum.map(str::to_owned),
            text: text.to_owned(),
        });
    }

    pub fn column(&mut self, table: &str, name: &str, write: bool, kinds: &[Kind], required: bool, text: &str) {
        self.columns.push(ColumnWant {
            table: table.to_owned(),
            name: name.to_owned(),
            access: if write { Access::Write } else { Access::Read },
            kinds: kinds.iter().map(|kind| kind.code()).collect(),
            required,
            text: text.to_owned(),
        });
    }
}

/// What `configure` was called with.
#[derive(Debug)]
pub struct Input<'a> {
    pub tables: &'a Tables,
    pub settings: &'a [Setting],
}

impl Input<'_> {
    /// A parameter's value, its default, or nothing with a refusal.
    pub fn parameter<T: Parameter>(
        &self,
        name: &str,
        default: Option<DefaultValue>,
        refusals: &mut Vec<Refusal>,
    ) -> Option<T> {
        let read = match self.settings.iter().find(|setting| setting.name == name) {
            Some(setting) => T::read(&setting.value),
            None => match default {
                Some(default) => T::read(&default.value()),
                None => T::missing(),
            },
        };
        if read.is_none() {
            let message = match T::options() {
                [] => "is missing or of another kind than the description says".to_owned(),
                options => format!("must be one of {}", options.join(", ")),
            };
            refusals.push(refuse_parameter(name, message));
        }
        read
    }

    /// A target table by its entity set, or nothing with a refusal.
    pub fn table<T: TableField>(&self, set: &str, refusals: &mut Vec<Refusal>) -> Option<T> {
        let read = T::from_table(self.tables.find_table(set));
        if read.is_none() {
            refusals.push(refuse(format!("the table {set} is not among the target tables: add it to the table map")));
        }
        read
    }

    /// A column by its fixed name, or nothing with a refusal. An empty `set` means the source table.
    pub fn column<T: ColumnField>(
        &self,
        set: &str,
        name: &str,
        write: bool,
        kinds: &[Kind],
        refusals: &mut Vec<Refusal>,
    ) -> Option<T> {
        let found = if set.is_empty() {
            self.tables.find(name)
        } else {
            self.tables.find_table(set).and_then(|table| self.tables.find_in(table, name))
        };
        if let Some(definition) = found.and_then(|column| self.tables.definition(column)) {
            if !kinds.is_empty() && !kinds.iter().any(|kind| kind.code() == definition.kind) {
                let kinds: Vec<&str> = kinds.iter().map(|kind| kind.name()).collect();
                refusals.push(refuse_column(name, format!("must be of kind {}", kinds.join(" or "))));
                return None;
            }
            if write && !definition.writable {
                refusals.push(refuse_column(name, "is not granted for writing"));
                return None;
            }
        }
        let read = T::from_column(found);
        if read.is_none() {
            refusals.push(refuse_column(name, "is not granted: grant it, or take a table that has it"));
        }
        read
    }
}

/// The type of a field that names a column: [`Column`], or `Option<Column>` where the plugin can do without.
pub trait ColumnField: Sized {
    const REQUIRED: bool;
    fn from_column(column: Option<Column>) -> Option<Self>;
}

impl ColumnField for Column {
    const REQUIRED: bool = true;
    fn from_column(column: Option<Column>) -> Option<Self> {
        column
    }
}

impl ColumnField for Option<Column> {
    const REQUIRED: bool = false;
    fn from_column(column: Option<Column>) -> Option<Self> {
        Some(column)
    }
}

/// The type of a field that names a target table: [`Table`], or `Option<Table>`.
pub trait TableField: Sized {
    fn from_table(table: Option<Table>) -> Option<Self>;
}

impl TableField for Table {
    fn from_table(table: Option<Table>) -> Option<Self> {
        table
    }
}

impl TableField for Option<Table> {
    fn from_table(table: Option<Table>) -> Option<Self> {
        Some(table)
    }
}

/// A type that a parameter can have. `Option` and lists need not be set.
pub trait Parameter: Sized {
    const KIND: ParameterKind;
    const REQUIRED: bool = true;

    /// The names allowed, for a choice.
    #[must_use]
    fn options() -> &'static [&'static str] {
        &[]
    }

    /// None when the value is of another kind.
    fn read(value: &SettingValue) -> Option<Self>;

    /// The value when nothing is set and there is no default.
    #[must_use]
    fn missing() -> Option<Self> {
        None
    }
}

/// One simple parameter type: its kind, and how to read it.
macro_rules! parameter {
    ($type:ty, $kind:ident, $($pattern:pat => $value:expr),+) => {
        impl Parameter for $type {
            const KIND: ParameterKind = ParameterKind::$kind;
            fn read(value: &SettingValue) -> Option<Self> {
                match value {
                    $($pattern => $value,)+
                    _ => None,
                }
            }
        }
    };
}

parameter!(bool, Boolean, SettingValue::Boolean(value) => Some(*value));
parameter!(i64, Integer, SettingValue::Integer(value) => Some(*value));
parameter!(u32, Integer, SettingValue::Integer(value) => u32::try_from(*value).ok());
parameter!(String, Text, SettingValue::Text(value) => Some(value.clone()));
parameter!(Column, Column, SettingValue::Column(id) => Some(Column { table: SOURCE, id: *id }));
parameter!(Decimal, Decimal,
    SettingValue::Decimal(digits) => digits.parse().ok(),
    SettingValue::Integer(value) => Some(Decimal::from(*value)));

/// A JSON document as text; the plugin judges it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Json(pub String);

parameter!(Json, Json, SettingValue::Json(text) => Some(Self(text.clone())));

/// One list parameter: not set means empty.
macro_rules! list_parameter {
    ($type:ty, $kind:ident, $pattern:pat => $value:expr) => {
        impl Parameter for Vec<$type> {
            const KIND: ParameterKind = ParameterKind::$kind;
            const REQUIRED: bool = false;
            fn read(value: &SettingValue) -> Option<Self> {
                match value {
                    $pattern => Some($value),
                    _ => None,
                }
            }
            fn missing() -> Option<Self> {
                Some(Vec::new())
            }
        }
    };
}

list_parameter!(String, Texts, SettingValue::Texts(texts) => texts.clone());
list_parameter!((String, String), Pairs, SettingValue::Pairs(pairs) => pairs.clone());
list_parameter!(Column, Columns, SettingValue::Columns(ids) =>
    ids.iter().map(|&id| Column { table: SOURCE, id }).collect());

impl<T: Parameter> Parameter for Option<T> {
    const KIND: ParameterKind = T::KIND;
    const REQUIRED: bool = false;

    fn options() -> &'static [&'static str] {
        T::options()
    }

    fn read(value: &SettingValue) -> Option<Self> {
        T::read(value).map(Some)
    }

    fn missing() -> Option<Self> {
        Some(None)
    }
}
