//! What the end-to-end tests share: both systems as emulators, the real program between them, and a small language of
//! columns for stories about records.
//!
//! Owns the set-up and the checks that hold for every story; knows nothing of how a record is carried over. Values are
//! written and read over HTTP, by a client that shares no code with the program's own connectors.

pub mod audit;
pub mod measure;
pub mod processes;
pub mod random;
pub mod scenario;
pub mod systems;
pub mod words;
pub mod world;
