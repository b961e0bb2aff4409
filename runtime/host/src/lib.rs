//! The program: configuration, connectors, store, pipeline, engine and command line.

pub mod catalogue;
pub mod cli;
pub mod config;
pub mod connect;
pub mod demo;
pub mod engine;
pub mod pipeline;
pub mod report;
pub mod setup;
pub mod store;
