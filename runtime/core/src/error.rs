//! What went wrong, to which record, and what happens next.
//!
//! Every failure has a [`Class`] that decides its fate and a stable [`Code`] that documentation and tests name. The
//! table of codes is here and nowhere else.

use std::fmt;

/// What happens next with a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// Nothing is wrong with the record: the same attempt may succeed later. Retried.
    Transient,
    /// The record is wrong for this target. Kept in the error queue until someone corrects it.
    Rejected,
    /// A map, a setting or a grant is wrong: retrying any record is useless until it is corrected. The map pauses.
    Misconfigured,
    /// The plugin is at fault. Its policy decides.
    PluginFault,
}

macro_rules! codes {
    ($($name:ident = $number:literal, $class:ident, $title:literal, $remedy:literal;)*) => {
        /// A stable code, written `DW-nnnn`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u16)]
        pub enum Code { $(#[doc = $title] $name = $number,)* }

        impl Code {
            /// Every code, in the order of its number.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// What becomes of a record that fails with this code.
            #[must_use]
            pub const fn class(self) -> Class {
                match self { $(Self::$name => Class::$class,)* }
            }

            /// One line that says what happened.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)* }
            }

            /// What a person does about it.
            #[must_use]
            pub const fn remedy(self) -> &'static str {
                match self { $(Self::$name => $remedy,)* }
            }
        }
    };
}

codes! {
    RequiredMissing = 1001, Rejected, "a required column has no value", "fill the column at the source, or give the field mapping a Default transform";
    TextTooLong = 1002, Rejected, "a text is longer than the target column", "shorten the text at the source, or bind a Truncate transform";
    NumberOutOfRange = 1003, Rejected, "a number does not fit the target column", "correct the number at the source";
    WrongType = 1004, Rejected, "a value has the wrong type for the target column", "correct the value at the source, or map the column to one of a matching type";
    ValueNotMapped = 1005, Rejected, "a value map has no entry for the value", "add the value to the map's value map, or give it a default";
    LookupNotFound = 1006, Rejected, "a lookup found no row", "create the referenced row, or correct the key that refers to it, then retry";
    KeyEmpty = 1007, Rejected, "a key column has no value", "fill the key at the source";
    CompanyUnknown = 1008, Rejected, "the company of the row is not part of the link", "add the legal entity to the link, or correct the company of the row";
    KeyAmbiguous = 1009, Rejected, "another row of the source has the same integration key", "correct the key of this row or delete one of the two, or widen the map's integration key; then retry";
    Immutable = 1010, Rejected, "a key or company column changed", "set the key back, or delete the row and create a new one";
    TextInvalid = 1011, Rejected, "a text holds characters that the target does not store", "remove control characters at the source";
    OptionUnknown = 1012, Rejected, "a choice has no such option", "add the option to the target column, or map the value with a value map";
    LookupRefused = 1013, Rejected, "a lookup found no row, and the map does not wait for one", "create the referenced row, or correct the key that refers to it, then retry; or let the map hold such rows";
    PluginRejected = 1101, Rejected, "a plugin rejected the record", "see the plugin's own code, correct the record at the source, then retry";
    StoredDiffers = 1102, Rejected, "the target stored something else than was sent", "look for server logic on the target that changes the column";
    TargetRejected = 1201, Rejected, "the target rejected the record", "see the target's own code, correct the record at the source, then retry";
    TransactionRolledBack = 1202, Rejected, "another record of the same transaction failed", "correct the record that failed; the whole transaction is then retried";
    DuplicateKey = 1203, Transient, "the target already has a row with this key", "wait: the row is read again and updated";
    VersionConflict = 1204, Transient, "the target row changed since it was read", "wait: the row is read again";
    TargetGone = 1206, Transient, "the target row is not there any more", "wait: the row is read again";
    Throttled = 2001, Transient, "the target asked to slow down", "wait: it is tried again when the target allows";
    Unavailable = 2002, Transient, "the target did not answer or reported a server error", "wait: it is tried again; if this lasts, see whether the target runs and can be reached";
    TimedOut = 2003, Transient, "the target did not answer in time", "wait: the outcome is looked up before anything is sent again";
    BudgetSpent = 2004, Transient, "the transaction's time budget is spent", "wait: it is tried again with a new budget; if this lasts, split the transaction at the source";
    HostOverloaded = 2005, Transient, "the machine kept a plugin from running", "wait: it is tried again; if this lasts, give the host more cores or fewer links";
    TenantLimitReached = 2006, Transient, "the tenant's plugins hold all that the tenant may have", "wait: it is tried again; if this lasts, raise the limits of the tenant";
    Unauthorized = 3001, Misconfigured, "the target refused our credentials", "renew the secret or give the application user its role";
    TableUnknown = 3002, Misconfigured, "a table or column is unknown to the system", "correct the name in the map, or refresh the tables";
    MapInvalid = 3003, Misconfigured, "the table map is not valid", "run `dualwright map check` and correct what it names";
    ConfigInvalid = 3004, Misconfigured, "the configuration is not valid", "correct the setting that is named";
    TargetIncapable = 3005, Misconfigured, "the system lacks something the link needs", "see `dualwright link test`; `dualwright link create` makes the tables that Dataverse lacks";
    TooLarge = 3006, Rejected, "the transaction is larger than the target accepts", "split the transaction at the source";
    PluginTrapped = 4001, PluginFault, "a plugin trapped", "send the plugin's author the recorded call";
    PluginTimedOut = 4002, PluginFault, "a plugin ran past its hard limit", "raise the limit, or send the plugin's author the recorded call";
    PluginOverMemory = 4003, PluginFault, "a plugin needed more memory than it may have", "raise the limit, or send the plugin's author the recorded call";
    PluginBadOutput = 4004, PluginFault, "a plugin returned something it may not", "send the plugin's author the recorded call";
    PluginRefused = 4005, Misconfigured, "a plugin refused its settings or columns", "correct the plugin's settings";
    PluginFailed = 4006, PluginFault, "a plugin reported a failure", "see the plugin's message";
    PluginInvalid = 4007, Misconfigured, "a file is not a plugin that this host accepts", "build it against the published WIT packages";
    StoreFailed = 5001, Transient, "the store could not commit", "free disk space or correct the permissions of the state folder";
    Internal = 5002, Transient, "the runtime broke one of its own rules", "report this with the log";
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DW-{:04}", *self as u16)
    }
}

