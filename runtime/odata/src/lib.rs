//! dualwright-odata
