//! One row of one map on its way through a delivery.

use std::sync::Arc;

use dualwright_core::content::same;
use dualwright_core::lookup::LookupKey;
use dualwright_core::reconcile::Decision;
use dualwright_core::{Code, Fault, Operation, RowKey, Schema, TransactionId, Value};
use uuid::Uuid;

use super::ownership::Identity;
use crate::connect::{Address, StoredRow};
use crate::store::CrossReference;

/// What became of a row.
#[derive(Debug, Clone, PartialEq)]
pub enum RowFate {
    Created,
    Updated,
    Deleted,
    /// The target holds this content already.
    Equal,
    /// There was nothing to delete.
    Gone,
    /// Our own write coming back.
    Echo,
    /// The map's filter, or the link's legal entities, do not take it.
    OutOfScope,
    /// A plugin made rows of other maps of it.
    Mapped,
    /// A newer change of the row was applied already, or follows in the same delivery.
    Superseded,
    /// The target changed too, and its side wins.
    Yielded,
    Failed(Fault),
}

/// A lookup to another row of the same delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowReference {
    /// Column of the target table.
    pub column: usize,
    /// Index of the row that is referred to.
    pub row: usize,
}

/// A row and all that is known of it so far.
#[derive(Debug)]
pub struct RowWork {
    /// Position of the change in its delivery.
    pub change: usize,
    /// Index of the map.
    pub map: usize,
    /// Index of the source row that a table map's plugin made it of, or that it was put into.
    pub part_of: Option<usize>,
    pub operation: Operation,
    /// `None` until the key is known.
    pub key: Option<RowKey>,
    /// What stands for the key in messages when the key itself is not known.
    pub called: Option<String>,
    pub company: Option<String>,
    /// What the source says now, in the order of its schema; empty for a delete that carries only an id.
    pub source: Vec<Value>,
    pub source_id: Option<Uuid>,
    /// What identifies the row on its own side; `None` for an F&O row whose key says it.
    pub identity: Option<Identity>,
    /// Another row of its side had its key and is gone.
    pub takes_over: bool,
    pub source_version: Arc<str>,
    /// How this pair of rows was left.
    pub base: Option<CrossReference>,
    /// One value per field of the flow.
    pub fields: Vec<Value>,
    pub lookups: Vec<LookupKey>,
    /// What the target is to hold, one value per target column of the flow.
    pub values: Vec<Value>,
    /// Written beside `values`: columns of the target table that no field of the flow fills.
    pub extra: Vec<(usize, Value)>,
    /// Columns of the target table that may refer to several tables, and the entity set that each refers to here.
    pub sets: Vec<(usize, Arc<str>)>,
    /// More of `extra`, as soon as the id is known.
    pub references: Vec<RowReference>,
    /// The target row as it was read.
    pub current: Option<StoredRow>,
    /// Where the row is, or will be, on the target.
    pub address: Option<Address>,
    pub decision: Option<Decision>,
    /// Rows of the same delivery that come before it because it refers to them: the length of that chain.
    pub depth: u32,
    /// Comes before `depth` and the order of the maps, where a row refers to one of a later map.
    pub rank: u32,
    /// It was made of its key because this row refers to it.
    pub stands_in_for: Option<Arc<str>>,
    /// The target had changed too, since both were last in step.
    pub conflicting: bool,
    /// Times that the row was read again because the target had moved on.
    pub rereads: u8,
    /// The receipt of the change set that wrote it.
    pub receipt: Option<TransactionId>,
    /// The version that our write gave it.
    pub written_version: Option<Arc<str>>,
    /// The filter of its side does not take it as it is now.
    pub left_filter: bool,
    /// It left the filter, and its pair is to end.
    pub detached: bool,
    /// What a validator says about a row that was written all the same, or which reference it still lacks.
    pub complaint: Option<Fault>,
    /// `None` while the row is under way.
    pub fate: Option<RowFate>,
}

impl RowWork {
    #[must_use]
    pub fn new(change: usize, map: usize, operation: Operation) -> Self {
        Self {
            change,
            map,
            part_of: None,
            operation,
            key: None,
            called: None,
            company: None,
            source: Vec::new(),
            source_id: None,
            identity: None,
            takes_over: false,
            source_version: Arc::default(),
            base: None,
            fields: Vec::new(),
            lookups: Vec::new(),
            values: Vec::new(),
            extra: Vec::new(),
            sets: Vec::new(),
            references: Vec::new(),
            current: None,
            address: None,
            decision: None,
            depth: 0,
            rank: 0,
            stands_in_for: None,
            conflicting: false,
            rereads: 0,
            receipt: None,
            written_version: None,
            left_filter: false,
            detached: false,
            complaint: None,
            fate: None,
        }
    }

    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.fate.is_none()
    }

    pub fn fail(&mut self, fault: Fault) {
        self.fate = Some(RowFate::Failed(fault));
    }

    /// The key as people write it.
    #[must_use]
    pub fn readable_key(&self) -> String {
        match (&self.key, &self.called, self.source_id) {
            (Some(key), ..) => key.to_string(),
            (None, Some(called), _) if !called.is_empty() => called.clone(),
            (None, _, Some(id)) => id.to_string(),
            (None, _, None) => "(no key)".to_owned(),
        }
    }

    /// The name of the row's failed record; `None` where its key is not known.
    #[must_use]
    pub fn record_key(&self) -> Option<RowKey> {
        let own = || match &self.fate {
            Some(RowFate::Failed(fault)) if matches!(fault.code, Code::KeyAmbiguous | Code::Immutable) => {
                self.identity.as_ref().map(Identity::record_key)
            }
            _ => None,
        };
        self.key.clone().or_else(own)
    }

    /// What of `extra` the target does not hold.
    pub fn differing_extra<'a>(&'a self, target: &'a Schema) -> impl Iterator<Item = &'a (usize, Value)> {
        let current = self.current.as_ref();
        self.extra.iter().filter(move |(column, value)| {
            !value.is_absent() && current.is_none_or(|current| !same(target, *column, value, &current.values[*column]))
        })
    }

    /// The id of the target row, where rows have ids.
    #[must_use]
    pub const fn target_id(&self) -> Option<Uuid> {
        match &self.address {
            Some(Address::Id(id)) => Some(*id),
            _ => None,
        }
    }
}
