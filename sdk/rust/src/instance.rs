//! What an instance keeps between `configure` and the calls: the tables and the plugin's state.

use std::cell::RefCell;
use std::rc::Rc;

use crate::bindings::types::{CallError, Refusal, Schema, Setting, System};
use crate::settings::{Input, Settings, State, Tables};

/// A configured instance.
#[derive(Debug)]
pub struct Configured<S> {
    pub tables: Tables,
    pub state: S,
}

/// Where [`plugin!`](crate::plugin) keeps it: one per exported interface, since each is configured on its own.
#[derive(Debug)]
pub struct Instance<S>(RefCell<Option<Rc<Configured<S>>>>);

impl<S> Default for Instance<S> {
    fn default() -> Self {
        Self(RefCell::new(None))
    }
}

impl<S: State> Instance<S> {
    /// Reads the settings and prepares the state; `check` is what the extension point itself wants of the tables.
    ///
    /// # Errors
    /// When the settings or the tables do not do.
    pub fn configure(
        &self,
        source: Schema,
        targets: Vec<Schema>,
        settings: &[Setting],
        check: fn(&Tables) -> Vec<Refusal>,
    ) -> Result<(), Vec<Refusal>> {
        let tables = Tables { source, targets };
        let mut refusals = check(&tables);
        let state =
            S::Settings::read(&Input { tables: &tables, settings }).and_then(|settings| S::prepare(settings, &tables));
        match state {
            Ok(state) if refusals.is_empty() => {
                *self.0.borrow_mut() = Some(Rc::new(Configured { tables, state }));
                Ok(())
            }
            Ok(_) => Err(refusals),
            Err(more) => {
                refusals.extend(more);
                Err(refusals)
            }
        }
    }

    /// What was configured.
    ///
    /// # Errors
    /// When nothing was: the host called in another order than the contract says.
    pub fn get(&self) -> Result<Rc<Configured<S>>, CallError> {
        self.0.borrow().clone().ok_or_else(|| CallError::Failed("called before it was configured".to_owned()))
    }
}

/// For extension points that want nothing special of the tables.
#[must_use]
pub fn no_check(_: &Tables) -> Vec<Refusal> {
    Vec::new()
}

/// The state for declaring maps, which happens before there are tables.
///
/// # Errors
/// When the settings do not do.
pub fn without_tables<S: State>(settings: &[Setting]) -> Result<S, Vec<Refusal>> {
    let source = Schema {
        system: System::Finops,
        table: String::new(),
        set: String::new(),
        columns: vec![],
        extensions: vec![],
    };
    let tables = Tables { source, targets: Vec::new() };
    S::prepare(S::Settings::read(&Input { tables: &tables, settings })?, &tables)
}