impl serde::Serialize for Code {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A failure, with what is known about it. Holds names and keys, never the value of a field.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Fault {
    pub code: Code,
    /// What happened here, in one sentence without the code.
    pub message: String,
    /// The column concerned, by its name on the system named in the message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
    /// The remote's, the plugin's or the DIPV code, kept beside ours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub foreign_code: Option<String>,
}

impl Fault {
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), column: None, foreign_code: None }
    }

    #[must_use]
    pub fn column(mut self, column: impl AsRef<str>) -> Self {
        self.column = Some(column.as_ref().to_owned());
        self
    }

    #[must_use]
    pub fn foreign(mut self, code: impl AsRef<str>) -> Self {
        self.foreign_code = Some(code.as_ref().to_owned());
        self
    }

    #[must_use]
    pub const fn class(&self) -> Class {
        self.code.class()
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)?;
        if let Some(column) = &self.column {
            write!(f, " [column {column}]")?;
        }
        if let Some(foreign) = &self.foreign_code {
            write!(f, " [{foreign}]")?;
        }
        Ok(())
    }
}

impl std::error::Error for Fault {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_ascending_and_documented() {
        for pair in Code::ALL.windows(2) {
            assert!((pair[0] as u16) < (pair[1] as u16), "{} before {}", pair[0], pair[1]);
        }
        for code in Code::ALL {
            assert!(!code.title().is_empty() && !code.remedy().is_empty());
        }
    }
}
