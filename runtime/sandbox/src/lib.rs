//! dualwright-sandbox
