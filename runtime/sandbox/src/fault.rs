//! Why a call came to nothing: what happened, and whose doing it was.
//!
//! The code of a fault decides what becomes of the records; the kind says what happened in the sandbox's own words, so
//! that counters, breakers and replays need not read messages.

use std::time::Duration;

use dualwright_core::{Class, Fault, error::Code};

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    /// The guest trapped by itself: unreachable code, a division by zero, its stack.
    Trap,
    /// It used up its own time.
    OwnTime,
    /// The wall clock reached its bound while the guest's thread was kept from running.
    WallTime,
    /// The transaction's budget ended the call, or did not suffice to begin it.
    Budget,
    /// A call into the host took longer than those may.
    HostCall,
    /// Nobody waited for the answer any more.
    Cancelled,
    /// More memory than the instance may have.
    Memory,
    /// The tenant's other instances hold the memory that it needed.
    TenantMemory,
    /// Larger tables than the instance may have.
    Tables,
    /// More core instances, memories or tables in one component than it may have.
    Parts,
    /// The tenant's live instances are as many as they may be.
    TenantInstances,
    /// The tenant's calls that wait are as many as may wait.
    TenantQueue,
    /// It returned more at once than it may.
    Transfer,
    /// What it returned breaks a rule of the contract.
    Answer,
    /// It said itself that it failed.
    Failed,
    /// It asked to be called again later.
    RetryAfter,
    /// It refused its settings or columns.
    Refused,
    /// A value cannot cross to it, or a row is too large to.
    NotSent,
    /// The component is not what it has to be.
    Invalid,
    /// The engine, or the host, broke a rule of its own.
    Internal,
}

/// Whose doing it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Blame {
    Plugin,
    /// This runtime, or the machine that it runs on.
    Host,
    /// The tenant's plugins together.
    Tenant,
    /// The transaction, which had no time left.
    Transaction,
    Record,
    /// The installation's settings.
    Installation,
}

impl FaultKind {
    #[must_use]
    pub const fn blame(self) -> Blame {
        match self {
            Self::Trap
            | Self::OwnTime
            | Self::Memory
            | Self::Tables
            | Self::Parts
            | Self::Transfer
            | Self::Answer
            | Self::Failed
            | Self::RetryAfter => Blame::Plugin,
            Self::WallTime | Self::HostCall | Self::Internal => Blame::Host,
            Self::TenantMemory | Self::TenantInstances | Self::TenantQueue => Blame::Tenant,
            Self::Budget | Self::Cancelled => Blame::Transaction,
            Self::NotSent => Blame::Record,
            Self::Refused | Self::Invalid => Blame::Installation,
        }
    }

    pub(crate) const fn code(self) -> Code {
        match self {
            Self::Trap => Code::PluginTrapped,
            Self::OwnTime => Code::PluginTimedOut,
            Self::WallTime | Self::HostCall => Code::HostOverloaded,
            Self::Budget | Self::Cancelled => Code::BudgetSpent,
            Self::Memory | Self::Tables | Self::Parts => Code::PluginOverMemory,
            Self::TenantMemory | Self::TenantInstances | Self::TenantQueue => Code::TenantLimitReached,
            Self::Transfer | Self::Answer => Code::PluginBadOutput,
            Self::Failed | Self::RetryAfter => Code::PluginFailed,
            Self::Refused => Code::PluginRefused,
            Self::NotSent => Code::TooLarge,
            Self::Invalid => Code::PluginInvalid,
            Self::Internal => Code::Internal,
        }
    }

    pub(crate) fn fault(self, message: impl Into<String>) -> CallFault {
        CallFault { kind: self, fault: Fault::new(self.code(), message), retry_after: None }
    }
}

/// The call as a whole came to nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct CallFault {
    pub kind: FaultKind,
    pub fault: Fault,
    /// The plugin asks for the same rows again after that time.
    pub retry_after: Option<Duration>,
}

impl CallFault {
    /// Whose doing it was.
    #[must_use]
    pub const fn blame(&self) -> Blame {
        self.kind.blame()
    }

    /// What is left where nobody asks for more than what becomes of the records.
    pub(crate) fn into_fault(self) -> Fault {
        self.fault
    }

    /// A fault of a record, with the code that says what is wrong with it.
    pub(crate) fn not_sent(fault: Fault) -> Self {
        Self { kind: FaultKind::NotSent, fault, retry_after: None }
    }
}

impl std::fmt::Display for CallFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.fault.fmt(f)
    }
}

/// Whether the plugin is to be counted as having failed: its policy decides what becomes of the records.
pub(crate) fn is_of_plugin(fault: &CallFault) -> bool {
    fault.fault.class() == Class::PluginFault
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [FaultKind; 20] = [
        FaultKind::Trap,
        FaultKind::OwnTime,
        FaultKind::WallTime,
        FaultKind::Budget,
        FaultKind::HostCall,
        FaultKind::Cancelled,
        FaultKind::Memory,
        FaultKind::TenantMemory,
        FaultKind::Tables,
        FaultKind::Parts,
        FaultKind::TenantInstances,
        FaultKind::TenantQueue,
        FaultKind::Transfer,
        FaultKind::Answer,
        FaultKind::Failed,
        FaultKind::RetryAfter,
        FaultKind::Refused,
        FaultKind::NotSent,
        FaultKind::Invalid,
        FaultKind::Internal,
    ];

    #[test]
    fn what_becomes_of_records_agrees_with_the_blame() {
        for kind in ALL {
            let wanted = match kind.blame() {
                Blame::Plugin => Class::PluginFault,
                Blame::Host | Blame::Tenant | Blame::Transaction => Class::Transient,
                Blame::Record => Class::Rejected,
                Blame::Installation => Class::Misconfigured,
            };
            assert_eq!(kind.code().class(), wanted, "{kind:?}");
        }
    }
}
