//! dualwright-emulator
