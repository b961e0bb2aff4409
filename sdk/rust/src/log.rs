//! Lines in the host's log, beside the plugin's name and the transaction.
//!
//! At most 64 lines of 1 KiB per call. Write no field values and no secrets. On the host target (unit tests) a line goes
//! to standard error.

use crate::bindings::log::Level;

pub fn debug(message: &str) {
    write(Level::Debug, message);
}

pub fn info(message: &str) {
    write(Level::Info, message);
}

pub fn warn(message: &str) {
    write(Level::Warn, message);
}

pub fn error(message: &str) {
    write(Level::Error, message);
}

fn write(level: Level, message: &str) {
    #[cfg(target_arch = "wasm32")]
    crate::bindings::log::log(level, message);
    #[cfg(not(target_arch = "wasm32"))]
    eprintln!("{level:?}: {message}");
}
